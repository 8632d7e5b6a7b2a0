"""Times the kernel over a grid of sizes, beside the machine's limits and other libraries.

    python benchmarks/pairwise_lse.py [--quick]

**Grid.** (n queries, m centers) x d dimensions x an operation: `lse` (the values), `grad` (values
and gradient in the queries), `loo` (leave-one-out, the queries being the first n centers) and
`bandwidths` (16 at once). Data are standard normal. m is halved until the centers fit the memory;
then n, and then m, until 3 times the floor is within `--max-seconds`. Rows hold the sizes asked for
and the sizes measured; what comes down to sizes already measured is not measured again.

**Floor.** The least time the arithmetic takes at the rates that `machine.py` measures in the same
run (before and after the grid; the better counts). P = n m pairs, k bandwidths (1 or 16), g
products with the centers (1; 2 with the softmax mean that the gradient needs) and c = 2 vector
instructions per exponential (a multiply-add and a sum) take

    matrix form, d > 8:       2 d g P / R_matmul + k P / R_exp + c k P / R_fma
    difference form, d <= 8:  k P / R_exp + (d (1 + g) + c k) P / R_fma

on a CPU, where the same ports do it all. On a GPU or TPU the units work side by side: not the sum
of the terms but the largest of them and of the unavoidable traffic, 4 (n d + m d + n) / R_copy.
R_matmul is that of the accuracy class, max(float32, bfloat16 / passes) with 6 passes for "highest",
3 for "high", 1 for "fast". The fraction of floor is floor / median time.

**Protocol.** Two untimed calls; then the contenders take turns, so that whatever else the machine
does reaches all of them. At every turn, calls under 50 ms are first made untimed for 20 ms, so that
none pays for what its predecessor left behind (cold caches, threads still spinning). Medians and
quartiles are of 3 to 25 turns, as many as fit the cell's share of `--minutes`. On accelerators a
turn is several calls, waited for once. Compilation is timed apart. The error is the largest against
NumPy float64 over up to 64 queries, in nats and as a share of 1 + |lse|. Peers (`peers.py`) do the
forward only, except `torch_chunked_grad`. A peer that holds the matrix in over 2 GB (8 GB on an
accelerator), or takes or is predicted to take more than `--max-seconds` (3 times that at the
smallest shape), is left out of a cell, and its row says why.

**Scaling.** Exponents are least-squares fits of log time over the cells: in n m at each d, and in d
from 128. The work per device is the CPU time of a call on one device against that on eight virtual
ones, measured in a process of its own.

A run of the whole grid writes benchmarks/results/pairwise_lse_DEVICE.json and the plot in docs/;
any other run writes only what `--output` names. `update_tables.py` makes the README's table.
"""

import argparse
import collections
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from common import RESULTS, describe_machine, describe_processor
from jax.sharding import AxisType
from machine import Ceilings, describe, measure_ceilings
from peers import (
    PEER_ERRORS,
    PEERS,
    Ready,
    Unavailable,
    agreement_tolerance,
    compile_jax,
    make_peer,
    one_line,
)

import avae_jax as av
from avae_jax.kernels.pairwise_lse.reference import reference_stats

SHAPES = ((1024, 10_000), (128, 1_000_000), (4096, 65_536), (65_536, 65_536), (65_536, 1_000_000))
DIMS = (2, 16, 64, 128, 256, 1024)
OPS = {
    "lse": "log-sum-exp",
    "grad": "with gradient in x",
    "loo": "leave-one-out",
    "bandwidths": "16 bandwidths",
}
QUICK_SHAPES, QUICK_DIMS = SHAPES[:1] + SHAPES[2:3], (2, 64)

BANDWIDTH = 0.8
BANDWIDTHS = np.geomspace(0.4, 1.6, 16).astype(np.float32)

# The shape of the table's and the plot's peers: all of them end in time there.
PEER_SHAPE = (1024, 10_000)

MAX_DIFFERENCE_DIMS = 8
PASSES = {"highest": 6, "high": 3, "fast": 1}
VECTOR_PER_EXP = 2

MAX_MATRIX_BYTES, MAX_MATRIX_BYTES_ON_ACCELERATORS = 2e9, 8e9
MAX_CENTER_BYTES = 2**30
MAX_CENTER_BYTES_ON_ACCELERATORS = 5 * 2**30
MIN_TURNS, MAX_TURNS = 3, 25
SHORT_SECONDS, SETTLE_SECONDS = 0.05, 0.02
MIN_PEER_SECONDS = 0.5
CHECKED_QUERIES = 64
"""At most; fewer where a query against all centers is long (see `_checked_queries`)."""

