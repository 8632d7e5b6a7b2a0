"""ARD-VAE (Saha, Joshi and Whitaker 2025, arXiv 2501.10901): a VAE that finds its dimensions."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from avae_jax.methods import vae
from avae_jax.methods.method import Output, Player, require, require_positive
from avae_jax.priors import DiagonalGaussianPrior
from avae_jax.terms import Term

SMALLEST_VARIANCE = 1e-8
"""Of an axis, in squared units of the codes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(vae.NoisyOptions):
    """An ARD-VAE: a VAE whose prior has the width of the codes themselves in every dimension."""

    beta: float = 1.0  # pyright: ignore[reportIncompatibleVariableOverride]
    """Multiplies the KL; the paper takes 0.05 to 5 by data set."""
    num_codes: int = 10_000
    """How many of the last codes the prior's variances are measured over."""

    name = "ard_vae"

    def check(self):
        """Refuse values that no data could make runnable."""
        super().check()
        require_positive("beta", self.beta)
        require(self.num_codes >= 2, "num_codes", self.num_codes, "give at least 2")

    def check_setting(self, setting):
        """Refuse a memory of less than a batch."""
        require(
            self.num_codes >= setting.batch_size, "num_codes", self.num_codes,
            f"it is smaller than batch_size={setting.batch_size}; raise it",
        )  # fmt: skip

    def make(self, setting, facts=None):
        """Build the method."""
        coder = self.make_coder(setting, posterior="gaussian")
        return ARDVAE(options=self, setting=setting, coder=coder)


class Memory(NamedTuple):
    """What the method remembers.

    Attributes:
      variance: `[latent_dim]`, the mean of `z^2` over the last codes: the prior's variance.
    """

    variance: jax.Array

    @property
    def prior(self) -> DiagonalGaussianPrior:
        """The prior that follows."""
        log_var = jnp.log(jnp.maximum(self.variance, SMALLEST_VARIANCE))
        return DiagonalGaussianPrior(jnp.zeros_like(log_var), log_var)


class ARDVAE(vae.VAE):
    """Descends `-log p(x | z) + beta KL(q(z | x) || N(0, diag s^2))`, s^2 that of earlier codes.

    `s_l^2` is the mean of `z_l^2` over draws of the posterior for images seen before (eq. 6
    and 7). The paper draws 10,000 images again each epoch; here an average that forgets as fast as
    `num_codes` draws come in follows every step, and needs no other pass of the encoder. The Gamma
    prior's pseudo-counts are 0, as in the paper.

    The KL knows no scale: what holds an axis is the decoder alone. An axis that it has no use for
    only adds noise to it, whose width shrinks with its posterior's: axes of small `s_l` times the
    decoder's response are those to leave out, which the evaluation counts as directions in use.
    """

    terms = {
        **vae.TERMS,
        "narrowest_axis": Term(caption="Narrowest axis of the prior", short="narrow", log=True),
        "widest_axis": Term(caption="Widest axis of the prior", short="wide", log=True),
    }

    @property
    def players(self):
        """One, who moves all but the prior and a noise scale that is measured."""
        parts = super().players["model"].parts
        return {"model": Player(parts=tuple(name for name in parts if name != "prior"))}

    def init_prior(self, key):
        """Return N(0, I)."""
        return DiagonalGaussianPrior.make(self.latent_dim, key)

    def kl(self, posterior, z, prior, labels):
        """Return the KL to the prior `[batch]`, in closed form."""
        return posterior.kl(prior)

    def losses(self, variables, memory: Memory, batch, key, *, step, train):
        """Return the negative evidence lower bound under the prior of the codes so far."""
        params = variables["params"]
        now = {**variables, "params": {**params, "prior": memory.prior}}
        nll, kl, terms, _, z, after = self.forward(now, batch, key, train=train)
        return Output({"model": nll + self.beta * kl}, terms, {**after, "params": params}, z)

    # What it remembers.

    def init_memory(self) -> Memory:
        """Return the variances of N(0, I), which the first batch replaces."""
        return Memory(jnp.ones(self.latent_dim))

    def remember(self, memory: Memory, output, batch, variables, *, step, good) -> Memory:
        """Average the squares of the batch's draws in, with the weight of their number."""
        num = jnp.sum(batch.mask)
        squares = jnp.sum(jnp.where(batch.mask[:, None] > 0, jnp.square(output.z), 0.0), axis=0)
        mean = squares / jnp.maximum(num, 1)
        # As long as fewer codes have been seen, over all of them.
        share = jnp.maximum(num / self.options.num_codes, 1 / (step + 1))
        new = memory.variance + share * (mean - memory.variance)
        return Memory(jnp.where(good & (num > 0), new, memory.variance))

    def reported(self, memory: Memory, variables):
        """Return the noise scale where it moves, and the prior's extreme standard deviations."""
        std = jnp.sqrt(memory.variance)
        axes = {"narrowest_axis": jnp.min(std), "widest_axis": jnp.max(std)}
        return {**super().reported(memory, variables), **axes}

    def after_epoch(self, memory: Memory, variables, terms):
        """Measure the noise scale unless it is given or learned, and set the prior."""
        measured = super().after_epoch(memory, variables, terms)
        return measured._replace(params={**measured.params, "prior": memory.prior})
