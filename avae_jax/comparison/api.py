"""Comparing methods from Python in one call: `av.compare(["digits"], methods=["ae", "vae"])`."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from avae_jax.comparison import report
from avae_jax.comparison.cells import Cell, Data, find_refused, make_cells, make_trials
from avae_jax.comparison.numbers import JUDGES
from avae_jax.comparison.plan import SUFFIX, Fields, Plan, Tuned, make_plan, plain_value, read_plan
from avae_jax.comparison.progress import TableProgress
from avae_jax.comparison.results import collect
from avae_jax.comparison.runner import Evaluation, Runner, Stopped
from avae_jax.comparison.tuning import choices_of, describe_tuning
from avae_jax.files import check_folder, locked, user_path, write_atomically
from avae_jax.text import nearest
from avae_jax.training.config import ConfigError
from avae_jax.training.writers import strict_json

PLAN_FILE, LOCK_FILE = "plan.json", "comparison.lock"

PAGE_EVERY = 60.0
"""Seconds from one page and figure to the next, while cells are run: they take seconds to draw."""


def compare(
    experiments: str | os.PathLike | Iterable[str] | Mapping[str, Fields],
    *,
    methods: Iterable[str] | Mapping[str, Fields] = (),
    seeds: Iterable[int] = (),
    reference: str | None = None,
    tune: Tuned | None = None,
    judge: str | None = None,
    only: Sequence[str] = (),
    output: str | os.PathLike | None = None,
    evaluation: Mapping[str, Any] | None = None,
    say: Callable[[str], None] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Train methods on the same data from the same weights, evaluate them, and put them in a table.

    Methods of one seed share splits, batches, initial weights, images and steps. Every cell is
    checked before the first is trained. The same call goes on where one was stopped: finished cells
    are kept, begun ones continue bit for bit, failed ones are tried again; a plan that has grown
    keeps the cells whose configuration is the same.

    Args:
      experiments: names or paths as `load_experiment` takes them, or a mapping from them to fields
        of their cells; the path of a .toml file is a whole plan.
      methods: names, or a mapping from labels to fields ("method" names the method of a label that
        is none); none are all methods, but for those that an experiment cannot train, which a note
        names.
      seeds: of splits, batches, initial weights and noise; none are 0, 1 and 2.
      reference: the label that others are compared with; None is the library's own method.
      tune: values to try, by label and field: `{"beta_vae": {"beta": [1.0, 4.0, 16.0]}}`. Those of
        several fields are tried in all combinations, as many for every label here; other methods
        have their one trial. Trials are runs of the first seed, evaluated on validation images; the
        best values are those of all seeds, and test images are for them alone.
      judge: what is best: "fd" (FD of samples as the method draws them, in the features of a
        classifier of the data where there is one), "mse", "moment_kl" or "kde_kl"; None is "fd".
      only: patterns such as "vae" or "digits/*/seed0": cells that are run now. The table is of all.
      output: the comparison's folder; None is `comparisons/` and the experiments' names.
      evaluation: how cells are evaluated, by the names of `Evaluation`, such as
        `{"quick": True, "num_samples": 2000}`.
      say: receives a line about what was made equal; None writes to standard error.
      **fields: fields of the configuration, for every method that has them.

    Returns:
      What `results.json` holds: "cells", "table" and where they come from. The folder also has
      `table.md`, `comparison.png` and `comparison.html`.

    Raises:
      ConfigError: a plan that cannot be run; `RefusedError` has a line per cell.
      Stopped: after SIGINT; all is kept.

    Example:
      >>> import avae_jax as av
      >>> results = av.compare(  # doctest: +SKIP
      ...     ["digits"], methods=["ae", "vae", "avae"], seeds=range(3), num_epochs=20
      ... )
    """
    if isinstance(experiments, str | os.PathLike):
        experiments = os.fspath(experiments)
    if isinstance(experiments, str) and experiments.endswith(SUFFIX):
        given = {
            "methods": methods,
            "seeds": seeds,
            "reference": reference,
            "tune": tune,
            "judge": judge,
            **fields,
        }
        named = next((name for name, value in given.items() if value not in ((), None)), None)
        if named is not None:
            raise ConfigError(f"{named} must not be given beside {experiments}, got it: leave it "
                              "out, or write it into the file")  # fmt: skip
        plan = read_plan(Path(experiments))
    else:
        experiments = [experiments] if isinstance(experiments, str) else experiments
        plan = make_plan(experiments, methods, seeds, fields, reference, tune, judge or JUDGES[0])
    known = [field.name for field in dataclasses.fields(Evaluation)]
    for name in evaluation or {}:
        if name not in known:
            raise ConfigError(f"unknown field {name!r} of evaluation{nearest(name, known)}")
    asked = Evaluation(**{name: plain_value(value) for name, value in (evaluation or {}).items()})
    return run_plan(plan, only=only, output=output, evaluation=asked, say=say)


