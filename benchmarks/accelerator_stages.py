"""The stages of `accelerator.py`: each runs in a process of its own and writes what it finds.

    python benchmarks/accelerator_stages.py STAGE --part FILE [--report FILE] [--until TIME]

A stage is a function of its `Part`, the JSON file that it adds to as it goes, and of the options.
It looks at the time between two steps of its work and ends by itself; `accelerator.py` ends one
that does not. What can take the whole process along (a kernel that has never run on this hardware)
is announced by `Part.begin`: a process that starts over leaves it out.
"""

import argparse
import contextlib
import dataclasses
import faulthandler
import functools
import importlib
import importlib.util
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from accelerator import DEVICE_LOST
from common import describe_machine, write_whole
from machine import Ceilings, measure_ceilings, measure_products
from pairwise_lse import Benchmark, Ours, device_name, parse_options

import avae_jax as av
from avae_jax.kernels.pairwise_lse import tiles as tile_table
from avae_jax.kernels.pairwise_lse.implementations import IMPLEMENTATIONS
from avae_jax.kernels.pairwise_lse.reference import reference_stats
from avae_jax.training.writers import strict_json

ROOT = Path(__file__).resolve().parent.parent

VALUES, ALL = ("lse", "grad"), ("lse", "grad", "loo", "bandwidths")
OURS = {
    "matrix highest": Ours("matrix", "highest", ALL),
    "difference": Ours("difference", "highest", VALUES),
    "matrix high": Ours("matrix", "high", VALUES),
    "matrix fast": Ours("matrix", "fast", VALUES),
    **{
        f"{name} {precision}": Ours(name, precision, ops)
        for name in ("pallas_gpu", "pallas_tpu")
        for precision, ops in (("highest", ALL), ("high", VALUES), ("fast", VALUES))
    },
}
"""Our contenders, the sure ones first. Another one is a line."""

# Shares of the exponentials that the Hopper kernel computes by a polynomial, beside the one it has.
# Under names of this process alone: which of them stays is for the measurement to say.
for _share in (0.125, 0.25, 0.5):
    _name = f"pallas_gpu, {_share:g} polynomial"
    _hopper = IMPLEMENTATIONS["pallas_gpu"]
    IMPLEMENTATIONS[_name] = dataclasses.replace(
        _hopper, sums=functools.partial(_hopper.sums, polynomial_share=_share)
    )
    OURS[_name] = Ours(_name, "highest", ("lse", "loo", "grad"))

PEERS = ("jnp_dense", "torch_matrix", "torch_chunked", "torch_compile", "pykeops")
PEERS += ("torch_chunked_grad",)

# (d, shapes) of the grid in order of worth, and dimensions of the tiles likewise.
GRID = (
    (64, ((4096, 65_536), (65_536, 65_536), (128, 1_000_000))),
    (16, ((4096, 65_536), (65_536, 65_536))),
    (256, ((4096, 65_536), (65_536, 65_536))),
    (2, ((4096, 65_536), (65_536, 65_536))),
    (1024, ((4096, 65_536),)),
    (128, ((4096, 65_536),)),
)
SMOKE_GRID = ((64, ((64, 256),)), (2, ((64, 256),)))
TILE_DIMS = (64, 16, 256, 2, 8, 1024)
# "difference" takes 2 d operations a pair on the vector units.
MOST_DIFFERENCE_DIMS = 64

EXPERIMENTS = ("mnist", "cifar10", "celeb_a")
IMAGE_SHAPES = {"mnist": (32, 32, 1), "cifar10": (32, 32, 3), "celeb_a": (64, 64, 3)}
METHODS = {
    "autoencoder": {"method": "ae"},
    # With a given beta none is measured first; the step is the same.
    "avae queue": {"refresh": "queue", "beta": 1.0},
    "avae reencode": {"refresh": "reencode", "beta": 1.0},
}
TINY = {"architecture": "mlp", "width": 0.1, "num_centers": 100, "batch_size": 20}

