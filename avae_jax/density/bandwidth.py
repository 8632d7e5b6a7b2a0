"""The bandwidth at which a kernel density of normal draws fits the normal best."""

import dataclasses
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from avae_jax.checks import check_count
from avae_jax.density.normal_draws import (
    Slab,
    check_not_traced,
    draw_queries_and_centers,
    row_stats,
)
from avae_jax.density.null_kl import mean_kl_from_lse
from avae_jax.files import cache_dir, write_atomically
from avae_jax.kernels.pairwise_lse import PairwiseStats

ESTIMATOR_VERSION = 1
"""Part of the cache key: raise it with every change of the draws or of the estimator."""

TOLERANCE = 1e-6
"""The search stops when a step in log h is shorter than this."""

_MAX_ITERATIONS = 100
_MAX_LOG_STEP = 1.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bandwidth:
    """A bandwidth for codes and what comes with it; a pytree of its numbers.

    Attributes:
      h_opt: argmax over h of the mean log density of N(0, I) draws, in units of N(0, I).
      h_corr: `h_opt / sqrt(1 + h_opt^2)`, the bandwidth to train with; below 1.
      prior_scale: `sqrt(1 - h_corr^2)`, the standard deviation at which codes, smoothed by the
        kernel, are N(0, I).
      stderr: standard error of `h_opt` over the draws of queries and of centers.
      null_kl: KL estimate of perfect codes `N(0, prior_scale^2 I)`, nats; see
        `avae_jax.density.null_kl`.
      num_iterations: passes over the data of the longest trial.
    """

    h_opt: float
    h_corr: float
    prior_scale: float
    stderr: float
    null_kl: float
    num_iterations: int


def find_bandwidth(
    latent_dim: int,
    num_centers: int,
    *,
    seed: int = 0,
    num_queries: int = 2000,
    num_trials: int = 1,
    cache: bool = True,
) -> Bandwidth:
    r"""Find the bandwidth for codes of a dimension and a number of centers.

    ``h_opt = argmax_h E_{z ~ N(0, I)} log q_h(z)`` with `q_h` the kernel density of `num_centers`
    draws of N(0, I), the AVAE's rule (Saha, Joshi and Whitaker 2023). They run 10,000 Adam steps;
    here Newton's method in `t = log h` takes about five passes, twelve at l = 1. With `w_ij` the
    softmax weights and `u_ij = |z_i - c_j|^2 / h^2`,

    ``f' = mean_i E_w[u] - l``, ``f'' = mean_i Var_w(u) - 2 mean_i E_w[u]``.

    Where Newton's step is no ascent or leaves the bracket known so far, the EM step
    `h^2 <- h^2 mean_i E_w[u] / l` takes its place, which cannot lower the objective.

    Args:
      latent_dim: dimension l of the codes, at least 1.
      num_centers: number of centers m, at least 2.
      seed: at least 0; the same arguments give the same value.
      num_queries: draws the expectation is taken over, at least 2.
      num_trials: independent draws of queries and centers to average, at least 1.
      cache: whether to look the value up on disk and to keep it there. The folder is
        `$AVAE_CACHE_DIR` or the user's cache folder. A broken entry or folder only costs time.

    Returns:
      A `Bandwidth`; `h_opt` and `null_kl` are means over the trials.

    Raises:
      TypeError: a count that is not an integer, or a call inside `jax.jit`.
      ValueError: a count below its minimum.
      RuntimeError: the search did not settle in 100 passes.

    Numerics:
      Float32 passes, float64 sums. Time `O(num_queries num_centers latent_dim)` a pass, memory
      `O(num_centers latent_dim)` (800 MB for 100,000 centers in 2,048 dimensions), both spread
      over all local devices.

      The standard error of several trials is their standard deviation over `sqrt(num_trials)`. For
      one trial it is the delta method's, from the spread of `f'` over the queries and a delete-one
      jackknife of `f'` over the centers. The jackknife errs upwards (Efron and Stein 1981), most
      where a query has one near center only: expect up to 1.5 times the spread between trials. It
      means little for fewer than about 20 centers.

    Example:
      >>> result = find_bandwidth(10, 500, cache=False)
      >>> print(f"{result.h_opt:.1f} {result.h_corr:.1f} {result.prior_scale:.1f}")
      0.7 0.6 0.8

    References:
      Saha, Joshi and Whitaker, 2023, [Aggregate Variational Autoencoders](
      https://arxiv.org/abs/2311.07693).
      Efron and Stein, 1981, The jackknife estimate of variance.
    """
    check_not_traced("find_bandwidth")
    key = {
        "estimator_version": ESTIMATOR_VERSION,
        "latent_dim": check_count("latent_dim", latent_dim, minimum=1),
        "num_centers": check_count("num_centers", num_centers, minimum=2),
        "seed": check_count("seed", seed, minimum=0),
        "num_queries": check_count("num_queries", num_queries, minimum=2),
        "num_trials": check_count("num_trials", num_trials, minimum=1),
        "tolerance": TOLERANCE,
        # NumPy may change its random streams between versions. JAX and the device only round
        # differently, which moves the value by less than the tolerance.
        "numpy": ".".join(np.__version__.split(".")[:2]),
    }
    if not cache:
        return _estimate(key)
    path = _cache_path(key)
    found = _read_cache(path, key)
    if found is None:
        found = _estimate(key)
        _write_cache(path, key, found)
    return found


