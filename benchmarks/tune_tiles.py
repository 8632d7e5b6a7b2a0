"""Measures tile sizes of the streamed kernel on this device and writes the best into its table.

    python benchmarks/tune_tiles.py [--key cpu] [--dims 2 16 64 256] [--dry-run]

For every dimension each candidate tile computes the same log-sum-exp; candidates are interleaved
and the smallest of several times counts, since what disturbs a run only ever slows it. Neighbouring
dimensions whose best tiles agree become one rule. The entry of this device, by its kind, or the
one named by `--key`, is replaced in `avae_jax/kernels/pairwise_lse/tiles.json`.
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
from avae_jax.kernels.pairwise_lse import tiles

TABLE = Path(tiles.__file__).with_name("tiles.json")
CANDIDATES = {
    "cpu": ((256, 512, 1024, 2048), (512, 1024, 2048, 4096)),
    "gpu": ((2048, 4096, 8192, 16384), (2048, 4096, 8192, 16384)),
    "tpu": ((512, 1024, 2048, 4096), (1024, 2048, 4096, 8192)),
}
# Queries and centers of the measured problem; a multiple of every candidate.
SIZES = {"cpu": (2048, 16_384), "gpu": (65_536, 262_144), "tpu": (16_384, 131_072)}


def compiled(size, d, tile):
    """Return the compiled log-sum-exp with one tile size for all problems."""
    rule = [{"max_dims": None, "queries": tile[0], "centers": tile[1]}]
    table = dict.fromkeys((jax.devices()[0].device_kind, jax.devices()[0].platform), rule)
    original, tiles.load_table = tiles.load_table, lambda: table
    try:
        # A tile size is no argument of the kernel: what was compiled before must be forgotten.
        jax.clear_caches()
        shapes = [jax.ShapeDtypeStruct((rows, d), jnp.float32) for rows in size]
        return jax.jit(lambda x, y: av.pairwise_lse(x, y, bandwidth=1.0)).lower(*shapes).compile()
    finally:
        tiles.load_table = original


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
    for d, (queries, centers) in sorted(chosen.items()):
        if found and (found[-1]["queries"], found[-1]["centers"]) == (queries, centers):
            found[-1]["max_dims"] = d
        else:
            found.append({"max_dims": d, "queries": queries, "centers": centers})
    found[-1]["max_dims"] = None
    return found


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
    candidates = list(itertools.product(queries, centers))
    chosen, rows = {}, []
    for d in options.dims:
        seconds = measure(size, d, candidates, options.repeats)
        chosen[d] = min(seconds, key=lambda tile: seconds[tile])
        for tile, t in seconds.items():
            rows.append(
                {"d": d, "tile": tile, "picoseconds_per_pair": 1e12 * t / size[0] / size[1]}
            )
        print(f"d = {d}: " + ", ".join(
            f"{tile[0]}x{tile[1]} {1e12 * seconds[tile] / size[0] / size[1]:.0f}"
            for tile in sorted(seconds, key=lambda tile: seconds[tile])[:5]
        ) + " ps/pair", flush=True)  # fmt: skip
    entry = rules(chosen)
    print(json.dumps(entry))
    if options.dry_run:
        return
    table = json.loads(TABLE.read_text())
    key = options.key or device.device_kind
    table["tiles"][key] = entry
    lines = [
        f"  {json.dumps(name)}: [\n   "
        + ",\n   ".join(json.dumps(rule) for rule in entry)
        + "\n  ]"
        for name, entry in table["tiles"].items()
    ]
    TABLE.write_text('{\n "tiles": {\n' + ",\n".join(lines) + "\n }\n}\n")
    print(f"wrote the entry {key!r} of {TABLE.name}")
    machine = describe_machine()
    kind = device.device_kind.lower().replace(" ", "_")
    write_results(f"tiles_{kind}", {"machine": machine, "size": size, "rows": rows})


if __name__ == "__main__":
    main()
