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

# The baselines as the paper has them, in the units of this library: see README.md beside this file.
SQUARES = {"noise_scale": 0.5**0.5}
presets = {
    **dict.fromkeys(("vae", "annealed_vae", "factor_vae", "info_vae", "iwae"), SQUARES),
    "beta_vae": {"beta": 4.0, **SQUARES},
    "beta_tcvae": {"beta": 5.0, **SQUARES},
    "dip_vae": {"variant": "II", "lambda_od": 10.0, "lambda_d": 10.0, **SQUARES},
    "ard_vae": {"beta": 5.0, **SQUARES},
    "gens": {"num_centers": 10_000, "refresh": "reencode", "max_cdf": 1 - 1e-6},
    "wae": {"weight": 10 / 0.05},
    "aae": {"weight": 1 / 0.05, "critic_width": 1024, "critic_layers": 3},
    "rae": {"code_weight": 4096 * 1e-4 * 2 / 6, "weight": 4096 * 1e-6},
}
