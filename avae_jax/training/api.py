"""Training from Python in one call: `run = av.train(images)`."""

import dataclasses
import functools
import math
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from avae_jax import data as datasets
from avae_jax import models
from avae_jax.files import user_path
from avae_jax.likelihoods import make_likelihood
from avae_jax.mesh import make_mesh
from avae_jax.training import loop
from avae_jax.training.config import (
    Config,
    ConfigError,
    check_config,
    configure,
    load_config,
    replace_fields,
    section_of_field,
)
from avae_jax.training.run import Run, load_run

_PLATEAU_STEPS = 180
"""Steps without improvement before the step size falls."""

WIDTHS = (1.0, 0.5, 0.25)
"""What a network's width is chosen from."""

_STEPS_PER_EPOCH = 10
"""Steps that an epoch of few images keeps when the batch size is not given."""


def train(
    data: Any,
    *,
    run_dir: str | os.PathLike | None = None,
    labels: Any = None,
    validation_size: int | float | None = None,
    test_size: int | float | None = None,
    encoder: nn.Module | str | None = None,
    decoder: nn.Module | str | None = None,
    mesh: Mesh | None = None,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    **fields: Any,
) -> Run:
    """Train a model and return it: what `avae train` does, on any array.

    Where the data are no `Config`, what is not given is chosen to fit them: a network for their
    shape with no more parameters than the training data have values, as far as a quarter of its
    width goes; an output that reaches their range (floats in [0, 1], in [-1, 1], or any); at most
    100 images a batch, ten batches an epoch, a number that the devices divide; epochs for some
    5,000 steps, and when to stop before; and what the method asks to be smaller. What is given is
    never changed.

    Args:
      data: `[n, height, width, channels]`, `[n, height, width]` or `[n, features]`: uint8 images,
        or floats, used as they are; an `ImageData`; the name of a data set (not of an experiment,
        whose `config` can be given); or a `Config`, as it is.
      run_dir: the run folder; one that holds the same run is continued. None is a temporary folder
        that lives as long as the run.
      labels: `[n]` integer classes of an array, for figures and metrics; -1 is an image without.
      validation_size: validation images; of an array also a share of it, None is a tenth.
      test_size: test images, likewise; None is a fifth.
      encoder: a Flax module, or its import path, in place of the one that is chosen.
      decoder: likewise.
      mesh: the devices; all local ones when not given.
      say: receives lines about what was chosen, and about what could not be measured in the end.
      **fields: fields of the configuration by name, as `avae train NAME --help` lists them:
        `method`, `latent_dim`, `num_epochs`, ...

    Returns:
      The checkpoint with the lowest validation criterion, with `encode`, `decode`, `reconstruct`,
      `sample`, `evaluate` and `history`. Its folder, `run.path`, holds the figures and the summary
      that `avae train` leaves.

    Raises:
      ConfigError: a field that is none, or that fits neither the data, the devices nor the run in
        `run_dir`.
      DataError: data that cannot be trained on.
      TypeError: data of a kind that is none of those.
      TrainingError: the loss was not finite for many steps in a row.
      Interrupted: after SIGINT or SIGTERM; the state is saved, in a temporary folder too.
    """
    modules: dict[str, Any] = {}
    for name, module in {"encoder": encoder, "decoder": decoder}.items():
        if isinstance(module, str):
            fields[name] = module
        elif isinstance(module, nn.Module):
            modules[name] = module
        elif module is not None:
            raise TypeError(
                f"{name} must be a Flax module or an import path, got {module!r}: give an object, "
                "not its class"
            )
    sizes = {"validation_size": validation_size, "test_size": test_size}
    fields |= {name: size for name, size in sizes.items() if size is not None}

    if isinstance(data, Config):
        _refuse(labels, "labels", "a Config")
        config, dataset = replace_fields(data, **fields), None
    else:
        fields, dataset = _read_data(data, labels, fields)
        config = configure(**fields)
        mesh = make_mesh() if mesh is None else mesh
        config, notes = fit_config(
            config, dataset, given={*fields, *modules}, num_devices=mesh.size, run_dir=run_dir
        )
        config = dataclasses.replace(config, experiment=dataset.name)
        for note in notes:
            say(note)

    kept, folder = None, user_path(run_dir or ".")
    if run_dir is None:
        kept = _TemporaryFolder()
        folder = kept.path
    try:
        loop.train(config, folder, dataset=dataset, mesh=mesh, **modules)
    except loop.Interrupted as stopped:
        if kept is not None:
            kept.keep()
        raise loop.Interrupted(
            f"stopped at step {stopped}, saved in {folder}: train again with run_dir='{folder}' "
            "to go on"
        ) from None
    run = dataclasses.replace(load_run(folder, **modules), dataset=dataset, keeper=kept)
    try:
        run.evaluate()
    except ValueError as error:
        # The model is there, whatever cannot be measured of it.
        say(f"{folder} has no summary: {error}")
    return run


