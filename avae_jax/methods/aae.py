"""The adversarial autoencoder (Makhzani et al. 2015, arXiv 1511.05644), which WAE-GAN is too."""

import dataclasses
import math
from typing import Literal

import jax

from avae_jax import losses
from avae_jax.methods import matching
from avae_jax.methods.critic import TERMS, check_critic, critic_player, judge, make_critic
from avae_jax.methods.method import Output, Player, make_coder
from avae_jax.methods.terms import RECONSTRUCTION
from avae_jax.posteriors import POSTERIORS
from avae_jax.terms import Term


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(matching.AnyPriorOptions):
    """An adversarial autoencoder: a critic holds the codes to the prior as a whole."""

    weight: float = 1.0
    """Multiplies what the critic says of the codes, beside the reconstruction error summed over the
    pixels; a published weight w beside 0.05 times that error is w / 0.05 here."""
    posterior: "Literal[tuple(POSTERIORS)]" = "deterministic"  # pyright: ignore[reportInvalidTypeForm]
    """What an image's codes are; gaussian: drawn with a learned mean and variance per dimension."""
    critic_width: int = 256
    """Units of each of the critic's hidden layers."""
    critic_layers: int = 3
    """The critic's hidden layers."""
    critic_learning_rate: float = 1e-3
    """Adam's step size for the critic, whose decay rates are 0.5 and 0.9."""

    name = "aae"

    def check(self):
        """Refuse values that no data could make runnable."""
        super().check()
        check_critic(self)

    def make(self, setting, facts=None):
        """Build the method."""
        coder = make_coder(
            setting, posterior=self.posterior, likelihood=self.likelihood,
            critic=make_critic(self, setting.latent_dim),
        )  # fmt: skip
        return AAE(options=self, setting=setting, coder=coder)


class AAE(matching.Matching):
    """Descends `reconstruction + weight softplus(-D(z))` against a critic's logit `D`.

    The critic tells draws of the prior from codes, `D > 0` on the former; both take a step at once,
    where Tolstikhin et al. (2018, arXiv 1711.01558, algorithm 1) let the critic go first. Their
    code adds `log p(z)` to the logit for one data set, as the best logit is `log p - log q`; here
    it is left to the critic, so that the prior need only be drawn from.

    The default weight is far below the 20 of published settings, which on the digits leaves the
    reconstruction to the critic: a squared error of 2.6 per test image after 200 epochs, against
    1.2 at weight 1 with codes as near to the prior, and 0.9 for the plain autoencoder. After 30
    epochs weight 20 reconstructs hardly better than the mean image.

    With the default critic a step takes 1.33 times the arithmetic of the plain autoencoder's, and
    1.07 times its time (MNIST's net at width 0.125: `benchmarks/method_steps.py`).
    """

    statistic = "adversarial"

    terms = {
        "reconstruction": RECONSTRUCTION,
        "adversarial": Term(
            caption="Adversarial term", short="adv", unit="nats", null="null_adversarial"
        ),
        **TERMS,
    }

    @property
    def players(self):
        """The autoencoder, and the critic."""
        parts = tuple(name for name in self.networks.parts if name != "critic")
        return {"model": Player(parts=parts), "critic": critic_player(self.options)}

    def losses(self, variables, memory, batch, key, *, step, train):
        """Return the losses of the autoencoder and of the critic."""
        of_code, of_prior = jax.random.split(key)
        posterior, variables = self.encode(variables, batch.x, train=train)
        z = posterior.sample(of_code)
        x_recon, variables = self.decode(variables, z, train=train)
        model, terms = losses.aae(
            batch.x, x_recon, judge(self.networks, variables, z, train=train, frozen=True),
            weight=self.options.weight, likelihood=self.options.likelihood,
        )  # fmt: skip
        draws = self.prior(variables).sample(of_prior, len(z))
        critic, judged = losses.critic_loss(
            judge(self.networks, variables, draws, train=train),
            judge(self.networks, variables, jax.lax.stop_gradient(z), train=train),
        )
        found = {"model": model, "critic": critic}
        return Output(found, {**terms, **judged}, variables, posterior.mean())

    def criterion(self, terms):
        """Return the reconstruction error.

        The critic's term is left out: what it is worth changes from epoch to epoch.
        """
        return terms["reconstruction"]

    def null(self):
        """Return what codes show that no critic can tell from draws of the prior."""
        return {"adversarial": math.log(2), "critic_loss": math.log(2)}
