"""The derivatives of pairwise_lse: one custom VJP that computes only what is asked for."""

import functools

import jax
import jax.numpy as jnp

from avae_jax.kernels.pairwise_lse import stream
from avae_jax.kernels.pairwise_lse.form import Form


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def raw_stats(form: Form, drift: bool, moments: bool, x, y, bandwidth, log_weights, exclude):
    """Computes stream.forward; differentiating it raises instead of storing every tile."""
    return stream.forward(form, x, y, bandwidth, log_weights, exclude, drift=drift, moments=moments)


@raw_stats.defjvp
def _raw_stats_jvp(form, drift, moments, primals, tangents):
    raise NotImplementedError(
        "pairwise_lse has first derivatives in reverse mode only, and pairwise_lse_stats none: "
        "take jax.grad of pairwise_lse once, and wrap the inputs of pairwise_lse_stats in "
        "jax.lax.stop_gradient."
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _center_gradients(form, x, y, bandwidth, log_weights, exclude, lse, cotangent):
    return stream.center_gradients(form, x, y, bandwidth, log_weights, exclude, lse, cotangent)


@_center_gradients.defjvp
def _center_gradients_jvp(form, primals, tangents):
    raise NotImplementedError("pairwise_lse has first derivatives only: take jax.grad of it once.")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def lse(form: Form, x, y, bandwidth, log_weights, exclude):
    """Returns the row log-sum-exp [n], differentiable in x, y, bandwidth and log_weights."""
    return raw_stats(form, False, False, x, y, bandwidth, log_weights, exclude).lse


def _fwd(form, x, y, bandwidth, log_weights, exclude):
    wants_centers = y.perturbed or (log_weights is not None and log_weights.perturbed)
    args = jax.tree.map(
        lambda p: p.value,
        (x, y, bandwidth, log_weights, exclude),
        is_leaf=lambda p: hasattr(p, "perturbed"),
    )
    raw = raw_stats(form, x.perturbed, bandwidth.perturbed, *args)
    saved = args if wants_centers else None
    return raw.lse, (raw, args[2], saved)


def _bwd(form, residuals, cotangent):
    raw, bandwidth, saved = residuals
    if isinstance(cotangent, jax.custom_derivatives.SymbolicZero):
        return (None,) * 5
    # An empty row has value -inf for every input near this one, so its gradient is 0 even where
    # the cotangent is not finite.
    cotangent = jnp.where(raw.lse == -jnp.inf, 0.0, cotangent)
    grad_x = grad_y = grad_bandwidth = grad_log_weights = None
    if raw.drift is not None:
        grad_x = cotangent[:, None] * raw.drift / jnp.square(bandwidth)
    if raw.logit_mean is not None:
        grad_bandwidth = -2.0 * jnp.sum(cotangent * raw.logit_mean) / bandwidth
    if saved is not None:
        grad_y, grad_log_weights = _center_gradients(form, *saved, raw.lse, cotangent)
        if saved[3] is None:
            grad_log_weights = None
    return grad_x, grad_y, grad_bandwidth, grad_log_weights, None


lse.defvjp(_fwd, _bwd, symbolic_zeros=True)
