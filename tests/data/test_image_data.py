import numpy as np
import pytest

from avae_jax.data import DataError, ImageData, draw_splits, load_dataset

SPLITS = draw_splits({"train": 10})


def test_fitting_parts_are_kept():
    images = np.zeros((10, 4, 4, 1), np.uint8)
    data = ImageData("x", images, np.arange(10), SPLITS, 10)
    assert data.images is images
    assert data.splits is SPLITS


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((10, 4, 4)), None, r"got shape \(10, 4, 4\)"),
        (np.zeros((10, 4)), np.zeros(9, int), "one integer label per image"),
        (np.zeros((9, 4)), None, "belong to other data"),
    ],
)
def test_parts_that_do_not_fit(images, labels, message):
    with pytest.raises(DataError, match=message):
        ImageData("x", images, labels, SPLITS)


class _CountingReader:
    """A lazy reader of a large set that counts the rows asked for."""

    dtype = np.dtype(np.uint8)
    shape = (1_000_000, 2, 2, 1)

    def __init__(self):
        self.read = 0

    def __getitem__(self, rows):
        self.read += len(rows)
        return np.broadcast_to(rows[:, None, None, None] % 251, (len(rows), 2, 2, 1)).astype(
            np.uint8
        )


def fingerprint(images):
    return ImageData("x", images, None, SPLITS).fingerprint()


def test_fingerprint_tells_other_images_apart():
    images = np.arange(300 * 6, dtype=np.uint8).reshape(300, 6)
    changed = images.copy()
    changed[0, 3] += 1
    others = [
        changed,
        images[::-1],
        images.reshape(300, 1, 2, 3),
        images[:299],
        images.astype(np.float32),
        images.view(np.int8),
    ]
    assert len({fingerprint(x) for x in [images, *others]}) == 1 + len(others)


def test_fingerprint_sees_every_one_of_few_images():
    images = np.zeros((256, 4), np.float32)
    whole = fingerprint(images)
    for row in range(256):
        images[row, 1] = 1.0
        assert fingerprint(images) != whole
        images[row, 1] = 0.0
    assert fingerprint(images) == whole


def test_fingerprint_of_reloaded_data_is_equal(tmp_path):
    images = np.random.default_rng(0).random((20, 4, 4, 1), np.float32)
    np.save(tmp_path / "x.npy", images)
    first, second = (load_dataset("array", path=tmp_path / "x.npy") for _ in range(2))
    assert isinstance(first.images, np.memmap)
    assert first.fingerprint() == second.fingerprint() == fingerprint(images)
    assert fingerprint(np.asfortranarray(images)) == fingerprint(images)
    assert len(first.fingerprint()) == 64


def test_fingerprint_of_a_large_set_reads_few_rows():
    reader = _CountingReader()
    data = ImageData("x", reader, None, SPLITS)
    assert data.fingerprint() == ImageData("x", _CountingReader(), None, SPLITS).fingerprint()
    assert reader.read == 256
