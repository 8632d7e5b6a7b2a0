"""Measures all we want to know of a GPU or TPU in one command of at most eight minutes.

    python benchmarks/accelerator.py [--budget 480] [--mnist FOLDER] [--output FILE_OR_FOLDER]

The stages, in order of worth:

- a `contract`: every implementation in every accuracy class against NumPy float64, on the device:
  values, statistics, gradients, leave-one-out, several bandwidths, as shares of their limits;
- b `ceilings`: the machine's own products per class, exponentials, multiply-adds and copies;
- c `tiles`: tile sizes, as the entry of `tiles.json` that `--write-tiles` puts there;
- d `grid`: the kernel with those tiles, its share of the floor, memory and compile time, in turns
  with torch, KeOps and dense `jax.numpy` where they are installed;
- e `steps`: a step of the AVAE beside one of the plain autoencoder of the same nets, for MNIST,
  CIFAR-10 and CelebA, queue and re-encoding, one and several steps a dispatch;
- f `train`: the paper's MNIST net at full width, as many epochs as there is time, and its latents;
- g `bandwidth`: the bandwidth in 2,048 dimensions with a million centers.

Each runs in a process of its own (`accelerator_stages.py`) with a share of the time that is left by
its worth, and writes as it goes: a stage that fails leaves its error, one that hangs is ended, and
the next one runs. The report, benchmarks/results/accelerator_DEVICE.json, is rewritten whenever a
stage has found something. A process that dies or hangs in a contender of ours starts over without
that one.

Nothing needs to be installed but JAX, Flax, Optax, Orbax, SciPy, scikit-learn and matplotlib, and
no network is used. `--pack-mnist FOLDER`, where MNIST is prepared, makes the folder that `--mnist`
takes; without it the images are random or rendered, and the report says so. `update_tables.py`
makes a table of each report in the README.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Nothing here imports JAX: a process that holds a device would take it from the stages.
from common import RESULTS, write_whole

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = Path(__file__).with_name("accelerator_stages.py")

WORTH = {
    "contract": 75.0,
    "ceilings": 20.0,
    "tiles": 70.0,
    "grid": 110.0,
    "steps": 90.0,
    "train": 60.0,
    "bandwidth": 55.0,
}
"""Stages in order, and their shares of the time; what one leaves is shared by those after it."""

LETTERS = dict(zip("abcdefg", WORTH, strict=True))

DEVICE_LOST = 75
"""Exit code of a stage whose device answers no more."""

# Compiling is measured in these: what was compiled before must not help.
_COMPILES_COLD = ("grid",)
_FEWEST_SECONDS, _GRACE_SECONDS, _POLL_SECONDS = 5.0, 3.0, 0.2
_LOG_LINES = 12
# So long no compiler takes for one contender's next result. At the end of a stage half of it tells.
_HUNG_SECONDS = 40.0


class Measurement:
    """A report under way.

    Args:
      options: of the command line.
      worth: the stages to run, in order, with their shares of the time.
      script: what runs a stage.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        *,
        worth: Mapping[str, float] = WORTH,
        script: Path = SCRIPT,
    ):
        self.options, self.worth, self.script = options, worth, script
        self.start, self.launched = time.monotonic(), 0.0
        self.report: dict[str, Any] = {
            "machine": None,
            "commit": commit(options.commit),
            "smoke": options.smoke,
            "budget_s": options.budget,
            "stages": {},
        }
        self.device_name: str | None = None

    def run(self) -> dict[str, Any]:
        """Run the stages and return the report."""
        chosen = self.options.stages or list(self.worth)
        waiting = {name: worth for name, worth in self.worth.items() if name in chosen}
        with tempfile.TemporaryDirectory(prefix="accelerator-") as folder:
            for name in self.worth:
                if name not in waiting:
                    self.report["stages"][name] = {"status": "skipped", "why": "not asked for"}
                    continue
                left = self.options.budget - (time.monotonic() - self.start) - _GRACE_SECONDS
                limit = left * waiting[name] / sum(waiting.values())
                del waiting[name]
                if limit < _FEWEST_SECONDS:
                    self.report["stages"][name] = {"status": "skipped", "why": "no time left"}
                    continue
                self._run_stage(name, limit, Path(folder))
            self._write()
        return self.report

    def path(self) -> Path | None:
        """Return where the report goes; None for a smoke test that was given no place."""
        output, name = self.options.output, f"accelerator_{self.device_name or 'unknown'}.json"
        if output is None:
            return None if self.options.smoke else RESULTS / name
        return output if output.suffix == ".json" else output / name

    def _run_stage(self, name: str, limit: float, folder: Path) -> None:
        """Run a stage to its end or its limit, and again if it died in one of our contenders."""
        print(f"{name}: up to {limit:.0f} s", flush=True)
        start, part, log = time.monotonic(), folder / f"{name}.json", folder / f"{name}.log"
        stage: dict[str, Any] = {"status": "running", "limit_s": limit}
        self.report["stages"][name] = stage
        died_in: set[str] = set()
        while True:
            code = self._run_process(name, limit - (time.monotonic() - start), part, log)
            label = stage.get("under_way", {}).get("label")
            died = code is not None and (code < 0 or code == DEVICE_LOST)
            died |= self._waiting_seconds(stage) > _HUNG_SECONDS
            left = limit - (time.monotonic() - start)
            # Once for each contender, and not with too little time to get anywhere.
            if not died or label is None or label in died_in or left < 2 * _FEWEST_SECONDS:
                break
            died_in.add(label)
        if label is not None and (died or self._waiting_seconds(stage) > _HUNG_SECONDS / 2):
            stage["crashed"] = [*stage.get("crashed", []), label]
        text = log.read_text(errors="replace").strip().splitlines()
        last_lines = "\n".join(text[-_LOG_LINES:])
        if code is None:
            stage |= {"status": "cut off", "last_lines": last_lines}
        elif code == 0:
            stage["status"] = "ok"
        else:
            stage |= {"status": "failed", "error": last_lines, "exit_code": code}
        stage["seconds"] = time.monotonic() - start
        self._write()
        print(f"{name}: {stage['status']}, {stage['seconds']:.0f} s", flush=True)
        if "error" in stage:
            print(stage["error"], flush=True)

    def _run_process(self, name: str, limit: float, part: Path, log: Path) -> int | None:
        """Run a stage's process and return its exit code, None when it was ended at its limit."""
        report = part.with_name("report.json")
        write_whole(report, json.dumps(self.report))
        # It should be done somewhat before it is ended; by the clock, since it starts with imports.
        until = time.time() + max(limit - 4, 0.8 * limit)
        command = [sys.executable, str(self.script), name, "--part", str(part)]
        command += ["--report", str(report), "--until", str(until)]
        command += ["--smoke"] * self.options.smoke + ["--write-tiles"] * self.options.write_tiles
        if self.options.mnist is not None:
            command += ["--mnist", str(self.options.mnist)]
        deadline, self.launched = time.monotonic() + limit, time.time()
        with log.open("a") as output:
            process = subprocess.Popen(
                command,
                env=self._environment(name, part.parent),
                stdout=output,
                stderr=subprocess.STDOUT,
                # A group of its own: compilers start processes that must end with it.
                start_new_session=True,
            )
            try:
                seen = None
                while process.poll() is None and time.monotonic() < deadline:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(_POLL_SECONDS)
                    seen = self._collect(name, part, seen)
                    if self._waiting_seconds(self.report["stages"][name]) > _HUNG_SECONDS:
                        break
                in_time = process.poll() is not None
            finally:
                end(process)
            self._collect(name, part, seen)
        return process.returncode if in_time else None

    def _waiting_seconds(self, stage: Mapping[str, Any]) -> float:
        """Return for how long a contender of ours has kept the stage's process waiting."""
        since = stage.get("under_way", {}).get("since", 0.0)
        # What an earlier process left is no sign of this one.
        return time.time() - since if since >= self.launched else 0.0

    def _environment(self, name: str, folder: Path) -> dict[str, str]:
        added = {
            "PYTHONPATH": python_path(),
            "AVAE_CACHE_DIR": str(folder / "cache"),
            # Other libraries share the device.
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
        if self.options.smoke:
            # Most of a smoke test is compiling.
            flags = os.environ.get("XLA_FLAGS", ""), "--xla_backend_optimization_level=0"
            added["XLA_FLAGS"] = " ".join(filter(None, flags))
        if name not in _COMPILES_COLD:
            added["JAX_COMPILATION_CACHE_DIR"] = str(folder / "compiled")
        return os.environ | added

    def _collect(self, name: str, part: Path, seen: int | None) -> int | None:
        """Take over what a stage has written since `seen`, and return when that was."""
        try:
            written = part.stat().st_mtime_ns
        except FileNotFoundError:
            return seen
        if written == seen:
            return seen
        found = json.loads(part.read_text())
        machine, device = found.pop("machine", None), found.pop("device_name", None)
        self.report["machine"] = self.report["machine"] or machine
        self.device_name = self.device_name or device
        stage = self.report["stages"][name]
        stage.pop("under_way", None)
        stage |= found
        self._write()
        return written

    def _write(self) -> None:
        self.report["seconds"] = time.monotonic() - self.start
        path = self.path()
        if path is not None and self.report["machine"] is not None:
            write_whole(path, json.dumps(self.report, indent=1) + "\n")


def python_path() -> str:
    """Return PYTHONPATH with the checkout, which need not be installed, and these scripts in it."""
    folders = [str(ROOT), str(SCRIPT.parent), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(filter(None, folders))


def end(process: subprocess.Popen) -> None:
    """End a process and those it has started, gently at first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        # Also where it has ended by itself: what it started may live on.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)


def commit(given: str | None) -> str | None:
    """Return the commit given, or that of the checkout, "+" behind it if files have changed."""
    if given is not None or not (ROOT / ".git").exists():
        return given

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def table(report: Mapping[str, Any]) -> str:
    """Return a report as a table of the kernel by dimension, and sentences on the rest."""
    stages, machine = report["stages"], report["machine"]
    rows = [row for row in stages.get("grid", {}).get("rows", []) if "median_s" in row]
    dims = sorted({row["d"] for row in rows})
    lines = [f"**{_device(machine)}** (jax {machine['versions']['jax']}{_driver(machine)})", ""]
    if rows:
        lines.append(
            "| ps per pair (share of floor) | " + " | ".join(f"d = {d}" for d in dims) + " |"
        )
        lines.append("|--|" + "--|" * len(dims))
    names = dict.fromkeys((row["contender"], row["op"]) for row in rows)
    shapes = list(dict.fromkeys((row["n"], row["m"]) for row in rows))
    for shape in shapes:
        for contender, op in names:
            if op != "lse" and shape != shapes[0]:
                continue
            cells = {
                row["d"]: f"{row['ps_per_pair']:.2g} ({row['fraction_of_floor']:.0%})"
                for row in rows
                if (row["contender"], row["op"], row["n"], row["m"]) == (contender, op, *shape)
            }
            if cells:
                label = f"{shape[0]:,} x {shape[1]:,}, {contender}, {op}"
                lines.append(f"| {label} | " + " | ".join(cells.get(d, "-") for d in dims) + " |")
    return "\n".join([*lines, "", *_sentences(stages)]).strip()


def _sentences(stages: Mapping[str, Any]) -> list[str]:
    found = []
    summary = stages.get("contract", {}).get("summary", {})
    if summary:
        checked, within = (sum(s[key] for s in summary.values()) for key in ("checked", "within"))
        found.append(f"{within} of {checked} errors against float64 are within their limits.")
    measured = [row for row in stages.get("steps", {}).get("rows", []) if "median_s" in row]
    for row in measured:
        if row["method"] != "autoencoder":
            found.append(
                f"{row['experiment']}, {row['method']}, {row['steps_per_dispatch']} steps a "
                f"dispatch: {1e3 * row['median_s']:.2f} ms a step, {row['ratio']:.2f}x the "
                f"autoencoder, {row['images_per_second']:,.0f} images/s."
            )
    train = stages.get("train", {})
    if train.get("seconds_per_epoch") is not None:
        found.append(
            f"The MNIST net at full width takes {train['seconds_per_epoch']:.1f} s an epoch of "
            f"{train['num_train']:,} images ({train['images']})."
        )
    for row in stages.get("bandwidth", {}).get("rows", []):
        found.append(
            f"The bandwidth for {row['num_centers']:,} centers in {row['latent_dim']:,} dimensions "
            f"takes {row['seconds']:.1f} s."
        )
    return found


def _device(machine: Mapping[str, Any]) -> str:
    platform, _, kind = machine["device"].partition(": ")
    return f"{machine['cores']} CPU cores" if platform == "cpu" else kind


def _driver(machine: Mapping[str, Any]) -> str:
    return f", driver {machine['driver']}" if machine.get("driver") else ""


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description="Measure all we want to know of a GPU or TPU, stage by stage."
    )
    add = parser.add_argument
    add("--budget", type=float, default=480.0, help="seconds for all of it")
    add("--stages", nargs="+", metavar="STAGE", help="a to g, or their names; all if not given")
    add("--output", type=Path, help="a .json file, or a folder, instead of benchmarks/results")
    add("--mnist", type=Path, help="folder that --pack-mnist made")
    add("--pack-mnist", type=Path, metavar="FOLDER", help="only put the prepared MNIST there")
    add("--commit", help="of the checkout, where there is no git to ask")
    add("--write-tiles", action="store_true", help="put the tile sizes into tiles.json")
    add("--smoke", action="store_true", help="tiny sizes: only show that every stage works")
    options = parser.parse_args(argv)
    options.stages = [LETTERS[name] if name in LETTERS else name for name in options.stages or []]
    unknown = [name for name in options.stages if name not in WORTH]
    if unknown:
        parser.error(f"unknown stages {', '.join(unknown)}: choose from {', '.join(WORTH)}")
    if options.budget <= 0:
        parser.error(f"--budget must be positive, got {options.budget:g}")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stages; the exit code says whether all of them were there to the end."""
    options = parse_options(argv)
    # Asked to end, it ends the stage under way too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.pack_mnist is not None:
        command = [sys.executable, str(SCRIPT), "pack-mnist", "--mnist", str(options.pack_mnist)]
        return subprocess.run(command, env=os.environ | {"PYTHONPATH": python_path()}).returncode
    measurement = Measurement(options)
    report = measurement.run()
    path = measurement.path()
    if path is None:
        print("nothing was written: --output names a file or a folder for a smoke test")
    else:
        print(f"wrote {path.name}; {report['seconds']:.0f} s")
    bad = [name for name, stage in report["stages"].items() if stage["status"] == "failed"]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
