"""Datasets prepared by tensorflow_datasets, read without TensorFlow."""

import contextlib
import dataclasses
import io
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from avae_jax.data.cache import cached_arrays
from avae_jax.data.errors import DataError
from avae_jax.data.folder import num_threads
from avae_jax.data.image_data import ImageData
from avae_jax.data.splits import SPLIT_NAMES, draw_splits
from avae_jax.files import cache_dir, user_path

_RECORDS_PER_CHUNK = 512
_BYTES_WORTH_A_THREAD = 10_000


@dataclasses.dataclass(frozen=True)
class TfdsDataset:
    """How one tfds dataset becomes images of a fixed size.

    Attributes:
      name: tfds name.
      image_shape: `(height, width, channels)` after conversion.
      convert: maps stored uint8 images `[b, ...]` to uint8 `[b, *image_shape]`.
      convert_version: raise it when `convert` changes, so that cached images are made again.
      label: feature with the class, or None.
      num_classes: number of classes, or None.
      validation_size: default size of the validation split; None keeps an official one.
      test_size: default size of the test split; None keeps an official one.
      local: True if the project prepares the dataset itself, on first use, without a download.
      from_path: reads it from a user's `path` instead, with the arguments of a loader; or None.
    """

    name: str
    image_shape: tuple[int, int, int]
    convert: Callable[[np.ndarray], np.ndarray]
    convert_version: int = 1
    label: str | None = "label"
    num_classes: int | None = None
    validation_size: int | float | None = None
    test_size: int | float | None = None
    local: bool = False
    from_path: Callable[..., ImageData] | None = None


@dataclasses.dataclass(frozen=True)
class PreparedDataset:
    """A prepared dataset on disk.

    Attributes:
      path: its version folder.
      counts: number of examples of each split that we know by name.
    """

    path: Path
    counts: Mapping[str, int]


