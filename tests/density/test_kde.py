import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from jax.test_util import check_grads
from scipy import stats
from scipy.special import logsumexp, softmax
from sklearn.neighbors import KernelDensity

from avae_jax.density import kde_log_density

pytestmark = pytest.mark.usefixtures("quick_compiler")


def draw(n, m, d, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, d), dtype=np.float32)
    centers = rng.standard_normal((m, d), dtype=np.float32)
    return z, centers


def reference(z, centers, h, exclude=None, log_weights=None):
    """Float64 log density, each row from its own list of included centers."""
    z, centers = np.asarray(z, np.float64), np.asarray(centers, np.float64)
    m, d = centers.shape
    weights = np.ones(m) if log_weights is None else np.exp(np.asarray(log_weights, np.float64))
    values = []
    for i, row in enumerate(z):
        keep = np.ones(m, bool)
        if exclude is not None and exclude[i] >= 0:
            keep[exclude[i]] = False
        logits = -np.square(row - centers[keep]).sum(1) / (2 * h**2)
        with np.errstate(divide="ignore"):
            logits += np.log(weights[keep] / weights[keep].sum())
        top = logits.max()
        values.append(top + np.log(np.exp(logits - top).sum()))
    return np.array(values) - d * np.log(h) - 0.5 * d * np.log(2 * np.pi)


@pytest.mark.usefixtures("full_compiler")
@pytest.mark.parametrize(("d", "h"), [(1, 0.1), (2, 1.0), (7, 0.4), (16, 0.6), (64, 0.7)])
def test_equals_sklearn(d, h):
    z, centers = draw(33, 500, d)
    # One leaf: with more, its tree loses digits of small sums (.05 nats at d = 16 with 40 a leaf).
    peer = KernelDensity(bandwidth=h, rtol=0, atol=0, leaf_size=500)
    peer.fit(centers.astype(np.float64))
    expected = peer.score_samples(z.astype(np.float64))
    np.testing.assert_allclose(
        kde_log_density(z, centers, bandwidth=h), expected, rtol=3e-6, atol=3e-5
    )


@pytest.mark.usefixtures("full_compiler")
@pytest.mark.parametrize(
    ("n", "m", "d", "h"), [(1, 1, 1, 0.5), (5, 300, 64, 0.7), (3, 9, 257, 1.0)]
)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("excluding", [False, True])
def test_equals_float64(n, m, d, h, weighted, excluding):
    z, centers = draw(n, m, d)
    log_weights = np.linspace(-3, 2, m, dtype=np.float32) if weighted else None
    exclude = np.arange(-1, n - 1, dtype=np.int32) if excluding else None
    value = kde_log_density(z, centers, bandwidth=h, exclude=exclude, log_weights=log_weights)
    assert value.shape == (n,)
    assert value.dtype == jnp.float32
    expected = reference(z, centers, h, exclude, log_weights)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-4)


def test_integrates_to_one_over_the_line():
    _, centers = draw(1, 20, 1)
    grid = np.linspace(-8, 8, 4001, dtype=np.float32)[:, None]
    weights = np.linspace(-1, 1, 20, dtype=np.float32)
    density = np.exp(kde_log_density(grid, centers, bandwidth=0.3, log_weights=weights))
    np.testing.assert_allclose(np.trapezoid(density, grid[:, 0]), 1.0, atol=1e-5)


def test_leaving_a_code_out_equals_removing_its_row():
    _, centers = draw(1, 50, 6)
    loo = kde_log_density(centers, centers, bandwidth=0.5, exclude=jnp.arange(50))
    without = [
        float(kde_log_density(centers[i : i + 1], np.delete(centers, i, 0), bandwidth=0.5)[0])
        for i in (0, 17, 49)
    ]
    np.testing.assert_allclose(np.asarray(loo)[[0, 17, 49]], without, rtol=1e-5)


def test_masked_centers_do_not_count():
    z, centers = draw(4, 30, 5)
    log_weights = np.where(np.arange(30) < 20, 0.0, -np.inf).astype(np.float32)
    masked = kde_log_density(z, centers, bandwidth=0.5, log_weights=log_weights)
    np.testing.assert_allclose(
        masked, kde_log_density(z, centers[:20], bandwidth=0.5), rtol=1e-5, atol=1e-5
    )


