"""Collapsed and unused latent directions."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from avae_jax.checks import check_between, check_count, check_positive
from avae_jax.metrics.checks import check_codes
from avae_jax.numerics import as_argument

# Tangent directions pushed through the decoder at a time.
_DIRECTIONS = 32


class RelevanceSpectrum(NamedTuple):
    """How much of the decoder's response to the codes' spread lies along each direction.

    Attributes:
      directions: `[latent_dim]`, eigenvalues of `C^(1/2) G C^(1/2)`, descending.
      displacements: `[latent_dim, latent_dim]`; row i is the latent step `C^(1/2) v_i` of one
        standard deviation along the i-th direction, for a traversal.
      axes: `[latent_dim]`, `C_jj G_jj` of each latent axis, in the axes' order.
      sensitivity: `[latent_dim, latent_dim]`, G.
    """

    directions: np.ndarray
    displacements: np.ndarray
    axes: np.ndarray
    sensitivity: np.ndarray


def active_units(z, *, threshold: float = 0.01) -> dict[str, float]:
    """Count the latent dimensions whose codes vary over the data.

    `active_units = #{j : Var_x(z_j) > threshold}` (Burda et al. 2016), with z the posterior
    means. Axes are arbitrary for a prior and an encoder that know no preferred rotation,
    so the eigenvalues of the covariance are counted too: a collapsed direction that mixes axes
    shows only there.

    Args:
      z: `[n, latent_dim]` mean codes, n >= 2.
      threshold: variance above which a dimension is active, > 0.

    Returns:
      `active_units` and `active_directions`, with `active_units_null` and `_null_std` for n draws
      of N(0, I) (exact) and `active_directions_null`, the number of eigenvalues that can differ
      from 0, min(latent_dim, n - 1); all are above .01 in such draws unless n is within about 20%
      of latent_dim. NaN for a single code.

    Raises:
      ValueError: wrong shape, no codes, values that are not finite, `threshold` not positive.

    Example:
      >>> active_units([[1.0, 0.0], [-1.0, 0.0], [0.5, 0.0]])["active_units"]
      1.0

    References:
      Burda, Grosse and Salakhutdinov, Importance weighted autoencoders, ICLR 2016.
    """
    z = check_codes(z)
    threshold = check_positive("threshold", threshold)
    n, d = z.shape
    if n == 1:
        keys = ("active_units", "active_units_null", "active_units_null_std")
        return dict.fromkeys((*keys, "active_directions", "active_directions_null"), math.nan)
    variance = z.var(axis=0, ddof=1)
    eigenvalues = np.linalg.eigvalsh(_covariance(z))
    # (n - 1) times the variance of a draw is a chi-square with n - 1 degrees of freedom.
    share = float(special.gammaincc(0.5 * (n - 1), 0.5 * (n - 1) * threshold))
    return {
        "active_units": float(np.sum(variance > threshold)),
        "active_units_null": d * share,
        "active_units_null_std": math.sqrt(d * share * (1.0 - share)),
        "active_directions": float(np.sum(eigenvalues > threshold)),
        "active_directions_null": float(min(d, n - 1)),
    }


def relevance(
    decode: Callable,
    z,
    *,
    num_codes: int = 100,
    share: float = 0.99,
    seed: int = 0,
) -> dict[str, float]:
    """Count the latent directions that the decoder's output depends on, to a given share.

    With C the covariance of the codes and `G = E[J^T J]`, J the decoder's Jacobian at a code, the
    trace of `A = C^(1/2) G C^(1/2)` is the squared change of the output for a random step of the
    codes' own size. `relevant_directions` is the fewest eigenvalues of A that carry `share` of it,
    the same for any rotation of the latent space. `relevant_axes` counts the terms `C_jj G_jj`
    instead, the relevance score of ARD-VAE (arXiv 2501.10901), meant for models with a preferred
    basis.

    Args:
      decode: JAX function `[k, latent_dim] -> [k, ...]`, differentiable, rows independent of each
        other (normalisation layers in evaluation mode).
      z: `[n, latent_dim]` codes.
      num_codes: how many of them (drawn without replacement) G is averaged over.
      share: of the total, in (0, 1).
      seed: of the choice of codes.

    Returns:
      `relevant_directions`, `relevant_axes`; their `_null`, the same with C = I: what the decoder
      would use if codes filled the prior; `relevance_effective_rank`, the exponential of the
      entropy of A's normalised eigenvalues, and its `_null`; `relevance_total`, the trace of A, in
      squared output units. NaN for a single code; also NaN, except for the total, if the codes or
      the decoder's output do not vary at all.

    Raises:
      ValueError: wrong shape of z or of the decoder's output, no codes, values or derivatives that
        are not finite, `share` outside (0, 1), `num_codes` below 1.
      TypeError: `decode` is not callable, or a count is no integer.

    Numerics:
      The Jacobian in float32, exactly, `num_codes * latent_dim` tangent passes through the decoder;
      memory of 32 passes plus `latent_dim` outputs. C, G and the eigenvalues in float64.

    Example:
      >>> z = np.random.default_rng(1).standard_normal((50, 3))
      >>> relevance(lambda codes: codes[:, :2], z)["relevant_directions"]
      2.0

    References:
      ARD-VAE, arXiv 2501.10901 (2025).
    """
    share = check_between("share", share, 0.0, 1.0)
    spectrum = relevance_spectrum(decode, z, num_codes=num_codes, seed=seed)
    return count_relevant(spectrum, share=share)


def count_relevant(spectrum: RelevanceSpectrum, *, share: float = 0.99) -> dict[str, float]:
    """Count the directions of a spectrum that carry a share of the decoder's response.

    Args:
      spectrum: of `relevance_spectrum`.
      share: of the total, in (0, 1).

    Returns:
      What `relevance` returns.

    Raises:
      ValueError: `share` outside (0, 1).

    Example:
      >>> z = np.random.default_rng(1).standard_normal((50, 3))
      >>> spectrum = relevance_spectrum(lambda codes: codes[:, :2], z)
      >>> count_relevant(spectrum)["relevant_directions"]
      2.0
    """
    share = check_between("share", share, 0.0, 1.0)
    prior = np.maximum(np.linalg.eigvalsh(spectrum.sensitivity), 0.0)
    return {
        "relevant_directions": _count(spectrum.directions, share),
        "relevant_directions_null": _count(prior, share),
        "relevant_axes": _count(spectrum.axes, share),
        "relevant_axes_null": _count(np.diagonal(spectrum.sensitivity), share),
        "relevance_effective_rank": _effective_rank(spectrum.directions),
        "relevance_effective_rank_null": _effective_rank(prior),
        "relevance_total": float(spectrum.directions.sum()),
    }


def relevance_spectrum(
    decode: Callable, z, *, num_codes: int = 100, seed: int = 0
) -> RelevanceSpectrum:
    """Compute the arrays behind `relevance`.

    Args:
      decode: JAX function `[k, latent_dim] -> [k, ...]`, as for `relevance`.
      z: `[n, latent_dim]` codes.
      num_codes: how many of them (drawn without replacement) G is averaged over.
      seed: of the choice of codes.

    Returns:
      `RelevanceSpectrum`, NumPy float64; all but `sensitivity` are NaN for a single code.

    Raises:
      ValueError: wrong shape of z or of the decoder's output, no codes, values or derivatives that
        are not finite, `num_codes` below 1.
      TypeError: `decode` is not callable, or a count is no integer.

    Example:
      >>> z = np.random.default_rng(1).standard_normal((50, 3))
      >>> relevance_spectrum(lambda codes: 2.0 * codes, z).sensitivity.diagonal()
      array([4., 4., 4.])
    """
    if not callable(decode):
        raise TypeError(f"decode is {decode!r}: give a function from codes to outputs")
    z = check_codes(z)
    num_codes = check_count("num_codes", num_codes, minimum=1)
    seed = check_count("seed", seed, minimum=0)
    n, d = z.shape
    picked = z
    if num_codes < n:
        rows = np.random.default_rng([seed, 1]).choice(n, num_codes, replace=False)
        picked = z[np.sort(rows)]
    sensitivity = _sensitivity(decode, picked.astype(np.float32))
    if n == 1:
        nan = np.full((d, d), math.nan)
        return RelevanceSpectrum(nan[0], nan, nan[0], sensitivity)
    covariance = _covariance(z)
    eigenvalues, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(eigenvalues, 0.0))) @ vectors.T
    values, directions = np.linalg.eigh(root @ sensitivity @ root)
    return RelevanceSpectrum(
        directions=np.maximum(values[::-1], 0.0),
        displacements=(root @ directions[:, ::-1]).T,
        axes=np.diagonal(covariance) * np.diagonal(sensitivity),
        sensitivity=sensitivity,
    )


def _covariance(z: np.ndarray) -> np.ndarray:
    return np.atleast_2d(np.cov(z, rowvar=False))


def _sensitivity(decode: Callable, z: np.ndarray) -> np.ndarray:
    n, d = z.shape
    shape = jax.eval_shape(decode, jax.ShapeDtypeStruct((1, d), np.float32)).shape
    if not shape or shape[0] != 1:
        raise ValueError(f"decode maps codes of shape (1, {d}) to {shape}: it must keep the rows")

    @jax.jit
    def gram(decode, code):
        _, push = jax.linearize(lambda row: decode(row[None])[0].ravel(), code)
        jacobian = jax.lax.map(push, jnp.eye(d, dtype=code.dtype), batch_size=_DIRECTIONS)
        return jnp.matmul(jacobian, jacobian.T, precision=jax.lax.Precision.HIGHEST)

    total, decode = np.zeros((d, d)), as_argument(decode)
    for row in z:
        total += np.asarray(gram(decode, row), dtype=np.float64)
    if not np.all(np.isfinite(total)):
        raise ValueError("decode has derivatives that are not finite at some codes: check it there")
    return total / n


def _count(values: np.ndarray, share: float) -> float:
    total = values.sum()
    if not total > 0.0:
        return math.nan
    carried = np.cumsum(np.sort(values)[::-1]) / total
    # Round-off may leave the last sum a little below 1.
    return float(min(np.searchsorted(carried, share) + 1, values.size))


def _effective_rank(values: np.ndarray) -> float:
    total = values.sum()
    if not total > 0.0:
        return math.nan
    part = values[values > 0.0] / total
    return float(np.exp(-np.sum(part * np.log(part))))
