import numpy as np
import pytest
from scipy import special, stats
from sklearn.neighbors import KernelDensity

from avae_jax.metrics import kde_kl, kde_kl_null


def _oracle(z, centers, bandwidth):
    kde = KernelDensity(bandwidth=bandwidth, rtol=0, atol=0).fit(centers)
    log_p = -0.5 * np.sum(z**2, axis=1) - 0.5 * z.shape[1] * np.log(2 * np.pi)
    return kde.score_samples(z) - log_p


def test_equals_scikit_learn():
    rng = np.random.default_rng(0)
    z, centers = rng.standard_normal((40, 6)), rng.standard_normal((120, 6))
    ratio = _oracle(z, centers, 0.6)
    result = kde_kl(z, centers, bandwidth=0.6)
    assert result["kl"] == pytest.approx(ratio.mean(), abs=1e-5)
    assert result["stderr"] == pytest.approx(ratio.std(ddof=1) / np.sqrt(40), rel=1e-4)


def test_another_prior_takes_the_place_of_the_standard_normal():
    z, centers = np.random.default_rng(3).standard_normal((2, 200, 3))
    weights = np.array([0.3, 0.7])
    loc, scale = np.array([[-1.0, 0.0, 2.0], [1.0, 1.0, 1.0]]), np.array([0.5, 2.0])

    def log_prob(x):
        logs = stats.norm(loc[:, None], scale[:, None, None]).logpdf(x).sum(axis=2)
        return special.logsumexp(logs + np.log(weights)[:, None], axis=0)

    values = kde_kl(z, centers, bandwidth=0.6, log_prob=log_prob)
    standard = kde_kl(z, centers, bandwidth=0.6)
    shift = stats.norm.logpdf(z).sum(axis=1).mean() - log_prob(z).mean()
    assert values["kl"] == pytest.approx(standard["kl"] + shift, abs=1e-4)
    assert values["stderr"] != standard["stderr"]


def test_leave_one_out_equals_scikit_learn():
    z = np.random.default_rng(0).standard_normal((25, 3))
    own = np.arange(25, dtype=np.int32)
    ratios = [_oracle(z[[i]], np.delete(z, i, axis=0), 0.5)[0] for i in own]
    result = kde_kl(z, z, bandwidth=0.5, exclude=own)
    assert result["kl"] == pytest.approx(np.mean(ratios), abs=1e-5)


@pytest.mark.parametrize(
    ("d", "m", "h_opt", "floor", "tolerance"),
    [
        (16, 10_000, 0.72, -0.24, 0.05),
        (64, 20_000, 1.02, -2.00, 0.15),
        (128, 10_000, 1.12, -7.23, 0.4),
    ],
)
def test_null_at_the_published_settings_is_below_zero(d, m, h_opt, floor, tolerance):
    rng = np.random.default_rng(0)
    h = h_opt / np.sqrt(1 + h_opt**2)
    scale = np.sqrt(1 - h**2)
    null = kde_kl_null(
        lambda n: scale * rng.standard_normal((n, d), dtype=np.float32),
        num_codes=1000, num_centers=m, bandwidth=h, num_null=2,
    )  # fmt: skip
    assert null["null"] == pytest.approx(floor, abs=tolerance)


def test_equals_scikit_learn_at_64_dimensions():
    rng = np.random.default_rng(0)
    z, centers = rng.standard_normal((40, 64)), rng.standard_normal((300, 64))
    # Its tree loses mass from 64 dimensions on, even at zero tolerance: one leaf holds all.
    kde = KernelDensity(bandwidth=0.71, rtol=0, atol=0, leaf_size=300).fit(centers)
    log_p = -0.5 * np.sum(z**2, axis=1) - 32 * np.log(2 * np.pi)
    expected = np.mean(kde.score_samples(z) - log_p)
    assert kde_kl(z, centers, bandwidth=0.71)["kl"] == pytest.approx(expected, rel=1e-5)


def test_null_equals_scikit_learn_on_many_sets():
    rng = np.random.default_rng(0)
    null = kde_kl_null(
        lambda n: rng.standard_normal((n, 3)), num_codes=20, num_centers=30, bandwidth=0.6
    )
    values = []
    for _ in range(400):
        draws = rng.standard_normal((50, 3))
        values.append(_oracle(draws[:20], draws[20:], 0.6).mean())
    error = np.hypot(null["null_stderr"], np.std(values) / 20)
    assert abs(null["null"] - np.mean(values)) < 5 * error
    # Of 20 sets a standard deviation is known to a sixth.
    assert null["null_std"] == pytest.approx(np.std(values), rel=0.5)


def test_null_in_many_dimensions_is_more_than_one_set_of_centers():
    # 64 dimensions, 1,000 centers, codes of deviation .8: -9.660 +- .015 over 200 sets of centers
    # and 359 codes each, whose deviation is .207; that of a set of centers is .16.
    rng = np.random.default_rng(1)
    null = kde_kl_null(
        lambda n: 0.8 * rng.standard_normal((n, 64)),
        num_codes=359, num_centers=1000, bandwidth=0.735109,
    )  # fmt: skip
    assert abs(null["null"] + 9.660) < 5 * np.hypot(null["null_stderr"], 0.015)
    assert null["null_stderr"] == pytest.approx(0.16 / np.sqrt(20), rel=0.5)
    assert null["centers_std"] == pytest.approx(0.16, rel=0.5)
    assert null["null_std"] == pytest.approx(0.207, rel=0.5)


def test_single_code_has_no_standard_error():
    result = kde_kl(np.zeros((1, 2)), np.zeros((1, 2)), bandwidth=1.0)
    assert result["kl"] == pytest.approx(0.0, abs=1e-6)
    assert np.isnan(result["stderr"])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="latent_dim 2 but centers has 3"):
        kde_kl(np.zeros((4, 2)), np.zeros((4, 3)), bandwidth=1.0)
    with pytest.raises(ValueError, match="bandwidth must be finite and positive, got 0"):
        kde_kl(np.zeros((4, 2)), np.zeros((4, 2)), bandwidth=0.0)
    with pytest.raises(ValueError, match="centers has 1 of 4 rows"):
        kde_kl(np.zeros((4, 2)), np.array([[0, 0], [0, 0], [0, 0], [np.inf, 0]]), bandwidth=1.0)
