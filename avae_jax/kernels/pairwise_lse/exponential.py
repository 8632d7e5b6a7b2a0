"""The exponential of the streamed implementations: on a CPU a polynomial, elsewhere XLA's own."""

import functools
import math

import jax
import jax.numpy as jnp

from avae_jax.kernels.pairwise_lse import platforms

_LOG2_E = math.log2(math.e)

# ln 2 in two parts; the first has so few bits that a product with an exponent is exact.
_LN2_HIGH = 355 / 512
_LN2_LOW = math.log(2) - _LN2_HIGH

# e^f = 1 + c_1 f + ... + c_5 f^5 for |f| <= ln(2) / 2: the least largest relative error, 9.1e-8, of
# all such polynomials (a linear program over 2,001 Chebyshev points).
_POLYNOMIAL = (0.999999707, 0.499991495, 0.166676362, 0.041897929, 0.008290315)

# Added to a float32 of at most 2^22, 1.5 * 2^23 leaves the nearest integer in the lowest bits.
_ROUNDER = 1.5 * 2.0**23
_ROUNDER_BITS = 0x4B400000

_MANTISSA_BITS = 23

# Exponents that the bits can hold: no infinity, nothing subnormal.
_LOWEST, _HIGHEST = -87.0, 88.0


def polynomial_exp(z: jax.Array) -> jax.Array:
    """Compute exp(z) by a polynomial and the bits of the exponent.

    exp(z) = 2^i e^f with i the integer nearest to z log2(e), so that |f| <= ln(2) / 2.

    Args:
      z: float32.

    Returns:
      float32: 0 below -87, exp(88) above 88.

    Numerics:
      Relative error at most 2^-22. NaN stays NaN. Fifteen instructions, all of which vectorize.
    """
    bounded = jnp.minimum(z, _HIGHEST)
    # XLA takes (a + b) - b for a: the integer goes through its bits.
    rounded = bounded * jnp.float32(_LOG2_E) + jnp.float32(_ROUNDER)
    whole = jax.lax.bitcast_convert_type(rounded, jnp.int32) - jnp.int32(_ROUNDER_BITS)
    exponent = whole.astype(jnp.float32)
    fraction = bounded - exponent * jnp.float32(_LN2_HIGH) - exponent * jnp.float32(_LN2_LOW)
    mantissa = jnp.float32(_POLYNOMIAL[-1])
    for coefficient in (*_POLYNOMIAL[-2::-1], 1.0):
        mantissa = mantissa * fraction + jnp.float32(coefficient)
    bits = jax.lax.bitcast_convert_type(mantissa, jnp.int32) + (whole << _MANTISSA_BITS)
    return jnp.where(z < _LOWEST, 0.0, jax.lax.bitcast_convert_type(bits, jnp.float32))


def cpu_exp(z: jax.Array) -> jax.Array:
    """Compute exp(z) the fastest way where XLA itself writes the loop.

    Args:
      z: floating.

    Returns:
      exp(z), in float32 on a CPU to the accuracy of `polynomial_exp`.
    """
    if z.dtype == jnp.float32 and platforms.platform() == "cpu":
        return polynomial_exp(z)
    return jnp.exp(z)


def fuses_sums(dtype) -> bool:
    """Return whether XLA makes one loop of a matrix product, its exponentials and their sums.

    On a CPU it hands all three to YNNPACK, which stores no tile of them and has an exponential of
    its own; but not where flags or the processor keep it from that. So the compiler is asked, once,
    which takes a tenth of a second.
    """
    # On a machine whose default is another device a CPU is not asked.
    return jax.default_backend() == "cpu" and _cpu_fuses_sums(dtype)


@functools.cache
def _cpu_fuses_sums(dtype) -> bool:
    x, y = (jax.ShapeDtypeStruct((rows, 16), dtype) for rows in (64, 4096))

    def sums(x, y):
        product = jnp.matmul(y, x.T, precision=jax.lax.Precision.HIGHEST)
        return jnp.sum(jnp.exp(product + y[:, :1] - x[:, 0][None, :]), axis=0)

    memory = jax.jit(sums).lower(x, y).compile().memory_analysis()
    return memory is not None and memory.temp_size_in_bytes < x.shape[0] * y.shape[0]
