"""Cell after cell: trained, evaluated, recorded; what was done before is not done again."""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from avae_jax.comparison.cells import Cell, Data, check_cells
from avae_jax.comparison.cost import Meter
from avae_jax.comparison.progress import TableProgress
from avae_jax.comparison.record import Record, read_record, read_summary, write_record
from avae_jax.data import ImageData
from avae_jax.evaluation import evaluate_run
from avae_jax.evaluation.classify import train_on
from avae_jax.evaluation.disentangled import Factors
from avae_jax.evaluation.evaluate import NUM_IMAGES, check_options, file_spaces
from avae_jax.files import describe_error, write_atomically
from avae_jax.training import loop
from avae_jax.training.setup import make_setup
from avae_jax.training.writers import strict_json

COSTS_FILE = "costs.json"


class Stopped(Exception):
    """A comparison was asked to stop; the same call goes on."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How cells are evaluated, as `evaluate_run` takes it: by what methods are compared by.

    A cell is a run: `avae evaluate RUN` measures the rest of it.

    Attributes:
      quick: whether to measure reconstruction and codes alone.
      num_images: the most images of a split.
      num_samples: the most decoded draws of a distribution.
      iwae_samples: draws per image for the bound on the likelihood.
      factors: what is scored where the factors of the data are known.
      classifier: file of a classifier for distances in its features; None trains one on each data
        set with labels, kept in the comparison's folder.
      inception_weights: file of the Inception weights; None leaves FID out.
    """

    quick: bool = False
    num_images: int = NUM_IMAGES
    num_samples: int = 10_000
    iwae_samples: int = 500
    factors: Factors = "scores"
    classifier: Path | None = None
    inception_weights: Path | None = None

    def check(self) -> None:
        """Refuse what no cell could be evaluated by, before any is trained.

        Raises:
          ValueError: too few of something, or a file that is none.
          OSError: a file that is not there.
        """
        check_options(
            num_images=self.num_images,
            num_samples=self.num_samples,
            iwae_samples=self.iwae_samples,
            factors=self.factors,
        )
        file_spaces(self.inception_weights, self.classifier)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self), default=str))


