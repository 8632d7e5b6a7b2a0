"""The beta-VAE (Higgins et al. 2017): a VAE whose KL is multiplied by a number."""

import dataclasses

from avae_jax.methods import vae
from avae_jax.methods.method import require, require_positive


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(vae.Options):
    """A beta-VAE: a VAE whose pull to the prior is multiplied by beta."""

    beta: float | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Multiplies the KL; 1 is a VAE."""

    name = "beta_vae"

    def check(self):
        """Refuse values that no data could make runnable."""
        super().check()
        require(self.beta is not None, "beta", None, "method beta_vae needs a number > 0")
        require_positive("beta", self.beta)
