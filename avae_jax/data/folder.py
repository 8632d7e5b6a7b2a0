"""Images from a folder of files, read with PIL."""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from avae_jax.data.errors import DataError
from avae_jax.data.image_data import ImageData, with_drawn_splits
from avae_jax.files import user_path

EXTENSIONS = (
    ".apng", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png",
    ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
)  # fmt: skip

# Files of these modes are turned into the mode on the right; others are refused.
_MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB"}

# The EXIF tag, and its values that swap width and height.
_ORIENTATION, _TRANSPOSED = 0x0112, (5, 6, 7, 8)

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

    Links to folders are followed. A warning counts the files that do not end as images do.

    Args:
      path: folder.

    Returns:
      File names.

    Raises:
      FileNotFoundError: if there is no such folder.
      DataError: if it is not a folder or holds no image file.
    """
    path = os.path.abspath(user_path(path))
    if not os.path.exists(path):
        raise FileNotFoundError(f"folder {path} does not exist: give a folder of images")
    if not os.path.isdir(path):
        raise DataError(f"{path} is not a folder: give the folder that holds the images")
    files, others = [], Counter()
    for parent, names in _walk(path):
        for name in names:
            if name.lower().endswith(EXTENSIONS):
                files.append(os.path.join(parent, name))
            else:
                others[os.path.splitext(name)[1].lower() or "without a suffix"] += 1
    left_out = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(4))
    if not files:
        found = f" and found {left_out}" if others else ""
        raise DataError(f"no images in {path}: looked for {', '.join(EXTENSIONS)}{found}")
    if others:
        warnings.warn(
            f"{path}: {sum(others.values())} files are left out, which do not end in "
            f"{', '.join(EXTENSIONS)}: {left_out}{', ...' if len(others) > 4 else ''}",
            stacklevel=2,
        )
    return sorted(files, key=lambda name: os.path.relpath(name, path))


def _walk(path: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the folders below one and their files, without what is hidden.

    Links are followed. A folder that is reached twice is read once: its images would be in two
    splits, and a link to a folder above would never end. The folder of a run holds figures, none of
    the images.
    """

    def refuse(error):
        raise DataError(
            f"{error.filename} cannot be read ({error.strerror}): make it readable or remove it"
        )

    seen = {os.path.realpath(path)}
    for parent, folders, names in os.walk(path, followlinks=True, onerror=refuse):
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(parent, name))
            if not name.startswith(".") and real not in seen:
                seen.add(real)
                kept.append(name)
        is_run = {"config.json", "facts.json"} <= set(names)
        folders[:] = [] if is_run else kept
        if is_run:
            continue
        yield parent, [name for name in names if not name.startswith(".")]


class _Header(NamedTuple):
    """What is known of a file before its pixels are read.

    Attributes:
      size: width and height as the image is seen.
      mode: of the pixels that are read, "L" or "RGB".
      is_single: whether the file holds one image alone.
    """

    size: tuple[int, int]
    mode: str
    is_single: bool


def read_image_folder(path) -> tuple[np.ndarray | ImageFolder, list[str]]:
    """Open a folder of images of one size and mode.

    Every file's header is read, so that a stray image is found now and not in the third epoch.
    Images are turned as their EXIF orientation says. An alpha channel is dropped as by PIL's
    `convert("RGB")`, not blended with a background; palettes become RGB. 16-bit grey, float and
    CMYK files are refused. Of files with several frames the first is read, and a warning counts
    them, as one counts files that do not end as images do.

    Args:
      path: folder; sub-folders are searched too, those behind links as well.

    Returns:
      uint8 `[n, height, width, channels]` with 1 (grey) or 3 (RGB) channels: an array up to 512
      MiB, an `ImageFolder` beyond. The names of their files within the folder, row by row.

    Raises:
      FileNotFoundError: if there is no such folder.
      DataError: if there is no image, one cannot be read, or sizes or modes differ.
    """
    files = list_images(path)
    with ThreadPoolExecutor(num_threads()) as pool:
        headers = list(pool.map(_read_header, files))
    first = headers[0]
    for file, header in zip(files, headers, strict=True):
        if header[:2] != first[:2]:
            raise DataError(
                f"images differ: {files[0]} is {_describe(first)} but {file} is "
                f"{_describe(header)}: make all the same size and mode"
            )
    several = [file for file, header in zip(files, headers, strict=True) if not header.is_single]
    if several:
        warnings.warn(
            f"{len(several)} of {len(files)} files hold several frames, {several[0]} for one: only "
            "the first frame of each is read",
            stacklevel=2,
        )
    (width, height), mode, _ = first
    image_shape = (height, width, 1 if mode == "L" else 3)

    def read(file):
        image = read_image(file)
        if image.shape != image_shape:
            # Only where a PNG says last how it is to be turned.
            raise DataError(f"images differ: {file} is {image.shape} and not {image_shape}")
        return image

    images = ImageFolder(files, image_shape=image_shape, read=read)
    root = os.path.abspath(user_path(path))
    names = [os.path.relpath(file, root) for file in files]
    if np.prod(images.shape, dtype=np.int64) <= _MAX_BYTES_IN_MEMORY:
        return images[:], names
    return images, names


def read_image(file: str) -> np.ndarray:
    """Decode one file, the first frame of it, turned as its EXIF orientation says.

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
            mode = _mode(file, image)
            ImageOps.exif_transpose(image, in_place=True)
            pixels = np.asarray(image.convert(mode))
    except (OSError, SyntaxError, EOFError) as error:
        raise _unreadable(file, error) from error
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _read_header(file: str) -> _Header:
    try:
        with Image.open(file) as image:
            width, height = image.size
            # A TIFF's size is turned already, and a PNG would be decoded for a tag it lacks.
            has_tag = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
            if has_tag and image.getexif().get(_ORIENTATION, 1) in _TRANSPOSED:
                width, height = height, width
            return _Header(
                (width, height), _mode(file, image), not getattr(image, "is_animated", False)
            )
    except (OSError, SyntaxError, EOFError) as error:
        raise _unreadable(file, error) from error


def _mode(file: str, image: Image.Image) -> str:
    if image.mode not in _MODES:
        raise DataError(f"{file} has mode {image.mode}: convert it to 8-bit grey (L) or RGB")
    return _MODES[image.mode]


def _unreadable(file: str, error: Exception) -> DataError:
    reason = "not an image" if "cannot identify" in str(error) else str(error)
    return DataError(f"{file} cannot be read ({reason}): replace or remove it")


def _describe(header: _Header) -> str:
    (width, height), mode, _ = header
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
    images, names = read_image_folder(path)
    return with_drawn_splits("folder", images, files=names, **sizes)
