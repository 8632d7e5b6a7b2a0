"""Losses: arrays in, `(per_example [batch], terms)` out, in nats; the caller takes the mean.

A loss is one function in one file of this package and one line below.
"""

from avae_jax.losses.annealed_capacity import annealed_capacity, capacity_gap
from avae_jax.losses.avae import LOG10_WEIGHT, avae
from avae_jax.losses.beta_tcvae import aggregate_log_densities, beta_tcvae, kl_decomposition
from avae_jax.losses.dip_vae import covariance_departures, dip_vae
from avae_jax.losses.elbo import beta_elbo, elbo, gaussian_kl
from avae_jax.losses.factor_vae import critic_loss, factor_vae, permute_dims
from avae_jax.losses.iwae import doubly_reparameterized, iwae
from avae_jax.losses.reconstruction import reconstruction_loss
from avae_jax.losses.sigma_vae import optimal_noise_scale, sigma_vae

__all__ = [
    "LOG10_WEIGHT",
    "aggregate_log_densities",
    "annealed_capacity",
    "avae",
    "beta_elbo",
    "beta_tcvae",
    "capacity_gap",
    "covariance_departures",
    "critic_loss",
    "dip_vae",
    "doubly_reparameterized",
    "elbo",
    "factor_vae",
    "gaussian_kl",
    "iwae",
    "kl_decomposition",
    "optimal_noise_scale",
    "permute_dims",
    "reconstruction_loss",
    "sigma_vae",
]
