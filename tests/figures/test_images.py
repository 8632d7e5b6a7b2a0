"""Images in figures: every pixel unscaled, in order, none over another."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from avae_jax import figures

_CONSTANTS = np.random.default_rng(0)
# Never white, which is what lies between images.
DIGITS = _CONSTANTS.uniform(0.0, 0.9, size=(30, 8, 8, 1)).astype(np.float32)
COLORED = _CONSTANTS.uniform(-1, 0.8, size=(5, 20, 12, 3))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def _picture(figure, index=0):
    return np.asarray(figure.axes[index].get_images()[0].get_array())


def _png(figure):
    with Image.open(io.BytesIO(figures.to_png(figure))) as file:
        return np.asarray(file.convert("RGB"))


def _bands(inked):
    """Return the (start, stop) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inked, [False]]).astype(int)))
    return list(zip(edges[::2], edges[1::2], strict=True))


def _images(picture):
    """Cut a picture at its white lines: rows of images, as they are read."""
    rows = []
    for top, bottom in _bands((picture < 1.0).any(axis=(1, 2))):
        line = picture[top:bottom]
        columns = _bands((line < 1.0).any(axis=(0, 2)))
        rows.append([line[:, left:right] for left, right in columns])
    return rows


def _assert_enlarged(tile, image):
    """Every pixel of the image is one square of a whole factor, with its own value."""
    factor = tile.shape[0] // image.shape[0]
    assert factor >= 1
    expected = np.kron(image, np.ones((factor, factor, 1)))
    np.testing.assert_allclose(tile, np.broadcast_to(expected, tile.shape), atol=1e-6)


# Tiles


