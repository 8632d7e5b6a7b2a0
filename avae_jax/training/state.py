"""What training carries from step to step, and the optimizer that moves it."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from jax.sharding import Mesh

from avae_jax.mesh import replicated
from avae_jax.methods import Method, Player
from avae_jax.methods.networks import Variables
from avae_jax.training.config import OptimizationConfig


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "step", "variables", "opt_state", "plateau", "average", "memory", "key", "num_skipped",
        "num_skipped_in_a_row",
    ],
    meta_fields=[],
)  # fmt: skip
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything the next step depends on; a checkpoint is exactly this.

    Attributes:
      step: int32, steps taken, skipped ones included.
      variables: parameters (the prior's with them) and batch statistics, by network.
      opt_state: the optimizer's state.
      plateau: the step-size reduction's state (`optax.contrib.reduce_on_plateau`).
      average: exponential moving average of `variables`, or None.
      memory: what the method remembers.
      key: random key of the run; a step folds its number into it.
      num_skipped: int32, steps whose loss or gradient was not finite.
      num_skipped_in_a_row: int32, how many of them since the last good step.
    """

    step: jax.Array
    variables: Variables
    opt_state: Any
    plateau: Any
    average: Variables | None
    memory: Any
    key: jax.Array
    num_skipped: jax.Array
    num_skipped_in_a_row: jax.Array

    @property
    def evaluated(self) -> Variables:
        """The variables to evaluate and sample with: the average where one is kept."""
        return self.variables if self.average is None else self.average


def learning_rate_at(optimization: OptimizationConfig, step: int, *, steps_per_epoch: int) -> float:
    """Return the schedule's step size at a step; the plateau rule's factor is separate."""
    rate = _schedule(optimization, optimization.learning_rate, steps_per_epoch)
    return rate if isinstance(rate, float | int) else float(np.asarray(rate(step)))


def _schedule(optimization: OptimizationConfig, rate: float, steps_per_epoch: int):
    if optimization.schedule != "cosine":
        return rate
    return optax.cosine_decay_schedule(rate, optimization.num_epochs * steps_per_epoch)


def make_optimizer(
    players: Mapping[str, Player], optimization: OptimizationConfig, *, steps_per_epoch: int
) -> optax.GradientTransformation:
    """Return one Adam per player, each for its own parts; the plateau rule is separate.

    What no player moves stays as it is.
    """
    # Each part belongs to one player, or to nobody.
    owner = {part: name for name, player in players.items() for part in player.parts}
    movers: dict[Any, Any] = {
        name: _make_mover(player, optimization, steps_per_epoch) for name, player in players.items()
    }
    movers[""] = optax.set_to_zero()
    return optax.partition(movers, lambda params: {part: owner.get(part, "") for part in params})


def _make_mover(player: Player, optimization: OptimizationConfig, steps_per_epoch: int):
    """Return a player's Adam with its schedule, clipping and turn."""
    # What the player does not set, the run sets.
    given = player.learning_rate
    rate = _schedule(
        optimization, optimization.learning_rate if given is None else given, steps_per_epoch
    )
    first, second = player.adam_betas or (0.9, 0.999)
    mover = optax.adam(rate, b1=first, b2=second)
    clip_norm = optimization.clip_norm if player.clip_norm is None else player.clip_norm
    if clip_norm is not None:
        mover = optax.chain(optax.clip_by_global_norm(clip_norm), mover)
    if player.every > 1:

        def is_turn(step, **_):
            return jnp.asarray(step) % player.every == 0

        mover = optax.conditionally_mask(mover, is_turn)
    return mover


def ema_decays(players: Mapping[str, Player], optimization: OptimizationConfig) -> dict[str, float]:
    """Return the decay of the running average by part; empty where none is kept.

    A part without a decay where another has one is averaged over nothing: its average is itself.
    """
    decays = {
        part: optimization.ema_decay if player.ema_decay is None else player.ema_decay
        for player in players.values()
        for part in player.parts
    }
    return {part: decay for part, decay in decays.items() if decay is not None}


def make_plateau(optimization: OptimizationConfig) -> optax.GradientTransformationExtraArgs:
    """Return the rule that lowers the step size when the validation criterion stops falling.

    It is updated once per epoch, separately from the optimizer; its scale multiplies every update.
    """
    return optax.contrib.reduce_on_plateau(
        factor=optimization.plateau_factor,
        patience=optimization.plateau_patience,
        # An absolute margin: a relative one changes sign where the criterion is negative.
        rtol=0.0,
        atol=1e-3,
        min_scale=1e-3,
    )


def make_state(
    method: Method,
    optimizer: optax.GradientTransformation,
    optimization: OptimizationConfig,
    key: jax.Array | None = None,
) -> TrainState:
    """Draw the initial state; what a method starts its memory with is still to come.

    It is a pure function of its arguments, so that `jax.eval_shape` gives a restore target. As an
    argument the key, `jax.random.key(optimization.seed)`, is no constant of what is compiled.
    """
    whole = jax.random.key(optimization.seed) if key is None else key
    # One key for what is drawn now, one that the steps fold their number into.
    key_steps, key_init = jax.random.split(whole)
    variables = method.init(key_init)
    averaged = bool(ema_decays(method.players, optimization))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        opt_state=optimizer.init(variables["params"]),
        plateau=make_plateau(optimization).init(variables["params"]),
        average=jax.tree.map(jnp.copy, variables) if averaged else None,
        memory=method.init_memory(),
        key=key_steps,
        num_skipped=jnp.zeros((), jnp.int32),
        num_skipped_in_a_row=jnp.zeros((), jnp.int32),
    )


def state_sharding(state: TrainState, method: Method, mesh: Mesh) -> TrainState:
    """Return where each part of a state lies: whole on every device, but for what a method spreads.

    Args:
      state: a state, or its shapes.
      method: knows where its memory lies.
      mesh: the devices.

    Returns:
      A sharding in place of every leaf.
    """
    whole = replicated(mesh)
    at = jax.tree.map(lambda _: whole, dataclasses.replace(state, memory=None))
    return dataclasses.replace(at, memory=method.memory_sharding(state.memory, whole))


def restore_target(state: TrainState, sharding: TrainState) -> TrainState:
    """Return shapes, dtypes and shardings in one, which a checkpoint is read into."""
    return jax.tree.map(
        lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), state, sharding
    )
