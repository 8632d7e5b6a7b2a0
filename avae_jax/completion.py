"""Tab completion for bash, zsh and fish: scripts of words alone, which start no Python.

tyro can print such scripts too, but they know no positional words, run a Python program at every
press of the key, and take away the shell's own completion of file names.
"""

import shlex
from collections.abc import Mapping
from typing import NamedTuple

SHELLS = ("bash", "zsh", "fish")


class Option(NamedTuple):
    """An option of a command.

    Attributes:
      help: what it does, for shells that show it.
      values: the names it takes; file names are offered where there are none.
      is_flag: whether it takes no value.
    """

    help: str
    values: tuple[str, ...] = ()
    is_flag: bool = False


class Words(NamedTuple):
    """What can follow a command.

    Attributes:
      help: what the command does.
      operands: the names that each positional word may be; file names are offered too.
      options: by their names, "--latent-dim".
    """

    help: str
    operands: tuple[tuple[str, ...], ...]
    options: Mapping[str, Option]


def completion_script(shell: str, program: str, commands: Mapping[str, Words]) -> str:
    """Return the script that makes a shell complete the words of a program.

    Args:
      shell: one of `SHELLS`.
      program: what is completed.
      commands: its commands by name.

    Returns:
      Text that the shell reads with `source`.
    """
    if shell == "fish":
        return _fish(program, commands)
    script = _bash(program, commands)
    # zsh understands the functions of bash once it is told to.
    return "autoload -U +X bashcompinit && bashcompinit\n" + script if shell == "zsh" else script


def _bash(program: str, commands: Mapping[str, Words]) -> str:
    values, words = [], []
    for name, command in commands.items():
        for option, it in command.options.items():
            if not it.is_flag:
                values.append(
                    f"    {shlex.quote(f'{name} {option}')}) offered={_list(it.values)} ;;"
                )
        words.append(f"      '{name} -'*) offered={_list(command.options)} ;;")
        for place, names in enumerate(command.operands, start=2):
            if names:
                words.append(f"      '{name} {place}') offered={_list(names)} ;;")
    lines = [
        f"# Completes {program}: commands, their options, the names these take, else file names.",
        f"_{program}() {{",
        "  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} offered= kind",
        "  kind=$COMP_CWORD",
        "  case $word in -*) kind=- ;; esac",
        f"  if [ $COMP_CWORD -eq 1 ]; then offered={_list(commands)}",
        '  else case "${COMP_WORDS[1]} $before" in',
        *values,
        '    *) case "${COMP_WORDS[1]} $kind" in',
        *words,
        "    esac ;;",
        "  esac; fi",
        '  COMPREPLY=($(compgen -W "$offered" -- "$word"))',
        "}",
        f"complete -o bashdefault -o default -F _{program} {program}",
    ]
    return "\n".join(lines) + "\n"


def _fish(program: str, commands: Mapping[str, Words]) -> str:
    lines = [
        f"# Completes {program}: commands, their options, the names these take, else file names.",
        f"function __{program}_words",
        "    commandline -opc",
        "end",
        f"complete -c {program} -e",
    ]
    for name, command in commands.items():
        first = f"test (count (__{program}_words)) -eq 1"
        lines.append(
            f"complete -c {program} -f -n {_quoted(first)} -a {name} -d {_quoted(command.help)}"
        )
        here = f"test (count (__{program}_words)) -gt 1; and test (__{program}_words)[2] = {name}"
        for place, names in enumerate(command.operands, start=2):
            if names:
                at = f"{here}; and test (count (__{program}_words)) -eq {place}"
                lines.append(f"complete -c {program} -n {_quoted(at)} -a {_list(names)}")
        for option, it in command.options.items():
            line = f"complete -c {program} -n {_quoted(here)} -l {option.removeprefix('--')}"
            if it.values:
                line += f" -x -a {_list(it.values)}"
            elif not it.is_flag:
                line += " -r"
            lines.append(f"{line} -d {_quoted(it.help)}")
    return "\n".join(lines) + "\n"


def _list(words) -> str:
    return "'" + " ".join(words) + "'"


def _quoted(text: str) -> str:
    """Return text between single quotes, as fish reads them."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
