"""3D Shapes, the net and settings of the disentanglement study.

Paper: arXiv 2501.15705; l = 6, m = 10,000, 60 epochs.
Command: `avae prepare shapes3d`, then `avae train shapes3d`.
Time: not measured here; it needs a GPU.
Expected: the paper reports 10.29 summed squared error per image (ten runs).
"""

from avae_jax.training.config import configure

config = configure(
    dataset="shapes3d",
    architecture="factors",
    latent_dim=6,
    max_cdf=1 - 1e-6,
    num_centers=10_000,
    refresh="reencode",
    num_epochs=60,
    plateau_patience=100,
)
