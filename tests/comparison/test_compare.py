"""The command: cells that are done, failed, refused and stopped, and what it writes."""

import json
import zlib

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

import avae_jax as av
from avae_jax import cli
from avae_jax.comparison import api, report, runner
from avae_jax.comparison.results import is_number
from avae_jax.methods import METHODS
from avae_jax.training import loop

pytestmark = pytest.mark.usefixtures("quick_compiler")

COST = {
    "parameters": 900, "sampling_parameters": 400, "flops": 1e6, "flops_at_least": False,
    "relative_flops": 1.25, "seconds": 0.1, "seconds_between": 0.0, "relative_seconds": 1.5,
    "same_start": True, "device": "cpu",
}  # fmt: skip


def command(folder, *more, seeds="01"):
    """Return the words of a small comparison."""
    return ["compare", "digits", "--methods", "ae", "vae", "--reference", "ae", "--quick",
            "--seeds", *seeds, "--num-epochs", "1", "--batch-size", "96", "--width", "0.25", *more,
            "--output", str(folder)]  # fmt: skip


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def fake_train(config, run_dir, *, dataset):
    """Leave a folder."""
    assert len(dataset.splits.train) == 1259
    run_dir.mkdir(parents=True, exist_ok=True)


def fake_evaluate(run, *, output, **_):
    """Leave a summary of numbers that the folder's name decides."""
    x, y = np.random.default_rng(zlib.crc32(run.name.encode())).random(2)
    summary = {
        "about": {"sampled_by": "claimed", "versions": {"jax": "1"}, "device": "cpu"},
        "verdict": {"headline": "It is fine."},
        "reconstruction": {"mse": x, "mse_null": 2.0},
        "latent": {"moments": {"moment_kl": y, "moment_kl_null": 0.0}, "density": {}, "holes": {},
                   "collapse": {"num_collapsed": 1}},
        "likelihood": "not computed: no posterior",
        "samples": {
            "FD-net": {
                "floor": {"FD-net": 0.25, "precision": 0.9, "recall": 0.8},
                "claimed": {"FD-net": x, "precision": y, "recall": y, "rms_multiple": 1.25},
                "gaussian": {"FD-net": y, "rms_multiple": 1.0},
            },
            "FID": "not computed: give the Inception weights",
        },
        "disentanglement": "not computed: no factors",
    }  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    (output / "summary.json").write_text(json.dumps(summary))


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    """What a comparison calls for, but for the first test, in a moment."""
    monkeypatch.setattr(loop, "train", fake_train)
    monkeypatch.setattr(runner, "evaluate_run", fake_evaluate)
    monkeypatch.setattr(runner.Meter, "measure", lambda *_: COST)


@pytest.fixture
def folder(tmp_path):
    """A comparison of two methods and two seeds that has ended."""
    assert cli.run(command(tmp_path / "small")) == 0
    return tmp_path / "small"


def test_cells_are_runs_that_were_trained_and_measured(tmp_path, monkeypatch):
    """Nothing of it is a fake."""
    monkeypatch.undo()
    results = av.compare(
        ["digits"], methods=["vae"], seeds=[0], output=tmp_path / "real",
        evaluation={"quick": True, "num_images": 60}, num_epochs=1, batch_size=96,
        width=0.25,
    )  # fmt: skip
    for cell in results["cells"]:
        assert cell["status"] == "finished", cell["reason"]
        place = tmp_path / "real" / cell["folder"]
        assert place.name == f"seed0-{cell['config_hash'][:8]}"
        assert av.load_run(place).step == 13
        summary = json.loads((place / "evaluation" / "summary.json").read_text())
        assert cell["numbers"]["mse"]["value"] == summary["reconstruction"]["mse"]
        assert cell["numbers"]["kde_kl"]["null"] == summary["latent"]["density"]["kde_kl_null"]
        assert cell["numbers"]["fd"]["reason"] == "not computed: left out by --quick"
        assert cell["seconds"]["training"] > 0
        cost = cell["cost"]
        assert (cost["same_start"], cost["flops_at_least"]) == (True, False)
        assert 1.0 <= cost["relative_flops"] < 1.5
        assert cost["relative_seconds"] > 0.1
        assert cost["parameters"] > cost["sampling_parameters"] > 0


