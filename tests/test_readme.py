"""The README's Python runs, and what it names exists."""

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_the_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    # Those of a file and of a trained model have tests of their own.
    blocks = [block for block in blocks if "load_run" not in block and "moments.py" not in block]
    assert len(blocks) == 6
    names: dict = {}
    exec("\n".join(blocks), names)  # noqa: S102
    assert names["samples"].shape == (16, 8, 8, 1)
    assert np.isfinite(names["kl"])
    assert names["lse"].shape == (64,)
    assert names["terms"]["kl"].shape == (64,)


def test_the_method_of_the_example_is_trained(tmp_path, quick_compiler):
    from avae_jax.methods import METHODS
    from avae_jax.training import loop
    from avae_jax.training.config import load_experiment, replace_fields
    from avae_jax.training.writers import read_metrics

    block = next(
        b for b in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "moments.py" in b
    )
    lines = [line for line in block.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 20
    (tmp_path / "moments.py").write_text(block)
    try:
        config = load_experiment(str(tmp_path / "moments.py"))
        loop.train(replace_fields(config, num_epochs=3, batch_size=96), tmp_path / "run")
    finally:
        METHODS.pop("moments", None)
    log = read_metrics(tmp_path / "run")
    assert log[-1]["train/moments"] < log[0]["train/moments"]
    assert log[-1]["train/reconstruction"] < log[0]["train/reconstruction"]
    # Of n draws of N(0, I) in d dimensions the squared mean is d / n, and the covariance, which has
    # Wishart's distribution, is d (d + 1) / n away.
    assert log[-1]["null_moments"] == pytest.approx((8 + 8 * 9) / 96, rel=0.1)


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
