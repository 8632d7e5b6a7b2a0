"""Losses: arrays in, `(per_example [batch], terms)` out, in nats; the caller takes the mean.

A loss is one function in one file of this package and one line below.
"""

from avae_jax.losses.aae import aae
from avae_jax.losses.annealed_capacity import annealed_capacity, capacity_gap
from avae_jax.losses.ard_vae import ard_vae
from avae_jax.losses.avae import LOG10_WEIGHT, avae
from avae_jax.losses.batch import unit_directions
from avae_jax.losses.beta_tcvae import aggregate_log_densities, beta_tcvae, kl_decomposition
from avae_jax.losses.critic import critic_loss
from avae_jax.losses.cwae import cramer_wold, cwae
from avae_jax.losses.dip_vae import covariance_departures, dip_vae
from avae_jax.losses.elbo import beta_elbo, elbo, gaussian_kl
from avae_jax.losses.energy_ae import energy_ae, energy_distance
from avae_jax.losses.factor_vae import factor_vae, permute_dims
from avae_jax.losses.gens import gens
from avae_jax.losses.info_vae import info_vae
from avae_jax.losses.iwae import doubly_reparameterized, iwae
from avae_jax.losses.rae import gradient_penalty, l2_penalty, rae
from avae_jax.losses.reconstruction import reconstruction_loss
from avae_jax.losses.sigma_vae import optimal_noise_scale, sigma_vae
from avae_jax.losses.sigreg import epps_pulley, sigreg
from avae_jax.losses.sinkhorn_ae import sinkhorn_ae, sinkhorn_divergence
from avae_jax.losses.swae import sliced_wasserstein, swae
from avae_jax.losses.wae import mmd, mmd_standard_normal, wae

__all__ = [
    "LOG10_WEIGHT",
    "aae",
    "aggregate_log_densities",
    "annealed_capacity",
    "ard_vae",
    "avae",
    "beta_elbo",
    "beta_tcvae",
    "capacity_gap",
    "covariance_departures",
    "cramer_wold",
    "critic_loss",
    "cwae",
    "dip_vae",
    "doubly_reparameterized",
    "elbo",
    "energy_ae",
    "energy_distance",
    "epps_pulley",
    "factor_vae",
    "gaussian_kl",
    "gens",
    "gradient_penalty",
    "info_vae",
    "iwae",
    "kl_decomposition",
    "l2_penalty",
    "mmd",
    "mmd_standard_normal",
    "optimal_noise_scale",
    "permute_dims",
    "rae",
    "reconstruction_loss",
    "sigma_vae",
    "sigreg",
    "sinkhorn_ae",
    "sinkhorn_divergence",
    "sliced_wasserstein",
    "swae",
    "unit_directions",
    "wae",
]
