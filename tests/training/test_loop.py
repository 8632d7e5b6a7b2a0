"""Whole runs: what they leave, how they resume, and what they refuse."""

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

import avae_jax as av
from avae_jax.evaluation import evaluate_run
from avae_jax.training import config as cfg
from avae_jax.training import loop
from avae_jax.training.checkpoint import CheckpointError, Checkpoints
from avae_jax.training.run import run_data
from avae_jax.training.run_folder import check_run_dir, hold_run_dir
from avae_jax.training.writers import read_metrics


@pytest.fixture(scope="module")
def finished(blobs, small_config, tmp_path_factory) -> Path:
    """A finished run of four epochs with its summary."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    config = cfg.replace_fields(small_config, num_epochs=4)
    loop.train(config, folder, dataset=blobs)
    evaluate_run(folder, quick=True, dataset=blobs)
    return folder


def last_state(folder):
    """Return all arrays of a run's last checkpoint, by item and name, read without our reader."""
    with contextlib.closing(ocp.CheckpointManager(folder / "checkpoints")) as manager:
        items = {name: ocp.args.StandardRestore() for name in ("model", "training")}
        restored = manager.restore(manager.latest_step(), args=ocp.args.Composite(**items))
    return {f"{item}/{name}": leaf for item in items for name, leaf in restored[item].items()}


def assert_same_bits(first, second):
    a, b = last_state(first), last_state(second)
    assert set(a) == set(b)
    # The weights, how the optimizer stands and how far the run is are among them.
    assert "training/step" in a
    assert any(name.startswith("model/params/decoder") for name in a)
    assert any(name.startswith("training/opt_state") for name in a)
    for name, leaf in a.items():
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf, b[name] = jax.random.key_data(leaf), jax.random.key_data(b[name])
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(b[name]), err_msg=name)


