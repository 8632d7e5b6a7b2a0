"""Disentanglement, completeness and informativeness of codes."""

from collections.abc import Callable

import numpy as np

from avae_jax.metrics.disentanglement.discretise import check_split, noise_null


def dci_from_importance(importance) -> dict[str, float]:
    """Compute disentanglement and completeness from an importance matrix.

    With R_jk >= 0 the importance of code j for factor k,
    `D = sum_j rho_j (1 - H_K(R_j. / sum_k R_jk))`, rho_j the share of code j in the sum of R and
    H_K the entropy to base K, the number of factors; C is the same for the transpose, to base
    latent_dim (Eastwood and Williams 2018; C weighted as in Locatello et al. 2019).

    Args:
      importance: `[latent_dim, num_factors]`, >= 0.

    Returns:
      `dci_disentanglement` and `dci_completeness` in [0, 1]: 1 for a permutation matrix, 0 for
      equal entries and, by convention, if all are zero. Disentanglement is NaN for one factor,
      completeness for one code.

    Raises:
      ValueError: wrong shape, or values that are negative or not finite.

    Example:
      >>> dci_from_importance([[1.0, 0.0], [0.0, 3.0]])
      {'dci_disentanglement': 1.0, 'dci_completeness': 1.0}

    References:
      Eastwood and Williams, A framework for the quantitative evaluation of disentangled
      representations, ICLR 2018.
    """
    importance = np.asarray(importance, dtype=np.float64)
    if importance.ndim != 2 or importance.size == 0:
        raise ValueError(
            f"importance must have shape [latent_dim, num_factors], got {importance.shape}"
        )
    if not (np.isfinite(importance).all() and (importance >= 0.0).all()):
        raise ValueError("importance must be finite and not negative: take absolute values")
    return {
        "dci_disentanglement": _concentration(importance),
        "dci_completeness": _concentration(importance.T),
    }


def dci(
    codes_train,
    factors_train,
    codes_test,
    factors_test,
    *,
    make_classifier: Callable | None = None,
    num_null: int = 0,
    seed: int = 0,
) -> dict[str, float]:
    """Compute the DCI scores with one classifier per factor.

    The importance of code j for factor k is the `feature_importances_` of a classifier fitted to
    predict factor k from the training codes; see `dci_from_importance`. Informativeness is the
    mean accuracy over factors, as in Locatello et al. (2019).

    Args:
      codes_train: `[n, latent_dim]`; the literature takes n = 10,000.
      factors_train: `[n, num_factors]` integers >= 0.
      codes_test: `[m, latent_dim]`, of other images; the literature takes m = 5,000.
      factors_test: `[m, num_factors]` integers >= 0.
      make_classifier: from a seed to a scikit-learn classifier with `feature_importances_`; None
        means `GradientBoostingClassifier`, the one of the literature, at its defaults. Scores are
        comparable for equal classifiers only.
      num_null: noise codes behind the nulls; each costs as much as the scores.
      seed: of the classifiers and the noise codes.

    Returns:
      `dci_disentanglement` and `dci_completeness` of `dci_from_importance`;
      `dci_informativeness`, the test accuracy, `dci_informativeness_train`, and
      `dci_informativeness_chance`, the test accuracy of the most frequent training value. For
      `num_null >= 1` the first three have a `_null`, for `num_null >= 2` a `_null_std`, over
      Gaussian noise codes.

    Raises:
      TypeError: factors that are not integers.
      ValueError: wrong or disagreeing shapes, codes that are not finite, a factor with one value
        only among the training codes, or `num_null` negative.

    Numerics:
      Gradient boosting grows 100 trees for each value of each factor: about 3 s of one core per
      value at 10,000 x 10, growing with n latent_dim, hence minutes for the 113 values of dSprites.
      A forest, `lambda seed: RandomForestClassifier(max_depth=8, random_state=seed)`, takes half a
      minute for all of them at 10,000 x 128.

    Example:
      >>> from sklearn.tree import DecisionTreeClassifier
      >>> factors = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
      >>> make = lambda seed: DecisionTreeClassifier(random_state=seed)
      >>> dci(factors, factors, factors, factors, make_classifier=make)["dci_disentanglement"]
      1.0
    """
    train, factors_train, test, factors_test = check_split(
        codes_train, factors_train, codes_test, factors_test
    )
    make_classifier = _gradient_boosting if make_classifier is None else make_classifier

    def estimate(train, test):
        importance, accuracy_train, accuracy = _fit(
            train, factors_train, test, factors_test, make_classifier, seed
        )
        return {
            **dci_from_importance(importance),
            "dci_informativeness": accuracy,
            "dci_informativeness_train": accuracy_train,
        }

    def null(rng):
        noise = estimate(rng.standard_normal(train.shape), rng.standard_normal(test.shape))
        del noise["dci_informativeness_train"]
        return noise

    modes = [np.bincount(factor).argmax() for factor in factors_train.T]
    return {
        **estimate(train, test),
        "dci_informativeness_chance": float(np.mean(factors_test == np.asarray(modes))),
        **noise_null(null, num_null=num_null, seed=seed),
    }


def _gradient_boosting(seed: int):
    # Takes a second to import.
    from sklearn.ensemble import GradientBoostingClassifier

    return GradientBoostingClassifier(random_state=seed)


def _fit(train, factors_train, test, factors_test, make_classifier, seed):
    importance = np.empty((train.shape[1], factors_train.shape[1]))
    accuracies = []
    for k in range(factors_train.shape[1]):
        classifier = make_classifier(seed)
        classifier.fit(train, factors_train[:, k])
        importance[:, k] = np.abs(classifier.feature_importances_)
        accuracies.append(
            [
                np.mean(classifier.predict(train) == factors_train[:, k]),
                np.mean(classifier.predict(test) == factors_test[:, k]),
            ]
        )
    accuracy_train, accuracy = np.mean(accuracies, axis=0)
    return importance, float(accuracy_train), float(accuracy)


def _concentration(rows: np.ndarray) -> float:
    """Return the mean of 1 - entropy of each row, weighted by the row's sum."""
    if rows.shape[1] < 2:
        return float("nan")
    sums = rows.sum(axis=1, keepdims=True)
    total = sums.sum()
    if total == 0.0:
        return 0.0
    p = rows / np.where(sums > 0.0, sums, 1.0)
    entropy = -np.sum(p * np.log(np.where(p > 0.0, p, 1.0)), axis=1) / np.log(rows.shape[1])
    return float(np.sum(sums[:, 0] / total * (1.0 - entropy)))
