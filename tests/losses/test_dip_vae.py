"""DIP-VAE: squares of covariances without bias."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import avae_jax as av

RNG = np.random.default_rng(0)
X, X_RECON = RNG.random((2, 7, 4, 3, 1)).astype(np.float32)
LOC, LOG_VAR = RNG.standard_normal((2, 7, 3)).astype(np.float32)
MIXED = np.array([[1.2, 0.6, 0.0], [0.0, 0.9, -0.4], [0.0, 0.0, 1.1]])


DEPARTURES = jax.jit(av.losses.covariance_departures)


def by_definition(loc, log_var=None):
    """Return both sums in float64, as means over all ordered choices of different rows."""
    loc = loc.astype(np.float64)
    noise = np.zeros_like(loc) if log_var is None else np.exp(log_var.astype(np.float64))
    i, j, k, m = np.array(list(itertools.permutations(range(len(loc)), 4))).T
    left, right = loc[i] - loc[j], loc[k] - loc[m]
    one = 0.5 * left[:, :, None] * left[:, None, :]
    other = 0.5 * right[:, :, None] * right[:, None, :]
    squared = (one * other).mean(axis=0)
    off_diagonal = squared.sum() - np.trace(squared)
    variance, mean_noise = 0.5 * (left**2).mean(axis=0), noise.mean(axis=0)
    of_noise = (noise[i] * noise[j]).mean(axis=0)
    product = (noise[i] * 0.5 * right**2).mean(axis=0)
    diagonal = np.diag(squared) + of_noise + 2 * product - 2 * (variance + mean_noise) + 1
    return off_diagonal, diagonal.sum()


@pytest.mark.parametrize("log_var", [None, LOG_VAR], ids=["I", "II"])
@pytest.mark.parametrize("n", [4, 5, 7])
def test_it_is_the_mean_over_all_different_rows(n, log_var):
    log_var = None if log_var is None else log_var[:n]
    # Far from the origin, where sums of squares lose digits.
    got = DEPARTURES(LOC[:n] + 30, log_var)
    want = by_definition(LOC[:n], log_var)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", ["I", "II"])
def test_squares_have_no_bias(variant):
    """On average over batches they are those of the true covariance."""
    num_batches, n, d = 20_000, 6, 3
    rng = np.random.default_rng(1)
    loc = rng.standard_normal((num_batches, n, d)) @ MIXED
    # Variances that go with the means.
    log_var = np.log(0.3 + 0.2 * np.square(loc))
    given = (loc,) if variant == "I" else (loc, log_var)
    sums = jax.jit(jax.vmap(av.losses.covariance_departures))(*map(np.float32, given))
    covariance = MIXED.T @ MIXED
    if variant == "II":
        covariance = covariance + np.diag(0.3 + 0.2 * np.diag(covariance))
    departures = np.square(covariance - np.eye(d))
    want = departures.sum() - np.trace(departures), np.trace(departures)
    for got, expected in zip(sums, want, strict=True):
        got = np.asarray(got, np.float64)
        assert abs(got.mean() - expected) < 5 * got.std() / math.sqrt(num_batches)


def test_independent_codes_are_not_pushed():
    """Where the squares of the batch's own covariances are d (d - 1) / (B - 1)."""
    num_batches, n, d = 4_000, 10, 6
    z = np.random.default_rng(2).standard_normal((num_batches, n, d))
    off_diagonal, diagonal = (
        np.asarray(a, np.float64)
        for a in jax.jit(jax.vmap(av.losses.covariance_departures))(np.float32(z))
    )
    for found in (off_diagonal, diagonal):
        assert abs(found.mean()) < 5 * found.std() / math.sqrt(num_batches)
    centered = z - z.mean(axis=1, keepdims=True)
    own = np.square(np.einsum("bni,bnj->bij", centered, centered) / (n - 1))
    plug_in = own.sum(axis=(1, 2)) - np.trace(own, axis1=1, axis2=2)
    error = plug_in.std() / math.sqrt(num_batches)
    assert abs(plug_in.mean() - d * (d - 1) / (n - 1)) < 5 * error
    assert plug_in.mean() > 20 * error


@pytest.mark.parametrize("variant", ["I", "II"])
def test_it_is_the_bound_plus_the_penalties(variant):
    options = {"likelihood": "bernoulli"}
    dip_vae = functools.partial(
        av.losses.dip_vae, lambda_od=3.0, lambda_d=7.0, variant=variant, **options
    )
    loss, terms = jax.jit(dip_vae)(X, X_RECON, LOC, LOG_VAR)
    bound, of_bound = av.losses.elbo(X, X_RECON, LOC, LOG_VAR, **options)
    off_diagonal, diagonal = by_definition(LOC, LOG_VAR if variant == "II" else None)
    assert terms.keys() == of_bound.keys() | {"off_diagonal", "diagonal"}
    np.testing.assert_allclose(terms["off_diagonal"], off_diagonal, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(terms["diagonal"], diagonal, rtol=1e-4, atol=1e-5)
    want = np.asarray(bound, np.float64) + 3 * off_diagonal + 7 * diagonal
    np.testing.assert_allclose(loss, want, rtol=1e-5)


GRADIENTS = jax.jit(
    jax.grad(
        lambda loc, log_var, mask: sum(av.losses.covariance_departures(loc, log_var, mask=mask)),
        argnums=(0, 1),
    )
)


def test_gradients():
    def sums(loc, log_var):
        return av.losses.covariance_departures(loc, log_var, mask=np.array([1, 1, 0, 1, 1, 1, 1]))

    with jax.enable_x64(True):
        check_grads(jax.jit(sums), [jnp.asarray(a, jnp.float64) for a in (LOC, LOG_VAR)], order=1)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_rows_say_nothing(count):
    mask = np.arange(7) < count
    np.testing.assert_array_equal(DEPARTURES(LOC, LOG_VAR, mask=mask), [0, 0])
    for gradient in GRADIENTS(LOC, LOG_VAR, mask):
        np.testing.assert_array_equal(gradient, np.zeros_like(LOC))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: av.losses.covariance_departures(LOC, LOG_VAR[:, :2]),
            "log_var must have the shape of loc",
        ),
        (lambda: av.losses.covariance_departures(LOC[0]), r"loc must have .* give loc\[None\]"),
        (
            lambda: av.losses.dip_vae(
                X, X, LOC, LOG_VAR, lambda_od=1.0, lambda_d=1.0, variant="III"
            ),
            "variant must be one of 'I', 'II', got 'III': choose one of these",
        ),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
