"""Codes against their prior: what is drawn is compared with scipy's distributions."""

import matplotlib
import numpy as np
import pytest
from scipy import stats

from avae_jax import figures

CODES = np.random.default_rng(0).standard_normal((400, 6)) * np.linspace(0.5, 1.2, 6)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def _label(axes, name):
    handles, labels = axes.get_legend_handles_labels()
    return handles[labels.index(name)]


def test_scatter_draws_the_codes_and_the_prior_s_circles(rng):
    z = 0.7 * rng.standard_normal((5000, 2))
    axes = figures.make_latent_scatter(z, prior_std=0.7).axes[0]
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


@pytest.mark.parametrize(("d", "spread"), [(3, 1.0), (16, 0.7), (64, 1.1)])
def test_scatter_tells_the_coverage_in_all_dimensions(rng, d, spread):
    """A plane alone cannot: codes that are too narrow everywhere fill most of its circles."""
    z = 0.8 * spread * rng.standard_normal((2000, d))
    axes = figures.make_latent_scatter(z, prior_std=0.8).axes[0]
    inside = stats.chi2(d).cdf(np.square(z / 0.8).sum(axis=1))
    shares = [round(100 * np.mean(inside <= mass)) for mass in (0.5, 0.9, 0.99)]
    title = f"{shares[1]}% of 2,000 codes inside the 90% ball of the prior N(0, 0.8² I)"
    assert axes.get_title("left") == title
    points = np.asarray(axes.collections[0].get_offsets())
    inside = stats.chi2(2).cdf(np.square(points / 0.8).sum(axis=1))
    plane = [round(100 * np.mean(inside <= mass)) for mass in (0.5, 0.9, 0.99)]
    whole, of_plane = (", ".join(map(str, row)) for row in (shares, plane))
    note = axes.texts[-1].get_text()
    assert f"in {d} dimensions {whole}% of the codes inside the balls of 50, 90, 99%" in note
    assert f"% of the total: {of_plane}% inside the circles" in note


@pytest.mark.parametrize("d", [1, 2])
def test_codes_of_a_prior_without_circles_are_drawn_alone(rng, d):
    z = rng.standard_normal((300, d))
    axes = figures.make_latent_scatter(z, prior_std=None).axes[0]
    assert not axes.lines
    assert axes.get_title("left") == "300 codes"
    reach = axes.get_xlim()[1]
    assert np.abs(z).max() <= reach < 2 * np.abs(z).max()
    if d == 2:
        axes = figures.make_planes(z, {"both": np.eye(2)}, prior_std=None).axes[0]
        assert not axes.lines
        assert np.quantile(np.abs(z), 0.99) < axes.get_xlim()[1] < 2 * np.abs(z).max()


def test_scatter_takes_the_plane_of_largest_variance(rng):
    z = rng.standard_normal((500, 5)) * [0.1, 3.0, 0.1, 1.0, 0.1] + 0.2
    rotation = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    axes = figures.make_latent_scatter(z @ rotation).axes[0]
    points = np.asarray(axes.collections[0].get_offsets())
    second = np.linalg.eigvalsh(z.T @ z / 500)[::-1]
    np.testing.assert_allclose(np.mean(points**2, axis=0), second[:2])
    assert "plane of largest variance, " in axes.texts[-1].get_text()


def test_scatter_colors_classes_as_the_legend_says(rng):
    labels = rng.choice(["cat", "dog", "owl"], size=400)
    axes = figures.make_latent_scatter(CODES[:, :2], labels=labels).axes[0]
    drawn = axes.collections[0]
    position = {tuple(z): label for z, label in zip(CODES[:, :2], labels, strict=True)}
    for point, color in zip(drawn.get_offsets(), drawn.get_facecolors(), strict=True):
        name = position[tuple(np.asarray(point))]
        expected = matplotlib.colors.to_rgb(_label(axes, name).get_color())
        np.testing.assert_allclose(color[:3], expected)


def test_scatter_of_many_labels_has_a_color_bar():
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
    with pytest.raises(ValueError, match="a finite row, got none among 4"):
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


def test_scales_that_agree_are_one_curve(rng):
    z = rng.standard_normal((300, 4))
    for std, names in (
        (0.99, {"N(0, 0.99² I)"}),
        (0.9, {"N(0, I)", "N(0, 0.9² I)"}),
        (1.0, {"N(0, I)"}),
    ):
        axes = figures.make_radius_histogram(z, prior_std=std).axes[0]
        assert {*axes.get_legend_handles_labels()[1]} == {"codes", *names}


@pytest.mark.parametrize("d", [1, 2, 16, 2048])
def test_radius_is_compared_with_the_chi_density(d, rng):
    z = 0.8 * rng.standard_normal((300, d))
    axes = figures.make_radius_histogram(z, prior_std=0.8).axes[0]
    for name, scale in (("N(0, I)", 1.0), ("N(0, 0.8² I)", 0.8)):
        grid, density = _label(axes, name).get_data()
        np.testing.assert_allclose(density, stats.chi(d, scale=scale).pdf(grid), rtol=1e-6)
    counts, edges, _ = _label(axes, "codes").get_data()
    expected, _ = np.histogram(np.linalg.norm(z, axis=1), edges, density=True)
    np.testing.assert_allclose(counts, expected)


