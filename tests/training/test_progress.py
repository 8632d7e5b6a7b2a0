"""What the person watching sees, on a terminal and in a log file."""

import io
import re

import jax.numpy as jnp
import pytest

from avae_jax.terms import Term
from avae_jax.training.progress import Progress, format_metrics

METRICS = {
    "train/kl": 1.918,
    "null_kl": -0.241,
    "train/reconstruction": 10.4,
    "train/tail_share": 0.0123,
    "beta": 4.5,
}
TERMS = {
    "kl": Term(caption="KL", unit="nats"),
    "reconstruction": Term(caption="Reconstruction", short="recon"),
    "tail_share": Term(caption="Codes in the tail", short="tail", unit="%"),
}
LINE = "KL 1.92 (null -0.241)  recon 10.4  tail 1.23%  beta 4.50"


class _Terminal(io.StringIO):
    def isatty(self):
        return True

    def line(self):
        """Return the line drawn last, without what moves the cursor and colors it."""
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())
        return re.split(r"[\r\n]+", text.rstrip("\r\n"))[-1]


class _Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return _Clock()


@pytest.fixture
def terminal(monkeypatch):
    """Return a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    return _Terminal()


def _left(line):
    """Return the seconds left that a line gives."""
    parts = line.split(" left")[0].split()[-1].split(":")
    return sum(60**power * int(part) for power, part in enumerate(reversed(parts)))


# The metrics of a step


def test_metrics_are_shown_as_given():
    assert format_metrics(METRICS, TERMS) == LINE
    assert format_metrics({}) == ""
    backwards = dict(reversed(METRICS.items()))
    shown = format_metrics(backwards, TERMS)
    assert shown.split("  ") == LINE.split("  ")[::-1]


def test_any_name_is_shown_without_being_known():
    metrics = {"train/critic_accuracy": jnp.float32(0.5), "temperature": 2, "norm/encoder": 3.0}
    assert format_metrics(metrics) == "critic accuracy 0.500  temperature 2.00  norm/encoder 3.00"
    assert format_metrics(metrics, {"temperature": None}).split("  ")[1] == "norm/encoder 3.00"
    assert format_metrics({"kl": float("nan")}) == "kl nan"


def test_a_name_stands_once_with_its_validation_and_its_null():
    metrics = {"train/kl": 0.07, "loss": 3.0, "validation/kl": jnp.float32(0.31), "kl_null": -0.18}
    expected = "kl 0.0700, validation 0.310 (null -0.180)  loss 3.00"
    assert format_metrics(metrics) == expected
    assert format_metrics({"validation/mse": 0.01}) == "mse validation 0.0100"
    # A null under any name, given by the caller.
    terms = {"kl": Term(null="perfect")}
    assert format_metrics({"kl": 0.5, "perfect": 0.1}, terms) == "kl 0.500 (null 0.100)"


# Plain lines


def test_plain_lines_come_now_and_then(clock):
    stream = io.StringIO()
    progress = Progress(100, steps_per_epoch=10, terms=TERMS, stream=stream, clock=clock)
    for step in range(1, 101):
        clock.now += 0.5
        progress.update(step, METRICS)
    progress.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0] == f"epoch  1/10  step 10/100  {LINE}  0:45 left"
    assert lines[-1] == f"epoch 10/10  step 100/100  {LINE}  done in 0:50"


@pytest.mark.parametrize(
    ("seconds", "steps_per_epoch", "num_lines"), [(0.2, 1, 4), (0.001, 1, 1), (1.5, 1000, 5)]
)
def test_short_epochs_do_not_flood_and_long_ones_are_not_silent(
    clock, seconds, steps_per_epoch, num_lines
):
    stream = io.StringIO()
    progress = Progress(100, steps_per_epoch=steps_per_epoch, stream=stream, clock=clock)
    for step in range(1, 101):
        clock.now += seconds
        progress.update(step)
    assert len(stream.getvalue().splitlines()) == num_lines


def test_a_line_is_of_one_epoch(clock):
    """Another epoch's validation stays out of it; a bar goes on showing the last one."""
    stream = io.StringIO()
    progress = Progress(20, steps_per_epoch=10, terms=TERMS, stream=stream, clock=clock)
    for step, seen in ((5, {}), (10, {"validation/kl": 0.3}), (15, {}), (20, {})):
        clock.now += 40.0
        progress.update(step, {"train/kl": step / 10, **seen})
    lines = stream.getvalue().splitlines()
    shown = [line.split("  ")[2] for line in lines]
    assert shown == ["KL 0.500", "KL 1.00, validation 0.300", "KL 1.50", "KL 2.00"]


def test_values_stay_on_the_device_until_they_are_shown(clock):
    class Value:
        fetched = 0

        def __array__(self, *args, **kwargs):
            Value.fetched += 1
            return jnp.float32(1.0).__array__()

    progress = Progress(1000, steps_per_epoch=100, stream=io.StringIO(), clock=clock)
    for step in range(1, 101):
        clock.now += 0.1
        progress.update(step, {"train/loss": Value()})
    assert Value.fetched == 1


def test_resumed_run_estimates_from_its_own_steps(clock):
    stream = io.StringIO()
    progress = Progress(1000, initial=900, steps_per_epoch=50, stream=stream, clock=clock)
    for step in (910, 920, 930, 940):
        clock.now += 10.0
        progress.update(step)
    assert stream.getvalue().splitlines() == [
        "epoch 19/20  step 930/1000  1:10 left",
    ]


