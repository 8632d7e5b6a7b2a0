"""The table of architectures, and the two functions that build from it."""

import dataclasses
from collections.abc import Sequence
from typing import cast

import flax.linen as nn

from avae_jax.checks import check_count
from avae_jax.models.conv import ConvDecoder, ConvEncoder
from avae_jax.models.custom import load_module
from avae_jax.models.layers import VALUE_RANGE, check_activation, scale_channels
from avae_jax.models.mlp import MLPDecoder, MLPEncoder
from avae_jax.text import nearest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """One row of the table: an encoder and decoder at width 1.

    Attributes:
      image_shape: shape the architecture was designed for; None means any.
      encoder_channels: channels of the encoder's stride-2 convolutions; empty for dense nets.
      decoder_channels: channels of the decoder's projection and hidden transposed convolutions.
      final_stride: stride of the decoder's last transposed convolution.
      encoder_hidden: sizes of the encoder's hidden dense layers.
      decoder_hidden: sizes of the decoder's hidden dense layers.
      activate_projection: whether normalisation and ReLU follow the decoder's projection.
      norm: default normalisation.
      activation: default output activation.
      gray_activation: default output activation for one-channel images, if it differs.
      center_input: whether the encoder maps images in [0, 1] to [-1, 1] first.
    """

    image_shape: tuple[int, ...] | None = None
    encoder_channels: tuple[int, ...] = ()
    decoder_channels: tuple[int, ...] = ()
    final_stride: int = 2
    encoder_hidden: tuple[int, ...] = ()
    decoder_hidden: tuple[int, ...] = ()
    activate_projection: bool = False
    norm: str = "batch"
    activation: str = "sigmoid"
    gray_activation: str | None = None
    center_input: bool = True

    @property
    def is_convolutional(self):
        """Whether the architecture needs images."""
        return bool(self.encoder_channels)

    @property
    def growth(self):
        """Factor by which height and width grow in the decoder; 1 for dense nets."""
        if not self.is_convolutional:
            return 1
        return 2 ** (len(self.decoder_channels) - 1) * self.final_stride

    def fits(self, image_shape):
        """Whether the architecture can produce data of this shape."""
        if not self.is_convolutional:
            return True
        return len(image_shape) == 3 and not any(side % self.growth for side in image_shape[:2])


# The paper's nets after arXiv 2311.07693 and the authors' code; "factors" after arXiv 2501.15705,
# whose encoder alone does not centre its input. Differences from that code: images that already lie
# in [-1, 1] (celeb_a) are not mapped a second time, and initial weights depend on the key.
# "digits" is dense because at 8x8 convolutions are slower on a CPU and no better: a training step
# at batch 100 took .34 ms, against .91 ms (16-32 channels) and 2.9 ms (32-64 channels); after 100
# epochs with an 8-dimensional code the squared error per validation image was .86, 1.01 and .85.
ARCHITECTURES = {
    "mnist": Architecture(
        image_shape=(32, 32, 1),
        encoder_channels=(64, 128, 256, 512),
        decoder_channels=(512, 256, 128, 64),
    ),
    "cifar10": Architecture(
        image_shape=(32, 32, 3),
        encoder_channels=(128, 256, 512, 1024),
        decoder_channels=(1024, 512, 256),
        final_stride=1,
    ),
    "celeb_a": Architecture(
        image_shape=(64, 64, 3),
        encoder_channels=(64, 128, 256, 512),
        decoder_channels=(512, 256, 128, 64),
        final_stride=1,
        activation="tanh",
    ),
    "factors": Architecture(
        image_shape=(64, 64, 3),
        encoder_channels=(32, 32, 64, 64),
        decoder_channels=(64, 64, 32, 32),
        encoder_hidden=(256,),
        decoder_hidden=(256,),
        activate_projection=True,
        norm="none",
        gray_activation="logits",
        center_input=False,
    ),
    "digits": Architecture(
        image_shape=(8, 8, 1),
        encoder_hidden=(128, 64),
        decoder_hidden=(64, 128),
        norm="none",
    ),
    "mlp": Architecture(encoder_hidden=(512, 256), decoder_hidden=(256, 512), norm="none"),
}
"""Architectures by name; see `Architecture` for the columns."""


def make_encoder(
    architecture: str,
    *,
    latent_dim: int,
    width: float = 1.0,
    norm: str | None = None,
    num_outputs: int | None = None,
    activation: str | None = None,
) -> nn.Module:
    """Make an encoder.

    Args:
      architecture: a key of `ARCHITECTURES`, or an import path for `load_module`.
      latent_dim: dimension of the code, at least 1.
      width: multiplies the channels and hidden sizes.
      norm: "batch", "group" or "none"; None takes the architecture's own.
      num_outputs: length of the output; None means `latent_dim`, a Gaussian posterior needs
        `2 * latent_dim`.
      activation: the decoder's activation where it is not the architecture's own: it sets the
        range of the images, and only images in [0, 1] are centred.

    Returns:
      A Linen module `(x [batch, height, width, channels], *, train) -> [batch, num_outputs]`.

    Raises:
      ValueError: if an argument is out of range or a name unknown.
      TypeError: if a count is no integer.

    Example:
      >>> make_encoder("mnist", latent_dim=16, width=0.5).channels
      (32, 64, 128, 256)
    """
    check_count("latent_dim", latent_dim, minimum=1)
    num_outputs = latent_dim if num_outputs is None else num_outputs
    check_count("num_outputs", num_outputs, minimum=1)
    if ":" in architecture:
        settings = _custom_settings(width, norm, activation)
        return load_module(architecture, latent_dim=latent_dim, num_outputs=num_outputs, **settings)
    row = _find(architecture)
    norm = row.norm if norm is None else norm
    activation = row.activation if activation is None else activation
    check_activation(activation)
    hidden = scale_channels(row.encoder_hidden, width=width, norm=norm)
    center_input = row.center_input and VALUE_RANGE[activation] == (0.0, 1.0)
    if not row.is_convolutional:
        return MLPEncoder(
            num_outputs=num_outputs,
            hidden=hidden,
            norm=norm,
            center_input=center_input,
            block=latent_dim,
        )
    return ConvEncoder(
        num_outputs=num_outputs,
        channels=scale_channels(row.encoder_channels, width=width, norm=norm),
        hidden=hidden,
        norm=norm,
        center_input=center_input,
        block=latent_dim,
    )


