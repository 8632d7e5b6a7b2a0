"""Measure what `import avae_jax` adds to `import jax`, and what it loads.

    python benchmarks/import_time.py [--repeats 11]

Fresh interpreters take turns; medians. Writes benchmarks/results/import_time.json.
"""

import argparse
import json
import statistics
import subprocess
import sys

from common import describe_machine, write_results

HEAVY = ("flax", "orbax", "tensorflow_datasets", "tensorflow", "chex", "clu", "matplotlib")

CODE = """
import json, sys, time
start = time.perf_counter()
import jax, jax.numpy
middle = time.perf_counter()
import avae_jax
end = time.perf_counter()
heavy = [name for name in {heavy!r} if name in sys.modules]
print(json.dumps({{"jax": middle - start, "avae_jax": end - middle, "heavy": heavy}}))
"""


def main() -> None:
    """Take turns and print the medians."""
    parser = argparse.ArgumentParser(
        description="Measure what `import avae_jax` adds to `import jax`, and what it loads."
    )
    parser.add_argument("--repeats", type=int, default=11)
    repeats = parser.parse_args().repeats
    rows = []
    for _ in range(repeats):
        command = [sys.executable, "-c", CODE.format(heavy=HEAVY)]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(result.stdout))
    rows = rows[1:]  # The first one reads the files from disk.
    jax_seconds = statistics.median(row["jax"] for row in rows)
    added = statistics.median(row["avae_jax"] for row in rows)
    print(f"import jax: {jax_seconds:.3f} s; avae_jax adds {added:.3f} s; loads {rows[0]['heavy']}")
    write_results(
        "import_time",
        {
            "machine": describe_machine(),
            "jax_seconds": jax_seconds,
            "added_seconds": added,
            "heavy_modules_loaded": rows[0]["heavy"],
            "runs": rows,
        },
    )


if __name__ == "__main__":
    main()