LARGE_BANDWIDTH = ((2048, 100_000), (2048, 1_000_000))


class Part:
    """What a stage has found so far; in its file with every change.

    Args:
      path: the file; what an earlier process left there is kept.
      seconds: how long the stage should take.
    """

    def __init__(self, path: Path, seconds: float):
        self.path, self._deadline = path, time.perf_counter() + seconds
        self.values: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        died_in = self.values.pop("under_way", None)
        if died_in is not None:
            self.values.setdefault("crashed", []).append(died_in["label"])

    @property
    def deadline(self) -> float:
        """When the stage should end, by `time.perf_counter`."""
        return self._deadline

    def left(self) -> float:
        """Return the seconds left."""
        return self._deadline - time.perf_counter()

    def set(self, **values: Any) -> None:
        """Put values in, and write."""
        self.values |= values
        write_whole(self.path, strict_json(self.values))

    def add(self, name: str, row: Any) -> None:
        """Append to a list, and write."""
        self.set(**{name: [*self.values.get(name, []), row]})

    def begin(self, label: str) -> None:
        """Say what comes next, "" for nothing that could be fatal; end if the last one was."""
        check_device()
        self.values.pop("under_way", None)
        self.set(**({"under_way": {"label": label, "since": time.time()}} if label else {}))


def check_device() -> None:
    """End the process if the device computes no more, as after an illegal access."""
    try:
        jax.block_until_ready(jnp.zeros(()) + 1)
    except RuntimeError as error:
        print(f"the device is lost: {error}", file=sys.stderr, flush=True)
        sys.exit(DEVICE_LOST)


def available(part: Part, report: dict) -> dict[str, Ours]:
    """Return our contenders that run here, and note why others do not."""
    before = report.get("stages", {}).get("contract", {})
    dead = [*part.values.get("crashed", []), *before.get("crashed", [])]
    found, skipped = {}, {}
    for label, ours in OURS.items():
        reason = IMPLEMENTATIONS[ours.implementation or "matrix"].unavailable()
        if label in dead:
            reason = "its process died or hung"
        elif jax.default_backend() == "cpu" and ours.precision != "highest":
            reason = "a CPU computes all classes in float32"
        if reason is None:
            found[label] = ours
        else:
            skipped[label] = reason
    part.set(skipped=skipped)
    return found


# (a) The contract.


class Case(NamedTuple):
    """A problem and what is asked of it: "values", "statistics", "gradients" or "gradient in x"."""

    name: str
    problem: Any
    asks: tuple[str, ...]


def load_contract() -> ModuleType:
    """Return the module in which the tests state the kernel's contract."""
    path = ROOT / "tests" / "kernels" / "pairwise_lse" / "contract.py"
    spec = importlib.util.spec_from_file_location("contract", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"{path.name} of the tests is not here: run this in a checkout")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def contract_cases(contract: ModuleType, *, whole: bool) -> Iterator[Case]:
    """Yield the problems: few shapes, since compiling one takes longer than computing it.

    Args:
      contract: the tests' module.
      whole: whether to yield all, not only what tells the classes apart.
    """
    make, d = contract.make_problem, 21
    everything = ("values", "statistics", "gradients")
    optional = {"weights": True, "exclude": True}
    # One shape: the first one compiles for all.
    for offset, bandwidth in ((0.0, 0.5), (1e3, 0.7), (10.0, 1e-2), (0.0, 10.0)):
        near = min(bandwidth, 0.5)
        problem = make(130, 1000, d, bandwidth=bandwidth, near=near, offset=offset, **optional)
        yield Case(
            f"weights and exclusions, offset {offset:g}, h {bandwidth:g}", problem, everything
        )
    yield Case("far queries", problem._replace(x=1e3 * problem.x), ("values", "statistics"))
    twice = np.tile(problem.y[:500], (2, 1))
    yield Case("duplicates", problem._replace(y=twice), everything)
    points = make(1000, 1000, 64, bandwidth=1.0)
    left_out = np.arange(1000, dtype=np.int32)
    loo = points._replace(x=points.y, exclude=left_out)
    yield Case("leave-one-out", loo, ("values", "gradient in x"))
    several = make(130, 700, 12, bandwidth=np.array([0.7, 0.05, 3.0], np.float32), **optional)
    yield Case("three bandwidths", several, everything)
    queries, centers = (min(size, 4096) + 1 for size in tile_table.tile_sizes(10**6, 10**6, d))
    yield Case("across tiles", make(queries, centers, d), ("values",))
    if not whole:
        return
    widest = min(tile_table.tile_sizes(4, 10**9, d)[1], 2**16) + 1
    yield Case("four queries", make(4, widest, d), ("values", "gradient in x"))
    yield Case("one center", make(5, 1, d), ("values", "gradient in x"))
    yield Case("two dimensions", make(64, 1000, 2, bandwidth=0.05), ("values", "gradient in x"))
    yield Case("512 dimensions", make(260, 500, 512, bandwidth=4.0), ("values", "gradient in x"))


