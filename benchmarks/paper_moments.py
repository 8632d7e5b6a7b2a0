"""Compare the moments of held-out codes with Table V of the paper, from the runs of a comparison.

    python benchmarks/paper_moments.py [FOLDER]

FOLDER holds what `python benchmarks/compare.py mnist` ran (comparisons/mnist). The KL between the
Gaussian with the mean and covariance of codes and the prior: of posterior means, of draws, and of
draws about their own mean in units of their own standard deviation, which leaves the shape. Writes
benchmarks/results/paper_moments.json.
"""

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import RESULTS, describe_machine, write_results

PAPER = {"avae": 0.31, "aae": 0.57, "wae": 0.84, "rae": 7.61, "vae": 19.86, "beta_tcvae": 41.6}
"""Table V of arXiv 2311.07693, MNIST: moment KL of 10,000 held-out codes, nats."""

QUANTITIES = {
    "means": "of posterior means",
    "draws": "of posterior draws",
    "own_scale": "of draws, at their own mean and scale",
}
"""What is compared, and what a table calls it."""


def moments_of(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the moment KLs of an evaluation, nats, by `QUANTITIES`."""
    moments, d = summary["latent"]["moments"], summary["about"]["latent_dim"]
    # What a mean m and a variance s^2 in all dimensions add: (d s^2 + |m|^2 - d - d log s^2) / 2.
    square = moments["std"] ** 2
    added = 0.5 * (d * (square - 1 - math.log(square)) + moments["mean_norm"] ** 2)
    draws = moments["moment_kl"]
    return {"means": moments["moment_kl_means"], "draws": draws, "own_scale": draws - added}


def table(results: Mapping[str, Any]) -> str:
    """Return the means over seeds as Markdown."""
    from avae_jax.comparison.report import aligned

    rows = []
    for label, paper in PAPER.items():
        found = [row for row in results["rows"] if row["label"] == label]
        means = [sum(row[name] for row in found) / len(found) for name in QUANTITIES]
        rows.append([f"`{label}`", f"{paper:g}", *(f"{mean:.2f}" for mean in means)])
    return aligned(["method", "paper", *QUANTITIES.values()], rows).rstrip()


def main() -> None:
    """Read the evaluations of the paper's methods."""
    from avae_jax.comparison.report import RESULTS_FILE

    parser = argparse.ArgumentParser(description="Compare moments of codes with the paper's.")
    place = RESULTS.parent.parent / "comparisons" / "mnist"
    parser.add_argument("folder", type=Path, nargs="?", default=place)
    folder = parser.parse_args().folder
    rows = []
    for cell in json.loads((folder / RESULTS_FILE).read_text())["cells"]:
        if cell["label"] in PAPER and cell["status"] == "finished":
            summary = folder / cell["folder"] / "evaluation" / "summary.json"
            found = moments_of(json.loads(summary.read_text()))
            rows.append({"label": cell["label"], "seed": cell["seed"], **found})
    results = {"machine": describe_machine("flax"), "rows": rows}
    write_results("paper_moments", results)
    print(table(results))


if __name__ == "__main__":
    main()
