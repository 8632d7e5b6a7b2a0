"""Log density of a Gaussian kernel density estimate."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from avae_jax.checks import check_axes, check_positive_unless_traced
from avae_jax.kernels.pairwise_lse import pairwise_lse
from avae_jax.numerics import logsumexp, promoted


def kde_log_density(
    z: jax.Array | np.ndarray,
    centers: jax.Array | np.ndarray,
    *,
    bandwidth: ArrayLike,
    covariance: jax.Array | np.ndarray | None = None,
    exclude: jax.Array | np.ndarray | None = None,
    log_weights: jax.Array | np.ndarray | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    queries_sharded: bool = False,
    implementation: str | None = None,
    precision: str = "highest",
) -> jax.Array:
    r"""Return the log density of a Gaussian kernel density estimate at each query.

    ``log q(z_i) = log( sum_{j != exclude_i} w_j N(z_i; c_j, h^2 S) / sum_{j != exclude_i} w_j )``
    with `w_j = 1` where no weights are given: the fixed-bandwidth estimator of Parzen (1962). Where
    no covariance `S` is given it is I, the kernel isotropic in the coordinates of `z`; unlike
    `scipy.stats.gaussian_kde` it is not scaled by the data's covariance (`avae_jax.KDE` can be).

    Args:
      z: queries, `[n, latent_dim]`.
      centers: points the density is made of, `[num_centers, latent_dim]`.
      bandwidth: h > 0, the kernel's standard deviation in units of z; a number or a scalar array,
        or `[k]`, several at once, which share their products. With a covariance, what its root is
        multiplied by: 1 where that is the kernel's own.
      covariance: `[latent_dim]`, variances, for a bandwidth per dimension,
        `bandwidth=1, covariance=h**2`; or `[latent_dim, latent_dim]`, symmetric and positive
        definite. A traced one is not checked. None is I.
      exclude: `[n]` int32, the row of `centers` that each query leaves out, -1 for none: its own
        row makes this the leave-one-out density. The rest is renormalized. None: nothing is left
        out.
      log_weights: `[num_centers]` logs of the weights, which need not sum to one; -inf masks a
        center, inf has no density (NaN). None: equal weights.
      axis_name: mapped axis of `jax.shard_map` or `jax.pmap` over which the centers are sharded;
        the density is that of the centers of all its devices, and `exclude` counts their rows.
        None: `centers` is whole.
      queries_sharded: whether `z` is sharded over `axis_name` too, or the same on all its devices.
      implementation: as in `avae_jax.pairwise_lse`; None chooses by latent_dim.
      precision: as in `avae_jax.pairwise_lse`.

    Returns:
      `[n]` log densities in nats, or `[k, n]` for several bandwidths, normalized over R^latent_dim;
      float32 (float64 if an array is and JAX's x64 mode is on). -inf where no center is included.

    Raises:
      TypeError: an array that is not floating point, or an `exclude` that is not integer.
      ValueError: shapes that do not match, no center, a bandwidth or covariance that is not
        positive, an axis that is not mapped, or an unknown implementation or precision.

    Numerics:
      Time `O(n num_centers latent_dim)`; the `[n, num_centers]` matrix is never in memory.
      Differentiable in `z`, `centers`, `bandwidth`, `covariance` and `log_weights`. In the far tail
      the value is exact to float32: nothing underflows. With a covariance, queries and centers are
      whitened by its root from the mean of the centers, in `O((n + num_centers) latent_dim^2)`: its
      condition number multiplies what rounding their coordinates loses.

    Example:
      One center is one Gaussian, `-(log 2 pi)/2` at its own place:

      >>> import jax.numpy as jnp
      >>> print(kde_log_density(jnp.zeros((1, 1)), jnp.zeros((3, 1)), bandwidth=1.0))
      [-0.9189385]

    References:
      Parzen, 1962, On estimation of a probability density function and mode.
    """
    check_axes(
        z=("rows latent_dim", z),
        centers=("num_centers latent_dim", centers),
        exclude=("rows", exclude),
        log_weights=("num_centers", log_weights),
    )
    if not np.shape(centers)[0]:
        raise ValueError(
            f"centers must have a row, got shape {np.shape(centers)}: give one or more"
        )
    check_positive_unless_traced("bandwidth", bandwidth)
    if np.ndim(bandwidth) > 1:
        raise ValueError(
            f"bandwidth must be one number or have shape [k], got shape {np.shape(bandwidth)}: "
            "give covariance= for a kernel of another shape"
        )
    z, centers, log_weights = as_floating(z=z, centers=centers, log_weights=log_weights)
    log_root = 0.0
    if covariance is not None:
        covariance = checked_covariance(covariance, z.shape[1])
        z, centers, log_root = _whitened(z, centers, covariance, log_weights, axis_name)
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
    latent_dim = centers.shape[1]
    log_mass = log_mass_of_others(
        len(centers), log_weights, exclude, num_queries=len(z), dtype=lse.dtype,
        axis_name=axis_name, queries_sharded=queries_sharded,
    )  # fmt: skip
    h = jnp.asarray(bandwidth).astype(lse.dtype)
    log_volume = latent_dim * (jnp.log(h) + 0.5 * math.log(2.0 * math.pi)) + log_root
    if h.ndim:
        log_mass, log_volume = jnp.atleast_1d(log_mass)[None], log_volume[:, None]
    return (lse - log_mass - log_volume).astype(lse.dtype)


def log_mass_of_others(
    num_centers: int,
    log_weights: Any,
    exclude: Any,
    *,
    num_queries: int,
    dtype: Any,
    axis_name: str | tuple[str, ...] | None = None,
    queries_sharded: bool = False,
) -> Any:
    """Return the log of the sum of the weights that each query sees.

    Args:
      num_centers: those on this device.
      log_weights: `[num_centers]`, or None for 1 each.
      exclude: `[num_queries]`, or None.
      num_queries: those on this device.
      dtype: of the result.
      axis_name: mapped axis of the centers, as in `kde_log_density`.
      queries_sharded: as in `kde_log_density`.

    Returns:
      `[num_queries]`, `[1]` or a number; 0 where nothing is seen, so that -inf less it is -inf.
    """
    exclude = None if exclude is None else jnp.asarray(exclude)
    if axis_name is not None:
        num_centers *= jax.lax.axis_size(axis_name)
    if log_weights is None:
        log_mass = _log_count(num_centers, exclude, dtype)
    elif exclude is None and axis_name is None:
        log_mass = logsumexp(jnp.asarray(log_weights))
    elif axis_name is None and not _are_spread(log_weights, exclude):
        log_mass = _log_others(log_weights, exclude)
    else:
        log_mass = _log_spread_mass(log_weights, exclude, num_queries, axis_name, queries_sharded)
    if exclude is not None or log_weights is not None:
        # Without any mass left, lse is -inf as well and the difference would be NaN.
        log_mass = jnp.where(log_mass == -jnp.inf, 0.0, log_mass)
    return log_mass


def as_floating(**arrays: Any) -> tuple[Any, ...]:
    """Return arrays promoted, or raise for one that holds integers: codes and weights have none.

    Args:
      **arrays: by the names of the arguments; None is passed on.

    Raises:
      TypeError: an array is not of a floating type.
    """
    arrays = {name: None if a is None else jnp.asarray(a) for name, a in arrays.items()}
    for name, a in arrays.items():
        if a is not None and not jnp.issubdtype(a.dtype, jnp.floating):
            raise TypeError(
                f"{name} must be of a floating type, got {a.dtype}: give {name}.astype('float32')"
            )
    return promoted(**arrays)


def checked_covariance(covariance: Any, latent_dim: int) -> Any:
    """Return a covariance as it was given, or raise for one that is none.

    Args:
      covariance: `[latent_dim]` or `[latent_dim, latent_dim]`.
      latent_dim: columns of the codes.

    Raises:
      ValueError: another shape, or values, where they can be read, of no covariance.
    """
    shape = np.shape(covariance)
    if shape not in ((latent_dim,), (latent_dim, latent_dim)):
        raise ValueError(
            f"covariance must have shape [{latent_dim}] or [{latent_dim}, {latent_dim}], got "
            f"{shape}: give one variance per column, or all covariances"
        )
    if isinstance(covariance, Tracer) or not getattr(covariance, "is_fully_addressable", True):
        return covariance
    values = np.asarray(covariance, np.float64)
    variances = values if len(shape) == 1 else np.diagonal(values)
    positive = bool(np.all((variances > 0) & (variances < np.inf)))
    if positive and len(shape) == 2:
        correlation = values / np.sqrt(np.outer(variances, variances))
        # Its root is taken in the type of the codes: what rounding leaves of a dependent column is
        # no variance. The root reads one half alone: the other must say the same.
        rounding = latent_dim * float(jnp.finfo(promoted(covariance=covariance)[0].dtype).eps)
        positive = bool(
            np.allclose(correlation, correlation.T, rtol=0, atol=1e-5)
            and np.linalg.eigvalsh(correlation)[0] > rounding
        )
    if not positive:
        raise ValueError(
            f"covariance must be symmetric and positive definite, got one of shape {shape} that is "
            "not: leave out columns that are constant or follow from others"
        )
    return covariance


def _whitened(z, centers, covariance, log_weights, axis_name):
    """Return queries and centers in units of the covariance's root, and the log of its volume."""
    z, centers, covariance = promoted(z=z, centers=centers, covariance=covariance)
    # Only differences count: taken from near the centers they keep their digits.
    kept = jnp.ones(centers.shape[:1], bool) if log_weights is None else log_weights > -jnp.inf
    near = jnp.where(kept[:, None], jax.lax.stop_gradient(centers), 0.0)
    origin = (jnp.sum(near, axis=0) / jnp.maximum(jnp.sum(kept), 1))[None]
    if axis_name is not None:
        origin = jax.lax.pmean(origin, axis_name)
    if covariance.ndim == 1:
        root = jnp.sqrt(covariance)
        white = [(a - origin) / root[None] for a in (z, centers)]
        return *white, jnp.sum(jnp.log(root))
    root = jnp.linalg.cholesky(covariance)
    inverse = jax.scipy.linalg.solve_triangular(
        root, jnp.eye(len(root), dtype=root.dtype), lower=True
    )
    highest = jax.lax.Precision.HIGHEST
    white = [jnp.matmul(a - origin, inverse.T, precision=highest) for a in (z, centers)]
    return *white, jnp.sum(jnp.log(jnp.diagonal(root)))


def _log_count(num_centers: int, exclude, dtype) -> jax.Array | float:
    """Return the log of the number of centers that each query sees, `[n]` or a number."""
    if exclude is None:
        return math.log(num_centers)
    excluded = (exclude >= 0) & (exclude < num_centers)
    others = math.log(num_centers - 1) if num_centers > 1 else -math.inf
    return jnp.where(excluded, others, math.log(num_centers)).astype(dtype)


def _log_others(log_weights, exclude) -> jax.Array:
    """Return the log of the sum of the weights that each query sees, `[n]`."""
    num_centers = len(log_weights)
    total = logsumexp(log_weights)
    # Total minus own weight cancels where one center holds nearly all of it: for that one the
    # others are summed by themselves.
    largest = jnp.argmax(log_weights)
    others = logsumexp(log_weights, where=jnp.arange(num_centers) != largest)
    excluded = (exclude >= 0) & (exclude < num_centers)
    own = jnp.clip(exclude, 0, num_centers - 1)
    of_largest = excluded & (own == largest)
    finite_total = jnp.where(total == -jnp.inf, 0.0, total)
    share = jnp.where(excluded & ~of_largest, jnp.exp(log_weights[own] - finite_total), 0.0)
    return jnp.where(of_largest, others, total + jnp.log1p(-share))


def _are_spread(*arrays) -> bool:
    """Return whether an array is split over an Explicit mesh, where JAX looks up no entries."""
    return any(axis is not None for a in arrays for axis in jax.typeof(a).sharding.spec)


def _log_spread_mass(log_weights, exclude, num_queries, axis_name, queries_sharded) -> jax.Array:
    """Return what `_log_others` does for centers spread over devices, `[n]` or `[1]`."""
    # With all points in one place the kernel sums the weights alone, over the devices, without
    # those left out and with the right gradient.
    num_queries = 1 if exclude is None else num_queries
    return pairwise_lse(
        jnp.zeros((num_queries, 1), log_weights.dtype),
        jnp.zeros((log_weights.shape[0], 1), log_weights.dtype),
        bandwidth=1.0,
        log_weights=log_weights,
        exclude=exclude,
        axis_name=axis_name,
        queries_sharded=queries_sharded,
    )
