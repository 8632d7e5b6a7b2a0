"""The implementations of the forward sums, by name, and the choice between them."""

import dataclasses
import functools
import importlib
from collections.abc import Callable

from avae_jax.kernels.pairwise_lse import stream
from avae_jax.kernels.pairwise_lse.forms import DIFFERENCE, MATRIX, RARE_DIFFERENCE, Form
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
      narrow: what takes its place where the bandwidth is so narrow for the points that a logit
        would be wrong by more than a nat, or None.
      unavailable: () -> why it cannot run on this machine, or None if it can.
      is_dense: whether it is plain JAX, `dense.stats`, and the rest is not used.
    """

    sums: Callable[..., Sums]
    form: Form
    narrow: "Implementation | None" = None
    unavailable: Callable[[], str | None] = lambda: None
    is_dense: bool = False


def _streamed(form: Form) -> Implementation:
    return Implementation(functools.partial(stream.sums, form), form)


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
    "matrix": _streamed(MATRIX),
    "difference": _streamed(DIFFERENCE),
    # Not chosen by themselves: neither has run on the hardware it is for.
    "pallas_tpu": _pallas("pallas_tpu"),
    "pallas_gpu": _pallas("pallas_gpu"),
}


# What is chosen above `_MAX_DIFFERENCE_DIMS`.
_BY_SCALE = dataclasses.replace(IMPLEMENTATIONS["matrix"], narrow=_streamed(RARE_DIFFERENCE))

_DENSE = dataclasses.replace(IMPLEMENTATIONS["matrix"], is_dense=True)


def choose(name: str | None, num_dims: int) -> Implementation:
    """Return the implementation asked for, or the fastest measured one for a dimension.

    Args:
      name: a key of `IMPLEMENTATIONS`, "dense", or None to choose.
      num_dims: dimension of the points.

    Returns:
      The implementation.

    Raises:
      ValueError: no implementation has this name.
      NotImplementedError: it cannot run on this machine; says why.
    """
    if name is None and num_dims > _MAX_DIFFERENCE_DIMS:
        return _BY_SCALE
    if name is None:
        name = "difference"
    if name == "dense":
        return _DENSE
    if name not in IMPLEMENTATIONS:
        known = sorted([*IMPLEMENTATIONS, "dense"])
        raise ValueError(
            f"implementation must be one of {known} or None, got {name!r}: leave "
            "it out, and the fastest one for the dimension is taken."
        )
    chosen = IMPLEMENTATIONS[name]
    reason = chosen.unavailable()
    if reason is not None:
        raise NotImplementedError(f"implementation {name!r} cannot run here: {reason}")
    return chosen
