"""Nearest-neighbour precision, recall, density and coverage."""

import numpy as np

from avae_jax.checks import check_count
from avae_jax.metrics.checks import check_features
from avae_jax.metrics.neighbors import square_distances


def precision_recall(features, reference, *, k: int = 3) -> dict[str, float]:
    """Measure which samples lie among the real data, and which real data among the samples.

    With `B_k(a)` the open ball around a with its k-th nearest neighbour in its own set on the rim:
    `precision` is the share of samples inside some ball of the reference, `recall` the share of the
    reference inside some ball of the samples (Kynkaanniemi et al. 2019, k = 3), `density` 1/k times
    the mean number of reference balls a sample lies in, `coverage` the share of reference balls
    that hold a sample (Naeem et al. 2020, k = 5).

    A point on the rim is outside (`<`), as in Naeem et al. and the `prdc` package; Kynkaanniemi et
    al. count it as inside. The two differ only by ties: the density of a set against itself is 1
    here, and a point with k or more duplicates has an empty ball.

    The values for a perfect sampler are not 1: read each beside its null, and beside real train
    against real test features for the floor.

    Args:
      features: `[n, num_features]` of the samples to judge, n > k.
      reference: `[m, num_features]` of real data, m > k.
      k: which neighbour sets the radius, >= 1.

    Returns:
      `precision`, `recall`, `density` and `coverage`, each with a `_null`, its expectation for
      samples from the reference's distribution: for precision the share of the reference that is
      among the k nearest neighbours of another point (leave-one-out); for recall the same number
      when n = m, else NaN; 1 for density; `1 - prod_{i=1..k} (m - i) / (m + n - i)` for coverage.
      Precision, its null, density and coverage are NaN for a constant reference, whose balls are
      empty. Constant samples have recall 0.

    Raises:
      ValueError: wrong shapes, no more than k rows, values that are not finite, or k < 1.
      TypeError: k is no integer.

    Numerics:
      float64, time O((n + m)^2 d), memory O((n + m) block).

    Example:
      >>> x = np.random.default_rng(0).standard_normal((50, 2))
      >>> result = precision_recall(x[:25], x)
      >>> result["precision"], result["recall"] < 1.0
      (1.0, True)

    References:
      Kynkaanniemi et al., Improved precision and recall metric for assessing generative models,
      NeurIPS 2019. Naeem et al., Reliable fidelity and diversity metrics, ICML 2020.
    """
    k = check_count("k", k, minimum=1)
    features, reference = check_features(features, reference, min_rows=k + 1)
    n, m = features.shape[0], reference.shape[0]
    constant = bool((reference == reference[0]).all())
    # Distances from products lose the digits of a common offset. A row of the data takes it off
    # without rounding what lies on a grid, so that ties stay ties.
    center = reference[np.argmin(np.sum(np.square(reference - reference.mean(axis=0)), axis=1))]
    features, reference = features - center, reference - center

    reference_radii, is_neighbor = _radii(reference, k)
    feature_radii, _ = _radii(features, k)
    balls_around = np.zeros(n, dtype=np.int64)
    recalled = covered = 0
    for rows, squares in square_distances(reference, features):
        inside = squares < reference_radii[rows, None]
        balls_around += inside.sum(axis=0)
        covered += int(inside.any(axis=1).sum())
        recalled += int((squares < feature_radii).any(axis=1).sum())

    steps = np.arange(1, k + 1)
    loo = float(is_neighbor.mean())
    nan = float("nan")
    return {
        "precision": nan if constant else float((balls_around > 0).mean()),
        "precision_null": nan if constant else loo,
        "recall": recalled / m,
        "recall_null": loo if n == m and not constant else nan,
        "density": nan if constant else float(balls_around.mean() / k),
        "density_null": 1.0,
        "coverage": nan if constant else covered / m,
        "coverage_null": float(1.0 - np.prod((m - steps) / (m + n - steps))),
    }


def _radii(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's squared distance to its k-th neighbour, and who is a neighbour at all."""
    radii = np.empty(x.shape[0])
    is_neighbor = np.zeros(x.shape[0], dtype=bool)
    for rows, squares in square_distances(x, x):
        own = np.arange(rows.start, rows.stop)
        squares[own - rows.start, own] = np.inf
        radii[rows] = np.partition(squares, k - 1, axis=1)[:, k - 1]
        is_neighbor |= (squares <= radii[rows, None]).any(axis=0)
    return radii, is_neighbor
