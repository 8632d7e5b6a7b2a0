"""Layers shared by all encoders and decoders: convolutions, normalisation, output activation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers

from avae_jax.checks import check_choice, check_positive
from avae_jax.models.convolution import conv2d, conv_transpose2d

VALUE_RANGE = {
    "sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "linear": None,
    "logits": (0.0, 1.0),
}
"""Range of the images each decoder activation can reproduce; None means any real number."""

NORMS = ("batch", "group", "none")
NUM_GROUPS = 8
"""Groups of a GroupNorm layer; `scale_channels` keeps channel counts divisible by it."""

# Keras's defaults, which the paper's code uses; Flax's own epsilon is 1e-5.
_BATCH_NORM_MOMENTUM = 0.99
_BATCH_NORM_EPSILON = 1e-3

_ACTIVATIONS = {
    "sigmoid": nn.sigmoid,
    "tanh": nn.tanh,
    "linear": lambda x: x,
    "logits": lambda x: x,
}


class Conv(nn.Module):
    """Convolution with zero padding "SAME" and a bias.

    Attributes:
      features: number of output channels.
      kernel_size: side of the square kernel.
      stride: step between output pixels.
      kernel_init: initialiser of the kernel `[size, size, in_channels, features]`.
    """

    features: int
    kernel_size: int = 4
    stride: int = 2
    kernel_init: initializers.Initializer = initializers.he_normal()

    @nn.compact
    def __call__(self, x):
        """Map `[batch, height, width, in_channels]` to `[batch, h', w', features]`."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", initializers.zeros, (self.features,))
        return conv2d(x, kernel, stride=self.stride) + bias


class ConvTranspose(nn.Module):
    """Transposed convolution, Keras's `Conv2DTranspose(padding="same")`, with a bias.

    The kernel has Keras's layout `[size, size, features, in_channels]`. A fan-in rule such as
    `he_normal` therefore counts the *output* channels, as it does in the paper's code.

    Attributes:
      features: number of output channels.
      kernel_size: as that of `Conv`.
      stride: factor by which height and width grow.
      kernel_init: initialiser of the kernel.
    """

    features: int
    kernel_size: int = 4
    stride: int = 2
    kernel_init: initializers.Initializer = initializers.he_normal()

    @nn.compact
    def __call__(self, x):
        """Map `[batch, h, w, in_channels]` to `[batch, stride * h, stride * w, features]`."""
        shape = (self.kernel_size, self.kernel_size, self.features, x.shape[-1])
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", initializers.zeros, (self.features,))
        return conv_transpose2d(x, kernel, stride=self.stride) + bias


def keras_dense(features, *, name):
    """Return a dense layer with Keras's default initialiser (Glorot uniform, zero bias)."""
    return nn.Dense(features, kernel_init=initializers.glorot_uniform(), name=name)


def make_head(num_outputs, block, *, name):
    """Return the dense layer that an encoder ends in, with Keras's default initialiser by blocks.

    The first `block` columns, the codes or their means, start from the same weights whatever a
    posterior has beside them: models that are compared start alike.

    Args:
      num_outputs: length of the output.
      block: columns that are drawn together, `latent_dim`; None draws all at once.
      name: name of the layer in the parameter tree.
    """
    draw = initializers.glorot_uniform()

    def draw_blocks(key, shape, dtype=jnp.float32):
        rows, columns = shape
        width = block or columns
        sizes = [min(width, columns - start) for start in range(0, columns, width)]
        keys = [key, *(jax.random.fold_in(key, k) for k in range(1, len(sizes)))]
        blocks = [draw(k, (rows, size), dtype) for k, size in zip(keys, sizes, strict=True)]
        return jnp.concatenate(blocks, axis=1)

    return nn.Dense(num_outputs, kernel_init=draw_blocks, name=name)


def normalize(x, *, norm, train, name):
    """Apply one normalisation layer; call it inside a compact method.

    Args:
      x: activations, channels last.
      norm: "batch" (momentum .99, epsilon 1e-3, Keras's defaults), "group" (8 groups) or "none".
      train: whether batch statistics are used and the running ones updated.
      name: name of the layer in the parameter tree.

    Returns:
      Activations of the shape of `x`.

    Raises:
      ValueError: if `norm` is unknown.
    """
    check_norm(norm)
    if norm == "batch":
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=_BATCH_NORM_MOMENTUM,
            epsilon=_BATCH_NORM_EPSILON,
            name=name,
        )(x)
    if norm == "group":
        return nn.GroupNorm(num_groups=NUM_GROUPS, epsilon=_BATCH_NORM_EPSILON, name=name)(x)
    return x


def activate(x, activation):
    """Apply a decoder's output activation, one of the keys of `VALUE_RANGE`.

    Raises:
      ValueError: if `activation` is unknown.
    """
    check_activation(activation)
    return _ACTIVATIONS[activation](x)


def center_images(x, center_input):
    """Check that images are floating point and, on request, map [0, 1] to [-1, 1].

    Raises:
      TypeError: if the images are integers.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"x must be floating point in the decoder's value range, got {x.dtype}: "
            "divide uint8 images by 255 first"
        )
    return 2.0 * x - 1.0 if center_input else x


def scale_channels(channels, *, width, norm):
    """Scale channel counts by a width multiplier.

    Args:
      channels: tuple of channel counts at width 1.
      width: positive multiplier.
      norm: "batch", "group" or "none"; with "group" counts become multiples of `NUM_GROUPS`.

    Returns:
      Tuple of ints, each at least 1 (`NUM_GROUPS` with "group").

    Raises:
      ValueError: if `width` is not positive or `norm` is unknown.

    Example:
      >>> scale_channels((64, 128), width=0.3, norm="batch")
      (19, 38)
      >>> scale_channels((64, 128), width=0.3, norm="group")
      (16, 40)
    """
    check_positive("width", width)
    check_norm(norm)
    multiple = NUM_GROUPS if norm == "group" else 1
    return tuple(max(1, round(width * count / multiple)) * multiple for count in channels)


def check_norm(norm):
    """Raise ValueError unless `norm` is known."""
    check_choice("norm", norm, NORMS)


def check_activation(activation):
    """Raise ValueError unless `activation` is known."""
    check_choice("activation", activation, VALUE_RANGE)
