"""What the KL term of a VAE is made of: information, marginal KL, total correlation."""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from avae_jax.checks import check_count, check_same_shape
from avae_jax.density import marginal_log_densities
from avae_jax.metrics.checks import check_codes, prior_generator

_LOG_2PI = math.log(2.0 * math.pi)
_MIXTURE_ROWS = 256


def elbo_surgery(
    loc,
    log_var,
    *,
    recon_log_prob=None,
    log_prior: Callable | None = None,
    num_samples: int = 1,
    num_queries: int | None = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Take the KL term of a VAE apart, against the prior N(0, I) or another.

    With the posteriors `q(z|x_i) = N(loc_i, diag exp(log_var_i))` of a whole data set and their
    mixture `q(z) = 1/n sum_i q(z|x_i)`,

      `mean_i KL(q(z|x_i) || p) = I(x; z) + KL(q(z) || p)`
      `KL(q(z) || p) = TC + sum_j KL(q(z_j) || p(z_j))`, `TC = KL(q(z) || prod_j q(z_j))`

    (Hoffman and Johnson, 2016; Chen et al., 2018, equation 2). x is the index of an image, so
    `I <= log n`.

    Give the whole data set: the mixture is then exact, and a null value is exactly 0. A mixture
    over B of its n rows that holds the row the code was drawn from weighs that row 1/B instead of
    1/n. This overestimates `log q(z)` by up to `log(n / B)`, so I is underestimated (it cannot pass
    `log B`) and KL(q(z) || p) overestimated, by as much. Left out, the row biases the other way,
    without bound.

    A deterministic encoder has no log_var: its I is `log n` and tells nothing.

    Args:
      loc: `[n, latent_dim]` posterior means.
      log_var: `[n, latent_dim]` posterior log-variances.
      recon_log_prob: `[n]` log p(x_i|z) in nats, averaged over draws of z; None leaves out the
        ELBO.
      log_prior: maps float32 z `[rows, latent_dim]` to log p(z) `[rows]` in nats; None is N(0, I).
        With it, `cross_entropy` and `average_kl` are estimates too, and `dimension_kl` and its
        residual are left out: they need the prior's marginals.
      num_samples: draws from each posterior.
      num_queries: rows, chosen at random, at which the marginals q(z_j) are evaluated, which costs
        n * latent_dim exponentials each; None is all rows.
      seed: of the draws and of the choice of rows.

    Returns:
      In nats: `average_kl` (closed form), `cross_entropy` -E log p(z) and `conditional_entropy`
      H[q(z|x)] (closed forms), `marginal_entropy` -E log q(z), `mutual_information` and its bound
      `mutual_information_max` log n, `marginal_kl` KL(q(z) || p), `total_correlation`,
      `dimension_kl` (the sum over j). `mutual_information`, `marginal_kl`, `total_correlation` and
      `dimension_kl` have a `_null` of exactly 0, their value when every posterior is the prior.

      `identity_residual` is average_kl - mutual_information - marginal_kl: a closed form less two
      estimates. `dimension_residual` is marginal_kl - total_correlation - dimension_kl: all rows
      less the chosen ones, 0 when all are chosen. Each should be within a few `_stderr` of 0.

      With `recon_log_prob`, also `reconstruction` and `elbo = reconstruction - average_kl`.

      Every estimate and residual has a `_stderr`: its standard error over rows with the mixture
      held fixed, NaN when there is one row.

    Raises:
      ValueError: shapes that do not agree, values that are not finite, `num_samples` or
        `num_queries` below 1.
      TypeError: a count that is no integer.

    Numerics:
      The mixture in float64 on the host, a matrix product of `[z^2, z, 1]` with the parameters:
      time O(n^2 d num_samples), memory O(256 n). The marginals in float32, by
      `avae_jax.marginal_log_densities`: time O(num_queries n d), memory O(n d).

    Example:
      >>> values = elbo_surgery(np.array([[-3.0], [3.0]]), np.zeros((2, 1)))
      >>> values["average_kl"], round(values["mutual_information_max"], 4)
      (4.5, 0.6931)

    References:
      Hoffman and Johnson, ELBO surgery, NeurIPS workshop 2016. Chen, Li, Grosse and Duvenaud,
      Isolating sources of disentanglement in VAEs, NeurIPS 2018.
    """
    loc = check_codes(loc, name="loc")
    log_var = check_codes(log_var, name="log_var")
    check_same_shape(loc=loc, log_var=log_var)
    n, d = loc.shape
    num_samples = check_count("num_samples", num_samples, minimum=1)
    num_queries = n if num_queries is None else check_count("num_queries", num_queries, minimum=1)

    rng = prior_generator(seed)
    chosen = np.arange(n) if num_queries >= n else rng.choice(n, num_queries, replace=False)
    log_q, log_joint, log_p = np.zeros((3, num_samples, n))
    queries = loc[chosen]
    for draw in range(num_samples):
        noise = rng.standard_normal((n, d))
        z = loc + np.exp(0.5 * log_var) * noise
        log_q[draw] = -0.5 * np.sum(noise**2 + log_var, axis=1) - 0.5 * d * _LOG_2PI
        if log_prior is None:
            log_p[draw] = -0.5 * np.sum(z**2, axis=1) - 0.5 * d * _LOG_2PI
        else:
            log_p[draw] = np.asarray(log_prior(z.astype(np.float32)), np.float64)
        log_joint[draw] = _log_mixture(z, loc, log_var)
        if draw == 0:
            queries = z[chosen]
    log_marginals = _log_marginals(queries, loc, log_var).sum(axis=1)
    total_correlation = log_joint[0, chosen] - log_marginals
    dimension_kl = log_marginals - log_p[0, chosen]

    variance = np.exp(log_var)
    cross_entropy = -log_p.mean(axis=0)
    if log_prior is None:
        cross_entropy = 0.5 * np.sum(loc**2 + variance, axis=1) + 0.5 * d * _LOG_2PI
    conditional_entropy = 0.5 * np.sum(log_var, axis=1) + 0.5 * d * (1.0 + _LOG_2PI)
    average_kl = cross_entropy - conditional_entropy
    information = (log_q - log_joint).mean(axis=0)
    marginal_kl = (log_joint - log_p).mean(axis=0)

    dimension_residual = marginal_kl.mean() - total_correlation.mean() - dimension_kl.mean()
    values = {
        **_estimate("average_kl", average_kl),
        **_estimate("cross_entropy", cross_entropy),
        **_estimate("conditional_entropy", conditional_entropy),
        **_estimate("marginal_entropy", -log_joint.mean(axis=0)),
        **_estimate("mutual_information", information, null=0.0),
        "mutual_information_max": math.log(n),
        **_estimate("marginal_kl", marginal_kl, null=0.0),
        **_estimate("total_correlation", total_correlation, null=0.0),
        **_estimate("identity_residual", average_kl - information - marginal_kl),
    }
    if log_prior is None:
        values |= {
            **_estimate("dimension_kl", dimension_kl, null=0.0),
            "dimension_residual": float(dimension_residual),
            "dimension_residual_stderr": _subset_stderr(marginal_kl, log_joint, log_p, chosen),
        }
    if recon_log_prob is not None:
        recon = np.asarray(recon_log_prob, dtype=np.float64)
        if recon.shape != (n,):
            raise ValueError(
                f"recon_log_prob must have shape ({n},), one value a row of loc, got {recon.shape}"
            )
        if not np.isfinite(recon).all():
            raise ValueError("recon_log_prob has values that are not finite: find their cause")
        values |= {
            **_estimate("reconstruction", recon),
            **_estimate("elbo", recon - average_kl),
        }
    return values


def _estimate(name: str, per_row: np.ndarray, *, null: float | None = None) -> dict[str, float]:
    values = {name: float(per_row.mean()), f"{name}_stderr": _stderr(per_row)}
    return values if null is None else {**values, f"{name}_null": null}


def _stderr(per_row: np.ndarray) -> float:
    if per_row.size < 2:
        return float("nan")
    return float(per_row.std(ddof=1) / math.sqrt(per_row.size))


def _subset_stderr(marginal_kl, log_joint, log_prior, chosen) -> float:
    """Return the standard error of the mean over all rows less that over the chosen ones."""
    n, size = marginal_kl.size, chosen.size
    if size < 2:
        return float("nan")
    first = (log_joint[0] - log_prior[0])[chosen]
    share = size / n
    # Chosen rows count 1/n - 1/size, the others 1/n; draws of the same row are paired.
    inside = share * marginal_kl[chosen] - first
    variance = inside.var(ddof=1) / size
    if size < n:
        rest = np.delete(marginal_kl, chosen)
        variance += (1.0 - share) ** 2 * (rest.var(ddof=1) / rest.size if rest.size > 1 else 0.0)
    return float(np.sqrt(variance))


def _log_mixture(z: np.ndarray, loc: np.ndarray, log_var: np.ndarray) -> np.ndarray:
    """Return `log 1/n sum_i N(z; loc_i, exp(log_var_i))`, `[rows of z]`."""
    n, d = loc.shape
    # Around the middle of the means, so that little is lost to cancellation.
    center = loc.mean(axis=0)
    z, loc = z - center, loc - center
    precision = np.exp(-log_var)
    weights = np.concatenate([-0.5 * precision, precision * loc], axis=1).T.copy()
    offset = -0.5 * np.sum(precision * loc**2 + log_var, axis=1)
    out = np.empty(len(z))
    for start in range(0, len(z), _MIXTURE_ROWS):
        rows = z[start : start + _MIXTURE_ROWS]
        logits = np.concatenate([rows**2, rows], axis=1) @ weights
        logits += offset
        top = logits.max(axis=1, keepdims=True)
        logits -= top
        np.exp(logits, out=logits)
        out[start : start + _MIXTURE_ROWS] = np.log(logits.sum(axis=1)) + top[:, 0]
    return out - math.log(n) - 0.5 * d * _LOG_2PI


def _log_marginals(z: np.ndarray, loc: np.ndarray, log_var: np.ndarray) -> np.ndarray:
    """Return `log 1/n sum_i N(z_j; loc_ij, exp(log_var_ij))`, `[rows of z, latent_dim]` float64."""
    # Around the middle of the means, so that few digits are lost to float32.
    center = loc.mean(axis=0)
    args = (jnp.float32(a) for a in (z - center, loc - center, log_var))
    return np.asarray(marginal_log_densities(*args), np.float64)
