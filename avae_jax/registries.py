"""Registries: tables from a name to what makes the thing of that name.

A user's own entry is one line, `PRIORS["laplace"] = Laplace.make`. Options that choose one by its
name are annotated as text, `prior: "Literal[tuple(PRIORS)]"`: it is read when it is needed, and so
has the entries that were added since.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from avae_jax.text import nearest


def make(registry: Mapping[str, Callable[..., Any]], kind: str, name: str, *args, **options) -> Any:
    """Make an entry of a registry.

    Args:
      registry: name -> what makes it.
      kind: what the registry holds, as an error names it.
      name: the entry.
      *args: what every entry takes.
      **options: what some entries take: each is given those that it has an argument for.

    Returns:
      What the entry makes.

    Raises:
      ValueError: no entry has that name; the nearest one is suggested.

    Example:
      >>> make({"list": list, "word": str}, "kind", "word", 12)
      '12'
      >>> make({"power": pow}, "kind", "power", 2, exp=3, unknown=1)
      8
    """
    if name not in registry:
        raise ValueError(
            f"{kind} must be one of the registered ones, got {name!r}{nearest(name, registry)}"
        )
    maker = registry[name]
    return maker(*args, **{key: options[key] for key in options if takes(maker, key)})


def takes(function: Callable[..., Any], name: str) -> bool:
    """Return whether a function has an argument that can be given by a name.

    Example:
      >>> takes(pow, "exp"), takes(pow, "path")
      (True, False)
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        # Some built-in types have no signature.
        return False
    return any(
        one.name == name and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        for one in parameters
    )
