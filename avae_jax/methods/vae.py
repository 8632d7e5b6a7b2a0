"""The VAE (Kingma and Welling 2014), and what all share that have a posterior per image."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from avae_jax.likelihoods import LIKELIHOODS, LearnedGaussian, Likelihood
from avae_jax.methods import method
from avae_jax.methods.method import Coder, Measured, Output, Player, require, require_positive
from avae_jax.methods.terms import KL, NLL, RECONSTRUCTION
from avae_jax.posteriors import POSTERIORS, make_posterior
from avae_jax.priors import PRIORS, DiagonalGaussianPrior, make_prior
from avae_jax.registries import takes
from avae_jax.terms import Term

TERMS = {
    "reconstruction": RECONSTRUCTION,
    "nll": NLL,
    "kl": KL,
    "noise_scale": Term(caption="Noise scale", short="noise", log=True),
}

SMALLEST_NOISE, LARGEST_NOISE = 0.0026, 400.0
"""Between the bounds of a learned scale."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisyOptions(method.Options):
    """What all have whose likelihood counts in nats."""

    noise_scale: float | None = None
    """Standard deviation of the Gaussian likelihood, per pixel in units of the decoder's output;
    when not given it is measured on the validation split before the first step and after each
    validation. likelihood learned_gaussian: the first one."""

    beta: ClassVar[float | None] = 1.0

    def check(self):
        """Refuse values that no data could make runnable."""
        require_positive("noise_scale", self.noise_scale)
        require(
            self.noise_scale is None or self.has_noise, "noise_scale", self.noise_scale,
            f"likelihood {self.likelihood} has none; leave it out, or use likelihood gaussian",
        )  # fmt: skip

    @property
    def has_noise(self) -> bool:
        """Whether the likelihood has a noise scale."""
        return takes(LIKELIHOODS[self.likelihood], "noise_scale")

    @property
    def measures_noise(self) -> bool:
        """Whether the noise scale follows the validation error, and not a gradient."""
        return self.likelihood == "gaussian" and self.noise_scale is None

    def make_coder(self, setting, *, posterior: str, **others: Any) -> Coder:
        """Build the networks and the likelihood, as `method.make_coder` does."""
        # What is measured lies where what is learned does, and no player moves it.
        likelihood = "learned_gaussian" if self.measures_noise else self.likelihood
        return method.make_coder(
            setting, posterior=posterior, likelihood=likelihood,
            noise_scale=1.0 if self.noise_scale is None else self.noise_scale, **others,
        )  # fmt: skip


