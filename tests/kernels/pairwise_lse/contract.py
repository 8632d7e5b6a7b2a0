"""What the kernel's tests share: problems, the limits of each accuracy class, comparisons."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from avae_jax.kernels.pairwise_lse import pairwise_lse, pairwise_lse_stats
from avae_jax.kernels.pairwise_lse.implementations import IMPLEMENTATIONS
from avae_jax.kernels.pairwise_lse.reference import (
    ReferenceGradients,
    reference_gradients,
    reference_stats,
)
from avae_jax.kernels.pairwise_lse.stats import PairwiseStats

UNIT = 2.0**-24  # roundoff of float32
ARGNUMS = (0, 1, 2, 3)
# What a logit may be wrong by, in units of its largest term, and what the product behind the mean
# may be wrong by, in units of the farthest center: the second operand of that product is rounded
# like the first.
LOGIT_ERROR = {"highest": 16 * UNIT, "high": 2.0**-15, "fast": 2.0**-8}
MEAN_ERROR = {"highest": 8 * UNIT, "high": 2.0**-15, "fast": 2.0**-8}
# Below this a softmax weight may have become 0.
_LOST = 1e-30


def run_here():
    """Return the names of the implementations that this machine can run."""
    return sorted(name for name, entry in IMPLEMENTATIONS.items() if entry.unavailable() is None)


class Problem(NamedTuple):
    """One call's arguments, float32; `bandwidth` is a number or an array [k]."""

    x: np.ndarray
    y: np.ndarray
    bandwidth: np.ndarray
    log_weights: np.ndarray | None = None
    exclude: np.ndarray | None = None

    @property
    def args(self):
        """Return what can be differentiated."""
        return self.x, self.y, self.bandwidth, self.log_weights

    @property
    def bandwidths(self):
        """Return the bandwidths as float64 numbers, one or several."""
        return [float(h) for h in np.atleast_1d(self.bandwidth)]

    @property
    def options(self):
        """Return the optional arguments."""
        given = {"log_weights": self.log_weights, "exclude": self.exclude}
        return {name: a for name, a in given.items() if a is not None}


def make_problem(
    n, m, d, *, bandwidth=0.5, offset=0.0, near=0.1, seed=0, weights=False, exclude=False
):
    """Return standard normal points; every other query lies at distance `near` of a center."""
    rng = np.random.default_rng(seed)
    y = (offset + rng.normal(size=(m, d))).astype(np.float32)
    x = (offset + rng.normal(size=(n, d))).astype(np.float32)
    rows = np.arange(0, n, 2)
    x[rows] = (y[rows % m] + near * rng.normal(size=(len(rows), d))).astype(np.float32)
    log_weights = left_out = None
    if weights:
        log_weights = rng.normal(size=m).astype(np.float32)
        log_weights[rng.random(m) < 0.2] = -np.inf
        log_weights[0] = 0.0
    if exclude:
        left_out = rng.integers(-1, m, size=n).astype(np.int32)
        left_out[rows] = rows % m
    return Problem(x, y, np.float32(bandwidth), log_weights, left_out)


def call(problem, **options):
    """Return the kernel's value."""
    return pairwise_lse(
        problem.x, problem.y, bandwidth=problem.bandwidth, **problem.options, **options
    )


def call_stats(problem, **options):
    """Return the kernel's statistics."""
    return pairwise_lse_stats(
        problem.x, problem.y, bandwidth=problem.bandwidth, **problem.options, **options
    )


def make_cotangent(problem, seed=5):
    """Return what the values [n], or [k, n], are weighted by in the loss."""
    shape = np.shape(problem.bandwidth) + (len(problem.x),)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def call_gradients(problem, cotangent, *, implementation=None, precision="highest"):
    """Return (values, gradients of sum(cotangent * values) in x, y, bandwidth and log weights)."""
    return _jitted_gradients(
        *problem, cotangent, implementation, precision, IMPLEMENTATIONS.get(implementation)
    )


@functools.partial(jax.jit, static_argnames=("implementation", "precision", "entry"))
def _jitted_gradients(
    x, y, bandwidth, log_weights, exclude, cotangent, implementation, precision, entry
):
    del entry  # Only told apart: where a test replaces it, this is traced again.

    def loss(x, y, bandwidth, log_weights):
        lse = pairwise_lse(
            x,
            y,
            bandwidth=bandwidth,
            log_weights=log_weights,
            exclude=exclude,
            implementation=implementation,
            precision=precision,
        )
        return jnp.sum(cotangent * lse), lse

    argnums = ARGNUMS if log_weights is not None else ARGNUMS[:3]
    (_, lse), gradients = jax.value_and_grad(loss, argnums, has_aux=True)(
        x, y, bandwidth, log_weights
    )
    return lse, gradients


