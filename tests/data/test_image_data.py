import numpy as np
import pytest

from avae_jax.data import DataError, ImageData, draw_splits

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
