"""Generative encoding networks: the bandwidth, the claim, and the null value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax import losses
from avae_jax.density import find_bandwidth


@pytest.fixture(scope="module")
def method(build):
    return build(method="gens", num_centers=32)


def test_the_bandwidth_is_not_corrected_and_the_prior_is_shrunk_by_it(method, build):
    found = find_bandwidth(3, 32)
    assert method.kernel_std == found.h_opt < 1
    prior = method.sampling_priors(method.init(jax.random.key(0)))["claimed"]()
    assert prior.std() == pytest.approx(np.sqrt(1 - found.h_opt**2), rel=1e-5)
    given = build(method="gens", num_centers=32, bandwidth=0.4)
    assert given.kernel_std == 0.4
    # What a run folder keeps builds the same.
    again = method.options.make(method.setting, method.facts)
    assert again.bandwidth == method.bandwidth


def test_the_null_is_what_perfect_codes_show(method, make_batch):
    """Codes that are drawn where they are claimed to lie, bank and batch."""
    null = method.null()
    assert null["divergence"] < 0

    @jax.jit
    def divergence(key):
        z, c = (
            method.bandwidth.prior_scale * jax.random.normal(key, (num, 3))
            for key, num in zip(jax.random.split(key), (500, 32), strict=True)
        )
        x = jnp.zeros((500, 1))
        _, terms = losses.gens(
            x, x, z, c, bandwidth=method.kernel_std, weight=1.0, tail="official",
            max_cdf=method.options.floor_at(3),
        )  # fmt: skip
        return terms["divergence"].mean()

    values = [float(divergence(jax.random.key(100 + seed))) for seed in range(20)]
    # One set of centers makes the null: its error is that of one of these.
    assert abs(null["divergence"] - np.mean(values)) < 5 * np.std(values, ddof=1)
