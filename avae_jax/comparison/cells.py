"""The cells of a plan: each a whole configuration, refused before any is trained."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from avae_jax.comparison.plan import SHARED, Fields, Plan, stable_hash
from avae_jax.data import ImageData
from avae_jax.mesh import make_mesh
from avae_jax.methods.method import Options
from avae_jax.training.api import fit_config
from avae_jax.training.config import (
    Config,
    ConfigError,
    ModelConfig,
    check_config,
    choose_method,
    own_images,
    read_experiment,
    replace_fields,
    section_of_field,
    to_dict,
    with_absolute_paths,
)
from avae_jax.training.setup import load_data, make_setup

# What changes nothing that is trained; data may have moved.
_FREE = {"data": ("data_dir",), "optimization": ("checkpoint_every",)}


class RefusedError(ConfigError):
    """Cells that cannot be run, a line each."""

    def __init__(self, lines: Sequence[str]):
        super().__init__("; ".join(lines))
        self.lines = list(lines)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a plan.

    Attributes:
      experiment: its name.
      label: of the method, as the plan has it.
      seed: of the run.
      config: the whole configuration.
      values: of the fields that are tuned.
      is_trial: whether it is run to choose them: it is evaluated on validation images. The trial
        that is chosen and the first seed's cell are one run.
      hash: of all that decides the result, the user's own files among it, as they are when the cell
        is made.
      seedless_hash: the same for all seeds of a method.
    """

    experiment: str
    label: str
    seed: int
    config: Config
    values: Fields = dataclasses.field(default_factory=dict)
    is_trial: bool = False
    hash: str = dataclasses.field(init=False)
    seedless_hash: str = dataclasses.field(init=False)

    def __post_init__(self):
        seedless = replace_fields(self.config, seed=0)
        object.__setattr__(self, "hash", stable_hash(_deciding(self.config)))
        object.__setattr__(self, "seedless_hash", stable_hash(_deciding(seedless)))

    @property
    def name(self) -> str:
        """For a person: experiment, method and seed, and the values of a trial."""
        name = f"{self.experiment}/{self.label}/seed{self.seed}"
        return f"{name}/{shown_values(self.values)}" if self.is_trial else name

    @property
    def folder(self) -> Path:
        """The run folder, within that of the comparison."""
        return Path("runs", self.experiment, self.label, f"seed{self.seed}-{self.hash[:8]}")

    @property
    def evaluation_folder(self) -> Path:
        """Where its evaluation lies, within the folder of the comparison."""
        return self.folder / ("validation" if self.is_trial else "evaluation")

    def fits(self, patterns: Sequence[str]) -> bool:
        """Return whether one of several patterns, of a name or of a part of one, is meant."""
        parts = (self.name, *self.name.split("/"))
        return any(fnmatchcase(part, pattern) for part in parts for pattern in patterns)


def shown_values(values: Fields) -> str:
    """Return values of fields as a person reads them.

    Example:
      >>> shown_values({"beta": 4.0, "weight": "nats"})
      'beta=4, weight=nats'
    """
    return ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in values.items()
    )


Choices = Mapping[tuple[str, str], Fields]
"""Values of the tuned fields by experiment and label, for those that have been chosen."""


def _deciding(config: Config) -> dict[str, Any]:
    values = to_dict(config)
    for section, names in _FREE.items():
        for name in names:
            del values[section][name]
    files = [path for path in (config.source, _file_of(config.model.encoder),
                               _file_of(config.model.decoder)) if path]  # fmt: skip
    if files:
        values["files"] = [_hash_of(Path(path)) for path in files]
    return values


def _file_of(module: str | None) -> str:
    """Return the file of a user's module, file.py:Class; empty where it is in a package."""
    file = (module or "").rpartition(":")[0]
    return file if file.endswith(".py") else ""