def test_radius_axis_begins_at_zero_and_holds_the_tail(rng):
    z = 0.8 * rng.standard_normal((2000, 8))
    z[:20] *= 1.6
    axes = figures.make_radius_histogram(z, prior_std=0.8).axes[0]
    assert axes.get_xlim()[0] == 0.0
    assert axes.get_xlim()[1] > np.linalg.norm(z, axis=1).max()
    assert axes.get_xlim()[1] > stats.chi(8).ppf(0.999)
    assert not axes.texts
    # A thin shell would be a spike on an axis from zero.
    axes = figures.make_radius_histogram(rng.standard_normal((300, 2048))).axes[0]
    assert axes.get_xlim()[0] > 35


@pytest.mark.parametrize("d", [1, 6])
def test_covariance_colors_are_centered_and_the_claim_is_drawn(d):
    z = CODES[:, :d]
    left, right, _ = figures.make_covariance(z, prior_std=0.81).axes
    image = left.get_images()[0]
    covariance = np.atleast_2d(np.cov(z, rowvar=False))
    np.testing.assert_allclose(image.get_array(), covariance)
    low, high = image.get_clim()
    assert low == -high
    assert high == pytest.approx(np.abs(covariance).max())
    eigenvalues = np.linalg.eigvalsh(covariance)[::-1]
    np.testing.assert_allclose(_label(right, "codes").get_ydata(), eigenvalues)
    line = _label(right, "prior's variance, 0.656")
    np.testing.assert_allclose(line.get_ydata(), 0.81**2)


def test_bad_codes_are_named():
    with pytest.raises(ValueError, match="z must have shape"):
        figures.make_covariance(np.zeros(4))
    with pytest.raises(ValueError, match="at least 2"):
        figures.make_covariance(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="labels must have shape"):
        figures.make_latent_scatter(CODES, labels=[1, 2])
    with pytest.raises(ValueError, match="prior_std must be finite and positive"):
        figures.make_latent_scatter(CODES, prior_std=0.0)


@pytest.mark.parametrize("shape", [(5, 3), (1, 2), (1, 1), (5, 1)])
def test_codes_of_one_value_are_drawn(shape):
    z = np.zeros(shape)
    pictures = [figures.make_latent_scatter(z), figures.make_radius_histogram(z, prior_std=0.5)]
    if len(z) > 1:
        pictures.append(figures.make_covariance(z, prior_std=0.5))
        # No covariance is white, as everywhere else.
        assert pictures[-1].axes[0].get_images()[0].norm(0.0) == 0.5
    for figure in pictures:
        # Warnings of matplotlib, of a range without width say, are errors here.
        assert figures.to_png(figure).startswith(b"\x89PNG")
        for axes in figure.axes:
            assert np.all(np.isfinite([*axes.get_xlim(), *axes.get_ylim()]))


def test_the_distance_in_the_title_is_the_one_given():
    axes = figures.make_radius_histogram(CODES, prior_std=0.8, distance=(0.0314, 0.05)).axes[0]
    title = "Radius of the codes: KS distance 0.031 from N(0, 0.8² I) (null 0.050)"
    assert axes.get_title("left") == title
    axes = figures.make_radius_histogram(CODES, distance=(0.0314, 0.05)).axes[0]
    assert "from N(0, I) (null" in axes.get_title("left")
    assert figures.make_radius_histogram(CODES).axes[0].get_title("left") == "Radius of 400 codes"


def test_planes_show_the_codes_along_their_directions(rng):
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    planes = {"first": rotation[:2], "last": rotation[4:]}
    figure = figures.make_planes(CODES, planes, prior_std=0.7)
    assert [axes.get_title("left") for axes in figure.axes] == ["first", "last"]
    for axes, plane in zip(figure.axes, planes.values(), strict=True):
        drawn = np.asarray(axes.collections[0].get_offsets())
        expected = np.einsum("nd,kd->nk", CODES, plane)
        np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(expected, axis=0))
        radii = [np.hypot(*line.get_data())[0] for line in axes.lines]
        np.testing.assert_allclose(radii, 0.7 * np.sqrt(stats.chi2(2).ppf([0.5, 0.9, 0.99])))
    with pytest.raises(ValueError, match="planes.'a'. must have shape .2, 6., got .3, 6."):
        figures.make_planes(CODES, {"a": rotation[:3]}, prior_std=1.0)
    with pytest.raises(ValueError, match="at least one plane"):
        figures.make_planes(CODES, {}, prior_std=1.0)


@pytest.mark.parametrize(("least", "scale"), [(0.5, "linear"), (0.01, "log")])
def test_spectrum_falls_beside_the_prior_s(least, scale):
    eigenvalues = np.array([0.7, least, 1.0])
    panels = figures.make_spectrum(eigenvalues, prior_std=0.9, relevance=[1.0, 5.0, 2.0]).axes
    np.testing.assert_allclose(_label(panels[0], "codes").get_ydata(), [1.0, 0.7, least])
    np.testing.assert_allclose(_label(panels[0], "prior").get_ydata(), 0.81)
    assert panels[0].get_yscale() == scale
    np.testing.assert_allclose(panels[1].lines[0].get_ydata(), [62.5, 87.5, 100.0])
    assert len(figures.make_spectrum(eigenvalues, prior_std=0.9).axes) == 1
