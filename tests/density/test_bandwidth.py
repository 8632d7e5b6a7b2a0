import dataclasses
import json
import math

import jax
import numpy as np
import pytest
from scipy.special import logsumexp

from avae_jax.density import (
    Bandwidth,
    bandwidth,
    expected_code_scale,
    find_bandwidth,
    find_prior_bandwidth,
    null_kl,
    prior_null_kl,
)
from avae_jax.density.normal_draws import draw_queries_and_centers, row_stats
from avae_jax.priors import StandardNormal


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("AVAE_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def no_estimate(monkeypatch):
    def fail(key):
        raise AssertionError(f"recomputed {key}")

    monkeypatch.setattr(bandwidth, "_estimate", fail)


@pytest.mark.parametrize(
    ("latent_dim", "num_centers", "expected"),
    [(10, 500, 0.740), (10, 2000, 0.668), (20, 1000, 0.867), (50, 500, 1.063), (100, 1000, 1.144)],
)
def test_published_cells(latent_dim, num_centers, expected):
    result = find_bandwidth(latent_dim, num_centers)
    assert result.h_opt == pytest.approx(expected, abs=0.015)
    assert result.h_corr == pytest.approx(result.h_opt / math.sqrt(1 + result.h_opt**2), rel=1e-12)
    assert result.h_corr**2 + result.prior_scale**2 == pytest.approx(1, rel=1e-12)
    assert 0 < result.stderr < 0.01
    assert result.null_kl < 0
    assert 2 <= result.num_iterations <= 8


def mean_log_density(log_h, squared_distances, latent_dim):
    h = math.exp(log_h)
    return np.mean(logsumexp(-squared_distances / (2 * h**2), axis=1)) - latent_dim * log_h


@pytest.mark.parametrize(("latent_dim", "num_centers"), [(1, 2), (1, 400), (12, 150), (90, 60)])
def test_equals_the_best_of_a_float64_grid(latent_dim, num_centers):
    num_queries = 200
    queries, slabs = draw_queries_and_centers(
        latent_dim, num_centers, num_queries=num_queries, seed=5
    )
    x, y = np.asarray(queries, np.float64), np.asarray(slabs[0].centers, np.float64)[:num_centers]
    squared_distances = np.square(x[:, None] - y).sum(-1)
    coarse = np.linspace(math.log(0.02), math.log(5), 300)
    values = [mean_log_density(t, squared_distances, latent_dim) for t in coarse]
    around = coarse[int(np.argmax(values))]
    fine = np.linspace(around - 0.02, around + 0.02, 401)
    values = [mean_log_density(t, squared_distances, latent_dim) for t in fine]
    best = math.exp(fine[int(np.argmax(values))])
    result = find_bandwidth(latent_dim, num_centers, seed=5, num_queries=num_queries, cache=False)
    assert result.h_opt == pytest.approx(best, rel=1.5e-4)
    # The null KL comes from the last pass, by scaling: check it against the definition.
    z, c = result.prior_scale * x, result.prior_scale * y
    log_q = logsumexp(-np.square(z[:, None] - c).sum(-1) / (2 * result.h_corr**2), axis=1)
    log_q -= math.log(num_centers) + latent_dim * math.log(result.h_corr)
    assert result.null_kl == pytest.approx(np.mean(log_q + 0.5 * np.square(z).sum(1)), abs=1e-4)


def maximum(queries, slabs):
    return bandwidth.maximize_log_density(
        lambda h: row_stats(queries, slabs, bandwidth=h), queries.shape[1]
    )


def test_slabs_do_not_change_the_optimum():
    options = {"num_queries": 100, "seed": 0}
    optima = [
        maximum(*draw_queries_and_centers(9, 130, **options, max_slab_size=size))
        for size in (10**6, 9 * 5)
    ]
    assert optima[0].bandwidth == pytest.approx(optima[1].bandwidth, rel=1e-5)


def test_deleted_centers_equal_float64():
    options = {"num_queries": 40, "seed": 0}
    queries, slabs = draw_queries_and_centers(7, 30, **options, max_slab_size=12)
    optimum = maximum(queries, slabs)
    x = np.asarray(queries, np.float64)
    y = np.concatenate([slab.centers for slab in slabs])[:30].astype(np.float64)
    scaled = np.square(x[:, None] - y).sum(-1) / optimum.bandwidth**2

    def mean_scaled(columns):
        weights = np.exp(-0.5 * (columns - columns.min(1, keepdims=True)))
        return ((weights * columns).sum(1) / weights.sum(1)).mean()

    effects = [mean_scaled(np.delete(scaled, j, 1)) - mean_scaled(scaled) for j in range(30)]
    variance = 29 / 30 * np.sum(np.square(effects - np.mean(effects)))
    queries_variance = np.var(optimum.mean_scaled_distance, ddof=1) / 40
    expected = optimum.bandwidth * math.sqrt(variance + queries_variance) / -optimum.curvature
    stderr = bandwidth.jackknife_stderr(queries, slabs, optimum, 30)
    assert stderr == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("latent_dim", "num_centers"), [(3, 200), (60, 200)])