def _hash_of(path: Path) -> str:
    """Return a hash of a file; one that is not there is refused where it is used."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


class Data:
    """The data sets of cells, one kept at a time: cells of one seed share their splits."""

    def __init__(self):
        self._key, self._dataset = "", None

    def of(self, config: Config) -> ImageData:
        """Return the images that a configuration names, split by its seed."""
        key = stable_hash([to_dict(config)["data"], config.optimization.seed])
        if self._dataset is None or key != self._key:
            self._key, self._dataset = key, load_data(config)
        return self._dataset


LeftOut = Mapping[str, Mapping[str, str]]
"""Why a method is no part of an experiment, by experiment and label."""


def make_cells(
    plan: Plan,
    say: Callable[[str, str], None] = lambda experiment, line: None,
    *,
    choices: Choices | None = None,
    left_out: LeftOut | None = None,
) -> list[Cell]:
    """Return a plan's cells: experiment by experiment, in it seed by seed.

    A table that is stopped is then whole for its first seeds.

    Args:
      plan: what is compared.
      say: receives an experiment and a line about what was made equal there, or is not equal.
      choices: values of tuned fields, where trials have been judged; cells whose values are not
        among them are left out. None stands for the first trial of each.
      left_out: methods without cells, as `find_refused` returns them.

    Raises:
      RefusedError: a line per cell that no data could make runnable.
    """
    found, notes = _configured(plan, trials=False, left_out=left_out or {})
    cells = []
    for configs in found:
        for seed in plan.seeds:
            for label, values, config in configs:
                if choices is not None and label in plan.tune:
                    if (config.experiment, label) not in choices:
                        continue
                    values = choices[config.experiment, label]
                    config = replace_fields(config, **values)
                own = replace_fields(config, seed=seed)
                cells.append(Cell(config.experiment, label, seed, own, values))
    for experiment, line in notes:
        say(experiment, line)
    return cells


def make_trials(plan: Plan) -> list[Cell]:
    """Return the runs by which a plan's values are chosen, of its first seed.

    One seed: N trials cost N trainings per method, however many seeds are compared, and that of
    the chosen values is the first seed's cell, which is not trained again. The choice is made
    before other seeds are drawn and holds for all of them.

    Raises:
      RefusedError: a line per trial that no data could make runnable.
    """
    found, _ = _configured(plan, trials=True, left_out={})
    seed = plan.seeds[0]
    return [
        Cell(config.experiment, label, seed, replace_fields(config, seed=seed), values, True)
        for configs in found
        for label, values, config in configs
    ]


def find_refused(plan: Plan, data: "Data") -> dict[str, dict[str, str]]:
    """Return the methods that an experiment cannot train, where a plan names none.

    Some need what an experiment does not have: a number without default, a likelihood, a bandwidth
    below 1. Without its reference, or what is tuned, there is no such plan.

    Args:
      plan: what is compared.
      data: where images come from.

    Returns:
      By experiment and label, why.

    Raises:
      RefusedError: it is the reference, as where there are no such images.
    """
    refused: dict[str, dict[str, str]] = {}
    if not plan.is_every:
        return refused
    for name in plan.experiments:
        for label in dict.fromkeys((plan.reference, *plan.methods)):
            if label in plan.tune:
                continue
            try:
                config = _configure(plan, name, label, {}, {})
                config = replace_fields(config, seed=plan.seeds[0])
                make_setup(config, dataset=data.of(config))
            except (ValueError, TypeError, OSError, ImportError) as error:
                experiment, why = Path(name).stem, " ".join(str(error).split())
                if label == plan.reference:
                    raise RefusedError([f"{experiment}/{label}: {why}"]) from error
                refused.setdefault(experiment, {})[label] = why
    return refused


Note = tuple[str, str]
"""An experiment, and what must be said of it."""


def _configured(
    plan: Plan, *, trials: bool, left_out: LeftOut
) -> tuple[list[list[tuple[str, Fields, Config]]], list[Note]]:
    """Return, for each experiment, labels, tuned values and configurations without their seed.

    Args:
      plan: what is compared.
      trials: whether all trials of what is tuned are meant, or one configuration of each method.
      left_out: methods without cells.

    Returns:
      They, and a line about each field that was made equal or is not equal.
    """
    refused: list[str] = []
    notes: dict[Note, None] = {}
    found = []
    for name in plan.experiments:
        configs, experiment = [], Path(name).stem
        without = left_out.get(experiment, {})
        for label, why in without.items():
            notes[experiment, f"{label} is left out: {why}"] = None
        for label in plan.tune if trials else plan.methods:
            if label in without:
                continue
            tried = plan.trials_of(label)
            for values in tried if trials else tried[:1]:
                try:
                    configs.append((label, values, _configure(plan, name, label, values, notes)))
                except ValueError as error:
                    place = "/".join([experiment, label, *([shown_values(values)] * trials)])
                    refused.append(f"{place}: {error}")
        found.append(configs)
        lines = [*_given_to_several(plan, name, configs), *_unequal(plan, configs)]
        notes |= {(experiment, line): None for line in lines}
    if refused:
        raise RefusedError(refused)
    return found, [*notes]


def _given_to_several(plan: Plan, experiment: str, configs) -> Iterator[str]:
    """Yield a line per field that several methods have, each as it understands it."""
    of_all = {field.name for field in dataclasses.fields(Options)} | {_NOISE}
    for name, value in {**plan.fields, **plan.experiments[experiment]}.items():
        labels = [
            label
            for label, _, config in configs
            if section_of_field(config).get(name) == "method" and name not in plan.methods[label]
        ]
        if name not in of_all and len(labels) > 1:
            yield (
                f"{shown_values({name: value})} is set for {', '.join(labels)}, which may mean "
                f"different things by it; for one alone, a plan's file has [methods.LABEL] {name}"
            )


def _unequal(plan: Plan, configs) -> Iterator[str]:
    """Yield a line per field of the networks, and of the noise, in which methods differ."""
    for name in (*(field.name for field in dataclasses.fields(ModelConfig)), _NOISE):
        groups: dict[str, list[str]] = {}
        for label, _, config in configs:
            value = _noise_of(config) if name == _NOISE else str(getattr(config.model, name))
            if value and name not in plan.tune.get(label, {}):
                groups.setdefault(value, []).append(label)
        if len(groups) > 1:
            *few, (most, labels) = sorted(groups.items(), key=lambda group: len(group[1]))
            others = ", ".join(labels) if len(labels) < 4 else "the others"
            shown = [f"{value} for {', '.join(own)}" for value, own in few]
            yield f"{name} differs: {'; '.join([*shown, f'{most} for {others}'])}"


_NOISE = "noise_scale"
"""The one field of several methods that means the same for all."""


def _noise_of(config: Config) -> str:
    """Return where a method's noise scale comes from, empty where it has none."""
    options: Any = config.method
    if not getattr(options, "has_noise", False):
        return ""
    if options.measures_noise:
        return "measured"
    return f"{options.noise_scale:g}" if options.likelihood == "gaussian" else "learned"


