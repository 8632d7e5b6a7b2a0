"""The training loop: one for every method."""

import concurrent.futures
import dataclasses
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from avae_jax import data as datasets
from avae_jax.training.checkpoint import Checkpoints
from avae_jax.training.config import (
    Config,
    ConfigError,
    check_config,
    differences,
    load_config,
    to_dict,
)
from avae_jax.training.logging import Progress, create_default_writer
from avae_jax.training.means import Means
from avae_jax.training.preflight import introduce
from avae_jax.training.run import read_bandwidth
from avae_jax.training.state import TrainState, learning_rate_at
from avae_jax.training.step import BROKEN
from avae_jax.training.trainer import Setup, Trainer, make_setup
from avae_jax.version import __version__

MAX_SKIPPED_IN_A_ROW = 20
"""Steps without a finite gradient after which a run gives up."""


RUNAWAY_NATS = 5.0
"""How far below its null value a validation KL must fall before the run warns of it."""

_WATCHED = (
    "train/loss",
    "train/reconstruction",
    "train/kl",
    "train/tail_share",
    "validation/reconstruction",
    "validation/kl",
    "beta",
    "images_per_second",
)


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
) -> Path:
    """Train a model, or continue its training, and leave all that is known of it in a folder.

    Args:
      config: what to train.
      run_dir: the run folder. A folder of the same configuration is continued from its last
        checkpoint, bit for bit on the same devices.
      dataset: images to train on instead of those the configuration names.
      encoder: Flax module to use instead of the one the configuration names.
      decoder: likewise.

    Returns:
      The run folder. Figures and the summary are made by `avae_jax.training.report.write_report`.

    Raises:
      ConfigError: the configuration does not fit the data, the devices or the folder's.
      TrainingError: the loss was not finite for many steps in a row.
      Interrupted: after SIGINT or SIGTERM; the state is saved.
      OSError: the folder cannot be written.
    """
    run_dir = Path(run_dir)
    check_config(config)
    check_run_dir(config, run_dir)
    stored = read_bandwidth(run_dir)
    setup = make_setup(config, dataset=dataset, encoder=encoder, decoder=decoder, bandwidth=stored)
    check_same_data(setup, run_dir)
    trainer = Trainer(setup)
    new = not (run_dir / "config.json").exists()
    if new:
        prepare_run_dir(setup, run_dir)
    elif stored is None and setup.bandwidth is not None:
        _write_json(run_dir / "bandwidth.json", dataclasses.asdict(setup.bandwidth))
    checkpoints = Checkpoints(run_dir / "checkpoints")
    try:
        _train(trainer, run_dir, checkpoints)
    finally:
        checkpoints.close()
    return run_dir


