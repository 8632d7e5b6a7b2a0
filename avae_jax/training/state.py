"""What training carries from step to step, and the optimiser that moves it."""

import dataclasses
import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from jax.sharding import PartitionSpec

from avae_jax.training.autoencoder import Autoencoder, Variables
from avae_jax.training.config import Config, OptimizationConfig
from avae_jax.training.sharding import BATCH_AXIS, replicated, split_rows, spreads_bank


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["codes", "index", "encoded_at", "row_of", "next_row"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Centers:
    """The bank of codes the aggregate posterior is made of.

    Attributes:
      codes: `[num_centers, latent_dim]` float32, split over the devices if their number divides
        it.
      index: `[num_centers]` int32, which image each code came from.
      encoded_at: `[num_centers]` int32, the step at which it was encoded.
      row_of: `[num_images]` int32, the row of each image in the bank, -1 when it has none; the
        row to leave out of the density at the image's own code.
      next_row: int32, the row a queue overwrites next.
    """

    codes: jax.Array
    index: jax.Array
    encoded_at: jax.Array
    row_of: jax.Array
    next_row: jax.Array

    def push(
        self,
        codes: jax.Array,
        index: jax.Array,
        *,
        step: jax.Array | int,
        mesh: jax.sharding.Mesh,
        good: jax.Array | bool = True,
    ) -> "Centers":
        """Replace the oldest rows by a batch of codes; not `good`, change nothing.

        Nothing is written then, rather than all of it selected again: the bank can be large.
        """
        num_centers, num_images, batch = self.index.shape[0], self.row_of.shape[0], index.shape[0]
        rows = (self.next_row + jnp.arange(batch, dtype=jnp.int32)) % num_centers
        evicted = self.index[rows]
        # An image that was pushed again since keeps its newer row. Where both its rows go at once
        # the minimum, unlike a second assignment, gives -1 in whatever order it is taken.
        gone = jnp.where(self.row_of[evicted] == rows, -1, self.row_of[evicted])
        evicted, index_at = (jnp.where(good, a, num_images) for a in (evicted, index))
        at = jnp.where(good, rows, num_centers)
        row_of = self.row_of.at[evicted].min(gone, mode="drop").at[index_at].set(rows, mode="drop")
        return Centers(
            codes=_write_rows(self.codes, at, codes, mesh),
            index=self.index.at[at].set(index, mode="drop"),
            encoded_at=self.encoded_at.at[at].set(step, mode="drop"),
            row_of=row_of,
            next_row=jnp.where(good, (self.next_row + batch) % num_centers, self.next_row),
        )


def _write_rows(bank: jax.Array, rows: jax.Array, codes: jax.Array, mesh: jax.sharding.Mesh):
    """Set rows of the bank, each on the device that holds it; rows outside of it are dropped."""
    if not spreads_bank(mesh, bank.shape[0]):
        return bank.at[rows].set(codes, mode="drop")

    def write(own, rows, codes):
        num_rows = own.shape[0]
        rows = rows - jax.lax.axis_index(BATCH_AXIS) * num_rows
        elsewhere = (rows < 0) | (rows >= num_rows)
        return own.at[jnp.where(elsewhere, num_rows, rows)].set(codes, mode="drop")

    split, whole = PartitionSpec(BATCH_AXIS), PartitionSpec()
    return jax.shard_map(write, mesh=mesh, in_specs=(split, whole, whole), out_specs=split)(
        bank, rows, codes
    )


def centers_sharding(mesh: jax.sharding.Mesh, num_centers: int) -> Any:
    """Return where each part of a bank lies, as a `Centers` of shardings.

    The codes are split over the devices if their number divides them evenly; all else is small.
    """
    whole: Any = replicated(mesh)
    codes: Any = split_rows(mesh) if spreads_bank(mesh, num_centers) else whole
    return Centers(codes=codes, index=whole, encoded_at=whole, row_of=whole, next_row=whole)


def make_centers(
    codes: jax.Array | np.ndarray, index: np.ndarray, *, num_images: int, step: int | jax.Array
) -> Centers:
    """Fill a bank with codes `[num_centers, latent_dim]` of the images `index`."""
    num_centers = len(index)
    row_of = np.full(num_images, -1, np.int32)
    row_of[index] = np.arange(num_centers, dtype=np.int32)
    return Centers(
        codes=cast(jax.Array, codes),
        index=jnp.asarray(index, jnp.int32),
        encoded_at=jnp.full(num_centers, step, jnp.int32),
        row_of=jnp.asarray(row_of),
        next_row=jnp.zeros((), jnp.int32),
    )


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "step", "variables", "opt_state", "plateau", "beta", "key", "average", "centers",
        "num_skipped", "num_skipped_in_a_row",
    ],
    meta_fields=[],
)  # fmt: skip
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything the next step depends on; a checkpoint is exactly this.

    Attributes:
      step: int32, steps taken, skipped ones included.
      variables: parameters and batch statistics of both networks.
      opt_state: Adam's state.
      plateau: the step-size reduction's state (`optax.contrib.reduce_on_plateau`).
      beta: float32 scalar, what the reconstruction term is divided by.
      key: random key of the run; a step folds its number into it.
      average: exponential moving average of `variables`, or None.
      centers: the bank of codes, or None for methods without one.
      num_skipped: int32, steps whose loss or gradient was not finite.
      num_skipped_in_a_row: int32, how many of them since the last good step.
    """

    step: jax.Array
    variables: Variables
    opt_state: Any
    plateau: Any
    beta: jax.Array
    key: jax.Array
    average: Variables | None
    centers: Centers | None
    num_skipped: jax.Array
    num_skipped_in_a_row: jax.Array

    @property
    def evaluated(self) -> Variables:
        """The variables to evaluate and sample with: the average where one is kept."""
        return self.variables if self.average is None else self.average


def learning_rate_at(optimization: OptimizationConfig, step: int, *, steps_per_epoch: int) -> float:
    """Return the schedule's step size at a step; the plateau rule's factor is apart."""
    if optimization.schedule != "cosine":
        return optimization.learning_rate
    return float(np.asarray(_cosine(optimization, steps_per_epoch)(step)))


def _cosine(optimization: OptimizationConfig, steps_per_epoch: int) -> optax.Schedule:
    return optax.cosine_decay_schedule(
        optimization.learning_rate, optimization.num_epochs * steps_per_epoch
    )


def make_optimizer(
    optimization: OptimizationConfig, *, steps_per_epoch: int
) -> optax.GradientTransformation:
    """Return Adam with the configured schedule and clipping; the plateau rule is apart."""
    if optimization.schedule == "cosine":
        rate = _cosine(optimization, steps_per_epoch)
    else:
        rate = optimization.learning_rate
    adam = optax.adam(rate)
    if optimization.clip_norm is None:
        return adam
    return optax.chain(optax.clip_by_global_norm(optimization.clip_norm), adam)


def make_plateau(optimization: OptimizationConfig) -> optax.GradientTransformationExtraArgs:
    """Return the rule that lowers the step size when the validation score stops falling.

    It is updated once an epoch, apart from the optimiser, and its scale multiplies every update.
    """
    return optax.contrib.reduce_on_plateau(
        factor=optimization.plateau_factor,
        patience=optimization.plateau_patience,
        # An absolute margin: a relative one turns round where scores are negative.
        rtol=0.0,
        atol=1e-3,
        min_scale=1e-3,
    )


def restore_target(
    config: Config,
    model: Autoencoder,
    optimizer: optax.GradientTransformation,
    *,
    num_images: int,
    mesh: jax.sharding.Mesh,
) -> TrainState:
    """Return the shapes, dtypes and shardings of a state, which a checkpoint is read into."""
    shapes = jax.eval_shape(
        functools.partial(make_state, config, model, optimizer, num_images=num_images)
    )
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        state_sharding(shapes, mesh),
    )


def state_sharding(state: TrainState, mesh: jax.sharding.Mesh) -> TrainState:
    """Return where each part of a state lies: whole on every device, but for a large bank.

    Args:
      state: a state, or its shapes.
      mesh: the devices.

    Returns:
      A sharding in place of every leaf.
    """
    whole = jax.tree.map(lambda _: replicated(mesh), state)
    if state.centers is None:
        return whole
    return dataclasses.replace(whole, centers=centers_sharding(mesh, state.centers.codes.shape[0]))


def make_state(
    config: Config,
    model: Autoencoder,
    optimizer: optax.GradientTransformation,
    *,
    num_images: int,
) -> TrainState:
    """Draw the initial state; the bank of codes and beta are still to be filled in.

    It is a pure function of the configuration, so that `jax.eval_shape` gives a restore target.
    """
    key, key_init = jax.random.split(jax.random.key(config.optimization.seed))
    variables = model.init(key_init)
    centers = None
    if config.objective.method == "avae":
        num_centers = config.centers.num_centers
        centers = Centers(
            codes=jnp.zeros((num_centers, model.latent_dim)),
            index=jnp.zeros(num_centers, jnp.int32),
            encoded_at=jnp.zeros(num_centers, jnp.int32),
            row_of=jnp.full(num_images, -1, jnp.int32),
            next_row=jnp.zeros((), jnp.int32),
        )
    beta = config.objective.beta
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        opt_state=optimizer.init(variables["params"]),
        plateau=make_plateau(config.optimization).init(variables["params"]),
        beta=jnp.asarray(1.0 if beta is None else beta, jnp.float32),
        key=key,
        average=None
        if config.optimization.ema_decay is None
        else jax.tree.map(jnp.copy, variables),
        centers=centers,
        num_skipped=jnp.zeros((), jnp.int32),
        num_skipped_in_a_row=jnp.zeros((), jnp.int32),
    )
