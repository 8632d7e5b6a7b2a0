"""Log density of a Gaussian kernel density estimate."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from avae_jax.checks import check_positive_unless_traced
from avae_jax.kernels.pairwise_lse import pairwise_lse
from avae_jax.numerics import logsumexp


def kde_log_density(
    z: jax.Array | np.ndarray,
    centers: jax.Array | np.ndarray,
    *,
    bandwidth: ArrayLike,
    exclude: jax.Array | np.ndarray | None = None,
    log_weights: jax.Array | np.ndarray | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    queries_sharded: bool = False,
    implementation: str | None = None,
    precision: str = "highest",
) -> jax.Array:
    r"""Return the log density of a Gaussian kernel density estimate at each query.

    ``log q(z_i) = log( sum_{j != exclude_i} w_j N(z_i; c_j, h^2 I) / sum_{j != exclude_i} w_j )``
    with `w_j = 1` where no weights are given: the fixed-bandwidth estimator of Parzen (1962). The
    kernel is isotropic in the coordinates of `z`; unlike `scipy.stats.gaussian_kde` it is not
    scaled by the data's covariance.

    Args:
      z: queries, `[n, latent_dim]`.
      centers: points the density is made of, `[num_centers, latent_dim]`.
      bandwidth: the kernel's standard deviation h > 0, in units of z; a number or a scalar array.
      exclude: `[n]` int32, the row of `centers` that each query leaves out, -1 for none: its own
        row makes this the leave-one-out density. The rest is renormalized. None: nothing is left
        out.
      log_weights: `[num_centers]` logs of the weights, which need not sum to one; -inf masks a
        center. None: equal weights.
      axis_name: mapped axis of `jax.shard_map` or `jax.pmap` over which the centers are sharded;
        the density is that of the centers of all its devices, and `exclude` counts their rows.
        None: `centers` is whole.
      queries_sharded: whether `z` is sharded over `axis_name` too, or the same on all its devices.
      implementation: as in `avae_jax.pairwise_lse`; None chooses by latent_dim.
      precision: as in `avae_jax.pairwise_lse`.

    Returns:
      `[n]` log densities in nats, normalized over R^latent_dim. -inf where no center is included.

    Raises:
      TypeError: an array that is not floating point, or an `exclude` that is not integer.
      ValueError: shapes that do not match, no center, a bandwidth that is not positive, an axis
        that is not mapped, or an unknown implementation or precision.

    Numerics:
      Time `O(n num_centers latent_dim)`; the `[n, num_centers]` matrix is never in memory.
      Differentiable in `z`, `centers`, `bandwidth` and `log_weights`. In the far tail the value is
      exact to float32: nothing underflows.

    Example:
      One center is one Gaussian, `-(log 2 pi)/2` at its own place:

      >>> import jax.numpy as jnp
      >>> print(kde_log_density(jnp.zeros((1, 1)), jnp.zeros((3, 1)), bandwidth=1.0))
      [-0.9189385]

    References:
      Parzen, 1962, On estimation of a probability density function and mode.
    """
    _check_shapes(z, centers, exclude, log_weights)
    if jnp.ndim(bandwidth):
        raise ValueError(
            f"bandwidth must be one number, got shape {jnp.shape(bandwidth)}: give one"
        )
    check_positive_unless_traced("bandwidth", bandwidth)
    latent_dim = z.shape[-1]
    lse = pairwise_lse(
        z,
        centers,
        bandwidth=bandwidth,
        log_weights=log_weights,
        exclude=exclude,
        axis_name=axis_name,
        queries_sharded=queries_sharded,
        implementation=implementation,
        precision=precision,
    )
    num_centers = centers.shape[0]
    if axis_name is None:
        log_mass = _log_included_mass(num_centers, exclude, log_weights)
    else:
        num_centers *= jax.lax.axis_size(axis_name)
        log_mass = _log_sharded_mass(num_centers, exclude, log_weights, axis_name, queries_sharded)
    if exclude is not None or log_weights is not None:
        # Without any mass left, lse is -inf as well and the difference would be NaN.
        log_mass = jnp.where(log_mass == -jnp.inf, 0.0, log_mass)
    log_volume = latent_dim * (jnp.log(bandwidth) + 0.5 * math.log(2.0 * math.pi))
    return (lse - log_mass - log_volume).astype(lse.dtype)


def _check_shapes(z, centers, exclude, log_weights) -> None:
    for name, array in (("z", z), ("centers", centers)):
        if array.ndim != 2:
            raise ValueError(
                f"{name} must have shape [rows, latent_dim], got {array.shape}: "
                "give one row per code"
            )
    if z.shape[1] != centers.shape[1]:
        raise ValueError(
            f"centers must have the latent_dim of z, {z.shape[1]}, got {centers.shape[1]}: "
            "give both the same"
        )
    if centers.shape[0] == 0:
        raise ValueError(f"centers must have a row, got shape {centers.shape}: give one or more")
    if exclude is not None and exclude.shape != z.shape[:1]:
        raise ValueError(
            f"exclude must have shape {z.shape[:1]}, got {exclude.shape}: "
            "give one index per row of z"
        )
    if log_weights is not None and log_weights.shape != centers.shape[:1]:
        raise ValueError(
            f"log_weights must have shape {centers.shape[:1]}, got {log_weights.shape}: "
            "give one per center"
        )


def _log_included_mass(num_centers, exclude, log_weights) -> jax.Array | float:
    """Return the log of the sum of the weights each query sees, `[n]` or a scalar."""
    if log_weights is None:
        return _log_count(num_centers, exclude)
    if exclude is None:
        return logsumexp(log_weights)
    excluded = (exclude >= 0) & (exclude < num_centers)
    # Total minus own weight cancels when one center holds nearly all of it; the sum of what is
    # before it and what is after it does not.
    edge = jnp.full((1,), -jnp.inf, log_weights.dtype)
    before = jnp.concatenate([edge, jax.lax.cumlogsumexp(log_weights)[:-1]])
    after = jnp.concatenate([jax.lax.cumlogsumexp(log_weights, reverse=True)[1:], edge])
    others = jnp.logaddexp(before, after)
    own = jnp.clip(exclude, 0, num_centers - 1)
    return jnp.where(excluded, others[own], logsumexp(log_weights))


def _log_count(num_centers: int, exclude) -> jax.Array | float:
    if exclude is None:
        return math.log(num_centers)
    excluded = (exclude >= 0) & (exclude < num_centers)
    return jnp.log(num_centers - excluded.astype(jnp.float32))


def _log_sharded_mass(
    num_centers, exclude, log_weights, axis_name, queries_sharded
) -> jax.Array | float:
    """Return what `_log_included_mass` does for centers spread over devices."""
    if log_weights is None:
        return _log_count(num_centers, exclude)
    # With all points in one place the kernel sums the weights alone, over the devices, without
    # those left out and with the right gradient.
    num_queries = 1 if exclude is None else exclude.shape[0]
    return pairwise_lse(
        jnp.zeros((num_queries, 1)),
        jnp.zeros((log_weights.shape[0], 1)),
        bandwidth=1.0,
        log_weights=log_weights,
        exclude=exclude,
        axis_name=axis_name,
        queries_sharded=queries_sharded,
    )
