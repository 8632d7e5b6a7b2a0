"""Maximum mean discrepancy of the codes from the prior or from a reference sample."""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from avae_jax.checks import check_choice, check_positive
from avae_jax.metrics.checks import (
    check_codes,
    check_features,
    check_reference,
    prior_generator,
    unit_rows,
)
from avae_jax.metrics.neighbors import square_distances

# Pairs of prior draws behind the null's standard deviation, which they give to a few per cent.
_NULL_PAIRS = 5_000
# Step in log t of the quadrature over t; an error of about exp(-pi^2 / step).
_LOG_STEP = 0.25


def mmd(
    z,
    *,
    reference=None,
    kernel: str = "rbf",
    bandwidth: float | None = None,
    scale: float = 1.0,
    seed: int = 0,
) -> dict[str, float]:
    """Estimate the squared maximum mean discrepancy without bias.

    `mmd = E k(z, z') - 2 E k(z, y) + E k(y, y')` over distinct pairs (Gretton et al. 2012, eq. 3),
    with y from N(0, scale^2 I) or from `reference`. Kernels of `r = |z - y|` and bandwidth g:

    - "rbf": `exp(-r^2 / (2 g^2))`,
    - "imq": `g^2 / (g^2 + r^2)`, heavier in the tail; `g^2 = 2 d scale^2` is that of WAE
      (Tolstikhin et al. 2018).

    Against the prior nothing is drawn: both expectations over y are exact (closed form for "rbf",
    a quadrature for "imq"), which takes their noise out of the estimate and half of its cost.

    Args:
      z: `[n, latent_dim]` codes.
      reference: `[m, latent_dim]` sample to compare with, m >= 2; None compares with the prior.
      kernel: "rbf" or "imq".
      bandwidth: g > 0. None takes the root mean squared distance between two reference points:
        `sqrt(2 d) scale` for the prior (its median distance to 1/(3d)), `sqrt(2 tr Cov)` of a
        reference.
      scale: standard deviation of the prior; not used with a reference.
      seed: of the prior draws behind `mmd_null_std`.

    Returns:
      `mmd`, which may be negative, and its `mmd_null`, exactly 0. `mmd_null_std` is the standard
      deviation of the same estimate for n prior draws; with a reference it is that over all
      exchanges of rows between z and the reference (a permutation null, in closed form).
      `mmd_stderr` is the jackknife error of the estimate; it is up to sqrt(2) too large where
      both laws agree: compare with the null there. All are NaN for a single code and for a
      reference whose rows are all the same, unless a bandwidth is given; `mmd_null_std` also
      below two rows of z or the reference.

    Raises:
      ValueError: wrong shapes, values that are not finite, unknown kernel, or bandwidth or scale
        not positive.

    Numerics:
      float64; time O((n + m)^2 d) (n^2 d / 2 against the prior), memory O(n (d + block)).

    Example:
      >>> round(mmd([[0.0], [1.0]], reference=[[5.0], [6.0]], bandwidth=1.0)["mmd"], 4)
      1.2129

    References:
      Gretton et al., A kernel two-sample test, JMLR 13 (2012). Tolstikhin et al., Wasserstein
      auto-encoders, ICLR 2018, arXiv 1711.01558.
    """
    z = check_codes(z)
    reference = check_reference(z, reference)
    scale = check_positive("scale", scale)
    d = z.shape[1]
    check_choice("kernel", kernel, ("rbf", "imq"))
    if bandwidth is None:
        if reference is None:
            bandwidth = math.sqrt(2.0 * d) * scale
        else:
            bandwidth = math.sqrt(2.0 * float(np.sum(np.var(reference, axis=0))))
            if bandwidth <= 1e-12 * math.sqrt(float(np.max(np.sum(reference**2, axis=1)))):
                return dict.fromkeys(("mmd", "mmd_null", "mmd_null_std", "mmd_stderr"), math.nan)
    bandwidth = check_positive("bandwidth", bandwidth)
    kernel_fn = _rbf(bandwidth) if kernel == "rbf" else _imq(bandwidth)
    if reference is None:
        mean_fn = _rbf_mean if kernel == "rbf" else _imq_mean
        found = discrepancy_from_prior(
            z,
            kernel_fn,
            lambda square_norm, variance: mean_fn(square_norm, d, bandwidth**2, variance),
            scale=scale,
            seed=seed,
        )
    else:
        found = discrepancy_from_sample(z, reference, kernel_fn)
    return {
        "mmd": found.value,
        "mmd_null": 0.0 if math.isfinite(found.value) else math.nan,
        "mmd_null_std": found.null_std,
        "mmd_stderr": found.stderr,
    }


