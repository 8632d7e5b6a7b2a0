"""The contract of priors: every one of the registry, first as it starts and then elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from avae_jax.priors import PRIORS

K_SIGMA = 5


def moved(prior, seed=0):
    """Return a prior of the same kind whose parameters are somewhere else."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf + jnp.asarray(0.4 * rng.standard_normal(leaf.shape), leaf.dtype), prior
    )


def make(name, latent_dim=2):
    return moved(PRIORS[name](latent_dim, jax.random.key(1)))


def codes(n, latent_dim=2, seed=0):
    return np.random.default_rng(seed).standard_normal((n, latent_dim)).astype(np.float32)


@pytest.mark.parametrize("name", PRIORS)
def test_log_prob_and_samples_have_their_shapes(name):
    prior = make(name, 3)
    assert prior.latent_dim == 3
    log_prob = prior.log_prob(codes(5, 3))
    assert log_prob.shape == (5,)
    assert log_prob.dtype == jnp.float32
    half = jnp.asarray(codes(5, 3), jnp.bfloat16)
    with jax.numpy_rank_promotion("raise"):
        of_half = prior.log_prob(half)
    assert of_half.dtype == jnp.float32
    np.testing.assert_array_equal(of_half, prior.log_prob(half.astype(jnp.float32)))
    for num_samples in (1, 4):
        assert prior.sample(jax.random.key(0), num_samples).shape == (num_samples, 3)
    np.testing.assert_array_equal(
        prior.sample(jax.random.key(0), 4), prior.sample(jax.random.key(0), 4)
    )
    assert np.all(prior.sample(jax.random.key(0), 4) != prior.sample(jax.random.key(1), 4))


@pytest.mark.parametrize("name", PRIORS)
def test_the_density_has_mass_one_and_the_moments_of_the_samples(name):
    prior = make(name)
    line = np.linspace(-9, 9, 361)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    log_prob = jax.jit(lambda prior, z: prior.log_prob(z))(prior, jnp.asarray(grid, jnp.float32))
    mass = np.exp(np.asarray(log_prob, np.float64)) * (line[1] - line[0]) ** 2
    assert mass.sum() == pytest.approx(1, abs=1e-4)
    mean = mass @ grid
    centered = grid - mean
    assert prior.std() == pytest.approx(np.sqrt((mass @ centered**2).mean()), rel=1e-3)

    n = 20_000
    z = np.asarray(prior.sample(jax.random.key(2), n), np.float64)
    for of_grid, of_samples in (
        (centered, z - mean),
        (centered**2, (z - mean) ** 2),
        (centered.prod(axis=1), (z - mean).prod(axis=1)),
    ):
        want = mass @ of_grid
        error = np.sqrt((mass @ of_grid**2 - want**2) / n)
        assert (np.abs(of_samples.mean(axis=0) - want) < K_SIGMA * error).all()


@pytest.mark.parametrize("name", PRIORS)
def test_its_leaves_are_its_parameters(name):
    prior, z = make(name), codes(6)
    log_prob = jax.jit(lambda prior, z: prior.log_prob(z))
    np.testing.assert_allclose(log_prob(prior, z), prior.log_prob(z), rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda prior: prior.log_prob(z).sum()))(prior)
    assert jax.tree.structure(gradient) == jax.tree.structure(prior)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    same = jax.tree.map(lambda leaf: leaf, prior)
    assert type(same) is type(prior)
    assert same.latent_dim == prior.latent_dim
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), prior)
        arguments = (double, jnp.asarray(z, jnp.float64))
        check_grads(log_prob, arguments, order=1)


@pytest.mark.parametrize("name", PRIORS)
def test_far_codes_have_a_density_and_are_pulled_back(name):
    prior = make(name)
    z = jnp.array([[1e4, 0.0], [0.0, -1e4]])
    value, gradient = jax.jit(jax.value_and_grad(lambda z: prior.log_prob(z).sum()))(z)
    assert np.isfinite(value)
    assert gradient[0, 0] < -1e3
    assert gradient[1, 1] > 1e3


@pytest.mark.parametrize("name", PRIORS)
def test_an_encoder_changes_nothing(name):
    prior = make(name)
    assert prior.given(lambda x: x) is prior


@pytest.mark.parametrize("name", PRIORS)
def test_a_fit_fits(name):
    prior = make(name)
    rng = np.random.default_rng(3)
    z = rng.standard_normal((400, 2)) * [0.3, 2.0] + [4.0, -3.0]
    z[::2] += 3.0
    fitted = prior.fit(z[:300], key=jax.random.key(0))
    if not jax.tree.leaves(prior):
        assert fitted is prior
        return
    assert jax.tree.structure(fitted) == jax.tree.structure(prior)
    for new, old in zip(jax.tree.leaves(fitted), jax.tree.leaves(prior), strict=True):
        assert new.shape == old.shape
        assert new.dtype == old.dtype
    held_out = jnp.asarray(z[300:], jnp.float32)
    assert fitted.log_prob(held_out).mean() > prior.log_prob(held_out).mean() + 1
    assert fitted.std() == pytest.approx(np.sqrt(z[:300].var(axis=0).mean()), rel=1e-2)


@pytest.mark.parametrize("name", [name for name in PRIORS if jax.tree.leaves(make(name))])
@pytest.mark.parametrize(
    ("z", "message"),
    [
        (np.ones((50, 3)), r"z must have shape \[n, 2\].* got \(50, 3\)"),
        (np.ones((1, 2)), r"n >= .* got \(1, 2\)"),
        (np.ones((50, 2)), "got 50 equal ones"),
        (np.where(np.arange(50) == 7, np.nan, 1.0)[:, None] * codes(50), "got 1 rows that are not"),
    ],
    ids=["width", "one", "equal", "nan"],
)
def test_codes_that_cannot_be_fitted(name, z, message):
    with pytest.raises(ValueError, match=message):
        make(name).fit(z, key=jax.random.key(0))


@pytest.mark.parametrize("name", PRIORS)
def test_codes_of_another_width_are_refused(name):
    with pytest.raises(ValueError, match=r"z must have 2 columns .* got shape \(5, 1\)"):
        make(name).log_prob(jnp.zeros((5, 1)))


@pytest.mark.parametrize("name", PRIORS)
def test_a_prior_needs_dimensions(name):
    with pytest.raises(ValueError, match="latent_dim must be .* got 0"):
        PRIORS[name](0, jax.random.key(0))
    with pytest.raises(TypeError, match=r"latent_dim must be .* got 1\.5"):
        PRIORS[name](1.5, jax.random.key(0))


def test_captions_tell_priors_apart():
    captions = [make(name).describe() for name in PRIORS]
    assert len(set(captions)) == len(captions)
    assert all(caption and "\n" not in caption for caption in captions)
