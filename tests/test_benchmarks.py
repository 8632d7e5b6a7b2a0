"""The benchmark scripts start, and their committed results meet their targets."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if path.stem not in ("common", "__init__"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_start(script):
    command = [sys.executable, str(script), "--help"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "usage" in result.stdout


@pytest.mark.parametrize("path", sorted(FOLDER.glob("results/*.json")), ids=lambda path: path.stem)
def test_results_name_their_machine(path):
    results = json.loads(path.read_text())
    assert results["machine"]["device"]
    assert results["machine"]["versions"]["jax"]
    assert "/" not in json.dumps(results["machine"]).replace("Linux", "")


def test_bandwidths_are_within_the_target():
    cells = json.loads((FOLDER / "results" / "bandwidth.json").read_text())["cells"]
    assert len(cells) == 30
    assert max(abs(cell["h_opt"] - cell["reference"]) for cell in cells) <= 0.015