def cmmd(features, reference) -> dict[str, float]:
    """Measure CMMD: the discrepancy of unit-length features under one fixed kernel.

    `cmmd = 1000 (mean k(x, x') + mean k(y, y') - 2 mean k(x, y))`, k the "rbf" of `mmd` at
    bandwidth 10 and each mean over all pairs, a row with itself included, as in the code of
    Jayasumana et al. (2024). It is named after CLIP features, and comparable only on those of the
    same network.

    Args:
      features: `[n, num_features]` of the samples to judge, n >= 2.
      reference: `[m, num_features]` of real data, m >= 2.

    Returns:
      `cmmd` >= 0, in thousandths; `cmmd_null` and `cmmd_null_std`, mean and standard deviation over
      all exchanges of rows between the two sets; `cmmd_stderr`, the jackknife error. NaN where a
      row is zero: it has no direction.

    Raises:
      ValueError: wrong shapes, fewer than two rows, values that are not finite.

    Numerics:
      float64; time O((n + m)^2 d), memory O((n + m) (d + block)). The kernel is all but linear over
      the sphere, and 1 - k is taken, so that no digits are lost.

    Example:
      >>> x = np.eye(3)
      >>> round(cmmd(x[:2], x[1:])["cmmd"], 3)
      4.975

    References:
      Jayasumana et al., Rethinking FID: towards a better evaluation metric for image generation,
      CVPR 2024, arXiv 2401.09603.
    """
    features, reference = check_features(features, reference)
    x, y = unit_rows(features), unit_rows(reference)
    if np.isnan(x).any() or np.isnan(y).any():
        return dict.fromkeys(("cmmd", "cmmd_null", "cmmd_null_std", "cmmd_stderr"), math.nan)

    def kernel_fn(square: np.ndarray) -> np.ndarray:
        square *= -0.5 / 10.0**2
        return np.expm1(square, out=square)

    n, m = len(x), len(y)
    found = discrepancy_from_sample(x, y, kernel_fn)
    # A row with itself has k - 1 = 0: what a V-statistic adds to the means over distinct pairs.
    value = (1.0 - 1.0 / n) * found.mean_z + (1.0 - 1.0 / m) * found.mean_reference
    value -= 2.0 * found.mean_cross
    return {
        "cmmd": 1000.0 * max(value, 0.0),
        "cmmd_null": -1000.0 * found.mean_pooled * (1.0 / n + 1.0 / m),
        "cmmd_null_std": 1000.0 * found.null_std,
        "cmmd_stderr": 1000.0 * found.stderr,
    }


def _rbf(bandwidth: float) -> Callable[[np.ndarray], np.ndarray]:
    def kernel_fn(square: np.ndarray) -> np.ndarray:
        square *= -0.5 / bandwidth**2
        return np.exp(square, out=square)

    return kernel_fn


def _imq(bandwidth: float) -> Callable[[np.ndarray], np.ndarray]:
    def kernel_fn(square: np.ndarray) -> np.ndarray:
        square += bandwidth**2
        return np.divide(bandwidth**2, square, out=square)

    return kernel_fn


def _rbf_mean(square_norm, d: int, g2: float, variance: float) -> np.ndarray:
    """Return the mean of the RBF kernel between z and N(0, variance I)."""
    total = g2 + variance
    return np.exp(0.5 * d * math.log(g2 / total) - np.asarray(square_norm) / (2.0 * total))


