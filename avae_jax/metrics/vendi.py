"""The Vendi score: how many different samples there are."""

import math

import numpy as np

from avae_jax.checks import check_count
from avae_jax.metrics.checks import check_features, unit_rows
from avae_jax.metrics.nulls import NUM_NULL, exchanges, with_null


def vendi_score(
    features, reference, *, num_null: int = NUM_NULL, seed: int = 0
) -> dict[str, float]:
    """Measure the diversity of samples as an effective number.

    `vendi = exp(-sum_i l_i log l_i)` with l the eigenvalues of `K / n`, K the similarities between
    all pairs of samples (Friedman and Dieng 2023, definition 3.1); the similarity is the cosine of
    the features, as Stein et al. (2023) take it. 1 says that all samples are alike, n that no two
    share a direction. It knows nothing of the real data: read it beside theirs.

    Args:
      features: `[n, num_features]` of the samples to judge, n >= 2.
      reference: `[m, num_features]` of real data, m >= 2.
      num_null: random exchanges of rows behind the null, >= 0; 0 leaves it NaN.
      seed: of the exchanges.

    Returns:
      `vendi`, from 1 to `min(n, num_features)`; `vendi_null` and `vendi_null_std`, mean and
      standard deviation of the score of n rows drawn from both sets at random. Below the null
      samples are less diverse than real data, above it more. NaN where a row is zero: it has no
      direction.

    Raises:
      ValueError: wrong shapes, fewer than two rows, values that are not finite, or num_null < 0.
      TypeError: num_null is no integer.

    Numerics:
      float64, from the smaller of the two products of the features: time
      O((1 + num_null) n d min(n, d)), memory O((n + m) d + min(n, d)^2).

    Example:
      >>> x = np.eye(4).repeat(3, axis=0)
      >>> round(vendi_score(x, x)["vendi"], 9)
      4.0

    References:
      Friedman and Dieng, The Vendi score: a diversity evaluation metric for machine learning, TMLR
      2023, arXiv 2210.02410. Stein et al., Exposing flaws of generative model evaluation metrics
      and their unfair treatment of diffusion models, NeurIPS 2023, arXiv 2306.04675.
    """
    features, reference = check_features(features, reference)
    num_null = check_count("num_null", num_null, minimum=0)
    features, reference = unit_rows(features), unit_rows(reference)
    if np.isnan(features).any() or np.isnan(reference).any():
        return with_null("vendi", math.nan, [])
    pairs = exchanges(features, reference, num_null, np.random.default_rng(seed))
    return with_null("vendi", _score(features), [_score(x) for x, _ in pairs])


def _score(x: np.ndarray) -> float:
    n, d = x.shape
    # Both products have the same eigenvalues but for zeros.
    eigenvalues = np.linalg.eigvalsh((x.T @ x if d < n else x @ x.T) / n)
    eigenvalues = eigenvalues[eigenvalues > 0.0]
    return float(np.exp(-np.sum(eigenvalues * np.log(eigenvalues))))