def test_excluding_the_center_with_nearly_all_of_the_weight():
    z, centers = draw(2, 3, 2)
    log_weights = np.array([0.0, 40.0, 1.0], np.float32)
    exclude = np.array([1, 1], np.int32)
    value = kde_log_density(z, centers, bandwidth=0.5, exclude=exclude, log_weights=log_weights)
    expected = reference(z, centers, 0.5, exclude, log_weights)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("log_weights", [None, np.zeros(1, np.float32)])
def test_no_center_left_is_minus_infinity_with_zero_gradient(log_weights):
    z, centers = draw(2, 1, 3)
    exclude = jnp.array([0, -1])

    def total(z):
        value = kde_log_density(z, centers, bandwidth=0.5, exclude=exclude, log_weights=log_weights)
        return value[1], value

    (_, value), gradient = jax.value_and_grad(total, has_aux=True)(jnp.asarray(z))
    assert value[0] == -jnp.inf
    assert np.isfinite(value[1])
    assert not np.any(gradient[0])
    np.testing.assert_allclose(gradient[1], (centers[0] - z[1]) / 0.25, rtol=1e-5)


def test_duplicating_every_center_changes_nothing():
    z, centers = draw(5, 40, 10)
    twice = np.concatenate([centers, centers])
    np.testing.assert_allclose(
        kde_log_density(z, twice, bandwidth=0.6),
        kde_log_density(z, centers, bandwidth=0.6),
        rtol=1e-5,
    )


def test_far_query_keeps_its_value():
    centers = np.zeros((4, 64), np.float32)
    z = np.full((1, 64), 50.0, np.float32)
    np.testing.assert_allclose(
        kde_log_density(z, centers, bandwidth=0.7), reference(z, centers, 0.7), rtol=1e-6
    )


@pytest.mark.usefixtures("full_compiler")
@pytest.mark.parametrize("excluding", [False, True])
def test_gradients_in_float64(excluding):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        z, centers = jnp.asarray(rng.normal(size=(4, 3))), jnp.asarray(rng.normal(size=(6, 3)))
        log_weights = jnp.asarray(rng.normal(size=6))
        exclude = jnp.array([0, -1, 5, 2]) if excluding else None

        def value(z, centers, bandwidth, log_weights):
            return kde_log_density(
                z, centers, bandwidth=bandwidth, exclude=exclude, log_weights=log_weights
            )

        check_grads(
            jax.jit(value),
            (z, centers, jnp.asarray(0.7), log_weights),
            order=1,
            modes=["rev"],
            rtol=1e-6,
        )


def test_works_under_jit_with_a_traced_bandwidth():
    z, centers = draw(4, 30, 5)
    jitted = jax.jit(lambda h: kde_log_density(z, centers, bandwidth=h))
    np.testing.assert_allclose(jitted(0.4), reference(z, centers, 0.4), rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bandwidth": 0.0}, "bandwidth must be finite and positive, got 0.0"),
        ({"bandwidth": float("nan")}, "bandwidth must be finite and positive, got nan"),
        ({"z": np.zeros(3, np.float32)}, r"z must have shape .*, got \(3,\)"),
        (
            {"centers": np.zeros((5, 4), np.float32)},
            "centers must have the latent_dim of z, 3, got 4",
        ),
        ({"centers": np.zeros((0, 3), np.float32)}, "centers must have a row"),
        ({"exclude": np.zeros(3, np.int32)}, "exclude must have the rows of z, 2, got 3"),
        (
            {"log_weights": np.zeros(3, np.float32)},
            "log_weights must have the num_centers of centers, 5, got 3",
        ),
    ],
)
def test_errors_name_the_argument(change, message):
    arguments = {
        "z": np.zeros((2, 3), np.float32),
        "centers": np.zeros((5, 3), np.float32),
        "bandwidth": 0.5,
    } | change
    with pytest.raises(ValueError, match=message):
        kde_log_density(**arguments)


