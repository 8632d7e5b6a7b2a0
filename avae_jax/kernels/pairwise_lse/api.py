"""The public functions: argument checks and the choice of implementation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from avae_jax.kernels.pairwise_lse import vjp
from avae_jax.kernels.pairwise_lse.direct import DIFFERENCE_FORM
from avae_jax.kernels.pairwise_lse.form import Form
from avae_jax.kernels.pairwise_lse.stats import PairwiseStats
from avae_jax.kernels.pairwise_lse.xla import MATRIX_FORM

IMPLEMENTATIONS = {"xla": MATRIX_FORM, "direct": DIFFERENCE_FORM}

# Up to here the difference form is no slower than the matrix form, and more accurate.
_MAX_DIRECT_DIMS = 8

# x, y, bandwidth, log_weights, exclude
_Args = tuple[jax.Array, jax.Array, jax.Array, jax.Array | None, jax.Array | None]


def pairwise_lse(
    x: ArrayLike,
    y: ArrayLike,
    *,
    bandwidth: ArrayLike,
    log_weights: ArrayLike | None = None,
    exclude: ArrayLike | None = None,
    implementation: str | None = None,
    precision: str = "highest",
) -> jax.Array:
    r"""Compute the log-sum-exp over centers of Gaussian logits, one value per query.

    lse_i = logsumexp_{j != exclude_i} ( -|x_i - y_j|^2 / (2 h^2) + log_weights_j )

    Args:
      x: [n, d] floating queries.
      y: [m, d] floating centers, m >= 1, in the unit of x.
      bandwidth: scalar h > 0 in the unit of x; a number or a traced scalar.
      log_weights: [m] floating, nats; -inf masks a center. None means 0 everywhere.
      exclude: [n] integer, the index of the center left out of each row, -1 for none. None leaves
        out nothing. `jnp.arange(n)` with y = x gives leave-one-out.
      implementation: "xla" (matrix products), "direct" (differences, exact to a few roundings,
        cost grows faster with d), or None to choose: direct for d <= 8.
      precision: "highest" (float32 products in full float32), the only class so far.

    Returns:
      [n] nats, float32 (float64 if an input is); -inf where every center is masked or excluded.

    Raises:
      TypeError: an array, or the bandwidth, is not of a floating (exclude: integer) type.
      ValueError: a shape does not fit, m = 0, or a concrete bandwidth or index is out of range.
      NotImplementedError: a second derivative is asked for.

    Numerics:
      Both sides are centred at the mean of the unmasked centers first, so a common offset costs
      nothing. The error of "xla" is about 1e-7 * (1 + S), S = max |x - mean|^2 / (2 h^2), that of
      "direct" about 1e-7 * (1 + |lse|). Half-precision inputs are upcast to float32. Time
      O(n m d), memory O((n + m) d) plus one tile of logits: never [n, m].
      Reverse mode only; the gradient in x and in the bandwidth comes out of the forward pass
      (one more product for x), the one in y and log_weights needs a second streamed pass. Rows
      with nothing included have gradient 0; a non-finite query spoils its own row only.

    Example:
      >>> import jax.numpy as jnp
      >>> from avae_jax.kernels.pairwise_lse import pairwise_lse
      >>> x, y = jnp.zeros((1, 2)), jnp.zeros((4, 2))
      >>> pairwise_lse(x, y, bandwidth=0.5).round(4)  # log 4
      Array([1.3863], dtype=float32)
    """
    form, args = _checked(x, y, bandwidth, log_weights, exclude, implementation, precision)
    if args[0].shape[0] == 0:
        return jnp.zeros((0,), args[0].dtype)
    return vjp.lse(form, *args)


def pairwise_lse_stats(
    x: ArrayLike,
    y: ArrayLike,
    *,
    bandwidth: ArrayLike,
    log_weights: ArrayLike | None = None,
    exclude: ArrayLike | None = None,
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
      bandwidth: scalar.
      log_weights: [m] or None.
      exclude: [n] or None.
      implementation: "xla", "direct" or None.
      precision: "highest".

    Returns:
      PairwiseStats(lse [n], mean [n, d], logit_mean [n], logit_sq_mean [n]). Rows with nothing
      included have lse -inf and 0 elsewhere.

    Raises:
      TypeError: as `pairwise_lse`.
      ValueError: as `pairwise_lse`.
      NotImplementedError: a derivative is asked for; stop the gradient at the inputs.
    """
    form, args = _checked(x, y, bandwidth, log_weights, exclude, implementation, precision)
    x = args[0]
    if x.shape[0] == 0:
        empty = jnp.zeros((0,), x.dtype)
        return PairwiseStats(empty, x, empty, empty)
    raw = vjp.raw_stats(form, True, True, *args)
    return PairwiseStats(raw.lse, raw.mean, raw.logit_mean, raw.logit_sq_mean)


