"""Decoded images kept on disk, so that the second start of a run reads one file."""

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np

from avae_jax.files import cache_dir

# Larger arrays stay behind a memory map; the operating system keeps what is used.
_MAX_BYTES_IN_MEMORY = 512 * 2**20
_SECONDS_PER_DAY = 86_400


def cached_arrays(
    name: str,
    key: dict,
    *,
    image_shape: tuple[int, ...],
    build: Callable[[np.ndarray, np.ndarray], None],
) -> tuple[np.ndarray, np.ndarray]:
    """Return decoded images and labels, building them at most once per key.

    The folder appears under its final name only when it is complete, so two processes that build at
    the same time both end with a whole copy.

    Args:
      name: readable start of the folder name.
      key: JSON-able values; everything that changes the arrays.
      image_shape: `(n, height, width, channels)`.
      build: fills a uint8 array of `image_shape` and an int32 array `[n]` in place.

    Returns:
      uint8 images, a memory map when larger than 512 MiB; int32 labels `[n]`.

    Raises:
      OSError: if the cache folder cannot be written or the disk is full.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    root = cache_dir() / "images"
    target = root / f"{name}-{digest}"
    stored = _read(target, image_shape)
    if stored is not None:
        return stored
    root.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(root)
    needed = int(np.prod(image_shape, dtype=np.int64))
    free = shutil.disk_usage(root).free
    if needed > free:
        raise OSError(f"needs {needed / 2**30:.1f} GiB there and {free / 2**30:.1f} are free")
    scratch = root / f".partial-{uuid.uuid4().hex}"
    scratch.mkdir()
    try:
        images = np.lib.format.open_memmap(
            scratch / "images.npy", mode="w+", dtype=np.uint8, shape=image_shape
        )
        labels = np.zeros(image_shape[0], np.int32)
        build(images, labels)
        images.flush()
        del images
        np.save(scratch / "labels.npy", labels)
        if _read(target, image_shape) is None:
            shutil.rmtree(target, ignore_errors=True)
            try:
                os.rename(scratch, target)
            except OSError:
                # Another process finished first; its copy is as good.
                if _read(target, image_shape) is None:
                    raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    stored = _read(target, image_shape)
    if stored is None:
        raise OSError(f"{target} could not be read back")
    return stored


def _read(folder: Path, image_shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the stored arrays, or None when missing, cut short or of another shape."""
    large = np.prod(image_shape, dtype=np.int64) > _MAX_BYTES_IN_MEMORY
    try:
        images = np.load(folder / "images.npy", mmap_mode="r" if large else None)
        labels = np.load(folder / "labels.npy")
    except (OSError, ValueError, EOFError):
        return None
    if images.shape != image_shape or labels.shape != image_shape[:1]:
        return None
    return images, labels


def _remove_leftovers(root: Path) -> None:
    """Delete what a killed build left behind a day ago or more."""
    for folder in root.glob(".partial-*"):
        try:
            if time.time() - folder.stat().st_mtime > _SECONDS_PER_DAY:
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            continue  # another process cleans too
