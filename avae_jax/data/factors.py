"""Data sets that are the full grid of a few discrete factors: names, sizes, row to factors."""

from collections.abc import Callable
from typing import Any

import numpy as np

from avae_jax.data.cache import cached_arrays
from avae_jax.data.dsprites import DSPRITES
from avae_jax.data.errors import DataError
from avae_jax.data.shapes3d import SHAPES3D
from avae_jax.data.tfds_dataset import PreparedDataset, data_dir_of, find_prepared, quiet
from avae_jax.factors import FactorGrid
from avae_jax.files import cache_dir
from avae_jax.text import nearest

_RECORDS_PER_CHUNK = 4096
_BYTES_PER_CHUNK = 8 * 2**20

FACTORS = {
    "dsprites": FactorGrid(
        ("shape", "scale", "orientation", "x_position", "y_position"), (3, 6, 40, 32, 32)
    ),
    "shapes3d": FactorGrid(
        ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation"),
        (10, 10, 10, 8, 4, 15),
    ),
}
# The stand-ins have the grids of what they stand for.
FACTORS["sprites_like"] = FACTORS["dsprites"]
FACTORS["shapes3d_like"] = FACTORS["shapes3d"]

_TFDS = {dataset.name: dataset for dataset in (DSPRITES, SHAPES3D)}


def factor_grid(name: str) -> FactorGrid:
    """Return the factors of a data set, by its registry name.

    Args:
      name: one of `FACTORS`. The single colour of dSprites is left out: a factor with one value
        says nothing about a code.

    Returns:
      The grid. Row i of "sprites_like" and "shapes3d_like" is combination i of it. The rows of
      "dsprites" and "shapes3d" are in another order, see `load_factors`.

    Raises:
      DataError: if the data set has no known factors.

    Example:
      >>> factor_grid("shapes3d_like").num_points
      480000
    """
    if name not in FACTORS:
        raise DataError(f"dataset {name!r} has no known factors{nearest(name, FACTORS)}")
    return FACTORS[name]


def load_factors(name: str, *, data_dir=None) -> np.ndarray:
    """Return the factor values of every row of a data set, in the order of its images.

    tfds shuffles the records of dsprites and shapes3d when it prepares them, so their row number
    says nothing: their factors are read from the label features of each record, once, and kept in
    the cache folder.

    Args:
      name: one of `FACTORS`.
      data_dir: tfds data folder of "dsprites" and "shapes3d"; None as in `load_dataset`.

    Returns:
      `[n, num_factors]` uint8, in the order of `load_dataset(name).images`.

    Raises:
      FileNotFoundError: if the data set is not prepared.
      DataError: for an unknown name, a `data_dir` that is not used, or unusable records.
    """
    grid = factor_grid(name)
    if name not in _TFDS:
        if data_dir is not None:
            raise DataError(
                f"data_dir={data_dir} does not go with dataset '{name}', which is rendered: "
                "leave it out"
            )
        return grid.factors(np.arange(grid.num_points)).astype(np.uint8)
    root = data_dir_of(_TFDS[name], data_dir)
    prepared = find_prepared(name, root)
    if prepared is None:
        raise FileNotFoundError(
            f"dataset '{name}' is not prepared in {root}: run "
            f"`avae prepare {name} --data-dir {root}` once, or point data_dir or "
            "TFDS_DATA_DIR at it"
        )
    return _read_factors(name, grid, prepared)


class GridImages:
    """Renders rows of a factor grid on demand, indexed like an array.

    Attributes:
      grid: the factors.
      shape: `(n, height, width, channels)`.
      dtype: uint8.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        grid: FactorGrid,
        *,
        image_shape: tuple[int, int, int],
        render: Callable[[np.ndarray], np.ndarray],
    ):
        """Wrap a renderer.

        Args:
          grid: the factors.
          image_shape: `(height, width, channels)`.
          render: maps factors `[b, num_factors]` to uint8 images `[b, *image_shape]`.
        """
        self.grid = grid
        self.shape = (grid.num_points, *image_shape)
        self._render = render
        self._rows = np.arange(grid.num_points, dtype=np.int32)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows) -> np.ndarray:
        """Return uint8 images `[..., height, width, channels]` of an int, slice or int array."""
        rows = np.asarray(self._rows[rows])
        images = np.empty((*rows.shape, *self.shape[1:]), np.uint8)
        flat, index = images.reshape(-1, *self.shape[1:]), rows.reshape(-1)
        # Few enough at a time that a renderer's temporaries stay in the processor's cache.
        count = max(1, _BYTES_PER_CHUNK // (16 * flat[:1].nbytes or 1))
        for start in range(0, len(index), count):
            chunk = index[start : start + count]
            flat[start : start + count] = self._render(self.grid.factors(chunk))
        return images

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """Render all images; without this NumPy would ask for them one at a time."""
        if copy is False:
            raise ValueError("the images are rendered on demand: an array of them is a new one")
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)


def _read_factors(name: str, grid: FactorGrid, prepared: PreparedDataset) -> np.ndarray:
    shape = (sum(prepared.counts.values()), len(grid.names))
    key = {
        "format": 1,
        "source": str(prepared.path.resolve()),
        "prepared": (prepared.path / "dataset_info.json").stat().st_mtime_ns,
        "counts": dict(prepared.counts),
        "names": grid.names,
    }

    def build(factors, _):
        try:
            with quiet():
                _fill_factors(factors, grid, prepared)
        except (OSError, RuntimeError, ValueError, LookupError) as error:
            raise DataError(
                f"factors in {prepared.path} cannot be read ({type(error).__name__}): it is "
                f"damaged or of another layout; delete it and run `avae prepare {name}`"
            ) from error

    try:
        return cached_arrays(f"{name}-factors", key, image_shape=shape, build=build)[0]
    except OSError as error:
        raise DataError(
            f"factors of '{name}' cannot be stored in {cache_dir()} ({error}): set AVAE_CACHE_DIR "
            "to a writable folder"
        ) from error


def _fill_factors(factors: np.ndarray, grid: FactorGrid, prepared: PreparedDataset) -> None:
    import tensorflow_datasets as tfds

    # Its decorators hide the signatures from type checkers.
    builder: Any = tfds.builder_from_directory(prepared.path)
    decoders = {"image": tfds.decode.SkipDecoding()}
    start = 0
    for split, count in prepared.counts.items():
        source = builder.as_data_source(split, decoders=decoders)
        for first in range(0, count, _RECORDS_PER_CHUNK):
            rows = range(first, min(first + _RECORDS_PER_CHUNK, count))
            records = source.__getitems__(list(rows))
            factors[start + first : start + first + len(rows)] = [
                [record[f"label_{factor}"] for factor in grid.names] for record in records
            ]
        start += count
    if len(factors) and np.any(factors.max(axis=0) >= grid.sizes):
        raise ValueError("a label lies outside its factor")