class Checker:
    """Compares one contender after the other with float64, which is computed once."""

    def __init__(self, contract: ModuleType):
        self._contract = contract
        self._problems: dict[str, Any] = {}
        self._stats = functools.cache(self._reference_stats)
        self._gradients = functools.cache(self._reference_gradients)

    def check(self, case: Case, ask: str, ours: Ours) -> dict[str, dict[str, Any]]:
        """Return the largest error by quantity, in its unit and as a share of its limit."""
        self._problems[case.name] = case.problem
        options = {"implementation": ours.implementation, "precision": ours.precision}
        if ask in ("values", "statistics"):
            return self._check_rows(case, ask, options)
        names = ("x",) if ask == "gradient in x" else ("x", "y", "log_weights", "bandwidth")
        return self._check_gradients(case, names, options)

    def _reference_stats(self, name: str, bandwidth: float):
        problem = self._problems[name]
        return reference_stats(problem.x, problem.y, bandwidth=bandwidth, **problem.options)

    def _reference_gradients(self, name: str):
        problem = self._problems[name]
        return self._contract.expected_gradients(problem, self._contract.make_cotangent(problem))

    def _check_rows(self, case, ask, options):
        problem, found = case.problem, {}
        if ask == "values":
            actual: Any = {"lse": self._contract.call(problem, **options)}
        else:
            actual = self._contract.call_stats(problem, **options)._asdict()
        several = np.ndim(problem.bandwidth) == 1
        for k, h in enumerate(problem.bandwidths):
            expected = self._stats(case.name, h)
            if ask == "values":
                args = problem, h, expected.lse, options["implementation"], options["precision"]
                limit = {"lse": self._contract.value_limit(*args)}
            else:
                limit = self._contract.limits(problem, h, *options.values())._asdict()
            for name, value in actual.items():
                value = np.asarray(value)[k] if several else value
                error = compare(value, getattr(expected, name), limit[name])
                key = "value" if ask == "values" else name
                found[key] = worse(found.get(key), error)
        return found

    def _check_gradients(self, case, names, options):
        problem, found = case.problem, {}
        given = dict(zip(("x", "y", "bandwidth", "log_weights"), problem.args, strict=True))
        given = {name: a for name, a in given.items() if a is not None}
        cotangent = self._contract.make_cotangent(problem)
        # Apart from the others: not every implementation has the bandwidth's.
        groups = [[n for n in names if n in given and n != "bandwidth"]]
        groups += [["bandwidth"]] * ("bandwidth" in names)
        expected: Any = self._gradients(case.name)
        each = [
            self._contract.limits(problem, h, *options.values(), g)
            for h, g in zip(problem.bandwidths, np.atleast_2d(cotangent), strict=True)
        ]
        for group in groups:
            some = {name: given[name] for name in group}
            rest = {name: a for name, a in given.items() if name not in group}
            try:
                gradients = gradient(some, rest, problem.exclude, cotangent, **options)
            except NotImplementedError as reason:
                found |= {f"gradient in {name}": {"refused": first_line(reason)} for name in group}
                continue
            for name, actual in gradients.items():
                limit: Any = [getattr(e, name) for e in each]
                limit = np.reshape(limit, np.shape(actual)) if name == "bandwidth" else sum(limit)
                error = compare(actual, getattr(expected, name), limit)
                found[f"gradient in {name}"] = error
        return found


