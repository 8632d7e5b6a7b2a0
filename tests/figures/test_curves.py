"""Training curves of whatever the rows hold, and precision against recall."""

import numpy as np
import pytest

from avae_jax import figures
from avae_jax.terms import Term

ROWS = [
    {
        "step": step,
        "epoch": step // 10,
        "train/loss": 3.0 + 1 / step,
        "train/kl": 1 / step - 0.2,
        "null_kl": -0.24,
        "beta": 2.0,
    }
    for step in range(10, 101, 10)
]
ROWS += [{"step": 50, "validation/kl": 0.1}, {"step": 100, "validation/kl": 0.0}]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def _panels(figure):
    return {axes.get_title("left"): axes for axes in figure.axes}


def _labels(axes):
    return axes.get_legend_handles_labels()[1]


def _label(axes, name):
    handles, labels = axes.get_legend_handles_labels()
    return handles[labels.index(name)]


def test_curves_are_those_of_the_rows():
    panels = _panels(figures.make_training_curves(ROWS))
    assert list(panels) == ["Loss", "Kl", "Beta"]
    steps, values = panels["Loss"].lines[0].get_data()
    np.testing.assert_allclose(steps, np.arange(10, 101, 10))
    np.testing.assert_allclose(values, 3.0 + 1 / steps)
    # The last values stand in the legend, each under the name of its curve.
    kl = panels["Kl"]
    assert set(_labels(kl)) == {"train −0.190", "validation 0.00", "null −0.240"}
    assert _labels(panels["Beta"]) == ["last 2.00"]
    np.testing.assert_allclose(_label(kl, "null −0.240").get_ydata(), -0.24)
    assert _label(kl, "null −0.240").get_linestyle() == "--"
    np.testing.assert_allclose(_label(kl, "validation 0.00").get_data(), [[50, 100], [0.1, 0.0]])


def test_the_caller_names_orders_and_hides():
    terms = {
        "beta": Term(caption="Weight"),
        "kl": Term(caption="KL", unit="nats"),
        "absent": Term(caption="Absent"),
        "loss": None,
    }
    rows = [row | {"temperature": 1.0, "other/kl": 2.0} for row in ROWS]
    panels = _panels(figures.make_training_curves(rows, terms=terms))
    assert list(panels) == ["Weight", "KL (nats)", "Temperature", "Other/kl"]


@pytest.mark.parametrize(
    ("key", "null"), [("train/tc_null", ""), ("tc_null", ""), ("null_tc", ""), ("floor", "floor")]
)
def test_a_null_lies_in_the_panel_of_its_number(key, null):
    rows = [{"step": s, "train/tc": 1.0 + s, key: 0.1 * s} for s in range(1, 5)]
    terms = {"tc": Term(null=null)}
    panels = _panels(figures.make_training_curves(rows, terms=terms))
    assert list(panels) == ["Tc"]
    line = _label(panels["Tc"], "null 0.400")
    np.testing.assert_allclose(line.get_data(), [[1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4]])


def test_any_new_term_gets_a_panel():
    names = ("critic_loss", "critic_accuracy", "mmd", "broken_z", "skipped_share")
    row = {f"{split}/{name}": 1.0 for name in names for split in ("train", "validation")}
    # Always zero, or never finite, is not worth one; zero now and then is.
    row |= {"train/never": 0.0, "validation/never": 0, "train/none": None, "rate": float("inf")}
    rows = [{"step": step, **row, "train/mmd": float(step > 1)} for step in (1, 2)]
    figure = figures.make_training_curves(rows)
    expected = ["Critic loss", "Critic accuracy", "Mmd", "Broken z", "Skipped share"]
    assert list(_panels(figure)) == expected
    for axes in figure.axes:
        assert {label.split()[0] for label in _labels(axes)} == {"train", "validation"}


@pytest.mark.parametrize(("value", "drawn"), [(9.0, False), (-11.0, True), (11.0, True)])
def test_what_stays_below_its_least_gets_no_panel(value, drawn):
    rows = [{"step": s, "train/age": v, "beta": 1.0} for s, v in enumerate((0.0, value, None))]
    figure = figures.make_training_curves(rows, terms={"age": Term(least=10.0)})
    assert ("Age" in _panels(figure)) == drawn


def test_a_share_is_drawn_in_percent():
    rows = [{"step": s, "train/tail": 0.01 * s, "tail_null": 0.01} for s in range(1, 4)]
    terms = {"tail": Term(caption="In the tail", unit="%")}
    axes = _panels(figures.make_training_curves(rows, terms=terms))["In the tail (%)"]
    np.testing.assert_allclose(_label(axes, "train 3.00").get_ydata(), [1.0, 2.0, 3.0])
    np.testing.assert_allclose(_label(axes, "null 1.00").get_ydata(), 1.0)


