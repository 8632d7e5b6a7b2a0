"""The multimodal VAE (Wu and Goodman 2018, arXiv 1802.05335) on the two halves of an image."""

import dataclasses
import functools
import math
import operator
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from avae_jax.gaussians import gaussian_kl
from avae_jax.methods import vae
from avae_jax.methods.method import Output, require
from avae_jax.posteriors import DiagonalGaussian
from avae_jax.terms import Term

VIEWS = ("left", "right")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(vae.NoisyOptions):
    """A multimodal VAE: an encoder and a decoder per half of an image, and one latent space."""

    name = "mvae"

    def check_setting(self, setting):
        """Refuse images that have no halves."""
        super().check_setting(setting)
        width = setting.image_shape[_axis(setting.image_shape)]
        require(
            width % 2 == 0, "image width", width,
            "the images are cut into two halves; give an even width, or another method",
        )  # fmt: skip

    def make(self, setting, facts=None):
        """Build the method."""
        axis = _axis(setting.image_shape)
        shape = list(setting.image_shape)
        shape[axis] //= 2
        coder = self.make_coder(
            setting, posterior="gaussian", shapes=dict.fromkeys(VIEWS, tuple(shape))
        )
        return MVAE(options=self, setting=setting, coder=coder)


def _axis(shape: tuple[int, ...]) -> int:
    """Return the axis of one example along which it is cut."""
    return 1 if len(shape) == 3 else 0


class MVAE(vae.NoisyMethod):
    """Descends the negative ELBO of both halves together plus that of each alone.

    The posterior of several halves is the product of their encoders' Gaussians and the prior
    (their product of experts); the objective is theirs without its random subsets, which two halves
    do not have. A run encodes whole images, by both encoders, and decodes to whole images.
    """

    terms = {
        **vae.TERMS,
        **{
            f"{name}_from_{view}": Term(
                caption=f"{caption}, {view} half alone", short=f"{name} {view}", unit="nats"
            )
            for view in VIEWS
            for name, caption in (("nll", "Negative log-likelihood"), ("kl", "KL"))
        },
    }

    @property
    def nll_sizes(self):
        """Return how many pixels the images and their halves have."""
        num = math.prod(self.image_shape)
        return {"nll": num, **{f"nll_from_{view}": num // 2 for view in VIEWS}}

    def prepare(self, images) -> Any:
        """Return the two halves of images."""
        x = self.to_float(images)
        halves = jnp.split(x, 2, axis=_axis(self.image_shape) + 1)
        return dict(zip(VIEWS, halves, strict=True))

    def experts(self, variables, x, *, train: bool):
        """Return the Gaussian of each half that is given, and the variables after the pass."""
        found = {}
        for view, half in x.items():
            head, variables = self.networks(variables, f"encoder_{view}", half, train=train)
            found[view] = self.coder.posterior(head)
        return found, variables

    def encode(self, variables, x, *, train):
        """Return the posterior of the halves that are given, one or both."""
        experts, variables = self.experts(variables, x, train=train)
        return product_of_experts(list(experts.values())), variables

    def decode_halves(self, variables, z, *, train: bool):
        """Return what the likelihood takes of each half, and the variables after the pass."""
        found = {}
        for view in VIEWS:
            found[view], variables = self.networks(variables, f"decoder_{view}", z, train=train)
        return found, variables

    def decode(self, variables, z, *, train):
        """Return what the likelihood takes of whole images."""
        halves, variables = self.decode_halves(variables, z, train=train)
        axis = _axis(self.image_shape) + 1
        return jnp.concatenate([halves[view] for view in VIEWS], axis=axis), variables

    def losses(self, variables, memory, batch, key, *, step, train):
        """Return the sum of the three negative evidence lower bounds."""
        likelihood = self.likelihood(variables)
        experts, variables = self.experts(variables, batch.x, train=train)
        joint = product_of_experts(list(experts.values()))
        alone = {view: product_of_experts([experts[view]]) for view in VIEWS}
        keys = jax.random.split(key, 1 + len(VIEWS))
        loss, terms = jnp.zeros(()), {}
        for own_key, (name, posterior) in zip(keys, {"": joint, **alone}.items(), strict=True):
            views, end = ([name], f"_from_{name}") if name else (VIEWS, "")
            z = posterior.sample(own_key)
            halves, variables = self.decode_halves(variables, z, train=train)
            nll = sum_of(likelihood.nll(batch.x[view], halves[view]) for view in views)
            kl = gaussian_kl(posterior.loc, posterior.log_var)
            loss += nll + kl
            terms |= {f"nll{end}": nll, f"kl{end}": kl}
            if not name:
                terms["reconstruction"] = sum_of(
                    likelihood.reconstruction(batch.x[view], halves[view]) for view in views
                )
        return Output({"model": loss}, terms, variables, joint.mean())

    def criterion(self, terms):
        """Return the loss."""
        ends = ("", *(f"_from_{view}" for view in VIEWS))
        return sum(terms[f"nll{end}"] + terms[f"kl{end}"] for end in ends)


def product_of_experts(experts: list[DiagonalGaussian]) -> DiagonalGaussian:
    """Return the product of Gaussians `[batch, latent_dim]` and N(0, I), normalized.

    Precisions add up, and means are weighted by them (Wu and Goodman 2018).

    Numerics:
      Precisions are summed as logarithms: variances from 1e-9 to 1e4 keep their digits.
    """
    log_precision = jnp.zeros_like(experts[0].log_var)
    for expert in experts:
        log_precision = jnp.logaddexp(log_precision, -expert.log_var)
    shares = (jnp.exp(-expert.log_var - log_precision) for expert in experts)
    loc = sum_of(share * expert.loc for share, expert in zip(shares, experts, strict=True))
    return DiagonalGaussian(loc, -log_precision)


def sum_of(arrays: Iterable[jax.Array]) -> jax.Array:
    """Return the sum of arrays, at least one."""
    return functools.reduce(operator.add, arrays)
