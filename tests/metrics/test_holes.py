import warnings

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from avae_jax.metrics.holes import (
    far_prior_share,
    hole_points,
    plane_holes,
    prior_coverage,
    worst_plane,
)
from avae_jax.metrics.neighbors import nearest_distances


@pytest.fixture(autouse=True)
def _one_blas_thread():
    # Hundreds of small products: threads that wait for each other only cost.
    with threadpool_limits(limits=1):
        yield


def _with_hole(rng, n, d, center=0.8, radius=0.6):
    """Draw from N(0, I) outside a cylinder over a disc in the first two dimensions."""
    z = rng.standard_normal((3 * n, d))
    return z[np.hypot(z[:, 0] - center, z[:, 1]) > radius][:n]


def _coverage_std(z, num_draws, seed):
    return prior_coverage(z, num_draws=num_draws, seed=seed)["prior_coverage_null_std"]


def _zscore(result, name):
    return (result[name] - result[name + "_null"]) / result[name + "_null_std"]


@pytest.mark.parametrize("k", [3, 5])
def test_coverage_equals_prdc(k, monkeypatch):
    prdc = pytest.importorskip("prdc")
    z = 0.7 * np.random.default_rng(3).standard_normal((400, 4))
    # The draws of the function itself, seen through the search it makes.
    seen = []

    def spy(queries, points, **options):
        seen.append(np.array(queries))
        return nearest_distances(queries, points, **options)

    monkeypatch.setattr("avae_jax.metrics.holes.nearest_distances", spy)
    coverage = prior_coverage(z, k=k, num_draws=300)["prior_coverage"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = prdc.compute_prdc(real_features=seen[0], fake_features=z, nearest_k=k)
    assert coverage == pytest.approx(expected["coverage"], abs=1e-12)
    assert 0.2 < coverage < 0.99


@pytest.mark.parametrize(("n", "m", "d"), [(300, 300, 2), (200, 400, 16), (300, 150, 48)])
def test_coverage_null(n, m, d):
    rng = np.random.default_rng(0)
    stds = [_coverage_std(rng.standard_normal((n, d)), m, i) for i in range(4)]
    runs = [
        prior_coverage(
            2.0 * rng.standard_normal((n, d)), scale=2.0, num_draws=m, num_null=2, seed=i
        )
        for i in range(60)
    ]
    values = np.array([run["prior_coverage"] for run in runs])
    stderr = values.std(ddof=1) / np.sqrt(60)
    assert abs(values.mean() - runs[0]["prior_coverage_null"]) < 5 * stderr
    # 80 repetitions against 60: five standard errors of the ratio are 0.7.
    assert np.mean(stds) == pytest.approx(values.std(ddof=1), rel=0.4)


def _two_clusters(rng, n, d):
    """Draw from two Gaussians six standard deviations apart."""
    return rng.standard_normal((n, d)) + 3.0 * rng.choice([-1.0, 1.0], (n, 1))


def _sampler(seed, d):
    rng = np.random.default_rng(seed)
    return lambda n: _two_clusters(rng, n, d)


@pytest.mark.parametrize("measure", [prior_coverage, far_prior_share])
def test_codes_are_compared_with_draws_of_another_prior(measure):
    rng, name, d = np.random.default_rng(0), measure.__name__, 3
    runs = [
        measure(_two_clusters(rng, 400, d), sample=_sampler(seed, d), seed=seed)
        for seed in range(20)
    ]
    values = np.array([run[name] for run in runs])
    stderr = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean() - runs[0][f"{name}_null"]) < 5 * stderr
    # 20 repetitions on either side: five standard errors of the ratio of their spreads are 1.1.
    assert runs[0][f"{name}_null_std"] == pytest.approx(values.std(ddof=1), rel=1.1)
    # One cluster leaves the other empty.
    one = np.abs(_two_clusters(rng, 400, d))
    assert abs(_zscore(measure(one, sample=_sampler(1, d)), name)) > 10
    # Draws of the clusters do not follow N(0, I) either.
    assert abs(_zscore(measure(_two_clusters(rng, 400, d)), name)) > 10


def test_holes_of_another_prior_lie_where_it_is():
    one = np.abs(_two_clusters(np.random.default_rng(0), 400, 3))
    points = hole_points(one, sample=_sampler(1, 3), num_points=20).points
    assert (points.mean(axis=1) < 0.0).all()


def test_draws_of_another_width_are_refused():
    with pytest.raises(ValueError, match="draws of sample"):
        prior_coverage(np.zeros((20, 3)), sample=_sampler(0, 2))


def test_coverage_null_for_equal_sizes():
    z = np.random.default_rng(0).standard_normal((2000, 2))
    i = np.arange(1, 6)
    result = prior_coverage(z)
    assert result["prior_coverage_null"] == pytest.approx(1 - np.prod((2000 - i) / (4000 - i)))
    assert result["prior_coverage_null"] == pytest.approx(0.9689, abs=1e-4)
    assert abs(_zscore(result, "prior_coverage")) < 5