def test_the_table_is_of_the_cells(folder):
    results = results_of(folder)
    column = next(one for one in results["table"]["digits"] if one["key"] == "FD-net/own")
    for label, row in column["methods"].items():
        values = [cell["numbers"]["FD-net/own"]["value"] for cell in results["cells"]
                  if cell["label"] == label]  # fmt: skip
        wanted = np.array([np.mean(values), np.std(values, ddof=1), 0.25])
        np.testing.assert_allclose([row["mean"], row["std"], row["null"]], wanted)
    difference = column["methods"]["vae"]["difference"]
    assert "difference" not in column["methods"]["ae"]
    assert difference["least_p"] == 0.5 <= difference["p"] <= difference["p_holm"]
    assert is_number(difference["low"])
    assert json.loads((folder / "plan.json").read_text())["hash"] == results["plan_hash"]


def test_a_table_shows_what_is_asked_for(folder):
    results = results_of(folder)
    heads, rows = report.value_table(results, "digits", keys=["moment_kl", "relative_flops"])
    asked = ["moment KL of held-out codes (nats)", "null", "FLOP to plain autoencoder's"]
    assert heads == ["method", "seeds", *asked]
    assert [row[-1] for row in rows] == ["1.25", "1.25"]
    assert len(report.value_table(results, "digits")[0]) > len(heads)


def test_the_outputs_hold_the_numbers_and_claim_too_much_of_none(folder):
    table = (folder / "table.md").read_text()
    page = (folder / "comparison.html").read_text()
    lines = table.splitlines()
    assert lines[0].startswith("| method | seeds |")
    assert [line.split("|")[1].strip() for line in lines[2:4]] == ["ae", "vae"]
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[2].count("× 1.25") == lines[2].count("× 1.00") == 1
    assert "- FID: not computed (give the Inception weights)." in lines
    assert "- likelihood bound (nats): not computed (no posterior)." in lines
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert page.count("data:image/png") == 1
    assert "0.500 at the least with 2 seeds." in page
    few = "so few seeds can show no difference to be beyond chance. Numbers"
    assert f"over the methods, number by number: 0.500 at the least of 1; {few}" in page
    for text in (table, page):
        assert "significant" not in text
        assert "http" not in text


def test_a_seed_without_a_number_is_counted_and_its_reason_said(tmp_path, monkeypatch):
    def evaluate(run, *, output, **options):
        fake_evaluate(run, output=output, **options)
        if run.parts[-2] == "vae" and run.name.startswith("seed1"):
            path = output / "summary.json"
            summary = json.loads(path.read_text())
            summary["reconstruction"]["mse"] = None
            path.write_text(json.dumps(summary))

    monkeypatch.setattr(runner, "evaluate_run", evaluate)
    assert cli.run(command(tmp_path, seeds="012")) == 0
    table = (tmp_path / "table.md").read_text().splitlines()
    assert "(2 of 3)" in table[3]
    assert "(2 of 3)" not in table[2]
    note = (
        "- reconstruction error (per pixel): not computed for vae of seed 1 (not a finite number)."
    )
    assert note in table


def test_a_method_that_is_left_out_has_a_note_and_no_row(tmp_path, monkeypatch):
    some = {name: METHODS[name] for name in ("ae", "vae", "sigma_vae")}
    monkeypatch.setattr("avae_jax.comparison.plan.METHODS", some)
    words = command(tmp_path, "--likelihood", "bernoulli", seeds="0")
    del words[words.index("--methods") : words.index("--reference")]
    drawn = []
    monkeypatch.setattr(report.figures, "make_comparison", drawn.extend)
    monkeypatch.setattr(report.figures, "to_png", lambda figure: b"")
    assert cli.run(words) == 0
    assert {label for panel in drawn for label in panel.values} == {"ae", "vae"}
    assert [*results_of(tmp_path)["left_out"]["digits"]] == ["sigma_vae"]
    table = (tmp_path / "table.md").read_text()
    assert "- sigma_vae is left out: likelihood=bernoulli" in table
    assert "| sigma_vae" not in table
    assert "sigma_vae is left out" in (tmp_path / "comparison.html").read_text()


