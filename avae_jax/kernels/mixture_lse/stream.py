"""Streams centers past queries: what is summed per query, and what per center.

The logit of query i and center j is `log w_j + log N(x_i; mu_j, diag s_j^2)`. One tile of them
exists at a time. Deviations are subtracted, `(x - mu) / s`, and not multiplied out as
`[x^2, x] . [-1/(2 s^2), mu / s^2]`: these products cancel, and at s = 0.001 are wrong by whole
nats. Nothing here is meant to be differentiated; vjp.py owns the derivatives.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from avae_jax.kernels.pairwise_lse.exponential import cpu_exp
from avae_jax.kernels.pairwise_lse.precision import matmul
from avae_jax.kernels.pairwise_lse.stats import empty_level, masked_level
from avae_jax.kernels.pairwise_lse.varying import varying_zeros

_LOG_2_PI = math.log(2.0 * math.pi)

# Rows of queries that stream together. A training batch stays whole, so that the compiler can split
# it over devices as it lies.
_QUERIES = 4096

# Logits of a tile, and the fewest centers in one.
_LOGITS, _FEWEST_CENTERS = 2**17, 64

# So many dimensions are written out in one pass over a tile; more are taken in groups, which keeps
# the program small.
_WRITTEN_OUT, _GROUP = 32, 16

# In so many dimensions and more the gradient in x is two matrix products, a quarter of the cost,
# unless a coordinate lies so many standard deviations from the origin: they lose these digits.
_FEWEST_PRODUCTS, _NARROW = 4, 512.0

# Short chains of additions lose less to rounding than one long one.
_CHAIN = 8


class Centers(NamedTuple):
    """Tiles of centers: `[tiles, ...]`, or one tile.

    Attributes:
      loc: `[groups, dims, centers]`.
      rate: `[groups, dims, centers]`, `1 / s`; 0 in dimensions that only fill a group up.
      bias: `[centers]`, what a logit is at its center; the floor where a center is masked.
      row: `[centers]` int32, where it stands among all.
    """

    loc: jax.Array
    rate: jax.Array
    bias: jax.Array
    row: jax.Array


class Queries(NamedTuple):
    """Blocks of queries: `[blocks, ...]`, or one block.

    Attributes:
      x: `[groups, dims, queries]`.
      exclude: `[queries]` int32, the row of the center to leave out, or None.
    """

    x: jax.Array
    exclude: jax.Array | None


def _grouped(a: jax.Array) -> jax.Array:
    """Return columns in groups, `[rows, d] -> [groups, dims, rows]`, filled up with zeros."""
    num_rows, d = a.shape
    size = d if d <= _WRITTEN_OUT else _GROUP
    return jnp.pad(a, ((0, 0), (0, -d % size))).T.reshape(-1, size, num_rows)


def _cut(a: jax.Array, size: int, fill) -> jax.Array:
    """Cut the last axis into tiles, `[..., rows] -> [tiles, ..., size]`."""
    widths = [(0, 0)] * (a.ndim - 1) + [(0, -a.shape[-1] % size)]
    a = jnp.pad(a, widths, constant_values=fill)
    return jnp.moveaxis(a.reshape(*a.shape[:-1], -1, size), -2, 0)


def make_queries(x, exclude) -> Queries:
    """Return queries `[n, d]` in blocks; rows that fill the last one up lie at the origin."""
    size = min(x.shape[0], _QUERIES)
    return Queries(
        _cut(_grouped(x), size, 0.0), None if exclude is None else _cut(exclude, size, -1)
    )


def make_centers(loc, log_var, log_weights, num_queries: int) -> Centers:
    """Return Gaussians `[m, d]` in tiles, for so many queries."""
    m = loc.shape[0]
    size = max(_LOGITS // min(num_queries, _QUERIES), _FEWEST_CENTERS)
    size = min(-(-m // -(-m // size)), m)
    bias = -0.5 * (jnp.sum(log_var, axis=1) + loc.shape[1] * _LOG_2_PI)
    rate = jnp.exp(-0.5 * log_var)
    if log_weights is not None:
        # A masked center may hold anything: it must not reach a product.
        masked = log_weights == -jnp.inf
        bias = jnp.where(masked, masked_level(bias.dtype), bias + log_weights)
        loc, rate = (jnp.where(masked[:, None], 0.0, a) for a in (loc, rate))
    return Centers(
        loc=_cut(_grouped(loc), size, 0.0),
        rate=_cut(_grouped(rate), size, 0.0),
        bias=_cut(bias, size, masked_level(bias.dtype)),
        row=_cut(jnp.arange(m, dtype=jnp.int32), size, -2),
    )


class _Tile(NamedTuple):
    """A block of queries beside a tile of centers.

    The side that a sum leaves lies across: its columns are contiguous, and the loop vectorizes.
    """

    queries: Queries
    centers: Centers
    centers_down: bool

    def of_centers(self, a):
        return a[:, None] if self.centers_down else a[None, :]

    def of_queries(self, a):
        return a[None, :] if self.centers_down else a[:, None]

    def deviation(self, group, k: int) -> jax.Array:
        """Return `(x - mu) / s` of one dimension of a group."""
        x, loc, rate = group
        difference = self.of_queries(x[k]) - self.of_centers(loc[k])
        return difference * self.of_centers(rate[k])

    @property
    def groups(self) -> tuple[jax.Array, ...]:
        return self.queries.x, self.centers.loc, self.centers.rate

    def squares(self, group) -> jax.Array:
        dims = range(group[0].shape[0])
        terms: list[Any] = [jnp.square(self.deviation(group, k)) for k in dims]
        while len(terms) > 1:
            chains = [terms[i : i + _CHAIN] for i in range(0, len(terms), _CHAIN)]
            terms = [sum(chain[1:], start=chain[0]) for chain in chains]
        return terms[0]

    def logits(self) -> jax.Array:
        """Return the logits, of what is left out at the floor."""
        first = self.squares([a[0] for a in self.groups])

        def add(g, total):
            return total + self.squares([a[g] for a in self.groups])

        count = self.queries.x.shape[0]
        squares = first if count == 1 else jax.lax.fori_loop(1, count, add, first)
        logits = self.of_centers(self.centers.bias) - 0.5 * squares
        if self.queries.exclude is not None:
            left_out = self.of_centers(self.centers.row) == self.of_queries(self.queries.exclude)
            logits = jnp.where(left_out, masked_level(logits.dtype), logits)
        return logits

    def pulls(self, weights) -> jax.Array:
        """Return `sum_j weights_ij (mu_j - x_i) / s_j^2`, `[groups, dims, queries]`."""
        x, loc, rate = self.groups

        def by_differences():
            def pull(group, k):
                of_center = self.deviation(group, k) * self.of_centers(group[2][k])
                return -jnp.sum(weights * of_center, axis=0)

            return self.by_dimension(pull)

        def by_products():
            squares = jnp.square(rate)
            sides = jnp.stack([squares, squares * loc]).reshape(-1, rate.shape[2])
            total, weighted = matmul(sides, weights, "highest").reshape(2, *x.shape)
            return weighted - x * total

        if x.shape[0] * x.shape[1] < _FEWEST_PRODUCTS:
            return by_differences()
        farthest = jnp.maximum(jnp.max(jnp.abs(x), axis=2, keepdims=True), jnp.abs(loc))
        return jax.lax.cond(jnp.max(farthest * rate) > _NARROW, by_differences, by_products)

    def by_dimension(self, of_dimension) -> Any:
        """Return what a function of `(group, k)` gives, stacked over groups and dimensions."""

        def of_group(group):
            given = [of_dimension(group, k) for k in range(group[0].shape[0])]
            return jax.tree.map(lambda *rows: jnp.stack(rows), *given)

        if self.queries.x.shape[0] == 1:
            only = of_group([a[0] for a in self.groups])
            return jax.tree.map(lambda a: a[None], only)
        return jax.lax.map(of_group, self.groups)


def _stored(weights: jax.Array) -> jax.Array:
    """Return weights that are computed once: XLA would do it again in each sum over them."""
    return jax.lax.optimization_barrier(weights)


def query_sums(
    x, loc, log_var, log_weights, exclude, *, gradient: bool
) -> tuple[jax.Array, jax.Array | None]:
    """Return the log-sum-exp of each query, and its gradient.

    Args:
      x: `[n, d]` queries.
      loc: `[m, d]` means.
      log_var: `[m, d]` log-variances.
      log_weights: `[m]` or None; -inf masks a center.
      exclude: `[n]` int32, the row to leave out, or None.
      gradient: whether to return it.

    Returns:
      (lse `[n]`, -inf where nothing is included; its gradient in x `[n, d]`, 0 there).
    """
    n, d = x.shape
    blocks, tiles = make_queries(x, exclude), make_centers(loc, log_var, log_weights, n)

    def of_block(queries: Queries):
        def add(carry, centers):
            top, total, drift = carry
            tile = _Tile(queries, centers, centers_down=True)
            logits = tile.logits()
            level = jnp.maximum(top, jnp.max(logits, axis=0))
            weights, kept = _stored(cpu_exp(logits - level[None, :])), jnp.exp(top - level)
            total = kept * total + jnp.sum(weights, axis=0)
            if drift is not None:
                drift = kept[None, None, :] * drift + tile.pulls(weights)
            return (level, total, drift), None

        zeros = varying_zeros(queries.x.shape[2:], x)
        drift = varying_zeros(queries.x.shape, x) if gradient else None
        # Above the floor of what is left out: that weighs nothing beside it.
        init = zeros + empty_level(x.dtype), zeros, drift
        (top, total, drift), _ = jax.lax.scan(add, init, tiles)
        empty = total == 0.0
        some = jnp.where(empty, 1.0, total)
        lse = jnp.where(empty, -jnp.inf, top + jnp.log(some))
        return lse, None if drift is None else drift / some[None, None, :]

    lse, drift = _over(of_block, blocks)
    if drift is not None:
        drift = jnp.moveaxis(drift, 0, 2).reshape(-1, lse.size)[:d, :n].T
    return lse.reshape(-1)[:n], drift


def center_gradients(
    x, loc, log_var, log_weights, exclude, lse, cotangent
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the gradients of `sum_i g_i lse_i` in loc, log_var and log_weights.

    Args:
      x: `[n, d]`; the arguments before `lse` are those of `query_sums`.
      loc: `[m, d]`.
      log_var: `[m, d]`.
      log_weights: `[m]` or None.
      exclude: `[n]` or None.
      lse: `[n]`, of `query_sums`.
      cotangent: `[n]`, g; a query whose g is 0 takes no part, finite or not.

    Returns:
      `[m, d]`, `[m, d]` and `[m]`.
    """
    n, (m, d) = x.shape[0], loc.shape
    idle = cotangent == 0.0
    x = jnp.where(idle[:, None], 0.0, x)
    # At this level an idle query's weights are 0, where 0 times them could be NaN.
    lse = jnp.where(idle, -masked_level(lse.dtype), lse)
    blocks, tiles = make_queries(x, exclude), make_centers(loc, log_var, log_weights, n)
    size = min(n, _QUERIES)
    levels, cotangents = (_cut(a, size, fill) for a, fill in ((lse, jnp.inf), (cotangent, 0.0)))

    def of_tile(centers: Centers):
        def add(carry, block):
            queries, level, g = block
            tile = _Tile(queries, centers, centers_down=False)
            weights = _stored(cpu_exp(tile.logits() - level[:, None]) * g[:, None])

            def moments(group, k):
                deviation = tile.deviation(group, k)
                pulls = weights * deviation
                return jnp.sum(pulls, axis=0), jnp.sum(pulls * deviation, axis=0)

            new = jnp.sum(weights, axis=0), *tile.by_dimension(moments)
            return jax.tree.map(jnp.add, carry, new), None

        shapes = centers.bias.shape, centers.loc.shape, centers.loc.shape
        init = tuple(varying_zeros(shape, x) for shape in shapes)
        (total, first, second), _ = jax.lax.scan(add, init, (blocks, levels, cotangents))
        return first * centers.rate, 0.5 * (second - total[None, None, :]), total

    *of_dims, total = _over(of_tile, tiles)
    loc_gradient, log_var_gradient = (
        jnp.moveaxis(a, 0, 2).reshape(-1, total.size)[:d, :m].T for a in of_dims
    )
    return loc_gradient, log_var_gradient, total.reshape(-1)[:m]


def _over(function, tiles) -> Any:
    """Map a function over the first axis of some arrays; one entry costs no loop."""
    if jax.tree.leaves(tiles)[0].shape[0] > 1:
        return jax.lax.map(function, tiles)
    return jax.tree.map(lambda a: a[None], function(jax.tree.map(lambda a: a[0], tiles)))
