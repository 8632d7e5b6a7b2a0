"""What is known of a cell, kept beside its run folder, which holds a run and nothing else."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from avae_jax.comparison.cells import Cell
from avae_jax.evaluation.record import SUMMARY_FILE
from avae_jax.files import write_atomically
from avae_jax.training.writers import strict_json

Status = Literal["waiting", "begun", "trained", "failed", "finished"]


@dataclasses.dataclass
class Record:
    """How far a cell has come.

    Attributes:
      status: "trained" is trained and not yet evaluated as asked.
      reason: why it failed.
      training_seconds: over all calls.
      evaluation_seconds: of the evaluation.
      evaluation: what was asked of it.
      validation_seconds: of the evaluation on validation images, of a trial.
      validation: what was asked of that.
    """

    status: Status = "waiting"
    reason: str = ""
    training_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    evaluation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    validation_seconds: float = 0.0
    validation: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def record_path(folder: Path, cell: Cell) -> Path:
    """Return where a cell's record lies, in the folder of a comparison."""
    place = folder / cell.folder
    return place.with_name(f"{place.name}.json")


def read_record(folder: Path, cell: Cell) -> Record:
    """Return what is known of a cell; a record that cannot be read knows nothing."""
    try:
        return Record(**json.loads(record_path(folder, cell).read_text()))
    except (OSError, ValueError, TypeError):
        return Record()


def write_record(folder: Path, cell: Cell, record: Record) -> None:
    """Keep what is known of a cell."""
    path = record_path(folder, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, strict_json(dataclasses.asdict(record)))


def read_summary(folder: Path, cell: Cell, record: Record) -> dict[str, Any] | None:
    """Return the summary of a finished cell; None of another, or where it cannot be read.

    That of a trial is of validation images, whatever else came of its run.
    """
    if not (record.validation if cell.is_trial else record.status == "finished"):
        return None
    try:
        return json.loads((folder / cell.evaluation_folder / SUMMARY_FILE).read_text())
    except (OSError, ValueError):
        return None