def _estimate(key: dict) -> Bandwidth:
    num_trials = key["num_trials"]
    trials = [_run_trial(key, trial, with_stderr=num_trials == 1) for trial in range(num_trials)]
    h_opt = float(np.mean([trial.h_opt for trial in trials]))
    if num_trials == 1:
        stderr = trials[0].stderr
    else:
        stderr = float(np.std([trial.h_opt for trial in trials], ddof=1) / math.sqrt(num_trials))
    return Bandwidth(
        h_opt=h_opt,
        h_corr=_corrected(h_opt),
        prior_scale=1.0 / math.hypot(1.0, h_opt),
        stderr=stderr,
        null_kl=float(np.mean([trial.null_kl for trial in trials])),
        num_iterations=max(trial.num_iterations for trial in trials),
    )


def _corrected(h_opt: float) -> float:
    return h_opt / math.hypot(1.0, h_opt)


@dataclasses.dataclass(frozen=True)
class _Optimum:
    """Where the search ended; the arrays, `[num_queries]`, are those of its last pass."""

    bandwidth: float
    curvature: float
    mean_scaled_distance: np.ndarray
    lse: np.ndarray
    num_iterations: int


@dataclasses.dataclass(frozen=True)
class _Trial:
    h_opt: float
    stderr: float
    null_kl: float
    num_iterations: int


def _run_trial(key: dict, trial: int, *, with_stderr: bool) -> _Trial:
    num_centers = key["num_centers"]
    queries, slabs = draw_queries_and_centers(
        key["latent_dim"],
        num_centers,
        num_queries=key["num_queries"],
        seed=key["seed"],
        trial=trial,
    )
    optimum = maximize_log_density(
        lambda h: row_stats(queries, slabs, bandwidth=h), key["latent_dim"]
    )
    h_opt = optimum.bandwidth
    # Perfect codes and h_corr are the draws and h_opt times prior_scale: the logits are the same.
    null = mean_kl_from_lse(
        optimum.lse,
        queries,
        num_centers,
        bandwidth=_corrected(h_opt),
        scale=1.0 / math.hypot(1.0, h_opt),
    )
    stderr = jackknife_stderr(queries, slabs, optimum, num_centers) if with_stderr else math.nan
    return _Trial(h_opt, stderr, null, optimum.num_iterations)


def maximize_log_density(
    measure: Callable[[float], PairwiseStats],
    latent_dim: int,
    *,
    row_weights: np.ndarray | None = None,
) -> _Optimum:
    """Find the bandwidth that maximizes the mean log density of the queries.

    Args:
      measure: bandwidth -> what `pairwise_lse_stats` finds of the queries, `[n]` each.
      latent_dim: columns of the queries.
      row_weights: `[n]` that sum to one, for a weighted mean. None: all count alike.

    Returns:
      The bandwidth, and the curvature of the objective in log h there. Of several maxima the one
      that the search meets first, which begins at bandwidth 1.

    Raises:
      RuntimeError: no convergence.
    """
    log_h, low, high = 0.0, -math.inf, math.inf
    for iteration in range(1, _MAX_ITERATIONS + 1):
        stats = measure(math.exp(log_h))
        logit_mean = np.asarray(stats.logit_mean, np.float64)
        logit_sq_mean = np.asarray(stats.logit_sq_mean, np.float64)
        scaled_distance = -2.0 * logit_mean
        mean_distance = np.average(scaled_distance, weights=row_weights)
        variance = np.average(logit_sq_mean - logit_mean**2, weights=row_weights)
        slope = mean_distance - latent_dim
        curvature = 4.0 * variance - 2.0 * mean_distance
        if slope > 0:
            low = log_h
        elif slope < 0:
            high = log_h
        step = -slope / curvature if curvature < 0 else math.inf
        if not low < log_h + step < high or abs(step) > _MAX_LOG_STEP:
            step = 0.5 * math.log(mean_distance / latent_dim)
        if not low < log_h + step < high:
            step = 0.5 * (low + high) - log_h
        log_h += step
        if abs(step) < TOLERANCE:
            return _Optimum(
                bandwidth=math.exp(log_h),
                curvature=float(curvature),
                mean_scaled_distance=scaled_distance,
                lse=np.asarray(stats.lse, np.float64),
                num_iterations=iteration,
            )
    raise RuntimeError(
        f"the bandwidth search did not settle in {_MAX_ITERATIONS} passes (latent_dim "
        f"{latent_dim}): try other points, another seed or more queries"
    )


