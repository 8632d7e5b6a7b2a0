"""Sliced and max-sliced Wasserstein distances of the codes from the prior or from a sample."""

import math
from collections.abc import Iterator

import numpy as np
from scipy import special

from avae_jax.checks import check_count, check_positive
from avae_jax.metrics.checks import check_codes, check_reference, prior_generator
from avae_jax.metrics.nulls import NUM_NULL, exchanges, with_null

# Projected values held at once, about 64 MB with their sorted copy.
_BLOCK_VALUES = 2**22


def sliced_w2(
    z,
    *,
    reference=None,
    scale: float = 1.0,
    num_projections: int = 256,
    num_null: int = NUM_NULL,
    seed: int = 0,
) -> dict[str, float]:
    """Compute the sliced 2-Wasserstein distance (not its square).

    `sliced_w2^2 = mean_u W2^2(u.z, u.y)` over unit vectors u (Bonneel et al. 2015), here random
    orthonormal bases, which cover the sphere more evenly than independent draws. Against
    N(0, scale^2 I) each W2 is that to the continuous law N(0, scale^2), from its exact quantiles:
    the sampling noise of a reference sample is not added. For z from N(m, s^2 I) the square tends
    to `|m|^2 / d + (s - scale)^2`.

    Args:
      z: `[n, latent_dim]` codes.
      reference: `[m, latent_dim]` sample to compare with; None compares with the prior.
      scale: standard deviation of the prior; not used with a reference.
      num_projections: number of unit vectors, >= 1.
      num_null: number of null samples, >= 0; without any, the null is NaN.
      seed: of the directions and of the null samples.

    Returns:
      `sliced_w2`, in the units of z; `sliced_w2_null` and `sliced_w2_null_std`, its mean and
      standard deviation (NaN below two) over `num_null` samples of n prior draws. With a reference
      these are random exchanges of rows between z and the reference (a permutation null).

    Raises:
      ValueError: wrong shapes, values that are not finite, scale not positive, or a count out of
        range.
      TypeError: a count that is no integer.

    Numerics:
      float64; time O(num_null n (d + log n) num_projections), memory O(n d) plus one block of
      projections.

    Example:
      >>> z = np.random.default_rng(1).standard_normal((2000, 2))
      >>> round(sliced_w2(3.0 * z, num_null=0)["sliced_w2"], 1)
      2.0

    References:
      Bonneel et al., Sliced and Radon Wasserstein barycenters of measures, JMIV 51 (2015).
    """
    z = check_codes(z)
    reference = check_reference(z, reference)
    scale = check_positive("scale", scale)
    num_projections = check_count("num_projections", num_projections, minimum=1)
    num_null = check_count("num_null", num_null, minimum=0)
    rng = prior_generator(seed)
    directions = _random_directions(z.shape[1], num_projections, rng)

    def estimate(x, y):
        return math.sqrt(float(np.mean(_w2_along(x, y, directions, scale))))

    null = [estimate(x, y) for x, y in _null_samples(z, reference, scale, num_null, rng)]
    return with_null("sliced_w2", estimate(z, reference), null)


def sliced_w2_along(x, y, directions) -> float:
    """Compute the sliced 2-Wasserstein distance of two samples along given directions.

    `sqrt(mean_u W2^2(u.x, u.y))`, each W2 exact for samples of any two sizes.

    Args:
      x: `[n, latent_dim]`.
      y: `[m, latent_dim]`.
      directions: `[latent_dim, num_directions]`, columns of unit length.

    Returns:
      The distance, in the units of x.

    Raises:
      ValueError: wrong shapes, values that are not finite, or columns not of unit length.

    Example:
      >>> sliced_w2_along([[0.0, 0.0]], [[3.0, 4.0]], np.eye(2)[:, :1])
      3.0
    """
    x = check_codes(x, name="x")
    y = check_codes(y, name="y")
    directions = check_codes(directions, name="directions")
    if not x.shape[1] == y.shape[1] == directions.shape[0]:
        raise ValueError(
            f"x has latent_dim {x.shape[1]}, y {y.shape[1]} and directions {directions.shape[0]} "
            "rows: they must agree"
        )
    lengths = np.linalg.norm(directions, axis=0)
    if np.max(np.abs(lengths - 1.0)) > 1e-6:
        raise ValueError(
            f"directions have columns of length {lengths.min():g} to {lengths.max():g}: "
            "divide each by its norm"
        )
    return math.sqrt(float(np.mean(_w2_along(x, y, directions, 1.0))))


