"""The beta-TCVAE: its densities by enumeration, their bias, and the parts of the KL."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import stats
from scipy.special import logsumexp

import avae_jax as av

RNG = np.random.default_rng(0)
BATCH, LATENT, NUM_TRAIN = 7, 4, 23
X, X_RECON = RNG.random((2, BATCH, 4, 3, 1)).astype(np.float32)
LOC, LOG_VAR, NOISE = RNG.standard_normal((3, BATCH, LATENT)).astype(np.float32)
Z = LOC + np.exp(0.5 * LOG_VAR) * NOISE
BANK = tuple(RNG.standard_normal((2, NUM_TRAIN - BATCH, LATENT)).astype(np.float32))


@pytest.fixture(autouse=True, scope="module")
def _quick(quick_compiler):
    """Compile quickly."""


DENSITIES = ["uniform", "mss", "mws", "bank"]


def options(density):
    if density == "bank":
        return {"num_train": NUM_TRAIN, "bank": BANK}
    return {"num_train": NUM_TRAIN, "weights": density}


def weights64(density, num_rows, num_train=NUM_TRAIN):
    """Return W, written as the paper's appendix has it."""
    m = num_rows - 1
    if density == "mws":
        return np.full((num_rows, num_rows), 1 / (num_train * num_rows))
    w = np.full((num_rows, num_rows), (num_train - 1) / (num_train * m))
    if density == "mss":
        w[:] = 1 / m
        for row in range(num_rows):
            w[row, (row + 1) % num_rows] = (num_train - m) / (num_train * m)
    np.fill_diagonal(w, 1 / num_train)
    return w


def densities64(z, loc, log_var, w):
    """Return log q(z) and log q(z_k) in float64."""
    z, loc, log_var = (np.asarray(a, np.float64) for a in (z, loc, log_var))
    logits = stats.norm.logpdf(z[:, None], loc, np.exp(0.5 * log_var))
    joint = logsumexp(logits.sum(axis=2), b=w, axis=1)
    return joint, logsumexp(logits, b=w[:, :, None], axis=1)


@pytest.mark.parametrize("density", DENSITIES)
def test_it_equals_float64(density):
    run = functools.partial(
        av.losses.beta_tcvae, beta=6.0, alpha=0.5, gamma=2.0, prior_loc=0.3,
        prior_log_var=np.float32([0.1, 0.2, 0.3, 0.4]), noise_scale=0.7, **options(density),
    )  # fmt: skip
    loss, terms = jax.jit(run)(X, X_RECON, Z, LOC, LOG_VAR)
    if density == "bank":
        # With the posteriors of all images every weight is 1/N.
        others = [np.concatenate(pair) for pair in zip((LOC, LOG_VAR), BANK, strict=True)]
        w = np.full((BATCH, NUM_TRAIN), 1 / NUM_TRAIN)
    else:
        others, w = [LOC, LOG_VAR], weights64(density, BATCH)
    joint, marginals = densities64(Z, *others, w)
    deviation = np.exp(0.5 * LOG_VAR.astype(np.float64))
    own = stats.norm.logpdf(Z.astype(np.float64), LOC, deviation).sum(axis=1)
    prior_std = np.exp(0.5 * np.array([0.1, 0.2, 0.3, 0.4]))
    log_p = stats.norm.logpdf(Z.astype(np.float64), 0.3, prior_std).sum(axis=1)
    want = {
        "mi": own - joint,
        "tc": joint - marginals.sum(axis=1),
        "dimension_kl": marginals.sum(axis=1) - log_p,
        "nll": -stats.norm.logpdf(X.astype(np.float64), X_RECON, 0.7).sum(axis=(1, 2, 3)),
    }
    ratio = np.square(deviation / prior_std)
    distance = np.square((LOC - 0.3) / prior_std)
    want["kl"] = 0.5 * (ratio + distance - 1 - np.log(ratio)).sum(axis=1)
    for name, value in want.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    total = want["nll"] + want["kl"] - 0.5 * want["mi"] + 5 * want["tc"] + want["dimension_kl"]
    np.testing.assert_allclose(loss, total, rtol=1e-5, atol=1e-4)
    # Whatever the density, the three are the KL of the draw.
    parts = terms["mi"] + terms["tc"] + terms["dimension_kl"]
    np.testing.assert_allclose(parts, own - log_p, rtol=1e-5, atol=2e-5)