@pytest.mark.parametrize("pause", [0.0, 40.0])
def test_compilation_does_not_count_in_the_time_left(clock, pause):
    stream = io.StringIO()
    progress = Progress(20_000, steps_per_epoch=100, stream=stream, clock=clock)
    # Compiling takes as long as the run; so does compiling validation, after the first epoch.
    clock.now += 100.0
    progress.update(1)
    assert stream.getvalue() == "epoch   1/200  step 1/20000\n"
    for step in range(2, 6001):
        clock.now += 0.01 + (pause if step == 101 else 0.0)
        progress.update(step)
    line = stream.getvalue().splitlines()[-1]
    step = int(line.split("step ")[1].split("/")[0])
    assert step > 5000
    assert _left(line) == pytest.approx(0.01 * (20_000 - step), abs=2)


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = _Terminal()
    progress = Progress(10, stream=stream, clock=clock)
    progress.update(10, {"loss": 1.0})
    progress.close()
    assert stream.getvalue() == "epoch 10/10  step 10/10  loss 1.00  done in 0:00\n"


def test_a_log_file_gets_plain_lines_whatever_colors_are_forced(clock, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.StringIO()
    with Progress(10, stream=stream, clock=clock) as progress:
        progress.note("[bold] stays as it is")
        progress.update(10)
    assert stream.getvalue() == "[bold] stays as it is\nepoch 10/10  step 10/10  done in 0:00\n"


class _Notebook(io.TextIOBase):
    """A notebook's output, as IPython's kernel makes it: no terminal, no file, never read back."""

    encoding = "UTF-8"

    def __init__(self):
        self.written = []

    def writable(self):
        return True

    def write(self, text):
        self.written.append(text)
        return len(text)

    def fileno(self):
        raise io.UnsupportedOperation("IOStream has no fileno.")


@pytest.mark.parametrize("forced", [False, True])
def test_a_notebook_is_not_flooded(clock, monkeypatch, forced):
    if forced:
        # What tells rich that it is in a notebook must not bring its own display.
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
    stream = _Notebook()
    with Progress(6000, steps_per_epoch=10, stream=stream, clock=clock) as progress:
        for step in range(1, 6001):
            clock.now += 0.01
            progress.update(step, {"train/loss": 1.0})
    text = "".join(stream.written)
    # A minute: a line every five seconds.
    assert len(text.splitlines()) == 12
    assert text.isascii()
    assert text.replace("\n", "").isprintable()


# The bar


def test_time_left_follows_a_change_of_pace(clock, terminal):
    progress = Progress(100_000, steps_per_epoch=100_000, stream=terminal, clock=clock)
    for step in range(1, 2001):
        clock.now += 0.01 if step <= 1000 else 0.1
        progress.update(step)
    assert _left(terminal.line()) == pytest.approx(98_000 * 0.1, rel=0.05)
    progress.close()


def test_bar_on_a_terminal(clock, terminal):
    with Progress(20, steps_per_epoch=10, terms=TERMS, stream=terminal, clock=clock) as progress:
        assert terminal.line().startswith("epoch 1/2")
        progress.update(1, METRICS)
        assert "KL 1.92 (null -0.241)" in terminal.line()
        progress.note("a note of [bold] steps " + 80 * "x")
        clock.now += 5.0
        progress.update(20, METRICS | {"train/kl": 0.5})
        progress.close()
    assert terminal.line().startswith("epoch 2/2")
    assert "done in 0:05  KL 0.500 (null -0.241)  recon 10.4" in terminal.line()
    # Whole, on a line of its own.
    assert f"a note of [bold] steps {80 * 'x'}\n" in terminal.getvalue()
    written = terminal.getvalue()
    progress.close()
    assert terminal.getvalue() == written


def test_the_bar_of_a_resumed_run_begins_where_it_was(clock, terminal):
    for initial, begun in ((0, False), (500, True)):
        with Progress(1000, initial, 10, stream=terminal, clock=clock):
            # What is to come begins with a half of its own where something is done.
            assert ("╺" in terminal.line()) == begun


def test_the_bar_is_redrawn_five_times_a_second(clock, terminal):
    progress = Progress(1000, stream=terminal, clock=clock)
    before = terminal.getvalue().count("epoch")
    for step in range(1, 1000):
        clock.now += 0.01
        progress.update(step)
    assert terminal.getvalue().count("epoch") - before == pytest.approx(50, abs=3)
    progress.close()


@pytest.mark.parametrize("columns", ["80", "40"])
def test_bar_is_cut_at_the_terminal_s_width(clock, terminal, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    seen = {"train/kl": 1.918, "validation/kl": 0.31, "null_kl": -0.241, **METRICS}
    progress = Progress(120_000, steps_per_epoch=120, terms=TERMS, stream=terminal, clock=clock)
    for step in range(1, 1001):
        clock.now += 0.1
        progress.update(step, seen)
    line = terminal.line()
    assert len(line) <= int(columns)
    assert line.startswith("epoch    9/1000")
    assert line.rstrip().endswith("…")
    assert _left(line) == pytest.approx(119_000 * 0.1, rel=0.01)
    if columns == "80":
        assert "KL 1.92, validation 0.310" in line
    progress.close()


def test_bad_counts_are_named():
    with pytest.raises(ValueError, match="steps_per_epoch must be an integer of at least 1, got 0"):
        Progress(10, steps_per_epoch=0)
    with pytest.raises(ValueError, match="initial must be an integer from 0 to 10, got 11"):
        Progress(10, initial=11)
