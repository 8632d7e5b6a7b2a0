"""Times pairwise_lse beside torch.logsumexp over the matrix-product form, interleaved.

    python benchmarks/pairwise_lse_vs_torch.py

Every repeat times each contender in turn, after one untimed call of it, so that whatever else the
machine does reaches all of them and none pays for what its predecessor left behind (cold caches,
threads still spinning); medians are compared. torch runs forward only; our gradients stand beside
our forward. The largest error against NumPy float64, as a share of 1 + |lse|, is next to each time.
The table is also written as JSON. Without torch the other rows are still measured.
"""

import argparse
import importlib
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import describe_machine, write_results

import avae_jax as av
from avae_jax.kernels.pairwise_lse.reference import reference_stats

try:
    torch: Any = importlib.import_module("torch")
except ImportError:
    torch = None

# (queries, centers, dimensions); the first and the third are the targets of the project.
SHAPES = ((1024, 10_000, 16), (1024, 10_000, 64), (1024, 10_000, 128), (1024, 10_000, 2))
BANDWIDTH = 0.8
CHECKED_QUERIES = 128


def torch_logsumexp(x, y, bandwidth):
    """Materialise the matrix of logits: the usual way to write it in torch."""
    x_sq, y_sq = (x * x).sum(1)[:, None], (y * y).sum(1)[None, :]
    return (-(x_sq + y_sq - 2 * x @ y.T) / (2 * bandwidth**2)).logsumexp(dim=1)


def jax_contenders():
    """Return compiled functions (x, y, bandwidth) -> arrays, the forward value first."""

    def value(x, y, bandwidth):
        return av.pairwise_lse(x, y, bandwidth=bandwidth)

    def total(*args):
        lse = value(*args)
        return jnp.sum(lse), lse

    def with_gradient(argnums):
        grad = jax.jit(jax.grad(total, argnums=argnums, has_aux=True))
        return lambda *args: grad(*args)[::-1]

    def leave_one_out(x, y, bandwidth):
        index = jnp.arange(x.shape[0], dtype=jnp.int32)
        return av.pairwise_lse(x, y, bandwidth=bandwidth, exclude=index)

    return {
        "avae_jax": jax.jit(value),
        "avae_jax leave-one-out": jax.jit(leave_one_out),
        "avae_jax + grad x": with_gradient((0,)),
        "avae_jax + grad x, h": with_gradient((0, 2)),
        "avae_jax + grad x, y, h": with_gradient((0, 1, 2)),
    }


def measure(shape, repeats):
    """Return one row per contender for a shape: times in milliseconds and the largest error."""
    n, m, d = shape
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(k, d)).astype(np.float32) for k in (n, m))
    args = jax.device_put((x, y, np.float32(BANDWIDTH)))
    runs = {
        name: lambda fn=fn: jax.block_until_ready(fn(*args))
        for name, fn in jax_contenders().items()
    }
    if torch is not None:
        x_torch, y_torch = torch.from_numpy(x), torch.from_numpy(y)
        runs = {"torch": lambda: torch_logsumexp(x_torch, y_torch, BANDWIDTH)} | runs

    checked = slice(0, CHECKED_QUERIES)
    indices = np.arange(CHECKED_QUERIES, dtype=np.int32)
    expected = {
        loo: reference_stats(
            x[checked], y, bandwidth=BANDWIDTH, exclude=indices if loo else None
        ).lse
        for loo in (False, True)
    }
    errors = {}
    for name, run in runs.items():
        out = run()
        run()
        lse = np.asarray(out[0] if isinstance(out, tuple) else out, np.float64)[checked]
        wanted = expected["leave-one-out" in name]
        errors[name] = float(np.max(np.abs(lse - wanted) / (1 + np.abs(wanted))))

    times = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            run()
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))

    rows = []
    for name, t in times.items():
        low, median, high = np.percentile(t, [25, 50, 75])
        rows.append(
            {
                "contender": name,
                "n": n,
                "m": m,
                "d": d,
                "median_ms": median,
                "quartiles_ms": [low, high],
                "min_ms": min(t),
                "gigapairs_per_s": n * m / median / 1e6,
                "times_faster_than_torch": (
                    np.median(times["torch"]) / median if "torch" in times else None
                ),
                "max_error_over_1_plus_lse": errors[name],
            }
        )
    return rows


def main():
    """Measure every shape, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description="Time pairwise_lse beside torch.logsumexp.")
    parser.add_argument("--repeats", type=int, default=51, help="interleaved runs of each")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {options.repeats}")
    if torch is None:
        print("torch is not installed: its rows are missing (pip install 'avae_jax[bench]')\n")
    else:
        torch.set_num_threads(os.cpu_count() or 1)

    print(
        f"{'contender':<24} {'n':>5} {'m':>6} {'d':>4} {'median ms':>10} {'quartiles':>15} "
        f"{'Gpair/s':>8} {'vs torch':>8} {'max error':>10}"
    )
    rows = []
    for shape in SHAPES:
        for row in measure(shape, options.repeats):
            rows.append(row)
            low, high = row["quartiles_ms"]
            speedup = row["times_faster_than_torch"]
            print(
                f"{row['contender']:<24} {row['n']:>5} {row['m']:>6} {row['d']:>4} "
                f"{row['median_ms']:>10.2f} {f'{low:.2f}-{high:.2f}':>15} "
                f"{row['gigapairs_per_s']:>8.2f} "
                f"{'-' if speedup is None else f'{speedup:.1f}x':>8} "
                f"{row['max_error_over_1_plus_lse']:>10.1e}",
                flush=True,
            )
    report = {
        "machine": describe_machine("torch"),
        "load_average": os.getloadavg(),
        "torch_threads": None if torch is None else torch.get_num_threads(),
        "bandwidth": BANDWIDTH,
        "repeats": options.repeats,
        "rows": rows,
    }
    write_results("pairwise_lse_vs_torch", report)


if __name__ == "__main__":
    main()