def default_data_dir() -> Path:
    """Return the tfds data folder: $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return user_path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def data_dir_of(dataset: TfdsDataset, data_dir) -> Path:
    """Return the folder in which a dataset is looked for.

    Args:
      dataset: the dataset.
      data_dir: the user's choice; None is the tfds folder, or our own cache folder for a dataset
        that we prepare ourselves (the tfds folder may be shared and read-only).
    """
    if data_dir is None:
        return cache_dir() / "datasets" if dataset.local else default_data_dir()
    if "://" in os.fspath(data_dir):
        raise DataError(f"data_dir={data_dir} is remote: copy the dataset to a local folder")
    return user_path(data_dir)


def find_prepared(name: str, data_dir: Path) -> PreparedDataset | None:
    """Look for the newest version of a dataset stored as array_record.

    Only files are looked at: no download starts and tfds is not imported.

    Args:
      name: tfds name.
      data_dir: tfds data folder.

    Returns:
      The dataset, or None if it is not there.

    Raises:
      DataError: if it is there in another file format only, or its description is damaged.
    """
    found, other_format = [], None
    for info_file in (data_dir / name).glob("*/dataset_info.json"):
        if not re.fullmatch(r"\d+\.\d+\.\d+", info_file.parent.name):
            continue
        try:
            info = json.loads(info_file.read_text())
            if info.get("fileFormat", "tfrecord") != "array_record":
                other_format = info_file.parent
                continue
            counts = {
                split["name"]: sum(int(length) for length in split["shardLengths"])
                for split in info["splits"]
                if split["name"] in SPLIT_NAMES
            }
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataError(
                f"{info_file} cannot be read ({type(error).__name__}): delete its folder and run "
                f"`avae prepare {name}`"
            ) from error
        version = tuple(int(part) for part in info_file.parent.name.split("."))
        found.append((version, PreparedDataset(info_file.parent, counts)))
    if found:
        return max(found, key=lambda item: item[0])[1]
    if other_format is not None:
        raise DataError(
            f"{other_format} is not stored as array_record and needs TensorFlow to read: "
            f"prepare a copy elsewhere with `avae prepare {name} --data-dir DIR`"
        )
    return None


def load_tfds(
    dataset: TfdsDataset,
    *,
    data_dir=None,
    seed: int = 0,
    validation_size: int | float | None = None,
    test_size: int | float | None = None,
) -> ImageData:
    """Load a prepared dataset, from the decoded copy in the cache folder after the first time.

    Args:
      dataset: the dataset.
      data_dir: tfds data folder; None as in `data_dir_of`.
      seed: seed of the validation draw.
      validation_size: count or share; None is the dataset's default.
      test_size: count or share; None is the dataset's default.

    Returns:
      The images of all official splits in one array.

    Raises:
      FileNotFoundError: if `data_dir` is missing or the dataset is not prepared there. Nothing is
        downloaded here.
      DataError: if it cannot be read or the sizes do not fit.
    """
    root = data_dir_of(dataset, data_dir)
    prepared = find_prepared(dataset.name, root)
    if prepared is None and dataset.local:
        prepare_locally(dataset, root)
        prepared = find_prepared(dataset.name, root)
    if prepared is None and data_dir is not None and not root.is_dir():
        raise FileNotFoundError(
            f"data_dir={data_dir} does not exist: give the folder in which '{dataset.name}' was "
            f"prepared, or prepare it: avae prepare {dataset.name} --data-dir {data_dir}"
        )
    if prepared is None:
        raise FileNotFoundError(
            f"dataset '{dataset.name}' is not prepared in {root}: run "
            f"`avae prepare {dataset.name} --data-dir {root}` once, or point data_dir or "
            "TFDS_DATA_DIR at it"
        )
    # Drawn before the images are decoded, so that a wrong size is told at once.
    splits = draw_splits(
        prepared.counts,
        seed=seed,
        validation_size=dataset.validation_size if validation_size is None else validation_size,
        test_size=dataset.test_size if test_size is None else test_size,
    )
    images, labels = _decoded(dataset, prepared)
    return ImageData(
        name=dataset.name,
        images=images,
        labels=None if dataset.label is None else labels,
        splits=splits,
        num_classes=dataset.num_classes,
    )


def _decoded(dataset: TfdsDataset, prepared: PreparedDataset) -> tuple[np.ndarray, np.ndarray]:
    image_shape = (sum(prepared.counts.values()), *dataset.image_shape)
    info_file = prepared.path / "dataset_info.json"
    key = {
        "format": 1,
        "convert_version": dataset.convert_version,
        "source": str(prepared.path.resolve()),
        "prepared": info_file.stat().st_mtime_ns,
        "counts": dict(prepared.counts),
        "shape": image_shape,
        "label": dataset.label,
    }

    def build(images, labels):
        try:
            _decode_into(images, labels, dataset, prepared)
        except (OSError, RuntimeError, ValueError, LookupError) as error:
            raise DataError(
                f"{prepared.path} cannot be read ({type(error).__name__}): its files are damaged, "
                f"missing or of another layout; delete it and run `avae prepare {dataset.name}`"
            ) from error

    try:
        return cached_arrays(dataset.name, key, image_shape=image_shape, build=build)
    except OSError as error:
        raise DataError(
            f"decoded images of '{dataset.name}' cannot be stored in {cache_dir()} ({error}): "
            "set AVAE_CACHE_DIR to a writable folder with room"
        ) from error


def _decode_into(
    images: np.ndarray, labels: np.ndarray, dataset: TfdsDataset, prepared: PreparedDataset
) -> None:
    with quiet():
        import tensorflow_datasets as tfds
        from tqdm import tqdm

        # Its decorators hide the signatures from type checkers.
        builder: Any = tfds.builder_from_directory(prepared.path)
        jobs, start = [], 0
        for split, count in prepared.counts.items():
            source = builder.as_data_source(split)
            for first in range(0, count, _RECORDS_PER_CHUNK):
                rows = range(first, min(first + _RECORDS_PER_CHUNK, count))
                jobs.append((source, rows, start + first))
            start += count

        # Small images cost more in Python than in the decoder, and threads would only queue for
        # the interpreter: 4.1 s for MNIST with one thread, 4.8 s with two.
        threads = num_threads() if source[0]["image"].nbytes >= _BYTES_WORTH_A_THREAD else 1

        def decode(job):
            source, rows, offset = job
            records = source.__getitems__(list(rows))
            place = slice(offset, offset + len(rows))
            images[place] = dataset.convert(np.stack([record["image"] for record in records]))
            if dataset.label:
                labels[place] = [record[dataset.label] for record in records]
            return len(rows)

        with (
            ThreadPoolExecutor(threads) as pool,
            tqdm(
                total=len(images), desc=f"decoding {dataset.name}", delay=5, leave=False,
                disable=None,
            ) as bar,
        ):  # fmt: skip
            for count in pool.map(decode, jobs):
                bar.update(count)


def prepare_locally(dataset: TfdsDataset, data_dir: Path) -> Path:
    """Prepare a dataset of the project's own, without TensorFlow or network.

    Args:
      dataset: the dataset; only `digits` is local.
      data_dir: folder to prepare it in.

    Returns:
      The prepared version folder.

    Raises:
      DataError: if the folder cannot be written.
    """
    with (
        quiet(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        from avae_jax.data.digits_builder import prepare_digits

        try:
            return prepare_digits(data_dir)
        except OSError as error:
            raise DataError(
                f"dataset '{dataset.name}' cannot be prepared in {data_dir} ({error}): choose a "
                "writable folder with data_dir or AVAE_CACHE_DIR"
            ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep absl's warnings (missing OpenCV, missing variant folders) from the terminal."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
