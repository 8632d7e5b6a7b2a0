"""Classifier two-sample test between the codes and the prior or a reference sample."""

import math
import warnings

import numpy as np

from avae_jax.checks import check_count, check_positive
from avae_jax.metrics.checks import check_codes, check_reference, prior_generator


def c2st(
    z,
    *,
    reference=None,
    scale: float = 1.0,
    num_folds: int = 3,
    hidden: int = 64,
    max_epochs: int = 20,
    seed: int = 0,
) -> dict[str, float]:
    """Train a classifier to tell codes from the prior and report its held-out AUC.

    The AUC is the chance that a code scores above a reference row it never trained with:
    .5 where the laws agree, 1 where they are told apart. Every row is held out once, in
    `num_folds` stratified folds; the folds' AUC are averaged. The classifier is scikit-learn's
    `MLPClassifier` (one hidden layer of `hidden` units, Adam, L2 penalty 1) on the standardised
    coordinates, the standardised logarithm of one plus their squared norm, and its square: these
    two spare it from learning the radius. A learnt test sees what its classifier learns: an AUC of
    .5 is no proof of equality (Lopez-Paz and Oquab 2017). One well below .5 says that the rows are
    not independent: the codes were whitened by their own covariance, or share rows with the
    reference.

    Args:
      z: `[n, latent_dim]` codes, or any rows of features.
      reference: `[m, latent_dim]` sample to compare with; None draws n rows from
        N(0, scale^2 I).
      scale: standard deviation of the prior; not used with a reference.
      num_folds: number of folds, >= 2.
      hidden: units of the hidden layer, >= 1.
      max_epochs: passes over the training folds, >= 1.
      seed: of the prior draws, of the folds and of the training.

    Returns:
      `c2st_auc` in [0, 1]; `c2st_auc_null`, .5; `c2st_auc_null_std`, at most the standard
      deviation of the AUC where the laws agree, `sqrt(2 (n' + m' + 1) / (12 n' m' num_folds))` for
      folds of n' and m' rows; `c2st_auc_stderr`, that of the estimate by DeLong (1988), the
      classifiers held fixed (up to sqrt(2) too small where the laws agree). All NaN where z or the
      reference has fewer than two rows for each fold.

      The null's 2 is not that of independent folds: each row is tested once and trains the other
      folds, so that for a score linear in the labels every pair of folds counts twice. That is the
      bound; this classifier's spread is .77 to .86 of it.

    Raises:
      ValueError: wrong shapes, values that are not finite, scale not positive, or an option out
        of range.
      TypeError: a count that is no integer.

    Example:
      >>> z = np.random.default_rng(1).standard_normal((300, 2))
      >>> round(c2st(z + 2.0)["c2st_auc"], 1)
      0.9

    References:
      Lopez-Paz and Oquab, Revisiting classifier two-sample tests, ICLR 2017, arXiv 1610.06545.
      DeLong, DeLong and Clarke-Pearson, Comparing the areas under two or more correlated receiver
      operating characteristic curves, Biometrics 44 (1988).
    """
    z = check_codes(z)
    reference = check_reference(z, reference)
    scale = check_positive("scale", scale)
    num_folds = check_count("num_folds", num_folds, minimum=2)
    hidden = check_count("hidden", hidden, minimum=1)
    max_epochs = check_count("max_epochs", max_epochs, minimum=1)
    if reference is None:
        reference = scale * prior_generator(seed).standard_normal(z.shape)
    n, m = len(z), len(reference)
    if min(n, m) < 2 * num_folds:
        names = ("c2st_auc", "c2st_auc_null", "c2st_auc_null_std", "c2st_auc_stderr")
        return dict.fromkeys(names, math.nan)

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import StratifiedKFold
    from sklearn.neural_network import MLPClassifier

    features = _features(np.concatenate([z, reference]))
    is_code = np.arange(n + m) < n
    aucs, variances, null_variances = [], [], []
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    for train, test in folds.split(features, is_code):
        classifier = MLPClassifier((hidden,), alpha=1.0, max_iter=max_epochs, random_state=seed)
        with warnings.catch_warnings():
            # The number of passes is set, convergence is not asked for.
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier.fit(features[train], is_code[train])
        score = np.asarray(classifier.predict_proba(features[test]))[:, 1]
        auc, variance = _auc(score[is_code[test]], score[~is_code[test]])
        aucs.append(auc)
        variances.append(variance)
        n_test, m_test = int(is_code[test].sum()), int((~is_code[test]).sum())
        null_variances.append((n_test + m_test + 1) / (12.0 * n_test * m_test))
    return {
        "c2st_auc": float(np.mean(aucs)),
        "c2st_auc_null": 0.5,
        "c2st_auc_null_std": math.sqrt(2.0 * sum(null_variances)) / num_folds,
        "c2st_auc_stderr": math.sqrt(sum(variances)) / num_folds,
    }


def _features(rows: np.ndarray) -> np.ndarray:
    """Standardise coordinates and log squared norm over all rows, blind to their labels."""
    rows = _standardize(rows)
    radius = _standardize(np.log1p(np.sum(rows**2, axis=1, keepdims=True)))
    return np.concatenate([rows, radius, radius**2], axis=1)


def _standardize(rows: np.ndarray) -> np.ndarray:
    rows = rows - rows.mean(axis=0)
    spread = rows.std(axis=0)
    # A constant coordinate says nothing: it stays at zero.
    return rows / np.where(spread > 0.0, spread, 1.0)


def _auc(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float]:
    """Return the AUC, ties counted half, and its DeLong variance."""
    below = np.sort(negative)
    at_positive = np.searchsorted(below, positive) + np.searchsorted(below, positive, "right")
    at_positive = at_positive / (2.0 * len(negative))
    above = np.sort(positive)
    at_negative = np.searchsorted(above, negative) + np.searchsorted(above, negative, "right")
    at_negative = 1.0 - at_negative / (2.0 * len(positive))
    variance = at_positive.var(ddof=1) / len(positive) + at_negative.var(ddof=1) / len(negative)
    return float(at_positive.mean()), float(variance)
