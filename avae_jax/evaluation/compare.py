"""Several evaluated runs side by side, with mean and standard deviation over seeds."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avae_jax.evaluation import html
from avae_jax.evaluation.record import FIGURES
from avae_jax.evaluation.verdict import Finding

# What tells two groups of runs apart; runs that differ in their seed alone form a group.
_SAME = (
    "experiment", "method", "dataset", "latent_dim", "protocol", "split", "num_images",
    "num_samples", "seed", "config_hash_without_seed",
)  # fmt: skip


def flatten(summary: Mapping[str, Any], prefix: str = "") -> dict[str, int | float]:
    """Return the numbers of a summary by their path, "latent/moments/std"."""
    flat: dict[str, int | float] = {}
    for name, value in summary.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            flat[prefix + name] = value
    return flat


def group_runs(summaries: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[int]]]:
    """Group runs that differ in their training seed alone.

    Returns:
      (name, indices into `summaries`) a group, in the order of their first runs.
    """
    groups: dict[Any, list[int]] = {}
    seen: dict[Any, int] = {}
    for index, summary in enumerate(summaries):
        about = summary["about"]
        key = tuple(about[name] for name in _SAME)
        # One seed twice is no second sample: it makes a group of its own.
        trained = (*key, about["training_seed"])
        seen[trained] = seen.get(trained, -1) + 1
        groups.setdefault((key, seen[trained]), []).append(index)
    names = []
    for indices in groups.values():
        about = summaries[indices[0]]["about"]
        name = f"{about['experiment']}, {about['method']}, {about['latent_dim']} dimensions"
        if len(indices) == 1:
            name = Path(about["folder"]).name
        names.append(name)
    # Groups with one name differ in some other field: their folders tell them apart.
    whole = [
        f"{name} ({summaries[indices[0]]['about']['folder']})" if names.count(name) > 1 else name
        for name, indices in zip(names, groups.values(), strict=True)
    ]
    return list(zip(whole, groups.values(), strict=True))


def compare(summaries: Sequence[Mapping[str, Any]]) -> tuple[list[str], dict[str, list[str]]]:
    """Lay the numbers of several runs side by side.

    Args:
      summaries: as `evaluate_run` returns them, two or more.

    Returns:
      (columns, rows): the groups' names and, by number, one cell a group: the value of a single
      run, "mean ± std" (over n - 1) of several seeds.
    """
    flats = [flatten({k: v for k, v in s.items() if k != "about"}) for s in summaries]
    groups = group_runs(summaries)
    columns = [name + (f" ({len(i)} seeds)" if len(i) > 1 else "") for name, i in groups]
    rows: dict[str, list[str]] = {}
    for name in _ordered(name for flat in flats for name in flat):
        if name.endswith(("_null_std", "_stderr")):
            continue
        if name.endswith("/n") and len({flat.get(name) for flat in flats}) == 1:
            continue
        cells = []
        for _, indices in groups:
            values = np.array([flats[i].get(name, math.nan) for i in indices])
            if len(indices) == 1:
                cells.append(html.number(flats[indices[0]].get(name)))
            elif np.isnan(values).any():
                cells.append(html.number(None))
            else:
                mean, spread = float(values.mean()), float(values.std(ddof=1))
                cells.append(f"{html.number(mean)} ± {html.number(spread)}")
        rows[name] = cells
    return columns, rows


def _names_of(abouts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of runs: of their folders, the whole path where two have one name."""
    short = [Path(about["folder"]).name for about in abouts]
    return [
        name if short.count(name) == 1 else str(about["folder"])
        for name, about in zip(short, abouts, strict=True)
    ]


def _ordered(names: Iterable[str]) -> list[str]:
    """Return each name once, its null right after it."""
    known = dict.fromkeys(names)
    ordered: dict[str, None] = {}
    for name in known:
        ordered[name] = None
        if f"{name}_null" in known:
            ordered[f"{name}_null"] = None
    return list(ordered)


HEADLINES = (
    "reconstruction/mse",
    "latent/density/kde_kl",
    "latent/density/kde_kl_null",
    "latent/density/kde_kl_log10",
    "latent/density/kde_kl_log10_null",
    "latent/moments/moment_kl",
    "latent/scale/width",
    "latent/collapse/num_collapsed",
    "latent/collapse/num_collapsed_means",
    "latent/holes/prior_coverage",
    "likelihood/surgery/elbo",
    "likelihood/bound/iwae",
)
"""Numbers that a table of several runs starts with."""


def comparison_table(columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """Return the numbers that matter most as text, a line a number."""
    names = [name for name in HEADLINES if name in rows]
    # "samples/FD-pca50/claimed/FD-pca50": the distance itself, of each feature space, and how wide
    # the draws are. A method that claims no prior has "gaussian" alone.
    for name in rows:
        match name.split("/"):
            case ["samples", space, "claimed" | "gaussian", what] if space != "pixels":
                names += [name] if what in (space, "rms_multiple") else []
    cells = [["", *columns], *([name, *rows[name]] for name in names)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(columns) + 1)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if k == 0 else text.rjust(width)
            for k, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


# What is shown of every run: the file of the figure and its heading.
_PICTURES = {
    "samples": "Decoded draws of the priors that the runs claim",
    "reconstructions": "Images over what the models make of them",
    "latent_scatter": "Codes over the priors",
}


def comparison_page(summaries: Sequence[Mapping[str, Any]], folders: Sequence[Path] = ()) -> str:
    """Return the page that puts runs side by side.

    Args:
      summaries: as `evaluate_run` returns them, two or more.
      folders: where it wrote what it found of each run; figures are read from there.
    """
    columns, rows = compare(summaries)
    listed: list[tuple[str, Sequence[str]]] = []
    heading = None
    for name, cells in rows.items():
        section, _, rest = name.rpartition("/")
        if section != heading:
            listed.append((section.replace("/", ": ").replace("_", " "), ()))
            heading = section
        listed.append((rest.replace("_", " "), cells))
    abouts = [summary["about"] for summary in summaries]
    facts = {
        name: ", ".join(dict.fromkeys(str(about[key]) for about in abouts))
        for name, key in (
            ("protocol", "protocol"), ("split", "split"), ("images", "num_images"),
            ("samples", "num_samples"), ("evaluation seed", "seed"),
        )
    }  # fmt: skip
    verdicts = [
        (
            str(summary["about"]["folder"]),
            summary["verdict"]["headline"],
            [Finding(**finding) for finding in summary["verdict"]["findings"]],
        )
        for summary in summaries
    ]
    names = _names_of(abouts)
    captions = [f"{about['method']}, {about['latent_dim']} dimensions" for about in abouts]
    pictures = {
        heading: [
            html.Picture(name, caption, path.read_bytes())
            for name, caption, folder in zip(names, captions, folders, strict=False)
            if (path := folder / FIGURES / f"{file}.png").exists()
        ]
        for file, heading in _PICTURES.items()
    }
    return html.make_comparison(
        title=f"{len(summaries)} runs side by side",
        about="; ".join(f"{name} {value}" for name, value in facts.items())
        + ". A cell of several seeds holds mean ± standard deviation over them.",
        pictures=pictures,
        tables=[html.Table("Side by side", "", columns, listed)],
        verdicts=verdicts,
    )
