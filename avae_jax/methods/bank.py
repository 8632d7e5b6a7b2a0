"""A bank of codes, which a density is made of."""

import dataclasses
import functools
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from avae_jax.mesh import BATCH_AXIS


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["codes", "ids", "encoded_at", "row_of", "next_row"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Bank:
    """Codes of training images.

    Attributes:
      codes: `[num_centers, latent_dim]` float32, split over the devices if their number divides
        it.
      ids: `[num_centers]` int32, which image each code came from.
      encoded_at: `[num_centers]` int32, the step at which it was encoded.
      row_of: `[num_images]` int32, the row of each image in the bank, -1 when it has none; the
        row to leave out of the density at the image's own code.
      next_row: int32, the row a queue overwrites next.
    """

    codes: jax.Array
    ids: jax.Array
    encoded_at: jax.Array
    row_of: jax.Array
    next_row: jax.Array

    def push(
        self,
        codes: jax.Array,
        ids: jax.Array,
        *,
        step: jax.Array | int,
        mesh: Mesh,
        good: jax.Array | bool = True,
    ) -> "Bank":
        """Replace the oldest rows by a batch of codes; where not `good`, change nothing.

        Nothing is written then, rather than all of it selected again: the bank can be large.
        """
        num_centers, num_images, batch = self.ids.shape[0], self.row_of.shape[0], ids.shape[0]
        rows = (self.next_row + jnp.arange(batch, dtype=jnp.int32)) % num_centers
        evicted = self.ids[rows]
        # An image that was pushed again since keeps its newer row. Where both its rows go at once
        # the minimum, unlike a second assignment, gives -1 in whatever order it is taken.
        gone = jnp.where(self.row_of[evicted] == rows, -1, self.row_of[evicted])
        # Rows outside of an array are dropped: so nothing is written after a step that failed.
        evicted, ids_at = (jnp.where(good, a, num_images) for a in (evicted, ids))
        at = jnp.where(good, rows, num_centers)
        row_of = self.row_of.at[evicted].min(gone, mode="drop").at[ids_at].set(rows, mode="drop")
        return Bank(
            codes=_write_rows(self.codes, at, codes, mesh),
            ids=self.ids.at[at].set(ids, mode="drop"),
            encoded_at=self.encoded_at.at[at].set(step, mode="drop"),
            row_of=row_of,
            next_row=jnp.where(good, (self.next_row + batch) % num_centers, self.next_row),
        )

    def staleness(self, step) -> jax.Array:
        """Return the mean age of the codes in steps, `[]`."""
        return jnp.mean((step - self.encoded_at).astype(jnp.float32))


def is_spread(mesh: Mesh, num_centers: int) -> bool:
    """Return whether the codes of a bank are split over the devices, or whole on each."""
    return mesh.size > 1 and num_centers % mesh.size == 0


def _write_rows(codes: jax.Array, rows: jax.Array, new: jax.Array, mesh: Mesh):
    """Set rows, each on the device that holds it; rows outside of the array are dropped."""
    if not is_spread(mesh, codes.shape[0]):
        return codes.at[rows].set(new, mode="drop")

    def write(own, rows, new):
        num_rows = own.shape[0]
        rows = rows - jax.lax.axis_index(BATCH_AXIS) * num_rows
        elsewhere = (rows < 0) | (rows >= num_rows)
        return own.at[jnp.where(elsewhere, num_rows, rows)].set(new, mode="drop")

    split, whole = PartitionSpec(BATCH_AXIS), PartitionSpec()
    return jax.shard_map(write, mesh=mesh, in_specs=(split, whole, whole), out_specs=split)(
        codes, rows, new
    )


def empty_bank(num_centers: int, latent_dim: int, num_images: int) -> Bank:
    """Return a bank that is still to be filled."""
    return Bank(
        codes=jnp.zeros((num_centers, latent_dim)),
        ids=jnp.zeros(num_centers, jnp.int32),
        encoded_at=jnp.zeros(num_centers, jnp.int32),
        row_of=jnp.full(num_images, -1, jnp.int32),
        next_row=jnp.zeros((), jnp.int32),
    )


def fill_bank(
    codes: jax.Array | np.ndarray, ids: np.ndarray, *, num_images: int, step: int | jax.Array
) -> Bank:
    """Fill a bank with codes `[num_centers, latent_dim]` of the images `ids`."""
    num_centers = len(ids)
    row_of = np.full(num_images, -1, np.int32)
    row_of[ids] = np.arange(num_centers, dtype=np.int32)
    return Bank(
        codes=cast(jax.Array, codes),
        ids=jnp.asarray(ids, jnp.int32),
        encoded_at=jnp.full(num_centers, step, jnp.int32),
        row_of=jnp.asarray(row_of),
        next_row=jnp.zeros((), jnp.int32),
    )