@functools.partial(jax.jit, static_argnames=("implementation", "precision"))
def gradient(some, rest, exclude, cotangent, *, implementation, precision):
    """Return the gradients of sum(cotangent * lse) in the arguments `some`, the others given."""

    def loss(some):
        args = {**some, **rest, "exclude": exclude}
        x, y = args.pop("x"), args.pop("y")
        lse = av.pairwise_lse(x, y, implementation=implementation, precision=precision, **args)
        return jnp.sum(cotangent * lse)

    return jax.grad(loss)(some)


def compare(actual, expected, limit) -> dict[str, Any]:
    """Return the largest error, its share of the limit, and whether all is as it should be."""
    actual, expected = (np.asarray(a, np.float64) for a in (actual, expected))
    if actual.shape != expected.shape:
        raise ValueError(f"shape {actual.shape}, not {expected.shape}")
    limit = np.asarray(limit)
    limit = limit.reshape(limit.shape + (1,) * (expected.ndim - limit.ndim))
    finite = np.isfinite(expected)
    error = np.abs(np.where(finite, actual - expected, 0.0))
    share = float(np.max(error / limit, initial=0.0))
    # NaN and infinity where float64 has them.
    same = np.array_equal(actual[~finite], expected[~finite], equal_nan=True)
    return {
        "max_error": float(np.max(error, initial=0.0)),
        "share_of_limit": share,
        "within": bool(same and share <= 1.0),
    }


