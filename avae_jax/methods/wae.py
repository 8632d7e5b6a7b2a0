"""The Wasserstein autoencoder with an MMD (Tolstikhin et al. 2018, arXiv 1711.01558)."""

import dataclasses
import math
from typing import Literal

from avae_jax import losses
from avae_jax.methods.matching import AnyPriorOptions, Matching
from avae_jax.methods.method import require
from avae_jax.methods.terms import RECONSTRUCTION
from avae_jax.posteriors import POSTERIORS
from avae_jax.terms import Term

MMD = Term(caption="MMD")


class WAE(Matching):
    """Descends `reconstruction + weight MMD^2`, between the batch's codes and as many draws.

    The estimate is the unbiased one, as in the authors' code, with its seven inverse multiquadratic
    kernels; where they keep the gradient of the Gaussian kernel's median length, it has none here.
    The optimizer is the run's: the authors' Adam with the decay rate .5, and their training of the
    encoder alone beforehand, until its codes have the prior's mean and covariance, are left out, as
    other methods are compared with the same steps.
    """

    statistic = "mmd"
    terms = {"reconstruction": RECONSTRUCTION, "mmd": MMD}

    def loss(self, x, x_recon, z, *, prior, key, mask):
        """Return the loss."""
        options = self.options
        exact = options.kernel == "rbf_exact"
        return losses.wae(
            x, x_recon, z, None if exact else prior.sample(key, len(z)),
            weight=options.weight, kernel="rbf" if exact else options.kernel,
            scale=imq_scale(options, self.latent_dim), likelihood=options.likelihood, mask=mask,
        )  # fmt: skip


def imq_scale(options, latent_dim: int) -> float | None:
    """Return the length of the IMQ kernels where the prior is N(0, I); None leaves it to draws."""
    known = options.kernel == "imq" and options.prior == "standard_normal"
    return math.sqrt(2 * latent_dim) if known else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(AnyPriorOptions):
    """A Wasserstein autoencoder, whose codes are matched to the prior by an MMD."""

    weight: float = 200.0
    """Multiplies the discrepancy, beside the reconstruction error summed over the pixels; the
    authors' 10 (MNIST) and 100 (CelebA) beside .05 of the error are 200 and 2000."""
    kernel: Literal["imq", "rbf", "rbf_exact"] = "imq"
    """imq: seven inverse multiquadratics; rbf: a Gaussian as wide as the median distance;
    rbf_exact: a Gaussian against N(0, I) in closed form, without draws."""
    posterior: "Literal[tuple(POSTERIORS)]" = "deterministic"  # pyright: ignore[reportInvalidTypeForm]
    """What an image's codes are. deterministic: one point; gaussian: an encoder with noise."""

    name = "wae"
    method = WAE

    def check(self):
        """Refuse values that no data could make runnable."""
        super().check()
        require(
            self.kernel != "rbf_exact" or self.prior == "standard_normal", "kernel", self.kernel,
            f"the closed form is of N(0, I), not of prior {self.prior}; use kernel rbf",
        )  # fmt: skip
