import numpy as np
import pytest
from scipy import stats
from threadpoolctl import threadpool_limits

from avae_jax.metrics.memorisation import memorisation, nearest_training_neighbor


@pytest.fixture(autouse=True)
def _one_thread():
    # On sets this small a busy machine's second thread costs thirty times the time.
    with threadpool_limits(1):
        yield


def draw(seed, n, d=6):
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize("num_neighbors", [1, 3])
def test_neighbours_equal_the_full_distance_matrix(num_neighbors):
    x, train = draw(0, 1030), draw(1, 300)
    distances, indices = nearest_training_neighbor(x, train, num_neighbors=num_neighbors)
    full = np.linalg.norm(x[:, None] - train[None], axis=-1)
    np.testing.assert_array_equal(indices, np.argsort(full, axis=1)[:, :num_neighbors])
    np.testing.assert_allclose(distances, np.sort(full, axis=1)[:, :num_neighbors], rtol=1e-12)


def test_images_and_exact_copies():
    train = np.random.default_rng(2).uniform(size=(40, 5, 4, 3)).astype(np.float32)
    distances, indices = nearest_training_neighbor(train[[7, 3]], train)
    np.testing.assert_array_equal(indices, [[7], [3]])
    np.testing.assert_array_equal(distances, 0.0)


def test_null_is_the_mean_for_real_samples():
    train = draw(3, 500)
    trials = [memorisation(draw(10 + i, 300), train, draw(500 + i, 200)) for i in range(80)]
    names = ("close_share_1", "close_share_5", "copying_auc", "copying_z", "distance_ratio")
    for name in (*names, "auth_pct"):
        values = np.array([trial[name] - trial[f"{name}_null"] for trial in trials])
        null = 0.0
        assert abs(values.mean() - null) < 5 * values.std(ddof=1) / np.sqrt(80), name
        std = f"{name}_null_std" if name != "distance_ratio" else f"{name}_stderr"
        assert values.std(ddof=1) == pytest.approx(trials[0][std], rel=5 / np.sqrt(2 * 79)), name


def test_copying_shows():
    train, test = draw(4, 500), draw(5, 300)
    copies = train[:300] + 0.01 * draw(6, 300)
    result = memorisation(copies, train, test)
    assert result["close_share_1"] == result["close_share_5"] == 1.0
    assert result["distance_ratio"] < 0.1
    assert result["copying_auc"] < 0.01
    assert result["copying_z"] < -15.0
    far = memorisation(3.0 * test, train, test)
    assert far["copying_z"] > 3.0
    assert far["distance_ratio"] > 1.0
    # Copies among good samples: the 1% quantile sees what the mean does not.
    few = memorisation(np.concatenate([train[:15], draw(7, 285)]), train, test)
    assert few["close_share_1"] > 0.04
    assert few["distance_ratio"] > 0.9


def test_auc_and_z_equal_scipy_with_ties():
    rng = np.random.default_rng(8)
    train = np.zeros((1, 1))
    x, y = rng.integers(1, 9, (40, 1)), rng.integers(1, 9, (30, 1))
    result = memorisation(x, train, y)
    u = stats.mannwhitneyu(x[:, 0], y[:, 0]).statistic
    assert result["copying_auc"] == pytest.approx(u / 1200)
    z = (u - 600) / np.sqrt(40 * 30 * 71 / 12)
    assert result["copying_z"] == pytest.approx(z)


def test_undefined_values_are_nan():
    train = draw(9, 30)
    small = memorisation(draw(10, 5), train, draw(11, 19))
    assert np.isnan(small["close_share_1"])
    assert np.isnan(small["close_share_5"])
    assert np.isfinite(small["copying_z"])
    medium = memorisation(draw(10, 5), train, draw(11, 20))
    assert np.isnan(medium["close_share_1"])
    assert np.isfinite(medium["close_share_5"])
    # Test images that are in the training set leave no scale.
    leaked = memorisation(draw(10, 5), train, np.tile(train, (4, 1)))
    for name in ("close_share_1", "close_share_5", "distance_ratio"):
        assert np.isnan(leaked[name])
    assert leaked["copying_auc"] == 1.0
    constant = memorisation(np.ones((5, 2)), np.ones((5, 2)), np.ones((5, 2)))
    assert np.isnan(constant["copying_auc"])
    assert np.isnan(constant["copying_z"])
    single = memorisation(draw(10, 1), train, draw(11, 1))
    assert np.isfinite(single["distance_ratio"])
    assert np.isnan(single["distance_ratio_stderr"])


def test_bad_input_is_named():
    x = np.zeros((3, 2))
    with pytest.raises(ValueError, match=r"samples has shape \(3, 2\) but train has \(3, 1\)"):
        memorisation(x, x[:, :1], x)
    with pytest.raises(ValueError, match=r"test has shape \(3, 1\)"):
        memorisation(x, x, x[:, :1])
    with pytest.raises(ValueError, match="train has 0 rows"):
        memorisation(x, x[:0], x)
    with pytest.raises(ValueError, match="test has 3 of 3 rows that are not finite"):
        memorisation(x, x, x * np.nan)
    with pytest.raises(ValueError, match=r"num_neighbors must be an integer from 1 to 3, got 4"):
        nearest_training_neighbor(x, x, num_neighbors=4)


def test_authentic_samples_are_farther_out_than_their_neighbors_lie():
    # Nearest training images 0, 4, 4 and 9, whose nearest others are 1, 3, 3 and 5 away.
    train = np.array([[0.0], [1.0], [4.0], [9.0]])
    samples = np.array([[-2.0], [4.5], [6.4], [14.5]])
    found = memorisation(samples, train, test=np.array([[-0.5], [15.0]]))
    assert found["auth_pct"] == 50.0
    assert found["auth_pct_null"] == 50.0
    assert found["auth_pct_null_std"] == pytest.approx(50.0 * np.sqrt(1 / 4 + 1 / 2))
    # A training image with a copy has a neighbor at distance 0.
    twice = memorisation(samples, np.concatenate([train, train]), test=samples)
    assert twice["auth_pct"] == 100.0
    assert memorisation(train, train, test=samples)["auth_pct"] == 0.0
    assert np.isnan(memorisation(samples, train[:1], test=samples)["auth_pct"])
