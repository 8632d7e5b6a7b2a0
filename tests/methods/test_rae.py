"""The regularized autoencoder: its penalties as the step sees them, and the bounded decoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax.methods.rae import SPECTRAL, kernels, spectrally_normalized
from avae_jax.training.config import OptimizationConfig
from avae_jax.training.state import make_optimizer, make_state
from avae_jax.training.step import make_train_step


def losses_of(method, batch, variables):
    run = jax.jit(
        lambda v: method.losses(v, (), batch, jax.random.key(1), step=jnp.int32(0), train=True)
    )
    return run(variables)


@pytest.mark.parametrize("regularizer", ["l2", "gradient"])
def test_the_loss_is_the_penalized_error(regularizer, build, make_batch):
    method = build(method="rae", regularizer=regularizer, weight=0.3, code_weight=0.2)
    batch, variables = make_batch(method), method.init(jax.random.key(0))
    output = losses_of(method, batch, variables)
    z = np.asarray(method.encode(variables, batch.x, train=True)[0].mean(), np.float64)
    np.testing.assert_allclose(output.terms["code_norm"], 0.5 * np.square(z).sum(1), rtol=1e-5)
    if regularizer == "l2":
        leaves = jax.tree.leaves(variables["params"]["decoder"])
        want = sum(np.square(np.asarray(leaf, np.float64)).sum() for leaf in leaves)
    else:
        # One draw of signs is pulled back through the decoder's whole Jacobian.
        jacobian = jax.vmap(
            jax.jacrev(lambda z: method.decode(variables, z[None], train=True)[0][0])
        )(jnp.asarray(z, jnp.float32))
        signs = jax.random.rademacher(jax.random.key(1), (16, *method.image_shape), jnp.float32)
        want = np.square(np.einsum("nhwcj,nhwc->nj", jacobian, signs)).sum(axis=1)
    np.testing.assert_allclose(output.terms["penalty"], want, rtol=1e-4)
    total = output.terms["reconstruction"] + 0.2 * output.terms["code_norm"] + 0.3 * want
    np.testing.assert_allclose(output.losses["model"], total, rtol=1e-4)


def test_the_power_iteration_finds_the_largest_singular_values():
    rng = np.random.default_rng(0)
    params = {
        "dense": {"kernel": rng.standard_normal((6, 4)), "bias": rng.standard_normal(4)},
        "conv": {"kernel": rng.standard_normal((3, 3, 2, 5)), "bias": np.zeros(5)},
        "dead": {"kernel": np.zeros((3, 4))},
    }
    params = jax.tree.map(jnp.float32, params)
    directions = {
        name: jnp.asarray(rng.standard_normal(kernel.shape[-1]), jnp.float32)
        for name, kernel in kernels(params).items()
    }
    assert len(directions) == 3
    step = jax.jit(spectrally_normalized)
    for _ in range(60):
        bounded, directions = step(params, directions)
    for name in ("dense", "conv"):
        kernel = np.asarray(params[name]["kernel"], np.float64)
        largest = np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2)
        np.testing.assert_allclose(bounded[name]["kernel"], kernel / largest, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(bounded[name]["bias"], params[name]["bias"])
    np.testing.assert_array_equal(bounded["dead"]["kernel"], 0)
    # From a kernel that comes to life the iteration goes on.
    params["dead"]["kernel"] = params["dead"]["kernel"].at[0, 0].set(2.0)
    bounded, _ = step(params, directions)
    np.testing.assert_allclose(np.linalg.norm(bounded["dead"]["kernel"]), 1.0, rtol=1e-5)


def test_a_bounded_decoder_keeps_its_directions_from_step_to_step(build, make_batch):
    method = build(method="rae", regularizer="spectral")
    optimization = OptimizationConfig(schedule="constant")
    optimizer = make_optimizer(method.players, optimization, steps_per_epoch=1)
    step = jax.jit(make_train_step(method, optimizer, ema_decays={}))
    state, batch = make_state(method, optimizer, optimization), make_batch(method)
    for _ in range(30):
        state, metrics = step(state, batch)
    assert float(metrics["good"]) == 1
    variables = state.variables
    bounded, _ = spectrally_normalized(
        variables["params"]["decoder"], variables["batch_stats"][SPECTRAL]
    )
    for name, kernel in kernels(bounded).items():
        assert np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2) == pytest.approx(
            1.0, abs=0.05
        ), name
    # Outside of training nothing moves.
    z = jnp.ones((2, 3))
    assert method.decode(variables, z, train=False)[1] is variables
    assert method.criterion({"reconstruction": 1.0, "code_norm": 2.0}) == pytest.approx(1.02)
