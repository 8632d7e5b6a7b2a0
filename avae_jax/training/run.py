"""A trained model, read back from its run folder."""

import contextlib
import dataclasses
import functools
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
from jax.tree_util import Partial

from avae_jax import data as datasets
from avae_jax.files import user_path
from avae_jax.mesh import make_mesh
from avae_jax.methods import Method
from avae_jax.methods.networks import Variables
from avae_jax.posteriors import Distribution
from avae_jax.priors import DiagonalGaussianPrior, FullGaussian, Prior
from avae_jax.text import refusal
from avae_jax.training.checkpoint import CheckpointError, Checkpoints
from avae_jax.training.config import (
    Config,
    ConfigError,
    load_config,
    replace_fields,
    to_dict,
    with_absolute_paths,
)
from avae_jax.training.run_folder import read_facts, write_json
from avae_jax.training.setup import load_data, make_setting
from avae_jax.training.writers import read_metrics

CODES_FILE = "codes.npz"
"""Mean and covariance of a finished run's training codes."""

MEASURED = ("measured", "covariance")
"""Distributions of codes that are taken from the training codes of a finished run."""

_ROWS = 256


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A trained model.

    Attributes:
      path: the run folder.
      config: what was trained.
      method: its networks and what they mean.
      variables: parameters and batch statistics, as they were evaluated.
      step: steps trained.
      which: of the run's checkpoints, "best" or "latest".
      black_and_white: whether it was trained on pixels of 0 and 255 alone.
      dataset: the images it was trained on, where its configuration does not name them.
      keeper: deletes a temporary run folder when nothing refers to it any more.
    """

    path: Path
    config: Config
    method: Method
    variables: Variables
    step: int
    which: str = "best"
    black_and_white: bool = False
    dataset: datasets.ImageData | None = None
    keeper: Any = None

    def __repr__(self) -> str:
        """Name the run, without its arrays."""
        about = f"{self.config.method.name}, latent_dim={self.method.latent_dim}, step={self.step}"
        return f"Run({str(self.path)!r}, {about})"

    @property
    def params(self) -> Any:
        """Parameters by the name of their network, and those of the prior."""
        return self.variables["params"]

    @property
    def history(self) -> list[dict[str, Any]]:
        """What was logged, one dict per epoch: `step`, `epoch`, `train/...`, `validation/...`."""
        return read_metrics(self.path)

    def evaluate(self, *, quick: bool = True, **options: Any) -> dict[str, Any]:
        """Measure the model on images it has never seen, with a verdict in words.

        Args:
          quick: whether to measure only what takes seconds, reconstruction and codes; otherwise the
            likelihood, samples and directions too, and a page to read in `RUN/evaluation`.
          **options: as `avae_jax.evaluation.evaluate_run` takes them.

        Returns:
          The summary: "verdict", then a section per subject.
        """
        from avae_jax.evaluation import evaluate_run

        return evaluate_run(self, quick=quick, **options)

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Encode images.

        Args:
          x: `[n, ...]` uint8, bool or float32 images, floats in the decoder's range; those of one
            channel may lack it. uint8 of 0 and 1 alone is black and white to a model that was
            trained on such images, and next to black to any other.

        Returns:
          Codes `[n, latent_dim]` float32; posterior means for a stochastic encoder.

        Raises:
          ValueError: images of another shape than the model's, or values it cannot have learned:
            not finite, or outside the decoder's range.
        """
        return np.asarray(self.posterior(x).mean())

    def posterior(self, x: np.ndarray) -> Distribution:
        """Return the distributions of codes that images stand for, one per image.

        Args:
          x: `[n, ...]` images, as `encode` takes them.

        Returns:
          What `avae_jax.posteriors` makes of the encoder's output, NumPy arrays in it.

        Raises:
          ValueError: as `encode`.
        """
        x = self.as_trained(x)
        if tuple(x.shape[1:]) != self.method.image_shape:
            raise ValueError(
                f"images have shape {x.shape}: this model takes [n, "
                f"{', '.join(map(str, self.method.image_shape))}]"
            )
        datasets.check_images(x, self.method.value_range, self.method.activation)
        return self.map_rows(self._encode, x)

    def as_trained(self, x: Any) -> Any:
        """Return images as the model was trained on them, with channels and pixels up to 255.

        Args:
          x: `[n, ...]` images, as `encode` takes them.
        """
        x = x if hasattr(x, "shape") else np.asarray(x)
        if x.dtype == np.bool_:
            x = np.asarray(x).astype(np.uint8) * np.uint8(255)
        elif self.black_and_white:
            x = datasets.black_and_white(x)
        if (*x.shape[1:], 1) == self.method.image_shape:
            x = np.asarray(x[:])[..., None]
        return x

    def draw_codes(self, x: np.ndarray, *, seed: int = 0) -> np.ndarray:
        """Draw one code of each image from the posterior: the aggregate posterior is made of these.

        Args:
          x: `[n, ...]` images, as `encode` takes them.
          seed: of the draw.

        Returns:
          Codes `[n, latent_dim]` float32; those of `encode` for a deterministic encoder.
        """
        return np.asarray(self.posterior(x).sample(jax.random.key(seed)))

    def decode(self, z: np.ndarray | jax.Array) -> np.ndarray:
        """Decode codes `[n, latent_dim]` to images `[n, ...]` float32 in the decoder's range.

        Raises:
          ValueError: codes of another dimension than the model's.
        """
        z = np.asarray(z, np.float32)
        if z.ndim != 2 or z.shape[1] != self.method.latent_dim:
            raise ValueError(
                f"codes have shape {z.shape}: this model takes [n, {self.method.latent_dim}]"
            )
        return self.map_rows(self.decode_batch, z)

    def reconstruct(self, x: np.ndarray) -> np.ndarray:
        """Encode and decode images `[n, ...]`."""
        return self.decode(self.encode(x))

    def sample(
        self, num_samples: int, *, scale: str | float | None = None, seed: int = 0
    ) -> np.ndarray:
        """Draw images: codes from a distribution, decoded.

        Args:
          num_samples: how many, >= 1.
          scale: the codes' distribution, as `prior` takes it. None: the one that the method samples
            by, "claimed", or "covariance" for a method that aims its codes at no distribution.
          seed: of the draw.

        Returns:
          Images `[num_samples, ...]` float32 in the decoder's range.

        Raises:
          ValueError: an unknown distribution, or one this run does not have.
        """
        if num_samples < 1:
            raise ValueError(f"num_samples={num_samples}: give at least 1")
        scale = self.method.sampled_by if scale is None else scale
        z = self.prior(scale).sample(jax.random.key(seed), num_samples)
        return self.decode(np.asarray(z))

    def prior(self, scale: str | float = "claimed") -> Prior:
        """Return a distribution of codes.

        Args:
          scale: "claimed": what the method aims its codes at, its prior. "measured":
            `N(mean, s^2 I)` with the training codes' own mean, and for s^2 their variance about it,
            averaged over the dimensions. "covariance": a Gaussian with their mean and covariance.
            Another name that the method knows. A number: `N(0, s^2 I)` with that s.

        Raises:
          ValueError: an unknown distribution, or one this run does not have.
        """
        if not isinstance(scale, str):
            if not (math.isfinite(scale) and scale > 0):
                raise ValueError(self._refused(float(scale)))
            return DiagonalGaussianPrior.isotropic(self.method.latent_dim, float(scale))
        if scale == "measured":
            mean, covariance = self._moments()
            std = math.sqrt(np.trace(covariance) / len(mean))
            around = DiagonalGaussianPrior.isotropic(len(mean), std)
            return dataclasses.replace(around, loc=jnp.asarray(mean, jnp.float32))
        if scale == "covariance":
            return FullGaussian.of_moments(*self._moments())
        known = self.method.sampling_priors(self.variables)
        if scale not in known:
            raise ValueError(self._refused(scale))
        return known[scale]()

    def _refused(self, scale: str | float) -> str:
        return refusal("scale", scale, choices=self.prior_names, kinds=["a number above 0"])

    @property
    def prior_names(self) -> tuple[str, ...]:
        """The names that `prior` and `sample` take."""
        return (*self.method.sampling_priors(self.variables), *MEASURED)

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

    # Weights are arguments of what is compiled: runs of one configuration share the programs that
    # JAX's compilation cache keeps.

    @functools.cached_property
    def _encode(self) -> Partial:
        method = self.method  # What is compiled must not keep the run, and with it its folder.

        def encode(variables, x):
            return method.encode(variables, method.prepare(x), train=False)[0]

        return Partial(jax.jit(encode), self.variables)

    @functools.cached_property
    def decode_batch(self) -> Partial:
        """Maps codes `[k, latent_dim]` to images `[k, ...]` in JAX, differentiable, not chunked."""
        method = self.method  # What is compiled must not keep the run, and with it its folder.

        def decode(variables, z):
            outputs, _ = method.decode(variables, z, train=False)
            return method.likelihood(variables).mean(outputs)

        return Partial(jax.jit(decode), self.variables)

    def map_rows(self, function: Callable[..., Any], *arrays: Any) -> Any:
        """Apply a compiled function to the rows of arrays, 256 at a time, on the host's memory.

        Args:
          function: maps `[k, ...]` of each array to a tree of arrays `[k, ...]`.
          *arrays: `[n, ...]` each, n >= 1.

        Returns:
          The tree, of NumPy arrays `[n, ...]`.

        Raises:
          ValueError: no rows.
        """
        num = len(arrays[0])
        if not num:
            raise ValueError("no rows given: give at least one")
        results = []
        for start in range(0, num, _ROWS):
            chunks = [np.asarray(array[start : start + _ROWS]) for array in arrays]
            rows = len(chunks[0])
            # One shape, one compilation: a short chunk is filled up with its own rows.
            padded = (np.resize(chunk, (min(_ROWS, num), *chunk.shape[1:])) for chunk in chunks)
            result = jax.device_get(function(*padded))
            results.append(jax.tree.map(lambda leaf, rows=rows: leaf[:rows], result))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *results)


