"""Compare a step of the AVAE with a step of the same nets as a plain autoencoder.

    TFDS_DATA_DIR=... python benchmarks/train_step.py [--width 1.0] [--rounds 8]

MNIST net, batch 100, 10,000 centers. The methods take turns in one process: a round is ten steps
of each (one refresh of `reencode` included), the medians over the rounds are compared. Writes
benchmarks/results/train_step.json. Without MNIST the images are random, which costs the same.
"""

import argparse
import time
from typing import Any

import jax
import numpy as np
from common import describe_machine, write_results

from avae_jax.data import ImageData, Splits, load_dataset
from avae_jax.training.config import load_experiment, replace_fields
from avae_jax.training.setup import make_setup
from avae_jax.training.state import TrainState
from avae_jax.training.trainer import Trainer

METHODS = {
    "autoencoder": {"method": "ae"},
    "vae": {"method": "vae"},
    "avae queue": {"refresh": "queue"},
    "avae reencode": {"refresh": "reencode"},
}

STEPS = 10
"""Steps of a round: as many as between two refreshes of `reencode`."""


def random_images(shape: tuple[int, ...], num_train: int, num_other: int = 1000) -> ImageData:
    """Return noise in the form of a data set."""
    last = num_train + 2 * num_other
    images = np.random.default_rng(0).integers(0, 256, (last, *shape), dtype=np.uint8)
    rows = np.split(np.arange(last), [num_train, num_train + num_other])
    return ImageData("noise", images, None, Splits(*rows))


def mnist_or_noise() -> ImageData:
    """Return MNIST, or random images of its size where it is not prepared."""
    try:
        return load_dataset("mnist")
    except FileNotFoundError:
        return random_images((32, 32, 1), 18_000)


class Runner:
    """One method, ready to take rounds.

    Args:
      trainer: the method's compiled functions.
      state: where to start; None draws it. It is used up.
      steps: of a round; several dispatches, or one that takes more.
    """

    def __init__(self, trainer: Trainer, state: TrainState | None = None, *, steps: int = STEPS):
        self.trainer, self.steps = trainer, steps
        self.state = trainer.init() if state is None else state
        self.metrics = trainer.program.empty_metrics
        self.batches = list(trainer.feed.dispatches(0, 0))

    def round(self) -> float:
        """Take the steps and return the seconds of one."""
        start = time.perf_counter()
        taken = 0
        for batches in self.batches:
            # From the second refresh on: the first one of an epoch draws other images.
            position = taken + (self.trainer.method.host_every or 0)
            self.state = self.trainer.before_step(self.state, epoch=0, position=position)
            fetched = self.trainer.feed.fetch_steps(batches)
            self.state, self.metrics = self.trainer.advance(self.state, self.metrics, fetched)
            taken += len(batches)
            if taken >= self.steps:
                break
        jax.block_until_ready((self.state.step, self.metrics))
        return (time.perf_counter() - start) / taken


def measure(runners: dict[Any, Runner], rounds: int) -> dict[Any, list[float]]:
    """Return the seconds of a step of each runner, round by round; they take turns."""
    times: dict[Any, list[float]] = {name: [] for name in runners}
    for number in range(rounds + 1):
        for name, runner in runners.items():
            seconds = runner.round()
            if number:  # The first round compiles.
                times[name].append(seconds)
    return times


def main() -> None:
    """Take turns and print the table."""
    parser = argparse.ArgumentParser(
        description="Compare a training step of the AVAE with the autoencoder's."
    )
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    dataset = mnist_or_noise()
    config = replace_fields(load_experiment("mnist"), width=arguments.width)
    runners = {
        name: Runner(Trainer(make_setup(replace_fields(config, **fields), dataset=dataset)))
        for name, fields in METHODS.items()
    }
    times = measure(runners, arguments.rounds)
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