def check_run_dir(config: Config, run_dir: Path) -> None:
    """Refuse a folder that holds another run, something else, or that cannot be written."""
    if run_dir.is_dir() and any(run_dir.iterdir()):
        if not (run_dir / "config.json").is_file():
            raise ConfigError(f"run_dir={run_dir} is not empty and no run folder: choose another")
        changed = differences(load_config(run_dir / "config.json"), config)
        if changed:
            raise ConfigError(
                f"run_dir={run_dir} holds a run with another configuration "
                f"({'; '.join(changed)}): choose another --run-dir"
            )
        if not os.access(run_dir, os.W_OK):
            raise ConfigError(f"run_dir={run_dir} is not writable: choose another")
        return
    if run_dir.exists() and not run_dir.is_dir():
        raise ConfigError(f"run_dir={run_dir} is a file: choose another")
    parent = next(folder for folder in run_dir.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ConfigError(f"run_dir={run_dir} cannot be made: no write permission in {parent}")


def describe_data(setup: Setup) -> dict[str, Any]:
    """Return the facts about the data that reading and resuming a run depend on."""
    return {
        "image_shape": list(setup.model.image_shape),
        "num_images": len(setup.dataset.images),
        "fingerprint": setup.dataset.fingerprint(),
    }


def check_same_data(setup: Setup, run_dir: Path) -> None:
    """Refuse to continue a run on other images or other splits than it was started with."""
    path = run_dir / "facts.json"
    if not path.is_file():
        return
    stored, facts = json.loads(path.read_text()), describe_data(setup)
    for name, value in facts.items():
        if stored.get(name) != value:
            raise ConfigError(
                f"run_dir={run_dir} was started on other images ({name}: {stored.get(name)} -> "
                f"{value}): choose another --run-dir"
            )
    splits = datasets.Splits.load(run_dir / "splits.npz")
    for name in ("train", "validation", "test"):
        if not np.array_equal(getattr(splits, name), getattr(setup.dataset.splits, name)):
            raise ConfigError(
                f"the {name} split differs from the one in {run_dir / 'splits.npz'}: choose "
                "another --run-dir"
            )


def prepare_run_dir(setup: Setup, run_dir: Path) -> None:
    """Write down what the run depends on: data, splits, bandwidth and configuration."""
    versions = {"avae_jax": __version__, "jax": jax.__version__, "numpy": np.__version__}
    run_dir.mkdir(parents=True, exist_ok=True)
    setup.dataset.splits.save(run_dir / "splits.npz")
    if setup.bandwidth is not None:
        _write_json(run_dir / "bandwidth.json", dataclasses.asdict(setup.bandwidth))
    _write_json(run_dir / "facts.json", {**describe_data(setup), "versions": versions})
    _write_json(run_dir / "config.json", to_dict(setup.config))


def _write_json(path: Path, values: dict[str, Any]) -> None:
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(json.dumps(values, indent=2) + "\n")
    os.replace(scratch, path)


def _train(trainer: Trainer, run_dir: Path, checkpoints: Checkpoints) -> None:
    setup = trainer.setup
    total_steps = setup.steps_per_epoch * setup.config.optimization.num_epochs
    notes: list[str] = []
    restored = checkpoints.restore(trainer.target(), say=notes.append)
    state, info = (trainer.init(), {}) if restored is None else restored
    first = int(state.step)
    if first < total_steps:
        # The number of epochs may have grown.
        _write_json(run_dir / "config.json", to_dict(setup.config))
    metrics = resume_metrics(trainer.program.empty_metrics, info.get("metrics"))
    writer = create_default_writer(run_dir, start_step=first)
    progress = Progress(max(total_steps, first), first, setup.steps_per_epoch)
    for note in notes:
        progress.note(note)
    if first >= total_steps:
        progress.note(
            f"{run_dir} is complete with {first} steps; train on with a larger --num-epochs"
        )
    elif first == 0:
        for line in introduce(setup):
            progress.note(line)
        writer.write_hparams(to_dict(setup.config))
    else:
        progress.note(f"resuming {run_dir} at step {first} of {total_steps}")
    skips = _SkipWatch(int(state.num_skipped))
    fixed = {} if setup.null_kl is None else {"null_kl": setup.null_kl}
    try:
        with _StopRequest() as stop, concurrent.futures.ThreadPoolExecutor(1) as pool:
            while int(state.step) < total_steps:
                state = _train_epoch(
                    trainer, state, metrics, checkpoints, writer, progress, skips, fixed, stop, pool
                )
                metrics = trainer.program.empty_metrics
        checkpoints.wait()
    finally:
        progress.close()
        writer.close()


def _train_epoch(
    trainer, state, metrics, checkpoints, writer, progress, skips, fixed, stop, pool
) -> TrainState:
    setup = trainer.setup
    config = setup.config
    reencode = trainer.objective.uses_centers and config.centers.refresh == "reencode"
    step = first = int(state.step)
    epoch = step // setup.steps_per_epoch
    start = shown = time.monotonic()

    def show() -> dict[str, float]:
        speed = (step - first) * setup.batch_size / (time.monotonic() - start)
        seen = _train_metrics(metrics, state, speed)
        progress.update(step, {name: seen[name] for name in _WATCHED if name in seen} | fixed)
        skips.look(state, seen, progress)
        return seen

    dispatches = trainer.dispatches(state)
    # The next batch is read while the device works on this one.
    ahead = (
        pool.submit(trainer.fetch, batches)
        if (batches := next(dispatches, None)) is not None
        else None
    )
    while ahead is not None and batches is not None:
        fetched, num_steps = ahead.result(), len(batches)
        batches = next(dispatches, None)
        ahead = None if batches is None else pool.submit(trainer.fetch, batches)
        # Counted from the epoch's start, as the dispatches are.
        position = step - epoch * setup.steps_per_epoch
        if reencode and position == 0:
            state = trainer.refresh(state, trainer.draw_subset(epoch), step=step)
        elif reencode and position % config.centers.refresh_every == 0:
            state = trainer.refresh(state, np.asarray(state.centers.index), step=step)
        state, metrics = trainer.advance(state, metrics, fetched)
        step += num_steps
        if batches is not None and time.monotonic() - shown > 0.5:
            shown = time.monotonic()
            show()
        else:
            progress.update(step)
        if stop.requested and batches is not None:
            info = {"epoch": epoch, "metrics": keep_metrics(metrics)}
            checkpoints.save(state, score=None, info=info)
            checkpoints.wait()
            raise Interrupted(step)
    seen = show()
    learning_rate = float(state.plateau.scale) * learning_rate_at(
        config.optimization, step, steps_per_epoch=setup.steps_per_epoch
    )
    state, terms = trainer.finish_epoch(state)
    if "kl" in terms and fixed and terms["kl"] < fixed["null_kl"] - RUNAWAY_NATS:
        progress.note(
            f"warning: the validation KL, {terms['kl']:.2f}, is far below its null value, "
            f"{fixed['null_kl']:.2f}: the codes have run away from the density that should hold "
            "them. Use tail official, a smaller weight or refresh reencode"
        )
    validation = {f"validation/{_shown_name(name)}": value for name, value in terms.items()}
    progress.update(step, {k: v for k, v in validation.items() if k in _WATCHED})
    writer.write_scalars(
        step,
        {
            **seen,
            **validation,
            **fixed,
            "learning_rate": learning_rate,
            "epoch": epoch + 1,
        },
    )
    checkpoints.save(state, score=terms["score"], info={"epoch": epoch + 1, "validation": terms})
    if stop.requested and epoch + 1 < config.optimization.num_epochs:
        checkpoints.wait()
        raise Interrupted(step)
    return state


def _shown_name(term: str) -> str:
    return "tail_share" if term == "tail" else term


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
        {name: jax.numpy.asarray(kept[name][part], leaf.dtype) for name, leaf in leaves.items()}
        for part, leaves in enumerate((empty.totals, empty.counts))
    )
    return jax.device_put(Means(totals, counts), jax.tree.leaves(empty)[0].sharding)


