"""ARD-VAE: the prior's variances are those of the codes, and follow them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax.methods import Batch, Output
from avae_jax.training.config import OptimizationConfig
from avae_jax.training.state import make_optimizer, make_state
from avae_jax.training.step import make_train_step


@pytest.fixture(scope="module")
def method(build):
    return build(method="ard_vae", num_codes=64)


def remember(method, memory, z, mask, step, make_batch, *, good=True):
    output = Output({}, {}, {}, jnp.asarray(z, jnp.float32))
    batch = make_batch(method, mask)
    return method.remember(memory, output, batch, {}, step=jnp.int32(step), good=jnp.asarray(good))


def test_the_prior_s_variances_are_the_mean_squares_of_the_codes(method, make_batch):
    """Of all codes while there are few, then with the weight of the batch among `num_codes`."""
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((6, 16, 3)) * [0.1, 1.0, 3.0] + [0.0, 0.5, 0.0]
    memory, want = method.init_memory(), np.ones(3)
    for step, z in enumerate(codes):
        memory = remember(method, memory, z, np.ones(16), step, make_batch)
        want = want + max(16 / 64, 1 / (step + 1)) * (np.square(z).mean(axis=0) - want)
        if step < 4:
            np.testing.assert_allclose(want, np.square(codes[: step + 1]).mean(axis=(0, 1)))
    np.testing.assert_allclose(memory.variance, want, rtol=1e-5)
    # Rows that only fill up, and steps that failed, change nothing.
    mask = np.r_[np.ones(12), np.zeros(4)]
    wild = np.where(mask[:, None] > 0, codes[0], 1e6)
    after = remember(method, memory, wild, mask, 6, make_batch)
    mean = np.square(codes[0, :12]).mean(axis=0)
    np.testing.assert_allclose(after.variance, want + 12 / 64 * (mean - want), rtol=1e-5)
    for failed in (
        remember(method, memory, codes[0], np.ones(16), 6, make_batch, good=False),
        remember(method, memory, codes[0], np.zeros(16), 6, make_batch),
    ):
        np.testing.assert_array_equal(failed.variance, memory.variance)


def test_the_loss_sees_what_is_remembered_and_the_run_keeps_it(method, make_batch):
    variables, batch = method.init(jax.random.key(0)), make_batch(method)
    memory = method.init_memory()._replace(variance=jnp.array([0.01, 1.0, 4.0]))
    output = jax.jit(
        lambda m: method.losses(variables, m, batch, jax.random.key(1), step=0, train=False)
    )(memory)
    posterior, _ = method.encode(variables, batch.x, train=False)
    np.testing.assert_allclose(output.terms["kl"], posterior.kl(memory.prior), rtol=1e-5)
    draws = posterior.sample(jax.random.key(1))
    np.testing.assert_allclose(output.z, draws, rtol=1e-4, atol=1e-5)
    assert output.variables["params"]["prior"] is not memory.prior
    terms = {"reconstruction": 1.0, "nll": 1.0, "kl": 1.0, "loss": 2.0}
    measured = method.after_epoch(memory, variables, terms)
    variance = np.exp(measured.params["prior"].log_var)
    np.testing.assert_allclose(variance, [0.01, 1, 4], rtol=1e-5)
    # The noise scale is measured beside it.
    assert set(measured.params) == {"prior", "likelihood"}


def test_axes_that_the_data_do_not_need_shrink(build):
    """Images on a curve have one: the others lose their width and the decoder's ear."""
    fields = {"batch_size": 64, "num_codes": 256, "noise_scale": 0.05}
    method = build(method="ard_vae", **fields)
    optimization = OptimizationConfig(learning_rate=3e-3, schedule="constant")
    optimizer = make_optimizer(method.players, optimization, steps_per_epoch=1)
    step = make_train_step(method, optimizer, ema_decays={})
    slopes = np.random.default_rng(0).standard_normal(16)

    def draw(key):
        x = jax.nn.sigmoid(jax.random.normal(key, (64, 1)) * slopes[None]).reshape(64, 4, 4, 1)
        return Batch(x, jnp.arange(64, dtype=jnp.int32), jnp.ones(64), jnp.full(64, -1))

    @jax.jit
    def train(state, key):
        def once(i, state):
            return step(state, draw(jax.random.fold_in(key, i)))[0]

        return jax.lax.fori_loop(0, 200, once, state)

    @jax.jit
    def relevance(variables):
        z = method.encode(variables, draw(jax.random.key(9)).x, train=False)[0].mean()
        one = jax.jacrev(lambda z: method.decode(variables, z[None], train=False)[0].ravel())
        return jnp.sqrt(jnp.square(jax.vmap(one)(z)).sum(axis=1).mean(axis=0))

    first = train(make_state(method, optimizer, optimization), jax.random.key(0))
    last = train(first, jax.random.key(1))
    widths = [np.sqrt(state.memory.variance) for state in (first, last)]
    heard = widths[1] * relevance(last.variables)
    others = np.argsort(heard)[:2]
    assert heard[others].max() < 0.1 * heard.max()
    assert (widths[1][others] < 0.9 * widths[0][others]).all()
    assert widths[1][others].max() < 0.3 * widths[1].max()