class NoisyMethod(method.Method):
    """A method whose likelihood counts in nats, and with it the noise scale.

    Unless it is given, `noise_scale^2` is the mean squared error per pixel of the validation split,
    where the likelihood of these images is highest (Rybkin, Daniilidis and Levine 2021, arXiv
    2006.13202: their optimal sigma-VAE, which takes each batch's own error). It is to a VAE what a
    measured beta is to the AVAE: neither weighs reconstruction against the KL by hand.
    """

    @property
    def players(self):
        """One, who moves all but a noise scale that is measured."""
        own = () if self.options.measures_noise else ("likelihood",)
        return {"model": Player(parts=(*self.networks.parts, "prior", *own))}

    @property
    def beta(self) -> float:
        """What the KL is multiplied by."""
        return self.options.beta

    @property
    def nll_sizes(self) -> dict[str, int]:
        """Return how many pixels each negative log-likelihood that is reported is of."""
        return {"nll": math.prod(self.image_shape)}

    def reported(self, memory, variables) -> dict[str, jax.Array]:
        """Return the noise scale where it moves."""
        likelihood = self.likelihood(variables)
        return {"noise_scale": likelihood.scale} if isinstance(likelihood, LearnedGaussian) else {}

    def start(self, memory, variables, host) -> Measured:
        """Measure the noise scale, unless it is given."""
        learned = isinstance(self.coder.likelihood, LearnedGaussian)
        if self.options.noise_scale is not None or not learned:
            return Measured(memory)
        return self._measure(memory, variables, host.validate(variables, memory))

    def after_epoch(self, memory, variables, terms) -> Measured:
        """Measure the noise scale, unless it is given or learned."""
        if not self.options.measures_noise:
            return Measured(memory, terms=terms)
        return self._measure(memory, variables, terms)

    def _measure(self, memory, variables, terms: Mapping[str, float]) -> Measured:
        """Return the likelihood with the scale of the mean error, and the terms at that scale."""
        scale = math.sqrt(max(terms["reconstruction"], 0.0) / math.prod(self.image_shape))
        if not math.isfinite(scale):
            return Measured(memory, terms=terms)
        before: Any = self.likelihood(variables)
        after = LearnedGaussian.make(noise_scale=min(max(scale, SMALLEST_NOISE), LARGEST_NOISE))
        old, new = float(before.scale), float(after.scale)
        # The errors are the same: a negative log-likelihood is known at any scale.
        terms, moved = dict(terms), 0.0
        for name, size in self.nll_sizes.items():
            constant = 0.5 * size * math.log(2 * math.pi)
            squares = terms[name] - constant - size * math.log(old)
            nll = squares * (old / new) ** 2 + constant + size * math.log(new)
            moved += nll - terms[name]
            terms[name] = nll
        terms["loss"] += moved
        return Measured(memory, {"likelihood": after}, terms)

    def introduce(self, images) -> list[str]:
        """Return whether the noise scale that is given is one to collapse with."""
        advice = self._noise_advice(images)
        return [f"warning: {advice}"] if advice else []

    def describe(self, images) -> dict[str, dict[str, Any]]:
        """Return the noise scale beside the spread of the data."""
        if not self.options.has_noise:
            return {}
        given = self.options.noise_scale
        return {
            "noise per pixel": {
                "noise scale": "measured" if given is None else given,
                "data's largest standard deviation": largest_std(self.to_float(images)),
                "forecast": self._noise_advice(images) or "the codes are in use",
            }
        }

    def _noise_advice(self, images) -> str:
        """Say that a noise scale must collapse; empty where it need not.

        The best linear decoder uses the directions whose variance in the data is above
        `beta noise_scale^2` and no other (Tipping and Bishop 1999, probabilistic PCA; Lucas,
        Tucker, Grosse and Norouzi 2019, arXiv 1911.02469, for the VAE).
        """
        given = self.options.noise_scale
        if given is None or not self.options.has_noise:
            return ""
        least = math.sqrt(self.beta) * given
        largest = largest_std(self.to_float(images))
        if largest > least:
            return ""
        return (
            f"noise_scale={given:g} must collapse: no direction of the data has a standard "
            f"deviation above {largest:.3g}, and a linear decoder uses none below {least:.3g}; "
            "leave noise_scale out to have it measured, or give a smaller one"
        )


def largest_std(images) -> float:
    """Return the data's standard deviation along its first principal component.

    Args:
      images: `[n, ...]`, n >= 2.

    Numerics:
      float64; the eigenvalues of the smaller of the two products, `O(n p min(n, p))`.
    """
    x = np.asarray(images, np.float64).reshape(len(images), -1)
    x -= x.mean(axis=0)
    product = x @ x.T if len(x) < x.shape[1] else x.T @ x
    return math.sqrt(max(float(np.linalg.eigvalsh(product)[-1]), 0.0) / len(x))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(NoisyOptions):
    """A VAE: a Gaussian posterior per image, pulled to the prior."""

    posterior: "Literal[tuple(POSTERIORS)]" = "gaussian"  # pyright: ignore[reportInvalidTypeForm]
    """The distribution of codes per image; gaussian: independent dimensions."""
    prior: "Literal[tuple(PRIORS)]" = "standard_normal"  # pyright: ignore[reportInvalidTypeForm]
    """standard_normal: N(0, I); gaussian: its mean and variances are learned; mixture: a learned
    mixture of Gaussians."""
    num_components: int = 10
    """prior mixture: its components."""
    labeled: bool = False
    """prior mixture: whether the labels of the data say which component an image is of."""
    warmup_steps: int = 0
    """Steps in which the weight of the KL rises linearly from 0."""

    name = "vae"

    def check(self):
        """Refuse values that no data could make runnable."""
        super().check()
        method.require(
            make_posterior(self.posterior).stochastic, "posterior", self.posterior,
            "without noise there is no evidence lower bound; use another, or method ae",
        )  # fmt: skip
        method.require(
            self.num_components >= 1, "num_components", self.num_components, "give at least 1"
        )
        method.require(
            not self.labeled or self.prior == "mixture", "labeled", self.labeled,
            f"prior {self.prior} has no components; use prior mixture or leave it out",
        )  # fmt: skip
        method.require(
            self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "give at least 0, no warm-up"
        )

    def check_setting(self, setting):
        """Refuse values that do not fit the data."""
        if self.labeled:
            method.require(
                0 < setting.num_classes <= self.num_components, "labeled", self.labeled,
                f"the data have {setting.num_classes} classes: give data with labels and "
                "num_components of at least as many",
            )  # fmt: skip

    def make(self, setting, facts=None):
        """Build the method."""
        coder = self.make_coder(setting, posterior=self.posterior)
        return VAE(options=self, setting=setting, coder=coder)


