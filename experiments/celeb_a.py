"""CelebA, cropped and resized to 64x64, the paper's net and settings.

Paper: arXiv 2311.07693; l = 64, m = 20,000, 50 epochs.
Command: `avae prepare celeb_a`, then `avae train celeb_a`.
Time: not measured here; it needs a GPU.
Expected: the paper reports a test error of .0198 per value in [-1, 1] and FID 46.0 (five runs).
"""

from avae_jax.training.config import configure

config = configure(
    dataset="celeb_a",
    architecture="celeb_a",
    latent_dim=64,
    max_cdf=1 - 1e-2,
    num_centers=20_000,
    refresh="reencode",
    num_epochs=50,
)
