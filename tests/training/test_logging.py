import io
import json
import struct

import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax.training import logging as av_logging
from avae_jax.training.logging import (
    JsonLinesWriter,
    MultiWriter,
    Progress,
    TensorBoardWriter,
    create_default_writer,
    format_metrics,
    format_summary,
    print_summary,
    read_metrics,
)


def _write(path, steps, start_step=0):
    writer = JsonLinesWriter(path, start_step=start_step)
    for step in steps:
        writer.write_scalars(step, {"train/loss": step / 10})
    writer.close()


def _steps(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


# JSON lines


def test_rows_are_strict_json(tmp_path):
    path = tmp_path / "deep" / "metrics.jsonl"
    writer = JsonLinesWriter(path)
    scalars = {
        "loss": jnp.float32(0.5),
        "half": jnp.bfloat16(2.0),
        "kl": np.float64("nan"),
        "epoch": 3,
        "one": np.ones((1, 1)),
    }
    writer.write_scalars(np.int64(7), scalars)
    # Readable before it is closed: a kill must not lose it.
    row = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert row == {"step": 7, "loss": 0.5, "half": 2.0, "kl": None, "epoch": 3, "one": 1.0}
    writer.close()
    writer.close()
    writer.flush()
    assert np.isnan(read_metrics(path)[0]["kl"])


def test_resume_leaves_each_step_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    _write(path, range(10, 101, 10))
    _write(path, range(60, 121, 10), start_step=50)
    assert _steps(path) == list(range(10, 121, 10))


def test_resume_drops_a_line_cut_off(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    _write(path, [10, 20])
    whole = path.read_bytes()
    # Both cuts matter: broken JSON, and a shorter number that still parses but has no newline.
    for cut in (b'{"step": 30, "train/lo', b'{"step": 30}'):
        path.write_bytes(whole + cut)
        _write(path, [30], start_step=30)
        assert _steps(path) == [10, 20, 30]
        assert json.loads(path.read_text().splitlines()[-1])["train/loss"] == 3.0
    assert "incomplete or damaged" in caplog.text


def test_resume_without_later_rows_leaves_the_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    _write(path, [10, 20])
    before = path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()

    open_file = av_logging.Path.open

    def open_to_read(path, mode="r", *args, **kwargs):
        assert mode == "rb", "the file is opened to be written"
        return open_file(path, mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(av_logging.Path, "open", open_to_read)
        writer = JsonLinesWriter(path, start_step=20)
        writer.flush()
        writer.close()
    assert (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) == before
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_failed_rewrite_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    _write(path, [10, 20])

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(av_logging.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        JsonLinesWriter(path, start_step=10)
    assert _steps(path) == [10, 20]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_reading_merges_rows_of_a_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 2, "a": 1}\nnonsense\n[1]\n{"step": 1, "a": 0}\n{"step": 2, "b": 3}\n'
    )
    assert read_metrics(tmp_path) == [{"step": 1, "a": 0}, {"step": 2, "a": 1, "b": 3}]


@pytest.mark.parametrize("value", [np.zeros(2), "text", 1j])
def test_what_is_no_scalar_is_refused(tmp_path, value):
    writer = JsonLinesWriter(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match="scalars\\['kl'\\] must hold one real number"):
        writer.write_scalars(1, {"kl": value})
    writer.close()


def test_negative_start_is_refused(tmp_path):
    with pytest.raises(ValueError, match="start_step"):
        JsonLinesWriter(tmp_path / "metrics.jsonl", start_step=-1)


# TensorBoard


def _events(folder):
    """Parse every event file: records of length, checksum, bytes, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            events.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return events


def test_tensorboard_events_read_back(tmp_path):
    from PIL import Image

    writer = TensorBoardWriter(tmp_path)
    writer.write_scalars(5, {"train/kl": 1.5, "beta": jnp.float32(2.0)})
    image = np.zeros((2, 4, 6, 1), np.float32)
    image[1] = 2.0
    writer.write_images(5, {"samples": image, "one": np.full((3, 3, 3), 7, np.uint8)})
    writer.write_hparams({"seed": 0, "optimizer": {"learning_rate": 5e-4}})
    writer.flush()
    writer.close()
    values = {v.tag: (e.step, v) for e in _events(tmp_path) for v in e.summary.value}
    assert values["train/kl"][0] == 5
    assert values["train/kl"][1].simple_value == 1.5
    assert values["beta"][1].simple_value == 2.0

    def pixels(tag):
        return np.asarray(Image.open(io.BytesIO(values[tag][1].image.encoded_image_string)))

    assert pixels("samples/0").shape[:2] == (4, 6)
    assert pixels("samples/0").max() == 0
    assert pixels("samples/1").min() == 255
    assert np.array_equal(pixels("one"), np.full((3, 3, 3), 7))
    text = next(value for tag, (_, value) in values.items() if tag.startswith("hparams"))
    assert b"optimizer.learning_rate | `0.0005`" in text.tensor.string_val[0]


def test_tensorboard_hides_steps_after_a_resume(tmp_path):
    from tensorboardX.proto.event_pb2 import SessionLog

    for start, steps in ((0, (10, 20, 30)), (20, (30,))):
        writer = TensorBoardWriter(tmp_path, start_step=start)
        for step in steps:
            writer.write_scalars(step, {"loss": 1.0})
        writer.close()
    starts = [e.step for e in _events(tmp_path) if e.session_log.status == SessionLog.START]
    assert starts == [21]


def test_a_writer_that_writes_nothing_leaves_no_event_file(tmp_path):
    writer = create_default_writer(tmp_path)
    writer.flush()
    writer.close()
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
    assert read_metrics(tmp_path) == []


def test_tensorboard_leaves_out_what_is_not_finite(tmp_path, caplog, capfd):
    writer = TensorBoardWriter(tmp_path)
    writer.write_scalars(1, {"a": float("nan"), "b": np.float32("inf"), "c": 1.0})
    writer.close()
    tags = {v.tag for event in _events(tmp_path) for v in event.summary.value}
    assert tags == {"c"}
    assert "NaN" not in caplog.text + "".join(capfd.readouterr())
    with pytest.raises(ValueError, match="is closed"):
        writer.write_scalars(2, {"c": 1.0})


def test_odd_images_are_refused(tmp_path):
    writer = TensorBoardWriter(tmp_path)
    with pytest.raises(ValueError, match="images\\['x'\\]"):
        writer.write_images(1, {"x": np.zeros((4, 4))})
    writer.close()


def test_default_writer_fills_the_run_folder(tmp_path):
    writer = create_default_writer(tmp_path / "run", start_step=0)
    assert isinstance(writer, MultiWriter)
    writer.write_hparams({"seed": 1})
    writer.write_scalars(3, {"train/loss": jnp.float32(1.5)})
    writer.write_images(3, {"x": np.zeros((1, 2, 2, 3))})
    writer.flush()
    writer.close()
    assert read_metrics(tmp_path / "run") == [{"step": 3, "train/loss": 1.5}]
    tags = {v.tag for e in _events(tmp_path / "run" / "tensorboard") for v in e.summary.value}
    assert {"train/loss", "x/0"} <= tags


# Progress


class _Terminal(io.StringIO):
    def isatty(self):
        return True


class _Clock:
    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(av_logging.time, "monotonic", lambda: self.now)


METRICS = {
    "train/loss": 12.34,
    "train/reconstruction": 10.4,
    "train/kl": 1.918,
    "null_kl": -0.241,
    "train/mmd": 0.5,
    "train/tail_share": 0.0123,
    "beta": 4.5,
    "images_per_second": 8123.4,
    "validation/mse": 0.01,
}
LINE = (
    "KL 1.92 (null -0.24)  recon 10.4  loss 12.3  mmd 0.500  tail 1.2%  beta 4.50  8,123 images/s"
)


def test_metrics_line():
    assert format_metrics(METRICS) == LINE
    assert format_metrics({}) == ""
    assert format_metrics({"kl": float("nan")}) == "KL nan"
    seen = {"train/kl": 0.07, "train/reconstruction": 0.373, "null_kl": -0.18}
    seen |= {"validation/kl": 0.31, "validation/reconstruction": jnp.float32(1.03)}
    expected = "KL 0.07, validation 0.31 (null -0.18)  recon 0.373, validation 1.03"
    assert format_metrics(seen) == expected


def test_plain_lines_come_now_and_then(monkeypatch):
    clock, stream = _Clock(monkeypatch), io.StringIO()
    progress = Progress(100, steps_per_epoch=10, stream=stream)
    for step in range(1, 101):
        clock.now += 0.5
        progress.update(step, METRICS)
    progress.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0] == f"epoch  1/10  step 10/100  {LINE}  0:45 left"
    assert lines[-1].endswith("done in 0:50")


def test_short_epochs_do_not_flood_and_long_ones_are_not_silent(monkeypatch):
    clock = _Clock(monkeypatch)
    counts = []
    for seconds, steps_per_epoch in ((0.1, 1), (1.0, 1000)):
        stream = io.StringIO()
        progress = Progress(100, steps_per_epoch=steps_per_epoch, stream=stream)
        for step in range(1, 101):
            clock.now += seconds
            progress.update(step)
        counts.append(len(stream.getvalue().splitlines()))
    assert counts == [5, 5]


def test_resumed_run_estimates_from_its_own_steps(monkeypatch):
    clock, stream = _Clock(monkeypatch), io.StringIO()
    progress = Progress(1000, initial=900, steps_per_epoch=50, stream=stream)
    for step in (910, 925, 940):
        clock.now += 15.0
        progress.update(step)
    assert stream.getvalue().splitlines() == [
        "epoch 19/20  step 925/1000  1:15 left",
    ]


@pytest.mark.parametrize("pause", [0.0, 40.0])
def test_compilation_does_not_count_in_the_time_left(monkeypatch, pause):
    clock, stream = _Clock(monkeypatch), io.StringIO()
    progress = Progress(10_000, steps_per_epoch=100, stream=stream)
    # Compiling takes as long as the run; so does compiling validation, after the first epoch.
    clock.now += 100.0
    progress.update(1)
    assert stream.getvalue() == "epoch   1/100  step 1/10000\n"
    for step in range(2, 3001):
        clock.now += 0.01 + (pause if step == 101 else 0.0)
        progress.update(step)
    line = stream.getvalue().splitlines()[-1]
    left = line.split("  ")[-1].removesuffix(" left")
    minutes, seconds = map(int, left.split(":"))
    step = int(line.split("step ")[1].split("/")[0])
    assert step > 2000
    assert 60 * minutes + seconds == pytest.approx(0.01 * (10_000 - step), abs=1)


def test_time_left_follows_a_change_of_pace(monkeypatch):
    clock, stream = _Clock(monkeypatch), _Terminal()
    progress = Progress(100_000, steps_per_epoch=100_000, stream=stream)
    for step in range(1, 2001):
        clock.now += 0.01 if step <= 1000 else 0.1
        progress.update(step)
    left = stream.getvalue().split("epoch")[-1].split(" left")[0].split()[-1]
    hours, minutes, seconds = map(int, left.split(":"))
    assert 3600 * hours + 60 * minutes + seconds == pytest.approx(98_000 * 0.1, rel=0.05)
    progress.close()


def test_speed_is_smoothed(monkeypatch):
    clock, stream = _Clock(monkeypatch), _Terminal()
    progress = Progress(10_000, steps_per_epoch=1, stream=stream)
    shown = []
    for step in range(1, 201):
        clock.now += 0.5
        # The first two dispatches wait for the compiler.
        speed = 3.0 if step <= 2 else (500.0 if step % 2 else 1500.0)
        progress.update(step, {"images_per_second": speed})
        line = stream.getvalue().split("epoch")[-1]
        shown.append(float(line.split(" images/s")[0].split()[-1].replace(",", "")))
    assert shown[0] == 3
    assert np.ptp(shown[100:]) < 60
    assert np.mean(shown[-50:]) == pytest.approx(1000, rel=0.02)
    progress.close()


def test_bar_on_a_terminal():
    stream = _Terminal()
    with Progress(20, steps_per_epoch=10, stream=stream) as progress:
        progress.update(1, METRICS)
        progress.note("a note")
        progress.update(20, METRICS)
        progress.close()
    text = stream.getvalue()
    assert "epoch 1/2" in text
    assert "epoch 2/2" in text
    assert "KL 1.92 (null -0.24)" in text
    assert "a note\n" in text
    assert "0:00 left  KL 1.92 (null -0.24)  recon 10.4  loss 12.3" in text
    assert text.endswith("\n")


def test_bar_of_eighty_columns_has_the_kl_and_its_null(monkeypatch):
    clock, stream = _Clock(monkeypatch), _Terminal()
    size = av_logging.os.terminal_size((80, 24))
    monkeypatch.setattr(av_logging.os, "get_terminal_size", lambda *_: size)
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda _: (80, 24))
    stream.fileno = lambda: 2
    seen = METRICS | {"validation/kl": 0.31, "validation/reconstruction": 1.03}
    progress = Progress(120_000, steps_per_epoch=120, stream=stream)
    for step in range(1, 1001):
        clock.now += 0.1
        progress.update(step, seen)
    # tqdm moves the cursor behind the line.
    line = stream.getvalue().split("\r")[-1].removesuffix("\x1b[A")
    assert len(line) <= 80
    assert "3:18:20 left  KL 1.92, validation 0.31 (null -0.24)" in line
    progress.close()


@pytest.mark.parametrize("size", [(0, 0), (60, 0)])
def test_bar_on_a_terminal_without_a_size(monkeypatch, size):
    terminal = av_logging.os.terminal_size(size)
    monkeypatch.setattr(av_logging.os, "get_terminal_size", lambda *_: terminal)
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda _: (size[0] - 1, -1))
    stream = _Terminal()
    stream.fileno = lambda: 2
    # tqdm asks for the size of the standard streams alone.
    monkeypatch.setattr(av_logging.sys, "stderr", stream)
    with Progress(20, steps_per_epoch=10) as progress:
        progress.update(20, METRICS)
    line = stream.getvalue().split("\r")[-1].rstrip("\n")
    assert line.startswith("epoch 2/2")
    assert len(line) == (size[0] or 80)


def test_bad_counts_are_named():
    with pytest.raises(ValueError, match="steps_per_epoch"):
        Progress(10, steps_per_epoch=0)
    with pytest.raises(ValueError, match="initial"):
        Progress(10, initial=11)


# Summary


def test_summary_pairs_values_with_their_nulls(capsys):
    summary = {
        "images": 1437,
        "reconstruction": {"mse": 0.0103, "mse_null": 0.0675, "psnr": 19.9},
        "entropy": {"entropy": 8.7, "null": 8.81, "cap": 12.06, "tail_share": 0.17},
        "std": [0.95, 0.81],
        "kl": (1.92, None),
        "run": "runs/digits-with-a-long-name",
        "score": float("inf"),
    }
    print_summary(summary)
    text = capsys.readouterr().out
    header, _, *lines, note = text.splitlines()
    assert header.split() == ["quantity", "value", "null"]
    assert note == "null: what as many draws of the prior, or a constant decoder, would give"
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows == {
        "images": ["1,437"],
        "reconstruction": [],
        "mse": ["0.0103", "0.0675"],
        "psnr": ["19.9"],
        "entropy": ["8.70", "8.81"],
        "cap": ["12.1"],
        "tail_share": ["0.170"],
        "std": ["0.950", "0.810"],
        "kl": ["1.92", "-"],
        "run": ["runs/digits-with-a-long-name"],
        "score": ["inf"],
    }
    assert text == format_summary(summary) + "\n"
    assert format_summary(json.loads(json.dumps(summary))) == format_summary(summary)


def test_summary_without_nulls_has_no_column_for_them():
    assert format_summary({"seconds": 3.0}) == "quantity  value\n---------------\nseconds    3.00"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (1e-6, "1.00e-06"), (999.7, "1,000"), (123.4, "123"), (-0.5, "-0.500")],
)
def test_numbers_have_three_digits(value, text):
    assert format_summary({"x": value}).split()[-1] == text
