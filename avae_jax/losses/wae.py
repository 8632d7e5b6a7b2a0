"""Maximum mean discrepancy, and the Wasserstein autoencoder's loss with it."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from avae_jax.checks import check_axes, check_choice, check_positive_unless_traced
from avae_jax.losses.batch import (
    check_codes,
    counted,
    matching_loss,
    mean_over,
    pairs,
    square_distances,
)
from avae_jax.numerics import promoted

IMQ_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""What the squared scale of the inverse multiquadratic kernels is multiplied by."""

Kernel = Literal["imq", "rbf"]


def mmd(
    z: jax.Array,
    draws: jax.Array,
    *,
    kernel: Kernel = "imq",
    scale: ArrayLike | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Estimate the squared maximum mean discrepancy of codes from draws, without bias.

    `E k(z, z') - 2 E k(z, y) + E k(y, y')` over distinct pairs (Gretton et al. 2012, eq. 3), with
    r the distance of a pair:

    - "imq": `sum_s C / (C + r^2)`, `C = s scale^2`, over the seven s of the Wasserstein
      autoencoder's code, .1, .2, .5, 1, 2, 5, 10 (Tolstikhin et al. 2018);
    - "rbf": `exp(-r^2 / (2 scale^2))`.

    Args:
      z: codes, `[batch, latent_dim]`.
      draws: of the prior, `[num_draws, latent_dim]`, at least 2.
      kernel: "imq" or "rbf".
      scale: the kernel's length, > 0, in units of z. None: "imq" takes the root mean squared
        distance between draws, `sqrt(2 latent_dim)` for N(0, I); "rbf" the authors' code's, whose
        square is the median squared distance between codes and draws plus that between codes. The
        gradient does not pass through it.
      mask: `[batch]`, 0 or False on rows that only fill the batch up. None: every row counts.

    Returns:
      `[]`, float32 (float64 if an argument is), without unit; 0 on average where codes are
      distributed as the draws, so that it can be negative. 0 for fewer than two codes.

    Raises:
      ValueError: shapes that do not match, fewer than two draws, an unknown kernel, or a scale
        that is a number <= 0.

    Numerics:
      Time and memory `O((batch + num_draws)^2)`, the former times latent_dim.

    Example:
      >>> import jax.numpy as jnp
      >>> z, draws = jnp.array([[0.0], [1.0]]), jnp.array([[5.0], [6.0]])
      >>> round(float(mmd(z, draws, kernel="rbf", scale=1.0)), 4)
      1.2129

    References:
      Gretton et al., 2012, A kernel two-sample test, JMLR 13.
    """
    check_choice("kernel", kernel, ("imq", "rbf"))
    check_positive_unless_traced("scale", scale)
    check_codes(z, mask=mask, draws=draws, num_draws=2)
    check_axes(scale=("", scale))
    z, draws, scale = promoted(z=z, draws=draws, scale=scale)
    z, weights, count = counted(z, mask)
    every = jnp.ones(len(draws), z.dtype)
    of_codes, across, of_draws = pairs(weights), pairs(weights, every), pairs(every)
    squares = [square_distances(a, b) for a, b in ((z, z), (z, draws), (draws, draws))]

    if scale is not None:
        square = jnp.square(scale)
    elif kernel == "imq":
        square = mean_over(squares[2], of_draws)
    else:
        square = _median(squares[1], across) + _median(squares[0], of_codes)
    # Where nothing has a length, any will do.
    square = jax.lax.stop_gradient(jnp.where(square > jnp.finfo(z.dtype).eps ** 2, square, 1))

    def mean_kernel(squares, weights):
        if kernel == "rbf":
            return mean_over(jnp.exp(-0.5 * squares / square), weights)
        every_scale = [s * square / (s * square + squares) for s in IMQ_SCALES]
        return mean_over(functools.reduce(jnp.add, every_scale), weights)

    within, between, reference = map(mean_kernel, squares, (of_codes, across, of_draws))
    return jnp.where(count >= 2, within - 2 * between + reference, 0)


def mmd_standard_normal(
    z: jax.Array, *, scale: ArrayLike | None = None, mask: jax.Array | None = None
) -> jax.Array:
    """Estimate the squared maximum mean discrepancy of codes from N(0, I), which is not drawn.

    `mmd` with the kernel "rbf" and its two expectations over the prior in closed form: with
    `b = 1/scale` and d = latent_dim, over distinct pairs of codes,

    `E exp(-b^2 r^2 / 2) - 2 (1 + b^2)^(-d/2) E exp(-b^2 |z|^2 / (2 + 2 b^2))
    + (1 + 2 b^2)^(-d/2)`,

    the statistic of Baringhaus, Henze, Epps and Pulley in its unbiased form.

    Args:
      z: codes, `[batch, latent_dim]`.
      scale: the kernel's length, > 0, in units of z; None: `sqrt(2 latent_dim)`, the root mean
        squared distance between two draws.
      mask: `[batch]`, 0 or False on rows that only fill the batch up. None: every row counts.

    Returns:
      `[]`, float32 (float64 if an argument is), without unit; 0 on average for codes of N(0, I).
      0 for fewer than two codes.

    Raises:
      ValueError: shapes that do not match, or a scale that is a number <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> z = 3.0 * jax.random.normal(jax.random.key(0), (500, 2))
      >>> round(float(mmd_standard_normal(z)), 2)
      0.27

    References:
      Henze and Zirkler, 1990, A class of invariant consistent tests for multivariate normality.
    """
    check_positive_unless_traced("scale", scale)
    check_codes(z, mask=mask)
    check_axes(scale=("", scale))
    z, scale = promoted(z=z, scale=scale)
    z, weights, count = counted(z, mask)
    latent_dim = z.shape[1]
    b2 = jnp.asarray(0.5 / latent_dim, z.dtype) if scale is None else 1 / jnp.square(scale)
    within = mean_over(jnp.exp(-0.5 * b2 * square_distances(z, z)), pairs(weights))
    near = jnp.exp(-0.5 * b2 / (1 + b2) * jnp.sum(jnp.square(z), axis=1))
    between = jnp.exp(-0.5 * latent_dim * jnp.log1p(b2)) * mean_over(near, weights)
    reference = jnp.exp(-0.5 * latent_dim * jnp.log1p(2 * b2))
    return jnp.where(count >= 2, within - 2 * between + reference, 0)


def wae(
    x: jax.Array,
    x_recon: jax.Array,
    z: jax.Array,
    draws: jax.Array | None,
    *,
    weight: ArrayLike,
    kernel: Kernel = "imq",
    scale: ArrayLike | None = None,
    likelihood: str = "gaussian",
    mask: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the Wasserstein autoencoder's loss, its codes matched by an MMD.

    `reconstruction + weight MMD^2(codes, draws)` (Tolstikhin et al. 2018, eq. 4 and algorithm 2).
    The second term is a statistic of the batch, the same in every row.

    Args:
      x: data, `[batch, ...]`.
      x_recon: reconstructions, shaped like `x`; logits when `likelihood="bernoulli"`.
      z: codes of the batch, `[batch, latent_dim]`.
      draws: of the prior, `[num_draws, latent_dim]`; None is N(0, I) in closed form, with the
        kernel "rbf".
      weight: multiplies the discrepancy, >= 0. The authors' code multiplies the squared error by
        .05 and the discrepancy by 10 (MNIST) or 100 (CelebA): 200 and 2,000 here.
      kernel: "imq" or "rbf", as in `mmd`.
      scale: the kernel's length, as in `mmd` and `mmd_standard_normal`.
      likelihood: "gaussian", "bernoulli", or another name in `LIKELIHOODS`.
      mask: `[batch]`, 0 or False on rows that only fill the batch up: they do not enter the
        statistic. None: every row counts.

    Returns:
      The loss `[batch]` and its terms: `reconstruction` `[batch]` and `mmd` `[]`, float32 (float64
      if an array is).

    Raises:
      ValueError: as `mmd`; the kernel "imq" without draws.

    Example:
      >>> import jax.numpy as jnp
      >>> x, z = jnp.zeros((2, 8)), jnp.array([[0.0], [1.0]])
      >>> loss, terms = wae(x, x, z, z + 5.0, weight=10.0, kernel="rbf", scale=1.0)
      >>> loss.shape, terms["mmd"].shape
      ((2,), ())

    References:
      Tolstikhin et al., 2018, [Wasserstein Auto-Encoders](https://arxiv.org/abs/1711.01558).
    """

    def discrepancy():
        if draws is not None:
            return mmd(z, draws, kernel=kernel, scale=scale, mask=mask)
        if kernel != "rbf":
            raise ValueError(
                f"kernel must be 'rbf' where draws is None, got {kernel!r}: give draws of the prior"
            )
        return mmd_standard_normal(z, scale=scale, mask=mask)

    return matching_loss(
        x, x_recon, z, discrepancy, name="mmd", weight=weight, likelihood=likelihood
    )


def _median(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Return the (lower) median of the entries that count; 0 where none does."""
    # Its gradient is not asked for: without it, sorting is a third of the work.
    ordered = jnp.sort(jnp.where(weights > 0, jax.lax.stop_gradient(values), jnp.inf).ravel())
    middle = (jnp.sum(weights).astype(jnp.int32) - 1) // 2
    found = ordered[jnp.maximum(middle, 0)]
    return jnp.where(jnp.isfinite(found), found, 0)
