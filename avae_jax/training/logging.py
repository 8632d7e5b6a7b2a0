"""Where a run's numbers go: JSON lines, TensorBoard event files, and the person watching.

The writers have the method names of `clu.metric_writers.MetricWriter`. clu's own are not used: they
import TensorFlow, seconds of start-up and a gigabyte on disk, for the same event files.
"""

import abc
import importlib.util
import json
import logging
import math
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

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
        if start_step < 0:
            raise ValueError(f"start_step must be at least 0, got {start_step}")
        self._path = Path(path)
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
        self._folder, self._start_step = Path(folder), start_step
        self._opened: Any = None
        self._closed = False

    @property
    def _writer(self) -> Any:
        if self._closed:
            raise ValueError(f"the TensorBoard writer of {self._folder} is closed: open a new one")
        if self._opened is None:
            from tensorboardX import SummaryWriter

            resumed = any(self._folder.glob("events.out.tfevents.*"))
            purge_step = self._start_step + 1 if resumed else None
            self._opened = SummaryWriter(str(self._folder), purge_step=purge_step)
        return self._opened

    def write_scalars(self, step, scalars):
        """Record the finite scalars under their own names; TensorBoard groups them by prefix."""
        for name, value in scalars.items():
            number = float(_scalar(name, value))
            # TensorBoard cannot draw others, and tensorboardX warns of each.
            if math.isfinite(number):
                self._writer.add_scalar(name, number, int(step))

    def write_images(self, step, images):
        """Record the images, several of one name side by side as a numbered series."""
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
                self._writer.add_image(name, array, int(step), dataformats="HWC")
                continue
            for index, image in enumerate(array):
                self._writer.add_image(f"{name}/{index}", image, int(step), dataformats="HWC")

    def write_hparams(self, hparams):
        """Record the hyper-parameters as a table in TensorBoard's text tab."""
        rows = "".join(f"| {name} | `{value}` |\n" for name, value in _flatten(hparams).items())
        self._writer.add_text("hparams", "| name | value |\n| --- | --- |\n" + rows, 0)

    def flush(self):
        """Hand everything written so far to the operating system."""
        if self._opened is not None and not self._closed:
            self._opened.flush()

    def close(self):
        """Close the event file."""
        if self._opened is not None and not self._closed:
            self._opened.close()
        self._closed = True


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
    run_dir = Path(run_dir)
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
    path = Path(path)
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
    if kept == path.read_bytes():
        return
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(kept)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, path.stat().st_mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


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


# Metric name (without `train/`) -> the words on the progress line, in this order: a narrow terminal
# cuts the line at its right.
_SHOWN = {
    "kl": "KL",
    "reconstruction": "recon",
    "loss": "loss",
    "tail_share": "tail",
    "beta": "beta",
    "images_per_second": "",
}
# The line repeated for a log file at most and at least this often, seconds.
_LINE_AFTER, _LINE_BEFORE = 2.0, 20.0
# A terminal's bar is redrawn at most this often, seconds.
_REDRAW_AFTER = 0.2
# Narrow, so that the KL and its null value still fit into 80 columns.
_BAR = "{desc} {bar:8} "
# The time over which the rates on the line are averaged, seconds.
_RECENT = 20.0
# After the first dispatch, which waits for the compiler, as long is not counted, seconds.
_WARM_UP = 1.0


class _Pace:
    """The recent seconds per step, an exponential average over time.

    What a run does once is left out: the first dispatch, which compiles, the second after it, and
    the pause behind the first epoch, where validation is compiled.
    """

    def __init__(self, step: int, steps_per_epoch: int):
        self._step, self._steps_per_epoch = step, steps_per_epoch
        self._time: float | None = None
        self._warm_until = math.inf
        self._validated = False
        self._steps = self._seconds = 0.0

    def is_warm(self, now: float) -> bool:
        """Return whether a time lies behind the start of the run."""
        return now > self._warm_until

    def update(self, step: int, now: float) -> None:
        """Count the steps since the last call."""
        if step <= self._step:
            return
        if self._time is None:
            self._warm_until = now + _WARM_UP
        else:
            seconds, pause = now - self._time, self._step % self._steps_per_epoch == 0
            if self.is_warm(now) and (self._validated or not pause):
                decay = math.exp(-seconds / _RECENT)
                self._steps = decay * self._steps + (step - self._step)
                self._seconds = decay * self._seconds + seconds
            self._validated |= pause
        self._step, self._time = step, now

    def seconds_per_step(self) -> float | None:
        """Return the average, None while nothing has been counted."""
        return self._seconds / self._steps if self._steps else None


