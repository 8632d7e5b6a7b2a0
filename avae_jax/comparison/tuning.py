"""Values of fields chosen on validation images, by as many trials for every method."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avae_jax.comparison.cells import Cell, Choices
from avae_jax.comparison.numbers import judged
from avae_jax.comparison.plan import Plan
from avae_jax.comparison.record import read_record, read_summary


def describe_tuning(
    plan: Plan, trials: Sequence[Cell], folder: Path
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what is known of the trials of a plan.

    Args:
      plan: it.
      trials: as `make_trials` returns them.
      folder: of the comparison.

    Returns:
      By experiment and label: "trials", each with its values, the judge's number and its run;
      "chosen", the values whose number is the lowest, the first of equals, None until all trials
      have ended; "status", "waiting", "chosen", or "failed" where none has a number; "judged_by",
      the number's name in full. A trial that failed is none to choose, and is tried again by the
      next call.
    """
    tuning: dict[str, dict[str, dict[str, Any]]] = {}
    for trial in trials:
        entry = tuning.setdefault(trial.experiment, {}).setdefault(
            trial.label,
            {"seed": trial.seed, "judged_by": plan.judge, "status": "waiting", "chosen": None,
             "trials": []},
        )  # fmt: skip
        known = _describe(plan, trial, folder)
        entry["judged_by"] = known.pop("judged_by") or entry["judged_by"]
        entry["trials"].append(known)
    for entry in (it for own in tuning.values() for it in own.values()):
        if all(trial["status"] in ("finished", "failed") for trial in entry["trials"]):
            ended = [trial for trial in entry["trials"] if trial["judged"] is not None]
            best = min(ended, key=lambda trial: trial["judged"], default=None)
            entry["status"] = "failed" if best is None else "chosen"
            entry["chosen"] = None if best is None else best["values"]
    return tuning


def choices_of(tuning: dict[str, dict[str, dict[str, Any]]]) -> Choices:
    """Return the values that were chosen."""
    return {
        (experiment, label): entry["chosen"]
        for experiment, own in tuning.items()
        for label, entry in own.items()
        if entry["chosen"] is not None
    }


def _describe(plan: Plan, trial: Cell, folder: Path) -> dict[str, Any]:
    record = read_record(folder, trial)
    summary = read_summary(folder, trial, record)
    value, status, reason, judged_by = None, record.status, record.reason, ""
    if summary is not None:
        judged_by, number = judged(summary, plan.judge)
        value = number.value
        status, reason = ("finished", "") if value is not None else ("failed", number.reason)
    elif status != "failed":
        status = "waiting"
    return {
        "values": dict(trial.values),
        "judged": value,
        "judged_by": judged_by,
        "status": status,
        "reason": reason,
        "config_hash": trial.hash,
        "folder": trial.folder.as_posix(),
        "seconds": {"training": record.training_seconds, "evaluation": record.validation_seconds},
    }
