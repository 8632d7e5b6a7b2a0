import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from avae_jax.numerics import logmeanexp, logsumexp, promoted


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(scale=30.0, size=(5, 7)).astype(np.float32)


@pytest.mark.parametrize("axis", [0, -1, None, (0, 1)])
def test_logsumexp_agrees_with_scipy(logits, axis):
    expected = scipy.special.logsumexp(logits.astype(np.float64), axis=axis)
    np.testing.assert_allclose(logsumexp(logits, axis=axis), expected, rtol=1e-6)


def test_masked_entries_do_not_count(logits):
    where = np.random.default_rng(1).random(logits.shape) < 0.5
    where[:, 0] = True
    spoiled = np.where(where, logits, np.nan)
    masked = np.where(where, logits, -np.inf).astype(np.float64)
    expected = scipy.special.logsumexp(masked, axis=1)
    np.testing.assert_allclose(logsumexp(spoiled, where=where), expected, rtol=1e-6)
    counts = np.log(where.sum(axis=1))
    np.testing.assert_allclose(logmeanexp(spoiled, where=where), expected - counts, rtol=1e-6)


@pytest.mark.parametrize("fn", [logsumexp, logmeanexp])
def test_all_masked_is_minus_infinity_with_zero_gradient(fn):
    a = jnp.array([[1.0, jnp.nan], [-jnp.inf, 2.0], [-jnp.inf, -jnp.inf]])
    where = jnp.array([[False, False], [True, True], [True, True]])

    def total(a):
        value = fn(a, where=where)
        return jnp.sum(jnp.where(jnp.isfinite(value), value, 0.0)), value

    gradient, value = jax.grad(total, has_aux=True)(a)
    assert value[0] == value[2] == -jnp.inf
    np.testing.assert_allclose(value[1], 2.0 if fn is logsumexp else 2.0 - np.log(2.0), rtol=1e-6)
    np.testing.assert_array_equal(gradient, [[0.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    # Not even a gradient that arrives directly at the -inf makes a NaN.
    np.testing.assert_array_equal(jax.grad(lambda a: fn(a, where=where)[0])(a), np.zeros((3, 2)))


def test_gradient_is_the_softmax(logits):
    gradient = jax.grad(lambda a: jnp.sum(logsumexp(a)))(jnp.asarray(logits))
    expected = scipy.special.softmax(logits.astype(np.float64), axis=-1)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_infinite_and_nan_entries_stay_visible():
    assert logsumexp(jnp.array([1.0, jnp.inf])) == jnp.inf
    assert jnp.isnan(logsumexp(jnp.array([1.0, jnp.nan])))


def test_logmeanexp_counts_entries_of_probability_zero():
    value = logmeanexp(jnp.array([0.0, -jnp.inf]))
    np.testing.assert_allclose(value, -np.log(2.0), rtol=1e-6)


@pytest.mark.parametrize("x64", [False, True])
def test_what_is_computed_with_has_single_precision_at_least(x64):
    with jax.enable_x64(x64):
        half = jnp.zeros(2, jnp.bfloat16)
        a, nothing, b = promoted(a=np.uint8([200]), nothing=None, b=half)
        assert (a.dtype, nothing, b.dtype) == (jnp.float32, None, jnp.float32)
        assert float(a[0]) == 200
        # A Python number has the type of the arrays beside it; alone, that of the mode.
        assert promoted(a=0.1, b=half)[0].dtype == jnp.float32
        wide = jnp.float64 if x64 else jnp.float32
        assert [a.dtype for a in promoted(a=half, b=np.zeros(2))] == [wide, wide]
        assert promoted(a=0.1)[0].dtype == wide
    with pytest.raises(TypeError, match="a must hold real numbers, got complex64"):
        promoted(a=jnp.zeros(1, complex))
