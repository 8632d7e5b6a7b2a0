"""Checkpoints: the whole training state, written in the background, checked when read.

A step's folder holds two items: `model`, the variables that are evaluated, which is all that
`load_run` reads, and `training`, everything else.
"""

import contextlib
import dataclasses
import gc
import json
import logging
import math
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as policy

from avae_jax.methods.networks import Variables
from avae_jax.training.state import TrainState

NO_CRITERION = 1e30
"""Stands for "not validated": Orbax drops the best checkpoint when a criterion is not finite."""

MODEL, TRAINING = "model", "training"


class CheckpointError(ValueError):
    """No checkpoint of a run can be read; the message says why."""


def _flatten(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by their path."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _unflatten(target: Any, leaves: dict[str, Any]) -> Any:
    structure = jax.tree_util.tree_structure(target)
    return jax.tree_util.tree_unflatten(structure, [leaves[name] for name in _flatten(target)])


def _items(state: TrainState) -> dict[str, Any]:
    """Return the two items of a state: none of its leaves is in both."""
    averaged = state.average is not None
    kept = {"average": None} if averaged else {"variables": None}
    return {MODEL: state.evaluated, TRAINING: dataclasses.replace(state, **kept)}


def _state(items: dict[str, Any]) -> TrainState:
    training = items[TRAINING]
    name = "variables" if training.variables is None else "average"
    return dataclasses.replace(training, **{name: items[MODEL]})


def _digest(leaves: dict[str, Any]) -> int:
    """Return a checksum over names, shapes, dtypes and bytes: it finds an edited or torn file."""
    total = 0
    for name in sorted(leaves):
        leaf = leaves[name]
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        value = np.ascontiguousarray(jax.device_get(leaf))
        total = zlib.crc32(f"{name} {value.shape} {value.dtype}".encode(), total)
        total = zlib.crc32(value.tobytes(), total)
    return total


def _as_stored(leaves: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    """Return what to read leaves as: those that lie there in another precision on the host.

    Which precision a state has depends on `jax_enable_x64`, and a checkpoint outlives that.
    """

    def of(name, leaf):
        found = stored.get(name)
        kinds = (jnp.floating, jnp.integer)
        if (
            found is None
            or found.dtype == leaf.dtype
            or not any(
                jnp.issubdtype(found.dtype, kind) and jnp.issubdtype(leaf.dtype, kind)
                for kind in kinds
            )
        ):
            return leaf
        return np.empty(leaf.shape, found.dtype)

    return {name: of(name, leaf) for name, leaf in leaves.items()}


def _as_asked(leaf: Any, asked: Any) -> Any:
    """Return a leaf that was read, in the precision and the place that were asked for."""
    if leaf.dtype == asked.dtype:
        return leaf
    return jax.device_put(leaf.astype(asked.dtype), asked.sharding)


def _options(read_only: bool) -> ocp.CheckpointManagerOptions:
    def criterion(metrics):
        return metrics["criterion"]

    return ocp.CheckpointManagerOptions(
        best_fn=criterion,
        best_mode="min",
        # `max_to_keep` with `best_fn` alone would delete the latest step.
        preservation_policy=policy.AnyPreservationPolicy(
            [policy.LatestN(2), policy.BestN(get_metric_fn=criterion, n=1, reverse=True)]
        ),
        cleanup_tmp_directories=not read_only,
        create=not read_only,
        read_only=read_only,
    )


@contextlib.contextmanager
def _quiet_failures() -> Iterator[None]:
    """Silence the reads that Orbax leaves unfinished when one of them fails."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    logger = logging.getLogger("asyncio")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        gc.collect()
        logger.setLevel(level)
        sys.unraisablehook = hook


@contextlib.contextmanager
def _system_errors() -> Iterator[None]:
    """Raise what the system refused, a full disk for one, as the `OSError` that it is."""
    try:
        yield
    except ValueError as error:
        # TensorStore gives a page of text instead.
        found = re.search(r"os_error_code='(\d+)'", str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number)) from None


class Checkpoints:
    """The checkpoints of a run folder: the two latest and the best by the criterion.

    Args:
      folder: where they lie; made if missing unless `read_only`.
      read_only: whether only `restore` will be called.
    """

    def __init__(self, folder: Path, *, read_only: bool = False):
        self._folder = folder
        self._read_only = read_only
        # Orbax logs every save and restore, and a failure page by page before it raises it.
        logging.getLogger("absl").setLevel(logging.CRITICAL)

        self._repair_criteria()
        handlers = {name: ocp.StandardCheckpointHandler() for name in (MODEL, TRAINING)}
        self._manager = ocp.CheckpointManager(
            folder.resolve(),
            options=_options(read_only),
            item_handlers={**handlers, "meta": ocp.JsonCheckpointHandler()},
        )

    def save(self, state: TrainState, *, criterion: float | None, info: dict[str, Any]) -> None:
        """Write the state in the background.

        Args:
          state: what to save; may be donated as soon as this returns.
          criterion: that of the validation, lower is better; None between two validations.
          info: JSON values to keep beside it.

        Raises:
          OSError: this or the last state cannot be written.
        """
        items = {name: _flatten(item) for name, item in _items(state).items()}
        step = int(state.step)
        if criterion is None or not math.isfinite(criterion):
            criterion = NO_CRITERION
        meta = {
            **info,
            "step": step,
            "criterion": criterion,
            "digest": {name: _digest(leaves) for name, leaves in items.items()},
        }
        with _system_errors():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardSave(leaves) for name, leaves in items.items()},
                    meta=ocp.args.JsonSave(meta),
                ),
                metrics={"criterion": criterion},
                force=step not in self._manager.all_steps(),
            )

    def restore(
        self,
        target: TrainState,
        *,
        which: str = "latest",
        say: Callable[[str], None] = lambda message: None,
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """Read a state, falling back to the step before where a checkpoint is damaged.

        Args:
          target: shapes, dtypes and shardings of the state, as `jax.ShapeDtypeStruct` leaves.
          which: "latest", or "best" by the criterion.
          say: receives a line about every checkpoint that was passed over.

        Returns:
          The state and the values saved beside it; None when there is no checkpoint at all.

        Raises:
          CheckpointError: there are checkpoints, and none can be read.
        """
        restored = self._restore(_items(target), which, say)
        return None if restored is None else (_state(restored[0]), restored[1])

    def restore_model(
        self,
        target: Variables,
        *,
        which: str = "latest",
        say: Callable[[str], None] = lambda message: None,
    ) -> tuple[Variables, dict[str, Any]] | None:
        """Read the evaluated variables alone, otherwise as `restore` does."""
        restored = self._restore({MODEL: target}, which, say)
        return None if restored is None else (restored[0][MODEL], restored[1])

    def _restore(self, target: dict[str, Any], which: str, say):
        # What is being written is a step already.
        self._manager.wait_until_finished()
        steps = sorted(self._manager.all_steps(), reverse=True)
        if not steps:
            return None
        if which == "best" and (best := self._manager.best_step()) is not None:
            steps = [best, *(step for step in steps if step != best)]
        reasons, damaged = [], []
        for step in steps:
            restored, reason = self._try_step(step, target)
            if restored is not None:
                self._set_aside(damaged)
                return restored
            reasons.append(f"step {step}: {reason}")
            damaged.append(step)
            say(f"checkpoint of {reasons[-1]}; trying the one before")
        raise CheckpointError(f"no readable checkpoint among steps {steps}: {reasons[0]}")

    def _try_step(self, step: int, target: dict[str, Any]):
        """Return what a step holds and None, or None and why it cannot be read."""
        with _quiet_failures():
            try:
                return self._restore_step(step, target), None
            # Whatever a torn file makes the reader raise, the step before may still be whole.
            except Exception as error:  # noqa: BLE001
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return None, reason.split(" [")[0].split(" See full TensorStore")[0][:160]

    def _repair_criteria(self) -> None:
        """Write torn criterion files again: Orbax reads all of them before any state."""
        for file in self._folder.glob("[0-9]*/metrics/metrics"):
            try:
                json.loads(file.read_text())["criterion"]
            except (ValueError, KeyError, TypeError):
                criterion = NO_CRITERION
                with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                    meta = file.parent.parent / "meta" / "metadata"
                    criterion = float(json.loads(meta.read_text())["criterion"])
                file.write_text(json.dumps({"criterion": criterion}))

    def _set_aside(self, steps: list[int]) -> None:
        """Rename damaged checkpoints, so that training can write these steps again."""
        if self._read_only or not steps:
            return
        for step in steps:
            name, number = f"{step}.damaged", 1
            while (self._folder / name).exists():
                number += 1
                name = f"{step}.damaged-{number}"
            (self._folder / str(step)).rename(self._folder / name)
        self._manager.reload()

    def _restore_step(self, step: int, target: dict[str, Any]):
        """Return the items asked for, checked to be what was saved, and what is beside them."""
        stored = self._manager.item_metadata(step)
        wanted = {
            name: _as_stored(_flatten(item), stored[name].tree) for name, item in target.items()
        }
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                **{name: ocp.args.StandardRestore(leaves) for name, leaves in wanted.items()},
                meta=ocp.args.JsonRestore(),
            ),
        )
        meta, items = restored["meta"], {}
        for item, leaves in wanted.items():
            for name, leaf in restored[item].items():
                # Orbax casts a differing dtype without a word.
                if leaf.shape != leaves[name].shape or leaf.dtype != leaves[name].dtype:
                    raise CheckpointError(f"{name} is {leaf.dtype}{leaf.shape}, not as expected")
            if _digest(restored[item]) != meta["digest"][item]:
                raise CheckpointError("its checksum does not fit its contents")
            asked = _flatten(target[item])
            items[item] = _unflatten(
                target[item],
                {name: _as_asked(leaf, asked[name]) for name, leaf in restored[item].items()},
            )
        return items, meta

    def wait(self) -> None:
        """Block until the last save is on disk."""
        with _system_errors():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Finish writing and release the folder."""
        with _system_errors():
            self._manager.close()
