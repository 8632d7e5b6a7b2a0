"""The TPU kernel: run by the interpreter against NumPy float64, and lowered for a TPU."""

import functools
import re
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from avae_jax.kernels.pairwise_lse import pallas_tpu
from avae_jax.kernels.pairwise_lse.pallas_tpu import Blocks
from avae_jax.kernels.pairwise_lse.reference import reference_stats
from avae_jax.kernels.pairwise_lse.stats import Sums, empty_level

# Its arithmetic is tested here: what a TPU makes of it is another program.
pytestmark = pytest.mark.usefixtures("quick_compiler")

UNIT = 2.0**-24  # roundoff of float32
GATES = {"highest": 16 * UNIT, "high": 2 * 2.0**-16, "fast": 2 * 2.0**-9}
SMALL = Blocks(queries=128, centers=128, tiles=2)

# NumPy arrays go where JAX's are asked for.
sums_fn: Any = pallas_tpu.sums
run = functools.partial(
    jax.jit(sums_fn, static_argnames=("mean", "moments", "precision", "interpret", "blocks")),
    mean=True,
    moments=True,
    precision="highest",
    interpret=True,
    blocks=SMALL,
)


def f32(values):
    return np.asarray(values, np.float32)


def make_problem(n, m, d, *, offset=0.0, near=0.1, weights=False, exclude=False):
    """Returns float32 (x, y, options); every other query lies close to a center."""
    rng = np.random.default_rng(0)
    y = (offset + rng.normal(size=(m, d))).astype(np.float32)
    x = (offset + rng.normal(size=(n, d))).astype(np.float32)
    close = np.arange(0, n, 2)
    x[close] = y[close % m] + (near * rng.normal(size=(len(close), d))).astype(np.float32)
    options: dict[str, Any] = {"log_weights": None, "exclude": None}
    if weights:
        options["log_weights"] = rng.normal(size=m).astype(np.float32)
        options["log_weights"][rng.random(m) < 0.2] = -np.inf
        options["log_weights"][0] = 0.0
    if exclude:
        options["exclude"] = rng.integers(-1, m, size=n).astype(np.int32)
        options["exclude"][close] = close % m
    return x, y, options


def center_mean(y, log_weights=None):
    kept = y if log_weights is None else y[log_weights != -np.inf]
    return kept.mean(axis=0, dtype=np.float64)


class Result(NamedTuple):
    """What the sums of one bandwidth say, float64."""

    lse: np.ndarray
    mean: Any  # [n, d], the others [n]; None where not asked for
    first: Any
    second: Any


