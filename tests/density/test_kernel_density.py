"""The density as an object, against SciPy, scikit-learn and a grid in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import stats
from scipy.special import logsumexp
from sklearn.neighbors import KernelDensity

import avae_jax as av

RNG = np.random.default_rng(0)
ROOT = np.array([[3.0, 0.0, 0.0], [1.0, 0.02, 0.0], [-40.0, 0.1, 50.0]])
X = RNG.standard_normal((120, 3)) @ ROOT.T + [5.0, 0.0, -900.0]
Z = RNG.standard_normal((9, 3)) @ ROOT.T + [5.0, 0.0, -900.0]
LOG_WEIGHTS = RNG.standard_normal(120)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("log_weights", [None, LOG_WEIGHTS], ids=["equal", "weighted"])
@pytest.mark.parametrize("bandwidth", ["scott", "silverman", 0.4])
def test_equals_scipy(bandwidth, log_weights):
    weights = None if log_weights is None else np.exp(log_weights)
    peer = stats.gaussian_kde(X.T, bw_method=bandwidth, weights=weights)
    kde = av.KDE(X, bandwidth=bandwidth, covariance="data", log_weights=log_weights)
    np.testing.assert_allclose(kde.bandwidth, peer.factor, rtol=1e-12)
    np.testing.assert_allclose(kde.bandwidth**2 * kde.covariance, peer.covariance, rtol=1e-10)
    np.testing.assert_allclose(kde.log_density(Z), peer.logpdf(Z.T), rtol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("log_weights", [None, LOG_WEIGHTS], ids=["equal", "weighted"])
def test_a_number_equals_sklearn(log_weights):
    weights = None if log_weights is None else np.exp(log_weights)
    # One leaf: with more, its tree loses digits of small sums.
    peer = KernelDensity(bandwidth=2.5, rtol=0, atol=0, leaf_size=200)
    peer.fit(X, sample_weight=weights)
    kde = av.KDE(X, bandwidth=2.5, log_weights=log_weights)
    assert kde.covariance is None
    np.testing.assert_allclose(kde.log_density(Z), peer.score_samples(Z), rtol=1e-9)


def test_single_precision_keeps_its_digits():
    kde = av.KDE(X)
    assert kde.log_density(Z).dtype == jnp.float32
    # Correlated at .9999, 900 from the origin.
    np.testing.assert_allclose(kde.log_density(Z), stats.gaussian_kde(X.T).logpdf(Z.T), atol=1e-3)


def test_a_bandwidth_per_dimension():
    h = np.array([3.0, 1.0, 50.0])
    kde = av.KDE(X, bandwidth=1.0, covariance=h**2)
    want = logsumexp(stats.norm.logpdf(Z[:, None], X, h).sum(-1), axis=1) - np.log(len(X))
    np.testing.assert_allclose(kde.log_density(Z), want, rtol=1e-5)


def leave_one_out(x, h, shares):
    """Return the weighted mean of the log densities of the points under the others."""
    logits = -np.square(x[:, None] - x).sum(-1) / (2 * h**2) + np.log(shares)
    np.fill_diagonal(logits, -np.inf)
    return np.sum(shares * (logsumexp(logits, axis=1) - np.log1p(-shares))) - x.shape[1] * np.log(h)


@pytest.mark.parametrize("kind", ["plain", "weighted", "whitened", "copies", "outlier"])
def test_cross_validation_finds_the_best_of_a_grid(kind):
    x = np.random.default_rng(1).standard_normal((60, 2)) * 1e-3 + 0.1
    given, log_weights = {}, np.zeros(60)
    if kind == "weighted":
        log_weights = np.where(np.arange(60) < 50, LOG_WEIGHTS[:60], -np.inf)
        given["log_weights"] = log_weights
    elif kind == "whitened":
        x = x @ [[1.0, 0.5], [0.0, 30.0]]
        given["covariance"] = "data"
    elif kind == "copies":
        x[:50:2] = x[1:50:2]
    elif kind == "outlier":
        x[0] = 1.0
    h = float(av.KDE(x, bandwidth="cv", **given).bandwidth)
    if kind == "whitened":
        x = np.linalg.solve(np.linalg.cholesky(np.cov(x.T)), x.T).T
    kept = log_weights > -np.inf
    shares = np.exp(log_weights[kept]) / np.exp(log_weights[kept]).sum()
    grid = np.concatenate([np.geomspace(h / 100, 100 * h, 80), h * np.linspace(0.98, 1.02, 41)])
    best = grid[np.argmax([leave_one_out(x[kept], value, shares) for value in grid])]
    assert h == pytest.approx(best, rel=1.001e-3)


def test_what_is_left_out_may_hold_anything():
    log_weights = np.where(np.arange(120) < 100, LOG_WEIGHTS, -np.inf)
    spoiled = np.where(np.arange(120)[:, None] < 100, X, np.nan)
    kde = av.KDE(spoiled, bandwidth="cv", covariance="data", log_weights=log_weights)
    kept = av.KDE(X[:100], bandwidth="cv", covariance="data", log_weights=LOG_WEIGHTS[:100])
    np.testing.assert_allclose(kde.bandwidth, kept.bandwidth, rtol=1e-4)
    assert np.isfinite(kde.sample(jax.random.key(0), 50)).all()


@pytest.mark.parametrize(
    "covariance", [None, np.array([4.0, 0.25]), np.array([[4, 0.9], [0.9, 1]])]
)
def test_samples_have_the_moments_of_the_density(covariance):
    num_samples = 40_000
    centers = np.array([[-3.0, 0.0], [2.0, 1.0], [0.0, 5.0]])
    shares = np.array([0.2, 0.7, 0.1])
    given = {"log_weights": np.log(shares) + 3.0}
    if covariance is None:
        given, shares = {}, np.full(3, 1 / 3)
    kde = av.KDE(centers, bandwidth=0.8, covariance=covariance, **given)
    z = np.asarray(kde.sample(jax.random.key(0), num_samples), np.float64)
    mean = shares @ centers
    kernel = np.eye(2) if covariance is None else covariance
    kernel = np.diag(kernel) if kernel.ndim == 1 else kernel
    want = 0.64 * kernel + (shares[:, None] * (centers - mean)).T @ (centers - mean)
    products = (z - mean)[:, :, None] * (z - mean)[:, None, :]
    assert np.all(np.abs(z.mean(0) - mean) < 5 * z.std(0) / np.sqrt(num_samples))
    error = products.std(axis=0) / np.sqrt(num_samples)
    assert np.all(np.abs(products.mean(axis=0) - want) < 5 * error)
    assert kde.sample(jax.random.key(0), 0).shape == (0, 2)


def test_it_is_a_pytree():
    kde = av.KDE(X, log_weights=LOG_WEIGHTS)
    # Several at once, one per bandwidth.
    axes = jax.tree_util.tree_unflatten(jax.tree.structure(kde), [None, 0, None, None])
    many = jax.tree_util.tree_unflatten(
        jax.tree.structure(kde),
        [kde.centers, jnp.array([0.2, 0.9]), kde.covariance, kde.log_weights],
    )
    values = jax.jit(jax.vmap(lambda kde: kde.log_density(Z), in_axes=(axes,)))(many)
    wide = dataclasses.replace(kde, bandwidth=0.9)
    np.testing.assert_allclose(values[1], wide.log_density(Z), rtol=1e-4)
    assert repr(wide) == "KDE(120 centers, 3 dimensions, bandwidth 0.900, weighted)"
    assert "bandwidth" not in str(jax.eval_shape(lambda kde: kde, kde))


@pytest.mark.usefixtures("x64")
def test_gradients():
    x, z = jnp.asarray(X[:12] @ np.linalg.inv(ROOT).T), jnp.asarray(Z @ np.linalg.inv(ROOT).T)

    def of_parts(centers, bandwidth, log_weights):
        return av.KDE(centers, bandwidth=bandwidth, log_weights=log_weights).log_density(z)

    parts = (x, jnp.float64(0.7), jnp.asarray(LOG_WEIGHTS[:12]))
    check_grads(jax.jit(of_parts), parts, order=1, modes=["rev"], rtol=1e-6)
    # A rule is a function of the centers, and has its gradient too.
    of_rule = jax.jit(lambda centers: av.KDE(centers).log_density(z))
    check_grads(of_rule, (x,), order=1, modes=["rev"], rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"bandwidth": 2.0, "log_weights": LOG_WEIGHTS}])
def test_what_is_saved_is_loaded(tmp_path, options):
    kde = av.KDE(X, **options)
    kde.save(tmp_path / "density")
    assert [path.name for path in tmp_path.iterdir()] == ["density"]
    again = av.KDE.load(tmp_path / "density")
    assert jax.tree.structure(again) == jax.tree.structure(kde)
    for leaf, want in zip(jax.tree.leaves(again), jax.tree.leaves(kde), strict=True):
        np.testing.assert_array_equal(leaf, want)


def test_what_is_no_saved_density(tmp_path):
    path = tmp_path / "density.npz"
    with pytest.raises(FileNotFoundError):
        av.KDE.load(path)
    av.KDE(X).save(path)
    whole = path.read_bytes()
    wrong = [b"", b"text", whole[:-30], whole[:200]]
    for contents in wrong:
        path.write_bytes(contents)
        with pytest.raises(ValueError, match="path must be a file that KDE.save wrote, got"):
            av.KDE.load(path)
    for arrays in (
        {"centers": X},
        {"centers": X, "bandwidth": 1.0, "other": X},
        {"centers": np.array([{}]), "bandwidth": 1.0},
        {"centers": X, "bandwidth": np.array("scott")},
        {"centers": X, "bandwidth": -1.0},
        {"centers": X, "bandwidth": 1.0, "log_weights": LOG_WEIGHTS[:3]},
    ):
        np.savez(path, **arrays)
        with pytest.raises(ValueError, match="path must be a file that KDE.save wrote, got"):
            av.KDE.load(path)
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(ValueError, match="path must be a file that KDE.save wrote, got"):
        av.KDE.load(tmp_path / "one.npy")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"centers": X[:, 0]}, ValueError, r"centers must .* give centers\[:, None\]"),
        ({"centers": X[:0]}, ValueError, r"centers must have shape .* got \(0, 3\)"),
        ({"centers": X.astype(int)}, TypeError, "centers must be of a floating type, got int32"),
        ({"bandwidth": "scot"}, ValueError, "bandwidth must be one of 'scott', .* got 'scot'"),
        ({"bandwidth": 0.0}, ValueError, "bandwidth must be finite and positive, got 0.0"),
        ({"bandwidth": np.ones(3)}, ValueError, r"bandwidth must be one number, got shape \(3,\)"),
        ({"covariance": "full"}, ValueError, "covariance must be one of 'data', got 'full'"),
        ({"covariance": np.eye(2)}, ValueError, r"covariance must have shape \[3\] or \[3, 3\]"),
        ({"log_weights": np.zeros(3)}, ValueError, "log_weights must have the num_centers of cent"),
        ({"centers": X[:1]}, ValueError, "centers must spread in all of their 3 dimensions"),
        ({"centers": X[:, [0, 1, 0]]}, ValueError, "centers must spread .*: leave out columns"),
        (
            {"centers": np.ones((4, 2)), "bandwidth": "cv"},
            ValueError,
            "centers must be two at least, and not all copies of others, for bandwidth='cv', got",
        ),
    ],
)
def test_errors_name_the_argument(change, error, message):
    with pytest.raises(error, match=message):
        av.KDE(**{"centers": X} | change)


def test_the_search_stays_outside_of_jit():
    for mapped, x in ((jax.jit, X), (jax.jacrev, X), (jax.vmap, X[None])):
        with pytest.raises(TypeError, match="KDE with bandwidth='cv' must be called outside"):
            mapped(lambda x: av.KDE(x, bandwidth="cv").bandwidth)(jnp.asarray(x))


def test_centers_of_an_explicit_mesh_are_taken():
    mesh = jax.make_mesh((8,), ("a",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("a"))
    points = RNG.standard_normal((16, 3)).astype(np.float32)
    spread = av.KDE(jax.device_put(points, rows))
    log_density = spread.log_density(jax.device_put(points[:8], rows))
    np.testing.assert_allclose(log_density, av.KDE(points).log_density(points[:8]), rtol=1e-5)
    key = jax.random.key(0)
    np.testing.assert_allclose(spread.sample(key, 5), av.KDE(points).sample(key, 5), rtol=1e-5)
