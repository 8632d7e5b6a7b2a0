"""The command line: what it prints, where it writes, and how it refuses."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import avae_jax as av
from avae_jax import cli
from avae_jax.arguments import read
from avae_jax.data import DATASETS
from avae_jax.methods import METHODS
from avae_jax.models import ARCHITECTURES
from avae_jax.training.config import (
    experiment_names,
    load_experiment,
    replace_fields,
    section_of_field,
)

pytestmark = pytest.mark.usefixtures("quick_compiler")

BATCH = ["--batch-size", "96"]  # A multiple of the eight devices the tests run on.
SMALL = [*BATCH, "--num-epochs", "1", "--num-centers", "500", "--width", "0.25"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert cli.run(["train", "digits", *SMALL, "--run-dir", str(folder)]) == 0
    return folder


def refused(arguments, capsys) -> str:
    """Run a command that must fail with exit code 2 and return its one line."""
    assert cli.run([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert captured.out == ""
    return lines[0]


def test_own_images_are_trained_on_by_their_path(tmp_path, capsys, monkeypatch):
    """What fits them is chosen and said, the run has their name, and goes on as it began."""
    from avae_jax.training import loop

    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (160, 8, 8), np.uint8)
    np.save("blots.npy", images)
    seen = {}
    monkeypatch.setattr(
        loop, "train", lambda config, run_dir, dataset: seen.update(config=config, to=run_dir)
    )
    monkeypatch.setattr("avae_jax.evaluation.evaluate_run", lambda *_, **__: {})
    monkeypatch.setattr("avae_jax.evaluation.show.print_evaluation", lambda *_: None)
    for path in ("blots.npy", "./blots.npy", str(tmp_path / "blots.npy")):
        assert cli.run(["train", path, "--latent-dim=3", "--num-centers", "56"]) == 0
        said = capsys.readouterr().err.splitlines()
        assert said[0].startswith("chosen for blots: architecture=digits, width=0.25")
        assert said[1].startswith("chosen for blots: batch_size=8, num_epochs=300: 14 steps")
        assert len(said) == 2
        config = seen["config"]
        assert (config.experiment, seen["to"]) == ("blots", Path("runs/blots"))
        assert (config.data.dataset, config.data.data_path) == (
            "array",
            str(tmp_path / "blots.npy"),
        )
        assert (config.model.latent_dim, config.method.num_centers) == (3, 56)
        assert config.method.weight == "nats"
    # What is given holds, whatever the data.
    assert cli.run(["train", "blots.npy", "--batch-size", "16", "--num-epochs", "2"]) == 0
    config = seen["config"]
    assert (config.optimization.batch_size, config.optimization.num_epochs) == (16, 2)
    assert config.optimization.patience is None
    capsys.readouterr()
    # A name of an experiment is one, whatever lies there.
    Path("digits").mkdir()
    assert load_experiment("digits").data.dataset == "digits"
    Path("digits", "config.json").write_text("{}")
    assert "got a run folder: repeat the command" in refused(["train", "./digits"], capsys)
    assert "blobs.npy does not exist" in refused(["train", "blobs.npy"], capsys)
    Path("empty").mkdir()
    assert "no images in" in refused(["check", "empty"], capsys)


def test_help_and_version(capsys):
    assert cli.run(["--help"]) == 0
    text = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert re.search(
            rf"^  {name} {re.escape(command.operands)} +{re.escape(command.does)}$", text, re.M
        )
    assert {*experiment_names(), *METHODS} <= {*re.findall(r"\w+", text)}
    assert cli.run(["--version"]) == 0
    assert cli.run([]) == 2


def test_a_notebooks_backend_is_not_taken_over(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert os.environ["MPLBACKEND"] == "Agg"


def test_home_folders_are_expanded(monkeypatch, tmp_path):
    """A shell leaves `--run-dir=~/x` as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli._experiment("train", ["digits", "--run-dir=~/x"])[1] == tmp_path / "x"
    arguments = ["~/run", "~/images", "--output=~/codes", "--data-path=~/moved"]
    wanted = read(cli._Encode, "encode", arguments, operands="RUN DATA")
    assert (wanted.run, wanted.output) == (tmp_path / "run", tmp_path / "codes")
    assert wanted.data_path == tmp_path / "moved"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    assert f"avae {command}" in capsys.readouterr().out


