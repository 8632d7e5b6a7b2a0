"""Train the AVAE on MNIST in every variant of its objective and tabulate the results.

Tail `none` or `official`, weight 1 or 1/ln 10, centers from a queue or re-encoded; the batch
normalisation of the centers; and the tail at 64 dimensions. Each row is one seed of a narrow net
that a CPU trains in minutes: rows compare with each other, not with the paper.

    TFDS_DATA_DIR=... python benchmarks/mnist_variants.py --runs runs/mnist_variants

Rows that are already there are read, not trained again. Writes benchmarks/results/
mnist_variants.json and prints the table of experiments/README.md.
"""

import argparse
import json
import time
from pathlib import Path

from common import describe_machine, write_results

from avae_jax.evaluation import evaluate_run
from avae_jax.training.config import load_experiment, replace_fields
from avae_jax.training.loop import train
from avae_jax.training.run import load_run
from avae_jax.training.writers import read_metrics

NET = {"width": 0.125, "num_epochs": 10}

VARIANTS = {
    **{
        f"{tail}-{weight}-{refresh}": {"tail": tail, "weight": weight, "refresh": refresh}
        for refresh in ("queue", "reencode")
        for tail in ("none", "official")
        for weight in ("nats", "log10")
    },
    "official-nats-queue-eval": {"refresh": "queue", "centers_mode": "eval"},
    "official-nats-reencode-eval": {"refresh": "reencode", "centers_mode": "eval"},
    "official-nats-queue-m2000": {"refresh": "queue", "num_centers": 2000},
    "none-nats-queue-m2000": {"tail": "none", "refresh": "queue", "num_centers": 2000},
    **{
        f"l64-{tail}-{refresh}": {
            "latent_dim": 64,
            "max_cdf": 1 - 1e-2,
            "tail": tail,
            "refresh": refresh,
        }
        for refresh in ("queue", "reencode")
        for tail in ("none", "official")
    },
}


def run_variant(name: str, runs: Path) -> dict:
    """Train one variant, unless its summary is there, and return its row."""
    config = replace_fields(load_experiment("mnist"), **NET, **VARIANTS[name])
    folder = runs / name
    row_file = folder / "row.json"
    if row_file.is_file():
        return json.loads(row_file.read_text())
    start = time.monotonic()
    train(config, folder)
    seconds = time.monotonic() - start
    run, last = load_run(folder), read_metrics(folder)[-1]
    summary = evaluate_run(run, quick=True)
    density = summary["latent"]["density"]
    codes = summary["latent"]["moments_against_standard_normal"]
    has_fixed_point = "fixed_point" in run.prior_names
    fields = {**NET, **VARIANTS[name]}
    options = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in fields.items())
    row = {
        "variant": name,
        "command": f"avae train mnist {options}",
        "seconds": seconds,
        "mse": summary["reconstruction"]["mse"],
        "null_kl": density["kde_kl_null"],
        "kl": density["kde_kl"],
        "kl_stderr": density["kde_kl_stderr"],
        "std": codes["std"],
        "claimed_scale": run.prior().std(),
        "fixed_point": run.prior("fixed_point").std() if has_fixed_point else None,
        "eigenvalues": [codes["eig_min"], codes["eig_median"], codes["eig_max"]],
        "whitened_entropy": density["whitened_entropy"],
        "whitened_entropy_null": density["whitened_entropy_null"],
        "tail_share": density["tail_share"],
        "staleness": last["train/staleness"],
        "last_train_kl": last["train/kl"],
        "last_validation_kl": last["validation/kl"],
    }
    row_file.write_text(json.dumps(row, indent=2) + "\n")
    return row


def table(rows: list[dict]) -> str:
    """Format the rows as a Markdown table."""
    lines = [
        "| variant | test MSE | test KL (null) | code std (claimed, expected) | covariance "
        "eigenvalues min / median / max | whitened entropy (null) | tail share | last epoch's KL "
        "train / validation |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, median, high = row["eigenvalues"]
        expected = "none" if row["fixed_point"] is None else f"{row['fixed_point']:.2f}"
        share = "-" if row["tail_share"] is None else f"{100 * row['tail_share']:.1f}%"
        lines.append(
            f"| {row['variant']} | {row['mse']:.4f} | {row['kl']:.2f} ({row['null_kl']:.2f}) | "
            f"{row['std']:.2f} ({row['claimed_scale']:.2f}, {expected}) | "
            f"{low:.3f} / {median:.3f} / {high:.3f} | "
            f"{row['whitened_entropy']:.2f} ({row['whitened_entropy_null']:.2f}) | {share} | "
            f"{row['last_train_kl']:.2f} / {row['last_validation_kl']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(
        description="Train every variant of the objective on MNIST and tabulate the results."
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/mnist_variants"))
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    arguments = parser.parse_args()
    rows = []
    for name in arguments.only:
        rows.append(run_variant(name, arguments.runs))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    if arguments.only == list(VARIANTS):
        write_results("mnist_variants", {"machine": describe_machine(), "rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
