"""Where a run's numbers are kept: JSON lines and TensorBoard event files.

The writers have the method names of `clu.metric_writers.MetricWriter`. clu's own are not used: they
import TensorFlow, seconds of start-up and a gigabyte on disk, for the same event files.
"""

import abc
import importlib.util
import json
import logging
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from avae_jax.checks import check_count
from avae_jax.files import user_path, write_atomically

_LOGGER = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"


class MetricWriter(abc.ABC):
    """What every writer can be asked to do."""

    @abc.abstractmethod
    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Record named numbers at a step; numbers may be Python, NumPy or JAX scalars."""

    @abc.abstractmethod
    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """Record images `[n, h, w, c]` or `[h, w, c]`, c 1 or 3, float in [0, 1] or uint8."""

    @abc.abstractmethod
    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Record the hyper-parameters of the run, nested mappings allowed."""

    @abc.abstractmethod
    def flush(self) -> None:
        """Hand everything written so far to the operating system."""

    @abc.abstractmethod
    def close(self) -> None:
        """Flush and release the file; closing twice is harmless."""


class JsonLinesWriter(MetricWriter):
    """Append one JSON object per call to a text file, safe to stop at any moment.

    A number that is not finite is written as null: strict JSON has no NaN.
    """

    def __init__(self, path, *, start_step: int = 0):
        """Prepare the file for a run that continues after `start_step`.

        Rows of later steps, left by a run that died after its last checkpoint, are removed, and so
        is a last line that was cut off; the file is replaced atomically. Earlier rows stay as they
        are, and a file with nothing to remove is not touched before the first row.

        Args:
          path: the file; made when missing, and so is its folder.
          start_step: the step of the checkpoint the run continues from, 0 for a new run.

        Raises:
          ValueError: `start_step` is negative.
        """
        check_count("start_step", start_step, minimum=0)
        self._path = user_path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            _drop_rows_after(self._path, start_step)
        else:
            self._path.touch()
        # Opened at the first row: a run that has nothing to add may lie on a read-only disk.
        self._file: TextIO | None = None

    def write_scalars(self, step, scalars):
        """Append `{"step": step, **scalars}` and hand the line to the operating system."""
        row: dict[str, float | None] = {"step": int(step)}
        for name, value in scalars.items():
            number = _scalar(name, value)
            row[name] = number if math.isfinite(number) else None
        if self._file is None:
            self._file = self._path.open("a", encoding="utf-8")
        # One write call per row: a kill leaves at most one line unfinished.
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()

    def write_images(self, step, images):
        """Leave images out: the file holds numbers, the run folder's `figures/` the pictures."""

    def write_hparams(self, hparams):
        """Leave hyper-parameters out: `config.json` of the run folder holds them."""

    def flush(self):
        """Hand everything written so far to the operating system."""
        if self._file is not None and not self._file.closed:
            self._file.flush()

    def close(self):
        """Close the file."""
        if self._file is not None:
            self._file.close()


