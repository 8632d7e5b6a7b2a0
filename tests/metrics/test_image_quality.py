import numpy as np
import pytest

from avae_jax.metrics.image_quality import structural_similarity


def naive_ssim(x, y, width, window=11):
    """Return the SSIM of one grey image pair, window by window."""
    half = window // 2
    weights = np.array(
        [
            [np.exp(-(i * i + j * j) / (2 * 1.5**2)) for j in range(-half, half + 1)]
            for i in range(-half, half + 1)
        ]
    )
    weights /= weights.sum()
    c1, c2 = (0.01 * width) ** 2, (0.03 * width) ** 2
    values = []
    for i in range(x.shape[0] - window + 1):
        for j in range(x.shape[1] - window + 1):
            a, b = x[i : i + window, j : j + window], y[i : i + window, j : j + window]
            ma, mb = np.sum(weights * a), np.sum(weights * b)
            va, vb = np.sum(weights * (a - ma) ** 2), np.sum(weights * (b - mb) ** 2)
            cov = np.sum(weights * (a - ma) * (b - mb))
            values.append(
                (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
            )
    return np.mean(values)


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((3, 16, 13, 1), 11),
        ((2, 11, 14, 3), 11),
        ((2, 10, 12, 1), 9),
        ((2, 7, 7, 2), 7),
        ((1, 1, 5, 1), 1),
    ],
)
def test_equals_a_naive_loop(shape, window):
    rng = np.random.default_rng(0)
    x = rng.uniform(size=shape)
    y = np.clip(x + 0.2 * rng.standard_normal(shape), 0.0, 1.0)
    per_image = [
        np.mean([naive_ssim(a[..., c], b[..., c], 1.0, window) for c in range(shape[3])])
        for a, b in zip(x, y, strict=True)
    ]
    result = structural_similarity(x, y)
    assert result["ssim"] == pytest.approx(np.mean(per_image), abs=1e-10)
    null = np.mean(
        [naive_ssim(a[..., c], x.mean(0)[..., c], 1.0, window) for a in x for c in range(shape[3])]
    )
    assert result["ssim_null"] == pytest.approx(null, abs=1e-10)
    if shape[0] > 1:
        stderr = np.std(per_image, ddof=1) / np.sqrt(shape[0])
        assert result["ssim_stderr"] == pytest.approx(stderr, abs=1e-10)
    else:
        assert np.isnan(result["ssim_stderr"])


def test_value_range_changes_units_only():
    rng = np.random.default_rng(1)
    x, y = rng.uniform(size=(2, 4, 12, 12, 1))
    expected = structural_similarity(x, y)
    signed = structural_similarity(2.0 * x - 1.0, 2.0 * y - 1.0, value_range=(-1.0, 1.0))
    assert signed == pytest.approx(expected, abs=1e-12)
    grey = naive_ssim(255.0 * x[0, ..., 0], 255.0 * y[0, ..., 0], 255.0)
    scaled = structural_similarity(255.0 * x[:1], 255.0 * y[:1], value_range=(0.0, 255.0))
    assert scaled["ssim"] == pytest.approx(grey, abs=1e-10)


def test_known_values():
    x = np.random.default_rng(2).uniform(size=(3, 12, 12, 1))
    assert structural_similarity(x, x)["ssim"] == pytest.approx(1.0, abs=1e-12)
    # Constant images: only the luminance term is left.
    black, white = np.zeros((2, 12, 12, 1)), np.ones((2, 12, 12, 1))
    expected = 0.01**2 / (1.0 + 0.01**2)
    assert structural_similarity(black, white)["ssim"] == pytest.approx(expected, rel=1e-9)
    noisy = structural_similarity(x, np.clip(x + 0.05, 0, 1))["ssim"]
    assert noisy > structural_similarity(x, np.clip(x + 0.2, 0, 1))["ssim"] > 0.5


def test_blocks_do_not_change_the_result(monkeypatch):
    x, y = np.random.default_rng(3).uniform(size=(2, 7, 12, 12, 1))
    expected = structural_similarity(x, y)
    monkeypatch.setattr("avae_jax.metrics.image_quality._PIXELS", 300)
    assert structural_similarity(x, y) == pytest.approx(expected, abs=1e-14)


def test_integer_images_and_nan():
    x = np.arange(2 * 12 * 12).reshape(2, 12, 12, 1).astype(np.uint8)
    assert structural_similarity(x, x, value_range=(0, 255))["ssim"] == pytest.approx(1.0)
    broken = x.astype(float)
    broken[0, 0, 0, 0] = np.nan
    assert np.isnan(structural_similarity(x, broken, value_range=(0, 255))["ssim"])


def test_bad_input_is_named():
    x = np.zeros((2, 12, 12, 1))
    with pytest.raises(ValueError, match="x_recon must have the shape of x"):
        structural_similarity(x, x[:1])
    with pytest.raises(ValueError, match="x must have shape"):
        structural_similarity(x[..., 0], x[..., 0])
    with pytest.raises(ValueError, match="x must have shape"):
        structural_similarity(x[:0], x[:0])
    with pytest.raises(ValueError, match="low < high"):
        structural_similarity(x, x, value_range=(1.0, 1.0))
    with pytest.raises(ValueError, match="x must lie in value_range"):
        structural_similarity(x - 1.0, x)
    with pytest.raises(ValueError, match="x must lie in value_range"):
        structural_similarity(x * np.nan, x)
