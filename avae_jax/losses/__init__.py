"""Losses: arrays in, `(per_example [batch], terms)` out, in nats; the caller takes the mean.

A loss is one function in one file of this package and one line below.
"""

from avae_jax.losses.avae import LOG10_WEIGHT, avae
from avae_jax.losses.batch import unit_directions
from avae_jax.losses.cwae import cramer_wold, cwae
from avae_jax.losses.elbo import beta_elbo, elbo, gaussian_kl
from avae_jax.losses.energy_ae import energy_ae, energy_distance
from avae_jax.losses.factor_vae import critic_loss, factor_vae, permute_dims
from avae_jax.losses.info_vae import info_vae
from avae_jax.losses.reconstruction import reconstruction_loss
from avae_jax.losses.sigreg import epps_pulley, sigreg
from avae_jax.losses.sinkhorn_ae import sinkhorn_ae, sinkhorn_divergence
from avae_jax.losses.swae import sliced_wasserstein, swae
from avae_jax.losses.wae import mmd, mmd_standard_normal, wae

__all__ = [
    "LOG10_WEIGHT",
    "avae",
    "beta_elbo",
    "cramer_wold",
    "critic_loss",
    "cwae",
    "elbo",
    "energy_ae",
    "energy_distance",
    "epps_pulley",
    "factor_vae",
    "gaussian_kl",
    "info_vae",
    "mmd",
    "mmd_standard_normal",
    "permute_dims",
    "reconstruction_loss",
    "sigreg",
    "sinkhorn_ae",
    "sinkhorn_divergence",
    "sliced_wasserstein",
    "swae",
    "unit_directions",
    "wae",
]