def test_gaps_stay_gaps():
    values = [(1, 0.5), (2, None), (3, float("inf")), (4, 0.25)]
    rows = [{"step": s, "train/kl": v} for s, v in values]
    axes = figures.make_training_curves(rows).axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [0.5, np.nan, np.nan, 0.25])


def test_the_lowest_validation_value_is_marked_where_it_matters():
    scores = [3.0, 1.5, None, 2.5]
    rows = [{"step": 1000 * (i + 1), "validation/score": v} for i, v in enumerate(scores)]
    axes = figures.make_training_curves(rows, terms={"score": Term(lowest=True)}).axes[0]
    assert _labels(axes) == ["validation 2.50", "best 1.50, step 2,000"]
    np.testing.assert_array_equal(np.ravel(axes.lines[-1].get_data()), [2000, 1.5])
    axes = figures.make_training_curves(rows).axes[0]
    assert _labels(axes) == ["validation 2.50"]


def test_a_huge_start_does_not_hide_the_end(rng):
    steps = np.arange(1, 501)
    kl = 1000 * np.exp(-steps / 5) - 0.2 + 0.05 * rng.standard_normal(500)
    loss = 1e4 * np.exp(-steps / 5) + 3.0
    rows = [
        {"step": int(s), "train/kl": k, "train/loss": v, "beta": 3 + 3 * np.exp(-s / 5)}
        for s, k, v in zip(steps, kl, loss, strict=True)
    ]
    terms = {"loss": Term(log=True)}
    panels = _panels(figures.make_training_curves(rows, terms=terms))
    assert panels["Kl"].get_ylim()[1] < 1.0
    # An axis that leaves something out says so.
    assert panels["Kl"].get_title("right") == "axis cut, goes up to 819"
    assert panels["Beta"].get_title("right") == "axis cut, goes up to 5.46"
    assert panels["Loss"].get_yscale() == "log"
    assert panels["Loss"].get_title("right") == ""


@pytest.mark.parametrize(
    ("values", "log", "scale"),
    [
        ((11.0, 3.0, 1.0), True, "log"),
        ((9.0, 3.0, 1.0), True, "linear"),
        ((11.0, 3.0, 0.0), True, "linear"),
        ((11.0, 3.0, 1.0), False, "linear"),
    ],
)
def test_more_than_a_decade_takes_a_logarithmic_axis_where_it_may(values, log, scale):
    rows = [{"step": s, "train/x": v} for s, v in enumerate(values)]
    figure = figures.make_training_curves(rows, terms={"x": Term(log=log)})
    assert figure.axes[0].get_yscale() == scale


def test_what_is_measured_is_smoothed_over_the_raw_curve(rng):
    values = rng.standard_normal(400)
    rows = [{"step": s, "train/kl": v, "rate": v} for s, v in enumerate(values)]
    figure = figures.make_training_curves(rows)
    panels = _panels(figure)
    raw, smooth = panels["Kl"].lines
    np.testing.assert_array_equal(raw.get_ydata(), values)
    expected = [values[max(i - 4, 0) : i + 5].mean() for i in range(400)]
    np.testing.assert_allclose(smooth.get_ydata(), expected, atol=1e-12)
    # What belongs to no split is set, and may move in steps.
    assert len(panels["Rate"].lines) == 1
    assert "smoothed" in figure.get_suptitle()
    assert "smoothed" not in figures.make_training_curves(rows[:9]).get_suptitle()


@pytest.mark.parametrize("count", [1, 2, 4, 5, 7, 8, 10, 13])
def test_the_lowest_panel_of_every_column_has_the_steps(count):
    row = {f"train/x{i}": 1.0 for i in range(count)}
    figure = figures.make_training_curves([{"step": step, **row} for step in (1, 2)])
    assert len(figure.axes) == count
    lowest = {}
    for axes in figure.axes:
        lowest[axes.get_subplotspec().colspan.start] = axes
    labelled = [axes for axes in figure.axes if axes.get_xlabel() == "step"]
    assert {id(axes) for axes in labelled} == {id(axes) for axes in lowest.values()}


def test_curves_of_nothing_are_refused():
    for rows in ([{"step": 1, "epoch": 2}], [{"step": 1, "train/x": 0.0}], []):
        with pytest.raises(ValueError, match=f"a metric to draw, got {len(rows)} rows"):
            figures.make_training_curves(rows)


def test_precision_is_drawn_against_recall():
    curves = {
        "claimed": (np.array([1.0, 0.5]), np.array([0.2, 0.7])),
        "floor, training images": (np.array([1.0, 0.9]), np.array([0.9, 1.0])),
    }
    axes = figures.make_prd(curves).axes[0]
    for (name, (precision, recall)), line in zip(curves.items(), axes.lines, strict=True):
        np.testing.assert_array_equal(line.get_data(), [recall, precision])
        assert line.get_label() == name
        assert line.get_linestyle() == ("--" if name.startswith("floor") else "-")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("recall", "precision")
