"""`avae check`: what a run will meet, before it costs anything."""

import math
import time
from typing import Any

import jax
import numpy as np

from avae_jax.training.config import Config
from avae_jax.training.run import code_scale
from avae_jax.training.sharding import spreads_bank
from avae_jax.training.state import TrainState
from avae_jax.training.trainer import Setup, Trainer, make_setup

TIMED_STEPS = 10

MAX_QUEUE_AGE = 40
"""Steps: queues of 20 matched re-encoding on MNIST, queues of 100 cost over a nat of KL."""


def describe(setup: Setup) -> dict[str, Any]:
    """Return the cheap part of the check: data, networks, bandwidth and devices."""
    dataset, model = setup.dataset, setup.model
    splits, images = dataset.splits, dataset.images
    some = np.asarray(images[splits.train[:: max(1, len(splits.train) // 1000)]])
    facts: dict[str, Any] = {
        "data": {
            "dataset": dataset.name,
            "images": f"{tuple(images.shape)} {np.dtype(images.dtype).name}",
            "value range": f"[{some.min():g}, {some.max():g}]",
            "decoder activation": f"{model.activation} {model.value_range or '(unbounded)'}",
            "train / validation / test": f"{len(splits.train):,} / {len(splits.validation):,} / "
            f"{len(splits.test):,}",
        },
        "networks": {
            "encoder": type(model.encoder).__name__,
            "decoder": type(model.decoder).__name__,
            "latent_dim": model.latent_dim,
            "parameters": _num_parameters(setup),
        },
        "devices": {
            "kind": setup.mesh.devices.flat[0].device_kind,
            "number": setup.mesh.size,
            "batch per device": setup.batch_size // setup.mesh.size,
            "steps per epoch": setup.steps_per_epoch,
        },
    }
    if setup.bandwidth is not None:
        bandwidth = setup.bandwidth
        facts["density"] = {
            "num_centers": setup.config.centers.num_centers,
            "h_opt": f"{bandwidth.h_opt:.4f} +- {bandwidth.stderr:.4f}",
            "h (used)": bandwidth.h_corr,
            "prior scale sqrt(1 - h^2)": bandwidth.prior_scale,
            "null KL": setup.null_kl,
        }
    return facts


def introduce(setup: Setup) -> list[str]:
    """Return the lines a run begins with: the cheap part of the check."""
    splits, devices = setup.dataset.splits, setup.mesh.devices
    lines = [
        f"{setup.dataset.name}: {len(splits.train):,} training images of shape "
        f"{setup.model.image_shape}; {_num_parameters(setup):,} parameters; "
        f"{devices.size} x {devices.flat[0].device_kind}"
    ]
    bandwidth = setup.bandwidth
    scale = code_scale(setup.config, bandwidth)
    if bandwidth is not None and scale is not None:
        lines.append(
            f"{setup.config.centers.num_centers:,} centers in {setup.model.latent_dim} "
            f"dimensions: bandwidth {bandwidth.h_corr:.3f}, prior scale "
            f"{bandwidth.prior_scale:.3f}; {scale.verdict}"
        )
        if spreads_bank(setup.mesh, setup.config.centers.num_centers):
            share = setup.config.centers.num_centers // devices.size
            lines.append(f"each of the {devices.size} devices holds {share:,} of the centers")
        elif devices.size > 1:
            lines.append(
                f"each of the {devices.size} devices holds all centers: a multiple of "
                f"{devices.size} would be spread over them"
            )
        age = setup.config.centers.num_centers // setup.batch_size
        if setup.config.centers.refresh == "queue" and age > MAX_QUEUE_AGE:
            lines.append(
                f"warning: the centers get {age} steps old, and codes run ahead of a density that "
                "old: take fewer centers or refresh reencode (see experiments/README.md)"
            )
    return lines


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
    findings["parameters"] = {
        name: f"{leaf.shape} {leaf.dtype}, {math.prod(leaf.shape):,}"
        for name, leaf in parameter_overview.flatten_dict(_parameters(setup)).items()
    }
    scale = code_scale(config, setup.bandwidth)
    if scale is not None:
        findings["scale of the codes"] = {
            "claimed": scale.claimed,
            "force balance": scale.fixed_point,
            "verdict": scale.verdict,
        }
    findings["cost"] = measure_cost(Trainer(setup))
    return findings


def measure_cost(trainer: Trainer) -> dict[str, Any]:
    """Return the memory and the time of a training step, by compiling and running some."""
    setup = trainer.setup
    state, metrics = trainer.init(), trainer.program.empty_metrics
    batches = next(trainer.dispatches(state))
    fetched = trainer.fetch(batches)
    function = trainer.program.train if len(batches) == 1 else trainer.program.train_many
    analysis = function.lower(state, metrics, *fetched).compile().memory_analysis()
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state) if hasattr(leaf, "nbytes"))
    image_bytes = math.prod(trainer.images.shape) * trainer.images.dtype.itemsize
    state, metrics = trainer.advance(state, metrics, fetched)
    jax.block_until_ready(state.beta)
    times = []
    for _ in range(TIMED_STEPS):
        start = time.perf_counter()
        state, metrics = trainer.advance(state, metrics, trainer.fetch(batches))
        jax.block_until_ready((state.step, metrics))
        times.append((time.perf_counter() - start) / len(batches))
    seconds = float(np.median(times))
    refresh_seconds = _time_refresh(trainer, state)
    seconds += refresh_seconds
    steps = setup.steps_per_epoch * setup.config.optimization.num_epochs
    return {
        "memory per device": _bytes(
            state_bytes
            + (analysis.temp_size_in_bytes if analysis else 0)
            + (image_bytes if trainer.images.resident else 0)
        ),
        "of it images": _bytes(image_bytes) if trainer.images.resident else "streamed",
        "steps per dispatch": trainer.steps_per_dispatch,
        "milliseconds per step": 1e3 * seconds,
        "of it refreshing centers": 1e3 * refresh_seconds,
        "whole run": f"{seconds * steps / 60:.1f} min without validation",
    }


def _time_refresh(trainer: Trainer, state: TrainState) -> float:
    """Return the seconds of a step that go into encoding the centers anew."""
    centers = trainer.setup.config.centers
    if state.centers is None or centers.refresh != "reencode":
        return 0.0
    index, seconds = np.asarray(state.centers.index), 0.0
    for _ in range(2):  # The first one compiles.
        start = time.perf_counter()
        jax.block_until_ready(trainer.refresh(state, index, step=int(state.step)))
        seconds = time.perf_counter() - start
    return seconds / centers.refresh_every


def _num_parameters(setup: Setup) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(_parameters(setup)))


def _parameters(setup: Setup) -> Any:
    return jax.eval_shape(setup.model.init, jax.random.key(0))["params"]


def _bytes(number: int) -> str:
    return f"{number / 2**20:,.1f} MiB"
