"""The matrix form as one TPU kernel: products, log-sum-exp and mean without leaving the chip.

Written in Pallas. XLA divides the centered points by the first bandwidth and splits them into
bfloat16 parts, O((n + m) d); the kernel does the O(n m d) rest. A block of queries stays in VMEM
while tiles of centers stream past it. In a tile of logits the centers run down the sublanes and the
queries along the lanes: the state of a query is then one lane, and what is reduced over centers
never crosses lanes.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from avae_jax.kernels.pairwise_lse.precision import LONGEST_CHAIN
from avae_jax.kernels.pairwise_lse.stats import Sums, masked_level, merge_sums

# bfloat16 parts of a number: 24, 16 and 8 bits of it.
_PARTS = {"highest": 3, "high": 2, "fast": 1}

# The mean always takes centers of 24 bits: it may fall on a center, and is then as exact as that.
_MEAN_PARTS = 3

_LANES, _SUBLANES, _PACKED_SUBLANES = 128, 8, 16  # of a float32 register, of a bfloat16 one

# A sum over centers is kept apart for every sublane, and so is what its roundings lost; XLA adds
# these rows up.
_SUM_ROWS = 2 * _SUBLANES

# Sizes to choose from, the preferred first, and the most (query, center) pairs of one grid step:
# enough to hide the third of a microsecond that a step costs by itself.
_QUERIES = (1024, 512, 256, 128)
_CENTERS = (256, 128)
_PAIRS = 2**21

# Mosaic counts in 32 bits, and is to do so also where JAX counts in 64.
_ZERO = np.int32(0)

# VMEM a kernel plans to use, by what the device kind starts with; the compiler needs some beside.
# Every TPU grants a kernel the 16 MiB that the older ones have, the newer ones more where it asks.
_VMEM_BYTES = {"TPU v5": 40 * 2**20, "TPU v6": 40 * 2**20, "TPU7": 40 * 2**20, "": 12 * 2**20}
_GRANTED_BYTES = 12 * 2**20

# Of the centers prepared at a time. They take 4.5 times their own size, and more where d is small.
_PREPARED_BYTES = 2**28


def unavailable() -> str | None:
    """Return why the kernel cannot run on the default backend, or None if it can."""
    platform = jax.default_backend()
    if platform == "tpu":
        return None
    return f"pallas_tpu needs a TPU, and the default backend is {platform!r}."


class Blocks(NamedTuple):
    """What one grid step works on: `tiles` tiles of `centers` past a block of `queries`."""

    queries: int
    centers: int
    tiles: int


class _Variant(NamedTuple):
    """What makes one kernel differ from another, apart from its block sizes."""

    num_dims: int
    num_bandwidths: int
    mean: bool
    moments: bool
    parts: int

    @property
    def terms(self) -> list[tuple[int, int]]:
        """The products of parts (of x, of y) that the class keeps.

        The smallest first: added to a large sum, each would cost it a rounding.
        """
        pairs = [(i, j) for i in range(self.parts) for j in range(self.parts - i)]
        return sorted(pairs, key=sum, reverse=True)

    @property
    def depth(self) -> int:
        """Length of the contraction: the terms one behind the other, padded to lanes."""
        return _round_up(len(self.terms) * self.num_dims, _LANES)

    @property
    def mean_dims(self) -> int:
        return _round_up(self.num_dims, _PACKED_SUBLANES)

    @property
    def center_bytes(self) -> int:
        """Size of a prepared center."""
        return 2 * self.depth + (2 * _MEAN_PARTS * self.mean_dims if self.mean else 0)

    @property
    def keeps_logits(self) -> bool:
        """Whether the logit is needed without its log weight."""
        return self.moments or self.num_bandwidths > 1

    @property
    def rounds_weights(self) -> bool:
        """Whether the softmax weights of the mean have fewer bits than those of the total."""
        return self.mean and self.parts < 3


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def vmem_bytes(variant: _Variant, blocks: Blocks) -> int:
    """Return the VMEM a kernel is planned to use, in bytes.

    Blocks are held twice, since the next one is fetched while this one is worked on. The rest is
    the tile at hand: logits, weights, their parts, the products of the mean.
    """
    queries, centers, tiles = blocks
    v = variant
    rows = _SUBLANES + _SUM_ROWS * (1 + v.rounds_weights + 2 * v.moments)
    rows += v.mean_dims if v.mean else 0
    query_block = 2 * v.depth + 4 * 2 * _SUBLANES + 4 * v.num_bandwidths * rows
    center_block = v.center_bytes + 4 * _SUBLANES
    pair, column = 4 * 3, 4 * _LANES * (1 + v.keeps_logits)
    query_row = 0
    if v.mean:
        pair += 2 * v.parts
        query_row = 4 * (_MEAN_PARTS + 1) * v.mean_dims
    return (
        2 * (query_block * queries + center_block * centers * tiles)
        + pair * queries * centers
        + column * centers
        + query_row * queries
    )


def vmem_budget() -> int:
    """Return the VMEM that blocks are chosen to fit on the default device, in bytes."""
    kind = jax.devices()[0].device_kind
    return next(size for start, size in _VMEM_BYTES.items() if kind.startswith(start))


def choose_blocks(
    variant: _Variant, num_queries: int, num_centers: int, budget: int
) -> Blocks | None:
    """Return the largest blocks that fit a budget of VMEM in bytes, or None if none do."""
    for centers in _CENTERS:
        centers = min(centers, _round_up(num_centers, _LANES))
        num_tiles = -(-num_centers // centers)
        for largest in _QUERIES:
            # As many blocks as the largest size needs, of even size.
            count = -(-num_queries // largest)
            queries = _round_up(-(-num_queries // count), _LANES)
            tiles = max(1, min(_PAIRS // (queries * centers), num_tiles))
            while tiles > 1 and vmem_bytes(variant, Blocks(queries, centers, tiles)) > budget:
                tiles //= 2
            tiles = -(-num_tiles // -(-num_tiles // tiles))
            blocks = Blocks(queries, centers, tiles)
            if vmem_bytes(variant, blocks) <= budget:
                return blocks
    return None


def sums(
    x: jax.Array,
    y: jax.Array,
    bandwidths: jax.Array,
    log_weights: jax.Array | None,
    exclude: jax.Array | None,
    shift: jax.Array,
    *,
    mean: bool,
    moments: bool,
    precision: str,
    interpret: bool = False,
    blocks: Blocks | None = None,
) -> Sums:
    """Stream centers past the queries and return the sums asked for.

    Args:
      x: [n, d] float32 queries, n >= 1.
      y: [m, d] float32 centers, m >= 1.
      bandwidths: [k] float32, in the unit of x and y; one product serves all.
      log_weights: [m] float32 or None; -inf masks a center, which may hold anything.
      exclude: [n] int32, the row of y to leave out for each query, or None; values outside of
        [0, m) leave out nothing.
      shift: [d], the origin to compute in, best near the mean of the centers.
      mean: whether to return `weighted`.
      moments: whether to return `first` and `second`.
      precision: "highest", "high" or "fast".
      interpret: whether to run on any device through the Pallas interpreter.
      blocks: sizes instead of the chosen ones, so that tests can be small; multiples of 128.

    Returns:
      Sums, [k, n] and [k, n, d].

    Raises:
      NotImplementedError: an array is not float32, or d is too large for the memory of a TPU core
        (with the mean in "highest" above 3,800, or 1,100 on a TPU older than v5).

    Numerics:
      Per (query, center) pair 6 d, 3 d or d bfloat16 multiply-adds with float32 sums, rounded up to
      a multiple of 128, for all bandwidths together, and 6 d, 5 d or 3 d more per bandwidth for the
      mean; the squared norms stay float32. Temporaries are the split operands: 2 n bytes times
      that multiple, and up to a few times 256 MiB for the centers, which are taken in shares.
    """
    arrays = {"x": x, "y": y, "bandwidths": bandwidths, "log_weights": log_weights, "shift": shift}
    for name, a in arrays.items():
        if a is not None and a.dtype != jnp.float32:
            raise NotImplementedError(
                f"pallas_tpu computes in float32, got {name} in {a.dtype}; use "
                "implementation='matrix'."
            )
    (n, d), m, k = x.shape, y.shape[0], bandwidths.shape[0]
    variant = _Variant(d, k, mean, moments, _PARTS[precision])
    most = max(_PREPARED_BYTES // variant.center_bytes, min(_CENTERS))
    blocks = blocks or choose_blocks(variant, n, min(m, most), vmem_budget())
    if blocks is None and k > 1:
        halves = [
            sums(
                x, y, half, log_weights, exclude, shift,
                mean=mean, moments=moments, precision=precision, interpret=interpret,
            )
            for half in (bandwidths[: k // 2], bandwidths[k // 2 :])
        ]  # fmt: skip
        return jax.tree.map(lambda *a: jnp.concatenate(a), *halves)
    if blocks is None:
        raise NotImplementedError(
            f"pallas_tpu holds whole points in a TPU core's memory, and d = {d} is too large; use "
            "implementation='matrix'."
        )
    num_shares = -(-m // most)
    size = -(-m // num_shares)

    def share(start, size) -> Sums:
        """Return the sums over the centers from start on."""
        some_y = jax.lax.dynamic_slice_in_dim(y, start, size)
        some_weights = left_out = None
        if log_weights is not None:
            some_weights = jax.lax.dynamic_slice_in_dim(log_weights, start, size)
        if exclude is not None:
            left_out = exclude - start
        some = (some_y, bandwidths, some_weights, left_out, shift)
        return _call(x, *some, variant, blocks, interpret)

    if num_shares == 1:
        return share(0, m)
    total = share(0, size)
    total = jax.lax.fori_loop(
        jnp.int32(1),
        jnp.int32(num_shares - 1),
        lambda i, total: merge_sums(total, share(i * jnp.int32(size), size)),
        total,
    )
    done = (num_shares - 1) * size
    return merge_sums(total, share(done, m - done))


def _parts(a, count: int, *, mosaic: bool = False) -> list[jax.Array]:
    """Split float32 into `count` bfloat16 arrays that add up to it, the largest first.

    XLA may drop a cast there and back as a needless loss of precision, but not a reduce_precision;
    Mosaic casts as the code says, and in JAX 0.10 knows only casts.
    """
    parts = []
    for _ in range(count):
        rounded = a if mosaic else jax.lax.reduce_precision(a, exponent_bits=8, mantissa_bits=7)
        parts.append(rounded.astype(jnp.bfloat16))
        a = a - parts[-1].astype(jnp.float32)
    return parts


def _padded(a, shape, fill: float = 0):
    widths = [(0, new - old) for old, new in zip(a.shape, shape, strict=True)]
    return jnp.pad(a, widths, constant_values=fill)


def _call(x, y, bandwidths, log_weights, exclude, shift, variant, blocks, interpret) -> Sums:
    """Prepare the operands, run the kernel and gather its results."""
    v, (n, d), m, k = variant, x.shape, y.shape[0], bandwidths.shape[0]
    bias = jnp.zeros((m,), jnp.float32)
    if log_weights is not None:
        dropped = log_weights == -jnp.inf
        # A masked center may hold anything: it must not reach a product.
        y = jnp.where(dropped[:, None], shift, y)
        bias = jnp.where(dropped, masked_level(jnp.float32), log_weights)
    bandwidth = bandwidths[0]
    ratios = jnp.square(bandwidth / bandwidths)
    x, y = (x - shift) / bandwidth, (y - shift) / bandwidth
    x_terms, y_terms = (-0.5 * jnp.sum(a * a, axis=1) for a in (x, y))

    whole = pl.BlockSpec((k,), lambda i, j: (_ZERO,), memory_space=pltpu.SMEM)
    inputs = {"ratios": (ratios, whole)}
    inputs |= _query_inputs(v, blocks, x, x_terms, exclude)
    inputs |= _center_inputs(v, blocks, y, y_terms, bias)
    outputs = {"top": 1, "total": _SUM_ROWS}
    outputs |= {"rounded": _SUM_ROWS} if v.rounds_weights else {}
    outputs |= {"weighted": v.mean_dims} if v.mean else {}
    outputs |= {"first": _SUM_ROWS, "second": _SUM_ROWS} if v.moments else {}

    operands = _same_mapped_axes([a for a, _ in inputs.values()])
    varying = jax.typeof(operands[0]).manual_axis_type
    padded_n = _round_up(n, blocks.queries)
    needed = vmem_bytes(v, blocks)
    results = pl.pallas_call(
        functools.partial(_kernel, v, blocks, not interpret, (*inputs, *outputs, "base")),
        grid=(padded_n // blocks.queries, -(-m // (blocks.centers * blocks.tiles))),
        in_specs=[spec for _, spec in inputs.values()],
        out_specs=[
            pl.BlockSpec((k, size, blocks.queries), lambda i, j: (_ZERO, _ZERO, i))
            for size in outputs.values()
        ],
        out_shape=[
            jax.ShapeDtypeStruct((k, size, padded_n), jnp.float32, manual_axis_type=varying)
            for size in outputs.values()
        ],
        scratch_shapes=[pltpu.VMEM((blocks.centers, blocks.queries), jnp.float32)],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"),
            vmem_limit_bytes=needed * 4 // 3 if needed > _GRANTED_BYTES else None,
        ),
        interpret=interpret,
        name="pairwise_lse",
    )(*operands)
    out = {name: a[:, :, :n] for name, a in zip(outputs, results, strict=True)}
    result = Sums(out["top"][:, 0], jnp.sum(out["total"], axis=1))
    if v.mean:
        weighted = out["weighted"][:, :d] * bandwidth
        if v.rounds_weights:
            # Makes it a mean over the rounded weights: wrong by a part of the spread, not of y.
            weighted *= (result.total / jnp.sum(out["rounded"], axis=1))[:, None]
        result = result._replace(weighted=jnp.swapaxes(weighted, 1, 2))
    if v.moments:
        first, second = (jnp.sum(out[name], axis=1) for name in ("first", "second"))
        return result._replace(first=first, second=second)
    return result._replace(top=result.top + ratios[:, None] * x_terms)


def _query_inputs(v: _Variant, blocks: Blocks, x, x_terms, exclude) -> dict:
    """Return name -> (array, its blocks) of what the kernel reads per query."""
    size = _round_up(x.shape[0], blocks.queries)
    spec = functools.partial(pl.BlockSpec, index_map=lambda i, j: (_ZERO, i))
    row = spec((1, blocks.queries))
    parts = _parts(x, v.parts)
    operand = jnp.concatenate([parts[i] for i, _ in v.terms], axis=1)
    inputs = {"x": (_padded(operand.T, (v.depth, size)), spec((v.depth, blocks.queries)))}
    if v.moments:
        inputs["x_terms"] = (_padded(x_terms[None], (1, size)), row)
    if exclude is not None:
        inputs["exclude"] = (_padded(exclude.astype(jnp.int32)[None], (1, size)), row)
    return inputs


def _center_inputs(v: _Variant, blocks: Blocks, y, y_terms, bias) -> dict:
    """Return name -> (array, its blocks) of what the kernel reads per tile of centers."""
    size = _round_up(y.shape[0], blocks.centers * blocks.tiles)

    def tiled(rows):
        """Bring [r, m] to [tiles, r, centers of a tile]."""
        rows = rows.reshape(len(rows), -1, blocks.centers).swapaxes(0, 1)
        return rows, spec(rows.shape[1:])

    def spec(tile):
        return pl.BlockSpec((blocks.tiles, *tile), lambda i, j: (j, _ZERO, _ZERO))

    parts = _parts(y, v.parts)
    operand = jnp.concatenate([parts[i] for _, i in v.terms], axis=1)
    operand = _padded(operand, (size, v.depth)).reshape(-1, blocks.centers, v.depth)
    # Padded centers lie at the origin, and are masked.
    y_terms, bias = _padded(y_terms, (size,)), _padded(bias, (size,), masked_level(jnp.float32))
    rows = jnp.stack([y_terms, bias]) if v.keeps_logits else (y_terms + bias)[None]
    inputs = {"y": (operand, spec(operand.shape[1:])), "y_rows": tiled(rows)}
    if v.mean:
        parts = [_padded(part.T, (v.mean_dims, size)) for part in _parts(y, _MEAN_PARTS)]
        inputs["y_mean"] = tiled(jnp.concatenate(parts))
    return inputs


def _same_mapped_axes(arrays):
    """Make all arrays vary over the mapped axes that any of them varies over."""
    axes = [jax.typeof(a).manual_axis_type.varying for a in arrays]
    union = frozenset().union(*axes)
    return [
        jax.lax.pcast(a, tuple(union - own), to="varying") if union - own else a
        for a, own in zip(arrays, axes, strict=True)
    ]


def _kernel(variant: _Variant, blocks: Blocks, mosaic: bool, names, *refs):
    """Add the tiles of one grid step to the sums of one block of queries.

    The references are, by name: ratios [k]; x [depth, queries]; y [tiles, centers, depth]; y_rows
    [tiles, 1 or 2, centers], norm and bias; x_terms, exclude [1, queries]; y_mean [tiles, 3
    mean_dims, centers]; the sums [k, rows, queries]; base [centers, queries].
    """
    v, r = variant, dict(zip(names, refs, strict=True))
    masked = masked_level(jnp.float32)
    shape = (blocks.centers, blocks.queries)
    # jnp.int32, as Python's own numbers have 64 bits where JAX counts in 64.
    first_row = pl.program_id(1) * jnp.int32(blocks.tiles * blocks.centers)

    @pl.when(pl.program_id(1) == 0)
    def _():
        for name in ("total", "rounded", "weighted", "first", "second"):
            if name in r:
                r[name][...] = jnp.zeros(r[name].shape, jnp.float32)
        r["top"][...] = jnp.full(r["top"].shape, masked, jnp.float32)

    def column(c, i):
        """Return row i of y_rows with the centers down and repeated along the queries."""
        row = r["y_rows"][c, i : i + 1, :]
        lanes = jnp.broadcast_to(row, (_LANES, blocks.centers)).T
        return jnp.concatenate([lanes] * (blocks.queries // _LANES), axis=1)

    def dot(a, b):
        # Spelled out, as the user may have set another default.
        return jnp.dot(
            a, b, precision=jax.lax.Precision.DEFAULT, preferred_element_type=jnp.float32
        )

    def add_bandwidth(b, c, base):
        """Add tile c, given its logits at the first bandwidth, to the sums of bandwidth b."""
        pure = base if v.num_bandwidths == 1 else base * r["ratios"][b]
        logits = pure + column(c, 1) if v.keeps_logits else pure
        if "exclude" in r:
            row = first_row + c * jnp.int32(blocks.centers)
            row += jax.lax.broadcasted_iota(jnp.int32, shape, 0)
            logits = jnp.where(row == r["exclude"][...], masked, logits)
        old = r["top"][b]
        top = jnp.maximum(old, jnp.max(logits, axis=0, keepdims=True))
        weights, rescale = jnp.exp(logits - top), jnp.exp(old - top)

        def add(name, rows):
            """Add the rows of a tile, sublane by sublane."""
            old, low = r[name][b, :_SUBLANES], r[name][b, _SUBLANES:]
            old *= rescale
            new = jnp.sum(rows.reshape(-1, _SUBLANES, blocks.queries), axis=0) + low * rescale
            total = old + new
            r[name][b, :_SUBLANES] = total
            r[name][b, _SUBLANES:] = new - (total - old)

        r["top"][b] = top
        add("total", weights)
        if v.moments:
            weighted_logits = weights * pure
            add("first", weighted_logits)
            add("second", weighted_logits * pure)
        if v.mean:
            parts = _parts(weights, v.parts, mosaic=mosaic)
            weighted = r["weighted"][b] * rescale
            for i, part in reversed(list(enumerate(parts))):
                # All parts of the centers that matter beside this one, one below the other.
                products = dot(r["y_mean"][c, : (_MEAN_PARTS - i) * v.mean_dims, :], part)
                weighted += jnp.sum(products.reshape(-1, v.mean_dims, blocks.queries), axis=0)
            r["weighted"][b] = weighted
            if v.rounds_weights:
                add("rounded", sum(part.astype(jnp.float32) for part in parts))

    @pl.loop(jnp.int32(0), jnp.int32(blocks.tiles))
    def _(c):
        base = 0.0
        for start in range(0, v.depth, LONGEST_CHAIN):
            part = slice(start, start + LONGEST_CHAIN)
            base += dot(r["y"][c, :, part], r["x"][part, :])
        base += column(c, 0)
        if v.moments:
            base += r["x_terms"][...]
        if v.num_bandwidths == 1:
            add_bandwidth(jnp.int32(0), c, base)
        else:
            r["base"][...] = base

            @pl.loop(jnp.int32(0), jnp.int32(v.num_bandwidths))
            def _(b):
                add_bandwidth(b, c, r["base"][...])
