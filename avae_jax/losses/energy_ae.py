"""Energy distance between codes and a prior."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from avae_jax.losses.batch import (
    check_codes,
    counted,
    matching_loss,
    mean_over,
    pairs,
    square_distances,
)
from avae_jax.losses.hypergeometric import kummer_half, mean_norm
from avae_jax.numerics import promoted


def energy_distance(
    z: jax.Array, draws: jax.Array | None, *, mask: jax.Array | None = None
) -> jax.Array:
    """Estimate the energy distance of codes from a prior, without bias.

    `2 E|z - y| - E|z - z'| - E|y - y'|` over distinct pairs (Szekely and Rizzo 2013), an MMD with
    the kernel `-r` and without a length to choose. Against N(0, I) both means over the prior are
    exact: `E|z - y| = E|y| 1F1(-1/2; d/2; -|z|^2 / 2)` and `E|y - y'| = sqrt(2) E|y|`.

    Args:
      z: codes, `[batch, latent_dim]`.
      draws: of the prior, `[num_draws, latent_dim]`, at least 2; None is N(0, I) itself.
      mask: `[batch]`, 0 or False on rows that only fill the batch up. None: every row counts.

    Returns:
      `[]`, in units of z, float32 (float64 if an argument is); 0 on average where codes are
      distributed as the prior, so that it can be negative. 0 for fewer than two codes.

    Raises:
      ValueError: shapes that do not match, or fewer than two draws.

    Numerics:
      Codes that coincide have distance 0 and gradient 0 there. Time `O(batch^2 latent_dim)`.

    Example:
      >>> import jax.numpy as jnp
      >>> z, draws = jnp.array([[0.0], [2.0]]), jnp.array([[1.0], [1.0]])
      >>> float(energy_distance(z, draws))
      0.0

    References:
      Szekely and Rizzo, 2013, Energy statistics: a class of statistics based on distances, JSPI.
    """
    check_codes(z, mask=mask, draws=draws, num_draws=2)
    z, draws = promoted(z=z, draws=draws)
    z, weights, count = counted(z, mask)
    within = mean_over(_root(square_distances(z, z)), pairs(weights))
    if draws is None:
        latent_dim = z.shape[1]
        norm = mean_norm(latent_dim)
        to_prior = kummer_half(0.5 * jnp.sum(jnp.square(z), axis=1), latent_dim, sign=-1)
        across, among = norm * mean_over(to_prior, weights), 2**0.5 * norm
    else:
        every = jnp.ones(len(draws), z.dtype)
        across = mean_over(_root(square_distances(z, draws)), pairs(weights, every))
        among = mean_over(_root(square_distances(draws, draws)), pairs(every))
    return jnp.where(count >= 2, 2 * across - within - among, 0)


def energy_ae(
    x: jax.Array,
    x_recon: jax.Array,
    z: jax.Array,
    draws: jax.Array | None,
    *,
    weight: ArrayLike,
    likelihood: str = "gaussian",
    mask: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the loss of an autoencoder whose codes are matched by the energy distance.

    `reconstruction + weight energy_distance(codes, prior)`: the Wasserstein autoencoder's form
    (Tolstikhin et al. 2018, eq. 4) with this discrepancy. The second term is a statistic of the
    batch, the same in every row.

    Args:
      x: data, `[batch, ...]`.
      x_recon: reconstructions, shaped like `x`; logits when `likelihood="bernoulli"`.
      z: codes of the batch, `[batch, latent_dim]`.
      draws: of the prior, `[num_draws, latent_dim]`; None is N(0, I) itself.
      weight: multiplies the distance, >= 0.
      likelihood: "gaussian", "bernoulli", or another name in `LIKELIHOODS`.
      mask: `[batch]`, 0 or False on rows that only fill the batch up: they do not enter the
        statistic. None: every row counts.

    Returns:
      The loss `[batch]` and its terms: `reconstruction` `[batch]` and `energy_distance` `[]`.

    Raises:
      ValueError: as `energy_distance`.

    Example:
      >>> import jax.numpy as jnp
      >>> x, z = jnp.zeros((2, 8)), jnp.array([[0.0], [2.0]])
      >>> loss, terms = energy_ae(x, x, z, None, weight=10.0)
      >>> loss.shape, terms["energy_distance"].shape
      ((2,), ())
    """
    return matching_loss(
        x,
        x_recon,
        z,
        lambda: energy_distance(z, draws, mask=mask),
        name="energy_distance",
        weight=weight,
        likelihood=likelihood,
    )


def _root(squares: jax.Array) -> jax.Array:
    """Return the square root, with the gradient 0 at 0."""
    apart = squares > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1)), 0)
