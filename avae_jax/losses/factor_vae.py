"""The loss of FactorVAE, and how codes are shuffled for its critic."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from avae_jax.checks import check_axes
from avae_jax.losses.elbo import elbo
from avae_jax.numerics import kept_rows, promoted


def factor_vae(
    x: jax.Array,
    x_recon: jax.Array,
    loc: jax.Array,
    log_var: jax.Array,
    critic_logits: jax.Array,
    *,
    gamma: ArrayLike,
    likelihood: str = "gaussian",
    noise_scale: float | jax.Array = 1.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return FactorVAE's loss of each example: the negative ELBO plus a total correlation.

    `-log p(x | z) + KL(q(z | x) || N(0, I)) + gamma TC`. A critic that tells codes from shuffled
    ones estimates the total correlation `TC = E_q(z) [log q(z) - log prod_j q(z_j)]`: its logit at
    `z` approaches what is averaged (Kim and Mnih 2018, eq. 2). One logit stands for the
    difference of their two outputs.

    Args:
      x: data, `[batch, ...]`.
      x_recon: decoded sample of the posterior, shaped like `x`.
      loc: posterior means, `[batch, latent_dim]`.
      log_var: posterior log-variances, `[batch, latent_dim]`.
      critic_logits: the critic's logits, `[batch]`, at the samples behind `x_recon`, positive
        where it takes them for codes. Their gradient must reach the encoder and not the critic.
      gamma: multiplies the total correlation, >= 0; 0 is the ELBO.
      likelihood: "gaussian", "bernoulli", or another name in `LIKELIHOODS`.
      noise_scale: standard deviation > 0 of the Gaussian likelihood, as in `beta_elbo`.

    Returns:
      The loss `[batch]`, nats, and its terms, each `[batch]`: `reconstruction`, `nll` and `kl` of
      `beta_elbo`, and `tc` (the total correlation, nats, unweighted).

    Raises:
      TypeError: as `beta_elbo`.
      ValueError: as `beta_elbo`, or `critic_logits` are not `[batch]`.

    Example:
      >>> import jax.numpy as jnp
      >>> x, code, logits = jnp.zeros((1, 8)), jnp.zeros((1, 2)), jnp.ones(1)
      >>> loss, terms = factor_vae(x, x, code, code, logits, gamma=3.0)
      >>> round(float(loss[0] - terms["nll"][0]), 5)
      3.0

    References:
      Kim and Mnih, 2018, [Disentangling by Factorizing](https://arxiv.org/abs/1802.05983).
    """
    check_axes(x=("batch ...", x), critic_logits=("batch", critic_logits))
    (critic_logits,) = promoted(critic_logits=critic_logits)
    bound, terms = elbo(x, x_recon, loc, log_var, likelihood=likelihood, noise_scale=noise_scale)
    return bound + gamma * critic_logits, {**terms, "tc": critic_logits}


def permute_dims(key: jax.Array, z: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Permute every column of the codes by itself, which makes the dimensions independent.

    The rows that result are draws of `prod_j q(z_j)` (Kim and Mnih 2018, algorithm 1), as far as
    the batch stands for `q`: every column keeps exactly its values.

    Args:
      key: JAX random key.
      z: codes, `[batch, latent_dim]`.
      mask: `[batch]`, 0 or False on rows that only fill the batch up: they keep their place, and
        the others exchange values among themselves alone. None: every row counts.

    Returns:
      `[batch, latent_dim]`.

    Raises:
      ValueError: `z` is not of rank 2 or `mask` not `[batch]`.

    Example:
      >>> import jax
      >>> z = jnp.arange(6.0).reshape(3, 2)
      >>> sorted(permute_dims(jax.random.key(0), z)[:, 1].tolist())
      [1.0, 3.0, 5.0]
    """
    check_axes(z=("batch latent_dim", z), mask=("batch", mask))
    z = jnp.asarray(z)
    kept = kept_rows(mask, z.shape[0])
    # Sorted by random numbers, rows that count come first; the sort is stable, so that the others
    # follow in their order. `place` says where each row of the result finds its own.
    draws = jnp.where(kept[:, None], jax.random.bits(key, z.shape), 0)
    filler = jnp.broadcast_to(~kept[:, None], z.shape)
    _, _, shuffled = jax.lax.sort((filler, draws, z), dimension=0, is_stable=True, num_keys=2)
    place = jnp.where(kept, jnp.cumsum(kept), jnp.sum(kept) + jnp.cumsum(~kept)) - 1
    return shuffled[place]
