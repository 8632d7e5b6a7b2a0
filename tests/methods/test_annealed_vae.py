"""The capacity of a VAE's KL in the course of a training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.mark.parametrize(
    ("fields", "num_steps"),
    [({"capacity_steps": 10}, 10), ({}, 20 * 4)],  # 64 images in batches of 16
)
def test_the_capacity_rises_linearly(fields, num_steps, build):
    method = build(method="annealed_vae", capacity=6.0, **fields)
    for share, want in ((0.0, 0.0), (0.5, 3.0), (1.0, 6.0), (3.0, 6.0)):
        step = jnp.int32(share * num_steps)
        np.testing.assert_allclose(method.capacity(step), want, rtol=1e-6)


def test_a_step_takes_the_capacity_of_now_and_the_criterion_that_of_the_end(build, make_batch):
    method = build(method="annealed_vae", gamma=3.0, capacity=6.0, capacity_steps=10)
    batch, key = make_batch(method, np.array([1] * 12 + [0] * 4)), jax.random.key(7)
    variables = method.init(jax.random.key(0))

    @jax.jit
    def forward(step):
        output = method.losses(variables, (), batch, key, step=step, train=False)
        return output.losses["model"], output.terms

    for step, capacity in ((0, 0.0), (5, 3.0), (10, 6.0)):
        loss, terms = forward(jnp.int32(step))
        kl = np.asarray(terms["kl"], np.float64)[:12].mean()
        np.testing.assert_allclose(terms["capacity"], capacity, rtol=1e-6)
        np.testing.assert_allclose(terms["capacity_gap"], abs(kl - capacity), rtol=1e-5)
        want = np.asarray(terms["nll"], np.float64) + 3 * abs(kl - capacity)
        np.testing.assert_allclose(loss, want, rtol=1e-5)
    for kl, gap in ((2.0, 4.0), (7.5, 1.5)):
        assert method.criterion({"nll": 10.0, "kl": kl}) == 10 + 3 * gap


def test_no_noise_scale_is_said_to_collapse(build):
    """The codes are made to tell of the images."""
    x = np.random.default_rng(0).random((50, 4, 4, 1)).astype(np.float32)
    assert build(method="vae", noise_scale=50.0).introduce(x)
    assert not build(method="annealed_vae", noise_scale=50.0).introduce(x)
