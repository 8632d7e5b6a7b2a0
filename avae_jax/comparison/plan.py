"""What is compared: experiments x methods x seeds x fields, and the file it is read from."""

import ast
import dataclasses
import hashlib
import itertools
import json
import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avae_jax.checks import check_count
from avae_jax.comparison.numbers import JUDGES
from avae_jax.files import user_path
from avae_jax.methods import DEFAULT, METHODS
from avae_jax.text import nearest, refusal
from avae_jax.training.config import (
    ConfigError,
    DataConfig,
    choose_method,
    find_method,
    read_experiment,
    section_of_field,
)

SUFFIX = ".toml"
"""Of a plan's file. TOML holds comments and tables, and reading it runs nobody's code; methods and
data sets of a user's own come with an experiment's .py file, which a plan can name."""

SEEDS = (0, 1, 2)
"""Where none are given."""

SHARED = (
    "num_epochs",
    "batch_size",
    "patience",
    *(it.name for it in dataclasses.fields(DataConfig)),
)
"""Fields that must be the same for all methods of an experiment."""

Fields = Mapping[str, Any]
Tuned = Mapping[str, Mapping[str, Sequence[Any]]]
"""Values to try, by label and field."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes:
      experiments: name or path, as `avae train` takes it -> fields of its cells.
      methods: label -> fields of its cells; "method" among them names the method where the label
        does not.
      seeds: of splits, batches and initial weights.
      fields: of every cell whose method has them.
      reference: the label that others are compared with.
      tune: label -> field -> values, of which the best by validation images is chosen.
      judge: what is best, one of `JUDGES`.
      is_every: whether none of the methods was named: those that an experiment cannot train are
        then left out of it.
    """

    experiments: Mapping[str, Fields]
    methods: Mapping[str, Fields]
    seeds: tuple[int, ...]
    fields: Fields
    reference: str
    tune: Tuned
    judge: str
    is_every: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values from which `make_plan` makes the same plan."""
        values = json.loads(json.dumps(dataclasses.asdict(self)))
        # What decides nothing is no part of a plan, nor of its hash.
        without = {*(() if self.tune else _OF_TUNING), *(() if self.is_every else ("is_every",))}
        return {name: value for name, value in values.items() if name not in without}

    @property
    def hash(self) -> str:
        """A hash of all of it."""
        return stable_hash(self.to_dict())

    def method_of(self, label: str) -> str:
        """Return the name of the method that a label stands for."""
        return self.methods[label].get("method", label)

    def trials_of(self, label: str) -> list[Fields]:
        """Return the fields of each trial: all combinations of the values of a label's fields.

        A label that nothing is tuned of has one trial, without fields.
        """
        own = self.tune.get(label, {})
        return [dict(zip(own, them, strict=True)) for them in itertools.product(*own.values())]

    @property
    def num_trials(self) -> int:
        """The budget: the trials of each method of which anything is tuned."""
        return max((len(self.trials_of(label)) for label in self.tune), default=1)


def stable_hash(values: Any) -> str:
    """Return SHA-256 of JSON values, whatever the order of their names, 64 hexadecimal digits.

    Example:
      >>> stable_hash({"a": 1, "b": 2}) == stable_hash({"b": 2, "a": 1})
      True
    """
    text = json.dumps(values, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def make_plan(
    experiments: Mapping[str, Fields] | Iterable[str],
    methods: Mapping[str, Fields] | Iterable[str] = (),
    seeds: Iterable[int] = (),
    fields: Fields | None = None,
    reference: str | None = None,
    tune: Tuned | None = None,
    judge: str = JUDGES[0],
    is_every: bool = False,
) -> Plan:
    """Return a plan, checked as far as it can be without data.

    Args:
      experiments: names or paths, or a mapping from them to fields of their cells.
      methods: names, or a mapping from labels to fields; none are all methods that an experiment
        can train.
      seeds: at least 0, each once; none are `SEEDS`.
      fields: of every cell whose method has them.
      reference: a label; None is the library's own method, or else the first.
      tune: label -> field -> values to try; as many combinations for every label here.
      judge: what they are chosen by, one of `JUDGES`.
      is_every: whether an experiment may leave out methods; so it is where none are given.

    Raises:
      ConfigError: a name or a field that is none, or that must not be set where it is.

    Example:
      >>> plan = make_plan(["digits"], ["ae", "vae"], fields={"num_epochs": 3})
      >>> plan.seeds, plan.reference
      ((0, 1, 2), 'ae')
    """
    own, entries = _named(experiments, "experiments"), _named(methods, "methods")
    is_every = is_every or not entries
    entries = entries or {name: {} for name in METHODS}
    _check_labels(entries)
    seeds = tuple(check_count("seeds", seed, minimum=0) for seed in seeds) or SEEDS
    if not own:
        raise ConfigError("experiments must name at least one, got none: give one, such as digits")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds must each be given once, got {_listed(seeds)}: leave one out")
    stems = [Path(name).stem for name in own]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise ConfigError(f"experiments must have names of their own, got two {twice}: rename one")
    if reference is None:
        reference = DEFAULT.name if DEFAULT.name in entries else next(iter(entries))
    if reference not in entries:
        raise ConfigError(
            f"reference must be one of the methods compared, got {reference!r}"
            f"{nearest(reference, entries)}"
        )
    fields = {name: plain_value(value) for name, value in (fields or {}).items()}
    plan = Plan(own, entries, seeds, fields, reference, _lists(tune or {}), judge, is_every)
    _check_fields(plan)
    _check_tuned(plan)
    return plan


def read_plan(path: Path) -> Plan:
    """Read a plan from a TOML file.

    Its entries are those of `make_plan`: `experiments` and `methods` as lists of names or as
    tables of fields, `seeds`, `fields`, `reference`, `tune`, `judge`. Values to try are lists:
    under `[tune.beta_vae]` a line `beta = [1.0, 4.0, 16.0]`.

    Raises:
      ConfigError: no such file, no TOML, or an entry that is none.
    """
    path = user_path(path)
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"plan must be a file that is there, got {path}: give another") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"plan must be a TOML file, got {path} ({error}): correct it") from None
    known = [field.name for field in dataclasses.fields(Plan) if field.name != "is_every"]
    for name in values:
        if name not in known:
            raise ConfigError(f"unknown entry {name!r} in {path}{nearest(name, known)}")
    kinds_of = {"seeds": list, "fields": dict, "tune": dict, "reference": str, "judge": str}
    for name, kinds in kinds_of.items():
        if not isinstance(values.get(name, kinds()), kinds):
            raise ConfigError(
                f"{name} must be a {_KINDS[kinds]}, got {values[name]!r} in {path}: write one"
            )
    return make_plan(values.pop("experiments", ()), **values)


_KINDS = {list: "list of whole numbers", dict: "table", str: "text"}
_OF_TUNING = ("tune", "judge")

_TUNED = re.compile(r"([^\W\d][\w-]*)\.([^\W\d]\w*)")
"""A label and a field, in words."""


def read_tuned(words: Iterable[str]) -> dict[str, dict[str, list[Any]]]:
    """Return values to try from the words of a command.

    Args:
      words: "METHOD.FIELD", the values to try, and so on.

    Raises:
      ConfigError: a value that belongs to no field.

    Example:
      >>> read_tuned("beta_vae.beta 1 4.0 avae.weight nats 2".split())
      {'beta_vae': {'beta': [1, 4.0]}, 'avae': {'weight': ['nats', 2]}}
    """
    tuned: dict[str, dict[str, list[Any]]] = {}
    values: list[Any] | None = None
    for word in words:
        named = _TUNED.fullmatch(word)
        if named is not None:
            label, field = named.groups()
            values = tuned.setdefault(label, {}).setdefault(field, [])
        elif values is None:
            raise ConfigError(
                f"--tune must begin with METHOD.FIELD, got {word!r}: write it, and the values to "
                "try after it, such as beta_vae.beta 1 4 16"
            )
        else:
            values.append(_value(word))
    return tuned


def _value(word: str) -> Any:
    """Return a number, true, false or none as Python writes them, else the word."""
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word


def _named(entries: Mapping[str, Fields] | Iterable[str], name: str) -> dict[str, Fields]:
    """Return fields by name, of names alone too."""
    if isinstance(entries, Mapping):
        entries = {os.fspath(key): fields for key, fields in entries.items()}
        wrong = next((it for it in entries.items() if not isinstance(it[1], Mapping)), None)
        if wrong is not None:
            raise ConfigError(f"{name} must hold fields by name, got {wrong[1]!r} for {wrong[0]}: "
                              "write a table")  # fmt: skip
        return {
            key: {field: plain_value(value) for field, value in fields.items()}
            for key, fields in entries.items()
        }
    if isinstance(entries, str):
        raise ConfigError(f"{name} must be a list of names, got {entries!r}: write a list")
    names = [os.fspath(entry) for entry in entries]
    twice = next((it for it in names if names.count(it) > 1), None)
    if twice is not None:
        raise ConfigError(f"{name} must each be given once, got {twice} twice: leave one out")
    return {it: {} for it in names}


def plain_value(value: Any) -> Any:
    """Return a path as text and a NumPy number as Python's, as a file of a plan would hold them.

    Example:
      >>> plain_value(Path("a", "b")), plain_value(np.int64(3)), plain_value("nats")
      ('a/b', 3, 'nats')
    """
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if isinstance(value, np.generic) else value


def _check_labels(labels: Iterable[str]) -> None:
    """Refuse labels that could not name a folder of their own."""
    for label in labels:
        if not re.fullmatch(r"[\w.-]+", label) or label in (".", ".."):
            raise ConfigError(
                f"methods must have labels of letters, digits, '_', '-' and '.', got {label!r}: "
                "write another, with the method's name as its field method"
            )


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))


def _check_fields(plan: Plan) -> None:
    """Refuse fields that none of the methods has, and those that would make a comparison unfair."""
    for label in plan.methods:
        find_method(plan.method_of(label))
    for name, own in plan.experiments.items():
        config, presets = read_experiment(name)
        configs = [choose_method(config, presets, plan.method_of(label)) for label in plan.methods]
        known = {field for one in configs for field in section_of_field(one)}
        for field in {**plan.fields, **own}:
            if field in ("seed", "method"):
                raise ConfigError(f"{field} must be given as {field}s, got a field: leave it out")
            if field not in known:
                raise ConfigError(
                    f"fields must be of one of the methods compared, got {field!r}"
                    f"{nearest(field, known)}"
                )
    for label, own in (*plan.methods.items(), *plan.tune.items()):
        for field in own:
            if field in (*SHARED, "seed"):
                raise ConfigError(
                    f"{field} must be the same for all methods, got it for {label}: give it as a "
                    "field of the plan or of an experiment"
                )


def _lists(tune: Tuned) -> dict[str, dict[str, list[Any]]]:
    """Return values to try as lists, refused where they are none."""
    return {
        label: {field: _several(f"{label}.{field}", values) for field, values in own.items()}
        for label, own in _named(tune, "tune").items()
    }


def _several(name: str, values: Any) -> list[Any]:
    is_list = isinstance(values, Iterable) and not isinstance(values, str)
    tried = [plain_value(value) for value in values] if is_list else []
    if not tried or any(tried.count(value) > 1 for value in tried):
        raise ConfigError(
            f"{name} must be a list of values to try, each once, got {values!r}: write one"
        )
    return tried


def _check_tuned(plan: Plan) -> None:
    """Refuse values that are tried of no field, for some methods alone, or by an unknown judge."""
    if plan.judge not in JUDGES:
        raise ConfigError(refusal("judge", plan.judge, choices=JUDGES))
    numbers = {label: math.prod(map(len, own.values())) for label, own in plan.tune.items()}
    for label, own in plan.tune.items():
        if label not in plan.methods:
            raise ConfigError(
                f"tune must name methods compared, got {label!r}{nearest(label, plan.methods)}"
            )
        for name, fields in plan.experiments.items():
            config = choose_method(*read_experiment(name), plan.method_of(label))
            known = section_of_field(config)
            given = {**plan.fields, **fields, **plan.methods[label]}
            for field in own:
                if field not in known:
                    raise ConfigError(
                        f"tune must name fields of {label}, got {field!r}{nearest(field, known)}"
                    )
                if field in given:
                    raise ConfigError(
                        f"{field} of {label} must be given or tuned, got both: leave one out"
                    )
        first = next(iter(numbers))
        if numbers[label] < 2:
            raise ConfigError(
                f"tune must try several values, got {numbers[label]} for {label}: give more, or "
                "give it as a field"
            )
        if numbers[label] != numbers[first]:
            raise ConfigError(
                f"tune must try as many values for every method, got {numbers[first]} for {first} "
                f"and {numbers[label]} for {label}: give as many"
            )
