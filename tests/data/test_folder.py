import warnings

import numpy as np
import pytest
from PIL import Image

from avae_jax.data import DataError, folder, load_dataset
from avae_jax.data.folder import ImageFolder, read_image_folder

RNG = np.random.default_rng(0)


def _write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def rgb(tmp_path):
    pixels = RNG.integers(0, 255, (12, 6, 8, 3), np.uint8)
    for row, image in enumerate(pixels):
        _write(tmp_path / "pictures" / f"{row:02}.png", image)
    return tmp_path / "pictures", pixels


def test_small_folder_is_an_array_in_name_order(rgb):
    path, pixels = rgb
    _write(path / ".hidden.png", np.zeros((2, 2), np.uint8))
    _write(path / ".thumbnails" / "a.png", np.zeros((2, 2), np.uint8))
    images, names = read_image_folder(path)
    assert isinstance(images, np.ndarray)
    np.testing.assert_array_equal(images, pixels)
    assert names == [f"{row:02}.png" for row in range(12)]


def test_large_folder_is_read_on_demand(rgb, monkeypatch):
    path, pixels = rgb
    monkeypatch.setattr(folder, "_MAX_BYTES_IN_MEMORY", 100)
    images, _ = read_image_folder(path)
    assert isinstance(images, ImageFolder)
    assert images.shape == pixels.shape
    assert images.dtype == np.uint8
    assert len(images) == 12
    for rows in (np.array([3, 11, 3]), np.array([[0, 1], [2, 3]]), slice(2, 5), 4, -1, [5]):
        np.testing.assert_array_equal(images[rows], pixels[rows])
    assert images[np.array([], int)].shape == (0, 6, 8, 3)
    with pytest.raises(IndexError):
        images[12]


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("RGB", 3), ("P", 3)])
def test_modes(tmp_path, mode, channels):
    image = Image.fromarray(RNG.integers(0, 255, (4, 4, 3), np.uint8)).convert(mode)
    image.save(tmp_path / "a.png")
    images, _ = read_image_folder(tmp_path)
    assert images.shape == (1, 4, 4, channels)
    if mode == "1":
        assert set(images.ravel()) <= {0, 255}


def test_alpha_is_dropped(tmp_path):
    pixels = RNG.integers(0, 255, (4, 4, 4), np.uint8)
    _write(tmp_path / "a.png", pixels)
    _write(tmp_path / "b.png", pixels[..., :3])
    np.testing.assert_array_equal(read_image_folder(tmp_path)[0], np.stack([pixels[..., :3]] * 2))
    gray = RNG.integers(0, 255, (4, 4, 2), np.uint8)
    (tmp_path / "gray").mkdir()
    Image.fromarray(gray).save(tmp_path / "gray" / "a.png")
    np.testing.assert_array_equal(read_image_folder(tmp_path / "gray")[0][0], gray[..., :1])


