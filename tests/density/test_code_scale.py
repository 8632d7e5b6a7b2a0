import math

import numpy as np
import pytest

from avae_jax.density import expected_code_scale, log_tail_density
from avae_jax.density.normal_draws import draw_queries_and_centers


@pytest.mark.parametrize(
    ("latent_dim", "num_centers", "bandwidth", "max_cdf", "expected", "tolerance"),
    [
        (8, 10000, 0.475, None, 0.93, 0.04),
        (16, 10000, 0.584, None, 1.05, 0.15),
        (16, 10000, 0.584, 1 - 1e-4, 0.90, 0.04),
        (128, 10000, 0.746, 1 - 1e-1, 0.64, 0.03),
    ],
)
def test_fixed_points_of_the_paper_configurations(
    latent_dim, num_centers, bandwidth, max_cdf, expected, tolerance
):
    tail = "none" if max_cdf is None else "official"
    result = expected_code_scale(
        latent_dim, num_centers, bandwidth=bandwidth, tail=tail, max_cdf=max_cdf, num_queries=256
    )
    assert result.claimed == pytest.approx(math.sqrt(1 - bandwidth**2))
    assert result.fixed_point == pytest.approx(expected, abs=tolerance)
    assert 0 < result.stderr < tolerance
    assert result.verdict.startswith(f"codes settle at std {result.fixed_point:.3f}")
    assert 0 <= result.tail_share < 1


@pytest.mark.parametrize(("latent_dim", "bandwidth"), [(64, 0.714), (128, 0.746)])
def test_high_dimensions_have_no_fixed_point_without_tail(latent_dim, bandwidth):
    result = expected_code_scale(latent_dim, 5000, bandwidth=bandwidth, num_queries=256)
    assert result.fixed_point is None
    assert result.stderr is None
    assert "pushed outward at every scale" in result.verdict


def radial_force(scale, queries, centers, h, log_eps):
    """E[z . grad(log(q + eps) - log p)] in float64, by a difference quotient in log scale."""

    def objective(step):
        z = scale * math.exp(step) * queries
        logits = -np.square(z[:, None] - scale * centers).sum(-1) / (2 * h**2)
        log_q = np.logaddexp.reduce(logits, axis=1) - math.log(len(centers))
        log_q -= queries.shape[1] * (math.log(h) + 0.5 * math.log(2 * math.pi))
        return np.mean(np.logaddexp(log_q, log_eps) + 0.5 * np.square(z).sum(1))

    return (objective(1e-5) - objective(-1e-5)) / 2e-5


@pytest.mark.parametrize(("tail", "max_cdf"), [("none", None), ("official", 0.9)])
def test_the_float64_force_changes_sign_there(tail, max_cdf):
    latent_dim, num_centers, h = 6, 300, 0.5
    options = {"num_queries": 200, "seed": 1}
    result = expected_code_scale(
        latent_dim, num_centers, bandwidth=h, tail=tail, max_cdf=max_cdf, **options
    )
    queries, slabs = draw_queries_and_centers(latent_dim, num_centers, **options)
    queries = np.asarray(queries, np.float64)
    centers = np.asarray(slabs[0].centers, np.float64)[:num_centers]
    log_eps = -np.inf
    if max_cdf is not None:
        log_eps = float(log_tail_density(latent_dim, bandwidth=h, max_cdf=max_cdf))
    below = radial_force(0.998 * result.fixed_point, queries, centers, h, log_eps)
    above = radial_force(1.002 * result.fixed_point, queries, centers, h, log_eps)
    assert below < 0 < above


def test_tail_share_counts_codes_below_eps():
    shares = [
        expected_code_scale(
            8, 500, bandwidth=0.55, tail="official", max_cdf=max_cdf, num_queries=100
        ).tail_share
        for max_cdf in (0.1, 0.9, 1 - 1e-12)
    ]
    assert shares[0] > shares[1] > shares[2] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bandwidth": 1.2}, "bandwidth must lie in .0, 1., got 1.2"),
        ({"bandwidth": 0.0}, "bandwidth must lie in .0, 1., got 0"),
        ({"tail": "soft"}, "tail must be one of 'none', 'official', got 'soft'"),
        ({"tail": "official"}, "max_cdf must be a probability with tail='official', got None"),
        ({"max_cdf": 0.9}, "max_cdf must be None with tail='none', got 0.9: leave it out"),
        ({"latent_dim": 0}, "latent_dim must be .* got 0"),
        ({"num_centers": 1}, "num_centers must be .* got 1"),
    ],
)
def test_errors_name_the_argument(change, message):
    with pytest.raises(ValueError, match=message):
        expected_code_scale(**({"latent_dim": 4, "num_centers": 10, "bandwidth": 0.5} | change))
