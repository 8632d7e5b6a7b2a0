"""The polynomial exponential against NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax.kernels.pairwise_lse.exponential import polynomial_exp, stored_exp


@pytest.mark.parametrize("exp", [polynomial_exp, stored_exp])
def test_error_is_below_a_quarter_of_a_millionth(exp):
    z = np.linspace(-87.0, 88.0, 2_000_001).astype(np.float32)
    actual = np.asarray(jax.jit(exp)(z), np.float64)
    assert np.max(np.abs(actual / np.exp(z.astype(np.float64)) - 1)) <= 2.0**-22


def test_edges():
    z = np.array([0.0, -87.01, -1e4, -1e38, -np.inf, 88.01, 1e38, np.inf, np.nan], np.float32)
    actual = np.asarray(jax.jit(polynomial_exp)(z))
    np.testing.assert_array_equal(actual[:5], [1.0, 0.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(actual[5:8], np.exp(88.0), rtol=1e-6)
    assert np.isnan(actual[8])


def test_float64_is_left_to_the_library():
    with jax.enable_x64(True):
        z = jnp.linspace(-700.0, 0.0, 1001)
        np.testing.assert_allclose(stored_exp(z), np.exp(np.asarray(z)), rtol=1e-14)
