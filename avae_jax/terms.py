"""How a reported number is named, drawn and compared.

A run reports numbers by name: `train/kl`, `validation/kl`, `beta`. What to write beside them is
said once, by whoever reports them, in a mapping name -> `Term`; the progress line and the training
curves read it, and do without for a name that it lacks.
"""

import dataclasses
from collections.abc import Iterable, Mapping

SPLITS = ("train", "validation")
"""The prefixes of a number that is taken from a split of the data."""

Terms = Mapping[str, "Term | None"]
"""Name, without the prefix -> how it is shown; None for a number that is not to be shown."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Term:
    """How one reported number is shown.

    Attributes:
      caption: what it is called in a figure; empty takes the name in words.
      short: what it is called where there is little room; empty takes the caption.
      unit: of the number, "nats" for instance; "%" for a share, which is shown times 100.
      log: whether a figure may draw it on a logarithmic axis.
      null: the name its null value is reported under; empty looks for `NAME_null`, `null_NAME`.
      least: a figure leaves out a number whose values, as reported, never lie farther from zero.
      lowest: whether its lowest validation value is worth a mark, as that of a criterion is.
    """

    caption: str = ""
    short: str = ""
    unit: str = ""
    log: bool = False
    null: str = ""
    least: float = 0.0
    lowest: bool = False

    @property
    def factor(self) -> float:
        """Return what the number is multiplied by where it is shown."""
        return 100.0 if self.unit == "%" else 1.0


def split_name(key: str) -> tuple[str, str]:
    """Take the name of a number apart.

    Args:
      key: as in `metrics.jsonl`.

    Returns:
      (split, name): the split is empty for a number that has none.

    Example:
      >>> split_name("validation/kl"), split_name("beta"), split_name("norm/encoder")
      (('validation', 'kl'), ('', 'beta'), ('', 'norm/encoder'))
    """
    split, slash, name = key.partition("/")
    return (split, name) if slash and split in SPLITS else ("", key)


def null_key(name: str, keys: Iterable[str], terms: Terms) -> str | None:
    """Return which of the reported keys is the null value of a name, None where none is.

    Example:
      >>> null_key("kl", ["train/kl", "null_kl"], {}), null_key("tc", ["train/tc_null"], {})
      ('null_kl', 'train/tc_null')
    """
    term = terms.get(name)
    named = [term.null] if term is not None and term.null else [f"{name}_null", f"null_{name}"]
    return next((key for key in keys if split_name(key)[1] in named), None)


def null_names(keys: Iterable[str], terms: Terms) -> set[str]:
    """Return the names of those reported numbers that are the null values of others."""
    keys = list(keys)
    found = {null_key(split_name(key)[1], keys, terms) for key in keys}
    return {split_name(key)[1] for key in found if key is not None}


def caption(name: str, terms: Terms) -> str:
    """Return what a number is called in a figure, with its unit.

    Example:
      >>> caption("kl", {"kl": Term(caption="KL", unit="nats")}), caption("critic_loss", {})
      ('KL (nats)', 'Critic loss')
    """
    term = terms.get(name) or Term()
    words = name.replace("_", " ")
    text = term.caption or words[:1].upper() + words[1:]
    return f"{text} ({term.unit})" if term.unit else text


def short_caption(name: str, terms: Terms) -> str:
    """Return what a number is called where there is little room.

    Example:
      >>> short_caption("kl", {"kl": Term(caption="KL", unit="nats")}), short_caption("a_b", {})
      ('KL', 'a b')
    """
    term = terms.get(name) or Term()
    return term.short or term.caption or name.replace("_", " ")
