"""The command line, sent a signal of its own after a training step.

python tests/ended_at.py STEP SIGNAL train EXPERIMENT ...
"""

import os
import signal
import sys

from avae_jax import cli
from avae_jax.training.trainer import Trainer


def main(step: int, number: signal.Signals, arguments: list[str]) -> None:
    """Run a command; end it in the middle of what it does."""
    original = Trainer.advance

    def advance(self, state, metrics, fetched):
        state, metrics = original(self, state, metrics, fetched)
        if int(state.step) == step:
            os.kill(os.getpid(), number)
        return state, metrics

    Trainer.advance = advance
    cli.main(arguments)


if __name__ == "__main__":
    main(int(sys.argv[1]), signal.Signals[sys.argv[2]], sys.argv[3:])
