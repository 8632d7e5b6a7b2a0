"""A run's folder: what it must hold before training, and whether it is the run asked for."""

import contextlib
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from avae_jax import data as datasets
from avae_jax.files import check_folder, locked, write_atomically
from avae_jax.training.config import Config, ConfigError, differences, load_config, to_dict
from avae_jax.training.setup import Setup, num_classes
from avae_jax.version import __version__

FORMAT = 2
"""Of run folders: what their files and checkpoints hold."""

LOCK_FILE = "run.lock"
"""Held by the process that trains in the folder."""

_ROWS_LOOKED_AT = 1000

_NEEDED = ("image_shape", "num_images")
# What a folder holds before its config.json, which makes it a run's.
_FIRST = {LOCK_FILE, "splits.npz", "facts.json"}


def read_facts(run_dir: Path) -> dict[str, Any]:
    """Return what a run folder knows of its data and its method.

    Raises:
      ConfigError: no readable facts, or those of another format.
    """
    path = run_dir / "facts.json"
    try:
        facts = json.loads(path.read_text())
        missing = next((name for name in _NEEDED if name not in facts), None)
        if missing is not None:
            raise KeyError(missing)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{run_dir} is not a whole run folder: {path.name}: {error}") from None
    if facts.get("format") != FORMAT:
        raise ConfigError(
            f"{run_dir} is a run folder of format {facts.get('format', 1)}, and this version reads "
            f"format {FORMAT}: train again, or read it with the version that {path.name} names"
        )
    return facts


def check_run_dir(config: Config, run_dir: Path) -> None:
    """Refuse a folder that holds another run, something else, or that cannot be written."""
    check_folder(run_dir, name="run_dir")
    held = {path.name for path in run_dir.iterdir()} if run_dir.is_dir() else set()
    if (run_dir / "config.json").is_file():
        changed = differences(load_config(run_dir / "config.json"), config)
        if changed:
            raise ConfigError(
                f"run_dir={run_dir} holds a run with another configuration "
                f"({'; '.join(changed)}): choose another --run-dir"
            )
    # A process that was killed before it wrote config.json leaves less, or half a file.
    elif not all(name in _FIRST or name.endswith(".tmp") for name in held):
        raise ConfigError(f"run_dir={run_dir} is not empty and no run folder: choose another")


@contextlib.contextmanager
def hold_run_dir(run_dir: Path) -> Iterator[None]:
    """Keep a run folder, made where it is missing, for this process while the block runs.

    A folder that was made for it and that nothing is put into is gone afterwards.

    Raises:
      ValueError: another process trains in it.
    """
    made = [place for place in (run_dir, *run_dir.parents) if not place.exists()]
    run_dir.mkdir(parents=True, exist_ok=True)
    with locked(run_dir / LOCK_FILE, name="run_dir"):
        try:
            yield
        finally:
            # Whatever keeps it from being tidied up must not hide why the block ended.
            with contextlib.suppress(OSError):
                if [path.name for path in run_dir.iterdir()] == [LOCK_FILE]:
                    (run_dir / LOCK_FILE).unlink()
                    for place in made:
                        place.rmdir()


def describe_data(setup: Setup) -> dict[str, Any]:
    """Return the facts about the data that reading and resuming a run depend on."""
    return {
        "image_shape": list(setup.method.image_shape),
        "num_images": len(setup.dataset.images),
        "num_classes": num_classes(setup.dataset),
        "fingerprint": setup.dataset.fingerprint(),
        "labels": _labels_digest(setup.dataset.labels),
    }


def _labels_digest(labels) -> str | None:
    """Return a checksum of labels, which a method may train on; None without labels."""
    if labels is None:
        return None
    return f"{zlib.crc32(np.asarray(labels, np.int64).tobytes()):08x}"


def check_same_data(setup: Setup, run_dir: Path) -> None:
    """Refuse to continue a run on other images or other splits than it was started with."""
    stored, facts = read_facts(run_dir), describe_data(setup)
    for name, value in facts.items():
        if stored.get(name) != value:
            raise ConfigError(
                f"run_dir={run_dir} was started on other images ({name}: {stored.get(name)} -> "
                f"{value}): choose another --run-dir"
            )
    splits = datasets.Splits.load(run_dir / "splits.npz")
    for name in ("train", "validation", "test"):
        if not np.array_equal(getattr(splits, name), getattr(setup.dataset.splits, name)):
            raise ConfigError(
                f"the {name} split differs from the one in {run_dir / 'splits.npz'}: choose "
                "another --run-dir"
            )


def prepare_run_dir(setup: Setup, run_dir: Path) -> None:
    """Write down what the run depends on: data, splits, the method's facts and configuration."""
    versions = {"avae_jax": __version__, "jax": jax.__version__, "numpy": np.__version__}
    run_dir.mkdir(parents=True, exist_ok=True)
    setup.dataset.splits.save(run_dir / "splits.npz")
    write_json(
        run_dir / "facts.json",
        {
            "format": FORMAT,
            **describe_data(setup),
            # Images of 0 and 1 to encode are then meant as the same.
            "black_and_white": datasets.holds_only(
                setup.dataset.images, (0, 255), num_samples=_ROWS_LOOKED_AT
            ),
            "method": dict(setup.method.facts),
            "versions": versions,
        },
    )
    write_json(run_dir / "config.json", to_dict(setup.config))


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_atomically(path, json.dumps(values, indent=2) + "\n")
