"""The matrix form: -|x - y|^2 / 2 = x.y - |x|^2 / 2 - |y|^2 / 2, one matrix product per tile."""

import jax.numpy as jnp

from avae_jax.kernels.pairwise_lse.form import MOST_HEADROOM, Form
from avae_jax.kernels.pairwise_lse.precision import LONGEST_CHAIN, matmul


def _point_terms(centred):
    return -0.5 * jnp.sum(centred * centred, axis=-1)


def _operand(points, centred):
    del points
    return centred


def _product(x, y, bandwidth, precision):
    del bandwidth
    # The terms of nearby points all have one sign: their roundings add up along a chain.
    cuts = [slice(i, i + LONGEST_CHAIN) for i in range(0, x.shape[1], LONGEST_CHAIN)]
    total, *parts = (matmul(x[:, cut], y[:, cut].T, precision) for cut in cuts)
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
