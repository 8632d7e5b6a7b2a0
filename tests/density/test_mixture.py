"""The density of many Gaussians against NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from scipy import special, stats
from scipy.special import logsumexp

import avae_jax as av
from avae_jax.kernels.mixture_lse import stream

UNIT = 2.0**-24


@pytest.fixture(autouse=True, scope="module")
def _quick(quick_compiler):
    """Compile quickly."""


def draw(n, m, d, *, scale=0.5, seed=0):
    """Return queries near some Gaussians, their means and log-variances, float32."""
    rng = np.random.default_rng(seed)
    loc = rng.standard_normal((m, d))
    log_var = 2 * np.log(scale) + 0.5 * rng.standard_normal((m, d))
    own = rng.integers(m, size=n)
    z = loc[own] + np.exp(0.5 * log_var[own]) * rng.standard_normal((n, d))
    return tuple(a.astype(np.float32) for a in (z, loc, log_var))


def oracle(z, loc, log_var, log_weights=None, exclude=None):
    """Return log q(z) [n] and log q(z_k) [n, d] in float64."""
    z, loc, log_var = (np.asarray(a, np.float64) for a in (z, loc, log_var))
    logits = stats.norm.logpdf(z[:, None], loc[None], np.exp(0.5 * log_var)[None])
    weights = np.zeros((len(z), len(loc))) if log_weights is None else log_weights + 0.0 * z[:, :1]
    if exclude is not None:
        weights = np.where(np.arange(len(loc)) == exclude[:, None], -np.inf, weights)
    mass = logsumexp(weights, axis=1)
    joint = logsumexp(logits.sum(axis=2) + weights, axis=1) - mass
    return joint, logsumexp(logits + weights[:, :, None], axis=1) - mass[:, None]


@pytest.fixture
def small_tiles(monkeypatch):
    """Cut small problems into several tiles and blocks."""
    monkeypatch.setattr(stream, "_QUERIES", 16)
    monkeypatch.setattr(stream, "_LOGITS", 1)
    jax.clear_caches()
    yield
    jax.clear_caches()


def gradients_of(cotangent, z, loc, log_var, log_weights, exclude):
    """Return those of sum_i g_i log q(z_i) in z, loc, log_var and log_weights, in float64."""
    z, loc, log_var = (np.asarray(a, np.float64) for a in (z, loc, log_var))
    prior = np.where(np.arange(len(loc)) == exclude[:, None], -np.inf, log_weights)
    deviation = (z[:, None] - loc) * np.exp(-0.5 * log_var)
    logits = prior - 0.5 * (np.square(deviation) + log_var).sum(axis=2)
    weights, prior = (cotangent[:, None] * special.softmax(a, axis=1) for a in (logits, prior))
    pulls = weights[:, :, None] * deviation * np.exp(-0.5 * log_var)
    squares = weights[:, :, None] * (np.square(deviation) - 1)
    return -pulls.sum(1), pulls.sum(0), 0.5 * squares.sum(0), (weights - prior).sum(0)


@pytest.mark.parametrize("d", [5, 40])
def test_values_and_gradients_equal_float64(small_tiles, d):
    n, m = 33, 129
    z, loc, log_var = draw(n, m, d)
    rng = np.random.default_rng(1)
    log_weights = np.where(rng.random(m) < 0.2, -np.inf, rng.standard_normal(m))
    log_weights = log_weights.astype(np.float32)
    exclude = (np.arange(n) - 1).astype(np.int32)
    args = z, loc, log_var, log_weights
    joint, marginals = oracle(*args, exclude)
    cotangent = rng.standard_normal((n, 1 + d))
    cotangents = cotangent[:, 0], cotangent[:, 1:]

    def both(z, loc, log_var, log_weights):
        options = {"log_weights": log_weights, "exclude": exclude}
        return (
            av.mixture_log_density(z, loc, log_var, **options),
            av.marginal_log_densities(z, loc, log_var, **options),
        )

    @jax.jit
    def run(*args):
        values, pull_back = jax.vjp(both, *args)
        return values, *(
            pull_back((g, G))
            for g, G in (
                (jnp.float32(cotangents[0]), zeros[1]),
                (zeros[0], jnp.float32(cotangents[1])),
            )
        )

    zeros = jnp.zeros(n), jnp.zeros((n, d))
    values, of_joint, of_marginals = run(*args)
    np.testing.assert_allclose(values[0], joint, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(values[1], marginals, rtol=1e-5, atol=1e-5)
    by_dimension = [
        gradients_of(
            cotangents[1][:, k], *(a[:, k : k + 1] for a in args[:3]), log_weights, exclude
        )
        for k in range(d)
    ]
    want = [
        np.concatenate(columns, axis=1) for columns in list(zip(*by_dimension, strict=True))[:3]
    ]
    want.append(sum(one[3] for one in by_dimension))
    for got, wanted in (
        (of_joint, gradients_of(cotangents[0], *args, exclude)),
        (of_marginals, want),
    ):
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5 * np.abs(b).max())


@pytest.mark.parametrize("scale", [1e-3, 1e-2, 0.1, 1.0])
@pytest.mark.parametrize("d", [2, 64])
def test_narrow_posteriors_keep_their_digits(d, scale):
    z, loc, log_var = draw(32, 300, d, scale=scale)
    joint, marginals = oracle(z, loc, log_var)
    size = 1 + np.abs(joint) + 0.5 * np.abs(log_var.astype(np.float64)).sum(axis=1).max()
    got = np.asarray(av.mixture_log_density(z, loc, log_var), np.float64)
    assert (np.abs(got - joint) <= 4 * UNIT * size).all()
    got = np.asarray(av.marginal_log_densities(z, loc, log_var), np.float64)
    assert (np.abs(got - marginals) <= 16 * UNIT * (1 + np.abs(marginals))).all()


@pytest.mark.parametrize("scale", [1e-3, 0.1])
def test_the_gradient_of_narrow_posteriors(scale):
    """In units of 1 / s, the size of a posterior's own pull."""
    z, loc, log_var = draw(32, 300, 8, scale=scale)
    got = jax.grad(lambda z: av.mixture_log_density(z, loc, log_var).sum())(z)
    wide = [np.asarray(a, np.float64) for a in (z, loc, log_var)]
    logits = stats.norm.logpdf(wide[0][:, None], wide[1], np.exp(0.5 * wide[2])).sum(axis=2)
    weights = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    pulls = (wide[1] - wide[0][:, None]) * np.exp(-wide[2])
    want = np.einsum("ij,ijk->ik", weights, pulls)
    np.testing.assert_allclose(got * scale, want * scale, rtol=1e-4, atol=1e-4)