@pytest.mark.parametrize(("with_exclude", "covariance"), [(False, np.eye(3) + 1), (True, None)])
@pytest.mark.parametrize("queries_sharded", [False, True])
@pytest.mark.parametrize("check_vma", [False, True])
def test_sharded_centers_give_the_density_of_all(
    check_vma, queries_sharded, with_exclude, covariance
):
    rng = np.random.default_rng(0)
    z, centers = (rng.normal(size=(k, 3)).astype(np.float32) for k in (16, 40))
    log_weights = rng.normal(size=40).astype(np.float32)
    exclude = rng.integers(-1, 40, 16).astype(np.int32) if with_exclude else None
    rows, whole = PartitionSpec("data"), PartitionSpec()
    of_z = rows if queries_sharded else whole
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def loss(z, centers, log_weights, exclude, **options):
        log_q = kde_log_density(
            z, centers, bandwidth=0.5, covariance=covariance, log_weights=log_weights,
            exclude=exclude, **options,
        )  # fmt: skip
        return jnp.sum(jnp.sin(log_q)), log_q

    step = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)

    def local(*args):
        (_, log_q), gradients = step(*args, axis_name="data", queries_sharded=queries_sharded)
        return log_q, gradients

    sharded = jax.shard_map(
        local, mesh=mesh, in_specs=(of_z, rows, rows, of_z),
        out_specs=(of_z, (of_z, rows, rows)), check_vma=check_vma,
    )  # fmt: skip
    log_q, gradients = jax.jit(sharded)(z, centers, log_weights, exclude)
    (_, expected), expected_gradients = jax.jit(step)(z, centers, log_weights, exclude)
    np.testing.assert_allclose(log_q, expected, rtol=1e-5, atol=1e-5)
    for actual, wanted in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("excluding", [False, True])
