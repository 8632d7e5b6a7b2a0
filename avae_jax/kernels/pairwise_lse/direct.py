"""The difference form: -|x - y|^2 / 2 summed dimension by dimension, free of cancellation."""

import jax
import jax.numpy as jnp

from avae_jax.kernels.pairwise_lse.form import Form

# Up to here the dimensions are written out in one fused pass over the tile; beyond, every
# dimension is a pass of its own, which keeps the program small.
_UNROLLED_DIMS = 8


def _point_terms(centred):
    return jnp.zeros(centred.shape[:-1], centred.dtype)


def _operand(points, centred):
    # Neither centred nor scaled: both would round the points, and nearby ones subtract exactly.
    del centred
    # Separate columns: XLA on the CPU does not vectorise a loop that slices them itself.
    return tuple(points.T) if points.shape[1] <= _UNROLLED_DIMS else points


def _product(x, y, bandwidth):
    scale = -0.5 / jnp.square(bandwidth)
    if isinstance(x, tuple):
        squares = [jnp.square(a[:, None] - b) for a, b in zip(x, y, strict=True)]
        return scale * sum(squares[1:], start=squares[0])

    # Transposed before the loop, so that its body reads contiguous rows.
    x, y = x.T, y.T

    def add_dim(k, total):
        a = jax.lax.dynamic_index_in_dim(x, k, axis=0, keepdims=False)
        b = jax.lax.dynamic_index_in_dim(y, k, axis=0, keepdims=False)
        return total + jnp.square(a[:, None] - b)

    first = jnp.square(x[0][:, None] - y[0])
    return scale * jax.lax.fori_loop(1, x.shape[0], add_dim, first)


DIFFERENCE_FORM = Form(point_terms=_point_terms, operand=_operand, product=_product)
