"""Statistics of codes against simulated nulls: calibrated, invariant, exact where NumPy is."""

import numpy as np
import pytest
from scipy import stats

from avae_jax.metrics.departures import (
    FOUND,
    WHITENED,
    _as_the_prior_along_rays,
    _live_axes,
    _outlier_log_odds,
    departures,
)


def zscores(z, **options):
    sections = departures(z, **options).sections
    return {
        name.removesuffix("_zscore"): value
        for section in sections.values()
        for name, value in section.items()
        if name.endswith("_zscore")
    }


def test_z_scores_of_ideal_codes_are_about_standard():
    rng = np.random.default_rng(0)
    rows = [zscores(rng.standard_normal((200, 3))) for _ in range(60)]
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        # The null of 64 draws has a mean and a spread of its own; 60 sets have as well.
        assert abs(values.mean()) < 5 * np.sqrt(1 / 60 + 1 / 64), name
        assert 0.5 < values.std() < 1.8, name
        assert np.abs(values).max() < FOUND + 1.5, name


def test_numbers_are_numpys():
    rng = np.random.default_rng(1)
    z = rng.standard_normal((200, 3)) * [1.0, 1.3, 0.6] + [0.3, 0.0, 0.0]
    found = departures(z).sections["scale"]
    assert found["shift"] == pytest.approx(np.linalg.norm(z.mean(axis=0)))
    assert found["width"] == pytest.approx(np.sqrt(np.var(z, axis=0, ddof=1).mean()))
    ends = [found[f"axis_width_{end}"] for end in ("min", "median", "max")]
    # Cut at the length that a tenth of the codes exceeds, wide axes lose a little.
    np.testing.assert_allclose(ends, [0.6, 1.0, 1.3], rtol=0.2)
    assert abs(found["shift_null"] - np.sqrt(3 / 200)) < 0.2 * found["shift_null"]


def test_what_is_found_is_taken_out_before_the_shape():
    z = np.random.default_rng(2).standard_normal((200, 3))
    forms = [
        departures(x).sections["shape"]["taken_out"]
        for x in (z, 1.6 * z, z + [1.0, 0, 0], z * [1.0, 1.0, 0.4])
    ]
    assert forms == ["nothing", "mean and width", "mean and width", WHITENED]
    widths = [1.0, 1.0, 0.4], [3.0, 1.0, 1.0]
    spreads = [departures(z * w).sections["shape"]["radius_spread"] for w in widths]
    assert spreads[0] == pytest.approx(spreads[1], rel=1e-6)


def test_directions_without_variance_are_left_out_and_axes_kept():
    rng = np.random.default_rng(3)
    z = rng.standard_normal((200, 4))
    sections = departures(z * [1.0, 1e-3, 1.0, 1.0]).sections
    alone = departures(z[:, [0, 2, 3]]).sections
    assert sections["scale"]["live_dims"] == 3
    for name in ("axis_kurtosis", "radius_spread", "bend"):
        assert sections["shape"][name] == pytest.approx(alone["shape"][name], rel=1e-5)
    q = np.linalg.qr(rng.standard_normal((5, 5)))[0][:, :3]
    basis = _live_axes(q)
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(basis @ basis.T, q @ q.T, atol=1e-12)


def test_codes_moved_along_rays_have_the_priors_radius():
    rng = np.random.default_rng(4)
    z = rng.standard_normal((500, 6)) * rng.chisquare(3, (500, 1))
    moved = _as_the_prior_along_rays(z)
    distance = stats.kstest(np.sum(np.square(moved), axis=1), stats.chi2(6).cdf).statistic
    assert distance < 1.01 / 1000
    np.testing.assert_allclose(
        moved / np.linalg.norm(moved, axis=1)[:, None], z / np.linalg.norm(z, axis=1)[:, None]
    )


def test_outliers_and_tails_are_told_apart_by_their_likelihood():
    rng = np.random.default_rng(5)
    for d in (2, 16):
        normal = rng.standard_normal((2000, d))
        outliers = normal * np.where(rng.random((2000, 1)) < 0.01, 5.0, 1.0)
        student = normal * np.sqrt(3.0 / rng.chisquare(5.0, (2000, 1)))
        odds = [_outlier_log_odds(np.sum(np.square(x), axis=1), d) for x in (outliers, student)]
        assert odds[0] > 5.0 > -5.0 > odds[1]


def test_another_prior_is_its_own_null():
    def sample(n):
        return rng.standard_normal((n, 3)) + 2.0 * rng.choice([-1.0, 1.0], (n, 1))

    rng = np.random.default_rng(6)
    values = zscores(sample(200), sample=sample)
    assert np.abs(list(values.values())).max() < FOUND
    assert values.keys() >= {"width", "shift_statistic", "largest_correlation_test"}
    # Against N(0, I) the same codes are off.
    assert zscores(sample(200))["width"] > FOUND
    assert zscores(1.3 * sample(200), sample=sample)["width"] > FOUND


def test_too_few_codes_are_refused():
    with pytest.raises(ValueError, match="z has 30 codes in 20 dimensions: give at least 40"):
        departures(np.zeros((30, 20)))
    with pytest.raises(ValueError, match="z has 10 rows, at least 20"):
        departures(np.zeros((10, 2)))


def test_constant_codes_have_no_shape():
    found = departures(np.ones((100, 3)))
    assert found.sections["scale"]["live_dims"] == 0
    assert found.sections["shape"] == found.sections["holes"] == {}
    assert found.plane is None
