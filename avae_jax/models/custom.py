"""Encoders and decoders from the user's own code."""

import importlib
import inspect
from typing import TypeGuard

import flax.linen as nn

from avae_jax.files import describe_error, import_file
from avae_jax.text import nearest

# Given to every module that takes them; any other argument has to be taken.
_OFFERED = ("latent_dim", "num_outputs", "image_shape", "activation", "width", "norm")


def load_module(path: str, **kwargs) -> nn.Module:
    """Load a Flax module from an import path and build it.

    Args:
      path: "package.module:Name" or "path/to/file.py:Name", where Name is a Linen module class, a
        function that returns a module, or a module that is already built.
      **kwargs: `latent_dim`, `num_outputs`, `image_shape`, `activation` (of the output), `width` (a
        multiplier) and `norm` are passed on if Name takes them; any other argument has to be taken.

    Returns:
      The module.

    Raises:
      ValueError: if `path` has another form, if Name does not take an argument, needs one that is
        not given or fails, or if the result has no `init` and `apply`.
      ImportError: if the file, the module or the name does not exist, or the import fails.

    Example:
      >>> load_module("flax.linen:Dense", features=3).features
      3
    """
    source, separator, name = path.rpartition(":")
    if not (separator and source and name.isidentifier()):
        raise ValueError(
            f"path must be 'package.module:Name' or 'path/to/file.py:Name', got {path!r}"
        )
    module = import_file(source) if source.endswith(".py") else _import_package(source)
    if not hasattr(module, name):
        public = [own for own in vars(module) if not own.startswith("_")]
        raise ImportError(f"{source!r} has no {name!r}{nearest(name, public)}")
    target = getattr(module, name)
    if _is_built(target):
        unused = [key for key in kwargs if key not in _OFFERED]
        if unused:
            raise ValueError(f"{path!r} is already built and does not take {', '.join(unused)}")
        return target
    if not callable(target):
        raise ValueError(f"{path!r} must be a Flax module class or a function, got {target!r}")
    arguments = _accepted(path, target, kwargs)
    try:
        result = target(**arguments)
    except Exception as error:
        raise ValueError(f"{path!r} failed: {describe_error(error)}") from error
    if not _is_built(result):
        raise ValueError(
            f"{path!r} must give a Flax Linen module (with init and apply), "
            f"got {type(result).__name__}"
        )
    return result


def _is_built(target) -> TypeGuard[nn.Module]:
    return not isinstance(target, type) and hasattr(target, "init") and hasattr(target, "apply")


def _accepted(path, target, kwargs):
    """Return the arguments to call `target` with, or raise for one unknown or missing."""
    parameters = inspect.signature(target).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = [key for key in kwargs if key not in parameters and not takes_any]
    refused = [key for key in unknown if key not in _OFFERED]
    if refused:
        raise ValueError(f"{path!r} does not take the argument {', '.join(refused)}")
    given = {key: value for key, value in kwargs.items() if key not in unknown}
    missing = [
        key
        for key, p in parameters.items()
        if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        if key not in given
    ]
    if missing:
        raise ValueError(
            f"{path!r} needs the argument {', '.join(missing)}, which is not given: "
            f"give it a default, or rename it to one of {', '.join(kwargs)}"
        )
    return given


def _import_package(name):
    try:
        return importlib.import_module(name)
    # A script that exits when it is imported must not end the program with success.
    except (Exception, SystemExit) as error:
        raise ImportError(f"could not import {name!r}: {describe_error(error)}") from error
