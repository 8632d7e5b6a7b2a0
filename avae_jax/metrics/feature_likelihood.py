"""Feature likelihood divergence: what unseen images are worth under a density of the samples."""

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from avae_jax.checks import check_count
from avae_jax.metrics.checks import check_features, check_matching
from avae_jax.metrics.neighbors import square_distances
from avae_jax.metrics.nulls import NUM_NULL

# The authors' fit: full-batch Adam on the logarithms of the variances.
_NUM_STEPS, _LEARNING_RATE = 50, 0.5
# Bounds on a log variance; a copy of a training image reaches the lower one.
_LOWEST, _HIGHEST = -40.0, 20.0
# Rows of the distance matrix in one step of the sums.
_BLOCK = 256


def feature_likelihood(
    features,
    train,
    test,
    *,
    num_null: int = NUM_NULL,
    stand_ins: "StandIns | None" = None,
    seed: int = 0,
) -> dict[str, float]:
    """Measure how well samples stand for unseen data, and how much better for seen data.

    A mixture of isotropic Gaussians, one around each sample, has its n variances fitted to the
    training data by maximum likelihood; then

        fld = 100/d (nll(test) - nll_0(test))        fld_gap = 100/d (nll(train) - nll(test))

    (Jiralerspong et al. 2023), nll the mean negative log density, d the number of features, all
    standardized by the test set's mean and deviation. `nll_0` is that of a perfect sampler's
    stand-in: a random part of the training data as centers, the rest to fit. A copy of a training
    image gets a variance of zero, and is worth nothing to the test images: copying raises fld
    without bound and sends the gap far below 0. The fit is the authors' (variances from the nearest
    training image, 50 steps of Adam at rate 0.5, a broad component at the training data's mean
    while it lasts), but on all training images at once; theirs goes through more than 10,000 in
    batches. Features that are constant over the test set are left out.

    Args:
      features: `[n, num_features]` of the samples to judge, n >= 2.
      train: `[num_train, num_features]`, what the model was trained on, num_train >= 4.
      test: `[m, num_features]` of real data the model has not seen, m >= 2.
      num_null: random parts of the training data behind `nll_0` and `fld_null_std`, >= 1.
      stand_ins: what `fit_stand_ins` gave for as many samples and the same data, to judge several
        sets of samples by; None fits them.
      seed: of the parts.

    Returns:
      `fld`, in hundredths of a nat per feature, 0 for a perfect sampler, low is good; `fld_null`,
      0, and `fld_null_std`, the standard deviation of the stand-ins about their mean (NaN for one);
      `fld_stderr`, its standard error over the test images; `fld_gap`, the generalization gap, and
      `fld_gap_null`, the same of the stand-ins, on the images they were fitted to. NaN where no
      feature varies.

    Raises:
      ValueError: wrong shapes, too few rows, values that are not finite, num_null < 1.
      TypeError: num_null is no integer.

    Numerics:
      Squared distances in float64, the fit in float32 on all of them: time
      O((1 + num_null) n num_train (d + 50)), memory O(n (num_train + m)).

    Example:
      >>> x = np.random.default_rng(0).standard_normal((300, 3))
      >>> good = feature_likelihood(x[:100], x[100:200], x[200:], num_null=1)["fld"]
      >>> copied = feature_likelihood(x[100:200], x[100:200], x[200:], num_null=1)["fld"]
      >>> abs(good) < 50.0, copied > 500.0
      (True, True)

    References:
      Jiralerspong et al., Feature likelihood divergence: evaluating the generalization of
      generative models using samples, NeurIPS 2023, arXiv 2302.04440.
    """
    features, test = check_features(features, test)
    train = check_matching(features, train, name="train", z_name="features", min_codes=4)
    names = ("fld", "fld_null", "fld_null_std", "fld_stderr", "fld_gap", "fld_gap_null")
    if (test == test[0]).all():
        return dict.fromkeys(names, math.nan)
    if stand_ins is None:
        stand_ins = fit_stand_ins(
            train, test, num_centers=len(features), num_null=num_null, seed=seed
        )
    features, train, test = _standardize((features, train, test), test)
    unit = 100.0 / features.shape[1]
    on_train, on_test = _fit(features, train, test)
    paired = on_test - stand_ins.test.mean(axis=0)
    means = stand_ins.test.mean(axis=1)
    found = (
        unit * paired.mean(),
        0.0,
        unit * means.std(ddof=1) if len(means) > 1 else math.nan,
        unit * paired.std(ddof=1) / math.sqrt(len(test)),
        unit * (on_train.mean() - on_test.mean()),
        unit * (stand_ins.train - means).mean(),
    )
    return dict(zip(names, map(float, found), strict=True))


class StandIns(NamedTuple):
    """What perfect samplers would reach, as negative log densities in nats.

    Attributes:
      train: `[num_null]`, mean over the training data that the variances were fitted to.
      test: `[num_null, m]`, of each test image.
    """

    train: np.ndarray
    test: np.ndarray