def _imq_mean(square_norm, d: int, g2: float, variance: float) -> np.ndarray:
    """Return the mean of the IMQ kernel between z and N(0, variance I).

    `g^2 / (g^2 + r^2) = int_0^inf exp(-t) exp(-t r^2 / g^2) dt`: an RBF mean inside one integral,
    which the trapezoid rule in log t gives to round-off.
    """
    square_norm = np.asarray(square_norm, dtype=np.float64)
    # Below the first node the integrand is constant, above the last it has vanished.
    rate = 1.0 + (d * variance + float(square_norm.max())) / g2
    log_t = np.arange(math.log(1e-17 / rate), 4.0, _LOG_STEP)
    mean = np.zeros_like(square_norm)
    for t in np.exp(log_t):
        weight = _LOG_STEP * t * math.exp(-t)
        mean += weight * _rbf_mean(square_norm, d, g2 / (2.0 * t), variance)
    return mean


class Discrepancy(NamedTuple):
    """What a pass over all pairs of a kernel gives.

    Attributes:
      value: the unbiased squared discrepancy.
      null_std: its standard deviation where both laws agree.
      stderr: its jackknife standard error.
      mean_z: mean kernel over distinct pairs of codes.
      mean_cross: mean kernel between a code and the reference.
      mean_reference: as `mean_z` over the reference.
      mean_pooled: over distinct pairs of codes and reference taken together; NaN for the prior,
        whose other means are exact.
    """

    value: float
    null_std: float
    stderr: float
    mean_z: float
    mean_cross: float
    mean_reference: float
    mean_pooled: float


def _pair_sums(x: np.ndarray, y: np.ndarray, kernel_fn) -> tuple[np.ndarray, np.ndarray, float]:
    """Sum a kernel over rows, over columns, and its square over all pairs; no pair (i, i)."""
    same = x is y
    center = y.mean(axis=0)
    x, y = x - center, y - center
    over_columns, over_rows, squares = np.zeros(len(x)), np.zeros(len(y)), 0.0
    for rows, square in square_distances(x, y, upper=same):
        value = kernel_fn(square)
        if not same:
            over_columns[rows] += value.sum(axis=1)
            over_rows += value.sum(axis=0)
            squares += float(np.vdot(value, value))
            continue
        # A block of the upper triangle begins with its square on the diagonal.
        size = rows.stop - rows.start
        corner, rest = value[:, :size], value[:, size:]
        np.fill_diagonal(corner, 0.0)
        over_columns[rows] += value.sum(axis=1)
        over_columns[rows.stop :] += rest.sum(axis=0)
        squares += float(np.sum(corner**2) + 2.0 * np.sum(rest**2))
    return over_columns, over_columns if same else over_rows, squares


def discrepancy_from_prior(
    z: np.ndarray, kernel_fn, mean_fn, *, scale: float, seed: int
) -> Discrepancy:
    """Compare codes with N(0, scale^2 I), whose kernel means are known.

    Args:
      z: `[n, latent_dim]` float64.
      kernel_fn: squared distances to kernel values; may overwrite its argument.
      mean_fn: `(|z|^2, variance) ->` mean of the kernel between z and N(0, variance I).
      scale: standard deviation of the prior.
      seed: of the draws behind `null_std`.

    Returns:
      The discrepancy; what needs two codes is NaN for one.
    """
    n, d = z.shape
    # Two independent draws differ by a draw of twice the variance.
    constant = float(mean_fn(np.zeros(1), 2.0 * scale**2)[0])
    to_prior = mean_fn(np.sum(z**2, axis=1), scale**2)
    mean_cross, nan = float(to_prior.mean()), math.nan
    if n < 2:
        return Discrepancy(nan, nan, nan, nan, mean_cross, constant, nan)
    row_means = _pair_sums(z, z, kernel_fn)[0] / (n - 1)
    # The estimate is a U-statistic; its jackknife needs the row means of the centred kernel.
    projection = row_means - to_prior
    rng = prior_generator(seed)
    a, b = scale * rng.standard_normal((2, _NULL_PAIRS, d))
    centered = (
        kernel_fn(np.sum((a - b) ** 2, axis=1))
        - mean_fn(np.sum(a**2, axis=1), scale**2)
        - mean_fn(np.sum(b**2, axis=1), scale**2)
        + constant
    )
    return Discrepancy(
        value=float(row_means.mean()) - 2.0 * mean_cross + constant,
        # Under the null the projections vanish: var = 2 E[centred^2] / (n (n - 1)), exactly.
        null_std=math.sqrt(2.0 * float(np.mean(centered**2)) / (n * (n - 1))),
        stderr=2.0 * float(projection.std(ddof=1)) / math.sqrt(n),
        mean_z=float(row_means.mean()),
        mean_cross=mean_cross,
        mean_reference=constant,
        mean_pooled=math.nan,
    )


