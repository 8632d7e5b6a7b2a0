"""Fully connected encoder and decoder for data of any shape."""

import math

import flax.linen as nn
from flax.linen import initializers

from avae_jax.models.layers import (
    activate,
    center_images,
    keras_dense,
    make_head,
    normalize,
)


class MLPEncoder(nn.Module):
    """Flattens the data and maps it to the code through dense layers.

    Attributes:
      num_outputs: length of the output vector.
      hidden: sizes of the hidden layers, each followed by normalisation and ReLU.
      norm: "batch", "group" or "none".
      center_input: whether data in [0, 1] is mapped to [-1, 1] first.
      block: columns of the last layer that are drawn together; None draws all at once.
    """

    num_outputs: int
    hidden: tuple[int, ...]
    norm: str = "none"
    center_input: bool = True
    block: int | None = None

    @nn.compact
    def __call__(self, x, *, train):
        """Encode data.

        Args:
          x: `[batch, ...]`, floating point, in the decoder's value range.
          train: whether batch norm uses the batch's statistics and updates its running ones.

        Returns:
          `[batch, num_outputs]`.

        Raises:
          TypeError: if `x` holds integers.
        """
        x = center_images(x, self.center_input)
        x = x.reshape(x.shape[0], -1)
        x = _hidden_layers(x, self.hidden, norm=self.norm, train=train)
        return make_head(self.num_outputs, self.block, name="output")(x)


class MLPDecoder(nn.Module):
    """Maps the code to data of any shape through dense layers.

    Attributes:
      image_shape: shape of one example, such as `(height, width, channels)` or `(features,)`.
      hidden: sizes of the hidden layers, each followed by normalisation and ReLU.
      norm: "batch", "group" or "none".
      activation: "sigmoid", "tanh", "linear" or "logits".
    """

    image_shape: tuple[int, ...]
    hidden: tuple[int, ...]
    norm: str = "none"
    activation: str = "sigmoid"

    @nn.compact
    def __call__(self, z, *, train):
        """Decode codes.

        Args:
          z: `[batch, latent_dim]`.
          train: whether batch norm uses the batch's statistics and updates its running ones.

        Returns:
          `[batch, *image_shape]` after the activation ("logits" stay logits).
        """
        x = _hidden_layers(z, self.hidden, norm=self.norm, train=train)
        x = keras_dense(math.prod(self.image_shape), name="output")(x)
        return activate(x.reshape(-1, *self.image_shape), self.activation)


class MLPCritic(nn.Module):
    """Gives codes one logit each, through dense layers with leaky ReLUs of slope 0.2.

    Attributes:
      width: size of every hidden layer.
      num_layers: how many there are.
    """

    width: int
    num_layers: int

    @nn.compact
    def __call__(self, z, *, train):
        """Judge codes.

        Args:
          z: `[batch, latent_dim]`.
          train: not used.

        Returns:
          Logits, `[batch]`.
        """
        del train
        for i in range(self.num_layers):
            dense = nn.Dense(self.width, kernel_init=initializers.he_normal(), name=f"dense_{i}")
            z = nn.leaky_relu(dense(z), 0.2)
        return keras_dense(1, name="output")(z)[:, 0]


def _hidden_layers(x, hidden, *, norm, train):
    for i, features in enumerate(hidden):
        x = nn.Dense(features, kernel_init=initializers.he_normal(), name=f"dense_{i}")(x)
        x = nn.relu(normalize(x, norm=norm, train=train, name=f"dense_norm_{i}"))
    return x
