"""The README's Python runs, and what it names exists."""

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_the_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    blocks = [block for block in blocks if "load_run" not in block]  # tests/training has that one.
    assert len(blocks) == 6
    names: dict = {}
    exec("\n".join(blocks), names)  # noqa: S102
    assert names["samples"].shape == (16, 8, 8, 1)
    assert np.isfinite(names["kl"])
    assert names["lse"].shape == (64,)
    assert names["terms"]["kl"].shape == (64,)


def test_the_example_of_an_experiment_is_one():
    from avae_jax.training.config import Config, check_config

    text = (ROOT / "experiments" / "README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict = {}
    exec(block, names)  # noqa: S102
    assert isinstance(names["config"], Config)
    check_config(names["config"])


def test_every_experiment_and_method_is_named():
    from avae_jax.methods import METHODS
    from avae_jax.training.config import experiment_names

    assert {*experiment_names(), *METHODS} <= {*re.findall(r"`(?:--method )?(\w+)`", TEXT)}


def test_the_networks_of_the_example_fit(tmp_path, monkeypatch):
    from avae_jax.mesh import make_mesh
    from avae_jax.training.config import Config, replace_fields
    from avae_jax.training.setup import make_setting

    block = next(b for b in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "nets.py" in b)
    (tmp_path / "nets.py").write_text(block)
    config = replace_fields(
        Config(), encoder=f"{tmp_path}/nets.py:Encoder", decoder=f"{tmp_path}/nets.py:Decoder",
        width=2.0,
    )  # fmt: skip
    for method in ("avae", "vae"):
        chosen = replace_fields(config, method=method)
        setting = make_setting(
            chosen, image_shape=(8, 8, 1), num_images=2000, num_train=1000, num_classes=0,
            mesh=make_mesh(1),
        )  # fmt: skip
        assert chosen.method.make(setting).activation == "sigmoid"


def test_tables_are_those_of_the_results():
    import subprocess
    import sys

    command = [sys.executable, str(ROOT / "benchmarks" / "update_tables.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("link", re.findall(r"\]\(((?!http)[^)]+)\)", TEXT))
def test_links_point_somewhere(link):
    assert (ROOT / link).exists()


def test_commands_exist():
    from avae_jax.cli import COMMANDS

    used = set(re.findall(r"^avae (\w+)", TEXT, re.MULTILINE))
    assert used == set(COMMANDS)
