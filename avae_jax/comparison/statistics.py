"""Statistics over few seeds: spread, paired differences, exact p-values, Holm's correction."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
"""Of the intervals."""

MOST_EXACT = 20
"""Seeds up to which all sign flips are counted, a million."""


class Spread(NamedTuple):
    """Values of several seeds.

    Attributes:
      n: how many.
      mean: NaN of none.
      std: standard deviation over n - 1; NaN of fewer than two.
    """

    n: int
    mean: float
    std: float


class Difference(NamedTuple):
    """A method minus the reference, over the seeds that both have.

    Attributes:
      n: seeds.
      mean: NaN of none.
      low: lower end of the t interval; NaN of fewer than two seeds.
      high: its upper end.
      p: two-sided, of the sign-flip test; NaN of fewer than two seeds.
      least_p: the smallest that so many seeds can give.
    """

    n: int
    mean: float
    low: float
    high: float
    p: float
    least_p: float


def spread(values: Sequence[float]) -> Spread:
    """Return mean and standard deviation over seeds.

    Args:
      values: a number per seed; those that are not finite make the results so.

    Example:
      >>> spread([1.0, 3.0])
      Spread(n=2, mean=2.0, std=1.4142135623730951)
    """
    x = np.asarray(values, np.float64)
    mean = float(x.mean()) if len(x) else math.nan
    return Spread(len(x), mean, float(x.std(ddof=1)) if len(x) > 1 else math.nan)


def paired_difference(values: Mapping[Any, float], reference: Mapping[Any, float]) -> Difference:
    """Compare a method with the reference on the seeds that both have.

    A seed fixes split, batches and initial weights, so that what it adds to both cancels. The
    interval is Student's, `mean ± t_{n-1} s / sqrt(n)`; it takes differences to be normal, which
    few seeds cannot show. The sign-flip test (Fisher, The Design of Experiments, 1935, section 21)
    takes them to be symmetric about 0 alone.

    Args:
      values: seed -> number, of the method.
      reference: seed -> number, of the reference.

    Example:
      >>> paired_difference({0: 1.0, 1: 2.0, 2: 4.0}, {0: 0.5, 1: 1.5, 2: 2.5}).least_p
      0.25
    """
    d = np.array([values[seed] - reference[seed] for seed in values if seed in reference])
    d = d[np.isfinite(d)]
    n = len(d)
    mean = float(d.mean()) if n else math.nan
    if n < 2:
        return Difference(n, mean, math.nan, math.nan, math.nan, math.nan)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * d.std(ddof=1) / math.sqrt(n))
    return Difference(n, mean, mean - half, mean + half, sign_flip_p(d), 2.0 / 2**n)


def sign_flip_p(differences: np.ndarray) -> float:
    """Return the two-sided p of the mean under all `2^n` flips of the signs.

    Args:
      differences: `[n]`, n >= 1.

    Returns:
      The share of flips whose mean is as far from 0: 2 / 2^n at least. NaN of more seeds than
      `MOST_EXACT`.

    Numerics:
      Time and memory 2^n.

    Example:
      >>> sign_flip_p(np.array([1.0, 2.0, 3.0]))
      0.25
    """
    if len(differences) > MOST_EXACT:
        return math.nan
    sums = np.zeros(1)
    for one in np.asarray(differences, np.float64):
        sums = np.concatenate([sums + one, sums - one])
    seen = abs(float(np.sum(differences)))
    # Flips that give the same sum in another order of additions count.
    slack = 1e-12 * float(np.sum(np.abs(differences)))
    return float(np.mean(np.abs(sums) >= seen - slack))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values of one family (Holm, Scand. J. Statist. 6, 1979).

    Args:
      p_values: those that are NaN are of no test, and count for none.

    Returns:
      Corrected p-values in the order given, 1 at most.

    Example:
      >>> holm([0.01, 0.04, 0.03])
      [0.03, 0.06, 0.06]
    """
    tested = [k for k, p in enumerate(p_values) if not math.isnan(p)]
    corrected, highest = [math.nan] * len(p_values), 0.0
    for place, k in enumerate(sorted(tested, key=lambda k: p_values[k])):
        highest = max(highest, min(1.0, (len(tested) - place) * p_values[k]))
        corrected[k] = highest
    return corrected


def least_holm(differences: Sequence[Mapping[str, Any]]) -> tuple[int, float]:
    """Return how many tests a family holds, and the smallest that Holm's p can be in it.

    Args:
      differences: "p" and "least_p" of each, as `paired_difference` has them.

    Returns:
      (m, min(1, m least_p)): 2 / 2^n times m tests of n seeds each. (0, NaN) of none.

    Example:
      >>> least_holm([{"p": 0.5, "least_p": 0.0625}] * 8)
      (8, 0.5)
    """
    least = [one["least_p"] for one in differences if not math.isnan(one["p"])]
    return len(least), min(1.0, len(least) * min(least)) if least else math.nan
