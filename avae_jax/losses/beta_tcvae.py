"""The beta-TCVAE's loss, and the aggregate posterior's density that it is made of."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from avae_jax.checks import check_axes, check_choice, check_count, check_same_shape
from avae_jax.density import marginal_log_densities, mixture_log_density
from avae_jax.gaussians import gaussian_kl, gaussian_log_prob
from avae_jax.likelihoods import make_likelihood
from avae_jax.numerics import kept_rows, logsumexp, promoted

Weights = Literal["uniform", "mss", "mws"]
WEIGHTS: tuple[Weights, ...] = ("uniform", "mss", "mws")


def aggregate_log_densities(
    z: jax.Array,
    loc: jax.Array,
    log_var: jax.Array,
    *,
    num_train: int,
    weights: Weights = "uniform",
    bank: tuple[jax.Array, jax.Array] | None = None,
    bank_mask: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    r"""Estimate the aggregate posterior's log density at each code of a batch.

    The density is `q(z) = 1/N sum_n N(z; mu_n, diag s_n^2)` over the N training images, of which a
    batch holds B. With weights `W_ij` of image j at the code of image i,
    ``log q(z_i) = log sum_j W_ij N(z_i; mu_j, diag s_j^2)``, and the same of each dimension:

    - "uniform": 1/N for the own image and `(N - 1) / (N (B - 1))` for each other. Unbiased for
      `q(z)`, as the own image is sure to be in the batch and the others are a sample.
    - "mss": Chen et al.'s minibatch stratified sampling (in their appendix), 1/N for the own
      image, `(N - M) / (N M)` for the next one, 1/M for the rest, M = B - 1. The same expectation,
      with a larger variance. The own weight stands on the diagonal of W, where z was drawn; in the
      authors' code it stands in a column, which undoes the correction.
    - "mws": minibatch weighted sampling (theirs too), `1 / (N B)` for all. Biased: the own image
      counts for N times what it does, so that the total correlation comes out too large by
      `(d - 1) log N`; its gradient is that of the batch alone.

    A bank of posteriors of other training images makes the others a larger sample, `B - 1` with as
    many more; with those of all images outside the batch every weight is 1/N: the exact density.

    Args:
      z: codes, `[batch, latent_dim]`, each drawn from its image's posterior.
      loc: posterior means, `[batch, latent_dim]`.
      log_var: posterior log-variances, `[batch, latent_dim]`.
      num_train: N >= 2.
      weights: "uniform", "mss" or "mws".
      bank: (means, log-variances) of other training images, each `[num_posteriors, latent_dim]`,
        for "uniform" alone. They carry no gradient. None: the batch alone.
      bank_mask: `[num_posteriors]`, 0 on rows of the bank to leave out: those of images in the
        batch, and those not yet filled. None: every row counts.
      mask: `[batch]`, 0 on rows that only fill the batch up: they are nobody's neighbor. None:
        every row counts.

    Returns:
      (log q(z) `[batch]`, log q(z_k) `[batch, latent_dim]`), nats. Rows that fill the batch up hold
      numbers that mean nothing, and so do all where the sum has fewer than two posteriors.

    Raises:
      TypeError: `num_train` is no integer.
      ValueError: shapes that do not match, `num_train` below 2, unknown weights, or a bank with
        others than "uniform".

    Numerics:
      Time and memory `O(batch^2 latent_dim)`, exponentials among them. The bank streams
      (`avae_jax.mixture_log_density`): time `O(batch num_posteriors latent_dim)`, no memory.

    Example:
      >>> import jax.numpy as jnp
      >>> z = jnp.array([[0.0], [50.0]])
      >>> log_q, _ = aggregate_log_densities(z, z, jnp.zeros((2, 1)), num_train=2)
      >>> print(log_q.round(4))  # half a Gaussian each: -log(2 pi) / 2 - log 2
      [-1.6121 -1.6121]

    References:
      Chen, Li, Grosse and Duvenaud, 2018, [Isolating Sources of Disentanglement in VAEs](
      https://arxiv.org/abs/1802.04942).
    """
    check_axes(
        z=("batch latent_dim", z),
        loc=("batch latent_dim", loc),
        log_var=("batch latent_dim", log_var),
        mask=("batch", mask),
    )
    check_choice("weights", weights, WEIGHTS)
    num_train = check_count("num_train", num_train, minimum=2)
    if bank is not None and weights != "uniform":
        raise ValueError(
            f"weights must be 'uniform' with a bank of posteriors, got {weights!r}: leave one out"
        )
    kept, z, loc, log_var = _counted(mask, z, loc, log_var)

    num_more: ArrayLike = 0
    if bank is not None:
        num_rows = len(bank[0])
        in_use = jnp.ones(num_rows, bool) if bank_mask is None else jnp.asarray(bank_mask) != 0
        num_more = jnp.sum(in_use)
    log_weights, log_share = _log_weights(kept, num_train, weights, num_more, z.dtype)
    logits = -0.5 * (
        jnp.square((z[:, None] - loc[None]) * jnp.exp(-0.5 * log_var)[None])
        + log_var[None]
        + math.log(2 * math.pi)
    )
    log_q = logsumexp(log_weights + jnp.sum(logits, axis=2), axis=1)
    log_marginals = logsumexp(log_weights[:, :, None] + logits, axis=1)
    if bank is None:
        return log_q, log_marginals

    *posteriors, log_mask = (
        jax.lax.stop_gradient(jnp.asarray(a, z.dtype))
        for a in (*bank, jnp.where(in_use, 0.0, -jnp.inf))
    )
    of_bank = mixture_log_density(z, *posteriors, log_weights=log_mask)
    of_bank_marginals = marginal_log_densities(z, *posteriors, log_weights=log_mask)
    return (
        jnp.logaddexp(log_q, log_share + of_bank),
        jnp.logaddexp(log_marginals, log_share + of_bank_marginals),
    )


def _counted(mask, z, loc, log_var) -> tuple[jax.Array, ...]:
    """Return `[batch]` bool, which rows count, and the arrays, the others' rows at the origin."""
    z, loc, log_var = promoted(z=z, loc=loc, log_var=log_var)
    kept = kept_rows(mask, len(z))
    # They must not reach a sum, not even times 0.
    return kept, *(jnp.where(kept[:, None], a, 0.0) for a in (z, loc, log_var))


def _log_weights(kept, num_train: int, weights: Weights, num_more, dtype):
    """Return the logs of W `[batch, batch]`, and of what all of the bank weighs together, `[]`."""
    count = jnp.sum(kept).astype(dtype)
    own = jnp.eye(len(kept), dtype=bool)
    n = jnp.asarray(num_train, dtype)
    if weights == "mws":
        w = jnp.full(own.shape, 1.0, dtype) / (n * jnp.maximum(count, 1))
        return jnp.where(kept[None, :], jnp.log(w), -jnp.inf), -jnp.inf
    others = count - 1 + jnp.asarray(num_more, dtype)
    some = jnp.maximum(others, 1)
    if weights == "uniform":
        w = jnp.where(own, 1 / n, (n - 1) / (n * some))
    else:
        # The next row that counts, around the end.
        rank = jnp.cumsum(kept) - 1
        following = (rank[:, None] + 1) % jnp.maximum(jnp.sum(kept), 1) == rank[None, :]
        w = jnp.where(following & ~own, jnp.maximum(n - some, 0) / (n * some), 1 / some)
        w = jnp.where(own, 1 / n, w)
    log_share = jnp.log((n - 1) / n * jnp.asarray(num_more, dtype) / some)
    return jnp.where(kept[None, :] & (w > 0), jnp.log(w), -jnp.inf), log_share


def kl_decomposition(
    z: jax.Array,
    loc: jax.Array,
    log_var: jax.Array,
    *,
    num_train: int,
    weights: Weights = "uniform",
    bank: tuple[jax.Array, jax.Array] | None = None,
    bank_mask: jax.Array | None = None,
    prior_loc: ArrayLike = 0.0,
    prior_log_var: ArrayLike = 0.0,
    mask: jax.Array | None = None,
) -> dict[str, jax.Array]:
    r"""Take `log q(z | x) - log p(z)` apart into information, total correlation and dimensions.

    Its mean over the draws `z ~ q(z | x)` is the KL of a VAE, and the means of the three (Chen et
    al. 2018, eq. 2) are the mutual information of codes and images, `I = E log q(z | x) / q(z)`,
    the total correlation, `TC = E log q(z) / prod_k q(z_k)`, and the dimension-wise KL,
    `sum_k KL(q(z_k) || p(z_k))`. They add up exactly, whatever the estimate of `q`.

    Args:
      z: as in `aggregate_log_densities`, and so are all arguments but the prior's.
      loc: `[batch, latent_dim]`.
      log_var: `[batch, latent_dim]`.
      num_train: images in the training split.
      weights: "uniform", "mss" or "mws".
      bank: posteriors of other images, or None.
      bank_mask: `[num_posteriors]`, or None.
      prior_loc: means of a Gaussian prior with independent dimensions, a number or `[latent_dim]`.
      prior_log_var: its log-variances.
      mask: `[batch]`, or None.

    Returns:
      `mi`, `tc` and `dimension_kl`, each `[batch]`, nats. They are statistics of the batch: each
      row's depends on the others. 0 on rows that only fill the batch up, and on all where fewer
      than two images, of batch and bank, count.

    Raises:
      TypeError: as `aggregate_log_densities`.
      ValueError: as `aggregate_log_densities`.

    Numerics:
      As `aggregate_log_densities`.

    Example:
      >>> import jax.numpy as jnp
      >>> z = jnp.array([[0.0, 0.0], [50.0, 50.0]])
      >>> parts = kl_decomposition(z, z, jnp.zeros((2, 2)), num_train=2)
      >>> print(parts["mi"].round(3), parts["tc"].round(3))  # log 2
      [0.693 0.693] [0.693 0.693]
    """
    log_q, log_marginals = aggregate_log_densities(
        z, loc, log_var, num_train=num_train, weights=weights, bank=bank, bank_mask=bank_mask,
        mask=mask,
    )  # fmt: skip
    log_product = jnp.sum(log_marginals, axis=1)
    kept, z, loc, log_var = _counted(mask, z, loc, log_var)
    parts = {
        "mi": gaussian_log_prob(z, loc, log_var) - log_q,
        "tc": log_q - log_product,
        "dimension_kl": log_product - gaussian_log_prob(z, prior_loc, prior_log_var),
    }
    count = jnp.sum(kept)
    if bank is not None:
        count += len(bank[0]) if bank_mask is None else jnp.sum(jnp.asarray(bank_mask) != 0)
    return {name: jnp.where(kept & (count >= 2), part, 0.0) for name, part in parts.items()}


def beta_tcvae(
    x: jax.Array,
    x_recon: jax.Array,
    z: jax.Array,
    loc: jax.Array,
    log_var: jax.Array,
    *,
    beta: ArrayLike,
    num_train: int,
    alpha: ArrayLike = 1.0,
    gamma: ArrayLike = 1.0,
    weights: Weights = "uniform",
    bank: tuple[jax.Array, jax.Array] | None = None,
    bank_mask: jax.Array | None = None,
    prior_loc: ArrayLike = 0.0,
    prior_log_var: ArrayLike = 0.0,
    likelihood: str = "gaussian",
    noise_scale: float | jax.Array = 1.0,
    mask: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    r"""Return the beta-TCVAE's loss of each example.

    ``-log p(x | z) + alpha I + beta TC + gamma sum_k KL(q(z_k) || p(z_k))`` (Chen et al. 2018, eq.
    4), where the mutual information, the total correlation and the dimension-wise KL are those of
    `kl_decomposition`. For their sum stands the KL in closed form, which has the same mean and no
    noise, so that with `alpha = beta = gamma = 1` this is `elbo` exactly:

    ``-log p(x | z) + KL + (alpha - 1) I + (beta - 1) TC + (gamma - 1) sum_k KL_k``.

    Args:
      x: data, `[batch, ...]`.
      x_recon: decoded `z`, shaped like `x`.
      z: codes, `[batch, latent_dim]`, drawn from the posteriors.
      loc: posterior means, `[batch, latent_dim]`.
      log_var: posterior log-variances, `[batch, latent_dim]`.
      beta: multiplies the total correlation, >= 0.
      num_train: images in the training split.
      alpha: multiplies the mutual information.
      gamma: multiplies the dimension-wise KL.
      weights: how `q(z)` is estimated, as in `aggregate_log_densities`.
      bank: posteriors of other images, as in `aggregate_log_densities`.
      bank_mask: `[num_posteriors]`, which of them count, as there.
      prior_loc: means of a Gaussian prior with independent dimensions, a number or `[latent_dim]`.
      prior_log_var: its log-variances.
      likelihood: "gaussian", "bernoulli", or another name in `LIKELIHOODS`.
      noise_scale: standard deviation > 0 of the Gaussian likelihood, as in `beta_elbo`.
      mask: `[batch]`, 0 on rows that only fill the batch up, as in `aggregate_log_densities`.

    Returns:
      The loss `[batch]`, nats, and its terms, each `[batch]`: `reconstruction`, `nll` and `kl` of
      `beta_elbo`, and `mi`, `tc` and `dimension_kl` of `kl_decomposition`, unweighted.

    Raises:
      TypeError: as `beta_elbo`, or `num_train` is no integer.
      ValueError: as `beta_elbo` and `aggregate_log_densities`.

    Numerics:
      As `aggregate_log_densities`.

    Example:
      >>> import jax.numpy as jnp
      >>> x, z = jnp.zeros((2, 8)), jnp.zeros((2, 3))
      >>> loss, terms = beta_tcvae(x, x, z, z, z, beta=6.0, num_train=2)
      >>> sorted(terms)
      ['dimension_kl', 'kl', 'mi', 'nll', 'reconstruction', 'tc']

    References:
      Chen, Li, Grosse and Duvenaud, 2018, [Isolating Sources of Disentanglement in VAEs](
      https://arxiv.org/abs/1802.04942).
    """
    check_same_shape(x=x, x_recon=x_recon)
    check_axes(
        x=("batch ...", x),
        z=("batch latent_dim", z),
        loc=("batch latent_dim", loc),
        log_var=("batch latent_dim", log_var),
        mask=("batch", mask),
    )
    of_data = make_likelihood(likelihood, noise_scale=noise_scale)
    terms = {"reconstruction": of_data.reconstruction(x, x_recon), "nll": of_data.nll(x, x_recon)}
    kl = gaussian_kl(loc, log_var, prior_loc, prior_log_var)
    parts = kl_decomposition(
        z, loc, log_var, num_train=num_train, weights=weights, bank=bank, bank_mask=bank_mask,
        prior_loc=prior_loc, prior_log_var=prior_log_var, mask=mask,
    )  # fmt: skip
    excess = {"mi": alpha, "tc": beta, "dimension_kl": gamma}
    loss = terms["nll"] + kl + sum((excess[name] - 1.0) * part for name, part in parts.items())
    return loss, {**terms, "kl": kl, **parts}
