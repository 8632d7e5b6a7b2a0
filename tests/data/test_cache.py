import os
import time
from types import SimpleNamespace

import numpy as np
import pytest

from avae_jax.data import cache


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("AVAE_CACHE_DIR", str(tmp_path / "cache"))


def _load(builds, *, key=0, shape=(4, 2, 2, 1)):
    def build(images, labels):
        builds.append(key)
        images[:] = np.arange(np.prod(shape)).reshape(shape)
        labels[:] = np.arange(shape[0])

    return cache.cached_arrays("toy", {"key": key}, image_shape=shape, build=build)


def test_builds_once_per_key(tmp_path):
    builds = []
    for key in (0, 0, 1, 0):
        images, labels = _load(builds, key=key)
        np.testing.assert_array_equal(images.ravel(), np.arange(16))
        np.testing.assert_array_equal(labels, np.arange(4))
    assert builds == [0, 1]
    assert len(list((tmp_path / "cache" / "images").iterdir())) == 2


def test_large_arrays_stay_on_disk(monkeypatch):
    monkeypatch.setattr(cache, "_MAX_BYTES_IN_MEMORY", 15)
    images, _ = _load([])
    assert isinstance(images, np.memmap)


@pytest.mark.parametrize("damage", [b"", b"junk"])
def test_damaged_copy_is_built_again(tmp_path, damage):
    builds = []
    _load(builds)
    (folder,) = (tmp_path / "cache" / "images").iterdir()
    (folder / "images.npy").write_bytes(damage)
    images, _ = _load(builds)
    np.testing.assert_array_equal(images.ravel(), np.arange(16))
    assert builds == [0, 0]


def test_failed_build_leaves_nothing(tmp_path):
    def build(images, labels):
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        cache.cached_arrays("toy", {}, image_shape=(4, 2, 2, 1), build=build)
    assert list((tmp_path / "cache" / "images").iterdir()) == []


def test_two_builders_at_once_both_succeed(tmp_path):
    inner = []

    def build(images, labels):
        # A second process builds the same key and finishes while the first is half way.
        inner.append(_load([], key="race"))
        images[:] = np.arange(16).reshape(images.shape)
        labels[:] = np.arange(4)

    images, labels = cache.cached_arrays(
        "toy", {"key": "race"}, image_shape=(4, 2, 2, 1), build=build
    )
    np.testing.assert_array_equal(images, inner[0][0])
    np.testing.assert_array_equal(labels, inner[0][1])
    assert len(list((tmp_path / "cache" / "images").iterdir())) == 1


def test_old_leftovers_go_and_young_ones_stay(tmp_path):
    root = tmp_path / "cache" / "images"
    for name, age_days in (("old", 2), ("young", 0)):
        (root / f".partial-{name}").mkdir(parents=True)
        then = time.time() - age_days * 86_400
        os.utime(root / f".partial-{name}", (then, then))
    _load([])
    assert [folder.name for folder in root.glob(".partial-*")] == [".partial-young"]


def test_full_disk(monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=9))
    with pytest.raises(OSError, match="GiB there"):
        _load([])
