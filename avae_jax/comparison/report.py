"""The results as a person reads them: a Markdown table, a figure, one HTML page."""

import functools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avae_jax import figures, text
from avae_jax.comparison.cells import shown_values
from avae_jax.comparison.numbers import COSTS
from avae_jax.comparison.results import is_number
from avae_jax.comparison.statistics import CONFIDENCE, MOST_EXACT
from avae_jax.evaluation import html
from avae_jax.evaluation.record import FIGURES
from avae_jax.evaluation.verdict import Finding
from avae_jax.files import write_atomically

RESULTS_FILE, TABLE_FILE = "results.json", "table.md"
FIGURE_FILE, PAGE_FILE = "comparison.png", "comparison.html"

_number = functools.partial(text.number, typographic=True)
_MISSING = "not computed"
_LARGE = 0.1
"""A least possible p from which a test can show nothing."""

Table = tuple[list[str], list[list[str]]]
"""Headings, and rows of cells."""


def value_table(
    results: Mapping[str, Any], experiment: str, *, keys: Sequence[str] | None = None
) -> Table:
    """Return mean ± standard deviation over seeds, a row per method, with nulls as columns.

    Beside a Frechet distance, in its cell, is the multiple of the codes' own rms at which the
    samples were drawn.

    Args:
      results: as `collect` returns them.
      experiment: whose table.
      keys: of the numbers and costs to show; None shows all.
    """
    columns = results["table"][experiment]
    labels = [label for label in results["plan"]["methods"]
              if label not in results["left_out"].get(experiment, {})]  # fmt: skip
    rows = [[label, str(_num_seeds(results, experiment, label))] for label in labels]
    heads = ["method", "seeds"]
    if results["tuning"]:
        heads.append("chosen by trials")
        for label, row in zip(labels, rows, strict=True):
            row.append(_chosen(results, experiment, label))
    scales = {column["key"]: column for column in columns}
    of_others = {column["scale"] for column in columns}
    before: list[str] = []
    for column in columns:
        if column["key"] in of_others or not _is_anywhere(column):
            continue
        if keys is not None and column["key"] not in keys:
            continue
        heads.append(column["caption"])
        scale = scales.get(column["scale"])
        for label, row in zip(labels, rows, strict=True):
            row.append(_cell(column["methods"][label], scale and scale["methods"][label]))
        nulls = [column["methods"][label]["null"] for label in labels]
        shown = [_number(null) if is_number(null) else "" for null in nulls]
        # Distances in one space have one floor.
        if any(shown) and shown != before:
            heads.append(column["beside"] or "null")
            for null, row in zip(shown, rows, strict=True):
                row.append(null)
        before = shown
    costs = {label: _cost(results, experiment, label) for label in labels}
    for key, caption in COSTS:
        is_shown = keys is None or key in keys
        if is_shown and any(is_number(cost.get(key)) for cost in costs.values()):
            heads.append(caption)
            for label, row in zip(labels, rows, strict=True):
                row.append(_shown_cost(key, costs[label]))
    return heads, rows


def difference_table(results: Mapping[str, Any], experiment: str) -> Table:
    """Return each method's paired differences to the reference, a row per number and method."""
    heads = ["number", "method", "seeds", "difference", f"{CONFIDENCE:.0%} t interval",
             "sign-flip p", "least possible p", "Holm's p"]  # fmt: skip
    rows = []
    for column in results["table"][experiment]:
        for label, row in column["methods"].items():
            one = row.get("difference")
            if one is None or not one["n"]:
                continue
            several = one["n"] > 1
            interval = f"{_number(one['low'])} to {_number(one['high'])}" if several else "one seed"
            shown = [one["p"], one["least_p"], one["p_holm"]]
            rows.append(
                [column["caption"], label, str(one["n"]), _number(one["mean"]), interval]
                + [_number(p) if several and is_number(p) else "" for p in shown]
            )
    return heads, rows


