"""Two-dimensional convolutions in the form each back-end runs fast.

XLA on the CPU falls off its fast path for the gradients of strided convolutions: one transposed
4x4 layer (256 to 128 channels, 4x4 to 8x8, batch 100) took 619 ms forward and backward through
`lax.conv_transpose` and 20 ms through the matrix products below, on two cores. So strided layers
run as matrix products on the CPU and through `lax` elsewhere; kernels and values are the same.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from avae_jax.checks import check_choice

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_IMPLEMENTATIONS = (None, "lax", "matmul")

# Compiled as one unit when a module is applied outside jit: op by op, the slices are slow.
_compiled = functools.partial(jax.jit, static_argnames=("stride", "implementation"), inline=True)


@_compiled
def conv2d(x, kernel, *, stride=1, implementation=None):
    """Convolve images with a kernel, zero padding "SAME".

    Args:
      x: images `[batch, height, width, in_channels]`.
      kernel: `[size, size, in_channels, out_channels]`.
      stride: step between output pixels, an int of at least 1.
      implementation: "lax", "matmul", or None: "matmul" on the CPU when `stride > 1`.

    Returns:
      `[batch, ceil(height / stride), ceil(width / stride), out_channels]`, the dtype of `x`.

    Raises:
      ValueError: if `implementation` is unknown.

    Numerics:
      "matmul" gathers the patches, `size^2 / stride^2` times the memory of `x`.
    """
    if _choose(implementation, stride) == "lax":
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=_DIMENSIONS
        )
    size, _, in_channels, out_channels = kernel.shape
    height, width = (math.ceil(side / stride) for side in x.shape[1:3])
    pads = lax.padtype_to_pads(x.shape[1:3], (size, size), (stride, stride), "SAME")
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = stride * (height - 1) + 1, stride * (width - 1) + 1
    patches = jnp.concatenate(
        [
            x[:, a : a + rows : stride, b : b + columns : stride]
            for a in range(size)
            for b in range(size)
        ],
        axis=-1,
    )
    return patches @ kernel.reshape(size * size * in_channels, out_channels)


@_compiled
def conv_transpose2d(x, kernel, *, stride=1, implementation=None):
    """Apply the transpose of `conv2d`: every side grows by the factor `stride`.

    This is Keras's `Conv2DTranspose(padding="same")`, with Keras's kernel layout.

    Args:
      x: images `[batch, height, width, in_channels]`.
      kernel: `[size, size, out_channels, in_channels]`.
      stride: growth of height and width, an int of at least 1.
      implementation: "lax", "matmul" (needs `size` to be a multiple of `stride`), or None:
        "matmul" on the CPU where it is possible and `stride > 1`.

    Returns:
      `[batch, stride * height, stride * width, out_channels]`, the dtype of `x`.

    Raises:
      ValueError: if `implementation` is unknown, or "matmul" with a size that is not a multiple
        of the stride.
    """
    size, _, out_channels, in_channels = kernel.shape
    divides = size % stride == 0
    if implementation == "matmul" and not divides:
        raise ValueError(
            f"implementation='matmul' needs a kernel size that is a multiple of stride {stride}, "
            f"got {size}: use implementation='lax'"
        )
    if _choose(implementation, stride) == "lax" or not divides:
        return lax.conv_transpose(
            x,
            kernel,
            (stride, stride),
            "SAME",
            dimension_numbers=_DIMENSIONS,
            transpose_kernel=True,
        )
    batch, height, width, _ = x.shape
    # The kernel splits into blocks x blocks tiles of stride x stride pixels. A tile moves an input
    # pixel's contribution by whole input pixels, so the tiles add up before the pixels interleave.
    blocks = size // stride
    tiles = kernel.reshape(blocks, stride, blocks, stride, out_channels, in_channels)
    tiles = tiles.transpose(0, 2, 5, 1, 3, 4)
    tiles = tiles.reshape(blocks, blocks, in_channels, stride * stride * out_channels)
    last = blocks - 1
    y = functools.reduce(
        jnp.add,
        [
            jnp.pad(x @ tiles[p, r], ((0, 0), (p, last - p), (r, last - r), (0, 0)))
            for p in range(blocks)
            for r in range(blocks)
        ],
    )
    rows, columns = height + last, width + last
    y = y.reshape(batch, rows, columns, stride, stride, out_channels)
    y = y.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * stride, columns * stride, out_channels)
    low = (size - stride) // 2
    return y[:, low : low + stride * height, low : low + stride * width]


def _choose(implementation, stride):
    """Return "lax" or "matmul"."""
    check_choice("implementation", implementation, _IMPLEMENTATIONS)
    if implementation is None:
        return "matmul" if stride > 1 and jax.default_backend() == "cpu" else "lax"
    return implementation
