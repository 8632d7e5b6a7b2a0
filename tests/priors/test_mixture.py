import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from avae_jax.priors import Mixture

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def clusters(n_per_cluster=200):
    """Return codes of three clusters far apart, the clusters' means, scales and sizes."""
    loc = np.array([[-6.0, 0.0], [0.0, 6.0], [6.0, -2.0]])
    scale = np.array([[0.5, 1.0], [1.0, 0.2], [0.3, 0.3]])
    sizes = n_per_cluster * np.array([1, 2, 3])
    z = np.concatenate(
        [
            loc[k] + scale[k] * np.random.default_rng(k).standard_normal((sizes[k], 2))
            for k in range(3)
        ]
    )
    return z, np.repeat(np.arange(3), sizes)


@pytest.mark.parametrize("options", [{}, {"spread": 0.3}, {"num_components": 2, "spread": 0.95}])
@pytest.mark.parametrize("latent_dim", [1, 16])
def test_the_first_mixture_has_unit_variance_and_distinct_means(latent_dim, options):
    prior = Mixture.make(latent_dim, KEY, **options)
    weights = np.exp(np.asarray(prior.log_weights, np.float64))
    np.testing.assert_allclose(weights / weights.sum(), 1 / prior.num_components)
    loc, variance = np.asarray(prior.loc, np.float64), np.exp(np.asarray(prior.log_var, float))
    np.testing.assert_allclose(loc.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(loc.var(axis=0) + variance.mean(axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(loc.std(axis=0), options.get("spread", loc.std()), rtol=1e-5)
    assert len(np.unique(loc, axis=0)) == prior.num_components
    assert prior.std() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(("latent_dim", "variance"), [(1, 0.1), (2, 0.1), (4, 10**-0.5)])
def test_components_fill_the_volume_of_the_whole(latent_dim, variance):
    prior = Mixture.make(latent_dim, KEY, num_components=10)
    np.testing.assert_allclose(np.exp(prior.log_var), variance, rtol=1e-5)


def test_one_component_is_standard_normal():
    prior = Mixture.make(3, KEY, num_components=1)
    z = RNG.standard_normal((5, 3))
    want = stats.norm.logpdf(z).sum(axis=1)
    np.testing.assert_allclose(prior.log_prob(jnp.float32(z)), want, rtol=1e-6)


def test_known_and_unknown_components():
    prior = Mixture.make(3, KEY, num_components=4, spread=0.8)
    z, labels = RNG.standard_normal((6, 3)), np.array([0, -1, 3, 2, -1, 1])
    components = stats.norm.logpdf(
        z[:, None], np.asarray(prior.loc), np.exp(np.asarray(prior.log_var) / 2)
    ).sum(axis=-1)
    unknown = logsumexp(components, axis=1) - np.log(4)
    want = np.where(labels < 0, unknown, components[np.arange(6), labels])
    got = jax.jit(Mixture.log_prob)(prior, jnp.float32(z), jnp.asarray(labels))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    # A known component alone is pulled, and the weights get nothing.
    gradient = jax.jit(jax.grad(lambda p: p.log_prob(jnp.float32(z[:1]), jnp.array([2]))[0]))(prior)
    np.testing.assert_array_equal(np.any(gradient.loc, axis=1), [False, False, True, False])
    np.testing.assert_array_equal(gradient.log_weights, 0)


def test_samples_of_known_components():
    prior = Mixture(jnp.zeros(3), jnp.array([[-50.0], [0.0], [50.0]]), jnp.zeros((3, 1)))
    labels = jnp.array([0, 2, 1, 2, -1, 3])
    z = prior.sample(KEY, 6, labels)
    nearest = np.argmin(np.abs(z - prior.loc[:, 0]), axis=1)
    np.testing.assert_array_equal(nearest[:4], labels[:4])
    # No fourth component stands in for one that does not exist.
    assert np.isnan(z[:, 0]).tolist() == [False] * 5 + [True]


def test_components_are_drawn_by_their_weights():
    weights, n = np.array([0.1, 0.2, 0.7]), 5_000
    loc = 50 * np.eye(3)
    prior = Mixture(jnp.log(jnp.float32(weights)) + 3, jnp.float32(loc), jnp.zeros((3, 3)))
    z = np.asarray(prior.sample(KEY, n), np.float64)
    drawn = np.argmax(z, axis=1)
    share = np.bincount(drawn, minlength=3) / n
    assert (np.abs(share - weights) < 5 * np.sqrt(weights * (1 - weights) / n)).all()
    # Which component was drawn says nothing about the noise, with as many dimensions too.
    for component in range(3):
        noise = (z - loc[drawn])[drawn == component]
        assert (np.abs(noise.mean(axis=0)) < 5 / np.sqrt(len(noise))).all()


def test_a_fit_finds_clusters():
    z, labels = clusters()
    prior = Mixture.make(2, KEY, num_components=3).fit(z, key=KEY)
    order = np.argsort(prior.loc[:, 0])
    for k, component in enumerate(order):
        own = z[labels == k]
        weight = len(own) / len(z)
        np.testing.assert_allclose(np.exp(prior.log_weights[component]), weight, rtol=1e-3)
        np.testing.assert_allclose(prior.loc[component], own.mean(axis=0), atol=1e-3)
        np.testing.assert_allclose(
            np.exp(prior.log_var[component]),
            own.var(axis=0) + 1e-4 * z.var(axis=0).mean(),
            rtol=1e-3,
        )


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_a_fit_does_not_depend_on_the_unit_of_the_codes(scale):
    z, _ = clusters(20)
    start = Mixture.make(2, KEY, num_components=3)
    prior, scaled = start.fit(z, key=KEY), start.fit(scale * z + 7 * scale, key=KEY)
    np.testing.assert_allclose(scaled.loc, scale * (np.asarray(prior.loc) + 7), rtol=1e-4)
    np.testing.assert_allclose(np.exp(scaled.log_var - prior.log_var), scale**2, rtol=1e-3)


def test_copies_of_one_code_do_not_make_a_fit_singular():
    z = np.concatenate([np.zeros((30, 2)), np.ones((30, 2)), RNG.standard_normal((10, 2))])
    prior = Mixture.make(2, KEY, num_components=6).fit(z, key=KEY)
    assert np.exp(prior.log_var).min() > 0.9e-4 * z.var(axis=0).mean()
    assert np.isfinite(prior.log_prob(jnp.float32(z))).all()


def test_fewer_distinct_codes_than_components():
    z = np.repeat([[0.0, 1.0], [2.0, 3.0]], 20, axis=0)
    prior = Mixture.make(2, KEY, num_components=5).fit(z, key=KEY)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(prior))
    assert np.isfinite(prior.log_prob(jnp.float32(z))).all()


def test_fewer_codes_than_components():
    with pytest.raises(ValueError, match=r"n >= 5, got \(4, 2\)"):
        Mixture.make(2, KEY, num_components=5).fit(RNG.standard_normal((4, 2)), key=KEY)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_components": 0}, "num_components must be .* got 0"),
        ({"spread": 1.0}, r"spread must lie in .* got 1\.0"),
    ],
)
def test_make_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        Mixture.make(2, KEY, **options)


def test_labels_of_other_rows_are_refused():
    prior, labels = Mixture.make(2, KEY), jnp.array([0, 1])
    with pytest.raises(ValueError, match=r"labels must have shape \[3\].* got \(2,\)"):
        prior.log_prob(jnp.zeros((3, 2)), labels)
    with pytest.raises(ValueError, match=r"labels must have shape \[3\].* got \(2,\)"):
        prior.sample(KEY, 3, labels)
