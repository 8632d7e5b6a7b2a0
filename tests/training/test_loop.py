"""Whole runs: what they leave, how they resume, and what they refuse."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import avae_jax as av
from avae_jax.training import config as cfg
from avae_jax.training import loop, report
from avae_jax.training.checkpoint import CheckpointError, Checkpoints
from avae_jax.training.logging import read_metrics


@pytest.fixture(scope="module")
def finished(blobs, small_config, tmp_path_factory) -> Path:
    """A finished run of four epochs with its report."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    config = cfg.replace_fields(small_config, num_epochs=4)
    loop.train(config, folder, dataset=blobs)
    report.write_report(folder, dataset=blobs)
    return folder


def parameters(folder, which="latest"):
    run = av.load_run(folder, which=which)
    return [*jax.tree.leaves(run.variables), run.centers, run.beta, run.step]


def assert_same_bits(first, second):
    for a, b in zip(parameters(first), parameters(second), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_a_run_folder_holds_everything(finished):
    names = {path.name for path in finished.iterdir()}
    assert names >= {
        "config.json", "facts.json", "splits.npz", "bandwidth.json", "metrics.jsonl",
        "summary.json", "codes.npz", "checkpoints", "figures", "tensorboard",
    }  # fmt: skip
    figures = {path.name for path in (finished / "figures").iterdir()}
    assert figures == {
        "reconstructions.png", "samples.png", "latent_scatter.png", "radius.png",
        "covariance.png", "training_curves.png",
    }  # fmt: skip
    assert any((finished / "tensorboard").iterdir())
    rows = read_metrics(finished)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    wanted = {
        "train/loss", "train/kl", "train/tail_share", "train/staleness", "validation/score",
        "null_kl", "beta", "learning_rate", "images_per_second",
    }  # fmt: skip
    assert wanted <= rows[0].keys()


def test_the_summary_is_measured_on_the_test_split(finished, blobs):
    summary = json.loads((finished / "summary.json").read_text())
    run = av.load_run(finished)
    x = blobs.images[blobs.splits.test]
    error = (run.reconstruct(x).astype(np.float64) - x / 255.0) ** 2
    reported = summary["reconstruction"]
    assert reported["mse"] == pytest.approx(error.mean(), rel=1e-5)
    assert reported["sse"] == pytest.approx(error.sum(axis=(1, 2, 3)).mean(), rel=1e-5)
    z = run.encode(x).astype(np.float64)
    codes = summary["codes"]
    eigenvalues = np.linalg.eigvalsh(np.cov(z, rowvar=False))
    assert codes["eig_max"] == pytest.approx(eigenvalues[-1], rel=1e-5)
    assert codes["kde_kl_null"] == run.bandwidth.null_kl
    scales = summary["scale"]
    train = run.encode(blobs.images[blobs.splits.train]).astype(np.float64)
    assert scales["measured"] == pytest.approx(np.sqrt((train**2).mean()), rel=1e-2)
    assert scales["claimed"] == pytest.approx(np.sqrt(1 - run.bandwidth.h_corr**2))


def test_a_loaded_run_encodes_decodes_and_samples(finished, blobs):
    run = av.load_run(finished)
    assert run.config.experiment == "blobs"
    assert set(run.params) == {"encoder", "decoder"}
    z = run.encode(blobs.images[:300])
    assert z.shape == (300, 3)
    # One image at a time gives the same codes: nothing depends on its neighbours.
    np.testing.assert_allclose(run.encode(blobs.images[7:8])[0], z[7], rtol=1e-4, atol=1e-5)
    assert run.decode(z[:5]).shape == (5, 8, 8, 1)
    for scale in ("claimed", "fixed_point", "measured", "covariance", 0.5):
        x = run.sample(9, scale=scale, seed=3)
        assert x.shape == (9, 8, 8, 1)
        assert 0 <= x.min() <= x.max() <= 1
    noise = np.random.default_rng(3).standard_normal((9, 3)).astype(np.float32)
    np.testing.assert_allclose(
        run.sample(9, seed=3), run.decode(noise * np.float32(run.bandwidth.prior_scale)), atol=1e-5
    )
    with pytest.raises(ValueError, match="this model takes"):
        run.encode(blobs.images[:, :4])
    with pytest.raises(ValueError, match="this model takes"):
        run.decode(z[:, :2])
    with pytest.raises(ValueError, match="scale='prior' is not one of"):
        run.sample(1, scale="prior")
    with pytest.raises(ValueError, match="num_samples=0"):
        run.sample(0)


def test_the_best_checkpoint_is_the_lowest_score(finished):
    scores = {row["step"]: row["validation/score"] for row in read_metrics(finished)}
    best = av.load_run(finished, which="best").step
    assert scores[best] == min(scores.values())
    assert av.load_run(finished, which="latest").step == max(scores)
    with pytest.raises(ValueError, match="which='last'"):
        av.load_run(finished, which="last")


def test_continuing_gives_the_same_bits(finished, blobs, small_config, tmp_path):
    two = cfg.replace_fields(small_config, num_epochs=2)
    four = cfg.replace_fields(small_config, num_epochs=4)
    loop.train(two, tmp_path / "run", dataset=blobs)
    loop.train(four, tmp_path / "run", dataset=blobs)
    assert_same_bits(tmp_path / "run", finished)
    assert [row["epoch"] for row in read_metrics(tmp_path / "run")] == [1, 2, 3, 4]


def test_an_interrupt_inside_an_epoch_loses_nothing(
    finished, blobs, small_config, tmp_path, monkeypatch
):
    config = cfg.replace_fields(small_config, num_epochs=4)
    original, calls = loop.Trainer.advance, []

    def advance(self, *arguments):
        calls.append(None)
        if len(calls) == 6:  # The second step of the second epoch.
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments)

    monkeypatch.setattr(loop.Trainer, "advance", advance)
    with pytest.raises(loop.Interrupted, match="6"):
        loop.train(config, tmp_path / "run", dataset=blobs)
    monkeypatch.setattr(loop.Trainer, "advance", original)
    assert av.load_run(tmp_path / "run", which="latest").step == 6
    loop.train(config, tmp_path / "run", dataset=blobs)
    assert_same_bits(tmp_path / "run", finished)


