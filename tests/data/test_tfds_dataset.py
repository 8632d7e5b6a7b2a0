"""tfds datasets, fabricated with the real ones' names, features and encodings."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avae_jax.data import DataError, celeb_a, load_dataset
from avae_jax.data.celeb_a import crop_and_resize
from avae_jax.data.dsprites import scale_binary
from avae_jax.data.mnist import pad_to_32
from avae_jax.data.tfds_dataset import default_data_dir, find_prepared

RNG = np.random.default_rng(0)


def _encoded(pixels, file_format="png"):
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, file_format)
    return file.getvalue()


def _smooth_photos(count):
    """Blurred noise: JPEG keeps it nearly unchanged."""
    small = RNG.integers(0, 255, (count, 7, 6, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(x).resize((178, 218))) for x in small])


# name: pixels of each split, the real builder's features beside the image, encoding
def _fabricated(name):
    if name == "mnist":
        splits = {s: RNG.integers(0, 255, (n, 28, 28, 1), np.uint8) for s, n in _counts(9, 4)}
        return splits, {"label": 10}, "png"
    if name == "cifar10":
        splits = {s: RNG.integers(0, 255, (n, 32, 32, 3), np.uint8) for s, n in _counts(9, 4)}
        return splits, {"label": 10}, "png"
    if name == "celeb_a":
        splits = {"train": 6, "validation": 3, "test": 2}
        return {s: _smooth_photos(n) for s, n in splits.items()}, {}, "jpeg"
    if name == "dsprites":
        pixels = RNG.integers(0, 2, (12, 64, 64, 1), np.uint8)
        return {"train": pixels}, {"label_shape": 3, "label_scale": 6}, "png"
    pixels = RNG.integers(0, 255, (12, 64, 64, 3), np.uint8)
    return {"train": pixels}, {"label_shape": 4, "label_floor_hue": 10}, "png"


def _counts(train, test):
    return (("train", train), ("test", test))


def prepare_fabricated(name, data_dir, version="3.0.1"):
    """Writes a small dataset as tfds does; returns its pixels and labels by split."""
    tfds = pytest.importorskip("tensorflow_datasets")
    splits, classes, encoding = _fabricated(name)
    values = {
        split: {key: RNG.integers(0, num, len(pixels)) for key, num in classes.items()}
        for split, pixels in splits.items()
    }

    class Fabricated(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)

        def _info(self):
            shape = next(iter(splits.values())).shape[1:]
            features = {"image": tfds.features.Image(shape=shape, encoding_format=encoding)}
            features |= {
                key: tfds.features.ClassLabel(num_classes=num) for key, num in classes.items()
            }
            if name == "celeb_a":
                features["attributes"] = {"Smiling": np.bool_}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split):
            for row, pixels in enumerate(splits[split]):
                record = {"image": _encoded(pixels, encoding)}
                record |= {key: int(value[row]) for key, value in values[split].items()}
                if name == "celeb_a":
                    record["attributes"] = {"Smiling": True}
                yield row, record

    Fabricated.name = name
    Fabricated(data_dir=os.fspath(data_dir), file_format="array_record").download_and_prepare()
    return splits, values


@pytest.fixture
def own_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("AVAE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    (tmp_path / "tfds").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", ["mnist", "cifar10", "celeb_a", "dsprites", "shapes3d"])
def test_prepared_dataset_is_read_converted_and_split(name, own_folders):
    splits, values = prepare_fabricated(name, own_folders / "tfds")
    sizes = {"validation_size": 2} | ({"test_size": 3} if "test" not in splits else {})
    data = load_dataset(name, seed=0, **sizes)
    again = load_dataset(name, seed=0, data_dir=own_folders / "tfds", **sizes)

    stored = np.concatenate(list(splits.values()))
    if name == "mnist":
        expected = np.zeros((13, 32, 32, 1), np.uint8)
        expected[:, 2:30, 2:30] = stored
    elif name == "dsprites":
        expected = stored * 255
    elif name == "celeb_a":
        expected = crop_and_resize(stored)
    else:
        expected = stored
    assert data.images.dtype == np.uint8
    assert data.images.shape == expected.shape
    difference = np.abs(data.images.astype(int) - expected)
    # JPEG is lossy; every other conversion is exact.
    assert difference.mean() < 3 if name == "celeb_a" else difference.max() == 0
    np.testing.assert_array_equal(again.images, data.images)
    assert again.splits.digest() == data.splits.digest()

    if name == "celeb_a":
        assert data.labels is None
        np.testing.assert_array_equal(data.splits.train, np.arange(6))
        np.testing.assert_array_equal(data.splits.test, [9, 10])
        assert set(data.splits.validation) < {6, 7, 8}
    else:
        key = "label" if name in ("mnist", "cifar10") else "label_shape"
        labels = np.concatenate([value[key] for value in values.values()])
        np.testing.assert_array_equal(data.labels, labels)
        assert data.num_classes == {"dsprites": 3, "shapes3d": 4}.get(name, 10)
        num_train = len(splits["train"]) - 2 - (0 if "test" in splits else 3)
        assert len(data.splits.train) == num_train


def test_new_preparation_is_not_hidden_by_the_cache(own_folders):
    prepare_fabricated("mnist", own_folders / "tfds", version="3.0.1")
    first = load_dataset("mnist", validation_size=2)
    prepare_fabricated("mnist", own_folders / "tfds", version="3.0.10")
    second = load_dataset("mnist", validation_size=2)
    assert find_prepared("mnist", own_folders / "tfds").path.name == "3.0.10"
    assert not np.array_equal(first.images, second.images)


def test_default_sizes_are_refused_when_the_data_is_too_small(own_folders):
    prepare_fabricated("mnist", own_folders / "tfds")
    with pytest.raises(DataError, match="validation_size=10000 leaves no training image out of 9"):
        load_dataset("mnist")


def test_damaged_files_are_told_in_one_line(own_folders):
    prepare_fabricated("mnist", own_folders / "tfds")
    (record_file,) = (own_folders / "tfds" / "mnist" / "3.0.1").glob("*train.array_record*")
    whole = record_file.read_bytes()
    record_file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read") as caught:
        load_dataset("mnist", validation_size=2)
    assert "\n" not in str(caught.value)
    record_file.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        load_dataset("mnist", validation_size=2)


def test_not_prepared_names_folder_and_command(own_folders):
    with pytest.raises(FileNotFoundError) as caught:
        load_dataset("dsprites")
    message = str(caught.value)
    assert "\n" not in message
    assert f"not prepared in {own_folders / 'tfds'}" in message
    assert f"`avae prepare dsprites --data-dir {own_folders / 'tfds'}`" in message


def test_tfrecord_copy_is_explained(own_folders):
    folder = own_folders / "tfds" / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text('{"name": "mnist", "splits": []}')
    with pytest.raises(DataError, match="not stored as array_record"):
        load_dataset("mnist")


def test_hand_edited_info_is_told(own_folders):
    folder = own_folders / "tfds" / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    for text in ("{", "[]", '{"fileFormat": "array_record"}'):
        (folder / "dataset_info.json").write_text(text)
        with pytest.raises(DataError, match=r"dataset_info\.json cannot be read"):
            load_dataset("mnist")


def test_remote_data_dir_is_refused():
    with pytest.raises(DataError, match="remote"):
        load_dataset("mnist", data_dir="gs://bucket/tfds")


def test_digits_follow_scikit_learn(own_folders):
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    data = load_dataset("digits")
    expected = np.rint(digits.images * 255 / 16)
    np.testing.assert_array_equal(data.images[..., 0], expected)
    np.testing.assert_array_equal(data.labels, digits.target)
    assert data.images.max() == 255
    assert data.num_classes == 10
    assert len(data.splits.validation) == 179
    assert len(data.splits.test) == 359
    # The shared tfds folder is left alone.
    assert list((own_folders / "tfds").iterdir()) == []
    assert (own_folders / "cache" / "datasets" / "digits" / "1.0.0").is_dir()


def test_digits_go_where_data_dir_says_or_say_why_not(own_folders):
    load_dataset("digits", data_dir=own_folders / "mine")
    assert [path.name for path in (own_folders / "mine").iterdir()] == ["digits"]
    (own_folders / "file").write_text("")
    with pytest.raises(DataError, match=r"digits.* cannot be prepared in .*file"):
        load_dataset("digits", data_dir=own_folders / "file")


def test_reading_is_silent_and_never_imports_tensorflow(own_folders):
    """In a fresh process, first start and second, with tfds imported only when it is needed."""
    prepare_fabricated("mnist", own_folders / "tfds")
    script = """
