"""Tab completion: what the shells offer, asked of the shells themselves where they are there."""

import contextlib
import io
import shutil
import subprocess

import pytest

from avae_jax import cli
from avae_jax.completion import SHELLS, Option, Words, completion_script
from avae_jax.training.config import experiment_names

CASES = [
    ("ev", {"evaluate"}),
    ("", set(cli.COMMANDS)),
    ("train dig", {name for name in experiment_names() if name.startswith("dig")}),
    ("check mni", {"mnist"}),
    ("train mine.py --latent-d", {"--latent-dim"}),
    ("train mnist --noise-s", {"--noise-scale"}),
    ("train digits --method beta_v", {"beta_vae"}),
    ("train digits --schedule ", {"plateau", "cosine", "constant"}),
    ("train digits --dataset mn", {"mnist"}),
    ("train digits --no-l", {"--no-labeled"}),
    ("encode runs/x t", {"train", "test"}),
    ("sample runs/x --scale m", {"measured"}),
    ("evaluate train b --prot", {"--protocol"}),
    ("compare dig", {name for name in experiment_names() if name.startswith("dig")}),
    ("compare digits --methods beta_v", {"beta_vae"}),
    ("compare digits --latent-d", {"--latent-dim"}),
    ("compare digits --tune sigreg.", {"sigreg.weight"}),
    ("compare digits --judge m", {"mse", "moment_kl"}),
    ("completion z", {"zsh"}),
]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The scripts as files, in a folder where no file name fits."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "empty").mkdir()
    for shell in SHELLS:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert cli.run(["completion", shell]) == 0
        (folder / f"avae.{shell}").write_text(printed.getvalue())
    return folder


# Reads the script, then a line of words for each question, and prints the answer between marks.
ASK = {
    "bash": """
        source $0
        for line; do
          IFS=' ' read -ra COMP_WORDS <<< "$line."; COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
          COMP_WORDS[COMP_CWORD]=${COMP_WORDS[COMP_CWORD]%.}
          _avae; printf '%s\\n' "${COMPREPLY[@]}" =
        done
    """,
    # As bashcompinit does it, which leaves it to zsh to choose the words that begin like the last.
    "zsh": """
        compdef() {}
        source $1
        for line in "${@[2,-1]}"; do
          words=("${(@s: :)line}")
          () {
            emulate -L sh; setopt kshglob braceexpand
            COMP_WORDS=("${words[@]}"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            _avae; printf '%s\\n' "${COMPREPLY[@]}" | { grep "^${COMP_WORDS[COMP_CWORD]}" || :; }
          }
          echo =
        done
    """,
    "fish": """
        source $argv[1]
        for line in $argv[2..-1]; complete -C $line | string replace -r '\\t.*' ''; echo =; end
    """,
}
CALLS = {
    "bash": ["bash", "-c", ASK["bash"]],
    "zsh": ["zsh", "-f", "-c", ASK["zsh"], "zsh"],
    "fish": ["fish", "-N", "-c", ASK["fish"]],
}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_completes(shell, scripts):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    lines = [f"avae {line}" for line, _ in CASES]
    command = [*CALLS[shell], str(scripts / f"avae.{shell}"), *lines]
    done = subprocess.run(command, capture_output=True, text=True, cwd=scripts / "empty")
    assert (done.returncode, done.stderr) == (0, "")
    answers = [{*answer.split("\n")} - {""} for answer in done.stdout.split("=\n")[:-1]]
    for (line, wanted), answer in zip(CASES, answers, strict=True):
        assert answer == wanted, line


@pytest.mark.parametrize("shell", SHELLS)
def test_every_word_is_in_the_script(shell):
    options = {"--size": Option("It's a size.", ("small", "large")), "--keep": Option("", (), True)}
    script = completion_script(
        shell, "tool", {"make": Words("make it", (("all", "one"), ()), options)}
    )
    for word in ("tool", "make", "all", "one", "size", "small", "large", "keep"):
        assert word in script