def max_sliced_w2(
    z,
    *,
    reference=None,
    scale: float = 1.0,
    num_starts: int = 8,
    num_steps: int = 30,
    num_null: int = NUM_NULL,
    seed: int = 0,
) -> dict[str, float]:
    """Compute the 2-Wasserstein distance along the worst direction, found on other codes.

    `max_u W2(u.z, u.y)` (Deshpande et al. 2019) on a sample of n codes is mostly noise in high
    dimension: some direction always looks wrong. Here the codes are split at random into halves;
    the direction is sought on one and W2 is taken on the other, both ways round, and the result is
    the root of the mean of the two squares. A direction that only fits noise scores as a random
    one does. The maximum is local: the best of several projected gradient ascents, from random
    directions and from the ends of the spectrum of the halves.

    Args:
      z: `[n, latent_dim]` codes.
      reference: `[m, latent_dim]` sample to compare with, halved likewise; None compares with the
        exact quantiles of the prior.
      scale: standard deviation of the prior; not used with a reference.
      num_starts: number of ascents per half, >= 1; up to two thirds start at eigenvectors.
      num_steps: gradient steps per ascent, >= 0.
      num_null: number of null samples, >= 0; without any, the null is NaN.
      seed: of the halves, of the starts and of the null samples.

    Returns:
      `max_sliced_w2`, in the units of z; `max_sliced_w2_null` and `max_sliced_w2_null_std`, its
      mean and standard deviation (NaN below two) over `num_null` samples of n prior draws, or over
      random exchanges of rows between z and the reference. All NaN below two rows of z or of the
      reference.

    Raises:
      ValueError: wrong shapes, values that are not finite, scale not positive, or a count out of
        range.
      TypeError: a count that is no integer.

    Numerics:
      float64; time O(num_null num_starts num_steps n (d + log n)), memory O(n (d + num_starts)).

    Example:
      >>> z = np.random.default_rng(1).standard_normal((2000, 2))
      >>> round(max_sliced_w2(z + np.array([5.0, 0.0]), num_null=0)["max_sliced_w2"])
      5

    References:
      Deshpande et al., Max-sliced Wasserstein distance and its use for GANs, CVPR 2019,
      arXiv 1904.05877.
    """
    z = check_codes(z)
    reference = check_reference(z, reference)
    scale = check_positive("scale", scale)
    num_starts = check_count("num_starts", num_starts, minimum=1)
    num_steps = check_count("num_steps", num_steps, minimum=0)
    num_null = check_count("num_null", num_null, minimum=0)
    if len(z) < 2 or (reference is not None and len(reference) < 2):
        return with_null("max_sliced_w2", math.nan, [])
    rng = prior_generator(seed)

    def estimate(x, y):
        x_halves = _halves(x, rng)
        y_halves = (None, None) if y is None else _halves(y, rng)
        total = 0.0
        for seek, report in ((0, 1), (1, 0)):
            direction = _worst_direction(
                x_halves[seek], y_halves[seek], scale, num_starts, num_steps, rng
            )
            total += float(_w2_along(x_halves[report], y_halves[report], direction, scale)[0])
        return math.sqrt(0.5 * total)

    null = [estimate(x, y) for x, y in _null_samples(z, reference, scale, num_null, rng)]
    return with_null("max_sliced_w2", estimate(z, reference), null)


def _null_samples(z, reference, scale, num_null, rng) -> Iterator[tuple]:
    if reference is not None:
        return exchanges(z, reference, num_null, rng)
    return ((scale * rng.standard_normal(z.shape), None) for _ in range(num_null))


def _random_directions(d: int, count: int, rng) -> np.ndarray:
    """Draw `[d, count]` unit vectors: Haar orthonormal bases, the last one cut short."""
    bases = []
    for start in range(0, count, d):
        # No more columns than are wanted: a whole basis of an image's pixels would take minutes.
        q, r = np.linalg.qr(rng.standard_normal((d, min(d, count - start))))
        # Without these signs q does not follow the Haar measure.
        bases.append(q * np.sign(np.diag(r)))
    return np.concatenate(bases, axis=1)


def _normal_bin_means(n: int) -> np.ndarray:
    """Return n times the integral of the normal quantile function over each of n equal bins."""
    edges = special.ndtri(np.arange(1, n) / n)
    density = np.concatenate([[0.0], np.exp(-0.5 * edges**2) / math.sqrt(2.0 * math.pi), [0.0]])
    return n * (density[:-1] - density[1:])