NUM_DEVICES = 8
DOCS = RESULTS.parent.parent / "docs" if RESULTS.name == "results" else RESULTS


def floor_seconds(
    op: str, n: int, m: int, d: int, *, ceilings: Ceilings, difference: bool, precision: str
) -> float:
    """Return the least time of an operation; the module's docstring has the formula."""
    pairs, num_exp = n * m, len(BANDWIDTHS) if op == "bandwidths" else 1
    products = 2 if op == "grad" else 1
    vector_per_pair = VECTOR_PER_EXP * num_exp
    if difference:
        product = 0.0
        vector_per_pair += d * (1 + products)
    else:
        rate = max(ceilings.matmul_f32, ceilings.matmul_bf16 / PASSES[precision])
        product = 2 * d * products * pairs / rate
    parts = product, num_exp * pairs / ceilings.exp, vector_per_pair * pairs / ceilings.multiply_add
    if jax.default_backend() == "cpu":
        return sum(parts)
    return max(*parts, 4 * (n * d + m * d + n) / ceilings.copy)


def fitted_size(shape, d: int, seconds, max_seconds: float) -> tuple[int, int]:
    """Return the part of a shape that fits the memory and a predicted time.

    Args:
      shape: (n, m) asked for.
      d: dimension.
      seconds: (n, m) -> predicted seconds of a call.
      max_seconds: what it may be.
    """
    n, m = shape
    slow = jax.default_backend() == "cpu"
    max_bytes = MAX_CENTER_BYTES if slow else MAX_CENTER_BYTES_ON_ACCELERATORS
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    while 4 * m * d > min(max_bytes, physical / 16):
        m //= 2
    while seconds(n, m) > max_seconds and n >= 512:
        n //= 2
    while seconds(n, m) > max_seconds and m >= 2048:
        m //= 2
    return min(n, m), m


def make_ours(op: str, x, y, *, implementation: str | None, precision: str) -> Ready:
    """Compile an operation of the kernel.

    Args:
      op: a key of OPS.
      x: [n, d] NumPy.
      y: [m, d] NumPy.
      implementation: as in `pairwise_lse`.
      precision: as in `pairwise_lse`.
    """

    def value(x, y, bandwidth, exclude=None):
        return av.pairwise_lse(
            x,
            y,
            bandwidth=bandwidth,
            exclude=exclude,
            implementation=implementation,
            precision=precision,
        )

    def value_and_gradient(x, y, bandwidth):
        # One row of the Jacobian per query: the sum's gradient holds all of them.
        lse, pull_back = jax.vjp(lambda x: value(x, y, bandwidth), x)
        return lse, pull_back(jnp.ones_like(lse))[0]

    args: list[Any] = [x, y, BANDWIDTHS if op == "bandwidths" else np.float32(BANDWIDTH)]
    if op == "loo":
        args.append(np.arange(len(x), dtype=np.int32))
    args = jax.device_put(args)
    compiled, costs = compile_jax(value_and_gradient if op == "grad" else value, *args)
    return Ready(
        lambda: compiled(*args),
        jax.block_until_ready,
        lambda out: np.asarray(out[0] if op == "grad" else out, np.float64),
        x,
        y,
        **costs,
    )


class Points:
    """The data of one dimension, made once."""

    def __init__(self, d: int, max_n: int, max_m: int):
        rng = np.random.default_rng(0)
        self.d = d
        self.x = rng.standard_normal((max_n, d), dtype=np.float32)
        self.y = rng.standard_normal((max_m, d), dtype=np.float32)
        self._exact = np.empty((0, d))

    def exact(self, m: int) -> np.ndarray:
        """Return the first m centers in float64, columns contiguous as the reference reads them."""
        if m > len(self._exact):
            self._exact = np.array(self.y[:m], np.float64, order="F")
        return self._exact[:m]