def help_of(capsys, *arguments):
    """Return the options that the help of a training shows, and its text."""
    with pytest.raises(SystemExit):
        cli.main(["train", *arguments, "--help"])
    text = capsys.readouterr().out
    # A description that happens to break before an option is indented farther.
    names = re.findall(r"^\W{,3}--([a-z][\w-]*)", text, re.M)
    return {name.replace("-", "_") for name in names}, text


@pytest.mark.parametrize("method", METHODS)
def test_help_shows_what_applies_to_the_method(method, capsys):
    shown, text = help_of(capsys, "digits", "--method", method)
    config = replace_fields(load_experiment("digits"), method=method)
    assert shown == {*section_of_field(config), "method", "run_dir", "experiment"}
    # That a field may be left out, and how the source breaks its lines, is nothing to look at.
    assert "None" not in text
    for name in (*DATASETS, *ARCHITECTURES):
        assert name in text


def test_help_finds_the_method_wherever_it_stands(capsys):
    shown, _ = help_of(capsys, "digits", "--method", "factor_vae")
    assert help_of(capsys, "--method=factor_vae")[0] == shown


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_is_read_as_it_is(name):
    """Without a single option, as `make train` does it."""
    config, run_dir = cli._experiment("train", [name])
    assert config == load_experiment(name)
    assert run_dir == Path("runs") / name


def test_data_that_is_not_there(capsys, tmp_path):
    line = refused(
        ["train", "cifar10", "--data-dir", tmp_path, "--run-dir", tmp_path / "run"], capsys
    )
    assert str(tmp_path) in line
    assert "avae prepare cifar10" in line
    assert list(tmp_path.iterdir()) == []


def test_bad_images(capsys, tmp_path):
    def train(name):
        dataset = "folder" if (tmp_path / name).is_dir() else "array"
        return refused(
            ["train", "digits", "--dataset", dataset, "--data-path", tmp_path / name,
             "--architecture", "mlp", "--num-centers", "20", "--batch-size", "16",
             "--run-dir", tmp_path / "run"], capsys,
        )  # fmt: skip

    images = np.random.default_rng(0).random((60, 8, 8, 1)).astype(np.float32)
    np.save(tmp_path / "wide.npy", images * 300)
    assert "sigmoid" in train("wide.npy")
    images[3, 0, 0, 0] = np.nan
    np.save(tmp_path / "nan.npy", images)
    assert "NaN" in train("nan.npy") or "not finite" in train("nan.npy")
    (tmp_path / "empty").mkdir()
    assert "empty" in train("empty")
    from PIL import Image

    (tmp_path / "mixed").mkdir()
    for number, size in enumerate([(8, 8), (8, 8), (9, 8), (8, 8)]):
        Image.new("L", size).save(tmp_path / "mixed" / f"{number}.png")
    line = train("mixed")
    assert "2.png" in line
    assert not (tmp_path / "run").exists()


def test_batches_that_do_not_divide(capsys, tmp_path):
    line = refused(
        ["train", "digits", "--batch-size", "100", "--run-dir", tmp_path / "run"], capsys
    )
    assert "batch_size=100 cannot be split over 8 devices: use 96" in line


def test_run_folders_that_cannot_be_used(run_dir, capsys, tmp_path):
    line = refused(["train", "digits", *BATCH, "--run-dir", run_dir], capsys)
    assert "holds a run with another configuration" in line
    assert "num_centers: 500 -> 300" in line
    for command in (["train", "digits", *SMALL, "--run-dir"], ["evaluate", run_dir, "--output"]):
        line = refused([*command, "/proc/run"], capsys)
        assert "must be a folder that can be written to, got /proc/run" in line
    assert "/proc" in refused(["sample", run_dir, "--output", "/proc/x"], capsys)
    (tmp_path / "config.json").write_text("{}")
    assert "facts.json" in refused(["sample", tmp_path], capsys)


def test_training_again_says_it_is_complete(run_dir, capsys):
    before = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
    assert cli.run(["train", "digits", *SMALL, "--run-dir", str(run_dir)]) == 0
    assert "complete" in capsys.readouterr().err
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == before


