"""An autoencoder whose codes are matched by the energy distance (Szekely and Rizzo 2013)."""

import dataclasses

from avae_jax import losses
from avae_jax.methods.matching import AnyPriorOptions, Matching
from avae_jax.methods.terms import RECONSTRUCTION
from avae_jax.terms import Term


class EnergyAE(Matching):
    """Descends `reconstruction + weight (2 E|z - y| - E|z - z'| - E|y - y'|)`.

    The Wasserstein autoencoder's form (Tolstikhin et al. 2018, eq. 4) with a discrepancy that has
    no kernel to choose, without bias. Of N(0, I) the means over y are exact; another prior is drawn
    from, as often as there are codes.
    """

    statistic = "energy_distance"
    terms = {
        "reconstruction": RECONSTRUCTION,
        "energy_distance": Term(caption="Energy distance", short="energy"),
    }

    def loss(self, x, x_recon, z, *, prior, key, mask):
        """Return the loss."""
        options = self.options
        exact = options.prior == "standard_normal"
        return losses.energy_ae(
            x, x_recon, z, None if exact else prior.sample(key, len(z)),
            weight=options.weight, likelihood=options.likelihood, mask=mask,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(AnyPriorOptions):
    """An autoencoder whose codes are matched to the prior by the energy distance."""

    weight: float = 50.0
    """Multiplies the distance, beside the reconstruction error summed over the pixels."""

    name = "energy_ae"
    method = EnergyAE
