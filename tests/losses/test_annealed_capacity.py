"""The capacity of the KL: what is held at it is the mean of the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import avae_jax as av

RNG = np.random.default_rng(0)
X, X_RECON = RNG.random((2, 7, 4, 3, 1)).astype(np.float32)
LOC, LOG_VAR = RNG.standard_normal((2, 7, 5)).astype(np.float32)
KL = 0.5 * (LOC.astype(np.float64) ** 2 + np.exp(np.float64(LOG_VAR)) - 1 - LOG_VAR).sum(axis=1)


@pytest.mark.parametrize("capacity", [0.5, 20.0])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_it_is_the_likelihood_plus_gamma_gaps(capacity, likelihood):
    options = {"likelihood": likelihood, "noise_scale": 0.7}
    loss, terms = av.losses.annealed_capacity(
        X, X_RECON, LOC, LOG_VAR, gamma=6.4, capacity=capacity, **options
    )
    _, of_bound = av.losses.elbo(X, X_RECON, LOC, LOG_VAR, **options)
    gap = abs(KL.mean() - capacity)
    np.testing.assert_allclose(terms["capacity_gap"], gap, rtol=1e-5)
    np.testing.assert_allclose(loss, np.asarray(of_bound["nll"], np.float64) + 6.4 * gap, rtol=1e-5)
    assert terms.keys() == of_bound.keys() | {"capacity_gap"}


def test_the_mean_stands_inside_the_absolute_value():
    kl = np.array([1.0, 5.0, 9.0])
    assert float(av.losses.capacity_gap(kl, capacity=5.0)) == 0
    # Of each image it would be 8 / 3.
    assert float(av.losses.capacity_gap(kl, capacity=5.0, mask=np.array([1, 1, 0]))) == 2


def test_the_gradient_changes_its_sign_at_the_capacity():
    def gap(loc, capacity):
        kl = av.losses.gaussian_kl(loc, LOG_VAR)
        return av.losses.capacity_gap(kl, capacity=capacity)

    slope = jax.jit(jax.grad(gap))
    for factor, sign in ((0.99, 1), (1.01, -1)):
        gradient = slope(jnp.asarray(LOC), jnp.float32(factor * KL.mean()))
        np.testing.assert_allclose(gradient, sign * LOC / 7, rtol=1e-5)


def test_gradients():
    def loss(x_recon, loc, log_var):
        return av.losses.annealed_capacity(
            X, x_recon, loc, log_var, gamma=3.0, capacity=1.0, noise_scale=0.7
        )[0]

    with jax.enable_x64(True):
        arguments = [jnp.asarray(a, jnp.float64) for a in (X_RECON, LOC, LOG_VAR)]
        check_grads(jax.jit(loss), arguments, order=1)


def test_no_row_counts():
    assert float(av.losses.capacity_gap(KL, capacity=3.0, mask=np.zeros(7))) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: av.losses.capacity_gap(LOC, capacity=1.0), r"kl must have shape \[batch\]"),
        (
            lambda: av.losses.capacity_gap(KL, capacity=np.ones(7)),
            r"capacity must be one number, got shape \(7,\): give one",
        ),
        (
            lambda: av.losses.capacity_gap(KL, capacity=1.0, mask=np.ones(3)),
            "mask must have the batch of kl, 7, got 3",
        ),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
