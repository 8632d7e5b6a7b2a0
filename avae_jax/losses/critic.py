"""The loss of a critic that tells codes from draws they are to be distributed as."""

import jax
import jax.numpy as jnp

from avae_jax.checks import check_axes
from avae_jax.numerics import promoted


def critic_loss(
    logits_positive: jax.Array, logits_negative: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the cross-entropy of a critic.

    `1/2 softplus(-a) + 1/2 softplus(b)` with the logits `a` of rows that it is to know as positive,
    distributed as `p`, and `b` of the others, distributed as `q` (Goodfellow et al. 2014, eq. 1).
    The best critic's logit is `log p(z) - log q(z)`. In a FactorVAE codes are positive and shuffled
    codes negative (Kim and Mnih 2018, algorithm 2); in an adversarial autoencoder draws of the
    prior are positive and codes negative (Makhzani et al. 2015).

    Args:
      logits_positive: `[batch]`.
      logits_negative: `[batch]`. Neither may carry a gradient to the encoder: stop it at the codes.

    Returns:
      The loss `[batch]`, nats (log 2 for a critic that knows nothing), and its terms, `[batch]`:
      `critic_accuracy`, the share of the two that it judges right, a logit of 0 counting half.

    Raises:
      ValueError: the shapes differ or are not `[batch]`; one pair alone, as inside `jax.vmap`, is
        `logits_positive[None]`.

    Example:
      >>> import jax.numpy as jnp
      >>> loss, terms = critic_loss(jnp.array([9.0, 0.0]), jnp.array([-9.0, 0.0]))
      >>> terms["critic_accuracy"].tolist()
      [1.0, 0.5]

    References:
      Goodfellow et al., 2014, [Generative Adversarial Nets](https://arxiv.org/abs/1406.2661).
    """
    check_axes(
        logits_positive=("batch", logits_positive), logits_negative=("batch", logits_negative)
    )
    positive, negative = promoted(logits_positive=logits_positive, logits_negative=logits_negative)
    loss = 0.5 * (jax.nn.softplus(-positive) + jax.nn.softplus(negative))
    accuracy = 0.5 + 0.25 * (jnp.sign(positive) - jnp.sign(negative))
    return loss, {"critic_accuracy": accuracy}