class Limits(NamedTuple):
    """How far statistics and gradients may be from float64, in the shapes of the values.

    One row a query, except `y` [m], `bandwidth` () and `log_weights` [m]; `x` and `y` bound each
    coordinate. Gradients are None without a cotangent.
    """

    lse: np.ndarray
    mean: np.ndarray
    logit_mean: np.ndarray
    logit_sq_mean: np.ndarray
    x: np.ndarray | None = None
    y: np.ndarray | None = None
    bandwidth: float | None = None
    log_weights: np.ndarray | None = None


def value_limit(problem, bandwidth, lse, implementation, precision="highest"):
    """Return how far values may be from float64, [n].

    With u = 2^-24, c the mean of the centers and S = max_j (|x - c|^2 + |y_j - c|^2) / (2 h^2):
    8 u (1 + |lse|) for "difference", 16 u (1 + S) for a product in class "highest". The sum over
    centers adds a few u to either, which 1 stands for.
    """
    if implementation == "difference":
        return 8 * UNIT * (1 + np.abs(np.where(lse == -np.inf, 0.0, lse)))
    x, y, kept, _ = _centred(problem)
    squared_radius = np.max(np.sum(y[kept] ** 2, axis=1), initial=0.0)
    scale = (np.sum(x**2, axis=1) + squared_radius) / (2 * bandwidth**2)
    return LOGIT_ERROR[precision] * (1 + scale)


def _centred(problem):
    """Return (x, y, which centers are not masked, the origin both are taken from), float64."""
    x, y = problem.x.astype(np.float64), problem.y.astype(np.float64)
    kept = np.ones(len(y), bool)
    if problem.log_weights is not None:
        kept = problem.log_weights != -np.inf
    origin = y[kept].mean(axis=0) if kept.any() else np.zeros(y.shape[1])
    return x - origin, np.where(kept[:, None], y - origin, 0.0), kept, origin


def limits(problem, bandwidth, implementation, precision="highest", cotangent=None) -> Limits:
    """Return the limits of an accuracy class at one bandwidth.

    They follow from that of the values: with logits and lse wrong by e, weights are wrong by 2 e
    of themselves, so an average over them by 2 e times its spread, and what is averaged adds its
    own error. The mean and the gradients add what their products round.
    """
    x, y, kept, origin = _centred(problem)
    x_radius, y_radius = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    bias = np.zeros(len(y))
    if problem.log_weights is not None:
        bias = problem.log_weights.astype(np.float64)
    distance = np.sqrt(_squared_distances(x, y))
    logits = -0.5 * (distance / bandwidth) ** 2
    total = logits + bias
    if problem.exclude is not None:
        rows = np.flatnonzero(problem.exclude >= 0)
        total[rows, problem.exclude[rows]] = -np.inf
    empty = np.all(total == -np.inf, axis=1)
    top = np.where(empty, 0.0, total.max(axis=1))
    weights = np.exp(total - top[:, None])
    weights /= np.where(empty, 1.0, weights.sum(axis=1))[:, None]
    with np.errstate(divide="ignore"):
        lse = np.where(empty, 0.0, top + np.log(np.exp(total - top[:, None]).sum(axis=1)))

    farthest = y_radius[kept].max(initial=0.0)
    value = value_limit(problem, bandwidth, lse, implementation, precision)
    logit = value[:, None]
    if implementation == "difference":
        logit = 8 * UNIT * (1 + np.abs(np.where(weights > 0, total, 0.0)))

    softmax_mean = weights @ y
    sigma = np.sqrt(np.sum(weights * _squared_distances(softmax_mean, y), axis=1))
    drift = _relative(2 * value) * sigma + MEAN_ERROR[precision] * farthest
    # What is returned is rounded to the caller's coordinates, far from the origin or not.
    mean = drift + UNIT * np.linalg.norm(softmax_mean + origin, axis=1) + _LOST

    of_weight = weights * (_relative(value[:, None] + logit) + 8 * UNIT)
    first = np.sum(weights * logits, axis=1, keepdims=True)
    second = np.sum(weights * logits**2, axis=1, keepdims=True)
    of_logit = of_weight * np.abs(logits - first) + weights * logit
    of_square = of_weight * np.abs(logits**2 - second)
    of_square += weights * (2 * np.abs(logits) + logit) * logit
    result = Limits(
        value,
        mean,
        np.sum(of_logit, axis=1) - 8 * UNIT * first[:, 0] + _LOST,
        np.sum(of_square, axis=1) + 8 * UNIT * second[:, 0] + _LOST,
    )
    if cotangent is None:
        return result
    g = np.abs(cotangent.astype(np.float64))
    drift += 8 * UNIT * (x_radius + np.linalg.norm(softmax_mean - x, axis=1))
    of_terms = weights * MEAN_ERROR[precision] * (x_radius[:, None] + y_radius)
    return result._replace(
        x=g * drift / bandwidth**2 + _LOST,
        y=g @ (of_weight * distance + of_terms) / bandwidth**2 + _LOST,
        # A sum over queries has roundings of its own.
        bandwidth=float(np.sum(g * (result.logit_mean - 8 * UNIT * first[:, 0])) * 2 / bandwidth),
        log_weights=g @ of_weight + _LOST,
    )


