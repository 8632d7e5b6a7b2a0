"""MNIST, zero-padded to 32x32, the paper's net and settings.

Paper: arXiv 2311.07693; l = 16, m = 10,000, 50 epochs.
Command: `avae prepare mnist`, then `avae train mnist`; on a CPU
`avae train mnist --width 0.25 --num-epochs 10`.
Time: see experiments/README.md for the runs that were measured.
Expected: the paper reports a test error of .0041 per pixel and FID 13.27 (mean of five runs).
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
    data=DataConfig(dataset="mnist"),
    model=ModelConfig(architecture="mnist", latent_dim=16),
    objective=ObjectiveConfig(tail="official", max_cdf=1 - 1e-4),
    centers=CentersConfig(num_centers=10_000),
    optimization=OptimizationConfig(num_epochs=50),
)
