"""The beta-VAE (Higgins et al. 2017, eq. 4): a VAE whose KL is multiplied by a number.

Papers also state `beta_norm = beta d / D`, with d dimensions of a code and D pixels: give
`beta = beta_norm D / d`. What a beta does depends on the noise scale too: up to a factor of the
loss, a fixed one with beta is `sqrt(beta)` times that scale without.
"""

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