def test_reconstructions_lie_under_their_originals():
    x_recon = 0.9 - DIGITS
    figure = figures.make_reconstructions(DIGITS, x_recon, value_range=(0.0, 1.0))
    rows = _images(_picture(figure))
    assert [len(row) for row in rows] == [12, 12, 12, 12]
    chosen = figures.spread_rows(30, 24)
    for position, index in enumerate(chosen):
        line, column = 2 * (position // 12), position % 12
        _assert_enlarged(rows[line][column], DIGITS[index])
        _assert_enlarged(rows[line + 1][column], x_recon[index])
    names = [text.get_text() for text in figure.axes[0].texts if text.get_text()]
    assert names == 2 * ["original", "reconstruction"]
    mse = np.square(DIGITS[chosen].astype(np.float64) - x_recon[chosen]).mean()
    assert f"error {mse:.2g} per pixel (24 of 30 images)" in figure.axes[0].get_title("left")
    few = figures.make_reconstructions(DIGITS[:3], x_recon[:3], value_range=(0.0, 1.0))
    assert few.axes[0].get_title("left").endswith("per pixel (3 images)")


@pytest.mark.parametrize("n", [1, 23, 24, 25, 48, 448])
def test_rows_are_spread(n):
    chosen = figures.spread_rows(n, 24)
    assert len(chosen) == min(n, 24)
    assert (np.diff(chosen) > 0).all()
    # One of each stretch.
    edges = np.linspace(0, n, len(chosen) + 1).astype(int)
    assert (edges[:-1] <= chosen).all()
    assert (chosen < edges[1:]).all()
    np.testing.assert_array_equal(chosen, figures.spread_rows(n, 24))


def test_rows_are_spread_over_the_classes():
    """A folder in the order of its paths begins with one class, and one may have few images."""
    labels = np.array(["circle"] * 300 + ["square"] * 140 + ["triangle"] * 8)
    shown = labels[figures.spread_rows(448, 24, labels)]
    assert {name: int(np.sum(shown == name)) for name in np.unique(labels)} == {
        "circle": 8, "square": 8, "triangle": 8
    }  # fmt: skip
    shown = labels[figures.spread_rows(448, 48, labels)]
    assert [int(np.sum(shown == name)) for name in np.unique(labels)] == [20, 20, 8]
    # More classes than rows: from all over the classes, one of each.
    chosen = figures.spread_rows(1000, 24, np.arange(1000) // 10)
    assert len(np.unique(chosen // 10)) == 24
    assert chosen.max() > 900


def test_rows_of_a_grid_of_factors_differ_in_each():
    """Rows at equal distances would all have the same last factor."""
    factor = np.arange(2400) % 10
    assert len(np.unique(factor[figures.spread_rows(2400, 24)])) >= 8


def test_a_latent_grid_lies_as_its_axes_say():
    k, z = 3, np.array([-1.0, 0.0, 1.0])
    images = 0.1 * (1 + np.arange(k * k, dtype=np.float64)).reshape(k, k, 1, 1, 1)
    images = np.broadcast_to(images, (k, k, 8, 8, 1)) * 0.9
    axes = figures.make_latent_grid(images, z, value_range=(0.0, 1.0)).axes[0]
    picture = np.asarray(axes.get_images()[0].get_array())
    for i in range(k):
        for j in range(k):
            column, row = axes.get_xticks()[j], axes.get_yticks()[i]
            assert axes.get_xticklabels()[j].get_text() == f"{z[j]:.1f}".replace("-", "−")
            assert picture[round(row), round(column), 0] == pytest.approx(images[i, j, 0, 0, 0])
    # The second dimension grows upward.
    assert axes.get_yticks()[0] > axes.get_yticks()[-1]
    with pytest.raises(ValueError, match="images must have shape"):
        figures.make_latent_grid(images[:2], z, value_range=None)


def test_names_of_rows_stand_beside_their_rows():
    figure = figures.make_reconstructions(DIGITS[:3], DIGITS[:3], value_range=(0.0, 1.0))
    axes = figure.axes[0]
    bands = _bands((_picture(figure) < 1.0).any(axis=(1, 2)))
    for text, (top, bottom) in zip(axes.texts, bands, strict=False):
        assert top < text.xy[1] < bottom


@pytest.mark.parametrize("count", [1, 2, 5, 30])
def test_a_grid_holds_every_image_in_order(count):
    rows = _images(_picture(figures.make_image_grid(DIGITS[:count], value_range=(0.0, 1.0))))
    tiles = [tile for row in rows for tile in row]
    assert len(tiles) == count
    # As square as the number allows.
    assert len(rows) <= len(rows[0]) <= len(rows) + 1
    for tile, image in zip(tiles, DIGITS, strict=False):
        _assert_enlarged(tile, image)


@pytest.mark.parametrize(
    "make",
    [
        lambda: figures.make_image_grid(COLORED, value_range=(-1.0, 1.0)),
        lambda: figures.make_reconstructions(DIGITS, DIGITS, value_range=(0.0, 1.0)),
        lambda: figures.make_samples(
            {"a rather long name of samples": DIGITS[:3], "b": DIGITS}, value_range=(0.0, 1.0)
        ),
        lambda: figures.make_gallery({"a": DIGITS[:7], "b": DIGITS[:5]}, value_range=(0.0, 1.0)),
    ],
    ids=["grid", "reconstructions", "samples", "gallery"],
)
def test_picture_pixels_are_png_pixels(make):
    figure = make()
    png = _png(figure)
    for axes in figure.axes:
        picture = np.asarray(axes.get_images()[0].get_array())
        box = axes.get_window_extent()
        assert (box.width, box.height) == pytest.approx(picture.shape[1::-1])
        left, top = round(box.x0), round(png.shape[0] - box.y1)
        height, width = picture.shape[:2]
        found = png[top : top + height, left : left + width] / 255.0
        np.testing.assert_allclose(found, picture, atol=1.01 / 255)


def test_long_names_of_rows_have_room():
    name = "a direction with a name that is long"
    figure = figures.make_gallery({name: DIGITS[:1], "b": DIGITS[:1]}, value_range=(0.0, 1.0))
    _png(figure)
    (text,) = (text for text in figure.axes[0].texts if text.get_text() == name)
    box = text.get_window_extent()
    assert 0 < box.x0 < box.x1 < figure.axes[0].get_window_extent().x0


def test_nothing_lies_over_anything_else():
    names = ["a name that is longer than its picture is wide", "another of those, just as long"]
    groups = {name: DIGITS[:1] for name in names}
    figure = figures.make_samples(groups, value_range=(0.0, 1.0))
    height, width = _png(figure).shape[:2]
    boxes = [axes.get_window_extent() for axes in figure.axes]
    said = [*names, "the same noise in all panels, scaled"]
    texts = [text for text in figure.findobj(Text) if text.get_text() in said]
    assert len(texts) == len(said)
    boxes += [text.get_window_extent() for text in texts]
    for index, box in enumerate(boxes):
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height
        for other in boxes[:index]:
            apart = box.x1 <= other.x0 or other.x1 <= box.x0
            assert apart or box.y1 <= other.y0 or other.y1 <= box.y0, (box, other)


@pytest.mark.parametrize(
    ("x", "value_range", "expected"),
    [
        (np.full((1, 4, 4, 1), -1.0), (-1.0, 1.0), 0.0),
        (np.full((1, 4, 4, 3), 128, np.uint8), (-1.0, 1.0), 128 / 255),
        (np.full((1, 4, 4, 1), 7.0), (0.0, 1.0), 1.0),
        (np.full((1, 4, 4, 1), np.nan), None, 0.5),
        (jnp.zeros((1, 4, 4, 1)), (0.0, 1.0), 0.0),
    ],
)
def test_values_become_grays(x, value_range, expected):
    picture = _picture(figures.make_image_grid(x, value_range=value_range))
    np.testing.assert_allclose(picture, expected, atol=1e-6)


def test_without_a_range_all_groups_share_their_own():
    groups = {str(value): np.full((1, 4, 4, 1), value) for value in (-3.0, 3.0, 5.0)}
    figure = figures.make_samples(groups, value_range=None)
    assert [_picture(figure, index).min() for index in range(3)] == [0.0, 0.75, 1.0]
    rows = _picture(figures.make_gallery(groups, value_range=None))
    assert set(np.unique(rows)) == {0.0, 0.75, 1.0}


@pytest.mark.parametrize("c", [2, 4, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_other_channel_numbers_are_drawn_in_gray(c, dtype, rng):
    x = rng.integers(0, 200, (6, 8, 8, c)).astype(dtype)
    if dtype == np.float32:
        x /= 255
    note = f"gray: the mean of {c} channels"
    figure = figures.make_image_grid(x, value_range=(0.0, 1.0))
    expected = np.mean(x[0], axis=-1, dtype=np.float64) / (255 if dtype == np.uint8 else 1)
    _assert_enlarged(_images(_picture(figure))[0][0], expected[..., None])
    assert figure.axes[0].texts[-1].get_text() == note
    # The error is that of all channels, not of their mean.
    x_recon = x[..., ::-1]
    figure = figures.make_reconstructions(x, x_recon, value_range=(0.0, 1.0))
    mse = np.square(x.astype(float) - x_recon).mean() / (255**2 if dtype == np.uint8 else 1)
    assert f"error {mse:.2g} per pixel" in figure.axes[0].get_title("left")
    assert note in [text.get_text() for text in figure.axes[0].texts]


def test_samples_stand_side_by_side_under_their_names():
    groups = {"claimed scale 0.81": DIGITS, "measured scale 0.95": DIGITS[:9]}
    figure = figures.make_samples(groups, value_range=(0.0, 1.0))
    assert [axes.get_title("left") for axes in figure.axes] == list(groups)
    left, right = (axes.get_window_extent() for axes in figure.axes)
    assert left.x1 < right.x0
    assert left.y1 == pytest.approx(right.y1)
    for index, x in enumerate(groups.values()):
        found = [tile for row in _images(_picture(figure, index)) for tile in row]
        assert len(found) == len(x)
        for tile, image in zip(found, x, strict=True):
            _assert_enlarged(tile, image)
    note = "the same noise in all panels, scaled"
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts.count(note) == 1
    figure = figures.make_samples({"one": DIGITS}, value_range=(0.0, 1.0))
    assert note not in [text.get_text() for text in figure.axes[0].texts]


def test_large_images_are_shrunk_and_small_ones_are_not(rng):
    x = rng.uniform(size=(4, 256, 128, 3))
    png = _png(figures.make_image_grid(x, value_range=(0.0, 1.0)))
    assert png.shape[0] < 2 * 256
    figure = figures.make_image_grid(x[:, :128], value_range=(0.0, 1.0))
    assert figure.axes[0].get_window_extent().height >= 2 * 128


# Named rows and walks


def test_a_gallery_has_one_row_per_name():
    rows = {"decoded": DIGITS[:7], "nearest code": DIGITS[7:12]}
    figure = figures.make_gallery(rows, value_range=(0.0, 1.0))
    found = _images(_picture(figure))
    assert [len(row) for row in found] == [7, 5]
    for tile, image in zip(found[0] + found[1], DIGITS, strict=False):
        _assert_enlarged(tile, image)
    assert [t.get_text() for t in figure.axes[0].texts if t.get_text()] == list(rows)


def test_strips_show_frames_from_first_to_last():
    walks = {"axis 1": DIGITS[:10], "axis 2": DIGITS[10:20]}
    figure = figures.make_strips(walks, value_range=(0.0, 1.0), num_shown=4)
    rows = _images(_picture(figure))
    assert [t.get_text() for t in figure.axes[0].texts if t.get_text()] == list(walks)
    for row, x in zip(rows, walks.values(), strict=True):
        for tile, frame in zip(row, (0, 3, 6, 9), strict=True):
            _assert_enlarged(tile, x[frame])
    # Fewer frames than are asked for are all shown, once.
    rows = _images(_picture(figures.make_strips({"a": DIGITS[:2]}, value_range=(0.0, 1.0))))
    assert [len(row) for row in rows] == [2]


def test_a_gif_moves_all_walks_at_once_to_and_fro():
    shades = np.linspace(0.0, 0.9, 5)[:, None, None, None] * np.ones((1, 8, 8, 1))
    walks = {f"axis {i}": shades if i % 2 else shades[::-1] for i in range(12)}
    with Image.open(io.BytesIO(figures.to_gif(walks, value_range=(0.0, 1.0)))) as gif:
        assert gif.n_frames == 8
        for position, frame in enumerate([0, 1, 2, 3, 4, 3, 2, 1]):
            gif.seek(position)
            picture = np.asarray(gif.convert("RGB")) / 255.0
            rows = _images(np.where(picture > 0.99, 1.0, picture))
            # Letters, images, letters, images.
            assert [len(row) for row in rows[1::2]] == [10, 2]
            for index, tile in enumerate(rows[1] + rows[3]):
                expected = shades[frame if index % 2 else 4 - frame, 0, 0, 0]
                np.testing.assert_allclose(tile, expected, atol=2 / 255)


def test_walks_that_move_stand_under_their_names():
    black = np.zeros((2, 8, 8, 1))
    for name, shown in (("axis 1", True), ("", False), ("a name longer than its image", True)):
        with Image.open(
            io.BytesIO(figures.to_gif({name: black, "b": black}, value_range=None))
        ) as gif:
            picture = np.asarray(gif.convert("L"))
        (left, right), (other, _) = _bands((picture[-10:] < 128).any(axis=0))
        over = picture[: int(np.argmax(picture[:, left] < 128))]
        assert (over[:, left:right].min() < 128) is np.bool_(shown)
        assert over[:, :left].min() > 128
        assert over[:, right:other].min() > 128


# What is refused


def test_bad_images_are_named():
    for shape in ((2, 4, 4), (0, 4, 4, 1), (4,)):
        with pytest.raises(ValueError, match="x must have shape"):
            figures.make_image_grid(np.zeros(shape), value_range=None)
    with pytest.raises(ValueError, match="x_recon must have the shape of x"):
        figures.make_reconstructions(DIGITS, DIGITS[:3], value_range=None)
    with pytest.raises(ValueError, match="at least one set"):
        figures.make_samples({}, value_range=None)
    with pytest.raises(ValueError, match="groups must hold samples of one shape"):
        figures.make_samples({"a": DIGITS, "b": COLORED}, value_range=None)
    with pytest.raises(ValueError, match="rows must hold images"):
        figures.make_gallery({"a": np.zeros((3, 4))}, value_range=None)
    with pytest.raises(ValueError, match=r"one number of frames, got \[2, 3\]"):
        figures.to_gif({"a": DIGITS[:2], "b": DIGITS[:3]}, value_range=None)