class Progress:
    """Show a run's progress: a bar on a terminal, now and then a plain line in a log file.

    Example:
      >>> progress = Progress(100, steps_per_epoch=10, stream=sys.stdout)
      >>> progress.note("training on 1,437 images")
      training on 1,437 images
      >>> progress.close()
    """

    def __init__(
        self, total_steps: int, initial: int = 0, steps_per_epoch: int = 1, *, stream=None
    ):
        """Start the clock.

        Args:
          total_steps: the step the run ends at.
          initial: the step it starts from, above 0 when resumed.
          steps_per_epoch: steps in one epoch, >= 1.
          stream: where to write; None is standard error.

        Raises:
          ValueError: a count is out of range.
        """
        if steps_per_epoch < 1:
            raise ValueError(f"steps_per_epoch must be at least 1, got {steps_per_epoch}")
        if not 0 <= initial <= total_steps:
            raise ValueError(f"initial must lie in [0, {total_steps}], got {initial}")
        self._total, self._initial, self._steps_per_epoch = total_steps, initial, steps_per_epoch
        self._stream = sys.stderr if stream is None else stream
        self._step = self._line_step = initial
        self._metrics: dict[str, Any] = {}
        self._pace = _Pace(initial, steps_per_epoch)
        self._speed: tuple[float, float] | None = None
        self._start = self._shown = time.monotonic()
        self._bar = None
        if self._stream.isatty():
            from tqdm import tqdm

            columns, lines = _terminal_size(self._stream)
            known = columns > 0 and lines > 0
            self._bar = tqdm(
                total=total_steps,
                initial=initial,
                file=self._stream,
                dynamic_ncols=known,
                # A terminal that says it has no size, as in some containers, would show nothing.
                ncols=None if known else columns or 80,
                nrows=None if known else 24,
                leave=True,
                mininterval=_REDRAW_AFTER,
                bar_format=_BAR,
            )
            self._bar.set_description_str(self._epoch(), refresh=True)

    def update(self, step: int, metrics: Mapping[str, Any] | None = None) -> None:
        """Move to a step and show the newest metrics when it is time to.

        Args:
          step: number of steps done in all, not since the last call.
          metrics: names as in `metrics.jsonl` (`train/loss`, `validation/kl`, `null_kl`, `beta`,
            ...), those of training also without the prefix; kept until newer ones come. Values are
            fetched from the device only when shown, which waits for the step that makes them;
            `images_per_second` is averaged over the last seconds.
        """
        self._step = int(step)
        now = time.monotonic()
        self._pace.update(self._step, now)
        if metrics:
            self._metrics.update(metrics)
            if "images_per_second" in metrics:
                speed = self._smooth_speed(float(metrics["images_per_second"]), now)
                self._metrics["images_per_second"] = speed
        if self._bar is not None:
            if now - self._shown >= _REDRAW_AFTER or self._step >= self._total:
                self._shown = now
                self._draw_bar(self._bar)
            return
        epochs = self._step // self._steps_per_epoch - self._line_step // self._steps_per_epoch
        waited = now - self._shown
        due = (epochs > 0 and waited >= _LINE_AFTER) or waited >= _LINE_BEFORE
        if (due or self._step >= self._total) and self._step > self._line_step:
            self._shown, self._line_step = now, self._step
            self._print_line(now)

    def note(self, message: str) -> None:
        """Print a line of its own, above the bar where there is one."""
        if self._bar is not None:
            self._bar.write(message, file=self._stream)
        else:
            print(message, file=self._stream, flush=True)

    def close(self) -> None:
        """Leave the bar as it is and end its line; closing twice is harmless."""
        if self._bar is not None:
            self._draw_bar(self._bar)
            self._bar.close()
            self._bar = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _draw_bar(self, bar):
        bar.set_description_str(self._epoch(), refresh=False)
        text = format_metrics(self._metrics)
        # Not as tqdm's postfix, which begins with a comma.
        # The time left comes before the metrics: a narrow terminal cuts the line at its right.
        left = f"{left} left  " if (left := self._left()) else ""
        bar.bar_format = _BAR + left + text.replace("{", "{{").replace("}", "}}")
        bar.update(self._step - bar.n)
        bar.refresh()

    def _print_line(self, now):
        left = self._left()
        parts = [
            self._epoch(),
            f"step {self._step}/{self._total}",
            format_metrics(self._metrics),
            f"{left} left" if left else "",
        ]
        if self._step >= self._total:
            parts[-1] = f"done in {_duration(now - self._start)}"
        print("  ".join(part for part in parts if part), file=self._stream, flush=True)

    def _left(self) -> str:
        """Write the time left, empty while the pace is not known."""
        seconds = self._pace.seconds_per_step()
        steps = max(self._total - self._step, 0)
        if seconds is None:
            return "" if steps else _duration(0.0)
        return _duration(seconds * steps)

    def _smooth_speed(self, value: float, now: float) -> float:
        """Return the exponential average of a number that jumps, begun anew after the warm-up."""
        if self._speed is not None and self._pace.is_warm(self._speed[1]):
            before, then = self._speed
            value = before + (1.0 - math.exp(-(now - then) / _RECENT)) * (value - before)
        self._speed = value, now
        return value

    def _epoch(self):
        epochs = -(-self._total // self._steps_per_epoch)
        # The epoch being worked on, counted from one; the last step still belongs to its own.
        current = -(-max(self._step, 1) // self._steps_per_epoch)
        return f"epoch {min(current, epochs):>{len(str(epochs))}}/{epochs}"


def format_metrics(metrics: Mapping[str, Any]) -> str:
    """Write the metrics of a step as one short line for a person.

    Args:
      metrics: names as in `metrics.jsonl`; `train/` may be missing. Other `train/` terms are shown
        by their own names; of validation the KL and the reconstruction are shown, beside those of
        training.

    Returns:
      For instance `KL 0.07, validation 0.31 (null -0.18)  recon 0.373, validation 1.03`.

    Example:
      >>> format_metrics({"train/kl": 1.918, "null_kl": -0.241, "images_per_second": 8123.4})
      'KL 1.92 (null -0.24)  8,123 images/s'
    """
    train = {}
    for name, value in metrics.items():
        bare = name.removeprefix("train/")
        if bare in _SHOWN or name.startswith("train/"):
            train[bare] = float(np.asarray(value))
    parts = []
    extra = [name for name in train if name not in _SHOWN]
    for name in [*list(_SHOWN)[:3], *extra, *list(_SHOWN)[3:]]:
        if name not in train:
            continue
        value = train[name]
        if name in ("kl", "reconstruction"):
            parts.append(_with_validation(name, value, metrics))
        elif name == "tail_share":
            parts.append(f"tail {100.0 * value:.1f}%")
        elif name == "images_per_second":
            parts.append(f"{value:,.0f} images/s")
        else:
            parts.append(f"{_SHOWN.get(name, name)} {_number(value)}")
    return "  ".join(parts)


def _with_validation(name: str, value: float, metrics: Mapping[str, Any]) -> str:
    write = "{:.2f}".format if name == "kl" else _number
    text = f"{_SHOWN[name]} {write(value)}"
    if f"validation/{name}" in metrics:
        text += f", validation {write(float(np.asarray(metrics[f'validation/{name}'])))}"
    if f"null_{name}" in metrics:
        text += f" (null {write(float(np.asarray(metrics[f'null_{name}'])))})"
    return text


def format_summary(summary: Mapping[str, Any]) -> str:
    """Lay a run's closing numbers out as a table: quantity, value, null.

    Args:
      summary: quantity -> number, text, or a pair `(value, null)`. `name_null` beside `name`
        becomes its null. A nested mapping becomes a section under its key, where a bare `null` is
        that of the section's first quantity. None is shown as a dash.

    Returns:
      The table, with a line that explains the nulls where there are any, without a newline at its
      end.

    Example:
      >>> latent = {"moment_kl": 0.31, "moment_kl_null": 0.03, "std": (0.95, 1.0)}
      >>> print(format_summary({"latent": latent}))
      quantity     value    null
      --------------------------
      latent
        moment_kl  0.310  0.0300
        std        0.950    1.00
      null: what as many draws of the prior, or a constant decoder, would give
    """
    rows = _summary_rows(summary, indent="")
    has_nulls = any(null for _, _, null in rows)
    cells = [("quantity", "value", "null" if has_nulls else ""), *rows]
    # A text in the value column, a path say, must not push the numbers of the other rows apart.
    widths = [max(len(row[0]) for row in cells)]
    for column in (1, 2):
        widths.append(max(len(row[column]) for row in cells if len(row[column]) <= 18))
    lines = [
        f"{name:<{widths[0]}}  {value:>{widths[1]}}  {null:>{widths[2]}}".rstrip()
        for name, value, null in cells
    ]
    note = ["null: what as many draws of the prior, or a constant decoder, would give"]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], *(note if has_nulls else [])])


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print `format_summary(summary)` on standard output."""
    print(format_summary(summary), flush=True)


def _summary_rows(summary: Mapping[str, Any], indent: str) -> list[tuple[str, str, str]]:
    rows = []
    names = list(summary)
    for position, (name, value) in enumerate(summary.items()):
        if isinstance(value, Mapping):
            rows.append((indent + name, "", ""))
            rows.extend(_summary_rows(value, indent + "  "))
            continue
        owner = name.removesuffix("_null")
        if (owner != name and owner in summary) or (name == "null" and position > 0):
            continue
        null_value: Any = summary.get(f"{name}_null", "")
        if position == 0 and null_value == "" and "null" in names[1:]:
            null_value = summary["null"]
        if isinstance(value, (tuple, list)) and len(value) == 2:
            value, null_value = value
        rows.append((indent + name, _cell(value), _cell(null_value)))
    return rows


def _cell(value) -> str:
    if value is None:
        return "-"
    if isinstance(value, (bool, str)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return _number(float(np.asarray(value)))


def _number(value: float) -> str:
    """Write a number with three significant digits, and whole ones above a thousand in full."""
    if not math.isfinite(value):
        return str(value)
    magnitude = abs(value)
    if magnitude >= 1e7 or 0.0 < magnitude < 1e-4:
        return f"{value:.2e}"
    if magnitude >= 999.5:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def _terminal_size(stream) -> tuple[int, int]:
    """Return columns and lines, zeros where they are not known."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except OSError:
        return 0, 0
    return size.columns, size.lines


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


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
