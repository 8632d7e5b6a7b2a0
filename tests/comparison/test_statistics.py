"""Statistics over seeds against SciPy, and Holm's correction by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from avae_jax.comparison.statistics import (
    MOST_EXACT,
    holm,
    least_holm,
    paired_difference,
    sign_flip_p,
    spread,
)


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_the_interval_and_the_p_are_scipys(n):
    rng = np.random.default_rng(n)
    x, y = rng.normal(1.0, 1.0, (2, n))
    found = paired_difference(dict(enumerate(x)), dict(enumerate(y)))
    test = stats.ttest_rel(x, y)
    interval = test.confidence_interval(0.95)
    assert found.n == n
    np.testing.assert_allclose(
        [found.mean, found.low, found.high], [np.mean(x - y), interval.low, interval.high]
    )
    flips = stats.permutation_test(
        (x, y), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=10**6
    )
    np.testing.assert_allclose(found.p, flips.pvalue)
    assert found.least_p == 2 / 2**n <= found.p


def test_seeds_are_paired_by_their_number():
    found = paired_difference({0: 1.0, 2: 5.0, 7: math.nan}, {2: 3.0, 0: 0.5, 1: 9.0, 7: 1.0})
    assert (found.n, found.mean) == (2, 1.25)


def test_one_seed_has_no_interval_and_no_test():
    found = paired_difference({0: 1.0}, {0: 3.0})
    assert (found.n, found.mean) == (1, -2.0)
    assert np.isnan([found.low, found.high, found.p, found.least_p]).all()
    assert paired_difference({}, {0: 1.0}).n == 0
    assert np.isnan(spread([4.0]).std)


def test_equal_sums_in_another_order_count():
    """0.1 + 0.2 - 0.3 is no zero in floating point."""
    d = np.array([0.1, 0.2, -0.3])
    signs = itertools.product([1, -1], repeat=3)
    exact = np.mean([abs(np.dot(s, [1, 2, -3])) >= 0 for s in signs])
    assert sign_flip_p(d) == exact == 1.0


def test_too_many_seeds_have_no_exact_p():
    assert math.isnan(sign_flip_p(np.ones(MOST_EXACT + 1)))


def test_holm_by_hand():
    """Sorted .005 .01 .03 .04 times 4, 3, 2, 1, never falling: .02 .03 .06 .06."""
    found = holm([0.04, math.nan, 0.005, 0.03, 0.01])
    np.testing.assert_allclose(found, [0.06, math.nan, 0.02, 0.06, 0.03])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1.0, 1.0])


def test_the_least_of_holms_p_is_that_of_the_clearest_differences():
    """Every seed agrees, in every one of the methods: no p can be smaller."""
    clear = [paired_difference(dict(enumerate(range(1, 6))), dict.fromkeys(range(5), 0.0))] * 3
    assert least_holm([one._asdict() for one in clear]) == (3, holm([one.p for one in clear])[0])
    assert math.isnan(least_holm([])[1])
