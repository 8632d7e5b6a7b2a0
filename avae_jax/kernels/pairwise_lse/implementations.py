"""The implementations of the forward sums, by name, and the choice between them."""

import dataclasses
import functools
import importlib
from collections.abc import Callable

from avae_jax.kernels.pairwise_lse import stream
from avae_jax.kernels.pairwise_lse.forms import DIFFERENCE, MATRIX, Form
from avae_jax.kernels.pairwise_lse.stats import Sums

# Up to here the difference form is no slower than the matrix form, and more accurate.
_MAX_DIFFERENCE_DIMS = 8


@dataclasses.dataclass(frozen=True)
class Implementation:
    """One way to compute the kernel on the arrays of one device.

    Attributes:
      sums: `(x [n, d], y [m, d], bandwidths [k], log_weights [m] | None, exclude [n] | None,
        shift [d], *, mean, moments, precision) -> Sums`, as `stream.sums`.
      form: how the second pass, over the centers, computes its logits.
      unavailable: () -> why it cannot run on this machine, or None if it can.
    """

    sums: Callable[..., Sums]
    form: Form
    unavailable: Callable[[], str | None] = lambda: None


def _pallas(name: str) -> Implementation:
    # Imported when asked for: Pallas takes longer to import than the rest of the kernel.
    def module():
        return importlib.import_module(f"avae_jax.kernels.pairwise_lse.{name}")

    return Implementation(
        sums=lambda *args, **options: module().sums(*args, **options),
        form=MATRIX,
        unavailable=lambda: module().unavailable(),
    )


IMPLEMENTATIONS = {
    "matrix": Implementation(functools.partial(stream.sums, MATRIX), MATRIX),
    "difference": Implementation(functools.partial(stream.sums, DIFFERENCE), DIFFERENCE),
    # Not chosen by themselves: neither has run on the hardware it is for.
    "pallas_tpu": _pallas("pallas_tpu"),
    "pallas_gpu": _pallas("pallas_gpu"),
}


def choose(name: str | None, num_dims: int) -> Implementation:
    """Return the implementation asked for, or the fastest measured one for a dimension.

    Args:
      name: a key of `IMPLEMENTATIONS`, or None to choose.
      num_dims: dimension of the points.

    Returns:
      The implementation.

    Raises:
      ValueError: no implementation has this name.
      NotImplementedError: it cannot run on this machine; says why.
    """
    if name is None:
        name = "difference" if num_dims <= _MAX_DIFFERENCE_DIMS else "matrix"
    if name not in IMPLEMENTATIONS:
        raise ValueError(
            f"implementation must be one of {sorted(IMPLEMENTATIONS)} or None, got {name!r}: leave "
            "it out, and the fastest one for the dimension is taken."
        )
    chosen = IMPLEMENTATIONS[name]
    reason = chosen.unavailable()
    if reason is not None:
        raise NotImplementedError(f"implementation {name!r} cannot run here: {reason}")
    return chosen
