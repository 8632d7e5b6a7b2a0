"""Compare the moments of held-out codes with Table V of the paper, from the runs of a comparison.

    TFDS_DATA_DIR=... python benchmarks/paper_moments.py [FOLDER]

FOLDER holds what `python benchmarks/compare.py mnist` ran (comparisons/mnist). The KL between the
Gaussian with the mean and covariance of codes and the prior: of draws and means of the posterior,
and of the means in units of their own standard deviation, which leaves the shape. Writes
benchmarks/results/paper_moments.json.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, describe_machine, write_results

from avae_jax import metrics
from avae_jax.comparison.report import RESULTS_FILE
from avae_jax.evaluation.material import gather
from avae_jax.priors import PriorUnits
from avae_jax.training.run import Run, load_run

PAPER = {"avae": 0.31, "aae": 0.57, "wae": 0.84, "rae": 7.61, "vae": 19.86, "beta_tcvae": 41.6}
"""Table V of arXiv 2311.07693, MNIST: moment KL of 10,000 held-out codes, nats."""

QUANTITIES = {
    "means": "of posterior means",
    "draws": "of posterior draws",
    "own_scale": "of means, at their own scale",
}
"""What is measured, and what a table calls it."""


def measure(run: Run) -> dict[str, float]:
    """Return the moment KLs of a run's test codes, nats, by `QUANTITIES`."""
    material = gather(run)
    units = PriorUnits.of(run.prior(), seed=0)
    draws, means = units.to(material.z), units.to(material.loc)
    centered = means - means.mean(axis=0)
    scale = np.sqrt(np.mean(np.square(centered)))
    codes = {"means": means, "draws": draws, "own_scale": centered / scale}
    return {name: metrics.code_moments(z)["moment_kl"] for name, z in codes.items()}


def table(results: Mapping[str, Any]) -> str:
    """Return the means over seeds as Markdown."""
    heads = ["method", "paper", *QUANTITIES.values()]
    lines = ["| " + " | ".join(heads) + " |", "|--" * len(heads) + "|"]
    for label, paper in PAPER.items():
        found = [row for row in results["rows"] if row["label"] == label]
        cells = [f"{np.mean([row[name] for row in found]):.2f}" for name in QUANTITIES]
        lines.append(f"| `{label}` | {paper:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure the runs of the paper's methods."""
    parser = argparse.ArgumentParser(description="Compare moments of codes with the paper's.")
    place = RESULTS.parent.parent / "comparisons" / "mnist"
    parser.add_argument("folder", type=Path, nargs="?", default=place)
    folder = parser.parse_args().folder
    cells = json.loads((folder / RESULTS_FILE).read_text())["cells"]
    rows = []
    for cell in cells:
        if cell["label"] in PAPER and cell["status"] == "finished":
            row = {"label": cell["label"], "seed": cell["seed"]}
            rows.append(row | measure(load_run(folder / cell["folder"])))
            print(*rows[-1].values(), flush=True)
    write_results("paper_moments", {"machine": describe_machine("flax"), "rows": rows})
    print(table({"rows": rows}))


if __name__ == "__main__":
    main()
