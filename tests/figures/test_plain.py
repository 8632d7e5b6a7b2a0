"""Data that are no images: what is drawn is the data."""

import numpy as np
import pytest

from avae_jax import figures

_RNG = np.random.default_rng(0)


def _rows(features, count=20):
    return _RNG.standard_normal((count, features))


def test_pairs_of_points_are_tied_to_their_reconstructions():
    x = _rows(2, count=1200)
    axes = figures.make_reconstructions(x, x + 0.1, value_range=None).axes[0]
    named = {line.get_label(): np.transpose(line.get_data()) for line in axes.lines[-2:]}
    assert len(named["original"]) == 500
    # From the first row to the last, evenly.
    np.testing.assert_array_equal(named["original"][[0, -1]], x[[0, -1]])
    np.testing.assert_allclose(named["reconstruction"], named["original"] + 0.1)
    for index, line in enumerate(axes.lines[:-2]):
        ends = np.transpose(line.get_data())
        np.testing.assert_array_equal(ends[0], named["original"][index])
        np.testing.assert_array_equal(ends[1], named["reconstruction"][index])
    expected = "Reconstructions: mean squared error 0.01 per feature (1,200 rows)"
    assert axes.get_title("left") == expected


@pytest.mark.parametrize(("features", "count"), [(1, 1), (3, 5), (64, 20)])
def test_profiles_lie_over_their_originals(features, count):
    x = _rows(features, count)
    figure = figures.make_reconstructions(x, 2 * x, value_range=None)
    assert len(figure.axes) == min(count, 12)
    for axes, row in zip(figure.axes, x, strict=False):
        original, reconstruction = axes.lines
        np.testing.assert_array_equal(original.get_data(), [np.arange(features), row])
        np.testing.assert_array_equal(reconstruction.get_ydata(), 2 * row)
    # The lowest panel of every column names its axis, where the row below is cut short too.
    columns = min(count, 4)
    named = [axes.get_xlabel() for axes in figure.axes]
    assert named[-columns:] == columns * ["feature"]
    assert not any(named[:-columns])
    mse = np.square(x).mean()
    assert f"error {mse:.2g} per feature ({count} rows)" in figure.get_suptitle()


def test_one_feature_is_a_histogram():
    x, y = _rows(1), 3.0 + _rows(1)
    figure = figures.make_samples({"a": x, "b": y}, value_range=None)
    assert [axes.get_title("left") for axes in figure.axes] == ["a", "b"]
    edges = np.linspace(min(x.min(), y.min()), max(x.max(), y.max()), 41)
    for axes, values in zip(figure.axes, (x, y), strict=True):
        expected, _ = np.histogram(values, edges, density=True)
        np.testing.assert_allclose([bar.get_height() for bar in axes.patches], expected)


def test_two_features_are_points():
    x = _rows(2, count=5000)
    (axes,) = figures.make_image_grid(x, value_range=None).axes
    drawn = np.transpose(axes.lines[0].get_data())
    assert len(drawn) == 4000
    assert {tuple(point) for point in drawn} <= {tuple(point) for point in x}
    assert axes.get_title("left") == "5,000 samples"


def test_more_features_are_strips_of_one_color_scale():
    groups = {"a": _rows(5, count=80), "b": 10 * _rows(5, count=3)}
    figure = figures.make_samples(groups, value_range=None)
    limits = min(x.min() for x in groups.values()), max(x.max() for x in groups.values())
    for axes, x in zip(figure.axes, groups.values(), strict=False):
        image = axes.get_images()[0]
        np.testing.assert_array_equal(image.get_array(), x[:64])
        assert image.get_clim() == limits
    # The scale is drawn once, beside them.
    assert len(figure.axes) == 3


@pytest.mark.parametrize("features", [1, 2, 3])
def test_several_groups_say_that_they_share_the_noise(features):
    note = "the same noise in all panels, scaled"
    x = _rows(features)
    for groups in ({"a": x}, {"a": x, "b": x}):
        figure = figures.make_samples(groups, value_range=None)
        texts = [text.get_text() for axes in figure.axes for text in axes.texts]
        assert texts.count(note) == len(groups) - 1


@pytest.mark.parametrize("features", [1, 2, 3, 64])
def test_plain_figures_have_room_for_all_they_say(features):
    """Labels, titles and legends end inside the picture."""
    x = _rows(features)
    for figure in (
        figures.make_reconstructions(x, x + 0.1, value_range=None),
        figures.make_samples({"a": x, "b": x}, value_range=None),
    ):
        figures.to_png(figure)
        width, height = figure.bbox.size
        for axes in figure.axes:
            box = axes.get_tightbbox()
            assert min(box.x0, box.y0) > -1
            assert max(box.x1 - width, box.y1 - height) < 1
