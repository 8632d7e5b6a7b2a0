"""The tile sizes of the streamed implementations: from a CPU's caches, from a table elsewhere."""

import functools
import json
import os
from pathlib import Path
from typing import Any

from avae_jax.kernels.pairwise_lse import platforms

_TABLE = Path(__file__).with_name("tiles.json")

_MIB = 2**20

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
"""Where Linux describes the first core's caches."""

# What a CPU is taken to have where the system does not tell, as on macOS and Windows.
_LEVEL_2_BYTES, _LEVEL_3_BYTES = 1 * _MIB, 16 * _MIB

# Bytes of a tile of logits on a CPU. Larger ones gained nothing; in smaller ones the threads wait
# for each other too often.
_SMALLEST_TILE, _LARGEST_TILE = 1 * _MIB, 8 * _MIB
_SMALLEST_STORED_TILE = 2 * _MIB

# Centers of a tile, and of one of few queries: as many as have a number of coordinates.
_CENTERS, _MOST_CENTERS, _COORDINATES = 2048, 16_384, 2**19


@functools.cache
def load_table() -> dict[str, list[dict[str, Any]]]:
    """Return the table: device kind or platform -> rules, the first that fits d holds.

    A rule has `max_dims` (None: any), a tile of `queries` by `centers`, and `widest`, the most
    centers of a tile of few queries.
    """
    return json.loads(_TABLE.read_text())["tiles"]


def tile_sizes(
    num_queries: int, num_centers: int, num_dims: int, *, reread: bool = False
) -> tuple[int, int]:
    """Return the largest (query, center) tile for a problem on the device that is traced for.

    The table has an entry per device kind that was measured and one per platform for all others;
    `benchmarks/tune_tiles.py` makes it. A CPU without an entry has tiles by the size of its caches.

    Args:
      num_queries: n >= 1.
      num_centers: m >= 1.
      num_dims: d.
      reread: whether a tile of logits is read many times, once for each of several bandwidths.
    """
    device = platforms.device()
    table = load_table()
    rules = table.get(device.device_kind) or table.get(device.platform)
    if rules is None and device.platform == "cpu":
        queries, centers, widest = _by_caches(num_dims, reread)
    else:
        rule = next(
            r for r in rules or table["gpu"] if r["max_dims"] is None or num_dims <= r["max_dims"]
        )
        queries, centers, widest = rule["queries"], rule["centers"], rule["widest"]
    if not (is_number(num_queries) and is_number(num_centers)):
        # Exported with a symbolic size, that side is not cut.
        return num_queries, num_centers if not is_number(num_centers) else min(centers, num_centers)
    if num_queries < queries:
        # The same number of logits in a tile of fewer queries, while its centers stay in cache.
        centers = max(centers, min(queries * centers // num_queries, widest))
    return min(queries, num_queries), min(centers, num_centers)


def is_number(size) -> bool:
    """Return whether a size is known, which in `jax.export` it need not be."""
    return isinstance(size, int)


def _by_caches(num_dims: int, reread: bool) -> tuple[int, int, int]:
    """Return queries, centers, and the most centers beside few queries, of a tile on a CPU."""
    level_2, level_3 = cache_bytes()
    if reread:
        # It stays beside the cores, with as much room for what is made of it.
        tile = max(_SMALLEST_TILE, level_2 // 2)
    else:
        tile = max(_SMALLEST_STORED_TILE, level_3 // 4)
    queries = min(tile, _LARGEST_TILE) // (4 * _CENTERS)
    widest = max(_CENTERS, min(_COORDINATES // num_dims, _MOST_CENTERS))
    return queries, _CENTERS, widest


@functools.cache
def cache_bytes() -> tuple[int, int]:
    """Return the bytes of the second-level caches of this process's cores, and of the third."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    level_2 = _cache_size(2, _LEVEL_2_BYTES) * (cores or 1)
    return level_2, _cache_size(3, _LEVEL_3_BYTES)


def _cache_size(level: int, default: int) -> int:
    """Return the bytes of the first core's cache of a level, as Linux reports them."""
    for folder in sorted(CACHES.glob("index*")):
        try:
            if int((folder / "level").read_text()) == level:
                size = (folder / "size").read_text().strip()
                return int(size.removesuffix("K")) * 1024
        except (OSError, ValueError):
            continue
    return default
