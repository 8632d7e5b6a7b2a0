"""Compare all methods by a plan of experiments/, and keep the numbers.

    TFDS_DATA_DIR=... python benchmarks/compare.py NAME

Runs `avae compare experiments/compare_NAME.toml` (again: goes on where it was stopped) in
comparisons/NAME, and writes benchmarks/results/compare_NAME.json and docs/compare_NAME.png.
"""

import argparse
import json
import shutil
import sys

from common import RESULTS, describe_machine, write_results

import avae_jax as av
from avae_jax.comparison.report import FIGURE_FILE, RESULTS_FILE
from avae_jax.comparison.runner import Stopped

ROOT = RESULTS.parent.parent

NAMES = [path.stem.removeprefix("compare_") for path in ROOT.glob("experiments/compare_*.toml")]


def keep(name: str) -> None:
    """Write what a comparison has found so far to where it is committed."""
    folder = ROOT / "comparisons" / name
    results = json.loads((folder / RESULTS_FILE).read_text())
    for cell in results["cells"]:
        # The plan says it, and the hash holds it.
        del cell["config"]
    write_results(f"compare_{name}", {"machine": describe_machine("flax", "optax"), **results})
    shutil.copyfile(folder / FIGURE_FILE, ROOT / "docs" / f"compare_{name}.png")


def main() -> None:
    """Run the comparison, and keep what it finds."""
    parser = argparse.ArgumentParser(description="Compare all methods by a plan of experiments/.")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--keep", action="store_true", help="keep what is there, run nothing")
    arguments = parser.parse_args()
    if not arguments.keep:
        plan = ROOT / "experiments" / f"compare_{arguments.name}.toml"
        try:
            av.compare(plan, output=ROOT / "comparisons" / arguments.name)
        except Stopped as stopped:
            sys.exit(f"stopped at {stopped}, all is kept: the same command goes on")
    keep(arguments.name)


if __name__ == "__main__":
    main()
