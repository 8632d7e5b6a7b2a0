"""The public functions: argument checks and the choice of implementation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from avae_jax.kernels.pairwise_lse import dense, implementations, vjp
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
      x: [n, d] floating queries; or [..., d], one or with any leading axes, which take the place of
        n in all that follows (on a mesh with explicit axes only the first may be split).
      y: [m, d] floating centers, m >= 1, in the unit of x.
      bandwidth: scalar h > 0 in the unit of x, a number or traced; or [k], several at once, which
        share one product of x and y. A traced one is not checked.
      log_weights: [m] floating, nats; -inf masks a center, whatever it holds. None means 0
        everywhere.
      exclude: [n] integer, the index of the center left out of each row, -1 for none. None leaves
        out nothing. `jnp.arange(n)` with y = x gives leave-one-out.
      axis_name: mapped axis, or tuple of axes, of `jax.shard_map` or `jax.pmap` around the call,
        over which the centers are sharded: y and log_weights are the device's own rows, `exclude`
        counts the rows of all devices, and the sum is over all of them. None: y is whole. (Queries
        sharded over another axis need no name: the op is local in them.)
      queries_sharded: whether x is sharded over `axis_name` too. False: x and bandwidth are the
        same on all devices of the axis, and so is the result.
      implementation: "matrix" (matrix products), "difference" (exact to a few roundings, cost
        grows faster with d), or None to choose: differences for d <= 8, and where the bandwidth is
        so narrow for the points that products could be wrong by more than a nat. "dense" is plain
        JAX, with the [n, m] logits in memory: for forward mode and second derivatives.
        "pallas_tpu" and "pallas_gpu" (Hopper; values and gradient in x) are single kernels that
        have not run on hardware yet.
      precision: accuracy class of the matrix products, see Numerics: "highest" (as float32), "high"
        (half the cost on GPU and TPU) or "fast" (bfloat16: wrong by whole nats at narrow
        bandwidths). "difference" has one class.

    Returns:
      [n] nats, or [k, n] for several bandwidths, float32 (float64 if an input is and JAX's x64 mode
      is on); -inf where every center is masked or excluded, inf where one has infinite weight.

    Raises:
      TypeError: an array, or the bandwidth, is not of a floating (exclude: integer) type.
      ValueError: a shape does not fit, m = 0, a concrete bandwidth or index is out of range, or
        `axis_name` names no mapped axis.
      NotImplementedError: forward mode or a second derivative is asked for of another
        implementation than "dense", or an implementation that cannot run here. (Where `jax.jvp` is
        taken of a jitted function, or the result of `jax.linearize` is called, the error is JAX's
        own TypeError about a `custom_vjp` function; "dense" is the answer to it as well.)

    Numerics:
      Both sides are centered at the mean of the unmasked centers first, so a common offset costs
      nothing. With u = 2^-24 and S_i = max_j (|x_i - c|^2 + |y_j - c|^2) / (2 h^2), c that mean,
      the error is at most 16 u (1 + S) in class "highest", 2^-15 (1 + S) in "high", 2^-8 (1 + S)
      in "fast", and 8 u (1 + |lse|) of "difference". A CPU computes all classes in float32.
      With implementation None, products give way to differences where a sample of the centers puts
      16 u S above a nat; queries farther out than twice the centers' radius, whose value is about
      as large as S, do not count for it. That branch is several times slower than "difference".
      Half-precision inputs are copied to float32. Time O(n m d); memory O(k n d) for k bandwidths
      plus one tile of logits and 4 MiB of centers: neither [n, m] nor a copy of y. `jax.vmap` over
      queries is as one call with all of them; over anything else its entries take turns.
      Reverse mode only, but for "dense"; the gradient in x and in the bandwidth comes out of the
      forward pass (one more product for x), the one in y and log_weights needs a second streamed
      pass, in which the weights of a query are divided by their own sum where lse may be wrong by
      more than 1%: over the centers they sum to 1 however far away a query is. Rows with nothing
      included have gradient 0. A non-finite query gives NaN in its own row only; a non-finite
      center, NaN in every row that includes it. Rows of an infinite weight have gradient NaN.
      Arrays may be split over a mesh with axes of type `AxisType.Explicit` or `AxisType.Auto`: the
      values are split as the queries, gradients as what they are of.
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
    call = _checked(
        x, y, bandwidth, log_weights, exclude, axis_name, queries_sharded, implementation, precision
    )
    if call.is_empty:
        lse = jnp.zeros((len(call.args[2]), 0), call.args[0].dtype)
    elif call.layout.implementation.is_dense:
        lse = dense.stats(*call.args, precision=precision).lse
    else:
        lse = vjp.lse(call.layout, *call.args)
    return call.shaped(lse)


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
      NotImplementedError: a derivative is asked for of another implementation than "dense"; stop
        the gradient at the inputs.
    """
    call = _checked(
        x, y, bandwidth, log_weights, exclude, axis_name, queries_sharded, implementation, precision
    )
    x, _, bandwidths, _, _ = call.args
    if call.is_empty:
        empty = jnp.zeros((len(bandwidths), 0), x.dtype)
        mean = jnp.zeros((len(bandwidths), *x.shape), x.dtype)
        result = PairwiseStats(empty, mean, empty, empty)
    elif call.layout.implementation.is_dense:
        result = dense.stats(*call.args, precision=precision)
    else:
        result = vjp.stats(call.layout, *call.args)
    return PairwiseStats(*(call.shaped(a) for a in result))


class _Call(NamedTuple):
    """What a call is computed from, and how its results are shaped.

    Attributes:
      layout: where things lie.
      args: arrays of one type, the queries [n, d].
      several: whether there are several bandwidths.
      rows: the leading axes of the queries as they were given.
    """

    layout: Layout
    args: _Args
    several: bool
    rows: tuple[int, ...]

    @property
    def is_empty(self) -> bool:
        """Return whether there is no query."""
        return self.args[0].shape[0] == 0

    def shaped(self, a) -> jax.Array:
        """Return a result [k, n, ...] in the shape that was asked for."""
        if len(self.rows) != 1:
            a = a.reshape(a.shape[0], *self.rows, *a.shape[2:])
        return a if self.several else a[0]


def _checked(
    x, y, bandwidth, log_weights, exclude, axis_name, queries_sharded, implementation, precision
) -> _Call:
    """Return what to compute, or raise."""
    x, y = _floating("x", x), _floating("y", y)
    if x.ndim == 0:
        raise ValueError(f"x must have shape [points, dimensions], got {x.shape}.")
    if y.ndim != 2:
        raise ValueError(f"y must have shape [points, dimensions], got {y.shape}.")
    if x.shape[-1] != y.shape[1]:
        raise ValueError(
            f"x and y must have the same number of dimensions, got x {x.shape} and y {y.shape}."
        )
    rows, d, m = x.shape[:-1], x.shape[-1], y.shape[0]
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
    if layout.implementation.is_dense and axis_name is not None:
        raise NotImplementedError(
            f"implementation 'dense' needs all centers on every device, got axis_name "
            f"{axis_name!r}: leave axis_name or implementation out."
        )
    several = bandwidth.ndim == 1
    bandwidths = bandwidth if several else bandwidth[None]
    if x.ndim != 2:
        x = x.reshape(-1, d)
        exclude = None if exclude is None else exclude.reshape(-1)
    args = mark_varying(layout, x, y, bandwidths, log_weights, exclude)
    return _Call(layout, args, several, rows)


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
