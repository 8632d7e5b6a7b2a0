"""The sliced Wasserstein autoencoder (Kolouri et al. 2019, arXiv 1804.01947)."""

import dataclasses

import jax

from avae_jax import losses
from avae_jax.methods.matching import AnyPriorOptions, Matching
from avae_jax.methods.method import require
from avae_jax.methods.terms import RECONSTRUCTION
from avae_jax.terms import Term


class SWAE(Matching):
    """Descends `reconstruction + weight SW^2`, over random directions.

    Sorted coordinates of the batch's codes are compared with those of as many draws of the prior
    (algorithm 1); where it is N(0, I), with the quantiles of N(0, 1) instead, which are what the
    draws are on average and halve the value that is left when codes and prior agree.
    """

    statistic = "sliced_wasserstein"
    terms = {
        "reconstruction": RECONSTRUCTION,
        "sliced_wasserstein": Term(caption="Sliced Wasserstein", short="SW^2", log=True),
    }

    def loss(self, x, x_recon, z, *, prior, key, mask):
        """Return the loss."""
        of_draws, of_directions = jax.random.split(key)
        options = self.options
        exact = options.prior == "standard_normal"
        return losses.swae(
            x, x_recon, z, None if exact else prior.sample(of_draws, len(z)),
            losses.unit_directions(of_directions, self.latent_dim, options.num_directions),
            weight=options.weight, likelihood=options.likelihood, mask=mask,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(AnyPriorOptions):
    """A sliced Wasserstein autoencoder, whose codes are matched along random directions."""

    weight: float = 10.0
    """Multiplies the distance, beside the reconstruction error summed over the pixels."""
    num_directions: int = 50
    """Directions per step, drawn again for each."""

    name = "swae"
    method = SWAE

    def check(self):
        """Refuse values that no data could make runnable."""
        super().check()
        require(self.num_directions >= 1, "num_directions", self.num_directions, "give at least 1")
