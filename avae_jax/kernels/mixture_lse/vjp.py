"""The log-sum-exps and their derivatives: custom VJPs that stream once more for the centers."""

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.sharding import PartitionSpec

from avae_jax.kernels.mixture_lse import stream
from avae_jax.kernels.pairwise_lse.explicit import spec_of, with_auto_axes
from avae_jax.kernels.pairwise_lse.varying import vary_over, varying_axes


def mixture_lse(
    x: jax.Array,
    loc: jax.Array,
    log_var: jax.Array,
    log_weights: jax.Array | None,
    exclude: jax.Array | None,
) -> jax.Array:
    """Return `log sum_{j != exclude_i} w_j N(x_i; loc_j, diag exp(log_var_j))`.

    `avae_jax.mixture_log_density`, which checks its arguments, says what it promises.

    Args:
      x: `[n, d]`, of the one floating type of all.
      loc: `[m, d]`.
      log_var: `[m, d]`.
      log_weights: `[m]`, `log w`; None is 0.
      exclude: `[n]` int32, or None.

    Returns:
      `[n]`, -inf where nothing is included.
    """
    if not x.shape[0]:
        return jnp.zeros(x.shape[:1], x.dtype)
    return _jitted_lse(*_varying(x, loc, log_var, log_weights, exclude))


def marginal_lse(
    x: jax.Array,
    loc: jax.Array,
    log_var: jax.Array,
    log_weights: jax.Array | None,
    exclude: jax.Array | None,
) -> jax.Array:
    """Return `mixture_lse` of each dimension by itself, `[n, d]`; its arguments."""
    if not x.shape[0]:
        return jnp.zeros(x.shape, x.dtype)
    return _jitted_marginals(*_varying(x, loc, log_var, log_weights, exclude))


def _varying(*args) -> tuple:
    """Return the arguments alike along mapped axes: JAX sums the gradients of what was whole."""
    axes = varying_axes(*args)
    return tuple(vary_over(a, axes) for a in args)


def _rows(gradient: bool, x, loc, log_var, log_weights, exclude):
    def sums(x, *others):
        lse, drift = stream.query_sums(x, *others, gradient=gradient)
        # An infinite query can look merely far away.
        finite = jnp.all(jnp.isfinite(x), axis=1)
        return jnp.where(finite, lse, jnp.nan), drift

    specs = PartitionSpec(spec_of(x)[0]), spec_of(x) if gradient else None
    return with_auto_axes(sums, (x, loc, log_var, log_weights, exclude), specs)


@jax.custom_vjp
def _lse(x, loc, log_var, log_weights, exclude) -> jax.Array:
    return _rows(False, x, loc, log_var, log_weights, exclude)[0]


def _forward(x, loc, log_var, log_weights, exclude):
    # With symbolic_zeros every leaf arrives as (value, perturbed).
    of_centers = any(a is not None and a.perturbed for a in (loc, log_var, log_weights))
    gradient = x.perturbed
    args = tuple(None if a is None else a.value for a in (x, loc, log_var, log_weights, exclude))
    lse, drift = _rows(gradient, *args)
    # What is not needed is saved as an array of size 0: a None would change the tree of residuals,
    # and JAX keeps one tree for all derivatives of a traced call.
    absent = jnp.zeros((0,), lse.dtype)
    saved = jax.tree.map(lambda a: a if of_centers else absent, args)
    return lse, (lse, absent if drift is None else drift, saved)


def _backward(residuals, cotangent):
    lse, drift, saved = residuals
    if isinstance(cotangent, SymbolicZero):
        return (None,) * 5
    # An empty row is -inf for every input near this one: its gradient is 0, whatever comes in.
    used = (lse != -jnp.inf) & (cotangent != 0.0)
    cotangent = jnp.where(used, cotangent, 0.0)
    grad_x = grad_loc = grad_log_var = grad_log_weights = None
    if drift.size:
        grad_x = jnp.where(used[:, None], cotangent[:, None] * drift, 0.0)
    if saved[0].size:
        x, loc, log_var, log_weights, _ = saved
        of_weights = spec_of(loc)[:1] if log_weights is None else spec_of(log_weights)
        specs = spec_of(loc), spec_of(log_var), PartitionSpec(*of_weights)
        grad_loc, grad_log_var, grad_log_weights = with_auto_axes(
            stream.center_gradients, (*saved, lse, cotangent), specs
        )
        grad_log_weights = None if log_weights is None else grad_log_weights
    return grad_x, grad_loc, grad_log_var, grad_log_weights, None


_lse.defvjp(_forward, _backward, symbolic_zeros=True)


def _marginals(x, loc, log_var, log_weights, exclude) -> jax.Array:
    def of_dimension(columns):
        x, loc, log_var = (column[:, None] for column in columns)
        return _lse(x, loc, log_var, log_weights, exclude)

    return jax.lax.map(of_dimension, (x.T, loc.T, log_var.T)).T


# jit: called eagerly, a loop over a fresh closure would compile on every call.
_jitted_lse, _jitted_marginals = jax.jit(_lse), jax.jit(_marginals)