def test_null_std_scales_to_large_samples():
    rng = np.random.default_rng(0)
    stds = [_coverage_std(rng.standard_normal((1500, 8)), 1500, i) for i in range(3)]
    runs = [prior_coverage(rng.standard_normal((1500, 8)), num_null=2, seed=i) for i in range(30)]
    values = [run["prior_coverage"] for run in runs]
    assert np.mean(stds) == pytest.approx(np.std(values, ddof=1), rel=0.5)


def test_codes_from_the_callers_generator_are_not_the_draws():
    for seed in (0, 1):
        z = np.random.default_rng(seed).standard_normal((500, 3))
        assert prior_coverage(z, seed=seed)["prior_coverage"] < 1.0


def test_far_share_of_prior_codes_is_one_per_cent():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((300, 4))
    stds = [far_prior_share(z, seed=i)["far_prior_share_null_std"] for i in range(4)]
    runs = [
        far_prior_share(0.5 * rng.standard_normal((300, 4)), scale=0.5, num_null=2, seed=i)
        for i in range(80)
    ]
    values = np.array([run["far_prior_share"] for run in runs])
    assert abs(values.mean() - 0.01) < 5 * values.std(ddof=1) / np.sqrt(80)
    assert np.mean(stds) == pytest.approx(values.std(ddof=1), rel=0.4)


def test_missing_half_of_the_prior_shows_everywhere():
    z = np.random.default_rng(0).standard_normal((1500, 4))
    z[:, 0] = np.abs(z[:, 0])
    assert far_prior_share(z)["far_prior_share"] > 0.1
    assert _zscore(prior_coverage(z), "prior_coverage") < -10
    assert _zscore(plane_holes(z, num_null=5), "plane_max_chi2") > 10
    found = hole_points(z, num_points=40)
    assert np.mean(found.points[:, 0] < 0) > 0.95


def test_far_share_flags_high_dimensions():
    rng = np.random.default_rng(0)
    for d, flag in [(16, 1.0), (17, 0.0)]:
        result = far_prior_share(rng.standard_normal((50, d)))
        assert result["far_prior_share_is_meaningful"] == flag


def test_hole_points_lie_in_the_hole():
    z = _with_hole(np.random.default_rng(0), 4000, 2)
    found = hole_points(z, num_points=30)
    inside = np.hypot(found.points[:, 0] - 0.8, found.points[:, 1]) < 0.6
    assert inside.all()
    assert np.all(np.diff(found.ratios) <= 0)
    np.testing.assert_allclose(found.distances, nearest_distances(found.points, z, k=5))
    assert found.ratios[-1] > 2.0
    assert len(hole_points(z[:100], num_points=200).points) == 100


@pytest.mark.parametrize("n", [3000, 10_000])
def test_hole_in_two_of_sixteen_dimensions_is_found(n):
    z = _with_hole(np.random.default_rng(0), n, 16)
    result = plane_holes(z, num_null=10)
    assert _zscore(result, "plane_max_chi2") > 10
    assert _zscore(result, "plane_min_fill") < -5
    assert result["plane_min_fill"] < 0.1
    assert result["plane_share_above"] == pytest.approx(1 / 11)
    assert result["plane_num_planes"] == 350

    worst = worst_plane(z)
    assert worst.chi2 == pytest.approx(result["plane_max_chi2"])
    # The plane is the hole's, and its emptiest cell lies in the disc.
    assert np.linalg.norm(worst.directions[:, :2]) == pytest.approx(np.sqrt(2))
    radius, angle = np.mean(worst.cell_radius), np.mean(worst.cell_angle)
    x, y = worst.directions[:, :2].T @ [radius * np.cos(angle), radius * np.sin(angle)]
    assert np.hypot(x - 0.8, y) < 0.6
    assert worst.counts.sum() == n
    assert worst.counts[worst.cell] == worst.counts.min() < 0.1 * worst.expected


def test_rotated_hole_is_found_from_the_codes_own_axes():
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.standard_normal((16, 16)))[0]
    z = _with_hole(rng, 10_000, 16, center=0.0) @ q
    result = plane_holes(z, num_null=10)
    assert _zscore(result, "plane_max_chi2") > 10
    # The worst plane is nearly the hole's: cosines of the principal angles.
    cosines = np.linalg.svd(worst_plane(z).directions @ q[:2].T, compute_uv=False)
    assert cosines.min() > 0.8


def test_prior_codes_raise_no_alarm():
    rng = np.random.default_rng(0)
    runs = [
        plane_holes(0.8 * rng.standard_normal((1000, 16)), scale=0.8, seed=i) for i in range(30)
    ]
    zscores = np.array([_zscore(run, "plane_max_chi2") for run in runs])
    # The null mean of 20 repetitions has an error of its own; the maximum is skewed.
    assert abs(zscores.mean()) < 5 * np.sqrt((1 + 1 / 20) / 30)
    assert np.mean(zscores > 4) <= 1 / 30
    assert np.mean([_zscore(run, "plane_min_fill") < -4 for run in runs]) <= 1 / 30
    # One in 21 is expected at the smallest share: 7 of 30 has probability 1e-4.
    assert np.sum([run["plane_share_above"] < 1 / 20 for run in runs]) < 7


