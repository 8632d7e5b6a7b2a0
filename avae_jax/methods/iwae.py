"""The importance-weighted autoencoder (Burda, Grosse and Salakhutdinov 2016, arXiv 1509.00519)."""

import dataclasses
import functools
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from avae_jax import losses
from avae_jax.methods import vae
from avae_jax.methods.method import Output, require
from avae_jax.posteriors import MixturePosterior, make_posterior
from avae_jax.terms import Term


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(vae.Options):
    """An IWAE: a VAE with a tighter bound, of several weighted draws per image."""

    num_samples: int = 5
    """Draws per image, each of which is decoded; 1 is a VAE."""
    gradient: Literal["dreg", "plain"] = "dreg"
    """The encoder's gradient. dreg: doubly reparameterized, of less variance; plain: that of the
    bound as it is written. Both have the same mean."""

    # A bound of log p(x) has no other weight of the KL, and no labels.
    warmup_steps: ClassVar[int] = 0  # pyright: ignore[reportIncompatibleVariableOverride]
    labeled: ClassVar[bool] = False  # pyright: ignore[reportIncompatibleVariableOverride]

    name = "iwae"

    def check(self):
        """Refuse values that no data could make runnable."""
        super().check()
        require(self.num_samples >= 1, "num_samples", self.num_samples, "give at least 1")
        mixture = isinstance(make_posterior(self.posterior), MixturePosterior)
        require(
            self.gradient == "plain" or not mixture, "gradient", self.gradient,
            f"draws of posterior {self.posterior} are not reparameterized in its weights; use "
            "gradient plain, or posterior gaussian",
        )  # fmt: skip

    def make(self, setting, facts=None):
        """Build the method."""
        coder = self.make_coder(setting, posterior=self.posterior)
        return IWAE(options=self, setting=setting, coder=coder)


class IWAE(vae.VAE):
    """Descends `-log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x)`, K draws per image (eq. 8).

    The draws of an image are rows of the decoder's batch, which has K times as many and whose batch
    normalization sees all draws of all images. The decoder costs K times as much: at K = 5 a step
    has 2.9 times the operations of a plain autoencoder's and takes 3.9 times as long (MNIST's net
    at width 0.125: `benchmarks/method_steps.py`).

    `gradient` "dreg" (Tucker, Lawson, Gu and Maddison 2019, arXiv 1810.04152) is the default, as
    the plain one grows noisier, beside what it estimates, with every further draw (Rainforth et al.
    2018, arXiv 1802.04537): on digits (30 epochs, one seed) the bound of 20 draws ended at 36.1
    nats by the one and 34.8 by the other. Where batch normalization makes rows depend on each
    other, what a draw gets by way of other rows is multiplied by its own weight too.

    Error and negative log-likelihood are means over the draws by their weights, as the true
    posterior would have them; the KL is what the bound holds beside, so that their sum is the loss.
    With one draw they are those of a VAE whose KL is taken from its draw. A noise scale that is
    measured follows the weighted error, where the bound at these weights is highest: the terms at
    the new scale are still a bound, as the best weights for it can only raise it. The criterion is
    the bound, in nats as a VAE's, and comparable between runs of as many draws.
    """

    terms = {
        **vae.TERMS,
        "effective_samples": Term(caption="Effective draws per image", short="draws"),
    }

    def losses(self, variables, memory, batch, key, *, step, train):
        """Return the negative importance-weighted bound."""
        num, doubly = self.options.num_samples, self.options.gradient == "dreg"
        posterior, variables = self.encode(variables, batch.x, train=train)
        draws = jax.tree.map(lambda leaf: jnp.repeat(leaf, num, axis=0), posterior)
        rows = draws.sample(key)
        z = rows.reshape(-1, num, rows.shape[-1])

        # The prior apart: it may be made of codes, and so carry a gradient to the encoder.
        given = jax.lax.stop_gradient(draws) if doubly else draws
        others = (variables, self.prior(variables), given, batch.x)
        weigh: Any = functools.partial(self._weigh, train=train)
        if doubly:
            weigh = functools.partial(losses.doubly_reparameterized, weigh)
        log_weights, (nll, error, variables) = weigh(z, *others)

        loss, terms = losses.iwae(log_weights)
        shares = jax.nn.softmax(log_weights, axis=-1)
        nll, error = (jnp.sum(shares * term, axis=-1) for term in (nll, error))
        terms = {"reconstruction": error, "nll": nll, "kl": loss - nll, **terms}
        return Output({"model": loss}, terms, variables, posterior.mean())

    def _weigh(self, z, variables, prior, posterior, x, *, train: bool):
        """Return log-weights, and (nll, reconstruction, variables), `[batch, num_samples]` each."""
        shape, rows = z.shape[:2], z.reshape(-1, z.shape[-1])
        outputs, variables = self.decode(variables, rows, train=train)
        x = jnp.repeat(x, shape[1], axis=0)
        likelihood = self.likelihood(variables)
        nll = likelihood.nll(x, outputs)
        log_weights = prior.log_prob(rows) - posterior.log_prob(rows) - nll
        error = likelihood.reconstruction(x, outputs)
        log_weights, nll, error = (a.reshape(shape) for a in (log_weights, nll, error))
        return log_weights, (nll, error, variables)
