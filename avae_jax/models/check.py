"""A check of an encoder and decoder against the data, before anything is trained."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp

from avae_jax.models.conv import ConvDecoder
from avae_jax.models.layers import VALUE_RANGE
from avae_jax.models.mlp import MLPDecoder
from avae_jax.models.registry import describe_fitting

# Two images: a net that drops or squeezes the batch axis is then seen.
_BATCH = 2

# What the trainer keeps of a module's variables.
_COLLECTIONS = ("params", "batch_stats")


class ParameterCounts(NamedTuple):
    """Numbers of trainable parameters."""

    encoder: int
    decoder: int


def check_shapes(
    encoder: nn.Module,
    decoder: nn.Module,
    *,
    image_shape: Sequence[int],
    latent_dim: int,
    num_outputs: int | None = None,
) -> ParameterCounts:
    """Check, without computing anything, that encoder and decoder fit the data and each other.

    Args:
      encoder: module `(x, *, train) -> [batch, num_outputs]`.
      decoder: module `(z, *, train) -> [batch, *image_shape]`; its attribute `activation`, if it
        has one, must be a key of `VALUE_RANGE`.
      image_shape: shape of one example.
      latent_dim: dimension of the code the decoder takes.
      num_outputs: length of the encoder's output; None means `latent_dim`.

    Returns:
      The `ParameterCounts`.

    Raises:
      ValueError: with one line that says what does not fit.

    Example:
      >>> from avae_jax.models import make_decoder, make_encoder
      >>> encoder = make_encoder("mnist", latent_dim=16)
      >>> decoder = make_decoder("mnist", image_shape=(32, 32, 1))
      >>> check_shapes(encoder, decoder, image_shape=(32, 32, 1), latent_dim=16)
      ParameterCounts(encoder=2789200, decoder=2789697)
    """
    image_shape = tuple(image_shape)
    num_outputs = latent_dim if num_outputs is None else num_outputs
    # A decoder without the attribute is one whose output range the caller knows.
    if hasattr(decoder, "activation") and decoder.activation not in VALUE_RANGE:
        raise ValueError(
            f"decoder.activation must be one of {tuple(VALUE_RANGE)}, got {decoder.activation!r}: "
            "it tells the range of the images; give an attribute for another purpose another name"
        )
    images = (_BATCH, *image_shape)
    encoder_count = _check_one(
        "encoder", encoder, images, (_BATCH, num_outputs), "expected",
        hint=f": end it in a layer of {num_outputs} features",
    )  # fmt: skip
    ours = isinstance(decoder, ConvDecoder | MLPDecoder)
    decoder_count = _check_one(
        "decoder",
        decoder,
        (_BATCH, latent_dim),
        images,
        "but images are",
        hint=("; " + describe_fitting(image_shape)) if ours else ": reshape what it returns",
    )
    return ParameterCounts(encoder_count, decoder_count)


def _check_one(role, module, input_shape, output_shape, connective, hint=""):
    """Trace one module in both modes and return its number of parameters."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    x = jax.ShapeDtypeStruct(input_shape, jnp.float32)
    try:
        variables = jax.eval_shape(lambda key, x: module.init(key, x, train=False), key, x)
        outputs = jax.eval_shape(lambda v, x: module.apply(v, x, train=False), variables, x)
        state = [name for name in variables if name != "params"]
        train_outputs, _ = jax.eval_shape(
            lambda v, x: module.apply(v, x, train=True, mutable=state), variables, x
        )
    except flax.errors.InvalidRngError as error:
        raise ValueError(
            f"{role} draws random numbers in its forward pass, which training does not provide: "
            f"leave out dropout and other noise ({_first_line(error)})"
        ) from error
    except Exception as error:
        if isinstance(error, TypeError) and "unexpected keyword argument 'train'" in str(error):
            raise ValueError(
                f"{role} must take train, whether it is trained, got {type(module).__name__} "
                "without it: write def __call__(self, x, *, train)"
            ) from error
        raise ValueError(
            f"{role} failed on an input of shape {list(input_shape)}: "
            f"{type(error).__name__}: {_first_line(error)}"
        ) from error
    others = sorted(set(variables) - set(_COLLECTIONS))
    if others:
        raise ValueError(
            f"{role} keeps variables in {', '.join(map(repr, others))}, but training keeps only "
            f"{' and '.join(map(repr, _COLLECTIONS))}: move them there"
        )
    for mode, result in (("", outputs), (" with train=True", train_outputs)):
        if not isinstance(result, jax.ShapeDtypeStruct):
            raise ValueError(
                f"{role} returned a {type(result).__name__}{mode}, expected one array of shape "
                f"{list(output_shape)}"
            )
        if result.shape != output_shape:
            raise ValueError(
                f"{role} returned {list(result.shape)}{mode}, {connective} "
                f"{list(output_shape)}{hint}"
            )
        if not jnp.issubdtype(result.dtype, jnp.floating):
            raise ValueError(f"{role} returned {result.dtype}{mode}, expected floating point")
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables.get("params", {})))


def _first_line(error):
    return next(iter(str(error).strip().splitlines()), "no message")
