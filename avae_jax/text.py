"""Words of messages and reports: one did-you-mean, one refusal, one way to write a number."""

import difflib
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

_MOST_LISTED = 40


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a misspelt one is likely to mean, None where none is close.

    Args:
      name: what the user wrote; capitals do not count.
      known: the names there are.

    Example:
      >>> closest("minst", ["digits", "mnist"])
      'mnist'
    """
    lowered = {entry.lower(): entry for entry in reversed(list(known))}
    close = difflib.get_close_matches(str(name).lower(), lowered, n=1)
    return lowered[close[0]] if close else None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the closest known one, or all of them.

    Args:
      name: what the user wrote; capitals do not count.
      known: the names there are, in the order to list them.

    Returns:
      `"; did you mean 'x'?"` where a name is close, else `"; known: x, y"`, 40 names at most.

    Example:
      >>> nearest("minst", ["digits", "mnist"]), nearest("faces", ["digits", "mnist"])
      ("; did you mean 'mnist'?", '; known: digits, mnist')
    """
    known = list(known)
    close = closest(name, known)
    if close is not None:
        return f"; did you mean {close!r}?"
    more = len(known) - _MOST_LISTED
    return f"; known: {', '.join(known[:_MOST_LISTED])}" + (f" and {more} more" if more > 0 else "")


KINDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
}
"""What a value of a type is called in a message."""


def refusal(
    name: str, value: Any, *, choices: Iterable[str] = (), kinds: Iterable[str] = ()
) -> str:
    """Return the message on a value that is none of those allowed: what was likely meant.

    Args:
      name: of what was given, as the user writes it.
      value: what the user gave.
      choices: the names it may have been.
      kinds: what else it may have been, in words such as those of `KINDS`.

    Example:
      >>> print(refusal("norm", "batc", choices=["batch", "group"]))
      norm must be one of batch, group, got 'batc': did you mean 'batch'?
      >>> print(refusal("weight", "x", choices=["nats"], kinds=["a number"]))
      weight must be nats or a number, got 'x': choose one of these
      >>> print(refusal("--seed", "x", kinds=["a whole number"]))
      --seed must be a whole number, got 'x': give one
    """
    choices, kinds = list(choices), list(kinds)
    named = [", ".join(choices)] if choices else []
    wanted = " or ".join(named + kinds) if kinds else f"one of {named[0]}"
    meant = closest(value, choices) if isinstance(value, str) else None
    instead = (
        f"did you mean {meant!r}?" if meant else "choose one of these" if choices else "give one"
    )
    return f"{name} must be {wanted}, got {value!r}: {instead}"


def number(value: Any, *, typographic: bool = False) -> str:
    """Write a value for a person: three significant digits, integers in full.

    Numbers of at least a million or below a thousandth have an exponent, others from 1,000 on have
    a comma at every thousand and no decimals. Zeros at the end stay: they are measured.

    Args:
      value: a number, a NumPy scalar or 0-d array, a bool, None for what is not defined, or
        anything else, which is written as `str` does.
      typographic: whether to use a true minus, an infinity sign, and a dash for what is not
        defined; False stays within ASCII, for terminals and files.

    Returns:
      The text.

    Example:
      >>> [number(value) for value in (1234567, 1234.5, 0.5, -2e-5, float("nan"), True)]
      ['1,234,567', '1,234', '0.500', '-2.00e-05', 'nan', 'yes']
      >>> number(None, typographic=True)
      '–'
    """
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–" if typographic else "nan"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        text = f"{value:,}"
    elif not isinstance(value, float):
        return str(value)
    elif math.isinf(value):
        text = f"{'-' if value < 0 else ''}{'∞' if typographic else 'inf'}"
    elif value != 0.0 and not 1e-3 <= abs(value) < 1e6:
        text = f"{value:.2e}"
    elif abs(value) >= 999.5:
        text = f"{value:,.0f}"
    else:
        # A negative zero has no sign worth a look.
        text = f"{value + 0.0:#.3g}".rstrip(".")
    return text.replace("-", "−") if typographic else text


def duration(seconds: float) -> str:
    """Write a time for a person, hours where there are any.

    Example:
      >>> duration(75), duration(7384.6)
      ('1:15', '2:03:05')
    """
    minutes, seconds = divmod(int(round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