def _read_data(
    data: Any, labels: Any, fields: dict[str, Any]
) -> tuple[dict[str, Any], datasets.ImageData]:
    """Return the data, and the fields that say what they are."""
    sizes = {name: fields[name] for name in ("validation_size", "test_size") if name in fields}
    seed = fields.get("seed", 0)
    _refuse(fields.get("dataset"), "dataset", "data, which name it")
    if isinstance(data, str):
        _refuse(labels, "labels", "the name of a data set")
        _check_is_dataset(data)
        dataset = datasets.load_dataset(
            data, path=fields.get("data_path"), data_dir=fields.get("data_dir"), seed=seed, **sizes
        )
        return _said(fields, data, dataset), dataset
    for name in ("data_path", "data_dir"):
        _refuse(fields.get(name), name, "data that are in memory")
    if isinstance(data, datasets.ImageData):
        for name, value in {"labels": labels, **sizes}.items():
            _refuse(value, name, "an ImageData, which has its own")
        # Under its own name it can be read again by the command line.
        known = data.name in datasets.DATASETS
        return _said(fields, data.name if known else "array", data), data
    if isinstance(data, (os.PathLike, Mapping, bytes)) or not np.iterable(data):
        raise TypeError(
            f"data must be an array, an ImageData, the name of a data set or a Config, got "
            f"{type(data).__name__}: for files give 'folder' or 'array', and data_path"
        )
    dataset = datasets.make_image_data(data, labels, seed=seed, **sizes)
    return _said(fields, "array", dataset), dataset


def _said(fields: dict[str, Any], name: str, dataset: datasets.ImageData) -> dict[str, Any]:
    """Return fields that name the data; a share of them is written down as a number."""
    splits = {"validation_size": "validation", "test_size": "test"}
    numbers = {
        size: len(getattr(dataset.splits, split))
        for size, split in splits.items()
        if size in fields
    }
    return {**fields, **numbers, "dataset": name}


def _check_is_dataset(name: str) -> None:
    if name in datasets.DATASETS:
        return
    path = user_path(name)
    if path.suffix in (".npy", ".npz") or path.exists():
        kind = "folder" if path.is_dir() else "array"
        raise datasets.DataError(
            f"data must be the name of a data set, got {name!r}: give '{kind}' and "
            f"data_path='{name}'"
        )


def _refuse(value: Any, name: str, beside: str) -> None:
    if value is not None:
        raise ConfigError(f"{name} must not be given, got it beside {beside}: leave it out")


def fit_config(
    config: Config,
    dataset: datasets.ImageData,
    *,
    given: set[str],
    num_devices: int,
    run_dir: str | os.PathLike | None = None,
) -> tuple[Config, list[str]]:
    """Return a configuration that fits the data, and lines about what was chosen.

    Args:
      config: with what was given.
      dataset: the data.
      given: names of the fields that were given, and of the modules.
      num_devices: what the batch is split over.
      run_dir: a folder that may hold the run already: what was chosen when it began holds.

    Raises:
      ConfigError: fewer training images than devices.
    """
    check_config(config)
    chosen, notes = fit_defaults(config, dataset, given=given, num_devices=num_devices)
    # A run that goes on for more epochs also ends early as before.
    before = _stored(run_dir, {*chosen, "patience"} - given)
    return replace_fields(config, **{**chosen, **before}), [] if before else notes


