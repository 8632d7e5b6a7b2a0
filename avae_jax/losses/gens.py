"""The generative encoding network's loss."""

import jax
from jax.typing import ArrayLike

from avae_jax.density.tail import Tail
from avae_jax.losses.avae import avae


def gens(
    x: jax.Array,
    x_recon: jax.Array,
    z: jax.Array,
    centers: jax.Array,
    *,
    bandwidth: ArrayLike,
    weight: ArrayLike,
    tail: Tail = "none",
    max_cdf: float | jax.Array | None = None,
    likelihood: str = "gaussian",
    exclude: jax.Array | None = None,
    log_weights: jax.Array | None = None,
    log_p: jax.Array | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    queries_sharded: bool = False,
    implementation: str | None = None,
    precision: str = "highest",
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the generative encoding network's loss of each example.

    `reconstruction + weight log (q~(z) / (q~(z) + p(z)))` with the density `q~` of other codes that
    `avae` takes: the part of the Jensen-Shannon divergence of `q` and `p` that reaches the encoder,
    as the centers carry no gradient (Saha, Elhabian and Whitaker 2022, eq. 2 to 4, who leave out
    the constants). With `kl = log q~ - log p` it is `log sigmoid(kl)`.

    Its gradient in a code is that of the AVAE's KL times `sigmoid(log p - log q~)`, a weight
    between 0 and 1: the codes that match are the same, and a code where there are many others but
    the prior is not, is not pulled at all. Codes must therefore start near the prior.

    Args:
      x: data, `[batch, ...]`.
      x_recon: reconstructions, shaped like `x`; logits when `likelihood="bernoulli"`.
      z: codes of the batch, `[batch, latent_dim]`.
      centers: codes the density is made of, `[num_centers, latent_dim]`.
      bandwidth: the kernel's standard deviation h > 0, in units of z; below 1 for a prior N(0, I),
        which codes distributed as N(0, (1 - h^2) I) then match.
      weight: multiplies the divergence, >= 0.
      tail: as in `avae`, and the others likewise.
      max_cdf: for `tail="official"`, the probability in (0, 1) that places the floor.
      likelihood: "gaussian", "bernoulli", or another name in `LIKELIHOODS`.
      exclude: `[batch]` int32, the row of `centers` with the example's own code, -1 for none.
      log_weights: `[num_centers]`, logs of the centers' weights.
      log_p: `[batch]`, log density of the prior at `z`, nats, normalized; None is N(0, I).
      axis_name: mapped axis over which the centers are sharded.
      queries_sharded: whether the batch is sharded over `axis_name` too.
      implementation: of the kernel; None chooses by latent_dim.
      precision: of its products.

    Returns:
      The loss `[batch]`, and the terms of `avae` with `divergence` (nats, unweighted, below 0; -log
      2 where the densities are equal).

    Raises:
      TypeError: as `avae`.
      ValueError: as `avae`.

    Example:
      >>> import jax.numpy as jnp
      >>> z, centers, x = jnp.zeros((2, 4)), jnp.zeros((100, 4)), jnp.zeros((2, 8))
      >>> loss, terms = gens(x, x, z, centers, bandwidth=1.0, weight=1.0)
      >>> print(loss.round(4))  # both densities are N(0, I): -log 2
      [-0.6931 -0.6931]

    References:
      Saha, Elhabian and Whitaker, 2022, [GENs: generative encoding networks](
      https://arxiv.org/abs/2010.15283), Machine Learning 111:4003.
    """
    _, terms = avae(
        x,
        x_recon,
        z,
        centers,
        bandwidth=bandwidth,
        beta=1.0,
        tail=tail,
        max_cdf=max_cdf,
        likelihood=likelihood,
        exclude=exclude,
        log_weights=log_weights,
        log_p=log_p,
        axis_name=axis_name,
        queries_sharded=queries_sharded,
        implementation=implementation,
        precision=precision,
    )
    divergence = jax.nn.log_sigmoid(terms["kl"])
    loss = terms["reconstruction"] + weight * divergence
    return loss, {**terms, "divergence": divergence}