def _checked(
    x, y, bandwidth, log_weights, exclude, implementation, precision
) -> tuple[Form, _Args]:
    """Return (form, arrays of one type), or raise for the first argument that is wrong."""
    x, y = _floating("x", x), _floating("y", y)
    for name, a in (("x", x), ("y", y)):
        if a.ndim != 2:
            raise ValueError(f"{name} must have shape [points, dimensions], got {a.shape}.")
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"x and y must have the same number of dimensions, got x {x.shape} and y {y.shape}."
        )
    (n, d), m = x.shape, y.shape[0]
    if d == 0:
        raise ValueError(f"x must have at least one dimension, got {x.shape}.")
    if m == 0:
        raise ValueError(f"y must hold at least one center, got {y.shape}.")

    bandwidth = _checked_bandwidth(bandwidth)
    if log_weights is not None:
        log_weights = _floating("log_weights", log_weights)
        if log_weights.shape != (m,):
            raise ValueError(
                f"log_weights must have shape ({m},), one per center of y {y.shape}, got "
                f"{log_weights.shape}."
            )
    if exclude is not None:
        exclude = _checked_exclude(exclude, n, m)
    if precision != "highest":
        raise ValueError(f"precision must be 'highest', got {precision!r}.")

    dtype = jnp.promote_types(jnp.result_type(x, y), jnp.float32)
    x, y, bandwidth = x.astype(dtype), y.astype(dtype), bandwidth.astype(dtype)
    if log_weights is not None:
        log_weights = log_weights.astype(dtype)
    args = _same_mapped_axes(x, y, bandwidth, log_weights, exclude)
    return _form(implementation, d), args


def _same_mapped_axes(*args: jax.Array | None) -> Any:
    """Make every argument vary over the mapped axes that any of them varies over.

    Under shard_map's replication check a custom VJP must return gradients that vary as their
    arguments do. With the cast outside of it, JAX itself sums the gradient of a replicated argument
    over the axis.
    """
    axes = frozenset().union(*(_varying_axes(a) for a in args if a is not None))

    def cast(a):
        missing = axes - _varying_axes(a)
        return jax.lax.pcast(a, tuple(missing), to="varying") if missing else a

    return tuple(None if a is None else cast(a) for a in args)


def _varying_axes(a) -> frozenset:
    aval = jax.typeof(a)
    # The attribute was renamed in JAX 0.10.
    kind = getattr(aval, "manual_axis_type", None)
    return frozenset(kind.varying if kind is not None else getattr(aval, "vma", ()))


def _form(implementation: str | None, d: int) -> Form:
    if implementation is None:
        implementation = "direct" if d <= _MAX_DIRECT_DIMS else "xla"
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"implementation must be one of {sorted(IMPLEMENTATIONS)} or None, got "
            f"{implementation!r}."
        )
    return IMPLEMENTATIONS[implementation]


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


def _checked_bandwidth(bandwidth) -> jax.Array:
    if isinstance(bandwidth, (bool, str, bytes)) or bandwidth is None:
        raise TypeError(f"bandwidth must be a number, got {bandwidth!r}.")
    if isinstance(bandwidth, int):
        bandwidth = float(bandwidth)
    bandwidth = _floating("bandwidth", bandwidth)
    if bandwidth.shape != ():
        raise ValueError(f"bandwidth must be a scalar, got shape {bandwidth.shape}.")
    value = _concrete(bandwidth)
    if value is not None and not (0 < value < np.inf):
        raise ValueError(f"bandwidth must be positive and finite, got {value}.")
    return bandwidth


def _checked_exclude(exclude, n: int, m: int) -> jax.Array:
    exclude = jnp.asarray(exclude)
    if not jnp.issubdtype(exclude.dtype, jnp.integer):
        raise TypeError(f"exclude must be an integer array, got {exclude.dtype} {exclude.shape}.")
    if exclude.shape != (n,):
        raise ValueError(
            f"exclude must have shape ({n},), one index per query, got {exclude.shape}."
        )
    values = _concrete(exclude)
    if values is not None and values.size and (values.min() < -1 or values.max() >= m):
        raise ValueError(
            f"exclude must hold indices in [0, {m}) or -1 for none, got values from "
            f"{values.min()} to {values.max()}."
        )
    return exclude.astype(jnp.int32)
