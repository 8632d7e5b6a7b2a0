"""The training loop: one for every method."""

import dataclasses
import errno
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from avae_jax import data as datasets
from avae_jax.files import user_path
from avae_jax.training.checkpoint import Checkpoints
from avae_jax.training.config import (
    Config,
    OptimizationConfig,
    check_config,
    to_dict,
    with_absolute_paths,
)
from avae_jax.training.means import Means
from avae_jax.training.preflight import introduce
from avae_jax.training.progress import Progress
from avae_jax.training.run_folder import (
    check_run_dir,
    check_same_data,
    hold_run_dir,
    prepare_run_dir,
    read_facts,
    write_json,
)
from avae_jax.training.setup import make_setup
from avae_jax.training.state import TrainState, learning_rate_at
from avae_jax.training.step import BROKEN
from avae_jax.training.terms import terms_of
from avae_jax.training.trainer import Trainer
from avae_jax.training.writers import MetricWriter, create_default_writer

MAX_SKIPPED_IN_A_ROW = 20
"""Give up after so many consecutive steps without a finite gradient."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

SHOW_EVERY = 0.5
"""Seconds between two looks at an epoch's means."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message says what happened and what to change."""


class Interrupted(Exception):
    """The run was asked to stop; its state is saved."""


def train(
    config: Config,
    run_dir: str | os.PathLike,
    *,
    dataset: datasets.ImageData | None = None,
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
    mesh: Mesh | None = None,
) -> Path:
    """Train a model, or continue its training, and leave all that is known of it in a folder.

    Args:
      config: what to train.
      run_dir: the run folder. A folder of the same configuration is continued from its last
        checkpoint, bit for bit on the same devices.
      dataset: images to train on instead of those the configuration names.
      encoder: Flax module to use instead of the one the configuration names.
      decoder: likewise.
      mesh: the devices; all local ones when not given.

    Returns:
      The run folder. Figures and the summary are made by `evaluation.evaluate_run(quick=True)`.

    Raises:
      ConfigError: the configuration does not fit the data, the devices or the folder's.
      ValueError: another process trains in the folder.
      TrainingError: the loss was not finite for many steps in a row, or the disk is full.
      Interrupted: after SIGINT or SIGTERM; the state is saved.
      OSError: the folder cannot be written.
    """
    # Refuse what cannot be run before anything is loaded.
    check_config(config)
    run_dir, config = user_path(run_dir), with_absolute_paths(config)
    check_run_dir(config, run_dir)
    with hold_run_dir(run_dir):
        # Nobody has begun another run there since.
        check_run_dir(config, run_dir)
        # What was found for the run when it began holds for all of it.
        new = not (run_dir / "config.json").exists()
        facts = None if new else read_facts(run_dir)["method"]
        setup = make_setup(
            config, dataset=dataset, encoder=encoder, decoder=decoder, facts=facts, mesh=mesh
        )
        if not new:
            check_same_data(setup, run_dir)
        # From here on the folder holds a run.
        trainer = Trainer(setup)
        if new:
            prepare_run_dir(setup, run_dir)
        checkpoints = Checkpoints(run_dir / "checkpoints")
        try:
            try:
                _train(trainer, run_dir, checkpoints)
            finally:
                checkpoints.close()
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            # Orbax reports what it left unfinished long after it raised the failure.
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
            sys.unraisablehook = lambda _: None
            raise TrainingError(
                f"run_dir={run_dir} cannot grow ({error.strerror}): make room and train again, "
                "which goes on from its last whole checkpoint"
            ) from None
    return run_dir


