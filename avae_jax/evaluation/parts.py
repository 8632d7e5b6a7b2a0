"""What an evaluation has found so far, kept until it is whole: one that is stopped goes on."""

import contextlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from avae_jax.files import written_whole

Part = tuple[Any, Mapping[str, np.ndarray]]
"""Numbers, as JSON values, and the arrays that figures need beside them."""

# A name that no folder of a user has.
_FOLDER = ".unfinished_evaluation"


class Parts:
    """The finished parts of an evaluation, a file each in a folder beside its results.

    Args:
      folder: where the evaluation writes.
      key: JSON values, everything that the parts depend on. Parts of another key are not read.
      say: receives a line about every part that is read back.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], say: Callable[[str], None]):
        self._folder, self._say = folder / _FOLDER, say
        self._key = json.dumps(key, sort_keys=True, default=str)

    def get(self, name: str, make: Callable[[], Part]) -> Part:
        """Return a part, as it was kept or else as it is made now, and keep it.

        Args:
          name: of the part.
          make: makes it.

        Raises:
          OSError: it cannot be kept.
        """
        file = self._folder / f"{name}.npz"
        kept = self._read(file)
        if kept is not None:
            self._say(f"{name}: kept from an evaluation that was stopped")
            return kept
        numbers, arrays = make()
        text = json.dumps(
            {"key": self._key, "numbers": numbers, "names": list(arrays)}, default=_plain
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        with written_whole(file) as out:
            np.savez(out, *arrays.values(), text=np.array(text))
        return numbers, arrays

    def _read(self, file: Path) -> Part | None:
        """Return a part of this key; None where there is none that can be read."""
        try:
            with np.load(file) as stored:
                found = json.loads(str(stored["text"]))
                if found["key"] != self._key:
                    return None
                arrays = {name: stored[f"arr_{i}"] for i, name in enumerate(found["names"])}
                return found["numbers"], arrays
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None


def forget_parts(folder: Path) -> None:
    """Delete the parts of an evaluation that is whole, and nothing else."""
    place = folder / _FOLDER
    for file in place.glob("*.npz"):
        file.unlink(missing_ok=True)
    # What else lies there stays, and its folder.
    with contextlib.suppress(OSError):
        place.rmdir()


def _plain(value: Any) -> Any:
    """Return a NumPy number as JSON knows it."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON value")