def test_with_factors_of_one_it_is_the_bound():
    given = {"likelihood": "bernoulli"}
    run = functools.partial(av.losses.beta_tcvae, beta=1.0, num_train=50, **given)
    loss, _ = jax.jit(run)(X, X_RECON, Z, LOC, LOG_VAR)
    bound, _ = av.losses.elbo(X, X_RECON, LOC, LOG_VAR, **given)
    np.testing.assert_allclose(loss, bound, rtol=1e-6)


@pytest.mark.parametrize("density", ["uniform", "mss", "mws"])
def test_the_mean_over_all_batches(density):
    """Of an image and two of the five others, in any order: q(z) itself, but for mws."""
    num_train, others = 6, list(itertools.permutations(range(1, 6), 2))
    rng = np.random.default_rng(1)
    loc, log_var = rng.standard_normal((2, num_train, 2)).astype(np.float32)
    z = np.zeros((3, 2), np.float32) + loc[0] + 0.3
    batches = np.array([(0, *pair) for pair in others])
    run = jax.vmap(
        lambda loc, log_var: av.losses.aggregate_log_densities(
            z, loc, log_var, num_train=num_train, weights=density
        )
    )
    joint, marginals = jax.jit(run)(loc[batches], log_var[batches])
    w = np.full((3, num_train), 1 / num_train)
    if density == "mws":
        # The own image is in every batch, another in two of five.
        w = np.full((3, num_train), 2 / 5 / (3 * num_train))
        w[:, 0] = 1 / (3 * num_train)
    want, want_marginals = densities64(z, loc, log_var, w)
    np.testing.assert_allclose(np.exp(joint[:, 0]).mean(), np.exp(want[0]), rtol=1e-5)
    got = np.exp(marginals[:, 0]).mean(axis=0)
    np.testing.assert_allclose(got, np.exp(want_marginals[0]), rtol=1e-5)


def gaussian_codes(num_train, correlation, scale, seed):
    """Return means and draws of posteriors of one width, whose codes have a correlation matrix."""
    rng = np.random.default_rng(seed)
    d = len(correlation)
    spread = correlation - scale**2 * np.eye(d)
    loc = rng.multivariate_normal(np.zeros(d), spread, num_train)
    z = loc + scale * rng.standard_normal((num_train, d))
    return tuple(a.astype(np.float32) for a in (z, loc, np.full_like(loc, 2 * np.log(scale))))


def test_the_bias_of_the_estimates():
    """At N = 5000, B = 100, d = 10, s = 0.3, rho = 0.5."""
    num_train, size, d, num = 5000, 100, 10, 8
    correlation = 0.5 * (np.eye(d) + np.ones((d, d)))
    codes = gaussian_codes(num_train, correlation, 0.3, seed=0)
    batches = [a[: num * size].reshape(num, size, d) for a in codes]

    def estimated(density):
        def of_batch(batch):
            return av.losses.kl_decomposition(*batch, num_train=num_train, weights=density)

        return jax.tree.map(np.ravel, jax.jit(lambda b: jax.lax.map(of_batch, b))(batches))

    def agrees(values, want):
        assert abs(values.mean() - want) < 5 * values.std() / math.sqrt(len(values))

    z = codes[0][: num * size]
    joint = np.asarray(av.mixture_log_density(z, *codes[1:]))
    product = np.asarray(av.marginal_log_densities(z, *codes[1:])).sum(axis=1)
    exact = joint - product
    own = stats.norm.logpdf(z, codes[1][: num * size], 0.3).sum(axis=1)
    agrees(own - joint, 7.95)
    agrees(exact, 4.08)
    found = {density: estimated(density) for density in ("uniform", "mss", "mws")}
    agrees(found["uniform"]["tc"], 3.95)
    agrees(found["mss"]["tc"], 3.95)
    agrees(found["mws"]["tc"], 83.9)
    # The two that are unbiased for q(z) are near the exact value, row by row; that is not.
    for density in ("uniform", "mss"):
        assert abs((found[density]["tc"] - exact).mean()) < 0.5
    # What the plain batch says, without regard to the number of images, and a constant.
    _, marginals = densities64(*(a[0] for a in batches), np.full((size, size), 1 / size))
    plain, _ = densities64(*(a[0] for a in batches), np.full((size, size), 1 / size))
    want = plain - marginals.sum(axis=1) + (d - 1) * math.log(num_train)
    np.testing.assert_allclose(found["mws"]["tc"][:size], want, rtol=1e-5)


