"""The reconstruction term, shared by every loss."""

import jax
import jax.numpy as jnp

from avae_jax.checks import check_same_shape
from avae_jax.likelihoods import make_likelihood


def reconstruction_loss(
    x: jax.Array, x_recon: jax.Array, *, likelihood: str = "gaussian"
) -> jax.Array:
    """Measure how far a reconstruction is from its input, summed over the features.

    `gaussian`: `sum((x - x_recon)**2)`, twice the negative log-likelihood of a unit-variance
    Gaussian without its constant. `bernoulli`: the cross-entropy `-log p(x | logits = x_recon)`,
    for x in [0, 1].

    Args:
      x: data, `[batch, ...]`, any rank from one up.
      x_recon: the decoder's output, same shape as `x`; logits when `likelihood="bernoulli"`.
      likelihood: "gaussian", "bernoulli", or another name in `LIKELIHOODS`.

    Returns:
      `[batch]`, the dtype of `x_recon`; squared data units (gaussian) or nats (bernoulli).

    Raises:
      ValueError: the shapes differ (nothing is broadcast) or `likelihood` is not one of them.

    Numerics:
      The cross-entropy of a logit `a` is `softplus(a) - a x`: finite, with the gradient
      `sigmoid(a) - x`, for logits of any size.

    Example:
      >>> import jax.numpy as jnp
      >>> reconstruction_loss(jnp.zeros((2, 3)), jnp.ones((2, 3))).tolist()
      [3.0, 3.0]
    """
    x, x_recon = jnp.asarray(x), jnp.asarray(x_recon)
    check_same_shape(x=x, x_recon=x_recon)
    return make_likelihood(likelihood).reconstruction(x, x_recon)