def result(sums, b, shift) -> Result:
    sums = jax.tree.map(lambda a: np.asarray(a[b], np.float64), sums)
    empty = sums.top <= empty_level(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        return Result(
            np.where(empty, -np.inf, sums.top + np.log(sums.total)),
            None if sums.weighted is None else sums.weighted / sums.total[:, None] + shift,
            None if sums.first is None else sums.first / sums.total,
            None if sums.second is None else sums.second / sums.total,
        )


def assert_agrees(sums, shift, x, y, bandwidths, options, precision="highest", share=1.0):
    """Checks all that is in `sums` against float64, in rows that include a center."""
    for b, bandwidth in enumerate(bandwidths):
        bandwidth = float(bandwidth)
        actual = result(sums, b, np.asarray(shift, np.float64))
        expected = reference_stats(x, y, bandwidth=bandwidth, **options)
        kept = expected.lse != -np.inf
        np.testing.assert_array_equal(actual.lse != -np.inf, kept)

        used = y if options["log_weights"] is None else y[options["log_weights"] != -np.inf]
        radii = np.linalg.norm(used - center_mean(y, options["log_weights"]), axis=1)
        far = np.linalg.norm(x - center_mean(y, options["log_weights"]), axis=1)
        size = (np.square(far) + np.square(radii.max())) / (2 * bandwidth**2)
        gate = GATES[precision] * (1 + size)
        error = np.abs(actual.lse[kept] - expected.lse[kept])
        assert np.all(error <= share * gate[kept]), f"{np.max(error / gate[kept])} of the gate"

        # Beyond, softmax weights are off by more than a first-order bound can say.
        linear = kept & (gate < 0.05)
        if sums.weighted is not None:
            # E|y - mean|^2 = E|y - x|^2 - |mean - x|^2, and E|y - x|^2 = -2 h^2 E[l].
            drift = np.linalg.norm(expected.mean - x, axis=1)
            variance = -2 * bandwidth**2 * expected.logit_mean - np.square(drift)
            limit = 2 * gate * np.sqrt(np.maximum(variance, 0.0)) + 8 * UNIT * radii.max()
            # The caller's coordinates are float32.
            limit += UNIT * np.abs(y[np.isfinite(y)]).max()
            error = np.linalg.norm(actual.mean - expected.mean, axis=1)
            assert np.all((error <= limit)[linear]), f"{np.max((error / limit)[linear])}"
        if sums.first is not None:
            # An error of the logits up to the gate, in the weights and in what they average.
            spread = np.sqrt(np.maximum(expected.logit_sq_mean - expected.logit_mean**2, 0.0))
            limit = gate * (1 + 2 * spread + np.abs(expected.logit_mean))
            assert np.all((np.abs(actual.first - expected.logit_mean) <= limit)[linear])
            limit = gate * (1 + 4 * (expected.logit_sq_mean + np.abs(expected.logit_mean)))
            limit += 4 * gate * np.abs(expected.logit_mean) * spread
            assert np.all((np.abs(actual.second - expected.logit_sq_mean) <= limit)[linear])


def check(x, y, bandwidths, options, *, precision="highest", share=1.0, **keywords):
    shift = center_mean(y, options["log_weights"]).astype(np.float32)
    bandwidths = np.asarray(bandwidths, np.float32)
    sums = run(x, y, bandwidths, *options.values(), shift, precision=precision, **keywords)
    assert {a.dtype for a in jax.tree.leaves(sums)} == {np.dtype(np.float32)}
    assert_agrees(sums, shift, x, y, bandwidths, options, precision, share)
    return sums


@pytest.mark.parametrize(
    ("precision", "d"),
    [("highest", d) for d in (1, 3, 8, 21, 64, 127, 512)]
    + [(precision, d) for precision in ("high", "fast") for d in (3, 43, 127)],
)
def test_values_over_dimensions_bandwidths_and_offsets(precision, d):
    for bandwidth, offset in ((1e-3, 0.0), (0.05, 10.0), (1.0, 0.0), (1.0, 1e3), (10.0, 10.0)):
        x, y, options = make_problem(30, 300, d, offset=offset, near=bandwidth)
        check(x, y, [bandwidth], options, precision=precision)


def test_small_parts_of_a_product_are_added_first():
    # Behind the large ones, each of them would cost a rounding of the whole sum.
    x, y, options = make_problem(30, 300, 64, near=3e-4)
    check(x, y, [1e-3], options, share=0.5)


@pytest.mark.parametrize(
    ("n", "m"), [(1, 1), (127, 255), (128, 256), (129, 257), (257, 128), (3, 513)]
)
def test_values_at_the_edges_of_blocks(n, m):
    x, y, options = make_problem(n, m, 5, weights=True, exclude=True)
    if m == 1:
        options["exclude"][:] = -1
    check(x, y, [0.4], options)


@pytest.mark.parametrize(
    ("precision", "mean", "moments"),
    [
        ("highest", False, False),
        ("highest", True, False),
        ("high", True, True),
        ("fast", False, True),
    ],
)
def test_several_bandwidths_share_the_products(precision, mean, moments):
    x, y, options = make_problem(20, 300, 6, weights=True, exclude=True)
    bandwidths = [0.5, 0.1, 1.0, 20.0]
    sums = check(x, y, bandwidths, options, precision=precision, mean=mean, moments=moments)
    assert (sums.weighted is None, sums.first is None) == (not mean, not moments)
    assert (sums.first is None) == (sums.second is None)


@pytest.mark.parametrize("precision", ["high", "fast"])  # which round the weights of the mean
def test_log_sum_exp_does_not_depend_on_what_else_is_asked_for(precision):
    x, y, options = make_problem(20, 300, 6)
    args = (x, y, f32([0.5]), *options.values(), center_mean(y).astype(np.float32))
    alone = run(*args, precision=precision, mean=False, moments=False)
    joint = run(*args, precision=precision, mean=True, moments=False)
    np.testing.assert_allclose(joint.top, alone.top, rtol=1e-6)
    np.testing.assert_allclose(joint.total, alone.total, rtol=1e-6)


@pytest.mark.parametrize("moments", [False, True])
def test_masked_centers_may_hold_anything(moments):
    x, y, options = make_problem(10, 300, 3, weights=True)
    masked = options["log_weights"] == -np.inf
    shift = center_mean(y, options["log_weights"]).astype(np.float32)
    for value in (np.nan, np.inf):
        y[masked] = value
        # A wide range of bandwidths: masked logits must stay finite when they are rescaled.
        bandwidths = f32([1.0, 1e-3, 1e3])
        sums = run(x, y, bandwidths, *options.values(), shift, moments=moments)
        assert all(np.all(np.isfinite(a)) for a in jax.tree.leaves(sums))
        assert_agrees(sums, shift, x, y, bandwidths, options)


def test_rows_with_nothing_included_are_recognised():
    x, y, options = make_problem(6, 3, 2)
    shift = center_mean(y).astype(np.float32)
    bandwidths = f32([0.5, 0.01, 50.0])
    options["log_weights"] = f32([0.0, -np.inf, -np.inf])
    options["exclude"] = np.array([0, 1, -1, 0, 2, -1], np.int32)
    sums = check(x, y, bandwidths, options)
    empty = np.asarray(sums.top) <= empty_level(np.float32)
    np.testing.assert_array_equal(empty, [[True, False, False, True, False, False]] * 3)
    for moments in (False, True):
        options["log_weights"] = np.full(3, -np.inf, np.float32)
        sums = run(x, y, bandwidths, *options.values(), shift, moments=moments)
        assert np.all(sums.top <= empty_level(np.float32))
        assert not any(np.any(np.isnan(a)) for a in (sums.top, sums.total, sums.weighted))


def test_index_outside_the_centers_leaves_nothing_out():
    x, y, options = make_problem(5, 130, 3)
    everything = run(x, y, f32([0.5]), None, None, np.zeros(3, np.float32))
    options["exclude"] = np.array([-1, -7, 130, 255, 2**31 - 1], np.int32)
    sums = run(x, y, f32([0.5]), *options.values(), np.zeros(3, np.float32))
    for actual, expected in zip(sums, everything, strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_duplicated_centers_add_log_two():
    x, y, options = make_problem(30, 200, 6)
    shift = center_mean(y).astype(np.float32)
    once, twice = (
        result(run(x, a, f32([0.5]), *options.values(), shift), 0, shift)
        for a in (y, np.tile(y, (2, 1)))
    )
    np.testing.assert_allclose(twice.lse - once.lse, np.log(2.0), atol=2e-5)
    np.testing.assert_allclose(twice.mean, once.mean, atol=1e-5)


@pytest.mark.parametrize("precision", GATES)
def test_mean_of_coincident_centers_is_their_place(precision):
    # The roundings of their weights must drop out.
    rng = np.random.default_rng(0)
    places = 5 * rng.normal(size=(8, 3)).astype(np.float32)
    y, x = np.repeat(places, 30, axis=0), places + np.float32(0.01)
    log_weights = rng.normal(size=len(y)).astype(np.float32)
    shift = center_mean(y).astype(np.float32)
    sums = run(x, y, f32([0.1]), log_weights, None, shift, precision=precision)
    limit = 8 * UNIT * np.abs(y - shift).max()
    np.testing.assert_allclose(result(sums, 0, shift).mean, places, rtol=UNIT, atol=limit)


def test_far_queries_and_one_center():
    x, y, options = make_problem(20, 300, 4)
    sums = check(x * 1e3, y, [0.5], options)
    assert np.min(sums.top) < -1e4
    x, y = np.array([[3.0, 4.0]], np.float32), np.zeros((1, 2), np.float32)
    sums = run(x, y, f32([0.5]), None, None, np.zeros(2, np.float32))
    np.testing.assert_allclose(result(sums, 0, 0.0).lse, [-50.0], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_spoilt_query_leaves_other_rows_alone(bad):
    x, y, options = make_problem(10, 150, 3)
    args = (f32([0.5]), *options.values(), center_mean(y).astype(np.float32))
    expected = run(x, y, *args)
    x[4, 1] = bad
    good = np.arange(10) != 4
    for a, b in zip(run(x, y, *args), expected, strict=True):
        np.testing.assert_array_equal(np.asarray(a)[:, good], np.asarray(b)[:, good])


def test_many_centers_keep_their_digits(full_compiler):
    # All logits are nearly equal, so that every one of the 4,000 additions to the total counts.
    x, y, options = make_problem(2, 1_000_000, 1)
    shift = center_mean(y).astype(np.float32)
    sums = run(x, y, f32([1e3]), None, None, shift, mean=False, moments=False, blocks=None)
    expected = reference_stats(x, y, bandwidth=1e3).lse
    np.testing.assert_allclose(result(sums, 0, shift).lse, expected, rtol=0, atol=16 * UNIT)


@pytest.mark.parametrize("check_vma", [False, True])
def test_queries_sharded_over_eight_devices(check_vma):
    x, y, options = make_problem(64, 300, 4, weights=True, exclude=True)
    shift = center_mean(y, options["log_weights"]).astype(np.float32)
    mesh = jax.make_mesh((8,), ("queries",), axis_types=(AxisType.Auto,))
    rows, whole = PartitionSpec("queries"), PartitionSpec()

    def local(x, exclude, y, bandwidths, log_weights, shift):
        sums = run(x, y, bandwidths, log_weights, exclude, shift)
        varying = {jax.typeof(a).manual_axis_type.varying for a in jax.tree.leaves(sums)}
        assert varying == {frozenset({"queries"} if check_vma else ())}
        return sums

    per_query: Any = PartitionSpec(None, "queries")
    weighted: Any = PartitionSpec(None, "queries")
    sharded = jax.jit(
        jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(rows, rows, whole, whole, whole, whole),
            out_specs=Sums(per_query, per_query, weighted, per_query, per_query),
            check_vma=check_vma,
        )
    )
    bandwidths = f32([0.5, 2.0])
    sums = sharded(x, options["exclude"], y, bandwidths, options["log_weights"], shift)
    assert_agrees(sums, shift, x, y, bandwidths, options)


def test_bandwidths_that_do_not_fit_together_are_taken_in_turn(monkeypatch):
    x, y, options = make_problem(8, 100, 16)
    bandwidths = f32([0.5, 1.0, 2.0])
    shift = center_mean(y).astype(np.float32)
    variant = pallas_tpu._Variant(16, 2, True, False, 3)
    fits_two = pallas_tpu.vmem_bytes(variant, Blocks(128, 128, 1))
    monkeypatch.setattr(pallas_tpu, "_VMEM_BYTES", {"": fits_two})
    assert pallas_tpu.choose_blocks(variant._replace(num_bandwidths=3), 8, 100, fits_two) is None
    sums = sums_fn(
        x, y, bandwidths, None, None, shift,
        mean=True, moments=False, precision="highest", interpret=True,
    )  # fmt: skip
    assert sums.weighted is not None
    assert sums.weighted.shape == (3, 8, 16)
    assert_agrees(sums, shift, x, y, bandwidths, options)


@pytest.mark.parametrize("m", [257, 600])
def test_centers_are_prepared_in_shares(monkeypatch, m):
    x, y, options = make_problem(30, m, 3, weights=True, exclude=True)
    options["log_weights"][:256] = -np.inf  # The first shares hold nothing.
    options["log_weights"][-1] = 0.5
    options["exclude"][:3] = [-1, m - 1, m - 1]
    y[options["log_weights"] == -np.inf] = np.nan
    shift = center_mean(y, options["log_weights"]).astype(np.float32)
    bandwidths = f32([0.5, 2.0])
    variant = pallas_tpu._Variant(3, 2, True, True, 3)
    monkeypatch.setattr(pallas_tpu, "_PREPARED_BYTES", 128 * variant.center_bytes)
    fresh = jax.jit(functools.partial(sums_fn, **run.keywords))
    sums = fresh(x, y, bandwidths, *options.values(), shift)
    assert_agrees(sums, shift, x, y, bandwidths, options)


def test_prepared_operands_are_small_beside_many_centers():
    traced = run.func.trace(
        *_shapes(64, 10**6, 512, 1), mean=True, moments=True, precision="highest"
    )
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    sizes = {int(size) for size in re.findall(r"tensor<(\d+)x(?:\d+x)*bf16>", text)}
    assert 0 < max(sizes) < 30_000
    # The caller's centers, and nothing else of their size.
    assert set(re.findall(r"tensor<1000000x\S*?>", text)) == {
        "tensor<1000000x512xf32>",
        "tensor<1000000xf32>",
    }


@pytest.mark.parametrize("budget", [12 * 2**20, 40 * 2**20])
@pytest.mark.parametrize("moments", [False, True])
@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_chosen_blocks_fit_the_memory_and_the_problem(parts, mean, moments, budget):
    for d in (1, 8, 21, 64, 127, 512, 1024, 1100):
        for k in (1, 8):
            variant = pallas_tpu._Variant(d, k, mean, moments, parts)
            for n in (1, 129, 1025, 10**5):
                for m in (1, 257, 10**6):
                    blocks = pallas_tpu.choose_blocks(variant, n, m, budget)
                    if blocks is None:
                        assert mean
                        assert k * d > 1100
                        continue
                    assert pallas_tpu.vmem_bytes(variant, blocks) <= budget
                    assert blocks.queries % 128 == blocks.centers % 128 == 0
                    # Queries are padded to lanes, centers by no more than a tile or a fourth.
                    span = blocks.centers * blocks.tiles
                    padded_n = -(-n // blocks.queries) * blocks.queries
                    padded_m = -(-m // span) * span
                    assert padded_n < n + 128 * -(-n // blocks.queries)
                    assert padded_m <= max(1.25 * m, m + blocks.centers)


@pytest.mark.parametrize(
    ("kind", "megabytes"), [("TPU v4", 12), ("TPU v5 lite", 40), ("TPU7x", 40), ("cpu", 12)]
)
def test_budget_of_memory_follows_the_device(monkeypatch, kind, megabytes):
    monkeypatch.setattr(jax, "devices", lambda: [types.SimpleNamespace(device_kind=kind)])
    assert pallas_tpu.vmem_budget() == megabytes * 2**20


def _shapes(n, m, d, k=2, *, weights=True, exclude=True):
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    return (
        shape((n, d)),
        shape((m, d)),
        shape((k,)),
        shape((m,)) if weights else None,
        jax.ShapeDtypeStruct((n,), jnp.int32) if exclude else None,
        shape((d,)),
    )


@pytest.mark.parametrize("precision", GATES)
@pytest.mark.parametrize("moments", [False, True])
@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize(("k", "d", "options"), [(1, 3, False), (1, 100, True), (5, 1100, True)])
def test_lowers_for_a_tpu(k, d, options, mean, moments, precision):
    traced = run.func.trace(
        *_shapes(700, 3000, d, k, weights=options, exclude=options),
        mean=mean, moments=moments, precision=precision,
    )  # fmt: skip
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert "tpu_custom_call" in text
    assert "700x3000" not in text
    assert "3000x700" not in text


def test_counts_in_32_bits_where_jax_counts_in_64():
    with jax.enable_x64(True):
        traced = run.func.trace(
            *_shapes(700, 3000, 8), mean=True, moments=True, precision="high", blocks=SMALL
        )
        traced.lower(lowering_platforms=("tpu",))
        (call,) = [e for e in traced.jaxpr.eqns if e.primitive.name == "pallas_call"]
        maps = [b.index_map_jaxpr for b in call.params["grid_mapping"].block_mappings]
        assert len(maps) == 13
        assert {str(a.dtype) for index_map in maps for a in index_map.out_avals} == {"int32"}
        x, y, options = make_problem(20, 300, 3, weights=True, exclude=True)
        check(x, y, [0.5, 1.0], options)


def test_what_the_kernel_cannot_do_is_named(monkeypatch):
    x, y = np.zeros((3, 2), np.float32), np.zeros((5, 2), np.float32)
    h, shift = np.ones(1, np.float32), np.zeros(2, np.float32)
    flags = {"mean": False, "moments": False, "precision": "highest"}
    with pytest.raises(NotImplementedError, match=r"float32, got x in float64"):
        sums_fn(x.astype(np.float64), y, h, None, None, shift, **flags)
    with pytest.raises(NotImplementedError, match=r"float32, got y in float16"):
        sums_fn(x, y.astype(np.float16), h, None, None, shift, **flags)
    with pytest.raises(NotImplementedError, match=r"d = 20000 is too large"):
        jax.eval_shape(functools.partial(sums_fn, **flags), *_shapes(4, 5, 20_000, 1))
    assert "'cpu'" in str(pallas_tpu.unavailable())
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert pallas_tpu.unavailable() is None
