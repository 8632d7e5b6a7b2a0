"""The Inception-v3 net of the Fréchet inception distance, as plain JAX functions."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from avae_jax.checks import check_count
from avae_jax.features.batches import apply_in_batches, as_unit_floats
from avae_jax.features.checks import check_unit_images

IMAGE_SIZE = 299
NUM_FEATURES = 2048
# The name clean-fid gives to pytorch-fid's resize: bilinear, half-pixel centres, no antialias.
RESIZE_MODE = "legacy_pytorch"

_BN_EPSILON = 1e-3
_BN_KEYS = ("scale", "bias", "mean", "var")


class InceptionWeights(NamedTuple):
    """What `inception_features` needs, and what a result must name to be comparable.

    Attributes:
      params: float32 arrays with the keys and shapes of `inception_shapes()`.
      sha256: hash of the file they came from, 64 hex digits.
      params_sha256: hash of the arrays alone, the same for every file format.
      resize: how images are brought to 299x299; always "legacy_pytorch".
    """

    params: Mapping[str, np.ndarray]
    sha256: str
    params_sha256: str
    resize: str = RESIZE_MODE


def inception_features(images, weights: InceptionWeights, *, batch_size: int = 64) -> np.ndarray:
    """Compute the 2048 features of the last pooling layer ("pool_3").

    The net is the one of pytorch-fid: the "inception-2015-12-05" weights, average pools that
    leave the padding out of the mean, a max pool in the last block. Images are resized to 299x299
    by bilinear interpolation with half-pixel centres and no antialias, even if they shrink, and
    mapped to [-1, 1]. The first FID code (TensorFlow) resizes without half-pixel centres, so its
    scores differ.

    Args:
      images: `[n, height, width, channels]`, 1 channel (repeated) or 3, either uint8 or floating
        point in [0, 1].
      weights: from `load_inception_weights`.
      batch_size: images per call of the net; it changes speed and memory, not the result.

    Returns:
      `[n, 2048]` NumPy float32.

    Raises:
      ValueError: wrong shape, no images, values outside [0, 1], `batch_size` below 1, or a
        `weights.resize` this function does not do.
      TypeError: images of another dtype, or a `batch_size` that is no integer.

    Numerics:
      float32 without TF32 or bfloat16 on any device, so that scores agree between devices. About
      11 GFLOP per image, about .15 s of CPU time on two cores: use a GPU for 10,000 images.

    References:
      Szegedy et al., Rethinking the Inception architecture for computer vision, CVPR 2016.
      Heusel et al., GANs trained by a two time-scale update rule, NeurIPS 2017.
    """
    images = check_unit_images(images)
    if images.shape[3] not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels, got shape {images.shape}")
    if weights.resize != RESIZE_MODE:
        raise ValueError(f"weights.resize must be {RESIZE_MODE!r}, got {weights.resize!r}")
    params = jax.device_put(dict(weights.params))
    batch_size = min(check_count("batch_size", batch_size, minimum=1), len(images))
    return apply_in_batches(lambda x: _features(params, _prepare(x)), images, batch_size)


@functools.cache
def _shapes() -> dict[str, tuple[int, ...]]:
    shapes = {}

    def record(name, x, features, size, stride=1, padding="SAME"):
        shape = (*_pair(size), x.shape[-1], features)
        shapes[f"{name}/conv/kernel"] = shape
        shapes.update({f"{name}/bn/{key}": (features,) for key in _BN_KEYS})
        return _convolve(x, jnp.zeros(shape), stride, padding)

    x = jax.ShapeDtypeStruct((1, IMAGE_SIZE, IMAGE_SIZE, 3), jnp.float32)
    jax.eval_shape(lambda x: _network(record, x), x)
    return shapes


def inception_shapes() -> dict[str, tuple[int, ...]]:
    """List the arrays of the net, read off its definition.

    Returns:
      Keys `layer/conv/kernel` with shape `(height, width, in, out)`, and `layer/bn/scale`,
      `.../bias`, `.../mean`, `.../var` with shape `(out,)`; a layer is "Conv2d_1a_3x3" or
      "Mixed_5b/branch1x1" and so on, by the names of torchvision.

    Example:
      >>> from avae_jax.features import inception_shapes
      >>> inception_shapes()["Mixed_5b/branch5x5_2/conv/kernel"]
      (5, 5, 48, 64)
    """
    return dict(_shapes())


# Apart from the net, which is then compiled once for images of every size.
@jax.jit
def _prepare(images):
    x = 2.0 * _resize(as_unit_floats(images)) - 1.0
    return jnp.broadcast_to(x, (*x.shape[:3], 3))


@jax.jit
def _features(params, x):
    def conv(name, x, features, size, stride=1, padding="SAME"):
        scale, bias, mean, var = (params[f"{name}/bn/{key}"] for key in _BN_KEYS)
        gain = scale * lax.rsqrt(var + _BN_EPSILON)
        y = _convolve(x, params[f"{name}/conv/kernel"], stride, padding)
        return jax.nn.relu(y * gain + (bias - mean * gain))

    return _network(conv, x)


def _network(conv, x):
    """Apply the net; `conv(name, x, features, size, stride, padding)` does the parametric part."""
    x = conv("Conv2d_1a_3x3", x, 32, 3, 2, "VALID")
    x = conv("Conv2d_2a_3x3", x, 32, 3, 1, "VALID")
    x = conv("Conv2d_2b_3x3", x, 64, 3)
    x = _max_pool(x, 2)
    x = conv("Conv2d_3b_1x1", x, 80, 1)
    x = conv("Conv2d_4a_3x3", x, 192, 3, 1, "VALID")
    x = _max_pool(x, 2)
    x = _block_a(_inside(conv, "Mixed_5b"), x, 32)
    x = _block_a(_inside(conv, "Mixed_5c"), x, 64)
    x = _block_a(_inside(conv, "Mixed_5d"), x, 64)
    x = _block_b(_inside(conv, "Mixed_6a"), x)
    x = _block_c(_inside(conv, "Mixed_6b"), x, 128)
    x = _block_c(_inside(conv, "Mixed_6c"), x, 160)
    x = _block_c(_inside(conv, "Mixed_6d"), x, 160)
    x = _block_c(_inside(conv, "Mixed_6e"), x, 192)
    x = _block_d(_inside(conv, "Mixed_7a"), x)
    x = _block_e(_inside(conv, "Mixed_7b"), x, _mean_pool)
    # The 2015 graph takes a maximum here, unlike the paper, and the weights were trained with it.
    x = _block_e(_inside(conv, "Mixed_7c"), x, lambda x: _max_pool(x, 1, "SAME"))
    return jnp.mean(x, axis=(1, 2))


def _inside(conv, block):
    return lambda name, *arguments: conv(f"{block}/{name}", *arguments)


def _chain(conv, x, *layers):
    for layer in layers:
        x = conv(layer[0], x, *layer[1:])
    return x


def _block_a(conv, x, pool_features):
    branches = [
        conv("branch1x1", x, 64, 1),
        _chain(conv, x, ("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
        _chain(
            conv, x, ("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)
        ),
        conv("branch_pool", _mean_pool(x), pool_features, 1),
    ]
    return jnp.concatenate(branches, axis=-1)


def _block_b(conv, x):
    branches = [
        conv("branch3x3", x, 384, 3, 2, "VALID"),
        _chain(
            conv,
            x,
            ("branch3x3dbl_1", 64, 1),
            ("branch3x3dbl_2", 96, 3),
            ("branch3x3dbl_3", 96, 3, 2, "VALID"),
        ),
        _max_pool(x, 2),
    ]
    return jnp.concatenate(branches, axis=-1)


def _block_c(conv, x, inner):
    row, column = (1, 7), (7, 1)
    branches = [
        conv("branch1x1", x, 192, 1),
        _chain(
            conv,
            x,
            ("branch7x7_1", inner, 1),
            ("branch7x7_2", inner, row),
            ("branch7x7_3", 192, column),
        ),
        _chain(
            conv,
            x,
            ("branch7x7dbl_1", inner, 1),
            ("branch7x7dbl_2", inner, column),
            ("branch7x7dbl_3", inner, row),
            ("branch7x7dbl_4", inner, column),
            ("branch7x7dbl_5", 192, row),
        ),
        conv("branch_pool", _mean_pool(x), 192, 1),
    ]
    return jnp.concatenate(branches, axis=-1)


def _block_d(conv, x):
    branches = [
        _chain(conv, x, ("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2, "VALID")),
        _chain(
            conv,
            x,
            ("branch7x7x3_1", 192, 1),
            ("branch7x7x3_2", 192, (1, 7)),
            ("branch7x7x3_3", 192, (7, 1)),
            ("branch7x7x3_4", 192, 3, 2, "VALID"),
        ),
        _max_pool(x, 2),
    ]
    return jnp.concatenate(branches, axis=-1)


def _block_e(conv, x, pool):
    single = conv("branch3x3_1", x, 384, 1)
    double = _chain(conv, x, ("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3))
    branches = [
        conv("branch1x1", x, 320, 1),
        conv("branch3x3_2a", single, 384, (1, 3)),
        conv("branch3x3_2b", single, 384, (3, 1)),
        conv("branch3x3dbl_3a", double, 384, (1, 3)),
        conv("branch3x3dbl_3b", double, 384, (3, 1)),
        conv("branch_pool", pool(x), 192, 1),
    ]
    return jnp.concatenate(branches, axis=-1)


def _convolve(x, kernel, stride, padding):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )


def _max_pool(x, stride, padding="VALID"):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, stride, stride, 1), padding)


def _mean_pool(x):
    """Average each 3x3 window over the pixels that lie inside the image."""
    total = lax.reduce_window(x, 0.0, lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")
    rows, columns = (np.convolve(np.ones(side), np.ones(3), "same") for side in x.shape[1:3])
    return total / np.outer(rows, columns)[:, :, None].astype(np.float32)


def _resize(x):
    """Resize `[n, height, width, channels]` to 299x299 as torch does with align_corners False."""
    rows, columns = (_interpolation(side) for side in x.shape[1:3])
    return jnp.einsum("ah,bw,nhwc->nabc", rows, columns, x, precision=lax.Precision.HIGHEST)


def _interpolation(side: int) -> np.ndarray:
    """Return the matrix `[299, side]` that interpolates a line of `side` pixels."""
    position = (np.arange(IMAGE_SIZE) + 0.5) * side / IMAGE_SIZE - 0.5
    position = np.clip(position, 0.0, side - 1.0)
    distance = np.abs(position[:, None] - np.arange(side))
    return np.maximum(0.0, 1.0 - distance).astype(np.float32)


def _pair(size):
    return size if isinstance(size, tuple) else (size, size)
