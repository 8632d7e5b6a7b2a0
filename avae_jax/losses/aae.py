"""The adversarial autoencoder's loss."""

import jax
from jax.typing import ArrayLike

from avae_jax.checks import check_axes
from avae_jax.losses.reconstruction import reconstruction_loss
from avae_jax.numerics import promoted


def aae(
    x: jax.Array,
    x_recon: jax.Array,
    critic_logits: jax.Array,
    *,
    weight: ArrayLike,
    likelihood: str = "gaussian",
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the adversarial autoencoder's loss of each example, which is WAE-GAN's.

    `reconstruction + weight softplus(-D(z))`, with the logit `D` of a critic that tells draws of
    the prior, where it is to be positive, from codes (Makhzani et al. 2015; Tolstikhin et al. 2018,
    algorithm 1). The critic descends `critic_loss(D(y), D(z))` with draws `y` of the prior.

    The encoder's term is the one that does not saturate, as in both papers' code: its gradient
    stays where the critic is sure. With the best critic, `D = log p - log q`, it is
    `sigmoid(-D) (grad log q - grad log p)`, which is 0 where the codes match.

    Args:
      x: data, `[batch, ...]`.
      x_recon: reconstructions, shaped like `x`; logits when `likelihood="bernoulli"`.
      critic_logits: the critic's logits, `[batch]`, at the codes behind `x_recon`. Their gradient
        must reach the encoder and not the critic.
      weight: multiplies the adversarial term, >= 0. The papers scale the summed squared error by
        0.05 instead: their weight w is w / 0.05 here.
      likelihood: "gaussian", "bernoulli", or another name in `LIKELIHOODS`.

    Returns:
      The loss `[batch]`, and its terms, each `[batch]`: `reconstruction` (squared data units, or
      nats) and `adversarial` (nats, unweighted; log 2 for a critic that knows nothing). All are
      float32, or float64 where an array is.

    Raises:
      TypeError: `x` holds integers with `likelihood="bernoulli"`.
      ValueError: shapes that do not match (a single example, as inside `jax.vmap`, is `x[None]`,
        and the others alike), or an unknown likelihood.

    Numerics:
      Finite for logits of any size, with a gradient between -1 and 0 in them.

    Example:
      >>> import jax.numpy as jnp
      >>> x, logits = jnp.zeros((1, 8)), jnp.zeros(1)
      >>> loss, terms = aae(x, x, logits, weight=20.0)
      >>> round(float(loss[0]), 4), round(float(terms["adversarial"][0]), 4)
      (13.8629, 0.6931)

    References:
      Makhzani et al., 2015, [Adversarial Autoencoders](https://arxiv.org/abs/1511.05644);
      Tolstikhin et al., 2018, [Wasserstein Auto-Encoders](https://arxiv.org/abs/1711.01558).
    """
    check_axes(x=("batch ...", x), critic_logits=("batch", critic_logits))
    (critic_logits,) = promoted(critic_logits=critic_logits)
    reconstruction = reconstruction_loss(x, x_recon, likelihood=likelihood)
    adversarial = jax.nn.softplus(-critic_logits)
    reconstruction, adversarial = promoted(reconstruction=reconstruction, adversarial=adversarial)
    terms = {"reconstruction": reconstruction, "adversarial": adversarial}
    return reconstruction + weight * adversarial, terms
