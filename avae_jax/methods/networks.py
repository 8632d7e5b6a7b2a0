"""Named Linen modules as pure functions of their variables."""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    import flax.linen as nn

Variables = dict[str, Any]
"""`{"params": {name: ...}, "batch_stats": {name: ...}}`: what each network has, by its name."""

COLLECTIONS = ("params", "batch_stats")


class Network(NamedTuple):
    """One network of a method.

    Attributes:
      module: maps `[batch, *input_shape]` to an array, `(x, *, train)`.
      input_shape: shape of one example it takes.
    """

    module: "nn.Module"
    input_shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Networks:
    """The networks of a method, each by the role it plays.

    Attributes:
      parts: name -> network.
    """

    parts: Mapping[str, Network]

    def init(self, key: jax.Array) -> Variables:
        """Draw initial variables.

        Each network's depend on its name and the key alone: another network more or less leaves
        them as they are, so that methods start from the same weights.
        """
        drawn = {
            name: part.module.init(
                jax.random.fold_in(key, zlib.crc32(name.encode())),
                jnp.zeros((2, *part.input_shape)),
                train=False,
            )
            for name, part in self.parts.items()
        }
        return {
            collection: {name: own.get(collection, {}) for name, own in drawn.items()}
            for collection in COLLECTIONS
        }

    def __call__(
        self, variables: Variables, name: str, x: jax.Array, *, train: bool
    ) -> tuple[jax.Array, Variables]:
        """Apply a network.

        Args:
          variables: of all networks.
          name: which to apply.
          x: `[batch, *input_shape]`.
          train: whether batch normalization uses the batch's statistics and updates its averages.

        Returns:
          The output, and the variables with the averages after this pass.
        """
        module = self.parts[name].module
        own = {collection: variables[collection][name] for collection in COLLECTIONS}
        if not train:
            return cast(jax.Array, module.apply(own, x, train=False)), variables
        y, updated = module.apply(own, x, train=True, mutable=["batch_stats"])
        statistics = {**variables["batch_stats"], name: updated.get("batch_stats", {})}
        return y, {**variables, "batch_stats": statistics}
