"""The embedded digits: 1,797 real 8x8 images, a first run in about a minute.

Paper: none; a small stand-in for its MNIST experiment (arXiv 2311.07693).
Command: `avae train digits` (or `make train`).
Time: about one minute on two CPU cores.
"""

from avae_jax.training.config import (
    CentersConfig,
    Config,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizationConfig,
)

config = Config(
    data=DataConfig(dataset="digits"),
    model=ModelConfig(architecture="digits", latent_dim=8),
    objective=ObjectiveConfig(tail="official", max_cdf=1 - 1e-6),
    centers=CentersConfig(num_centers=1000),
    optimization=OptimizationConfig(num_epochs=200, learning_rate=1e-3, plateau_patience=15),
)
