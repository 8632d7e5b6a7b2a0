"""FactorVAE (Kim and Mnih 2018, arXiv 1802.05983): a VAE with a critic against dependence."""

import dataclasses
import math

import jax

from avae_jax import losses
from avae_jax.methods import vae
from avae_jax.methods.critic import TERMS, check_critic, critic_player, judge, make_critic
from avae_jax.methods.method import Output, Player, require, require_positive
from avae_jax.numerics import masked_mean
from avae_jax.terms import Term


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(vae.Options):
    """A FactorVAE: a VAE whose total correlation, as a critic estimates it, is penalized."""

    gamma: float = 10.0
    """Multiplies the total correlation; the paper takes 10 to 100, 35 for dSprites."""
    critic_width: int = 1000
    """Units of each of the critic's hidden layers."""
    critic_layers: int = 6
    """The critic's hidden layers."""
    critic_learning_rate: float = 1e-4
    """Adam's step size for the critic, whose decay rates are 0.5 and 0.9."""

    name = "factor_vae"

    def check(self):
        """Refuse values that no data could make runnable."""
        super().check()
        require_positive("gamma", self.gamma)
        check_critic(self)

    def check_setting(self, setting):
        """Refuse values that do not fit the data."""
        super().check_setting(setting)
        require(
            setting.latent_dim >= 2, "latent_dim", setting.latent_dim,
            "the total correlation is between dimensions; give at least 2",
        )  # fmt: skip
        # Half of a batch is judged as it is, the other half shuffled.
        require(
            setting.batch_size >= 4, "batch_size", setting.batch_size,
            "each half of a batch needs two images; give at least 4",
        )  # fmt: skip

    def make(self, setting, facts=None):
        """Build the method."""
        critic = make_critic(self, setting.latent_dim)
        coder = self.make_coder(setting, posterior=self.posterior, critic=critic)
        return FactorVAE(options=self, setting=setting, coder=coder)


class FactorVAE(vae.VAE):
    """Descends the negative ELBO plus `gamma TC`, against a critic that estimates the TC.

    The critic tells codes from codes whose dimensions were shuffled: those of one half of a batch
    from those of the other, as the paper draws a second batch for it. Its one logit is the
    difference of the paper's two outputs. On a small net the paper's critic costs more than the
    rest: a step of MNIST's at width 0.125 takes 3.4 times the plain autoencoder's, 1.1 times with a
    critic of 4 x 256 (`benchmarks/method_steps.py`).
    """

    terms = {
        **vae.TERMS,
        "tc": Term(caption="Total correlation", short="tc", unit="nats", null="null_tc"),
        **TERMS,
    }

    @property
    def players(self):
        """The autoencoder with its prior, and the critic."""
        parts = super().players["model"].parts
        return {
            "model": Player(parts=tuple(name for name in parts if name != "critic")),
            "critic": critic_player(self.options),
        }

    def losses(self, variables, memory, batch, key, *, step, train):
        """Return the losses of the autoencoder and of the critic."""
        of_code, of_shuffle = jax.random.split(key)
        nll, kl, terms, posterior, z, variables = self.forward(
            variables, batch, of_code, train=train
        )
        tc = judge(self.networks, variables, z, train=train, frozen=True)

        # Every second row, so that rows that only fill a batch up are in both halves.
        codes, mask = jax.lax.stop_gradient(z), batch.mask
        num_rows = len(codes) // 2 * 2
        real, other = codes[0:num_rows:2], codes[1:num_rows:2]
        other_mask = mask[1:num_rows:2]
        shuffled = losses.permute_dims(of_shuffle, other, other_mask)
        critic, judged = losses.critic_loss(
            *(judge(self.networks, variables, half, train=train) for half in (real, shuffled))
        )
        both = mask[0:num_rows:2] * other_mask
        accuracy = masked_mean(judged["critic_accuracy"], both)
        terms = {**terms, "tc": tc, "critic_accuracy": accuracy}
        model = nll + self.kl_weight(step) * kl + self.options.gamma * tc
        found = {"model": model, "critic": masked_mean(critic, both)}
        return Output(found, terms, variables, posterior.mean())

    def criterion(self, terms):
        """Return the negative evidence lower bound.

        The critic's estimate is left out: what it is worth changes from epoch to epoch.
        """
        return terms["nll"] + terms["kl"]

    def null(self):
        """Return what codes with independent dimensions show."""
        return {"tc": 0.0, "critic_loss": math.log(2)}
