"""Memorisation: are samples closer to the training images than unseen real images are?"""

import math

import numpy as np

from avae_jax.checks import check_count
from avae_jax.metrics.checks import check_flat
from avae_jax.metrics.neighbors import nearest_neighbors


def memorisation(samples, train, test) -> dict[str, float]:
    """Compare samples' distances to their nearest training image with those of test images.

    Euclidean distance, on pixels or on features. A sampler that copies has small distances; unseen
    real images set the scale, and are the floor: with real test images as `samples` every value is
    its null. Split the test set in two to see it.

    Args:
      samples: `[n, ...]` generated images or features.
      train: `[num_train, ...]`, what the model was trained on.
      test: `[m, ...]` real data the model has not seen.

    Returns:
      `close_share_1` and `close_share_5`, the share of samples closer to the training set than the
      1% and the 5% quantile of the test distances, nulls 0.01 and 0.05; `distance_ratio`, the
      samples' mean distance over the test's, null 1, with `distance_ratio_stderr`; `copying_auc`,
      the probability that a sample is farther than a test image (ties count one half), null 0.5;
      `copying_z`, the same as a z score, null 0: below -3 says copying, above 3 that samples are
      farther from the training set than real images are (Meehan et al. 2020's C_T with one cell);
      `auth_pct`, the percentage of samples that are authentic: farther from their nearest training
      image than that one is from its nearest other (Alaa et al. 2022), null that of the test
      images. `_null_std` is given for all but the ratio. A share is NaN when m is too small for the
      quantile (100 and 20) or when the quantile is 0; ratio, AUC and z are NaN when every
      distance is 0, the ratio also when the test's are; its error when n or m is 1.

    Raises:
      ValueError: shapes disagree, a set is empty, or values are not finite.

    Numerics:
      float64, brute force: time O((n + m) num_train num_features), memory O(inputs). Pixels of
      large images are faster, and often better judged, through `fit_pca`.

    Example:
      >>> x = np.random.default_rng(0).standard_normal((300, 4))
      >>> memorisation(x[:50], train=x[:200], test=x[200:])["copying_auc"]
      0.0

    References:
      Meehan, Chaudhuri and Dasgupta, A non-parametric test to detect data-copying in generative
      models, AISTATS 2020, section 3. Alaa et al., How faithful is your synthetic data?, ICML 2022,
      arXiv 2102.08921; as the AuthPct of Stein et al., NeurIPS 2023, arXiv 2306.04675.
    """
    sample_distances, nearest = (x[:, 0] for x in nearest_training_neighbor(samples, train))
    test_distances, nearest_to_test = (
        x[:, 0] for x in nearest_training_neighbor(test, train, name="test")
    )
    n, m = sample_distances.size, test_distances.size
    nan = float("nan")
    result: dict[str, float] = {}
    for percent, fewest in ((1, 100), (5, 20)):
        level = percent / 100.0
        # The definition whose expected share is the level itself at any m.
        quantile = np.quantile(test_distances, level, method="weibull")
        defined = m >= fewest and quantile > 0.0
        name = f"close_share_{percent}"
        result[name] = float((sample_distances < quantile).mean()) if defined else nan
        result[f"{name}_null"] = level
        result[f"{name}_null_std"] = math.sqrt(level * (1.0 - level) * (1.0 / n + 1.0 / m))

    mean, test_mean = float(sample_distances.mean()), float(test_distances.mean())
    result |= {"distance_ratio": nan, "distance_ratio_null": 1.0, "distance_ratio_stderr": nan}
    if test_mean > 0.0:
        ratio = result["distance_ratio"] = mean / test_mean
        if min(n, m) > 1:
            variance = sample_distances.var(ddof=1) / n
            variance += ratio**2 * test_distances.var(ddof=1) / m
            result["distance_ratio_stderr"] = math.sqrt(variance) / test_mean

    ordered = np.sort(test_distances)
    below = np.searchsorted(ordered, sample_distances, side="left")
    not_above = np.searchsorted(ordered, sample_distances, side="right")
    auc_std = math.sqrt((n + m + 1) / (12.0 * n * m))
    auc = float((below + not_above).mean() / (2 * m)) if max(mean, test_mean) > 0.0 else nan
    result |= {"copying_auc": auc, "copying_auc_null": 0.5, "copying_auc_null_std": auc_std}
    z = (auc - 0.5) / auc_std
    result |= _authentic(
        (sample_distances, test_distances),
        (nearest, nearest_to_test),
        check_flat(train, name="train"),
    )
    return result | {"copying_z": z, "copying_z_null": 0.0, "copying_z_null_std": 1.0}


def _authentic(distances, nearest, train: np.ndarray) -> dict[str, float]:
    """Return the percentage of samples and of test images farther out than their neighbor lies."""
    names = ("auth_pct", "auth_pct_null", "auth_pct_null_std")
    if len(train) < 2:
        return dict.fromkeys(names, math.nan)
    # Only those that are nearest to something.
    used, places = np.unique(np.concatenate(nearest), return_inverse=True)
    # A row is its own nearest; where it has a copy, that is at distance 0 too.
    apart = nearest_neighbors(train[used], train, k=2)[0][:, 1][places]
    authentic = np.concatenate(distances) > apart
    n, m = (len(x) for x in distances)
    share, null = float(authentic[:n].mean()), float(authentic[n:].mean())
    std = math.sqrt(null * (1.0 - null) * (1.0 / n + 1.0 / m))
    return dict(zip(names, (100.0 * share, 100.0 * null, 100.0 * std), strict=True))


def nearest_training_neighbor(
    samples, train, *, num_neighbors: int = 1, name: str = "samples"
) -> tuple[np.ndarray, np.ndarray]:
    """Find each sample's nearest training images, for a gallery or a distance.

    Args:
      samples: `[n, ...]` images or features.
      train: `[num_train, ...]` of the same trailing shape.
      num_neighbors: how many to return, nearest first, at most num_train.
      name: what to call `samples` in an error.

    Returns:
      `(distances, indices)`, float64 and int64 `[n, num_neighbors]`: Euclidean distances in the
      units of the inputs and rows of `train`.

    Raises:
      ValueError: shapes disagree, a set is empty, values are not finite, or num_neighbors is
        outside [1, num_train].
      TypeError: num_neighbors is no integer.

    Numerics:
      float64; the distances come from differences, so an exact copy has distance 0. Memory
      O(inputs + num_train block).

    Example:
      >>> nearest_training_neighbor([[1.0, 2.0]], [[1.0, 0.0], [1.0, 5.0]])
      (array([[2.]]), array([[0]]))
    """
    samples, train = np.asarray(samples), np.asarray(train)
    if samples.shape[1:] != train.shape[1:]:
        raise ValueError(
            f"{name} has shape {samples.shape} but train has {train.shape}: "
            "all but the first axis must agree"
        )
    samples, train = check_flat(samples, name=name), check_flat(train, name="train")
    k = check_count("num_neighbors", num_neighbors, minimum=1, maximum=train.shape[0])
    return nearest_neighbors(samples, train, k=k)
