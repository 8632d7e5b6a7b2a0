"""The matrix form: -|x - y|^2 / 2 = x.y - |x|^2 / 2 - |y|^2 / 2, one matrix product per tile."""

import jax.numpy as jnp

from avae_jax.kernels.pairwise_lse.form import MOST_HEADROOM, Form
from avae_jax.kernels.pairwise_lse.precision import LONGEST_CHAIN, matmul


def _operand(points, centred):
    # The terms of nearby points all have one sign: their roundings add up along a chain. Cut here,
    # and not in the product, XLA writes no uncut copy.
    del points
    cuts = range(0, centred.shape[1], LONGEST_CHAIN)
    return tuple(centred[:, i : i + LONGEST_CHAIN] for i in cuts)


def _point_terms(centred):
    squares = (jnp.sum(chain * chain, axis=-1) for chain in _operand(None, centred))
    return -0.5 * sum(squares)


def _product(x, y, bandwidth, precision):
    del bandwidth
    total, *parts = (matmul(a, b.T, precision) for a, b in zip(x, y, strict=True))
    return sum(parts, start=total)


MATRIX_FORM = Form(
    point_terms=_point_terms,
    operand=_operand,
    product=_product,
    fused_dims=LONGEST_CHAIN,
    # The error of a logit is a share of its largest term, which grows as the logits spread.
    headroom=lambda lse: MOST_HEADROOM,
    raises_level=True,
)
