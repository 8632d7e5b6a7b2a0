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
    check_no_leak(dataset, "test")
    check_no_leak(dataset, "validation")
    check_no_leak(load_dataset("digits"), "test")


def test_splits_that_overlap_are_refused(dataset):
    splits = dataset.splits
    # The class itself refuses them: a damaged object stands for a file changed by hand.
    damaged = object.__new__(Splits)
    for name, rows in (("train", splits.train), ("validation", splits.validation)):
        object.__setattr__(damaged, name, rows)
    object.__setattr__(damaged, "test", splits.train[3:6])
    with pytest.raises(LeakError, match="test and train share 3 images"):
        check_no_leak(dataclasses.replace(dataset, splits=damaged), "test")