def test_the_total_correlation_of_a_gaussian():
    """-1/2 log det of the correlations: all other images are in the bank."""
    num_train, size = 20_000, 1000
    correlation = np.array([[1.0, 0.4, -0.1], [0.4, 1.0, 0.2], [-0.1, 0.2, 1.0]])
    codes = gaussian_codes(num_train, correlation, 0.5, seed=1)
    batch, (_, *bank) = [a[:size] for a in codes], [a[size:] for a in codes]
    run = functools.partial(av.losses.kl_decomposition, num_train=num_train)
    parts = jax.jit(run)(*batch, bank=tuple(bank))
    want = {
        "tc": -0.5 * np.linalg.slogdet(correlation)[1],
        "dimension_kl": 0.0,
        "mi": 0.5 * np.linalg.slogdet(correlation)[1] - 3 * math.log(0.5),
    }
    for name, value in want.items():
        got = np.asarray(parts[name], np.float64)
        assert abs(got.mean() - value) < 5 * got.std() / math.sqrt(size), name


@pytest.mark.parametrize("density", DENSITIES)
def test_rows_that_fill_up_are_nobodys_neighbor(density):
    mask = np.array([1, 0, 1, 1, 0, 1, 1])
    kept = mask > 0

    def loss(x, x_recon, z, loc, log_var, mask=None):
        given = options(density)
        if density == "bank":
            given["bank_mask"] = np.arange(NUM_TRAIN - BATCH) % 3 > 0
        values, _ = av.losses.beta_tcvae(
            x, x_recon, z, loc, log_var, beta=3.0, alpha=0.5, mask=mask, **given
        )
        return values if mask is None else jnp.where(mask > 0, values, 0.0)

    arrays = X, X_RECON, Z, LOC, LOG_VAR
    spoiled = [np.where(kept.reshape(-1, *[1] * (a.ndim - 1)), a, 30) for a in arrays]
    want = jax.jit(loss)(*(a[kept] for a in arrays))
    got, pull_back = jax.vjp(jax.jit(functools.partial(loss, mask=mask)), *spoiled)
    np.testing.assert_allclose(got[kept], want, rtol=1e-5)
    gradients = pull_back(jnp.ones(BATCH))[2:]
    for gradient in gradients:
        assert np.isfinite(gradient).all()
        assert not np.any(gradient[~kept])


@pytest.mark.parametrize("num_kept", [0, 1])
def test_too_few_rows_have_no_statistic(num_kept):
    mask = np.arange(BATCH) < num_kept

    def loss(z, loc, log_var):
        given = {"beta": 3.0, "alpha": 2.0, "gamma": 4.0, "num_train": 50, "mask": mask}
        return av.losses.beta_tcvae(X, X_RECON, z, loc, log_var, **given)

    _, pull_back, terms = jax.vjp(jax.jit(loss), Z, LOC, LOG_VAR, has_aux=True)
    assert all(not np.any(terms[name]) for name in ("mi", "tc", "dimension_kl"))
    gradients = pull_back(jnp.ones(BATCH))
    assert not np.any(gradients[0])
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_gradients():
    with jax.enable_x64(True):
        wide = [jnp.asarray(a, jnp.float64) for a in (Z, LOC, LOG_VAR)]
        bank = tuple(jnp.asarray(a, jnp.float64) for a in BANK)

        def parts(z, loc, log_var):
            given = av.losses.kl_decomposition(z, loc, log_var, num_train=NUM_TRAIN, bank=bank)
            return given["mi"] + 3.0 * given["tc"] + 2.0 * given["dimension_kl"]

        check_grads(jax.jit(parts), wide, order=1, modes=["rev"])

    def of_bank(*bank):
        given = av.losses.kl_decomposition(Z, LOC, LOG_VAR, num_train=NUM_TRAIN, bank=bank)
        return given["tc"].sum()

    assert all(not np.any(gradient) for gradient in jax.jit(jax.grad(of_bank, (0, 1)))(*BANK))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"weights": "batch"}, ValueError, "weights must be one of 'uniform', 'mss', 'mws'"),
        ({"num_train": 1}, ValueError, "num_train must be an integer of at least 2, got 1"),
        ({"num_train": 2.5}, TypeError, "num_train must be an integer of at least 2, got 2.5"),
        ({"weights": "mss", "bank": BANK}, ValueError, "weights must be 'uniform' with a bank"),
        ({"mask": np.ones(3)}, ValueError, "mask must have the batch of z, 7, got 3"),
        ({"bank": BANK, "bank_mask": np.ones(3)}, ValueError, "log_weights must have the num_c"),
    ],
)
def test_refused(changes, error, message):
    with pytest.raises(error, match=message):
        av.losses.kl_decomposition(Z, LOC, LOG_VAR, **{"num_train": 50, **changes})