def run_data(run: Run, dataset: datasets.ImageData | None = None) -> datasets.ImageData:
    """Return the images a run was trained on, with the splits it was trained on.

    Args:
      run: the run.
      dataset: the images, where neither the run nor its configuration knows them.

    Raises:
      FileNotFoundError: the images are not where they were, and `load_run` was not told where else.
      ConfigError: the images are not those the run was trained on.
    """
    dataset = run.dataset if dataset is None else dataset
    read = dataset is None
    if dataset is None:
        name = "data_path" if run.config.data.data_path is not None else "data_dir"
        try:
            dataset = load_data(run.config)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{error}; where they have moved since, --{name.replace('_', '-')} ({name} in "
                "Python) says where to"
            ) from None
    facts = read_facts(run.path)
    if dataset.fingerprint() != facts.get("fingerprint"):
        raise ConfigError(
            f"the images of {dataset.name} are not those {run.path} was trained on: its splits "
            "would mean other images"
        )
    if read:
        _remember_paths(run)
    splits = datasets.Splits.load(run.path / "splits.npz")
    return dataclasses.replace(dataset, splits=splits)


def _remember_paths(run: Run) -> None:
    """Write down where the images of a run lie, if they have moved."""
    path = run.path / "config.json"
    stored = load_config(path)
    if stored.data != run.config.data:
        # What cannot be written to can be read from all the same.
        with contextlib.suppress(OSError):
            write_json(path, to_dict(dataclasses.replace(stored, data=run.config.data)))


