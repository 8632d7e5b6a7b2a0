"""Which images are evaluated, and which never may be."""

import dataclasses

import numpy as np
import pytest

from avae_jax.data import ImageData, Splits, load_dataset
from avae_jax.evaluation.material import LeakError, check_no_leak


@pytest.fixture
def dataset():
    rows = np.split(np.arange(30, dtype=np.int32), [20, 25])
    return ImageData("toy", np.zeros((30, 4), np.float32), None, Splits(*rows))


def test_disjoint_splits_pass(dataset):
    check_no_leak(dataset, np.arange(20), "test")
    check_no_leak(dataset, None, "validation")
    digits = load_dataset("digits")
    check_no_leak(digits, digits.splits.train, "test")


@pytest.mark.parametrize("split", ["test", "validation"])
def test_centers_among_the_evaluated_images_are_refused(dataset, split):
    row = getattr(dataset.splits, split)[1]
    with pytest.raises(LeakError, match=f"{split} and centers share 1 images .the first is {row}"):
        check_no_leak(dataset, np.array([0, 3, row]), split)


def test_splits_that_overlap_are_refused(dataset):
    splits = dataset.splits
    # The class itself refuses them: a damaged object stands for a file changed by hand.
    damaged = object.__new__(Splits)
    for name, rows in (("train", splits.train), ("validation", splits.validation)):
        object.__setattr__(damaged, name, rows)
    object.__setattr__(damaged, "test", splits.train[3:6])
    with pytest.raises(LeakError, match="test and train share 3 images"):
        check_no_leak(dataclasses.replace(dataset, splits=damaged), None, "test")
