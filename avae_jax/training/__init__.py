"""The training loop and what it needs: configuration, state, step, checkpoints, writers."""
