"""What a finished run leaves to look at: figures, the summary, the moments of its codes."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from avae_jax import metrics
from avae_jax.data import ImageData
from avae_jax.density import kde_log_density, log_tail_density
from avae_jax.training import figures
from avae_jax.training.config import max_cdf
from avae_jax.training.logging import create_default_writer, read_metrics, strict_json
from avae_jax.training.run import CODES_FILE, Run, code_scale, load_run, run_data

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
    z = run.draw_codes(dataset.images[test]) if run.model.stochastic else codes
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
            "method": run.config.objective.method,
            "latent_dim": run.model.latent_dim,
            "split": "test",
            "num_images": len(test),
            "beta": run.beta,
        },
        "reconstruction": metrics.reconstruction_error(
            x, x_recon, value_range=run.model.value_range
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
    scale = run.scale("claimed")
    values = {**_moments(z, scale), **metrics.radial_ks(z, scale=scale)}
    if run.bandwidth is not None and run.center_index is not None:
        bandwidth = run.bandwidth
        centers = run.encode(dataset.images[run.center_index])
        kl = metrics.kde_kl(z, centers, bandwidth=bandwidth.h_corr)
        values = {
            "kde_kl": kl["kl"],
            "kde_kl_null": bandwidth.null_kl,
            "kde_kl_stderr": kl["stderr"],
            **_tail_share(run, z, centers, bandwidth.h_corr),
            **values,
        }
        entropy = metrics.whitened_entropy(z, h_opt=bandwidth.h_opt)
        values |= {
            "whitened_entropy": entropy["entropy"],
            "whitened_entropy_null": entropy["null"],
            "whitened_entropy_cap": entropy["cap"],
        }
    return values


def _moments(z: np.ndarray, scale: float) -> dict[str, float]:
    """Return the moments of the codes beside those of as many draws of `N(0, scale^2 I)`."""
    values = metrics.code_moments(z / scale)
    units = {"mean_norm": scale, "std": scale, "eig_min": scale**2, "eig_median": scale**2}
    units["eig_max"] = scale**2
    return {
        name: value * units.get(name.removesuffix("_null"), 1.0) for name, value in values.items()
    }


def _tail_share(run: Run, z: np.ndarray, centers: np.ndarray, bandwidth: float) -> dict[str, float]:
    """Return the share of codes that the official floor covers, or would cover."""
    log_q = kde_log_density(z, centers, bandwidth=bandwidth)
    log_eps = log_tail_density(z.shape[1], bandwidth=bandwidth, max_cdf=max_cdf(run.config))
    return {"tail_share": float(np.mean(np.asarray(log_q) < float(log_eps)))}


def _describe_scales(run: Run) -> dict[str, Any]:
    values: dict[str, Any] = {"claimed": run.scale("claimed")}
    expected = code_scale(run.config, run.bandwidth)
    if expected is not None:
        values["fixed_point"] = expected.fixed_point
        values["verdict"] = expected.verdict
    values["measured"] = run.scale("measured")
    return values


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
    value_range = run.model.value_range
    claimed, measured = run.scale("claimed"), run.scale("measured")
    shown = _some(np.arange(len(x)), 48)
    figures.save_reconstructions(
        x[shown], x_recon[shown], folder / "reconstructions.png", value_range=value_range
    )
    samples = {f"claimed scale {claimed:.2f}": run.sample(64, scale="claimed")}
    samples[f"measured scale {measured:.2f}"] = run.sample(64, scale="measured")
    figures.save_samples(samples, folder / "samples.png", value_range=value_range)
    labels = None
    if dataset.labels is not None:
        labels = dataset.labels[_some(dataset.splits.test, MAX_CODES)]
    figures.save_latent_scatter(
        z, folder / "latent_scatter.png", labels=labels, prior_scale=claimed
    )
    figures.save_radius_histogram(z, folder / "radius.png", scale=claimed)
    figures.save_covariance(z, folder / "covariance.png", prior_scale=claimed)
    if len(rows) > 1:
        figures.save_training_curves(rows, folder / "training_curves.png")
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
    return np.asarray(run.model.to_float(np.asarray(images)))


def _some(index: np.ndarray, most: int) -> np.ndarray:
    """Return at most `most` entries, evenly spaced."""
    return index[:: math.ceil(len(index) / most)]


def _save_arrays(path: Path, **arrays: Any) -> None:
    scratch = path.with_name(f".{path.name}")
    with scratch.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(scratch, path)
