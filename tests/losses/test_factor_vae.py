"""FactorVAE: its total correlation with the best critic, and the shuffled codes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import avae_jax as av

RNG = np.random.default_rng(0)
X, X_RECON = RNG.random((2, 7, 4, 3, 1)).astype(np.float32)
LOC, LOG_VAR = RNG.standard_normal((2, 7, 5)).astype(np.float32)
LOGITS = RNG.standard_normal(7).astype(np.float32)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_it_is_the_bound_plus_gamma_total_correlations(likelihood):
    options = {"likelihood": likelihood, "noise_scale": 0.7}
    loss, terms = av.losses.factor_vae(X, X_RECON, LOC, LOG_VAR, LOGITS, gamma=6.4, **options)
    bound, of_bound = av.losses.elbo(X, X_RECON, LOC, LOG_VAR, **options)
    assert terms.keys() == of_bound.keys() | {"tc"}
    np.testing.assert_array_equal(terms["tc"], LOGITS)
    np.testing.assert_allclose(loss, np.asarray(bound, np.float64) + 6.4 * LOGITS, rtol=1e-6)


def correlated(n):
    """Return draws of a Gaussian, draws of its marginals' product, and the best critic."""
    correlation = np.array([[1.0, 0.6, -0.2], [0.6, 1.0, 0.3], [-0.2, 0.3, 1.0]])
    precision = np.linalg.inv(correlation) - np.eye(3)
    total_correlation = -0.5 * np.linalg.slogdet(correlation)[1]
    z = np.random.default_rng(1).multivariate_normal(np.zeros(3), correlation, size=n)

    def critic(z):
        quadratic = np.einsum("ni,ij,nj->n", z, precision, z)
        return jnp.asarray(total_correlation - 0.5 * quadratic, jnp.float32)

    return z, np.random.default_rng(2).standard_normal((n, 3)), critic, total_correlation


def test_the_best_critic_gives_the_total_correlation():
    n = 20_000
    z, _, critic, want = correlated(n)
    x = np.zeros((n, 1), np.float32)
    _, terms = av.losses.factor_vae(x, x, z, z, critic(z), gamma=1.0)
    tc = np.asarray(terms["tc"], np.float64)
    assert want > 0.2
    assert abs(tc.mean() - want) < 5 * tc.std() / math.sqrt(n)


def test_the_best_critic_has_the_lowest_loss():
    n = 20_000
    z, shuffled, critic, _ = correlated(n)
    a, b = critic(z), critic(shuffled)

    def loss(scale, shift):
        return av.losses.critic_loss(scale * a + shift, scale * b + shift)[0]

    for argument in (0, 1):
        slope = jax.jacfwd(loss, argnums=argument)(jnp.float32(1), jnp.float32(0))
        assert abs(slope.mean()) < 5 * slope.std() / math.sqrt(n)
    assert loss(1.0, 0.0).mean() < math.log(2) - 0.05
    # A critic that takes one for the other is worse than one that knows nothing.
    assert loss(-1.0, 0.0).mean() > math.log(2)


def test_critic_loss_equals_float64():
    joint, shuffled = RNG.standard_normal((2, 9))
    joint[0], shuffled[0] = 0.0, 0.0
    loss, terms = av.losses.critic_loss(jnp.float32(joint), jnp.float32(shuffled))
    p_joint, p_shuffled = 1 / (1 + np.exp(-joint)), 1 / (1 + np.exp(-shuffled))
    want = -0.5 * (np.log(p_joint) + np.log1p(-p_shuffled))
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    right = 0.5 * ((joint > 0) * 1.0 + (shuffled < 0))
    right[0] = 0.5
    np.testing.assert_allclose(terms["critic_accuracy"], right)


def test_critic_loss_survives_huge_logits():
    joint, shuffled = jnp.array([1e30, -1e30]), jnp.array([-1e30, 1e30])
    loss, _ = av.losses.critic_loss(joint, shuffled)
    np.testing.assert_allclose(loss, [0, 1e30], rtol=1e-6)
    gradient = jax.grad(lambda a: av.losses.critic_loss(a, shuffled)[0].sum())(joint)
    np.testing.assert_allclose(gradient, [0, -0.5])


