"""The two forms of a logit tile: the part in which the streamed implementations differ.

- `MATRIX`: -|x - y|^2 / 2 = x.y - |x|^2 / 2 - |y|^2 / 2, one matrix product per tile.
- `DIFFERENCE`: -|x - y|^2 / 2 summed dimension by dimension, free of cancellation;
  `RARE_DIFFERENCE` is the same where it is seldom needed.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from avae_jax.kernels.pairwise_lse.precision import LONGEST_CHAIN, matmul

MOST_HEADROOM = 60.0
"""Nats; float32 ends at 88, and sums over centers, times coordinates, are larger than a weight."""


@dataclasses.dataclass(frozen=True)
class Form:
    """One way to write -|x_i - y_j|^2 / (2 h^2) as product_ij + point_terms(x)_i + (y)_j.

    "Centered" points have a common shift subtracted and are divided by the bandwidth.

    Attributes:
      point_terms: centered points [k, d] -> [k], the part that depends on one point only.
      is_finite: (points [k, d], their point terms [k]) -> bool [k], whether a point can take part.
      operand: (points [k, d], the same centered) -> tree of arrays, what `product` takes.
      product: (operand of a points, operand of b points, bandwidth, precision) -> [a, b].
      fused_dims: up to so many dimensions XLA on a CPU can fuse `product` with an exponential and
        its sum, without storing a tile.
      headroom: log of a sum, nats -> by how many nats it may exceed the level that the sum is taken
        relative to, and still be as exact as the form; at most `MOST_HEADROOM`.
      raises_level: whether a level may lie above what is known of the sum, as far as logits spread.
      seeks_levels: whether tiles may be summed at a level known before them. Without, the program
        is a third as large, and slower.
    """

    point_terms: Callable[[jax.Array], jax.Array]
    is_finite: Callable[[jax.Array, jax.Array], jax.Array]
    operand: Callable[[jax.Array, jax.Array], Any]
    product: Callable[[Any, Any, jax.Array, str], jax.Array]
    fused_dims: int
    headroom: Callable[[jax.Array], jax.Array | float]
    raises_level: bool
    seeks_levels: bool = True


def _matrix_operand(points, centered):
    # The terms of nearby points all have one sign: their roundings add up along a chain. Cut here,
    # and not in the product, XLA writes no uncut copy.
    del points
    cuts = range(0, centered.shape[1], LONGEST_CHAIN)
    return tuple(centered[:, i : i + LONGEST_CHAIN] for i in cuts)


def _matrix_point_terms(centered):
    chains = _matrix_operand(None, centered)
    first, *rest = (jnp.sum(chain * chain, axis=-1) for chain in chains)
    return -0.5 * sum(rest, start=first)


def _matrix_product(x, y, bandwidth, precision):
    del bandwidth
    total, *parts = (matmul(a, b.T, precision) for a, b in zip(x, y, strict=True))
    return sum(parts, start=total)


MATRIX = Form(
    point_terms=_matrix_point_terms,
    # Read off the terms, which costs no pass over the points. They overflow beyond 1e19 bandwidths.
    is_finite=lambda points, terms: jnp.isfinite(terms),
    operand=_matrix_operand,
    product=_matrix_product,
    fused_dims=LONGEST_CHAIN,
    # The error of a logit is a share of its largest term, which grows as the logits spread.
    headroom=lambda lse: MOST_HEADROOM,
    raises_level=True,
)


# So many dimensions are written out in one fused pass over the tile; more of them are summed in
# groups, which keeps the program small. Measured on the CPU: groups of 8 take three times as long.
_UNROLLED_DIMS = 32
_GROUP_DIMS = 16
# Short chains of additions lose less to rounding than one long one.
_CHAIN = 8


def _difference_point_terms(centered):
    return jnp.zeros(centered.shape[:-1], centered.dtype)


def _difference_is_finite(points, terms):
    del terms
    if points.shape[1] > _UNROLLED_DIMS:
        return jnp.sum(points * 0.0, axis=1) == 0.0
    # Column by column: XLA on the CPU sums short rows at a tenth of the speed.
    first, *rest = (column * 0.0 for column in points.T)
    return sum(rest, start=first) == 0.0


def _difference_operand(points, centered):
    # Neither centered nor scaled: both would round the points, and nearby ones subtract exactly.
    del centered
    # Separate columns: XLA on the CPU does not vectorize a loop that slices them itself.
    return tuple(points.T) if points.shape[1] <= _UNROLLED_DIMS else points


def _difference_product(x, y, bandwidth, precision):
    del precision
    scale = -0.5 / jnp.square(bandwidth)
    if isinstance(x, tuple):
        return scale * _squares(x, y)
    x, y = x.T, y.T
    d = x.shape[0]
    num_groups = d // _GROUP_DIMS
    rest = num_groups * _GROUP_DIMS
    total = _squares(x[rest:], y[rest:]) if rest < d else None

    def of_group(group):
        start = group * _GROUP_DIMS
        return _squares(
            jax.lax.dynamic_slice_in_dim(x, start, _GROUP_DIMS),
            jax.lax.dynamic_slice_in_dim(y, start, _GROUP_DIMS),
        )

    first = of_group(0) if total is None else total + of_group(0)
    return scale * jax.lax.fori_loop(1, num_groups, lambda g, t: t + of_group(g), first)


def _squares(x, y):
    """Return the squared distances `[a, b]` over the few columns `[a]` of x and `[b]` of y."""
    terms = [jnp.square(a[:, None] - b[None, :]) for a, b in zip(x, y, strict=True)]
    while len(terms) > 1:
        chains = [terms[i : i + _CHAIN] for i in range(0, len(terms), _CHAIN)]
        terms = [sum(chain[1:], start=chain[0]) for chain in chains]
    return terms[0]


DIFFERENCE = Form(
    point_terms=_difference_point_terms,
    is_finite=_difference_is_finite,
    operand=_difference_operand,
    product=_difference_product,
    fused_dims=0,
    # The error of a logit is a share of itself: so may be what the level adds to it.
    headroom=lambda lse: jnp.minimum(6.0 + 2.0 * jnp.abs(lse), MOST_HEADROOM),
    raises_level=False,
)


def _short_product(x, y, bandwidth, precision):
    del precision
    return -0.5 / jnp.square(bandwidth) * jnp.sum(jnp.square(x[:, None, :] - y[None, :, :]), axis=2)


RARE_DIFFERENCE = dataclasses.replace(
    DIFFERENCE, operand=lambda points, centered: points, product=_short_product, seeks_levels=False
)
"""The same in a small program, for a branch that is seldom taken."""