def test_transparency_of_a_palette_is_dropped(tmp_path):
    palette = Image.frombytes("P", (2, 2), bytes([0, 1, 2, 1]))
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(tmp_path / "a.png", transparency=bytes([0, 128, 255]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images, _ = read_image_folder(tmp_path)
    red, green, blue = np.diag([255] * 3)
    np.testing.assert_array_equal(images[0], [[red, green], [blue, green]])


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_unsupported_mode(tmp_path, dtype):
    _write(tmp_path / "a.tif", np.zeros((4, 4), dtype))
    with pytest.raises(DataError, match=r"a\.tif has mode (I;16|I|F): convert"):
        read_image_folder(tmp_path)


def test_mixed_sizes_and_modes_name_both_files(rgb):
    path, _ = rgb
    _write(path / "sub" / "big.png", np.zeros((6, 9, 3), np.uint8))
    with pytest.raises(DataError, match=r"00\.png is 8x6 RGB but .*big\.png is 9x6 RGB"):
        read_image_folder(path)
    _write(path / "sub" / "big.png", np.zeros((6, 8), np.uint8))
    with pytest.raises(DataError, match=r"00\.png is 8x6 RGB but .*big\.png is 8x6 L"):
        read_image_folder(path)


@pytest.mark.parametrize("content", [b"", b"junk"])
def test_not_an_image(rgb, content):
    path, _ = rgb
    (path / "05.png").write_bytes(content)
    with pytest.raises(DataError, match=r"05\.png cannot be read \(not an image\)") as caught:
        read_image_folder(path)
    assert "\n" not in str(caught.value)


def test_truncated_image(tmp_path):
    _write(tmp_path / "a.png", RNG.integers(0, 255, (64, 64, 3), np.uint8))
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.png cannot be read \(.*truncated"):
        read_image_folder(tmp_path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_their_exif_says(tmp_path, suffix, orientation):
    """The eight orientations of EXIF 2.3, table of tag 274: where row 0 and column 0 are seen."""
    stored = 10 * np.arange(24, dtype=np.uint8).reshape(4, 6)
    seen = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
        5: stored.T, 6: stored.T[:, ::-1], 7: stored.T[::-1, ::-1], 8: stored.T[::-1],
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Blocks of 8x8 survive a JPEG.
    large = Image.fromarray(np.kron(stored, np.ones((8, 8), np.uint8))).convert("RGB")
    options = {"lossless": True} if suffix == "webp" else {}
    large.save(tmp_path / f"a.{suffix}", exif=exif, **options)
    Image.fromarray(np.zeros((8 * len(seen), 8 * len(seen[0]), 3), np.uint8)).save(
        tmp_path / "b.png"
    )
    images, _ = read_image_folder(tmp_path)
    np.testing.assert_allclose(images[0, 4::8, 4::8, 0], seen, atol=12)


def test_links_to_folders_are_followed_once(tmp_path):
    pixels = RNG.integers(0, 255, (3, 4, 4), np.uint8)
    _write(tmp_path / "set" / "a.png", pixels[0])
    _write(tmp_path / "elsewhere" / "b.png", pixels[1])
    _write(tmp_path / "elsewhere" / "deep" / "c.png", pixels[2])
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "twice").symlink_to(tmp_path / "elsewhere" / "deep")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "set")
    images, names = read_image_folder(tmp_path / "set")
    np.testing.assert_array_equal(images[..., 0], pixels)
    assert names == ["a.png", "linked/b.png", "twice/c.png"]


def test_what_is_left_out_is_said_once_with_a_count(rgb):
    path, pixels = rgb
    for name in ("notes.txt", "a.heic", "sub/b.HEIC", "README"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("no image")
    frames = [Image.fromarray(image) for image in pixels[:3]]
    for name in ("frames.tif", "frames.png"):
        frames[0].save(path / name, save_all=True, append_images=frames[1:])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images, _ = read_image_folder(path)
    left_out, several = (str(warning.message) for warning in caught)
    assert "4 files are left out" in left_out
    assert ": 2 .heic, 1 " in left_out
    assert "2 of 14 files hold several frames" in several
    np.testing.assert_array_equal(images[-2:], pixels[[0, 0]])


@pytest.mark.parametrize("suffix", ["jfif", "jp2", "pgm", "tga", "bmp"])
def test_every_suffix_of_an_image_is_read(tmp_path, suffix):
    formats = {"jfif": "JPEG", "jp2": "JPEG2000", "pgm": "PPM", "tga": "TGA", "bmp": "BMP"}
    Image.new("L", (8, 8), 77).save(tmp_path / f"a.{suffix}", format=formats[suffix])
    np.testing.assert_array_equal(read_image_folder(tmp_path)[0], np.full((1, 8, 8, 1), 77))


def test_masks_of_0_and_1_are_black_and_white(rgb, monkeypatch):
    path, _ = rgb
    for row in range(12):
        _write(path / f"{row:02}.png", np.eye(4, k=row % 3, dtype=np.uint8))
    sizes = {"validation_size": 2, "test_size": 3}
    images = load_dataset("folder", path=path, **sizes).images
    np.testing.assert_array_equal(images[:, :, :, 0], [255 * np.eye(4, k=k % 3) for k in range(12)])
    monkeypatch.setattr(folder, "_MAX_BYTES_IN_MEMORY", 100)
    lazy = load_dataset("folder", path=path, **sizes).images
    assert not isinstance(lazy, np.ndarray)
    np.testing.assert_array_equal(lazy[np.arange(12)], images)


def test_empty_and_missing_folder(tmp_path):
    with pytest.raises(DataError, match="no images in"):
        read_image_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"folder .*none does not exist"):
        read_image_folder(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file is not a folder"):
        read_image_folder(tmp_path / "file")


def test_through_load_dataset(rgb):
    path, pixels = rgb
    data = load_dataset("folder", path=path, validation_size=2, test_size=3)
    np.testing.assert_array_equal(data.images, pixels)
    assert data.labels is None
    assert len(data.splits.train) == 7
