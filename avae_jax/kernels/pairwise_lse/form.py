"""What a logit tile is made of: the part in which the streamed implementations differ."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax


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
      headroom: nats by which the log of a tile's sum may exceed the level it is taken relative to,
        and still be as exact as the form.
    """

    point_terms: Callable[[jax.Array], jax.Array]
    operand: Callable[[jax.Array, jax.Array], Any]
    product: Callable[[Any, Any, jax.Array, str], jax.Array]
    fused_dims: int
    headroom: float