import sys
import avae_jax.data
assert "tensorflow_datasets" not in sys.modules
avae_jax.data.load_dataset("digits")
avae_jax.data.load_dataset("mnist", validation_size=2)
assert "tensorflow" not in sys.modules
sys.exit(10 if "tensorflow_datasets" in sys.modules else 11)
"""
    root = Path(__file__).parents[2]
    for expected in (10, 11):  # the second start reads the cache and needs no tfds
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=False
        )
        assert done.returncode == expected, done.stderr
        assert done.stdout == ""
        assert done.stderr == ""


def test_two_processes_prepare_digits_at_once(own_folders):
    script = "import avae_jax.data as d; print(d.load_dataset('digits').images.sum())"
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=root,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in processes]
    assert outputs[0] == outputs[1]
    assert outputs[0][1] == ""
    assert [path.name for path in (own_folders / "cache" / "datasets").iterdir()] == ["digits"]


def test_celeb_a_from_its_unpacked_archive(own_folders, monkeypatch):
    monkeypatch.setattr(celeb_a, "PARTITION", {"train": 4, "validation": 2, "test": 2})
    photos = _smooth_photos(8)
    folder = own_folders / "img_align_celeba"
    folder.mkdir()
    for row, pixels in enumerate(photos, start=1):
        (folder / f"{row:06}.jpg").write_bytes(_encoded(pixels, "jpeg"))
    data = load_dataset("celeb_a", path=folder)
    assert np.abs(data.images.astype(int) - crop_and_resize(photos)).mean() < 3
    np.testing.assert_array_equal(data.splits.train, [0, 1, 2, 3])
    np.testing.assert_array_equal(data.splits.validation, [4, 5])
    np.testing.assert_array_equal(data.splits.test, [6, 7])

    (folder / "000009.jpg").write_bytes(_encoded(photos[0], "jpeg"))
    with pytest.raises(DataError, match="holds 9 images and CelebA has 8"):
        load_dataset("celeb_a", path=folder)
    (folder / "000009.jpg").unlink()
    (folder / "000003.jpg").unlink()
    (folder / "000003.png").write_bytes(_encoded(photos[0][:64, :64]))
    with pytest.raises(DataError, match=r"000003\.png is \(64, 64, 3\) and not \(218, 178, 3\)"):
        load_dataset("celeb_a", path=folder)


def test_conversions():
    photos = np.zeros((1, 218, 178, 3), np.uint8)
    photos[:, 39:179, 19:159] = 200  # exactly the central 140x140
    np.testing.assert_array_equal(crop_and_resize(photos), np.full((1, 64, 64, 3), 200))
    padded = pad_to_32(np.ones((2, 28, 28, 1), np.uint8))
    assert padded.shape == (2, 32, 32, 1)
    assert padded.sum() == 2 * 28 * 28
    assert padded[:, 2:30, 2:30].all()
    np.testing.assert_array_equal(scale_binary(np.array([0, 1], np.uint8)), [0, 255])


def test_default_data_dir(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "~/somewhere")
    assert default_data_dir() == Path.home() / "somewhere"
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert default_data_dir() == Path.home() / "tensorflow_datasets"


@pytest.mark.skipif(
    not (default_data_dir() / "mnist").is_dir(), reason="no prepared mnist in TFDS_DATA_DIR"
)
def test_real_mnist():
    data = load_dataset("mnist", seed=0)
    assert data.images.shape == (70_000, 32, 32, 1)
    assert [len(s) for s in (data.splits.train, data.splits.validation, data.splits.test)] == [
        50_000,
        10_000,
        10_000,
    ]
    # Published statistics of the 28x28 training pixels: mean .1307, standard deviation .3081.
    inner = data.images[:60_000, 2:30, 2:30].astype(np.float64) / 255
    assert abs(inner.mean() - 0.1307) < 1e-4
    assert abs(inner.std() - 0.3081) < 1e-4
    # Ones are the most frequent training digit: 6,742.
    assert np.bincount(data.labels[:60_000]).tolist()[1] == 6742
