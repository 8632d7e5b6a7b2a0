import numpy as np
import pytest

from avae_jax.data import DataError, Splits, draw_splits


def _sizes(splits):
    return len(splits.train), len(splits.validation), len(splits.test)


@pytest.mark.parametrize(
    ("counts", "sizes", "expected"),
    [
        ({"train": 60, "test": 10}, {"validation_size": 10}, (50, 10, 10)),
        ({"train": 60, "validation": 7, "test": 10}, {}, (60, 7, 10)),
        ({"train": 60, "validation": 7, "test": 10}, {"validation_size": 3}, (60, 3, 10)),
        ({"train": 60, "test": 10}, {"test_size": 0.5}, (54, 6, 5)),
        ({"train": 100}, {}, (70, 10, 20)),
        ({"train": 100}, {"validation_size": 20, "test_size": 30}, (50, 20, 30)),
        ({"train": 3}, {}, (1, 1, 1)),
    ],
)
def test_sizes_and_coverage(counts, sizes, expected):
    splits = draw_splits(counts, seed=0, **sizes)
    assert _sizes(splits) == expected
    everything = np.concatenate([splits.train, splits.validation, splits.test])
    assert len(np.unique(everything)) == len(everything)
    assert everything.min() >= 0
    assert everything.max() < sum(counts.values())
    assert splits.train.dtype == np.int32


def test_official_test_rows_stay_test_rows():
    splits = draw_splits({"train": 60, "test": 10}, seed=3, validation_size=10)
    np.testing.assert_array_equal(splits.test, np.arange(60, 70))
    assert splits.validation.max() < 60


def test_official_order_of_rows_follows_counts():
    splits = draw_splits({"test": 4, "train": 10, "validation": 2}, seed=0)
    np.testing.assert_array_equal(splits.test, np.arange(4))
    np.testing.assert_array_equal(splits.train, np.arange(4, 14))
    np.testing.assert_array_equal(splits.validation, [14, 15])


def test_seed_moves_validation_but_never_test():
    first, again, other = (draw_splits({"train": 500}, seed=seed) for seed in (1, 1, 2))
    assert first.digest() == again.digest()
    assert first.digest() != other.digest()
    np.testing.assert_array_equal(first.test, other.test)
    assert not np.array_equal(first.validation, other.validation)


@pytest.mark.parametrize(
    ("counts", "arguments", "message"),
    [
        ({"train": 2}, {}, "too few"),
        ({"train": 10}, {"validation_size": 8}, "leaves no training image"),
        ({"train": 10, "test": 3}, {"test_size": 4}, "more than the 3 images"),
        ({"train": 10}, {"test_size": 0}, "at least 1"),
        ({"train": 10}, {"test_size": 1.5}, r"\(0, 1\)"),
        ({"train": 10}, {"validation_size": True}, "count or a share"),
        ({"train": 10, "extra": 3}, {}, "unknown official split 'extra'"),
    ],
)
def test_bad_sizes(counts, arguments, message):
    with pytest.raises(DataError, match=message):
        draw_splits(counts, **arguments)


@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), (1.0, TypeError), (True, TypeError)])
def test_bad_seeds(seed, error):
    with pytest.raises(error, match="seed must be an integer of at least 0"):
        draw_splits({"train": 10}, seed=seed)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([0, 5], "'train' and 'validation' share 1 images, the first at index 5"),
        ([3, 2], "sorted"),
        ([2, 2], "sorted"),
        ([], "vector of integers"),
        (np.zeros(0, int), "empty"),
        ([-1, 2], "outside"),
        ([0.0, 1.0], "vector of integers"),
    ],
)
def test_construction_is_checked(train, message):
    with pytest.raises(DataError, match=message):
        Splits(train=train, validation=[5, 6], test=[7])


def test_indices_cannot_be_written_to():
    splits = draw_splits({"train": 10})
    with pytest.raises(ValueError, match="read-only"):
        splits.train[0] = 1


def test_save_and_load(tmp_path):
    splits = draw_splits({"train": 1000}, seed=4)
    splits.save(tmp_path / "splits.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["splits.npz"]
    stored = Splits.load(tmp_path / "splits.npz")
    assert stored.digest() == splits.digest()
    for name in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(splits, name))


def test_load_damaged_or_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        Splits.load(tmp_path / "none.npz")
    path = tmp_path / "splits.npz"
    draw_splits({"train": 1000}).save(path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not a zip"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="does not hold stored splits"):
            Splits.load(path)
    np.savez(path, train=np.arange(3))
    with pytest.raises(DataError, match="validation"):
        Splits.load(path)
