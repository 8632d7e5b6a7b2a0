"""Images from a folder of files, read with PIL."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from avae_jax.data.errors import DataError
from avae_jax.data.image_data import ImageData, with_drawn_splits

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

# Files of these modes are turned into the mode on the right; others are refused.
_MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB"}

_MAX_BYTES_IN_MEMORY = 512 * 2**20


class ImageFolder:
    """Reads rows of a folder of equally sized images on demand.

    Attributes:
      files: absolute file names; row i is `files[i]`.
      shape: `(n, height, width, channels)`.
      dtype: uint8.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        files: Sequence[str],
        *,
        image_shape: tuple[int, int, int],
        read: Callable[[str], np.ndarray],
    ):
        """Wrap files that are known to share one size and mode.

        Args:
          files: file names.
          image_shape: `(height, width, channels)` of what `read` returns.
          read: maps a file name to a uint8 `image_shape` array.
        """
        self.files = list(files)
        self.shape = (len(self.files), *image_shape)
        self._read = read

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows) -> np.ndarray:
        """Return uint8 images `[..., height, width, channels]` of an int, slice or int array."""
        rows = np.arange(len(self))[rows]
        if rows.ndim == 0:
            return self._read(self.files[rows])
        images = np.empty((*rows.shape, *self.shape[1:]), np.uint8)
        flat = images.reshape(-1, *self.shape[1:])

        def fill(position, row):
            flat[position] = self._read(self.files[row])

        # PIL decodes outside the GIL. A pool per call costs a millisecond and survives fork.
        with ThreadPoolExecutor(num_threads()) as pool:
            for _ in pool.map(fill, range(rows.size), rows.ravel()):
                pass
        return images


def num_threads() -> int:
    """Return the number of decoding threads: one per core, at most 16."""
    return min(16, os.cpu_count() or 1)


def list_images(path) -> list[str]:
    """List the image files below a folder, sorted by relative name; hidden ones are left out.

    Args:
      path: folder.

    Returns:
      File names.

    Raises:
      FileNotFoundError: if there is no such folder.
      DataError: if it is not a folder or holds no image file.
    """
    path = os.path.abspath(os.path.expanduser(os.fspath(path)))
    if not os.path.exists(path):
        raise FileNotFoundError(f"folder {path} does not exist: give a folder of images")
    if not os.path.isdir(path):
        raise DataError(f"{path} is not a folder: give the folder that holds the images")
    files = []
    for parent, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [
            os.path.join(parent, name)
            for name in names
            if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
        ]
    if not files:
        raise DataError(f"no images in {path}: looked for {', '.join(EXTENSIONS)}")
    return sorted(files, key=lambda name: os.path.relpath(name, path))


def read_image_folder(path) -> np.ndarray | ImageFolder:
    """Open a folder of images of one size and mode.

    Every file's header is read, so that a stray image is found now and not in the third epoch. An
    alpha channel is dropped as by PIL's `convert("RGB")`, not blended with a background; palettes
    become RGB. 16-bit grey, float and CMYK files are refused.

    Args:
      path: folder; sub-folders are searched too.

    Returns:
      uint8 `[n, height, width, channels]` with 1 (grey) or 3 (RGB) channels: an array up to 512
      MiB, an `ImageFolder` beyond.

    Raises:
      FileNotFoundError: if there is no such folder.
      DataError: if there is no image, one cannot be read, or sizes or modes differ.
    """
    files = list_images(path)
    with ThreadPoolExecutor(num_threads()) as pool:
        headers = list(pool.map(_read_header, files))
    for file, header in zip(files, headers, strict=True):
        if header != headers[0]:
            raise DataError(
                f"images differ: {files[0]} is {_describe(headers[0])} but {file} is "
                f"{_describe(header)}: make all the same size and mode"
            )
    (width, height), mode = headers[0]
    image_shape = (height, width, 1 if mode == "L" else 3)
    images = ImageFolder(files, image_shape=image_shape, read=read_image)
    if np.prod(images.shape, dtype=np.int64) <= _MAX_BYTES_IN_MEMORY:
        return images[:]
    return images


def read_image(file: str) -> np.ndarray:
    """Decode one file.

    Args:
      file: file name.

    Returns:
      uint8 `[height, width, channels]`, 1 channel for grey and 3 for RGB.

    Raises:
      DataError: if the file cannot be read or its mode is not supported.
    """
    try:
        with Image.open(file) as image:
            image.load()
            # PIL warns when it drops a palette's transparency, but not an alpha channel.
            image.info.pop("transparency", None)
            pixels = np.asarray(image.convert(_mode(file, image)))
    except (OSError, SyntaxError, EOFError) as error:
        raise _unreadable(file, error) from error
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _read_header(file: str) -> tuple[tuple[int, int], str]:
    try:
        with Image.open(file) as image:
            return image.size, _mode(file, image)
    except (OSError, SyntaxError, EOFError) as error:
        raise _unreadable(file, error) from error


def _mode(file: str, image: Image.Image) -> str:
    if image.mode not in _MODES:
        raise DataError(f"{file} has mode {image.mode}: convert it to 8-bit grey (L) or RGB")
    return _MODES[image.mode]


def _unreadable(file: str, error: Exception) -> DataError:
    reason = "not an image" if "cannot identify" in str(error) else str(error)
    return DataError(f"{file} cannot be read ({reason}): replace or remove it")


def _describe(header: tuple[tuple[int, int], str]) -> str:
    (width, height), mode = header
    return f"{width}x{height} {mode}"


def load_folder(path, **sizes) -> ImageData:
    """Load a folder of images, with splits that are drawn from them.

    Args:
      path: as `read_image_folder` takes it.
      **sizes: as `load_array` takes them.

    Raises:
      FileNotFoundError: no such folder.
      DataError: images that differ or cannot be read, or sizes that do not fit.
    """
    return with_drawn_splits("folder", read_image_folder(path), **sizes)
