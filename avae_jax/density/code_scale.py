"""The standard deviation at which the KDE term of the AVAE leaves codes alone."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from avae_jax.checks import check_between, check_count
from avae_jax.density.normal_draws import (
    check_not_traced,
    draw_queries_and_centers,
    row_stats,
)
from avae_jax.density.tail import Tail, check_tail, log_tail_density

SMALLEST_SCALE, LARGEST_SCALE = 0.05, 4.0
_NUM_GRID_POINTS = 30
_NUM_BISECTIONS = 9


@dataclasses.dataclass(frozen=True)
class CodeScale:
    """What the KDE term does to codes N(0, s^2 I).

    Attributes:
      claimed: `sqrt(1 - bandwidth^2)`, the standard deviation the paper aims at.
      fixed_point: the standard deviation at which the codes are neither pushed out nor pulled in,
        or None where there is none from 0.05 to 4.
      stderr: standard error of `fixed_point` over the queries, or None without a fixed point.
      tail_share: share of codes with `q < eps` at the fixed point, or at `claimed` where there is
        none; 0 with `tail="none"`.
      verdict: one line for a person.
    """

    claimed: float
    fixed_point: float | None
    stderr: float | None
    tail_share: float
    verdict: str


def expected_code_scale(
    latent_dim: int,
    num_centers: int,
    *,
    bandwidth: float,
    tail: Tail = "none",
    max_cdf: float | None = None,
    num_queries: int = 512,
    seed: int = 0,
) -> CodeScale:
    r"""Solve the force balance of the KDE term for the scale of the codes.

    For codes and centers from N(0, s^2 I) and `p = N(0, I)`, the mean radial gradient of the term
    is ``G(s) = E[ z . grad_z( log q~(z) - log p(z) ) ] = E[ r z . (c_mean - z)/h^2 + |z|^2 ]``,
    with `c_mean` the softmax mean of the centers and `r = q/(q + eps)` (1 with `tail="none"`).
    Descent pushes codes outward where G < 0 and pulls them inward where G > 0; they settle where G
    goes from negative to positive as s grows. Of several such zeros the one nearest to `claimed`
    counts. The weight of the term cancels.

    It treats codes as free Gaussian particles: a trained encoder is smoother, and the
    reconstruction term pushes codes apart. Read "no finite fixed point" as "the KDE term will not
    hold the scale", not as a forecast of the scale.

    Args:
      latent_dim: dimension l of the codes, at least 1.
      num_centers: number of centers m, at least 2.
      bandwidth: the kernel's standard deviation in training, in (0, 1): `Bandwidth.h_corr`.
      tail: "none" or "official", as in `avae_jax.losses.avae`.
      max_cdf: probability in (0, 1) that places eps; with `tail="official"` only.
      num_queries: codes the expectation is taken over, at least 2. The same draws, scaled, serve
        every s.
      seed: at least 0; the same seed gives the same value.

    Returns:
      A `CodeScale`.

    Raises:
      TypeError: a count that is not an integer, or a call inside `jax.jit`.
      ValueError: a count below its minimum, a bandwidth outside (0, 1), an unknown `tail`, or
        `max_cdf` missing, useless or outside (0, 1).

    Numerics:
      About 40 passes of `O(num_queries num_centers latent_dim)`; seconds for 10,000 centers in 128
      dimensions on two cores. Memory `O(num_centers latent_dim)`. Near the number of dimensions
      where the fixed point goes away (16 at m = 1,000) G is flat and draws decide whether there is
      one: mind `stderr`, or compare seeds.

    Example:
      >>> scale = expected_code_scale(8, 1000, bandwidth=0.52)
      >>> print(f"{scale.claimed:.2f}", 0.85 < scale.fixed_point < 1.05)
      0.85 True
    """
    check_not_traced("expected_code_scale")
    latent_dim = check_count("latent_dim", latent_dim, minimum=1)
    num_centers = check_count("num_centers", num_centers, minimum=2)
    num_queries = check_count("num_queries", num_queries, minimum=2)
    seed = check_count("seed", seed, minimum=0)
    bandwidth = check_between("bandwidth", bandwidth, 0.0, 1.0)
    log_eps = _log_eps(latent_dim, bandwidth, tail, max_cdf)
    queries, slabs = draw_queries_and_centers(
        latent_dim, num_centers, num_queries=num_queries, seed=seed
    )
    log_kernel_height = -latent_dim * (math.log(bandwidth) + 0.5 * math.log(2.0 * math.pi))

    def measure(scale: float) -> tuple[float, float, float]:
        """Return G(s)/s^2, its standard error, and the share of codes below eps."""
        # Codes and bandwidth scaled alike have the same logits, so the draws stay as they are.
        stats = row_stats(queries, slabs, bandwidth=bandwidth / scale, with_mean=True)
        log_q = stats.lse - math.log(num_centers) + log_kernel_height
        forces, share = _radial_forces(queries, stats.mean, log_q, log_eps, bandwidth)
        forces = np.asarray(forces, np.float64)
        return forces.mean(), forces.std(ddof=1) / math.sqrt(num_queries), float(share)

    claimed = math.sqrt(1.0 - bandwidth**2)
    scales = np.geomspace(SMALLEST_SCALE, LARGEST_SCALE, _NUM_GRID_POINTS)
    forces = np.array([measure(scale)[0] for scale in scales])
    crossings = np.flatnonzero((forces[:-1] < 0) & (forces[1:] >= 0))
    fixed_point = stderr = None
    if crossings.size:
        middles = np.sqrt(scales[crossings] * scales[crossings + 1])
        left = crossings[np.argmin(np.abs(np.log(middles / claimed)))]
        low, high = float(scales[left]), float(scales[left + 1])
        fixed_point = _bisect(lambda scale: measure(scale)[0], low, high)
        slope = (forces[left + 1] - forces[left]) / (high - low)
        stderr = float(measure(fixed_point)[1] / slope)
    return CodeScale(
        claimed=claimed,
        fixed_point=fixed_point,
        stderr=stderr,
        tail_share=measure(claimed if fixed_point is None else fixed_point)[2],
        verdict=_verdict(fixed_point, stderr, scales, forces, tail),
    )


def _log_eps(latent_dim, bandwidth, tail, max_cdf) -> float:
    check_tail(tail, max_cdf)
    if max_cdf is None:
        return -math.inf
    return float(log_tail_density(latent_dim, bandwidth=bandwidth, max_cdf=max_cdf))


@jax.jit
def _radial_forces(queries, mean, log_q, log_eps, bandwidth) -> tuple[jax.Array, jax.Array]:
    gate = jax.nn.sigmoid(log_q - log_eps)
    repulsion = gate * (queries * (mean - queries)).sum(axis=1) / bandwidth**2
    return repulsion + jnp.square(queries).sum(axis=1), jnp.mean(log_q < log_eps)


def _bisect(force: Callable[[float], float], low: float, high: float) -> float:
    """Return the zero of a function that is negative at `low` and positive at `high`."""
    for _ in range(_NUM_BISECTIONS):
        middle = math.sqrt(low * high)
        if force(middle) < 0:
            low = middle
        else:
            high = middle
    return float(math.sqrt(low * high))


def _verdict(fixed_point, stderr, scales, forces, tail) -> str:
    if fixed_point is not None:
        settle = f"codes settle at std {fixed_point:.3f} (+- {stderr:.3f})"
        runaway = scales[(scales > fixed_point) & (forces < 0)]
        if runaway.size:
            return f"{settle}, but from std {runaway[0]:.2g} on they are pushed outward"
        return settle
    advice = "use tail='official'" if tail == "none" else "use a smaller max_cdf"
    if np.all(forces < 0):
        return f"no finite fixed point: codes are pushed outward at every scale; {advice}"
    if np.all(forces >= 0):
        return "no fixed point: codes are pulled inward at every scale"
    inward = scales[forces >= 0][-1]
    return f"no stable fixed point: codes wider than std {inward:.2g} are pushed outward; {advice}"