@dataclasses.dataclass
class Runner:
    """Runs the cells of a comparison.

    Attributes:
      folder: of the comparison.
      evaluation: how cells are evaluated.
      progress: where a person looks.
      data: where images come from.
      settle: returns the cells whose values are known by now: all once trials have ended.
      report: called after every cell, with whether it was the last.
    """

    folder: Path
    evaluation: Evaluation
    progress: TableProgress
    data: Data
    settle: Callable[[], Sequence[Cell]]
    report: Callable[[bool], None]

    def __post_init__(self):
        self._meter = Meter(lambda config: make_setup(config, dataset=self.data.of(config)))
        self._classifiers: dict[str, Path | None] = {}
        self.costs = read_costs(self.folder)
        self.cells = self.settle()

    def is_done(self, cell: Cell) -> bool:
        """Return whether a cell is trained, and evaluated as it is asked for now."""
        record = read_record(self.folder, cell)
        asked = record.validation if cell.is_trial else record.evaluation
        return asked == self.evaluation.to_dict() and (
            read_summary(self.folder, cell, record) is not None
        )

    def run(self, trials: Sequence[Cell], cells: Sequence[Cell]) -> None:
        """Train and evaluate trials, and the cells with what they chose.

        Args:
          trials: of what is tuned.
          cells: as `make_cells` returns them without choices.

        Raises:
          RefusedError: trials or cells that cannot be run; none is trained.
          Stopped: after SIGINT, or SIGTERM while a cell is trained.
        """
        try:
            self._run(trials, cells)
        except KeyboardInterrupt:
            raise Stopped("the check of its cells") from None

    def _run(self, trials: Sequence[Cell], cells: Sequence[Cell]) -> None:
        with compiled_programs(self.folder / "compiled"):
            check_cells([it for it in (*trials, *cells) if not self.is_done(it)], self.data)
            self._all(trials)
            self.cells, names = self.settle(), {cell.name for cell in cells}
            self._all([cell for cell in self.cells if cell.name in names])
        self.report(True)

    def _all(self, cells: Sequence[Cell]) -> None:
        """Run those cells that are not done."""
        waiting = []
        for cell in cells:
            if self.is_done(cell):
                self.progress.known(cell, _seconds(cell, read_record(self.folder, cell)))
            else:
                waiting.append(cell)
        for cell in waiting:
            self._cell(cell)

    def _cell(self, cell: Cell) -> None:
        """Run a cell, or record why it failed."""
        record = read_record(self.folder, cell)
        spent, ended = _seconds(cell, record), False
        try:
            if not cell.is_trial:
                self._measure_cost(cell)
            if record.status not in ("trained", "finished"):
                self._train(cell, record)
            self._evaluate(cell, record)
            ended = True
        except (KeyboardInterrupt, loop.Interrupted) as stop:
            self.report(True)
            raise Stopped(cell.name) from stop
        # Whatever spoils one cell must not take the others along; its reason is in the table.
        except Exception as error:  # noqa: BLE001
            record.status, record.reason = "failed", _reason(error)
            write_record(self.folder, cell, record)
        seconds = _seconds(cell, record)
        outcome = f"failed: {record.reason}"
        if ended:
            measured = seconds - record.training_seconds
            outcome = f"{seconds:.0f} s, {measured:.0f} of them evaluation"
        self.progress.end(cell, seconds if ended else max(0.0, seconds - spent), outcome)
        self.report(False)

    def _train(self, cell: Cell, record: Record) -> None:
        """Train a cell, or go on with its training, with what it says in a log of its own."""
        self.progress.begin(cell, "training")
        record.status, record.reason = "begun", ""
        write_record(self.folder, cell, record)
        run_dir = self.folder / cell.folder
        before, start = record.training_seconds, time.monotonic()
        log = run_dir.with_name(f"{run_dir.name}.log")
        try:
            with log.open("a", encoding="utf-8") as file, contextlib.redirect_stderr(file):
                loop.train(cell.config, run_dir, dataset=self.data.of(cell.config))
            record.status = "trained"
        finally:
            record.training_seconds = before + time.monotonic() - start
            write_record(self.folder, cell, record)

    def _evaluate(self, cell: Cell, record: Record) -> None:
        self.progress.begin(cell, "evaluating")
        asked, run_dir = self.evaluation, self.folder / cell.folder
        options: dict[str, Any] = {"quick": True}
        if not asked.quick:
            options = {
                "brief": True,
                "num_samples": asked.num_samples,
                "iwae_samples": asked.iwae_samples,
                "factors": asked.factors,
                "classifier": self._classifier(cell),
                "inception_weights": asked.inception_weights,
            }
        if cell.is_trial:
            options["split"] = "validation"
            if not asked.quick:
                # No judge reads them.
                options |= {"iwae_samples": 1, "factors": "none"}
        # What is done once for all cells, as training a classifier, is no part of one's time.
        start = time.monotonic()
        evaluate_run(
            run_dir,
            output=self.folder / cell.evaluation_folder,
            dataset=self.data.of(cell.config),
            num_images=asked.num_images,
            say=lambda line: self.progress.begin(cell, line),
            **options,
        )
        seconds = time.monotonic() - start
        if cell.is_trial:
            record.validation_seconds, record.validation = seconds, asked.to_dict()
            # The test images of an earlier plan's cell are none of a trial's business.
            record.status = "finished" if record.status == "finished" else "trained"
        else:
            record.evaluation_seconds, record.evaluation = seconds, asked.to_dict()
            record.status = "finished"
        record.reason = ""
        write_record(self.folder, cell, record)

    def _classifier(self, cell: Cell) -> Path | None:
        """Return the classifier of a cell's data, trained where there is none yet."""
        if self.evaluation.classifier is not None:
            return self.evaluation.classifier
        if cell.experiment not in self._classifiers:
            dataset = self.data.of(cell.config)
            self._classifiers[cell.experiment] = self._make_classifier(cell, dataset)
        return self._classifiers[cell.experiment]

    def _make_classifier(self, cell: Cell, dataset: ImageData) -> Path | None:
        if dataset.labels is None or dataset.num_classes is None or len(dataset.images.shape) != 4:
            return None
        name = f"lenet-{dataset.name}-{dataset.fingerprint()[:8]}.npz"
        path = self.folder / "classifiers" / name
        if not path.exists():
            self.progress.note(
                f"training a classifier on {dataset.name}, to judge samples by: {name}"
            )
            path.parent.mkdir(exist_ok=True)
            train_on(dataset).save(path)
        return path

    def _measure_cost(self, cell: Cell) -> None:
        """Measure what a method costs, once on this kind of device."""
        key = cost_key(cell)
        if key in self.costs:
            return
        self.progress.begin(cell, "measuring what a step costs")
        try:
            self.costs[key] = self._meter.measure(cell.config)
        except Exception as error:  # noqa: BLE001
            # A cost that cannot be measured is no reason not to train; it is tried again.
            self.costs[key] = {"reason": _reason(error)}
            return
        whole = {name: cost for name, cost in self.costs.items() if "reason" not in cost}
        write_atomically(self.folder / COSTS_FILE, strict_json(whole))


def _seconds(cell: Cell, record: Record) -> float:
    """Return what training and evaluation of a cell took."""
    measured = record.validation_seconds if cell.is_trial else record.evaluation_seconds
    return record.training_seconds + measured


def cost_key(cell: Cell) -> str:
    """Return what the cost of a cell is kept under."""
    return f"{cell.seedless_hash[:16]} {jax.devices()[0].device_kind}"


def cost_of(cell: Cell, costs: Mapping[str, Any], device: str | None) -> Any:
    """Return what a cell's method costs on its device, or else on another; None if not known."""
    key = cell.seedless_hash[:16]
    others = [cost for name, cost in costs.items() if name.startswith(f"{key} ")]
    return costs.get(f"{key} {device}", next(iter(others), None))


def read_costs(folder: Path) -> dict[str, Any]:
    """Return the costs that were measured, by `cost_key`."""
    try:
        return json.loads((folder / COSTS_FILE).read_text())
    except (OSError, ValueError):
        return {}


def _reason(error: BaseException) -> str:
    """Return an error as one line: what was said to the user, or where the code broke."""
    said = isinstance(error, (ValueError, OSError, loop.TrainingError)) and str(error)
    return " ".join((str(error) if said else describe_error(error)).split())


@contextlib.contextmanager
def compiled_programs(folder: Path) -> Iterator[None]:
    """Keep compiled programs in a folder while the block runs, unless the user keeps them already.

    Seeds of a method then compile once.
    """
    names = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    if jax.config.jax_compilation_cache_dir or "JAX_COMPILATION_CACHE_DIR" in os.environ:  # pyright: ignore[reportAttributeAccessIssue]
        yield
        return
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in names.items():
        jax.config.update(name, value)
    # It may have looked before, and found no folder.
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
