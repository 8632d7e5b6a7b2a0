import warnings

import numpy as np
import pytest
from scipy import special, stats
from threadpoolctl import threadpool_limits

from avae_jax.metrics.holes import (
    emptiest_ball,
    emptiest_disc,
    emptiest_slab,
    far_prior_share,
    hole_points,
    prior_coverage,
    smallest_disc,
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


def _evidence(count, mass, n):
    """The log-likelihood ratio of a binomial count, by SciPy."""
    return stats.binom.logpmf(count, n, count / n) - stats.binom.logpmf(count, n, mass)


@pytest.mark.parametrize("d", [2, 16, 24])
def test_an_empty_disc_is_found_in_the_plane_it_lies_in(d):
    z = _with_hole(np.random.default_rng(0), 3000, d)
    found = emptiest_disc(z)
    # The plane is the hole's, of 276 pairs of axes, which are more than are searched finely.
    assert np.linalg.norm(found.directions[:, :2]) == pytest.approx(np.sqrt(2))
    # The disc holds 13% of the prior; cells that lie in it hold less.
    assert 0.03 < found.mass < 0.14
    assert found.count <= 0.25 * 3000 * found.mass
    assert found.evidence == pytest.approx(_evidence(found.count, found.mass, 3000), rel=1e-4)
    # Anywhere else there is next to nothing.
    others = emptiest_disc(z[:, 1:] if d > 2 else np.random.default_rng(1).standard_normal(z.shape))
    assert others.evidence < 0.2 * found.evidence


def test_two_peaks_of_an_axis_are_no_disc_and_no_slab():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((3000, 4))
    null = emptiest_disc(z).evidence, emptiest_slab(z).evidence
    z[:, 0] = 0.5 * z[:, 0] + np.sqrt(0.75) * rng.choice([-1.0, 1.0], 3000)
    assert emptiest_disc(z).evidence < 2.0 * null[0]
    assert emptiest_slab(z).evidence < 2.0 * null[1]


def test_an_empty_slab_is_measured_by_the_axis_it_lies_across():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2000, 5))
    v = special.ndtr(z[:, 3])
    z = z[(v < 0.6) | (v > 0.65)]
    found = emptiest_slab(z)
    np.testing.assert_array_equal(found.directions, np.eye(5)[[3]])
    assert found.mass == pytest.approx(0.05, abs=0.004)
    assert found.evidence > 0.9 * _evidence(found.count, 0.05, len(z))


@pytest.mark.parametrize("d", [1, 3, 64])
def test_an_empty_ball_is_measured_by_the_radius(d):
    z = np.random.default_rng(0).standard_normal((4000, d))
    z = z[np.sum(np.square(z), axis=1) > stats.chi2.ppf(0.05, d)]
    found = emptiest_ball(z)
    assert found.mass == pytest.approx(0.05, abs=0.003)
    assert found.count <= 2
    # Light tails, which leave the center bare and what is farther out too, are no ball.
    cube = np.random.default_rng(1).uniform(-np.sqrt(3), np.sqrt(3), (4000, 64))
    assert emptiest_ball(cube).evidence < 5.0


@pytest.mark.parametrize(("n", "evidence"), [(359, 10.0), (5000, 14.0)])
def test_the_smallest_disc_is_as_large_as_what_is_found(n, evidence):
    share = smallest_disc(n, evidence)
    rng = np.random.default_rng(0)

    def found(mass):
        radius = np.sqrt(stats.ncx2.ppf(mass, 2, 0.32**2))
        holed = (_with_hole(rng, n, 2, center=0.32, radius=radius) for _ in range(10))
        return np.mean([emptiest_disc(z).evidence >= evidence for z in holed])

    assert found(1.5 * share) > 0.8
    assert found(0.5 * share) < 0.6


def test_undefined_is_nan():
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
