"""MNIST, zero-padded to 32x32, the paper's net and settings.

Paper: arXiv 2311.07693; l = 16, m = 10,000, 50 epochs.
Command: `avae prepare mnist`, then `avae train mnist`; on a CPU with `--width 0.125`.
Time: 8 minutes on two CPU cores at width 0.125; 5 hours at full width (0.7 s a step).
Expected: the paper reports a test error of .0041 per pixel and FID 13.27 (mean of five runs).
"""

from avae_jax.training.config import configure

config = configure(
    dataset="mnist",
    architecture="mnist",
    latent_dim=16,
    max_cdf=1 - 1e-4,
    num_centers=10_000,
    refresh="reencode",
    num_epochs=50,
)

# The baselines as the paper has them, in the units of this library: see README.md beside this file.
SQUARES = {"noise_scale": 0.5**0.5}
presets = {
    **dict.fromkeys(("vae", "annealed_vae", "factor_vae", "info_vae", "iwae", "dip_vae"), SQUARES),
    "beta_vae": {"beta": 4.0, **SQUARES},
    "beta_tcvae": {"beta": 2.0, **SQUARES},
    "ard_vae": {"beta": 0.5, **SQUARES},
    # Of weights 5, 10 and 20 the lowest moment KL of validation codes (width 0.125, 5 epochs).
    "gens": {"weight": 10.0, "num_centers": 10_000, "refresh": "reencode", "max_cdf": 1 - 1e-4},
    "wae": {"weight": 10 / 0.05},
    "aae": {"weight": 1 / 0.05, "critic_width": 100, "critic_layers": 3},
    "rae": {"code_weight": 1024 * 1e-4 * 2 / 16, "weight": 1024 * 1e-7},
}