def test_equal_variances_are_a_kernel_density():
    z, loc, _ = draw(9, 50, 6)
    got = av.mixture_log_density(z, loc, np.full_like(loc, 2 * np.log(0.7)))
    np.testing.assert_allclose(got, av.kde_log_density(z, loc, bandwidth=0.7), rtol=1e-5)


def test_masked_components_may_hold_anything():
    z, loc, log_var = draw(5, 12, 3)
    log_weights = np.where(np.arange(12) < 9, 0, -np.inf).astype(np.float32)
    spoiled = [np.where(np.arange(12)[:, None] < 9, a, np.nan) for a in (loc, log_var)]

    def value(z, loc, log_var):
        return av.mixture_log_density(z, loc, log_var, log_weights=log_weights)

    np.testing.assert_array_equal(value(z, *spoiled), value(z, loc, log_var))
    np.testing.assert_allclose(
        value(z, loc, log_var), oracle(z, loc[:9], log_var[:9])[0], rtol=1e-5
    )
    gradients = jax.grad(lambda *a: value(*a).sum(), (0, 1, 2))(z, *spoiled)
    assert all(np.isfinite(g).all() for g in gradients)
    assert not np.any(gradients[1][9:])


def test_rows_without_a_component_and_rows_that_are_not_finite():
    z, loc, log_var = draw(4, 1, 3)
    z[1], z[2, 0] = np.inf, np.nan
    exclude = np.array([0, -1, -1, -1])
    got = av.mixture_log_density(z, loc, log_var, exclude=exclude)
    np.testing.assert_array_equal(np.isnan(got), [False, True, True, False])
    assert got[0] == -np.inf
    gradient = jax.grad(lambda z: av.mixture_log_density(z, loc, log_var, exclude=exclude).sum())(z)
    np.testing.assert_array_equal(gradient[0], 0)
    assert np.isfinite(gradient[3]).all()
    assert av.mixture_log_density(z[:0], loc, log_var).shape == (0,)
    assert av.marginal_log_densities(z[:0], loc, log_var).shape == (0, 3)


