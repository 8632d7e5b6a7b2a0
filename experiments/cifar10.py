"""CIFAR-10, the paper's net and settings.

Paper: arXiv 2311.07693; l = 128, m = 10,000, 100 epochs.
Command: `avae prepare cifar10`, then `avae train cifar10`.
Time: not measured here; it needs a GPU.
Expected: the paper reports a test error of .0062 per pixel and FID 90.93 (mean of five runs).
"""

from avae_jax.training.config import configure

config = configure(
    dataset="cifar10",
    architecture="cifar10",
    latent_dim=128,
    max_cdf=1 - 1e-1,
    num_centers=10_000,
    refresh="reencode",
    num_epochs=100,
    plateau_patience=10,
)

# The baselines as the paper has them, in the units of this library: see README.md beside this file.
SQUARES = {"noise_scale": 0.5**0.5}
presets = {
    **dict.fromkeys(("vae", "annealed_vae", "factor_vae", "info_vae", "iwae", "dip_vae"), SQUARES),
    "beta_vae": {"beta": 4.0, **SQUARES},
    "beta_tcvae": {"beta": 2.0, **SQUARES},
    "ard_vae": {"beta": 0.05, **SQUARES},
    "wae": {"weight": 100 / 0.05},
    "aae": {"weight": 1 / 0.05, "critic_width": 2048, "critic_layers": 3},
    "rae": {"code_weight": 1024 * 1e-3 * 2 / 128, "weight": 1024 * 1e-6},
}
