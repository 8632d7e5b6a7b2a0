"""One mesh over the devices, and how arrays lie on it."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

BATCH_AXIS = "data"


def make_mesh(num_devices: int | None = None) -> Mesh:
    """Return a mesh of all local devices, or of the first `num_devices`, along the batch axis."""
    devices = jax.local_devices()[:num_devices]
    return jax.make_mesh(
        (len(devices),), (BATCH_AXIS,), axis_types=(AxisType.Auto,), devices=devices
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def split_rows(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Return the sharding of an array whose `axis` is split over the devices."""
    return NamedSharding(mesh, PartitionSpec(*([None] * axis), BATCH_AXIS))


def spreads_bank(mesh: Mesh, num_centers: int) -> bool:
    """Return whether the codes of the density are split over the devices, or whole on each."""
    return mesh.size > 1 and num_centers % mesh.size == 0


def pad_rows(rows: np.ndarray, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Fill an index array up to `num_rows` by repeating its first entry.

    Returns:
      The padded array, `[num_rows]`, and a float32 mask that is 1 on the entries that count.
    """
    mask = np.zeros(num_rows, np.float32)
    mask[: len(rows)] = 1
    return np.concatenate([rows, np.full(num_rows - len(rows), rows[0], rows.dtype)]), mask
