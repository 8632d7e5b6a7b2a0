"""The InfoVAE's loss: a VAE's, whose KL is traded for an MMD."""

import jax
from jax.typing import ArrayLike

from avae_jax.checks import check_axes
from avae_jax.losses.elbo import elbo
from avae_jax.losses.wae import Kernel, mmd
from avae_jax.numerics import promoted


def info_vae(
    x: jax.Array,
    x_recon: jax.Array,
    loc: jax.Array,
    log_var: jax.Array,
    z: jax.Array,
    draws: jax.Array,
    *,
    alpha: ArrayLike,
    mmd_weight: ArrayLike,
    kernel: Kernel = "imq",
    scale: ArrayLike | None = None,
    likelihood: str = "gaussian",
    noise_scale: float | jax.Array = 1.0,
    mask: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the InfoVAE's loss.

    `-log p(x | z) + (1 - alpha) KL(q(z | x) || N(0, I)) + mmd_weight MMD^2(codes, draws)`: the
    negative of Zhao, Song and Ermon's objective (2019), whose divergence is an MMD and whose
    `alpha + lambda - 1` is `mmd_weight`. `alpha=0` with `mmd_weight=0` is the ELBO, `alpha=1` the
    MMD-VAE. The last term is a statistic of the batch, the same in every row.

    Args:
      x: data, `[batch, ...]`.
      x_recon: decoded sample of the posterior, shaped like `x`.
      loc: posterior means, `[batch, latent_dim]`.
      log_var: posterior log-variances, `[batch, latent_dim]`.
      z: the samples behind `x_recon`, `[batch, latent_dim]`.
      draws: of the prior, `[num_draws, latent_dim]`, at least 2.
      alpha: takes away from the KL, <= 1: above, a larger KL lowers the loss without limit.
      mmd_weight: multiplies the discrepancy, >= 0: below, the loss falls as codes and prior part.
      kernel: "imq" or "rbf", as in `mmd`.
      scale: the kernel's length, as in `mmd`.
      likelihood: "gaussian", "bernoulli", or another name in `LIKELIHOODS`.
      noise_scale: standard deviation > 0 of the Gaussian likelihood, as in `beta_elbo`.
      mask: `[batch]`, 0 or False on rows that only fill the batch up: they do not enter the
        statistic. None: every row counts.

    Returns:
      The loss `[batch]`, nats, and its terms: `reconstruction`, `nll` and `kl` of `elbo`, each
      `[batch]`, and `mmd` `[]`.

    Raises:
      ValueError: as `elbo` and `mmd`.

    Example:
      >>> import jax.numpy as jnp
      >>> x, code = jnp.zeros((2, 8)), jnp.zeros((2, 2))
      >>> loss, terms = info_vae(x, x, code, code, code, code, alpha=1.0, mmd_weight=100.0)
      >>> sorted(terms)
      ['kl', 'mmd', 'nll', 'reconstruction']

    References:
      Zhao, Song and Ermon, 2019, [InfoVAE](https://arxiv.org/abs/1706.02262).
    """
    _, terms = elbo(x, x_recon, loc, log_var, likelihood=likelihood, noise_scale=noise_scale)
    check_axes(loc=("batch latent_dim", loc), z=("batch latent_dim", z))
    found = mmd(z, draws, kernel=kernel, scale=scale, mask=mask)
    nll, kl, found = promoted(nll=terms["nll"], kl=terms["kl"], mmd=found)
    return nll + (1 - alpha) * kl + mmd_weight * found, {**terms, "mmd": found}
