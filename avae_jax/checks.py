"""Checks of arguments: what a user gives is used, or refused in one form of words.

`NAME must ..., got VALUE: DO THIS`. A kind of value that can never do is a `TypeError`, a value out
of range a `ValueError`. What only one package needs to check stays in that package.
"""

import math
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np

_LONGEST_SHOWN = 60


def check_count(name: str, value: Any, *, minimum: int, maximum: int | None = None) -> int:
    """Return an integer within its limits as a Python int.

    Args:
      name: the argument's name, for the message.
      value: what the caller gave; integers of NumPy and 0-d integer arrays pass, bools do not.
      minimum: the smallest allowed value.
      maximum: the largest, None for no limit.

    Raises:
      TypeError: not an integer.
      ValueError: below `minimum` or above `maximum`.
    """
    wanted = f"an integer of at least {minimum}"
    if maximum is not None:
        wanted = f"an integer from {minimum} to {maximum}"
    try:
        if isinstance(value, bool):
            raise TypeError
        count = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name} must be {wanted}, got {_shown(value)}: give a whole number"
        ) from None
    if count < minimum:
        raise ValueError(f"{name} must be {wanted}, got {count}: give a larger one")
    if maximum is not None and count > maximum:
        raise ValueError(f"{name} must be {wanted}, got {count}: give a smaller one")
    return count


def check_positive(name: str, value: Any) -> float:
    """Return a finite number above 0 as a float.

    Args:
      name: the argument's name, for the message.
      value: a number or a scalar array whose value is known.

    Raises:
      TypeError: not one number.
      ValueError: zero, negative, infinite or NaN.
    """
    number = _number(name, value)
    if not (math.isfinite(number) and number > 0.0):
        raise ValueError(f"{name} must be finite and positive, got {number}: give one above 0")
    return number


def check_positive_unless_traced(name: str, value: Any) -> None:
    """Check a plain number as `check_positive` does; arrays, which may be traced, pass.

    Args:
      name: the argument's name, for the message.
      value: what the caller gave.

    Raises:
      ValueError: a plain number that is zero, negative, infinite or NaN.
    """
    if isinstance(value, int | float | np.number):
        check_positive(name, value)


def check_between(name: str, value: Any, low: float, high: float) -> float:
    """Return a number between two others, neither of them, as a float.

    Args:
      name: the argument's name, for the message.
      value: a number or a scalar array whose value is known.
      low: the lower end, left out.
      high: the upper end, left out.

    Raises:
      TypeError: not one number.
      ValueError: outside the interval, or NaN.
    """
    number = _number(name, value)
    if not low < number < high:
        raise ValueError(
            f"{name} must lie in ({low:g}, {high:g}), got {number}: give one between these"
        )
    return number


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Refuse a value that is none of the choices.

    Args:
      name: the argument's name, for the message.
      value: what the caller gave.
      choices: what is allowed.

    Raises:
      ValueError: `value` is not among them.
    """
    choices = tuple(choices)
    if value not in choices:
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, choices))}, got {_shown(value)}: "
            "choose one of these"
        )


def check_same_shape(**arrays: Any) -> None:
    """Refuse arrays whose shapes differ.

    Args:
      **arrays: arrays by the names of the arguments; the first sets the shape.

    Raises:
      ValueError: another one has another shape.
    """
    (first, wanted), *others = ((name, np.shape(array)) for name, array in arrays.items())
    for name, shape in others:
        if shape != wanted:
            raise ValueError(
                f"{name} must have the shape of {first}, {wanted}, got {shape}: give both the "
                "same shape"
            )


def check_axes(**arrays: tuple[str, Any]) -> None:
    """Refuse arrays without the axes they must have, or whose common axes differ in size.

    Args:
      **arrays: by the names of the arguments, each with its axes in words, such as
        "batch latent_dim", "batch", "" for one number, or "batch ..." for at least one more axis of
        any kind. The first array that has an axis sets its size. None is skipped.

    Raises:
      ValueError: another number of axes, or another size. A single row, as inside `jax.vmap`, is
        told the index that makes it a batch of one.

    Example:
      >>> check_axes(x=("batch ...", np.zeros((7, 2))), z=("batch latent_dim", np.zeros((6, 3))))
      Traceback (most recent call last):
      ValueError: z must have the batch of x, 7, got 6 in shape (6, 3): give both the same
    """
    given = {
        name: (axes.split(), np.shape(a)) for name, (axes, a) in arrays.items() if a is not None
    }
    for name, (axes, shape) in given.items():
        missing = len(axes) - len(shape)
        if missing > 0 or (missing and axes[-1:] != ["..."]):
            if not axes:
                raise ValueError(f"{name} must be one number, got shape {shape}: give one")
            if missing == 1:
                fix = f"give {name}[None] for a single one, as inside jax.vmap"
            elif missing == -1 and shape[-1] == 1:
                fix = f"give {name}[..., 0]"
            else:
                fix = "give an array of that shape"
            raise ValueError(f"{name} must have shape [{', '.join(axes)}], got {shape}: {fix}")
    sizes: dict[str, tuple[str, int]] = {}
    for name, (axes, shape) in given.items():
        for axis, size in zip(axes, shape, strict=False):
            first, wanted = sizes.setdefault(axis, (name, size))
            if size != wanted and axis != "...":
                raise ValueError(
                    f"{name} must have the {axis} of {first}, {wanted}, got {size} in shape "
                    f"{shape}: give both the same"
                )


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {_shown(value)}: give one") from None


def _shown(value: Any) -> str:
    """Return a value as a message shows it: an array or a long text by its kind alone."""
    text = repr(value)
    short = len(text) <= _LONGEST_SHOWN and "\n" not in text
    return text if short else f"a value of type {type(value).__name__}"
