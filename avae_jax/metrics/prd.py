"""Precision and recall for distributions: the trade-off curve and its two F scores."""

from typing import NamedTuple

import numpy as np

from avae_jax.checks import check_count
from avae_jax.metrics.checks import check_codes
from avae_jax.metrics.nulls import NUM_NULL, with_null

# Keeps the slope finite and positive at both ends of the curve, as in the authors' code.
_EPSILON = 1e-10


class PRDCurve(NamedTuple):
    """Precision and recall at each angle, from precision 0 (angle 0) to recall 0 (angle pi/2)."""

    precision: np.ndarray
    recall: np.ndarray


def prd(
    features,
    reference,
    *,
    num_clusters: int = 20,
    num_angles: int = 1001,
    num_runs: int = 10,
    num_null: int = NUM_NULL,
    seed: int = 0,
) -> dict[str, float]:
    """Score samples by precision and recall for distributions (PRD).

    Both sets are clustered together by k-means and compared as histograms over the clusters
    (Sajjadi et al. 2018). The curves of `num_runs` clusterings are averaged; F8 weighs recall and
    F1/8 precision. **The samples come first, the real data second**: swapping them swaps the two
    scores.

    PRD sees only the histogram over a few clusters. Equal distributions score about 1, and samples
    from half of a 16-dimensional Gaussian still score F8 = 0.95: compare with the null, and with
    real train against real test features for the floor.

    Args:
      features: `[n, num_features]` of the samples to judge.
      reference: `[n, num_features]` of real data, the same n: unequal sets bias the clusters.
      num_clusters: k of k-means, at most 2 n.
      num_angles: points of the curve, at least 3.
      num_runs: clusterings averaged.
      num_null: random relabellings behind the null; 0 leaves it out.
      seed: of the clusterings and the relabellings.

    Returns:
      `prd_f8` (recall) and `prd_f1_8` (precision) in [0, 1]; each with `_null` and `_null_std`, its
      mean and standard deviation when the rows of both sets are relabelled at random.

    Raises:
      ValueError: wrong shapes, unequal sizes, values that are not finite, too many clusters, or too
        few angles or runs.
      TypeError: a count that is no integer.

    Numerics:
      float64. Deterministic for a seed and a machine.

    Example:
      >>> x = np.repeat(10.0 * np.eye(4), 25, axis=0)
      >>> scores = prd(x[:50].repeat(2, axis=0), x, num_clusters=4, num_runs=1, num_null=0)
      >>> {name: round(value, 2) for name, value in scores.items()}
      {'prd_f8': 0.5, 'prd_f1_8': 0.98}

    References:
      Sajjadi et al., Assessing generative models via precision and recall, NeurIPS 2018.
    """
    labels, n = _cluster(features, reference, num_clusters, num_runs, seed)
    scores = prd_scores(_mean_curve(labels, n, num_clusters, num_angles))
    if num_null > 0:
        rng = np.random.default_rng(seed)
        null = []
        for _ in range(num_null):
            shuffled = labels[:, rng.permutation(2 * n)]
            null.append(prd_scores(_mean_curve(shuffled, n, num_clusters, num_angles)))
        for name, value in list(scores.items()):
            scores |= with_null(name, value, [draw[name] for draw in null])
    return scores


def prd_curve(
    features,
    reference,
    *,
    num_clusters: int = 20,
    num_angles: int = 1001,
    num_runs: int = 10,
    seed: int = 0,
) -> PRDCurve:
    """Compute the averaged PRD curve behind the scores of `prd`.

    Args:
      features: `[n, num_features]` of the samples to judge.
      reference: `[n, num_features]` of real data.
      num_clusters: k of k-means, at most 2 n.
      num_angles: points of the curve, at least 3.
      num_runs: clusterings averaged.
      seed: of the clusterings.

    Returns:
      `PRDCurve` of two float64 arrays `[num_angles]`.

    Raises:
      ValueError, TypeError: as `prd`.

    Example:
      >>> x = np.random.default_rng(0).standard_normal((50, 2))
      >>> curve = prd_curve(x, x, num_runs=1)
      >>> round(float(curve.precision[500]), 4), round(float(curve.recall[500]), 4)
      (1.0, 1.0)
    """
    labels, n = _cluster(features, reference, num_clusters, num_runs, seed)
    return _mean_curve(labels, n, num_clusters, num_angles)


