"""The aggregate-posterior loss."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from avae_jax.checks import check_axes, check_positive_unless_traced, check_same_shape
from avae_jax.density import kde_log_density, log_tail_density
from avae_jax.density.tail import Tail, check_tail
from avae_jax.gaussians import standard_normal_log_prob
from avae_jax.losses.reconstruction import reconstruction_loss
from avae_jax.numerics import promoted

LOG10_WEIGHT = 1.0 / math.log(10.0)
"""Weight of the KL term, in nats, that equals the authors' KL in base-10 logarithms."""


def kl_weight(weight: float | Literal["nats", "log10"]) -> float:
    """Return the number a KL weight stands for: "nats" is 1, "log10" is 1/ln 10."""
    if isinstance(weight, str):
        named = {"nats": 1.0, "log10": LOG10_WEIGHT}
        if weight not in named:
            raise ValueError(
                f"weight must be a number, 'nats' or 'log10', got {weight!r}: give one of these"
            )
        return named[weight]
    return weight


def avae(
    x: jax.Array,
    x_recon: jax.Array,
    z: jax.Array,
    centers: jax.Array,
    *,
    bandwidth: ArrayLike,
    beta: ArrayLike,
    weight: float | Literal["nats", "log10"] = 1.0,
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
    r"""Return the aggregate VAE's loss of each example.

    ``reconstruction / beta + weight * (log q~(z) - log p(z))`` with
    `q(z) = 1/m sum_j N(z; c_j, h^2 I)` over the codes `c_j` of other training images and
    `p = N(0, I)`, unless `log_p` is given (Saha, Joshi and Whitaker 2023). The centers carry no
    gradient, as in the paper: its argument for the bandwidth holds only then.

    `tail` says what `q~` is where `q` has run out of centers:

    - "none": `q~ = q`.
    - "official": `q~ = q + eps` with `log eps = -chi2.ppf(max_cdf, l)/2 - l log h - l/2 log 2 pi`,
      the authors' code. It is part of the objective, not a guard: the unfloored loss pushes free
      codes outward at every scale from about 20 dimensions (at 10,000 centers), while with `eps`
      the push ends where `q < eps`. `avae_jax.expected_code_scale` says which scale to expect.

    Args:
      x: data, `[batch, ...]`.
      x_recon: reconstructions, shaped like `x`; logits when `likelihood="bernoulli"`.
      z: codes of the batch, `[batch, latent_dim]`.
      centers: codes the density is made of, `[num_centers, latent_dim]`.
      bandwidth: the kernel's standard deviation h > 0, in units of z.
      beta: divides the reconstruction term; > 0. The paper sets it each epoch to
        `sqrt(mean(reconstruction))` on validation data.
      weight: multiplies the KL term. A number, "nats" (1) or "log10" (1/ln 10, the authors' code,
        which takes base-10 logarithms).
      tail: "none" or "official".
      max_cdf: for `tail="official"`, the probability in (0, 1) that places `eps`. The authors use
        1 - 1e-6 (l = 8), 1 - 1e-4 (16), 1 - 1e-2 (64), 1 - 1e-1 (128).
      likelihood: "gaussian", "bernoulli", or another name in `LIKELIHOODS`.
      exclude: `[batch]` int32, the row of `centers` that holds the example's own code, -1 for
        none. A code that meets itself sees a density that is too high.
      log_weights: `[num_centers]`, logs of the centers' weights; -inf leaves a center out, as in a
        queue that is not yet full. None: equal weights.
      log_p: `[batch]`, log density of the prior at `z`, nats, normalized; None is N(0, I). Another
        prior is to be given smoothed by the kernel, `p * N(0, bandwidth^2 I)`: codes whose density
        matches that are distributed as `p`.
      axis_name: mapped axis over which the centers are sharded, as in `avae_jax.kde_log_density`.
      queries_sharded: whether the batch is sharded over `axis_name` too.
      implementation: as in `avae_jax.pairwise_lse`; None chooses by latent_dim.
      precision: as in `avae_jax.pairwise_lse`.

    Returns:
      The loss `[batch]` and its terms, each `[batch]`: `reconstruction` (not divided by beta;
      squared data units, or nats with `likelihood="bernoulli"`),
      `kl` (unweighted, `log q~ - log p`, nats), `log_q`, `log_p` (nats, normalized), and `tail`
      (1 where `q < eps`, else 0). All are float32, or float64 where an array is.

    Raises:
      TypeError: codes or centers that are integers; an `x` that is, with `likelihood="bernoulli"`.
      ValueError: shapes that do not match (a single example, as inside `jax.vmap`, is `x[None]`,
        and the others alike); several bandwidths; a `beta` that is a number <= 0; an unknown
        `tail`, `likelihood` or name of `weight`; `max_cdf` missing with `tail="official"`, given
        without it or outside (0, 1).

    Numerics:
      Time `O(batch num_centers latent_dim)`, memory `O(batch block)`. All densities stay in the
      log domain: the pull of the prior never underflows, however far a code is.

    Example:
      >>> import jax.numpy as jnp
      >>> z = jnp.zeros((2, 4))
      >>> centers = jnp.ones((100, 4))
      >>> x = jnp.zeros((2, 8, 8, 1))
      >>> loss, terms = avae(x, x, z, centers, bandwidth=0.5, beta=1.0)
      >>> loss.shape, sorted(terms)
      ((2,), ['kl', 'log_p', 'log_q', 'reconstruction', 'tail'])

    References:
      Saha, Joshi and Whitaker, 2023, [Aggregate Variational Autoencoders](
      https://arxiv.org/abs/2311.07693).
    """
    check_tail(tail, max_cdf)
    check_positive_unless_traced("beta", beta)
    check_same_shape(x=x, x_recon=x_recon)
    check_axes(
        x=("batch ...", x),
        z=("batch latent_dim", z),
        centers=("num_centers latent_dim", centers),
        bandwidth=("", bandwidth),
        exclude=("batch", exclude),
        log_weights=("num_centers", log_weights),
        log_p=("batch", log_p),
    )
    latent_dim = np.shape(z)[1]

    reconstruction = reconstruction_loss(x, x_recon, likelihood=likelihood)
    log_q = kde_log_density(
        z,
        jax.lax.stop_gradient(jnp.asarray(centers)),
        bandwidth=bandwidth,
        exclude=exclude,
        log_weights=log_weights,
        axis_name=axis_name,
        queries_sharded=queries_sharded,
        implementation=implementation,
        precision=precision,
    )
    log_q, log_prior = promoted(
        log_q=log_q, log_p=standard_normal_log_prob(z) if log_p is None else log_p
    )
    if max_cdf is None:
        log_q_tail, in_tail = log_q, jnp.zeros_like(log_q)
    else:
        log_eps = log_tail_density(latent_dim, bandwidth=bandwidth, max_cdf=max_cdf)
        log_eps = log_eps.astype(log_q.dtype)
        log_q_tail = jnp.logaddexp(log_q, log_eps)
        in_tail = (log_q < log_eps).astype(log_q.dtype)
    kl = log_q_tail - log_prior
    terms = {
        "reconstruction": reconstruction,
        "kl": kl,
        "log_q": log_q,
        "log_p": log_prior,
        "tail": in_tail,
    }
    return reconstruction / beta + kl_weight(weight) * kl, terms
