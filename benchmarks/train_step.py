"""Compare a step of the AVAE with a step of the same nets as a plain autoencoder.

    TFDS_DATA_DIR=... python benchmarks/train_step.py [--width 1.0] [--rounds 8]

MNIST net, batch 100, 10,000 centers. The methods take turns in one process: a round is ten steps
of each (one refresh of `reencode` included), the medians over the rounds are compared. Writes
benchmarks/results/train_step.json. Without MNIST the images are random, which costs the same.
"""

import argparse
import time

import jax
import numpy as np
from common import describe_machine, write_results

from avae_jax.data import ImageData, Splits, load_dataset
from avae_jax.training.config import load_experiment, replace_fields
from avae_jax.training.trainer import Trainer, make_setup

METHODS = {
    "autoencoder": {"method": "ae"},
    "vae": {"method": "vae"},
    "avae queue": {"refresh": "queue"},
    "avae reencode": {"refresh": "reencode"},
}

STEPS = 10
"""Steps of a round: as many as between two refreshes of `reencode`."""


def mnist_or_noise() -> ImageData:
    """Return MNIST, or random images of its size where it is not prepared."""
    try:
        return load_dataset("mnist")
    except FileNotFoundError:
        images = np.random.default_rng(0).integers(0, 256, (20_000, 32, 32, 1), dtype=np.uint8)
        splits = Splits(np.arange(18_000), np.arange(18_000, 19_000), np.arange(19_000, 20_000))
        return ImageData("noise", images, None, splits)


class Runner:
    """One method, ready to take rounds."""

    def __init__(self, fields: dict, width: float, dataset: ImageData):
        config = replace_fields(load_experiment("mnist"), width=width, **fields)
        self.trainer = Trainer(make_setup(config, dataset=dataset))
        self.state = self.trainer.init()
        self.metrics = self.trainer.program.empty_metrics
        self.reencode = self.trainer.objective.uses_centers and config.centers.refresh == "reencode"
        self.batches = list(self.trainer.dispatches(self.state))

    def round(self) -> float:
        """Take ten steps and return the seconds of one."""
        start = time.perf_counter()
        taken = 0
        centers = self.state.centers
        if self.reencode and centers is not None:
            index = np.asarray(centers.index)
            self.state = self.trainer.refresh(self.state, index, step=int(self.state.step))
        for batches in self.batches:
            fetched = self.trainer.fetch(batches)
            self.state, self.metrics = self.trainer.advance(self.state, self.metrics, fetched)
            taken += len(batches)
            if taken >= STEPS:
                break
        jax.block_until_ready((self.state.step, self.metrics))
        return (time.perf_counter() - start) / taken


def main() -> None:
    """Take turns and print the table."""
    parser = argparse.ArgumentParser(
        description="Compare a training step of the AVAE with the autoencoder's."
    )
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    dataset = mnist_or_noise()
    runners = {name: Runner(fields, arguments.width, dataset) for name, fields in METHODS.items()}
    times: dict[str, list[float]] = {name: [] for name in runners}
    for number in range(arguments.rounds + 1):
        for name, runner in runners.items():
            seconds = runner.round()
            if number:  # The first round compiles.
                times[name].append(seconds)
    base = np.array(times["autoencoder"])
    rows = []
    print(f"{'method':16} {'ms/step':>9} {'min':>9} {'max':>9} {'ratio':>7}")
    for name, values in times.items():
        # The ratio within a round cancels most of what else the machine was doing.
        ratio = float(np.median(np.array(values) / base))
        row = {"method": name, "seconds": values, "median": float(np.median(values))}
        rows.append(row | {"ratio": ratio})
        low, high = 1e3 * min(values), 1e3 * max(values)
        print(f"{name:16} {1e3 * row['median']:9.2f} {low:9.2f} {high:9.2f} {ratio:7.3f}")
    write_results(
        "train_step",
        {
            "machine": describe_machine("flax", "optax"),
            "net": f"mnist, width {arguments.width:g}, {dataset.name}",
            "batch_size": 100,
            "num_centers": 10_000,
            "steps_per_round": STEPS,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