def test_a_run_folder_holds_everything(finished):
    names = {path.name for path in finished.iterdir()}
    assert names >= {
        "config.json", "facts.json", "splits.npz", "metrics.jsonl", "summary.json",
        "codes.npz", "checkpoints", "figures", "tensorboard",
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
        "train/loss", "train/kl", "train/tail_share", "train/staleness", "validation/criterion",
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
    latent = summary["latent"]
    eigenvalues = np.linalg.eigvalsh(np.cov(z, rowvar=False))
    codes = latent["moments_against_standard_normal"]
    assert codes["eig_max"] == pytest.approx(eigenvalues[-1], rel=1e-5)
    claimed = np.sqrt(1 - run.method.bandwidth.h_corr**2)
    assert latent["prior_std"] == pytest.approx(claimed)
    # Beside it, in units of the prior.
    assert latent["moments"]["eig_max"] == pytest.approx(eigenvalues[-1] / claimed**2, rel=1e-5)
    train = run.encode(blobs.images[blobs.splits.train]).astype(np.float64)
    # One spread: the mean variance about the mean, wherever that lies.
    spread = np.sqrt(train.var(axis=0, ddof=1).mean())
    measured = run.prior("measured")
    assert measured.std() == pytest.approx(spread, rel=1e-5)
    np.testing.assert_allclose(measured.loc, train.mean(axis=0), rtol=1e-4, atol=1e-5)
    assert run.prior("covariance").std() == pytest.approx(spread, rel=1e-5)
    own = latent["moments_against_standard_normal"]["std"]
    assert own == pytest.approx(np.sqrt(z.var(axis=0, ddof=1).mean()), rel=1e-5)
    assert own == pytest.approx(latent["moments"]["std"] * latent["prior_std"], rel=1e-5)


def test_the_summary_says_how_training_ended(finished):
    training = json.loads((finished / "summary.json").read_text())["training"]
    last = read_metrics(finished)[-1]
    assert training["epochs"] == 4
    assert training["skipped_steps"] == 0
    assert training["validation"]["kl"] == last["validation/kl"]
    assert training["train"]["kl_null"] == training["validation"]["kl_null"] == last["null_kl"]
    reported = {name for name in last if "/" not in name} - {"null_kl", "epoch", "num_skipped"}
    assert {name for name, value in training.items() if not isinstance(value, dict)} == (
        reported - {"step"} | {"epochs", "steps", "skipped_steps"}
    )


def test_images_reach_tensorboard_once_per_checkpoint(finished, blobs):
    def count():
        data = b"".join(path.read_bytes() for path in (finished / "tensorboard").iterdir())
        # The signature that each picture begins with.
        return data.count(b"\x89PNG\r\n")

    first = count()
    assert first
    evaluate_run(finished, quick=True, dataset=blobs)
    assert count() == first
    # A summary of another checkpoint is no reason to leave them out.
    stored = json.loads((finished / "summary.json").read_text())
    stored["about"]["checkpoint_step"] -= 1
    (finished / "summary.json").write_text(json.dumps(stored))
    evaluate_run(finished, quick=True, dataset=blobs)
    assert count() == 2 * first


def test_a_loaded_run_encodes_decodes_and_samples(finished, blobs):
    run = av.load_run(finished)
    assert run.config.experiment == "blobs"
    assert set(run.params) == {"encoder", "decoder", "prior", "likelihood"}
    z = run.encode(blobs.images[:300])
    assert z.shape == (300, 3)
    # One image at a time gives the same codes: nothing depends on its neighbours.
    np.testing.assert_allclose(run.encode(blobs.images[7:8])[0], z[7], rtol=1e-4, atol=1e-5)
    assert run.decode(z[:5]).shape == (5, 8, 8, 1)
    for scale in ("claimed", "fixed_point", "measured", "covariance", 0.5):
        x = run.sample(9, scale=scale, seed=3)
        assert x.shape == (9, 8, 8, 1)
        assert 0 <= x.min() <= x.max() <= 1
    z = run.prior().sample(jax.random.key(3), 9)
    np.testing.assert_array_equal(run.sample(9, seed=3), run.decode(z))
    assert run.prior().std() == pytest.approx(run.method.bandwidth.prior_scale)
    z = np.asarray(run.prior("measured").sample(jax.random.key(0), 20_000))
    spread = np.sqrt(z.var(axis=0).mean())
    assert spread == pytest.approx(run.prior("measured").std(), rel=5 / np.sqrt(2 * z.size))
    with pytest.raises(ValueError, match="this model takes"):
        run.encode(blobs.images[:, :4])
    with pytest.raises(ValueError, match="this model takes"):
        run.decode(z[:, :2])
    with pytest.raises(ValueError, match="scale must be claimed, .* got 'prior'"):
        run.sample(1, scale="prior")
    with pytest.raises(ValueError, match="num_samples=0"):
        run.sample(0)


def test_the_best_checkpoint_has_the_lowest_criterion(finished):
    scores = {row["step"]: row["validation/criterion"] for row in read_metrics(finished)}
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
    # The means of the interrupted epoch cover the whole of it.
    for one, other in zip(read_metrics(tmp_path / "run"), read_metrics(finished), strict=True):
        assert one.pop("images_per_second") > 0 < other.pop("images_per_second")
        assert one == other


def test_a_crash_loses_no_more_than_the_time_between_checkpoints(
    finished, blobs, small_config, tmp_path, monkeypatch
):
    config = cfg.replace_fields(small_config, num_epochs=4, checkpoint_every=1e-9)
    original, calls = loop.Trainer.advance, []

    def advance(self, *arguments):
        calls.append(None)
        if len(calls) == 7:  # The third step of the second epoch.
            raise MemoryError
        return original(self, *arguments)

    monkeypatch.setattr(loop.Trainer, "advance", advance)
    with pytest.raises(MemoryError):
        loop.train(config, tmp_path / "run", dataset=blobs)
    monkeypatch.undo()
    assert av.load_run(tmp_path / "run", which="latest").step == 6
    loop.train(cfg.replace_fields(config, checkpoint_every=None), tmp_path / "run", dataset=blobs)
    assert_same_bits(tmp_path / "run", finished)


def test_training_stops_when_the_validation_stops_improving(
    blobs, small_config, tmp_path, monkeypatch, capfd
):
    original = loop.Trainer.finish_epoch

    def finish_epoch(self, state):
        state, terms = original(self, state)
        return state, {**terms, "criterion": 1.0 if int(state.step) == 8 else 2.0}

    monkeypatch.setattr(loop.Trainer, "finish_epoch", finish_epoch)
    config = cfg.replace_fields(small_config, num_epochs=20, patience=3, validate_every=2)
    for patience, last, message in (
        (3, 6, "stopped after epoch 6: no epoch since 2 had a lower validation criterion"),
        (3, 6, "was stopped early at step 24; train on with a larger --patience"),
        (5, 8, "stopped after epoch 8: no epoch since 2"),
    ):
        config = cfg.replace_fields(config, patience=patience)
        loop.train(config, tmp_path / "run", dataset=blobs)
        rows = read_metrics(tmp_path / "run")
        assert [row["epoch"] for row in rows] == [*range(1, last + 1)]
        assert message in capfd.readouterr().err
    assert [row["epoch"] for row in rows if "validation/criterion" in row] == [2, 4, 6, 8]
    assert av.load_run(tmp_path / "run").step == 8


ENDED_AT = Path(__file__).parent.parent / "ended_at.py"


@pytest.mark.slow
def test_kill_and_resume_through_the_command_line(tmp_path, quick_environment):
    """Kill -9 inside the third epoch, resume: the same bits as five epochs straight."""
    options = ["--num-epochs", "5", "--num-centers", "200", "--batch-size", "96"]
    command = ["train", "digits", *options, "--width", "0.25", "--run-dir"]
    avae = [sys.executable, "-m", "avae_jax"]
    run = functools.partial(subprocess.run, env=quick_environment, capture_output=True)
    run([*avae, *command, tmp_path / "straight"], check=True)
    killed = run([sys.executable, ENDED_AT, "31", "SIGKILL", *command, tmp_path / "killed"])
    assert killed.returncode == -signal.SIGKILL
    assert len(read_metrics(tmp_path / "killed")) == 2
    assert not (tmp_path / "killed" / "summary.json").exists()
    resumed = run([*avae, *command, tmp_path / "killed"], check=True, text=True)
    assert "resuming" in resumed.stderr
    assert_same_bits(tmp_path / "killed", tmp_path / "straight")
    assert [row["epoch"] for row in read_metrics(tmp_path / "killed")] == [1, 2, 3, 4, 5]


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


def test_a_refused_run_keeps_its_files(finished, blobs, small_config):
    """Other images of the same number: nothing of the run is touched."""
    import dataclasses

    before = {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()}
    config = cfg.replace_fields(small_config, num_epochs=4)
    for images in (blobs.images[::-1], np.repeat(blobs.images, 2, axis=1), 255 - blobs.images):
        with pytest.raises(cfg.ConfigError, match="was started on other images"):
            loop.train(config, finished, dataset=dataclasses.replace(blobs, images=images))
    # A finished run that is asked for fewer epochs stays what it is.
    loop.train(small_config, finished, dataset=blobs)
    after = {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()}
    assert after == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: "{", "is not a whole run folder: facts.json"),
        (lambda facts: json.dumps({**facts, "format": 1}), "of format 1.*reads format 2: train"),
        (lambda facts: json.dumps({}), "facts.json: 'image_shape'"),
    ],
)
def test_facts_that_cannot_be_read(change, message, finished, blobs, small_config, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    path = folder / "facts.json"
    path.write_text(change(json.loads(path.read_text())))
    config = cfg.replace_fields(small_config, num_epochs=4)
    for read in (av.load_run, lambda path: loop.train(config, path, dataset=blobs)):
        with pytest.raises(cfg.ConfigError, match=message):
            read(folder)


def test_what_was_found_at_the_start_holds_for_the_whole_run(
    finished, blobs, small_config, tmp_path
):
    """The bandwidth is read back, not searched for again."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    path = folder / "facts.json"
    facts = json.loads(path.read_text())
    facts["method"]["bandwidth"]["h_corr"] = 0.5
    path.write_text(json.dumps(facts))
    assert av.load_run(folder).method.bandwidth.h_corr == 0.5
    assert av.load_run(finished).method.bandwidth.h_corr != 0.5


def test_splits_are_the_runs_own(finished, blobs):
    import dataclasses

    from avae_jax.data import Splits

    run = av.load_run(finished)
    splits = blobs.splits
    redrawn = Splits(splits.test, splits.validation, splits.train)
    got = run_data(run, dataclasses.replace(blobs, splits=redrawn))
    np.testing.assert_array_equal(got.splits.test, splits.test)
    grown = np.concatenate([blobs.images, blobs.images[:60]])
    grown = dataclasses.replace(blobs, images=grown, labels=None)
    with pytest.raises(cfg.ConfigError, match="are not those"):
        run_data(run, grown)


def test_measured_codes_belong_to_their_checkpoint(finished, blobs, small_config, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    loop.train(cfg.replace_fields(small_config, num_epochs=9), folder, dataset=blobs)
    run = av.load_run(folder, which="latest")
    with pytest.raises(ValueError, match="holds measured codes of step"):
        run.sample(2, scale="measured")
    assert run.sample(2).shape == (2, 8, 8, 1)


def test_encoding_refuses_what_was_not_learnt(finished, blobs):
    run = av.load_run(finished)
    for images in (
        blobs.images[:2].astype(np.int32),
        blobs.images[:2].astype(np.float32),
        np.full((2, 8, 8, 1), np.nan, np.float32),
    ):
        with pytest.raises(ValueError, match="images|pixels|values"):
            run.encode(images)


def test_vae_codes_are_draws_of_the_posterior(blobs, small_config, tmp_path):
    config = cfg.replace_fields(small_config, num_epochs=1, method="beta_vae", beta=1000.0)
    loop.train(config, tmp_path / "run", dataset=blobs)
    summary = evaluate_run(tmp_path / "run", quick=True, dataset=blobs)
    run = av.load_run(tmp_path / "run")
    x = blobs.images[blobs.splits.test]
    means, draws = run.encode(x), run.draw_codes(x)
    assert draws.std() > 1.5 * means.std()
    assert summary["latent"]["moments"]["std"] == pytest.approx(
        np.sqrt(np.trace(np.cov(draws.astype(np.float64), rowvar=False)) / 3), rel=1e-4
    )
    np.testing.assert_array_equal(draws, run.draw_codes(x))
    with pytest.raises(ValueError, match="scale must be claimed, measured, .* got 'fixed_point'"):
        run.sample(1, scale="fixed_point")


def test_the_schedule_is_what_is_logged(blobs, small_config, tmp_path):
    config = cfg.replace_fields(small_config, schedule="cosine", num_epochs=2)
    loop.train(config, tmp_path / "run", dataset=blobs)
    rates = [row["learning_rate"] for row in read_metrics(tmp_path / "run")]
    assert rates == pytest.approx([0.5e-3, 0.0], abs=1e-9)


class Quiet:
    """A place that takes whatever a loop has to say."""

    requested = False

    def save(self, state, *, criterion, info):
        pass

    def write_scalars(self, step, scalars):
        pass

    def update(self, step, metrics=None):
        pass

    def note(self, text):
        pass


def test_reencode_refreshes_alike_however_steps_are_dispatched(blobs, small_config):
    """Five steps an epoch, refreshed every second: counted from each epoch's start."""
    config = cfg.replace_fields(
        small_config, batch_size=56, refresh="reencode", refresh_every=2, num_epochs=2
    )
    found = []
    for steps in (1, 2):
        trainer = loop.Trainer(loop.make_setup(config, dataset=blobs), steps_per_dispatch=steps)
        assert trainer.feed.steps_per_dispatch == steps
        refreshed = []
        original = trainer.with_memory

        def with_memory(state, memory, original=original, refreshed=refreshed):
            if memory is not state.memory:
                refreshed.append(int(memory.bank.encoded_at[0]))
            return original(state, memory)

        state = trainer.init()
        trainer.with_memory = with_memory
        quiet = Quiet()
        for _ in range(2):
            epochs = loop.Loop(trainer, quiet, quiet, quiet, quiet)
            state = epochs.epoch(state, trainer.program.empty_metrics)
            refreshed.pop()  # The end of an epoch gives the memory its new beta.
        found.append(refreshed)
    assert found[0] == found[1] == [0, 2, 4, 5, 7, 9]


def test_several_processes_are_refused(blobs, small_config, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(cfg.ConfigError, match="2 processes"):
        loop.make_setup(small_config, dataset=blobs)


def test_folders_that_are_no_run(blobs, small_config, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(cfg.ConfigError, match="not empty and no run folder"):
        loop.train(small_config, tmp_path, dataset=blobs)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ValueError, match="is a file"):
        loop.train(small_config, tmp_path / "notes.txt", dataset=blobs)
    with pytest.raises(ValueError, match="is a file|no write permission"):
        loop.train(small_config, tmp_path / "notes.txt" / "run", dataset=blobs)
    with pytest.raises(ValueError, match="is not a run folder"):
        av.load_run(tmp_path)
    with pytest.raises(ValueError, match="there is no such folder"):
        av.load_run(tmp_path / "none")


def test_one_process_at_a_time_trains_in_a_folder(finished, blobs, small_config):
    config = cfg.replace_fields(small_config, num_epochs=4)
    before = read_metrics(finished)
    with hold_run_dir(finished):
        with pytest.raises(ValueError, match=f"where process {os.getpid()} on .* is at work"):
            loop.train(config, finished, dataset=blobs)
    loop.train(config, finished, dataset=blobs)
    assert read_metrics(finished) == before


def test_a_run_killed_while_its_folder_was_made_begins_again(blobs, small_config, tmp_path):
    for name in ("run.lock", "splits.npz", ".facts.json.0123.tmp"):
        (tmp_path / name).write_text("")
    check_run_dir(small_config, tmp_path)
    (tmp_path / "facts.jsonl").write_text("")
    with pytest.raises(cfg.ConfigError, match="not empty and no run folder"):
        check_run_dir(small_config, tmp_path)


def test_a_full_disk_ends_in_one_line_and_training_goes_on(
    finished, blobs, small_config, tmp_path, monkeypatch
):
    """TensorStore tells the system's error in the middle of a page of text."""
    folder, config = tmp_path / "run", cfg.replace_fields(small_config, num_epochs=4)
    shutil.copytree(finished, folder)
    shutil.rmtree(folder / "checkpoints" / "16")

    def full(self, *arguments, **options):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing [os_error_code='28' more='\n']")

    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "save", full)
        with pytest.raises(loop.TrainingError, match=r"cannot grow \(No space left.*make room"):
            loop.train(config, folder, dataset=blobs)
    loop.train(config, folder, dataset=blobs)
    assert_same_bits(folder, finished)


def test_precision_is_no_damage(finished, blobs, small_config, tmp_path):
    """`jax_enable_x64` decides the dtypes of a state, and a checkpoint outlives it."""
    config = cfg.replace_fields(small_config, num_epochs=4)
    trainer = loop.Trainer(loop.make_setup(config, dataset=blobs))
    wider = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float16, sharding=leaf.sharding)
        if leaf.dtype == jnp.float32 else leaf, trainer.target(),
    )  # fmt: skip
    with contextlib.closing(Checkpoints(finished / "checkpoints", read_only=True)) as stored:
        notes = []
        (as_it_is, _), (cast, _) = (
            stored.restore(target, say=notes.append) for target in (trainer.target(), wider)
        )
    assert notes == []
    codes = cast.memory.bank.codes
    assert codes.dtype == jnp.float16
    np.testing.assert_array_equal(codes, as_it_is.memory.bank.codes.astype(jnp.float16))


