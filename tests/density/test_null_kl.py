import numpy as np
import pytest
from scipy.special import logsumexp

from avae_jax.density import null_kl
from avae_jax.density.normal_draws import draw_queries_and_centers


@pytest.mark.parametrize(
    ("latent_dim", "num_centers", "h_opt", "expected", "tolerance"),
    [(16, 10000, 0.72, -0.24, 0.05), (64, 20000, 1.02, -2.00, 0.2)],
)
def test_values_of_the_paper_configurations(latent_dim, num_centers, h_opt, expected, tolerance):
    h = h_opt / np.sqrt(1 + h_opt**2)
    value = null_kl(latent_dim, num_centers, bandwidth=h, scale=np.sqrt(1 - h**2))
    assert value == pytest.approx(expected, abs=tolerance)


def test_equals_float64_with_the_same_draws():
    # Ten sets of centers, with a tenth of the codes each.
    h, means = 0.4, []
    for trial in range(10):
        queries, slabs = draw_queries_and_centers(6, 80, num_queries=5, seed=2, trial=trial)
        z = 1.3 * np.asarray(queries, np.float64)
        c = 1.3 * np.asarray(slabs[0].centers, np.float64)
        log_q = logsumexp(-np.square(z[:, None] - c).sum(-1) / (2 * h**2), axis=1) - np.log(80)
        means.append(np.mean(log_q - 6 * np.log(h) + 0.5 * np.square(z).sum(1)))
    value = null_kl(6, 80, bandwidth=h, scale=1.3, seed=2, num_queries=50)
    assert value == pytest.approx(np.mean(means), rel=1e-5)


@pytest.mark.parametrize("change", [{"bandwidth": 0.0}, {"scale": -1.0}, {"seed": -1}])
def test_errors_name_the_argument(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        null_kl(4, 10, **({"bandwidth": 0.5, "scale": 0.8} | change))
