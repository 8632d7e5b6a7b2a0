"""The sigma-VAE (Rybkin, Daniilidis and Levine 2021, arXiv 2006.13202): noise of each batch."""

import dataclasses
from typing import ClassVar

from avae_jax import losses
from avae_jax.likelihoods import Gaussian, Likelihood
from avae_jax.methods import vae
from avae_jax.methods.method import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(vae.Options):
    """A sigma-VAE: a VAE whose noise scale is, in every step, the best one for the batch."""

    # It follows from the batch.
    noise_scale: ClassVar[None] = None  # pyright: ignore[reportIncompatibleVariableOverride]

    name = "sigma_vae"

    def check(self):
        """Refuse values that no data could make runnable."""
        super().check()
        require(
            self.likelihood == "gaussian", "likelihood", self.likelihood,
            "the best noise of a batch is known for likelihood gaussian; use it, or method vae",
        )  # fmt: skip

    def make(self, setting, facts=None):
        """Build the method."""
        coder = self.make_coder(setting, posterior=self.posterior)
        return SigmaVAE(options=self, setting=setting, coder=coder)


class SigmaVAE(vae.VAE):
    """Descends the negative ELBO at the noise scale that is best for the batch itself.

    Its square is the mean squared error per pixel of the batch, in closed form and without a
    gradient. The VAE that measures its noise does the same with the error of the validation split,
    one validation late.

    Where nothing is trained the noise must not know the image that it judges: there it is that of
    the validation split, measured as the VAE's is.
    """

    def likelihood_of(self, variables, batch, outputs, *, train) -> Likelihood:
        """Return the likelihood with the batch's noise in training, else the measured one."""
        if not train:
            return self.likelihood(variables)
        return Gaussian(losses.optimal_noise_scale(batch.x, outputs, mask=batch.mask))
