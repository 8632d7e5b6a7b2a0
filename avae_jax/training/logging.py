"""Where a run's numbers go: JSON lines, TensorBoard event files, and the person watching.

The writers have the method names of `clu.metric_writers.MetricWriter`. clu's own are not used: they
import TensorFlow, seconds of start-up and a gigabyte on disk, for the same event files.
"""

import abc
import json
import logging
import math
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
        """Open the file for a run that continues after `start_step`.

        Rows of later steps, left by a run that died after its last checkpoint, are removed, and so
        is a last line that was cut off; the file is replaced atomically. Earlier rows stay as they
        are.

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
        self._file = self._path.open("a", encoding="utf-8")

    def write_scalars(self, step, scalars):
        """Append `{"step": step, **scalars}` and hand the line to the operating system."""
        row: dict[str, float | None] = {"step": int(step)}
        for name, value in scalars.items():
            number = _scalar(name, value)
            row[name] = number if math.isfinite(number) else None
        # One write call per row: a kill leaves at most one line unfinished.
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()

    def write_images(self, step, images):
        """Leave images out: the file holds numbers, the run folder's `figures/` the pictures."""

    def write_hparams(self, hparams):
        """Leave hyper-parameters out: `config.json` of the run folder holds them."""

    def flush(self):
        """Hand everything written so far to the operating system."""
        if not self._file.closed:
            self._file.flush()

    def close(self):
        """Close the file."""
        self._file.close()


class TensorBoardWriter(MetricWriter):
    """Write TensorBoard event files through tensorboardX, without TensorFlow."""

    def __init__(self, folder, *, start_step: int = 0):
        """Open a new event file for a run that continues after `start_step`.

        Args:
          folder: where event files go; made when missing.
          start_step: the step of the checkpoint the run continues from; TensorBoard then hides
            later steps that an earlier process wrote.
        """
        from tensorboardX import SummaryWriter

        folder = Path(folder)
        resumed = any(folder.glob("events.out.tfevents.*")) if folder.exists() else False
        self._writer = SummaryWriter(str(folder), purge_step=start_step + 1 if resumed else None)

    def write_scalars(self, step, scalars):
        """Record the scalars under their own names; TensorBoard groups them by prefix."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, float(_scalar(name, value)), int(step))

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
        self._writer.flush()

    def close(self):
        """Close the event file."""
        self._writer.close()


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
      A writer. On every process but the first of a multi-host run it writes nothing.
    """
    import jax

    if jax.process_index() != 0:
        return MultiWriter([])
    run_dir = Path(run_dir)
    return MultiWriter(
        [
            JsonLinesWriter(run_dir / METRICS_FILE, start_step=start_step),
            TensorBoardWriter(run_dir / "tensorboard", start_step=start_step),
        ]
    )


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


