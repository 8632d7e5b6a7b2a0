"""The README's Python runs, and what it names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_the_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    blocks = [block for block in blocks if "load_run" not in block]  # tests/training has that one.
    assert len(blocks) == 3
    names: dict = {}
    exec("\n".join(blocks), names)  # noqa: S102
    assert names["lse"].shape == (64,)
    assert names["terms"]["kl"].shape == (64,)


@pytest.mark.parametrize("link", re.findall(r"\]\(((?!http)[^)]+)\)", TEXT))
def test_links_point_somewhere(link):
    assert (ROOT / link).exists()


def test_commands_exist():
    from avae_jax.cli import COMMANDS

    used = set(re.findall(r"^avae (\w+)", TEXT, re.MULTILINE))
    assert used == set(COMMANDS)