class VAE(NoisyMethod):
    """Descends `-log p(x | z) + beta(t) KL(q(z | x) || p(z))`, one draw per image.

    `beta(t) = beta min(1, t / T)` where the KL is warmed up over T steps, so that codes are in use
    before they are pulled (Bowman et al. 2016, arXiv 1511.06349; Sonderby et al. 2016, arXiv
    1602.02282). T counts steps, the unit that a step knows, and not epochs: it
    means the same whatever the size of the data. The criterion is the objective with all of beta,
    so that checkpoints of the warm-up are compared by what is aimed at.
    """

    terms = TERMS

    def kl_weight(self, step) -> ArrayLike:
        """Return what the KL is multiplied by at a step."""
        if not self.options.warmup_steps:
            return self.beta
        return self.beta * jnp.minimum(jnp.float32(step) / self.options.warmup_steps, 1.0)

    def init_prior(self, key):
        """Return the prior with its initial parameters."""
        return make_prior(
            self.options.prior, self.latent_dim, jax.random.fold_in(key, 1),
            num_components=self.options.num_components, image_shape=self.image_shape,
        )  # fmt: skip

    def kl(self, posterior, z: jax.Array, prior, labels: jax.Array) -> jax.Array:
        """Return the KL to the prior `[batch]`: in closed form, else from the draw.

        Of an example whose label y says its component, `KL(q(z | x) || p(z | y)) - log p(y)`: the
        loss is a bound of the joint `-log p(x, y)`, so that the weights are learned as well.
        """
        exact = posterior.kl(prior)
        kl = posterior.log_prob(z) - prior.log_prob(z) if exact is None else exact
        if not self.options.labeled:
            return kl
        component = jnp.maximum(labels, 0)
        own = DiagonalGaussianPrior(prior.loc[component], prior.log_var[component])
        given = posterior.kl(own)
        if given is None:
            given = posterior.log_prob(z) - prior.log_prob(z, labels=labels)
        joint = given - jax.nn.log_softmax(prior.log_weights)[component]
        return jnp.where(labels >= 0, joint, kl)

    def likelihood_of(self, variables, batch, outputs, *, train: bool) -> Likelihood:
        """Return the likelihood that a batch is judged by."""
        del batch, outputs, train
        return self.likelihood(variables)

    def forward(self, variables, batch, key, *, train):
        """Return (nll `[batch]`, kl `[batch]`, terms, posterior, draw, variables)."""
        posterior, variables = self.encode(variables, batch.x, train=train)
        z = posterior.sample(key)
        outputs, variables = self.decode(variables, z, train=train)
        likelihood = self.likelihood_of(variables, batch, outputs, train=train)
        nll = likelihood.nll(batch.x, outputs)
        kl = self.kl(posterior, z, self.prior(variables), batch.labels)
        terms = {
            "reconstruction": likelihood.reconstruction(batch.x, outputs),
            "nll": nll,
            "kl": kl,
        }
        return nll, kl, terms, posterior, z, variables

    def losses(self, variables, memory, batch, key, *, step, train):
        """Return the negative evidence lower bound, its KL multiplied by the weight of the step."""
        nll, kl, terms, posterior, _, variables = self.forward(variables, batch, key, train=train)
        loss = nll + self.kl_weight(step) * kl
        return Output({"model": loss}, terms, variables, posterior.mean())

    def criterion(self, terms: Mapping[str, Any]) -> float:
        """Return the loss after the warm-up."""
        return terms["nll"] + self.beta * terms["kl"]
