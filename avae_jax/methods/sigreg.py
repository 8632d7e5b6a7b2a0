"""SIGReg (Balestriero and LeCun 2025, arXiv 2511.08544) beside a reconstruction."""

import dataclasses

from avae_jax import losses
from avae_jax.methods.matching import Matching, MatchingOptions
from avae_jax.methods.method import require
from avae_jax.methods.terms import RECONSTRUCTION
from avae_jax.terms import Term


class SIGReg(Matching):
    """Descends `reconstruction + weight T`, T the statistic of Epps and Pulley along directions.

    T is the paper's, with its factor of the batch size and its bias: it is 1.06 on average for
    codes of N(0, I) whatever the batch size, and the null value beside it says so. The paper has it
    beside a prediction of codes by codes, so that its weights mean nothing here.
    """

    statistic = "epps_pulley"
    terms = {
        "reconstruction": RECONSTRUCTION,
        "epps_pulley": Term(caption="SIGReg", log=True),
    }

    def loss(self, x, x_recon, z, *, prior, key, mask):
        """Return the loss."""
        options = self.options
        return losses.sigreg(
            x, x_recon, z,
            losses.unit_directions(key, self.latent_dim, options.num_directions),
            weight=options.weight, likelihood=options.likelihood, mask=mask,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(MatchingOptions):
    """An autoencoder whose codes' projections are matched to N(0, 1) by SIGReg."""

    weight: float = 1.0
    """Multiplies the statistic, beside the reconstruction error summed over the pixels."""
    num_directions: int = 256
    """Directions per step, drawn again for each; the paper takes 256 to 1024."""

    name = "sigreg"
    method = SIGReg

    def check(self):
        """Refuse values that no data could make runnable."""
        super().check()
        require(self.num_directions >= 1, "num_directions", self.num_directions, "give at least 1")
