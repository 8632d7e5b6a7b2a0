"""Generative encoding networks (Saha, Elhabian and Whitaker 2022, arXiv 2010.15283)."""

import dataclasses
import functools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from avae_jax import losses
from avae_jax.density import Bandwidth, find_bandwidth, null_kl
from avae_jax.methods import avae
from avae_jax.methods.method import OptionsError, make_coder, require_positive
from avae_jax.priors import StandardNormal
from avae_jax.terms import Term

_NUM_NULL = 2000
"""Codes that the divergence's null value is the mean of."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(avae.BankOptions):
    """A generative encoding network: the AVAE's density under the Jensen-Shannon divergence."""

    weight: float = 2.0
    """Multiplies the divergence, beside the reconstruction error summed over the pixels."""

    beta: ClassVar[float] = 1.0
    name = "gens"

    def check(self):
        """Refuse values that no data could make runnable."""
        super().check()
        require_positive("weight", self.weight)

    def choose_bandwidth(self, latent_dim: int) -> Bandwidth:
        """Find the bandwidth for codes distributed as the prior, or take the one given."""
        if self.bandwidth is not None:
            return super().choose_bandwidth(latent_dim)
        found = find_bandwidth(latent_dim, self.num_centers)
        h = found.h_opt
        if h >= 1:
            raise OptionsError(
                f"num_centers={self.num_centers}: in {latent_dim} dimensions the best bandwidth is "
                f"{h:.2f}, and kernels must be narrower than the prior; give more centers, fewer "
                "dimensions, a bandwidth below 1, or use method avae"
            )
        scale = math.sqrt(1 - h**2)
        null = null_kl(latent_dim, self.num_centers, bandwidth=h, scale=scale)
        return dataclasses.replace(found, h_corr=h, prior_scale=scale, null_kl=null)

    def make(self, setting, facts=None):
        """Find the bandwidth, unless `facts` hold it, and build the method."""
        found = (facts or {}).get("bandwidth")
        bandwidth = Bandwidth(**found) if found else self.choose_bandwidth(setting.latent_dim)
        prior = StandardNormal(setting.latent_dim)
        return GENs(
            options=self,
            setting=setting,
            coder=make_coder(setting, posterior="deterministic", likelihood=self.likelihood),
            facts={"bandwidth": dataclasses.asdict(bandwidth)},
            bandwidth=bandwidth,
            fixed_prior=prior,
            matched=prior,
        )


class GENs(avae.AVAE):
    """Descends `reconstruction + weight log (q(z) / (q(z) + p(z)))`, q a density of other codes.

    The AVAE's bank and floor, with the bandwidth h that is best for draws of the prior, not
    corrected for the kernels' own width: codes that match are distributed as N(0, (1 - h^2) I)
    (theorem 1). The paper finds h by the divergence itself; by the log density, as here, it is
    within .02 of the paper's table. The weight is published nowhere.
    """

    terms = {
        **{name: term for name, term in avae.AVAE.terms.items() if name != "beta"},
        "divergence": Term(caption="Divergence", short="div", unit="nats", null="null_divergence"),
    }

    @functools.cached_property
    def _loss(self):
        """Return the loss of a batch, which nothing is divided by."""

        def loss(*arrays: jax.Array, beta: jax.Array, **options: Any):
            del beta
            return losses.gens(*arrays, weight=self.options.weight, **options)

        return self.spread(loss)

    def reported(self, memory, variables):
        """Return nothing: the reconstruction is divided by nothing."""
        return {}

    def criterion(self, terms):
        """Return the loss."""
        return terms["reconstruction"] + self.options.weight * terms["divergence"]

    def null(self):
        """Return what the KL and the divergence show for perfect codes, floor included."""
        return {**super().null(), "divergence": self._null_divergence}

    @functools.cached_property
    def _null_divergence(self) -> float:
        of_codes, of_centers = jax.random.split(jax.random.key(0))
        shape = (self.options.num_centers, self.latent_dim)
        z = self.bandwidth.prior_scale * jax.random.normal(of_codes, (_NUM_NULL, self.latent_dim))
        centers = self.bandwidth.prior_scale * jax.random.normal(of_centers, shape)
        x = jnp.zeros((_NUM_NULL, 1))
        _, terms = losses.gens(
            x, x, z, centers, bandwidth=self.kernel_std, tail=self.options.tail,
            max_cdf=self._max_cdf, weight=1.0,
        )  # fmt: skip
        return float(terms["divergence"].mean())
