"""Seeded draws of N(0, I) as queries and centers, and their streamed row statistics."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from avae_jax.kernels.pairwise_lse import PairwiseStats, merge_stats, sharded_pairwise_lse_stats

MAX_SLAB_SIZE = 2**24
"""Most numbers of one slab on one device: 64 MiB, so that what an op copies stays small beside
the centers themselves."""

_AXIS = "centers"


class Slab(NamedTuple):
    """Some of the centers, padded to a common number of rows and split over the local devices.

    Attributes:
      centers: `[rows, latent_dim]` float32.
      log_weights: `[rows]`, 0, or -inf in rows that pad; None where nothing can be padded.
    """

    centers: jax.Array
    log_weights: jax.Array | None


def check_not_traced(name: str, *arrays: Any) -> None:
    """Refuse to search, on the host and with as many passes as it takes, while JAX traces.

    Args:
      name: the function that was called, for the message.
      *arrays: what must be known besides, also where `jax.grad` or `jax.vmap` maps it.

    Raises:
      TypeError: inside `jax.jit` and what compiles as it does.
    """
    if any(isinstance(a, Tracer) for a in (jnp.zeros(()), *arrays)):
        raise TypeError(
            f"{name} must be called outside of jax.jit, got a call inside of it: call it before, "
            "and give the traced function what it returns"
        )


def draw_queries_and_centers(
    latent_dim: int,
    num_centers: int,
    *,
    num_queries: int,
    seed: int,
    trial: int = 0,
    max_slab_size: int = MAX_SLAB_SIZE,
) -> tuple[jax.Array, list[Slab]]:
    """Draw queries and centers from N(0, I).

    The values depend on `latent_dim`, `num_centers`, `num_queries`, `seed` and `trial` only, not on
    how the centers are cut into slabs.

    Args:
      latent_dim: columns of both.
      num_centers: number of centers over all slabs.
      num_queries: number of queries.
      seed: at least 0.
      trial: number of the independent repetition.
      max_slab_size: most numbers of one slab on one device.

    Returns:
      Queries `[num_queries, latent_dim]` float32, and slabs of equal shape that hold the centers.
    """
    rng = np.random.default_rng([seed, trial, latent_dim, num_centers])
    queries = jnp.asarray(rng.standard_normal((num_queries, latent_dim), dtype=np.float32))

    def fill(rows):
        rng.standard_normal(dtype=np.float32, out=rows)

    return queries, make_slabs(latent_dim, num_centers, fill, max_slab_size=max_slab_size)


def make_slabs(
    latent_dim: int,
    num_centers: int,
    fill: Callable[[np.ndarray], None],
    *,
    max_slab_size: int = MAX_SLAB_SIZE,
) -> list[Slab]:
    """Cut centers into slabs of equal shape.

    Args:
      latent_dim: columns of the centers.
      num_centers: number of centers over all slabs.
      fill: writes the next centers into an array `[rows, latent_dim]` float32.
      max_slab_size: most numbers of one slab on one device.
    """
    mesh = _local_mesh()
    num_slabs = max(1, math.ceil(num_centers * latent_dim / (max_slab_size * mesh.size)))
    rows = math.ceil(num_centers / (num_slabs * mesh.size)) * mesh.size
    split = NamedSharding(mesh, PartitionSpec(_AXIS))
    slabs = []
    for start in range(0, num_centers, rows):
        num_real = min(rows, num_centers - start)
        centers = np.zeros((rows, latent_dim), np.float32)
        fill(centers[:num_real])
        log_weights = None
        if num_centers % rows:
            mask = np.where(np.arange(rows) < num_real, np.float32(0), -np.inf)
            log_weights = jax.device_put(mask.astype(np.float32), split)
        slabs.append(Slab(jax.device_put(centers, split), log_weights))
    return slabs


def row_stats(
    queries: jax.Array, slabs: Sequence[Slab], *, bandwidth: float, with_mean: bool = False
) -> PairwiseStats:
    """Return `pairwise_lse_stats` of the queries over all slabs.

    Args:
      queries: `[n, latent_dim]`.
      slabs: the centers.
      bandwidth: the kernel's standard deviation.
      with_mean: False leaves the softmax mean `[n, 0]`, which saves half of the arithmetic.

    Returns:
      The merged statistics, `[n]` each.
    """
    h = jnp.asarray(bandwidth, jnp.float32)
    return functools.reduce(
        merge_stats, (_slab_stats(queries, slab, h, with_mean=with_mean) for slab in slabs)
    )


@functools.partial(jax.jit, static_argnames="with_mean")
def _slab_stats(queries, slab, bandwidth, *, with_mean):
    stats = sharded_pairwise_lse_stats(
        queries,
        slab.centers,
        mesh=_local_mesh(),
        center_axis=_AXIS,
        bandwidth=bandwidth,
        log_weights=slab.log_weights,
    )
    return stats if with_mean else stats._replace(mean=stats.mean[:, :0])


@functools.cache
def _local_mesh() -> Mesh:
    devices = jax.local_devices()
    return jax.make_mesh((len(devices),), (_AXIS,), axis_types=(AxisType.Auto,), devices=devices)
