"""The ELBO with the best noise scale of each batch (Rybkin, Daniilidis and Levine 2021)."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from avae_jax.checks import check_axes, check_same_shape
from avae_jax.likelihoods import LOG_SCALE_RANGE, squared_error
from avae_jax.losses.elbo import elbo
from avae_jax.numerics import kept_rows, masked_mean


def optimal_noise_scale(
    x: jax.Array, x_recon: jax.Array, *, mask: jax.Array | None = None
) -> jax.Array:
    """Return the standard deviation with which a Gaussian likelihood of the batch is highest.

    The root of the mean squared error over images and pixels (Rybkin, Daniilidis and Levine 2021,
    who call it the optimal sigma-VAE). It carries no gradient: where it is the best one, the
    derivative of the likelihood in it is 0, so that the gradient of the loss is the same.

    Args:
      x: data, `[batch, ...]`.
      x_recon: the decoder's output, shaped like `x`.
      mask: `[batch]`, 0 on rows that only fill the batch up. None: every row counts.

    Returns:
      `[]`, in units of x, a statistic of the batch.

    Raises:
      ValueError: the shapes differ, or `mask` is not `[batch]`.

    Numerics:
      At least `exp(-6)` = 0.0025, less than one gray level of 8-bit images in [0, 1] (the paper's
      bound), also where no row counts or nothing is wrong.

    Example:
      >>> import jax.numpy as jnp
      >>> float(optimal_noise_scale(jnp.zeros((2, 4)), jnp.full((2, 4), 0.5)))
      0.5
    """
    check_same_shape(x=x, x_recon=x_recon)
    check_axes(x=("batch ...", x), mask=("batch", mask))
    error = jax.lax.stop_gradient(squared_error(x, x_recon))
    variance = masked_mean(error, kept_rows(mask, len(error))) / math.prod(np.shape(x)[1:])
    return jnp.sqrt(jnp.maximum(variance, math.exp(2 * LOG_SCALE_RANGE[0])))


def sigma_vae(
    x: jax.Array,
    x_recon: jax.Array,
    loc: jax.Array,
    log_var: jax.Array,
    *,
    mask: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the negative evidence lower bound of each example at the batch's best noise scale.

    `R_i / (2 s^2) + D log s + D/2 log(2 pi) + KL_i` with the squared error R_i summed over D pixels
    and `s^2 = mean_i R_i / D` (Rybkin, Daniilidis and Levine 2021). The mean over the batch is
    `D/2 log(2 pi e s^2)` plus the mean KL: what is descended is the logarithm of the error.

    Args:
      x: data, `[batch, ...]`.
      x_recon: decoded sample of the posterior, shaped like `x`.
      loc: posterior means, `[batch, latent_dim]`.
      log_var: posterior log-variances, `[batch, latent_dim]`.
      mask: `[batch]`, 0 on rows that only fill the batch up. None: every row counts.

    Returns:
      The loss `[batch]`, nats, and its terms: `reconstruction` (squared error), `nll` and `kl`,
      `[batch]`, and `noise_scale`, `[]`, of `optimal_noise_scale`, a statistic of the batch.

    Raises:
      ValueError: as `beta_elbo`, or `mask` is not `[batch]`.

    Example:
      >>> import jax.numpy as jnp
      >>> x, code = jnp.zeros((2, 8)), jnp.zeros((2, 2))
      >>> loss, terms = sigma_vae(x, x + 0.5, code, code)
      >>> float(terms["noise_scale"]), round(float(loss[0]), 4)  # 4 log(2 pi e / 4)
      (0.5, 5.8063)

    References:
      Rybkin, Daniilidis and Levine, 2021, [Simple and Effective VAE Training with Calibrated
      Decoders](https://arxiv.org/abs/2006.13202).
    """
    scale = optimal_noise_scale(x, x_recon, mask=mask)
    loss, terms = elbo(x, x_recon, loc, log_var, noise_scale=scale)
    return loss, {**terms, "noise_scale": scale}
