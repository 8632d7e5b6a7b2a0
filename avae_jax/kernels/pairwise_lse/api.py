"""The public functions: argument checks and the choice of implementation."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from avae_jax.kernels.pairwise_lse import implementations, vjp
from avae_jax.kernels.pairwise_lse.layout import AxisName, Layout, mark_varying
from avae_jax.kernels.pairwise_lse.precision import PRECISIONS
from avae_jax.kernels.pairwise_lse.stats import PairwiseStats
from avae_jax.kernels.pairwise_lse.varying import varying_axes

# x, y, bandwidths [k], log_weights, exclude
_Args = tuple[jax.Array, jax.Array, jax.Array, jax.Array | None, jax.Array | None]


def pairwise_lse(
    x: ArrayLike,
    y: ArrayLike,
    *,
    bandwidth: ArrayLike,
    log_weights: ArrayLike | None = None,
    exclude: ArrayLike | None = None,
    axis_name: AxisName | None = None,
    queries_sharded: bool = False,
    implementation: str | None = None,
    precision: str = "highest",
) -> jax.Array:
    r"""Compute the log-sum-exp over centers of Gaussian logits, one value per query.

    lse_i = logsumexp_{j != exclude_i} ( -|x_i - y_j|^2 / (2 h^2) + log_weights_j )

    Args:
      x: [n, d] floating queries.
      y: [m, d] floating centers, m >= 1, in the unit of x.
      bandwidth: scalar h > 0 in the unit of x, a number or traced; or [k], several at once, which
        share one product of x and y. A traced one is not checked.
      log_weights: [m] floating, nats; -inf masks a center. None means 0 everywhere.
      exclude: [n] integer, the index of the center left out of each row, -1 for none. None leaves
        out nothing. `jnp.arange(n)` with y = x gives leave-one-out.
      axis_name: mapped axis, or tuple of axes, of `jax.shard_map` or `jax.pmap` around the call,
        over which the centers are sharded: y and log_weights are the device's own rows, `exclude`
        counts the rows of all devices, and the sum is over all of them. None: y is whole. (Queries
        sharded over another axis need no name: the op is local in them.)
      queries_sharded: whether x is sharded over `axis_name` too. False: x and bandwidth are the
        same on all devices of the axis, and so is the result.
      implementation: "matrix" (matrix products), "difference" (exact to a few roundings, cost
        grows faster with d), or None to choose: "difference" for d <= 8. "pallas_tpu" and
        "pallas_gpu" (Hopper; values and gradient in x) are single kernels that have not run on
        hardware yet.
      precision: accuracy class of the matrix products, see Numerics: "highest" (as float32), "high"
        (half the cost on GPU and TPU) or "fast" (bfloat16: wrong by whole nats at narrow
        bandwidths). "difference" has one class.

    Returns:
      [n] nats, or [k, n] for several bandwidths, float32 (float64 if an input is and JAX's x64 mode
      is on); -inf where every center is masked or excluded.

    Raises:
      TypeError: an array, or the bandwidth, is not of a floating (exclude: integer) type.
      ValueError: a shape does not fit, m = 0, a concrete bandwidth or index is out of range, or
        `axis_name` names no mapped axis.
      NotImplementedError: a second derivative is asked for, or an implementation that cannot run
        here.

    Numerics:
      Both sides are centered at the mean of the unmasked centers first, so a common offset costs
      nothing. With u = 2^-24 and S_i = max_j (|x_i - c|^2 + |y_j - c|^2) / (2 h^2), c that mean,
      the error is at most 16 u (1 + S) in class "highest", 2^-15 (1 + S) in "high", 2^-8 (1 + S)
      in "fast", and 8 u (1 + |lse|) of "difference". A CPU computes all classes in float32.
      Half-precision inputs are copied to float32. Time O(n m d); memory O(k n d) for k bandwidths
      plus one tile of logits and 4 MiB of centers: neither [n, m] nor a copy of y. `jax.vmap` over
      queries is as one call with all of them; over anything else, on a CPU, as one call after the
      other.
      Reverse mode only; the gradient in x and in the bandwidth comes out of the forward pass
      (one more product for x), the one in y and log_weights needs a second streamed pass. Rows
      with nothing included have gradient 0; a non-finite query spoils its own row only.
      With `axis_name` all devices' centers count in value and gradient. The gradients in x and
      bandwidth are those of the device's own rows and complete on every device; those in y and
      log_weights are of the sum over the queries of all devices of the axis. Few queries are
      gathered to every device; many stay, and the centers go around a ring, of which a device holds
      three shards at a time. Without shard_map's replication check (and in pmap) differentiate
      inside of the mapped function: from outside, the gradient in y would be a device's share.

    Example:
      >>> import jax.numpy as jnp
      >>> from avae_jax.kernels.pairwise_lse import pairwise_lse
      >>> x, y = jnp.zeros((1, 2)), jnp.zeros((4, 2))
      >>> pairwise_lse(x, y, bandwidth=0.5).round(4)  # log 4
      Array([1.3863], dtype=float32)
    """
    layout, args, several = _checked(
        x, y, bandwidth, log_weights, exclude, axis_name, queries_sharded, implementation, precision
    )
    if args[0].shape[0] == 0:
        lse = jnp.zeros((len(args[2]), 0), args[0].dtype)
    else:
        lse = vjp.lse(layout, *args)
    return lse if several else lse[0]


def pairwise_lse_stats(
    x: ArrayLike,
    y: ArrayLike,
    *,
    bandwidth: ArrayLike,
    log_weights: ArrayLike | None = None,
    exclude: ArrayLike | None = None,
    axis_name: AxisName | None = None,
    queries_sharded: bool = False,
    implementation: str | None = None,
    precision: str = "highest",
) -> PairwiseStats:
    """Compute the log-sum-exp with the softmax's mean center and logit moments in one pass.

    With w_ij = softmax_j of the logits that `pairwise_lse` sums and l_ij = -|x_i - y_j|^2 / (2 h^2)
    without log weights: mean_i = sum_j w_ij y_j, logit_mean_i = E_w[l_ij], logit_sq_mean_i =
    E_w[l_ij^2]. Then d lse / dx = (mean - x) / h^2, d lse / d log h = -2 logit_mean and
    d^2 lse / d (log h)^2 = 4 (logit_sq_mean - logit_mean^2) + 4 logit_mean.

    Args:
      x: as in `pairwise_lse`, and so are all other arguments.
      y: [m, d].
      bandwidth: scalar or [k].
      log_weights: [m] or None.
      exclude: [n] or None.
      axis_name: mapped axis of the centers, or None.
      queries_sharded: whether x is sharded over it.
      implementation: as in `pairwise_lse`.
      precision: "highest", "high" or "fast".

    Returns:
      PairwiseStats(lse [n], mean [n, d], logit_mean [n], logit_sq_mean [n]), with a leading axis
      [k] for several bandwidths. Rows with nothing included have lse -inf and 0 elsewhere.

    Raises:
      TypeError: as `pairwise_lse`.
      ValueError: as `pairwise_lse`.
      NotImplementedError: a derivative is asked for; stop the gradient at the inputs.
    """
    layout, args, several = _checked(
        x, y, bandwidth, log_weights, exclude, axis_name, queries_sharded, implementation, precision
    )
    x, _, bandwidths, _, _ = args
    if x.shape[0] == 0:
        empty = jnp.zeros((len(bandwidths), 0), x.dtype)
        mean = jnp.zeros((len(bandwidths), *x.shape), x.dtype)
        result = PairwiseStats(empty, mean, empty, empty)
    else:
        result = vjp.stats(layout, *args)
    return result if several else PairwiseStats(*(a[0] for a in result))


def _checked(
    x, y, bandwidth, log_weights, exclude, axis_name, queries_sharded, implementation, precision
) -> tuple[Layout, _Args, bool]:
    """Return (layout, arrays of one type, whether there are several bandwidths), or raise."""
    x, y = _floating("x", x), _floating("y", y)
    for name, a in (("x", x), ("y", y)):
        if a.ndim != 2:
            raise ValueError(f"{name} must have shape [points, dimensions], got {a.shape}.")
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"x and y must have the same number of dimensions, got x {x.shape} and y {y.shape}."
        )
    d, m = x.shape[1], y.shape[0]
    if d == 0:
        raise ValueError(f"x must have at least one dimension, got {x.shape}.")
    if m == 0:
        raise ValueError(f"y must hold at least one center, got {y.shape}.")

    num_shards = _checked_axis(axis_name, queries_sharded)
    bandwidth = checked_bandwidth(bandwidth)
    log_weights = checked_log_weights(log_weights, y)
    exclude = checked_exclude(exclude, x, m * num_shards)
    _check_shared(axis_name, queries_sharded, x=x, bandwidth=bandwidth, exclude=exclude)
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}.")

    dtype = jnp.promote_types(jnp.result_type(x, y), jnp.float32)
    x, y, bandwidth = x.astype(dtype), y.astype(dtype), bandwidth.astype(dtype)
    if log_weights is not None:
        log_weights = log_weights.astype(dtype)
    layout = Layout(
        implementations.choose(implementation, d), precision, axis_name, bool(queries_sharded)
    )
    several = bandwidth.ndim == 1
    bandwidths = bandwidth if several else bandwidth[None]
    return layout, mark_varying(layout, x, y, bandwidths, log_weights, exclude), several


def _checked_axis(axis_name, queries_sharded) -> int:
    """Return the number of devices the centers are sharded over."""
    if axis_name is None:
        if queries_sharded:
            raise ValueError(
                "queries_sharded=True needs axis_name, the axis they are sharded over."
            )
        return 1
    names = (axis_name,) if isinstance(axis_name, str) else axis_name
    if not (isinstance(names, tuple) and names and all(isinstance(name, str) for name in names)):
        raise TypeError(f"axis_name must be a string or a tuple of strings, got {axis_name!r}.")
    try:
        return jax.lax.axis_size(axis_name)
    except (NameError, TypeError) as error:
        raise ValueError(
            f"axis_name must name a mapped axis of jax.shard_map or jax.pmap around the call, got "
            f"{axis_name!r}."
        ) from error


def _check_shared(axis_name, queries_sharded, **args) -> None:
    """Refuse what differs between devices that are said to have the same queries."""
    if axis_name is None or queries_sharded:
        return
    names = {axis_name} if isinstance(axis_name, str) else set(axis_name)
    for name, a in args.items():
        if a is not None and names & varying_axes(a):
            raise ValueError(
                f"{name} {a.shape} differs between the devices of axis {axis_name!r}: pass "
                f"queries_sharded=True if the queries are split over it, or the same {name} on all."
            )


def _floating(name: str, a) -> jax.Array:
    a = jnp.asarray(a)
    if not jnp.issubdtype(a.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be a floating-point array, got {a.dtype} {a.shape}; "
            f"convert it with {name}.astype('float32')."
        )
    return a


def _concrete(a):
    """Return the values as a NumPy array if they can be read here and now, else None."""
    if isinstance(a, Tracer) or not getattr(a, "is_fully_addressable", True):
        return None
    return np.asarray(a)


def checked_bandwidth(bandwidth) -> jax.Array:
    """Return the bandwidth as a floating array, or raise for one that is none."""
    if isinstance(bandwidth, (bool, str, bytes)) or bandwidth is None:
        raise TypeError(f"bandwidth must be a number, got {bandwidth!r}.")
    if isinstance(bandwidth, int):
        bandwidth = float(bandwidth)
    # Read before JAX has it: under jit its constants cannot be.
    value = _concrete(bandwidth if isinstance(bandwidth, jax.Array) else np.asarray(bandwidth))
    bandwidth = _floating("bandwidth", bandwidth)
    if bandwidth.ndim > 1 or bandwidth.size == 0:
        raise ValueError(f"bandwidth must be a scalar or have shape [k], got {bandwidth.shape}.")
    if value is not None and not np.all((0 < value) & (value < np.inf)):
        raise ValueError(f"bandwidth must be positive and finite, got {value}.")
    return bandwidth


def checked_log_weights(log_weights, y) -> jax.Array | None:
    """Return log weights `y.shape[:-1]` as a floating array, or raise."""
    if log_weights is None:
        return None
    log_weights = _floating("log_weights", log_weights)
    if log_weights.shape != y.shape[:-1]:
        raise ValueError(
            f"log_weights must have shape {y.shape[:-1]}, one per center of y {y.shape}, got "
            f"{log_weights.shape}."
        )
    return log_weights


def checked_exclude(exclude, x, num_centers: int) -> jax.Array | None:
    """Return indices `x.shape[:-1]` as int32, or raise for those that are out of range."""
    if exclude is None:
        return None
    # Not yet through JAX, which would cut 64 bits to 32.
    exclude = exclude if isinstance(exclude, jax.Array) else np.asarray(exclude)
    if not jnp.issubdtype(exclude.dtype, jnp.integer):
        raise TypeError(f"exclude must be an integer array, got {exclude.dtype} {exclude.shape}.")
    if exclude.shape != x.shape[:-1]:
        raise ValueError(
            f"exclude must have shape {x.shape[:-1]}, one index per query, got {exclude.shape}."
        )
    values = _concrete(exclude)
    if values is not None and values.size and (values.min() < -1 or values.max() >= num_centers):
        raise ValueError(
            f"exclude must hold indices in [0, {num_centers}) or -1 for none, got values from "
            f"{values.min()} to {values.max()}."
        )
    return jnp.asarray(exclude).astype(jnp.int32)
