import tracemalloc

import numpy as np
import pytest

from avae_jax.metrics.precision_recall import precision_recall

NAMES = ("precision", "recall", "density", "coverage")


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize(("n", "m"), [(300, 300), (255, 257), (256, 513)])
def test_equals_prdc(n, m, k, capsys):
    prdc = pytest.importorskip("prdc")
    rng = np.random.default_rng(k)
    x, y = 0.9 * rng.standard_normal((n, 6)) + 0.3, rng.standard_normal((m, 6))
    expected = prdc.compute_prdc(real_features=y, fake_features=x, nearest_k=k)
    capsys.readouterr()
    result = precision_recall(x, y, k=k)
    for name in NAMES:
        assert result[name] == pytest.approx(float(expected[name]), abs=1e-12), name
    assert 0.0 < result["precision"] < 1.0
    assert 0.0 < result["recall"] < 1.0


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("n", [6, 255, 256, 257])
def test_identical_sets_score_one(n, k):
    x = 5.0 + np.random.default_rng(n).standard_normal((n, 7))
    result = precision_recall(x, x.copy(), k=k)
    assert [result[name] for name in NAMES] == [1.0, 1.0, 1.0, 1.0]


def test_one_dimension_by_hand():
    # Reference balls, k = 1: 0 and 1 have radius 1, 3 has radius 2.
    reference = np.array([[0.0], [1.0], [3.0]])
    # 1.5 lies in the balls of 1 and 3, 3.5 in that of 3, 9 in none, 2 (a rim of 1) in that of 3.
    samples = np.array([[1.5], [3.5], [9.0], [2.0]])
    result = precision_recall(samples, reference, k=1)
    assert result["precision"] == 0.75
    assert result["density"] == 1.0
    assert result["coverage"] == pytest.approx(2 / 3)
    # Sample balls: 1.5 and 2 have radius 0.5, 3.5 radius 1.5, 9 radius 5.5. 3 lies in that of 3.5.
    assert result["recall"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("n", "m"), [(400, 400), (250, 400)])
def test_nulls_are_the_means_for_equal_distributions(n, m):
    rng = np.random.default_rng(0)
    k, repeats = 5, 30
    trials = [
        precision_recall(rng.standard_normal((n, 8)), rng.standard_normal((m, 8)), k=k)
        for _ in range(repeats)
    ]
    for name in NAMES:
        values = np.array([trial[name] for trial in trials])
        nulls = np.array([trial[f"{name}_null"] for trial in trials])
        if name == "recall" and n != m:
            assert np.isnan(nulls).all()
            continue
        stderr = np.hypot(values.std(ddof=1), nulls.std(ddof=1)) / np.sqrt(repeats)
        assert abs(values.mean() - nulls.mean()) < 5 * stderr, name


def test_coverage_null_formula():
    result = precision_recall(*np.random.default_rng(1).standard_normal((2, 2000, 2)), k=5)
    assert result["coverage_null"] == pytest.approx(0.9689, abs=1e-4)


def test_lost_modes_and_stray_samples_show():
    rng = np.random.default_rng(2)
    near, far = rng.standard_normal((400, 4)), rng.standard_normal((400, 4)) + 20.0
    both = np.concatenate([near[:200], far[:200]])
    lost = precision_recall(near, both)
    assert lost["recall"] <= 0.5 + 1e-12
    assert lost["coverage"] <= 0.5 + 1e-12
    stray = precision_recall(both, rng.standard_normal((400, 4)))
    assert stray["precision"] <= 0.5
    assert stray["density"] < 0.6


def test_is_invariant_to_order_and_motion():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((2, 300, 5))
    expected = precision_recall(x, y)
    q, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    moved = precision_recall(rng.permutation(x) @ q + 3.0, rng.permutation(y) @ q + 3.0)
    assert moved == pytest.approx(expected, abs=1e-12)
    # As far out as double precision can tell the rows apart.
    assert precision_recall(x + 1e8, y + 1e8) == pytest.approx(expected, abs=0.01)
    assert expected["precision"] > 0.8


def test_constant_sets():
    y = np.random.default_rng(4).standard_normal((50, 3))
    constant = np.full((50, 3), 0.1)
    collapsed = precision_recall(constant, y)
    assert collapsed["recall"] == 0.0
    assert np.isfinite(collapsed["density"])
    degenerate = precision_recall(y, constant)
    for name in ("precision", "precision_null", "density", "coverage"):
        assert np.isnan(degenerate[name])


def test_memory_is_linear_in_the_samples():
    x, y = np.random.default_rng(5).standard_normal((2, 4000, 4))
    tracemalloc.start()
    try:
        precision_recall(x, y)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4000 * 4000 * 8 / 2


def test_bad_input_is_named():
    x = np.zeros((4, 2))
    with pytest.raises(ValueError, match="features has 3 rows, at least 4"):
        precision_recall(x[:3], x)
    with pytest.raises(ValueError, match="reference has 1 rows, at least 2"):
        precision_recall(x, x[:1], k=1)
    with pytest.raises(ValueError, match="k must be an integer of at least 1"):
        precision_recall(x, x, k=0)
    with pytest.raises(ValueError, match="features has 2 columns but reference has 1"):
        precision_recall(x, x[:, :1])
    with pytest.raises(ValueError, match="not finite"):
        precision_recall(x, x + np.inf)
