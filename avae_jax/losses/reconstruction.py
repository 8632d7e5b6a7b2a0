"""The reconstruction term, shared by every loss."""

import jax

from avae_jax.checks import check_axes, check_same_shape
from avae_jax.likelihoods import make_likelihood


def reconstruction_loss(
    x: jax.Array, x_recon: jax.Array, *, likelihood: str = "gaussian"
) -> jax.Array:
    """Measure how far a reconstruction is from its input, summed over the features.

    `gaussian`: `sum((x - x_recon)**2)`, twice the negative log-likelihood of a unit-variance
    Gaussian without its constant. `bernoulli`: the cross-entropy `-log p(x | logits = x_recon)`,
    for x in [0, 1].

    Args:
      x: data, `[batch, ...]`, at least two axes. Integers are taken by value: the squared error of
        bytes 0 and 255 is 65,025.
      x_recon: the decoder's output, same shape as `x`; logits when `likelihood="bernoulli"`.
      likelihood: "gaussian", "bernoulli", or another name in `LIKELIHOODS`.

    Returns:
      `[batch]`, float32 (float64 if an argument is); squared data units (gaussian) or nats
      (bernoulli).

    Raises:
      TypeError: `x` holds integers with `likelihood="bernoulli"`: they may span 0..1 or 0..255.
      ValueError: the shapes differ (nothing is broadcast), there is one axis only (a single
        example, as inside `jax.vmap`, is `x[None]`), or `likelihood` is not one of them.

    Numerics:
      The cross-entropy of a logit `a` is `softplus(a) - a x`: finite, with the gradient
      `sigmoid(a) - x`, for logits of any size.

    Example:
      >>> import jax.numpy as jnp
      >>> reconstruction_loss(jnp.zeros((2, 3)), jnp.ones((2, 3))).tolist()
      [3.0, 3.0]
    """
    check_same_shape(x=x, x_recon=x_recon)
    check_axes(x=("batch ...", x))
    return make_likelihood(likelihood).reconstruction(x, x_recon)