def trial_table(results: Mapping[str, Any], experiment: str) -> Table:
    """Return what the trials of an experiment's methods were judged by, a row per trial."""
    tuning = results["tuning"].get(experiment, {})
    heads = ["method", "values", _judges(results, experiment), ""]
    rows = []
    for label, entry in tuning.items():
        for trial in entry["trials"]:
            is_known = is_number(trial["judged"])
            value = _number(trial["judged"]) if is_known else trial["reason"] or trial["status"]
            is_chosen = entry["chosen"] == trial["values"]
            rows.append([label, shown_values(trial["values"]), value, "chosen" * is_chosen])
    return heads, rows


def _chosen(results: Mapping[str, Any], experiment: str, label: str) -> str:
    """Return the values that a method has from how many trials."""
    tuning = results["tuning"][experiment]
    budget = max(len(entry["trials"]) for entry in tuning.values())
    if label not in tuning:
        return f"1 of {budget} trials"
    entry = tuning[label]
    failed = sum(trial["status"] == "failed" for trial in entry["trials"])
    of = f"of {budget} trials" + (f", {failed} failed" if failed else "")
    return f"{'none' if entry['chosen'] is None else shown_values(entry['chosen'])} {of}"


def _judges(results: Mapping[str, Any], experiment: str) -> str:
    """Return in full what chose the values of an experiment's methods."""
    entries = results["tuning"][experiment].values()
    return ", ".join(dict.fromkeys(entry["judged_by"] for entry in entries))


def notes_of(results: Mapping[str, Any], experiment: str) -> list[str]:
    """Return what must be said beside a table."""
    plan = results["plan"]
    seeds = len(plan["seeds"])
    notes = [
        "A cell holds the mean over seeds ± their standard deviation (n − 1)."
        if seeds > 1
        else "One seed: no spread, no interval and no test."
    ]
    tuning = results["tuning"].get(experiment, {})
    if tuning:
        seed = next(iter(tuning.values()))["seed"]
        notes.append(
            f"Values were chosen by {_judges(results, experiment)} on the validation images of "
            f"seed {seed}, for all seeds; a method with 1 trial had nothing tuned. Test images "
            "were for what was chosen alone."
        )
    notes += [
        f"{experiment}/{label}/{shown_values(trial['values'])}, a trial, failed: {trial['reason']}."
        for label, entry in tuning.items()
        for trial in entry["trials"]
        if trial["status"] == "failed"
    ]
    columns = results["table"][experiment]
    if any(column["scale"] and _is_anywhere(column) for column in columns):
        notes.append(
            "After × stands the multiple of the codes' own rms at which the samples were drawn: "
            "wider draws decode to crisper images, and their lower FD says less."
        )
    of_others = {column["scale"] for column in columns}
    for column in columns:
        if not _is_anywhere(column) and column["key"] not in of_others:
            reasons = [row["reason"] for row in column["methods"].values() if row.get("reason")]
            notes.append(f"{column['caption']}: {_MISSING}{_why(next(iter(reasons), ''))}.")
        elif _is_anywhere(column):
            notes += _partly_missing(column)
    costs = {label: _cost(results, experiment, label) for label in plan["methods"]}
    own = [label for label, cost in costs.items() if cost.get("same_start") is False]
    if own:
        notes.append(
            f"Encoder or decoder of {', '.join(own)} do not start from the plain autoencoder's "
            "weights."
        )
    if any(cost.get("flops_at_least") for cost in costs.values()):
        notes.append("≥: a loop of unknown length is counted once.")
    if any(is_number(cost.get("flops")) for cost in costs.values()):
        notes.append(
            "FLOP are of the step alone, as the compiler counts them, loops in full; times are "
            "medians beside the plain autoencoder's, taken in turns in one process, what is done "
            "between steps included."
        )
    notes += [f"{note}." for note in results["notes"].get(experiment, [])]
    notes += _evaluated_otherwise(results, experiment)
    failed = [cell for cell in results["cells"]
              if cell["experiment"] == experiment and cell["status"] == "failed"]  # fmt: skip
    notes += [f"{_name(cell)} failed: {cell['reason']}." for cell in failed]
    return notes