def test_cells_have_equal_mass_and_fixed_planes_use_the_priors_scale():
    z = 0.6 * np.random.default_rng(0).standard_normal((20_000, 2))
    worst = worst_plane(
        z, scale=0.6, num_rings=3, num_sectors=4, num_random_planes=0, num_extreme_axes=0
    )
    np.testing.assert_array_equal(worst.directions, np.eye(2))
    np.testing.assert_array_equal(worst.spreads, [0.6, 0.6])
    # Chi-square with 11 degrees of freedom: 39 has probability 5e-5.
    assert worst.chi2 < 39
    # An independent count of the cells.
    radius = np.hypot(*z.T) / 0.6
    edges = np.sqrt(-2 * np.log([2 / 3, 1 / 3]))
    angle = np.arctan2(z[:, 1], z[:, 0])
    expected = np.histogram2d(
        np.digitize(radius, edges), angle, bins=[np.arange(4) - 0.5, np.linspace(-np.pi, np.pi, 5)]
    )[0]
    assert np.abs(worst.counts - expected).max() <= 1


def test_extreme_planes_are_standardised_and_bounded():
    rng = np.random.default_rng(0)
    # Collapsed and shifted codes: nothing blows up.
    z = rng.standard_normal((600, 4)) * [1.0, 1.0, 0.0, 1e-9] + 3.0
    result = plane_holes(z, num_null=2, num_random_planes=5)
    assert all(np.isfinite(value) for value in result.values())
    assert _zscore(result, "plane_max_chi2") > 10


def test_cap_on_the_pairs_of_axes():
    z = np.random.default_rng(0).standard_normal((300, 20))
    options = {"num_random_planes": 3, "num_extreme_axes": 0, "num_null": 2}
    assert plane_holes(z, max_axis_pairs=7, **options)["plane_num_planes"] == 10
    assert plane_holes(z, max_axis_pairs=500, **options)["plane_num_planes"] == 193


def test_undefined_is_nan():
    rng = np.random.default_rng(0)
    for z in (rng.standard_normal((1, 3)), rng.standard_normal((239, 3)), np.ones((500, 1))):
        result = plane_holes(z, num_null=2)
        result.pop("plane_num_planes")
        assert all(np.isnan(value) for value in result.values())
        with pytest.raises(ValueError, match="too small for 48 cells"):
            worst_plane(z)
    assert all(np.isnan(value) for value in prior_coverage(np.ones((5, 2))).values())
    few = far_prior_share(np.ones((4, 2)))
    assert few.pop("far_prior_share_is_meaningful") == 1.0
    assert all(np.isnan(value) for value in few.values())
    # Constant codes are legitimate and far from the prior.
    constant = np.zeros((300, 2))
    assert prior_coverage(constant)["prior_coverage"] < 0.05
    assert far_prior_share(constant)["far_prior_share"] > 0.1


def test_bad_input_is_named():
    z = np.random.default_rng(0).standard_normal((300, 3))
    with pytest.raises(ValueError, match="scale must be finite and positive"):
        prior_coverage(z, scale=0.0)
    for metric in (prior_coverage, far_prior_share):
        with pytest.raises(ValueError, match="num_null must be an integer of at least 2, got 1"):
            metric(z, num_null=1)
    with pytest.raises(ValueError, match="k must be an integer of at least .*, got 0"):
        prior_coverage(z, k=0)
    with pytest.raises(ValueError, match="k is 300 but there are 299 neighbours"):
        nearest_distances(z, z, k=300, exclude_own=True)
    with pytest.raises(ValueError, match="queries has latent_dim 2 but points has 3"):
        nearest_distances(z[:, :2], z, k=1)
    with pytest.raises(ValueError, match="z has 4 rows, at least 5"):
        hole_points(z[:4])
    with pytest.raises(TypeError, match=r"num_points must be an integer .* got 2\.5"):
        hole_points(z, num_points=2.5)  # type: ignore
    with pytest.raises(ValueError, match="seed must be an integer of at least .*, got -1"):
        far_prior_share(z, seed=-1)
    with pytest.raises(ValueError, match="num_null must be an integer of at least .*, got 1"):
        plane_holes(z, num_null=1)
    with pytest.raises(ValueError, match="give at least two"):
        plane_holes(z, num_rings=1, num_sectors=1)
    with pytest.raises(ValueError, match="no plane to search"):
        plane_holes(z, max_axis_pairs=0, num_random_planes=0, num_extreme_axes=0)
    with pytest.raises(ValueError, match="z has 1 of 2 rows that are not finite"):
        plane_holes(np.array([[0.0, 0.0], [np.nan, 0.0]]))