def _w2_along(x: np.ndarray, y: np.ndarray | None, directions: np.ndarray, scale: float):
    """Return `[num_directions]` squared W2 distances from y, or exactly from N(0, scale^2)."""
    n = len(x)
    block = max(1, _BLOCK_VALUES // max(n, 0 if y is None else len(y)))
    parts = []
    for i in range(0, directions.shape[1], block):
        along = directions[:, i : i + block].T
        a = np.sort(along @ x.T, axis=1)
        if y is None:
            bin_means = scale * _normal_bin_means(n)
            # What is left of the prior's variance inside the bins, (1 - mean b^2) scale^2.
            within = scale**2 - float(np.mean(bin_means**2))
            parts.append(np.mean((a - bin_means) ** 2, axis=1) + max(within, 0.0))
            continue
        b = np.sort(along @ y.T, axis=1)
        if len(y) == n:
            parts.append(np.mean((a - b) ** 2, axis=1))
            continue
        # Both quantile functions are constant between the cuts i / n and j / m.
        m = len(y)
        cuts = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
        lengths = np.diff(cuts) / (n * m)
        parts.append((a[:, cuts[:-1] // m] - b[:, cuts[:-1] // n]) ** 2 @ lengths)
    return np.concatenate(parts)


def _halves(x: np.ndarray, rng) -> tuple[np.ndarray, np.ndarray]:
    x = rng.permutation(x)
    return x[: len(x) // 2], x[len(x) // 2 :]


def _worst_direction(x, y, scale: float, num_starts: int, num_steps: int, rng) -> np.ndarray:
    """Ascend `W2^2(u.x, u.y)` over unit vectors u and return the best one, `[d, 1]`."""
    n, d = x.shape
    if y is not None and len(y) != n:
        # Equal sizes couple sorted rows one to one; the rows come in random order.
        n = min(n, len(y))
        x, y = x[:n], y[:n]
    target = scale * _normal_bin_means(n)
    directions = _starts(x, y, scale, num_starts, rng)

    def value_and_gradient(u):
        a = u @ x.T
        order = np.argsort(a, axis=1)
        gap = np.empty_like(a)
        if y is None:
            np.put_along_axis(gap, order, np.broadcast_to(target, a.shape), axis=1)
            np.subtract(a, gap, out=gap)
            return np.mean(gap**2, axis=1), gap @ x
        b = u @ y.T
        order_b = np.argsort(b, axis=1)
        matched = np.take_along_axis(a, order, axis=1) - np.take_along_axis(b, order_b, axis=1)
        np.put_along_axis(gap, order, matched, axis=1)
        gradient = gap @ x
        np.put_along_axis(gap, order_b, matched, axis=1)
        return np.mean(matched**2, axis=1), gradient - gap @ y

    def tangent(u, gradient):
        gradient = gradient - np.sum(gradient * u, axis=1, keepdims=True) * u
        length = np.linalg.norm(gradient, axis=1, keepdims=True)
        return gradient / np.where(length > 0.0, length, 1.0)

    value, gradient = value_and_gradient(directions)
    uphill = tangent(directions, gradient)
    angle = np.full((len(directions), 1), 0.5)
    for _ in range(num_steps):
        # A step along the great circle; it grows while it gains and shrinks where it does not.
        tried = np.cos(angle) * directions + np.sin(angle) * uphill
        tried /= np.linalg.norm(tried, axis=1, keepdims=True)
        tried_value, tried_gradient = value_and_gradient(tried)
        better = tried_value > value
        value = np.where(better, tried_value, value)
        directions = np.where(better[:, None], tried, directions)
        uphill = np.where(better[:, None], tangent(tried, tried_gradient), uphill)
        angle *= np.where(better[:, None], 1.5, 0.4)
    return directions[np.argmax(value)][:, None]


def _starts(x, y, scale: float, num_starts: int, rng) -> np.ndarray:
    """Return `[num_starts, d]` unit vectors: the spectrum's ends, the mean gap, random ones."""
    d = x.shape[1]
    covariance = x.T @ x / len(x)
    covariance -= scale**2 * np.eye(d) if y is None else y.T @ y / len(y)
    eigenvalues, vectors = np.linalg.eigh(covariance)
    ends = vectors[:, np.argsort(-np.abs(eigenvalues))[: min(d, num_starts // 2)]].T
    gap = x.mean(axis=0) - (0.0 if y is None else y.mean(axis=0))
    length = np.linalg.norm(gap)
    picked = np.concatenate([ends, gap[None] / length]) if length > 0.0 else ends
    random = _random_directions(d, num_starts, rng).T
    return np.concatenate([picked, random])[:num_starts]