def test_the_statistics_claim_what_there_is():
    """A reference without a number has no differences, and many seeds no exact p."""

    def note(num_seeds, least):
        columns = [
            {"caption": f"number {m}", "family_size": m, "least_p_holm": p,
             "methods": {"ae": {"n": n}, "vae": {"n": 3, "difference": {}}}}
            for m, p, n in [*((m, p, 3) for m, p in least.items()), (0, None, 0)]
        ]  # fmt: skip
        plan = {"seeds": [*range(num_seeds)], "reference": "ae"}
        return report.statistics_note({"plan": plan, "table": {"digits": columns}}, "digits")

    said = note(5, {22: 1.0, 1: 0.0625})
    assert "all 32 flips of the signs, 0.0625 at the least with 5 seeds." in said
    assert "0.0625 at the least of 1, 1.00 at the least of 22; so few seeds can show no" in said
    assert "beyond chance where it is above a tenth." in said
    assert "No differences: ae has no number 0; another reference has." in said
    assert "so few" not in note(12, {22: 0.01})
    said = note(21, {})
    assert "p: none is computed of more than 20 seeds" in said
    assert "flips" not in said


def test_what_is_done_is_not_done_again(folder, monkeypatch, capsys):
    monkeypatch.setattr(loop, "train", None)
    monkeypatch.setattr(runner, "evaluate_run", None)
    capsys.readouterr()
    assert cli.run(command(folder)) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "reconstruction error" in captured.out
    # A plan that shrinks or grows has the same cells.
    assert cli.run(command(folder, seeds="1")) == 0
    assert len(results_of(folder)["cells"]) == 2
    assert "One seed" in (folder / "table.md").read_text()


def test_a_cell_that_fails_takes_no_other_along_and_is_tried_again(folder, monkeypatch, capsys):
    tried = []

    def fail(config, run_dir, **_):
        tried.append(f"{config.method.name}{config.optimization.seed}")
        raise loop.TrainingError("no finite gradient: lower it")

    monkeypatch.setattr(loop, "train", fail)
    capsys.readouterr()
    assert cli.run(command(folder, seeds="012")) == 1
    assert tried == ["ae2", "vae2"]
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("[5/6] digits/ae/seed2: failed: no finite gradient: lower it")
    assert len(said) == 2
    failed = [cell for cell in results_of(folder)["cells"] if cell["status"] == "failed"]
    assert [cell["reason"] for cell in failed] == ["no finite gradient: lower it"] * 2
    assert "digits/vae/seed2 failed: no finite gradient" in (folder / "table.md").read_text()
    assert "This cell failed." in (folder / "comparison.html").read_text()
    # The next call tries again, and only what is asked for.
    monkeypatch.setattr(loop, "train", fake_train)
    assert cli.run(command(folder, "--only", "digits/ae/*", seeds="012")) == 1
    statuses = [cell["status"] for cell in results_of(folder)["cells"]]
    assert statuses == ["finished"] * 5 + ["failed"]


TUNED = ("--tune", "beta_vae.beta", "1", "4", "16", "--judge", "mse")


def tuned(folder, *more):
    """Return the words of a small comparison in which a method is tuned."""
    words = command(folder, *TUNED, *more)
    words[words.index("vae")] = "beta_vae"
    return words


def test_values_are_chosen_on_validation_images_and_test_images_seen_once(
    tmp_path, monkeypatch, capsys
):
    trained, evaluated = [], []

    def train(config, run_dir, *, dataset):
        trained.append(run_dir.name)
        fake_train(config, run_dir, dataset=dataset)

    def evaluate(run, *, split=None, **options):
        evaluated.append((run.name, split))
        fake_evaluate(run, **options)

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(runner, "evaluate_run", evaluate)
    assert cli.run(tuned(tmp_path)) == 0
    results = results_of(tmp_path)
    entry = results["tuning"]["digits"]["beta_vae"]
    trials = entry["trials"]
    assert [trial["values"] for trial in trials] == [{"beta": beta} for beta in (1, 4, 16)]
    for trial in trials:
        summary = json.loads((tmp_path / trial["folder"] / "validation/summary.json").read_text())
        assert trial["judged"] == summary["reconstruction"]["mse"]
    best = min(trials, key=lambda trial: trial["judged"])
    assert (entry["status"], entry["seed"], entry["chosen"]) == ("chosen", 0, best["values"])
    cells = [cell for cell in results["cells"] if cell["label"] == "beta_vae"]
    assert [cell["config"]["method"]["beta"] for cell in cells] == [best["values"]["beta"]] * 2
    # The trial that was chosen is the first seed's run; no run is made twice.
    assert cells[0]["folder"] == best["folder"]
    assert len(trained) == len(set(trained)) == 3 + 1 + 2
    tested = [name for name, split in evaluated if split is None]
    places = [cell["folder"].rpartition("/")[2] for cell in results["cells"]]
    assert sorted(tested) == sorted(places)
    assert len([split for _, split in evaluated if split == "validation"]) == 3
    table, page = ((tmp_path / name).read_text() for name in ("table.md", "comparison.html"))
    chosen = [line.split("|")[3].strip() for line in table.splitlines()[2:4]]
    assert chosen == ["1 of 3 trials", f"beta={best['values']['beta']} of 3 trials"]
    assert "reconstruction error (per pixel) on the validation images of seed 0" in table
    assert "digits: trials" in page
    # Nothing of it is done again.
    monkeypatch.setattr(loop, "train", None)
    monkeypatch.setattr(runner, "evaluate_run", None)
    capsys.readouterr()
    assert cli.run(tuned(tmp_path)) == 0
    assert capsys.readouterr().err == ""
    assert results_of(tmp_path) == results


