"""The measurement of an accelerator: whole on a CPU at tiny sizes, and when its stages go wrong."""

import argparse
import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks"
TILES = ROOT / "avae_jax" / "kernels" / "pairwise_lse" / "tiles.json"

# What the measured machine need not have: they are not found there.
MISSING = ("tensorflow_datasets", "clu", "tyro", "tensorboardX", "platformdirs", "tqdm")
HIDE = f"""
from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec


def find(name, path=None, target=None):
    return None if name.partition(".")[0] in {MISSING} else find_spec(name, path, target)


PathFinder.find_spec = find
"""

STAGES = """
import os, signal, sys, threading
from pathlib import Path

if sys.argv[1] == "hangs":
    Path(sys.argv[3]).write_text('{"rows": [1]}')
    threading.Event().wait()

import accelerator_stages


def fails(part, options):
    part.add("rows", 1)
    raise ValueError("deliberately")


def dies(part, options):
    for label in ("first", "second", "third"):
        if label in part.values.get("crashed", []):
            continue
        part.begin(label)
        if label == "first":
            os.kill(os.getpid(), signal.SIGKILL)
        if label == "second":
            threading.Event().wait()
        part.begin("")
        part.add("rows", label)


def reads(part, options):
    part.set(seen=options.report["stages"]["fails"]["rows"], value=float("nan"))


accelerator_stages.STAGES.update(fails=fails, dies=dies, reads=reads)
accelerator_stages.main()
"""


