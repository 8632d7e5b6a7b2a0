"""The tile sizes of the streamed implementations, measured per device and kept as data."""

import functools
import json
from pathlib import Path
from typing import Any

import jax

_TABLE = Path(__file__).with_name("tiles.json")


@functools.cache
def load_table() -> dict[str, list[dict[str, Any]]]:
    """Return the table: device kind or platform -> rules, the first that fits d holds.

    A rule has `max_dims` (None: any), a tile of `queries` by `centers`, and `widest`, the most
    centers of a tile of few queries.
    """
    return json.loads(_TABLE.read_text())["tiles"]


def tile_sizes(num_queries: int, num_centers: int, num_dims: int) -> tuple[int, int]:
    """Return the largest (query, center) tile for a problem on the default device.

    The table has an entry per device kind that was measured and one per platform for all others;
    `benchmarks/tune_tiles.py` makes it.
    """
    device = jax.devices()[0]
    table = load_table()
    rules = table.get(device.device_kind) or table.get(device.platform) or table["gpu"]
    rule = next(r for r in rules if r["max_dims"] is None or num_dims <= r["max_dims"])
    query_tile, center_tile = rule["queries"], rule["centers"]
    if num_queries < query_tile:
        # The same number of logits in a tile of fewer queries, while its centers stay in cache.
        center_tile = query_tile * center_tile // num_queries
        center_tile = max(rule["centers"], min(center_tile, rule["widest"]))
    return min(query_tile, num_queries), min(center_tile, num_centers)
