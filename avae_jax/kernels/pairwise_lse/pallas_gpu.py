"""The matrix form as one Hopper kernel: no logit ever leaves the chip.

Written in Pallas Mosaic GPU; compiled, interpreted and tested, but not yet run on a GPU.

In units of bandwidth / sqrt(log2 e) around the shift, the base-2 logit is x.y - |x|^2/2 - |y|^2/2.
XLA splits the float32 coordinates once into bfloat16 parts; the product of two is a chain of tensor
core products of their parts. A thread block holds the queries of its warpgroups, 64 each, and one
more warpgroup streams the block's share of the centers past them. XLA merges the shares.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from avae_jax.kernels.pairwise_lse.stats import Sums, masked_level

# bfloat16 parts of a coordinate: 24, 16 or 8 bits of it.
_PARTS = {"highest": 3, "high": 2, "fast": 1}

_LOG2_E = math.log2(math.e)

_ROWS = 64  # queries of a warpgroup: the height of its products
_MEAN_BLOCK = 64  # dimensions of the mean in one product

# Of the 227 KiB of shared memory a block may use; the rest is for barriers and reductions.
_SHARED_BYTES = 219 * 1024

# Blocks that fill the 132 multiprocessors of an H100 or H200 about twice.
_BLOCKS = 264

# Per thread. Two warpgroups that compute and one that loads share 504.
_COMPUTING_REGISTERS, _LOADING_REGISTERS = 232, 40

# 2^f = 1 + c_1 f + ... + c_5 f^5 for |f| <= 1/2: the least largest relative error, 9.2e-8, of all
# such polynomials (a linear program over 4,001 Chebyshev points).
_POLYNOMIAL = (0.693146978, 0.240222421, 0.0555073392, 0.00967151151, 0.00132646661)

# Added to a float32 in [-2^22, 2^22], 1.5 * 2^23 leaves the nearest integer in the lowest bits.
_ROUNDER = 1.5 * 2.0**23


def unavailable() -> str | None:
    """Return why the kernel cannot run on the default backend, or None if it can."""
    found = f"the default backend is {jax.default_backend()!r}"
    if jax.default_backend() == "gpu":
        capability = str(getattr(jax.devices()[0], "compute_capability", "unknown"))
        if capability.startswith("9."):
            return None
        found = f"this GPU has {capability}"
    return f"pallas_gpu needs an NVIDIA Hopper GPU (compute capability 9.x), and {found}."


class _Plan(NamedTuple):
    """How a problem is cut into blocks and tiles."""

    x_parts: int
    y_parts: int
    dims: int  # d, padded
    mean_blocks: tuple[slice, ...]  # of dims; none without the mean
    warpgroups: int  # that compute
    centers: int  # in a tile
    polynomial: int  # centers of a tile whose exponential is a polynomial
    stages: int  # tiles in shared memory at a time
    query_blocks: int
    splits: int  # of the centers
    tiles: int  # in a split


def _plan(
    n: int, m: int, d: int, precision: str, mean: bool, polynomial_share: float = 0.0
) -> _Plan:
    """Choose the largest tile of which two fit into shared memory beside the queries.

    Raises:
      NotImplementedError: no tile is that small.
    """
    x_parts = _PARTS[precision]
    # With fewer, the mean of equal centers would not be that center.
    y_parts = 3 if mean else x_parts
    # A step of the tensor cores; then rows of whole 128-byte cache lines of the float32 mean.
    dims = 16 if d <= 16 else 32 * pl.cdiv(d, 32)
    candidates = [(2, 128), (2, 64), (1, 64), (1, 32)]
    if mean:
        # Swizzled weights want 64 centers at least; beside a wide mean, registers hold no more.
        candidates = candidates[dims > 64 : 3]
    for warpgroups, centers in candidates:
        query_bytes = (2 * x_parts * dims + 4) * warpgroups * _ROWS
        stages = min((_SHARED_BYTES - query_bytes) // ((2 * y_parts * dims + 4) * centers), 4)
        if stages >= 2:
            break
    else:
        raise NotImplementedError(
            f"pallas_gpu has no tile for {d} dimensions at precision={precision!r}, mean={mean}: "
            'shared memory is too small. Use implementation="matrix".'
        )
    query_blocks = pl.cdiv(n, warpgroups * _ROWS)
    all_tiles = pl.cdiv(m, centers)
    # No split so short that it mostly waits for its first tile.
    splits = min(pl.cdiv(_BLOCKS, query_blocks), pl.cdiv(all_tiles, 2 * stages))
    tiles = pl.cdiv(all_tiles, splits)
    blocks = range(0, dims, _MEAN_BLOCK) if mean else ()
    # Registers are cut by 8 columns; a product from them takes as many centers as a swizzled row
    # of y has dimensions.
    step = _swizzle(dims) // 2 if mean else 8
    return _Plan(
        x_parts=x_parts,
        y_parts=y_parts,
        dims=dims,
        mean_blocks=tuple(slice(start, min(start + _MEAN_BLOCK, dims)) for start in blocks),
        warpgroups=warpgroups,
        centers=centers,
        polynomial=step * math.floor(polynomial_share * centers / step),
        stages=stages,
        query_blocks=query_blocks,
        splits=pl.cdiv(all_tiles, tiles),
        tiles=tiles,
    )


def _swizzle(dims: int) -> int:
    """Return the bytes within which shared memory permutes a row of so many bfloat16."""
    return plgpu.find_swizzle(dims * 16)


def _padded_parts(a, shape: tuple[int, int], count: int) -> jax.Array:
    """Pad float32 with 0 to a shape, and split it into bfloat16 [count, *shape] that add up."""
    a = jnp.pad(a, [(0, size - old) for size, old in zip(shape, a.shape, strict=True)])
    parts = []
    for _ in range(count):
        # XLA may leave out a cast there and back.
        rounded = jax.lax.reduce_precision(a, exponent_bits=8, mantissa_bits=7)
        parts.append(rounded.astype(jnp.bfloat16))
        a = a - rounded
    return jnp.stack(parts)


def sums(
    x,
    y,
    bandwidths,
    log_weights,
    exclude,
    shift,
    *,
    mean: bool,
    moments: bool,
    precision: str,
    polynomial_share: float = 0.0,
    interpret: Any = None,
) -> Sums:
    """Return the sums over the centers.

    Args:
      x: [n, d] float32 queries, n >= 1.
      y: [m, d] float32 centers, m >= 1.
      bandwidths: [1] float32, in the unit of x and y.
      log_weights: [m] float32, nats, or None; -inf masks a center, whatever its y holds.
      exclude: [n] int32, the row of y to leave out for each query, or None; values outside of
        [0, m) leave out nothing.
      shift: [d], the origin to compute in, best near the mean of the centers.
      mean: whether to return `weighted`.
      moments: must be False.
      precision: "highest", "high" or "fast": 24, 16 or 8 bits of the coordinates in the logits,
        and of the weights in the mean; the mean takes all bits of y.
      polynomial_share: in [0, 1], the share of the exponentials that `polynomial_exp2` computes
        beside the special-function unit. Of a tile of 32 to 128 centers it takes the first ones,
        rounded down to a multiple of 8, or with the mean 16 where d <= 16, 32 or 64 where larger.
      interpret: passed to `plgpu.kernel`.

    Returns:
      Sums, [1, n] and [1, n, d].

    Raises:
      ValueError: the share is outside of [0, 1].
      NotImplementedError: moments, several bandwidths, a type other than float32, or more
        dimensions than shared memory holds: lse 288, 416 and 864 by precision, lse and mean 192,
        192 and 224.

    Numerics:
      6, 3 or 1 bfloat16 products by precision, and 6, 5 or 3 more for the mean, summed in float32.
      Temporaries of at most 6 d bytes per point, and with the mean 4 d per query, counted as at
      least 68,000 queries.
    """
    if not 0.0 <= polynomial_share <= 1.0:
        raise ValueError(
            f"polynomial_share must be in [0, 1], got {polynomial_share}: 0 leaves all "
            "exponentials to the special-function unit."
        )
    if moments:
        raise NotImplementedError('pallas_gpu has no logit moments. Use implementation="matrix".')
    if bandwidths.shape[0] != 1:
        raise NotImplementedError(
            f"pallas_gpu takes one bandwidth, got {bandwidths.shape[0]}. "
            'Use implementation="matrix".'
        )
    for name, a in (("x", x), ("y", y)):
        if a.dtype != jnp.float32:
            raise NotImplementedError(
                f'pallas_gpu takes float32, got {name} {a.dtype}. Use implementation="matrix".'
            )
    (n, d), m = x.shape, y.shape[0]
    plan = _plan(n, m, d, precision, mean, polynomial_share)
    floor = masked_level(x.dtype)

    scale = math.sqrt(_LOG2_E) / bandwidths[0]
    x, y = (x - shift) * scale, (y - shift) * scale
    if log_weights is not None:
        # A masked center may hold anything: it must not reach a product.
        y = jnp.where((log_weights == -jnp.inf)[:, None], 0.0, y)
    bias = -0.5 * jnp.sum(y * y, axis=1)
    if log_weights is not None:
        bias = jnp.maximum(bias + log_weights * _LOG2_E, floor)

    num_queries = plan.query_blocks * plan.warpgroups * _ROWS
    num_centers = plan.splits * plan.tiles * plan.centers
    left_out = jnp.full((n,), -1, jnp.int32) if exclude is None else exclude.astype(jnp.int32)
    tops, totals, *weighted = _run(
        plan,
        exclude is not None,
        interpret,
        _padded_parts(x, (num_queries, plan.dims), plan.x_parts),
        _padded_parts(y, (num_centers, plan.dims), plan.y_parts),
        jnp.pad(bias, (0, num_centers - m), constant_values=floor),
        jnp.pad(left_out, (0, num_queries - n), constant_values=-1),
    )
    # The rule of stats.merge_sums, over all splits at once and in base 2.
    tops = tops[:, :n]
    top = jnp.max(tops, axis=0)
    factors = jnp.exp2(tops - top)
    sums = Sums(
        top=(top - 0.5 * jnp.sum(x * x, axis=1))[None] / _LOG2_E,
        total=jnp.sum(totals[:, :n] * factors, axis=0)[None],
    )
    if not mean:
        return sums
    weighted = jnp.sum(weighted[0][:, :n, :d] * factors[..., None], axis=0) / scale
    return sums._replace(weighted=weighted[None])


def polynomial_exp2(t: jax.Array) -> jax.Array:
    """Compute 2^t by a polynomial and the bits of the exponent.

    2^t = 2^i 2^f with i the integer nearest to t, so that |f| <= 1/2.

    Args:
      t: float32, at most 0.

    Returns:
      float32: exactly 1 at 0, at most 2^-126 below -126, exactly 0 from -127 down.

    Numerics:
      Relative error below 2^-22 down to -126. The NaN of a GPU becomes a number; that of the row's
      maximum, which a GPU keeps, still reaches the sums.
    """
    # On Hopper ten instructions: a maximum, three additions, five fused multiply-adds, and shift
    # and addition in one.
    t = jnp.maximum(t, -127.0)
    rounded = t + jnp.float32(_ROUNDER)
    # Not t - (rounded - _ROUNDER): XLA, which runs this where it is interpreted, takes that for 0.
    fraction = t + (jnp.float32(_ROUNDER) - rounded)
    mantissa = jnp.float32(_POLYNOMIAL[-1])
    for coefficient in (*_POLYNOMIAL[-2::-1], 1.0):
        mantissa = mantissa * fraction + jnp.float32(coefficient)
    # The shift drops the bits of _ROUNDER, and leaves i in the place of the exponent.
    exponent = jax.lax.bitcast_convert_type(rounded, jnp.int32) << 23
    bits = jax.lax.bitcast_convert_type(mantissa, jnp.int32) + exponent
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


# Which share pays is to be measured. By arithmetic: per clock a multiprocessor issues 128
# instructions, of which its special-function unit takes 16. Its exponential is one instruction, the
# polynomial ten, and the rest of a log-sum-exp four: bias, maximum, subtraction, sum. So a share s
# takes the longer of (1 - s) / 16 and (4 + (1 - s) + 10 s) / 128 clocks. They are equal at s = 3/17
# and .82 of the time of s = 0; it is .88 at 1/8, .91 at 1/4, 1.19 at 1/2. (The floating-point pipe
# alone, 128 a clock for three of the four and eight of the ten, would put the balance at 5/16.)
# Leaving out centers takes three instructions more and the mean 5 to 10: issuing those takes as
# long as the unit does, and no share pays.
def _exponentials(t, polynomial: int) -> list[tuple[slice, jax.Array]]:
    """Compute 2^t, t <= 0, of the first columns by polynomial, of the others by the unit for it.

    Returns:
      (columns, 2^t of them) for either part that has any.
    """
    # The unit's come first: they queue up there while the polynomials are computed.
    parts = (
        (jnp.exp2, slice(polynomial, t.shape[1])),
        (polynomial_exp2, slice(0, polynomial)),
    )
    return [
        # Mosaic knows a slice without strides, which neither indexing nor slice_in_dim makes.
        (columns, fn(jax.lax.slice(t, (0, columns.start), (t.shape[0], columns.stop))))
        for fn, columns in parts
        if columns.start < columns.stop
    ]


def _add_tile(carry, products, bias, column, left_out, parts, polynomial, times_centers):
    """Add a tile of base-2 logits to the running sums of its rows.

    Args:
      carry: (top [rows], total [rows], total of the rounded weights [rows], tuple of [rows, c]
        blocks of the sum of weights times centers, empty without the mean).
      products: [rows, centers], x.y.
      bias: [rows, centers], what the centers add to it.
      column: [rows, centers] int32, the row of y.
      left_out: [rows, centers] int32, the row of y to leave out, or None.
      parts: bfloat16 parts of a weight.
      polynomial: of how many centers the exponential is a polynomial.
      times_centers: list of (columns, parts of their weights, each [rows, columns]) -> [rows, c]
        blocks.

    Returns:
      The new carry.
    """
    top, total, rounded_total, weighted = carry
    logits = products + bias
    if left_out is not None:
        logits = jnp.where(column == left_out, masked_level(jnp.float32), logits)
    new_top = jnp.maximum(top, jnp.max(logits, axis=1))
    pieces = _exponentials(logits - _to_columns(new_top, logits.shape), polynomial)
    rescale = jnp.exp2(top - new_top)
    total = total * rescale
    for _, weights in pieces:
        total = total + jnp.sum(weights, axis=1)
    if weighted:
        rounded_total, split = rounded_total * rescale, []
        for columns, weights in pieces:
            weight_parts, rest = [], weights
            for _ in range(parts):
                part = _leading_bits(rest)
                weight_parts.append(part.astype(jnp.bfloat16))
                rest = rest - part
            rounded_total = rounded_total + jnp.sum(weights - rest, axis=1)
            split.append((columns, weight_parts))
        # Fresh sums for each tile, added in float32: the tensor cores' own addition is worse.
        weighted = tuple(
            old * _to_columns(rescale, old.shape) + new
            for old, new in zip(weighted, times_centers(split), strict=True)
        )
    return new_top, total, rounded_total, weighted


def _leading_bits(a) -> jax.Array:
    """Truncate float32 to what bfloat16 holds: no conversion, of which a GPU does few at a time."""
    bits = jax.lax.bitcast_convert_type(a, jnp.int32)
    return jax.lax.bitcast_convert_type(bits & jnp.int32(-(2**16)), jnp.float32)


def _to_columns(rows, shape) -> jax.Array:
    return jax.lax.broadcast_in_dim(rows, shape, (0,))


def _multiply(pieces) -> jax.Array:
    """Multiply sums of parts and add the products up.

    Args:
      pieces: list of (parts, parts), arrays or references [r, k], by references [k, c]; k may
        differ.

    Returns:
      [r, c].
    """
    a_parts, b_parts = pieces[0]
    shape = (a_parts[0].shape[0], b_parts[0].shape[1])

    def chain(acc):
        for i, j in _pairs(len(a_parts), len(b_parts)):
            for a, b in pieces:
                plgpu.wgmma(acc, a[i], b[j])
        return acc[...]

    return pl.run_scoped(chain, plgpu.WGMMAAccumulatorRef(shape, jnp.float32))


def _pairs(num_a: int, num_b: int) -> list[tuple[int, int]]:
    """Return which products of parts count, the smallest first.

    The tensor cores truncate every sum: what is small is added while the sum is.
    """
    pairs = [(i, j) for i in range(num_a) for j in range(num_b) if i + j < max(num_a, num_b)]
    return sorted(pairs, key=sum, reverse=True)


def _run(plan: _Plan, excludes: bool, interpret, *operands) -> list[jax.Array]:
    """Run the kernel on (x, y, bias, exclude), padded and split.

    Returns:
      [top, total] [splits, padded n] in base 2, and weighted [splits, padded n, dims] with the
      mean, in the units of x and y.
    """
    tile, layout = (_ROWS, plan.centers), plgpu.Layout.WGMMA

    def filled(value, *columns):
        full = jnp.full((_ROWS, *columns), value, jnp.float32)
        return plgpu.layout_cast(full, layout if columns else layout.reduce(1))

    def body(
        x_ref, y_ref, bias_ref, exclude_ref, top_ref, total_ref, *weighted_ref,
        x_smem, exclude_smem, y_smem, bias_smem, x_ready, y_ready, y_done,
    ):  # fmt: skip
        split, warpgroup = jax.lax.axis_index("split"), jax.lax.axis_index("warpgroup")
        first_tile = split * plan.tiles

        @pl.when(warpgroup == plan.warpgroups)
        def _load():
            plgpu.set_max_registers(_LOADING_REGISTERS, action="decrease")

            @pl.loop(0, plan.tiles)
            def _(i):
                slot = jax.lax.rem(i, plan.stages)
                pl.when(i >= plan.stages)(lambda: plgpu.barrier_wait(y_done.at[slot]))
                rows = pl.ds((first_tile + i) * plan.centers, plan.centers)
                plgpu.copy_gmem_to_smem(y_ref.at[:, rows], y_smem.at[slot], y_ready.at[slot])
                plgpu.copy_gmem_to_smem(bias_ref.at[rows], bias_smem.at[slot], y_ready.at[slot])

        @pl.when(warpgroup < plan.warpgroups)
        def _compute():
            plgpu.set_max_registers(_COMPUTING_REGISTERS, action="increase")
            block = jax.lax.axis_index("block") * plan.warpgroups + warpgroup
            rows, ready = pl.ds(block * _ROWS, _ROWS), x_ready.at[warpgroup]
            plgpu.copy_gmem_to_smem(x_ref.at[:, rows], x_smem.at[warpgroup], ready)
            plgpu.copy_gmem_to_smem(exclude_ref.at[rows], exclude_smem.at[warpgroup], ready)
            plgpu.barrier_wait(ready)
            x_parts = [x_smem.at[warpgroup, i] for i in range(plan.x_parts)]
            left_out = None
            if excludes:
                left_out = plgpu.layout_cast(exclude_smem[warpgroup], layout.reduce(1))
                left_out = _to_columns(left_out, tile)

            def add_tile(i, carry):
                slot = jax.lax.rem(i, plan.stages)
                plgpu.barrier_wait(y_ready.at[slot])
                y_parts = [y_smem.at[slot, j] for j in range(plan.y_parts)]
                bias = plgpu.layout_cast(bias_smem[slot], layout.reduce(0))
                plgpu.commit_smem()  # Has been read before a later copy may overwrite it.
                column = plgpu.broadcasted_iota(jnp.int32, tile, 1, layout=layout)
                carry = _add_tile(
                    carry,
                    _multiply([(x_parts, [y.transpose((1, 0)) for y in y_parts[: plan.x_parts]])]),
                    jax.lax.broadcast_in_dim(bias, tile, (1,)),
                    column + (first_tile + i) * plan.centers,
                    left_out,
                    plan.x_parts,
                    plan.polynomial,
                    lambda split: [
                        _multiply(
                            [(parts, [y.at[rows, dims] for y in y_parts]) for rows, parts in split]
                        )
                        for dims in plan.mean_blocks
                    ],
                )
                plgpu.barrier_arrive(y_done.at[slot])
                return carry

            weighted = tuple(filled(0.0, dims.stop - dims.start) for dims in plan.mean_blocks)
            carry = (filled(masked_level(jnp.float32)), filled(0.0), filled(0.0), weighted)
            carry = jax.lax.fori_loop(0, plan.tiles, add_tile, carry)
            top_ref[split, rows], total_ref[split, rows], _, weighted = carry
            for dims, a in zip(plan.mean_blocks, weighted, strict=True):
                # The mean under the rounded weights: its error is relative to the spread.
                ratio = _to_columns(carry[1] / carry[2], a.shape)
                weighted_ref[0][split, rows, dims] = a * ratio

    def shared(*shape):
        swizzle = _swizzle(plan.dims)
        transforms = (plgpu.TilingTransform((8, swizzle // 2)), plgpu.SwizzleTransform(swizzle))
        return plgpu.SMEM((*shape, plan.dims), jnp.bfloat16, transforms=transforms)

    rows = (plan.splits, plan.query_blocks * plan.warpgroups * _ROWS)
    shapes = [rows, rows, (*rows, plan.dims)] if plan.mean_blocks else [rows, rows]
    run = plgpu.kernel(
        body,
        out_type=[jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes],
        scratch_types={
            "x_smem": shared(plan.warpgroups, plan.x_parts, _ROWS),
            "exclude_smem": plgpu.SMEM((plan.warpgroups, _ROWS), jnp.int32),
            "y_smem": shared(plan.stages, plan.y_parts, plan.centers),
            "bias_smem": plgpu.SMEM((plan.stages, plan.centers), jnp.float32),
            # Two copies make a tile ready; every computing warpgroup must be done with it.
            "x_ready": plgpu.Barrier(num_arrivals=2, num_barriers=plan.warpgroups),
            "y_ready": plgpu.Barrier(num_arrivals=2, num_barriers=plan.stages),
            "y_done": plgpu.Barrier(num_arrivals=plan.warpgroups, num_barriers=plan.stages),
        },
        compiler_params=plgpu.CompilerParams(approx_math=True),
        grid=(plan.query_blocks, plan.splits),
        grid_names=("block", "split"),
        num_threads=plan.warpgroups + 1,
        thread_name="warpgroup",
        kernel_name="pairwise_lse",
        interpret=interpret,
    )
    with jax.enable_x64(False):  # Indices have 32 bits.
        return run(*operands)
