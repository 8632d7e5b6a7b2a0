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

# The baselines as the paper has them, in the units of this library: see README.md beside this file.
SQUARES = {"noise_scale": 0.5**0.5}
presets = {
    **dict.fromkeys(("vae", "annealed_vae", "factor_vae", "info_vae", "iwae", "dip_vae"), SQUARES),
    "beta_vae": {"beta": 4.0, **SQUARES},
    "beta_tcvae": {"beta": 2.0, **SQUARES},
    "ard_vae": {"beta": 3.0, **SQUARES},
    "wae": {"weight": 100 / 0.05},
    "aae": {"weight": 1 / 0.05, "critic_width": 2048, "critic_layers": 3},
    "rae": {"code_weight": 4096 * 1e-4 * 2 / 64, "weight": 4096 * 1e-7},
}
