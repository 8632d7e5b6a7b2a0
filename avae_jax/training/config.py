"""The configuration of a run: frozen dataclasses, their checks, and the experiments by name.

A field's docstring is its help text on the command line.
"""

import dataclasses
import difflib
import importlib
import importlib.util
import json
import math
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_type_hints


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the field, its value and the mend."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The images and how they are split."""

    dataset: str = "digits"
    """digits, mnist, cifar10, celeb_a, dsprites, shapes3d, sprites_like, shapes3d_like, folder or
    array."""
    data_path: str | None = None
    """The folder of images (dataset folder) or the .npy/.npz file (dataset array)."""
    data_dir: str | None = None
    """Where prepared tfds data lies; TFDS_DATA_DIR, then tfds's own default, when not given."""
    validation_size: int | None = None
    """Number of validation images; the data set's own rule when not given."""
    test_size: int | None = None
    """Number of test images, for data sets without an official test split."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The networks."""

    architecture: str = "mlp"
    """digits, mnist, cifar10, celeb_a, factors or mlp."""
    latent_dim: int = 8
    """Dimensions of the latent space."""
    width: float = 1.0
    """Multiplies the number of channels of every hidden layer."""
    norm: Literal["batch", "group", "none"] | None = None
    """Normalisation layers; the architecture's own when not given."""
    activation: Literal["sigmoid", "tanh", "linear"] | None = None
    """What the decoder ends in; the architecture's own when not given, logits for Bernoulli."""
    encoder: str | None = None
    """A user's encoder, as package.module:Class or file.py:Class."""
    decoder: str | None = None
    """A user's decoder, as package.module:Class or file.py:Class."""


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """The loss."""

    method: Literal["avae", "vae", "beta_vae", "ae"] = "avae"
    """The aggregate VAE, a VAE, a beta-VAE or a plain autoencoder."""
    likelihood: Literal["gaussian", "bernoulli"] = "gaussian"
    """Squared error, or cross-entropy on logits."""
    beta: float | None = None
    """avae: divides the reconstruction; when not given it is measured on the validation split
    before the first step and after each epoch. beta_vae: multiplies the KL."""
    weight: Literal["nats", "log10"] | float = "nats"
    """avae: multiplies the KL; nats is 1, log10 is 1/ln 10 (the authors' code)."""
    tail: Literal["none", "official"] = "official"
    """avae: what the density is where it runs out of centers; official is the authors' floor."""
    max_cdf: float | None = None
    """avae, tail official: the probability that places the floor; the authors' choice for the
    number of dimensions when not given."""
    noise_scale: float = 1.0
    """vae, beta_vae: standard deviation of the Gaussian likelihood."""


@dataclasses.dataclass(frozen=True)
class CentersConfig:
    """The codes the aggregate posterior is made of (avae)."""

    num_centers: int = 1000
    """Number of codes in the density estimate."""
    bandwidth: float | None = None
    """Standard deviation of the kernels, between 0 and 1; found automatically when not given."""
    refresh: Literal["queue", "reencode"] = "queue"
    """queue: the codes of the last batches, at no cost. reencode: encode a subset of the training
    images anew every refresh_every steps, redrawn each epoch."""
    refresh_every: int = 10
    """reencode: steps between two refreshes."""
    centers_mode: Literal["train", "eval"] = "train"
    """Batch normalisation used for the centers: batch statistics, as for the codes of the batch,
    or running averages, as in the authors' code."""


