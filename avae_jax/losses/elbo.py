"""The evidence lower bound and its beta-weighted form."""

import jax
import numpy as np
from jax.typing import ArrayLike

from avae_jax import gaussians
from avae_jax.checks import check_axes, check_same_shape
from avae_jax.likelihoods import make_likelihood


def gaussian_kl(loc: jax.Array, log_var: jax.Array) -> jax.Array:
    """Return `KL(N(loc, diag exp(log_var)) || N(0, I))`.

    `1/2 sum(loc^2 + exp(log_var) - 1 - log_var)` (Kingma and Welling 2014, appendix B).

    Args:
      loc: means, `[..., latent_dim]`.
      log_var: log-variances, `[..., latent_dim]`.

    Returns:
      `[...]`, nats, >= 0, float32 (float64 if an argument is).

    Raises:
      ValueError: the shapes differ or have no axis.

    Numerics:
      Written with `expm1`: at a log-variance v near 0 the rounding error is proportional to |v|
      and vanishes at the prior, where `exp(v) - 1 - v` would keep a whole unit of it.

    Example:
      >>> import jax.numpy as jnp
      >>> gaussian_kl(jnp.ones((1, 4)), jnp.zeros((1, 4))).tolist()
      [2.0]
    """
    check_same_shape(loc=loc, log_var=log_var)
    if not np.ndim(loc):
        raise ValueError("loc must have shape [..., latent_dim], got (): give loc[None]")
    return gaussians.gaussian_kl(loc, log_var)


def beta_elbo(
    x: jax.Array,
    x_recon: jax.Array,
    loc: jax.Array,
    log_var: jax.Array,
    *,
    beta: ArrayLike,
    likelihood: str = "gaussian",
    noise_scale: float | jax.Array = 1.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the negative beta-weighted evidence lower bound of each example.

    `-log p(x | z) + beta KL(q(z | x) || N(0, I))` with one sample `z ~ q(z | x)` behind
    `x_recon` (Higgins et al. 2017, eq. 4).

    Args:
      x: data, `[batch, ...]`.
      x_recon: decoded sample of the posterior, shaped like `x`: means when
        `likelihood="gaussian"`, logits when "bernoulli".
      loc: posterior means, `[batch, latent_dim]`.
      log_var: posterior log-variances, `[batch, latent_dim]`.
      beta: multiplies the KL term, >= 0; 1 is the evidence lower bound.
      likelihood: "gaussian", "bernoulli", or another name in `LIKELIHOODS`.
      noise_scale: standard deviation > 0 of the Gaussian likelihood, in units of x: a number, or
        an array `[]`, which may be traced and learned: `noise_scale=jnp.exp(log_scale)`.

    Returns:
      The loss `[batch]`, nats, and its terms, each `[batch]`: `reconstruction` (unscaled: squared
      error, or cross-entropy in nats), `nll` (`-log p(x | z)`, normalized, nats), `kl` (nats).

      All are float32, or float64 where an array is.

    Raises:
      TypeError: `x` holds integers with `likelihood="bernoulli"`.
      ValueError: shapes that do not match (a single example, as inside `jax.vmap`, is `x[None]`,
        and the others alike), an unknown likelihood or a `noise_scale` that is a number <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> x, code = jnp.zeros((1, 8)), jnp.zeros((1, 2))
      >>> loss, terms = beta_elbo(x, x, code + 1.0, code, beta=4.0, likelihood="bernoulli")
      >>> round(float(loss[0] - terms["nll"][0]), 5)
      4.0

    References:
      Higgins et al., 2017, [beta-VAE](https://openreview.net/forum?id=Sy2fzU9gl).
    """
    check_same_shape(x=x, x_recon=x_recon)
    check_axes(
        x=("batch ...", x), loc=("batch latent_dim", loc), log_var=("batch latent_dim", log_var)
    )
    of_data = make_likelihood(likelihood, noise_scale=noise_scale)
    reconstruction, nll = of_data.reconstruction(x, x_recon), of_data.nll(x, x_recon)
    kl = gaussian_kl(loc, log_var)
    return nll + beta * kl, {"reconstruction": reconstruction, "nll": nll, "kl": kl}


def elbo(
    x: jax.Array,
    x_recon: jax.Array,
    loc: jax.Array,
    log_var: jax.Array,
    *,
    likelihood: str = "gaussian",
    noise_scale: float | jax.Array = 1.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the negative evidence lower bound of each example.

    `beta_elbo` with `beta=1` (Kingma and Welling 2014, eq. 10), where the arguments, the terms and
    the errors are described.

    Args:
      x: data, `[batch, ...]`.
      x_recon: decoded sample of the posterior, shaped like `x`.
      loc: posterior means, `[batch, latent_dim]`.
      log_var: posterior log-variances, `[batch, latent_dim]`.
      likelihood: "gaussian", "bernoulli", or another name in `LIKELIHOODS`.
      noise_scale: standard deviation > 0 of the Gaussian likelihood, in units of x.

    Returns:
      The loss `[batch]`, nats, and the terms of `beta_elbo`.

    Raises:
      ValueError: as `beta_elbo`.

    Example:
      >>> import jax.numpy as jnp
      >>> x, code = jnp.zeros((1, 8)), jnp.zeros((1, 2))
      >>> loss, terms = elbo(x, x, code, code)
      >>> round(float(loss[0]), 4)  # 8 unit Gaussians at their mean: 4 log(2 pi)
      7.3515

    References:
      Kingma and Welling, 2014, [Auto-Encoding Variational Bayes](
      https://arxiv.org/abs/1312.6114).
    """
    return beta_elbo(
        x, x_recon, loc, log_var, beta=1.0, likelihood=likelihood, noise_scale=noise_scale
    )
