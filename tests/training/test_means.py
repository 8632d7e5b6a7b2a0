"""Means over an epoch against clu's averages, and over steps that do not count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clu import metrics as clu_metrics

from avae_jax.training.loop import keep_metrics, resume_metrics
from avae_jax.training.means import masked_means


@pytest.fixture
def steps():
    """Three steps of (values [batch], mask [batch]); what is masked is not finite."""
    rng = np.random.default_rng(0)
    drawn = [(rng.normal(size=5).astype(np.float32), rng.random(5) < 0.6) for _ in range(3)]
    return [(np.where(mask, a, np.nan).astype(np.float32), mask) for a, mask in drawn]


def test_agree_with_clu_bit_for_bit(steps):
    ours = theirs = None
    for values, mask in steps:
        mask = jnp.asarray(mask, jnp.float32)
        new = masked_means({"a": values, "b": mask}, {"a": mask, "b": None})
        ours = new if ours is None else ours.merge(new)
        of_a = clu_metrics.Average.from_model_output(jnp.asarray(values), mask=mask)
        of_b = clu_metrics.Average.from_model_output(mask)
        theirs = (of_a, of_b) if theirs is None else (theirs[0].merge(of_a), theirs[1].merge(of_b))
    found = ours.compute()
    for name, average in zip("ab", theirs, strict=True):
        np.testing.assert_array_equal(found[name], average.compute())
        np.testing.assert_array_equal(ours.counts[name], average.count)
        assert ours.counts[name].dtype == average.count.dtype


def test_survive_json(steps):
    (values, mask), *_ = steps
    means = masked_means({"a": jnp.asarray(values)}, {"a": jnp.asarray(mask)})
    empty = jax.tree.map(jnp.zeros_like, means)
    again = resume_metrics(empty, keep_metrics(means))
    assert jax.tree.structure(again) == jax.tree.structure(means)
    for new, old in zip(jax.tree.leaves(again), jax.tree.leaves(means), strict=True):
        assert new.dtype == old.dtype
        np.testing.assert_array_equal(new, old)
    assert resume_metrics(empty, None) is empty


def test_are_nan_where_nothing_counts():
    means = masked_means({"a": jnp.ones(3)}, {"a": jnp.zeros(3)})
    assert np.isnan(means.compute()["a"])
