"""`avae check`: what a run will meet, before it costs anything."""

import math
import time
from typing import Any

import jax
import numpy as np

from avae_jax.training.config import Config
from avae_jax.training.setup import Setup, make_setup
from avae_jax.training.trainer import Trainer

TIMED_STEPS = 10


def describe(setup: Setup) -> dict[str, Any]:
    """Return the cheap part of the check: data, networks, the method's own and devices."""
    dataset, method = setup.dataset, setup.method
    splits, images = dataset.splits, dataset.images
    some = some_images(setup)
    seen = np.asarray(method.to_float(some))
    return {
        "data": {
            "dataset": dataset.name,
            "images": f"{tuple(images.shape)} {np.dtype(images.dtype).name}",
            "value range": f"[{some.min():g}, {some.max():g}]",
            "as the networks see it": f"[{seen.min():g}, {seen.max():g}], mean {seen.mean():.3g}",
            "decoder activation": f"{method.activation} {method.value_range or '(unbounded)'}",
            "train / validation / test": f"{len(splits.train):,} / {len(splits.validation):,} / "
            f"{len(splits.test):,}",
        },
        "networks": {
            "method": method.options.name,
            **{name: type(part.module).__name__ for name, part in method.networks.parts.items()},
            "latent_dim": method.latent_dim,
            "parameters": num_parameters(setup),
        },
        "devices": {
            "kind": setup.mesh.devices.flat[0].device_kind,
            "number": setup.mesh.size,
            "batch per device": setup.batch_size // setup.mesh.size,
            "steps per epoch": setup.steps_per_epoch,
        },
        **method.describe(some),
    }


def some_images(setup: Setup) -> np.ndarray:
    """Return at most a thousand training images, evenly spaced, as the data set holds them."""
    train = setup.dataset.splits.train
    return np.asarray(setup.dataset.images[train[:: -(-len(train) // 1000)]])


def introduce(setup: Setup) -> list[str]:
    """Return the lines a run begins with: the cheap part of the check."""
    splits, devices = setup.dataset.splits, setup.mesh.devices
    first = (
        f"{setup.dataset.name}: {len(splits.train):,} training images of shape "
        f"{setup.method.image_shape}; {num_parameters(setup):,} parameters; "
        f"{devices.size} x {devices.flat[0].device_kind}"
    )
    return [first, *setup.method.introduce(some_images(setup))]


def check(config: Config, **parts) -> dict[str, Any]:
    """Check a configuration against its data, networks and devices, and time a step.

    Args:
      config: what would be trained.
      **parts: `dataset`, `encoder` and `decoder`, as `train` takes them.

    Returns:
      Findings by subject, for a table.

    Raises:
      ValueError: what training would refuse.
    """
    from clu import parameter_overview

    setup = make_setup(config, **parts)
    findings = describe(setup)
    params = _parameters(setup)
    # A prior is no dictionary, nor is a likelihood: their leaves are numbered.
    for name in ("prior", "likelihood"):
        params[name] = {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(params[name]))}
    findings["parameters"] = {
        name: f"{leaf.shape} {leaf.dtype}, {math.prod(leaf.shape):,}"
        for name, leaf in parameter_overview.flatten_dict(params).items()
    }
    findings["cost"] = measure_cost(Trainer(setup))
    return findings


def measure_cost(trainer: Trainer) -> dict[str, Any]:
    """Return the memory and the time of a training step, by compiling and running some."""
    setup, feed = trainer.setup, trainer.feed
    state, metrics = trainer.init(), trainer.program.empty_metrics
    batches = next(feed.dispatches(0, 0))
    fetched = feed.fetch_steps(batches)
    function = trainer.program.train if len(batches) == 1 else trainer.program.train_many
    analysis = function.lower(state, metrics, fetched).compile().memory_analysis()
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state) if hasattr(leaf, "nbytes"))
    image_bytes = math.prod(feed.shape) * feed.dtype.itemsize
    state, metrics = trainer.advance(state, metrics, fetched)
    jax.block_until_ready((state.step, metrics))
    times = []
    for _ in range(TIMED_STEPS):
        start = time.perf_counter()
        state, metrics = trainer.advance(state, metrics, feed.fetch_steps(batches))
        jax.block_until_ready((state.step, metrics))
        times.append((time.perf_counter() - start) / len(batches))
    seconds = float(np.median(times))
    between = time_between(trainer, state)
    seconds += between
    return {
        "memory per device": _bytes(
            state_bytes
            + (analysis.temp_size_in_bytes if analysis else 0)
            + (image_bytes if feed.resident else 0)
        ),
        "of it images": _bytes(image_bytes) if feed.resident else "streamed",
        "steps per dispatch": feed.steps_per_dispatch,
        "milliseconds per step": 1e3 * seconds,
        "of it between steps": 1e3 * between,
        "whole run": f"{seconds * setup.total_steps / 60:.1f} min without validation",
    }


def time_between(trainer: Trainer, state) -> float:
    """Return the seconds per step that go into what the method does between steps.

    Args:
      trainer: of the run.
      state: after some steps.
    """
    every, seconds = trainer.method.host_every, 0.0
    if every is None:
        return 0.0
    for _ in range(2):  # The first one compiles.
        start = time.perf_counter()
        jax.block_until_ready(trainer.before_step(state, epoch=0, position=every).memory)
        seconds = time.perf_counter() - start
    return seconds / every


def num_parameters(setup: Setup) -> int:
    """Return how many numbers are trained: those that some player moves."""
    params = _parameters(setup)
    moved = [params[part] for player in setup.method.players.values() for part in player.parts]
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(moved))


def _parameters(setup: Setup) -> Any:
    return jax.eval_shape(setup.method.init, jax.random.key(0))["params"]


def _bytes(number: int) -> str:
    return f"{number / 2**20:,.1f} MiB"