def _train_metrics(metrics, state: TrainState, images_per_second: float) -> dict[str, float]:
    means = {name: float(value) for name, value in jax.device_get(metrics.compute()).items()}
    skipped = 1 - means.pop("good")
    # Only what was broken is worth a line in the log.
    means = {name: mean for name, mean in means.items() if mean or not name.startswith(BROKEN)}
    return {
        **{f"train/{_shown_name(name)}": value for name, value in means.items()},
        "train/skipped_share": skipped,
        "beta": float(state.beta),
        "num_skipped": int(state.num_skipped),
        "images_per_second": images_per_second,
    }


class _SkipWatch:
    """Say which steps were skipped and why, and end a run that takes no good step any more."""

    def __init__(self, num_skipped: int):
        self._num_skipped = num_skipped

    def look(self, state: TrainState, seen: dict[str, float], progress: Progress) -> None:
        num_skipped, in_a_row = int(state.num_skipped), int(state.num_skipped_in_a_row)
        if num_skipped == self._num_skipped:
            return
        prefix = f"train/{BROKEN}"
        broken = ", ".join(name.removeprefix(prefix) for name in seen if name.startswith(prefix))
        what = f"not finite: {broken}"
        progress.note(
            f"{num_skipped - self._num_skipped} steps up to {int(state.step)} changed nothing "
            f"({what}); {num_skipped} skipped in all"
        )
        self._num_skipped = num_skipped
        if in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"{in_a_row} steps in a row, up to step {int(state.step)}, were {what} "
                f"(beta {seen['beta']:.4g}): start anew in another --run-dir with a lower "
                "learning_rate or with clip_norm"
            )


class _StopRequest:
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
