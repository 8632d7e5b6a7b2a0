"""Checks of arguments that the functions of this package share."""

import operator
from typing import Any

import numpy as np


def check_count(name: str, value: Any, *, minimum: int) -> int:
    """Return `value` as an int, or raise when it is no integer or below `minimum`.

    Args:
      name: the argument's name, for the message.
      value: what the caller gave.
      minimum: the smallest allowed value.

    Returns:
      The value as a Python int.

    Raises:
      TypeError: not an integer.
      ValueError: below `minimum`.
    """
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}: give an integer of at least {minimum}") from None
    if count < minimum:
        raise ValueError(f"{name} is {count}: give an integer of at least {minimum}")
    return count


def check_positive(name: str, value: Any) -> None:
    """Raise when a plain number is not positive and finite; arrays may be traced and pass.

    Args:
      name: the argument's name, for the message.
      value: what the caller gave.

    Raises:
      ValueError: zero, negative, infinite or NaN.
    """
    if isinstance(value, (int, float, np.number)) and not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value}: give a finite number above 0")
