"""The compiled functions of a run and the state they move, without files or clocks."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from avae_jax.mesh import replicated, split_rows
from avae_jax.methods import Measured
from avae_jax.methods.networks import Variables
from avae_jax.training.feed import Feed, Fetched, pad_rows
from avae_jax.training.means import Means
from avae_jax.training.setup import Setup
from avae_jax.training.state import (
    TrainState,
    ema_decays,
    make_optimizer,
    make_plateau,
    make_state,
    restore_target,
    state_sharding,
)
from avae_jax.training.step import compile_program, make_train_step

MAX_STEPS_PER_DISPATCH = 32

ENCODE_ROWS = 500
"""Images encoded at a time, before rounding to the number of devices."""


class Trainer:
    """The compiled functions of a setup and the state they move; a method's `Host`.

    Args:
      setup: the immutable parts.
      resident: whether to hold all images on the devices; None decides by their size.
      steps_per_dispatch: steps of one compiled call; None takes several on GPU and TPU, where a
        dispatch costs more than a small step, and one on CPU, where XLA runs convolutions inside
        a loop several times slower.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        resident: bool | None = None,
        steps_per_dispatch: int | None = None,
    ):
        # How images arrive: by their size and the platform, unless the caller says.
        self.setup, self.method = setup, setup.method
        optimization, mesh = setup.config.optimization, setup.mesh
        images, platform = setup.dataset.images, mesh.devices.flat[0].platform
        if resident is None:
            num_bytes = math.prod(images.shape) * np.dtype(images.dtype).itemsize
            resident = num_bytes <= (1 if platform == "cpu" else 4) * 2**30
        if steps_per_dispatch is None:
            steps_per_dispatch = 1 if platform == "cpu" else MAX_STEPS_PER_DISPATCH
        # A dispatch must end where the method is due.
        if self.method.host_every is not None:
            steps_per_dispatch = math.gcd(steps_per_dispatch, self.method.host_every)
        self.feed = Feed(
            setup.dataset,
            mesh=mesh,
            resident=resident,
            batch_size=setup.batch_size,
            steps_per_dispatch=min(steps_per_dispatch, setup.steps_per_epoch),
            seed=optimization.seed,
        )
        # The step, and the state it starts from as a pure function: its shapes cost nothing.
        players = self.method.players
        optimizer = make_optimizer(players, optimization, steps_per_epoch=setup.steps_per_epoch)
        step = make_train_step(self.method, optimizer, ema_decays=ema_decays(players, optimization))
        self._initial = functools.partial(make_state, self.method, optimizer, optimization)
        shapes = jax.eval_shape(self._initial)
        self._state_at = state_sharding(shapes, self.method, mesh)
        self.program = compile_program(step, self.method, self.feed, shapes, mesh=mesh)
        self._plateau = jax.jit(
            lambda plateau, value: make_plateau(optimization).update({}, plateau, value=value)[1]
        )
        self.rows = -(-ENCODE_ROWS // mesh.size) * mesh.size

    def target(self) -> TrainState:
        """Return the state's shapes, dtypes and shardings, for restoring."""
        return restore_target(jax.eval_shape(self._initial), self._state_at)

    def init(self) -> TrainState:
        """Draw the state before the first step."""
        key = jax.random.key(self.setup.config.optimization.seed)
        state = jax.jit(self._initial, out_shardings=self._state_at)(key)
        return self.with_measured(state, self.method.start(state.memory, state.variables, self))

    def with_measured(self, state: TrainState, measured: Measured) -> TrainState:
        """Return a state with what a validation measured, placed as it must lie."""
        state = self.with_memory(state, measured.memory)
        if not measured.params:
            return state
        whole = replicated(self.setup.mesh)

        def changed(variables):
            # Copies: a step is given both for its own use.
            own = jax.device_put(jax.tree.map(jnp.copy, dict(measured.params)), whole)
            return {**variables, "params": {**variables["params"], **own}}

        average = None if state.average is None else changed(state.average)
        return dataclasses.replace(state, variables=changed(state.variables), average=average)

    def with_memory(self, state: TrainState, memory: Any) -> TrainState:
        """Return a state with another memory, placed as it must lie."""
        if memory is state.memory:
            return state
        return dataclasses.replace(state, memory=jax.device_put(memory, self._state_at.memory))

    # What a method may ask for.

    @property
    def train_ids(self) -> np.ndarray:
        """Numbers of the training images."""
        return self.setup.dataset.splits.train

    def encode(
        self, variables: Variables, ids: np.ndarray, *, batch_statistics: bool = False
    ) -> np.ndarray:
        """Return the codes `[len(ids), latent_dim]` of images, by number, on the host.

        No device needs to hold all of them.
        """
        encode, rows = self.program.encode, self.rows
        if batch_statistics:
            # As many images as a training batch has, so that both see like statistics.
            encode, rows = self.program.encode_batch, self.setup.batch_size
        codes = []
        for start in range(0, len(ids), rows):
            chunk = ids[start : start + rows]
            # Running averages do not mix rows, so a short chunk can be filled up; batch statistics
            # do, so it is filled from the other images asked for.
            if len(chunk) < rows:
                chunk = np.concatenate([chunk, np.resize(ids, rows - len(chunk))])
            codes.append(encode(variables, self.feed.fetch(chunk)))
            # At most two under way: thousands of them starve the threads with which a CPU's devices
            # wait for each other.
            if len(codes) > 1:
                codes[-2] = np.asarray(codes[-2])
        return np.concatenate(codes)[: len(ids)]

    def validate(self, variables: Variables, memory: Any, *, step: int = 0) -> dict[str, float]:
        """Return the mean terms over the validation split, and the criterion.

        Args:
          variables: what is evaluated, with running averages.
          memory: of the training; the method makes of it what goes with `variables`.
          step: steps taken.
        """
        memory = jax.device_put(
            self.method.for_validation(memory, variables, self), self._state_at.memory
        )
        # Sums over chunks of one size: one compilation, and the last chunk is filled up. It is that
        # of a step: the mean of a batch's statistic depends on how many images it is of.
        ids, num_rows = self.setup.dataset.splits.validation, self.setup.batch_size
        totals: dict[str, float] = {}
        for start in range(0, len(ids), num_rows):
            chunk, mask = pad_rows(ids[start : start + num_rows], num_rows)
            key = jax.random.fold_in(jax.random.key(0), start)
            sums = self.program.evaluate(
                variables, memory, key, jnp.int32(step), self.feed.fetch(chunk),
                jax.device_put(mask, split_rows(self.setup.mesh)),
            )  # fmt: skip
            for name, value in jax.device_get(sums).items():
                totals[name] = totals.get(name, 0.0) + float(value)
        terms = {name: value / len(ids) for name, value in totals.items()}
        return {**terms, "criterion": self.method.criterion(terms)}

    # Steps and epochs.

    def before_step(self, state: TrainState, *, epoch: int, position: int) -> TrainState:
        """Let the method do what is due before the step at `position` of an epoch."""
        every = self.method.host_every
        if every is None or position % every:
            return state
        memory = self.method.before_step(
            state.memory, state.variables, self, epoch=epoch, position=position,
            step=epoch * self.setup.steps_per_epoch + position,
        )  # fmt: skip
        return self.with_memory(state, memory)

    def advance(
        self, state: TrainState, metrics: Means, fetched: Fetched
    ) -> tuple[TrainState, Means]:
        """Take the steps of one dispatch, whose images the feed brought."""
        train = self.program.train if fetched.ids.ndim == 1 else self.program.train_many
        return train(state, metrics, fetched)

    def finish_epoch(self, state: TrainState) -> tuple[TrainState, dict[str, float]]:
        """Validate; where the criterion stops improving, lower the step size."""
        terms = self.validate(state.evaluated, state.memory, step=int(state.step))
        measured = self.method.after_epoch(state.memory, state.evaluated, terms)
        state = self.with_measured(state, measured)
        terms = {**measured.terms, "criterion": self.method.criterion(measured.terms)}
        schedule, criterion = self.setup.config.optimization.schedule, terms["criterion"]
        if schedule == "plateau" and math.isfinite(criterion):
            plateau = self._plateau(state.plateau, jnp.float32(criterion))
            whole = replicated(self.setup.mesh)
            state = dataclasses.replace(state, plateau=jax.device_put(plateau, whole))
        return state, terms
