"""Images from one .npy or .npz file, and what makes an array one of images."""

import os
import zipfile

import numpy as np

from avae_jax.data.checks import check_finite
from avae_jax.data.errors import DataError
from avae_jax.data.image_data import ImageData, with_drawn_splits
from avae_jax.files import user_path

IMAGE_KEYS = ("images", "imgs", "x", "x_train", "data")
LABEL_KEYS = ("labels", "y", "y_train")


def read_array_file(path) -> tuple[np.ndarray, np.ndarray | None]:
    """Read images, and labels where an .npz holds them.

    A .npy of uint8 or float32 stays on disk behind a memory map. bool becomes 0 and 255; integers
    within 0..255 become uint8; other floats become float32. `[n, height, width]` gets a channel.

    Args:
      path: file name ending in .npy or .npz. The images of an .npz are its only array, or the one
        named "images", "imgs", "x", "x_train" or "data"; labels are "labels", "y" or "y_train".

    Returns:
      images `[n, height, width, channels]` or `[n, features]`, uint8 or float32; labels `[n]` or
      None.

    Raises:
      FileNotFoundError: if there is no such file.
      DataError: if the file or the array is unusable.
    """
    path = os.fspath(user_path(path))
    if not os.path.exists(path):
        raise FileNotFoundError(f"file {path} does not exist: dataset 'array' needs a .npy or .npz")
    if os.path.isdir(path):
        raise DataError(f"{path} is a folder: use dataset 'folder', or give a .npy or .npz file")
    if not path.endswith((".npy", ".npz")):
        raise DataError(f"{path} must end in .npy or .npz: save it with np.save or np.savez")
    try:
        if path.endswith(".npy"):
            return as_images(np.lib.format.open_memmap(path, mode="r"), path), None
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            if isinstance(stored, np.ndarray):
                raise DataError(f"{path} holds one bare array: rename it to .npy")
            image_key = _image_key(stored.files, path)
            images = stored[image_key]
            label_key = next((key for key in LABEL_KEYS if key in stored.files), None)
            labels = None if label_key is None else stored[label_key]
    except DataError:
        raise
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        if "Python objects" in str(error) or "Object arrays" in str(error):
            raise DataError(
                f"{path} holds Python objects (dtype object), images of unequal size perhaps: "
                "save one array of uint8 or float32"
            ) from error
        raise DataError(f"{path} cannot be read: {_first_line(error)}") from error
    images = as_images(images, f"{path}['{image_key}']")
    if labels is not None:
        labels = as_labels(labels, len(images), f"{path}['{label_key}']")
    return images, labels


def _image_key(keys: list[str], path: str) -> str:
    if len(keys) == 1:
        return keys[0]
    found = [key for key in IMAGE_KEYS if key in keys]
    if not found:
        raise DataError(
            f"{path} holds arrays {sorted(keys)} and none is named one of {list(IMAGE_KEYS)}: "
            "name the images 'images'"
        )
    return found[0]


def as_images(images: np.ndarray, source: str) -> np.ndarray:
    """Return an array as images: of a shape and a dtype that can be trained on.

    bool becomes 0 and 255; integers within 0..255 become uint8; other floats become float32.

    Args:
      images: `[n, height, width, channels]`, `[n, height, width]` or `[n, features]`.
      source: where the array comes from, for the message.

    Returns:
      `[n, height, width, channels]` or `[n, features]`, uint8 or float32.

    Raises:
      DataError: another shape or dtype, or values that are not finite.
    """
    if images.ndim not in (2, 3, 4):
        raise DataError(
            f"{source} has shape {images.shape}: expected [n, height, width, channels], "
            "[n, height, width] or [n, features]"
        )
    if 0 in images.shape:
        raise DataError(f"{source} has shape {images.shape}: it holds no values")
    _check_layout(images.shape, source)
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype == np.uint8:
        return images
    if images.dtype == np.bool_:
        return images.astype(np.uint8) * np.uint8(255)
    if np.issubdtype(images.dtype, np.integer):
        low, high = images.min(), images.max()
        if low < 0 or high > 255:
            raise DataError(
                f"{source} is {images.dtype} and spans [{low}, {high}]: integers must lie in "
                "0..255; convert it to float32 otherwise"
            )
        return images.astype(np.uint8)
    if np.issubdtype(images.dtype, np.floating):
        if images.dtype != np.float32:
            with np.errstate(over="ignore"):  # an overflow to infinity is reported just below
                images = images.astype(np.float32)
        check_finite(images, source=source)
        return images
    raise DataError(f"{source} has dtype {images.dtype}: convert it to uint8 or float32")


def _check_layout(shape: tuple[int, ...], source: str) -> None:
    """Refuse a shape whose axes are in another order, as far as it shows."""
    few = (1, 2, 3, 4)
    if len(shape) == 3:
        if shape[2] in (3, 4) and shape[1] > 4 * shape[2]:
            raise DataError(
                f"{source} has shape {shape}, one image it seems: give images[None] for one, "
                "images[..., None] for grey ones"
            )
        if shape[0] == shape[1] and shape[2] > 8 * shape[1]:
            raise DataError(
                f"{source} has shape {shape}, images last it seems: give "
                "images.transpose(2, 0, 1), or images[..., None] if they are as wide as that"
            )
    # A map of one pixel may have any number of channels.
    elif len(shape) == 4 and shape[3] not in few and not shape[1] == shape[2] == 1:
        is_last = shape[3] > max(shape[:2]) and min(shape[:2]) > 4
        if shape[2] in (1, 3) or (shape[2] in few and (is_last or shape[0] == shape[1])):
            raise DataError(
                f"{source} has shape {shape}, images last it seems: "
                "give images.transpose(3, 0, 1, 2)"
            )
        # Tiny maps of many channels may be four pixels high.
        if shape[1] in (1, 3) or (shape[1] in few and shape[2] > 4):
            raise DataError(
                f"{source} has shape {shape}, channels first it seems: "
                "give images.transpose(0, 2, 3, 1)"
            )


def as_labels(labels: np.ndarray, count: int, source: str) -> np.ndarray:
    """Return labels as `[count]` int32: classes from 0, and -1 where an image has none.

    Raises:
      DataError: no integers, or such as are neither.
    """
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{source} has shape {labels.shape} and dtype {labels.dtype}: "
            f"labels must be {count} integers"
        )
    bad = np.flatnonzero((labels < -1) | (labels >= 2**31))
    if bad.size:
        raise DataError(
            f"{source} must number classes from 0 to 2**31 - 1 (-1: no class), got "
            f"{labels[bad[0]]} at row {bad[0]}, {bad.size} such in all: number the classes again, "
            "by np.unique(labels, return_inverse=True)[1]"
        )
    return labels.astype(np.int32)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def load_array(path, **sizes) -> ImageData:
    """Load the images of a .npy or .npz file, with splits that are drawn from them.

    Args:
      path: the file, as `read_array_file` takes it.
      **sizes: `seed`, `validation_size` and `test_size`, as `load_dataset` takes them.

    Raises:
      FileNotFoundError: if there is nothing at `path`.
      DataError: if the images or the sizes cannot be used.
    """
    images, labels = read_array_file(path)
    return with_drawn_splits("array", images, labels, **sizes)
