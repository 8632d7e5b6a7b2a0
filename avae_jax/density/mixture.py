"""Log density of a mixture of diagonal Gaussians, such as a data set's posteriors."""

import jax
import jax.numpy as jnp
import numpy as np

from avae_jax.checks import check_axes, check_same_shape
from avae_jax.density.kde import as_floating, log_mass_of_others
from avae_jax.kernels.mixture_lse import marginal_lse, mixture_lse
from avae_jax.kernels.pairwise_lse.api import checked_exclude

Array = jax.Array | np.ndarray


def mixture_log_density(
    z: Array,
    loc: Array,
    log_var: Array,
    *,
    log_weights: Array | None = None,
    exclude: Array | None = None,
) -> jax.Array:
    r"""Return the log density of a mixture of diagonal Gaussians at each query.

    ``log q(z_i) = log( sum_{j != exclude_i} w_j N(z_i; mu_j, diag s_j^2) / sum_{j != exclude_i} w_j
    )`` with `w_j = 1` where no weights are given. With the posteriors of a whole data set it is the
    aggregate posterior `q(z) = 1/N sum_n q(z | x_n)` (Hoffman and Johnson 2016), exactly, in memory
    that does not grow with `n num_components`.

    Args:
      z: queries, `[n, latent_dim]`.
      loc: means, `[num_components, latent_dim]`, at least one.
      log_var: log-variances `log s^2`, shaped like `loc`.
      log_weights: `[num_components]` logs of the weights, which need not sum to one; -inf masks a
        component, whatever it holds. None: equal weights.
      exclude: `[n]` int, the component that each query leaves out, -1 for none; the rest is
        renormalized. None: nothing is left out.

    Returns:
      `[n]` log densities in nats, normalized; float32 (float64 if an array is and JAX's x64 mode is
      on). -inf where no component is included.

    Raises:
      TypeError: an array that is not floating point, or an `exclude` that is not integer.
      ValueError: shapes that do not match, no component, or an index out of range.

    Numerics:
      Time `O(n num_components latent_dim)`; memory linear in the arguments, plus a tile. Deviations
      are subtracted, not multiplied out: with u = 2^-24 the error is at most `4 u (1 + S)` where
      `S = |log q(z)| + max_j sum_k |log s_jk|`, for posteriors however narrow (products lose whole
      nats at s = 0.001). Reverse mode, once, in `z`, `loc`, `log_var` and `log_weights`; the
      gradient in `z` comes out of the forward pass, by products as long as no coordinate lies more
      than 512 of a component's standard deviations from the origin, the others from a second pass.
      Rows with nothing included have gradient 0; a query that is not finite is NaN in its own row.
      Under `jax.jit` up to 4,096 queries may be split over devices as they lie.

    Example:
      >>> import jax.numpy as jnp
      >>> loc = jnp.array([[-50.0], [50.0]])
      >>> print(mixture_log_density(jnp.zeros((1, 1)) + 50.0, loc, jnp.zeros((2, 1))).round(4))
      [-1.6121]

    References:
      Hoffman and Johnson, ELBO surgery, NeurIPS workshop 2016.
    """
    args = _checked(z, loc, log_var, log_weights, exclude)
    return _normalized(mixture_lse(*args), args)


def marginal_log_densities(
    z: Array,
    loc: Array,
    log_var: Array,
    *,
    log_weights: Array | None = None,
    exclude: Array | None = None,
) -> jax.Array:
    r"""Return the log density of each dimension of a mixture of diagonal Gaussians.

    ``log q(z_ik) = log( sum_j w_j N(z_ik; mu_jk, s_jk^2) / sum_j w_j )``: `mixture_log_density` of
    every dimension by itself. Summed over the dimensions it is the product of the marginals, and
    `mixture_log_density` less that sum, averaged over draws, is the total correlation.

    Args:
      z: as in `mixture_log_density`, and so are all other arguments.
      loc: `[num_components, latent_dim]`.
      log_var: `[num_components, latent_dim]`.
      log_weights: `[num_components]` or None.
      exclude: `[n]` or None.

    Returns:
      `[n, latent_dim]`, nats.

    Raises:
      TypeError: as `mixture_log_density`.
      ValueError: as `mixture_log_density`.

    Numerics:
      As `mixture_log_density`, with an exponential for each query, component and dimension.

    Example:
      >>> import jax.numpy as jnp
      >>> loc = jnp.array([[-50.0, 0.0], [50.0, 0.0]])
      >>> marginals = marginal_log_densities(loc[1:], loc, jnp.zeros((2, 2)))
      >>> [round(float(value), 4) for value in marginals[0]]  # half a Gaussian, and a whole one
      [-1.6121, -0.9189]
    """
    args = _checked(z, loc, log_var, log_weights, exclude)
    return _normalized(marginal_lse(*args), args)


def _checked(z, loc, log_var, log_weights, exclude) -> tuple:
    """Return the arguments of the kernel, or raise."""
    check_same_shape(loc=loc, log_var=log_var)
    check_axes(
        z=("rows latent_dim", z),
        loc=("num_components latent_dim", loc),
        log_weights=("num_components", log_weights),
        exclude=("rows", exclude),
    )
    if not np.size(loc):
        raise ValueError(f"loc must have a row, got shape {np.shape(loc)}: give one or more")
    z, loc, log_var, log_weights = as_floating(
        z=z, loc=loc, log_var=log_var, log_weights=log_weights
    )
    return z, loc, log_var, log_weights, checked_exclude(exclude, z, len(loc))


def _normalized(lse: jax.Array, args: tuple) -> jax.Array:
    """Return log densities from the kernel's sums, `[n, ...]`."""
    z, loc, _, log_weights, exclude = args
    log_mass = log_mass_of_others(
        len(loc), log_weights, exclude, num_queries=len(z), dtype=lse.dtype
    )
    log_mass = jnp.asarray(log_mass, lse.dtype)
    return lse - log_mass.reshape(-1, *[1] * (lse.ndim - 1))