def run_plan(
    plan: Plan,
    *,
    only: Sequence[str] = (),
    output: str | os.PathLike | None = None,
    evaluation: Evaluation | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Run a plan; see `compare`."""
    evaluation = evaluation or Evaluation()
    evaluation.check()
    if plan.tune and evaluation.quick and plan.judge == "fd":
        raise ConfigError(
            f"judge must be measured, got fd with quick: choose {' or '.join(JUDGES[1:])}, or "
            "leave quick out"
        )
    folder = default_folder(plan) if output is None else user_path(output)
    check_folder(folder, name="output")
    data = Data()
    try:
        left_out = find_refused(plan, data)
    except KeyboardInterrupt:
        raise Stopped("the check of its cells") from None
    notes: dict[str, list[str]] = {}
    cells = make_cells(
        plan,
        lambda experiment, line: notes.setdefault(experiment, []).append(line),
        left_out=left_out,
    )
    trials = make_trials(plan)
    chosen = [cell for cell in cells if not only or cell.fits(only)]
    if not chosen:
        raise ConfigError(
            f"only must fit a cell, got {' '.join(only)}: name one such as {cells[0].name}"
        )
    wanted = {(cell.experiment, cell.label) for cell in chosen}
    tried = [trial for trial in trials if (trial.experiment, trial.label) in wanted]
    _check_is_comparison(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / LOCK_FILE, name="output"):
        write_atomically(
            folder / PLAN_FILE,
            strict_json({"hash": plan.hash, **plan.to_dict(), "cells": [it.name for it in cells]}),
        )
        progress = TableProgress([*tried, *chosen])
        for experiment, lines in notes.items():
            for line in lines:
                (say or progress.note)(f"{experiment}: {line}")
        results: dict[str, Any] = {
            "evaluation": evaluation.to_dict(),
            "left_out": left_out,
            "notes": notes,
        }
        runner = _make_runner(plan, trials, folder, evaluation, progress, data, results)
        runner.run(tried, chosen)
        return results


def _make_runner(
    plan: Plan,
    trials: Sequence[Cell],
    folder: Path,
    evaluation: Evaluation,
    progress: TableProgress,
    data: Data,
    results: dict[str, Any],
) -> Runner:
    """Return what runs a plan's cells and keeps their results, in `results` and in the folder.

    What `results` holds at first is kept with them.
    """
    drawn, given = time.monotonic(), dict(results)

    def settle() -> list[Cell]:
        """Return the cells whose values are known by now."""
        choices = choices_of(describe_tuning(plan, trials, folder))
        return make_cells(plan, choices=choices, left_out=given["left_out"])

    def write(is_last: bool) -> None:
        nonlocal drawn
        tuning = describe_tuning(plan, trials, folder)
        results.update(collect(plan, runner.cells, folder, runner.costs, tuning, given=given))
        write_atomically(folder / report.RESULTS_FILE, strict_json(results))
        report.write_tables(results, folder)
        if is_last or time.monotonic() - drawn > PAGE_EVERY:
            report.write_page(results, folder)
            drawn = time.monotonic()

    runner = Runner(folder, evaluation, progress, data, settle, write)
    return runner


def default_folder(plan: Plan) -> Path:
    """Return where a comparison is kept where nothing else is said."""
    return Path("comparisons", "-".join(Path(name).stem for name in plan.experiments))


def _check_is_comparison(folder: Path) -> None:
    """Refuse a folder that holds something else."""
    held = set()
    with contextlib.suppress(FileNotFoundError):
        held = {path.name for path in folder.iterdir()} - {LOCK_FILE}
    if held and PLAN_FILE not in held:
        raise ConfigError(
            f"output must be empty or hold a comparison, got {folder}: choose another"
        )
