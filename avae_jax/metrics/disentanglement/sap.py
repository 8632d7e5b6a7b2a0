"""Separated attribute predictability of codes."""

import numpy as np

from avae_jax.checks import check_positive
from avae_jax.metrics.disentanglement.discretise import check_split, noise_null


def sap(
    codes_train,
    factors_train,
    codes_test,
    factors_test,
    *,
    continuous: bool = False,
    regularization: float = 0.01,
    num_null: int = 0,
    seed: int = 0,
) -> dict[str, float]:
    """Compute the SAP score, the gap of the two single codes that predict a factor best.

    For each code j and factor k a linear support vector machine (squared hinge, one against the
    rest, classes weighted inversely to their frequency) is fitted to the training codes; with a_jk
    its test accuracy, `sap = mean_k (a_1k - a_2k)` of the two largest (Kumar et al. 2018, for
    discrete factors as in Locatello et al. 2019). The codes are not standardised.

    A line separates ordered values one against the rest badly: the factors of dSprites themselves,
    as codes, score about .23, and no factor can exceed 1 - 1 / its number of values by much. With
    `continuous`, a_jk is the squared correlation of code j and factor k over the training codes,
    and the factors themselves score about 1.

    Args:
      codes_train: `[n, latent_dim]`.
      factors_train: `[n, num_factors]` integers >= 0.
      codes_test: `[m, latent_dim]`, of other images.
      factors_test: `[m, num_factors]` integers >= 0.
      continuous: whether to treat factor values as numbers; the test codes are then not used.
      regularization: the machine's C, weight of the loss over that of the penalty, > 0.
      num_null: noise codes behind the null; each costs as much as the score, 0 leaves it out.
      seed: of the noise codes.

    Returns:
      `sap` in [0, 1]; `sap_accuracy`, the mean over factors of the largest a_jk; `sap_null` and
      `sap_null_std` over `num_null` Gaussian noise codes. `sap` and its null are NaN for
      latent_dim 1. A constant code has a squared correlation of 0.

    Raises:
      TypeError: factors that are not integers.
      ValueError: wrong or disagreeing shapes, codes that are not finite, a factor with one value
        only, `regularization` not positive, or `num_null` negative.

    Numerics:
      float64. Without `continuous`, latent_dim machines per factor, each with one line per value:
      about 15 s of one core at 10,000 x 128 with the five factors of dSprites, 1 s at 10,000 x 10.

    Example:
      >>> factors = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
      >>> round(sap(factors, factors, factors, factors, continuous=True)["sap"], 6)
      1.0

    References:
      Kumar et al., Variational inference of disentangled latent concepts from unlabeled
      observations, ICLR 2018.
    """
    train, factors_train, test, factors_test = check_split(
        codes_train, factors_train, codes_test, factors_test
    )
    regularization = check_positive("regularization", regularization)

    def estimate(train, test):
        if continuous:
            return _gap(_squared_correlation(train, factors_train))
        return _gap(_accuracy(train, factors_train, test, factors_test, regularization))

    def null(rng):
        noise = estimate(rng.standard_normal(train.shape), rng.standard_normal(test.shape))
        return {"sap": noise["sap"]}

    return {**estimate(train, test), **noise_null(null, num_null=num_null, seed=seed)}


def _squared_correlation(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    codes = codes - codes.mean(axis=0)
    values = factors - factors.mean(axis=0)
    norms = np.outer(np.square(codes).sum(axis=0), np.square(values).sum(axis=0))
    return np.square(codes.T @ values) / np.where(norms > 0.0, norms, 1.0)


def _accuracy(train, factors_train, test, factors_test, regularization) -> np.ndarray:
    # Takes a second to import.
    from sklearn.svm import LinearSVC

    accuracy = np.empty((train.shape[1], factors_train.shape[1]))
    for j, k in np.ndindex(accuracy.shape):
        # "auto" takes the primal problem here, which converges in a few steps.
        machine = LinearSVC(C=regularization, class_weight="balanced", dual="auto")
        machine.fit(train[:, j : j + 1], factors_train[:, k])
        accuracy[j, k] = np.mean(machine.predict(test[:, j : j + 1]) == factors_test[:, k])
    return accuracy


def _gap(predictability: np.ndarray) -> dict[str, float]:
    ranked = np.sort(predictability, axis=0)
    gap = np.mean(ranked[-1] - ranked[-2]) if ranked.shape[0] > 1 else np.nan
    return {"sap": float(gap), "sap_accuracy": float(ranked[-1].mean())}
