"""The derivatives of pairwise_lse: one custom VJP that computes only what is asked for.

The collectives of a sharded call are inside of it, so that JAX differentiates none of them.
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.sharding import PartitionSpec

from avae_jax.kernels.pairwise_lse import layout as layouts
from avae_jax.kernels.pairwise_lse.explicit import spec_of, with_auto_axes
from avae_jax.kernels.pairwise_lse.layout import Layout
from avae_jax.kernels.pairwise_lse.stats import PairwiseStats, empty_level

_Mean = Literal["absolute", "relative"]


class _Rows(NamedTuple):
    """Row statistics of the softmax over centers, [k, ...]; fields not asked for are None.

    Attributes:
      lse: [k, n], nats, -inf where no center is included.
      mean: [k, n, d], the mean center, in the caller's coordinates or relative to the query: each
        taken from centered coordinates, where it keeps its digits. 0 where no center is included.
      logit_mean: [k, n], E_w[l] without log weights.
      logit_sq_mean: [k, n], E_w[l^2].
    """

    lse: jax.Array
    mean: jax.Array | None = None
    logit_mean: jax.Array | None = None
    logit_sq_mean: jax.Array | None = None


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _rows(
    layout: Layout, mean: _Mean | None, moments: bool, x, y, bandwidths, log_weights, exclude
) -> _Rows:
    """Return the rows' statistics; differentiating them raises instead of storing every tile.

    Rows with a non-finite query are NaN in every field.
    """
    of_rows, of_mean = PartitionSpec(None, spec_of(x)[0]), PartitionSpec(None, *spec_of(x))
    specs: list[Any] = [of_rows, of_mean if mean is not None else None]
    specs += [of_rows if moments else None] * 2

    def rows(*args):
        return _summed_rows(layout, mean, moments, *args)

    return with_auto_axes(rows, (x, y, bandwidths, log_weights, exclude), _Rows(*specs))


# A log weight that stands for infinity: a finite one stays comparable with a level.
_INFINITE = 1e30


def _summed_rows(
    layout: Layout, mean: _Mean | None, moments: bool, x, y, bandwidths, log_weights, exclude
) -> _Rows:
    """Return the rows' statistics as `_rows` does."""
    if log_weights is not None:
        log_weights = jnp.minimum(log_weights, _INFINITE)
    shift = layouts.origin(layout, y, log_weights)

    def run(layout):
        return layouts.sums(
            layout, x, y, bandwidths, log_weights, exclude, shift,
            mean=mean is not None, moments=moments,
        )  # fmt: skip

    sums = layouts.by_scale(layout, run, x, y, bandwidths, log_weights, shift)
    empty = sums.top <= empty_level(x.dtype)
    inverse = jnp.where(empty, 0.0, 1.0 / sums.total)
    lse = jnp.where(empty, -jnp.inf, sums.top + jnp.log(sums.total))
    # A maximum need not propagate NaN, and an infinite query can look merely far away.
    defined = finite = jnp.all(jnp.isfinite(x), axis=1)[None, :]
    if log_weights is not None:
        infinite = lse > 0.1 * _INFINITE
        lse = jnp.where(infinite, jnp.inf, lse)
        # There is no softmax there.
        defined &= ~infinite

    def row(a):
        return jnp.where(defined, a, jnp.nan)

    rows = _Rows(jnp.where(finite, lse, jnp.nan))
    if sums.weighted is not None:
        origin = shift[None, :] if mean == "absolute" else shift[None, :] - x
        means = sums.weighted * inverse[..., None] + origin[None]
        means = jnp.where(empty[..., None], 0.0, means)
        rows = rows._replace(mean=jnp.where(defined[..., None], means, jnp.nan))
    if sums.first is not None and sums.second is not None:
        # Selected, not multiplied by 0: the sums of an empty row overflow.
        rows = rows._replace(
            logit_mean=row(jnp.where(empty, 0.0, sums.first * inverse)),
            logit_sq_mean=row(jnp.where(empty, 0.0, sums.second * inverse)),
        )
    return rows


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _center_gradients(layout: Layout, x, y, bandwidths, log_weights, exclude, lse, cotangent):
    def gradients(x, y, bandwidths, log_weights, exclude, lse, cotangent):
        # Where a weight is infinite there is no softmax.
        cotangent = jnp.where((lse == jnp.inf) & (cotangent != 0.0), jnp.nan, cotangent)
        if log_weights is not None:
            log_weights = jnp.where(log_weights == jnp.inf, -jnp.inf, log_weights)
        shift = layouts.origin(layout, y, log_weights)

        def run(layout):
            return layouts.center_gradients(
                layout, x, y, bandwidths, log_weights, exclude, shift, lse, cotangent
            )

        return layouts.by_scale(layout, run, x, y, bandwidths, log_weights, shift)

    specs = (
        spec_of(y),
        PartitionSpec(spec_of(y)[0]) if log_weights is None else spec_of(log_weights),
    )
    args = x, y, bandwidths, log_weights, exclude, lse, cotangent
    return with_auto_axes(gradients, args, specs)