WITH_X64 = """
import sys
from avae_jax.evaluation import evaluate_run
from avae_jax.training import config as cfg, loop, run

first, second = sys.argv[1:]
config = run.load_run(first).config
loop.train(cfg.replace_fields(config, num_epochs=2), first)
evaluate_run(first, quick=True)
loop.train(config, second)
"""


@pytest.mark.slow
def test_training_and_reading_with_x64(blobs, small_config, tmp_path, capfd, quick_environment):
    """A run of either precision is resumed, read and evaluated with the other."""
    np.save(tmp_path / "x.npy", blobs.images)
    fields = {"dataset": "array", "data_path": str(tmp_path / "x.npy"), "num_epochs": 1}
    config = cfg.replace_fields(small_config, **fields)
    first, second = tmp_path / "first", tmp_path / "second"
    loop.train(config, first)
    result = subprocess.run(
        [sys.executable, "-c", WITH_X64, first, second],
        env=quick_environment | {"JAX_ENABLE_X64": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    loop.train(cfg.replace_fields(config, num_epochs=2), second)
    evaluate_run(second, quick=True)
    assert "checkpoint of step" not in result.stderr + capfd.readouterr().err
    for folder in (first, second):
        assert [row["epoch"] for row in read_metrics(folder)] == [1, 2]
        assert (folder / "summary.json").is_file()


def test_images_that_moved_are_found_and_remembered(tmp_path, small_config, monkeypatch):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.integers(0, 2, (400, 8, 8), np.uint8))
    monkeypatch.chdir(tmp_path)
    config = cfg.replace_fields(small_config, dataset="array", data_path="x.npy", num_epochs=1)
    loop.train(config, "run")
    # The path is as good from elsewhere.
    monkeypatch.chdir("/")
    run = av.load_run(tmp_path / "run")
    assert run.config.data.data_path == str(tmp_path / "x.npy")
    images = run_data(run).images
    (tmp_path / "moved").mkdir()
    (tmp_path / "x.npy").rename(tmp_path / "moved" / "y.npy")
    with pytest.raises(FileNotFoundError, match=r"does not exist.*--data-path \(data_path in"):
        run_data(run)
    np.save(tmp_path / "x.npy", rng.integers(0, 2, (400, 8, 8), np.uint8))
    with pytest.raises(cfg.ConfigError, match="are not those"):
        run_data(run)
    monkeypatch.setenv("HOME", str(tmp_path))
    moved = av.load_run("~/run", data_path="~/moved/y.npy")
    np.testing.assert_array_equal(run_data(moved).images[:], images[:])
    again = av.load_run(tmp_path / "run")
    np.testing.assert_array_equal(run_data(again).images[:], images[:])
    # Trained on black and white, it takes 0 and 1, bool, and 0 and 255 for the same.
    x = rng.integers(0, 2, (3, 8, 8), np.uint8)
    codes = again.encode(255 * x)
    for same in (x, x.astype(bool), x[..., None]):
        np.testing.assert_array_equal(again.encode(same), codes)


def test_a_model_of_grey_images_takes_dark_ones_as_they_are(finished, blobs):
    x = (blobs.images[:5] > 128).astype(np.uint8)
    run = av.load_run(finished)
    np.testing.assert_array_equal(run.encode(x), run.encode(x.astype(np.float32) / 255))


def test_black_images_are_refused(blobs, small_config, tmp_path):
    import dataclasses

    dark = dataclasses.replace(blobs, images=blobs.images // 128)
    with pytest.raises(ValueError, match="0 and 1 alone: multiply them by 255"):
        loop.train(small_config, tmp_path / "run", dataset=dark)
    # Nothing is left of a run that never began.
    assert list(tmp_path.iterdir()) == []


def damage(folder: Path, step: int, how: str) -> None:
    files = sorted(
        (path for path in (folder / "checkpoints" / str(step) / "model").rglob("*")
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


def test_a_checkpoint_damaged_twice(finished, blobs, small_config, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    config = cfg.replace_fields(small_config, num_epochs=4)
    last = av.load_run(folder, which="latest").step
    for _ in range(2):
        damage(folder, last, "truncated")
        loop.train(config, folder, dataset=blobs)
    assert_same_bits(folder, finished)
    assert (folder / "checkpoints" / f"{last}.damaged-2").is_dir()


@pytest.mark.parametrize("content", ["", '{"crit'])
def test_a_torn_criterion_file(content, finished, blobs, small_config, tmp_path):
    """Orbax reads every criterion before any state: one torn file must not take the run along."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    last = av.load_run(folder, which="latest").step
    (folder / "checkpoints" / str(last) / "metrics" / "metrics").write_text(content)
    assert av.load_run(folder, which="latest").step == last
    loop.train(cfg.replace_fields(small_config, num_epochs=4), folder, dataset=blobs)
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
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    trainer = loop.Trainer(
        loop.make_setup(cfg.replace_fields(small_config, num_epochs=4), dataset=blobs)
    )
    target = trainer.target()
    checkpoints = Checkpoints(folder / "checkpoints")
    state, meta = checkpoints.restore(target)
    from avae_jax.training.checkpoint import _flatten, _items

    items = {name: _flatten(item) for name, item in _items(state).items()}
    items["training"]["memory/beta"] = items["training"]["memory/beta"] * 2
    step = meta["step"] + 1
    checkpoints._manager.save(
        step,
        args=ocp.args.Composite(
            **{name: ocp.args.StandardSave(leaves) for name, leaves in items.items()},
            meta=ocp.args.JsonSave({**meta, "step": step}),
        ),
        metrics={"criterion": 0.0},
    )
    checkpoints.wait()
    said = []
    _, found = checkpoints.restore(target, say=said.append)
    checkpoints.close()
    assert found["step"] == meta["step"]
    assert "checksum" in said[0]


def test_a_criterion_that_is_not_finite_keeps_the_best(blobs, small_config, tmp_path):
    trainer = loop.Trainer(loop.make_setup(small_config, dataset=blobs))
    state = trainer.init()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    import dataclasses

    for step, criterion in enumerate([2.0, 1.0, float("nan"), 3.0, None, 4.0]):
        moved = dataclasses.replace(state, step=state.step + step)
        checkpoints.save(moved, criterion=criterion, info={})
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
        loop.TrainingError, match="not finite: .*gradient.*a lower learning_rate or with clip_norm"
    ):
        loop.train(config, tmp_path / "run", dataset=blobs)


def test_codes_that_run_away_are_reported(blobs, small_config, tmp_path, monkeypatch, capfd):
    config = cfg.replace_fields(small_config, num_epochs=2)
    original, now = loop.Trainer.validate, [0.0]

    def validate(self, *arguments, **options):
        now[0] += 50.0
        return {**original(self, *arguments, **options), "kl": -100.0 - now[0]}

    loop.train(config, tmp_path / "honest", dataset=blobs)
    assert "run away" not in capfd.readouterr().err
    monkeypatch.setattr(loop.Trainer, "validate", validate)
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    loop.train(config, tmp_path / "runaway", dataset=blobs)
    said = capfd.readouterr().err
    assert "the codes have run away" in said
    # The last line is of its own epoch, and a second of validation counts as one of training.
    last = read_metrics(tmp_path / "runaway")[-1]
    assert last["images_per_second"] == 256 / 50
    assert last["validation/kl"] == -250.0
    assert "validation -250 " in said.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("fields", [
    {"method": "vae", "prior": "mixture", "num_components": 3, "labeled": True,
     "likelihood": "learned_gaussian"},
    {"method": "rae", "regularizer": "spectral", "likelihood": "bernoulli"},
    {"method": "factor_vae", "critic_width": 16, "critic_layers": 2, "ema_decay": 0.9},
    {"refresh": "reencode", "refresh_every": 3, "centers_mode": "eval", "prior": "mixture",
     "norm": "batch", "ema_decay": 0.9},
])  # fmt: skip
def test_other_methods_run_report_and_resume(fields, blobs, small_config, tmp_path):
    config = cfg.replace_fields(small_config, num_epochs=1, **fields)
    loop.train(config, tmp_path / "a", dataset=blobs)
    loop.train(cfg.replace_fields(config, num_epochs=2), tmp_path / "a", dataset=blobs)
    loop.train(cfg.replace_fields(config, num_epochs=2), tmp_path / "b", dataset=blobs)
    assert_same_bits(tmp_path / "a", tmp_path / "b")
    summary = evaluate_run(tmp_path / "a", quick=True, dataset=blobs)
    assert np.isfinite(summary["reconstruction"]["mse"])
    x = av.load_run(tmp_path / "a").sample(4)
    assert 0 <= x.min() <= x.max() <= 1
