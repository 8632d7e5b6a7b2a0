"""Sinkhorn divergence between codes and a prior, and the Sinkhorn autoencoder's loss."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from avae_jax.checks import check_count, check_positive_unless_traced
from avae_jax.losses.batch import (
    check_codes,
    counted,
    matching_loss,
    mean_over,
    pairs,
    square_distances,
)
from avae_jax.numerics import logsumexp, promoted


def sinkhorn_divergence(
    z: jax.Array,
    draws: jax.Array,
    *,
    epsilon: ArrayLike = 0.5,
    num_iterations: int = 10,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Measure the debiased entropic transport cost between codes and draws.

    `OT(z, y) - OT(z, z) / 2 - OT(y, y) / 2` with `OT` the lowest
    `<P, C> + e KL(P || a b)` over plans P with uniform marginals a and b, and the cost
    `C = |z - y|^2` (Feydy et al. 2019, eq. 3; the Sinkhorn autoencoder of Patrini et al. 2019).

    Args:
      z: codes, `[batch, latent_dim]`.
      draws: of the prior, `[num_draws, latent_dim]`.
      epsilon: e in units of the mean cost between codes and draws, > 0, which carries no gradient.
      num_iterations: of Sinkhorn's algorithm, >= 1.
      mask: `[batch]`, 0 or False on rows that only fill the batch up. None: every row counts.

    Returns:
      `[]`, squared units of z, float32 (float64 if an argument is); >= 0 where it has converged. 0
      where no code counts. It is not 0 at the prior itself, and its lowest point is at codes that
      are narrower, the more so the smaller e: of 100 codes the width is .69 (8 dimensions) and .54
      (16) of the prior's at e = .05, .87 and .80 at .5, .89 and .82 at 1.

    Raises:
      TypeError: `num_iterations` is no whole number.
      ValueError: shapes that do not match, or an `epsilon` or `num_iterations` out of range.

    Numerics:
      In the log domain. The gradient holds the potentials fixed, by the envelope theorem: it is
      the plan's, nothing is stored per iteration, and it costs what one iteration does. Time
      `O((batch + num_draws)^2 (latent_dim + num_iterations))`.

    Example:
      >>> z = jax.random.normal(jax.random.key(0), (50, 2))
      >>> round(float(sinkhorn_divergence(z, z + 1.0)), 1)  # the square of the shift, in all
      2.0

    References:
      Feydy et al., 2019, [Interpolating between optimal transport and MMD using Sinkhorn
      divergences](https://arxiv.org/abs/1810.08278). Patrini et al., 2019, [Sinkhorn
      AutoEncoders](https://arxiv.org/abs/1810.01118).
    """
    check_positive_unless_traced("epsilon", epsilon)
    num_iterations = check_count("num_iterations", num_iterations, minimum=1)
    check_codes(z, mask=mask, draws=draws)
    z, draws = promoted(z=z, draws=draws)
    z, weights, count = counted(z, mask)
    # Where none counts, all do, and what comes out is left out.
    weights = jnp.where(count > 0, weights, 1)
    every = jnp.ones(len(draws), z.dtype)
    cost = square_distances(z, draws)
    mean_cost = jax.lax.stop_gradient(mean_over(cost, pairs(weights, every)))
    e = jnp.maximum(epsilon * mean_cost, jnp.finfo(z.dtype).tiny)
    a, b = weights / jnp.sum(weights), every / len(draws)

    across = _transport(cost, a, b, e, num_iterations)
    of_codes = _transport_to_itself(square_distances(z, z), a, e, num_iterations)
    of_draws = _transport_to_itself(square_distances(draws, draws), b, e, num_iterations)
    return jnp.where(count > 0, across - 0.5 * of_codes - 0.5 * of_draws, 0)


def sinkhorn_ae(
    x: jax.Array,
    x_recon: jax.Array,
    z: jax.Array,
    draws: jax.Array,
    *,
    weight: ArrayLike,
    epsilon: ArrayLike = 0.5,
    num_iterations: int = 10,
    likelihood: str = "gaussian",
    mask: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the Sinkhorn autoencoder's loss.

    `reconstruction + weight sinkhorn_divergence(codes, draws)` (Patrini et al. 2019). The second
    term is a statistic of the batch, the same in every row.

    Args:
      x: data, `[batch, ...]`.
      x_recon: reconstructions, shaped like `x`; logits when `likelihood="bernoulli"`.
      z: codes of the batch, `[batch, latent_dim]`.
      draws: of the prior, `[num_draws, latent_dim]`.
      weight: multiplies the divergence, >= 0.
      epsilon: of the entropy, in units of the mean cost, as in `sinkhorn_divergence`.
      num_iterations: of Sinkhorn's algorithm, >= 1.
      likelihood: "gaussian", "bernoulli", or another name in `LIKELIHOODS`.
      mask: `[batch]`, 0 or False on rows that only fill the batch up: they do not enter the
        statistic. None: every row counts.

    Returns:
      The loss `[batch]` and its terms: `reconstruction` `[batch]` and `sinkhorn_divergence` `[]`.

    Raises:
      ValueError: as `sinkhorn_divergence`.

    Example:
      >>> import jax.numpy as jnp
      >>> x, z = jnp.zeros((2, 8)), jnp.array([[0.0], [1.0]])
      >>> loss, terms = sinkhorn_ae(x, x, z, z, weight=10.0)
      >>> loss.shape, terms["sinkhorn_divergence"].shape
      ((2,), ())
    """
    return matching_loss(
        x,
        x_recon,
        z,
        lambda: sinkhorn_divergence(
            z, draws, epsilon=epsilon, num_iterations=num_iterations, mask=mask
        ),
        name="sinkhorn_divergence",
        weight=weight,
        likelihood=likelihood,
    )


def _best(cost, other, weights, e):
    """Return the potential of the rows that goes with one of the columns."""
    logits = (other[None, :] - cost) / e
    return -e * logsumexp(logits + jnp.log(weights)[None, :], axis=1)


@functools.partial(jax.jit, static_argnames="num_iterations")
def _transport(cost, a, b, e, num_iterations: int) -> jax.Array:
    """Return the entropic cost of moving a to b."""
    fixed = jax.lax.stop_gradient(cost)

    def iterate(_, g):
        return _best(fixed.T, _best(fixed, g, b, e), a, e)

    g = jax.lax.fori_loop(0, num_iterations, iterate, jnp.zeros_like(b))
    # The last half step is in the gradient: `P = a softmax((g - C) / e)`, exactly a along the rows.
    return jnp.sum(a * _best(cost, g, b, e)) + jnp.sum(b * g)


@functools.partial(jax.jit, static_argnames="num_iterations")
def _transport_to_itself(cost, a, e, num_iterations: int) -> jax.Array:
    """Return the entropic cost of moving a to itself, whose two potentials are one."""
    fixed = jax.lax.stop_gradient(cost)

    def iterate(_, f):
        # Half of the way: whole steps go to and fro.
        return 0.5 * (f + _best(fixed, f, a, e))

    f = jax.lax.fori_loop(0, num_iterations, iterate, jnp.zeros_like(a))
    return jnp.sum(a * (_best(cost, f, a, e) + f))
