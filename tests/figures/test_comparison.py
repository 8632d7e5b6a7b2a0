"""Numbers of several methods in panels: what is drawn, and what is said where nothing is."""

import math

import numpy as np
import pytest

from avae_jax.figures import Panel, make_comparison, to_png

VALUES = {"ae": [1.0, 2.0, 3.0], "vae": [math.nan, 4.0], "none": []}


def panel(**changed) -> Panel:
    return Panel("error", VALUES, {"ae": 0.5, "vae": 0.5})._replace(**changed)


def axes_of(*panels):
    return make_comparison(panels).axes


def test_a_dot_is_a_seed_and_a_bar_their_mean():
    (axes,) = axes_of(panel())
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_array_equal(dots[0].get_xdata(), [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(dots[1].get_xdata(), [4.0])
    bars = [line for line in axes.lines if line.get_linestyle() == "-" and line not in dots]
    assert [float(np.asarray(line.get_xdata())[0]) for line in bars] == [2.0, 4.0]
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [float(np.asarray(line.get_xdata())[0]) for line in dashed] == [0.5, 0.5]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ae", "vae", "none"]
    assert [text.get_text() for text in axes.texts] == ["not computed"]


def test_the_axis_says_what_is_good_and_what_is_beside():
    (axes,) = axes_of(panel(better="lower", beside="floor"))
    assert axes.get_xlabel() == "dashed: floor      ← better"
    (axes,) = axes_of(panel(better="higher", nulls={}))
    assert axes.get_xlabel() == "better →"


@pytest.mark.parametrize(
    ("values", "scale"),
    [([1.0, 1000.0], "log"), ([-1.0, 1000.0], "linear"), ([1.0, 2.0], "linear")],
)
def test_what_spans_decades_is_on_a_logarithmic_axis(values, scale):
    (axes,) = axes_of(panel(values={"ae": values}, nulls={}))
    assert axes.get_xscale() == scale


def test_any_number_of_panels_is_drawn_and_none_is_refused():
    figure = make_comparison([panel(title=str(k)) for k in range(5)])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["0", "1", "2", "3", "4"]
    assert to_png(figure).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="panels must hold at least one"):
        make_comparison([])


def test_long_titles_leave_their_neighbors_alone():
    title = "shapes3d_like: FD-lenet-shapes3d_like, Gaussian of the codes"
    figure = make_comparison([panel(title=title)] * 8)
    figure.draw_without_rendering()
    titles = figure.findobj(lambda artist: "Gaussian" in getattr(artist, "get_text", str)())
    boxes = [text.get_window_extent() for text in titles]
    assert len(boxes) == 8
    for k, box in enumerate(boxes):
        assert box.x1 < figure.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[k + 1 :])
