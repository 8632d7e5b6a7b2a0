"""The table of datasets and the one function that loads any of them."""

from collections import ChainMap
from collections.abc import Callable, Collection, MutableMapping
from pathlib import Path
from typing import Any

from avae_jax.data.array_file import load_array, read_array_file
from avae_jax.data.celeb_a import CELEB_A
from avae_jax.data.cifar10 import CIFAR10
from avae_jax.data.digits import DIGITS
from avae_jax.data.dsprites import DSPRITES
from avae_jax.data.errors import DataError
from avae_jax.data.folder import load_folder, read_image_folder
from avae_jax.data.image_data import ImageData
from avae_jax.data.mnist import MNIST
from avae_jax.data.prepare import prepare_tfds
from avae_jax.data.shapes3d import SHAPES3D
from avae_jax.data.shapes3d_like import load_shapes3d_like
from avae_jax.data.sprites_like import load_sprites_like
from avae_jax.data.tfds_dataset import TfdsDataset, data_dir_of, load_tfds, prepare_locally
from avae_jax.files import user_path
from avae_jax.registries import takes
from avae_jax.text import nearest

PREPARED: dict[str, TfdsDataset] = {
    dataset.name: dataset for dataset in (DIGITS, MNIST, CIFAR10, CELEB_A, DSPRITES, SHAPES3D)
}
"""Data sets of tfds by name; `prepare_dataset` prepares them."""

LOADERS: dict[str, Callable[..., ImageData]] = {
    "sprites_like": load_sprites_like,
    "shapes3d_like": load_shapes3d_like,
    "folder": load_folder,
    "array": load_array,
}
"""Functions `(*, seed, validation_size, test_size) -> ImageData` by name; one that reads a user's
files takes their `path` first."""

DATASETS: MutableMapping[str, Any] = ChainMap(LOADERS, PREPARED)  # pyright: ignore[reportArgumentType]
"""Both together. A new one is one line: `DATASETS["bars"] = load_bars`."""


def load_dataset(
    name: str,
    *,
    path=None,
    data_dir=None,
    seed: int = 0,
    validation_size: int | float | None = None,
    test_size: int | float | None = None,
) -> ImageData:
    """Load a dataset with disjoint train, validation and test splits.

    Official splits are kept; what is missing is drawn from the official train split (see
    `draw_splits`). The test images do not depend on `seed`. No download ever starts here.

    Args:
      name: one of `DATASETS`, such as "digits" (prepared on first use), "mnist" (prepared before by
        `prepare_dataset`), "sprites_like" (rendered on demand), "folder" or "array".
      path: the folder of "folder" or the .npy/.npz file of "array"; for "celeb_a" the unpacked
        img_align_celeba.zip, instead of a prepared dataset; None for the others. Messages call it
        data_path, as the command line does.
      data_dir: tfds data folder; None is $TFDS_DATA_DIR, else ~/tensorflow_datasets (digits: the
        cache folder). Decoded images are kept in $AVAE_CACHE_DIR or the user's cache folder. Only
        for datasets that are prepared.
      seed: seed of the validation draw, at least 0.
      validation_size: count (int) or share (float) of validation images; None is the default of the
        dataset: 10,000 for mnist and cifar10, 20,000 for dsprites, shapes3d and their stand-ins,
        the official split of celeb_a, a tenth otherwise.
      test_size: count or share of test images; None is the official split, 20,000 for dsprites,
        shapes3d and their stand-ins, a fifth otherwise.

    Returns:
      `ImageData`; uint8 images span 0..255, float images are float32 and untouched.

    Raises:
      FileNotFoundError: if `path` or `data_dir` does not exist or the dataset is not prepared.
      DataError: (a ValueError) for an unknown name, a `path` or `data_dir` that the dataset does
        not use, unusable data or sizes that do not fit.

    Example:
      >>> data = load_dataset("digits")
      >>> data.images.shape, len(data.splits.test)
      ((1797, 8, 8, 1), 359)
    """
    _check_name(name, DATASETS)
    sizes = {"seed": seed, "validation_size": validation_size, "test_size": test_size}
    prepared = PREPARED.get(name)
    if data_dir is not None and (prepared is None or path is not None):
        raise DataError(
            f"data_dir={data_dir} does not go with data_path or with datasets "
            f"{', '.join(LOADERS)}: leave it out, it is where prepared datasets lie"
        )

    # What reads a user's files.
    if prepared is not None:
        from_path = prepared.from_path
    else:
        from_path = LOADERS[name] if takes(LOADERS[name], "path") else None
    if path is not None:
        if from_path is None:
            raise DataError(
                f"data_path={path} does not belong to dataset '{name}': use dataset 'folder' or "
                "'array', or data_dir for where a prepared dataset lies"
            )
        return from_path(path, **sizes)
    if prepared is not None:
        return load_tfds(prepared, data_dir=data_dir, **sizes)
    if from_path is not None:
        raise DataError(
            f"dataset '{name}' needs data_path (path in Python): give the folder or file it reads"
        )
    return LOADERS[name](**sizes)


def read_images(path) -> tuple[Any, list[str] | None]:
    """Read all images at a path, without splits.

    Args:
      path: a folder of images, or a .npy/.npz file.

    Returns:
      `[n, height, width, channels]` or `[n, features]`, uint8 or float32; for a large folder a
      lazy reader that is indexed like an array. The names of their files within a folder, or None.

    Raises:
      FileNotFoundError: if there is nothing there.
      DataError: if the images are unusable.
    """
    if not user_path(path).exists():
        raise FileNotFoundError(f"{path} does not exist: give a folder or a .npy or .npz file")
    if user_path(path).is_dir():
        return read_image_folder(path)
    return read_array_file(path)[0], None


def prepare_dataset(name: str, data_dir=None) -> Path:
    """Download and prepare a dataset once, as array_record, which is read without TensorFlow.

    Args:
      name: one of `PREPARED`.
      data_dir: tfds data folder; None as in `load_dataset`.

    Returns:
      The prepared version folder; if it was there before, nothing is done.

    Raises:
      DataError: in one line, if TensorFlow is missing, a host cannot be reached or does not give
        the file, or the folder cannot be written.
    """
    if name in LOADERS:
        raise DataError(f"dataset '{name}' needs no preparation: train on it")
    _check_name(name, PREPARED)
    dataset = PREPARED[name]
    root = data_dir_of(dataset, data_dir)
    return prepare_locally(dataset, root) if dataset.local else prepare_tfds(dataset, root)


def _check_name(name: str, known: Collection[str]) -> None:
    if name not in known:
        raise DataError(f"unknown dataset {name!r}{nearest(name, known)}")
