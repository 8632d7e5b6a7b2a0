"""Compare a training step of every method with the plain autoencoder's of the same nets.

    TFDS_DATA_DIR=... python benchmarks/method_steps.py [METHOD ...]

MNIST net of an eighth of the width, batch 100, 16 dimensions, each method's options as its
experiment has them. A method and the autoencoder take turns in one process. Beside the time stand
the floating-point operations of the compiled step. Writes benchmarks/results/method_steps.json.
Without MNIST the images are random, which costs the same.
"""

import argparse
import functools
from typing import Any

from common import describe_machine, write_results
from train_step import mnist_or_noise

from avae_jax.comparison.cost import Meter
from avae_jax.methods import METHODS
from avae_jax.training.config import Config, load_experiment, replace_fields
from avae_jax.training.setup import make_setup

WIDTH = 0.125

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "avae, centers encoded again": ("avae", {"refresh": "reencode", "num_centers": 10_000}),
    "gens, centers encoded again": ("gens", {"refresh": "reencode", "num_centers": 10_000}),
    "beta_tcvae, exact": ("beta_tcvae", {"density": "exact"}),
    "aae, critic of 3 x 256": ("aae", {"critic_width": 256, "critic_layers": 3}),
    "factor_vae, critic of 4 x 256": ("factor_vae", {"critic_width": 256, "critic_layers": 4}),
    "rae, gradient penalty": ("rae", {"regularizer": "gradient", "weight": 1e-3}),
    "rae, spectral norm": ("rae", {"regularizer": "spectral", "weight": None}),
}
"""Options that change what a step costs."""


def configurations() -> dict[str, Config]:
    """Return what is measured, by name."""
    # A queue of 20 batches: what the documentation recommends.
    queue = {"refresh": "queue", "num_centers": 2000}
    with_bank = {name: (name, queue) for name in ("avae", "gens")}
    found = {name: (name, {}) for name in METHODS} | with_bank | VARIANTS
    return {
        name: replace_fields(load_experiment("mnist", method), width=WIDTH, **fields)
        for name, (method, fields) in found.items()
    }


def main() -> None:
    """Take turns and print the table."""
    parser = argparse.ArgumentParser(description="Compare training steps with the autoencoder's.")
    parser.add_argument("methods", nargs="*", metavar="METHOD")
    parser.add_argument("--repeats", type=int, default=3, help="measurements per method")
    arguments = parser.parse_args()
    known = configurations()
    meter = Meter(functools.partial(make_setup, dataset=mnist_or_noise()))
    rows = []
    print(f"{'method':32} {'MFLOP':>9} {'ratio':>6} {'ms':>8} {'ratio':>6}")
    for name in arguments.methods or known:
        tries = [meter.measure(known[name]) for _ in range(arguments.repeats)]
        middle = sorted(tries, key=lambda one: one["relative_seconds"])[len(tries) // 2]
        rows.append({"method": name, **middle})
        print(
            f"{name:32} {middle['flops'] / 1e6:9.1f} {middle['relative_flops']:6.3f} "
            f"{1e3 * middle['seconds']:8.2f} {middle['relative_seconds']:6.3f}",
            flush=True,
        )
    if not arguments.methods:
        net = f"mnist, width {WIDTH:g}"
        about = {"machine": describe_machine("flax", "optax"), "net": net, "batch_size": 100}
        write_results("method_steps", {**about, "rows": rows})


if __name__ == "__main__":
    main()
