"""CelebA, cropped and resized to 64x64, the paper's net and settings.

Paper: arXiv 2311.07693; l = 64, m = 20,000, 50 epochs.
Command: `avae prepare celeb_a`, then `avae train celeb_a`.
Time: not measured here; it needs a GPU.
Expected: the paper reports a test error of .0198 per value in [-1, 1] and FID 46.0 (five runs).
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
    data=DataConfig(dataset="celeb_a"),
    model=ModelConfig(architecture="celeb_a", latent_dim=64),
    objective=ObjectiveConfig(tail="official", max_cdf=1 - 1e-2),
    centers=CentersConfig(num_centers=20_000, refresh="reencode"),
    optimization=OptimizationConfig(num_epochs=50),
)
