"""A plain autoencoder: what matching the aggregate posterior is compared with."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from avae_jax import losses
from avae_jax.methods import method
from avae_jax.methods.method import Output, make_coder, require_fixed
from avae_jax.methods.terms import RECONSTRUCTION


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(method.Options):
    """A plain autoencoder, whose codes are pulled nowhere."""

    name = "ae"

    def check(self):
        """Refuse values that no data could make runnable."""
        require_fixed(self.likelihood)

    def make(self, setting, facts=None):
        """Build the method."""
        coder = make_coder(setting, posterior="deterministic", likelihood=self.likelihood)
        return Autoencoder(options=self, setting=setting, coder=coder)


class Autoencoder(method.Method):
    """Encodes to points and reconstructs them."""

    terms = {"reconstruction": RECONSTRUCTION}
    sampled_by: ClassVar[str] = "covariance"

    def losses(self, variables, memory, batch, key, *, step, train):
        """Return the reconstruction error."""
        posterior, variables = self.encode(variables, batch.x, train=train)
        z = posterior.mean()
        x_recon, variables = self.decode(variables, z, train=train)
        error = losses.reconstruction_loss(batch.x, x_recon, likelihood=self.options.likelihood)
        return Output({"model": error}, {"reconstruction": error}, variables, z)

    def criterion(self, terms: Mapping[str, Any]) -> float:
        """Return the reconstruction error."""
        return terms["reconstruction"]
