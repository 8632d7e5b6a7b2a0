"""SIGReg: codes whose every projection has the characteristic function of N(0, 1)."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from avae_jax.losses.batch import check_codes, counted, matching_loss, project
from avae_jax.numerics import promoted

_LAST, _STEPS = 3.0, 16
"""The quadrature: from 0 to `_LAST` in as many steps, by the trapezoid rule."""


def epps_pulley(z: jax.Array, directions: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
    """Measure how far the projections of codes are from N(0, 1).

    The mean over unit directions of Epps and Pulley's statistic,

    `T = n int |phi_n(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt`

    with `phi_n` the characteristic function of the n coordinates along the direction, by the
    trapezoid rule at 17 points of [0, 3], doubled for the negative half (Balestriero and LeCun
    2025, section 4.2.3; these points are their code's, their algorithm 1 takes 17 of [-5, 5]).

    Args:
      z: codes, `[batch, latent_dim]`.
      directions: `[num_directions, latent_dim]`, rows of length 1 (`unit_directions`).
      mask: `[batch]`, 0 or False on rows that only fill the batch up. None: every row counts.

    Returns:
      `[]`, without unit, >= 0, float32 (float64 if an argument is). For codes of N(0, I) it is
      `sqrt(2 pi) (1 - 1/sqrt(3)) = 1.06` on average, whatever the number of codes (1.05 over the
      17 points), and grows in proportion to that number for codes of another distribution. 0 where
      no code counts.

    Raises:
      ValueError: shapes that do not match.

    Numerics:
      Time `O(num_directions batch (latent_dim + 17))`: one sine and cosine per coordinate, whose
      multiples follow by the addition theorem.

    Example:
      >>> import jax.numpy as jnp
      >>> z = jnp.zeros((100, 2))
      >>> round(float(epps_pulley(z, jnp.array([[1.0, 0.0]]))), 1)  # all codes in one point
      40.2

    References:
      Balestriero and LeCun, 2025, [LeJEPA](https://arxiv.org/abs/2511.08544). Epps and Pulley,
      1983, A test for normality based on the empirical characteristic function.
    """
    check_codes(z, mask=mask, directions=directions)
    z, directions = promoted(z=z, directions=directions)
    z, weights, count = counted(z, mask)
    share = weights / jnp.maximum(count, 1)
    return jnp.where(count > 0, count * jnp.mean(_integrate(project(z, directions), share)), 0)


def sigreg(
    x: jax.Array,
    x_recon: jax.Array,
    z: jax.Array,
    directions: jax.Array,
    *,
    weight: ArrayLike,
    likelihood: str = "gaussian",
    mask: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the loss of an autoencoder whose codes are matched by SIGReg.

    `reconstruction + weight epps_pulley(codes)`: the regularizer of LeJEPA (Balestriero and LeCun
    2025), there beside a prediction of codes, here beside the reconstruction. It is a statistic of
    the batch, the same in every row.

    Args:
      x: data, `[batch, ...]`.
      x_recon: reconstructions, shaped like `x`; logits when `likelihood="bernoulli"`.
      z: codes of the batch, `[batch, latent_dim]`.
      directions: `[num_directions, latent_dim]`, rows of length 1, drawn again for each batch.
      weight: multiplies the statistic, >= 0.
      likelihood: "gaussian", "bernoulli", or another name in `LIKELIHOODS`.
      mask: `[batch]`, 0 or False on rows that only fill the batch up: they do not enter the
        statistic. None: every row counts.

    Returns:
      The loss `[batch]` and its terms: `reconstruction` `[batch]` and `epps_pulley` `[]`.

    Raises:
      ValueError: as `epps_pulley`.

    Example:
      >>> import jax.numpy as jnp
      >>> x, z = jnp.zeros((2, 8)), jnp.array([[0.0], [1.0]])
      >>> loss, terms = sigreg(x, x, z, jnp.ones((1, 1)), weight=10.0)
      >>> loss.shape, terms["epps_pulley"].shape
      ((2,), ())
    """
    return matching_loss(
        x,
        x_recon,
        z,
        lambda: epps_pulley(z, directions, mask=mask),
        name="epps_pulley",
        weight=weight,
        likelihood=likelihood,
    )


@jax.jit
def _integrate(projections: jax.Array, share: jax.Array) -> jax.Array:
    """Return the integral of each row's squared error, `[num_directions]`."""
    step = _LAST / _STEPS
    angle = step * projections
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    real, imaginary, total = cosine, sine, jnp.zeros_like(angle[:, 0])
    for number in range(1, _STEPS + 1):
        window = math.exp(-0.5 * (step * number) ** 2)
        error = jnp.square(jnp.sum(real * share[None, :], axis=1) - window)
        error += jnp.square(jnp.sum(imaginary * share[None, :], axis=1))
        # At 0 both characteristic functions are 1; the last point counts half.
        total += step * window * (2 if number < _STEPS else 1) * error
        real, imaginary = real * cosine - imaginary * sine, imaginary * cosine + real * sine
    return total
