"""Modularity of codes: does each code inform about one factor only?"""

import numpy as np

from avae_jax.checks import check_count
from avae_jax.metrics.checks import check_codes
from avae_jax.metrics.disentanglement.discretise import (
    check_factors,
    discretise,
    mutual_information,
    noise_null,
)
from avae_jax.metrics.nulls import NUM_NULL


def modularity(
    codes, factors, *, num_bins: int = 20, num_null: int = NUM_NULL, seed: int = 0
) -> dict[str, float]:
    """Compute the modularity score.

    `mean_j [ 1 - sum_{k != k*} m_jk^2 / (m_jk*^2 (K - 1)) ]`, m_jk the mutual information of binned
    code j with factor k, k* the factor with the largest, K factors (Ridgeway and Mozer 2018). A
    code without any information counts as 0, as in Locatello et al. (2019).

    It does not ask for each factor to be in one code only, or at all: read it beside MIG. Noise
    scores far above 0, since it too informs about one factor most; see `modularity_null`.

    Args:
      codes: `[n, latent_dim]`.
      factors: `[n, num_factors]` integers >= 0.
      num_bins: equal-width bins per code.
      num_null: noise codes behind the null; 0 leaves it out.
      seed: of the noise codes.

    Returns:
      `modularity` in [0, 1]; `modularity_null` and `modularity_null_std`, the mean and standard
      deviation over `num_null` Gaussian noise codes of the same shape. All are NaN for a single
      factor.

    Raises:
      TypeError: factors or a count that are not integers.
      ValueError: wrong shapes, codes that are not finite, a factor with one value only, `num_bins`
        below 2, or `num_null` negative.

    Example:
      >>> factors = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
      >>> round(modularity(factors, factors, num_null=0)["modularity"], 6)
      1.0

    References:
      Ridgeway and Mozer, Learning deep disentangled embeddings with the F-statistic loss, NeurIPS
      2018.
    """
    codes = check_codes(codes, name="codes", min_codes=2)
    factors = check_factors(factors, codes.shape[0])
    num_bins = check_count("num_bins", num_bins, minimum=2)

    def null(rng):
        return {"modularity": _score(rng.standard_normal(codes.shape), factors, num_bins)}

    return {
        "modularity": _score(codes, factors, num_bins),
        **noise_null(null, num_null=num_null, seed=seed),
    }


def _score(codes: np.ndarray, factors: np.ndarray, num_bins: int) -> float:
    if factors.shape[1] < 2:
        return float("nan")
    squares = np.square(mutual_information(discretise(codes, num_bins), factors))
    top = squares.max(axis=1)
    # Round-off leaves the information of a constant code slightly off zero.
    informative = top > np.finfo(np.float64).eps ** 2
    others = squares.sum(axis=1) - top
    share = others / np.where(informative, top, 1.0) / (factors.shape[1] - 1)
    return float(np.mean(np.where(informative, 1.0 - share, 0.0)))
