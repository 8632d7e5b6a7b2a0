"""What a user writes after a command: read into a data class, or refused in one line.

A field of the data class is an argument, its docstring the help. tyro reads the values and prints
the help; what it could not read is found before, so that every refusal has one form and says what
was likely meant.
"""

import ast
import contextlib
import dataclasses
import functools
import importlib
import inspect
import io
import re
import textwrap
import types
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.conf import OmitArgPrefixes

from avae_jax.completion import Option
from avae_jax.files import user_path
from avae_jax.text import KINDS, closest, refusal
from avae_jax.training.config import ConfigError, methods_with

# Fields that take the names of a table: the module that has it, and its name there. Other fields
# name theirs in their metadata, under "table".
_TABLES = {
    "dataset": ("avae_jax.data", "DATASETS"),
    "architecture": ("avae_jax.models", "ARCHITECTURES"),
}
_NUMBERS = (int, float)
_NONE = type(None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Argument:
    """One argument of a command.

    Attributes:
      name: what is written, `--latent-dim`; of a positional one, what stands for it, `RUN`.
      field: of the data class.
      hint: its type.
      help: what it does.
      default: `dataclasses.MISSING` where it must be given.
      is_positional: whether it is told by its place.
      names: the names it takes where those of a table are meant; others are not refused here.
    """

    name: str
    field: str
    hint: Any
    help: str
    default: Any
    is_positional: bool
    names: tuple[str, ...]

    @property
    def alternatives(self) -> list[Any]:
        """What a value may be but None: types, and `Literal`s of names."""
        is_union = get_origin(self.hint) in (types.UnionType, Union)
        options = get_args(self.hint) if is_union else (self.hint,)
        return [option for option in options if option is not _NONE]

    @property
    def choices(self) -> tuple[str, ...]:
        """The names among what a value may be."""
        literals = [kind for kind in self.alternatives if get_origin(kind) is Literal]
        return tuple(str(name) for kind in literals for name in get_args(kind))

    @property
    def is_flag(self) -> bool:
        """Whether it has no value."""
        return self.hint is bool

    @property
    def is_many(self) -> bool:
        """Whether it takes all the words up to the next option."""
        origins = [get_origin(kind) for kind in self.alternatives]
        return any(isinstance(kind, type) and issubclass(kind, Collection) for kind in origins)

    def takes(self, value: str) -> bool:
        """Return whether a word can be its value."""
        if value in self.choices or (value == "None" and _NONE in get_args(self.hint)):
            return True
        for kind in self.alternatives:
            if kind in _NUMBERS:
                with contextlib.suppress(ValueError):
                    kind(value)
                    return True
            elif get_origin(kind) is not Literal:
                return True
        return False


def arguments_of(kind: type, *, values: Any = None, operands: str = "") -> list[Argument]:
    """Return the arguments that the fields of a data class stand for.

    Args:
      kind: a data class whose fields have docstrings.
      values: an instance whose values are the defaults; the class's own where None.
      operands: what the positional ones are called, in their order, such as "RUN DATA".
    """
    hints, texts = get_type_hints(kind, include_extras=True), _field_texts(kind)
    shown = iter(operands.replace("...", "").split())
    arguments = []
    for field in dataclasses.fields(kind):
        hint, text, names = hints[field.name], texts.get(field.name, ""), _names_of(field)
        if names:
            text = f"{text.removesuffix('.')}: {', '.join(names)}."
        # Nothing else is annotated.
        is_positional = get_origin(hint) is Annotated
        option = f"--{field.name.replace('_', '-')}"
        arguments.append(
            Argument(
                name=next(shown, field.name.upper()) if is_positional else option,
                field=field.name,
                hint=get_args(hint)[0] if is_positional else hint,
                help=text,
                default=field.default if values is None else getattr(values, field.name),
                is_positional=is_positional,
                names=names,
            )
        )
    return arguments


def read(kind: type, command: str, words: Sequence[str], *, operands: str) -> Any:
    """Read words into an object of a data class.

    Args:
      kind: a data class whose fields have docstrings.
      command: what the user wrote before the words, for messages and the help.
      words: as the user wrote them.
      operands: what the positional ones are called, in their order.

    Raises:
      ConfigError: words that cannot be read.
      SystemExit: the help was asked for and printed.
    """
    arguments = arguments_of(kind, operands=operands)
    described = _described(kind, arguments)
    _check_words(arguments, command, words, operands)
    return kind(**_with_homes(_read_checked(described, command, words)))


def _with_homes(parsed: Any) -> dict[str, Any]:
    """Return arguments by name, paths among them with ~ for the home folder."""

    def expanded(value):
        if isinstance(value, tuple):
            return tuple(map(expanded, value))
        return user_path(value) if isinstance(value, Path) else value

    return {name: expanded(value) for name, value in vars(parsed).items()}


def read_parts(parts: dict[str, Any], command: str, words: Sequence[str]) -> dict[str, Any]:
    """Read words into several objects at once: one flat list of options.

    Args:
      parts: name -> an instance of a data class, whose values are the defaults.
      command: as `read` takes it.
      words: as the user wrote them.

    Returns:
      The parts, with the values that the words give.

    Raises:
      ConfigError: words that cannot be read.
      SystemExit: the help was asked for and printed.
    """
    every, fields = [], []
    for name, values in parts.items():
        own = arguments_of(type(values), values=values)
        kind = _described(type(values), own)
        fields.append((name, OmitArgPrefixes[kind], dataclasses.field(default=kind())))
        every += own
    kind = dataclasses.make_dataclass("Arguments", fields, frozen=True)
    kind.__doc__ = "Fields of the experiment can be replaced by name."
    _check_words(every, command, words, "")
    parsed = _read_checked(kind, command, words)
    return {name: type(parts[name])(**_with_homes(getattr(parsed, name))) for name in parts}


def read_with_fields(
    kind: type, others: Iterable[type], command: str, words: Sequence[str], *, operands: str
) -> tuple[Any, dict[str, Any]]:
    """Read words into an object of a data class, and fields of other classes given beside its own.

    Args:
      kind: a data class whose fields have docstrings.
      others: data classes whose fields may be given too; a field of several takes what any of them
        takes, and one of a name that `kind` has itself is not meant. The help does not list them.
      command: as `read` takes it.
      words: as the user wrote them.
      operands: what the positional ones are called, in their order.

    Returns:
      The object, and the values of the other fields that are given, by name.

    Raises:
      ConfigError: words that cannot be read.
      SystemExit: the help was asked for and printed.
    """
    own = arguments_of(kind, operands=operands)
    fields: dict[str, Argument] = {}
    names = {argument.field for argument in own}
    for argument in (it for other in others for it in arguments_of(other)):
        if argument.field in names:
            continue
        known = fields.setdefault(argument.field, argument)
        if known.hint != argument.hint:
            hint = Union[known.hint, argument.hint]  # noqa: UP007
            fields[argument.field] = dataclasses.replace(known, hint=hint)
    _check_words([*own, *fields.values()], command, words, operands)
    names = {word.partition("=")[0].replace("_", "-") for word in words if _is_option(word)}
    given = [it for it in fields.values() if {it.name, f"--no-{it.name[2:]}"} & names]
    parsed = _with_homes(_read_checked(_described(kind, [*own, *given]), command, words))
    values = {it.field: parsed.pop(it.field) for it in given}
    return kind(**parsed), values


def options_of(arguments: Iterable[Argument]) -> dict[str, Option]:
    """Return what a shell can complete of arguments: the options, and the names they take."""
    options = {"--help": Option("show the arguments", is_flag=True)}
    for it in arguments:
        if not it.is_positional:
            names = it.choices or it.names
            options[it.name] = Option(it.help, names, it.is_flag)
            if it.is_flag:
                options[it.name.replace("--", "--no-")] = options[it.name]
    return options


def wants_help(words: Iterable[str]) -> bool:
    """Return whether the help is asked for."""
    return not {"-h", "--help"}.isdisjoint(words)


def _check_words(
    arguments: Sequence[Argument], command: str, words: Sequence[str], operands: str
) -> None:
    """Refuse words that cannot be read in one line, which says what was likely meant."""
    if wants_help(words):
        return
    options = {argument.name: argument for argument in arguments if not argument.is_positional}
    given: dict[str, str] = {}
    rest, left = list(words), []
    while rest:
        word = rest.pop(0)
        if not _is_option(word):
            left.append(word)
            continue
        name, equals, value = word.partition("=")
        option = _find_option(name, options, command)
        if option.is_flag:
            if equals:
                raise ConfigError(f"{name} must have no value, got {value!r}: leave it out")
            value = name
        elif option.is_many:
            while rest and not _is_option(rest[0]):
                value = f"{value} {rest.pop(0)}".strip()
        else:
            if not equals:
                if not rest or _is_option(rest[0]):
                    raise ConfigError(
                        f"{option.name} must have a value, got none: give one after it"
                    )
                value = rest.pop(0)
            _check_value(option, value)
        if option.name in given:
            raise ConfigError(
                f"{option.name} must be given once, got {given[option.name]} and {value}: leave "
                "one of them out"
            )
        given[option.name] = value
    for argument in arguments:
        if not argument.is_positional:
            continue
        if not left and argument.default is dataclasses.MISSING:
            raise ConfigError(
                f"{argument.name} must be given, got none: write avae {command} {operands}"
            )
        taken, left = (left, []) if argument.is_many else (left[:1], left[1:])
        for value in taken:
            if not argument.is_many:
                _check_value(argument, value)
    if left:
        are, them = ("is no argument", "it") if len(left) == 1 else ("are no arguments", "them")
        option = f"--{left[0].replace('_', '-')}"
        instead = f"write {option}" if option in options else f"leave {them} out"
        raise ConfigError(f"{', '.join(left)} {are} of avae {command}: {instead}")


def _check_value(argument: Argument, value: str) -> None:
    if argument.takes(value):
        return
    kinds = [KINDS[kind] for kind in argument.alternatives if kind in _NUMBERS]
    raise ConfigError(refusal(argument.name, value, choices=argument.choices, kinds=kinds))


def _find_option(word: str, options: dict[str, Argument], command: str) -> Argument:
    """Return the option that a word names; refuse one that is none."""
    name = word.replace("_", "-")
    if name in options:
        return options[name]
    positive = f"--{name.removeprefix('--no-')}"
    if name.startswith("--no-") and positive in options:
        if options[positive].is_flag:
            return options[positive]
        raise ConfigError(f"{word} is no field: {positive} has a value, and cannot be turned off")
    own = name.removeprefix("--").removeprefix("no-").replace("-", "_")
    others = methods_with(own)
    if others and "--method" in options:
        raise ConfigError(
            f"{word} has no effect with this method: leave it out, or use --method {others}"
        )
    meant = _closest_option(name, [*options, "--help"])
    # There are too many to read in one line.
    hint = f"; avae {command} --help lists them" if meant is None else f"; did you mean {meant!r}?"
    raise ConfigError(f"unknown field {word}{hint}")


def _closest_option(word: str, options: Iterable[str]) -> str | None:
    """Return the option that a word is likely to mean; dashes make no two words alike."""
    meant = closest(word.strip("-").replace("_", "-"), [name.strip("-") for name in options])
    return meant and f"--{meant}"


def _is_option(word: str) -> bool:
    """Return whether a word names an option, and is no negative number."""
    try:
        float(word)
    except ValueError:
        return word.startswith("-") and word != "-"
    return False


def _read_checked(kind: type, command: str, words: Sequence[str]) -> Any:
    """Read words with tyro; what it still refuses, it says in a box, which becomes a line."""
    boxed = io.StringIO()
    try:
        with contextlib.redirect_stderr(boxed):
            return tyro.cli(kind, prog=f"avae {command}", args=words)
    except SystemExit as stopped:
        if not stopped.code:
            raise
        # The box is drawn with dashes where the terminal has no other lines; its title says
        # nothing, and what follows the message repeats the help.
        lines = [line.strip("│╭╮╰╯─- ") for line in boxed.getvalue().splitlines()][1:]
        end = next((k for k, line in enumerate(lines) if re.search("helptext|--help", line)), None)
        message = " ".join(filter(None, lines[:end])) or "the arguments cannot be read"
        raise ConfigError(message) from None


def _described(kind: type, arguments: Sequence[Argument]) -> type:
    """Return a class of the same arguments, described as a user reads them."""
    fields: list[Any] = []
    for argument in arguments:
        options: dict[str, Any] = {"help": argument.help}
        hint = argument.hint
        if argument.is_positional:
            hint = tyro.conf.Positional[hint]
            options["metavar"] = argument.name
        if _NONE in get_args(argument.hint):
            # That it may be left out goes without saying.
            options["metavar"] = "|".join(map(_placeholder, argument.alternatives))
            if argument.default is None:
                options["help_behavior_hint"] = ""
        entry = (argument.field, Annotated[hint, tyro.conf.arg(**options)])
        has_default = argument.default is not dataclasses.MISSING
        default = dataclasses.field(default=argument.default)
        fields.append((*entry, default) if has_default else entry)
    described = dataclasses.make_dataclass(kind.__name__, fields, frozen=True, kw_only=True)
    described.__doc__ = kind.__doc__
    return described


def _placeholder(hint: Any) -> str:
    """Return what stands for a value in a list of arguments."""
    if get_origin(hint) is Literal:
        return "{" + ",".join(map(str, get_args(hint))) + "}"
    return hint.__name__.upper()


@functools.cache
def _field_texts(kind: type) -> dict[str, str]:
    """Return the docstrings of a data class's fields, its bases' among them, each as one line."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for pair in zip(body, body[1:], strict=False):
            match pair:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    texts[name] = " ".join(text.split())
    return texts


def _names_of(field: dataclasses.Field) -> tuple[str, ...]:
    """Return the names that a field takes, where they are those of a table."""
    table = field.metadata.get("table", _TABLES.get(field.name))
    if table is None:
        return ()
    module, name = table
    return tuple(getattr(importlib.import_module(module), name))
