"""The importance-weighted bound, and the doubly reparameterized gradient of it."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from avae_jax.checks import check_axes
from avae_jax.numerics import logmeanexp, promoted


def iwae(log_weights: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the negative importance-weighted bound of each example.

    `-log 1/K sum_k w_k` with `w_k = p(x | z_k) p(z_k) / q(z_k | x)` and K draws `z_k` of the
    posterior q (Burda, Grosse and Salakhutdinov 2016, eq. 8). With one draw it is the negative
    evidence lower bound; with more it falls, on average, towards `-log p(x)`. The weighted mean
    `-sum_k w_k log w_k / sum_k w_k`, whose gradient is the same where the weights are held fixed,
    is no bound: it is lower by `log K` less the entropy of the weights.

    Args:
      log_weights: `log w_k`, `[batch, num_samples]`, nats, the densities normalized.

    Returns:
      The loss `[batch]`, nats, and its terms, each `[batch]`: `effective_samples`,
      `(sum w)^2 / sum w^2` between 1 and K; near 1 the bound rests on one draw.

    Raises:
      ValueError: `log_weights` is not of rank 2; one example alone, as inside `jax.vmap`, is
        `log_weights[None]`.

    Numerics:
      In the log domain: weights of any size. The gradient in `log w_k` is `-w_k / sum w`.

    Example:
      >>> import jax.numpy as jnp
      >>> loss, terms = iwae(jnp.log(jnp.array([[1.0, 3.0]])))
      >>> round(float(loss[0]), 4), round(float(terms["effective_samples"][0]), 4)  # -log 2
      (-0.6931, 1.6)

    References:
      Burda, Grosse and Salakhutdinov, 2016, [Importance Weighted Autoencoders](
      https://arxiv.org/abs/1509.00519).
    """
    check_axes(log_weights=("batch num_samples", log_weights))
    (log_weights,) = promoted(log_weights=log_weights)
    shares = jax.lax.stop_gradient(jax.nn.softmax(log_weights, axis=-1))
    effective = 1 / jnp.sum(jnp.square(shares), axis=-1)
    return -logmeanexp(log_weights, axis=-1), {"effective_samples": effective}


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def doubly_reparameterized(
    function: Callable[..., tuple[jax.Array, Any]], z: jax.Array, *others: Any
) -> tuple[jax.Array, Any]:
    """Return `function(z, *others)`, with the gradient in z that the bound of `iwae` needs.

    The gradient of the bound in the encoder consists of a path through the draws, weighted by
    `w~_k = w_k / sum w`, and of the derivative of `log q` at fixed draws. The second has the mean
    of another path, and both together are `sum_k w~_k^2 d log w_k / d z_k d z_k / d phi` (Tucker,
    Lawson, Gu and Maddison 2019, DReG): of the same expectation as the plain gradient, and with
    less variance, which does not outgrow the gradient as K rises. For one draw it is the gradient
    through the path alone (Roeder, Wu and Duvenaud 2017).

    Only the gradient in `z` is multiplied by `w~_k` here; that in `others`, the decoder and the
    prior among them, is that of `function`. The posterior's parameters must not get another
    gradient: give `jax.lax.stop_gradient` of them to `log q`, and draw z by reparameterization.

    Args:
      function: `(z, *others) -> (log_weights [batch, num_samples], aux)`, pure; it must not close
        over arrays that are differentiated. What is made of `aux` is not to be differentiated in z.
      z: draws, `[batch, num_samples, latent_dim]`.
      *others: pytrees of arrays.

    Returns:
      What `function` returns.

    Numerics:
      One pass forward and one backward, as without it.

    Example:
      >>> import jax
      >>> noise = jax.random.normal(jax.random.key(0), (1, 8, 2))
      >>> def log_weights(z, log_q_mean):  # p(z) = N(0, I), q(z) = N(mean, I)
      ...     log_q = -0.5 * jnp.sum((z - log_q_mean) ** 2, axis=-1)
      ...     return -0.5 * jnp.sum(z**2, axis=-1) - log_q, ()
      >>> def loss(mean):
      ...     z, fixed = mean + noise, jax.lax.stop_gradient(mean)
      ...     return iwae(doubly_reparameterized(log_weights, z, fixed)[0])[0].sum()
      >>> jax.grad(loss)(jnp.zeros((1, 1, 2))).tolist()  # where q is p, all of its noise is gone
      [[[0.0, 0.0]]]

    References:
      Tucker, Lawson, Gu and Maddison, 2019, [Doubly Reparameterized Gradient Estimators for Monte
      Carlo Objectives](https://arxiv.org/abs/1810.04152).
      Roeder, Wu and Duvenaud, 2017, [Sticking the Landing](https://arxiv.org/abs/1703.09194).
    """
    return function(z, *others)


def _forward(function, z, *others):
    found, pull_back = jax.vjp(function, z, *others)
    shares = jax.nn.softmax(found[0], axis=-1)
    return found, (pull_back, shares)


def _backward(function, kept, cotangent):
    del function
    pull_back, shares = kept
    of_z, *of_others = pull_back(cotangent)
    return (of_z * shares[..., None].astype(of_z.dtype), *of_others)


doubly_reparameterized.defvjp(_forward, _backward)