@dataclasses.dataclass(frozen=True)
class OptimizationConfig:
    """The optimiser and its schedule."""

    batch_size: int = 100
    """Images in a step, over all devices."""
    num_epochs: int = 50
    """Passes over the training split."""
    learning_rate: float = 5e-4
    """Adam's step size."""
    schedule: Literal["plateau", "cosine", "constant"] = "plateau"
    """plateau: multiply the step size when the validation score stops improving."""
    plateau_patience: int = 5
    """plateau: epochs without improvement before the step size falls."""
    plateau_factor: float = 0.5
    """plateau: what the step size is multiplied by."""
    clip_norm: float | None = None
    """Largest norm of the gradient; longer ones are scaled down."""
    ema_decay: float | None = None
    """Decay of a running average of the weights, which is then what is evaluated and sampled."""
    seed: int = 0
    """Seed of the splits, the initial weights, the batches and the noise."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides the result of a run."""

    experiment: str = "unnamed"
    """Name shown in the run folder and the summary."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    centers: CentersConfig = dataclasses.field(default_factory=CentersConfig)
    optimization: OptimizationConfig = dataclasses.field(default_factory=OptimizationConfig)


SECTIONS = ("data", "model", "objective", "centers", "optimization")


def max_cdf(config: Config) -> float:
    """Return the probability that places the density's floor.

    The authors set it by hand per data set; where the configuration gives none, theirs for the
    nearest number of dimensions is taken: 1 - 1e-6 up to 8, 1 - 1e-4 up to 32, 1 - 1e-2 up to 80,
    1 - 1e-1 beyond.
    """
    given = config.objective.max_cdf
    if given is not None:
        return given
    latent_dim = config.model.latent_dim
    return next(
        (1 - gap for most, gap in ((8, 1e-6), (32, 1e-4), (80, 1e-2)) if latent_dim <= most), 0.9
    )


def section_of_field() -> dict[str, str]:
    """Return the section of every field a user can set; field names are unique across sections."""
    hints = get_type_hints(Config)
    return {
        field.name: section for section in SECTIONS for field in dataclasses.fields(hints[section])
    }


def replace_fields(config: Config, **values: Any) -> Config:
    """Return a copy of a configuration with the named fields replaced.

    Args:
      config: the configuration to start from.
      **values: new values by field name, whatever section the field is in.

    Raises:
      ConfigError: a name that is no field; the nearest one is suggested.

    Example:
      >>> replace_fields(Config(), latent_dim=16, num_epochs=3).model.latent_dim
      16
    """
    sections = section_of_field()
    changed: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        if name not in sections:
            raise ConfigError(f"unknown field {name!r}{nearest(name, sections)}")
        changed.setdefault(sections[name], {})[name] = value
    parts = {
        section: dataclasses.replace(getattr(config, section), **fields)
        for section, fields in changed.items()
    }
    return dataclasses.replace(config, **parts)


def nearest(name: str, known) -> str:
    """Return "; did you mean 'x'?" for the known name closest to a misspelt one, else a list."""
    close = difflib.get_close_matches(name, list(known), n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(sorted(known))}"


def check_config(config: Config) -> None:
    """Refuse a configuration that no data could make runnable.

    Raises:
      ConfigError: names the field, its value and the mend.
    """
    _check_types(config)
    objective, centers, optimization = config.objective, config.centers, config.optimization

    def require(condition: bool, name: str, value: Any, mend: str) -> None:
        if not condition:
            raise ConfigError(f"{name}={value}: {mend}")

    def positive(name: str, value: float | None) -> None:
        finite = value is None or (math.isfinite(value) and value > 0)
        require(finite, name, value, "give a number > 0")

    require(config.model.latent_dim >= 1, "latent_dim", config.model.latent_dim, "give at least 1")
    positive("width", config.model.width)
    positive("beta", objective.beta)
    positive("noise_scale", objective.noise_scale)
    if not isinstance(objective.weight, str):
        positive("weight", objective.weight)
    require(
        objective.max_cdf is None or 0 < objective.max_cdf < 1,
        "max_cdf", objective.max_cdf, "give a probability between 0 and 1, such as 0.9999",
    )  # fmt: skip
    if objective.method == "beta_vae":
        require(objective.beta is not None, "beta", None, "method beta_vae needs a number > 0")
    elif objective.method != "avae":
        require(
            objective.beta is None, "beta", objective.beta,
            f"it has no effect with method {objective.method}; leave it out",
        )  # fmt: skip
    require(
        objective.likelihood == "gaussian" or config.model.activation is None,
        "activation", config.model.activation, "likelihood bernoulli works on logits; leave it out",
    )  # fmt: skip
    if objective.method == "avae":
        require(
            centers.bandwidth is None or 0 < centers.bandwidth < 1,
            "bandwidth", centers.bandwidth, "give a number between 0 and 1, or leave it out",
        )  # fmt: skip
        require(centers.num_centers >= 2, "num_centers", centers.num_centers, "give at least 2")
        require(
            centers.refresh_every >= 1, "refresh_every", centers.refresh_every, "give at least 1"
        )
    require(optimization.batch_size >= 2, "batch_size", optimization.batch_size, "give at least 2")
    require(optimization.num_epochs >= 1, "num_epochs", optimization.num_epochs, "give at least 1")
    positive("learning_rate", optimization.learning_rate)
    positive("clip_norm", optimization.clip_norm)
    require(
        0 < optimization.plateau_factor < 1,
        "plateau_factor", optimization.plateau_factor, "give a number between 0 and 1",
    )  # fmt: skip
    require(
        optimization.plateau_patience >= 1,
        "plateau_patience", optimization.plateau_patience, "give at least 1",
    )  # fmt: skip
    require(
        optimization.ema_decay is None or 0 < optimization.ema_decay < 1,
        "ema_decay", optimization.ema_decay, "give a number between 0 and 1, such as 0.999",
    )  # fmt: skip


def _check_types(config: Config) -> None:
    """Refuse values that a config.json or an experiment file gives the wrong type or spelling."""
    for section in SECTIONS:
        part = getattr(config, section)
        for name, hint in get_type_hints(type(part)).items():
            value = getattr(part, name)
            options = [hint] if not _is_union(hint) else list(get_args(hint))
            choices = [c for option in options for c in get_args(option)]
            types = tuple(option for option in options if isinstance(option, type))
            if value in choices or (value is None and type(None) in types):
                continue
            if float in types:
                types += (int,)
            if isinstance(value, types) and not isinstance(value, bool):
                continue
            expected = choices or " or ".join(t.__name__ for t in types if t is not type(None))
            raise ConfigError(f"{name}={value!r}: expected {expected}")


def _is_union(hint: Any) -> bool:
    return type(None) in get_args(hint) or float in get_args(hint)


def to_dict(config: Config) -> dict[str, Any]:
    """Return a configuration as nested dictionaries of JSON values."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any]) -> Config:
    """Build a configuration from what `to_dict` gave.

    Raises:
      ConfigError: an unknown or misspelt entry, or a value of the wrong type.
    """
    hints = get_type_hints(Config)
    parts: dict[str, Any] = {"experiment": values.get("experiment", "unnamed")}
    for section, entries in values.items():
        if section == "experiment":
            continue
        if section not in SECTIONS:
            raise ConfigError(f"unknown section {section!r}{nearest(section, SECTIONS)}")
        known = {field.name for field in dataclasses.fields(hints[section])}
        for name in entries:
            if name not in known:
                raise ConfigError(f"unknown field {name!r}{nearest(name, known)}")
        parts[section] = hints[section](**entries)
    config = Config(**parts)
    _check_types(config)
    return config


