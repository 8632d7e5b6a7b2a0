"""What the person watching a run sees: a bar on a terminal, now and then a line in a log file.

What is shown is what the caller hands over, in its order; nothing here knows a method's terms.
"""

import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column

from avae_jax.checks import check_count
from avae_jax.terms import Term, Terms, null_key, null_names, short_caption, split_name
from avae_jax.text import duration, number

# A terminal's bar is redrawn at most this often, and the pace is taken as often, seconds.
_REDRAW_AFTER = 0.2
# A log file or a notebook gets a line at most this often, and then at the end of an epoch; in long
# epochs it gets one at least this often, seconds.
_LINE_AFTER, _LINE_BEFORE = 5.0, 30.0
# The time over which the pace is averaged, seconds; what a run does once, as compiling, is no part
# of it after as long.
_RECENT = 30.0


class Progress:
    """Show a run's progress: a bar on a terminal, now and then a plain line in a log file.

    Example:
      >>> progress = Progress(100, steps_per_epoch=10, stream=sys.stdout)
      >>> progress.note("training on 1,437 images")
      training on 1,437 images
      >>> progress.update(100, {"train/kl": 1.918, "train/kl_null": 0.02})
      epoch 10/10  step 100/100  kl 1.92 (null 0.0200)  done in 0:00
      >>> progress.close()
    """

    def __init__(
        self,
        total_steps: int,
        initial: int = 0,
        steps_per_epoch: int = 1,
        *,
        terms: Terms | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Start the clock.

        Args:
          total_steps: the step the run ends at.
          initial: the step it starts from, above 0 when resumed.
          steps_per_epoch: steps in one epoch, >= 1.
          terms: name, without the split -> what it is called, its unit and its null; None for a
            number that is not shown.
          stream: where to write; None is standard error.
          clock: the time in seconds.

        Raises:
          TypeError: a count is no integer.
          ValueError: a count is out of range.
        """
        check_count("steps_per_epoch", steps_per_epoch, minimum=1)
        check_count("initial", initial, minimum=0, maximum=total_steps)
        self._total, self._steps_per_epoch = total_steps, steps_per_epoch
        self._stream = sys.stderr if stream is None else stream
        self._terms, self._clock = terms or {}, clock
        self._metrics: dict[str, Any] = {}
        self._validated = -1
        self._step = self._line_step = initial
        self._start = self._printed = clock()
        # The first update counts: what lies before it is compiling.
        self._drawn = -math.inf
        # One that cannot move its cursor is written to as a file is.
        self._live = self._stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
        # Without a terminal the bar is never drawn and keeps the pace alone.
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=8),
            # The last column takes the room that is left, and is cut where that is too little.
            TextColumn(
                "{task.fields[text]}",
                markup=False,
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            console=Console(
                file=self._stream,
                force_terminal=self._live,
                force_jupyter=False,
                highlight=False,
            ),
            auto_refresh=False,
            speed_estimate_period=_RECENT,
            get_time=clock,
            disable=not self._live,
            expand=True,
        )
        self._bar.start()
        self._task = self._bar.add_task(
            self._epoch(), total=total_steps, completed=initial, text=""
        )

    def update(self, step: int, metrics: Mapping[str, Any] | None = None) -> None:
        """Move to a step and show the newest metrics when it is time to.

        Args:
          step: number of steps done in all, not since the last call.
          metrics: names as in `metrics.jsonl` (`train/loss`, `validation/kl`, `null_kl`, `beta`,
            ...), kept until newer ones come; shown in the order in which they first came. Values
            are fetched from the device only when shown, which waits for the step that makes them.
        """
        self._step = int(step)
        if metrics:
            self._metrics.update(metrics)
            if any(split_name(key)[0] == "validation" for key in metrics):
                self._validated = self._step
        now, ended = self._clock(), self._step >= self._total
        if now - self._drawn >= _REDRAW_AFTER or ended:
            self._drawn = now
            self._draw()
        if self._live:
            return
        is_end = self._step % self._steps_per_epoch == 0
        waited = now - self._printed
        due = waited >= (_LINE_AFTER if is_end else _LINE_BEFORE)
        if (due or ended) and self._step > self._line_step:
            self._printed, self._line_step = now, self._step
            step_text = f"step {self._step}/{self._total}"
            # A line stands for itself: another epoch's validation has no place in it.
            own = {
                key: value
                for key, value in self._metrics.items()
                if self._validated == self._step or split_name(key)[0] != "validation"
            }
            shown = format_metrics(own, self._terms)
            parts = [self._epoch(), step_text, shown, self._left()]
            print("  ".join(filter(None, parts)), file=self._stream, flush=True)

    def note(self, message: str) -> None:
        """Print a line of its own, above the bar where there is one."""
        if self._live:
            self._bar.console.print(message, markup=False, highlight=False, soft_wrap=True)
        else:
            print(message, file=self._stream, flush=True)

    def close(self) -> None:
        """Leave the bar as it is and end its line; closing twice is harmless."""
        if self._live:
            self._draw()
            self._bar.stop()
            self._live = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _draw(self) -> None:
        """Count the steps, and show them where there is a terminal."""
        text = ""
        if self._live:
            # The time left comes first: a narrow terminal cuts the line at its right.
            shown = format_metrics(self._metrics, self._terms)
            text = "  ".join(filter(None, [self._left(), shown]))
        self._bar.update(
            self._task, completed=self._step, description=self._epoch(), text=text, refresh=True
        )

    def _left(self) -> str:
        """Write the time left, empty while the pace is not known, or the time taken."""
        if self._step >= self._total:
            return f"done in {duration(self._clock() - self._start)}"
        seconds = self._bar.tasks[0].time_remaining
        return "" if seconds is None else f"{duration(seconds)} left"

    def _epoch(self) -> str:
        epochs = -(-self._total // self._steps_per_epoch)
        # The epoch being worked on, counted from one; the last step still belongs to its own.
        current = -(-max(self._step, 1) // self._steps_per_epoch)
        return f"epoch {min(current, epochs):>{len(str(epochs))}}/{epochs}"


def format_metrics(metrics: Mapping[str, Any], terms: Terms | None = None) -> str:
    """Write the metrics of a step as one short line for a person.

    Args:
      metrics: names as in `metrics.jsonl`, in the order in which they are shown. A name is shown
        once: its value on the batches of training, or of no split, then that on the validation
        images, then its null.
      terms: name, without the split -> what it is called, its unit and its null; None for a number
        that is not shown.

    Example:
      >>> terms = {"kl": Term(caption="KL", unit="nats")}
      >>> format_metrics({"train/kl": 0.07, "validation/kl": 0.31, "kl_null": -0.18}, terms)
      'KL 0.0700, validation 0.310 (null -0.180)'
    """
    terms = terms or {}
    # By name, then by split; a dict keeps the order in which names first came.
    named: dict[str, dict[str, Any]] = {}
    for key, value in metrics.items():
        split, name = split_name(key)
        named.setdefault(name, {})[split] = value
    nulls = null_names(metrics, terms)
    parts = []
    for name, values in named.items():
        if name in nulls or terms.get(name, Term()) is None:
            continue
        term = terms.get(name) or Term()
        # Without a split it stands for the training's.
        own = next((split for split in ("train", "") if split in values), None)
        shown = [] if own is None else [_value(values[own], term)]
        if "validation" in values:
            shown.append(f"validation {_value(values['validation'], term)}")
        text = f"{short_caption(name, terms)} {', '.join(shown)}"
        key = null_key(name, metrics, terms)
        parts.append(text if key is None else f"{text} (null {_value(metrics[key], term)})")
    return "  ".join(parts)


def _value(value, term: Term) -> str:
    text = number(term.factor * float(np.asarray(value)))
    return f"{text}%" if term.unit == "%" else text
