import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax.metrics.collapse import active_units, relevance, relevance_spectrum


def _rotation(d):
    return np.linalg.qr(np.random.default_rng(9).standard_normal((d, d)))[0]


def test_active_units_counts_variances_above_the_threshold():
    z = np.random.default_rng(0).standard_normal((500, 6)) * [1.0, 0.5, 0.2, 0.05, 0.01, 0.0]
    assert active_units(z)["active_units"] == 3
    assert active_units(z, threshold=0.1)["active_units"] == 2
    assert active_units(z)["active_directions"] == 3


def test_rotated_collapse_shows_in_directions_only():
    z = np.random.default_rng(0).standard_normal((500, 6)) * [1.0, 1.0, 1.0, 0.01, 0.01, 0.01]
    result = active_units(z @ _rotation(6))
    assert result["active_units"] == result["active_units_null"] == 6
    assert result["active_directions"] == 3


def test_null_counts_are_those_of_prior_draws():
    rng = np.random.default_rng(0)
    # A threshold that prior draws of 10 codes cross two times in three.
    runs = [active_units(rng.standard_normal((10, 8)), threshold=0.8) for _ in range(400)]
    values = np.array([run["active_units"] for run in runs])
    std = runs[0]["active_units_null_std"]
    assert abs(values.mean() - runs[0]["active_units_null"]) < 5 * std / 20
    assert values.std(ddof=1) == pytest.approx(std, rel=0.2)
    few = active_units(rng.standard_normal((5, 8)))
    assert few["active_directions"] == few["active_directions_null"] == 4


def test_linear_decoder_has_the_eigenvalues_of_the_output_covariance():
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((5, 3, 4))
    z = rng.standard_normal((300, 5)) * [2.0, 1.0, 0.5, 0.1, 0.01]

    def decode(codes):
        return jnp.einsum("kd,dhw->khw", codes, jnp.asarray(matrix, jnp.float32))

    spectrum = relevance_spectrum(decode, z, num_codes=7)
    # For x = W z the nonzero eigenvalues of C^(1/2) W^T W C^(1/2) are those of Cov(x).
    output = np.einsum("kd,dp->kp", z, matrix.reshape(5, 12))
    expected = np.linalg.eigvalsh(np.cov(output, rowvar=False))[::-1][:5]
    np.testing.assert_allclose(spectrum.directions, expected, rtol=1e-4, atol=1e-4)
    gram = np.einsum("dp,ep->de", matrix.reshape(5, 12), matrix.reshape(5, 12))
    np.testing.assert_allclose(spectrum.sensitivity, gram, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(spectrum.axes, z.var(axis=0, ddof=1) * np.diagonal(gram), rtol=1e-5)
    # Steps of one standard deviation: they make up the covariance of the codes.
    steps = spectrum.displacements
    np.testing.assert_allclose(steps.T @ steps, np.cov(z, rowvar=False), atol=1e-10)
    total = relevance(decode, z, num_codes=7)["relevance_total"]
    assert total == pytest.approx(np.trace(np.cov(output, rowvar=False)), rel=1e-5)


def test_nonlinear_sensitivity_is_the_mean_over_the_codes():
    z = np.random.default_rng(0).standard_normal((40, 3))
    spectrum = relevance_spectrum(lambda codes: jnp.sin(codes * jnp.array([1.0, 2.0, 0.0])), z)
    jacobian = np.cos(z * [1.0, 2.0, 0.0]) * [1.0, 2.0, 0.0]
    expected = np.mean(jacobian**2, axis=0)
    np.testing.assert_allclose(np.diagonal(spectrum.sensitivity), expected, rtol=1e-5)
    np.testing.assert_allclose(spectrum.axes, z.var(axis=0, ddof=1) * expected, rtol=1e-5)


def test_directions_do_not_depend_on_the_rotation_and_axes_do():
    rng = np.random.default_rng(0)
    d, q = 8, _rotation(8)
    z = rng.standard_normal((200, d))
    # The decoder looks at 3 of 8 directions.
    matrix = np.diag([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]).astype(np.float32)
    rotated = (q.T @ matrix).astype(np.float32)
    plain = relevance(lambda codes: jnp.tanh(codes @ matrix), z)
    turned = relevance(lambda codes: jnp.tanh(codes @ rotated), z @ q)
    assert plain["relevant_directions"] == turned["relevant_directions"] == 3
    assert plain["relevant_axes"] == 3
    assert turned["relevant_axes"] > 3
    for name in ("relevance_effective_rank", "relevance_total"):
        assert turned[name] == pytest.approx(plain[name], rel=1e-4)


def test_collapsed_codes_against_the_null():
    z = np.random.default_rng(0).standard_normal((300, 6)) * [1.0, 1.0, 0.01, 0.01, 0.01, 0.01]
    result = relevance(lambda codes: codes, z)
    assert result["relevant_directions"] == 2
    assert result["relevant_directions_null"] == result["relevant_axes_null"] == 6
    assert result["relevance_effective_rank"] == pytest.approx(2.0, abs=0.05)
    assert result["relevance_effective_rank_null"] == pytest.approx(6.0)


@pytest.mark.parametrize("d", [1, 31, 32, 33])
def test_directions_go_through_in_blocks(d):
    z = np.random.default_rng(0).standard_normal((50, d))
    sensitivity = relevance_spectrum(lambda codes: 2.0 * codes, z, num_codes=2).sensitivity
    np.testing.assert_allclose(sensitivity, 4.0 * np.eye(d), rtol=1e-6)


def test_undefined_is_nan():
    one = active_units(np.ones((1, 3)))
    assert all(np.isnan(value) for value in one.values())
    alone = relevance(lambda codes: codes, np.ones((1, 3)))
    assert np.isnan(alone["relevant_directions"])
    assert np.isnan(alone["relevance_total"])
    constant = relevance(lambda codes: codes, np.ones((5, 3)))
    assert np.isnan(constant["relevant_directions"])
    assert np.isnan(constant["relevance_effective_rank"])
    assert constant["relevance_total"] == 0.0
    deaf = relevance(lambda codes: jnp.ones((len(codes), 4)), np.eye(3))
    assert np.isnan(deaf["relevant_directions"])
    assert np.isnan(deaf["relevant_axes_null"])
    assert active_units(np.ones((5, 3)))["active_units"] == 0


def test_bad_input_is_named():
    z = np.eye(3)
    with pytest.raises(TypeError, match="decode is None"):
        relevance(None, z)  # type: ignore
    with pytest.raises(ValueError, match="must keep the rows"):
        relevance(lambda codes: codes.sum(), z)
    with pytest.raises(ValueError, match="derivatives that are not finite"):
        relevance(lambda codes: jnp.sqrt(codes), z)
    with pytest.raises(ValueError, match="share must lie in"):
        relevance(lambda codes: codes, z, share=1.0)
    with pytest.raises(ValueError, match="num_codes must be an integer of at least .*, got 0"):
        relevance(lambda codes: codes, z, num_codes=0)
    with pytest.raises(ValueError, match="threshold must be finite and positive"):
        active_units(z, threshold=0.0)
    with pytest.raises(ValueError, match="z has 1 of 2 rows that are not finite"):
        active_units(np.array([[0.0], [np.nan]]))
