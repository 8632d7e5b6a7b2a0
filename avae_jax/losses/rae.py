"""The regularized autoencoder's loss, and how steep a decoder is."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from avae_jax.checks import check_axes, check_same_shape
from avae_jax.losses.reconstruction import reconstruction_loss
from avae_jax.numerics import promoted


def rae(
    x: jax.Array,
    x_recon: jax.Array,
    z: jax.Array,
    *,
    code_weight: ArrayLike,
    penalty: ArrayLike = 0.0,
    weight: ArrayLike = 0.0,
    likelihood: str = "gaussian",
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the regularized autoencoder's loss of each example.

    `reconstruction + code_weight 1/2 |z|^2 + weight penalty` (Ghosh et al. 2020, section 3), with a
    penalty that holds the decoder smooth: `l2_penalty` of its parameters or `gradient_penalty` of
    its output; none where its layers are bounded in themselves.

    The authors' code takes the squared error's mean over the `D` pixels, summed over the channels,
    and `mean_j z_j^2` over the `d` dimensions: their weights `beta` of the codes and `lambda` of
    the parameters are `code_weight = 2 D beta / d` and `weight = D lambda` here. For MNIST at
    32x32, d = 16: 1e-4 is .0128, 1e-7 is 1.02e-4. Their gradient penalty, the mean over the batch
    and the dimensions of `(d/dz_j sum_p xhat_p^2)^2`, is another quantity than the paper's
    `|d xhat / d z|^2` and has no such translation.

    Args:
      x: data, `[batch, ...]`.
      x_recon: reconstructions, shaped like `x`; logits when `likelihood="bernoulli"`.
      z: codes behind `x_recon`, `[batch, latent_dim]`.
      code_weight: multiplies half the codes' squared length, >= 0.
      penalty: of the decoder, `[batch]` or `[]`.
      weight: multiplies the penalty, >= 0.
      likelihood: "gaussian", "bernoulli", or another name in `LIKELIHOODS`.

    Returns:
      The loss `[batch]`, and its terms: `reconstruction` and `code_norm`, half the squared length
      of the code, `[batch]`; `penalty` as it was given. All are float32, or float64 where an array
      is.

    Raises:
      TypeError: `x` holds integers with `likelihood="bernoulli"`.
      ValueError: shapes that do not match (a single example, as inside `jax.vmap`, is `x[None]`,
        and the others alike), or an unknown likelihood.

    Example:
      >>> import jax.numpy as jnp
      >>> x, z = jnp.zeros((1, 8)), jnp.ones((1, 2))
      >>> rae(x, x, z, code_weight=0.5, penalty=3.0, weight=1.0)[0].tolist()
      [3.5]

    References:
      Ghosh et al., 2020, [From Variational to Deterministic Autoencoders](
      https://arxiv.org/abs/1903.12436).
    """
    check_same_shape(x=x, x_recon=x_recon)
    of_penalty = "batch" if np.ndim(penalty) else ""
    check_axes(
        x=("batch ...", x), z=("batch latent_dim", z), penalty=(of_penalty, penalty)
    )  # fmt: skip
    reconstruction = reconstruction_loss(x, x_recon, likelihood=likelihood)
    reconstruction, z, found = promoted(reconstruction=reconstruction, z=z, penalty=penalty)
    code_norm = 0.5 * jnp.square(z).sum(axis=1)
    loss = reconstruction + code_weight * code_norm + weight * found
    return loss, {"reconstruction": reconstruction, "code_norm": code_norm, "penalty": found}


def l2_penalty(params: Any) -> jax.Array:
    """Return the sum of the squares of parameters, `[]` (Ghosh et al. 2020, section 3.1).

    The paper takes all of the decoder's parameters, its code the kernels of the transposed
    convolutions alone.

    Args:
      params: a tree of arrays, at least one.

    Example:
      >>> import jax.numpy as jnp
      >>> float(l2_penalty({"kernel": jnp.full((2, 2), 2.0), "bias": jnp.zeros(2)}))
      16.0
    """
    leaves = promoted(**{str(i): leaf for i, leaf in enumerate(jax.tree.leaves(params))})
    return jnp.stack([jnp.square(leaf).sum() for leaf in leaves]).sum()


def gradient_penalty(
    decode: Callable[[jax.Array], jax.Array], z: jax.Array, *, key: jax.Array
) -> jax.Array:
    """Estimate the squared Frobenius norm of the decoder's Jacobian at each code.

    `|J^T v|^2` with signs `v` drawn per pixel, whose mean is `|J|_F^2`, the sum of the squared
    derivatives of all pixels in all dimensions (Hutchinson 1989): the paper's gradient penalty, at
    the cost of one more pass back through the decoder instead of one per dimension.

    Args:
      decode: maps codes `[batch, latent_dim]` to images `[batch, ...]`. Where rows depend on each
        other, as through batch normalization in training, it is what a code does to the whole
        batch that counts.
      z: `[batch, latent_dim]`.
      key: JAX random key, for the signs.

    Returns:
      `[batch]`, squared units of the output over those of the codes, differentiable in what
      `decode` depends on. Unbiased.

    Raises:
      ValueError: `z` is not of rank 2.

    Example:
      >>> import jax
      >>> penalty = gradient_penalty(lambda z: 3.0 * z, jnp.ones((2, 4)), key=jax.random.key(0))
      >>> penalty.tolist()
      [36.0, 36.0]
    """
    check_axes(z=("batch latent_dim", z))
    (z,) = promoted(z=z)
    x, pull_back = jax.vjp(decode, z)
    return pulled_norm(pull_back, x, key)


def pulled_norm(pull_back: Callable, x: jax.Array, key: jax.Array) -> jax.Array:
    """Return `|J^T v|^2` of each row, for the pull-back of `x` and random signs."""
    (pulled,) = pull_back(jax.random.rademacher(key, x.shape, x.dtype))
    return jnp.square(pulled).sum(axis=1)
