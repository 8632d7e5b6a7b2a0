import jax
import numpy as np

from avae_jax.density.normal_draws import draw_queries_and_centers, row_stats


def centers_of(slabs, num_centers):
    return np.concatenate([slab.centers for slab in slabs])[:num_centers]


def test_slabs_do_not_change_draws_or_statistics():
    options = {"num_queries": 7, "seed": 3}
    queries, one = draw_queries_and_centers(5, 101, **options)
    same_queries, many = draw_queries_and_centers(5, 101, **options, max_slab_size=5 * 4)
    assert len(one) == 1
    assert len(many) == 4
    assert {slab.centers.shape for slab in many} == {(32, 5)}
    assert all(len(slab.centers.sharding.device_set) == 8 for slab in many)
    np.testing.assert_array_equal(queries, same_queries)
    np.testing.assert_array_equal(centers_of(one, 101), centers_of(many, 101))
    whole = row_stats(queries, one, bandwidth=0.5, with_mean=True)
    merged = row_stats(queries, many, bandwidth=0.5, with_mean=True)
    for left, right in zip(whole, merged, strict=True):
        np.testing.assert_allclose(left, right, rtol=2e-5, atol=1e-6)
    no_mean = row_stats(queries, many, bandwidth=0.5)
    assert no_mean.mean.shape == (7, 0)
    np.testing.assert_allclose(no_mean.lse, merged.lse, rtol=1e-6)


def test_row_moments_equal_float64():
    queries, slabs = draw_queries_and_centers(12, 60, num_queries=9, seed=0, max_slab_size=25)
    x, y = np.asarray(queries, np.float64), centers_of(slabs, 60).astype(np.float64)
    logits = -np.square(x[:, None] - y).sum(-1) / (2 * 0.8**2)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    stats = row_stats(queries, slabs, bandwidth=0.8)
    np.testing.assert_allclose(stats.logit_mean, (weights * logits).sum(1), rtol=1e-5)
    np.testing.assert_allclose(stats.logit_sq_mean, (weights * logits**2).sum(1), rtol=1e-5)


def test_trials_and_seeds_are_different_draws():
    draws = [
        np.asarray(draw_queries_and_centers(4, 10, num_queries=3, seed=seed, trial=trial)[0])
        for seed, trial in [(0, 0), (0, 1), (1, 0)]
    ]
    assert not np.any(draws[0] == draws[1])
    assert not np.any(draws[0] == draws[2])


def test_draws_are_float32_also_with_float64_enabled():
    with jax.enable_x64(True):
        queries, slabs = draw_queries_and_centers(4, 10, num_queries=3, seed=0, max_slab_size=2)
        assert queries.dtype == slabs[0].centers.dtype == slabs[0].log_weights.dtype == np.float32