def fit_defaults(
    config: Config, dataset: datasets.ImageData, *, given: set[str], num_devices: int
) -> tuple[dict[str, Any], list[str]]:
    """Choose what a user has not given so that it fits the data.

    Args:
      config: with what was given.
      dataset: the data.
      given: names of the fields that were given, and of the modules.
      num_devices: what the batch is split over.

    Returns:
      Values by field name, and a line about each that a user may want to know of.

    Raises:
      ConfigError: fewer training images than devices.
    """
    shape, num_train = tuple(dataset.images.shape[1:]), len(dataset.splits.train)
    chosen: dict[str, Any] = {}
    notes: list[str] = []

    def value_of(name: str) -> Any:
        return chosen.get(name, getattr(getattr(config, sections[name]), name))

    sections = section_of_field(config)
    if "architecture" not in given:
        chosen["architecture"] = choose_architecture(shape)
    if not given & {"width", "encoder", "decoder"}:
        num_values = num_train * math.prod(shape)
        chosen["width"], num_parameters = choose_width(
            value_of("architecture"),
            shape,
            num_values=num_values,
            latent_dim=value_of("latent_dim"),
        )
        notes.append(
            f"architecture={value_of('architecture')}, width={chosen['width']:g}: "
            f"{num_parameters:,} parameters for {num_values:,} values in {num_train:,} training "
            f"images of shape {shape}"
        )
    # A decoder that is given knows what it ends in; one of logits has its range.
    logits = make_likelihood(config.method.likelihood).takes_logits
    if not given & {"activation", "decoder"} and not logits:
        chosen["activation"], note = choose_activation(dataset.images)
        if chosen["activation"] is None and value_of("architecture") == "factors":
            # That of gray images is made for a Bernoulli likelihood.
            chosen["activation"] = "sigmoid"
        notes += [note] if note else []
    if "batch_size" not in given:
        chosen["batch_size"] = choose_batch_size(num_train, num_devices)
    num_steps = max(num_train // value_of("batch_size"), 1)
    validate_every = config.optimization.validate_every
    if "plateau_patience" not in given:
        # As many steps as the experiment on digits has found good, counted in validations.
        num_validations = _PLATEAU_STEPS / (num_steps * validate_every)
        chosen["plateau_patience"] = max(5, round(num_validations))
    if "num_epochs" not in given:
        chosen["num_epochs"] = choose_num_epochs(num_steps)
        if "patience" not in given:
            # The step size falls twice before it.
            twice = 2 * value_of("plateau_patience") * validate_every
            chosen["patience"] = max(chosen["num_epochs"] // 5, 10, twice)
        wait = f"; ends after {value_of('patience')} without a lower validation criterion"
        notes.append(
            f"batch_size={value_of('batch_size')}, num_epochs={chosen['num_epochs']}: {num_steps} "
            f"steps an epoch{wait if value_of('patience') is not None else ''}"
        )
    fitted = config.method.fitted(num_train=num_train, batch_size=value_of("batch_size"))
    for name, value in fitted.items():
        if name not in given:
            chosen[name] = value
            notes.append(f"{name}={value}: what {num_train:,} training images have room for")
    return chosen, notes


def choose_architecture(image_shape: Sequence[int]) -> str:
    """Return the architecture designed for a shape, else a small convolutional or a dense one.

    Example:
      >>> [choose_architecture(shape) for shape in ((32, 32, 3), (48, 80, 1), (28, 28, 1))]
      ['cifar10', 'factors', 'mlp']
    """
    designed = (name for name, row in models.ARCHITECTURES.items() if row.image_shape is not None)
    fits = (name for name in designed if models.ARCHITECTURES[name].image_shape == image_shape)
    small = "factors" if models.ARCHITECTURES["factors"].fits(image_shape) else "mlp"
    return next(fits, small)


def choose_width(
    architecture: str, image_shape: Sequence[int], *, num_values: int, latent_dim: int
) -> tuple[float, int]:
    """Return how wide a network may be for its data, and the parameters it then has.

    Args:
      architecture: a name in `ARCHITECTURES`.
      image_shape: of one example.
      num_values: numbers in the training data.
      latent_dim: dimensions of a code.

    Returns:
      (width, parameters): 1, a half or a quarter, the first with no more parameters than values.
    """
    count = 0
    for width in WIDTHS:
        nets = {
            models.make_encoder(architecture, latent_dim=latent_dim, width=width): image_shape,
            models.make_decoder(
                architecture, image_shape=image_shape, width=width, activation="sigmoid"
            ): (latent_dim,),
        }
        count = sum(_num_parameters(net, shape) for net, shape in nets.items())
        if count <= num_values:
            return width, count
    return WIDTHS[-1], count


def _num_parameters(net: nn.Module, input_shape: Sequence[int]) -> int:
    x = jax.ShapeDtypeStruct((2, *input_shape), jnp.float32)
    shapes = jax.eval_shape(functools.partial(net.init, train=False), jax.random.key(0), x)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"]))


def choose_num_epochs(steps_per_epoch: int) -> int:
    """Return how many epochs make some 5,000 steps: at least 20, at most 300.

    Example:
      >>> [choose_num_epochs(steps) for steps in (10, 100, 5000)]
      [300, 50, 20]
    """
    return min(max(round(5000 / steps_per_epoch), 20), 300)


def choose_activation(images: Any) -> tuple[str | None, str]:
    """Return what the decoder must end in to reach the data, and a note where that is suspect.

    uint8 images are scaled to whatever the architecture ends in: None.

    Example:
      >>> choose_activation(np.zeros((2, 8), np.uint8)), choose_activation(-np.eye(2))
      ((None, ''), ('tanh', ''))
    """
    if np.dtype(images.dtype) == np.uint8:
        return None, ""
    if not isinstance(images, np.ndarray):
        # What is read as it is needed is looked at here and there.
        images = np.asarray(images[np.linspace(0, len(images) - 1, 1000).astype(np.int64)])
    low, high = float(np.min(images)), float(np.max(images))
    for activation in ("sigmoid", "tanh"):
        bottom, top = models.VALUE_RANGE[activation] or (0.0, 0.0)
        slack = 1e-4 * (top - bottom)
        if bottom - slack <= low and high <= top + slack:
            return activation, ""
    note = ""
    if low >= 0 and high <= 255 and len(images.shape) == 4:
        note = (
            f"the images are floats in [{low:g}, {high:g}], learned as they are: pixels are "
            "learned better as uint8, or divided by their largest value"
        )
    return "linear", note


def choose_batch_size(num_train: int, num_devices: int) -> int:
    """Return a number of images that the devices divide: at most 100, ten batches an epoch.

    Raises:
      ConfigError: there are fewer images than devices.

    Example:
      >>> [choose_batch_size(num_train, 8) for num_train in (50_000, 500, 20)]
      [96, 48, 8]
    """
    # What judges two halves of a batch needs two images in each.
    least = max(4, num_devices)
    least += -least % num_devices
    if num_train < least:
        raise ConfigError(
            f"the training split must hold at least {least} images, got {num_train}: give more "
            "images, or a mesh of fewer devices"
        )
    wanted = min(100, num_train // _STEPS_PER_EPOCH)
    return max(least, wanted // num_devices * num_devices)


def _stored(run_dir: str | os.PathLike | None, chosen: Collection[str]) -> dict[str, Any]:
    """Return what was chosen when the run in a folder began, which holds for all of it."""
    if run_dir is None or not (user_path(run_dir) / "config.json").is_file():
        return {}
    config = load_config(user_path(run_dir) / "config.json")
    sections = section_of_field(config)
    return {
        name: getattr(getattr(config, sections[name]), name) for name in chosen if name in sections
    }


class _TemporaryFolder:
    """A folder that is deleted with this object, or at the end of the process."""

    def __init__(self):
        self.path = Path(tempfile.mkdtemp(prefix="avae-"))
        self._delete = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def keep(self) -> None:
        """Leave the folder where it is."""
        self._delete.detach()
