import io
import os

import numpy as np
import pytest
from PIL import Image

from avae_jax.data import DataError, factors
from avae_jax.data.factors import FACTORS, GridImages, factor_grid, load_factors
from avae_jax.factors import FactorGrid

SMALL = FactorGrid(("a", "b", "c"), (2, 3, 4))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("dsprites", 737_280),
        ("sprites_like", 737_280),
        ("shapes3d", 480_000),
        ("shapes3d_like", 480_000),
    ],
)
def test_published_counts(name, count):
    assert factor_grid(name).num_points == count


@pytest.mark.parametrize("name", FACTORS)
def test_round_trip(name):
    grid = factor_grid(name)
    count = grid.num_points
    rows = np.concatenate([np.random.default_rng(0).integers(0, count, 1000), [0, count - 1]])
    values = grid.factors(rows)
    assert values.shape == (1002, len(grid.names))
    assert (values >= 0).all()
    assert (values < grid.sizes).all()
    np.testing.assert_array_equal(grid.indices(values), rows)
    np.testing.assert_array_equal(grid.factors(1), [0] * (len(grid.names) - 1) + [1])


def test_rows_are_in_c_order():
    expected = [[a, b, c] for a in range(2) for b in range(3) for c in range(4)]
    np.testing.assert_array_equal(SMALL.factors(np.arange(24)), expected)
    np.testing.assert_array_equal(SMALL.indices(expected), np.arange(24))
    assert SMALL.indices(np.array([[[1, 2, 3]]])).shape == (1, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: factor_grid("mnist"), "'mnist' has no known factors; known: dsprites"),
        (lambda: load_factors("mnist"), "no known factors"),
        (lambda: load_factors("sprites_like", data_dir="x"), "data_dir=x does not go with"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_factors_of_rendered_sets_are_the_grid():
    values = load_factors("shapes3d_like")
    assert values.shape == (480_000, 6)
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(values[[0, 14, 15, 479_999]], [
        [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 14], [0, 0, 0, 0, 1, 0], [9, 9, 9, 7, 3, 14],
    ])  # fmt: skip


def _numbered(values):
    """Images of 2 x 1 pixels that say which row they are."""
    return np.broadcast_to(
        SMALL.indices(values)[:, None, None, None], (len(values), 2, 1, 1)
    ).astype(np.uint8)


@pytest.mark.parametrize(
    "rows",
    [5, -1, slice(3, 20, 4), [7], np.array([[1, 2], [23, 0]]), np.array([], int), np.int64(3)],
    ids=str,
)
def test_lazy_images_are_indexed_like_an_array(rows, monkeypatch):
    images = GridImages(SMALL, image_shape=(2, 1, 1), render=_numbered)
    whole = _numbered(SMALL.factors(np.arange(24)))
    monkeypatch.setattr(factors, "_BYTES_PER_CHUNK", 96)  # three images at a time
    assert images[rows].dtype == images.dtype == np.uint8
    np.testing.assert_array_equal(images[rows], whole[rows])
    assert images.shape == whole.shape
    assert len(images) == 24


def test_lazy_images_become_an_array_in_whole_chunks():
    calls = []

    def render(values):
        calls.append(len(values))
        return _numbered(values)

    images = GridImages(SMALL, image_shape=(2, 1, 1), render=render)
    np.testing.assert_array_equal(np.asarray(images)[:, 0, 0, 0], np.arange(24))
    assert calls == [24]
    assert np.asarray(images, np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="rendered on demand"):
        np.asarray(images, copy=False)
    with pytest.raises(IndexError):
        images[24]


@pytest.mark.parametrize("name", ["dsprites", "shapes3d"])
def test_factors_of_shuffled_records_follow_the_images(name, tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    monkeypatch.setenv("AVAE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(factors, "_RECORDS_PER_CHUNK", 7)
    grid, channels = factor_grid(name), {"dsprites": 1, "shapes3d": 3}[name]
    rows = np.sort(np.random.default_rng(0).choice(grid.num_points, 20, replace=False))
    values = grid.factors(rows)

    class Fabricated(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("2.0.0")

        def _info(self):
            labels = {
                f"label_{factor}": tfds.features.ClassLabel(num_classes=size)
                for factor, size in zip(grid.names, grid.sizes, strict=True)
            }
            image = tfds.features.Image(shape=(64, 64, channels))
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict({"image": image, **labels})
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i, row in enumerate(values):
                # The pixels say which example they are: dsprites stores 0 and 1 only.
                image = np.zeros((64, 64, channels), np.uint8)
                image.reshape(-1)[:5] = [i >> bit & 1 for bit in range(5)]
                png = io.BytesIO()
                Image.fromarray(image.squeeze()).save(png, "PNG")
                png.seek(0)
                labels = {f"label_{k}": int(v) for k, v in zip(grid.names, row, strict=True)}
                yield i, {"image": png, **labels}

    Fabricated.name = name
    builder = Fabricated(data_dir=os.fspath(tmp_path / "tfds"), file_format="array_record")
    builder.download_and_prepare()
    from avae_jax.data import load_dataset

    data = load_dataset(name, data_dir=tmp_path / "tfds", validation_size=2, test_size=2)
    bits = (data.images.reshape(20, -1)[:, :5] > 0).astype(int)
    order = bits @ (1 << np.arange(5))
    assert sorted(order) == list(range(20))
    assert list(order) != list(range(20))  # tfds has shuffled, as it does with the real ones

    for _ in range(2):  # read, then from the cache folder
        found = load_factors(name, data_dir=tmp_path / "tfds")
        np.testing.assert_array_equal(found, values[order])
    np.testing.assert_array_equal(found[:, grid.names.index("shape")], data.labels)


def test_missing_data_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="run `avae prepare dsprites --data-dir"):
        load_factors("dsprites", data_dir=tmp_path)
