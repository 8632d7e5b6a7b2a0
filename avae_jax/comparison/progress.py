"""What a person sees of a comparison: a line a cell, and the time left over the whole table."""

import sys
import time
from collections.abc import Sequence
from typing import TextIO

from avae_jax.comparison.cells import Cell
from avae_jax.text import duration


class TableProgress:
    """Counts cells and the time they take.

    On a terminal the cell at work has a line of its own, which is written over.

    Args:
      cells: all cells of the table.
      stream: where to write; None is standard error.
    """

    def __init__(self, cells: Sequence[Cell], *, stream: TextIO | None = None):
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._cells = list(cells)
        self._waiting = {cell.name: cell for cell in cells}
        self._taken: dict[str, list[float]] = {}
        self._start, self._shown = time.monotonic(), ""

    def known(self, cell: Cell, seconds: float) -> None:
        """Count a cell that an earlier call finished."""
        self._waiting.pop(cell.name, None)
        if seconds:
            self._taken.setdefault(cell.experiment, []).append(seconds)

    def begin(self, cell: Cell, doing: str) -> None:
        """Show what is done now; on a terminal alone."""
        if self._live:
            self._write(f"{self._place(cell)} {cell.name}: {doing}{self._left()}", end="")

    def end(self, cell: Cell, seconds: float, outcome: str) -> None:
        """Print a line about a cell that has ended."""
        self.known(cell, seconds)
        self._write(f"{self._place(cell)} {cell.name}: {outcome}{self._left()}")

    def note(self, line: str) -> None:
        """Print a line of its own."""
        self._write(line)

    def _place(self, cell: Cell) -> str:
        """Write which cell of how many, in the order of the table."""
        number = 1 + next(k for k, one in enumerate(self._cells) if one.name == cell.name)
        return f"[{number:>{len(str(len(self._cells)))}}/{len(self._cells)}]"

    def _left(self) -> str:
        seconds = self.seconds_left()
        if not self._waiting:
            return f"  all done in {duration(time.monotonic() - self._start)}"
        return "" if seconds is None else f"  {duration(seconds)} left"

    def seconds_left(self) -> float | None:
        """Return the time left, from finished cells of each experiment; None before the first."""
        every = [seconds for taken in self._taken.values() for seconds in taken]
        if not every:
            return None
        total = 0.0
        for cell in self._waiting.values():
            taken = self._taken.get(cell.experiment, every)
            total += sum(taken) / len(taken)
        return total

    def _write(self, text: str, end: str = "\n") -> None:
        if self._live:
            # What was there before goes.
            self._stream.write("\r" + " " * len(self._shown) + "\r")
            self._shown = "" if end else text
        self._stream.write(text + end)
        self._stream.flush()
