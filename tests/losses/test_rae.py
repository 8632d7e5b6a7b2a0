"""The regularized autoencoder's loss and its penalties, against the Jacobian."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import avae_jax as av

RNG = np.random.default_rng(0)
X, X_RECON = RNG.random((2, 7, 4, 3, 1)).astype(np.float32)
Z = RNG.standard_normal((7, 3)).astype(np.float32)
FIRST, SECOND = RNG.standard_normal((3, 6)), RNG.standard_normal((6, 10))


def decode(z, second=SECOND):
    return (jnp.tanh(z @ jnp.asarray(FIRST, z.dtype)) @ jnp.asarray(second, z.dtype)).reshape(
        -1, 5, 2, 1
    )


def jacobians(z):
    """Return the decoder's Jacobian at each code, `[batch, 10, 3]`, by hand in float64."""
    slope = 1 - np.tanh(z @ FIRST) ** 2
    return np.einsum("jh,nh,hp->npj", FIRST, slope, SECOND)


def test_it_equals_float64():
    for penalty in (0.7, RNG.random(7)):
        loss, terms = av.losses.rae(X, X_RECON, Z, code_weight=0.3, penalty=penalty, weight=2.0)
        error = np.square(X.astype(np.float64) - X_RECON).sum(axis=(1, 2, 3))
        half = 0.5 * np.square(Z.astype(np.float64)).sum(axis=1)
        np.testing.assert_allclose(terms["code_norm"], half, rtol=1e-5)
        np.testing.assert_allclose(loss, error + 0.3 * half + 2.0 * penalty, rtol=1e-5)


def test_the_authors_weights_in_our_units():
    """Their mean over pixels and dimensions, times the number of pixels."""
    pixels, dims, beta, decay = 12, 3, 1e-2, 1e-3
    params = {"kernel": FIRST, "bias": SECOND[0]}
    l2 = float(av.losses.l2_penalty(params))
    np.testing.assert_allclose(l2, np.square(FIRST).sum() + np.square(SECOND[0]).sum(), rtol=1e-5)
    theirs = np.square(X - X_RECON).sum(axis=-1).mean(axis=(1, 2))
    theirs = theirs + beta * np.square(Z).mean(axis=1) + decay * l2
    ours, _ = av.losses.rae(
        X, X_RECON, Z, code_weight=2 * pixels * beta / dims, penalty=l2, weight=pixels * decay
    )
    np.testing.assert_allclose(ours, pixels * theirs, rtol=1e-5)


def test_the_penalty_is_the_squared_norm_of_the_jacobian():
    num_keys = 4_000
    z = Z[:2].astype(np.float64)
    penalties = jax.jit(
        jax.vmap(lambda key: av.losses.gradient_penalty(decode, jnp.asarray(Z[:2]), key=key))
    )(jax.random.split(jax.random.key(0), num_keys))
    want = np.square(jacobians(z)).sum(axis=(1, 2))
    error = np.asarray(penalties).std(axis=0) / math.sqrt(num_keys)
    assert (np.abs(np.asarray(penalties).mean(axis=0) - want) < 5 * error).all()
    # One draw of signs: the pulled-back vector itself.
    key = jax.random.key(3)
    signs = np.asarray(jax.random.rademacher(key, (2, 5, 2, 1), jnp.float32)).reshape(2, 10)
    one = av.losses.gradient_penalty(decode, jnp.asarray(Z[:2]), key=key)
    by_hand = np.square(np.einsum("npj,np->nj", jacobians(z), signs)).sum(axis=1)
    np.testing.assert_allclose(one, by_hand, rtol=1e-4)


def test_gradients():
    key = jax.random.key(0)

    def penalty(z, second):
        return av.losses.gradient_penalty(lambda z: decode(z, second), z, key=key)

    with jax.enable_x64(True):
        z = jnp.asarray(Z, jnp.float64)
        check_grads(jax.jit(penalty), (z, jnp.asarray(SECOND)), order=1, modes=["rev"])
        loss = jax.jit(lambda z, a: av.losses.rae(X, X_RECON, z, code_weight=a, weight=1.0)[0])
        check_grads(loss, (z, jnp.float64(0.3)), order=1)


def test_shapes_that_do_not_match():
    given = {"code_weight": 1.0, "weight": 1.0}
    with pytest.raises(ValueError, match="penalty must have the batch of x, 7, got 3"):
        av.losses.rae(X, X, Z, penalty=np.ones(3), **given)
    with pytest.raises(ValueError, match=r"z must have shape .* give z\[None\]"):
        av.losses.gradient_penalty(decode, Z[0], key=jax.random.key(0))
