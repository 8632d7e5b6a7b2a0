"""A small data set and a configuration that trains on it in a moment."""

import dataclasses

import numpy as np
import pytest

from avae_jax.data import ImageData, Splits
from avae_jax.training import config as cfg

NUM_IMAGES = 400


@pytest.fixture(autouse=True, scope="module")
def _quick(quick_compiler):
    """Compile quickly: whole steps compile for seconds and run for moments."""


@pytest.fixture(scope="session")
def blobs() -> ImageData:
    """Smooth 8x8 bumps at random places, uint8."""
    rng = np.random.default_rng(0)
    centre = rng.uniform(1, 7, (NUM_IMAGES, 2, 1, 1))
    rows, columns = np.mgrid[:8, :8]
    distance = (rows - centre[:, 0]) ** 2 + (columns - centre[:, 1]) ** 2
    images = (255 * np.exp(-distance / 4)).astype(np.uint8)[..., None]
    order = rng.permutation(NUM_IMAGES)
    parts = (np.sort(part).astype(np.int32) for part in np.split(order, [280, 340]))
    return ImageData("blobs", images, (centre[:, 0, 0, 0] > 4).astype(np.int64), Splits(*parts))


@pytest.fixture(scope="session")
def small_config() -> cfg.Config:
    """An AVAE with one small hidden layer, four steps an epoch."""
    config = cfg.configure(
        architecture="mlp", latent_dim=3, width=0.1, max_cdf=1 - 1e-4, num_centers=200,
        batch_size=64, num_epochs=2, learning_rate=1e-3,
    )  # fmt: skip
    return dataclasses.replace(config, experiment="blobs")
