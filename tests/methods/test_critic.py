"""Methods with a critic: who learns what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax.numerics import masked_mean
from avae_jax.training.config import OptimizationConfig
from avae_jax.training.state import make_optimizer, make_state
from avae_jax.training.step import make_train_step, own_gradients

SMALL = {"critic_width": 16, "critic_layers": 2, "latent_dim": 2, "critic_learning_rate": 1e-4}


@pytest.fixture(scope="module", params=["factor_vae", "aae"])
def method(request, build):
    return build(method=request.param, **SMALL)


@pytest.fixture(scope="module")
def gradients(method, make_batch):
    """Return the gradients of each player's loss, and those that a step takes."""
    variables, key = method.init(jax.random.key(0)), jax.random.key(1)
    batch = make_batch(method)

    @jax.jit
    def found(params):
        def losses(params):
            output = method.losses(
                {**variables, "params": params}, (), batch, key, step=0, train=True
            )
            return {name: masked_mean(loss, batch.mask) for name, loss in output.losses.items()}

        means, pull_back = jax.vjp(losses, params)
        each = {name: jax.grad(lambda p, name=name: losses(p)[name])(params) for name in means}
        return each, own_gradients(method.players, means, pull_back)

    return found(variables["params"])


def test_the_encoder_does_not_learn_to_be_told_apart(gradients):
    """The critic's loss has no gradient in the encoder at all."""
    of_critic = gradients[0]["critic"]
    assert np.any(jax.tree.leaves(of_critic["critic"])[0] != 0)
    for part in ("encoder", "decoder"):
        assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(of_critic[part])), part


def test_the_critic_moves_by_its_own_loss_alone(gradients):
    each, got = gradients
    # The model's has no gradient in the critic at all.
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(each["model"]["critic"]))
    for part, player in {"critic": "critic", "encoder": "model", "decoder": "model"}.items():
        for mine, own in zip(
            jax.tree.leaves(got[part]), jax.tree.leaves(each[player][part]), strict=True
        ):
            np.testing.assert_allclose(mine, own, rtol=1e-5, atol=1e-7, err_msg=part)
    # What the critic says of the codes does reach the encoder.
    assert np.any(jax.tree.leaves(each["model"]["encoder"])[0] != 0)


def test_the_critic_picks_no_checkpoint(method):
    """What its estimates are worth changes from epoch to epoch."""
    of_model = {"reconstruction": 3.0, "nll": 2.0, "kl": 1.0}
    of_critic = ("tc", "adversarial", "critic_loss", "critic_accuracy")
    few, many = (method.criterion({**of_model, **dict.fromkeys(of_critic, v)}) for v in (0.0, 9.0))
    assert few == many == 3.0


def test_both_players_learn_and_the_critic_at_its_own_rate(build, make_batch):
    method = build(method="aae", **SMALL)
    optimization = OptimizationConfig(learning_rate=1e-3, schedule="constant")
    optimizer = make_optimizer(method.players, optimization, steps_per_epoch=1)
    step = jax.jit(make_train_step(method, optimizer, ema_decays={}))
    state = make_state(method, optimizer, optimization)
    after, metrics = step(state, make_batch(method))
    assert float(metrics["good"]) == 1
    moved = {
        part: max(
            float(jnp.abs(a - b).max())
            for a, b in zip(
                jax.tree.leaves(after.variables["params"][part]),
                jax.tree.leaves(state.variables["params"][part]),
                strict=True,
            )
        )
        for part in ("encoder", "decoder", "critic")
    }
    # The first step of Adam is its rate.
    assert moved["encoder"] == pytest.approx(1e-3, rel=1e-2)
    assert moved["decoder"] == pytest.approx(1e-3, rel=1e-2)
    assert moved["critic"] == pytest.approx(1e-4, rel=1e-2)