def _relative(log_error):
    """Return how far exp(a) is from itself when a is wrong by as much; beyond e^50 is no limit."""
    return np.expm1(np.minimum(log_error, 50.0))


def _squared_distances(x, y):
    # In float64 and centered, expanded is precise enough for a limit.
    squared = np.sum(x**2, axis=1)[:, None] + np.sum(y**2, axis=1) - 2 * x @ y.T
    return np.maximum(squared, 0.0)


def assert_within(name, actual, expected, limit):
    """Assert that values are infinite or NaN where float64's are, elsewhere within the limit."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{name}: {actual.shape} for {expected.shape}"
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected), err_msg=name)
    infinite = np.isinf(expected)
    np.testing.assert_array_equal(actual[infinite], expected[infinite], err_msg=name)
    assert np.array_equal(np.isinf(actual), infinite), f"{name}: infinite"
    limit = np.asarray(limit)
    limit = limit.reshape(limit.shape + (1,) * (expected.ndim - limit.ndim))
    finite = np.isfinite(expected)
    error = np.abs(actual[finite] - expected[finite])
    ratio = error / np.broadcast_to(limit, expected.shape)[finite]
    assert np.all(ratio <= 1.0), f"{name}: off by {error.max()}, {ratio.max()} times the limit"


def assert_values(problem, lse, implementation, precision="highest"):
    """Assert that values agree with float64 within the class."""
    assert lse.dtype == jnp.float32
    for h, row in zip(problem.bandwidths, np.atleast_2d(lse), strict=True):
        expected = reference_stats(problem.x, problem.y, bandwidth=h, **problem.options).lse
        limit = value_limit(problem, h, expected, implementation, precision)
        assert_within(f"lse at bandwidth {h}", row, expected, limit)


def assert_stats(problem, stats: PairwiseStats, implementation, precision="highest"):
    """Assert that all statistics agree with float64 within the class."""
    if np.ndim(problem.bandwidth) == 0:
        stats = PairwiseStats(*(a[None] for a in stats))
    for k, h in enumerate(problem.bandwidths):
        expected = reference_stats(problem.x, problem.y, bandwidth=h, **problem.options)
        limit = limits(problem, h, implementation, precision)
        for name in PairwiseStats._fields:
            actual = getattr(stats, name)[k]
            assert_within(f"{name} at {h}", actual, getattr(expected, name), getattr(limit, name))


def expected_gradients(problem, cotangent) -> ReferenceGradients:
    """Return float64 gradients of sum(cotangent * lse), over all bandwidths."""
    each = [
        reference_gradients(problem.x, problem.y, g, bandwidth=h, **problem.options)
        for h, g in zip(problem.bandwidths, np.atleast_2d(cotangent), strict=True)
    ]
    bandwidth = np.reshape([e.bandwidth for e in each], np.shape(problem.bandwidth))
    x, y, log_weights = (sum(getattr(e, name) for e in each) for name in ("x", "y", "log_weights"))
    return ReferenceGradients(x, y, bandwidth, log_weights)


def assert_gradients(problem, gradients, cotangent, implementation, precision="highest"):
    """Assert that gradients in x, y, bandwidth (and log weights) agree within the class."""
    expected = expected_gradients(problem, cotangent)
    each = [
        limits(problem, h, implementation, precision, g)
        for h, g in zip(problem.bandwidths, np.atleast_2d(cotangent), strict=True)
    ]
    for name, actual in zip(ReferenceGradients._fields, gradients, strict=False):
        if actual is None:
            assert name == "log_weights"
            assert problem.log_weights is None
            continue
        limit = [getattr(e, name) for e in each]
        limit = (
            np.reshape(limit, np.shape(problem.bandwidth)) if name == "bandwidth" else sum(limit)
        )
        assert_within(f"gradient in {name}", actual, getattr(expected, name), limit)
