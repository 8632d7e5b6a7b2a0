"""dSprites, Bernoulli likelihood, the net and settings of the disentanglement study.

Paper: arXiv 2501.15705; l = 6, m = 10,000, 35 epochs.
Command: `avae prepare dsprites`, then `avae train dsprites`.
Time: not measured here; it needs a GPU.
Expected: the paper reports 2.98 summed squared error per image (ten runs).
"""

from avae_jax.training.config import configure

config = configure(
    dataset="dsprites",
    architecture="factors",
    latent_dim=6,
    likelihood="bernoulli",
    max_cdf=1 - 1e-6,
    num_centers=10_000,
    refresh="reencode",
    num_epochs=35,
)

# The baselines as the paper has them, in the units of this library: see README.md beside this file.
presets = {
    "beta_vae": {"beta": 4.0},
    "beta_tcvae": {"beta": 5.0},
    "dip_vae": {"variant": "II", "lambda_od": 10.0, "lambda_d": 10.0},
    "ard_vae": {"beta": 5.0},
    "gens": {"num_centers": 10_000, "refresh": "reencode", "max_cdf": 1 - 1e-6},
    "wae": {"weight": 10 / 0.05},
    "aae": {"weight": 1 / 0.05, "critic_width": 1024, "critic_layers": 3},
    "rae": {"code_weight": 4096 * 1e-4 * 2 / 6, "weight": 4096 * 1e-6},
}
