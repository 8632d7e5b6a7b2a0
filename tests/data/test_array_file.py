import numpy as np
import pytest

from avae_jax.data import DataError, load_dataset
from avae_jax.data.array_file import read_array_file

RNG = np.random.default_rng(0)


def _save(tmp_path, array):
    path = tmp_path / "x.npy"
    np.save(path, array)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_npy_stays_on_disk(tmp_path, dtype):
    images = RNG.integers(0, 255, (10, 5, 6, 3)).astype(dtype)
    read, labels = read_array_file(_save(tmp_path, images))
    assert isinstance(read, np.memmap)
    assert read.dtype == dtype
    assert labels is None
    np.testing.assert_array_equal(read[np.array([7, 2])], images[[7, 2]])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((10, 5, 6), (10, 5, 6, 1)),
        ((10, 4, 4), (10, 4, 4, 1)),
        ((10, 7), (10, 7)),
        ((10, 1), (10, 1)),
        ((10, 6, 6, 13), (10, 6, 6, 13)),
        ((10, 4, 4, 8), (10, 4, 4, 8)),
    ],
)
def test_shapes(tmp_path, shape, expected):
    images, _ = read_array_file(_save(tmp_path, RNG.random(shape, np.float32)))
    assert images.shape == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.array([[True, False]]), np.array([[255, 0]], np.uint8)),
        (np.array([[0, 255]], np.int64), np.array([[0, 255]], np.uint8)),
        (np.array([[0.5, -2.0]], np.float64), np.array([[0.5, -2.0]], np.float32)),
        (np.array([[0.5, -2.0]], np.float16), np.array([[0.5, -2.0]], np.float32)),
    ],
)
def test_dtypes(tmp_path, given, expected):
    images, _ = read_array_file(_save(tmp_path, given))
    assert images.dtype == expected.dtype
    np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(5), r"shape \(5,\)"),
        (np.zeros((5, 0)), "no values"),
        (np.zeros((2, 3, 4, 5, 6)), "expected"),
        (np.zeros((5, 3, 8, 8)), "channels first"),
        (np.zeros((5, 4, 8, 8)), r"channels first it seems: give images.transpose\(0, 2, 3, 1\)"),
        (np.zeros((8, 8, 3, 50)), r"images last it seems: give images.transpose\(3, 0, 1, 2\)"),
        (np.zeros((8, 8, 70)), r"images last it seems: give images.transpose\(2, 0, 1\)"),
        (np.zeros((20, 20, 3)), r"one image it seems: give images\[None\]"),
        (np.full((5, 4), 256), r"spans \[256, 256\]"),
        (np.zeros((5, 4), np.complex64), "dtype complex64"),
        (np.array([[0, np.nan], [np.inf, 1]]), r"2 NaN or infinite values.*index \(0, 1\)"),
        (np.full((5, 4), 1e300), "20 NaN or infinite"),
        (np.array([np.zeros(2), np.zeros(3)], dtype=object), "Python objects"),
    ],
)
def test_bad_arrays(tmp_path, array, message):
    with pytest.raises(DataError, match=message) as caught:
        read_array_file(_save(tmp_path, array))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["images", "imgs", "x", "whatever"])
def test_npz_key_and_labels(tmp_path, key):
    path = tmp_path / "x.npz"
    images = RNG.integers(0, 255, (10, 4, 4), np.uint8)
    arrays = {key: images}
    if key != "whatever":
        arrays |= {"labels": np.arange(10), "metadata": np.zeros(3)}
    np.savez(path, **arrays)
    read, labels = read_array_file(path)
    np.testing.assert_array_equal(read[..., 0], images)
    if key != "whatever":
        np.testing.assert_array_equal(labels, np.arange(10))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros((5, 4)), "b": np.zeros((5, 4))}, r"\['a', 'b'\].*name the images"),
        ({"x": np.zeros((5, 4)), "y": np.zeros(4, int)}, "labels must be 5 integers"),
        ({"x": np.zeros((5, 4)), "y": np.zeros(5)}, "labels must be 5 integers"),
        ({"x": np.zeros((2, 4)), "y": np.array([0, 2**31])}, "got 2147483648 at row 1, 1 such"),
        ({"x": np.zeros((2, 4)), "y": np.array([-2, 0])}, "got -2 at row 0"),
        ({"x": np.array([{}], dtype=object)}, "Python objects"),
        ({}, "none is named"),
    ],
)
def test_bad_npz(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_array_file(tmp_path / "x.npz")


def test_images_without_a_class(tmp_path):
    """-1 is an image without a class; classes are counted from the others."""
    labels = np.arange(20) % 3 - 1
    np.savez(tmp_path / "x.npz", x=RNG.random((20, 6)), y=labels)
    data = load_dataset("array", path=tmp_path / "x.npz")
    np.testing.assert_array_equal(data.labels, labels)
    assert data.num_classes == 2
    np.savez(tmp_path / "x.npz", x=RNG.random((20, 6)), y=np.full(20, -1))
    assert load_dataset("array", path=tmp_path / "x.npz").labels is None


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_pixels_of_0_and_1_are_black_and_white(tmp_path, suffix):
    """The published dSprites: uint8, 0 and 1."""
    images = RNG.integers(0, 2, (50, 4, 4), np.uint8)
    path = tmp_path / f"x.{suffix}"

    def read(rows):
        np.save(path, images) if suffix == "npy" else np.savez(path, imgs=images)
        return load_dataset("array", path=path).images[rows][..., 0]

    rows = np.array([3, 1])
    np.testing.assert_array_equal(read(rows), 255 * images[rows])
    # One brighter pixel, in the last image: then these are levels of grey.
    images[-1, 0, 0] = 2
    np.testing.assert_array_equal(read(rows), images[rows])


def test_files_that_are_no_arrays(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"file .*none\.npy does not exist"):
        read_array_file(tmp_path / "none.npy")
    with pytest.raises(DataError, match="is a folder: use dataset 'folder'"):
        read_array_file(tmp_path)
    (tmp_path / "x.txt").write_text("1 2 3")
    with pytest.raises(DataError, match="must end in"):
        read_array_file(tmp_path / "x.txt")
    for name in ("x.npy", "x.npz"):
        for content in (b"", b"junk", b"\x93NUMPY\x01\x00", b"PK\x03\x04junk"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(DataError, match=name):
                read_array_file(tmp_path / name)
    np.save(tmp_path / "cut.npy", np.zeros((50, 50)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:1000])
    with pytest.raises(DataError, match="cannot be read"):
        read_array_file(tmp_path / "cut.npy")


def test_through_load_dataset(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, x=RNG.random((50, 6)), y=np.arange(50) % 4)
    data = load_dataset("array", path=path, seed=1)
    assert data.images.shape == (50, 6)
    assert data.images.dtype == np.float32
    assert data.num_classes == 4
    assert [len(s) for s in (data.splits.train, data.splits.validation, data.splits.test)] == [
        35,
        5,
        10,
    ]
    with pytest.raises(DataError, match=r"needs data_path \(path in Python\)"):
        load_dataset("array")
    np.savez(path, x=RNG.random((2, 6)))
    with pytest.raises(DataError, match="too few"):
        load_dataset("array", path=path)
