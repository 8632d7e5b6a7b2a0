"""Sliced Wasserstein distance, and the sliced Wasserstein autoencoder's loss."""

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jax.typing import ArrayLike

from avae_jax.checks import check_same_shape
from avae_jax.losses.batch import check_codes, counted, matching_loss, project
from avae_jax.numerics import promoted


def sliced_wasserstein(
    z: jax.Array,
    draws: jax.Array | None,
    directions: jax.Array,
    *,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Measure the squared sliced Wasserstein distance between codes and a prior.

    The mean over unit directions and codes of the squared difference between sorted coordinates
    along the direction: of the codes, and of as many draws (Kolouri et al. 2019, algorithm 1).
    Against N(0, I) nothing need be drawn: every direction's i-th of n coordinates is compared with
    the quantile `Phi^-1((i - 1/2) / n)`, which halves the value at the prior itself.

    Args:
      z: codes, `[batch, latent_dim]`.
      draws: of the prior, shaped like `z`; None is N(0, I), by its quantiles.
      directions: `[num_directions, latent_dim]`, rows of length 1 (`unit_directions`).
      mask: `[batch]`, 0 or False on rows that only fill the batch up; of the draws it leaves out
        the same rows. None: every row counts.

    Returns:
      `[]`, squared units of z, >= 0, float32 (float64 if an argument is). At the prior itself it
      is not 0 but falls with the batch size, and its lowest point is at codes that are narrower
      than the prior: at 100 codes and 8 dimensions by 2.2 % with the quantiles, 2.6 % with draws.
      0 where no code counts.

    Raises:
      ValueError: shapes that do not match.

    Numerics:
      Time `O(num_directions batch (latent_dim + log batch))`.

    Example:
      >>> import jax.numpy as jnp
      >>> z = jnp.array([[0.0], [1.0]])
      >>> float(sliced_wasserstein(z, z[::-1] + 2.0, jnp.ones((1, 1))))
      4.0

    References:
      Kolouri et al., 2019, [Sliced-Wasserstein Autoencoder](https://arxiv.org/abs/1804.01947).
    """
    check_codes(z, mask=mask, directions=directions)
    if draws is not None:
        check_same_shape(z=z, draws=draws)
    z, draws, directions = promoted(z=z, draws=draws, directions=directions)
    z, weights, count = counted(z, mask)
    rank = jnp.arange(len(weights), dtype=z.dtype)
    kept = jnp.broadcast_to(rank < count, (len(directions), len(weights)))

    def ordered(codes):
        """Rows that do not count go last."""
        filled = jnp.where((weights > 0)[None, :], project(codes, directions), jnp.inf)
        return jnp.where(kept, jnp.sort(filled, axis=1), 0)

    if draws is None:
        share = jnp.minimum((rank + 0.5) / jnp.maximum(count, 1), 1 - 0.5 / len(weights))
        wanted = jnp.broadcast_to(ndtri(share), kept.shape)
    else:
        wanted = ordered(jax.lax.stop_gradient(draws))
    squares = jnp.where(kept, jnp.square(ordered(z) - wanted), 0)
    return jnp.sum(squares) / (len(directions) * jnp.maximum(count, 1))


def swae(
    x: jax.Array,
    x_recon: jax.Array,
    z: jax.Array,
    draws: jax.Array | None,
    directions: jax.Array,
    *,
    weight: ArrayLike,
    likelihood: str = "gaussian",
    mask: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the sliced Wasserstein autoencoder's loss.

    `reconstruction + weight sliced_wasserstein(codes, prior)` (Kolouri et al. 2019, algorithm 1).
    The second term is a statistic of the batch, the same in every row.

    Args:
      x: data, `[batch, ...]`.
      x_recon: reconstructions, shaped like `x`; logits when `likelihood="bernoulli"`.
      z: codes of the batch, `[batch, latent_dim]`.
      draws: of the prior, shaped like `z`; None is N(0, I), by its quantiles.
      directions: `[num_directions, latent_dim]`, rows of length 1, drawn again for each batch.
      weight: multiplies the distance, >= 0.
      likelihood: "gaussian", "bernoulli", or another name in `LIKELIHOODS`.
      mask: `[batch]`, 0 or False on rows that only fill the batch up: they do not enter the
        statistic. None: every row counts.

    Returns:
      The loss `[batch]` and its terms: `reconstruction` `[batch]` and `sliced_wasserstein` `[]`.

    Raises:
      ValueError: as `sliced_wasserstein`.

    Example:
      >>> import jax.numpy as jnp
      >>> x, z = jnp.zeros((2, 8)), jnp.array([[0.0], [1.0]])
      >>> loss, terms = swae(x, x, z, z + 2.0, jnp.ones((1, 1)), weight=10.0)
      >>> loss.tolist(), float(terms["sliced_wasserstein"])
      ([40.0, 40.0], 4.0)
    """
    return matching_loss(
        x,
        x_recon,
        z,
        lambda: sliced_wasserstein(z, draws, directions, mask=mask),
        name="sliced_wasserstein",
        weight=weight,
        likelihood=likelihood,
    )