def worse(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """Return the worse of two comparisons; one that is not a number is the worst."""
    if old is None:
        return new
    worst = {name: float(np.fmax(old[name], new[name])) for name in ("max_error", "share_of_limit")}
    return {**worst, "within": old["within"] and new["within"]}


def first_line(error: BaseException) -> str:
    """Return an error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def contract(part: Part, options: argparse.Namespace) -> None:
    """Hold every implementation against float64 in every class that tells on this device."""
    checker, stated = Checker(module := load_contract()), {"matrix highest", "difference"}
    done = {row["label"] for row in part.values.get("rows", [])}
    for label, ours in available(part, options.report).items():
        if label in done:
            continue
        whole = not options.smoke and (label in stated or ours.precision == "highest")
        for case in contract_cases(module, whole=whole):
            n, d = case.problem.x.shape
            row = {"label": label, "case": case.name, "n": n, "m": len(case.problem.y), "d": d}
            if part.left() < 0:
                part.add("rows", row | {"skipped": "no time left"})
                continue
            start, found, errors = time.perf_counter(), {}, {}
            for ask in case.asks:
                part.begin(label)
                try:
                    found |= checker.check(case, ask, ours)
                except NotImplementedError as reason:
                    found[ask] = {"refused": first_line(reason)}
                # Whatever a kernel raises on hardware it has not seen, the next one is to be tried.
                except Exception as error:  # noqa: BLE001
                    errors[ask] = first_line(error)
            row |= {"seconds": time.perf_counter() - start, "results": found}
            part.add("rows", row | ({"errors": errors} if errors else {}))
            summarize(part)
            part.begin("")


def summarize(part: Part) -> None:
    """Count, per contender, how many numbers are within their limits."""
    summary: dict[str, dict[str, Any]] = {}
    empty = {"checked": 0, "within": 0, "refused": 0, "failed": 0, "largest_share_of_limit": 0.0}
    for row in part.values["rows"]:
        counts = summary.setdefault(row["label"], dict(empty))
        counts["failed"] += len(row.get("errors", {}))
        for result in row.get("results", {}).values():
            if "refused" in result:
                counts["refused"] += 1
                continue
            counts["checked"] += 1
            counts["within"] += result["within"]
            largest = max(counts["largest_share_of_limit"], result["share_of_limit"])
            counts["largest_share_of_limit"] = largest
    part.set(summary=summary)


# (b) The machine's own ceilings.


def ceilings(part: Part, options: argparse.Namespace) -> None:
    """Measure products per class, exponentials, multiply-adds and copies."""
    part.set(products=measure_products(tiny=options.smoke))
    part.set(ceilings=measure_ceilings(tiny=options.smoke)._asdict())


# (c) Tile sizes.


def tiles(part: Part, options: argparse.Namespace) -> None:
    """Measure tile sizes, and make of them the device's entry of the kernel's table."""
    tuner: Any = importlib.import_module("tune_tiles")
    platform = jax.default_backend()
    size = tuner.SIZES.get(platform, tuner.SIZES["gpu"])
    queries, centers = tuner.CANDIDATES.get(platform, tuner.CANDIDATES["gpu"])
    # Of the whole grid's tiles those near a square: a compiler's tuning takes seconds each.
    near = [(q, c) for q, c in itertools.product(queries, centers) if c / q in (0.25, 1, 4)]
    widths, dims = tuner.WIDTHS[2::2], TILE_DIMS
    if options.smoke:
        size, near, widths, dims = (256, 1024), [(128, 256), (256, 512)], (512, 1024), (64, 2)
    chosen, rows, took = {}, [], 0.0
    for last, d in zip((dims[0], *dims), dims, strict=False):
        # Where points are large, drawing them takes the longest.
        if part.left() < 1.2 * took * max(1.0, d / last):
            break
        start = time.perf_counter()
        repeats = 1 if options.smoke else 5
        settings = {"size": size, "tiles_to_try": near, "widths": widths, "repeats": repeats}
        chosen[d] = tuner.tune(d, rows, **settings)
        took = time.perf_counter() - start
        entry = tuner.rules(chosen)
        part.set(dims=list(chosen), key=jax.devices()[0].device_kind, entry=entry, rows=rows)
    if options.write_tiles and not options.smoke:
        tuner.write_entry(part.values["key"], part.values["entry"])


# (d) The grid.


def grid(part: Part, options: argparse.Namespace) -> None:
    """Time the kernel beside the floor and other libraries, with the tiles just measured."""
    stages = options.report.get("stages", {})
    rates = stages.get("ceilings", {}).get("ceilings")
    rates = measure_ceilings(tiny=options.smoke) if rates is None else Ceilings(**rates)
    entry = stages.get("tiles", {}).get("entry")
    if entry is not None:
        table = {**tile_table.load_table(), jax.devices()[0].device_kind: entry}
        tile_table.load_table = lambda: table
    contenders = available(part, options.report)
    done = {(row["d"], row["asked_n"], row["asked_m"]) for row in part.values.get("rows", [])}
    part.set(tiles_of_this_run=entry is not None, ceilings=rates._asdict())
    cells = [
        (d, shape)
        for d, shapes in (SMOKE_GRID if options.smoke else GRID)
        for shape in shapes
        if (d, *shape) not in done
    ]
    for number, (d, shape) in enumerate(cells):
        if part.left() <= 0:
            part.set(no_time_left_for=[[d, *shape] for d, shape in cells[number:]])
            break
        here = {
            label: ours
            for label, ours in contenders.items()
            if ours.implementation != "difference" or d <= MOST_DIFFERENCE_DIMS
        }
        settings = parse_options(["--shapes", f"{shape[0]}x{shape[1]}", "--dims", str(d)])
        # torch compiles for half a minute.
        peers = [peer for peer in PEERS if number == 0 or peer != "torch_compile"]
        settings.contenders = [*here, *peers]
        # The first cell has all contenders, the later ones get what the earlier ones leave.
        share = 0.45 if number == 0 else 1 / min(len(cells) - number, 4)
        share = time.perf_counter() + share * part.left()
        benchmark = Benchmark(settings, rates, share, ours=here, before=part.begin)
        benchmark.run()
        for row in benchmark.rows:
            if row.get("floor_s"):
                row["fraction_of_floor"] = row["floor_s"] / row["median_s"]
            part.add("rows", row)


# (e) Training steps.


def mnist(options: argparse.Namespace):
    """Return MNIST from the folder given, or as prepared here; None where there is none."""
    from avae_jax.data import ImageData, Splits, load_dataset

    if options.mnist is not None:
        with np.load(options.mnist / "images.npz") as stored:
            images, labels = stored["images"], stored["labels"]
        return ImageData("mnist", images, labels, Splits.load(options.mnist / "splits.npz"), 10)
    try:
        return load_dataset("mnist")
    except (FileNotFoundError, ImportError):
        return None


def pack_mnist(folder: Path) -> None:
    """Put the prepared MNIST into a folder that needs neither tfds nor its cache."""
    from avae_jax.data import load_dataset

    dataset = load_dataset("mnist")
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {"images": dataset.images, "labels": dataset.labels}
    np.savez_compressed(folder / "images.npz", **arrays)
    dataset.splits.save(folder / "splits.npz")
    size = sum(path.stat().st_size for path in folder.glob("*.npz"))
    print(f"{len(dataset.images):,} images, {size / 2**20:.0f} MiB")


def experiment(name: str):
    """Return the configuration of an experiment, whether or not the package is installed."""
    config = importlib.import_module(f"experiments.{name}").config
    return dataclasses.replace(config, experiment=name)


def steps(part: Part, options: argparse.Namespace) -> None:
    """Time a step of the AVAE beside one of the plain autoencoder of the same nets."""
    from train_step import Runner, measure, random_images

    from avae_jax.training.config import replace_fields, to_dict
    from avae_jax.training.setup import make_setup
    from avae_jax.training.trainer import MAX_STEPS_PER_DISPATCH, Trainer

    several, length, rounds = MAX_STEPS_PER_DISPATCH, 2 * MAX_STEPS_PER_DISPATCH, 6
    names, dataset, took = EXPERIMENTS, mnist(options), 0.0
    if options.smoke:
        several, length, rounds, names, dataset = 2, 2, 2, EXPERIMENTS[:1], None
    for name in names:
        if part.left() < 0.8 * took:
            part.add("rows", {"experiment": name, "skipped": "no time left"})
            continue
        start, config = time.perf_counter(), experiment(name)
        images = dataset if name == "mnist" else None
        if options.smoke:
            config = replace_fields(config, **TINY)
        num_centers = int(to_dict(config)["method"]["num_centers"])
        if images is None:
            batch_size = config.optimization.batch_size
            num_train = max(2 * num_centers, several * batch_size)
            images = random_images(IMAGE_SHAPES[name], num_train, 100 if options.smoke else 1000)
        runners: dict[tuple[str, int], Runner] = {}
        for method, fields in METHODS.items():
            setup = make_setup(replace_fields(config, **fields), dataset=images)
            trainer = Trainer(setup, steps_per_dispatch=several)
            state, most = trainer.init(), trainer.feed.steps_per_dispatch
            for count in (1, most):
                if options.smoke and count == 1 and method == "avae reencode":
                    continue
                # The steps are donated their state: each runner has its own.
                own = jax.tree.map(jnp.copy, state)
                trainer.feed.steps_per_dispatch = count
                runners[method, count] = Runner(trainer, own, steps=length)
        times = measure(runners, rounds)
        for (method, count), seconds in times.items():
            # The ratio within a round cancels most of what else the machine was doing.
            base = np.array(times["autoencoder", 1 if count == 1 else several])
            median, batch = float(np.median(seconds)), config.optimization.batch_size
            row = {
                "experiment": name,
                "images": images.name,
                "method": method,
                "steps_per_dispatch": count,
                "batch_size": batch,
                "num_centers": num_centers,
                "seconds": seconds,
                "median_s": median,
                "ratio": float(np.median(np.array(seconds) / base)),
                "images_per_second": batch / median,
                **step_memory(runners[method, count]),
            }
            part.add("rows", row)
        took = time.perf_counter() - start
        part.set(process_peak_bytes=peak_bytes())


def step_memory(runner) -> dict[str, int | None]:
    """Return the memory of a compiled dispatch, by its own analysis: a peak is of a process."""
    trainer, batches = runner.trainer, runner.batches[0]
    program = trainer.program
    function = program.train if len(batches) == 1 else program.train_many
    lowered = function.lower(runner.state, runner.metrics, trainer.feed.fetch_steps(batches))
    memory = lowered.compile().memory_analysis()
    if memory is None:
        return {"temporary_bytes": None, "peak_bytes": None}
    whole = memory.argument_size_in_bytes + memory.output_size_in_bytes
    whole += memory.temp_size_in_bytes - memory.alias_size_in_bytes
    return {"temporary_bytes": memory.temp_size_in_bytes, "peak_bytes": whole}


def peak_bytes() -> int | None:
    """Return the most memory this process has held on its device, None where it is not told."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


# (f) Training.


def rendered(count: int, num_other: int):
    """Return images of one soft spot each, for machines without MNIST: something to learn."""
    from avae_jax.data import ImageData, Splits

    rng = np.random.default_rng(0)
    at = np.arange(32, dtype=np.float32)
    center, width = rng.uniform(8, 24, (count, 2)), rng.uniform(2, 5, (count, 2))
    across, down = (
        np.exp(-0.5 * np.square((at - center[:, k, None]) / width[:, k, None])) for k in (0, 1)
    )
    images = (255 * down[:, :, None, None] * across[:, None, :, None]).astype(np.uint8)
    rows = np.split(np.arange(count), [count - 2 * num_other, count - num_other])
    return ImageData("rendered spots", images, None, Splits(*rows))


def train(part: Part, options: argparse.Namespace) -> None:
    """Train the paper's MNIST net for as many of its epochs as there is time, and evaluate it."""
    from avae_jax import metrics
    from avae_jax.evaluation.latent import describe_codes
    from avae_jax.evaluation.material import gather
    from avae_jax.training import loop
    from avae_jax.training.config import replace_fields
    from avae_jax.training.run import load_run
    from avae_jax.training.writers import read_metrics

    config = experiment("mnist")
    dataset = None if options.smoke else mnist(options)
    if options.smoke:
        config = replace_fields(config, **TINY, num_epochs=2)
    if dataset is None:
        dataset = rendered(400, 100) if options.smoke else rendered(70_000, 10_000)
    run_dir = options.part.parent / "run"
    part.set(images=dataset.name, num_train=len(dataset.splits.train))
    # Encoding and the latent metrics take about half a minute.
    limit = max(part.left() - 35, part.left() / 2)
    start, interrupted = time.perf_counter(), False
    with stop_after(limit):
        try:
            loop.train(config, run_dir, dataset=dataset)
        except loop.Interrupted:
            interrupted = True
    part.set(train_seconds=time.perf_counter() - start, interrupted=interrupted)
    # Without a whole epoch there are no rows yet.
    rows = read_metrics(run_dir)
    shown = ("epoch", "train/kl", "validation/kl", "validation/reconstruction", "null_kl")
    shown += ("images_per_second", "num_skipped")
    part.set(
        epochs=len(rows),
        epochs_of_the_paper=config.optimization.num_epochs,
        # The first one compiles; validation and saving are counted.
        seconds_per_epoch=float(
            np.median([len(dataset.splits.train) / row["images_per_second"] for row in rows[1:]])
        )
        if len(rows) > 1
        else None,
        rows=[{name: row.get(name) for name in shown} for row in rows],
        process_peak_bytes=peak_bytes(),
    )
    run = load_run(run_dir, which="best" if rows else "latest")
    material = gather(run, dataset)
    value_range = run.method.value_range
    part.set(
        checkpoint_step=run.step,
        reconstruction=metrics.reconstruction_error(
            material.x, material.x_recon, value_range=value_range
        ),
    )
    numbers, _ = describe_codes(material, quick=True)
    part.set(latent=numbers)


@contextlib.contextmanager
def stop_after(seconds: float) -> Iterator[None]:
    """Ask the training loop to stop when its time is over, as a user's SIGTERM would."""
    over = threading.Event()

    def ask():
        wait = seconds
        # More than once: before the loop has its handler, nobody listens.
        while not over.wait(max(wait, 0.0)):
            os.kill(os.getpid(), signal.SIGTERM)
            wait = 1.0

    thread = threading.Thread(target=ask, daemon=True)
    previous = signal.signal(signal.SIGTERM, lambda *_: None)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGTERM, previous)


