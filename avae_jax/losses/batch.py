"""What losses share that compare the codes of a whole batch with a prior.

Such a statistic is of the batch and of no example: it is one number, `[]`, and is added to the loss
of every row, so that the mean over the rows is the loss. Rows that only fill a batch up enter
nothing. Under `jax.jit` with sharded rows it is the statistic of the global batch.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from avae_jax.checks import check_axes, check_count
from avae_jax.losses.reconstruction import reconstruction_loss
from avae_jax.numerics import kept_rows, promoted


def check_codes(z, *, mask=None, draws=None, directions=None, num_draws: int = 1) -> None:
    """Refuse codes, and what they are compared with, whose axes do not fit.

    Args:
      z: to be `[batch, latent_dim]`.
      mask: to be `[batch]`, or None.
      draws: to be `[num_draws, latent_dim]`, or None.
      directions: to be `[num_directions, latent_dim]`, or None.
      num_draws: fewest rows of `draws`.

    Raises:
      ValueError: another number of axes, other sizes, or too few draws.
    """
    check_axes(
        z=("batch latent_dim", z),
        mask=("batch", mask),
        draws=("num_draws latent_dim", draws),
        directions=("num_directions latent_dim", directions),
    )
    if draws is not None:
        check_count("rows of draws", np.shape(draws)[0], minimum=num_draws)


def counted(z: jax.Array, mask: ArrayLike | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the codes, 0 where a row does not count, each row's weight and how many count.

    Args:
      z: `[batch, latent_dim]`.
      mask: `[batch]`, 0 or False on rows that only fill the batch up; None: every row counts.

    Returns:
      `[batch, latent_dim]`; `[batch]`, 1 or 0; `[]`.
    """
    kept = kept_rows(mask, z.shape[0])
    weights = kept.astype(z.dtype)
    return jnp.where(kept[:, None], z, 0), weights, jnp.sum(weights)


def square_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the squared distances between rows, `[n, m]`.

    Of the differences, and not of products: equal rows are at 0 exactly, and no digits are lost
    where the codes lie far from the origin.
    """
    return jnp.sum(jnp.square(x[:, None, :] - y[None, :, :]), axis=-1)


def mean_over(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Return the weighted mean of all entries; 0 where no weight is left."""
    return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1)


def pairs(rows: jax.Array, columns: jax.Array | None = None) -> jax.Array:
    """Return which pairs count: `[n, m]` weights from those of the rows and of the columns.

    Args:
      rows: `[n]`.
      columns: `[m]`; None: those of the rows, where a row makes no pair with itself.
    """
    if columns is None:
        return rows[:, None] * rows[None, :] * (1 - jnp.eye(len(rows), dtype=rows.dtype))
    return rows[:, None] * columns[None, :]


def unit_directions(key: jax.Array, latent_dim: int, num_directions: int) -> jax.Array:
    """Draw directions, uniform on the sphere.

    Args:
      key: JAX random key.
      latent_dim: columns of a code, >= 1.
      num_directions: how many, >= 1.

    Returns:
      `[num_directions, latent_dim]` float32, rows of length 1.

    Raises:
      TypeError: a size that is no whole number.
      ValueError: a size below 1.

    Example:
      >>> directions = unit_directions(jax.random.key(0), 3, 2)
      >>> jnp.linalg.norm(directions, axis=1).round(5).tolist()
      [1.0, 1.0]
    """
    latent_dim = check_count("latent_dim", latent_dim, minimum=1)
    num_directions = check_count("num_directions", num_directions, minimum=1)
    draws = jax.random.normal(key, (num_directions, latent_dim))
    return draws / jnp.linalg.norm(draws, axis=1, keepdims=True)


def project(z: jax.Array, directions: jax.Array) -> jax.Array:
    """Return the coordinates of codes along directions, `[num_directions, batch]`."""
    return jnp.matmul(directions, z.T, precision="highest")


def matching_loss(
    x: Any,
    x_recon: Any,
    z: Any,
    statistic: Callable[[], jax.Array],
    *,
    name: str,
    weight: ArrayLike,
    likelihood: str,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the reconstruction error plus a weight times a statistic of the batch.

    Args:
      x: data, `[batch, ...]`.
      x_recon: reconstructions, shaped like `x`.
      z: the codes, `[batch, latent_dim]`.
      statistic: computes it, `[]`, once the images are known to fit.
      name: what it is reported under.
      weight: multiplies the statistic.
      likelihood: a name in `LIKELIHOODS`.
    """
    reconstruction = reconstruction_loss(x, x_recon, likelihood=likelihood)
    check_axes(x=("batch ...", x), z=("batch latent_dim", z))
    reconstruction, value = promoted(reconstruction=reconstruction, value=statistic())
    return reconstruction + weight * value, {"reconstruction": reconstruction, name: value}