class Contender:
    """One contender in one cell: set up, warmed up, checked, and ready to take turns."""

    def __init__(self, name: str, op: str, ready: Ready):
        self.name, self.op, self.ready = name, op, ready
        (self.n, self.d), self.m = ready.x.shape, len(ready.y)
        self.times: list[float] = []
        self.errors: dict[str, Any] = {}
        # Where calls are queued, enough of them hide the cost of starting one.
        self.queued = jax.default_backend() != "cpu"
        self.first_seconds, self.output = self._timed(1)
        self.seconds, self.output = self._timed(1)
        self.calls = min(100, math.ceil(0.01 / self.seconds)) if self.queued else 1

    def _timed(self, calls: int) -> tuple[float, Any]:
        start = time.perf_counter()
        for _ in range(calls):
            output = self.ready.call()
            if not self.queued:
                self.ready.wait(output)
        self.ready.wait(output)
        return (time.perf_counter() - start) / calls, output

    def take_turn(self) -> None:
        """Take the time of one turn."""
        if self.seconds < SHORT_SECONDS:
            self._timed(math.ceil(SETTLE_SECONDS / self.seconds))
        self.times.append(self._timed(self.calls)[0])

    def check(self, points: Points, expected: dict) -> None:
        """Compare the result with NumPy float64 on some queries.

        Args:
          points: the data.
          expected: the cell's references so far, added to.
        """
        rows = _checked_queries(self.n, self.m, self.d, self.op)
        several = [0, 7, 15] if self.op == "bandwidths" else None
        key = (self.op if self.op in ("loo", "bandwidths") else "lse", self.n, self.m)
        # A peer may have been given other coordinates.
        shared = np.may_share_memory(self.ready.y, points.y)
        if not shared or key not in expected:
            y = points.exact(self.m) if shared else self.ready.y
            x, exclude = self.ready.x[rows], rows if self.op == "loo" else None
            widths = [BANDWIDTH] if several is None else BANDWIDTHS[several]
            stats = [reference_stats(x, y, bandwidth=h, exclude=exclude) for h in widths]
            wanted = np.stack([s.lse for s in stats]), stats[0].mean
            if shared:
                expected[key] = wanted
        else:
            wanted = expected[key]
        lse = self.ready.lse(self.output)[..., rows]
        lse = np.atleast_2d(lse if several is None else lse[several])
        difference = np.abs(lse - wanted[0])
        tolerance = agreement_tolerance(self.ready.x, self.ready.y, self.smallest_bandwidth)
        self.errors = {
            "max_error_nats": float(difference.max()),
            "max_error_over_1_plus_lse": float(np.max(difference / (1 + np.abs(wanted[0])))),
            "within_float32": bool(difference.max() <= tolerance),
            "checked_queries": len(rows),
        }
        if self.op == "grad" and isinstance(self.output, tuple):
            gradient = np.asarray(self.output[1])[rows]
            wanted_gradient = (wanted[1] - self.ready.x[rows]) / BANDWIDTH**2
            self.errors["max_gradient_error_over_max"] = float(
                np.max(np.abs(gradient - wanted_gradient)) / np.max(np.abs(wanted_gradient))
            )
        self.output = None

    @property
    def smallest_bandwidth(self) -> float:
        """The bandwidth at which rounding costs most."""
        return float(BANDWIDTHS[0]) if self.op == "bandwidths" else BANDWIDTH

    def row(self) -> dict[str, Any]:
        """Return the measured numbers."""
        low, median, high = np.percentile(self.times, [25, 50, 75])
        pairs = self.n * self.m
        return {
            "n": self.n,
            "m": self.m,
            "median_s": median,
            "quartiles_s": [low, high],
            "min_s": min(self.times),
            "turns": len(self.times),
            "gigapairs_per_s": pairs / median / 1e9,
            "ps_per_pair": 1e12 * median / pairs,
            "first_call_s": self.first_seconds,
            "compile_s": self.ready.compile_seconds,
            "temporary_bytes": self.ready.temporary_bytes,
            "peak_bytes": self.ready.peak_bytes,
            **self.errors,
        }


