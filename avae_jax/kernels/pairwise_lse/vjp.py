"""The derivatives of pairwise_lse: one custom VJP that computes only what is asked for."""

import functools

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from avae_jax.kernels.pairwise_lse import stream
from avae_jax.kernels.pairwise_lse.form import Form


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _raw_stats(form: Form, mean: bool, moments: bool, x, y, bandwidth, log_weights, exclude):
    """Return stream.forward; differentiating it raises instead of storing every tile."""
    return stream.forward(form, x, y, bandwidth, log_weights, exclude, mean=mean, moments=moments)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _center_gradients(form: Form, x, y, bandwidth, log_weights, exclude, lse, cotangent):
    return stream.center_gradients(form, x, y, bandwidth, log_weights, exclude, lse, cotangent)


def _refuse(*args):
    raise NotImplementedError(
        "pairwise_lse has first derivatives in reverse mode only, and pairwise_lse_stats none: "
        "take jax.grad of pairwise_lse once, and wrap the inputs of pairwise_lse_stats in "
        "jax.lax.stop_gradient."
    )


_raw_stats.defjvp(_refuse)
_center_gradients.defjvp(_refuse)

# jit: called eagerly, a scan over a fresh closure would compile on every call.
raw_stats = jax.jit(_raw_stats, static_argnums=(0, 1, 2))
_jitted_center_gradients = jax.jit(_center_gradients, static_argnums=0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _lse(form: Form, x, y, bandwidth, log_weights, exclude) -> jax.Array:
    """Return the row log-sum-exp [n], differentiable in x, y, bandwidth and log_weights."""
    return raw_stats(form, False, False, x, y, bandwidth, log_weights, exclude).lse


def _forward(form, x, y, bandwidth, log_weights, exclude):
    # With symbolic_zeros every leaf arrives as (value, perturbed).
    differentiates_centers = y.perturbed or (log_weights is not None and log_weights.perturbed)
    args = tuple(None if a is None else a.value for a in (x, y, bandwidth, log_weights, exclude))
    raw = raw_stats(form, x.perturbed, bandwidth.perturbed, *args)
    # What is not needed is saved as an array of size 0. A None would change the tree of residuals,
    # and JAX keeps one tree for all derivatives of a traced call (seen in jax 0.10.2: the second
    # jax.grad of a jitted function, in other arguments than the first, failed).
    absent = jnp.zeros((0,), raw.lse.dtype)
    saved = jax.tree.map(lambda a: a if differentiates_centers else absent, args)
    drift = absent if raw.drift is None else raw.drift
    logit_mean = absent if raw.logit_mean is None else raw.logit_mean
    return raw.lse, (raw.lse, drift, logit_mean, args[2], saved)


def _backward(form, residuals, cotangent):
    value, drift, logit_mean, bandwidth, saved = residuals
    if isinstance(cotangent, SymbolicZero):
        return (None,) * 5
    # An empty row is -inf for every input near this one: its gradient is 0, whatever comes in.
    # And a row that goes unused must not spoil the sums below, should it hold NaN.
    used = (value != -jnp.inf) & (cotangent != 0.0)
    cotangent = jnp.where(used, cotangent, 0.0)
    grad_x = grad_y = grad_bandwidth = grad_log_weights = None
    if drift.size:
        grad_x = jnp.where(used[:, None], cotangent[:, None] * drift, 0.0) / jnp.square(bandwidth)
    if logit_mean.size:
        terms = jnp.where(used, cotangent * logit_mean, 0.0)
        grad_bandwidth = -2.0 * jnp.sum(terms) / bandwidth
    x, _, _, log_weights, _ = saved
    if x.size:
        grad_y, grad_log_weights = _jitted_center_gradients(form, *saved, value, cotangent)
        grad_log_weights = None if log_weights is None else grad_log_weights
    return grad_x, grad_y, grad_bandwidth, grad_log_weights, None


_lse.defvjp(_forward, _backward, symbolic_zeros=True)

lse = jax.jit(_lse, static_argnums=0)