def discrepancy_from_sample(z: np.ndarray, reference: np.ndarray, kernel_fn) -> Discrepancy:
    """Compare codes with a sample.

    Args:
      z: `[n, latent_dim]` float64.
      reference: `[m, latent_dim]` float64.
      kernel_fn: squared distances to kernel values; may overwrite its argument.

    Returns:
      The discrepancy; `null_std` is over all permutations of the pooled rows. NaN where n or m is
      below 2, except the means that exist.
    """
    n, m = len(z), len(reference)
    within_z, _, squares_z = _pair_sums(z, z, kernel_fn)
    if reference is z:
        reference = reference.copy()
    within_r, _, squares_r = _pair_sums(reference, reference, kernel_fn)
    cross_z, cross_r, squares_cross = _pair_sums(z, reference, kernel_fn)
    total = n + m
    row_sums = np.concatenate([within_z + cross_z, within_r + cross_r])
    mean_pooled = float(row_sums.sum()) / (total * (total - 1))
    mean_z = float(within_z.sum()) / (n * (n - 1)) if n > 1 else math.nan
    mean_r = float(within_r.sum()) / (m * (m - 1)) if m > 1 else math.nan
    mean_cross = float(cross_z.mean()) / m
    value = mean_z + mean_r - 2.0 * mean_cross
    stderr = null_std = math.nan
    if min(n, m) > 1:
        at_z = within_z / (n - 1) - cross_z / m
        at_r = within_r / (m - 1) - cross_r / n
        stderr = 2.0 * math.sqrt(at_z.var(ddof=1) / n + at_r.var(ddof=1) / m)
        # Squares of the kernel after U-centring: its off-diagonal rows sum to zero, which leaves
        # the statistic as it is (Szekely and Rizzo 2014).
        squares = squares_z + squares_r + 2.0 * squares_cross
        if total > 3:
            squares -= 2.0 / (total - 2) * float(row_sums @ row_sums)
            squares += float(row_sums.sum()) ** 2 / ((total - 1) * (total - 2))
        null_std = math.sqrt(max(squares, 0.0) * _permutation_factor(n, m))
    return Discrepancy(value, null_std, stderr, mean_z, mean_cross, mean_r, mean_pooled)


def _permutation_factor(n: int, m: int) -> float:
    """Return the permutation variance of the statistic per unit of U-centred squares.

    With `T = sum_{i != j} w_ij k_ij` and rows of k that sum to zero, pairs of pairs that share
    two, one or no index sum to `2 S`, `-4 S` and `2 S`, where `S = sum k_ij^2`.
    """
    weight = {("z", "z"): 1.0 / (n * (n - 1)), ("r", "r"): 1.0 / (m * (m - 1))}
    weight["z", "r"] = weight["r", "z"] = -1.0 / (n * m)

    def mean_product(length: int, first: tuple[int, int], second: tuple[int, int]) -> float:
        product = 0.0
        for labels in itertools.product("zr", repeat=length):
            in_z = labels.count("z")
            # The chance that distinct indices carry these labels.
            chance = math.prod((n - i) / (n + m - i) for i in range(in_z))
            chance *= math.prod((m - i) / (n + m - in_z - i) for i in range(length - in_z))
            product += (
                chance
                * weight[labels[first[0]], labels[first[1]]]
                * weight[labels[second[0]], labels[second[1]]]
            )
        return product

    shared_two = mean_product(2, (0, 1), (0, 1))
    shared_one = mean_product(3, (0, 1), (0, 2))
    disjoint = mean_product(4, (0, 1), (2, 3)) if n + m > 3 else 0.0
    return 2.0 * shared_two - 4.0 * shared_one + 2.0 * disjoint
