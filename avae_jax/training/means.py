"""Means of a step's metrics over an epoch, kept as sums and counts on the device."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["totals", "counts"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class Means:
    """Sums and counts by name.

    Attributes:
      totals: `[]` sums of the values that count, in their dtype.
      counts: `[]` int32, how many they are.
    """

    totals: dict[str, jax.Array]
    counts: dict[str, jax.Array]

    def merge(self, other: "Means") -> "Means":
        """Return the sums and counts of both, which have the same names."""
        add = functools.partial(jax.tree.map, jnp.add)
        return Means(add(self.totals, other.totals), add(self.counts, other.counts))

    def compute(self) -> dict[str, jax.Array]:
        """Return the means; NaN where nothing counts."""
        return {name: total / self.counts[name] for name, total in self.totals.items()}


def masked_means(values: Mapping[str, jax.Array], masks: Mapping[str, jax.Array | None]) -> Means:
    """Start means from one step's values.

    Args:
      values: `[batch]` by name.
      masks: `[batch]` by name, 0 where a value does not count, whatever it is; None counts all.

    Returns:
      Means of these values alone.
    """
    totals, counts = {}, {}
    for name, value in values.items():
        mask = masks[name]
        counted = jnp.ones(value.shape, bool) if mask is None else mask != 0
        totals[name] = jnp.sum(jnp.where(counted, value, 0))
        counts[name] = jnp.sum(counted, dtype=jnp.int32)
    return Means(totals, counts)