def _checked_queries(n: int, m: int, d: int, op: str) -> np.ndarray:
    """Return the queries to check: about a second of the float64 reference, and 2 at least."""
    per_query = m * max(d, 16) * (3 if op == "bandwidths" else 1)
    count = min(CHECKED_QUERIES, n, 2**24 // m + 1, max(2, int(5e8 / per_query)))
    return np.sort(np.random.default_rng(0).choice(n, count, replace=False))


class Ours(NamedTuple):
    """One of our own contenders; the fields are those of `pairwise_lse`, `ops` what it enters."""

    implementation: str | None = None
    precision: str = "highest"
    ops: Sequence[str] = tuple(OPS)


class Benchmark:
    """The grid under way: what was measured, and how fast every contender was.

    Args:
      options: of the command line.
      ceilings: the machine's rates.
      deadline: when the run should end, by `time.perf_counter`.
      ours: our contenders by name; one that cannot take a problem is left out of it. None is
        "avae_jax" as the options have it, which must take all.
      before: is given the name of every contender of ours before its first call, and "" when what
        follows has been tried.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        ceilings: Ceilings,
        deadline: float,
        *,
        ours: dict[str, Ours] | None = None,
        before: Callable[[str], None] = lambda name: None,
    ):
        self.options, self.ceilings, self.deadline = options, ceilings, deadline
        self.may_fail = ours is not None
        self.ours = ours or {"avae_jax": Ours(options.implementation, options.precision)}
        self.before = before
        self.rows: list[dict[str, Any]] = []
        self.measured: dict[tuple, dict[str, Any]] = {}
        self.pace: dict[str, tuple[int, float]] = {}  # name -> (d, seconds per pair)
        self.done = 0

    def floor(
        self, op: str, n: int, m: int, d: int, ceilings: Ceilings | None = None, name: str = ""
    ) -> float:
        """Return the least time of an operation in the form of a contender, or our first one's."""
        ours = self.ours.get(name) or next(iter(self.ours.values()))
        difference = ours.implementation == "difference"
        if ours.implementation is None:
            difference = d <= MAX_DIFFERENCE_DIMS
        return floor_seconds(
            op,
            n,
            m,
            d,
            ceilings=ceilings or self.ceilings,
            difference=difference,
            precision=ours.precision,
        )

    def run(self) -> None:
        """Measure the grid."""
        for d in self.options.dims:
            self.run_dims(d)

    def run_dims(self, d: int) -> None:
        """Measure the cells of one dimension, on data that are dropped after it."""
        shapes, dims = self.options.shapes, self.options.dims
        cells = [{op: self._size(op, shape, d) for op in self.options.ops} for shape in shapes]
        sizes = [size for cell in cells for size in cell.values()]
        points = Points(d, max(n for n, _ in sizes), max(m for _, m in sizes))
        for shape, cell in zip(shapes, cells, strict=True):
            start = time.perf_counter()
            left = len(dims) * len(shapes) - self.done
            self.done += 1
            print(f"\n[{left} to go] n {shape[0]}, m {shape[1]}, d {d}", flush=True)
            budget = max(0.0, self.deadline - start) / left
            self._measure(points, shape, cell, start + budget)
            print(f"  {time.perf_counter() - start:.1f} s", flush=True)

    def _size(self, op: str, shape, d: int) -> tuple[int, int]:
        def predicted(n, m):
            return 3 * self.floor(op, n, m, d)

        return fitted_size(shape, d, predicted, self.options.max_seconds)

    def _measure(self, points: Points, shape, cell, deadline: float) -> None:
        """Measure all contenders of a shape and dimension in turns, and add their rows."""
        rows: list[dict[str, Any]] = []
        new: list[tuple[dict[str, Any], tuple, Contender]] = []
        expected: dict = {}
        for name, op in self._contenders():
            n, m = cell[op]
            row = {"contender": name, "op": op, "d": points.d}
            row |= {"asked_n": shape[0], "asked_m": shape[1]}
            rows.append(row)
            key = (name, op, points.d, n, m)
            if key in self.measured:
                row |= self.measured[key] | {"measured_before": True}
                continue
            self.before(name if name in self.ours else "")
            try:
                contender = self._set_up(name, op, points, n, m, deadline)
            except Unavailable as reason:
                row |= {"n": n, "m": m, "skipped": str(reason)}
                continue
            contender.check(points, expected)
            new.append((row, key, contender))
        self.before("")
        for count in range(MAX_TURNS):
            if count >= MIN_TURNS and time.perf_counter() > deadline:
                break
            for _, _, contender in new:
                contender.take_turn()
        for row, key, contender in new:
            self.measured[key] = contender.row()
            self.pace[contender.name] = (points.d, 1e-12 * self.measured[key]["ps_per_pair"])
            row |= self.measured[key]
        for row in rows:
            if "median_s" in row:
                size = row["n"], row["m"], points.d
                row["floor_s"] = self.floor(row["op"], *size, name=row["contender"])
            print(progress(row), flush=True)
        self.rows += rows

    def _contenders(self) -> Iterable[tuple[str, str]]:
        """Yield (contender, operation), ours first."""
        chosen = self.options.contenders
        for name, ours in self.ours.items():
            if name in chosen:
                yield from ((name, op) for op in self.options.ops if op in ours.ops)
        for name, peer in PEERS.items():
            op = "grad" if peer.gradient else "lse"
            if name in chosen and op in self.options.ops:
                yield name, op

    def _set_up(self, name: str, op: str, points: Points, n: int, m: int, deadline) -> Contender:
        x, y = (points.y if op == "loo" else points.x)[:n], points.y[:m]
        if name in self.ours:
            implementation, precision, _ = self.ours[name]
            try:
                ready = make_ours(op, x, y, implementation=implementation, precision=precision)
                return Contender(name, op, ready)
            except PEER_ERRORS as error:
                if not self.may_fail:
                    raise
                raise Unavailable(one_line(error)) from error

        limit = max(self.options.max_seconds, MIN_PEER_SECONDS)
        if n * m <= math.prod(PEER_SHAPE):
            limit *= 3
        slow = jax.default_backend() == "cpu"
        max_bytes = MAX_MATRIX_BYTES if slow else MAX_MATRIX_BYTES_ON_ACCELERATORS
        if PEERS[name].matrix and 8 * n * m > max_bytes:
            raise Unavailable(f"would hold {8e-9 * n * m:.0f} GB")
        if name in self.pace:
            # The rest of a pair's work takes about as long as 16 dimensions.
            d, pace = self.pace[name]
            predicted = pace * n * m * max(1.0, (points.d + 16) / (d + 16))
            if predicted > limit:
                raise Unavailable(f"would take about {predicted:.2g} s")
        if time.perf_counter() > deadline:
            raise Unavailable("no time left in this cell")
        ready = make_peer(name, x, y, BANDWIDTH)
        if (ready.temporary_bytes or 0) > max_bytes:
            raise Unavailable(f"would hold {1e-9 * (ready.temporary_bytes or 0):.0f} GB")
        try:
            contender = Contender(name, op, ready)
        except PEER_ERRORS as error:
            raise Unavailable(one_line(error)) from error
        if contender.seconds > limit:
            self.pace[name] = (points.d, contender.seconds / (n * m))
            raise Unavailable(f"takes {contender.seconds:.2g} s")
        return contender


def progress(row: dict[str, Any]) -> str:
    """Return a row as a line."""
    line = f"  {row['contender']:<19} {row['op']:<10} {row['n']:>6} x {row['m']:<8}"
    if "skipped" in row:
        return f"{line} skipped: {row['skipped']}"
    low, high = (1e3 * t for t in row["quartiles_s"])
    fraction = row["floor_s"] / row["median_s"] if row.get("floor_s") else math.nan
    memory, compile_s = row["temporary_bytes"], row["compile_s"]
    before = " (measured before)" if row.get("measured_before") else ""
    return (
        f"{line} {1e3 * row['median_s']:>9.2f} ms ({low:.2f}-{high:.2f}, {row['turns']}) "
        f"{row['gigapairs_per_s']:>7.3f} Gpair/s  {fraction:>4.0%} of floor  "
        f"error {row['max_error_nats']:.0e} = {row['max_error_over_1_plus_lse']:.0e} of 1+|lse|"
        f"{'' if row['within_float32'] else ' NOT WITHIN FLOAT32'}  "
        f"temporary {'-' if memory is None else f'{memory / 1e6:.1f} MB'}  "
        f"compile {'-' if compile_s is None else f'{compile_s:.2f} s'}{before}"
    )


def fit_exponents(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Fit seconds ~ size^p by least squares in logarithms, from our own forward passes.

    Returns:
      {"pairs": {d: exponent of the time in n m}, "dims": {shape: exponent of the time per pair in
      d, from 128 on}}; None where fewer than two sizes were measured.
    """
    ours = [
        row
        for row in rows
        if row["contender"] == "avae_jax"
        and row["op"] == "lse"
        and "median_s" in row
        and not row.get("measured_before")
    ]
    by_dims, by_shape = collections.defaultdict(list), collections.defaultdict(list)
    for row in ours:
        by_dims[row["d"]].append((row["n"] * row["m"], row["median_s"]))
        if row["d"] >= 128:
            by_shape[f"{row['asked_n']} x {row['asked_m']}"].append((row["d"], row["ps_per_pair"]))
    return {
        "pairs": {str(d): _slope(points) for d, points in by_dims.items()},
        "dims": {shape: _slope(points) for shape, points in by_shape.items()},
    }


def _slope(points: Sequence[tuple[float, float]]) -> float | None:
    size, value = np.log(np.array(points, np.float64)).T
    if np.ptp(size) == 0:
        return None
    return float(np.polyfit(size, value, 1)[0])


def work_per_device() -> dict[str, Any]:
    """Measure the CPU time of one call on one device and on eight; needs eight CPU devices."""
    n, m, d = 8192, 16_384, 64
    points = Points(d, n, m)
    mesh = jax.make_mesh((NUM_DEVICES,), ("data",), axis_types=(AxisType.Auto,))

    def single(x, y):
        return av.pairwise_lse(x, y, bandwidth=BANDWIDTH)

    def sharded(x, y):
        return av.sharded_pairwise_lse(x, y, mesh=mesh, query_axis="data", bandwidth=BANDWIDTH)

    rows = jax.sharding.PartitionSpec("data")
    whole = jax.sharding.PartitionSpec()
    on_mesh = tuple(
        jax.device_put(a, jax.sharding.NamedSharding(mesh, spec))
        for a, spec in ((points.x, rows), (points.y, whole))
    )
    on_one = jax.device_put((points.x, points.y), jax.devices()[0])
    calls = {"single": (jax.jit(single), on_one), "sharded": (jax.jit(sharded), on_mesh)}
    results = {name: np.asarray(call(*args)) for name, (call, args) in calls.items()}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(9):
        for name, (call, args) in calls.items():
            start = time.process_time()
            jax.block_until_ready(call(*args))
            cpu_seconds[name].append(time.process_time() - start)
    one, total = (float(np.median(cpu_seconds[name])) for name in ("single", "sharded"))
    return {
        "num_devices": NUM_DEVICES,
        "n": n,
        "m": m,
        "d": d,
        "cpu_seconds_on_one_device": one,
        "cpu_seconds_per_device": total / NUM_DEVICES,
        "work_ratio": one / (total / NUM_DEVICES),
        "max_difference_nats": float(np.max(np.abs(results["single"] - results["sharded"]))),
    }


def work_per_device_apart() -> dict[str, Any]:
    """Run `work_per_device` in a process that has eight virtual CPU devices."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(NUM_DEVICES), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, __file__, "--work-per-device"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"the run on {NUM_DEVICES} virtual devices failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def device_name() -> str:
    """Return the device as a part of a file name: cpu, nvidia_h200."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return "cpu"
    return device.device_kind.lower().replace(" ", "_").replace("/", "_")


def results_name() -> str:
    """Return the name of the results of the whole grid here; processors differ by their vectors."""
    name = f"pairwise_lse_{device_name()}"
    if jax.default_backend() != "cpu":
        return name
    vectors = describe_processor()["vectors"] or "unknown"
    return f"{name}_{vectors.lower().replace('-', '')}"


def table(report: dict[str, Any]) -> str:
    """Return the report as a table with a column per dimension, and a paragraph on the machine."""
    rows = report["rows"]
    dims = sorted({row["d"] for row in rows})
    shapes = list(dict.fromkeys((row["asked_n"], row["asked_m"]) for row in rows))
    shape = PEER_SHAPE if PEER_SHAPE in shapes else shapes[0]
    forward = _by_dims(rows, "avae_jax", "lse", shape)
    exponents = report["exponents"]["pairs"]

    def line(name, cell):
        return f"| {name} | " + " | ".join(cell(d) for d in dims) + " |"

    def times(name, op, shape):
        ours = _by_dims(rows, "avae_jax", op, shape)
        return line(name, lambda d: _time_cell(ours[d]) if d in ours else "-")

    def errors(name, key):
        return line(name, lambda d: f"{forward[d][key]:.0e}" if d in forward else "-")

    def ratios(peer):
        op = "grad" if PEERS[peer].gradient else "lse"
        ours, theirs = (_by_dims(rows, name, op, shape) for name in ("avae_jax", peer))

        def cell(d):
            if d not in ours or d not in theirs:
                return "-"
            return f"{_short(theirs[d]['median_s'] / ours[d]['median_s'])}x"

        return line(f"`{peer}`" + (", of ours with gradient" if op == "grad" else ""), cell)

    size = " x ".join(map(_size, shape))
    lines = [line("ps per pair (share of floor)", lambda d: f"d = {d}"), "|--|" + "--|" * len(dims)]
    lines += [times(" x ".join(map(_size, shape)), "lse", shape) for shape in shapes]
    ops = {row["op"] for row in rows}
    lines += [times(f"{size}, {OPS[op]}", op, shape) for op in list(OPS)[1:] if op in ops]
    lines.append(line("exponent in n m", lambda d: _fixed(exponents.get(str(d)))))
    lines.append(errors(f"max error at {size}, nats", "max_error_nats"))
    lines.append(errors("the same over 1 + \\|lse\\|", "max_error_over_1_plus_lse"))
    measured = {row["contender"] for row in rows if "median_s" in row}
    peers = [peer for peer in PEERS if peer in measured]
    if peers:
        lines.append(line(f"**times as long as ours, {size}**", lambda d: ""))
    lines += [ratios(peer) for peer in peers]
    return "\n".join(lines) + "\n\n" + _summary(report)


def _summary(report: dict[str, Any]) -> str:
    machine, rates, work = (report[key] for key in ("machine", "ceilings", "work_per_device"))
    over_dims = [p for p in report["exponents"]["dims"].values() if p is not None]
    growth = f"Time grows as d^{np.median(over_dims):.2f} from 128 to 1,024. " if over_dims else ""
    return (
        f"Measured on {_device_of(machine)}; the machine's best through XLA is "
        f"{rates['matmul_f32'] / 1e9:.0f} Gflop/s in float32 products, {rates['exp'] / 1e9:.1f} G "
        f"exponentials/s and "
        f"{rates['multiply_add'] / 1e9:.0f} G multiply-adds/s. `*`: at fewer queries "
        f"or centers than the row says. {growth}With {work['num_devices']} virtual devices each "
        f"takes the CPU time of one alone over {work['work_ratio']:.1f}, waiting threads included."
    )


def _device_of(machine: dict[str, Any]) -> str:
    platform, _, kind = machine["device"].partition(": ")
    if platform != "cpu":
        return f"one {kind}"
    processor = machine["processor"]
    return f"{machine['cores']} cores with {processor['vectors']} ({processor['name']})"


def _time_cell(row: dict[str, Any]) -> str:
    if row.get("measured_before"):
        return "as above"
    shrunk = "*" if (row["n"], row["m"]) != (row["asked_n"], row["asked_m"]) else ""
    return f"{_short(row['ps_per_pair'])} ({row['fraction_of_floor']:.0%}){shrunk}"


def _by_dims(rows, contender: str, op: str, shape) -> dict[int, dict[str, Any]]:
    return {
        row["d"]: row
        for row in rows
        if (row["contender"], row["op"]) == (contender, op)
        and (row["asked_n"], row["asked_m"]) == tuple(shape)
        and "median_s" in row
    }


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _fixed(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _size(value: int) -> str:
    """Return 65536 as 64k, 10000 as 10k, 1000000 as 1M."""
    units = ((1_000_000, "M"), (1024, "k"), (1000, "k"))
    return next((f"{value // u}{name}" for u, name in units if value % u == 0), str(value))


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw time per pair against d, ours beside the peers and the floor."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    rows = report["rows"]
    figure, axes = plt.subplots(figsize=(7, 4.6), layout="constrained")
    for peer in (name for name in PEERS if not PEERS[name].gradient):
        theirs = _by_dims(rows, peer, "lse", PEER_SHAPE)
        if theirs:
            dims = sorted(theirs)
            times = [theirs[d]["ps_per_pair"] for d in dims]
            axes.loglog(dims, times, "o-", label=peer, linewidth=1, markersize=3)
    ours = _by_dims(rows, "avae_jax", "lse", PEER_SHAPE)
    dims = sorted(ours)
    floor = [1e12 * ours[d]["floor_s"] / (ours[d]["n"] * ours[d]["m"]) for d in dims]
    times = [ours[d]["ps_per_pair"] for d in dims]
    axes.loglog(dims, times, "ko-", label="avae_jax", linewidth=2.5)
    axes.loglog(dims, floor, "k--", label="floor of this machine", linewidth=1)
    axes.set_xticks(dims, [str(d) for d in dims])
    axes.minorticks_off()
    axes.set_xlabel("dimensions")
    axes.set_ylabel("picoseconds per pair of points")
    n, m = PEER_SHAPE
    device = _device_of(report["machine"])
    axes.set_title(f"log-sum-exp, {n:,} queries x {m:,} centers\n{device}", fontsize=10)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options, sizes and times filled in for this machine."""
    parser = argparse.ArgumentParser(
        description="Time the pairwise log-sum-exp kernel beside the machine's limits and peers.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="two shapes, two dimensions, about a minute")
    add("--shapes", nargs="+", type=_shape, metavar="NxM", help="queries x centers")
    add("--dims", nargs="+", type=int, metavar="D")
    add("--ops", nargs="+", choices=list(OPS), default=list(OPS))
    names = ["avae_jax", *PEERS]
    add("--contenders", nargs="+", choices=names, default=names)
    add("--implementation", help="of our kernel; the fastest measured one if not given")
    add("--precision", choices=list(PASSES), default="highest", help="accuracy class of ours")
    add("--max-seconds", type=float, help="of one call of ours; larger cells are shrunk")
    add("--minutes", type=float, help="aimed at for the whole run")
    add("--output", type=Path, help="JSON file to write")
    add("--plot", action="store_true", help="only draw the plot again from the JSON")
    add("--work-per-device", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    slow = jax.default_backend() == "cpu"
    defaults = {
        "shapes": list(QUICK_SHAPES if options.quick else SHAPES),
        "dims": list(QUICK_DIMS if options.quick else DIMS),
        "max_seconds": (0.1 if options.quick else 1.0) if slow else 4.0,
        "minutes": 1.0 if options.quick else 13.0,
    }
    chosen = {name: getattr(options, name) for name in ("shapes", "dims")}
    options.whole = not options.quick and options.implementation is None
    options.whole &= options.precision == "highest" and not any(chosen.values())
    options.whole &= options.ops == list(OPS) and options.contenders == names
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if min(options.dims) < 1 or options.max_seconds <= 0 or options.minutes <= 0:
        parser.error("--dims, --max-seconds and --minutes must be positive")
    return options


def _shape(text: str) -> tuple[int, int]:
    try:
        n, m = (int(size) for size in text.split("x"))
    except ValueError:
        n = m = 0
    if min(n, m) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not QUERIESxCENTERS")
    return n, m


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write the JSON and the plot."""
    start = time.perf_counter()
    options = parse_options(argv)
    if options.work_per_device:
        print(json.dumps(work_per_device()))
        return
    name = results_name()
    path = options.output or (RESULTS / f"{name}.json" if options.whole else None)
    picture = DOCS / f"{name}.png"
    if options.plot:
        draw(json.loads((path or RESULTS / f"{name}.json").read_text()), picture)
        return

    load = os.getloadavg()
    before = measure_ceilings()
    print("\n".join(describe(before)), flush=True)
    benchmark = Benchmark(options, before, start + 60 * options.minutes)
    benchmark.run()

    after = measure_ceilings()
    ceilings = Ceilings(*map(max, before, after))
    for row in benchmark.rows:
        if "median_s" in row:
            row["floor_s"] = benchmark.floor(row["op"], row["n"], row["m"], row["d"], ceilings)
            row["fraction_of_floor"] = row["floor_s"] / row["median_s"]
    report = {
        "machine": describe_machine(*dict.fromkeys(peer.package for peer in PEERS.values())),
        "load_average_at_start": load,
        "xla_flags": os.environ.get("XLA_FLAGS"),
        "ceilings": ceilings._asdict(),
        "bandwidth": BANDWIDTH,
        "bandwidths": BANDWIDTHS.tolist(),
        "implementation": options.implementation,
        "precision": options.precision,
        "max_seconds": options.max_seconds,
        "exponents": fit_exponents(benchmark.rows),
        "work_per_device": work_per_device_apart(),
        "rows": benchmark.rows,
        "minutes": (time.perf_counter() - start) / 60,
    }
    print("\n" + table(report))
    print("\nexponents", json.dumps(report["exponents"]))
    print("work per device", json.dumps(report["work_per_device"]))
    print(f"{report['minutes']:.1f} minutes; load average at the start {load[0]:.1f}")
    if path is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n")
        print(f"wrote {path.name}")
        if options.whole:
            draw(report, picture)
    else:
        print("nothing was written: --output names a JSON file for a part of the grid")


if __name__ == "__main__":
    main()
