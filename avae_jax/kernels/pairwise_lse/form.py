"""What a logit tile is made of: the part in which the implementations differ."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Form:
    """One way to write -|x_i - y_j|^2 / 2 as product(x, y)_ij + point_terms(x)_i + (y)_j.

    Attributes:
        point_terms: [k, d] -> [k], the part that depends on one point only.
        operand: [k, d] -> tree of [k, ...] arrays, the points as `product` wants them.
        product: (operand of x [a, d], operand of y [b, d]) -> [a, b], the part that needs both.
    """

    point_terms: Callable[[jax.Array], jax.Array]
    operand: Callable[[jax.Array], Any]
    product: Callable[[Any, Any], jax.Array]
