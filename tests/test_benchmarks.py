"""The benchmark scripts start, and tell when results miss their targets."""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from avae_jax.metrics import code_moments

FOLDER = Path(__file__).parent.parent / "benchmarks"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if path.stem not in ("common", "__init__"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_start(script):
    command = [sys.executable, str(script), "--help"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "usage" in result.stdout


@pytest.fixture
def update_tables(monkeypatch):
    # The scripts import each other by their bare names, as they are run.
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("update_tables")


def kernel_row(**changes):
    row = {"asked_n": 1, "asked_m": 2, "d": 3, "op": "lse", "contender": "avae_jax"}
    row |= {"median_s": 1.0, "ps_per_pair": 10.0, "within_float32": True, "fraction_of_floor": 0.5}
    return row | changes


GOOD = {
    "*": {"machine": {"device": "cpu", "versions": {"jax": "1"}, "system": "Linux"}},
    "bandwidth": {"cells": [{"h_opt": 0.5, "reference": 0.51}] * 30},
    "pairwise_lse_cpu_*": {
        "rows": [kernel_row(), kernel_row(contender="other", ps_per_pair=20.0), {"skipped": "x"}],
        "exponents": {"pairs": {"2": 1.05, "1024": 0.5}},
        "work_per_device": {"work_ratio": 7.5},
    },
    "latent_metrics": {
        "codes": 10_000, "dims": 128, "total_first_s": 59, "peak_growth_bytes": 10**8,
    },
    "verdict": {"totals": {"verdicts": 1440, "false_alarms": 0.01, "named_rightly": 0.9}},
    "method_steps": {
        "rows": [
            {"method": "wae", "relative_seconds": 1.15},
            {"method": "aae", "relative_seconds": 2.0},
            {"method": "iwae", "relative_seconds": 5.0},
        ],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_results_that_hold_their_targets_pass(update_tables, name):
    assert set(GOOD) == set(update_tables.TARGETS)
    assert not list(update_tables.TARGETS[name](GOOD[name]))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("*", {"machine": {"device": "cpu", "versions": {}}}, "does not name"),
        ("*", {"machine": GOOD["*"]["machine"] | {"at": "/home/me"}}, "with a path"),
        ("bandwidth", {"cells": GOOD["bandwidth"]["cells"][1:]}, "has 29"),
        ("bandwidth", {"cells": [{"h_opt": 0.5, "reference": 0.52}] * 30}, "is far from 0.52"),
        ("bandwidth", {"cells": [{"h_opt": math.nan, "reference": 0.5}] * 30}, "is far from 0.5"),
        ("pairwise_lse_cpu_*", {"rows": [kernel_row(within_float32=False)]}, "not exact"),
        ("pairwise_lse_cpu_*", {"rows": [kernel_row(fraction_of_floor=0.3)]}, "0.30 of the floor"),
        (
            "pairwise_lse_cpu_*",
            {"rows": [kernel_row(), kernel_row(contender="other", ps_per_pair=9.0)]},
            "other is faster",
        ),
        ("pairwise_lse_cpu_*", {"rows": [kernel_row(contender="other")]}, "has no avae_jax"),
        ("pairwise_lse_cpu_*", {"exponents": {"pairs": {"16": 1.2}}}, "power 1.20 at d = 16"),
        ("pairwise_lse_cpu_*", {"work_per_device": {"work_ratio": 1.0}}, "1.0 times"),
        ("latent_metrics", {"codes": 10}, "measures 10 codes"),
        ("latent_metrics", {"total_first_s": 61}, "takes 61 s"),
        ("latent_metrics", {"peak_growth_bytes": 2**40}, "grows the memory"),
        (
            "verdict",
            {"totals": {"verdicts": 1440, "false_alarms": 0.02, "named_rightly": 0.9}},
            "calls 2.0%",
        ),
        (
            "verdict",
            {"totals": {"verdicts": 1440, "false_alarms": 0.0, "named_rightly": 0.8}},
            "names 80% rightly",
        ),
        (
            "verdict",
            {"totals": {"verdicts": 1375, "false_alarms": 0.0, "named_rightly": 0.9}},
            "holds 1,375 of 1,440",
        ),
        ("method_steps", {"rows": [{"method": "vae", "relative_seconds": 1.2}]}, "1.20 times"),
        ("method_steps", {"rows": [{"method": "aae", "relative_seconds": 2.2}]}, "as long, not 2"),
    ],
)
def test_results_that_miss_a_target_are_told(update_tables, name, change, message):
    misses = list(update_tables.TARGETS[name](GOOD[name] | change))
    assert misses
    assert all(message in miss for miss in misses)


def test_moments_at_their_own_scale_keep_the_shape(monkeypatch):
    """Codes of one variance in all directions have no shape; the rest is that of code_moments."""
    monkeypatch.syspath_prepend(str(FOLDER))
    moments_of = importlib.import_module("paper_moments").moments_of
    rng = np.random.default_rng(0)
    z = rng.standard_normal((500, 4)) * [0.5, 0.6, 1.0, 2.0] + 0.3
    moments = code_moments(z) | {"moment_kl_means": 7.0}
    centered = z - z.mean(axis=0)
    scaled = centered / np.sqrt(np.cov(z, rowvar=False).trace() / 4)
    found = moments_of({"latent": {"moments": moments}, "about": {"latent_dim": 4}})
    assert (found["means"], found["draws"]) == (7.0, moments["moment_kl"])
    assert found["own_scale"] == pytest.approx(code_moments(scaled)["moment_kl"], rel=1e-9)
    assert found["own_scale"] < found["draws"]


def test_missing_results_are_told(update_tables, monkeypatch, tmp_path):
    monkeypatch.setattr(update_tables, "RESULTS", tmp_path)
    (tmp_path / "latent_metrics.json").write_text(json.dumps(GOOD["latent_metrics"] | GOOD["*"]))
    missed = update_tables.missed_targets()
    others = ("method_steps", "bandwidth", "pairwise_lse_cpu_*", "verdict")
    assert missed == [f"there is no {name}.json" for name in others]