def test_sample_encode_and_reconstruct(run_dir, capsys, tmp_path):
    out = str(tmp_path / "samples")
    assert cli.run(["sample", str(run_dir), "--num-samples", "9", "--output", out]) == 0
    assert np.load(f"{out}.npy").shape == (9, 8, 8, 1)
    assert os.path.getsize(f"{out}.png") > 1000
    said = capsys.readouterr().out
    assert said.startswith(f"9 samples: {out}.npy, {out}.png\ncodes from N(0, ")
    with np.load(run_dir / "codes.npz") as stored:
        own = np.sqrt(np.diag(stored["covariance"]).mean())
    ratio = av.load_run(run_dir).prior().std() / own
    assert f", the claimed scale, {ratio:.2f} times as wide as those of the training" in said
    assert "samples.npy exists" in refused(["sample", run_dir, "--output", out], capsys)
    again = ["sample", str(run_dir), "--scale", "0.5", "--num-samples", "2", "--output", out]
    assert cli.run([*again, "--overwrite"]) == 0
    said = capsys.readouterr().out
    assert f"codes from N(0, 0.5^2 I), {0.5 / own:.2f} times as wide" in said, said
    codes = tmp_path / "codes.npy"
    assert cli.run(["encode", str(run_dir), "test", "--output", str(codes)]) == 0
    z = np.load(codes)
    assert z.shape == (359, 8)
    x = np.random.default_rng(0).integers(0, 255, (5, 8, 8, 1), dtype=np.uint8)
    np.save(tmp_path / "mine.npy", x)
    mine = str(tmp_path / "mine.npy")
    assert cli.run(["encode", str(run_dir), mine, "--output", str(codes), "--overwrite"]) == 0
    np.testing.assert_allclose(np.load(codes), av.load_run(run_dir).encode(x), rtol=1e-6)
    from PIL import Image

    (tmp_path / "mine").mkdir()
    for row, name in enumerate(("b.png", "a, b.png")):
        Image.fromarray(x[row, ..., 0]).save(tmp_path / "mine" / name)
    folder = ["encode", str(run_dir), str(tmp_path / "mine"), "--output", str(tmp_path / "own")]
    assert cli.run(folder) == 0
    np.testing.assert_allclose(
        np.load(tmp_path / "own.npy"), av.load_run(run_dir).encode(x[1::-1]), rtol=1e-5
    )
    with open(tmp_path / "own.csv", newline="") as table:
        assert list(csv.reader(table)) == [["row", "file"], ["0", "a, b.png"], ["1", "b.png"]]
    out = str(tmp_path / "recon")
    assert cli.run(["reconstruct", str(run_dir), mine, "--output", out]) == 0
    assert np.load(f"{out}.npy").shape == x.shape
    assert os.path.getsize(f"{out}.png") > 1000
    capsys.readouterr()
    np.save(tmp_path / "wrong.npy", x[:, :4])
    assert "this model takes" in refused(["encode", run_dir, tmp_path / "wrong.npy"], capsys)
    assert "no folder" in refused(["sample", run_dir, "--output", tmp_path / "none" / "x"], capsys)


def test_the_help_of_reconstruct_tells_how_many_are_shown(capsys):
    from avae_jax.figures.images import NUM_PAIRS

    with pytest.raises(SystemExit):
        cli.run(["reconstruct", "--help"])
    assert f"OUTPUT.png ({NUM_PAIRS} of them" in " ".join(capsys.readouterr().out.split())


def test_bandwidth_prints_what_it_found(capsys):
    from avae_jax import find_bandwidth

    assert cli.run(["bandwidth", "10", "500"]) == 0
    text = capsys.readouterr().out
    assert f"{find_bandwidth(10, 500).h_opt:.4f} +-" in text
    for word in ("h_corr", "prior scale", "null KL", "seconds"):
        assert word in text


def test_check_measures_before_training(capsys, tmp_path):
    assert cli.run(["check", "digits", *SMALL, "--run-dir", str(tmp_path / "run")]) == 0
    text = capsys.readouterr().out
    for word in (
        "value range",
        "sigmoid",
        "codes settle",
        "memory per device",
        "per step",
        "h_opt",
        "decoder/output/kernel",
    ):
        assert word in text
    assert not (tmp_path / "run").exists()


ENDED_AT = Path(__file__).parent / "ended_at.py"