def test_gradients():
    def loss(loc, log_var, logits):
        return av.losses.factor_vae(X, X_RECON, loc, log_var, logits, gamma=3.0)[0]

    with jax.enable_x64(True):
        arguments = [jnp.asarray(a, jnp.float64) for a in (LOC, LOG_VAR, LOGITS)]
        check_grads(jax.jit(loss), arguments, order=1)
        critic = jax.jit(lambda a, b: av.losses.critic_loss(a, b)[0])
        check_grads(critic, (arguments[2], arguments[2] - 1), order=1)


@pytest.mark.parametrize("n", [1, 2, 40])
def test_shuffling_keeps_every_column(n):
    z = RNG.standard_normal((n, 3)).astype(np.float32)
    shuffled = jax.jit(av.losses.permute_dims)(jax.random.key(0), z)
    np.testing.assert_array_equal(np.sort(shuffled, axis=0), np.sort(z, axis=0))
    if n == 40:
        # Columns are permuted one by one: rows do not stay together.
        place = np.argmax(np.asarray(shuffled)[:, None, :] == z[None], axis=1)
        assert (place[:, 0] != place[:, 1]).mean() > 0.8
        assert (place[:, 1] != place[:, 2]).mean() > 0.8


@pytest.mark.parametrize("dtype", [np.float32, bool])
def test_rows_that_fill_up_stay_out(dtype):
    z = np.arange(60, dtype=np.float32).reshape(20, 3)
    mask = (RNG.random(20) < 0.6).astype(dtype)
    kept = mask.astype(bool)
    assert 5 < kept.sum() < 15
    shuffled = np.asarray(av.losses.permute_dims(jax.random.key(0), z, mask))
    np.testing.assert_array_equal(shuffled[~kept], z[~kept])
    np.testing.assert_array_equal(np.sort(shuffled[kept], axis=0), z[kept])
    assert (shuffled[kept] != z[kept]).any(axis=0).all()
    # What fills up cannot be noticed in the others, whatever it holds.
    spoiled = np.where(kept[:, None], z, np.nan)
    again = np.asarray(av.losses.permute_dims(jax.random.key(0), spoiled, mask))
    np.testing.assert_array_equal(again[kept], shuffled[kept])


def test_no_row_counts():
    z = RNG.standard_normal((4, 2)).astype(np.float32)
    np.testing.assert_array_equal(av.losses.permute_dims(jax.random.key(0), z, np.zeros(4)), z)


def test_every_place_is_equally_likely():
    num_keys, kept = 4_000, np.array([1, 0, 1, 1, 0, 1])
    z = np.arange(6, dtype=np.float32)[:, None]
    shuffled = jax.jit(jax.vmap(lambda key: av.losses.permute_dims(key, z, kept)[:, 0]))(
        jax.random.split(jax.random.key(0), num_keys)
    )
    for row in np.flatnonzero(kept):
        share = np.bincount(np.asarray(shuffled[:, row], int), minlength=6) / num_keys
        np.testing.assert_array_equal(share[kept == 0], 0)
        assert (np.abs(share[kept == 1] - 0.25) < 5 * math.sqrt(0.25 * 0.75 / num_keys)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: av.losses.factor_vae(X, X, LOC, LOG_VAR, LOGITS[:, None], gamma=1.0),
            r"critic_logits must have shape \[batch\], got \(7, 1\): give critic_logits\[..., 0\]",
        ),
        (
            lambda: av.losses.critic_loss(LOGITS, LOGITS[:3]),
            "logits_negative must have the batch of logits_positive, 7, got 3",
        ),
        (lambda: av.losses.critic_loss(LOGITS[:, None], LOGITS[:, None]), r"got \(7, 1\)"),
        (
            lambda: jax.vmap(lambda a: av.losses.critic_loss(a, a)[0])(LOGITS),
            r"logits_positive must have shape \[batch\], got \(\): give logits_positive\[None\]",
        ),
        (lambda: av.losses.permute_dims(jax.random.key(0), LOGITS), r"z must have .* got \(7,\)"),
        (
            lambda: av.losses.permute_dims(jax.random.key(0), LOC, np.ones(3)),
            "mask must have the batch of z, 7, got 3",
        ),
    ],
)
def test_shapes_that_do_not_match(call, message):
    with pytest.raises(ValueError, match=message):
        call()