def _train(trainer: Trainer, run_dir: Path, checkpoints: Checkpoints) -> None:
    """Restore what there is, say what is to come, and train to the end."""
    # The last checkpoint that can be read, or the state before the first step.
    setup = trainer.setup
    notes: list[str] = []
    restored = checkpoints.restore(trainer.target(), say=notes.append)
    state, info = (trainer.init(), {}) if restored is None else restored
    first = int(state.step)
    if first < setup.total_steps:
        # The number of epochs may have grown.
        write_json(run_dir / "config.json", to_dict(setup.config))

    # Where numbers go, and what a user is told first.
    writer = create_default_writer(run_dir, start_step=first)
    progress = Progress(
        max(setup.total_steps, first), first, setup.steps_per_epoch, terms=terms_of(setup.method)
    )
    for note in notes:
        progress.note(note)
    best = Best.of(info.get("best"))
    if first >= setup.total_steps:
        progress.note(
            f"{run_dir} is complete with {first} steps; train on with a larger --num-epochs"
        )
    elif best.is_old(first // setup.steps_per_epoch, setup.config.optimization):
        progress.note(
            f"{run_dir} was stopped early at step {first}; train on with a larger --patience"
        )
    elif first == 0:
        for line in introduce(setup):
            progress.note(line)
        writer.write_hparams(to_dict(setup.config))
    else:
        progress.note(f"resuming {run_dir} at step {first} of {setup.total_steps}")

    # Epoch after epoch; the first one may be half done.
    try:
        with StopRequest() as stop:
            loop = Loop(trainer, checkpoints, writer, progress, stop, best)
            metrics = resume_metrics(trainer.program.empty_metrics, info.get("metrics"))
            while int(state.step) < setup.total_steps:
                epoch = int(state.step) // setup.steps_per_epoch
                if loop.best.is_old(epoch, setup.config.optimization):
                    progress.note(
                        f"stopped after epoch {epoch}: no epoch since {loop.best.epoch} had a "
                        f"lower validation criterion than its {loop.best.criterion:.4g}"
                    )
                    break
                state = loop.epoch(state, metrics)
                metrics = trainer.program.empty_metrics
        checkpoints.wait()
    finally:
        progress.close()
        writer.close()


class Best(NamedTuple):
    """The lowest validation criterion so far.

    Attributes:
      criterion: infinity before the first.
      epoch: how many epochs had ended.
    """

    criterion: float = math.inf
    epoch: int = 0

    @classmethod
    def of(cls, kept: Sequence[Any] | None) -> "Best":
        """Return what a checkpoint kept; None is before the first validation."""
        return cls() if kept is None else cls(*kept)

    def after(self, criterion: float, epoch: int) -> "Best":
        """Return the lower one; what is not a number is none."""
        return Best(criterion, epoch) if criterion < self.criterion else self

    def is_old(self, epoch: int, optimization: OptimizationConfig) -> bool:
        """Return whether a validation finds that as many epochs have passed as are waited for."""
        if optimization.patience is None or epoch % optimization.validate_every:
            return False
        return epoch - self.epoch >= optimization.patience

    def kept(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, JSON values."""
        return {"best": [*self]} if self.epoch else {}


@dataclasses.dataclass
class Loop:
    """Epochs of training, and where what they show goes.

    Attributes:
      trainer: the compiled functions.
      checkpoints: where states are saved.
      writer: where an epoch's numbers go.
      progress: where a user looks.
      stop: whether to stop between two dispatches.
      best: the best validation so far.
    """

    trainer: Trainer
    checkpoints: Checkpoints
    writer: MetricWriter
    progress: Progress
    stop: "StopRequest"
    best: Best = Best()
    _reported_skips: int = 0
    _saved: float = dataclasses.field(default_factory=time.monotonic)
    _began: float = dataclasses.field(default_factory=time.monotonic)

    def epoch(self, state: TrainState, metrics: Means) -> TrainState:
        """Train to the end of the state's epoch; validate where it is due, report and save.

        Args:
          state: anywhere in an epoch.
          metrics: of the steps of the epoch that were taken already.

        Raises:
          Interrupted: the run was asked to stop; the state is saved.
          TrainingError: no step can be taken any more.
        """
        trainer, setup = self.trainer, self.trainer.setup
        first = int(state.step)
        epoch, position = divmod(first, setup.steps_per_epoch)
        self._reported_skips = int(state.num_skipped)
        shown = time.monotonic()

        # Dispatch after dispatch; the next one's images are read while the device works.
        for fetched, num_steps in trainer.feed.epoch(epoch, position):
            state = trainer.before_step(state, epoch=epoch, position=position)
            state, metrics = trainer.advance(state, metrics, fetched)
            position += num_steps
            step = epoch * setup.steps_per_epoch + position
            if position == setup.steps_per_epoch:
                continue
            if time.monotonic() - shown > SHOW_EVERY:
                shown = time.monotonic()
                seen = self.means(state, metrics) | self.pace(step - first)
                self.progress.update(step, seen | self.nulls())
                self.report_skips(state, seen)
            else:
                self.progress.update(step)
            if self.stop.requested or self.is_save_due():
                self.save(state, epoch=epoch, metrics=keep_metrics(metrics))
            if self.stop.requested:
                self.checkpoints.wait()
                raise Interrupted(step)

        # The epoch's means.
        step, epoch = int(state.step), epoch + 1
        seen = self.means(state, metrics)
        self.report_skips(state, seen)
        rate = float(state.plateau.scale) * learning_rate_at(
            setup.config.optimization, step, steps_per_epoch=setup.steps_per_epoch
        )
        # What its end changes, where it is validated.
        terms = None
        if epoch % setup.config.optimization.validate_every == 0 or step >= setup.total_steps:
            state, terms = trainer.finish_epoch(state)
            self.best = self.best.after(terms["criterion"], epoch)
            for warning in setup.method.warnings(terms):
                self.progress.note(warning)
            seen |= {f"validation/{name}": value for name, value in terms.items()}
        # Shown once all of it is known: a line is of one epoch. Logged before it is saved: what a
        # checkpoint follows is in the log.
        shown = seen | self.pace(step - first) | self.nulls()
        self._began = time.monotonic()
        self.progress.update(step, shown)
        self.writer.write_scalars(step, {**shown, "learning_rate": rate, "epoch": epoch})
        if terms is not None or self.stop.requested or self.is_save_due():
            self.save(state, epoch=epoch, validation=terms)
        if self.stop.requested and step < setup.total_steps:
            self.checkpoints.wait()
            raise Interrupted(step)
        return state

    def is_save_due(self) -> bool:
        """Return whether so much time has passed since the last checkpoint as there may be."""
        minutes = self.trainer.setup.config.optimization.checkpoint_every
        return minutes is not None and time.monotonic() - self._saved >= 60 * minutes

    def save(
        self,
        state: TrainState,
        *,
        epoch: int,
        metrics: dict[str, Any] | None = None,
        validation: dict[str, float] | None = None,
    ) -> None:
        """Write a checkpoint in the background, with what an epoch that is cut short has seen."""
        found = {"metrics": metrics, "validation": validation}
        self.checkpoints.save(
            state,
            criterion=None if validation is None else validation["criterion"],
            info={
                "epoch": epoch,
                **{name: value for name, value in found.items() if value is not None},
                **self.best.kept(),
            },
        )
        self._saved = time.monotonic()

    def pace(self, num_steps: int) -> dict[str, float]:
        """Return the images trained on per second since the last epoch's end, all work counted."""
        seconds = time.monotonic() - self._began
        return {"images_per_second": num_steps * self.trainer.setup.batch_size / seconds}

    def nulls(self) -> dict[str, float]:
        """Return what terms show for perfect codes, under the names they are logged by."""
        return {f"null_{name}": value for name, value in self.trainer.method.null().items()}

    def means(self, state: TrainState, metrics: Means) -> dict[str, float]:
        """Return the means so far and what the method reports, as they are logged."""
        means = {name: float(value) for name, value in jax.device_get(metrics.compute()).items()}
        skipped = 1 - means.pop("good")
        # Only what was broken is worth a line in the log.
        means = {name: mean for name, mean in means.items() if mean or not name.startswith(BROKEN)}
        reported = jax.device_get(self.trainer.method.reported(state.memory, state.variables))
        return {
            **{f"train/{name}": value for name, value in means.items()},
            "train/skipped_share": skipped,
            **{name: float(value) for name, value in reported.items()},
            "num_skipped": int(state.num_skipped),
        }

    def report_skips(self, state: TrainState, seen: dict[str, float]) -> None:
        """Say which steps were skipped and why, and end a run that takes no good step any more."""
        num_skipped, in_a_row = int(state.num_skipped), int(state.num_skipped_in_a_row)
        if num_skipped == self._reported_skips:
            return
        prefix = f"train/{BROKEN}"
        broken = ", ".join(name.removeprefix(prefix) for name in seen if name.startswith(prefix))
        what = f"not finite: {broken}"
        self.progress.note(
            f"{num_skipped - self._reported_skips} steps up to {int(state.step)} changed nothing "
            f"({what}); {num_skipped} skipped in all"
        )
        self._reported_skips = num_skipped
        if in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"{in_a_row} steps in a row, up to step {int(state.step)}, were {what}: start "
                "again in another --run-dir with a lower learning_rate or with clip_norm"
            )


def keep_metrics(metrics: Means) -> dict[str, list[float]]:
    """Return the sums and counts of an unfinished epoch's means, as JSON values."""
    return {
        name: [float(total), float(metrics.counts[name])] for name, total in metrics.totals.items()
    }


def resume_metrics(empty: Means, kept: dict[str, list[float]] | None) -> Means:
    """Return the means of an epoch so far, from what `keep_metrics` gave."""
    if not kept:
        return empty
    totals, counts = (
        {name: jnp.asarray(kept[name][part], leaf.dtype) for name, leaf in leaves.items()}
        for part, leaves in enumerate((empty.totals, empty.counts))
    )
    return jax.device_put(Means(totals, counts), jax.tree.leaves(empty)[0].sharding)


class StopRequest:
    """Turn SIGINT and SIGTERM into a request that the loop answers between two dispatches.

    A second SIGINT interrupts at once. In a multi-process run JAX's own notifier handles SIGTERM,
    and a handler here would make one process act alone.
    """

    def __init__(self):
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self):
        if jax.process_count() == 1:
            for number in (signal.SIGINT, signal.SIGTERM):
                try:
                    self._previous[number] = signal.signal(number, self._request)
                except ValueError:
                    # Only the main thread may set handlers; elsewhere the caller stops us.
                    return self
        return self

    def _request(self, number, frame):
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)