@pytest.mark.parametrize("kind", ["Auto", "Explicit", "mapped"])
def test_rows_split_over_devices(kind):
    """Values and gradients are those of one device, and lie as what they are of."""
    z, loc, log_var = draw(64, 700, 5)
    axis_type = getattr(jax.sharding.AxisType, kind, jax.sharding.AxisType.Auto)
    mesh = jax.make_mesh((8,), ("a",), axis_types=(axis_type,))
    split, whole = PartitionSpec("a"), PartitionSpec()
    density = av.mixture_log_density
    if kind == "mapped":
        density = jax.shard_map(density, mesh=mesh, in_specs=(split, whole, whole), out_specs=split)

    def value(z, loc, log_var):
        return jnp.sum(jnp.square(density(z, loc, log_var)))

    at = tuple(NamedSharding(mesh, spec) for spec in (split, whole, whole))
    args = jax.device_put((z, loc, log_var), at)
    got = jax.jit(jax.value_and_grad(value, (0, 1, 2)))(*args)
    assert got[1][0].sharding.spec[0] == "a"
    log_q, pull_back = jax.vjp(av.mixture_log_density, z, loc, log_var)
    np.testing.assert_allclose(got[0], jnp.sum(jnp.square(log_q)), rtol=1e-5)
    for a, b in zip(got[1], pull_back(2 * log_q), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_memory_is_linear():
    n, m, d = 1000, 20_000, 5
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((n, d), (m, d), (m, d))]

    def value(z, loc, log_var):
        return av.mixture_log_density(z, loc, log_var).sum()

    compiled = jax.jit(jax.grad(value, (0, 1, 2))).lower(*shapes).compile()
    # All logits would be 80 MB.
    assert compiled.memory_analysis().temp_size_in_bytes < 8e6


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"log_var": np.zeros((6, 2))}, ValueError, "log_var must have the shape of loc"),
        ({"z": np.zeros((4, 2))}, ValueError, "loc must have the latent_dim of z, 2, got 3"),
        ({"loc": np.zeros((0, 3)), "log_var": np.zeros((0, 3))}, ValueError, "loc must have a row"),
        ({"log_weights": np.zeros(5)}, ValueError, "log_weights must have the num_components"),
        ({"exclude": np.zeros(3, int)}, ValueError, "exclude must have the rows of z, 4, got 3"),
        ({"exclude": np.full(4, 6)}, ValueError, r"exclude must hold indices in \[0, 6\)"),
        ({"z": np.zeros((4, 3), int)}, TypeError, "z must be of a floating type, got int32"),
    ],
)
def test_refused(changes, error, message):
    given = {"z": np.zeros((4, 3)), "loc": np.zeros((6, 3)), "log_var": np.zeros((6, 3))}
    for function in (av.mixture_log_density, av.marginal_log_densities):
        with pytest.raises(error, match=message):
            function(**{**given, **changes})