def test_stderr_of_one_trial_is_that_of_many(latent_dim, num_centers):
    options = {"num_queries": 300, "cache": False}
    trials = [find_bandwidth(latent_dim, num_centers, seed=s, **options) for s in range(40)]
    spread = np.std([trial.h_opt for trial in trials], ddof=1)
    claimed = math.sqrt(np.mean([trial.stderr**2 for trial in trials]))
    # The spread of 40 trials is itself known to 11%; the jackknife may be half too large.
    assert 0.75 < claimed / spread < 1.9


def test_trials_are_averaged():
    options = {"num_queries": 200, "cache": False}
    result = find_bandwidth(5, 100, num_trials=3, **options)
    first = find_bandwidth(5, 100, **options)
    assert result.h_opt != first.h_opt
    assert abs(result.h_opt - first.h_opt) < 6 * result.stderr + 6 * first.stderr
    assert result.stderr > 0


def test_is_deterministic_and_independent_of_float64_mode():
    first = find_bandwidth(6, 300, seed=4, cache=False)
    assert find_bandwidth(6, 300, seed=4, cache=False) == first
    with jax.enable_x64(True):
        wide = find_bandwidth(6, 300, seed=4, cache=False)
    assert wide.h_opt == pytest.approx(first.h_opt, rel=1e-5)
    assert wide.stderr == pytest.approx(first.stderr, rel=1e-3)


def test_hit_does_not_recompute(cache_dir, request):
    first = find_bandwidth(4, 50, num_queries=100)
    assert len(list(cache_dir.iterdir())) == 1
    request.getfixturevalue("no_estimate")
    assert find_bandwidth(4, 50, num_queries=100) == first


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"num_queries": 101}, {"num_trials": 2}, {"num_centers": 51}]
)
def test_every_argument_is_in_the_key(cache_dir, change):
    arguments = {"latent_dim": 4, "num_centers": 50, "num_queries": 100}
    first = find_bandwidth(**arguments)
    assert find_bandwidth(**(arguments | change)).h_opt != first.h_opt
    assert len(list(cache_dir.iterdir())) == 2


def test_new_estimator_version_is_another_entry(monkeypatch, cache_dir):
    find_bandwidth(4, 50, num_queries=100)
    monkeypatch.setattr(bandwidth, "ESTIMATOR_VERSION", bandwidth.ESTIMATOR_VERSION + 1)
    find_bandwidth(4, 50, num_queries=100)
    assert len(list(cache_dir.iterdir())) == 2


def test_entry_of_another_tolerance_is_replaced(monkeypatch, cache_dir):
    first = find_bandwidth(4, 50, num_queries=100)
    monkeypatch.setattr(bandwidth, "TOLERANCE", 0.5)
    assert find_bandwidth(4, 50, num_queries=100).num_iterations < first.num_iterations
    (entry,) = cache_dir.iterdir()
    assert json.loads(entry.read_text())["key"]["tolerance"] == 0.5


def spoil(value, **changes):
    return json.dumps(value | {"value": value["value"] | changes})


