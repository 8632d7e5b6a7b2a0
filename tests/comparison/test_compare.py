"""The command: cells that are done, begun, failed, refused and stopped, and what it writes."""

import json

import numpy as np
import pytest

from avae_jax import cli
from avae_jax.comparison import api, runner
from avae_jax.comparison.results import is_number
from avae_jax.training import loop

pytestmark = pytest.mark.usefixtures("quick_compiler")

FIELDS = ["--num-epochs", "1", "--batch-size", "96", "--width", "0.25"]
METHODS = ["--methods", "ae", "vae", "--reference", "ae", "--quick"]


def command(folder, *more, seeds="01"):
    return ["compare", "digits", *METHODS, "--seeds", *seeds, *FIELDS, *more,
            "--output", str(folder)]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A comparison of two methods and two seeds that has ended."""
    folder = tmp_path_factory.mktemp("compare") / "small"
    assert cli.run(command(folder)) == 0
    return folder


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def test_every_cell_is_a_run_and_has_its_numbers(folder):
    results = results_of(folder)
    assert len(results["cells"]) == 4
    for cell in results["cells"]:
        assert cell["status"] == "finished"
        place = folder / cell["folder"]
        assert cell["folder"] == (
            f"runs/digits/{cell['label']}/seed{cell['seed']}-{cell['config_hash'][:8]}"
        )
        summary = json.loads((place / "summary.json").read_text())
        numbers = cell["numbers"]
        assert numbers["mse"]["value"] == summary["reconstruction"]["mse"]
        assert numbers["mse"]["null"] == summary["reconstruction"]["mse_null"]
        assert numbers["kde_kl"]["value"] == summary["latent"]["density"]["kde_kl"]
        assert numbers["fd"] == {
            "value": None, "null": None, "reason": "not computed: left out by --quick",
        }  # fmt: skip
        assert cell["seconds"]["training"] > 0
        cost = cell["cost"]
        assert (cost["same_start"], cost["flops_at_least"]) == (True, False)
        assert 1.0 <= cost["relative_flops"] < 1.5
        assert cost["relative_seconds"] > 0.1
        assert cost["parameters"] > cost["sampling_parameters"] > 0
        assert cell["versions"]["jax"]
        assert cell["device"]
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["hash"] == results["plan_hash"]


def test_the_table_is_of_the_cells(folder):
    results = results_of(folder)
    column = next(one for one in results["table"]["digits"] if one["key"] == "mse")
    for label, row in column["methods"].items():
        values = [cell["numbers"]["mse"]["value"] for cell in results["cells"]
                  if cell["label"] == label]  # fmt: skip
        np.testing.assert_allclose(
            [row["mean"], row["std"]], [np.mean(values), np.std(values, ddof=1)]
        )
    difference = column["methods"]["vae"]["difference"]
    assert "difference" not in column["methods"]["ae"]
    assert difference["least_p"] == 0.5 <= difference["p"] <= difference["p_holm"]
    assert is_number(difference["low"])


def test_the_outputs_hold_the_numbers_and_claim_too_much_of_none(folder):
    table = (folder / "table.md").read_text()
    page = (folder / "comparison.html").read_text()
    lines = table.splitlines()
    assert lines[0].startswith("| method | seeds |")
    assert [line.split("|")[1].strip() for line in lines[2:4]] == ["ae", "vae"]
    assert len({len(line) for line in lines[:4]}) == 1
    assert "FD of samples: not computed (left out by --quick)." in table
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert page.count("data:image/png") == 3
    assert "0.500 at the least with 2 seeds" in page
    for text in (table, page):
        assert "significant" not in text
        assert "http" not in text


def test_what_is_done_is_not_done_again(folder, monkeypatch, capsys):
    def refuse(*_, **__):
        raise AssertionError

    monkeypatch.setattr(loop, "train", refuse)
    monkeypatch.setattr(runner, "evaluate_run", refuse)
    assert cli.run(command(folder)) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "reconstruction error" in captured.out
    # A plan that shrinks or grows has the same cells.
    assert cli.run(command(folder, seeds="1")) == 0
    assert len(results_of(folder)["cells"]) == 2
    assert "One seed" in (folder / "table.md").read_text()
    assert cli.run(command(folder, "--only", "ae", "--only-nothing-else")) == 2


def test_a_cell_that_fails_takes_no_other_along_and_is_tried_again(folder, monkeypatch, capsys):
    train, tried = loop.train, []

    def fail(config, run_dir, **_):
        tried.append(f"{config.method.name}{config.optimization.seed}")
        raise loop.TrainingError("no finite gradient: lower it")

    monkeypatch.setattr(loop, "train", fail)
    assert cli.run(command(folder, seeds="012")) == 1
    assert tried == ["ae2", "vae2"]
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("[5/6] digits/ae/seed2: failed: no finite gradient: lower it")
    assert len(said) == 2
    failed = [cell for cell in results_of(folder)["cells"] if cell["status"] == "failed"]
    assert [cell["reason"] for cell in failed] == ["no finite gradient: lower it"] * 2
    assert "digits/vae/seed2 failed: no finite gradient" in (folder / "table.md").read_text()
    assert "This cell failed." in (folder / "comparison.html").read_text()
    # The next call tries again, and only what was asked for.
    monkeypatch.setattr(loop, "train", lambda *a, **k: (tried.append("again"), train(*a, **k)))
    assert cli.run(command(folder, "--only", "digits/ae/*", seeds="012")) == 1
    assert tried[2:] == ["again"]
    statuses = [cell["status"] for cell in results_of(folder)["cells"]]
    assert statuses == ["finished"] * 5 + ["failed"]


def test_a_comparison_that_is_stopped_says_how_to_go_on(folder, monkeypatch, capsys):
    def stop(*_, **__):
        raise loop.Interrupted(3)

    monkeypatch.setattr(loop, "train", stop)
    words = command(folder, seeds="03")
    assert cli.run(words) == 130
    said = capsys.readouterr().err
    assert "stopped at digits/ae/seed3" in said
    assert f"go on with: avae {' '.join(words)}" in said
    statuses = [cell["status"] for cell in results_of(folder)["cells"]]
    assert statuses == ["finished", "finished", "begun", "waiting"]


def test_what_is_evaluated_otherwise_is_evaluated_again_and_not_trained(folder, monkeypatch):
    seen = []
    monkeypatch.setattr(loop, "train", None)
    monkeypatch.setattr(runner, "evaluate_run", lambda run, **options: seen.append(options))
    assert cli.run(command(folder, "--num-images", "50", "--only", "ae", seeds="0")) == 0
    assert [options["num_images"] for options in seen] == [50]
    monkeypatch.undo()
    assert cli.run(command(folder, seeds="0")) == 0


def test_all_that_is_refused_is_listed_before_anything_is_trained(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loop, "train", None)
    words = ["compare", "digits", "--methods", "ae", "avae", "factor_vae", *FIELDS, "--num-centers",
             "5000", "--latent-dim", "1", "--output", str(tmp_path / "x")]  # fmt: skip
    assert cli.run(words) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("avae compare: error: digits/avae: num_centers=5000")
    assert second.startswith("avae compare: error: digits/factor_vae: latent_dim=1")
    assert not (tmp_path / "x" / "runs").exists()


def test_a_folder_of_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("")
    assert cli.run(command(tmp_path)) == 2
    assert "output must be empty or hold a comparison" in capsys.readouterr().err


def test_from_python(folder):
    """The same plan in words of Python is the same comparison."""
    import avae_jax as av

    results = av.compare(
        ["digits"], methods=["ae", "vae"], seeds=range(2), reference="ae", output=folder,
        evaluation=runner.Evaluation(quick=True), num_epochs=1, batch_size=96, width=0.25,
    )  # fmt: skip
    assert [cell["status"] for cell in results["cells"]] == ["finished"] * 4
    with pytest.raises(ValueError, match="seeds must not be given beside plan.toml"):
        av.compare("plan.toml", seeds=[1])
    with pytest.raises(ValueError, match="only must fit a cell, got x: name one such as digits/ae"):
        api.compare(["digits"], methods=["ae"], only=["x"], output=folder)
