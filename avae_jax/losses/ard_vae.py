"""The loss of the VAE whose prior finds the axes that matter."""

import jax
from jax.typing import ArrayLike

from avae_jax import gaussians
from avae_jax.checks import check_axes, check_same_shape
from avae_jax.likelihoods import make_likelihood


def ard_vae(
    x: jax.Array,
    x_recon: jax.Array,
    loc: jax.Array,
    log_var: jax.Array,
    prior_log_var: jax.Array,
    *,
    beta: ArrayLike,
    likelihood: str = "gaussian",
    noise_scale: float | jax.Array = 1.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the loss of each example of a VAE with a prior of its own width in every dimension.

    `-log p(x | z) + beta KL(q(z | x) || N(0, diag s^2))`, where `s_l^2` is the mean of `z_l^2` over
    earlier draws of the posterior, the mean of the conjugate Gamma posterior of the precision
    turned over (Saha, Joshi and Whitaker 2025, eq. 6, 7 and 14 to 16, with the pseudo-counts of
    the Gamma prior at 0, as there).

    Args:
      x: data, `[batch, ...]`.
      x_recon: decoded sample of the posterior, shaped like `x`.
      loc: posterior means, `[batch, latent_dim]`.
      log_var: posterior log-variances, `[batch, latent_dim]`.
      prior_log_var: `log s^2`, `[latent_dim]`; it carries no gradient, as it follows the codes.
      beta: multiplies the KL term, >= 0.
      likelihood: "gaussian", "bernoulli", or another name in `LIKELIHOODS`.
      noise_scale: standard deviation > 0 of the Gaussian likelihood, as in `beta_elbo`.

    Returns:
      The loss `[batch]`, nats, and its terms, each `[batch]`: `reconstruction`, `nll` and `kl`
      (unweighted), as `beta_elbo` returns them.

    Raises:
      TypeError: as `beta_elbo`.
      ValueError: as `beta_elbo`, or `prior_log_var` is not `[latent_dim]`.

    Example:
      >>> import jax.numpy as jnp
      >>> x, code = jnp.zeros((1, 8)), jnp.zeros((1, 2))
      >>> _, terms = ard_vae(x, x, code, code + 1.0, jnp.ones(2), beta=1.0)
      >>> terms["kl"].tolist()
      [0.0]

    References:
      Saha, Joshi and Whitaker, 2025, [ARD-VAE](https://arxiv.org/abs/2501.10901).
    """
    check_same_shape(x=x, x_recon=x_recon)
    check_axes(
        x=("batch ...", x),
        loc=("batch latent_dim", loc),
        log_var=("batch latent_dim", log_var),
        prior_log_var=("latent_dim", prior_log_var),
    )
    of_data = make_likelihood(likelihood, noise_scale=noise_scale)
    reconstruction, nll = of_data.reconstruction(x, x_recon), of_data.nll(x, x_recon)
    kl = gaussians.gaussian_kl(loc, log_var, 0.0, jax.lax.stop_gradient(prior_log_var))
    return nll + beta * kl, {"reconstruction": reconstruction, "nll": nll, "kl": kl}
