"""The AVAE with a prior of the user's choice."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avae_jax as av
from avae_jax.density import find_bandwidth, find_prior_bandwidth, prior_null_kl
from avae_jax.priors import DiagonalGaussianPrior, Mixture, StandardNormal


def test_the_bandwidth_of_normal_draws_is_that_of_the_paper():
    """Other draws of the same: within five standard errors of both."""
    own = find_prior_bandwidth(StandardNormal(5), 1000)
    paper = find_bandwidth(5, 1000)
    assert abs(own.bandwidth - paper.h_opt) < 5 * math.hypot(own.stderr, paper.stderr)
    assert own.null_kl == pytest.approx(paper.null_kl, abs=0.1)


def test_the_bandwidth_follows_the_scale_of_the_prior():
    prior = DiagonalGaussianPrior(jnp.full(5, 40.0), jnp.full(5, 2 * math.log(3.0)))
    wide, unit = find_prior_bandwidth(prior, 1000), find_prior_bandwidth(StandardNormal(5), 1000)
    assert wide.bandwidth == pytest.approx(3 * unit.bandwidth, rel=1e-3)
    assert wide.null_kl == pytest.approx(unit.null_kl, abs=1e-3)


def test_a_smoothed_normal_prior_is_the_papers_objective():
    """Codes, centers and bandwidth times sqrt(1 + h^2): the same KL, to rounding."""
    rng = np.random.default_rng(0)
    z, centers = (rng.standard_normal((n, 6)).astype(np.float32) for n in (40, 300))
    x = np.zeros((40, 2), np.float32)
    h_opt = 0.7
    stretch = math.hypot(1.0, h_opt)
    _, paper = av.losses.avae(x, x, z, centers, bandwidth=h_opt / stretch, beta=1.0)
    stretched = stretch * z
    _, smoothed = av.losses.avae(
        x, x, stretched, stretch * centers, bandwidth=h_opt, beta=1.0,
        log_p=StandardNormal(6).smoothed(h_opt).log_prob(jnp.asarray(stretched)),
    )  # fmt: skip
    np.testing.assert_allclose(smoothed["kl"], paper["kl"], rtol=1e-5, atol=1e-5)


def test_draws_of_the_prior_show_the_null(build):
    """And codes that collapse onto the component means, or lie elsewhere, show more."""
    method = build(method="avae", prior="mixture", num_components=4, num_centers=60, latent_dim=4)
    prior, h = method.fixed_prior, method.kernel_std
    smooth = prior.smoothed(h)

    @jax.jit
    def kl(seed, shift):
        of_z, of_centers = jax.random.split(jax.random.key(seed))
        z, centers = prior.sample(of_z, 200) + shift, prior.sample(of_centers, 60) + shift
        x = jnp.zeros((200, 1))
        _, terms = av.losses.avae(x, x, z, centers, bandwidth=h, beta=1.0, log_p=smooth.log_prob(z))
        return terms["kl"].mean()

    # One set of centers makes the null: its error is that of one of these.
    perfect, apart = ([float(kl(seed, shift)) for seed in range(40)] for shift in (0.0, 3.0))
    assert abs(np.mean(perfect) - method.null()["kl"]) < 5 * np.std(perfect, ddof=1)
    assert np.mean(apart) > np.mean(perfect) + 1


def test_the_null_is_the_mean_of_independent_draws():
    """By NumPy in float64, a mixture in two dimensions, over draws of queries and centers."""
    prior, h, m = Mixture.make(2, jax.random.key(1), num_components=3), 0.4, 50
    loc, std = np.asarray(prior.loc, np.float64), np.exp(np.asarray(prior.log_var[0, 0]) / 2.0)
    rng = np.random.default_rng(0)

    def draw(n):
        return loc[rng.integers(0, 3, n)] + std * rng.standard_normal((n, 2))

    def log_mixture(z, means, scale):
        squares = np.square(z[:, None] - means).sum(axis=2)
        density = np.exp(-squares / (2 * scale**2)).mean(axis=1)
        return np.log(density / (2 * np.pi * scale**2))

    kls = []
    for _ in range(100):
        z = draw(2000)
        kls.append(np.mean(log_mixture(z, draw(m), h) - log_mixture(z, loc, math.hypot(std, h))))
    got = [prior_null_kl(prior, m, bandwidth=h, seed=seed) for seed in range(30)]
    error = math.hypot(np.std(kls, ddof=1) / 10, np.std(got, ddof=1) / math.sqrt(30))
    assert abs(np.mean(got) - np.mean(kls)) < 5 * error
    assert error < 0.02


def test_a_given_bandwidth_is_used_for_any_prior(build):
    method = build(method="avae", prior="mixture", num_centers=32, bandwidth=0.3, tail="none")
    assert method.kernel_std == 0.3
    want = prior_null_kl(method.fixed_prior, 32, bandwidth=0.3)
    assert method.null() == {"kl": want}
    found = build(method="avae", prior="mixture", num_centers=32).bandwidth
    again = prior_null_kl(
        Mixture.make(3, jax.random.key(0), num_components=10), 32, bandwidth=found.bandwidth
    )
    assert again == pytest.approx(found.null_kl, abs=1e-5)


def test_the_null_of_any_prior_has_the_loss_s_floor(build):
    fields = {"method": "avae", "prior": "mixture", "num_centers": 32}
    floored = build(**fields, tail="official", max_cdf=0.3).null()["kl"]
    assert floored > build(**fields, tail="none").null()["kl"] + 0.02


@pytest.mark.parametrize("kind", ["mixture", "gaussian"])
def test_smoothed_priors_are_those_of_noisy_draws(kind):
    key = jax.random.key(0)
    prior = (
        Mixture.make(2, key, num_components=3)
        if kind == "mixture"
        else DiagonalGaussianPrior(jnp.array([1.0, -2.0]), jnp.array([0.3, -1.0]))
    )
    std, z = 0.6, jnp.asarray([[0.2, -0.4], [1.5, 0.9]])
    noise = std * jax.random.normal(jax.random.key(1), (100_000, 2))
    # E_noise p(z - noise), by Monte Carlo.
    for row in z:
        values = np.exp(np.asarray(prior.log_prob(row - noise), np.float64))
        got = math.exp(float(prior.smoothed(std).log_prob(row[None])[0]))
        assert abs(got - values.mean()) < 5 * values.std() / math.sqrt(len(values))


def test_the_prior_stays_and_the_networks_move(build, make_batch):
    from avae_jax.training.config import OptimizationConfig
    from avae_jax.training.state import make_optimizer, make_state
    from avae_jax.training.step import make_train_step

    method = build(method="avae", prior="mixture", num_centers=32)
    optimization = OptimizationConfig()
    optimizer = make_optimizer(method.players, optimization, steps_per_epoch=1)
    state = make_state(method, optimizer, optimization)
    after, metrics = jax.jit(make_train_step(method, optimizer, ema_decays={}))(
        state, make_batch(method)
    )
    assert float(metrics["good"]) == 1
    before, now = state.variables["params"], after.variables["params"]
    for a, b in zip(jax.tree.leaves(before["prior"]), jax.tree.leaves(now["prior"]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.any(jax.tree.leaves(before["encoder"])[-1] != jax.tree.leaves(now["encoder"])[-1])
    z = jnp.zeros((4, 2))
    with pytest.raises(ValueError, match=r"log_p must have the batch of x, 4, got 3"):
        av.losses.avae(z, z, z, z, bandwidth=1.0, beta=1.0, log_p=jnp.zeros(3))
