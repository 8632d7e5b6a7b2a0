"""A figure as a PNG: written to a file, or as bytes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from avae_jax.figures.style import DPI, styled
from avae_jax.files import user_path, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def to_png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()


def save(figure: Figure, path) -> Path:
    """Write a figure as a PNG, whole or not at all.

    Args:
      figure: what a `make_*` function returned.
      path: the file, replaced where it exists; its folder is made when missing.

    Returns:
      The path.

    Raises:
      ValueError: the file's name does not end in .png.
    """
    path = user_path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"path must end in .png, got {path.name!r}: rename it")
    picture = to_png(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, picture)
    return path
