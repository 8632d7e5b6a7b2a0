"""The VAE (Kingma and Welling 2014) and the beta-VAE (Higgins et al. 2017)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from avae_jax.methods import method
from avae_jax.methods.method import Output, make_coder, require_positive
from avae_jax.methods.terms import KL, NLL, RECONSTRUCTION
from avae_jax.posteriors import POSTERIORS, make_posterior
from avae_jax.priors import PRIORS, DiagonalGaussianPrior, make_prior

TERMS = {"reconstruction": RECONSTRUCTION, "nll": NLL, "kl": KL}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisyOptions(method.Options):
    """What all have whose likelihood counts in nats."""

    noise_scale: float = 1.0
    """Standard deviation of the Gaussian likelihood; where it is learned, the first one."""

    def check(self):
        """Refuse values that no data could make runnable."""
        require_positive("noise_scale", self.noise_scale)


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

    name = "vae"
    beta: ClassVar[float | None] = 1.0

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
        coder = make_coder(
            setting, posterior=self.posterior, likelihood=self.likelihood,
            noise_scale=self.noise_scale,
        )  # fmt: skip
        return VAE(options=self, setting=setting, coder=coder)


class VAE(method.Method):
    """Descends `-log p(x | z) + beta KL(q(z | x) || p(z))`, one draw per image."""

    terms = TERMS

    @property
    def beta(self) -> float:
        """What the KL is multiplied by."""
        return self.options.beta

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

    def forward(self, variables, batch, key, *, train):
        """Return (nll `[batch]`, kl `[batch]`, terms, posterior, draw, variables)."""
        posterior, variables = self.encode(variables, batch.x, train=train)
        z = posterior.sample(key)
        outputs, variables = self.decode(variables, z, train=train)
        likelihood = self.likelihood(variables)
        nll = likelihood.nll(batch.x, outputs)
        kl = self.kl(posterior, z, self.prior(variables), batch.labels)
        terms = {
            "reconstruction": likelihood.reconstruction(batch.x, outputs),
            "nll": nll,
            "kl": kl,
        }
        return nll, kl, terms, posterior, z, variables

    def losses(self, variables, memory, batch, key, *, step, train):
        """Return the negative evidence lower bound, its KL multiplied by beta."""
        nll, kl, terms, posterior, _, variables = self.forward(variables, batch, key, train=train)
        return Output({"model": nll + self.beta * kl}, terms, variables, posterior.mean())

    def criterion(self, terms: Mapping[str, Any]) -> float:
        """Return the loss."""
        return terms["nll"] + self.beta * terms["kl"]
