import numpy as np
import pytest

from avae_jax.metrics import reconstruction_error


def test_known_errors_in_both_ranges():
    x = np.zeros((3, 4, 4, 1))
    unit = reconstruction_error(x, x + 0.1)
    assert unit["mse"] == pytest.approx(0.01)
    assert unit["sse"] == pytest.approx(0.16)
    assert unit["psnr"] == pytest.approx(20.0)
    # The same pictures in [-1, 1] differ by .2 per pixel: 4 times the native squares, equal mse.
    signed = reconstruction_error(2 * x - 1, 2 * (x + 0.1) - 1, value_range=(-1.0, 1.0))
    assert signed["mse"] == pytest.approx(0.01)
    assert signed["sse"] == pytest.approx(0.64)


def test_null_is_the_error_of_the_mean_image(rng):
    x = rng.uniform(size=(50, 6)).astype(np.float32)
    errors = reconstruction_error(x, np.broadcast_to(x.mean(axis=0), x.shape))
    assert errors["mse"] == pytest.approx(errors["mse_null"], rel=1e-6)
    assert errors["mse_null"] == pytest.approx(np.var(x.astype(np.float64), axis=0).mean())


def test_errors_over_the_images(rng):
    x, x_recon = rng.uniform(size=(2, 40, 6))
    errors = reconstruction_error(2 * x - 1, 2 * x_recon - 1, value_range=(-1.0, 1.0))
    per_image = np.sum((2 * x - 2 * x_recon) ** 2, axis=1)
    assert errors["sse_stderr"] == pytest.approx(per_image.std(ddof=1) / np.sqrt(40))
    assert errors["mse_stderr"] == pytest.approx(errors["sse_stderr"] / 24)
    # The derivative of the PSNR by the mean squared error.
    low, high = (-10 * np.log10(errors["mse"] + s * 1e-6) for s in (1, -1))
    assert errors["psnr_stderr"] == pytest.approx((high - low) / 2e-6 * errors["mse_stderr"])
    assert errors["psnr_null"] == pytest.approx(-10 * np.log10(errors["mse_null"]))
    assert errors["sse_null"] == pytest.approx(24 * errors["mse_null"])
    assert np.isnan(reconstruction_error(x[:1], x_recon[:1])["psnr_stderr"])


def test_unbounded_data_has_no_psnr(rng):
    x = rng.standard_normal((5, 3)) * 10
    errors = reconstruction_error(x, x + 1.0, value_range=None)
    assert "psnr" not in errors
    assert errors["mse"] == pytest.approx(1.0)


def test_perfect_and_broken_reconstructions():
    x = np.full((2, 3), 0.5)
    assert reconstruction_error(x, x)["psnr"] == np.inf
    assert np.isnan(reconstruction_error(x, x * np.nan)["mse"])


@pytest.mark.parametrize(
    ("x", "x_recon", "value_range", "message"),
    [
        (np.zeros((2, 3)), np.zeros((2, 4)), (0, 1), "x_recon must have the shape of x"),
        (np.zeros((0, 3)), np.zeros((0, 3)), (0, 1), "n >= 1"),
        (np.zeros(3), np.zeros(3), (0, 1), r"\[n, \.\.\.\]"),
        (np.zeros((2, 3)), np.zeros((2, 3)), (1, 1), "low < high"),
        (
            np.full((2, 3), 255, np.uint8),
            np.zeros((2, 3)),
            (0, 1),
            "got .255, 255.: scale x",
        ),
    ],
)
def test_bad_input_is_named(x, x_recon, value_range, message):
    with pytest.raises(ValueError, match=message):
        reconstruction_error(x, x_recon, value_range=value_range)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
