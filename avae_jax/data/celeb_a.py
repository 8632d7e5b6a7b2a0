"""CelebA, aligned faces, cropped and resized to 64x64, with its official three splits."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from avae_jax.data.cache import cached_arrays
from avae_jax.data.errors import DataError
from avae_jax.data.folder import list_images, num_threads, read_image
from avae_jax.data.image_data import ImageData
from avae_jax.data.splits import draw_splits
from avae_jax.data.tfds_dataset import TfdsDataset

_CROP = 140
_SIZE = 64
_STORED_SHAPE = (218, 178, 3)

# Rows of list_eval_partition.txt, which is sorted by file number: 000001.jpg to 202599.jpg.
PARTITION = {"train": 162_770, "validation": 19_867, "test": 19_962}


def crop_and_resize(images: np.ndarray) -> np.ndarray:
    """Take the central 140x140 pixels and resize them to 64x64 (Lanczos).

    The protocol of WAE (Tolstikhin et al. 2018, arXiv 1711.01558), kept by the regularized
    autoencoders (Ghosh et al. 2020, arXiv 1903.12436). Other papers crop 148 pixels, which shows
    more background: their scores do not compare.

    Args:
      images: `[b, 218, 178, 3]` uint8.

    Returns:
      `[b, 64, 64, 3]` uint8.
    """
    top = (images.shape[1] - _CROP) // 2
    left = (images.shape[2] - _CROP) // 2
    crops = images[:, top : top + _CROP, left : left + _CROP]
    filter_ = Image.Resampling.LANCZOS
    return np.stack(
        [np.asarray(Image.fromarray(crop).resize((_SIZE, _SIZE), filter_)) for crop in crops]
    )


def load_celeb_a_folder(
    path,
    *,
    seed: int = 0,
    validation_size: int | float | None = None,
    test_size: int | float | None = None,
) -> ImageData:
    """Load CelebA from its unpacked archive, for when the host of the download is closed.

    Args:
      path: folder with the 202,599 files of img_align_celeba.zip.
      seed: seed of the draw, where an official split is thinned.
      validation_size: count or share of the official validation split; None keeps it whole.
      test_size: count or share of the official test split; None keeps it whole.

    Returns:
      The same images and splits as the prepared dataset, in the order of the file numbers.

    Raises:
      FileNotFoundError: if there is no such folder.
      DataError: if files are missing, damaged or not the aligned 178x218 ones.
    """
    files = list_images(path)
    count = sum(PARTITION.values())
    if len(files) != count:
        raise DataError(
            f"{path} holds {len(files)} images and CelebA has {count}: unpack the whole "
            "img_align_celeba.zip, or use dataset 'folder' for other faces"
        )
    splits = draw_splits(PARTITION, seed=seed, validation_size=validation_size, test_size=test_size)

    def build(images, labels):
        from tqdm import tqdm

        del labels

        def fill(row):
            stored = read_image(files[row])
            if stored.shape != _STORED_SHAPE:
                raise DataError(
                    f"{files[row]} is {stored.shape} and not {_STORED_SHAPE}: use the aligned "
                    "images of img_align_celeba.zip"
                )
            images[row] = crop_and_resize(stored[None])[0]

        with (
            ThreadPoolExecutor(num_threads()) as pool,
            tqdm(total=count, desc="decoding celeb_a", delay=5, leave=False, disable=None) as bar,
        ):
            for _ in pool.map(fill, range(count)):
                bar.update()

    folder = os.path.dirname(files[0])
    key = {"format": 1, "source": folder, "changed": os.stat(folder).st_mtime_ns, "count": count}
    try:
        images, _ = cached_arrays("celeb_a", key, image_shape=(count, _SIZE, _SIZE, 3), build=build)
    except OSError as error:
        raise DataError(
            f"decoded CelebA cannot be stored ({error}): set AVAE_CACHE_DIR to a writable folder "
            "with 3 GiB of room"
        ) from error
    return ImageData("celeb_a", images, None, splits)


CELEB_A = TfdsDataset(
    name="celeb_a",
    image_shape=(_SIZE, _SIZE, 3),
    convert=crop_and_resize,
    label=None,
    from_path=load_celeb_a_folder,
)