def _configure(
    plan: Plan, experiment: str, label: str, values: Fields, notes: dict[Note, None]
) -> Config:
    """Return the configuration of a method on an experiment, without its seed."""
    base, presets = read_experiment(experiment)
    shared = {**plan.fields, **plan.experiments[experiment]}
    own = {name: value for name, value in plan.methods[label].items() if name != "method"}
    own |= values
    config = choose_method(base, presets, plan.method_of(label))
    known = section_of_field(config)
    config = replace_fields(config, **{name: it for name, it in shared.items() if name in known})
    config = replace_fields(config, **own)
    if own_images(experiment) is not None:
        # As `avae train` chooses what fits a user's own images.
        check_config(config)
        config, _ = fit_config(
            config, load_data(config), given={*shared, *own}, num_devices=make_mesh().size
        )
    else:
        # The same images and steps for all, whatever a method's preset says.
        for name in SHARED:
            section = known[name]
            wanted = shared.get(name, getattr(getattr(base, section), name))
            if getattr(getattr(config, section), name) != wanted:
                line = f"{name}={wanted} for {label} too, not its preset's"
                notes[base.experiment, line] = None
                config = replace_fields(config, **{name: wanted})
    if config.optimization.patience is not None:
        line = "patience is left out, so that all methods take equal steps"
        notes[base.experiment, line] = None
        config = replace_fields(config, patience=None)
    check_config(config)
    return with_absolute_paths(config)


def check_cells(cells: Sequence[Cell], data: Data) -> None:
    """Build what each method trains on its data, and refuse what cannot be.

    Args:
      cells: those that will be trained.
      data: where their images come from.

    Raises:
      RefusedError: a line per method and experiment, or trial, that is refused.
    """
    refused: list[str] = []
    for cell in first_seeds(cells):
        try:
            make_setup(cell.config, dataset=data.of(cell.config))
        except (ValueError, TypeError, OSError, ImportError) as error:
            name = cell.name if cell.is_trial else f"{cell.experiment}/{cell.label}"
            refused.append(f"{name}: {' '.join(str(error).split())}")
    if refused:
        raise RefusedError(refused)


def first_seeds(cells: Sequence[Cell]) -> Iterator[Cell]:
    """Yield the first cell of each experiment, method and values of its fields."""
    seen = set()
    for cell in cells:
        if cell.seedless_hash not in seen:
            seen.add(cell.seedless_hash)
            yield cell
