"""The aggregate VAE's loss against NumPy float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import stats
from scipy.special import logsumexp

import avae_jax as av

from .test_losses import BANK, BATCH, CENTERS, LATENT, X_RECON, X, Z


def log_q64(z, centers, h, exclude=None):
    z, centers = z.astype(np.float64), centers.astype(np.float64)
    logits = -((z[:, None] - centers) ** 2).sum(-1) / (2 * h * h)
    count = np.full(len(z), len(centers))
    if exclude is not None:
        for row, column in enumerate(exclude):
            if column >= 0:
                logits[row, column] = -np.inf
                count[row] -= 1
    normalizer = z.shape[1] * (0.5 * math.log(2 * math.pi) + math.log(h))
    return logsumexp(logits, axis=1) - np.log(count) - normalizer


def test_codes_beyond_the_square_root_of_half_precision():
    z = jnp.full((1, 4), 300, jnp.float16)
    _, terms = av.losses.avae(X[:1], X[:1], z, z, bandwidth=0.5, beta=1.0)
    np.testing.assert_allclose(terms["log_p"], stats.norm.logpdf(300.0) * 4, rtol=1e-6)
    with pytest.raises(TypeError, match="z must be of a floating type, got int32"):
        av.losses.avae(X, X, Z.astype(int), BANK, bandwidth=0.5, beta=1.0)


@pytest.mark.parametrize("weight", ["nats", "log10", 0.3])
@pytest.mark.parametrize("tail", ["none", "official"])
def test_avae_against_float64(tail, weight):
    h, beta, max_cdf = 0.45, 3.0, 1 - 1e-2
    exclude = np.array([0, -1, 5, -1, -1, 39, -1], np.int32)
    loss, terms = av.losses.avae(
        X, X_RECON, Z, BANK, bandwidth=h, beta=beta, weight=weight, tail=tail,
        max_cdf=max_cdf if tail == "official" else None, exclude=exclude,
    )  # fmt: skip
    log_q = log_q64(Z, BANK, h, exclude)
    log_p = stats.norm.logpdf(Z.astype(np.float64)).sum(axis=1)
    # The authors' floor, in plain densities without the (2 pi)^(-l/2) that both of theirs lack.
    eps = math.exp(-stats.chi2.ppf(max_cdf, LATENT) / 2) * h**-LATENT
    tilde = np.exp(log_q) * (2 * math.pi) ** (LATENT / 2)
    in_tail = np.zeros(BATCH)
    if tail == "official":
        in_tail = tilde < eps
        tilde = tilde + eps
        assert 0 < in_tail.sum() < BATCH
    kl = np.log(tilde) - LATENT / 2 * math.log(2 * math.pi) - log_p
    number = {"nats": 1.0, "log10": 1 / math.log(10)}.get(weight, weight)
    want = ((X - X_RECON).astype(np.float64) ** 2).sum(axis=(1, 2, 3)) / beta + number * kl
    np.testing.assert_allclose(terms["log_q"], log_q, rtol=1e-5)
    np.testing.assert_allclose(terms["log_p"], log_p, rtol=1e-5)
    np.testing.assert_allclose(terms["kl"], kl, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(terms["tail"], in_tail)
    np.testing.assert_allclose(loss, want, rtol=1e-5)


def test_avae_gradients():
    def loss(x_recon, z):
        value, _ = av.losses.avae(
            X, x_recon, z, BANK, bandwidth=0.6, beta=2.0, tail="official", max_cdf=0.9
        )
        return value.sum()

    check_grads(loss, (jnp.asarray(X_RECON), jnp.asarray(Z)), order=1, modes=["rev"], rtol=2e-2)


def test_avae_gradient_in_z_against_float64():
    h = 0.6
    gradient = jax.grad(lambda z: av.losses.avae(X, X, z, BANK, bandwidth=h, beta=1.0)[0].sum())(
        jnp.asarray(Z)
    )
    z, c = Z.astype(np.float64), BANK.astype(np.float64)
    logits = -((z[:, None] - c) ** 2).sum(-1) / (2 * h * h)
    weights = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    want = (weights @ c - z) / h**2 + z
    np.testing.assert_allclose(gradient, want, rtol=1e-4, atol=1e-5)


def test_centers_carry_no_gradient():
    gradient = jax.grad(
        lambda c: av.losses.avae(X, X_RECON, Z, c, bandwidth=0.5, beta=1.0)[0].sum()
    )(jnp.asarray(BANK))
    assert not np.any(gradient)


def test_far_codes_are_pulled_back_exactly():
    far = jnp.full((1, 128), 30.0)
    gradient = jax.grad(
        lambda z: av.losses.avae(
            X[:1], X[:1], z, jnp.zeros((50, 128)), bandwidth=0.7, beta=1.0,
            tail="official", max_cdf=0.9,
        )[0].sum()
    )(far)  # fmt: skip
    # In the tail the density pushes no more and the prior's pull, z, is all that is left.
    np.testing.assert_allclose(gradient, far, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tail": "auto"}, "tail must be one of 'none', 'official', got 'auto'"),
        ({"tail": "official"}, "max_cdf must be a probability with tail='official'"),
        ({"max_cdf": 0.9}, "max_cdf must be None with tail='none', got 0.9"),
        ({"weight": "bits"}, "weight must be .* got 'bits'"),
        ({"beta": 0.0}, "beta must be finite and positive, got 0.0"),
        ({"bandwidth": np.ones(2)}, r"bandwidth must be one number, got shape \(2,\)"),
        ({"exclude": np.zeros(6, int)}, "exclude must have the batch of x, 7, got 6"),
        ({"log_p": np.zeros((7, 1))}, r"log_p must have shape \[batch\], got \(7, 1\)"),
        ({"log_weights": np.zeros(7)}, "log_weights must have the num_centers of centers, 40"),
        ({"centers": BANK[:, :4]}, "centers must have the latent_dim of z, 5, got 4"),
        ({"centers": BANK[0]}, r"centers must have shape .* give centers\[None\] for a single one"),
    ],
)
def test_avae_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        av.losses.avae(
            X, X_RECON, Z, **{"centers": BANK, "bandwidth": 0.5, "beta": 1.0, **arguments}
        )


def test_a_queue_that_is_not_yet_full():
    log_weights = np.where(np.arange(CENTERS) < 9, 0, -np.inf).astype(np.float32)
    given = {"bandwidth": 0.5, "beta": 1.0}
    loss, _ = av.losses.avae(
        X, X_RECON, Z, BANK, log_weights=log_weights, implementation="matrix", precision="high",
        **given,
    )  # fmt: skip
    want, _ = av.losses.avae(X, X_RECON, Z, BANK[:9], **given)
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    with pytest.raises(ValueError, match="precision"):
        av.losses.avae(X, X_RECON, Z, BANK, precision="low", **given)


def test_arrays_of_an_explicit_mesh_are_taken():
    mesh = jax.make_mesh((8,), ("a",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("a"))
    arrays = [np.concatenate([a, a[:1]]) for a in (X, X_RECON, Z)]
    args = jax.device_put((*arrays, BANK, np.zeros(CENTERS, np.float32)), rows)

    def loss(x, x_recon, z, centers, log_weights):
        options = {"bandwidth": 0.5, "beta": 2.0, "log_weights": log_weights}
        return jnp.sum(av.losses.avae(x, x_recon, z, centers, **options)[0])

    (value, gradients), (want, wanted) = (
        jax.jit(jax.value_and_grad(loss, (1, 2)))(*a)
        for a in (args, jax.tree.map(np.asarray, args))
    )
    np.testing.assert_allclose(value, want, rtol=1e-5)
    for gradient, expected in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)
        assert gradient.sharding.spec[0] == "a"