# (g) The bandwidth of a large problem.


def bandwidth(part: Part, options: argparse.Namespace) -> None:
    """Find the bandwidth in 2,048 dimensions, without the cache on disk."""
    for latent_dim, num_centers in ((64, 2000),) if options.smoke else LARGE_BANDWIDTH:
        start = time.perf_counter()
        found = av.find_bandwidth(latent_dim, num_centers, cache=False)
        row = {
            "latent_dim": latent_dim,
            "num_centers": num_centers,
            **dataclasses.asdict(found),
            "seconds": time.perf_counter() - start,
            "center_bytes": 4 * latent_dim * num_centers,
            "process_peak_bytes": peak_bytes(),
            # In kibibytes on Linux.
            "host_peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        }
        part.add("rows", row)


STAGES: dict[str, Callable[[Part, argparse.Namespace], None]] = {
    "contract": contract,
    "ceilings": ceilings,
    "tiles": tiles,
    "grid": grid,
    "steps": steps,
    "train": train,
    "bandwidth": bandwidth,
}


def describe_accelerator() -> dict[str, Any]:
    """Return the machine with its driver and the runtime that JAX has for it."""
    device = jax.devices()[0]
    runtime = str(getattr(device.client, "platform_version", "")) or None
    machine = describe_machine("flax", "optax", "torch", "triton", "pykeops", "scipy")
    stats = device.memory_stats() or {}
    return {
        **machine,
        "driver": nvidia_driver() if device.platform == "gpu" else None,
        "runtime": runtime and " ".join(runtime.replace("/", " ").split()),
        "device_memory_bytes": stats.get("bytes_limit"),
    }


def nvidia_driver() -> str | None:
    """Return the version of NVIDIA's driver, None where its tool is not there."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split("\n", 1)[0].strip() or None


def main(argv=None) -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description="Run one stage of accelerator.py.")
    parser.add_argument("stage", choices=[*STAGES, "pack-mnist"])
    parser.add_argument("--part", type=Path, help="JSON file to add to")
    parser.add_argument("--report", type=Path, help="what the stages before have found")
    parser.add_argument("--until", type=float, help="end by then, in seconds since the epoch")
    parser.add_argument("--mnist", type=Path, help="folder that pack-mnist made")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--write-tiles", action="store_true")
    options = parser.parse_args(argv)
    faulthandler.enable()
    if options.stage == "pack-mnist":
        pack_mnist(options.mnist)
        return
    options.report = json.loads(options.report.read_text()) if options.report else {}
    part = Part(options.part, 60.0 if options.until is None else options.until - time.time())
    part.set(machine=describe_accelerator(), device_name=device_name())
    STAGES[options.stage](part, options)


if __name__ == "__main__":
    main()
