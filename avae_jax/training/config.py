"""The configuration of a run: frozen dataclasses, their checks, and the experiments by name.

A field's docstring is its help text on the command line.
"""

import dataclasses
import importlib
import json
import os
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_type_hints

from avae_jax import methods
from avae_jax.files import import_file, user_path
from avae_jax.likelihoods import make_likelihood
from avae_jax.methods.method import Options, OptionsError, require, require_positive
from avae_jax.text import KINDS, nearest, refusal

ConfigError = OptionsError
"""A configuration that cannot be run; the message names the field, its value and how to fix it."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The images and how they are split."""

    dataset: str = "digits"
    """Name of the data set."""
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
    """Name of the networks' design."""
    latent_dim: int = 8
    """Dimensions of the latent space."""
    width: float = 1.0
    """Multiplies the number of channels of every hidden layer."""
    norm: Literal["batch", "group", "none"] | None = None
    """Normalization layers; the architecture's own when not given."""
    activation: Literal["sigmoid", "tanh", "linear"] | None = None
    """What the decoder ends in; the architecture's own when not given, logits for Bernoulli."""
    encoder: str | None = None
    """A user's encoder, as package.module:Class or file.py:Class."""
    decoder: str | None = None
    """A user's decoder, as package.module:Class or file.py:Class."""