@pytest.mark.parametrize(
    "make",
    [
        lambda entry: "",
        lambda entry: json.dumps(entry)[:40],
        lambda entry: "[]",
        lambda entry: "null",
        lambda entry: spoil(entry, h_opt="0.7"),
        lambda entry: spoil(entry, h_opt=math.nan),
        lambda entry: spoil(entry, other=1.0),
    ],
)
def test_corrupt_entry_is_recomputed_and_mended(cache_dir, make, recwarn):
    first = find_bandwidth(4, 50, num_queries=100)
    (path,) = cache_dir.iterdir()
    path.write_text(make(json.loads(path.read_text())))
    with pytest.warns(UserWarning, match="ignoring unreadable cache entry"):
        assert find_bandwidth(4, 50, num_queries=100) == first
    assert find_bandwidth(4, 50, num_queries=100) == first
    assert [file.name for file in cache_dir.iterdir()] == [path.name]


def test_binary_entry_is_recomputed(cache_dir):
    first = find_bandwidth(4, 50, num_queries=100)
    (path,) = cache_dir.iterdir()
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.warns(UserWarning, match="ignoring unreadable"):
        assert find_bandwidth(4, 50, num_queries=100) == first


def test_folder_that_cannot_be_made_costs_a_warning(cache_dir, monkeypatch):
    # A file in the folder's place fails for every user, root too.
    cache_dir.write_text("")
    with pytest.warns(UserWarning, match="cannot keep the bandwidth"):
        result = find_bandwidth(4, 50, num_queries=100)
    monkeypatch.setenv("AVAE_CACHE_DIR", str(cache_dir / "below"))
    with pytest.warns(UserWarning, match="cannot keep the bandwidth"):
        assert find_bandwidth(4, 50, num_queries=100) == result


def test_failed_write_leaves_nothing(cache_dir, monkeypatch):
    def fail(source, target):
        raise OSError("disk full")

    monkeypatch.setattr("avae_jax.files.os.replace", fail)
    with pytest.warns(UserWarning, match="disk full"):
        find_bandwidth(4, 50, num_queries=100)
    assert not list(cache_dir.iterdir())


def test_no_cache_touches_no_file(cache_dir):
    find_bandwidth(4, 50, num_queries=100, cache=False)
    assert not cache_dir.exists()


def test_result_is_frozen_plain_numbers():
    result = find_bandwidth(np.int64(4), 50, num_queries=100)
    assert isinstance(result, Bandwidth)
    assert {type(value) for value in dataclasses.astuple(result)} == {float, int}
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.h_opt = 1.0


def test_it_is_a_pytree_of_its_numbers():
    found = Bandwidth(0.7, 0.5, 0.9, 0.01, -0.2, 5)
    assert jax.jit(lambda b: jax.tree.map(lambda leaf: 2 * leaf, b))(found).h_corr == 1.0
    assert jax.tree.map(lambda leaf: leaf, found) == found


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("find_bandwidth", lambda _: find_bandwidth(4, 50)),
        ("find_bandwidth", lambda n: find_bandwidth(4, n)),
        ("null_kl", lambda h: null_kl(4, 50, bandwidth=h, scale=1.0)),
        ("expected_code_scale", lambda h: expected_code_scale(4, 50, bandwidth=h)),
        ("find_prior_bandwidth", lambda _: find_prior_bandwidth(StandardNormal(4), 50)),
        ("prior_null_kl", lambda h: prior_null_kl(StandardNormal(4), 50, bandwidth=h)),
    ],
)
def test_inside_jit_it_is_told_to_stay_outside(name, call):
    with pytest.raises(
        TypeError, match=f"{name} must be called outside of jax.jit, .*: call it be"
    ):
        jax.jit(call)(0.5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"latent_dim": 0}, ValueError, "latent_dim must be an integer of at least .* got 0"),
        ({"num_centers": 1}, ValueError, "num_centers must be an integer of at least .* got 1"),
        ({"seed": -1}, ValueError, "seed must be an integer of at least .* got -1"),
        ({"num_queries": 1}, ValueError, "num_queries must be an integer of at least .* got 1"),
        ({"num_trials": 0}, ValueError, "num_trials must be an integer of at least .* got 0"),
        ({"latent_dim": 4.0}, TypeError, "latent_dim must be an integer of at least .* got 4.0"),
    ],
)
def test_errors_name_the_argument(change, error, message):
    with pytest.raises(error, match=message):
        find_bandwidth(**({"latent_dim": 4, "num_centers": 50} | change))
