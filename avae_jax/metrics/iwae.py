"""The importance-weighted bound on the log-likelihood of a latent-variable model."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from avae_jax.checks import check_count
from avae_jax.gaussians import standard_normal_log_prob
from avae_jax.numerics import as_argument, logsumexp, promoted

_LOG_2PI = math.log(2.0 * math.pi)


def iwae_bound(
    x,
    *,
    encode: Callable,
    log_likelihood: Callable,
    log_prior: Callable | None = None,
    num_samples: int = 5000,
    chunk_size: int = 50,
    batch_size: int = 100,
    seed: int = 0,
) -> dict[str, float]:
    """Estimate a lower bound on log p(x) that tightens with the number of samples.

    `iwae = mean_i log 1/K sum_k w_ik`, `w_ik = p(x_i|z_ik) p(z_ik) / q(z_ik|x_i)`,
    `z_ik ~ q(z|x_i) = N(loc_i, diag exp(log_var_i))` (Burda et al., 2016, equation 8). Its
    expectation is at most log p(x), does not fall as K grows, and is the ELBO for K = 1.

    A deterministic encoder needs a proposal of its own, for instance its code and a small
    log-variance; call the number post hoc then. A proposal narrower than p(z|x) makes the bound
    loose and `effective_samples` looks good all the same.

    Args:
      x: `[n, ...]` examples, n >= 1, a NumPy or JAX array.
      encode: maps x `[batch, ...]` to `(loc, log_var)`, each `[batch, latent_dim]`.
      log_likelihood: maps x `[batch, ...]` and z `[batch, latent_dim]` to log p(x|z) `[batch]` in
        nats, its normalising constant included.
      log_prior: maps z `[batch, latent_dim]` to log p(z) `[batch]` in nats; None is N(0, I).
      num_samples: K, draws for each example.
      chunk_size: draws held at a time.
      batch_size: examples held at a time.
      seed: of the draws.

    Returns:
      In nats an example: `iwae`; `elbo`, the mean of log w over the same draws; `gap`, iwae - elbo,
      at least 0; each with a `_stderr` over examples (the error of the draws is in it), NaN when
      there is one or a value is not finite. An example whose weights are all zero makes `iwae` and
      `elbo` -inf and `gap` NaN.

      `effective_samples`: the median over examples of `(sum w)^2 / sum w^2`, between 1 and K; near
      1 the bound rests on one draw and is loose. There is no null: a number of nats means nothing
      without another model's on the same examples.

    Raises:
      ValueError: `x` is empty, a count is below 1, or a function returns another shape.
      TypeError: a count that is no integer.

    Numerics:
      The log-mean-exp is streamed over chunks in the dtype of the functions, float32 by default: at
      log w of -10^4 that resolves 10^-3 nats. Memory O(batch_size * chunk_size) times what
      `log_likelihood` needs for one example. Compiled once for all batches and numbers of samples,
      and again only when a function object, a size or a shape changes: pass the same functions, not
      new lambdas. The arrays of a `jax.tree_util.Partial` are arguments of what is compiled. A NaN
      from a function makes the result NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> log_normal = lambda x, z: -0.5 * jnp.sum((x - z) ** 2 + jnp.log(2 * jnp.pi), axis=-1)
      >>> def posterior(x):  # exact for this model: every weight is p(x)
      ...     return x / 2, jnp.full(x.shape, jnp.log(0.5))
      >>> values = iwae_bound(
      ...     jnp.ones((4, 1)), encode=posterior, log_likelihood=log_normal, num_samples=10
      ... )
      >>> round(values["iwae"], 3)  # log N(1; 0, 2)
      -1.516

    References:
      Burda, Grosse and Salakhutdinov, Importance weighted autoencoders, ICLR 2016.
    """
    if getattr(x, "ndim", 0) < 1 or not x.shape[0]:
        raise ValueError(
            f"x must have shape [n, ...] with n >= 1, got {getattr(x, 'shape', type(x).__name__)}"
        )
    num_samples = check_count("num_samples", num_samples, minimum=1)
    chunk_size = check_count("chunk_size", chunk_size, minimum=1)
    batch_size = check_count("batch_size", batch_size, minimum=1)
    n = x.shape[0]
    batch_size, chunk_size = min(batch_size, n), min(chunk_size, num_samples)
    log_prior = standard_normal_log_prob if log_prior is None else log_prior
    _check_shapes(x[:batch_size], encode, log_likelihood, log_prior)

    parts = []
    for start in range(0, n, batch_size):
        rows = x[start : start + batch_size]
        # The last batch is filled up, so that it needs no other program.
        index = np.minimum(np.arange(batch_size), len(rows) - 1)
        found = _batch_bound(
            rows[index],
            jax.random.fold_in(jax.random.key(seed), start),
            jnp.int32(num_samples),
            encode=as_argument(encode),
            log_likelihood=as_argument(log_likelihood),
            log_prior=as_argument(log_prior),
            chunk_size=int(chunk_size),
        )
        parts.append(np.asarray(found, np.float64)[:, : len(rows)])
    bound, elbo, log_effective = np.concatenate(parts, axis=1)
    with np.errstate(invalid="ignore"):
        gap = bound - elbo
    return {
        **_estimate("iwae", bound),
        **_estimate("elbo", elbo),
        **_estimate("gap", gap),
        "effective_samples": float(np.median(np.exp(log_effective))),
    }


@functools.partial(jax.jit, static_argnames="chunk_size")
def _batch_bound(x, key, num_samples, *, encode, log_likelihood, log_prior, chunk_size):
    """Return log-mean-weight, mean log-weight and log effective sample size, `[3, batch]`."""
    loc, log_var = encode(x)
    loc, log_var = promoted(loc=loc, log_var=log_var)
    num_chunks = -(-num_samples // chunk_size)

    def log_weight(noise):
        z = loc + jnp.exp(0.5 * log_var) * noise
        log_q = -0.5 * jnp.sum(jnp.square(noise) + log_var + _LOG_2PI, axis=-1)
        return log_likelihood(x, z) + log_prior(z) - log_q

    def add_chunk(chunk, carried):
        log_sum, log_sum_square, total = carried
        noise = jax.random.normal(
            jax.random.fold_in(key, chunk), (chunk_size, *loc.shape), loc.dtype
        )
        log_w = jax.vmap(log_weight)(noise)
        kept = (chunk * chunk_size + jnp.arange(chunk_size) < num_samples)[:, None]
        return (
            jnp.logaddexp(log_sum, logsumexp(log_w, axis=0, where=kept)),
            jnp.logaddexp(log_sum_square, logsumexp(2.0 * log_w, axis=0, where=kept)),
            total + jnp.sum(jnp.where(kept, log_w, 0.0), axis=0),
        )

    dtype = jax.eval_shape(log_weight, loc).dtype
    nothing = jnp.full(x.shape[0], -jnp.inf, dtype)
    log_sum, log_sum_square, total = jax.lax.fori_loop(
        0, num_chunks, add_chunk, (nothing, nothing, jnp.zeros(x.shape[0], dtype))
    )
    # A set of weights that are all zero has no effective sample size.
    log_effective = jnp.where(log_sum == -jnp.inf, 0.0, 2.0 * log_sum - log_sum_square)
    return jnp.stack([log_sum - jnp.log(num_samples), total / num_samples, log_effective])


def _check_shapes(x, encode, log_likelihood, log_prior) -> None:
    loc, log_var = jax.eval_shape(encode, x)
    if len(loc.shape) != 2 or loc.shape != log_var.shape or loc.shape[0] != x.shape[0]:
        raise ValueError(
            f"encode must return loc and log_var of shape [{x.shape[0]}, latent_dim], got "
            f"{loc.shape} and {log_var.shape}"
        )
    for name, found in (
        ("log_likelihood", jax.eval_shape(log_likelihood, x, loc)),
        ("log_prior", jax.eval_shape(log_prior, loc)),
    ):
        if found.shape != x.shape[:1]:
            raise ValueError(
                f"{name} must return one number an example, shape {x.shape[:1]}, got {found.shape}:"
                " sum over the other axes"
            )


def _estimate(name: str, per_example: np.ndarray) -> dict[str, float]:
    n, stderr = per_example.size, float("nan")
    if n > 1 and np.isfinite(per_example).all():
        stderr = float(per_example.std(ddof=1) / math.sqrt(n))
    return {name: float(per_example.mean()), f"{name}_stderr": stderr}
