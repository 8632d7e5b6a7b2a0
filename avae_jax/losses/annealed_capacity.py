"""The ELBO with a capacity of the KL (Burgess et al. 2018)."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from avae_jax.checks import check_axes
from avae_jax.losses.elbo import elbo
from avae_jax.numerics import kept_rows, masked_mean, promoted


def capacity_gap(kl: jax.Array, *, capacity: ArrayLike, mask: jax.Array | None = None) -> jax.Array:
    """Return how far the mean KL of a batch is from a capacity, `|mean_i KL_i - C|`.

    The mean stands inside the absolute value (Burgess et al. 2018, eq. 8, where the KL is that of
    an expectation over the data): images may share the capacity as they need it. The mean of
    `|KL_i - C|`, which is at least as large, would force the same KL on every image.

    Args:
      kl: `[batch]`, nats.
      capacity: C >= 0, nats, a number or an array `[]`, which may be traced.
      mask: `[batch]`, 0 on rows that only fill the batch up. None: every row counts.

    Returns:
      `[]`, nats, >= 0, a statistic of the batch; 0 where no row counts.

    Raises:
      ValueError: `kl` or `mask` is not `[batch]`, or `capacity` not one number.

    Numerics:
      The gradient in `kl_i` is the sign of `mean KL - C` over the number of rows that count.

    Example:
      >>> import jax.numpy as jnp
      >>> float(capacity_gap(jnp.array([1.0, 5.0]), capacity=4.0))
      1.0
    """
    check_axes(kl=("batch", kl), capacity=("", capacity), mask=("batch", mask))
    kl, capacity = promoted(kl=kl, capacity=capacity)
    kept = kept_rows(mask, len(kl))
    return jnp.where(jnp.any(kept), jnp.abs(masked_mean(kl, kept) - capacity), 0)


def annealed_capacity(
    x: jax.Array,
    x_recon: jax.Array,
    loc: jax.Array,
    log_var: jax.Array,
    *,
    gamma: ArrayLike,
    capacity: ArrayLike,
    likelihood: str = "gaussian",
    noise_scale: float | jax.Array = 1.0,
    mask: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the negative log-likelihood plus `gamma |mean KL - C|`.

    `-log p(x | z) + gamma |KL(q(z | x) || N(0, I)) - C|` with the KL averaged over the batch and C
    raised in the course of training (Burgess et al. 2018, eq. 8): the caller says what it is now.

    Args:
      x: data, `[batch, ...]`.
      x_recon: decoded sample of the posterior, shaped like `x`.
      loc: posterior means, `[batch, latent_dim]`.
      log_var: posterior log-variances, `[batch, latent_dim]`.
      gamma: multiplies the distance of the mean KL from the capacity, >= 0.
      capacity: C >= 0, nats.
      likelihood: "gaussian", "bernoulli", or another name in `LIKELIHOODS`.
      noise_scale: standard deviation > 0 of the Gaussian likelihood, as in `beta_elbo`.
      mask: `[batch]`, 0 on rows that only fill the batch up. None: every row counts.

    Returns:
      The loss `[batch]`, nats, and its terms: `reconstruction`, `nll` and `kl` of `beta_elbo`,
      `[batch]`, and `capacity_gap`, `[]`, a statistic of the batch that stands in every row's loss.

    Raises:
      TypeError: as `beta_elbo`.
      ValueError: as `beta_elbo` and `capacity_gap`.

    Example:
      >>> import jax.numpy as jnp
      >>> x, code = jnp.zeros((2, 8)), jnp.zeros((2, 2))
      >>> loss, terms = annealed_capacity(x, x, code + 1.0, code, gamma=10.0, capacity=3.0)
      >>> float(terms["capacity_gap"]), round(float(loss[0] - terms["nll"][0]), 4)
      (2.0, 20.0)

    References:
      Burgess et al., 2018, [Understanding disentangling in beta-VAE](
      https://arxiv.org/abs/1804.03599).
    """
    check_axes(x=("batch ...", x), mask=("batch", mask))
    _, terms = elbo(x, x_recon, loc, log_var, likelihood=likelihood, noise_scale=noise_scale)
    gap = capacity_gap(terms["kl"], capacity=capacity, mask=mask)
    return terms["nll"] + gamma * gap, {**terms, "capacity_gap": gap}
