import numpy as np
import pytest

from avae_jax.data import DataError, batch_indices, epoch_indices, steps_per_epoch

TRAIN = np.array([2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31], np.int32)


def test_an_epoch_is_a_permutation_without_the_partial_batch():
    batches = epoch_indices(TRAIN, seed=0, epoch=0, batch_size=3)
    assert batches.shape == (3, 3)
    assert batches.dtype == np.int32
    assert len(np.unique(batches)) == 9
    assert set(batches.ravel()) <= set(TRAIN)


def test_follows_numpys_generator_of_seed_and_epoch():
    order = np.random.default_rng([5, 2]).permutation(11)
    expected = TRAIN[order[:10]].reshape(2, 5)
    np.testing.assert_array_equal(epoch_indices(TRAIN, seed=5, epoch=2, batch_size=5), expected)


def test_step_alone_gives_the_batch():
    stacked = np.concatenate(
        [epoch_indices(TRAIN, seed=1, epoch=epoch, batch_size=2) for epoch in range(3)]
    )
    for step in (14, 0, 7, 4, 5):  # any order: nothing is carried
        batch = batch_indices(TRAIN, seed=1, step=step, batch_size=2)
        np.testing.assert_array_equal(batch, stacked[step])


def test_epochs_and_seeds_differ():
    drawn = [
        epoch_indices(np.arange(100), seed=seed, epoch=epoch, batch_size=100).tobytes()
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    assert len(set(drawn)) == 4


@pytest.mark.parametrize(
    ("num_examples", "batch", "expected"), [(11, 11, 1), (11, 1, 11), (12, 5, 2)]
)
def test_steps_per_epoch(num_examples, batch, expected):
    assert steps_per_epoch(num_examples, batch) == expected


def test_bad_arguments():
    with pytest.raises(DataError, match="batch_size=12 is more than the 11 training images"):
        batch_indices(TRAIN, seed=0, step=0, batch_size=12)
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1, got 0"):
        steps_per_epoch(5, 0)
    with pytest.raises(ValueError, match="seed must be"):
        epoch_indices(TRAIN, seed=-1, epoch=0, batch_size=2)
    with pytest.raises(ValueError, match="step must be"):
        batch_indices(TRAIN, seed=0, step=-1, batch_size=2)