def test_half_precision_is_promoted(dtype, excluding):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), dtype)  # noqa: E731
    z, centers, log_weights = draw(5, 128), draw(30, 128), draw(30)
    h = jnp.asarray(0.62, dtype)
    exclude = np.array([-1, 3, 29, 0, 7]) if excluding else None
    value = kde_log_density(z, centers, bandwidth=h, log_weights=log_weights, exclude=exclude)
    assert value.dtype == jnp.float32
    z, centers, log_weights = (np.float64(a) for a in (z, centers, log_weights))
    expected = reference(z, centers, float(h), exclude, log_weights)
    np.testing.assert_allclose(value, expected, rtol=2e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_leaving_out_keeps_float64(weighted):
    rng = np.random.default_rng(0)
    z, centers = rng.standard_normal((2, 30, 16))
    log_weights = rng.standard_normal(30) if weighted else None
    exclude = np.arange(30)
    expected = reference(z, centers, 0.6, exclude, log_weights)
    with jax.enable_x64(True):
        value = kde_log_density(z, centers, bandwidth=0.6, log_weights=log_weights, exclude=exclude)
    assert value.dtype == np.float64
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_gradient_in_log_weights_past_masked_ones():
    z, centers = draw(20, 20, 3)
    log_weights = jnp.linspace(-1, 9, 20).at[jnp.array([0, 1, 18])].set(-jnp.inf)

    def value(log_weights):
        return kde_log_density(
            z, centers, bandwidth=0.5, exclude=np.arange(20), log_weights=log_weights
        )

    jacobian = np.asarray(jax.jacrev(value)(log_weights))
    # d log q_i / d log w_j = softmax_j of the logits with weights, less that of the weights.
    logits = -np.square(z[:, None].astype(np.float64) - centers).sum(-1) / (2 * 0.5**2)
    weights = np.asarray(log_weights, np.float64)[None] + np.where(np.eye(20) > 0, -np.inf, 0)
    expected = softmax(logits + weights, axis=1) - softmax(weights, axis=1)
    np.testing.assert_allclose(jacobian, expected, atol=1e-5)


@pytest.mark.parametrize("covariance", [None, "variances", "full"])
@pytest.mark.parametrize("options", ["plain", "weighted, leaving out"])
def test_several_bandwidths_are_as_one_at_a_time(covariance, options):
    z, centers = draw(4, 30, 3)
    given = {"covariance": COVARIANCES[covariance]}
    if options != "plain":
        given["log_weights"] = np.linspace(-1, 1, 30, dtype=np.float32)
        given["exclude"] = np.array([-1, 3, 29, 0])
    several = kde_log_density(z, centers, bandwidth=np.array([0.3, 0.7]), **given)
    assert several.shape == (2, 4)
    each = [kde_log_density(z, centers, bandwidth=h, **given) for h in (0.3, 0.7)]
    np.testing.assert_allclose(several, each, rtol=1e-6)


ROOT = np.array([[2.0, 0, 0], [0.7, 0.1, 0], [-1.0, 0.02, 30.0]])
COVARIANCES = {None: None, "variances": np.array([4.0, 0.01, 900.0]), "full": ROOT @ ROOT.T}


@pytest.mark.parametrize("name", ["variances", "full"])
def test_a_covariance_is_that_of_every_kernel(name):
    covariance, h = COVARIANCES[name], 0.6
    full = np.diag(covariance) if covariance.ndim == 1 else covariance
    # Far from the origin, in units that differ: whitened there, float32 would lose its digits.
    z, centers = (a @ ROOT.T + 50.0 for a in draw(5, 40, 3))
    expected = logsumexp(
        [stats.multivariate_normal(center, h**2 * full).logpdf(z) for center in centers], axis=0
    ) - math.log(40)
    given = {"bandwidth": h, "covariance": covariance}
    np.testing.assert_allclose(kde_log_density(z, centers, **given), expected, rtol=2e-4)
    with jax.enable_x64(True):
        np.testing.assert_allclose(kde_log_density(z, centers, **given), expected, rtol=1e-10)
        isotropic = kde_log_density(z, centers, bandwidth=1.0, covariance=np.full(3, h**2))
        np.testing.assert_allclose(isotropic, kde_log_density(z, centers, bandwidth=h), rtol=1e-12)


@pytest.mark.parametrize("name", ["variances", "full"])
def test_gradients_through_a_covariance(name):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        z, centers = jnp.asarray(rng.normal(size=(4, 3))), jnp.asarray(rng.normal(size=(6, 3)))
        root = jnp.asarray(rng.normal(size=(3, 3)) + 2 * np.eye(3))

        def value(z, centers, bandwidth, root):
            covariance = root @ root.T if name == "full" else jnp.square(root[0])
            return kde_log_density(z, centers, bandwidth=bandwidth, covariance=covariance)

        arguments = (z, centers, jnp.array([0.7, 1.1]), root)
        check_grads(jax.jit(value), arguments, order=1, modes=["rev"], rtol=1e-6)


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (np.ones(2), r"covariance must have shape \[3\] or \[3, 3\], got \(2,\)"),
        (np.float32(1), r"covariance must have shape \[3\] or \[3, 3\], got \(\)"),
        (np.array([1.0, 0.0, 1.0]), "covariance must be symmetric and positive definite"),
        (np.ones((3, 3)), "covariance must be symmetric and positive definite"),
        (np.tril(np.ones((3, 3))), "covariance must be symmetric and positive definite"),
    ],
)
def test_what_is_no_covariance(covariance, message):
    z = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=message):
        kde_log_density(z, z, bandwidth=1.0, covariance=covariance)


def test_a_table_of_bandwidths_is_refused():
    z = np.zeros((3, 3), np.float32)
    with pytest.raises(ValueError, match=r"bandwidth must .* got shape \(3, 3\): give covariance="):
        kde_log_density(z, z, bandwidth=np.eye(3))


def test_lists_are_arrays_and_integers_are_refused():
    value = kde_log_density([[0.0]], [[0.0]], bandwidth=1, exclude=[-1], log_weights=[0.0])
    np.testing.assert_allclose(value, -0.5 * math.log(2 * math.pi), rtol=1e-6)
    with pytest.raises(TypeError, match="log_weights must be of a floating type, got bool"):
        kde_log_density([[0.0]], [[0.0]], bandwidth=1, log_weights=[True])
