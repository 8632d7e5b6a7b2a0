import numpy as np
import pytest
from scipy import special, stats

from avae_jax.metrics.checks import prior_generator
from avae_jax.metrics.elbo_surgery import _log_marginals, _log_mixture, elbo_surgery


def posteriors(n, d, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.uniform(-2.0, 0.5, (n, d))


def dense_logs(z, loc, log_var):
    """log N(z_kj; loc_ij, var_ij) for all k, i, j, in float64."""
    return stats.norm(loc[None], np.exp(0.5 * log_var)[None]).logpdf(z[:, None])


@pytest.mark.parametrize(("n", "d"), [(1, 1), (7, 3), (255, 2), (257, 5), (20, 40)])
def test_densities_equal_the_dense_mixture(n, d):
    loc, log_var = posteriors(n, d)
    # Far from the origin and with small variances, where a matrix product cancels.
    loc, log_var = loc + 30.0, log_var - 4.0
    z = loc + np.exp(0.5 * log_var) * np.random.default_rng(1).standard_normal((n, d))
    logs = dense_logs(z, loc, log_var)
    joint = special.logsumexp(logs.sum(axis=2), axis=1) - np.log(n)
    marginals = special.logsumexp(logs, axis=1) - np.log(n)
    np.testing.assert_allclose(_log_mixture(z, loc, log_var), joint, rtol=1e-9)
    np.testing.assert_allclose(_log_marginals(z, loc, log_var), marginals, atol=2e-4)


def test_another_prior_takes_the_place_of_the_standard_normal():
    loc, log_var = posteriors(500, 3)
    standard = elbo_surgery(loc, log_var, num_samples=4)
    # The same prior as a function: estimates in place of closed forms.
    same = elbo_surgery(
        loc, log_var, num_samples=4, log_prior=lambda z: stats.norm.logpdf(z).sum(axis=1)
    )
    assert standard.keys() - same.keys() == {
        "dimension_kl", "dimension_kl_stderr", "dimension_kl_null", "dimension_residual",
        "dimension_residual_stderr",
    }  # fmt: skip
    assert same["marginal_kl"] == pytest.approx(standard["marginal_kl"], rel=1e-5)
    for name in ("average_kl", "cross_entropy"):
        error = same[f"{name}_stderr"] + standard[f"{name}_stderr"]
        assert abs(same[name] - standard[name]) < 5 * error, name
        assert same[name] != standard[name]
    # Moved with the codes, a prior gives the same parts.
    moved = elbo_surgery(
        2.0 * loc + 1.0, log_var + 2.0 * np.log(2.0), num_samples=4,
        log_prior=lambda z: stats.norm(1.0, 2.0).logpdf(z).sum(axis=1),
    )  # fmt: skip
    for name in ("average_kl", "marginal_kl", "mutual_information", "total_correlation"):
        assert moved[name] == pytest.approx(same[name], abs=1e-4), name


def test_equals_dense_numpy():
    n, d = 60, 4
    loc, log_var = posteriors(n, d)
    recon = np.random.default_rng(2).standard_normal(n) - 50
    values = elbo_surgery(loc, log_var, recon_log_prob=recon, num_queries=None, seed=5)

    # The same draws: a row of noise for each row, after no other draw.
    noise = prior_generator(5).standard_normal((n, d))
    z = loc + np.exp(0.5 * log_var) * noise
    logs = dense_logs(z, loc, log_var)
    joint = special.logsumexp(logs.sum(axis=2), axis=1) - np.log(n)
    product = (special.logsumexp(logs, axis=1) - np.log(n)).sum(axis=1)
    own = logs[np.arange(n), np.arange(n)].sum(axis=1)
    prior = stats.norm.logpdf(z).sum(axis=1)
    var = np.exp(log_var)
    kl = 0.5 * np.sum(loc**2 + var - 1 - log_var, axis=1)
    entropy = stats.norm(0, np.sqrt(var)).entropy().sum(axis=1)
    rows = {
        "average_kl": kl,
        "cross_entropy": kl + entropy,
        "conditional_entropy": entropy,
        "marginal_entropy": -joint,
        "mutual_information": own - joint,
        "marginal_kl": joint - prior,
        "total_correlation": joint - product,
        "dimension_kl": product - prior,
        "identity_residual": kl - (own - prior),
        "reconstruction": recon,
        "elbo": recon - kl,
    }
    for name, row in rows.items():
        assert values[name] == pytest.approx(row.mean(), abs=1e-5), name
        assert values[f"{name}_stderr"] == pytest.approx(row.std(ddof=1) / np.sqrt(n), rel=1e-4), (
            name
        )
    assert values["mutual_information_max"] == pytest.approx(np.log(60))
    assert abs(values["dimension_residual"]) < 1e-9
    assert values["dimension_residual_stderr"] < 1e-9
    assert all(isinstance(value, float) for value in values.values())


@pytest.mark.parametrize(("n", "d"), [(500, 3), (5, 20)])
def test_posteriors_equal_to_the_prior_give_the_null_values(n, d):
    values = elbo_surgery(np.zeros((n, d)), np.zeros((n, d)))
    for name in ("mutual_information", "marginal_kl", "total_correlation", "dimension_kl"):
        assert values[f"{name}_null"] == 0.0
        assert values[name] == pytest.approx(0.0, abs=1e-5), name
    assert values["average_kl"] == pytest.approx(0.0, abs=1e-12)
    assert abs(values["identity_residual"]) < 1e-9


def test_constant_codes_hold_no_information():
    values = elbo_surgery(np.full((50, 2), 1.5), np.full((50, 2), -1.0), num_samples=20)
    assert values["mutual_information"] == pytest.approx(0.0, abs=1e-9)
    exact = 2 * 0.5 * (1.5**2 + np.exp(-1.0) - 1 + 1.0)
    assert values["average_kl"] == pytest.approx(exact)
    assert abs(values["marginal_kl"] - exact) < 5 * values["marginal_kl_stderr"]
    # One Gaussian with independent axes.
    assert values["total_correlation"] == pytest.approx(0.0, abs=1e-5)


def test_separated_posteriors_hold_log_n_and_a_minibatch_holds_less():
    rng = np.random.default_rng(0)
    loc = rng.permutation(200)[:, None] * 10.0 + rng.standard_normal((200, 4))
    log_var = np.full((200, 4), -4.0)
    values = elbo_surgery(loc, log_var)
    assert values["mutual_information"] == pytest.approx(np.log(200), abs=1e-7)
    # The mixture over 20 of the rows: the docstring's log(n / B), in full.
    part = elbo_surgery(loc[:20], log_var[:20])
    assert part["mutual_information"] == pytest.approx(np.log(200) - np.log(200 / 20), abs=1e-7)


def test_information_never_passes_log_n():
    for n, d in ((3, 64), (200, 2)):
        loc, log_var = posteriors(n, d)
        values = elbo_surgery(loc, log_var, num_samples=2)
        assert values["mutual_information"] <= np.log(n) + 1e-9


def test_linear_gaussian_encoder():
    """loc = W x with x ~ N(0, I): as n grows q(z) is N(0, W W' + V), and all terms are known."""
    n, d = 3000, 3
    weights = np.array([[1.2, 0.4, 0.0], [0.9, 0.7, 0.3], [0.2, 0.3, 1.0]])
    variance = np.array([0.3, 0.5, 0.4])
    x = np.random.default_rng(0).standard_normal((n, d))
    loc, log_var = x @ weights.T, np.tile(np.log(variance), (n, 1))
    values = elbo_surgery(loc, log_var, num_samples=2, num_queries=2000)
    covariance = weights @ weights.T + np.diag(variance)
    log_det = np.linalg.slogdet(covariance)[1]
    diagonal = np.diag(covariance)
    exact = {
        "mutual_information": 0.5 * (log_det - np.log(variance).sum()),
        "marginal_kl": 0.5 * (diagonal.sum() - d - log_det),
        "marginal_entropy": 0.5 * (log_det + d * (1 + np.log(2 * np.pi))),
        "total_correlation": 0.5 * (np.log(diagonal).sum() - log_det),
        "dimension_kl": 0.5 * np.sum(diagonal - 1 - np.log(diagonal)),
        "average_kl": 0.5
        * (np.trace(weights @ weights.T) + np.sum(variance - 1 - np.log(variance))),
    }
    for name, value in exact.items():
        assert value > 0.1, name
        # n draws of x cost the mixture a bias of a few d / n beside the standard error.
        assert abs(values[name] - value) < 5 * values[f"{name}_stderr"] + 5 * d / n, name


def test_identities_hold_within_their_standard_errors():
    loc, log_var = posteriors(1500, 6)
    values = elbo_surgery(loc, log_var, num_samples=2, num_queries=300)
    for name in ("identity_residual", "dimension_residual"):
        assert 0 < abs(values[name]) < 5 * values[f"{name}_stderr"], name
    assert values["average_kl"] == pytest.approx(
        values["cross_entropy"] - values["conditional_entropy"]
    )


def test_standard_error_of_the_dimension_residual():
    """Over seeds the residual has the spread that each run claims."""
    loc, log_var = posteriors(300, 2)
    runs = [elbo_surgery(loc, log_var, num_queries=100, seed=seed) for seed in range(100)]
    residuals = np.array([run["dimension_residual"] for run in runs])
    claimed = np.mean([run["dimension_residual_stderr"] for run in runs])
    # A standard deviation over 100 runs is known to about 7%.
    assert residuals.std(ddof=1) == pytest.approx(claimed, rel=0.35)
    assert abs(residuals.mean()) < 5 * claimed / 10


def test_more_draws_shrink_the_error_and_the_seed_decides():
    loc, log_var = posteriors(200, 3)
    one, many = (elbo_surgery(loc, log_var, num_samples=count) for count in (1, 25))
    assert many["identity_residual_stderr"] < 0.3 * one["identity_residual_stderr"]
    assert elbo_surgery(loc, log_var) == one
    assert elbo_surgery(loc, log_var, seed=1)["marginal_kl"] != one["marginal_kl"]


def test_one_row_has_no_standard_error():
    values = elbo_surgery(np.ones((1, 2)), np.zeros((1, 2)))
    assert values["mutual_information"] == pytest.approx(0.0, abs=1e-12)
    assert values["average_kl"] == pytest.approx(1.0)
    assert all(np.isnan(value) for name, value in values.items() if name.endswith("_stderr"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loc": np.zeros(4)}, r"loc must have shape \[n, latent_dim\]"),
        (
            {"log_var": np.zeros((4, 3))},
            r"log_var must have the shape of loc, \(4, 2\), got \(4, 3\)",
        ),
        ({"loc": np.full((4, 2), np.nan)}, "loc has 4 of 4 rows that are not finite"),
        ({"log_var": np.full((4, 2), -np.inf)}, "log_var has 4 of 4 rows that are not finite"),
        ({"num_samples": 0}, "num_samples must be an integer of at least 1, got 0"),
        ({"num_queries": 0}, "num_queries must be an integer of at least 1, got 0"),
        ({"recon_log_prob": np.zeros((4, 2))}, r"must have shape \(4,\), one value a row"),
        ({"recon_log_prob": np.array([0, 0, np.nan, 0])}, "recon_log_prob has values that are not"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {"loc": np.zeros((4, 2)), "log_var": np.zeros((4, 2))} | change
    with pytest.raises(ValueError, match=message):
        elbo_surgery(arguments.pop("loc"), arguments.pop("log_var"), **arguments)