@pytest.mark.slow
def test_kill_and_resume_through_the_command_line(tmp_path):
    """Kill -9 after the second epoch, resume: the same bits as ten epochs straight."""
    options = ["--num-epochs", "10", "--num-centers", "200", "--batch-size", "96"]
    command = [sys.executable, "-m", "avae_jax", "train", "digits", *options, "--run-dir"]
    subprocess.run([*command, tmp_path / "straight"], check=True, capture_output=True)
    killed = subprocess.Popen([*command, tmp_path / "killed"], stderr=subprocess.DEVNULL)
    metrics = tmp_path / "killed" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while killed.poll() is None and time.monotonic() < deadline:
        if metrics.exists() and metrics.read_text().count("\n") >= 2:
            killed.kill()
        time.sleep(0.002)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "summary.json").exists()
    resumed = subprocess.run(
        [*command, tmp_path / "killed"], check=True, capture_output=True, text=True
    )
    assert "resuming" in resumed.stderr
    assert_same_bits(tmp_path / "killed", tmp_path / "straight")
    epochs = [row["epoch"] for row in read_metrics(tmp_path / "killed")]
    assert epochs == list(range(1, 11))


def test_another_configuration_is_refused(finished, blobs, small_config):
    before = (finished / "config.json").read_text()
    changed = cfg.replace_fields(small_config, latent_dim=4)
    with pytest.raises(cfg.ConfigError, match=r"another configuration \(latent_dim: 3 -> 4\)"):
        loop.train(changed, finished, dataset=blobs)
    assert (finished / "config.json").read_text() == before


def test_other_data_is_refused(finished, blobs, small_config):
    import dataclasses

    from avae_jax.data import Splits

    splits = blobs.splits
    moved = Splits(splits.train[1:], splits.validation, splits.test)
    with pytest.raises(cfg.ConfigError, match="the train split differs"):
        loop.train(
            cfg.replace_fields(small_config, num_epochs=4),
            finished,
            dataset=dataclasses.replace(blobs, splits=moved),
        )


def test_folders_that_are_no_run(blobs, small_config, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(cfg.ConfigError, match="not empty and no run folder"):
        loop.train(small_config, tmp_path, dataset=blobs)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(cfg.ConfigError, match="is a file"):
        loop.train(small_config, tmp_path / "notes.txt", dataset=blobs)
    with pytest.raises(cfg.ConfigError, match="cannot be made"):
        loop.train(small_config, tmp_path / "notes.txt" / "run", dataset=blobs)
    with pytest.raises(ValueError, match="is not a run folder"):
        av.load_run(tmp_path)
    with pytest.raises(ValueError, match="there is no such folder"):
        av.load_run(tmp_path / "none")


def damage(folder: Path, step: int, how: str) -> None:
    files = sorted(
        (path for path in (folder / "checkpoints" / str(step) / "state").rglob("*")
         if path.is_file() and "/d/" in str(path)),
        key=lambda path: path.stat().st_size,
    )  # fmt: skip
    content = bytearray(files[-1].read_bytes())
    if how == "truncated":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 0xFF
    files[-1].write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "edited"])
