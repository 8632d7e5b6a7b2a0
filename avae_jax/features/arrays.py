"""Named arrays: their hash, and their files."""

import hashlib
import io
import zipfile
from collections.abc import Mapping

import numpy as np


def hash_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the sha256 of named arrays: their names, shapes and float32 values, names sorted."""
    digest = hashlib.sha256()
    for key in sorted(arrays):
        digest.update(f"{key} {arrays[key].shape}\n".encode())
        digest.update(np.ascontiguousarray(arrays[key], dtype="<f4").tobytes())
    return digest.hexdigest()


def read_npz(content: bytes, source: str) -> dict[str, np.ndarray]:
    """Read every array of an `.npz`, refusing Python objects.

    Args:
      content: the bytes of the file.
      source: the file, for an error.

    Returns:
      The arrays by name.

    Raises:
      ValueError: the bytes are not an `.npz`, or hold Python objects.
    """
    if not content.startswith((b"PK", b"\x93NUMPY")):
        raise ValueError(f"{source} is not a readable .npz: it is no zip archive of arrays")
    try:
        stored = np.load(io.BytesIO(content), allow_pickle=False)
        if isinstance(stored, np.ndarray):
            raise ValueError("it holds one bare array")
        return {key: stored[key] for key in stored.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        # NumPy's own words advise to load such a file unsafely.
        why = "it holds Python objects" if "pickle" in str(error) else first_line(error)
        raise ValueError(f"{source} is not a readable .npz: {why}") from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its name where it has none."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