def statistics_note(results: Mapping[str, Any], experiment: str) -> str:
    """Return how the paired differences are to be read."""
    plan = results["plan"]
    n = len(plan["seeds"])
    if n < 2:
        return "One seed: no interval and no test."
    said = [
        f"Method minus {plan['reference']}, seed by seed.",
        f"Interval: Student's, {n - 1} degrees of freedom.",
    ]
    columns = results["table"][experiment]
    least: dict[int, float] = {}
    for column in columns:
        if is_number(column["least_p_holm"]):
            p, size = column["least_p_holm"], column["family_size"]
            least[size] = min(p, least.get(size, p))
    if n > MOST_EXACT:
        said.append(f"p: none is computed of more than {MOST_EXACT} seeds.")
    else:
        said.append(
            f"p: all {2**n:,} flips of the signs, {_number(2.0 / 2**n)} at the least with {n} "
            "seeds."
        )
    if least:
        shown = ", ".join(f"{_number(p)} at the least of {m}" for m, p in sorted(least.items()))
        few = ""
        if max(least.values()) >= _LARGE:
            few = "; so few seeds can show no difference to be beyond chance"
            few += " where it is above a tenth" * (min(least.values()) < _LARGE)
        said.append(
            f"Holm's p: over the methods, number by number: {shown}{few}. Numbers are not "
            "corrected for each other."
        )
    without = [
        column["caption"]
        for column in columns
        if any("difference" in row and row["n"] for row in column["methods"].values())
        and not column["methods"][plan["reference"]]["n"]
    ]
    if without:
        said.append(
            f"No differences: {plan['reference']} has no {', '.join(without)}; another reference "
            "has."
        )
    return " ".join(said)


def markdown(results: Mapping[str, Any]) -> str:
    """Return the tables of all experiments as Markdown, columns aligned."""
    parts = []
    for experiment in results["table"]:
        if len(results["table"]) > 1:
            parts.append(f"**{experiment}**\n")
        parts.append(aligned(*value_table(results, experiment)))
        parts.append("\n".join(f"- {note}" for note in notes_of(results, experiment)) + "\n")
    return "\n".join(parts)


def terminal_text(results: Mapping[str, Any]) -> str:
    """Return the tables as a terminal shows them: cut into blocks of columns that fit its width."""
    width = shutil.get_terminal_size((100, 24)).columns
    lines = []
    for experiment in results["table"]:
        heads, rows = value_table(results, experiment)
        columns = [*zip(heads, *rows, strict=True)]
        widths = [max(map(len, column)) for column in columns]
        blocks = [[0]]
        for k in range(1, len(columns)):
            taken = sum(2 + widths[column] for column in blocks[-1])
            if len(blocks[-1]) > 1 and taken + widths[k] > width:
                blocks.append([0])
            blocks[-1].append(k)
        for block in blocks:
            for row in (heads, *rows):
                cells = [row[k].rjust(widths[k]) if k else row[k].ljust(widths[k]) for k in block]
                lines.append("  ".join(cells).rstrip())
            lines.append("")
        lines += [*notes_of(results, experiment), ""]
    return "\n".join(lines)


def aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown, columns aligned."""
    cells = [[text.replace("|", "\\|") for text in row] for row in (heads, *rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(heads))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        "| " + " | ".join(
            text.ljust(width) if k == 0 else text.rjust(width)
            for k, (text, width) in enumerate(zip(row, widths, strict=True))
        ) + " |"
        for row in (cells[0], rule, *cells[1:])
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def make_figure(results: Mapping[str, Any]) -> bytes | None:
    """Return the figure as PNG: a panel per number; None where there is none to draw."""
    without = [results["left_out"].get(experiment, {}) for experiment in results["table"]]
    labels = [label for label in results["plan"]["methods"]
              if not all(label in own for own in without)]  # fmt: skip
    panels = []
    for experiment, columns in results["table"].items():
        for column in columns:
            if not column["in_figure"] or not _is_anywhere(column):
                continue
            title = column["caption"]
            if len(results["table"]) > 1:
                title = f"{experiment}: {title}"
            rows = column["methods"]
            panels.append(
                figures.Panel(
                    title=title,
                    values={label: [*rows[label]["values"].values()] for label in labels},
                    nulls={label: rows[label]["null"] for label in labels
                           if is_number(rows[label]["null"])},
                    beside=column["beside"] or "null",
                    better=column["better"],
                )
            )  # fmt: skip
    return figures.to_png(figures.make_comparison(panels)) if panels else None


def page(results: Mapping[str, Any], folder: Path, figure: bytes | None) -> str:
    """Return the page: figure, samples side by side, tables, what failed.

    Args:
      results: as `collect` returns them.
      folder: of the comparison, from which samples are read.
      figure: as `make_figure` returns it.
    """
    plan = results["plan"]
    cells = results["cells"]
    done = sum(cell["status"] == "finished" for cell in cells)
    tables, pictures = [], {}
    if figure is not None:
        caption = "Dots: seeds. Bar: their mean. Dashed: null, floor or ceiling."
        pictures["All methods"] = [html.Picture("Numbers by method", caption, figure)]
    for experiment in results["table"]:
        shown = [one for cell in cells if cell["experiment"] == experiment
                 for one in _samples(cell, folder, plan["seeds"][0])]  # fmt: skip
        pictures[f"{experiment}: samples of seed {plan['seeds'][0]}"] = shown
        heads, rows = value_table(results, experiment)
        note = " ".join(notes_of(results, experiment))
        tables.append(html.Table(f"{experiment}: values", note, heads[1:], _pairs(rows)))
        if results["tuning"]:
            heads, rows = trial_table(results, experiment)
            note = "On validation images; the lowest is chosen."
            tables.append(html.Table(f"{experiment}: trials", note, heads[1:], _pairs(rows)))
        heads, rows = difference_table(results, experiment)
        if rows:
            tables.append(
                html.Table(
                    f"{experiment}: differences to {plan['reference']}",
                    statistics_note(results, experiment),
                    heads[1:], _pairs(rows),
                )
            )  # fmt: skip
    failed = [
        (_name(cell), "This cell failed.", [Finding("training", "fault", cell["reason"])])
        for cell in cells
        if cell["status"] == "failed"
    ]
    versions, devices = results["versions"], ", ".join(results["devices"])
    return html.make_comparison(
        title=f"{len(plan['methods'])} methods on {', '.join(results['table'])}",
        about=f"{done} of {len(cells)} cells are done; seeds {', '.join(map(str, plan['seeds']))}; "
        f"avae_jax {versions['avae_jax']}, jax {versions['jax']}, {devices}; plan "
        f"{results['plan_hash'][:16]}",
        pictures=pictures,
        tables=tables,
        verdicts=failed,
    )


def write_tables(results: Mapping[str, Any], folder: Path) -> None:
    """Write the Markdown table."""
    write_atomically(folder / TABLE_FILE, markdown(results))


def write_page(results: Mapping[str, Any], folder: Path) -> None:
    """Write the figure and the page."""
    figure = make_figure(results)
    if figure is not None:
        write_atomically(folder / FIGURE_FILE, figure)
    write_atomically(folder / PAGE_FILE, page(results, folder, figure))


def _pairs(rows: Sequence[Sequence[str]]) -> list[tuple[str, Sequence[str]]]:
    return [(row[0], row[1:]) for row in rows]


def _samples(cell: Mapping[str, Any], folder: Path, seed: int) -> list[html.Picture]:
    """Return the samples of a cell as a picture, if it has any and is of a seed."""
    if cell["seed"] != seed:
        return []
    path = folder / cell["folder"] / "evaluation" / FIGURES / "samples.png"
    if not path.exists():
        return []
    return [html.Picture(cell["label"], cell["verdict"] or "", path.read_bytes())]


def _name(cell: Mapping[str, Any]) -> str:
    return f"{cell['experiment']}/{cell['label']}/seed{cell['seed']}"


def _num_seeds(results: Mapping[str, Any], experiment: str, label: str) -> int:
    return sum(
        cell["status"] == "finished"
        for cell in results["cells"]
        if (cell["experiment"], cell["label"]) == (experiment, label)
    )


def _cost(results: Mapping[str, Any], experiment: str, label: str) -> Mapping[str, Any]:
    return next(
        (
            cell["cost"]
            for cell in results["cells"]
            if (cell["experiment"], cell["label"]) == (experiment, label) and cell["cost"]
        ),
        {},
    )


def _why(reason: str) -> str:
    """Return the reason of what is missing in brackets, empty for none."""
    why = reason.removeprefix(_MISSING).removeprefix(": ")
    return f" ({why})" if why else ""


def _partly_missing(column: Mapping[str, Any]) -> list[str]:
    """Return why a number that others have is missing of a method, or of some of its seeds."""
    missing: dict[str, list[str]] = {}
    for label, row in column["methods"].items():
        if "seeds_without" in row and row["reason"]:
            seeds = ", ".join(map(str, row["seeds_without"]))
            of = f"{label} of seed {seeds}" if row["n"] else label
            missing.setdefault(row["reason"], []).append(of)
    return [
        f"{column['caption']}: {_MISSING} for {', '.join(of)}{_why(reason)}."
        for reason, of in missing.items()
    ]


def _evaluated_otherwise(results: Mapping[str, Any], experiment: str) -> list[str]:
    """Return which cells were evaluated otherwise than asked for now, or than others."""
    asked = results["evaluation"]

    def differences(cell):
        own = cell["evaluation"]
        return ", ".join(
            f"with {name}={own.get(name)} and not {value}"
            for name, value in asked.items()
            if own.get(name) != value
        )

    def device(cell):
        return f"on {cell['device']}"

    def version(cell):
        return f"by avae_jax {(cell['versions'] or {}).get('avae_jax')}"

    notes = []
    for value_of in (differences, device, version):
        groups: dict[str, list[str]] = {}
        for cell in results["cells"]:
            if cell["experiment"] == experiment and cell["status"] == "finished":
                name = f"{cell['label']}/seed{cell['seed']}"
                groups.setdefault(value_of(cell), []).append(name)
        if len(groups) > 1 or value_of is differences:
            notes += [f"Evaluated {how}: {', '.join(names)}."
                      for how, names in groups.items() if how]  # fmt: skip
    return notes


def _is_anywhere(column: Mapping[str, Any]) -> bool:
    return any(is_number(row["mean"]) for row in column["methods"].values())


def _cell(row: Mapping[str, Any], scale: Mapping[str, Any] | None) -> str:
    if not row["n"]:
        return _MISSING if row.get("reason") else ""
    shown = _number(row["mean"])
    if is_number(row["std"]):
        shown += f" ± {_number(row['std'])}"
    if "seeds_without" in row:
        shown += f" ({row['n']} of {row['n'] + len(row['seeds_without'])})"
    if scale is not None:
        shown += f" × {_number(scale['mean'])}" if is_number(scale["mean"]) else " × ?"
    return shown


def _shown_cost(key: str, cost: Mapping[str, Any]) -> str:
    value: Any = cost.get(key)
    if not is_number(value):
        return _MISSING
    at_least = "≥ " if "flops" in key and cost.get("flops_at_least") else ""
    return at_least + (_number(float(value)) if key == "flops" else _number(value))
