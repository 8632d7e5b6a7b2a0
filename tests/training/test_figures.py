import subprocess
import sys

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from avae_jax.training import figures

_CONSTANTS = np.random.default_rng(0)
DIGITS = _CONSTANTS.uniform(size=(30, 8, 8, 1)).astype(np.float32)
COLOUR = _CONSTANTS.uniform(-1, 1, size=(5, 20, 12, 3))
CODES = _CONSTANTS.standard_normal((400, 6)) * np.linspace(0.5, 1.2, 6)
ROWS = [
    {
        "step": step,
        "train/loss": 3.0 + 1 / step,
        "train/kl": 1 / step - 0.2,
        "null_kl": -0.24,
        "beta": 2.0,
    }
    for step in range(10, 101, 10)
]
ROWS += [{"step": 50, "validation/kl": 0.1}, {"step": 100, "validation/kl": 0.0}]

SAVED = {
    "reconstructions": lambda path: figures.save_reconstructions(
        DIGITS, DIGITS, path, value_range=(0.0, 1.0)
    ),
    "grid": lambda path: figures.save_image_grid(COLOUR, path, value_range=(-1.0, 1.0)),
    "samples": lambda path: figures.save_samples(
        {"claimed scale 0.81": DIGITS, "measured scale 0.95": DIGITS[:3]}, path, value_range=None
    ),
    "scatter": lambda path: figures.save_latent_scatter(CODES, path, prior_scale=0.9),
    "radius": lambda path: figures.save_radius_histogram(CODES, path, scale=0.9),
    "covariance": lambda path: figures.save_covariance(CODES, path, prior_scale=0.9),
    "curves": lambda path: figures.save_training_curves(ROWS, path),
}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("name", SAVED)
def test_saved_file_is_a_picture_and_replaces_the_old_one(name, tmp_path):
    path = tmp_path / "figures" / f"{name}.png"
    assert SAVED[name](path) == path
    path.write_bytes(b"old")
    SAVED[name](str(path))
    with Image.open(path) as picture:
        picture.load()
        assert min(picture.size) >= 100
        assert np.asarray(picture.convert("L")).std() > 5
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "scatter.png"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(figures.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        figures.save_latent_scatter(CODES, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must end in .png"):
        figures.save_latent_scatter(CODES, tmp_path / "scatter.pdf")


def test_drawing_leaves_the_user_s_matplotlib_alone(tmp_path):
    code = (
        "import sys; from avae_jax.training import figures; "
        "assert 'matplotlib' not in sys.modules; "
        "import matplotlib; matplotlib.rcParams['font.size'] = 20.5; "
        "import numpy as np; z = np.random.default_rng(0).standard_normal((20, 2)); "
        f"figures.save_latent_scatter(z, {str(tmp_path / 'a.png')!r}); "
        "assert 'matplotlib.pyplot' not in sys.modules; "
        "assert matplotlib.rcParams['font.size'] == 20.5"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert matplotlib.rcParams["font.size"] != 20.5


# Images


def _tiles(figure, index=0):
    return np.asarray(figure.axes[index].get_images()[0].get_array())


def test_reconstructions_lie_under_their_originals():
    x_recon = 1.0 - DIGITS
    figure = figures.make_reconstructions(DIGITS, x_recon, value_range=(0.0, 1.0))
    picture = _tiles(figure)
    # Tiles of 8 x 8 enlarged to 64 pixels, 3 between columns, 4 between a pair of rows.
    assert picture.shape == (4 * 64 + 2 * 4 + 22, 12 * 64 + 11 * 3, 3)
    for row, index in ((0, 0), (64 + 4 + 64 + 22, 12)):
        tile = picture[row : row + 64 : 8, 67 : 67 + 64 : 8, 0]
        np.testing.assert_allclose(tile, DIGITS[index + 1, ..., 0], atol=1e-6)
        tile = picture[row + 68 : row + 132 : 8, 67 : 67 + 64 : 8, 0]
        np.testing.assert_allclose(tile, x_recon[index + 1, ..., 0], atol=1e-6)
    mse = np.square(DIGITS[:24] - x_recon[:24]).mean()
    assert f"error {mse:.2g} per pixel (24 images)" in figure.axes[0].get_title("left")


def test_image_pixels_are_png_pixels(tmp_path):
    path = figures.save_image_grid(DIGITS[:4], tmp_path / "grid.png", value_range=(0.0, 1.0))
    with Image.open(path) as file:
        picture = np.asarray(file.convert("RGB"))
    tile = 48
    expected = (DIGITS[0, ..., 0] * 255).repeat(6, 0).repeat(6, 1)
    # The grid starts 16 pixels from the left, 44 from the top.
    found = picture[44 : 44 + tile, 16 : 16 + tile, 0].astype(float)
    np.testing.assert_allclose(found, expected, atol=1.5)


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
def test_values_become_greys(x, value_range, expected):
    picture = _tiles(figures.make_image_grid(x, value_range=value_range))
    np.testing.assert_allclose(picture, expected, atol=1e-6)


@pytest.mark.parametrize("c", [2, 4, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_other_channel_numbers_are_drawn_in_grey(c, dtype, tmp_path, rng):
    x = rng.integers(0, 256, (6, 8, 8, c)).astype(dtype)
    if dtype == np.float32:
        x /= 255
    note = f"grey: the mean of {c} channels"
    figure = figures.make_image_grid(x, value_range=(0.0, 1.0))
    tile = _tiles(figure)[:48:6, :48:6]
    expected = np.mean(x[0], axis=-1, dtype=np.float64) / (255 if dtype == np.uint8 else 1)
    np.testing.assert_allclose(tile, expected[..., None].repeat(3, -1), atol=0.6 / 255)
    assert figure.axes[0].texts[-1].get_text() == note
    # The error is that of all channels, not of their mean.
    x_recon = x[..., ::-1]
    figure = figures.make_reconstructions(x, x_recon, value_range=(0.0, 1.0))
    mse = np.square(x.astype(float) - x_recon).mean() / (255**2 if dtype == np.uint8 else 1)
    assert f"error {mse:.2g} per pixel" in figure.axes[0].get_title("left")
    assert note in [text.get_text() for text in figure.axes[0].texts]
    figures.save_samples({"a": x, "b": x}, tmp_path / "a.png", value_range=None)


@pytest.mark.parametrize("x", [DIGITS, CODES], ids=["images", "plain"])
def test_several_groups_say_that_they_share_the_noise(x):
    note = "the same noise in all panels, scaled"
    for groups in ({"a": x}, {"a": x, "b": x}):
        figure = figures.make_samples(groups, value_range=None)
        texts = [text.get_text() for axes in figure.axes for text in axes.texts]
        assert texts.count(note) == len(groups) - 1
        assert [axes.get_title("left") for axes in figure.axes][: len(groups)] == list(groups)


def test_samples_stand_side_by_side_under_their_names():
    groups = {"claimed scale 0.81": DIGITS, "measured scale 0.95": DIGITS[:9]}
    figure = figures.make_samples(groups, value_range=(0.0, 1.0))
    assert [axes.get_title("left") for axes in figure.axes] == list(groups)
    assert _tiles(figure, 0).shape[:2] == (5 * 51 - 3, 6 * 51 - 3)
    assert _tiles(figure, 1).shape[:2] == (3 * 51 - 3, 3 * 51 - 3)


@pytest.mark.parametrize("features", [1, 2, 3, 64])
def test_plain_data_is_drawn_too(features, tmp_path, rng):
    x = rng.standard_normal((20, features))
    figures.save_reconstructions(x, x + 0.1, tmp_path / "a.png", value_range=None)
    figures.save_image_grid(x, tmp_path / "b.png", value_range=None)
    figures.save_samples({"a": x, "b": x}, tmp_path / "c.png", value_range=None)


def test_large_images_are_shrunk(tmp_path, rng):
    x = rng.uniform(size=(4, 256, 256, 3))
    path = figures.save_image_grid(x, tmp_path / "a.png", value_range=(0.0, 1.0))
    with Image.open(path) as picture:
        assert max(picture.size) < 400


def test_bad_images_are_named():
    for shape in ((2, 4, 4), (0, 4, 4, 1), (4,)):
        with pytest.raises(ValueError, match="x must have shape"):
            figures.make_image_grid(np.zeros(shape), value_range=None)
    with pytest.raises(ValueError, match="they must agree"):
        figures.make_reconstructions(DIGITS, DIGITS[:3], value_range=None)
    with pytest.raises(ValueError, match="at least one set"):
        figures.make_samples({}, value_range=None)
    with pytest.raises(ValueError, match="one shape"):
        figures.make_samples({"a": DIGITS, "b": COLOUR}, value_range=None)


# Codes


def _label(axes, name):
    handles, labels = axes.get_legend_handles_labels()
    return handles[labels.index(name)]


def test_scatter_draws_the_codes_and_the_prior_s_circles(rng):
    z = 0.7 * rng.standard_normal((5000, 2))
    axes = figures.make_latent_scatter(z, prior_scale=0.7).axes[0]
    points = np.asarray(axes.collections[0].get_offsets())
    assert {tuple(p) for p in points} == {tuple(p) for p in z}
    for line, mass in zip(axes.lines, (0.5, 0.9, 0.99), strict=True):
        radius = np.hypot(*line.get_data())
        np.testing.assert_allclose(radius, 0.7 * np.sqrt(stats.chi2(2).ppf(mass)))
        assert np.mean(np.hypot(*z.T) < radius[0]) == pytest.approx(mass, abs=0.02)
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_aspect() == 1.0
    share = 100 * np.mean(np.hypot(*z.T) < 0.7 * np.sqrt(stats.chi2(2).ppf(0.9)))
    title = f"{share:.0f}% of 5,000 codes inside the 90% circle of the prior N(0, 0.7² I)"
    assert axes.get_title("left") == title


def test_scatter_takes_the_plane_of_largest_variance(rng):
    z = rng.standard_normal((500, 5)) * [0.1, 3.0, 0.1, 1.0, 0.1] + 0.2
    rotation = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    axes = figures.make_latent_scatter(z @ rotation).axes[0]
    points = np.asarray(axes.collections[0].get_offsets())
    second = np.linalg.eigvalsh(z.T @ z / 500)[::-1]
    np.testing.assert_allclose(np.mean(points**2, axis=0), second[:2])
    assert axes.texts[-1].get_text().startswith("plane of largest variance of 5 dimensions")


def test_scatter_colours_classes_as_the_legend_says(rng):
    labels = rng.choice(["cat", "dog", "owl"], size=400)
    axes = figures.make_latent_scatter(CODES[:, :2], labels=labels).axes[0]
    drawn = axes.collections[0]
    position = {tuple(z): label for z, label in zip(CODES[:, :2], labels, strict=True)}
    for point, color in zip(drawn.get_offsets(), drawn.get_facecolors(), strict=True):
        name = position[tuple(np.asarray(point))]
        expected = matplotlib.colors.to_rgb(_label(axes, name).get_color())
        np.testing.assert_allclose(color[:3], expected)


def test_scatter_of_many_labels_has_a_colour_bar():
    for labels in (np.arange(400), np.array([f"item {i}" for i in range(400)])):
        figure = figures.make_latent_scatter(CODES, labels=labels)
        assert len(figure.axes) == 2


def test_scatter_of_one_dimension_is_a_histogram(rng):
    z = rng.standard_normal((3000, 1))
    for labels in (None, np.arange(3000) % 3):
        axes = figures.make_latent_scatter(z, labels=labels).axes[0]
        grid, density = axes.lines[0].get_data()
        np.testing.assert_allclose(density, stats.norm.pdf(grid))
        stairs = [patch for patch in axes.patches if hasattr(patch, "get_data")]
        top, edges, _ = stairs[-1].get_data()
        assert np.sum(top * np.diff(edges)) == pytest.approx(1.0, abs=0.01)


def test_codes_that_are_not_finite_are_counted():
    z = CODES.copy()
    z[3] = np.nan
    z[5, 0] = np.inf
    axes = figures.make_latent_scatter(z, labels=np.zeros(400, int)).axes[0]
    assert "not finite: 2 codes" in axes.texts[-1].get_text()
    assert "398 codes" in axes.get_title("left")
    with pytest.raises(ValueError, match="no finite row among 4"):
        figures.make_radius_histogram(np.full((4, 2), np.nan))


def test_far_codes_do_not_shrink_the_rest(rng):
    z = rng.standard_normal((2000, 2))
    z[0] = 1e6
    axes = figures.make_latent_scatter(z).axes[0]
    assert axes.get_xlim()[1] < 10
    assert "beyond the picture: 1 code" in axes.texts[-1].get_text()
    axes = figures.make_radius_histogram(z).axes[0]
    assert axes.get_xlim()[1] < 10
    assert "beyond the picture: 1 code" in axes.texts[-1].get_text()


@pytest.mark.parametrize("d", [1, 2, 16, 2048])
def test_radius_is_compared_with_the_chi_density(d, rng):
    z = 0.8 * rng.standard_normal((300, d))
    axes = figures.make_radius_histogram(z, scale=0.8).axes[0]
    for name, scale in (("N(0, I)", 1.0), ("N(0, 0.8² I)", 0.8)):
        grid, density = _label(axes, name).get_data()
        np.testing.assert_allclose(density, stats.chi(d, scale=scale).pdf(grid), rtol=1e-6)
    counts, edges, _ = _label(axes, "codes").get_data()
    expected, _ = np.histogram(np.linalg.norm(z, axis=1), edges, density=True)
    np.testing.assert_allclose(counts, expected)
    assert "N(0, 0.8² I) (null 0.050)" in axes.get_title("left")


def test_radius_axis_begins_at_zero_and_holds_the_tail(rng):
    z = 0.8 * rng.standard_normal((2000, 8))
    z[:20] *= 1.6
    axes = figures.make_radius_histogram(z, scale=0.8).axes[0]
    assert axes.get_xlim()[0] == 0.0
    assert axes.get_xlim()[1] > np.linalg.norm(z, axis=1).max()
    assert axes.get_xlim()[1] > stats.chi(8).ppf(0.999)
    assert not axes.texts
    # A thin shell would be a spike on an axis from zero.
    axes = figures.make_radius_histogram(rng.standard_normal((300, 2048))).axes[0]
    assert axes.get_xlim()[0] > 35


@pytest.mark.parametrize("d", [1, 6])
def test_covariance_colours_are_centred_and_the_claim_is_drawn(d):
    z = CODES[:, :d]
    left, right, _ = figures.make_covariance(z, prior_scale=0.81).axes
    image = left.get_images()[0]
    covariance = np.atleast_2d(np.cov(z, rowvar=False))
    np.testing.assert_allclose(image.get_array(), covariance)
    low, high = image.get_clim()
    assert low == -high
    assert high == pytest.approx(np.abs(covariance).max())
    eigenvalues = np.linalg.eigvalsh(covariance)[::-1]
    np.testing.assert_allclose(_label(right, "codes").get_ydata(), eigenvalues)
    line = _label(right, "prior's variance, 1 − h² = 0.656")
    np.testing.assert_allclose(line.get_ydata(), 0.81**2)


def test_bad_codes_are_named():
    with pytest.raises(ValueError, match="z must have shape"):
        figures.make_covariance(np.zeros(4))
    with pytest.raises(ValueError, match="at least 2"):
        figures.make_covariance(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="labels must have shape"):
        figures.make_latent_scatter(CODES, labels=[1, 2])
    with pytest.raises(ValueError, match="prior_scale must be finite and positive"):
        figures.make_latent_scatter(CODES, prior_scale=0.0)


def test_degenerate_codes_are_drawn(tmp_path):
    for z in (np.zeros((5, 3)), np.zeros((1, 2)), np.zeros((1, 1)), np.zeros((5, 1))):
        figures.save_latent_scatter(z, tmp_path / "a.png")
        figures.save_radius_histogram(z, tmp_path / "b.png", scale=0.5)
        if len(z) > 1:
            figures.save_covariance(z, tmp_path / "c.png", prior_scale=0.5)


# Curves


def _panels(figure):
    return {axes.get_title("left").split()[0]: axes for axes in figure.axes}


def _labels(axes):
    return axes.get_legend_handles_labels()[1]


def test_curves_skip_absent_keys_and_draw_the_null():
    panels = _panels(figures.make_training_curves(ROWS))
    assert list(panels) == ["Loss", "KL", "Beta"]
    steps, values = panels["Loss"].lines[0].get_data()
    np.testing.assert_allclose(steps, np.arange(10, 101, 10))
    np.testing.assert_allclose(values, 3.0 + 1 / steps)
    kl = panels["KL"]
    assert kl.get_title("left") == "KL (nats)"
    # The last values stand in the legend, each under the name of its curve.
    assert set(_labels(kl)) == {"train −0.190", "validation 0.00", "null −0.240"}
    assert _labels(panels["Beta"]) == ["last 2.00"]
    np.testing.assert_allclose(_label(kl, "null −0.240").get_ydata(), -0.24)
    assert _label(kl, "null −0.240").get_linestyle() == "--"
    np.testing.assert_allclose(_label(kl, "validation 0.00").get_data(), [[50, 100], [0.1, 0.0]])


@pytest.mark.parametrize(
    ("staleness", "tail", "panels"),
    [(2.0, 0.0, []), (10.0, 0.01, ["Codes"]), (11.0, 0.0, ["Staleness"])],
)
def test_only_what_is_worth_a_panel_gets_one(staleness, tail, panels):
    names = ("loss", "reconstruction", "kl", "score", "gradient_norm", "log_p", "log_q", "mmd")
    row = {f"{split}/{name}": 1.0 for name in names for split in ("train", "validation")}
    row |= {"train/staleness": staleness, "train/tail_share": 0.0, "validation/tail_share": tail}
    row |= {"train/skipped_share": 0.5, "train/broken_z": 1.0, "train/kl_of_none": None}
    row |= {"beta": 1.0, "learning_rate": 1e-3, "images_per_second": 9.0, "epoch": 1}
    figure = figures.make_training_curves([{"step": step, **row} for step in (1, 2)])
    usual = ["Loss", "Reconstruction", "KL", "Score", "Beta", "Learning", "Gradient"]
    assert sorted(_panels(figure)) == sorted(usual + panels)


def test_gaps_stay_gaps():
    rows = [{"step": s, "train/kl": v} for s, v in ((1, 0.5), (2, None), (3, 0.25))]
    axes = figures.make_training_curves(rows).axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [0.5, np.nan, 0.25])


def test_the_best_score_is_marked():
    scores = [3.0, 1.5, None, 2.5]
    rows = [{"step": 1000 * (i + 1), "validation/score": v} for i, v in enumerate(scores)]
    axes = figures.make_training_curves(rows).axes[0]
    assert _labels(axes) == ["validation 2.50", "best 1.50, step 2,000"]
    np.testing.assert_array_equal(np.ravel(axes.lines[-1].get_data()), [2000, 1.5])


def test_a_huge_start_does_not_hide_the_end(rng):
    steps = np.arange(1, 501)
    kl = 1000 * np.exp(-steps / 5) - 0.2 + 0.05 * rng.standard_normal(500)
    loss = 1e4 * np.exp(-steps / 5) + 3.0
    rows = [
        {"step": int(s), "train/kl": k, "train/loss": v, "beta": 3 + 3 * np.exp(-s / 5)}
        for s, k, v in zip(steps, kl, loss, strict=True)
    ]
    panels = _panels(figures.make_training_curves(rows))
    assert panels["KL"].get_ylim()[1] < 1.0
    # An axis that leaves something out says so.
    assert panels["KL"].get_title("right") == "axis cut, goes up to 819"
    assert panels["Beta"].get_title("right") == "axis cut, goes up to 5.46"
    assert panels["Loss"].get_yscale() == "log"
    assert panels["Loss"].get_title("right") == ""


@pytest.mark.parametrize(("first", "scale"), [(9.0, "linear"), (11.0, "log")])
def test_more_than_a_decade_takes_a_logarithmic_axis(first, scale):
    rows = [{"step": s, "train/reconstruction": v} for s, v in enumerate((first, 3.0, 1.0))]
    assert figures.make_training_curves(rows).axes[0].get_yscale() == scale


def test_noisy_curves_are_smoothed_over_the_raw_ones(rng):
    values = rng.standard_normal(400)
    rows = [{"step": s, "train/kl": v, "beta": v} for s, v in enumerate(values)]
    figure = figures.make_training_curves(rows)
    panels = _panels(figure)
    raw, smooth = panels["KL"].lines
    np.testing.assert_array_equal(raw.get_ydata(), values)
    expected = [values[max(i - 4, 0) : i + 5].mean() for i in range(400)]
    np.testing.assert_allclose(smooth.get_ydata(), expected, atol=1e-12)
    assert len(panels["Beta"].lines) == 1
    assert "smoothed" in figure.get_suptitle()
    assert "smoothed" not in figures.make_training_curves(rows[:9]).get_suptitle()


def test_curves_of_nothing_are_refused():
    for rows in ([{"step": 1, "epoch": 2}], [{"step": 1, "train/log_p": 1.0}], []):
        with pytest.raises(ValueError, match="no metric to draw"):
            figures.make_training_curves(rows)
