"""The difference form: -|x - y|^2 / 2 summed dimension by dimension, free of cancellation."""

import jax
import jax.numpy as jnp

from avae_jax.kernels.pairwise_lse.form import MOST_HEADROOM, Form

# So many dimensions are written out in one fused pass over the tile; more of them are summed in
# groups, which keeps the program small. Measured on the CPU: groups of 8 take three times as long.
_UNROLLED_DIMS = 32
_GROUP_DIMS = 16
# Short chains of additions lose less to rounding than one long one.
_CHAIN = 8


def _point_terms(centred):
    return jnp.zeros(centred.shape[:-1], centred.dtype)


def _operand(points, centred):
    # Neither centred nor scaled: both would round the points, and nearby ones subtract exactly.
    del centred
    # Separate columns: XLA on the CPU does not vectorise a loop that slices them itself.
    return tuple(points.T) if points.shape[1] <= _UNROLLED_DIMS else points


def _product(x, y, bandwidth, precision):
    del precision
    scale = -0.5 / jnp.square(bandwidth)
    if isinstance(x, tuple):
        return scale * _squares(x, y)
    x, y = x.T, y.T
    d = x.shape[0]
    num_groups = d // _GROUP_DIMS
    rest = num_groups * _GROUP_DIMS
    total = _squares(x[rest:], y[rest:]) if rest < d else None

    def of_group(group):
        start = group * _GROUP_DIMS
        return _squares(
            jax.lax.dynamic_slice_in_dim(x, start, _GROUP_DIMS),
            jax.lax.dynamic_slice_in_dim(y, start, _GROUP_DIMS),
        )

    first = of_group(0) if total is None else total + of_group(0)
    return scale * jax.lax.fori_loop(1, num_groups, lambda g, t: t + of_group(g), first)


def _squares(x, y):
    """Return the squared distances `[a, b]` over the few columns `[a]` of x and `[b]` of y."""
    terms = [jnp.square(a[:, None] - b) for a, b in zip(x, y, strict=True)]
    while len(terms) > 1:
        chains = [terms[i : i + _CHAIN] for i in range(0, len(terms), _CHAIN)]
        terms = [sum(chain[1:], start=chain[0]) for chain in chains]
    return terms[0]


DIFFERENCE_FORM = Form(
    point_terms=_point_terms,
    operand=_operand,
    product=_product,
    fused_dims=0,
    # The error of a logit is a share of itself: so may be what the level adds to it.
    headroom=lambda lse: jnp.minimum(6.0 + 2.0 * jnp.abs(lse), MOST_HEADROOM),
    raises_level=False,
)