@pytest.mark.slow
def test_interrupting_saves_and_says_how_to_go_on(tmp_path, quick_environment):
    arguments = ["train", "digits", "--num-epochs", "500", "--batch-size", "96",
                 "--run-dir", str(tmp_path / "run")]  # fmt: skip
    command = [sys.executable, ENDED_AT, "18", "SIGINT", *arguments]
    stopped = subprocess.run(command, env=quick_environment, capture_output=True, text=True)
    assert stopped.returncode == 130
    assert "Traceback" not in stopped.stderr
    assert "go on with: avae train digits --num-epochs 500" in stopped.stderr
    from avae_jax import load_run

    assert load_run(tmp_path / "run", which="latest").step == 18


def test_help_starts_quickly():
    """The command's own imports, beyond JAX, stay under a second of processor time."""
    code = (
        "import time, jax; start = time.process_time(); import avae_jax.cli as cli; "
        "cli.run(['--help']); print(time.process_time() - start)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert float(result.stdout.strip().splitlines()[-1]) < 1.0, result.stdout + result.stderr


def test_bench_starts_the_script_and_passes_its_exit_code(capfd):
    assert cli.run(["bench", "kernel", "--help"]) == 0
    assert "--quick" in capfd.readouterr().out
    assert cli.run(["bench", "kernel", "--dims", "wide"]) == 2
    assert "--dims: invalid int value: 'wide'" in capfd.readouterr().err


def test_evaluate_writes_a_report_and_prints_the_verdict(run_dir, capsys, tmp_path):
    arguments = [
        "evaluate",
        str(run_dir),
        "--num-samples",
        "100",
        "--output",
        str(tmp_path / "out"),
    ]
    assert cli.run(arguments) == 0
    captured = capsys.readouterr()
    assert "The codes" in captured.out
    assert "not computed: give the Inception weights" in captured.out
    assert "report.html" in captured.out
    assert "encoding" in captured.err
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"report.html", "summary.json", "figures"}


def test_evaluate_puts_runs_side_by_side(run_dir, capsys, tmp_path):
    copy = tmp_path / "again"
    twin = tmp_path / run_dir.name
    twin.mkdir()
    output = ["--output", str(tmp_path / "out")]
    assert "one name" in refused(["evaluate", str(run_dir), str(twin), *output], capsys)
    shutil.copytree(run_dir, copy)
    arguments = ["evaluate", str(run_dir), str(copy), "--num-images", "120", "--num-samples", "60"]
    assert cli.run([*arguments, "--output", str(tmp_path / "out")]) == 0
    assert "reconstruction/mse" in capsys.readouterr().out
    page = (tmp_path / "out" / "comparison.html").read_text()
    # Samples, reconstructions and codes, of each run.
    assert page.count('src="data:image/png') == 6
    assert page.count("<b>again</b>avae, 8 dimensions") == 3
    assert (tmp_path / "out" / "again" / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "RUN", "RUN"], "a run is named twice"),
        (["evaluate", "RUN", "--inception-weights", "nowhere.npz"], "nowhere.npz"),
        (["evaluate", "RUN", "--classifier", "nowhere.npz"], "nowhere.npz does not exist"),
        (["sample", "RUN", "--scale", "big"], "scale must be claimed, fixed_point, measured, cov"),
        (["sample", "RUN", "--scale", "mesured"], "got 'mesured': did you mean 'measured'?"),
        (["sample", "RUN", "--scale", "-1"], "or a number above 0, got -1.0: choose one of these"),
        (["sample", "RUN", "--num-samples", "0"], "num_samples=0"),
        (
            ["encode", "RUN", "tset"],
            "DATA must be train, validation, test or a folder of images or",
        ),
        (["reconstruct", "RUN", "tset"], "got 'tset': did you mean 'test'?"),
        (["reconstruct", "RUN", "nowhere.npy"], ".npz file that is there, got 'nowhere.npy'"),
    ],
)
def test_what_is_asked_of_a_run_is_refused_in_one_line(arguments, message, run_dir, capsys):
    arguments = [str(run_dir) if argument == "RUN" else argument for argument in arguments]
    assert message in refused(arguments, capsys)


def test_classifier_is_written_and_not_overwritten(tmp_path, capsys):
    output = str(tmp_path / "net.npz")
    assert cli.run(["classifier", "digits", "--num-epochs", "1", "--output", output]) == 0
    assert "lenet-digits: test accuracy" in capsys.readouterr().out
    assert "exists" in refused(["classifier", "digits", "--output", output], capsys)
