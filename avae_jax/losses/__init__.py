"""Losses: arrays in, `(per_example [batch], terms)` out, in nats; the caller takes the mean.

A loss is one function in one file of this package and one line below.
"""

from avae_jax.losses.avae import LOG10_WEIGHT, avae
from avae_jax.losses.beta_tcvae import aggregate_log_densities, beta_tcvae, kl_decomposition
from avae_jax.losses.elbo import beta_elbo, elbo, gaussian_kl
from avae_jax.losses.factor_vae import critic_loss, factor_vae, permute_dims
from avae_jax.losses.reconstruction import reconstruction_loss

__all__ = [
    "LOG10_WEIGHT",
    "aggregate_log_densities",
    "avae",
    "beta_elbo",
    "beta_tcvae",
    "critic_loss",
    "elbo",
    "factor_vae",
    "gaussian_kl",
    "kl_decomposition",
    "permute_dims",
    "reconstruction_loss",
]
