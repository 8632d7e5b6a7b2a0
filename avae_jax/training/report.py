"""What a finished run leaves to look at: figures, the summary, the moments of its codes."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from avae_jax import figures, metrics
from avae_jax.data import ImageData
from avae_jax.files import written_whole
from avae_jax.training.run import CODES_FILE, Run, load_run, run_data
from avae_jax.training.terms import terms_of
from avae_jax.training.writers import create_default_writer, read_metrics, strict_json

MAX_CODES = 10_000
"""Codes of a split that the latent-space numbers are taken from, and training codes for moments."""


def write_report(
    run_dir: str | os.PathLike, *, dataset: ImageData | None = None, **modules
) -> dict:
    """Write a run's figures, `codes.npz` and `summary.json` from its best checkpoint.

    Args:
      run_dir: the run folder.
      dataset: the images of the run where they were not named by its configuration.
      **modules: `encoder` and `decoder`, where the run was trained with module objects.

    Returns:
      The summary: nested dictionaries of numbers. `name_null` is what as many draws of the prior at
      its claimed scale give for `name`. Reconstruction and codes are those of the test split; the
      measured scale is that of training codes.
    """
    run = load_run(run_dir, **modules)
    dataset = run_data(run, dataset)
    splits = dataset.splits
    test = _some(splits.test, MAX_CODES)
    x = _to_float(run, dataset.images[test])
    codes = run.encode(dataset.images[test])
    x_recon = run.decode(codes)
    # For a stochastic encoder the means alone are not the aggregate: draws of the posterior are.
    z = run.draw_codes(dataset.images[test]) if run.method.is_stochastic else codes
    train_codes = run.draw_codes(dataset.images[_some(splits.train, MAX_CODES)])
    _save_arrays(
        run.path / CODES_FILE,
        mean=train_codes.mean(axis=0),
        covariance=np.atleast_2d(np.cov(train_codes.astype(np.float64), rowvar=False)),
        step=np.array(run.step),
    )
    summary = {
        "run": {
            "experiment": run.config.experiment,
            "folder": str(run.path),
            "checkpoint_step": run.step,
            "method": run.config.method.name,
            "latent_dim": run.method.latent_dim,
            "split": "test",
            "num_images": len(test),
        },
        "reconstruction": metrics.reconstruction_error(
            x, x_recon, value_range=run.method.value_range
        ),
        "codes": _describe_codes(run, dataset, z),
        "scale": _describe_scales(run),
    }
    rows = read_metrics(run.path)
    last = rows[-1] if rows else {}
    summary["training"] = {
        "epochs": int(last.get("epoch", 0)),
        "skipped_steps": int(last.get("num_skipped", 0)),
        "images_per_second": last.get("images_per_second"),
    }
    new = _summarised_step(run.path) != run.step
    (run.path / "summary.json").write_text(strict_json(summary))
    _write_figures(run, dataset, x, x_recon, z, rows, to_tensorboard=new)
    return summary


def _describe_codes(run: Run, dataset: ImageData, z: np.ndarray) -> dict[str, float]:
    scale = run.prior().std()
    return {**_moments(z, scale), **metrics.radial_ks(z, scale=scale)}


def _moments(z: np.ndarray, scale: float) -> dict[str, float]:
    """Return the moments of the codes beside those of as many draws of `N(0, scale^2 I)`."""
    values = metrics.code_moments(z / scale)
    units = {"mean_norm": scale, "std": scale, "eig_min": scale**2, "eig_median": scale**2}
    units["eig_max"] = scale**2
    return {
        name: value * units.get(name.removesuffix("_null"), 1.0) for name, value in values.items()
    }


def _describe_scales(run: Run) -> dict[str, Any]:
    names = (*run.method.sampling_priors(run.variables), "measured")
    return {name: run.prior(name).std() for name in names}


def _summarised_step(path: Path) -> int | None:
    """Return the step of the checkpoint that the last summary described."""
    try:
        return json.loads((path / "summary.json").read_text())["run"]["checkpoint_step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_figures(
    run: Run, dataset: ImageData, x, x_recon, z, rows, *, to_tensorboard: bool
) -> None:
    folder = run.path / "figures"
    folder.mkdir(exist_ok=True)
    value_range = run.method.value_range
    claimed, measured = run.prior().std(), run.prior("measured").std()
    shown = _some(np.arange(len(x)), 48)
    figure = figures.make_reconstructions(x[shown], x_recon[shown], value_range=value_range)
    figures.save(figure, folder / "reconstructions.png")
    samples = {f"claimed scale {claimed:.2f}": run.sample(64, scale="claimed")}
    samples[f"measured scale {measured:.2f}"] = run.sample(64, scale="measured")
    figure = figures.make_samples(samples, value_range=value_range)
    figures.save(figure, folder / "samples.png")
    labels = None
    if dataset.labels is not None:
        labels = dataset.labels[_some(dataset.splits.test, MAX_CODES)]
    figure = figures.make_latent_scatter(z, labels=labels, prior_std=claimed)
    figures.save(figure, folder / "latent_scatter.png")
    ks = metrics.radial_ks(z, scale=claimed)
    figure = figures.make_radius_histogram(
        z, prior_std=claimed, distance=(ks["radial_ks"], ks["radial_ks_null"])
    )
    figures.save(figure, folder / "radius.png")
    figures.save(figures.make_covariance(z, prior_std=claimed), folder / "covariance.png")
    if len(rows) > 1:
        # How fast it ran is no property of the model.
        terms = {**terms_of(run.method), "images_per_second": None}
        figure = figures.make_training_curves(rows, terms=terms)
        figures.save(figure, folder / "training_curves.png")
    if to_tensorboard and x.ndim == 4 and x.shape[-1] in (1, 3):
        low, high = value_range or (float(x.min()), float(x.max()))
        writer = create_default_writer(run.path, start_step=_last_step(rows))
        pictures = {"reconstruction": x_recon[:8], "sample": next(iter(samples.values()))[:8]}
        writer.write_images(
            _last_step(rows),
            {name: (images - low) / (high - low) for name, images in pictures.items()},
        )
        writer.close()


def _last_step(rows: list[dict[str, Any]]) -> int:
    return int(rows[-1]["step"]) if rows else 0


def _to_float(run: Run, images: np.ndarray) -> np.ndarray:
    return np.asarray(run.method.to_float(np.asarray(images)))


def _some(index: np.ndarray, most: int) -> np.ndarray:
    """Return at most `most` entries, evenly spaced."""
    return index[:: math.ceil(len(index) / most)]


def _save_arrays(path: Path, **arrays: Any) -> None:
    with written_whole(path, "wb") as file:
        np.savez(file, **arrays)
