import math

import numpy as np
import pytest
from scipy import integrate, special, stats

from avae_jax.metrics.sliced_wasserstein import max_sliced_w2, sliced_w2, sliced_w2_along


def normal(seed, n, d):
    return np.random.default_rng(seed).standard_normal((n, d))


def unit_columns(seed, d, count):
    directions = normal(seed, d, count)
    return directions / np.linalg.norm(directions, axis=0)


# Slow for the import of POT and its back-ends.
@pytest.mark.slow
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 7), (50, 50), (30, 45), (101, 64)])
def test_equals_pot_for_the_same_projections(n, m):
    ot = pytest.importorskip("ot")
    x, y, directions = 0.8 * normal(0, n, 6), normal(1, m, 6) + 0.3, unit_columns(2, 6, 20)
    expected = ot.sliced.sliced_wasserstein_distance(x, y, projections=directions)
    assert sliced_w2_along(x, y, directions) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("n", "m"), [(9, 9), (6, 15)])
def test_along_an_axis_is_the_integral_over_quantiles(n, m):
    x, y = normal(0, n, 2), normal(1, m, 2)
    # A grid that both sample sizes divide makes the midpoint rule exact.
    grid = (np.arange(n * m) + 0.5) / (n * m)
    a = np.sort(x[:, 0])[(grid * n).astype(int)]
    b = np.sort(y[:, 0])[(grid * m).astype(int)]
    expected = math.sqrt(np.mean((a - b) ** 2))
    assert sliced_w2_along(x, y, np.eye(2)[:, :1]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_one_dimension_against_the_prior_is_exact(n):
    z = 1.5 * normal(0, n, 1) - 0.2
    ordered = np.sort(z[:, 0])
    total = 0.0
    for i, value in enumerate(ordered):
        edges = i / n, (i + 1) / n
        total += integrate.quad(lambda u, v: (v - 0.7 * special.ndtri(u)) ** 2, *edges, (value,))[0]
    found = sliced_w2(z, scale=0.7, num_projections=3, num_null=0)
    assert found["sliced_w2"] == pytest.approx(math.sqrt(total), rel=1e-6)
    assert math.isnan(found["sliced_w2_null"])


def test_equals_the_closed_form_between_gaussians():
    n, d, s = 100_000, 6, 0.8
    mu = np.array([1.0, -0.5, 0, 0, 0.3, 0])
    # Whole orthonormal bases average (u.mu)^2 to |mu|^2 / d exactly.
    found = sliced_w2(mu + s * normal(0, n, d), num_projections=5 * d, num_null=0)["sliced_w2"]
    expected = mu @ mu / d + (s - 1) ** 2
    # d/dm and d/ds of the square, times the errors of mean and deviation.
    error = 2 * s * math.sqrt((mu @ mu / d + (s - 1) ** 2 / 2) / n)
    assert abs(found**2 - expected) < 5 * error


def test_a_drawn_reference_agrees_with_the_exact_prior():
    z, y = normal(0, 4000, 8) * 0.8, normal(1, 4000, 8)
    exact = sliced_w2(z, num_null=0)["sliced_w2"]
    drawn = sliced_w2(z, reference=y, num_null=0)["sliced_w2"]
    assert drawn == pytest.approx(exact, rel=0.05)
    assert exact == pytest.approx(0.2, rel=0.05)


def test_the_exact_prior_has_the_smaller_null():
    z, y = normal(0, 500, 8), normal(1, 500, 8)
    assert sliced_w2(z)["sliced_w2_null"] < 0.8 * sliced_w2(z, reference=y)["sliced_w2_null"]


@pytest.mark.parametrize("metric", [sliced_w2, max_sliced_w2])
@pytest.mark.parametrize("with_reference", [False, True])
def test_ideal_codes_lie_in_the_null(metric, with_reference):
    n, d, trials = 200, 6, 20
    name = metric.__name__
    values, nulls = [], []
    for i in range(trials):
        reference = 0.7 * normal(1000 + i, 150, d) if with_reference else None
        z = 0.7 * normal(i, n, d)
        found = metric(z, reference=reference, scale=0.7, num_null=3, seed=i)
        values.append(found[name])
        nulls.append(found[f"{name}_null"])
    error = math.hypot(np.std(values, ddof=1), np.std(nulls, ddof=1)) / math.sqrt(trials)
    assert abs(np.mean(values) - np.mean(nulls)) < 5 * error
    assert error < 0.1 * np.mean(nulls)


def test_max_finds_a_shift_along_one_direction():
    d, n = 20, 2000
    direction = unit_columns(3, d, 1)[:, 0]
    for reference in (None, normal(5, n, d)):
        z = normal(0, n, d) + 0.6 * direction
        found = max_sliced_w2(z, reference=reference)
        assert found["max_sliced_w2"] == pytest.approx(0.6, abs=0.08)


def test_max_finds_a_direction_that_moments_do_not_show():
    # Two clusters with mean 0 and covariance I along a hidden direction.
    d, n = 8, 3000
    basis, _ = np.linalg.qr(normal(3, d, d))
    z = normal(0, n, d)
    signs = np.sign(z[:, 0])
    z[:, 0] = 0.95 * signs + math.sqrt(1 - 0.95**2) * normal(1, n, 1)[:, 0]
    quantiles = np.sort(z[:, 0])
    exact = math.sqrt(np.mean((quantiles - stats.norm.ppf((np.arange(n) + 0.5) / n)) ** 2))
    found = max_sliced_w2(z @ basis)
    assert found["max_sliced_w2"] == pytest.approx(exact, rel=0.1)
    assert found["max_sliced_w2"] > 5 * found["max_sliced_w2_null"]


def test_a_fitted_direction_does_not_inflate_the_null():
    # Fewer codes than dimensions: the full-sample maximum would be far above a random direction.
    found = max_sliced_w2(normal(0, 60, 100), num_null=10)
    random = sliced_w2(normal(1, 30, 100))["sliced_w2_null"]
    assert found["max_sliced_w2_null"] == pytest.approx(random, rel=0.35)


def test_sensitivity():
    d, n = 16, 3000
    scales = np.where(np.arange(d) < 2, 0.1, 1.0)
    tailed = np.random.default_rng(0).standard_t(5, (n, d))
    for metric in (sliced_w2, max_sliced_w2):
        name = metric.__name__
        ideal = metric(normal(0, n, d))
        null, band = ideal[f"{name}_null"], 5 * ideal[f"{name}_null_std"]
        smaller = metric(0.95 * normal(0, n, d), num_null=0)[name]
        collapsed = metric(normal(0, n, d) * scales, num_null=0)[name]
        heavy = metric(tailed, num_null=0)[name]
        assert abs(ideal[name] - null) < band, name
        # The worst direction at scale .95 is within its null: it is as good as any other.
        assert smaller > null + (band if metric is sliced_w2 else 0), name
        assert min(collapsed, heavy) > max(smaller, null + band), name
    # The average hides a collapse of two directions; the maximum shows all of it.
    assert max_sliced_w2(normal(0, n, d) * scales, num_null=0)["max_sliced_w2"] > 0.8


def test_small_and_degenerate_samples():
    assert all(math.isnan(v) for v in max_sliced_w2(np.zeros((1, 3))).values())
    assert all(math.isnan(v) for v in max_sliced_w2(np.eye(3), reference=np.ones((1, 3))).values())
    assert math.isfinite(max_sliced_w2(normal(0, 2, 3))["max_sliced_w2"])
    # Constant codes at the mean are one prior deviation away along every direction.
    for metric in (sliced_w2, max_sliced_w2):
        found = metric(np.zeros((50, 4)), scale=0.5)[metric.__name__]
        assert found == pytest.approx(0.5, rel=1e-9)
        same = metric(np.ones((9, 3)), reference=np.ones((7, 3)))[metric.__name__]
        assert same == pytest.approx(0, abs=1e-12)
    assert math.isnan(sliced_w2(normal(0, 9, 3), num_null=1)["sliced_w2_null_std"])


def test_bad_input_is_named():
    z = normal(0, 5, 3)
    for metric in (sliced_w2, max_sliced_w2):
        with pytest.raises(ValueError, match="not finite"):
            metric(np.full((3, 2), np.inf))
        with pytest.raises(ValueError, match="z has latent_dim 3 but reference has 2"):
            metric(z, reference=np.zeros((4, 2)))
        with pytest.raises(ValueError, match="scale must be finite and positive"):
            metric(z, scale=0.0)
        with pytest.raises(ValueError, match="num_null must be an integer of at least 0, got -1"):
            metric(z, num_null=-1)
    with pytest.raises(ValueError, match="num_projections must be an integer of at least 1"):
        sliced_w2(z, num_projections=0)
    with pytest.raises(ValueError, match="divide each by its norm"):
        sliced_w2_along(z, z, 2 * np.eye(3))
    with pytest.raises(ValueError, match="directions 2 rows"):
        sliced_w2_along(z, z, np.eye(2))
