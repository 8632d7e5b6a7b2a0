"""Train, validation and test indices: drawing, checking, storing."""

import dataclasses
import hashlib
import zipfile
from collections.abc import Mapping

import numpy as np

from avae_jax.checks import check_count
from avae_jax.data.errors import DataError
from avae_jax.files import user_path, written_whole

SPLIT_NAMES = ("train", "validation", "test")

# The drawn test split does not depend on the user's seed: runs with different seeds are then
# measured on the same images, and none of them has ever trained on those.
_TEST_SEED = 20231107


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """Disjoint, sorted row indices into one images array.

    Attributes:
      train: `[num_train]` int32, not empty.
      validation: `[num_validation]` int32, not empty.
      test: `[num_test]` int32, not empty.

    Raises:
      DataError: if a split is empty, unsorted, negative, not a vector of integers, or shares an
        index with another split.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def __post_init__(self):
        for name in SPLIT_NAMES:
            given = np.asarray(getattr(self, name))
            if given.ndim != 1 or not np.issubdtype(given.dtype, np.integer):
                raise DataError(
                    f"split '{name}' must be a vector of integers, got shape {given.shape} "
                    f"and dtype {given.dtype}"
                )
            if given.size == 0:
                raise DataError(f"split '{name}' is empty: every split needs at least one image")
            if given.min() < 0 or given.max() > np.iinfo(np.int32).max:
                raise DataError(f"split '{name}' holds indices outside [0, 2**31)")
            if np.any(np.diff(given) <= 0):
                raise DataError(f"split '{name}' must be sorted and without repeats: use np.unique")
            indices = given.astype(np.int32)
            indices.setflags(write=False)
            object.__setattr__(self, name, indices)
        for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
            shared = np.intersect1d(getattr(self, first), getattr(self, second), assume_unique=True)
            if shared.size:
                raise DataError(
                    f"splits '{first}' and '{second}' share {shared.size} images, "
                    f"the first at index {shared[0]}: splits must be disjoint"
                )

    def digest(self) -> str:
        """Return a hex SHA-256 of all three index arrays: equal digests, equal splits."""
        value = hashlib.sha256()
        for name in SPLIT_NAMES:
            indices = getattr(self, name)
            value.update(f"{name}:{indices.size};".encode())
            value.update(indices.astype("<i4").tobytes())
        return value.hexdigest()

    def save(self, path) -> None:
        """Write the indices to `path` as an .npz file, in one atomic step.

        Args:
          path: file to write; its folder must exist.
        """
        with written_whole(user_path(path)) as file:
            np.savez_compressed(file, **{name: getattr(self, name) for name in SPLIT_NAMES})

    @classmethod
    def load(cls, path) -> "Splits":
        """Read indices written by `save`.

        Args:
          path: the .npz file.

        Returns:
          The checked `Splits`.

        Raises:
          FileNotFoundError: if there is no such file.
          DataError: if the file is damaged or lacks a split.
        """
        try:
            with open(user_path(path), "rb") as file, np.load(file, allow_pickle=False) as stored:
                return cls(**{name: stored[name] for name in SPLIT_NAMES})
        except FileNotFoundError:
            raise FileNotFoundError(f"no stored splits at {path}") from None
        except DataError:
            raise
        except (KeyError, OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} does not hold stored splits: {error}") from error


def draw_splits(
    counts: Mapping[str, int],
    *,
    seed: int = 0,
    validation_size: int | float | None = None,
    test_size: int | float | None = None,
) -> Splits:
    """Draw validation and test indices, keeping official splits where there are any.

    The rows of the images array are the official splits one after the other, in the order of
    `counts`. A split that is official is kept (or thinned to the asked size); one that is not is
    drawn from the official train rows. The validation draw depends on `seed`; the test draw does
    not, so that runs with different seeds are tested on the same images.

    Args:
      counts: rows of each official split: "train", and "validation" or "test" if they exist.
      seed: seed of the validation draw, at least 0.
      validation_size: an int is a number of images; a float in (0, 1) is a share of the official
        validation split, or of the official train split where there is none. None keeps an
        official split whole and draws a tenth otherwise.
      test_size: as `validation_size`; None draws a fifth where there is no official test split.

    Returns:
      Disjoint sorted `Splits`.

    Raises:
      DataError: if a size is out of range or leaves no training image.
      ValueError: if `seed` is negative.
      TypeError: if `seed` is no integer.
    """
    seed = check_count("seed", seed, minimum=0)
    rows, start = {}, 0
    for name, count in counts.items():
        if name not in SPLIT_NAMES:
            raise DataError(f"unknown official split '{name}': expected one of {SPLIT_NAMES}")
        rows[name] = np.arange(start, start + count, dtype=np.int32)
        start += count
    if start < len(SPLIT_NAMES):
        raise DataError(
            f"{start} images are too few: train, validation and test need at least one each"
        )
    num_train = counts["train"]
    asked = {}
    for name, size, share in (("validation", validation_size, 0.1), ("test", test_size, 0.2)):
        whole = counts.get(name, num_train)
        if size is None:
            size = whole if name in counts else max(1, int(share * num_train))
        asked[name] = _count_of(size, whole, argument=f"{name}_size")

    remaining = rows["train"]
    drawn = {}
    for name, generator in (
        ("test", np.random.default_rng(_TEST_SEED)),
        ("validation", np.random.default_rng(seed)),
    ):
        official = name in rows
        pool = rows[name] if official else remaining
        if asked[name] > len(pool) or (not official and asked[name] == len(pool)):
            raise DataError(
                f"{name}_size={asked[name]} leaves no training image out of {num_train}: "
                "ask for less or give more images"
                if not official
                else f"{name}_size={asked[name]} is more than the {len(pool)} images of the "
                f"official {name} split: ask for less"
            )
        chosen = generator.permutation(len(pool))[: asked[name]]
        drawn[name] = np.sort(pool[chosen])
        if not official:
            remaining = np.delete(pool, chosen)
    return Splits(train=remaining, **drawn)


def _count_of(size, whole: int, *, argument: str) -> int:
    """Turn a count or a share of `whole` into a count of at least one."""
    if isinstance(size, bool) or not isinstance(size, int | float | np.integer | np.floating):
        raise DataError(f"{argument} must be a count or a share, got {size!r}")
    if isinstance(size, float | np.floating):
        if not 0.0 < size < 1.0:
            raise DataError(
                f"{argument}={size} must lie in (0, 1) as a share; give an int for a count"
            )
        return max(1, int(size * whole))
    if size < 1:
        raise DataError(f"{argument}={size} must be at least 1 image")
    return int(size)
