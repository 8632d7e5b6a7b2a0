"""What an evaluation works on: images, codes and reconstructions of one split of a run's data."""

import dataclasses
import hashlib
import json
import platform
from importlib import metadata
from typing import Any, Literal

import jax
import numpy as np

from avae_jax.data import ImageData
from avae_jax.metrics.checks import check_codes
from avae_jax.posteriors import Distribution
from avae_jax.training.config import to_dict
from avae_jax.training.run import Run, run_data
from avae_jax.version import __version__

Protocol = Literal["standard", "paper"]
"""standard: the test split, float images, natural logarithms. paper: the authors' choices, the
validation split, samples cut to 8 bits, base-10 logarithms in the KL, MIG with 10 bins."""


Split = Literal["test", "validation"]


class LeakError(ValueError):
    """Images that were trained on are about to be evaluated."""


@dataclasses.dataclass(frozen=True, eq=False)
class Material:
    """The arrays all parts of an evaluation share.

    Attributes:
      run: the trained model.
      dataset: its images and splits.
      protocol: "standard" or "paper".
      split: "test" or "validation".
      seed: of every draw.
      index: `[n]`, the images evaluated.
      train_index: `[m]`, training images the codes are compared with.
      x: `[n, ...]` images, float32 in the decoder's range.
      x_train: `[m, ...]`, likewise.
      posterior: of each image.
      loc: `[n, latent_dim]`, the codes; posterior means of a stochastic encoder.
      z: `[n, latent_dim]`, codes drawn from the posterior; `loc` of a deterministic encoder.
      z_train: `[m, latent_dim]`, likewise drawn.
      x_recon: `[n, ...]`, the decoded `loc`.
      labels: `[n]` classes, or None.
    """

    run: Run
    dataset: ImageData
    protocol: Protocol
    split: Split
    seed: int
    index: np.ndarray
    train_index: np.ndarray
    x: np.ndarray
    x_train: np.ndarray
    posterior: Distribution
    loc: np.ndarray
    z: np.ndarray
    z_train: np.ndarray
    x_recon: np.ndarray
    labels: np.ndarray | None

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Interval the images lie in."""
        return self.run.method.value_range

    @property
    def is_images(self) -> bool:
        """Whether the data are `[n, h, w, c]` and not plain features."""
        return self.x.ndim == 4

    def train_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean `[latent_dim]` and covariance of the training codes, float64."""
        z = self.z_train.astype(np.float64)
        return z.mean(axis=0), np.atleast_2d(np.cov(z, rowvar=False))

    def to_unit(self, x: np.ndarray) -> np.ndarray:
        """Scale images of the decoder's range to [0, 1]; data without bounds stay as they are."""
        if self.value_range is None:
            return x
        low, high = self.value_range
        return np.clip((x - low) / (high - low), 0.0, 1.0)


def gather(
    run: Run,
    dataset: ImageData | None = None,
    *,
    protocol: Protocol = "standard",
    split: Split | None = None,
    num_images: int = 10_000,
    seed: int = 0,
) -> Material:
    """Encode and decode a split of a run's data.

    Args:
      run: the trained model.
      dataset: its images, where its configuration does not name them.
      protocol: decides the split where it is not given.
      split: "test" or "validation"; None is the protocol's.
      num_images: the most images of the split, and of the training split, to use.
      seed: of the draws from the posterior.

    Raises:
      LeakError: the split shares images with those trained on.
      ValueError: codes that are not finite.
    """
    dataset = run_data(run, dataset)
    if split is None:
        split = "validation" if protocol == "paper" else "test"
    check_no_leak(dataset, split)
    index = thinned(getattr(dataset.splits, split), num_images)
    train_index = thinned(dataset.splits.train, num_images)
    images, train_images = dataset.images[index], dataset.images[train_index]
    posterior = run.posterior(images)
    loc = np.asarray(posterior.mean())
    check_codes(loc, name="codes of the run", min_codes=2)
    return Material(
        run=run,
        dataset=dataset,
        protocol=protocol,
        split=split,
        seed=seed,
        index=index,
        train_index=train_index,
        x=np.asarray(run.method.to_float(np.asarray(images))),
        x_train=np.asarray(run.method.to_float(np.asarray(train_images))),
        posterior=posterior,
        loc=loc,
        z=np.asarray(posterior.sample(jax.random.key(seed))),
        z_train=run.draw_codes(train_images, seed=seed + 1),
        x_recon=run.decode(loc),
        labels=None if dataset.labels is None else np.asarray(dataset.labels)[index],
    )


def check_no_leak(dataset: ImageData, split: str) -> None:
    """Refuse to evaluate images that were trained on.

    Raises:
      LeakError: names how many images two of them share.
    """
    splits = dataset.splits
    evaluated = getattr(splits, split)
    seen = {"train": splits.train}
    if split == "test":
        seen["validation"] = splits.validation
    for name, other in seen.items():
        shared = np.intersect1d(evaluated, other)
        if shared.size:
            raise LeakError(
                f"{split} and {name} share {shared.size} images (the first is {shared[0]}): "
                "numbers on them would be too good; draw the splits again and train again"
            )


def describe(material: Material) -> dict[str, Any]:
    """Return where the numbers come from: run, data, split, seed, versions, hash of the config."""
    run, config = material.run, to_dict(material.run.config)
    text = json.dumps(config, sort_keys=True)
    config["optimization"].pop("seed")
    seedless = json.dumps(config, sort_keys=True)
    packages = ("jax", "flax", "numpy", "scipy", "scikit-learn")
    return {
        "experiment": run.config.experiment,
        "folder": str(run.path),
        "method": run.config.method.name,
        "dataset": material.dataset.name,
        "latent_dim": run.method.latent_dim,
        "sampled_by": sampled_by(run),
        "checkpoint_step": run.step,
        "training_seed": run.config.optimization.seed,
        "config_hash": hashlib.sha256(text.encode()).hexdigest()[:16],
        "config_hash_without_seed": hashlib.sha256(seedless.encode()).hexdigest()[:16],
        "data_hash": material.dataset.fingerprint()[:16],
        "protocol": material.protocol,
        "split": material.split,
        "num_images": len(material.index),
        "num_train_images": len(material.train_index),
        "seed": material.seed,
        "versions": {
            "avae_jax": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in packages},
        },
        "device": jax.devices()[0].device_kind,
    }


def sampled_by(run: Run) -> str:
    """Return which distribution of a summary's samples the run's method samples by.

    "claimed", its prior, or "gaussian", which `Run.prior` calls "covariance": the mean and the
    covariance of the training codes, for a method that aims its codes at no distribution.
    """
    return {"covariance": "gaussian"}.get(run.method.sampled_by, run.method.sampled_by)


def thinned(rows: np.ndarray, most: int) -> np.ndarray:
    """Return at most `most` rows of an array, evenly spaced.

    The first rows would not do: splits are sorted, and many data sets by class.
    """
    n = len(rows)
    return rows[np.linspace(0, n - 1, min(n, most)).round().astype(np.int64)]
