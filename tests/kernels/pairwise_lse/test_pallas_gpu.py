"""The Hopper kernel without a GPU: it lowers, and its arithmetic agrees with NumPy float64.

Where JAX has the simulator of a GPU, the kernel itself runs in it, and the simulator looks for
races. Everywhere, its loop over tiles is emulated around the kernel's own tile arithmetic.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.sharding import AxisType, PartitionSpec

from avae_jax.kernels.pairwise_lse import pallas_gpu
from avae_jax.kernels.pairwise_lse.reference import reference_stats
from avae_jax.kernels.pairwise_lse.stats import empty_level, masked_level

# Its arithmetic is tested here: what a GPU makes of it is another program.
pytestmark = pytest.mark.usefixtures("quick_compiler")

UNIT = 2.0**-24  # roundoff of float32
GATES = {"highest": 16 * UNIT, "high": 2 * 2.0**-16, "fast": 2 * 2.0**-9}


def tensor_core(a_parts, b_parts):
    """Multiply as the worst tensor core does: sixteen products at a time, every sum truncated."""
    a_parts, b_parts = np.asarray(a_parts, np.float64), np.asarray(b_parts, np.float64)
    total = np.zeros((a_parts.shape[1], b_parts.shape[2]))
    for i, j in pallas_gpu._pairs(len(a_parts), len(b_parts)):
        for start in range(0, a_parts.shape[2], 16):
            k = slice(start, start + 16)
            exact = total + a_parts[i][:, k] @ b_parts[j][k]
            rounded = exact.astype(np.float32)
            too_far = np.abs(rounded) > np.abs(exact)
            total = np.where(too_far, np.nextafter(rounded, np.float32(0)), rounded)
            total = total.astype(np.float64)
    return jnp.asarray(total, jnp.float32)


def multiply_pieces(pieces, b_parts):
    """Multiply pieces of a matrix by the rows they belong to, part by part."""
    a_parts = [
        jnp.concatenate(parts, axis=1) for parts in zip(*(a for _, a in pieces), strict=True)
    ]
    rows = [b_parts[:, columns] for columns, _ in pieces]
    return tensor_core(jnp.stack(a_parts), jnp.concatenate(rows, axis=1))


def emulated_run(plan, excludes, interpret, x, y, bias, exclude):
    num_queries = x.shape[1]
    tile = (num_queries, plan.centers)
    zeros = jnp.zeros((num_queries,), jnp.float32)
    weighted = tuple(jnp.zeros_like(x[0, :, dims], jnp.float32) for dims in plan.mean_blocks)
    results = []
    for split in range(plan.splits):
        carry = (zeros + masked_level(jnp.float32), zeros, zeros, weighted)
        for i in range(split * plan.tiles, (split + 1) * plan.tiles):
            centers = slice(i * plan.centers, (i + 1) * plan.centers)
            y_tile = y[:, centers]
            carry = pallas_gpu._add_tile(
                carry,
                tensor_core(x, y_tile[: plan.x_parts].swapaxes(1, 2)),
                jnp.broadcast_to(bias[centers], tile),
                jnp.broadcast_to(jnp.arange(centers.start, centers.stop), tile),
                jnp.broadcast_to(exclude[:, None], tile) if excludes else None,
                plan.x_parts,
                plan.polynomial,
                lambda split, y_tile=y_tile: [
                    multiply_pieces(split, y_tile[:, :, dims]) for dims in plan.mean_blocks
                ],
            )
        top, total, rounded, means = carry
        results.append((top, total))
        if means:
            results[-1] += (jnp.concatenate(means, axis=1) * (total / rounded)[:, None],)
    return [jnp.stack(a) for a in zip(*results, strict=True)]


@pytest.fixture(params=["emulated"] + ["interpreted"] * hasattr(plgpu, "InterpretGPUParams"))
def sums(request, monkeypatch):
    """Returns pallas_gpu.sums in a form that runs here."""
    if request.param == "emulated":
        monkeypatch.setattr(pallas_gpu, "_run", emulated_run)
        return pallas_gpu.sums

    multiply = pallas_gpu._multiply

    def multiply_registers(pieces):
        if not isinstance(pieces[0][0][0], jax.Array):
            return multiply(pieces)
        # The simulator has no product of an operand in registers.
        product = sum(
            jnp.dot(a[i].astype(jnp.float32), b[j][...].astype(jnp.float32))
            for i, j in pallas_gpu._pairs(*map(len, pieces[0]))
            for a, b in pieces
        )
        plgpu.commit_smem()
        return product

    monkeypatch.setattr(pallas_gpu, "_multiply", multiply_registers)
    interpret = plgpu.InterpretGPUParams(detect_races=True)
    return functools.partial(pallas_gpu.sums, interpret=interpret)


def make_problem(n, m, d, *, offset=0.0, weights=False, exclude=False):
    """Returns float32 (x, y, log_weights, exclude); every other query is near a center."""
    rng = np.random.default_rng(0)
    y = (offset + rng.normal(size=(m, d))).astype(np.float32)
    x = (offset + rng.normal(size=(n, d))).astype(np.float32)
    near = np.arange(0, n, 2)
    x[near] = y[near % m] + (0.1 * rng.normal(size=(len(near), d))).astype(np.float32)
    log_weights = left_out = None
    if weights:
        log_weights = rng.normal(size=m).astype(np.float32)
        log_weights[1:][rng.random(m - 1) < 0.2] = -np.inf
        y[log_weights == -np.inf] = np.nan
    if exclude:
        left_out = rng.integers(-1, m, size=n).astype(np.int32)
        left_out[near] = near % m
    return x, y, log_weights, left_out


def assert_agrees(sums, problem, bandwidth, precision, mean, **options):
    x, y, log_weights, left_out = problem
    used = y if log_weights is None else y[log_weights > -np.inf]
    shift = used.mean(axis=0)
    center = used.astype(np.float64).mean(axis=0)
    actual = sums(
        x, y, jnp.full((1,), bandwidth, jnp.float32), log_weights, left_out,
        shift, mean=mean, moments=False, precision=precision, **options,
    )  # fmt: skip
    assert (actual.first, actual.second) == (None, None)
    assert actual.top.shape == actual.total.shape == (1, len(x))
    assert actual.top.dtype == actual.total.dtype == jnp.float32
    top, total = (np.asarray(a[0], np.float64) for a in (actual.top, actual.total))
    if left_out is not None:
        left_out = np.where((left_out >= 0) & (left_out < len(y)), left_out, -1)
    expected = reference_stats(x, y, bandwidth=bandwidth, log_weights=log_weights, exclude=left_out)
    empty = expected.lse == -np.inf
    np.testing.assert_array_equal(top <= empty_level(jnp.float32), empty)

    radii = np.sum((used - center) ** 2, axis=1)
    size = (np.sum((x - center) ** 2, axis=1) + np.max(radii)) / (2 * bandwidth**2)
    limit = GATES[precision] * (1 + size)
    error = np.abs(top + np.log(total) - expected.lse)[~empty]
    assert np.all(error <= limit[~empty]), f"{np.max(error / limit[~empty])} of the limit"

    if not mean:
        assert actual.weighted is None
        return
    assert actual.weighted.shape == (1, *x.shape)
    mean = np.asarray(actual.weighted[0], np.float64) / total[:, None] + shift
    error = np.linalg.norm(mean - expected.mean, axis=1)[~empty]
    spread = softmax_spread(problem, bandwidth, expected)
    limit = (2 * limit * spread + 8 * UNIT * np.sqrt(np.max(radii)))[~empty]
    assert np.all(error <= limit), f"{np.max(error / limit)} of the limit"


def softmax_spread(problem, bandwidth, expected):
    """Returns sqrt(E|y - E y|^2) under the softmax of each query, float64 [n]."""
    x, y, log_weights, left_out = problem
    spread = np.zeros(len(x))
    for i in np.flatnonzero(expected.lse > -np.inf):
        logits = -np.sum((x[i].astype(np.float64) - y) ** 2, axis=1) / (2 * bandwidth**2)
        if log_weights is not None:
            logits = np.where(log_weights > -np.inf, logits + log_weights, -np.inf)
        if left_out is not None and left_out[i] in range(len(y)):
            logits[left_out[i]] = -np.inf
        weights = np.exp(logits - expected.lse[i])
        squared = np.where(weights > 0, np.sum((y - expected.mean[i]) ** 2, axis=1), 0.0)
        spread[i] = np.sqrt(np.sum(weights * squared))
    return spread


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("precision", sorted(GATES))
def test_values_agree_with_float64(sums, precision, mean):
    problem = make_problem(66, 520, 40, weights=True, exclude=True)
    assert_agrees(sums, problem, 0.7, precision, mean)


@pytest.mark.parametrize(
    ("n", "m", "d"),
    [(1, 1, 1), (2, 127, 16), (64, 128, 17), (65, 129, 33), (3, 1700, 5), (20, 100, 100)],
)
def test_values_at_the_edges_of_tiles_and_with_several_splits(sums, n, m, d):
    assert_agrees(sums, make_problem(n, m, d, exclude=m > 1), 0.5, "highest", mean=True)


@pytest.mark.parametrize(
    ("d", "precision", "mean"),
    [(288, "highest", False), (192, "highest", True), (864, "fast", False)],
)
def test_values_at_the_largest_dimension(sums, d, precision, mean):
    # Where x.y is largest, so are the errors of sums that are truncated in a bad order.
    assert_agrees(sums, make_problem(20, 100, d), 1.0, precision, mean)
    with pytest.raises(NotImplementedError, match=f"no tile for {d + 1} dimensions.*matrix"):
        assert_agrees(sums, make_problem(20, 100, d + 1), 1.0, precision, mean)


@pytest.mark.parametrize(("offset", "bandwidth"), [(1e3, 0.5), (0.0, 1e-2), (0.0, 10.0)])
def test_values_far_from_the_origin_and_at_extreme_bandwidths(sums, offset, bandwidth):
    problem = make_problem(10, 200, 16, offset=offset, exclude=True)
    assert_agrees(sums, problem, bandwidth, "highest", mean=True)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_what_is_masked_or_not_finite_reaches_no_other_row(sums):
    x, y, log_weights, left_out = make_problem(8, 40, 3, weights=True, exclude=True)
    left_out[:4] = [40, 2**31 - 1, -(2**31), -7]  # leave out nothing
    expected = sums(
        x, y, jnp.ones((1,)), log_weights, left_out, np.zeros(3, np.float32),
        mean=True, moments=False, precision="highest",
    )  # fmt: skip
    assert_agrees(sums, (x, y, log_weights, left_out), 1.0, "highest", mean=True)
    x[4], x[6] = np.nan, np.inf
    spoilt = sums(
        x, y, jnp.ones((1,)), log_weights, left_out, np.zeros(3, np.float32),
        mean=True, moments=False, precision="highest",
    )  # fmt: skip
    good = np.array([0, 1, 2, 3, 5, 7])
    for a, b in zip(expected[:3], spoilt[:3], strict=True):
        np.testing.assert_array_equal(a[:, good], b[:, good])


def test_rows_with_nothing_included_are_empty(sums):
    x, y, _, _ = make_problem(3, 5, 2)
    log_weights = np.full(5, -np.inf, np.float32)
    log_weights[2] = 0.0
    left_out = np.array([2, -1, 2], np.int32)
    assert_agrees(sums, (x, y, log_weights, left_out), 1.0, "highest", mean=True)
    log_weights[2] = -np.inf
    empty = sums(
        x, y, jnp.ones((1,)), log_weights, None, np.zeros(2, np.float32),
        mean=False, moments=False, precision="highest",
    )  # fmt: skip
    assert np.all(np.asarray(empty.top) <= empty_level(jnp.float32))


def test_the_mean_of_equal_centers_is_that_center_in_every_class(sums):
    x, y, _, _ = make_problem(2, 4, 16)
    x[:], y[:3], y[3] = y[0], y[0], y[0] + 10.0
    log_weights = np.array([0.0, -0.4, -1.1, 0.0], np.float32)  # bfloat16 has to round exp of them
    for precision in GATES:
        assert_agrees(sums, (x, y, log_weights, None), 1.0, precision, mean=True)


@pytest.mark.parametrize("share", [0.25, 1.0])
@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("precision", sorted(GATES))
def test_values_with_a_share_of_polynomials(sums, precision, mean, share):
    problem = make_problem(65, 129, 5, weights=True, exclude=True)
    assert_agrees(sums, problem, 0.5, precision, mean, polynomial_share=share)


def test_what_is_not_a_number_is_not_lost_in_polynomials(sums):
    x, y, _, _ = make_problem(2, 5, 3)
    y[1] = np.nan
    spoilt = sums(
        x, y, jnp.ones((1,)), None, None, np.zeros(3, np.float32),
        mean=False, moments=False, precision="highest", polynomial_share=1.0,
    )  # fmt: skip
    assert np.all(np.isnan(spoilt.total))


@pytest.mark.parametrize("run", [lambda fn: fn, jax.jit], ids=["eager", "jit"])
def test_exponential_by_polynomial_agrees_with_float64(run):
    exp2 = run(pallas_gpu.polynomial_exp2)
    t = np.linspace(-126.0, 0.0, 300_007).astype(np.float32)
    near_zero = -(2.0 ** np.linspace(-149, 0, 1000)).astype(np.float32)
    t = np.concatenate([t, near_zero, np.arange(-126, 1, dtype=np.float32)])
    expected = 2.0 ** t.astype(np.float64)
    assert np.all(np.abs(np.asarray(exp2(t), np.float64) - expected) < 2.0**-22 * expected)
    assert exp2(np.zeros(1, np.float32)) == 1.0

    tiny = np.asarray(exp2(np.linspace(-127.0, -126.0, 10_001).astype(np.float32)))
    assert np.all((tiny >= 0) & (tiny <= 2.0**-126))
    masked = np.array([-127.0, masked_level(np.float32), np.finfo(np.float32).min, -np.inf])
    np.testing.assert_array_equal(exp2(masked.astype(np.float32)), 0.0)


@pytest.mark.parametrize("d", [3, 40, 100, 192])
@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("precision", sorted(GATES))
def test_lowers_for_a_gpu_without_an_array_of_pairs(precision, mean, d):
    text = lower(300, 1000, d, d != 40, mean, precision)
    assert "mosaic_gpu" in text
    assert not any(f"{n}x{m}x" in text for n in (300, 320, 384) for m in (1000, 1024))


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize(
    ("d", "share"), [(3, 0.125), (3, 1.0), (32, 0.25), (64, 0.5), (100, 0.25), (100, 1.0)]
)
def test_lowers_with_a_share_of_polynomials(d, mean, share):
    assert "mosaic_gpu" in lower(300, 1000, d, True, mean, "highest", polynomial_share=share)


def lower(n, m, d, optional, mean, precision, **options):
    def array(shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype)

    fn = functools.partial(
        pallas_gpu.sums, mean=mean, moments=False, precision=precision, **options
    )
    traced = jax.jit(fn).trace(
        array((n, d)), array((m, d)), array((1,)), array((m,)) if optional else None,
        array((n,), jnp.int32) if optional else None, array((d,)),
    )  # fmt: skip
    return traced.lower(lowering_platforms=("cuda",)).as_text()


def test_lowers_where_jax_counts_in_64_bits():
    with jax.enable_x64(True):
        assert "mosaic_gpu" in lower(300, 1000, 40, True, True, "highest")


@pytest.mark.parametrize("check_vma", [False, True])
def test_lowers_under_shard_map(check_vma):
    mesh = jax.make_mesh((8,), ("device",), axis_types=(AxisType.Auto,))

    def fn(x, y):
        sums = pallas_gpu.sums(
            x, y, jnp.ones((1,)), None, None, jnp.zeros((16,)),
            mean=True, moments=False, precision="high",
        )  # fmt: skip
        return sums.top, sums.weighted

    spec = PartitionSpec("device")
    out = PartitionSpec(None, "device"), PartitionSpec(None, None, "device")
    mapped = jax.shard_map(
        fn, mesh=mesh, in_specs=(spec, PartitionSpec()), out_specs=out, check_vma=check_vma
    )
    traced = jax.jit(mapped).trace(jnp.zeros((64, 16)), jnp.zeros((256, 16)))
    assert "mosaic_gpu" in traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("precision", sorted(GATES))
def test_every_plan_fits_the_chip(precision, mean):
    for d in (1, 16, 17, 64, 65, 96, 128, 160, 192):
        for n, m in [(1, 1), (100, 10**6), (65_536, 65_536), (10**6, 1000)]:
            plan = pallas_gpu._plan(n, m, d, precision, mean, 0.25)
            queries, tile = plan.warpgroups * 64, plan.centers
            floats = plan.stages * tile + queries
            bytes_used = (
                2 * plan.dims * (plan.x_parts * queries + plan.y_parts * plan.stages * tile)
            )
            assert bytes_used + 4 * floats <= 227 * 1024
            assert 0 <= plan.polynomial <= tile / 4
            assert plan.polynomial > 0 or tile < 128 or mean
            assert pallas_gpu._plan(n, m, d, precision, mean, 1.0).polynomial == tile
            assert plan.stages >= 2
            assert plan.dims >= d
            assert plan.query_blocks * queries >= n > (plan.query_blocks - 1) * queries
            tiles = -(-m // tile)
            assert plan.splits * plan.tiles >= tiles > (plan.splits - 1) * plan.tiles
            # Small n must still fill the chip.
            assert plan.query_blocks * plan.splits >= min(132, tiles // 8)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_parts_add_up(count):
    rng = np.random.default_rng(0)
    a = (rng.normal(size=(5, 7)) * 2.0 ** rng.integers(-40, 40, size=(5, 7))).astype(np.float32)
    parts = pallas_gpu._padded_parts(a, (6, 16), count)
    assert parts.shape == (count, 6, 16)
    assert parts.dtype == jnp.bfloat16
    total = np.asarray(parts, np.float64).sum(axis=0)
    assert np.all(np.abs(total[:5, :7] - a) <= 2.0 ** (-8 * count) * np.abs(a) * (count < 3))
    assert not total[5:].any()
    assert not total[:, 7:].any()


def test_refuses_what_it_cannot_do():
    x, y, _, _ = make_problem(2, 3, 4)

    def call(x, y, bandwidths, moments):
        return pallas_gpu.sums(
            x, y, bandwidths, None, None, np.zeros(4, np.float32),
            mean=False, moments=moments, precision="highest",
        )  # fmt: skip

    one = jnp.ones((1,))
    for share in (-0.1, 1.5, np.nan):
        with pytest.raises(ValueError, match=f"in \\[0, 1\\], got {share}"):
            lower(2, 3, 4, False, False, "highest", polynomial_share=share)
    with pytest.raises(NotImplementedError, match="moments.*matrix"):
        call(x, y, one, True)
    with pytest.raises(NotImplementedError, match="one bandwidth, got 3.*matrix"):
        call(x, y, jnp.ones((3,)), False)
    with pytest.raises(NotImplementedError, match="float32, got y float16.*matrix"):
        call(x, y.astype(np.float16), one, False)


class _Device:
    def __init__(self, compute_capability):
        self.compute_capability = compute_capability


def test_says_why_it_cannot_run_here(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert "default backend is 'cpu'" in str(pallas_gpu.unavailable())
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [_Device("8.0")])
    assert "this GPU has 8.0" in str(pallas_gpu.unavailable())
    monkeypatch.setattr(jax, "devices", lambda: [_Device("9.0")])
    assert pallas_gpu.unavailable() is None