class TensorBoardWriter(MetricWriter):
    """Write TensorBoard event files through tensorboardX, without TensorFlow."""

    def __init__(self, folder, *, start_step: int = 0):
        """Prepare a new event file, made at the first write.

        Args:
          folder: where event files go; made when missing.
          start_step: the step of the checkpoint the run continues from; TensorBoard then hides
            later steps that an earlier process wrote.
        """
        self._folder, self._start_step = user_path(folder), start_step
        self._opened: Any = None
        self._closed = False

    @property
    def _writer(self) -> Any:
        if self._closed:
            raise ValueError(f"the TensorBoard writer of {self._folder} is closed: open a new one")
        if self._opened is None:
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto import event_pb2

            resumed = any(self._folder.glob("events.out.tfevents.*"))
            self._folder.mkdir(parents=True, exist_ok=True)
            # Not its SummaryWriter: that one's thread ends when the disk is full, and whatever is
            # written next waits for it for ever. Names are of whole seconds.
            suffix = f".{uuid.uuid4().hex[:8]}"
            self._opened = EventsWriter(str(self._folder / "events"), filename_suffix=suffix)
            if resumed:
                protocol: Any = event_pb2
                start = protocol.SessionLog(status=protocol.SessionLog.START)
                self._write(self._start_step + 1, session_log=start)
        return self._opened

    def _write(self, step, **content) -> None:
        from tensorboardX.proto import event_pb2

        # Made by protobuf, out of sight of type checkers.
        protocol: Any = event_pb2
        self._writer.write_event(protocol.Event(wall_time=time.time(), step=int(step), **content))

    def write_scalars(self, step, scalars):
        """Record the finite scalars under their own names; TensorBoard groups them by prefix."""
        from tensorboardX import summary

        for name, value in scalars.items():
            number = float(_scalar(name, value))
            # TensorBoard cannot draw others, and tensorboardX warns of each.
            if math.isfinite(number):
                self._write(step, summary=summary.scalar(name, number))

    def write_images(self, step, images):
        """Record the images, several of one name side by side as a numbered series."""
        from tensorboardX import summary

        for name, value in images.items():
            array = np.asarray(value)
            if array.ndim not in (3, 4) or array.shape[-1] not in (1, 3):
                raise ValueError(
                    f"images[{name!r}] must have shape [n, h, w, c] or [h, w, c] with c 1 or 3, "
                    f"got {array.shape}"
                )
            if array.dtype != np.uint8:
                array = np.nan_to_num(np.asarray(array, np.float32))
                array = (np.clip(array, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
            if array.ndim == 3:
                self._write(step, summary=summary.image(name, array, dataformats="HWC"))
                continue
            for index, image in enumerate(array):
                one = summary.image(f"{name}/{index}", image, dataformats="HWC")
                self._write(step, summary=one)

    def write_hparams(self, hparams):
        """Record the hyper-parameters as a table in TensorBoard's text tab."""
        from tensorboardX import summary

        rows = "".join(f"| {name} | `{value}` |\n" for name, value in _flatten(hparams).items())
        table = "| name | value |\n| --- | --- |\n" + rows
        self._write(0, summary=summary.text("hparams", table))

    def flush(self):
        """Hand everything written so far to the operating system."""
        if self._opened is not None and not self._closed:
            self._opened.flush()

    def close(self):
        """Close the event file."""
        opened, closed = self._opened, self._closed
        self._closed = True
        if opened is not None and not closed:
            opened.close()


class MultiWriter(MetricWriter):
    """Pass every call on to several writers, in order."""

    def __init__(self, writers: Sequence[MetricWriter]):
        self._writers = tuple(writers)

    def write_scalars(self, step, scalars):
        """Record the scalars with every writer; device values are fetched once."""
        scalars = {name: _scalar(name, value) for name, value in scalars.items()}
        for writer in self._writers:
            writer.write_scalars(step, scalars)

    def write_images(self, step, images):
        """Record the images with every writer."""
        for writer in self._writers:
            writer.write_images(step, images)

    def write_hparams(self, hparams):
        """Record the hyper-parameters with every writer."""
        for writer in self._writers:
            writer.write_hparams(hparams)

    def flush(self):
        """Flush every writer."""
        for writer in self._writers:
            writer.flush()

    def close(self):
        """Close every writer."""
        for writer in self._writers:
            writer.close()


def create_default_writer(run_dir, *, start_step: int = 0) -> MultiWriter:
    """Open the writers of a run folder: `metrics.jsonl` and TensorBoard events in `tensorboard/`.

    Args:
      run_dir: the run folder; made when missing.
      start_step: the step of the checkpoint the run continues from, 0 for a new run.

    Returns:
      A writer. On every process but the first of a multi-host run it writes nothing; without
      tensorboardX it writes no events.
    """
    import jax

    if jax.process_index() != 0:
        return MultiWriter([])
    run_dir = user_path(run_dir)
    writers: list[MetricWriter] = [JsonLinesWriter(run_dir / METRICS_FILE, start_step=start_step)]
    if importlib.util.find_spec("tensorboardX") is not None:
        writers.append(TensorBoardWriter(run_dir / "tensorboard", start_step=start_step))
    else:
        _LOGGER.info("tensorboardX is not installed: %s gets no TensorBoard events", run_dir)
    return MultiWriter(writers)


def read_metrics(path) -> list[dict[str, Any]]:
    """Read a `metrics.jsonl`: one dict per step, in order of the steps.

    Args:
      path: the file, or the run folder it lies in.

    Returns:
      Rows with key `step`. Rows of the same step are merged, the later value of a name wins; null
      comes back as NaN. A line that cannot be read is skipped and logged.

    Raises:
      FileNotFoundError: there is no such file.
    """
    path = user_path(path)
    path = path / METRICS_FILE if path.is_dir() else path
    merged: dict[int, dict[str, Any]] = {}
    for _, row in _rows(path):
        values = {name: float("nan") if value is None else value for name, value in row.items()}
        merged.setdefault(row["step"], {}).update(values)
    return [merged[step] for step in sorted(merged)]


def _rows(path: Path):
    """Yield `(line, row)` for every complete line that holds a row."""
    text = path.read_bytes()
    lines = text.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            readable = isinstance(row, dict) and isinstance(row.get("step"), int)
        except ValueError:
            readable = False
        # Without its newline the last line may be a shorter, still valid, number than was meant.
        if not readable or number == len(lines):
            _LOGGER.warning("%s: line %d is incomplete or damaged, left out", path, number)
            continue
        yield line + b"\n", row


def _drop_rows_after(path: Path, start_step: int) -> None:
    kept = b"".join(line for line, row in _rows(path) if row["step"] <= start_step)
    if kept != path.read_bytes():
        write_atomically(path, kept)


def _scalar(name: str, value) -> int | float | bool:
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "fiub":
        # bfloat16 and its like are no NumPy kinds of their own.
        if array.size != 1 or array.dtype.kind != "V":
            raise ValueError(
                f"scalars[{name!r}] must hold one real number, got {array.dtype} {array.shape}"
            )
        array = array.astype(np.float32)
    return array.reshape(()).item()


def _flatten(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def strict_json(summary: Mapping[str, Any]) -> str:
    """Return a summary as strict JSON, indented: numbers that are not finite become null."""
    return json.dumps(_strict(summary), indent=2) + "\n"


def _strict(value: Any) -> Any:
    """Replace non-finite numbers by None: strict JSON has none."""
    if isinstance(value, Mapping):
        return {name: _strict(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(entry) for entry in value]
    if isinstance(value, np.generic):
        return _strict(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
