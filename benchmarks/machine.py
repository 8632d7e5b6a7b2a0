"""Measures what the machine can do at best: the rates that the floor of a kernel is made of.

    python benchmarks/machine.py

All through XLA on the default device, in device-side loops, each the best of several sizes and
repeats:

- matmul_f32: flop/s of a large square float32 product at `Precision.HIGHEST`; a multiply-add is 2.
- matmul_bf16: flop/s of the same in bfloat16 with float32 sums, one pass.
- products (`measure_products`): flop/s of the same as the kernel takes it, per accuracy class.
- exp: exponentials/s over an array that stays in the cache: of XLA's `exp` and `exp2`, of the
  kernel's polynomial, and of `exp` in a sum, which on a CPU has a loop of its own, the fastest.
- multiply_add: multiply-adds/s on the vector units over an array that stays in the cache.
- copy: bytes/s read plus bytes/s written over an array far larger than the cache.
"""

import argparse
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from avae_jax.kernels.pairwise_lse.exponential import cpu_exp
from avae_jax.kernels.pairwise_lse.precision import PRECISIONS, matmul

# Per platform: sides of the matrices, elements of the arrays in cache and of the copied one.
# "tiny" only shows that the script works.
_SIZES = {
    "cpu": ((1024, 2048), (2**16, 2**17, 2**18, 2**19, 2**20), 2**26),
    "gpu": ((4096, 8192), (2**20, 2**22, 2**23, 2**24), 2**29),
    "tpu": ((4096, 8192), (2**18, 2**20, 2**21, 2**22), 2**28),
    "tiny": ((256,), (2**14,), 2**18),
}

# Operations on an element between its load and its store.
_CHAINS = (1, 8)

# A loop takes about so long and at least so many steps, which hides its entry: the copy of its
# argument, and on a CPU the first touch of that memory. The best of the repeats counts.
_LOOP_SECONDS = 0.02
_MIN_STEPS = 32
_REPEATS = 5


class Ceilings(NamedTuple):
    """The machine's best rates per second; the module's docstring says how they are measured."""

    matmul_f32: float
    matmul_bf16: float
    exp: float
    multiply_add: float
    copy: float


def measure_ceilings(*, tiny: bool = False) -> Ceilings:
    """Measure the rates; takes some ten seconds on a CPU, less with `tiny` arrays."""
    sides, cached, copied = _sizes(tiny)
    return Ceilings(
        matmul_f32=max(_matmul(side, jnp.float32, _highest) for side in sides),
        matmul_bf16=max(_matmul(side, jnp.bfloat16, _highest) for side in sides),
        exp=max(
            *(_looped(_exponentials(exp), cached) for exp in (jnp.exp, jnp.exp2, cpu_exp)),
            *(_summed_exponentials(size) for size in cached),
        ),
        multiply_add=_looped(_multiply_adds, cached),
        copy=8 * _looped(_multiply_adds, (copied,), chains=(1,)),
    )


def measure_products(*, tiny: bool = False) -> dict[str, float]:
    """Measure the float32 product of each accuracy class, in flop/s of the product itself."""
    sides, _, _ = _sizes(tiny)
    return {
        name: max(
            _matmul(side, jnp.float32, functools.partial(matmul, precision=name)) for side in sides
        )
        for name in PRECISIONS
    }


def _sizes(tiny: bool):
    return _SIZES["tiny"] if tiny else _SIZES.get(jax.default_backend(), _SIZES["gpu"])


def _matmul(side: int, dtype, product: Callable) -> float:
    a = jax.random.normal(jax.random.key(0), (side, side), dtype)
    return 2 * side**3 / _best_seconds(product, a, a)


def _highest(a, b):
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32)


def _exponentials(exp) -> Callable:
    def chain(z, half, length):
        del half
        for _ in range(length):
            z = exp(-z)  # Tends to a fixed point: no overflow, nothing subnormal.
        return z

    return chain


def _summed_exponentials(size: int) -> float:
    """Return the exponentials per second of sum(exp(z - level)) down the columns of a square."""
    rows = 2 ** (size.bit_length() // 2)
    z = jnp.full((rows, size // rows), -0.5, jnp.float32)

    def loop(z, level, steps):
        # Each level depends on the one before it: no step can be left out.
        def step(_, level):
            return 1e-30 * jnp.sum(jnp.exp(z - level), axis=0)

        return lax.fori_loop(0, steps, step, level)

    return size * _steps_per_second(loop, z, jnp.zeros(z.shape[1], jnp.float32))


def _multiply_adds(z, half, length):
    # Traced factors: the compiler cannot fold the chain.
    for _ in range(length):
        z = z * half + half
    return z


def _looped(chain: Callable, sizes, chains=_CHAINS) -> float:
    """Return the operations per second of the fastest loop."""
    return max(_rate(chain, size, length) for size in sizes for length in chains)


def _rate(chain: Callable, size: int, length: int) -> float:
    z, half = jnp.full((size,), 0.5, jnp.float32), jnp.float32(0.5)

    def loop(z, half, steps):
        return lax.fori_loop(0, steps, lambda _, z: chain(z, half, length), z)

    return size * length * _steps_per_second(loop, z, half)


def _steps_per_second(loop: Callable, *args) -> float:
    """Return how often per second a loop of (*args, number of steps) takes a step."""
    compiled = jax.jit(loop).lower(*args, 1).compile()
    _seconds(compiled, *args, _MIN_STEPS)
    seconds = _seconds(compiled, *args, _MIN_STEPS) / _MIN_STEPS
    steps = max(_MIN_STEPS, round(_LOOP_SECONDS / seconds))
    return steps / min(_seconds(compiled, *args, steps) for _ in range(_REPEATS))


def _best_seconds(function: Callable, *args) -> float:
    compiled = jax.jit(function).lower(*args).compile()
    jax.block_until_ready(compiled(*args))
    return min(_seconds(compiled, *args) for _ in range(_REPEATS))


def _seconds(function: Callable, *args: Any) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def describe(ceilings: Ceilings) -> Iterator[str]:
    """Yield a line for every rate."""
    units = {"matmul_f32": "Gflop/s", "matmul_bf16": "Gflop/s", "exp": "Gexp/s"}
    units |= {"multiply_add": "Gfma/s", "copy": "GB/s"}
    for name, rate in ceilings._asdict().items():
        yield f"{name:<13} {rate / 1e9:>10.1f} {units[name]}"


def main(argv=None) -> None:
    """Measure and print."""
    argparse.ArgumentParser(description="Measure the machine's best rates.").parse_args(argv)
    print("\n".join(describe(measure_ceilings())))


if __name__ == "__main__":
    main()
