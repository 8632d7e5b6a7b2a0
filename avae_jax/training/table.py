"""The tables that a run prints on the terminal."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from avae_jax.text import number


def format_summary(summary: Mapping[str, Any]) -> str:
    """Lay a run's closing numbers out as a table: quantity, value, null.

    Args:
      summary: quantity -> number, text, or a pair `(value, null)`. `name_null` beside `name`
        becomes its null. A nested mapping becomes a section under its key, where a bare `null` is
        that of the section's first quantity. None is shown as a dash.

    Returns:
      The table, with a line that explains the nulls where there are any, without a newline at its
      end.

    Example:
      >>> latent = {"moment_kl": 0.31, "moment_kl_null": 0.03, "std": (0.95, 1.0)}
      >>> print(format_summary({"latent": latent}))
      quantity     value    null
      --------------------------
      latent
        moment_kl  0.310  0.0300
        std        0.950    1.00
      null: what as many draws of the prior, or a constant decoder, would give
    """
    rows = _summary_rows(summary, indent="")
    has_nulls = any(null for _, _, null in rows)
    cells = [("quantity", "value", "null" if has_nulls else ""), *rows]
    # A heading, or a text in the value column, must not push the numbers of other rows apart.
    widths = [max(len(name) for name, value, _ in cells if value)]
    for column in (1, 2):
        widths.append(max(len(row[column]) for row in cells if len(row[column]) <= 18))
    lines = [
        f"{name:<{widths[0]}}  {value:>{widths[1]}}  {null:>{widths[2]}}".rstrip()
        for name, value, null in cells
    ]
    note = ["null: what as many draws of the prior, or a constant decoder, would give"]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], *(note if has_nulls else [])])


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print `format_summary(summary)` on standard output."""
    print(format_summary(summary), flush=True)


def _summary_rows(summary: Mapping[str, Any], indent: str) -> list[tuple[str, str, str]]:
    rows = []
    names = list(summary)
    for position, (name, value) in enumerate(summary.items()):
        if isinstance(value, Mapping):
            rows.append((indent + name, "", ""))
            rows.extend(_summary_rows(value, indent + "  "))
            continue
        owner = name.removesuffix("_null")
        if (owner != name and owner in summary) or (name == "null" and position > 0):
            continue
        null_value: Any = summary.get(f"{name}_null", "")
        if position == 0 and null_value == "" and "null" in names[1:]:
            null_value = summary["null"]
        if isinstance(value, (tuple, list)) and len(value) == 2:
            value, null_value = value
        rows.append((indent + name, _cell(value), _cell(null_value)))
    return rows


def _cell(value) -> str:
    if value is None:
        return "-"
    return number(value if isinstance(value, (bool, int, str)) else float(np.asarray(value)))
