"""shapes3d_like, the rendered stand-in for 3D Shapes, with the settings of its experiment.

Paper: none; arXiv 2501.15705 has the method on 3D Shapes. Scores here are not 3D Shapes scores.
Command: `avae train shapes3d_like`; nothing to download.
Time: not measured here; it needs a GPU.
Expected: not measured.
"""

from avae_jax.training.config import configure

config = configure(
    dataset="shapes3d_like",
    architecture="factors",
    latent_dim=6,
    max_cdf=1 - 1e-6,
    num_centers=10_000,
    refresh="reencode",
    num_epochs=60,
    plateau_patience=100,
)
