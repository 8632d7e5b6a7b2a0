"""The accuracy classes, and the matrix products that give them on each platform."""

import jax
import jax.numpy as jnp
from jax.lax import DotAlgorithmPreset, Precision

from avae_jax.kernels.pairwise_lse import platforms

PRECISIONS = ("highest", "high", "fast")

# So many products are added up in one chain of float32 additions: in longer ones roundings of one
# sign exceed the error of a class. On the CPU d = 512 takes 1.1 times as long for it; a TPU's
# matrix unit starts a new chain there anyway.
LONGEST_CHAIN = 256

# Bfloat16 products with float32 sums: six reach float32, three about 16 bits, one 8. A GPU's own
# float32 is several times slower than six of them, and its plain TF32 is wrong by 0.3 to 5 nats at
# usual bandwidths. A CPU has nothing faster than float32.
_BFLOAT16_PASSES = {
    "highest": DotAlgorithmPreset.BF16_BF16_F32_X6,
    "high": DotAlgorithmPreset.BF16_BF16_F32_X3,
    "fast": DotAlgorithmPreset.BF16_BF16_F32,
}
_PRODUCTS = {
    "cpu": dict.fromkeys(PRECISIONS, Precision.HIGHEST),
    "gpu": _BFLOAT16_PASSES,
    "tpu": _BFLOAT16_PASSES,
}


# The most that a logit is wrong by, in units of its largest term.
_LOGIT_ERROR = {"highest": 2.0**-20, "high": 2.0**-15, "fast": 2.0**-8}


def logit_error(precision: str, dtype) -> float:
    """Return the most that a logit of the matrix form is wrong by, in units of its largest term."""
    if dtype == jnp.float64:
        return 2.0**-49
    exact = _products()[precision] == Precision.HIGHEST
    return _LOGIT_ERROR["highest" if exact else precision]


def matmul(a: jax.Array, b: jax.Array, precision: str) -> jax.Array:
    """Multiply `[p, d]` and `[d, q]` float32 matrices in an accuracy class, float64 ones exactly.

    Args:
      a: [p, d].
      b: [d, q].
      precision: "highest", "high" or "fast".

    Returns:
      [p, q] in the type of a and b.
    """
    product = _products()[precision]
    if a.dtype == jnp.float64:
        product = Precision.HIGHEST
    return jnp.matmul(a, b, precision=product)


def _products() -> dict:
    platform = platforms.platform()
    if platform == "gpu":
        # "7.5" on NVIDIA's last ones without bfloat16, "gfx90a" on AMD's.
        capability = str(getattr(platforms.device(), "compute_capability", "")).split(".")[0]
        if capability.isdecimal() and int(capability) < 8:
            return dict.fromkeys(PRECISIONS, Precision.HIGHEST)
    return _PRODUCTS.get(platform, _BFLOAT16_PASSES)
