"""Losses: arrays in, `(per_example [batch], terms)` out, in nats; the caller takes the mean.

A loss is one function in one file of this package and one line below.
"""

from avae_jax.losses.aae import aae
from avae_jax.losses.ard_vae import ard_vae
from avae_jax.losses.avae import LOG10_WEIGHT, avae
from avae_jax.losses.critic import critic_loss
from avae_jax.losses.elbo import beta_elbo, elbo, gaussian_kl
from avae_jax.losses.factor_vae import factor_vae, permute_dims
from avae_jax.losses.gens import gens
from avae_jax.losses.rae import gradient_penalty, l2_penalty, rae
from avae_jax.losses.reconstruction import reconstruction_loss

__all__ = [
    "LOG10_WEIGHT",
    "aae",
    "ard_vae",
    "avae",
    "beta_elbo",
    "critic_loss",
    "elbo",
    "factor_vae",
    "gaussian_kl",
    "gens",
    "gradient_penalty",
    "l2_penalty",
    "permute_dims",
    "rae",
    "reconstruction_loss",
]