def prd_scores(curve: PRDCurve) -> dict[str, float]:
    """Return the two scores of `prd` from a curve that is already there.

    Args:
      curve: as `prd_curve` returns it.

    Returns:
      `prd_f8` (recall) and `prd_f1_8` (precision) in [0, 1].

    Example:
      >>> scores = prd_scores(prd_from_histograms([1.0, 0.0], [0.5, 0.5]))
      >>> {name: round(value, 4) for name, value in scores.items()}
      {'prd_f8': 0.5039, 'prd_f1_8': 0.9848}
    """
    f8, f1_8 = _f_scores(curve)
    return {"prd_f8": f8, "prd_f1_8": f1_8}


def prd_from_histograms(p, q, *, num_angles: int = 1001) -> PRDCurve:
    """Compute the PRD curve of two discrete distributions.

    `precision(t) = sum_w min(t q(w), p(w))`, `recall(t) = precision(t) / t` at `t = tan(angle)`,
    angles evenly spaced over (0, pi/2) (Sajjadi et al. 2018, algorithm 1). Equal distributions give
    the corner (1, 1); at pi/4 both are one minus the total variation distance.

    Args:
      p: `[num_bins]` probabilities of the samples to judge, summing to 1.
      q: `[num_bins]` probabilities of the reference, summing to 1.
      num_angles: points of the curve, at least 3.

    Returns:
      `PRDCurve` of two float64 arrays `[num_angles]` in [0, 1].

    Raises:
      ValueError: shapes disagree, a value is negative or not finite, a sum is not 1, or there are
        fewer than three angles.
      TypeError: num_angles is no integer.

    Example:
      >>> curve = prd_from_histograms([0.25, 0.25, 0.5], [0.5, 0.3, 0.2])
      >>> round(float(curve.precision[500]), 6), round(float(curve.recall[500]), 6)
      (0.7, 0.7)
    """
    p, q = _check_histogram(p, "p"), _check_histogram(q, "q")
    if p.shape != q.shape:
        raise ValueError(f"p has {p.size} bins but q has {q.size}: they must share their bins")
    num_angles = check_count("num_angles", num_angles, minimum=3)
    slopes = np.tan(np.linspace(_EPSILON, np.pi / 2.0 - _EPSILON, num_angles))
    precision = np.minimum(slopes[:, None] * q, p).sum(axis=1)
    # Round-off can exceed 1 by an ulp.
    return PRDCurve(np.minimum(precision, 1.0), np.minimum(precision / slopes, 1.0))


def _check_histogram(p, name: str) -> np.ndarray:
    p = np.asarray(p, dtype=np.float64)
    if p.ndim != 1 or p.size == 0:
        raise ValueError(f"{name} must have shape [num_bins], got {p.shape}")
    if not np.isfinite(p).all() or p.min() < 0.0 or abs(p.sum() - 1.0) > 1e-6:
        raise ValueError(
            f"{name} must be non-negative and sum to 1, got the sum {p.sum():.6g} and the minimum "
            f"{p.min():.3g}: divide the counts by their sum"
        )
    return p


def _cluster(features, reference, num_clusters, num_runs, seed) -> tuple[np.ndarray, int]:
    """Return the cluster of every row, `[num_runs, 2 n]`, the samples' rows first."""
    # scikit-learn is slow to import.
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    features = check_codes(features, name="features")
    reference = check_codes(reference, name="reference")
    if features.shape != reference.shape:
        raise ValueError(
            f"features has shape {features.shape} but reference has {reference.shape}: pass as "
            "many rows of each, from one feature extractor"
        )
    n = features.shape[0]
    num_clusters = check_count("num_clusters", num_clusters, minimum=2, maximum=2 * n)
    num_runs = check_count("num_runs", num_runs, minimum=1)
    both = np.concatenate([features, reference])
    labels = np.empty((num_runs, 2 * n), dtype=np.int32)
    # The mini-batches are too small for threads: on two cores they cost ten times the time.
    with threadpool_limits(1):
        for run in range(num_runs):
            means = MiniBatchKMeans(num_clusters, random_state=seed + run).set_params(n_init=10)
            labels[run] = means.fit_predict(both)
    return labels, n


def _mean_curve(labels: np.ndarray, n: int, num_clusters: int, num_angles: int) -> PRDCurve:
    curves = []
    for row in labels:
        p = np.bincount(row[:n], minlength=num_clusters) / n
        q = np.bincount(row[n:], minlength=num_clusters) / n
        curves.append(prd_from_histograms(p, q, num_angles=num_angles))
    return PRDCurve(*np.mean(curves, axis=0))


def _f_scores(curve: PRDCurve) -> tuple[float, float]:
    """Return max F8 and max F1/8 along the curve."""
    scores = []
    for beta in (8.0, 1.0 / 8.0):
        both = (1.0 + beta**2) * curve.precision * curve.recall
        scores.append(float(np.max(both / (beta**2 * curve.precision + curve.recall + _EPSILON))))
    return scores[0], scores[1]
