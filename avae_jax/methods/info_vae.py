"""The InfoVAE and the MMD-VAE (Zhao, Song and Ermon 2019, arXiv 1706.02262)."""

import dataclasses
from typing import ClassVar, Literal

import jax

from avae_jax import losses
from avae_jax.methods import vae
from avae_jax.methods.method import Output, require, require_positive
from avae_jax.methods.wae import MMD, imq_scale


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(vae.Options):
    """An InfoVAE: a VAE whose KL is traded for an MMD between all codes and the prior."""

    alpha: float = 1.0
    """Takes away from the KL, which is multiplied by 1 - alpha: 1 is the MMD-VAE, without one."""
    lambda_mmd: float = 100.0
    """The paper's lambda: the discrepancy is multiplied by alpha + lambda - 1."""
    kernel: Literal["imq", "rbf"] = "imq"
    """imq: seven inverse multiquadratics; rbf: a Gaussian as wide as the median distance."""

    # With the default there is no KL that could be warmed up.
    warmup_steps: ClassVar[int] = 0  # pyright: ignore[reportIncompatibleVariableOverride]

    name = "info_vae"

    def check(self):
        """Refuse values that no data could make runnable."""
        super().check()
        require_positive("lambda_mmd", self.lambda_mmd)
        require(
            self.alpha <= 1, "alpha", self.alpha,
            "above 1 a larger KL lowers the loss without limit; give at most 1",
        )  # fmt: skip
        require(
            self.mmd_weight >= 0, "lambda_mmd", self.lambda_mmd,
            f"the weight of the discrepancy, alpha + lambda - 1, would be {self.mmd_weight:g}, and "
            f"codes and prior be driven apart; give at least {1 - self.alpha:g}",
        )  # fmt: skip

    @property
    def mmd_weight(self) -> float:
        """What the discrepancy is multiplied by."""
        return self.alpha + self.lambda_mmd - 1

    def make(self, setting, facts=None):
        """Build the method."""
        coder = self.make_coder(setting, posterior=self.posterior)
        return InfoVAE(options=self, setting=setting, coder=coder)


class InfoVAE(vae.VAE):
    """Descends `-log p(x | z) + (1 - alpha) KL + (alpha + lambda - 1) MMD^2`.

    The paper's objective, with an unbiased MMD between one draw per image and as many of the prior.
    A prior that is learned is moved by its KL alone, and with `alpha` 1 stays as it is.
    """

    terms = {**vae.TERMS, "mmd": MMD}

    @property
    def beta(self):
        """What the KL is multiplied by."""
        return 1 - self.options.alpha

    def losses(self, variables, memory, batch, key, *, step, train):
        """Return the negative log-likelihood, what is left of the KL, and the discrepancy."""
        of_code, of_prior = jax.random.split(key)
        nll, kl, terms, posterior, z, variables = self.forward(
            variables, batch, of_code, train=train
        )
        options = self.options
        draws = jax.lax.stop_gradient(self.prior(variables).sample(of_prior, len(z)))
        mmd = losses.mmd(
            z, draws, kernel=options.kernel, scale=imq_scale(options, self.latent_dim),
            mask=batch.mask,
        )  # fmt: skip
        loss = nll + self.beta * kl + options.mmd_weight * mmd
        return Output({"model": loss}, {**terms, "mmd": mmd}, variables, posterior.mean())

    def criterion(self, terms):
        """Return the loss."""
        return super().criterion(terms) + self.options.mmd_weight * terms["mmd"]

    def null(self):
        """Return what codes of the prior show: the estimate has no bias."""
        return {"mmd": 0.0}
