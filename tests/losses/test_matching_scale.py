"""What statistics of a batch of codes say of draws of the prior, and how wide they make the codes.

Means over batches, which blur more than a compiler's optimizations change.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax import losses

pytestmark = pytest.mark.usefixtures("quick_compiler")


def directed(statistic):
    """Give a statistic draws of the prior and directions."""

    def of_key(z, key):
        of_draws, of_directions = jax.random.split(key)
        directions = losses.unit_directions(of_directions, z.shape[1], 4)
        return statistic(z, jax.random.normal(of_draws, z.shape), directions)

    return of_key


STATISTICS = {
    "imq": directed(lambda z, y, w: losses.mmd(z, y, scale=4.0)),
    "rbf_exact": directed(lambda z, y, w: losses.mmd_standard_normal(z)),
    "energy_exact": directed(lambda z, y, w: losses.energy_distance(z, None)),
    "epps_pulley": directed(lambda z, y, w: losses.epps_pulley(z, w)),
    "log_cramer_wold": directed(lambda z, y, w: jnp.log(losses.cramer_wold(z))),
    "sw_draws": directed(losses.sliced_wasserstein),
    "sw_quantiles": directed(lambda z, y, w: losses.sliced_wasserstein(z, None, w)),
}
NUM_BATCHES = 40


@pytest.mark.parametrize(
    ("name", "null", "wanted"),
    [
        ("imq", 0.0, 1.0),
        ("rbf_exact", 0.0, 1.0),
        ("energy_exact", 0.0, 1.0),
        ("epps_pulley", 1.059, 0.99),
        ("log_cramer_wold", -4.25, 0.995),
        ("sw_draws", 0.056, 0.974),
        ("sw_quantiles", 0.028, 0.978),
    ],
)
def test_the_value_at_the_prior_and_the_scale_of_the_codes(name, null, wanted):
    """Where the expected statistic of 100 codes of N(0, s^2 I) is lowest: a bias shrinks them."""
    low, high = wanted - 0.05, wanted + 0.05

    def of_scale(scale, key):
        of_codes, other = jax.random.split(key)
        return STATISTICS[name](scale * jax.random.normal(of_codes, (100, 8)), other)

    scales = jnp.array([1.0, low, high])
    keys = jax.random.split(jax.random.key(1), NUM_BATCHES)
    of_scales = jax.vmap(jax.value_and_grad(of_scale), (0, None))
    values, slopes = jax.jit(jax.vmap(of_scales, (None, 0)))(scales, keys)
    values, slopes = np.asarray(values, np.float64)[:, 0], np.asarray(slopes, np.float64)[:, 1:]
    error = values.std() / math.sqrt(NUM_BATCHES)
    # The table that it is compared with has three digits.
    assert abs(values.mean() - null) < 5 * error + 5e-3 * abs(null)
    # The slope's zero, between two scales, and how well that is known.
    below, above = slopes.mean(axis=0)
    rise = (above - below) / (high - low)
    assert rise > 0
    blur = (slopes.mean(axis=1) / rise).std() / math.sqrt(NUM_BATCHES)
    assert abs(low - below / rise - wanted) < 5 * blur + 1e-3
    assert blur < 0.02