_REFUSAL = (
    "pairwise_lse has first derivatives in reverse mode only, and pairwise_lse_stats none: take "
    "jax.grad of pairwise_lse once, wrap the inputs of pairwise_lse_stats in "
    'jax.lax.stop_gradient, or pass implementation="dense", which JAX differentiates in any mode '
    "and order, with the [n, m] logits in memory."
)


def _refuse(*args):
    raise NotImplementedError(_REFUSAL)


_rows.defjvp(_refuse)
_center_gradients.defjvp(_refuse)

# jit: called eagerly, a loop over a fresh closure would compile on every call.
_jitted_rows = jax.jit(_rows, static_argnums=(0, 1, 2))
_jitted_center_gradients = jax.jit(_center_gradients, static_argnums=0)


def stats(layout: Layout, x, y, bandwidths, log_weights, exclude) -> PairwiseStats:
    """Return all statistics, [k, ...]; see `api.pairwise_lse_stats`."""
    rows = _jitted_rows(layout, "absolute", True, x, y, bandwidths, log_weights, exclude)
    return PairwiseStats(*rows)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _lse(layout: Layout, x, y, bandwidths, log_weights, exclude) -> jax.Array:
    return _jitted_rows(layout, None, False, x, y, bandwidths, log_weights, exclude).lse


def _forward(layout, x, y, bandwidths, log_weights, exclude):
    # With symbolic_zeros every leaf arrives as (value, perturbed).
    differentiates_centers = y.perturbed or (log_weights is not None and log_weights.perturbed)
    args = tuple(None if a is None else a.value for a in (x, y, bandwidths, log_weights, exclude))
    mean = "relative" if x.perturbed else None
    rows = _jitted_rows(layout, mean, bandwidths.perturbed, *args)
    # What is not needed is saved as an array of size 0. A None would change the tree of residuals,
    # and JAX keeps one tree for all derivatives of a traced call (seen in jax 0.10.2: the second
    # jax.grad of a jitted function, in other arguments than the first, failed).
    absent = jnp.zeros((0,), rows.lse.dtype)
    saved = jax.tree.map(lambda a: a if differentiates_centers else absent, args)
    drift = absent if rows.mean is None else rows.mean
    logit_mean = absent if rows.logit_mean is None else rows.logit_mean
    return rows.lse, (rows.lse, drift, logit_mean, args[2], saved)


def _backward(layout, residuals, cotangent):
    value, drift, logit_mean, bandwidths, saved = residuals
    if isinstance(cotangent, SymbolicZero):
        return (None,) * 5
    # An empty row is -inf for every input near this one: its gradient is 0, whatever comes in.
    # And a row that goes unused must not spoil the sums below, should it hold NaN.
    used = (value != -jnp.inf) & (cotangent != 0.0)
    cotangent = jnp.where(used, cotangent, 0.0)
    grad_x = grad_y = grad_bandwidths = grad_log_weights = None
    if drift.size:
        scaled = cotangent / jnp.square(bandwidths)[:, None]
        grad_x = jnp.sum(jnp.where(used[..., None], scaled[..., None] * drift, 0.0), axis=0)
    if logit_mean.size:
        terms = jnp.where(used, cotangent * logit_mean, 0.0)
        grad_bandwidths = -2.0 * jnp.sum(terms, axis=1) / bandwidths
    x, _, _, log_weights, _ = saved
    if x.size:
        grad_y, grad_log_weights = _jitted_center_gradients(layout, *saved, value, cotangent)
        grad_log_weights = None if log_weights is None else grad_log_weights
    return grad_x, grad_y, grad_bandwidths, grad_log_weights, None


_lse.defvjp(_forward, _backward, symbolic_zeros=True)

_jitted_lse = jax.jit(_lse, static_argnums=0)


def lse(layout: Layout, x, y, bandwidths, log_weights, exclude) -> jax.Array:
    """Return the log-sum-exp [k, n], differentiable in x, y, bandwidths and log_weights."""
    try:
        return _jitted_lse(layout, x, y, bandwidths, log_weights, exclude)
    except TypeError as error:
        # What JAX says of any function with a derivative of its own.
        if "forward-mode" not in str(error):
            raise
        raise NotImplementedError(_REFUSAL) from error
