"""Compare all methods by a plan of experiments/, and keep the numbers.

    TFDS_DATA_DIR=... python benchmarks/compare.py digits|mnist

Runs `avae compare experiments/compare_NAME.toml` (again: goes on where it was stopped) in
comparisons/NAME, and writes benchmarks/results/compare_NAME.json and docs/compare_NAME.png.
"""

import argparse
import json
import shutil
from typing import Any

from common import RESULTS, describe_machine, write_results

import avae_jax as av
from avae_jax.comparison.report import FIGURE_FILE, RESULTS_FILE
from avae_jax.text import number

ROOT = RESULTS.parent.parent

NAMES = [path.stem.removeprefix("compare_") for path in ROOT.glob("experiments/compare_*.toml")]


def table(results: dict[str, Any], keys: list[str]) -> str:
    """Return the numbers of some keys as Markdown, a row per method, the reference first.

    Args:
      results: as `write` keeps them, of one experiment.
      keys: of columns; "SPACE/own" takes the multiple of the codes' rms with it.
    """
    ((experiment, columns),) = results["table"].items()
    by_key = {column["key"]: column for column in columns}
    shown = [by_key[key] for key in keys if key in by_key]
    heads, rows = ["method"], {label: [f"`{label}`"] for label in results["plan"]["methods"]}
    for column in shown:
        scale = by_key.get(column["scale"])
        nulls = {one["null"] for one in column["methods"].values() if one["null"] is not None}
        beside = f"; {column['beside']} {number(min(nulls))}" if len(nulls) == 1 else ""
        heads.append(f"{column['caption']}{beside}")
        for label, row in rows.items():
            one = column["methods"][label]
            cell = f"{number(one['mean'])} ± {number(one['std'])}" if one["n"] else "-"
            if scale is not None and one["n"]:
                cell += f" at {number(scale['methods'][label]['mean'])}"
            row.append(cell)
    heads.append("time of a step")
    for label, row in rows.items():
        costs = [cell["cost"] for cell in results["cells"] if cell["label"] == label]
        relative = next((one["relative_seconds"] for one in costs if one), None)
        row.append("-" if relative is None else f"{relative:.2f}x")
    lines = [heads, ["--"] * len(heads), *rows.values()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


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
        av.compare(plan, output=ROOT / "comparisons" / arguments.name)
    keep(arguments.name)


if __name__ == "__main__":
    main()
