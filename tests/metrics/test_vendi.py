import numpy as np
import pytest
from scipy import linalg, stats

from avae_jax.metrics import vendi_score


@pytest.mark.parametrize(("n", "d"), [(30, 5), (20, 40), (2, 1)])
def test_equals_the_entropy_of_the_similarities(n, d):
    x = np.random.default_rng(0).standard_normal((n, d)) + 0.5
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    shares = np.maximum(linalg.eigvalsh(unit @ unit.T / n), 0.0)
    found = vendi_score(x, x, num_null=0)["vendi"]
    assert found == pytest.approx(np.exp(stats.entropy(shares)), rel=1e-9)
    assert 1.0 <= found + 1e-9 <= min(n, d) + 1e-6


def test_counts_directions_and_not_copies():
    x = np.eye(6)
    assert vendi_score(x.repeat(5, axis=0), x)["vendi"] == pytest.approx(6.0)
    assert vendi_score(np.ones((7, 6)), x)["vendi"] == pytest.approx(1.0)


def test_null_is_the_mean_for_equal_laws():
    rng = np.random.default_rng(1)
    trials = [vendi_score(*(rng.standard_normal((2, 60, 8)) + 0.3), seed=i) for i in range(30)]
    values, nulls, stds = (
        np.array([trial[f"vendi{end}"] for trial in trials]) for end in ("", "_null", "_null_std")
    )
    error = np.hypot(values.std(ddof=1), nulls.std(ddof=1)) / np.sqrt(30)
    assert abs(values.mean() - nulls.mean()) < 5 * error
    fewer = vendi_score(0.3 * rng.standard_normal((60, 8)) + 0.3, rng.standard_normal((60, 8)))
    assert fewer["vendi"] < fewer["vendi_null"] - 5 * fewer["vendi_null_std"]
    assert values.std(ddof=1) == pytest.approx(stds.mean(), rel=5 / np.sqrt(2 * 29))


def test_bad_input_is_named():
    x = np.eye(3)
    # A row of zeros has no direction.
    assert all(np.isnan(v) for v in vendi_score(np.diag([1.0, 1.0, 0.0]), x).values())
    with pytest.raises(ValueError, match="3 columns but reference has 2"):
        vendi_score(x, x[:, :2])
    with pytest.raises(ValueError, match="num_null must be an integer of at least 0, got -1"):
        vendi_score(x, x, num_null=-1)