def load_run(
    path: str | os.PathLike,
    *,
    which: str = "best",
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
    data_path: str | os.PathLike | None = None,
    data_dir: str | os.PathLike | None = None,
    say: Callable[[str], None] = lambda message: print(message, file=sys.stderr),
) -> Run:
    """Read a trained model from its run folder.

    Args:
      path: the run folder.
      which: "best" for the checkpoint with the lowest validation criterion, or "latest".
      encoder: the Flax module the run was trained with, where it was given as an object.
      decoder: likewise.
      data_path: where the images lie now, if they have moved since the training; the folder
        remembers it when they are first read.
      data_dir: likewise.
      say: receives a line about every damaged checkpoint that was passed over.

    Returns:
      The model, with `encode`, `decode`, `reconstruct` and `sample`.

    Raises:
      ValueError: the folder is no run folder, or holds no readable checkpoint.
    """
    path = user_path(path)
    if which not in ("best", "latest"):
        raise ValueError(f"which={which!r} is not 'best' or 'latest'")
    if not path.is_dir():
        raise ConfigError(f"{path} is not a run folder: there is no such folder")
    config, facts = load_config(path / "config.json"), read_facts(path)
    moved = {"data_path": data_path, "data_dir": data_dir}
    moved = {name: os.fspath(place) for name, place in moved.items() if place is not None}
    config = with_absolute_paths(replace_fields(config, **moved)) if moved else config
    setting = make_setting(
        config,
        image_shape=facts["image_shape"],
        num_images=facts["num_images"],
        num_train=facts["num_images"],
        num_classes=facts["num_classes"],
        mesh=make_mesh(1),
        encoder=encoder,
        decoder=decoder,
    )
    method = config.method.make(setting, facts["method"])
    variables, step = _restore(path, method, which, say)
    return Run(
        path=path,
        config=config,
        method=method,
        variables=variables,
        step=step,
        which=which,
        black_and_white=facts.get("black_and_white", False),
    )


def _restore(path: Path, method: Method, which: str, say) -> tuple[Variables, int]:
    """Read the variables of a checkpoint, and its step."""
    folder = path / "checkpoints"
    if not folder.is_dir():
        raise CheckpointError(f"{path} holds no checkpoint yet")
    at = jax.sharding.SingleDeviceSharding(method.setting.mesh.devices.flat[0])
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at),
        jax.eval_shape(method.init, jax.random.key(0)),
    )
    checkpoints = Checkpoints(folder, read_only=True)
    try:
        restored = checkpoints.restore_model(target, which=which, say=say)
    finally:
        checkpoints.close()
    if restored is None:
        raise CheckpointError(f"{path} holds no checkpoint yet")
    return restored[0], int(restored[1]["step"])