@pytest.fixture
def module(monkeypatch):
    """Returns a module of the benchmarks by name, as its scripts import each other."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The report of a smoke run without the packages that the measured machine lacks."""
    folder = tmp_path_factory.mktemp("accelerator")
    (folder / "hidden").mkdir()
    (folder / "hidden" / "sitecustomize.py").write_text(HIDE)
    environment = {name: value for name, value in os.environ.items() if name != "AVAE_CACHE_DIR"}
    environment |= {"PYTHONPATH": str(folder / "hidden"), "JAX_NUM_CPU_DEVICES": "1"}
    code = "import tqdm"
    hidden = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert b"No module named 'tqdm'" in hidden.stderr
    command = [sys.executable, str(FOLDER / "accelerator.py"), "--smoke", "--output", str(folder)]
    # It takes a minute; no stage is cut off on a slow machine that does other things too.
    command += ["--budget", "3000"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads((folder / "accelerator_cpu.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.slow
def test_every_stage_of_a_smoke_run_is_whole(smoke):
    names = ["contract", "ceilings", "tiles", "grid", "steps", "train", "bandwidth"]
    assert list(smoke["stages"]) == names
    assert {name: stage["status"] for name, stage in smoke["stages"].items()} == dict.fromkeys(
        names, "ok"
    )
    assert smoke["machine"]["versions"]["jax"]
    assert smoke["machine"]["device"] == "cpu: cpu"
    assert {"driver", "runtime"} <= smoke["machine"].keys()
    assert smoke["smoke"] is True
    assert smoke["commit"] is None or len(smoke["commit"].rstrip("+")) == 40
    assert sum(stage["seconds"] for stage in smoke["stages"].values()) <= smoke["seconds"]
    # Packages that the machine lacks are no part of what it has.
    assert all("crashed" not in stage for stage in smoke["stages"].values())


@pytest.mark.slow
def test_the_contract_holds_in_a_smoke_run(smoke):
    stage = smoke["stages"]["contract"]
    assert {row["label"] for row in stage["rows"]} == {"matrix highest", "difference"}
    quantities = {name for row in stage["rows"] for name in row["results"]}
    arguments = ("x", "y", "bandwidth", "log_weights")
    assert quantities == {
        "value", "lse", "mean", "logit_mean", "logit_sq_mean",
        *(f"gradient in {name}" for name in arguments),
    }  # fmt: skip
    for row in stage["rows"]:
        assert "errors" not in row, row
        for name, result in row["results"].items():
            assert result["within"], (row["label"], row["case"], name)
            assert 0 <= result["share_of_limit"] <= 1, (row["label"], row["case"], name)
    for counts in stage["summary"].values():
        assert counts["within"] == counts["checked"] > 20
        assert (counts["failed"], counts["refused"]) == (0, 0)
        # Float32 that agrees with float64 to the last bit would be compared with itself.
        assert counts["largest_share_of_limit"] > 0.01
    assert "Hopper" in stage["skipped"]["pallas_gpu highest"]


@pytest.mark.slow
def test_the_rates_and_times_of_a_smoke_run_fit_together(smoke):
    stages = smoke["stages"]
    rates = stages["ceilings"]["ceilings"]
    assert set(stages["ceilings"]["products"]) == {"highest", "high", "fast"}
    assert all(rate > 1e6 for rate in [*rates.values(), *stages["ceilings"]["products"].values()])

    entry = stages["tiles"]["entry"]
    assert stages["tiles"]["dims"] == [64, 2]
    assert [rule["max_dims"] for rule in entry] in ([None], [2, None])
    tried = {tuple(row["tile"]) for row in stages["tiles"]["rows"]}
    assert {(rule["queries"], rule["centers"]) for rule in entry} <= tried
    # Written into the kernel's table only when asked to.
    assert stages["tiles"]["key"] == "cpu"
    assert "cpu" not in json.loads(TILES.read_text())["tiles"]

    assert stages["grid"]["tiles_of_this_run"] is True
    assert stages["grid"]["ceilings"] == rates
    measured = [row for row in stages["grid"]["rows"] if "median_s" in row]
    found = {(row["contender"], row["op"], row["d"]) for row in measured}
    for d in (2, 64):
        assert {("matrix highest", op, d) for op in ("lse", "grad", "loo", "bandwidths")} <= found
        assert {("difference", op, d) for op in ("lse", "grad")} <= found
        assert ("jnp_dense", "lse", d) in found
    for row in measured:
        assert row["within_float32"], row
        assert row["fraction_of_floor"] == pytest.approx(row["floor_s"] / row["median_s"])
        # Torch and KeOps, where they are installed, do not tell.
        if row["contender"] in ("matrix highest", "difference", "jnp_dense"):
            assert row["peak_bytes"] >= 4 * (row["n"] + row["m"]) * row["d"]
            assert row["compile_s"] > 0


@pytest.mark.slow
def test_the_steps_and_the_training_of_a_smoke_run_fit_together(smoke):
    rows = smoke["stages"]["steps"]["rows"]
    found = {(row["method"], row["steps_per_dispatch"]) for row in rows}
    assert {("autoencoder", 1), ("autoencoder", 2), ("avae queue", 1)} <= found
    assert {("avae queue", 2), ("avae reencode", 2)} <= found
    for row in rows:
        assert row["images"] == "noise"
        assert row["median_s"] == pytest.approx(np.median(row["seconds"]))
        assert row["images_per_second"] == pytest.approx(row["batch_size"] / row["median_s"])
        assert row["peak_bytes"] > row["temporary_bytes"] > 0
        if row["method"] == "autoencoder":
            assert row["ratio"] == 1.0

    train = smoke["stages"]["train"]
    assert (train["images"], train["epochs"], train["interrupted"]) == ("rendered spots", 2, False)
    assert [row["epoch"] for row in train["rows"]] == [1, 2]
    assert train["reconstruction"]["mse"] > 0
    latent = train["latent"]
    assert latent["n"] == 100
    for name in ("kde_kl", "whitened_entropy"):
        assert math.isfinite(latent["density"][name])
        assert math.isfinite(latent["density"][f"{name}_null"])

    (row,) = smoke["stages"]["bandwidth"]["rows"]
    assert row["prior_scale"] == pytest.approx(1 / math.hypot(1, row["h_opt"]))
    assert 0.5 < row["h_opt"] < 2


@pytest.mark.slow
def test_a_report_becomes_a_table(smoke, module, tmp_path, monkeypatch):
    update_tables = module("update_tables")
    monkeypatch.setattr(update_tables, "RESULTS", tmp_path)
    assert "No GPU or TPU has been measured yet" in update_tables.accelerator_tables()
    (tmp_path / "accelerator_cpu.json").write_text(json.dumps(smoke))
    other = json.loads(json.dumps(smoke))
    other["machine"] |= {"device": "gpu: Some GPU", "driver": "1.2.3"}
    other["stages"]["grid"] = {"status": "failed", "error": "deliberately"}
    (tmp_path / "accelerator_some_gpu.json").write_text(json.dumps(other))
    text = update_tables.accelerator_tables()
    assert "measured yet" not in text
    assert text.index("CPU cores") < text.index("**Some GPU** (jax")
    assert "driver 1.2.3" in text
    (row,) = [
        row
        for row in smoke["stages"]["grid"]["rows"]
        if (row["contender"], row["op"], row["d"]) == ("matrix highest", "lse", 64)
    ]
    (line,) = [line for line in text.splitlines() if "matrix highest, lse" in line]
    assert line.endswith(f"| {row['ps_per_pair']:.2g} ({row['fraction_of_floor']:.0%}) |")
    lengths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert lengths == {4}
    assert "avae queue, 2 steps a dispatch" in text


@pytest.mark.slow
def test_a_stage_that_goes_wrong_takes_no_other_along(module, tmp_path, capsys, monkeypatch):
    accelerator = module("accelerator")
    monkeypatch.setattr(accelerator, "_HUNG_SECONDS", 2.0)
    script = tmp_path / "stages.py"
    script.write_text(STAGES)
    options = accelerator.parse_options(["--output", str(tmp_path), "--budget", "130"])
    worth = {"fails": 40.0, "hangs": 8.0, "dies": 60.0, "late": 0.01, "reads": 40.0}
    measurement = accelerator.Measurement(options, worth=worth, script=script)
    report = measurement.run()
    assert report == json.loads((tmp_path / "accelerator_cpu.json").read_text())
    stages = report["stages"]
    assert stages["fails"]["status"] == "failed"
    assert stages["fails"]["error"].endswith("ValueError: deliberately")
    assert stages["fails"]["rows"] == [1]
    assert stages["hangs"]["status"] == "cut off"
    assert stages["hangs"]["rows"] == [1]
    assert stages["hangs"]["seconds"] == pytest.approx(stages["hangs"]["limit_s"], abs=5)
    # It started over without what killed it, and again without what held it up.
    assert stages["dies"]["status"] == "ok"
    assert stages["dies"]["crashed"] == ["first", "second"]
    assert stages["dies"]["rows"] == ["third"]
    assert stages["reads"]["status"] == "ok"
    assert (stages["reads"]["seen"], stages["reads"]["value"]) == ([1], None)
    assert stages["late"] == {"status": "skipped", "why": "no time left"}
    assert "deliberately" in capsys.readouterr().out


def test_what_died_or_hung_in_the_contract_is_left_out_of_the_grid(module, tmp_path):
    stages = module("accelerator_stages")
    report = {"stages": {"contract": {"crashed": ["difference"]}}}
    part = stages.Part(tmp_path / "part.json", 10.0)
    assert stages.available(part, {}).keys() == {"matrix highest", "difference"}
    assert stages.available(part, report).keys() == {"matrix highest"}
    assert part.values["skipped"]["difference"] == "its process died or hung"


def test_a_wrong_kernel_is_outside_of_its_limits(module, monkeypatch):
    stages = module("accelerator_stages")
    contract = stages.load_contract()
    case = next(iter(stages.contract_cases(contract, whole=False)))
    ours = stages.OURS["matrix highest"]
    right = stages.Checker(contract).check(case, "values", ours)["value"]
    assert right["within"]
    call = contract.call
    for wrong in (1e-2, np.nan, np.inf):
        monkeypatch.setattr(
            contract, "call", lambda *args, wrong=wrong, **kw: call(*args, **kw).at[3].add(wrong)
        )
        assert not stages.Checker(contract).check(case, "values", ours)["value"]["within"]
    # Each of several is seen, whatever the others are.
    assert not stages.worse(right, {**right, "within": False})["within"]
    assert stages.worse({**right, "max_error": 1.0}, right)["max_error"] == 1.0


def test_mnist_travels_as_a_folder(module, tmp_path, monkeypatch):
    from avae_jax import data

    stages = module("accelerator_stages")
    made = stages.rendered(50, 10)
    labels = np.arange(50, dtype=np.int32) % 10
    made = data.ImageData("mnist", made.images, labels, made.splits, 10)
    monkeypatch.setattr(data, "load_dataset", lambda name: made)
    stages.pack_mnist(tmp_path)
    again = stages.mnist(argparse.Namespace(mnist=tmp_path))
    assert again.fingerprint() == made.fingerprint()
    assert again.splits.digest() == made.splits.digest()
    np.testing.assert_array_equal(again.labels, labels)


def test_the_command_says_what_it_does_not_know(module, capsys):
    accelerator = module("accelerator")
    assert accelerator.parse_options(["--stages", "a", "grid"]).stages == ["contract", "grid"]
    cases = (["--stages", "h"], "unknown stages h"), (["--budget", "0"], "must be positive")
    for wrong, message in cases:
        with pytest.raises(SystemExit):
            accelerator.parse_options(wrong)
        assert message in capsys.readouterr().err


def test_polynomial_shares_are_kernels_of_their_own(module):
    stages = module("accelerator_stages")
    shares = {name: ours for name, ours in stages.OURS.items() if "polynomial" in name}
    assert len(shares) == 3
    shapes = [jax.ShapeDtypeStruct(shape, np.float32) for shape in ((70, 5), (300, 5), (1,), (5,))]
    programs = set()
    for ours in (stages.OURS["pallas_gpu highest"], *shares.values()):
        sums = stages.IMPLEMENTATIONS[ours.implementation].sums

        def value(x, y, bandwidths, shift, sums=sums):
            return sums(
                x, y, bandwidths, None, None, shift, mean=False, moments=False, precision="highest"
            )

        lowered = jax.jit(value).trace(*shapes).lower(lowering_platforms=("cuda",))
        programs.add(lowered.as_text())
    assert len(programs) == 4
