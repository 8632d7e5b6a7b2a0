"""A comparison as JSON values: its cells, and the table over seeds."""

import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from avae_jax.comparison.cells import Cell
from avae_jax.comparison.numbers import NOT_FINITE, Column, Number, columns_of, numbers_of
from avae_jax.comparison.plan import Plan
from avae_jax.comparison.record import read_record, read_summary
from avae_jax.comparison.runner import cost_of
from avae_jax.comparison.statistics import holm, least_holm, paired_difference, spread
from avae_jax.training.config import to_dict
from avae_jax.version import __version__


def collect(
    plan: Plan,
    cells: Sequence[Cell],
    folder: Path,
    costs: Mapping[str, Any],
    tuning: Mapping[str, Any],
    *,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Return all that is known of a comparison.

    Args:
      plan: what is compared.
      cells: of it; those that wait for trials are left out.
      folder: of the comparison.
      costs: by `cost_key`.
      tuning: as `describe_tuning` returns it.
      given: what is known before: "evaluation", what is asked of each cell's; "left_out", as
        `find_refused` returns it; "notes", by experiment.

    Returns:
      "plan", "plan_hash", "versions", "devices" of the cells, what was given, "cells" (each with
      its configuration, status, seconds, cost, how it was evaluated, and numbers with nulls),
      "tuning" and "table": by experiment and column, mean and spread of each method and its paired
      difference to the reference.
    """
    known = []
    numbers: dict[str, dict[Column, Number]] = {}
    for cell in cells:
        record = read_record(folder, cell)
        summary = read_summary(folder, cell, record)
        if summary is not None:
            numbers[cell.name] = numbers_of(summary)
        known.append(_describe(cell, record, summary, numbers.get(cell.name), costs))
    devices = [*dict.fromkeys(cell["device"] for cell in known if cell["device"])]
    packages = ("jax", "flax", "optax", "numpy", "scipy", "scikit-learn")
    return {
        "plan": plan.to_dict(),
        "plan_hash": plan.hash,
        "versions": {
            "avae_jax": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in packages},
        },
        "devices": devices or [jax.devices()[0].device_kind],
        **given,
        "cells": known,
        "tuning": tuning,
        "table": {
            experiment: _table(plan, [cell for cell in cells if cell.experiment == experiment],
                               numbers)
            for experiment in dict.fromkeys([*(cell.experiment for cell in cells), *tuning])
        },
    }  # fmt: skip


def _describe(cell: Cell, record, summary, numbers, costs) -> dict[str, Any]:
    about = {} if summary is None else summary["about"]
    return {
        "experiment": cell.experiment,
        "label": cell.label,
        "method": cell.config.method.name,
        "seed": cell.seed,
        "config_hash": cell.hash,
        "config": to_dict(cell.config),
        "folder": cell.folder.as_posix(),
        "status": record.status,
        "reason": record.reason,
        "seconds": {"training": record.training_seconds, "evaluation": record.evaluation_seconds},
        "cost": cost_of(cell, costs, about.get("device")),
        "evaluation": record.evaluation,
        "versions": about.get("versions"),
        "device": about.get("device"),
        "sampled_by": about.get("sampled_by"),
        "verdict": None if summary is None else summary["verdict"]["headline"],
        "numbers": {
            column.key: {"value": one.value, "null": one.null} | (
                {"reason": one.reason} if one.reason else {})
            for column, one in (numbers or {}).items()
        },
    }  # fmt: skip


def _table(
    plan: Plan, cells: Sequence[Cell], numbers: Mapping[str, Mapping[Column, Number]]
) -> list[dict[str, Any]]:
    """Return, by column, what its methods have over their seeds."""
    own = [numbers[cell.name] for cell in cells if cell.name in numbers]
    table: list[dict[str, Any]] = []
    for column in columns_of(own):
        values = {label: _values(column, label, cells, numbers) for label in plan.methods}
        table.append(
            {
                "key": column.key,
                "caption": column.heading,
                "better": column.better,
                "beside": column.beside,
                "scale": column.scale,
                "in_figure": column.in_figure,
                "methods": {
                    label: _row(column, label, plan.reference, values, cells, numbers)
                    for label in plan.methods
                },
            }
        )
    _correct(table)
    return table


def _values(column, label, cells, numbers) -> dict[int, float]:
    """Return what a method's seeds have."""
    found = {}
    for cell in cells:
        one = numbers.get(cell.name, {}).get(column)
        if cell.label == label and one is not None and is_number(one.value):
            found[cell.seed] = float(one.value)
    return found


def _row(column, label, reference, values, cells, numbers) -> dict[str, Any]:
    entries = {
        cell.seed: numbers[cell.name].get(column)
        for cell in cells
        if cell.label == label and cell.name in numbers
    }
    nulls = [float(one.null) for one in entries.values() if one and is_number(one.null)]
    without = [seed for seed in entries if seed not in values[label]]
    reasons = [one.reason for seed, one in entries.items() if one and seed in without]
    row: dict[str, Any] = spread([*values[label].values()])._asdict()
    row["null"] = spread(nulls).mean
    row["values"] = {str(seed): value for seed, value in values[label].items()}
    if without:
        row["seeds_without"] = without
        row["reason"] = next(filter(None, reasons), NOT_FINITE if reasons else "")
    if label != reference and column.is_tested:
        row["difference"] = paired_difference(values[label], values[reference])._asdict()
    return row


def _correct(table: list[dict[str, Any]]) -> None:
    """Add Holm's p to each difference: one number of all methods is a family.

    The question is which methods differ in a number. All numbers together, a hundred and more
    differences, would need ten seeds before any p could fall below one.
    """
    for column in table:
        rows = column["methods"].values()
        family = [row["difference"] for row in rows if "difference" in row]
        for difference, p in zip(family, holm([one["p"] for one in family]), strict=True):
            difference["p_holm"] = p
        column["family_size"], column["least_p_holm"] = least_holm(family)


def read_results(path: Path) -> dict[str, Any]:
    """Read `results.json`."""
    return json.loads(path.read_text())


def is_number(value: Any) -> bool:
    """Return whether a value of the results is one that can be shown."""
    return isinstance(value, (int, float)) and math.isfinite(value)
