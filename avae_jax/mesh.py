"""One mesh over the devices, and how arrays lie on it."""

import jax
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
