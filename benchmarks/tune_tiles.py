"""Measures tile sizes of the streamed kernel on this device and writes the best into its table.

    python benchmarks/tune_tiles.py [--key KEY] [--dims 2 16 64 256] [--dry-run]

For every dimension each candidate tile computes the same log-sum-exp; candidates take turns, and
the smallest of several times counts, since what disturbs a run only ever slows it. A second
problem of few queries then finds how wide their tile of centers should be. Neighbouring dimensions
that agree become one rule. The entry of this device, by its kind, or the one named by `--key`, is
replaced in `avae_jax/kernels/pairwise_lse/tiles.json`. A CPU has none, since all of them have one
name: its tiles follow from its caches, and without `--key` they are only measured.
"""

import argparse
import itertools
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from common import describe_machine, write_results

import avae_jax as av
from avae_jax.kernels.pairwise_lse import stream, tiles

TABLE = Path(tiles.__file__).with_name("tiles.json")
CANDIDATES = {
    "cpu": ((256, 512, 1024, 2048), (512, 1024, 2048, 4096)),
    "gpu": ((2048, 4096, 8192, 16384), (2048, 4096, 8192, 16384)),
    "tpu": ((512, 1024, 2048, 4096), (1024, 2048, 4096, 8192)),
}
# Queries and centers of the measured problem; a multiple of every candidate.
SIZES = {"cpu": (2048, 16_384), "gpu": (65_536, 262_144), "tpu": (16_384, 131_072)}
FEW_QUERIES = 128
# Times that differ by less may be noise; the smaller tile then takes less memory.
TIE = 0.03
WIDTHS = (1024, 2048, 4096, 8192, 16_384, 32_768)


def compiled(size, d, tile):
    """Return the compiled log-sum-exp with one tile size for all problems."""
    original, stream.tile_sizes = stream.tile_sizes, lambda *shape, **use: tile
    try:
        # A tile size is no argument of the kernel: what was compiled before must be forgotten.
        jax.clear_caches()
        shapes = [jax.ShapeDtypeStruct((rows, d), jnp.float32) for rows in size]
        return jax.jit(lambda x, y: av.pairwise_lse(x, y, bandwidth=1.0)).lower(*shapes).compile()
    finally:
        stream.tile_sizes = original


def measure(size, d, candidates, repeats):
    """Return the smallest time of each candidate tile, in seconds."""
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=(rows, d)), jnp.float32) for rows in size)
    runs = {tile: compiled(size, d, tile) for tile in candidates}
    best = dict.fromkeys(candidates, np.inf)
    for _ in range(repeats + 1):  # The first round only warms up: a minimum forgets it.
        for tile, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run(x, y))
            best[tile] = min(best[tile], time.perf_counter() - start)
    return best


def rules(chosen):
    """Return the table's rules for the best tile of each dimension, dimensions ascending."""
    found = []
    for d, (queries, centers, widest) in sorted(chosen.items()):
        rule = {"queries": queries, "centers": centers, "widest": widest}
        if found and {**found[-1], "max_dims": None} == {"max_dims": None, **rule}:
            found[-1]["max_dims"] = d
        else:
            found.append({"max_dims": d, **rule})
    found[-1]["max_dims"] = None
    return found


def best_of(size, d, candidates, repeats, rows):
    """Measure a problem, and return the smallest tile that is as good as the best."""
    seconds = measure(size, d, candidates, repeats)
    per_pair = {tile: 1e12 * t / (size[0] * size[1]) for tile, t in seconds.items()}
    for tile, picoseconds in per_pair.items():
        rows.append({"size": size, "d": d, "tile": tile, "ps_per_pair": picoseconds})
    ranking = sorted(per_pair, key=lambda tile: per_pair[tile])
    best = ", ".join(f"{tile[0]}x{tile[1]} {per_pair[tile]:.0f}" for tile in ranking[:4])
    print(f"n {size[0]}, m {size[1]}, d {d}: {best} ps per pair", flush=True)
    return pick(per_pair)


def pick(per_pair):
    """Return the smallest of the tiles whose times cannot be told from the best one's."""
    limit = (1 + TIE) * min(per_pair.values())
    tied = [tile for tile, time_per_pair in per_pair.items() if time_per_pair <= limit]
    return min(tied, key=lambda tile: (tile[0] * tile[1], per_pair[tile]))


def tune(d, rows, *, size, tiles_to_try, widths, repeats):
    """Return the best tile of a dimension and how wide it may be for few queries.

    Args:
      d: the dimension.
      rows: what was measured, added to.
      size: (queries, centers) of the measured problem.
      tiles_to_try: candidates, (queries, centers) each.
      widths: candidates for few queries, who meet four times as many centers.
      repeats: of which the fastest counts.

    Returns:
      (queries, centers, widest).
    """
    square = best_of(size, d, tiles_to_try, repeats, rows)
    few = FEW_QUERIES, size[1] * 4
    wide = best_of(few, d, [(FEW_QUERIES, width) for width in widths], repeats, rows)
    return *square, wide[1]


def write_entry(key, entry):
    """Replace the entry of a device, or a platform, in the table that the kernel reads."""
    table = json.loads(TABLE.read_text())["tiles"]
    table[key] = entry
    entries = (
        f"  {json.dumps(name)}: [\n   " + ",\n   ".join(map(json.dumps, entry)) + "\n  ]"
        for name, entry in table.items()
    )
    TABLE.write_text('{\n "tiles": {\n' + ",\n".join(entries) + "\n }\n}\n")
    print(f"wrote the entry {key!r} of {TABLE.name}")


def main():
    """Measure, print the table and write it."""
    parser = argparse.ArgumentParser(description="Choose the kernel's tile sizes by measurement.")
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 8, 16, 64, 256, 1024])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--key", help="entry of the table; default: the kind of this device")
    parser.add_argument("--dry-run", action="store_true", help="measure only")
    options = parser.parse_args()
    device = jax.devices()[0]
    size = SIZES.get(device.platform, SIZES["gpu"])
    queries, centers = CANDIDATES.get(device.platform, CANDIDATES["gpu"])
    rows = []
    chosen = {
        d: tune(
            d,
            rows,
            size=size,
            tiles_to_try=list(itertools.product(queries, centers)),
            widths=WIDTHS,
            repeats=options.repeats,
        )
        for d in options.dims
    }
    entry = rules(chosen)
    print(json.dumps(entry))
    if options.dry_run or (device.platform == "cpu" and options.key is None):
        return
    write_entry(options.key or device.device_kind, entry)
    kind = device.device_kind.lower().replace(" ", "_")
    write_results(f"tiles_{kind}", {"machine": describe_machine(), "rows": rows})


if __name__ == "__main__":
    main()
