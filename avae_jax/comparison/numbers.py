"""Which numbers of an evaluation are compared, and what stands beside each."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, get_args

NOT_COMPUTED = "not computed"
NOT_COMPUTED_QUICKLY = "not computed: left out by --quick"
NOT_FINITE = "not computed: not a finite number"

Judge = Literal["fd", "mse", "moment_kl", "kde_kl"]
"""What values of fields can be chosen by: numbers that mean the same for all methods, all better
when lower. fd is the FD of samples as the method draws them, in the features of the data set's
classifier where there is one, else in the first space there is. mse alone favors the weights that
constrain codes least."""

JUDGES: tuple[str, ...] = get_args(Judge)

CODES_GAUSSIAN = "gaussian"
"""What an evaluation calls the Gaussian with the mean and covariance of the training codes."""


@dataclasses.dataclass(frozen=True)
class Column:
    """A number that is compared.

    Attributes:
      key: of it, unique.
      caption: what a table calls it.
      unit: empty for none.
      is_tested: whether methods have differences to the reference, with their p.
      better: which way is good; empty where neither is.
      beside: what its null is: "null" or "floor" (of real images) or "ceiling".
      scale: key of the number that stands beside it in the same cell: the multiple of the codes'
        own rms at which samples were drawn.
      in_figure: whether it has a panel.
    """

    key: str
    caption: str
    unit: str = ""
    is_tested: bool = False
    better: Literal["lower", "higher", ""] = ""
    beside: Literal["null", "floor", "ceiling", ""] = ""
    scale: str = ""
    in_figure: bool = True

    @property
    def heading(self) -> str:
        """The caption with its unit."""
        return f"{self.caption} ({self.unit})" if self.unit else self.caption


class Number(NamedTuple):
    """A number of one run.

    Attributes:
      value: None where it was not computed.
      null: what stands beside it, None where nothing does.
      reason: why there is no value.
    """

    value: float | None
    null: float | None = None
    reason: str = ""


# Of every summary: key, where it lies, and the column.
_PLACES: tuple[tuple[str, Column], ...] = (
    ("reconstruction/mse",
     Column("mse", "reconstruction error", "per pixel", True, "lower", "null")),
    ("latent/moments/moment_kl",
     Column("moment_kl", "moment KL of held-out codes", "nats", True, "lower", "null")),
    # What papers compare; a direction that is not used makes it large.
    ("latent/moments/moment_kl_means",
     Column("moment_kl_means", "moment KL of posterior means", "nats", True, "", "null",
            in_figure=False)),
    # Below its null it is no better.
    ("latent/density/kde_kl",
     Column("kde_kl", "KDE KL of held-out codes", "nats", True, "", "null")),
    ("latent/holes/prior_coverage",
     Column("prior_coverage", "prior covered", "share", True, "higher", "null")),
    ("latent/collapse/num_collapsed",
     Column("num_collapsed", "collapsed dimensions", "", False, "lower", in_figure=False)),
    ("likelihood/bound/iwae", Column("iwae", "likelihood bound", "nats", True, "higher")),
)  # fmt: skip


def numbers_of(summary: Mapping[str, Any]) -> dict[Column, Number]:
    """Return what is compared of a run.

    Args:
      summary: as `evaluate_run` returns it, quick or not.

    Returns:
      By column, in the order of a table. Frechet distances are of the distribution that the method
      samples by and of the Gaussian fitted to its codes, each beside the multiple of the codes' own
      rms at which it was drawn.
    """
    found: dict[Column, Number] = {}
    for place, column in _PLACES:
        if column.key == "iwae":
            found |= _samples(summary)
        found[column] = _at(summary, place)
    return found | _scores(summary)


def judged(summary: Mapping[str, Any], judge: str) -> tuple[str, Number]:
    """Return what a judge is called in full, and what it has of a run.

    Args:
      summary: as `evaluate_run` returns it.
      judge: one of `JUDGES`.
    """
    found = numbers_of(summary)
    keys = [column.key for column in found]
    # A classifier's space is the first where there is one.
    own = [key for key in keys if key.endswith("/own")] if judge == "fd" else [judge]
    key = next(iter(own), judge)
    column = next(column for column in found if column.key == key)
    return column.heading, found[column]


def _at(summary: Mapping[str, Any], place: str) -> Number:
    """Return the number at a path, with its null."""
    *path, name = place.split("/")
    section: Any = summary
    for part in path:
        section = section.get(part) if isinstance(section, Mapping) else section
    if isinstance(section, str):
        return Number(None, reason=section)
    if section is None:
        return Number(None, reason=NOT_COMPUTED_QUICKLY)
    return _of(section, name, {name: section.get(f"{name}_null")})


def _samples(summary: Mapping[str, Any]) -> dict[Column, Number]:
    samples = summary.get("samples")
    if not isinstance(samples, Mapping):
        return {Column("fd", "FD of samples", is_tested=True, better="lower"): Number(
            None, reason=samples or NOT_COMPUTED_QUICKLY)}  # fmt: skip
    # Until an evaluation says what a method samples by, it is the prior that it claims.
    own = summary["about"].get("sampled_by", "claimed")
    found: dict[Column, Number] = {}
    spaces = {name: section for name, section in samples.items() if name != "pixels"}
    for space, section in spaces.items():
        if isinstance(section, str):
            column = Column(space, space, is_tested=True, better="lower", in_figure=False)
            found[column] = Number(None, reason=section)
            continue
        floor = section.get("floor", {})
        for kind, drawn, caption in (
            ("own", own, "as sampled"),
            ("codes", CODES_GAUSSIAN, "Gaussian of the codes"),
        ):
            entry = section.get(drawn, {})
            scale = Column(
                f"{space}/{kind}/rms_multiple", f"{space}, {caption}: rms", in_figure=False
            )
            column = Column(
                f"{space}/{kind}", f"{space}, {caption}", "", True, "lower", "floor", scale.key
            )
            found[column] = _of(entry, space, floor)
            found[scale] = _of(entry, "rms_multiple", {})
        for name in ("precision", "recall"):
            column = Column(
                f"{space}/{name}", f"{name}, {space.removeprefix('FD-')}", "", True, "higher",
                "floor",
            )  # fmt: skip
            found[column] = _of(section.get(own, {}), name, floor)
    return found


def _of(entry: Mapping[str, Any], name: str, floor: Mapping[str, Any]) -> Number:
    """Return a number of a section; a file has null where one is not finite."""
    value = entry.get(name)
    why = "" if value is not None else NOT_FINITE if name in entry else NOT_COMPUTED
    return Number(value, floor.get(name), why)


def _scores(summary: Mapping[str, Any]) -> dict[Column, Number]:
    scores = summary.get("disentanglement")
    if not isinstance(scores, Mapping):
        column = Column("disentanglement", "disentanglement", in_figure=False)
        return {column: Number(None, reason=scores or NOT_COMPUTED_QUICKLY)}
    names = [name.removesuffix("_ceiling") for name in scores if name.endswith("_ceiling")]
    return {
        Column(f"disentanglement/{name}", name.replace("_", " "), "", True, "higher",
               "null"): _of(scores, name, {name: scores.get(f"{name}_null")})
        for name in names
    }  # fmt: skip


def columns_of(numbers: Iterable[Mapping[Column, Number]]) -> list[Column]:
    """Return the columns of several runs, each once, in the order of a table."""
    return list(dict.fromkeys(column for own in numbers for column in own))


COSTS = (
    ("parameters", "parameters"),
    ("sampling_parameters", "of them to sample"),
    ("flops", "FLOP per step"),
    ("relative_flops", "FLOP to plain autoencoder's"),
    ("relative_seconds", "time to plain autoencoder's"),
)
"""Keys of what a method costs, and what a table calls them."""
