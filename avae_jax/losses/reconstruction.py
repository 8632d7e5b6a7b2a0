"""The reconstruction term, shared by every loss."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

Likelihood = Literal["gaussian", "bernoulli"]


def reconstruction_loss(
    x: jax.Array, x_recon: jax.Array, *, likelihood: Likelihood = "gaussian"
) -> jax.Array:
    """Measure how far a reconstruction is from its input, summed over the features.

    `gaussian`: `sum((x - x_recon)**2)`, twice the negative log-likelihood of a unit-variance
    Gaussian without its constant. `bernoulli`: the cross-entropy `-log p(x | logits = x_recon)`,
    for x in [0, 1].

    Args:
      x: data, `[batch, ...]`, any rank from one up.
      x_recon: the decoder's output, same shape as `x`; logits when `likelihood="bernoulli"`.
      likelihood: "gaussian" or "bernoulli".

    Returns:
      `[batch]`, the dtype of `x_recon`; squared data units (gaussian) or nats (bernoulli).

    Raises:
      ValueError: the shapes differ (nothing is broadcast) or `likelihood` is not one of the two.

    Numerics:
      The cross-entropy of a logit `a` is `softplus(a) - a x`: finite, with the gradient
      `sigmoid(a) - x`, for logits of any size.

    Example:
      >>> import jax.numpy as jnp
      >>> reconstruction_loss(jnp.zeros((2, 3)), jnp.ones((2, 3))).tolist()
      [3.0, 3.0]
    """
    x, x_recon = jnp.asarray(x), jnp.asarray(x_recon)
    if x.shape != x_recon.shape:
        raise ValueError(
            f"x_recon has shape {x_recon.shape} but x has {x.shape}: give both the same shape"
        )
    if likelihood == "gaussian":
        per_feature = jnp.square(x - x_recon)
    elif likelihood == "bernoulli":
        per_feature = jax.nn.softplus(x_recon) - x_recon * x
    else:
        raise ValueError(f"likelihood {likelihood!r} is not one of {get_args(Likelihood)}")
    return per_feature.reshape(x.shape[0], -1).sum(axis=1)