def load_config(path: Path) -> Config:
    """Read a configuration from JSON.

    Raises:
      ConfigError: the file is missing, is not JSON, or holds unknown entries.
    """
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path.parent} is not a run folder: it holds no {path.name}") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is not JSON ({error}): restore the file") from None
    return from_dict(values)


def differences(old: Config, new: Config) -> list[str]:
    """List the fields whose change makes a run another run, as "name: old -> new".

    The number of epochs may grow (unless the step size depends on it) and the data may have moved.
    """
    free = {"data_dir", "data_path"}
    if new.optimization.schedule != "cosine":
        free.add("num_epochs")
    found = []
    for name, section in section_of_field().items():
        before = getattr(getattr(old, section), name)
        after = getattr(getattr(new, section), name)
        if name not in free and before != after:
            found.append(f"{name}: {before} -> {after}")
    return found


def experiment_names() -> list[str]:
    """List the experiments that come with the package."""
    package = importlib.import_module("avae_jax.experiments")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def load_experiment(name_or_path: str) -> Config:
    """Return the configuration of an experiment.

    Args:
      name_or_path: a name in experiments/, or a path to a Python file that defines `config`.

    Raises:
      ConfigError: unknown name (with the nearest one), missing file, or a file without `config`.
    """
    names = experiment_names()
    if name_or_path in names:
        module = importlib.import_module(f"avae_jax.experiments.{name_or_path}")
    elif name_or_path.endswith(".py"):
        module = _import_file(Path(name_or_path))
    else:
        raise ConfigError(f"unknown experiment {name_or_path!r}{nearest(name_or_path, names)}")
    config = getattr(module, "config", None)
    if not isinstance(config, Config):
        raise ConfigError(f"{name_or_path} defines no `config` of type avae_jax Config")
    return dataclasses.replace(config, experiment=Path(name_or_path).stem)


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigError(f"experiment file {path} does not exist")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    # A user's file can raise anything; what it raised and where is all there is to say.
    except Exception as error:  # noqa: BLE001
        line = getattr(error, "lineno", None)
        where = f"{path}:{line}" if line else f"{path}"
        raise ConfigError(f"{where}: {type(error).__name__}: {error}") from error
    return module
