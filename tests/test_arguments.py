"""Arguments: what is read of the fields of a data class, and what is refused."""

import dataclasses
from pathlib import Path
from typing import Literal

import pytest
from tyro.conf import Positional

from avae_jax import cli
from avae_jax.arguments import arguments_of, read, read_parts
from avae_jax.methods import METHODS
from avae_jax.training.config import Config, ConfigError, replace_fields, sections_of


@dataclasses.dataclass(frozen=True)
class Kinds:
    """One argument of each kind."""

    first: Positional[int]
    """A whole number."""
    paths: Positional[tuple[Path, ...]]
    """Files."""
    mode: Literal["fast", "slow"] | None = None
    """A name."""
    rate: Literal["auto"] | float = "auto"
    """A name or a number."""
    size: tuple[int, int] = (1, 2)
    """Two numbers."""
    keep: bool = False
    """Whether to keep."""
    note: str = ""
    """Words."""


def read_kinds(line: str) -> Kinds:
    return read(Kinds, "kinds", line.split(), operands="FIRST FILE ...")


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("3 a b", {"paths": (Path("a"), Path("b"))}),
        ("-3 a", {"first": -3}),
        ("--keep 3 a", {"keep": True}),
        ("3 a --no-keep --mode slow", {"mode": "slow"}),
        ("3 a --mode None", {}),
        ("3 a --rate -2e-3", {"rate": -2e-3}),
        ("3 a --rate=auto", {}),
        ("3 a --size 4 5", {"size": (4, 5)}),
        ("3 a --note=--x", {"note": "--x"}),
    ],
)
def test_what_is_read(line, changed):
    assert read_kinds(line) == dataclasses.replace(Kinds(3, (Path("a"),)), **changed)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "FIRST must be given, got none: write avae kinds FIRST FILE ..."),
        ("3", "FILE must be given, got none: write avae kinds FIRST FILE ..."),
        ("2.5 a", "FIRST must be a whole number, got '2.5': give one"),
        ("3 a --mode fats", "--mode must be one of fast, slow, got 'fats': did you mean 'fast'?"),
        ("3 a --mode x", "--mode must be one of fast, slow, got 'x': choose one of these"),
        ("3 a --rate x", "--rate must be auto or a number, got 'x': choose one of these"),
        ("3 a --rate", "--rate must have a value, got none: give one after it"),
        ("3 a --rate --keep", "--rate must have a value, got none: give one after it"),
        ("3 a --rate 1 --rate=2", "--rate must be given once, got 1 and 2: leave one of them out"),
        ("3 a --keep --no_keep", "--keep must be given once, got --keep and --no_keep: leave one"),
        ("3 a --keep=yes", "--keep must have no value, got 'yes': leave it out"),
        ("3 a --no-rate", "--no-rate is no field: --rate has a value, and cannot be turned off"),
        ("3 a --kep", "unknown field --kep; did you mean '--keep'?"),
        ("3 a -x", "unknown field -x; avae kinds --help lists them"),
    ],
)
def test_what_is_refused(line, message):
    with pytest.raises(ConfigError) as refused:
        read_kinds(line)
    assert str(refused.value).startswith(message)


def test_what_only_tyro_knows_is_one_line_too():
    with pytest.raises(ConfigError) as refused:
        read_kinds("3 a --size 4 x")
    message = str(refused.value)
    assert "size" in message
    assert not set("\n│╭╮╰╯─") & set(message)
    assert "--help" not in message


def test_parts_are_one_list():
    config = Config()
    parts = read_parts({"data": config.data, "model": config.model}, "x", ["--latent-dim", "3"])
    assert parts == {"data": config.data, "model": dataclasses.replace(config.model, latent_dim=3)}
    with pytest.raises(ConfigError, match="mnist is no argument of avae x: leave it out"):
        read_parts({"data": config.data}, "x", ["mnist"])
    with pytest.raises(ConfigError, match="no arguments of avae x: write --data-dir"):
        read_parts({"data": config.data}, "x", ["data_dir", "here"])


KINDS = [command.arguments for command in cli.COMMANDS.values() if command.arguments]
PARTS = {
    type(part): None
    for method in METHODS
    for part in sections_of(replace_fields(Config(), method=method)).values()
}


@pytest.mark.parametrize("kind", [*KINDS, *PARTS])
def test_every_argument_is_described(kind):
    for argument in arguments_of(kind):
        assert argument.help.endswith("."), argument.name
