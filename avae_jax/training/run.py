"""A trained model, read back from its run folder."""

import dataclasses
import functools
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from avae_jax import data as datasets
from avae_jax import models
from avae_jax.density import Bandwidth
from avae_jax.training.autoencoder import Autoencoder, Variables, make_autoencoder
from avae_jax.training.checkpoint import CheckpointError, Checkpoints
from avae_jax.training.config import Config, ConfigError, load_config, max_cdf
from avae_jax.training.sharding import make_mesh
from avae_jax.training.state import TrainState, make_optimizer, restore_target
from avae_jax.training.trainer import load_data

CODES_FILE = "codes.npz"
"""Mean and covariance of a finished run's training codes."""

SCALES = ("claimed", "fixed_point", "measured", "covariance")

_ROWS = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A trained model.

    Attributes:
      path: the run folder.
      config: what was trained.
      model: the networks.
      variables: parameters and batch statistics, as they were evaluated.
      centers: the bank of codes at the checkpoint, `[num_centers, latent_dim]`, or None.
      center_index: the image numbers they came from, `[num_centers]`, or None.
      bandwidth: the kernel's bandwidth and what comes with it, or None.
      beta: what the reconstruction was divided by.
      step: steps trained.
    """

    path: Path
    config: Config
    model: Autoencoder
    variables: Variables
    centers: np.ndarray | None
    center_index: np.ndarray | None
    bandwidth: Bandwidth | None
    beta: float
    step: int

    @property
    def params(self) -> Any:
        """Parameters by network, "encoder" and "decoder"."""
        return self.variables["params"]

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Encode images.

        Args:
          x: `[n, ...]` uint8 or float32 images, floats in the decoder's range.

        Returns:
          Codes `[n, latent_dim]` float32; posterior means for a stochastic encoder.

        Raises:
          ValueError: images of another shape than the model's, or values it cannot have learnt:
            not finite, or outside the decoder's range.
        """
        return self._head(x)[:, : self.model.latent_dim]

    def _head(self, x: np.ndarray) -> np.ndarray:
        x = x if hasattr(x, "shape") else np.asarray(x)
        if tuple(x.shape[1:]) != self.model.image_shape:
            raise ValueError(
                f"images have shape {x.shape}: this model takes [n, "
                f"{', '.join(map(str, self.model.image_shape))}]"
            )
        datasets.check_images(x, self.model.value_range, self.model.activation)
        return self._in_chunks(self._encode, x)

    def draw_codes(self, x: np.ndarray, *, seed: int = 0) -> np.ndarray:
        """Draw one code of each image from the posterior: the aggregate posterior is made of these.

        Args:
          x: `[n, ...]` images, as `encode` takes them.
          seed: of the draw.

        Returns:
          Codes `[n, latent_dim]` float32; those of `encode` for a deterministic encoder.
        """
        if not self.model.stochastic:
            return self.encode(x)
        loc, log_var = (
            np.asarray(part) for part in models.split_gaussian(jnp.asarray(self._head(x)))
        )
        noise = np.random.default_rng(seed).standard_normal(loc.shape, np.float32)
        return loc + np.exp(0.5 * log_var) * noise

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Decode codes `[n, latent_dim]` to images `[n, ...]` float32 in the decoder's range.

        Raises:
          ValueError: codes of another dimension than the model's.
        """
        z = np.asarray(z, np.float32)
        if z.ndim != 2 or z.shape[1] != self.model.latent_dim:
            raise ValueError(
                f"codes have shape {z.shape}: this model takes [n, {self.model.latent_dim}]"
            )
        return self._in_chunks(self.decode_batch, z)

    def reconstruct(self, x: np.ndarray) -> np.ndarray:
        """Encode and decode images `[n, ...]`."""
        return self.decode(self.encode(x))

    def sample(
        self, num_samples: int, *, scale: str | float = "claimed", seed: int = 0
    ) -> np.ndarray:
        """Draw images from the prior.

        Args:
          num_samples: how many, >= 1.
          scale: the codes' distribution. "claimed": `N(0, (1 - h^2) I)`, the paper's (N(0, I) for
            methods without a bandwidth). "fixed_point": `N(0, s^2 I)` at the scale where the
            latent forces balance. "measured": `N(0, s^2 I)` with the training codes' own s.
            "covariance": a Gaussian with their mean and covariance. A number: that s.
          seed: of the draw.

        Returns:
          Images `[num_samples, ...]` float32 in the decoder's range.

        Raises:
          ValueError: an unknown scale, or one this run does not have.
        """
        if num_samples < 1:
            raise ValueError(f"num_samples={num_samples}: give at least 1")
        noise = np.random.default_rng(seed).standard_normal((num_samples, self.model.latent_dim))
        if scale == "covariance":
            mean, covariance = self._moments()
            values, vectors = np.linalg.eigh(covariance)
            z = mean + noise * np.sqrt(np.maximum(values, 0)) @ vectors.T
        else:
            z = noise * self.scale(scale)
        return self.decode(z.astype(np.float32))

    def scale(self, scale: str | float) -> float:
        """Return the standard deviation that a scale of `sample` stands for.

        Raises:
          ValueError: an unknown scale, or one this run does not have.
        """
        if not isinstance(scale, str):
            if not (math.isfinite(scale) and scale > 0):
                raise ValueError(f"scale={scale}: give a number > 0 or one of {SCALES}")
            return float(scale)
        if scale == "claimed":
            return 1.0 if self.bandwidth is None else self.bandwidth.prior_scale
        if scale == "fixed_point":
            found = code_scale(self.config, self.bandwidth)
            if found is None:
                raise ValueError(
                    f"scale='fixed_point': method {self.config.objective.method} has no kernel "
                    "density; use another"
                )
            if found.fixed_point is None:
                raise ValueError("scale='fixed_point': the forces balance at no scale; use another")
            return found.fixed_point
        if scale == "measured":
            mean, covariance = self._moments()
            return math.sqrt((np.trace(covariance) + mean @ mean) / len(mean))
        raise ValueError(f"scale={scale!r} is not one of {SCALES} or a number")

    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        try:
            with np.load(self.path / CODES_FILE) as stored:
                if int(stored["step"]) != self.step:
                    raise ValueError(
                        f"{self.path} holds measured codes of step {stored['step']} and this model "
                        f"is of step {self.step}: finish the run, or use scale 'claimed'"
                    )
                return stored["mean"], stored["covariance"]
        except FileNotFoundError:
            raise ValueError(
                f"{self.path} has no measured codes yet: finish the run, or use scale 'claimed'"
            ) from None

    @functools.cached_property
    def _encode(self):
        def encode(x):
            return self.model.encode(self.variables, self.model.to_float(x), train=False)[0]

        return jax.jit(encode)

    @functools.cached_property
    def decode_batch(self) -> Callable[[jax.Array], jax.Array]:
        """Maps codes `[k, latent_dim]` to images `[k, ...]` in JAX, differentiable, not chunked."""

        def decode(z):
            x = self.model.decode(self.variables, z, train=False)[0]
            return jax.nn.sigmoid(x) if self.config.objective.likelihood == "bernoulli" else x

        return jax.jit(decode)

    def _in_chunks(self, function, rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            raise ValueError("no rows given: give at least one")
        results = []
        for start in range(0, len(rows), _ROWS):
            chunk = np.asarray(rows[start : start + _ROWS])
            # One shape, one compilation: a short chunk is filled up with its own rows.
            padded = np.resize(chunk, (min(_ROWS, max(len(rows), 1)), *rows.shape[1:]))
            results.append(np.asarray(function(padded))[: len(chunk)])
        return np.concatenate(results)


def read_bandwidth(run_dir: Path) -> Bandwidth | None:
    """Return the bandwidth a run folder was started with, None when it has none."""
    path = run_dir / "bandwidth.json"
    if not path.is_file():
        return None
    try:
        return Bandwidth(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is damaged ({error}): delete it to search anew") from None


def run_data(run: Run, dataset: datasets.ImageData | None = None) -> datasets.ImageData:
    """Return the images a run was trained on, with the splits it was trained on.

    Args:
      run: the run.
      dataset: the images, where its configuration does not name them.

    Raises:
      ConfigError: the images are not those the run was trained on.
    """
    dataset = load_data(run.config) if dataset is None else dataset
    facts = json.loads((run.path / "facts.json").read_text())
    if dataset.fingerprint() != facts.get("fingerprint"):
        raise ConfigError(
            f"the images of {dataset.name} are not those {run.path} was trained on: its splits "
            "would mean other images"
        )
    splits = datasets.Splits.load(run.path / "splits.npz")
    return dataclasses.replace(dataset, splits=splits)


def code_scale(config: Config, bandwidth: Bandwidth | None):
    """Return the scale the codes of a configuration settle at, None for methods without one."""
    from avae_jax.density import expected_code_scale

    if bandwidth is None:
        return None
    objective = config.objective
    return expected_code_scale(
        config.model.latent_dim,
        config.centers.num_centers,
        bandwidth=bandwidth.h_corr,
        tail=objective.tail,
        max_cdf=max_cdf(config) if objective.tail == "official" else None,
    )


def load_run(
    path: str | os.PathLike,
    *,
    which: str = "best",
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
    say: Callable[[str], None] = lambda message: print(message, file=sys.stderr),
) -> Run:
    """Read a trained model from its run folder.

    Args:
      path: the run folder.
      which: "best" for the checkpoint with the lowest validation score, or "latest".
      encoder: the Flax module the run was trained with, where it was given as an object.
      decoder: likewise.
      say: receives a line about every damaged checkpoint that was passed over.

    Returns:
      The model, with `encode`, `decode`, `reconstruct` and `sample`.

    Raises:
      ValueError: the folder is no run folder, or holds no readable checkpoint.
    """
    path = Path(path)
    if which not in ("best", "latest"):
        raise ValueError(f"which={which!r} is not 'best' or 'latest'")
    if not path.is_dir():
        raise ConfigError(f"{path} is not a run folder: there is no such folder")
    config = load_config(path / "config.json")
    try:
        facts = json.loads((path / "facts.json").read_text())
        image_shape, num_images = tuple(facts["image_shape"]), facts["num_images"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path} is not a whole run folder: facts.json: {error}") from None
    model = make_autoencoder(config, image_shape, encoder=encoder, decoder=decoder)
    optimizer = make_optimizer(config.optimization, steps_per_epoch=1)
    target = restore_target(config, model, optimizer, num_images=num_images, mesh=make_mesh(1))
    state = _restore(path, target, which, say)
    return Run(
        path=path,
        config=config,
        model=model,
        variables=state.evaluated,
        centers=None if state.centers is None else np.asarray(state.centers.codes),
        center_index=None if state.centers is None else np.asarray(state.centers.index),
        bandwidth=read_bandwidth(path),
        beta=float(jnp.asarray(state.beta)),
        step=int(state.step),
    )


def _restore(path: Path, target: TrainState, which: str, say) -> TrainState:
    folder = path / "checkpoints"
    if not folder.is_dir():
        raise CheckpointError(f"{path} holds no checkpoint yet")
    checkpoints = Checkpoints(folder, read_only=True)
    try:
        restored = checkpoints.restore(target, which=which, say=say)
    finally:
        checkpoints.close()
    if restored is None:
        raise CheckpointError(f"{path} holds no checkpoint yet")
    return restored[0]
