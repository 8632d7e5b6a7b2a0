import inspect
import math

import numpy as np
import pytest

from avae_jax import metrics
from avae_jax.metrics.nulls import exchanges, with_null


def test_mean_and_deviation_stand_beside_the_number():
    found = with_null("a", 3.0, [1.0, 2.0, 6.0])
    assert found == {"a": 3.0, "a_null": 3.0, "a_null_std": pytest.approx(math.sqrt(7.0))}
    assert math.isnan(with_null("a", 3.0, [])["a_null"])
    assert math.isnan(with_null("a", 3.0, [1.0])["a_null_std"])
    infinite = with_null("a", 3.0, [1.0, math.inf])
    assert infinite["a_null"] == math.inf
    assert math.isnan(infinite["a_null_std"])


def test_exchanges_deal_out_all_rows():
    x, y = np.arange(6.0).reshape(3, 2), 10.0 + np.arange(4.0).reshape(2, 2)
    dealt = list(exchanges(x, y, 5, np.random.default_rng(0)))
    for a, b in dealt:
        assert (a.shape, b.shape) == (x.shape, y.shape)
        assert sorted(np.concatenate([a, b])[:, 0]) == [0.0, 2.0, 4.0, 10.0, 12.0]
    assert any((a[:, 0] >= 10.0).any() for a, _ in dealt)


def test_a_null_is_of_twenty_draws_where_nothing_else_is_asked_for():
    modules = (metrics, metrics.disentanglement)
    functions = [f for m in modules for f in vars(m).values() if inspect.isfunction(f)]
    defaults = {
        f.__name__: inspect.signature(f).parameters["num_null"].default
        for f in functions
        if "num_null" in inspect.signature(f).parameters
    }
    assert {"frechet_distance", "knn_kl", "max_sliced_w2", "total_correlation"} <= set(defaults)
    # Each of these trains a classifier: they have no null unless it is asked for.
    assert [defaults.pop(name) for name in ("dci", "sap")] == [0, 0]
    assert {name: count for name, count in defaults.items() if count < 20} == {}
