"""The Cramer-Wold autoencoder (Knop et al. 2020, arXiv 1805.09235)."""

import dataclasses

from avae_jax import losses
from avae_jax.methods.matching import Matching, MatchingOptions
from avae_jax.methods.terms import RECONSTRUCTION
from avae_jax.terms import Term


class CWAE(Matching):
    """Descends `reconstruction + weight log CW^2`, the distance to N(0, I) in closed form.

    The logarithm is the paper's, whose loss is a mean squared error per pixel plus `log CW^2`. The
    authors' code has an approximation for 20 dimensions and more and refuses 3 to 19; the exact
    function is used here in every dimension.
    """

    statistic = "log_cramer_wold"
    terms = {
        "reconstruction": RECONSTRUCTION,
        "log_cramer_wold": Term(caption="Cramer-Wold, log", short="log CW", unit="nats"),
    }

    def loss(self, x, x_recon, z, *, prior, key, mask):
        """Return the loss."""
        options = self.options
        return losses.cwae(
            x, x_recon, z, weight=options.weight, likelihood=options.likelihood, mask=mask
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(MatchingOptions):
    """A Cramer-Wold autoencoder, whose codes are matched to N(0, I) without draws."""

    weight: float = 10.0
    """Multiplies the logarithm of the distance, beside the reconstruction error summed over the
    pixels; the paper's 1 beside a mean over the pixels is their number."""

    name = "cwae"
    method = CWAE
