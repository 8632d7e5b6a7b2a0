"""The two-stage VAE (Dai and Wipf 2019, arXiv 1903.05789): a second VAE of a VAE's codes."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from avae_jax.gaussians import gaussian_kl, standard_normal_log_prob
from avae_jax.likelihoods import LearnedGaussian
from avae_jax.methods import vae
from avae_jax.methods.method import Output, Player, require, require_positive
from avae_jax.methods.networks import Network
from avae_jax.numerics import logmeanexp
from avae_jax.posteriors import DiagonalGaussian, Gaussian
from avae_jax.priors import StandardNormal
from avae_jax.priors.prior import BasePrior, check_width
from avae_jax.terms import Term

NUM_DRAWS = 64
"""Draws per code that its log density under the second stage is bounded with."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(vae.NoisyOptions):
    """A two-stage VAE: a VAE, and a second one of its codes, which samples are drawn through."""

    second_width: int = 256
    """Units of each hidden layer of the second stage's encoder and decoder."""
    second_layers: int = 3
    """Their hidden layers."""
    second_learning_rate: float | None = None
    """Adam's step size for the second stage; the first one's when not given."""

    name = "two_stage_vae"

    def check(self):
        """Refuse values that no data could make runnable."""
        super().check()
        require_positive("second_learning_rate", self.second_learning_rate)
        for name in ("second_width", "second_layers"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "give at least 1")

    def make(self, setting, facts=None):
        """Build the method."""
        from avae_jax.models.mlp import MLPDecoder, MLPEncoder

        d, hidden = setting.latent_dim, (self.second_width,) * self.second_layers
        second = {
            "encoder_2": MLPEncoder(num_outputs=2 * d, hidden=hidden, center_input=False, block=d),
            "decoder_2": MLPDecoder(image_shape=(d,), hidden=hidden, activation="linear"),
        }
        coder = self.make_coder(
            setting, posterior="gaussian",
            **{name: Network(module, (d,)) for name, module in second.items()},
        )  # fmt: skip
        return TwoStageVAE(options=self, setting=setting, coder=coder)


class TwoStageVAE(vae.VAE):
    """Descends the negative ELBO of the images, and with a second player that of their codes.

    The second stage is a VAE of draws `z ~ q(z | x)`, from d to d dimensions: `u ~ N(0, I)`,
    `z ~ N(decoder_2(u), gamma^2 I)`, with a gamma that is learned. Once a VAE reconstructs well its
    codes fill the latent space but need not be distributed as N(0, I), which a second VAE of the
    same number of dimensions can make up for. Samples are `z = decoder_2(u) + gamma e`, then
    decoded: the prior that the method claims.

    The paper trains one stage after the other, as a joint loss would mix them. Here the codes carry
    no gradient into the second player's loss, and both train from the start: the second follows,
    and the falling step size lets it settle. What is left in common is the criterion, which lowers
    the step size of both and picks a checkpoint that is good for both. A
    popular implementation puts `gamma e` into the reconstruction that the squared error is taken
    of, which drives gamma to 0; here gamma is the scale of a normalized density.
    """

    terms = {
        **vae.TERMS,
        "nll_2": Term(caption="Second stage: negative log-likelihood", short="nll 2", unit="nats"),
        "kl_2": Term(caption="Second stage: KL", short="kl 2", unit="nats"),
        "second_loss": Term(caption="Second stage", short="second", unit="nats"),
        "noise_scale_2": Term(caption="Second stage: noise scale", short="noise 2", log=True),
    }

    @property
    def players(self):
        """The VAE of the images, and that of their codes."""
        second = ("encoder_2", "decoder_2", "likelihood_2")
        parts = super().players["model"].parts
        own = tuple(name for name in parts if name not in (*second, "prior"))
        rate = self.options.second_learning_rate
        return {"model": Player(parts=own), "second": Player(parts=second, learning_rate=rate)}

    def init(self, key):
        """Draw initial variables."""
        variables = super().init(key)
        params = {**variables["params"], "likelihood_2": LearnedGaussian.make(noise_scale=1.0)}
        return {**variables, "params": params}

    def init_prior(self, key):
        """Return N(0, I), the first stage's prior."""
        return StandardNormal.make(self.latent_dim, key)

    def kl(self, posterior, z, prior, labels):
        """Return the first stage's KL `[batch]`, to N(0, I)."""
        return posterior.kl(StandardNormal(self.latent_dim))

    def prior(self, variables):
        """Return the distribution of the second stage's draws."""
        networks = self.networks
        return SecondStage(
            self.latent_dim,
            lambda z: Gaussian()(networks(variables, "encoder_2", z, train=False)[0]),
            lambda u: networks(variables, "decoder_2", u, train=False)[0],
            variables["params"]["likelihood_2"],
            compiled=functools.partial(self._compiled_bound, variables),
        )

    @functools.cached_property
    def _compiled_bound(self) -> Callable[..., jax.Array]:
        """Return the bound of codes' log density, compiled once for all that ask for the prior."""
        return jax.jit(lambda variables, z: self.prior(variables).bound(z))

    def losses(self, variables, memory, batch, key, *, step, train):
        """Return the negative evidence lower bounds of the images and of their codes."""
        of_code, of_second = jax.random.split(key)
        nll, kl, terms, posterior, z, variables = self.forward(
            variables, batch, of_code, train=train
        )
        codes = jax.lax.stop_gradient(z)
        head, variables = self.networks(variables, "encoder_2", codes, train=train)
        second = Gaussian()(head)
        z_recon, variables = self.networks(
            variables, "decoder_2", second.sample(of_second), train=train
        )
        nll_2 = variables["params"]["likelihood_2"].nll(codes, z_recon)
        kl_2 = gaussian_kl(second.loc, second.log_var)
        terms = {**terms, "nll_2": nll_2, "kl_2": kl_2}
        found = {"model": nll + kl, "second": nll_2 + kl_2}
        return Output(found, terms, variables, posterior.mean())

    def reported(self, memory, variables):
        """Return the noise scales that move."""
        scale = variables["params"]["likelihood_2"].scale
        return {**super().reported(memory, variables), "noise_scale_2": scale}

    def criterion(self, terms):
        """Return the sum of both losses: a checkpoint is good where both stages are."""
        return terms["nll"] + terms["kl"] + terms["nll_2"] + terms["kl_2"]


