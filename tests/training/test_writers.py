"""What a run writes down: rows that survive a kill, and TensorBoard events."""

import io
import json
import struct

import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax.training import writers
from avae_jax.training.writers import (
    JsonLinesWriter,
    MultiWriter,
    TensorBoardWriter,
    create_default_writer,
    read_metrics,
    strict_json,
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

    open_file = writers.Path.open

    def open_to_read(path, mode="r", *args, **kwargs):
        assert mode == "rb", "the file is opened to be written"
        return open_file(path, mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(writers.Path, "open", open_to_read)
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

    monkeypatch.setattr("avae_jax.files.os.replace", fail)
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


# Summaries


def test_a_summary_is_strict_json():
    summary = {
        "run": {"kl": np.float32(0.5), "steps": np.int64(3), "beta": float("inf")},
        "values": [float("nan"), (1, True)],
        "name": "digits",
    }
    text = strict_json(summary)
    assert json.loads(text, parse_constant=pytest.fail) == {
        "run": {"kl": 0.5, "steps": 3, "beta": None},
        "values": [None, [1, True]],
        "name": "digits",
    }