def make_decoder(
    architecture: str,
    *,
    image_shape: Sequence[int],
    width: float = 1.0,
    norm: str | None = None,
    activation: str | None = None,
) -> nn.Module:
    """Make a decoder.

    Args:
      architecture: a key of `ARCHITECTURES`, or an import path for `load_module`.
      image_shape: shape of one example, `(height, width, channels)`; dense nets take any shape,
        convolutional ones any whose sides the layers can reach by doubling.
      width: multiplies the channels and hidden sizes.
      norm: "batch", "group" or "none"; None takes the architecture's own.
      activation: "sigmoid", "tanh", "linear" or "logits" (for a Bernoulli likelihood); None takes
        the architecture's own.

    Returns:
      A Linen module `(z [batch, latent_dim], *, train) -> [batch, *image_shape]`. Its attribute
      `activation` tells the range of its output; where a custom module has none, that is the
      argument `activation`, or "linear" for None.

    Raises:
      ValueError: if an argument is out of range, a name unknown, or the shape does not suit the
        architecture.
      TypeError: if a side is no integer.

    Example:
      >>> make_decoder("celeb_a", image_shape=(64, 64, 3)).activation
      'tanh'
    """
    image_shape = tuple(image_shape)
    for side in image_shape:
        check_count("every entry of image_shape", side, minimum=1)
    if ":" in architecture:
        settings = _custom_settings(width, norm, activation)
        decoder = load_module(architecture, image_shape=image_shape, **settings)
        own = getattr(decoder, "activation", activation)
        if activation not in (None, own):
            raise ValueError(
                f"activation={activation!r} was asked for, but the decoder {architecture!r} has "
                f"activation={own!r}: let it take an argument activation"
            )
        return decoder
    row = _find(architecture)
    norm = row.norm if norm is None else norm
    if activation is None:
        gray = row.gray_activation if image_shape[-1:] == (1,) else None
        activation = gray or row.activation
    check_activation(activation)
    if not row.fits(image_shape):
        raise ValueError(
            f"architecture {architecture!r} does not suit images of shape {image_shape}: "
            f"{_what_it_needs(row)}; {describe_fitting(image_shape)}"
        )
    hidden = scale_channels(row.decoder_hidden, width=width, norm=norm)
    if not row.is_convolutional:
        return MLPDecoder(image_shape=image_shape, hidden=hidden, norm=norm, activation=activation)
    return ConvDecoder(
        image_shape=cast(tuple[int, int, int], image_shape),
        channels=scale_channels(row.decoder_channels, width=width, norm=norm),
        hidden=hidden,
        final_stride=row.final_stride,
        activate_projection=row.activate_projection,
        norm=norm,
        activation=activation,
    )


def describe_fitting(image_shape):
    """Return a phrase naming the architectures for data of shape `image_shape`.

    Example:
      >>> describe_fitting((64, 64, 3))
      "designed for this shape: 'celeb_a', 'factors'"
    """
    exact = [name for name, row in ARCHITECTURES.items() if row.image_shape == tuple(image_shape)]
    if exact:
        return "designed for this shape: " + ", ".join(map(repr, exact))
    fitting = [
        name
        for name, row in ARCHITECTURES.items()
        # A dense net made for small images takes larger ones too, but is no advice.
        if row.fits(image_shape) and (row.is_convolutional or row.image_shape is None)
    ]
    return "these take this shape: " + ", ".join(map(repr, fitting))


def _what_it_needs(row):
    return f"it needs [height, width, channels] with sides that are multiples of {row.growth}"


def _find(architecture):
    """Return the row of that name, or raise with the nearest one."""
    if architecture in ARCHITECTURES:
        return ARCHITECTURES[architecture]
    if "." in architecture or "/" in architecture:
        raise ValueError(
            f"{architecture!r} names no class: a path needs one after a colon, "
            f"such as '{architecture}:Encoder'"
        )
    raise ValueError(
        "architecture must be a known name or an import path such as 'my_nets.py:Encoder', got "
        f"{architecture!r}{nearest(architecture, ARCHITECTURES)}"
    )


def _custom_settings(width, norm, activation):
    """Return the settings that were changed; for the others a custom module has its defaults."""
    settings = {"norm": norm, "activation": activation}
    if width != 1.0:
        settings["width"] = width
    return {name: value for name, value in settings.items() if value is not None}