def fit_stand_ins(
    train, test, *, num_centers: int, num_null: int = NUM_NULL, seed: int = 0
) -> StandIns:
    """Fit the mixtures that samples are compared with: training data around training data.

    Args:
      train: as `feature_likelihood`.
      test: as `feature_likelihood`.
      num_centers: number of samples that will be judged; at most half of the training data is used.
      num_null: random parts of the training data, >= 1.
      seed: of the parts.

    Raises:
      ValueError: as `feature_likelihood`.
      TypeError: a count that is no integer.
    """
    train, test = check_features(train, test)
    num_centers = check_count("num_centers", num_centers, minimum=1)
    num_null = check_count("num_null", num_null, minimum=1)
    train, test = _standardize((train, test), test)
    rng = np.random.default_rng(seed)
    size = min(num_centers, len(train) // 2)
    on_train, on_test = [], []
    for _ in range(num_null):
        order = rng.permutation(len(train))
        seen, unseen = _fit(train[order[:size]], train[order[size:]], test)
        on_train.append(seen.mean())
        on_test.append(unseen)
    return StandIns(np.array(on_train), np.array(on_test))


def _standardize(sets, test: np.ndarray) -> list[np.ndarray]:
    """Scale by mean and deviation of the test set; features that do not vary over it go."""
    loc, spread = test.mean(axis=0), test.std(axis=0, ddof=1)
    varies = np.ptp(test, axis=0) > 0.0
    return [(x[:, varies] - loc[varies]) / spread[varies] for x in sets]


def _fit(centers: np.ndarray, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit the variances around the centers to the training data, and judge both sets.

    Returns:
      Negative log densities in nats, `[num_train]` and `[m]`.
    """
    d = centers.shape[1]
    squares = _distances(train, centers)
    to_mean = (0.81 * np.sum(np.square(train - train.mean(axis=0)), axis=1)).astype(np.float32)
    log_variances = np.log((squares.min(axis=0) + 1e-3) / d)
    log_variances = _maximize(log_variances, squares, to_mean, d)
    return _nll(squares, log_variances, d), _nll(_distances(test, centers), log_variances, d)


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    squares = np.empty((len(x), len(y)), np.float32)
    for rows, block in square_distances(x, y):
        squares[rows] = block
    return squares


def _nll(squares: np.ndarray, log_variances: np.ndarray, d: int) -> np.ndarray:
    """Return the negative log density of each row under the mixture, float64 sums."""
    log_variances = log_variances.astype(np.float64)
    offset = 0.5 * d * (log_variances + math.log(2.0 * math.pi)) + math.log(len(log_variances))
    nll = np.empty(len(squares))
    for start in range(0, len(squares), _BLOCK):
        rows = slice(start, start + _BLOCK)
        logits = -0.5 * squares[rows] * np.exp(-log_variances) - offset
        top = logits.max(axis=1)
        nll[rows] = -top - np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return nll


def _maximize(log_variances, squares, to_mean, d: int) -> np.ndarray:
    # Whole blocks compile once: rows that pad them count for nothing.
    padding = -len(squares) % _BLOCK
    counts = np.pad(np.ones(len(squares), np.float32), (0, padding))
    squares = np.pad(squares, ((0, padding), (0, 0)))
    to_mean = np.pad(to_mean, (0, padding))
    blocks = (len(counts) // _BLOCK, _BLOCK)
    shaped = (squares.reshape(*blocks, -1), to_mean.reshape(blocks), counts.reshape(blocks))
    return np.asarray(_steps()(log_variances.astype(np.float32), *shaped, float(d)))


@functools.cache
def _steps():
    """Return the compiled fit: JAX and Optax are not needed to import a metric."""
    import jax
    import jax.numpy as jnp
    import optax

    optimizer = optax.adam(_LEARNING_RATE)

    @jax.jit
    def steps(log_variances, squares, to_mean, counts, d):
        total, m = counts.sum(), log_variances.size

        def gradient(parameters):
            log_var, log_var_mean = parameters
            precision, offset = jnp.exp(-log_var), 0.5 * d * log_var + jnp.log(m)

            def add(sums, block):
                square, square_to_mean, count = block
                scaled = square * precision
                scaled_mean = square_to_mean * jnp.exp(-log_var_mean)
                logits = -0.5 * scaled - offset
                # The constant of the normal density is common to all, and drops out.
                logit_mean = -0.5 * scaled_mean - 0.5 * d * log_var_mean
                top = jnp.maximum(logits.max(axis=1), logit_mean)
                weights = jnp.exp(logits - top[:, None])
                weight_mean = jnp.exp(logit_mean - top)
                share = count / (weights.sum(axis=1) + weight_mean)
                # Of the mean negative log density per feature, by the log variances.
                slope = 0.5 * (1.0 - scaled / d) * weights
                slope_mean = 0.5 * (1.0 - scaled_mean / d) * weight_mean
                return (sums[0] + share @ slope, sums[1] + share @ slope_mean), None

            zeros = (jnp.zeros_like(log_var), jnp.zeros_like(log_var_mean))
            sums, _ = jax.lax.scan(add, zeros, (squares, to_mean, counts))
            return jax.tree.map(lambda x: x / total, sums)

        def step(_, carry):
            parameters, state = carry
            updates, state = optimizer.update(gradient(parameters), state)
            updated: Any = optax.apply_updates(parameters, updates)
            log_var, log_var_mean = updated
            return (jnp.clip(log_var, _LOWEST, _HIGHEST), log_var_mean), state

        start = (log_variances, jnp.zeros(()))
        (log_variances, _), _ = jax.lax.fori_loop(
            0, _NUM_STEPS, step, (start, optimizer.init(start))
        )
        return log_variances

    return steps
