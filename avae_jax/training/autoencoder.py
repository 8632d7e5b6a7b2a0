"""An encoder and a decoder as pure functions of their variables."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from avae_jax import models
from avae_jax.training.config import Config, ConfigError

_Images = TypeVar("_Images", jax.Array, np.ndarray)

Variables = dict[str, Any]
"""`{"params": {...}, "batch_stats": {...}}`, each with the keys "encoder" and "decoder"."""


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """The two networks of a run and the facts about their data.

    Attributes:
      encoder: maps `[batch, ...]` to `[batch, latent_dim]`, or to twice that for a Gaussian
        posterior.
      decoder: maps `[batch, latent_dim]` to `[batch, ...]`.
      image_shape: shape of one example.
      latent_dim: dimensions of a code.
      stochastic: whether the encoder gives means and log-variances.
      activation: what the decoder ends in: "sigmoid", "tanh", "linear" or "logits".
    """

    encoder: nn.Module
    decoder: nn.Module
    image_shape: tuple[int, ...]
    latent_dim: int
    stochastic: bool
    activation: str

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Interval the data lie in; None when unbounded."""
        return models.VALUE_RANGE[self.activation]

    def init(self, key: jax.Array) -> Variables:
        """Draw initial variables."""
        key_encoder, key_decoder = jax.random.split(key)
        x = jnp.zeros((2, *self.image_shape))
        z = jnp.zeros((2, self.latent_dim))
        encoder = self.encoder.init(key_encoder, x, train=False)
        decoder = self.decoder.init(key_decoder, z, train=False)
        return {
            collection: {
                "encoder": encoder.get(collection, {}),
                "decoder": decoder.get(collection, {}),
            }
            for collection in ("params", "batch_stats")
        }

    def to_float(self, images: _Images) -> _Images:
        """Scale uint8 images to the decoder's range; leave float images as they are."""
        if images.dtype != jnp.uint8:
            return images.astype(jnp.float32)
        low, high = self.value_range or (0.0, 1.0)
        return images.astype(jnp.float32) * ((high - low) / 255) + low

    def encode(
        self, variables: Variables, x: jax.Array, *, train: bool
    ) -> tuple[jax.Array, Variables]:
        """Return the encoder's output and its batch statistics after the pass."""
        return self._apply("encoder", variables, x, train=train)

    def decode(
        self, variables: Variables, z: jax.Array, *, train: bool
    ) -> tuple[jax.Array, Variables]:
        """Return the decoder's output and its batch statistics after the pass."""
        return self._apply("decoder", variables, z, train=train)

    def codes(self, variables: Variables, x: jax.Array, *, train: bool) -> jax.Array:
        """Return the codes `[batch, latent_dim]`: the posterior means when there are any."""
        return self.encode(variables, x, train=train)[0][:, : self.latent_dim]

    def _apply(self, part, variables, inputs, *, train):
        module = getattr(self, part)
        own = {name: collection[part] for name, collection in variables.items()}
        if not train:
            return module.apply(own, inputs, train=False), own["batch_stats"]
        outputs, updated = module.apply(own, inputs, train=True, mutable=["batch_stats"])
        return outputs, updated.get("batch_stats", {})


def make_autoencoder(
    config: Config,
    image_shape: Sequence[int],
    *,
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
) -> Autoencoder:
    """Build the networks a configuration names and check that they fit the data.

    Args:
      config: names the architecture, or a user's modules by import path.
      image_shape: shape of one example.
      encoder: a module to use instead of the one the configuration names.
      decoder: likewise.

    Returns:
      The networks, not initialised yet.

    Raises:
      ValueError: a network's output does not have the shape it must have.
    """
    model = config.model
    image_shape = tuple(image_shape)
    stochastic = config.objective.method in ("vae", "beta_vae")
    num_outputs = model.latent_dim * (2 if stochastic else 1)
    bernoulli = config.objective.likelihood == "bernoulli"
    sizes = {"width": model.width, "norm": model.norm}
    if decoder is None:
        decoder = models.make_decoder(
            model.decoder or model.architecture,
            image_shape=image_shape,
            activation="logits" if bernoulli else model.activation,
            **sizes,
        )
    own = "logits" if bernoulli else model.activation or "linear"
    activation = getattr(decoder, "activation", None) or own
    if (activation == "logits") != bernoulli:
        raise ConfigError(
            f"activation={activation!r} does not go with likelihood="
            f"{config.objective.likelihood!r}: logits are for the Bernoulli likelihood alone"
        )
    if encoder is None:
        encoder = models.make_encoder(
            model.encoder or model.architecture,
            latent_dim=model.latent_dim,
            num_outputs=num_outputs,
            activation=activation,
            **sizes,
        )
    models.check_shapes(
        encoder,
        decoder,
        image_shape=image_shape,
        latent_dim=model.latent_dim,
        num_outputs=num_outputs,
    )
    return Autoencoder(
        encoder=encoder,
        decoder=decoder,
        image_shape=image_shape,
        latent_dim=model.latent_dim,
        stochastic=stochastic,
        activation=activation,
    )