class SecondStage(BasePrior):
    """The distribution of `decoder_2(u) + gamma e`, with `u` and `e` from N(0, I).

    Args:
      latent_dim: columns of a code.
      encode: `[batch, latent_dim]` codes -> the second stage's posterior.
      decode: `[batch, latent_dim]` draws `u` -> means of codes.
      likelihood: what the means mean; its scale is gamma.
      compiled: a compiled function that does what `bound` does; None compiles it.
    """

    def __init__(
        self,
        latent_dim: int,
        encode: Callable[[jax.Array], DiagonalGaussian],
        decode: Callable[[jax.Array], jax.Array],
        likelihood: Any,
        compiled: Callable[[jax.Array], jax.Array] | None = None,
    ):
        self.latent_dim, self.likelihood = latent_dim, likelihood
        self._encode, self._decode = encode, decode
        self._compiled = jax.jit(self.bound) if compiled is None else compiled

    def sample(self, key: jax.Array, num_samples: int) -> jax.Array:
        """Draw codes, `[num_samples, latent_dim]`."""
        of_u, of_noise = jax.random.split(key)
        means = self._decode(jax.random.normal(of_u, (num_samples, self.latent_dim)))
        return means + self.likelihood.scale * jax.random.normal(of_noise, means.shape)

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Bound the log density of codes `[batch, latent_dim]` from below: `[batch]`, nats.

        `log 1/K sum_k p(z | u_k) p(u_k) / q(u_k | z)` with 64 draws of the second stage's posterior
        (Burda, Grosse and Salakhutdinov 2016, eq. 8), of one random key: an array has the same
        values again. In expectation they are at most the log density, which has no closed form. The
        noise of the rows is independent, so that it averages out in a mean over many codes.

        Raises:
          ValueError: `z` has another width than `latent_dim`.
        """
        check_width(z, self.latent_dim)
        return self._compiled(jnp.asarray(z, jnp.float32))

    def bound(self, z: jax.Array) -> jax.Array:
        """Return what `log_prob` does, of float32 codes, op by op."""
        posterior = self._encode(z)

        def weight(key):
            u = posterior.sample(key)
            joint = standard_normal_log_prob(u) - self.likelihood.nll(z, self._decode(u))
            return joint - posterior.log_prob(u)

        keys = jax.random.split(jax.random.key(0), NUM_DRAWS)
        return logmeanexp(jax.lax.map(weight, keys), axis=0)

    def describe(self) -> str:
        """Return what it is called in a caption."""
        return "what the second stage draws"

    def std(self) -> float:
        """Return the standard deviation of a code, from 4,096 draws about their mean."""
        draws = self.sample(jax.random.key(0), 4096)
        return math.sqrt(float(jnp.var(draws, axis=0).mean()))
