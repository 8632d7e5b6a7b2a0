"""What methods share that encode to points and pull a statistic of the batch's codes to the prior.

The Wasserstein autoencoder's form (Tolstikhin et al. 2018, arXiv 1711.01558, eq. 4): reconstruction
plus a weight times a distance between the codes of a batch and the prior.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from avae_jax.methods import method
from avae_jax.methods.method import (
    Batch,
    Output,
    Player,
    make_coder,
    require,
    require_fixed,
    require_positive,
)
from avae_jax.priors import PRIORS, Prior, make_prior

_NUM_NULL = 64
"""Batches of the prior's draws that a null value is the mean of."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchingOptions(method.Options):
    """What all have that match a batch of codes with the prior."""

    weight: float = 1.0
    """Multiplies the distance of the batch's codes from the prior, beside the reconstruction error
    summed over the pixels."""

    method: ClassVar[type]

    # Those that have the choice declare a field of the name.
    posterior: ClassVar[str] = "deterministic"
    prior: ClassVar[str] = "standard_normal"
    num_components: ClassVar[int] = 1

    def check(self):
        """Refuse values that no data could make runnable."""
        require_fixed(self.likelihood)
        require_positive("weight", self.weight)

    def make(self, setting, facts=None):
        """Build the method."""
        coder = make_coder(setting, posterior=self.posterior, likelihood=self.likelihood)
        return self.method(options=self, setting=setting, coder=coder)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnyPriorOptions(MatchingOptions):
    """What those have that compare codes with draws, of any prior."""

    prior: "Literal[tuple(PRIORS)]" = "standard_normal"  # pyright: ignore[reportInvalidTypeForm]
    """standard_normal: N(0, I); mixture: a mixture of Gaussians that is drawn from the seed. It
    stays as it is."""
    num_components: int = 10
    """prior mixture: its components."""

    def check(self):
        """Refuse values that no data could make runnable."""
        super().check()
        require(
            self.prior != "gaussian", "prior", self.prior,
            "nothing here learns its mean and variances, which begin as those of N(0, I); use "
            "standard_normal or mixture",
        )  # fmt: skip
        require(self.num_components >= 1, "num_components", self.num_components, "give at least 1")


class Matching(method.Method):
    """Descends `reconstruction + weight * statistic`.

    A method of this kind says how its loss is computed; the rest is here.
    """

    statistic: ClassVar[str]
    """Name of the term that the weight multiplies, `[]`."""

    @property
    def players(self):
        """One, who moves the networks; the prior stays as it is."""
        return {"model": Player(parts=tuple(self.networks.parts))}

    def init_prior(self, key):
        """Return the prior, drawn from the run's seed where it has anything to draw."""
        del key
        options = self.options
        return make_prior(
            options.prior, self.latent_dim, jax.random.key(self.setting.seed),
            num_components=options.num_components, image_shape=self.image_shape,
        )  # fmt: skip

    def loss(
        self, x, x_recon, z: jax.Array, *, prior: Prior, key: jax.Array, mask: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the loss `[batch]` and its terms, as one of `avae_jax.losses` does.

        Args:
          x: the images, `[batch, ...]`.
          x_recon: what the decoder makes of the codes.
          z: `[batch, latent_dim]`.
          prior: what the codes are to be distributed as.
          key: JAX random key, for draws of the prior or directions.
          mask: `[batch]`, 0 for rows that only fill the batch up.
        """
        raise NotImplementedError

    def losses(self, variables, memory, batch: Batch, key, *, step, train):
        """Return the loss of each example, whose statistic is the whole batch's."""
        of_code, of_prior = jax.random.split(key)
        posterior, variables = self.encode(variables, batch.x, train=train)
        z = posterior.sample(of_code)
        x_recon, variables = self.decode(variables, z, train=train)
        loss, terms = self.loss(
            batch.x, x_recon, z, prior=self.prior(variables), key=of_prior, mask=batch.mask
        )
        return Output({"model": loss}, terms, variables, posterior.mean())

    def criterion(self, terms: Mapping[str, Any]) -> float:
        """Return the loss."""
        return terms["reconstruction"] + self.options.weight * terms[self.statistic]

    def null(self) -> dict[str, float]:
        """Return what the statistic shows, on average, for batches drawn from the prior itself."""
        return {self.statistic: self._null}

    @functools.cached_property
    def _null(self) -> float:
        num_rows, prior = self.setting.batch_size, self.init_prior(jax.random.key(0))
        x, mask = jnp.zeros((num_rows, 1)), jnp.ones(num_rows)

        def statistic(key):
            of_codes, of_prior = jax.random.split(key)
            z = prior.sample(of_codes, num_rows)
            _, terms = self.loss(x, x, z, prior=prior, key=of_prior, mask=mask)
            return terms[self.statistic]

        keys = jax.random.split(jax.random.key(0), _NUM_NULL)
        return float(jnp.mean(jax.lax.map(jax.jit(statistic), keys)))
