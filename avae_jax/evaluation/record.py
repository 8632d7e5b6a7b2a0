"""What a run's folder knows of its training, and what it keeps of its evaluation."""

import importlib.util
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avae_jax.evaluation.html import Picture
from avae_jax.evaluation.material import Material
from avae_jax.files import write_atomically, written_whole
from avae_jax.terms import null_key, null_names, split_name
from avae_jax.training.run import CODES_FILE, Run
from avae_jax.training.terms import terms_of
from avae_jax.training.writers import TensorBoardWriter, read_metrics

SUMMARY_FILE = "summary.json"
FIGURES = "figures"
"""Folder of the figures that have a file of their own."""

# Numbers of a row that are named apart.
_FACTS = {"epoch": "epochs", "num_skipped": "skipped_steps"}


def metrics_of(run: Run) -> list[dict[str, Any]]:
    """Return the rows of a run's `metrics.jsonl`; none where it is not there."""
    try:
        return read_metrics(run.path)
    except FileNotFoundError:
        return []


def describe_training(run: Run) -> dict[str, Any]:
    """Return how long a run was trained, and what it reported last.

    Returns:
      "epochs", "steps", "skipped_steps", "images_per_second" over the whole training, other numbers
      of no split, and the mean terms of the splits under "train" and "validation", each with its
      null value where the method knows one.
    """
    rows = metrics_of(run)
    last = (rows or [{}])[-1]
    terms = terms_of(run.method)
    nulls = null_names(last, terms)
    numbers: dict[str, Any] = {"steps": last.get("step", run.step)}
    numbers |= {name: int(last.get(key, 0)) for key, name in _FACTS.items()}
    for key, value in last.items():
        split, name = split_name(key)
        if key in ("step", *_FACTS) or name in nulls:
            continue
        group = numbers.setdefault(split, {}) if split else numbers
        group[name] = value
        null = null_key(name, last, terms)
        if null is not None:
            group[f"{name}_null"] = last[null]
    # Epochs have as many images each: over all of them the rates have a harmonic mean.
    rates = [row["images_per_second"] for row in rows if row.get("images_per_second")]
    if rates:
        numbers["images_per_second"] = statistics.harmonic_mean(rates)
    return numbers


def keep(
    material: Material, samples: Mapping[str, np.ndarray], pictures: Sequence[Picture]
) -> None:
    """Write what else a finished run leaves: figures, moments of its codes, TensorBoard images.

    Args:
      material: what was evaluated.
      samples: name -> decoded draws; the first group is shown.
      pictures: those with a file name are written to `figures/`.
    """
    run = material.run
    keep_moments(material)
    keep_figures(run.path, pictures)
    # Once per checkpoint: events are never replaced.
    if _summarized_step(run.path) == run.step or not material.is_images:
        return
    if material.x.shape[-1] in (1, 3) and importlib.util.find_spec("tensorboardX") is not None:
        step = int((metrics_of(run) or [{"step": run.step}])[-1]["step"])
        low, high = material.value_range or (float(material.x.min()), float(material.x.max()))
        writer = TensorBoardWriter(run.path / "tensorboard", start_step=step)
        shown = {"reconstruction": material.x_recon[:8], "sample": next(iter(samples.values()))[:8]}
        writer.write_images(step, {name: (x - low) / (high - low) for name, x in shown.items()})
        writer.close()


def keep_moments(material: Material) -> None:
    """Write the moments of the training codes, which `Run.prior("measured")` reads."""
    mean, covariance = material.train_moments()
    with written_whole(material.run.path / CODES_FILE) as file:
        np.savez(file, mean=mean, covariance=covariance, step=np.array(material.run.step))


def keep_figures(folder: Path, pictures: Sequence[Picture]) -> None:
    """Write the pictures that have a file name to `figures/` of a folder."""
    place = folder / FIGURES
    place.mkdir(exist_ok=True)
    for picture in pictures:
        if picture.file:
            write_atomically(place / f"{picture.file}.png", picture.data)


def _summarized_step(path: Path) -> int | None:
    """Return the step of the checkpoint that the folder's summary describes."""
    try:
        return json.loads((path / SUMMARY_FILE).read_text())["about"]["checkpoint_step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
