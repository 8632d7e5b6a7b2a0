"""Convolutional encoder and decoder of the AVAE paper (arXiv 2311.07693), set by channel tuples."""

import math

import flax.linen as nn
from flax.linen import initializers

from avae_jax.models.layers import (
    Conv,
    ConvTranspose,
    activate,
    center_images,
    keras_dense,
    make_head,
    normalize,
)


class ConvEncoder(nn.Module):
    """Halves the image once per convolution, then maps it to the code.

    Each convolution is 4x4 with stride 2, followed by normalisation and ReLU; dense layers follow,
    the last of them linear.

    Attributes:
      num_outputs: length of the output vector.
      channels: output channels of the convolutions.
      hidden: sizes of dense layers (with normalisation and ReLU) before the last one.
      norm: "batch", "group" or "none".
      center_input: whether images in [0, 1] are mapped to [-1, 1] first.
      block: columns of the last layer that are drawn together; None draws all at once.
    """

    num_outputs: int
    channels: tuple[int, ...]
    hidden: tuple[int, ...] = ()
    norm: str = "batch"
    center_input: bool = True
    block: int | None = None

    @nn.compact
    def __call__(self, x, *, train):
        """Encode images.

        Args:
          x: `[batch, height, width, channels]`, floating point, in the decoder's value range.
          train: whether batch norm uses the batch's statistics and updates its running ones.

        Returns:
          `[batch, num_outputs]`.

        Raises:
          ValueError: if `x` is not four-dimensional.
          TypeError: if `x` holds integers.
        """
        if x.ndim != 4:
            raise ValueError(
                f"x must be images [batch, height, width, channels], got shape {x.shape}: "
                "use architecture 'mlp' for other data"
            )
        x = center_images(x, self.center_input)
        for i, features in enumerate(self.channels):
            x = Conv(features, name=f"conv_{i}")(x)
            x = nn.relu(normalize(x, norm=self.norm, train=train, name=f"conv_norm_{i}"))
        x = x.reshape(x.shape[0], -1)
        for i, features in enumerate(self.hidden):
            x = keras_dense(features, name=f"dense_{i}")(x)
            x = nn.relu(normalize(x, norm=self.norm, train=train, name=f"dense_norm_{i}"))
        return make_head(self.num_outputs, self.block, name="output")(x)


class ConvDecoder(nn.Module):
    """Projects the code to a small image and doubles it until it has the size wanted.

    Each transposed convolution is 4x4 with stride 2, followed by normalisation and ReLU; the last
    one has neither.

    Attributes:
      image_shape: `(height, width, channels)` of the output.
      channels: channels of the projected image, then of each hidden transposed convolution.
      hidden: sizes of dense layers (with normalisation and ReLU) before the projection.
      final_stride: stride of the last transposed convolution, 1 or 2.
      activate_projection: whether normalisation and ReLU follow the projection.
      norm: "batch", "group" or "none".
      activation: "sigmoid", "tanh", "linear" or "logits".
    """

    image_shape: tuple[int, int, int]
    channels: tuple[int, ...]
    hidden: tuple[int, ...] = ()
    final_stride: int = 2
    activate_projection: bool = False
    norm: str = "batch"
    activation: str = "sigmoid"

    @nn.compact
    def __call__(self, z, *, train):
        """Decode codes.

        Args:
          z: `[batch, latent_dim]`.
          train: whether batch norm uses the batch's statistics and updates its running ones.

        Returns:
          `[batch, height, width, channels]` after the activation ("logits" stay logits).

        Raises:
          ValueError: if a side of `image_shape` is not a multiple of the growth of the layers.
        """
        height, width, image_channels = self.image_shape
        growth = 2 ** (len(self.channels) - 1) * self.final_stride
        if height % growth or width % growth:
            raise ValueError(
                f"image_shape {self.image_shape} does not suit this decoder: height and width must "
                f"be multiples of {growth}; pad the images or use architecture 'mlp'"
            )
        base = (height // growth, width // growth, self.channels[0])
        x = z
        for i, features in enumerate(self.hidden):
            x = keras_dense(features, name=f"dense_{i}")(x)
            x = nn.relu(normalize(x, norm=self.norm, train=train, name=f"dense_norm_{i}"))
        x = keras_dense(math.prod(base), name="projection")(x)
        if self.activate_projection:
            x = nn.relu(normalize(x, norm=self.norm, train=train, name="projection_norm"))
        x = x.reshape(-1, *base)
        for i, features in enumerate(self.channels[1:]):
            x = ConvTranspose(features, name=f"conv_{i}")(x)
            x = nn.relu(normalize(x, norm=self.norm, train=train, name=f"conv_norm_{i}"))
        x = ConvTranspose(
            image_channels,
            stride=self.final_stride,
            kernel_init=initializers.glorot_uniform(),
            name="output",
        )(x)
        return activate(x, self.activation)
