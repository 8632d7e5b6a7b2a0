"""Put the tables that come from JSON results into the documentation.

    python benchmarks/update_tables.py [--check]

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`. With `--check` nothing is written and
the exit code is 1 when a file is not up to date.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from accelerator import table as accelerator_table
from common import RESULTS
from mnist_variants import table as mnist_table
from pairwise_lse import table as kernel_table

ROOT = Path(__file__).parent.parent


def read(name: str) -> dict:
    """Return the results of one benchmark."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def step_table() -> str:
    """Return the training step beside the autoencoder's."""
    lines = ["| step of | ms | against the autoencoder |", "|--|--|--|"]
    for row in read("train_step")["rows"]:
        lines.append(f"| {row['method']} | {1e3 * row['median']:.0f} | {row['ratio']:.2f}x |")
    return "\n".join(lines)


def kernel_tables() -> str:
    """Return a table of the kernel for each kind of processor that has been measured."""
    paths = sorted(RESULTS.glob("pairwise_lse_cpu_*.json"))
    return "\n\n".join(kernel_table(json.loads(path.read_text())) for path in paths)


def accelerator_tables() -> str:
    """Return a table for each accelerator that has been measured."""
    paths = sorted(RESULTS.glob("accelerator_*.json"))
    reports = [accelerator_table(json.loads(path.read_text())) for path in paths]
    return "\n\n".join(reports) or "No GPU or TPU has been measured yet."


TABLES = {
    "README.md": {
        "kernel": kernel_tables,
        "step": step_table,
        "accelerators": accelerator_tables,
    },
    "experiments/README.md": {
        "mnist_variants": lambda: mnist_table(read("mnist_variants")["rows"])
    },
}


def main() -> None:
    """Rewrite the tables, or check them."""
    parser = argparse.ArgumentParser(description="Put the tables of results into the documentation")
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for name, tables in TABLES.items():
        path = ROOT / name
        text = new = path.read_text()
        for table, make in tables.items():
            pattern = rf"<!-- {table} -->.*?<!-- /{table} -->"
            block = f"<!-- {table} -->\n{make()}\n<!-- /{table} -->"
            new, count = re.subn(pattern, lambda _, block=block: block, new, flags=re.DOTALL)
            if not count:
                sys.exit(f"{name} has no place for the table {table!r}")
        if new != text:
            stale.append(name)
            if not check:
                path.write_text(new)
    if check and stale:
        sys.exit(f"not up to date: {', '.join(stale)}; run python benchmarks/update_tables.py")


if __name__ == "__main__":
    main()
