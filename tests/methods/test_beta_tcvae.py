"""The beta-TCVAE: what it descends, and which posteriors it remembers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax import losses
from avae_jax.mesh import split_rows
from avae_jax.methods import Output, vae

TRAIN_IDS = np.random.default_rng(0).permutation(96)[:64].astype(np.int32)


class Host:
    """Knows the training images; validates nothing."""

    train_ids = TRAIN_IDS


FIELDS = {"method": "beta_tcvae", "beta": 5.0, "gamma": 2.0, "noise_scale": 0.7}


@pytest.fixture(scope="module")
def method(build):
    return build(**FIELDS, density="exact")


@pytest.fixture(scope="module")
def variables(method):
    return method.init(jax.random.key(0))


@pytest.fixture(scope="module")
def run(method):
    """Return the forward pass, compiled once."""
    return compiled(method)


def compiled(method):
    key = jax.random.key(7)
    return jax.jit(lambda v, m, b: method.losses(v, m, b, key, step=jnp.int32(0), train=False))


def batch_of(method, make_batch, ids, mask=None, seed=0):
    return make_batch(method, mask, seed=seed)._replace(ids=jnp.asarray(ids, jnp.int32))


def test_the_loss_is_that_of_the_library(method, variables, run, make_batch):
    """Against the batch and what is remembered of other images, without their own."""
    memory = method.start(method.init_memory(), variables, Host()).memory
    for seed, ids in enumerate((TRAIN_IDS[:16], TRAIN_IDS[10:26])):
        batch = batch_of(method, make_batch, ids, seed=seed)
        output = run(variables, memory, batch)
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


@pytest.mark.parametrize("num_posteriors", [None, 24])
def test_what_is_remembered(num_posteriors, build, variables, make_batch):
    """The last posterior of each image, or those of the last images."""
    method = build(**FIELDS, density="exact", num_posteriors=num_posteriors)
    rng = np.random.default_rng(1)
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
        loc, log_var = rng.standard_normal((2, 16, 3)).astype(np.float32)
        output = Output({}, {}, {}, jnp.asarray(loc), (jnp.asarray(loc), jnp.asarray(log_var)))
        unchanged = remember(memory, output, batch, False)
        for one, other in zip(unchanged, memory, strict=True):
            np.testing.assert_array_equal(one, other)
        memory = remember(memory, output, batch, True)
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


def test_the_loss_is_the_same_on_many_devices(method, variables, run, build, make_batch):
    """Its gradients are those of the density, which `tests/density/test_mixture.py` splits."""
    batch, memory = batch_of(method, make_batch, TRAIN_IDS[:16]), method.init_memory()
    memory = memory._replace(
        ids=memory.ids.at[:30].set(TRAIN_IDS[30:60]),
        loc=jnp.asarray(np.random.default_rng(3).standard_normal((64, 3)), jnp.float32),
    )
    many = build(**FIELDS, density="exact", num_devices=8)
    split = jax.device_put(batch, split_rows(many.setting.mesh))
    one, other = run(variables, memory, batch), compiled(many)(variables, memory, split)
    for name, term in {**one.terms, **one.losses}.items():
        got = {**other.terms, **other.losses}[name]
        np.testing.assert_allclose(got, term, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_memory_that_is_empty_leaves_the_batch(method, variables, run, build, make_batch):
    uniform, batch = build(**FIELDS, density="uniform"), make_batch(method)
    one = run(variables, method.init_memory(), batch)
    other = compiled(uniform)(variables, uniform.init_memory(), batch)
    for name, term in other.terms.items():
        np.testing.assert_allclose(one.terms[name], term, rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_advice_on_noise_is_that_of_a_vae(build):
    """Independent directions pay no total correlation."""
    images = np.random.default_rng(0).random((40, 4, 4, 1)).astype(np.float32)
    largest = vae.largest_std(images)
    for noise_scale, is_warned in ((0.9 * largest, False), (1.1 * largest, True)):
        method = build(method="beta_tcvae", beta=9.0, noise_scale=noise_scale)
        assert bool(method.introduce(images)) == is_warned