def test_a_trial_that_fails_is_none_to_choose(tmp_path, monkeypatch, capsys):
    def fail(config, run_dir, *, dataset):
        if config.method.name == "beta_vae" and config.method.beta in failing:
            raise loop.TrainingError("no finite gradient")
        fake_train(config, run_dir, dataset=dataset)

    failing = [1, 4, 16]
    monkeypatch.setattr(loop, "train", fail)
    assert cli.run(tuned(tmp_path)) == 1
    results = results_of(tmp_path)
    assert results["tuning"]["digits"]["beta_vae"]["status"] == "failed"
    assert [cell["label"] for cell in results["cells"]] == ["ae", "ae"]
    assert "| none of 3 trials, 3 failed |" in (tmp_path / "table.md").read_text()
    # What failed is tried again, here until someone stops it.
    failing.remove(16)

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "evaluate_run", stop)
    assert cli.run(tuned(tmp_path)) == 130
    assert "stopped at digits/beta_vae/seed0/beta=16, saved" in capsys.readouterr().err
    monkeypatch.setattr(runner, "evaluate_run", fake_evaluate)
    assert cli.run(tuned(tmp_path, "--only", "beta_vae")) == 0
    results = results_of(tmp_path)
    assert results["tuning"]["digits"]["beta_vae"]["chosen"] == {"beta": 16}
    assert {cell["status"] for cell in results["cells"]} == {"finished"}
    table = (tmp_path / "table.md").read_text()
    assert "digits/beta_vae/beta=4, a trial, failed: no finite gradient." in table


def test_an_error_of_the_code_is_a_failure_with_its_place(folder, monkeypatch):
    monkeypatch.setattr(runner, "evaluate_run", lambda *_, **__: {}["no_such_key"])
    assert cli.run(command(folder, seeds="4")) == 1
    reasons = {cell["reason"] for cell in results_of(folder)["cells"]}
    assert len(reasons) == 1
    assert "KeyError: 'no_such_key'" in reasons.pop()


def test_a_comparison_that_is_stopped_says_how_to_go_on(folder, monkeypatch, capsys):
    def stop(*_, **__):
        raise loop.Interrupted(3)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    for name, replaced, function in (("train", loop, stop), ("evaluate_run", runner, interrupt)):
        monkeypatch.setattr(replaced, name, function)
        words = command(folder, seeds="03")
        assert cli.run(words) == 130
        said = capsys.readouterr().err
        assert "stopped at digits/ae/seed3" in said
        assert f"go on with: avae {' '.join(words)}" in said
        statuses = [cell["status"] for cell in results_of(folder)["cells"]]
        begun = "begun" if name == "train" else "trained"
        assert statuses == ["finished", "finished", begun, "waiting"]
        monkeypatch.setattr(loop, "train", fake_train)