# Metric name (without `train/`) -> the words on the progress line, in this order.
_SHOWN = {
    "loss": "loss",
    "reconstruction": "recon",
    "kl": "KL",
    "tail_share": "tail",
    "beta": "beta",
    "images_per_second": "",
}
# The line repeated for a log file at most and at least this often, seconds.
_LINE_AFTER, _LINE_BEFORE = 2.0, 20.0
# A terminal's bar is redrawn at most this often, seconds.
_REDRAW_AFTER = 0.2
# Narrow, so that the KL and its null value still fit into 80 columns.
_BAR = "{desc} {bar:8} {remaining} left  "


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
        self._start = self._shown = time.monotonic()
        self._bar = None
        if self._stream.isatty():
            from tqdm import tqdm

            known = _has_width(self._stream)
            # Time left comes before the metrics: a narrow terminal cuts the line at its right.
            self._bar = tqdm(
                total=total_steps,
                initial=initial,
                file=self._stream,
                dynamic_ncols=known,
                # A terminal that says it has no columns, as in some containers, would show nothing.
                ncols=None if known else 100,
                leave=True,
                mininterval=_REDRAW_AFTER,
                bar_format=_BAR,
            )
            self._bar.set_description_str(self._epoch(), refresh=True)

    def update(self, step: int, metrics: Mapping[str, Any] | None = None) -> None:
        """Move to a step and show the newest metrics when it is time to.

        Args:
          step: number of steps done in all, not since the last call.
          metrics: names as in `metrics.jsonl` (`train/loss`, `train/kl`, `null_kl`, `beta`, ...) or
            without the prefix; kept until newer ones come. Values are fetched from the device only
            when shown, which waits for the step that makes them.
        """
        self._step = int(step)
        if metrics:
            self._metrics.update(metrics)
        now = time.monotonic()
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
        bar.bar_format = _BAR + text.replace("{", "{{").replace("}", "}}")
        bar.update(self._step - bar.n)
        bar.refresh()

    def _print_line(self, now):
        done, left = self._step - self._initial, self._total - self._step
        seconds = (now - self._start) / done * left
        parts = [
            self._epoch(),
            f"step {self._step}/{self._total}",
            format_metrics(self._metrics),
            f"{_duration(seconds)} left" if left else f"done in {_duration(now - self._start)}",
        ]
        print("  ".join(part for part in parts if part), file=self._stream, flush=True)

    def _epoch(self):
        epochs = -(-self._total // self._steps_per_epoch)
        # The epoch being worked on, counted from one; the last step still belongs to its own.
        current = -(-max(self._step, 1) // self._steps_per_epoch)
        return f"epoch {min(current, epochs):>{len(str(epochs))}}/{epochs}"


def format_metrics(metrics: Mapping[str, Any]) -> str:
    """Write the metrics of a step as one short line for a person.

    Args:
      metrics: names as in `metrics.jsonl`; `train/` may be missing. Other `train/` terms are shown
        by their own names, names with any other prefix not at all.

    Returns:
      For instance `loss 12.3  recon 10.4  KL 1.92 (null -0.24)  tail 1.2%  beta 4.51`.

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
        if name == "kl":
            parts.append(f"KL {value:.2f}")
        elif name == "tail_share":
            parts.append(f"tail {100.0 * value:.1f}%")
        elif name == "images_per_second":
            parts.append(f"{value:,.0f} images/s")
        else:
            parts.append(f"{_SHOWN.get(name, name)} {_number(value)}")
        if name == "kl" and "null_kl" in metrics:
            parts[-1] += f" (null {float(np.asarray(metrics['null_kl'])):.2f})"
    return "  ".join(parts)


def format_summary(summary: Mapping[str, Any]) -> str:
    """Lay a run's closing numbers out as a table: quantity, value, reference.

    Args:
      summary: quantity -> number, text, or a pair `(value, reference)`. `name_null` beside `name`
        becomes its reference. A nested mapping becomes a section under its key, where a bare `null`
        is the reference of the section's first quantity. None is shown as a dash.

    Returns:
      The table, without a newline at its end.

    Example:
      >>> latent = {"moment_kl": 0.31, "moment_kl_null": 0.03, "std": (0.95, 1.0)}
      >>> print(format_summary({"latent": latent}))
      quantity     value  reference
      -----------------------------
      latent
        moment_kl  0.310     0.0300
        std        0.950       1.00
    """
    rows = _summary_rows(summary, indent="")
    cells = [("quantity", "value", "reference"), *rows]
    # A text in the value column, a path say, must not push the numbers of the other rows apart.
    widths = [max(len(row[0]) for row in cells)]
    for column in (1, 2):
        widths.append(max(len(row[column]) for row in cells if len(row[column]) <= 18))
    lines = [
        f"{name:<{widths[0]}}  {value:>{widths[1]}}  {reference:>{widths[2]}}".rstrip()
        for name, value, reference in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


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
        reference: Any = summary.get(f"{name}_null", "")
        if position == 0 and reference == "" and "null" in names[1:]:
            reference = summary["null"]
        if isinstance(value, (tuple, list)) and len(value) == 2:
            value, reference = value
        rows.append((indent + name, _cell(value), _cell(reference)))
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


def _has_width(stream) -> bool:
    try:
        return os.get_terminal_size(stream.fileno()).columns > 0
    except OSError:
        return False


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