def test_a_damaged_checkpoint_falls_back_and_says_so(
    how, finished, blobs, small_config, tmp_path, capfd
):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    last = av.load_run(folder, which="latest").step
    damage(folder, last, how)
    said = []
    run = av.load_run(folder, which="latest", say=said.append)
    assert run.step < last
    assert f"checkpoint of step {last}" in said[0]
    loop.train(cfg.replace_fields(small_config, num_epochs=4), folder, dataset=blobs)
    assert f"checkpoint of step {last}" in capfd.readouterr().err
    assert_same_bits(folder, finished)


def test_no_readable_checkpoint_at_all(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for step in (folder / "checkpoints").iterdir():
        if step.name.isdigit():
            damage(folder, int(step.name), "truncated")
    with pytest.raises(CheckpointError, match="no readable checkpoint among steps"):
        av.load_run(folder, say=lambda message: None)
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(CheckpointError, match="holds no checkpoint yet"):
        av.load_run(folder)


def test_hand_edited_parameters_are_noticed(finished, blobs, small_config, tmp_path):
    """A checkpoint whose arrays were replaced by valid others is not trusted."""
    session_target = None
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    trainer = loop.Trainer(
        loop.open_session(cfg.replace_fields(small_config, num_epochs=4), dataset=blobs)
    )
    session_target = trainer.target()
    checkpoints = Checkpoints(folder / "checkpoints")
    state, meta = checkpoints.restore(session_target)
    import orbax.checkpoint as ocp

    from avae_jax.training.checkpoint import _flatten

    leaves = _flatten(state)
    leaves["beta"] = leaves["beta"] * 2
    step = meta["step"] + 1
    checkpoints._manager.save(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(leaves), meta=ocp.args.JsonSave({**meta, "step": step})
        ),
        metrics={"score": 0.0},
    )
    checkpoints.wait()
    said = []
    _, found = checkpoints.restore(session_target, say=said.append)
    checkpoints.close()
    assert found["step"] == meta["step"]
    assert "checksum" in said[0]


def test_a_score_that_is_not_finite_keeps_the_best(blobs, small_config, tmp_path):
    trainer = loop.Trainer(loop.open_session(small_config, dataset=blobs))
    state = trainer.init()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    import dataclasses

    for step, score in enumerate([2.0, 1.0, float("nan"), 3.0, None, 4.0]):
        moved = dataclasses.replace(state, step=state.step + step)
        checkpoints.save(moved, score=score, info={})
    checkpoints.wait()
    assert checkpoints.restore(trainer.target(), which="best")[1]["step"] == 1
    assert checkpoints.restore(trainer.target())[1]["step"] == 5
    kept = {int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()}
    assert kept == {1, 4, 5}
    checkpoints.close()


def test_a_run_that_cannot_go_on_says_why(blobs, small_config, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "MAX_SKIPPED_IN_A_ROW", 3)
    config = cfg.replace_fields(small_config, learning_rate=1e30, num_epochs=3)
    with pytest.raises(
        loop.TrainingError, match="not finite: .*gradient.*lower learning_rate or set clip_norm"
    ):
        loop.train(config, tmp_path / "run", dataset=blobs)


def test_codes_that_run_away_are_reported(blobs, small_config, tmp_path, monkeypatch, capfd):
    config = cfg.replace_fields(small_config, num_epochs=1)
    original = loop.Trainer.validate

    def validate(self, state):
        return {**original(self, state), "kl": -100.0}

    loop.train(config, tmp_path / "honest", dataset=blobs)
    assert "run away" not in capfd.readouterr().err
    monkeypatch.setattr(loop.Trainer, "validate", validate)
    loop.train(config, tmp_path / "runaway", dataset=blobs)
    assert "the codes have run away" in capfd.readouterr().err


@pytest.mark.parametrize("fields", [
    {"method": "vae"},
    {"method": "ae"},
    {"refresh": "reencode", "refresh_every": 3, "centers_mode": "eval", "norm": "batch"},
    {"centers_mode": "eval", "norm": "batch", "ema_decay": 0.9},
    {"likelihood": "bernoulli"},
])  # fmt: skip
def test_other_methods_run_report_and_resume(fields, blobs, small_config, tmp_path):
    config = cfg.replace_fields(small_config, num_epochs=1, **fields)
    loop.train(config, tmp_path / "a", dataset=blobs)
    loop.train(cfg.replace_fields(config, num_epochs=2), tmp_path / "a", dataset=blobs)
    loop.train(cfg.replace_fields(config, num_epochs=2), tmp_path / "b", dataset=blobs)
    for a, b in zip(
        jax.tree.leaves(av.load_run(tmp_path / "a", which="latest").variables),
        jax.tree.leaves(av.load_run(tmp_path / "b", which="latest").variables),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    summary = report.write_report(tmp_path / "a", dataset=blobs)
    assert np.isfinite(summary["reconstruction"]["mse"])
    x = av.load_run(tmp_path / "a").sample(4)
    assert 0 <= x.min() <= x.max() <= 1
