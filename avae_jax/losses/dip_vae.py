"""The losses of DIP-VAE I and II: the covariance of a batch of codes is pulled to the identity."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from avae_jax.checks import check_axes, check_choice, check_same_shape
from avae_jax.losses.elbo import elbo
from avae_jax.numerics import kept_rows, promoted


def covariance_departures(
    loc: jax.Array, log_var: jax.Array | None = None, *, mask: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Estimate how far a covariance of codes is from the identity, without bias.

    `sum_{j != k} C_jk^2` and `sum_j (C_jj - 1)^2` (Kumar, Sattigeri and Balakrishnan 2018, eq. 6
    and 7), with `C = Cov(loc)` where there is no `log_var` (DIP-VAE I), else
    `C = E[diag exp(log_var)] + Cov(loc)` (II), the covariance of draws of the posteriors.

    The squares of a batch's own covariances, which the authors take, are too large by their
    variance: for B independent unit codes the first sum is d (d - 1) / B where it should be 0. Here
    each square is a U-statistic, the mean of products of estimates from images that have no part in
    both, and its expectation is the square itself.

    Args:
      loc: posterior means, `[batch, latent_dim]`.
      log_var: posterior log-variances, shaped like `loc`, or None.
      mask: `[batch]`, 0 on rows that only fill the batch up. None: every row counts.

    Returns:
      The two sums, `[]` each, in units of the codes to the fourth power, statistics of the batch.
      Either may be negative, as an estimate of 0 without bias must be. 0 with fewer than four rows
      that count.

    Raises:
      ValueError: the shapes do not match.

    Numerics:
      Time `O(batch latent_dim^2)` and memory `O(batch latent_dim + latent_dim^2)`; codes are
      centered first.

    Example:
      >>> import jax
      >>> draws = jax.random.normal(jax.random.key(0), (4000, 3))
      >>> mixed = draws @ jnp.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
      >>> off_diagonal, diagonal = covariance_departures(mixed)
      >>> abs(float(off_diagonal) - 0.5) < 0.1, abs(float(diagonal) - 0.0625) < 0.05
      (True, True)
    """
    if log_var is not None:
        check_same_shape(loc=loc, log_var=log_var)
    check_axes(loc=("batch latent_dim", loc), mask=("batch", mask))
    loc, log_var = promoted(loc=loc, log_var=log_var)
    kept = kept_rows(mask, loc.shape[0])[:, None]
    count = jnp.sum(kept)
    enough = count >= 4
    n = jnp.maximum(count, 4).astype(loc.dtype)

    # Centered, rows that fill up at the mean, where they add nothing.
    z = jnp.where(kept, loc, 0)
    z = jnp.where(kept, z - jnp.sum(z, axis=0, keepdims=True) / n, 0)
    squares = jnp.square(z)
    gram, fourth, total = z.T @ z, squares.T @ squares, jnp.sum(squares, axis=0)

    # Mean over four different rows of (a1 - a2)(b1 - b2)(a3 - a4)(b3 - b4) / 4.
    pairs = total[:, None] * total[None, :] / ((n - 1) * (n - 2))
    squared = (jnp.square(gram) - fourth * (n / (n - 2)) + pairs) / (n * (n - 3))
    own = jnp.diagonal(squared)
    off_diagonal = jnp.sum(squared) - jnp.sum(own)

    # (V + C_jj - 1)^2, by its terms; V and C of different rows where they are multiplied.
    variance = total / (n - 1)
    diagonal = own - 2 * variance + 1
    if log_var is not None:
        noise = jnp.where(kept, jnp.exp(jnp.where(kept, log_var, 0)), 0)
        sum_noise = jnp.sum(noise, axis=0)
        squared_noise = (jnp.square(sum_noise) - jnp.sum(jnp.square(noise), axis=0)) / (n * (n - 1))
        without_own = (total[None, :] - squares * (n / (n - 1))) / (n - 2)
        product = jnp.sum(noise * without_own, axis=0) / n
        diagonal += squared_noise + 2 * product - 2 * sum_noise / n
    return jnp.where(enough, off_diagonal, 0), jnp.where(enough, jnp.sum(diagonal), 0)


def dip_vae(
    x: jax.Array,
    x_recon: jax.Array,
    loc: jax.Array,
    log_var: jax.Array,
    *,
    lambda_od: ArrayLike,
    lambda_d: ArrayLike,
    variant: str = "II",
    likelihood: str = "gaussian",
    noise_scale: float | jax.Array = 1.0,
    mask: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the negative ELBO plus the departures of the codes' covariance from the identity.

    `-log p(x | z) + KL + lambda_od sum_{j != k} C_jk^2 + lambda_d sum_j (C_jj - 1)^2` (Kumar,
    Sattigeri and Balakrishnan 2018, eq. 6 and 7); `covariance_departures` says what C is and how
    its squares are estimated.

    Args:
      x: data, `[batch, ...]`.
      x_recon: decoded sample of the posterior, shaped like `x`.
      loc: posterior means, `[batch, latent_dim]`.
      log_var: posterior log-variances, `[batch, latent_dim]`.
      lambda_od: multiplies the squares off the diagonal, >= 0.
      lambda_d: multiplies the squares on it, >= 0.
      variant: "I", the covariance of the means, or "II", of draws of the posteriors.
      likelihood: "gaussian", "bernoulli", or another name in `LIKELIHOODS`.
      noise_scale: standard deviation > 0 of the Gaussian likelihood, as in `beta_elbo`.
      mask: `[batch]`, 0 on rows that only fill the batch up. None: every row counts.

    Returns:
      The loss `[batch]`, nats, and its terms: `reconstruction`, `nll` and `kl` of `beta_elbo`,
      `[batch]`, and `off_diagonal` and `diagonal`, `[]`, unweighted statistics of the batch that
      stand in every row's loss.

    Raises:
      TypeError: as `beta_elbo`.
      ValueError: as `beta_elbo`, another `variant`, or `mask` is not `[batch]`.

    Example:
      >>> import jax.numpy as jnp
      >>> x, code = jnp.zeros((4, 8)), jnp.zeros((4, 2))  # posteriors N(0, I): C is the identity
      >>> loss, terms = dip_vae(x, x, code, code, lambda_od=1.0, lambda_d=10.0)
      >>> float(terms["diagonal"]), float(loss[0] - terms["nll"][0])
      (0.0, 0.0)

    References:
      Kumar, Sattigeri and Balakrishnan, 2018, [Variational Inference of Disentangled Latent
      Concepts from Unlabeled Observations](https://arxiv.org/abs/1711.00848).
    """
    check_choice("variant", variant, ("I", "II"))
    check_axes(x=("batch ...", x), mask=("batch", mask))
    bound, terms = elbo(x, x_recon, loc, log_var, likelihood=likelihood, noise_scale=noise_scale)
    off_diagonal, diagonal = covariance_departures(
        loc, log_var if variant == "II" else None, mask=mask
    )
    loss = bound + (lambda_od * off_diagonal + lambda_d * diagonal)
    return loss, {**terms, "off_diagonal": off_diagonal, "diagonal": diagonal}
