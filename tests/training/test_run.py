"""A run as it is read back: what is compiled for it serves other runs too."""

from pathlib import Path

import jax
import numpy as np

from avae_jax.training.run import Run
from avae_jax.training.setup import make_setup


def test_runs_of_one_configuration_need_the_same_programs(blobs, small_config):
    """Weights are arguments: as constants they would be in the program, and make it another."""
    method = make_setup(small_config, dataset=blobs).method
    variables = jax.jit(method.init)(jax.random.key(0))
    codes = np.ones((2, small_config.model.latent_dim), np.float32)
    programs, decoded = [], []
    for own in (variables, jax.tree.map(lambda leaf: 1.5 * leaf, variables)):
        run = Run(Path(), small_config, method, own, step=0)
        calls = ((run._encode, blobs.images[:2]), (run.decode_batch, codes))
        programs.append([it.func.lower(*it.args, array).as_text() for it, array in calls])
        decoded.append(run.decode(codes))
    assert programs[0] == programs[1]
    assert np.abs(decoded[0] - decoded[1]).max() > 1e-3
