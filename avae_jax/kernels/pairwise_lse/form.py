"""What a logit tile is made of: the part in which the streamed implementations differ."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

MOST_HEADROOM = 60.0
"""Nats; float32 ends at 88, and sums over centers, times coordinates, are larger than a weight."""


@dataclasses.dataclass(frozen=True)
class Form:
    """One way to write -|x_i - y_j|^2 / (2 h^2) as product_ij + point_terms(x)_i + (y)_j.

    "Centred" points have a common shift subtracted and are divided by the bandwidth.

    Attributes:
      point_terms: centred points [k, d] -> [k], the part that depends on one point only.
      operand: (points [k, d], the same centred) -> tree of arrays, what `product` takes.
      product: (operand of a points, operand of b points, bandwidth, precision) -> [a, b].
      fused_dims: up to so many dimensions XLA on a CPU can fuse `product` with an exponential and
        its sum, without storing a tile.
      headroom: log of a sum, nats -> by how many nats it may exceed the level that the sum is taken
        relative to, and still be as exact as the form; at most `MOST_HEADROOM`.
      raises_level: whether a level may lie above what is known of the sum, as far as logits spread.
    """

    point_terms: Callable[[jax.Array], jax.Array]
    operand: Callable[[jax.Array, jax.Array], Any]
    product: Callable[[Any, Any, jax.Array, str], jax.Array]
    fused_dims: int
    headroom: Callable[[jax.Array], jax.Array | float]
    raises_level: bool