def test_what_is_evaluated_otherwise_is_evaluated_again_and_not_trained(folder, monkeypatch):
    seen = []

    def see(run, *, num_images, **options):
        seen.append(num_images)
        fake_evaluate(run, **options)

    monkeypatch.setattr(loop, "train", None)
    monkeypatch.setattr(runner, "evaluate_run", see)
    # A method has a field of this name too.
    words = command(folder, "--num-images", "50", "--num-samples", "40", "--only", "ae", seeds="0")
    assert cli.run(words) == 0
    assert seen == [50]
    evaluated = [cell["evaluation"]["num_images"] for cell in results_of(folder)["cells"]]
    assert evaluated == [50, 10_000]
    note = "with num_images=10000 and not 50, with num_samples=10000 and not 40: vae/seed0."
    assert note in (folder / "table.md").read_text()


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        ({"num_images": 5}, "num_images must be an integer of at least 20, got 5"),
        ({"iwae_samples": 0}, "iwae_samples must be an integer of at least 1, got 0"),
        ({"factors": "nope"}, "factors must be one of .*, got 'nope'"),
        ({"classifier": "none.npz"}, "none.npz"),
        ({"inception_weights": "none.npz"}, "none.npz"),
    ],
)
def test_an_evaluation_that_cannot_be_is_refused_before_anything_is_trained(
    evaluation, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "train", None)
    with pytest.raises((ValueError, OSError), match=message):
        av.compare(["digits"], methods=["ae"], evaluation=evaluation, output=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_another_device_finds_the_costs_and_is_named(folder, monkeypatch):
    """That of a cell is the one that it was evaluated on."""
    device = jax.devices()[0].device_kind
    costs = json.loads((folder / "costs.json").read_text())
    assert all(key.endswith(f" {device}") for key in costs)
    moved = {key.replace(device, "TPU v9"): cost for key, cost in costs.items()}
    (folder / "costs.json").write_text(json.dumps(moved))
    place = folder / results_of(folder)["cells"][0]["folder"] / "evaluation/summary.json"
    summary = json.loads(place.read_text())
    summary["about"] |= {"device": "TPU v9", "versions": {"avae_jax": "0.0.9"}}
    place.write_text(json.dumps(summary))
    assert cli.run(command(folder)) == 0
    results = results_of(folder)
    assert [cell["cost"] for cell in results["cells"]] == [COST] * 4
    assert results["devices"] == ["TPU v9", "cpu"]
    table = (folder / "table.md").read_text()
    assert "- Evaluated on TPU v9: ae/seed0." in table
    assert "- Evaluated by avae_jax 0.0.9: ae/seed0." in table
    assert "TPU v9, cpu" in (folder / "comparison.html").read_text()


def test_all_that_is_refused_is_listed_before_anything_is_trained(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loop, "train", None)
    words = ["compare", "digits", "--methods", "ae", "avae", "factor_vae", "--batch-size", "96",
             "--num-centers", "5000", "--latent-dim", "1", "--output", str(tmp_path)]  # fmt: skip
    assert cli.run(words) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("avae compare: error: digits/avae: num_centers=5000")
    assert second.startswith("avae compare: error: digits/factor_vae: latent_dim=1")
    assert not (tmp_path / "runs").exists()


def test_a_folder_of_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("")
    assert cli.run(command(tmp_path)) == 2
    assert "output must be empty or hold a comparison" in capsys.readouterr().err


def test_a_file_is_a_whole_plan(folder, tmp_path, capsys):
    path = tmp_path / "plan.toml"
    path.write_text(
        'experiments = ["digits"]\nmethods = ["ae", "vae"]\nseeds = [0, 1]\nreference = "ae"\n'
        "[fields]\nnum_epochs = 1\nbatch_size = 96\nwidth = 0.25\n"
    )
    before = results_of(folder)
    assert cli.run(["compare", str(path), "--quick", "--output", str(folder)]) == 0
    assert results_of(folder) == before
    capsys.readouterr()
    assert cli.run(["compare", str(path), "--num-epochs", "3"]) == 2
    assert f"num_epochs must not be given beside {path}" in capsys.readouterr().err
    with pytest.raises(ValueError, match="seeds must not be given beside .*plan.toml"):
        av.compare(str(path), seeds=[1])
    with pytest.raises(ValueError, match="'quik' of evaluation; did you mean 'quick'"):
        av.compare(["digits"], methods=["ae"], evaluation={"quik": True}, output=folder)
    with pytest.raises(ValueError, match="only must fit a cell, got x: name one such as digits/ae"):
        api.compare(["digits"], methods=["ae"], only=["x"], output=folder)


def test_programs_are_kept_unless_the_user_keeps_them(tmp_path, monkeypatch):
    name = "jax_compilation_cache_dir"
    before = getattr(jax.config, name)
    with runner.compiled_programs(tmp_path / "own"):
        assert getattr(jax.config, name) == before
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    jax.config.update(name, None)
    try:
        with runner.compiled_programs(tmp_path / "kept"):
            jax.jit(lambda x: 3 * x + 17)(np.ones(5))
        assert getattr(jax.config, name) is None
        assert any((tmp_path / "kept").iterdir())
    finally:
        jax.config.update(name, before)
        compilation_cache.reset_cache()