def jackknife_stderr(queries, slabs, optimum: _Optimum, num_centers: int) -> float:
    """Return the standard error of the bandwidth over draws of the queries and of the centers."""
    num_queries = len(queries)
    query_variance = np.var(optimum.mean_scaled_distance, ddof=1) / num_queries
    effects = [
        _deletion_effects(
            queries,
            slab,
            jnp.asarray(optimum.lse, jnp.float32),
            jnp.asarray(optimum.mean_scaled_distance, jnp.float32),
            jnp.asarray(optimum.bandwidth, jnp.float32),
        )
        for slab in slabs
    ]
    effects = np.concatenate(effects).astype(np.float64)[:num_centers]
    center_variance = (num_centers - 1) * np.var(effects)
    slope_stderr = math.sqrt(query_variance + center_variance)
    return float(optimum.bandwidth * slope_stderr / abs(optimum.curvature))


@jax.jit
def _deletion_effects(queries, slab: Slab, lse, mean_scaled_distance, bandwidth) -> jax.Array:
    """Return what the deletion of each center adds to f', `[rows]`.

    Without center j, row i's `E_w[u]` becomes `(E_w[u] - w_ij u_ij) / (1 - w_ij)`. The derivative
    in w_ij alone, which `pairwise_lse` has, would miss what the next center takes over.
    """
    num_queries, latent_dim = queries.shape
    rows = slab.centers.shape[0]
    block = max(1, min(num_queries, 2**22 // rows))
    num_blocks = -(-num_queries // block)
    padding = num_blocks * block - num_queries
    blocks = (
        jnp.pad(queries, ((0, padding), (0, 0))).reshape(num_blocks, block, latent_dim),
        # Weight exp(-inf) = 0 for rows that pad.
        jnp.pad(lse, (0, padding), constant_values=jnp.inf).reshape(num_blocks, block),
        jnp.pad(mean_scaled_distance, (0, padding)).reshape(num_blocks, block),
    )
    center_norms = jnp.square(slab.centers).sum(axis=1)

    def add_block(total, inputs):
        x, x_lse, x_mean = inputs
        dots = jnp.dot(x, slab.centers.T, precision=jax.lax.Precision.HIGHEST)
        distance = jnp.square(x).sum(axis=1)[:, None] + center_norms - 2.0 * dots
        scaled = jnp.maximum(distance, 0.0) / bandwidth**2
        logits = -0.5 * scaled
        if slab.log_weights is not None:
            logits = logits + slab.log_weights
        weights = jnp.exp(logits - x_lse[:, None])
        # A row that sees one center only has no second one in float32: bound its share.
        others = jnp.maximum(1.0 - weights, 1e-6)
        return total + (weights * (x_mean[:, None] - scaled) / others).sum(axis=0), None

    total, _ = jax.lax.scan(add_block, jnp.zeros(rows, jnp.float32), blocks)
    return total / num_queries


def _cache_path(key: dict) -> Path:
    name = (
        "bandwidth-v{estimator_version}-l{latent_dim}-m{num_centers}-seed{seed}-q{num_queries}"
        "-t{num_trials}-numpy{numpy}.json"
    )
    return cache_dir() / name.format(**key)


def _read_cache(path: Path, key: dict) -> Bandwidth | None:
    try:
        entry = json.loads(path.read_text())
        if entry["key"] != key:
            # The name leaves the tolerance out; such an entry is stale, not broken.
            return None
        return _bandwidth_from_json(entry["value"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"ignoring unreadable cache entry {path}: {error!r}", stacklevel=3)
        return None


def _bandwidth_from_json(value: dict) -> Bandwidth:
    result = Bandwidth(**value)
    numbers = dataclasses.astuple(result)
    if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
        raise ValueError(f"not finite numbers: {numbers}")
    return result


def _write_cache(path: Path, key: dict, value: Bandwidth) -> None:
    entry = {"key": key, "value": dataclasses.asdict(value), "written_by": {"jax": jax.__version__}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(entry, indent=1))
    except OSError as error:
        warnings.warn(f"cannot keep the bandwidth in {path.parent}: {error}", stacklevel=3)
