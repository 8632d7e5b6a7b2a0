"""The beta-TCVAE: what it descends, and which posteriors it remembers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax import losses
from avae_jax.mesh import split_rows
from avae_jax.methods import vae
from avae_jax.training.config import OptimizationConfig
from avae_jax.training.state import make_optimizer, make_state
from avae_jax.training.step import make_train_step

TRAIN_IDS = np.random.default_rng(0).permutation(96)[:64].astype(np.int32)


class Host:
    """Knows the training images; validates nothing."""

    train_ids = TRAIN_IDS


@pytest.fixture(scope="module", params=[None, 24], ids=["all", "last"])
def method(request, build):
    return build(
        method="beta_tcvae", beta=5.0, gamma=2.0, density="exact", num_posteriors=request.param,
        noise_scale=0.7,
    )  # fmt: skip


def batch_of(method, make_batch, ids, mask=None, seed=0):
    return make_batch(method, mask, seed=seed)._replace(ids=jnp.asarray(ids, jnp.int32))


def run_losses(method, variables, memory, batch):
    run = jax.jit(
        lambda v, m, b: method.losses(v, m, b, jax.random.key(7), step=jnp.int32(0), train=False)
    )
    return run(variables, memory, batch)


def test_the_loss_is_that_of_the_library(method, make_batch):
    """Against the batch and what is remembered of other images, without their own."""
    variables = method.init(jax.random.key(0))
    memory = method.start(method.init_memory(), variables, Host()).memory
    for seed, ids in enumerate((TRAIN_IDS[:16], TRAIN_IDS[10:26])):
        batch = batch_of(method, make_batch, ids, seed=seed)
        output = run_losses(method, variables, memory, batch)
        if seed == 0:
            memory = method.remember(memory, output, batch, variables, step=0, good=True)
    posterior, _ = method.encode(variables, batch.x, train=False)
    z = posterior.sample(jax.random.key(7))
    x_recon, _ = method.decode(variables, z, train=False)
    first, _ = method.encode(variables, batch_of(method, make_batch, TRAIN_IDS[:16]).x, train=False)
    # Ten images of the first batch are not in the second.
    want, terms = losses.beta_tcvae(
        batch.x, x_recon, z, posterior.loc, posterior.log_var, beta=5.0, gamma=2.0, num_train=64,
        bank=(first.loc[:10], first.log_var[:10]), noise_scale=0.7,
    )  # fmt: skip
    np.testing.assert_allclose(output.losses["model"], want, rtol=1e-5)
    assert output.terms.keys() == terms.keys()
    for name, term in terms.items():
        np.testing.assert_allclose(output.terms[name], term, rtol=1e-5, atol=1e-5, err_msg=name)
    means = {name: float(term.mean()) for name, term in terms.items()}
    assert method.criterion(means) == pytest.approx(float(want.mean()), rel=1e-5)


def test_what_is_remembered(method, make_batch):
    """The last posterior of each image, or those of the last images."""
    variables = method.init(jax.random.key(0))
    memory = method.start(method.init_memory(), variables, Host()).memory
    num_rows = len(memory.ids)
    remember = jax.jit(
        lambda memory, output, batch, good: method.remember(
            memory, output, batch, variables, step=0, good=good
        )
    )
    last = {}
    for seed, start in enumerate((0, 16, 32, 48, 8)):
        ids = TRAIN_IDS[start : start + 16]
        mask = np.ones(16) if seed != 1 else (np.arange(16) < 12) * 1.0
        batch = batch_of(method, make_batch, ids, mask, seed=seed)
        output = run_losses(method, variables, memory, batch)
        unchanged = remember(memory, output, batch, False)
        for one, other in zip(unchanged, memory, strict=True):
            np.testing.assert_array_equal(one, other)
        memory = remember(memory, output, batch, True)
        loc, log_var = output.noted
        for i in np.flatnonzero(mask):
            last.pop(int(ids[i]), None)
            last[int(ids[i])] = np.concatenate([loc[i], log_var[i]])
    held = {
        int(i): np.concatenate(pair)
        for i, *pair in zip(memory.ids, memory.loc, memory.log_var, strict=True)
        if i >= 0
    }
    if num_rows < 64:
        last = dict(list(last.items())[-num_rows:])
    # Four rows of a batch were no images.
    assert len(held) == min(num_rows, 60)
    assert held.keys() == last.keys()
    for i, posterior in held.items():
        np.testing.assert_array_equal(posterior, last[i])


def test_a_step_is_the_same_on_many_devices(build, make_batch):
    metrics = {}
    for num_devices in (1, 8):
        method = build(method="beta_tcvae", density="exact", num_devices=num_devices)
        optimization = OptimizationConfig(learning_rate=1e-3, schedule="constant")
        optimizer = make_optimizer(method.players, optimization, steps_per_epoch=1)
        state = make_state(method, optimizer, optimization)
        batch = batch_of(method, make_batch, TRAIN_IDS[:16])
        if num_devices > 1:
            batch = jax.device_put(batch, split_rows(method.setting.mesh))
        memory = state.memory._replace(
            ids=state.memory.ids.at[:30].set(TRAIN_IDS[30:60]),
            loc=jnp.asarray(np.random.default_rng(3).standard_normal((64, 3)), jnp.float32),
        )
        step = jax.jit(make_train_step(method, optimizer, ema_decays={}))
        state = dataclasses.replace(state, memory=memory)
        _, metrics[num_devices] = step(state, batch)
    for name in ("loss", "mi", "tc", "dimension_kl", "gradient_norm"):
        np.testing.assert_allclose(metrics[8][name], metrics[1][name], rtol=1e-4, err_msg=name)


def test_a_memory_that_is_empty_leaves_the_batch(build, make_batch):
    exact, uniform = (
        build(method="beta_tcvae", density=density) for density in ("exact", "uniform")
    )
    variables, batch = exact.init(jax.random.key(0)), make_batch(exact)
    one, other = (run_losses(m, variables, m.init_memory(), batch) for m in (exact, uniform))
    for name, term in other.terms.items():
        np.testing.assert_allclose(one.terms[name], term, rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_advice_on_noise_is_that_of_a_vae(build):
    """Independent directions pay no total correlation."""
    images = np.random.default_rng(0).random((40, 4, 4, 1)).astype(np.float32)
    largest = vae.largest_std(images)
    for noise_scale, is_warned in ((0.9 * largest, False), (1.1 * largest, True)):
        method = build(method="beta_tcvae", beta=9.0, noise_scale=noise_scale)
        assert bool(method.introduce(images)) == is_warned