@dataclasses.dataclass(frozen=True)
class OptimizationConfig:
    """The optimizer and its schedule."""

    batch_size: int = 100
    """Images in a step, over all devices."""
    num_epochs: int = 50
    """Passes over the training split."""
    patience: int | None = None
    """Epochs without a lower validation criterion before training stops; never when not given."""
    validate_every: int = 1
    """Epochs from one validation to the next, each of which is saved; the last one is validated."""
    checkpoint_every: float | None = None
    """Minutes from one checkpoint to the next between two validations; none when not given."""
    learning_rate: float = 5e-4
    """Adam's step size."""
    schedule: Literal["plateau", "cosine", "constant"] = "plateau"
    """plateau: multiply the step size when the validation criterion stops improving."""
    plateau_patience: int = 5
    """plateau: validations without improvement before the step size falls."""
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
    source: str | None = None
    """The user's file that it was read from: what that file registers, a run of it needs again."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    method: Options = dataclasses.field(default_factory=methods.DEFAULT)
    optimization: OptimizationConfig = dataclasses.field(default_factory=OptimizationConfig)


SECTIONS = ("data", "model", "method", "optimization")


def sections_of(config: Config) -> dict[str, Any]:
    """Return the parts of a configuration by name."""
    return {section: getattr(config, section) for section in SECTIONS}


def section_of_field(config: Config) -> dict[str, str]:
    """Return the section of every field a user can set; field names are unique across sections."""
    return {
        field.name: section
        for section, part in sections_of(config).items()
        for field in dataclasses.fields(part)
    }


def configure(**values: Any) -> Config:
    """Return the default configuration with the named fields replaced, as `replace_fields` does.

    Example:
      >>> configure(dataset="mnist", method="vae", latent_dim=16).method.name
      'vae'
    """
    return replace_fields(Config(), **values)


def replace_fields(config: Config, **values: Any) -> Config:
    """Return a copy of a configuration with the named fields replaced.

    Args:
      config: the configuration to start from.
      **values: new values by field name, whatever section the field is in; `method` is the name of
        a method, and the others its fields.

    Raises:
      ConfigError: a name that is no field; the nearest one is suggested.

    Example:
      >>> replace_fields(Config(), latent_dim=16, num_epochs=3).model.latent_dim
      16
    """
    if "method" in values:
        config = dataclasses.replace(config, method=_with_method(config.method, values["method"]))
        values = {name: value for name, value in values.items() if name != "method"}
    sections = section_of_field(config)
    changed: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        if name not in sections:
            raise ConfigError(_unknown_field(config, name))
        changed.setdefault(sections[name], {})[name] = value
    parts = {
        section: dataclasses.replace(getattr(config, section), **fields)
        for section, fields in changed.items()
    }
    return dataclasses.replace(config, **parts)


def _with_method(options: Options, name: str) -> Options:
    """Return the options of another method; what all methods have keeps its value."""
    kind = find_method(name)
    if type(options) is kind:
        return options
    shared = {field.name: getattr(options, field.name) for field in dataclasses.fields(Options)}
    return kind(**shared)


def find_method(name: str) -> type[Options]:
    """Return the options of a method by its name.

    Raises:
      ConfigError: no method has that name; the nearest one is suggested.
    """
    if name not in methods.METHODS:
        raise ConfigError(f"unknown method {name!r}{nearest(name, methods.METHODS)}")
    return methods.METHODS[name]


def _unknown_field(config: Config, name: str) -> str:
    """Say that a field is not one, or of which methods it is."""
    known = section_of_field(config)
    others = methods_with(name)
    if others:
        return (
            f"{name} has no effect with method {config.method.name}: leave it out, or use method "
            f"{others}"
        )
    return f"unknown field {name!r}{nearest(name, known)}"


def methods_with(field: str) -> str:
    """Return which methods have a field, in words: all of a few, some of many, empty for none.

    Example:
      >>> methods_with("max_cdf"), methods_with("noise_scales")
      ('avae or gens', '')
    """
    names = [
        name
        for name, kind in methods.METHODS.items()
        if field in {one.name for one in dataclasses.fields(kind)}
    ]
    more = f" or {len(names) - 2} others" if len(names) > 4 else ""
    return " or ".join(names[:2] if more else names) + more


def check_config(config: Config) -> None:
    """Refuse a configuration that no data could make runnable.

    Raises:
      ConfigError: names the field, its value and how to fix it.
    """
    _check_types(config)
    optimization = config.optimization
    require(config.model.latent_dim >= 1, "latent_dim", config.model.latent_dim, "give at least 1")
    require_positive("width", config.model.width)
    likelihood = config.method.likelihood
    require(
        config.model.activation is None or not make_likelihood(likelihood).takes_logits,
        "activation", config.model.activation, f"likelihood {likelihood} works on logits; leave it "
        "out",
    )  # fmt: skip
    config.method.check()
    require(optimization.batch_size >= 2, "batch_size", optimization.batch_size, "give at least 2")
    require(optimization.num_epochs >= 1, "num_epochs", optimization.num_epochs, "give at least 1")
    for name in ("patience", "validate_every"):
        value = getattr(optimization, name)
        require(value is None or value >= 1, name, value, "give at least 1")
    require(
        optimization.patience is None or optimization.patience >= optimization.validate_every,
        "patience", optimization.patience, "it is less than validate_every; give at least as many",
    )  # fmt: skip
    require_positive("checkpoint_every", optimization.checkpoint_every)
    require_positive("learning_rate", optimization.learning_rate)
    require_positive("clip_norm", optimization.clip_norm)
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
    for part in sections_of(config).values():
        hints = get_type_hints(type(part))
        for name in (field.name for field in dataclasses.fields(part)):
            hint, value = hints[name], getattr(part, name)
            options = [hint] if not _is_union(hint) else list(get_args(hint))
            choices = [c for option in options for c in get_args(option)]
            types = tuple(option for option in options if isinstance(option, type))
            if value in choices or (value is None and type(None) in types):
                continue
            if float in types:
                types += (int,)
            if isinstance(value, types) and (bool in types or not isinstance(value, bool)):
                continue
            kinds = dict.fromkeys(KINDS[kind] for kind in options if kind in KINDS)
            raise ConfigError(refusal(name, value, choices=map(str, choices), kinds=kinds))


def _is_union(hint: Any) -> bool:
    return type(None) in get_args(hint) or float in get_args(hint)


def to_dict(config: Config) -> dict[str, Any]:
    """Return a configuration as nested dictionaries of JSON values."""
    values = dataclasses.asdict(config)
    values["method"] = {"name": config.method.name, **values["method"]}
    return values


def from_dict(values: dict[str, Any]) -> Config:
    """Build a configuration from what `to_dict` gave.

    Raises:
      ConfigError: an unknown or misspelt entry, a value of the wrong type, or what only a
        `source` that cannot be imported has registered.
    """
    if values.get("source") is None:
        return _build(values)
    try:
        _import_source(values["source"], again=False)
    except ConfigError as lost:
        # Most experiments register nothing.
        try:
            return _build(values)
        except ConfigError as error:
            raise ConfigError(f"{error}; {lost}") from None
    return _build(values)


def _build(values: dict[str, Any]) -> Config:
    """Build a configuration from what is registered."""
    if "objective" in values:
        raise ConfigError(
            "the configuration is of a format before 2, of which the checkpoints cannot be read "
            "either: train again, or read the run with the version that facts.json names"
        )
    kinds: dict[str, Any] = {**get_type_hints(Config)}
    parts: dict[str, Any] = {"experiment": values.get("experiment", "unnamed")}
    parts["source"] = values.get("source")
    for section, given in values.items():
        if section in ("experiment", "source"):
            continue
        if section not in SECTIONS:
            raise ConfigError(f"unknown section {section!r}{nearest(section, SECTIONS)}")
        entries = dict(given)
        if section == "method":
            kinds[section] = find_method(entries.pop("name", methods.DEFAULT.name))
        known = {field.name for field in dataclasses.fields(kinds[section])}
        for name in entries:
            if name not in known:
                raise ConfigError(f"unknown field {name!r}{nearest(name, known)}")
        parts[section] = kinds[section](**entries)
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


def with_absolute_paths(config: Config) -> Config:
    """Return a configuration that names the same files wherever it is read from."""

    def absolute(path: str | None) -> str | None:
        # Addresses are refused where they are used.
        return path if path is None or "://" in path else os.path.abspath(user_path(path))

    def of_module(path: str | None) -> str | None:
        file, _, name = (path or "").rpartition(":")
        return f"{absolute(file)}:{name}" if file.endswith(".py") else path

    data, model = config.data, config.model
    return replace_fields(
        config,
        data_path=absolute(data.data_path),
        data_dir=absolute(data.data_dir),
        encoder=of_module(model.encoder),
        decoder=of_module(model.decoder),
    )


def differences(old: Config, new: Config) -> list[str]:
    """List the fields whose change makes a run another run, as "name: old -> new".

    The number of epochs may grow (unless the step size depends on it), the data may have moved, and
    when to save and when to give up is free.
    """
    # Older runs have the paths of the user's modules as they were given.
    old, new = with_absolute_paths(old), with_absolute_paths(new)
    free = {"data_dir", "data_path", "patience", "checkpoint_every"}
    if new.optimization.schedule != "cosine":
        free.add("num_epochs")
    if old.method.name != new.method.name:
        return [f"method: {old.method.name} -> {new.method.name}"]
    found = []
    for name, section in section_of_field(old).items():
        before = getattr(getattr(old, section), name)
        after = getattr(getattr(new, section), name)
        if name not in free and before != after:
            found.append(f"{name}: {before} -> {after}")
    return found


def experiment_names() -> list[str]:
    """List the experiments that come with the package."""
    package = importlib.import_module("avae_jax.experiments")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def own_images(path: str) -> Path | None:
    """Return the folder or the .npy/.npz file that a user's images lie in; None for an experiment.

    A name in experiments/ is one, whatever lies in the current folder.
    """
    place = user_path(path).resolve()
    if path in experiment_names() or not (place.suffix in (".npy", ".npz") or place.is_dir()):
        return None
    return place


def load_experiment(name_or_path: str, method: str | None = None) -> Config:
    """Return the configuration of an experiment.

    Args:
      name_or_path: a name in experiments/; a path to a Python file that defines `config`; or a
        folder of images or a .npy/.npz file, whose configuration has yet to be fitted to them.
      method: what to train by instead of the experiment's own method. The fields that the file's
        `presets` hold for it, if any, replace the defaults.

    Raises:
      ConfigError: unknown name (with the nearest one), missing file, a file without `config`, or a
        run folder; presets that hold a field that is none.

    Example:
      >>> load_experiment("mnist", "vae").method.name
      'vae'
    """
    return choose_method(*read_experiment(name_or_path), method)


Presets = Mapping[str, Mapping[str, Any]]
"""Fields by method: what an experiment gives those that are not its own."""


def choose_method(config: Config, presets: Presets, method: str | None) -> Config:
    """Return an experiment's configuration for a method, with what its presets hold for that one.

    Args:
      config: the experiment's.
      presets: the experiment's.
      method: name of a method; None is the experiment's own.
    """
    if method is None or method == config.method.name:
        return config
    return replace_fields(config, method=method, **presets.get(method, {}))


def read_experiment(name_or_path: str) -> tuple[Config, Presets]:
    """Return an experiment's configuration and its presets; `load_experiment` says of what."""
    images = own_images(name_or_path)
    if images is not None:
        if (images / "config.json").exists():
            raise ConfigError(
                f"{name_or_path} must hold images, got a run folder: repeat the command that began "
                "it to go on with it, or name a folder of images"
            )
        kind = "folder" if images.is_dir() else "array"
        name = images.name if images.is_dir() else images.stem
        config = configure(dataset=kind, data_path=str(images))
        return dataclasses.replace(config, experiment=name), {}
    names, source = experiment_names(), None
    if name_or_path in names:
        module = importlib.import_module(f"avae_jax.experiments.{name_or_path}")
    elif name_or_path.endswith(".py"):
        source = str(user_path(name_or_path).resolve())
        module = _import_source(source, again=True)
    else:
        raise ConfigError(f"unknown experiment {name_or_path!r}{nearest(name_or_path, names)}")
    config = getattr(module, "config", None)
    if not isinstance(config, Config):
        raise ConfigError(f"{name_or_path} defines no `config` of type avae_jax Config")
    config = dataclasses.replace(config, experiment=Path(name_or_path).stem, source=source)
    presets = getattr(module, "presets", {})
    for name in presets:
        find_method(name)
    return config, presets


def _import_source(source: str, *, again: bool) -> ModuleType:
    """Import a user's experiment, which may register what it uses.

    Raises:
      ConfigError: it cannot be imported.
    """
    try:
        return import_file(source, again=again)
    except ImportError as error:
        raise ConfigError(f"experiment: {error}") from error
