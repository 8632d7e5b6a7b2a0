"""Plans: read, hashed, refused; and the cells they stand for."""

import json
from pathlib import Path

import numpy as np
import pytest

from avae_jax.comparison.cells import Data, RefusedError, find_refused, make_cells, make_trials
from avae_jax.comparison.plan import make_plan, read_plan
from avae_jax.methods import METHODS
from avae_jax.training.config import ConfigError

FILE = """
experiments = ["digits"]
seeds = [1, 0]
reference = "plain"
[fields]
num_epochs = 3
[methods.plain]
method = "ae"
[methods.vae]
[methods.beta_vae]
beta = 4.0
"""


def test_a_file_is_the_same_plan_as_words(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(FILE)
    plan = read_plan(path)
    methods = {"plain": {"method": "ae"}, "vae": {}, "beta_vae": {"beta": 4.0}}
    same = make_plan(["digits"], methods, [1, 0], {"num_epochs": 3}, "plain")
    assert plan == same
    assert plan.hash == make_plan(**json.loads(json.dumps(plan.to_dict()))).hash
    assert plan.hash != make_plan(["digits"], methods, [0], {"num_epochs": 3}, "plain").hash
    cells = make_cells(plan)
    assert [cell.name for cell in cells][:4] == [
        "digits/plain/seed1", "digits/vae/seed1", "digits/beta_vae/seed1", "digits/plain/seed0",
    ]  # fmt: skip
    assert cells[0].config.method.name == "ae"
    assert {cell.config.optimization.num_epochs for cell in cells} == {3}
    assert len({cell.hash for cell in cells}) == 6
    assert len({cell.seedless_hash for cell in cells}) == 3
    assert cells[0].fits(["plain"])
    assert cells[0].fits(["digits/*/seed1"])
    assert not cells[0].fits(["vae", "seed0"])


def test_a_hash_depends_on_what_decides_the_result_alone():
    def cell(**fields):
        return make_cells(make_plan(["digits"], ["ae"], [0], fields))[0]

    assert cell().hash == cell(checkpoint_every=5.0).hash
    assert cell().hash != cell(learning_rate=0.5).hash
    assert cell().folder.name == f"seed0-{cell().hash[:8]}"


def test_all_methods_are_compared_where_none_is_named():
    assert [*make_plan(["digits"]).methods] == [*METHODS]


def test_images_and_steps_are_equal_and_nothing_ends_early(tmp_path):
    """Whatever a preset says, and with a line about it."""
    (tmp_path / "mine.py").write_text(
        "from avae_jax.training.config import configure\n"
        "config = configure(dataset='digits', architecture='digits', method='ae', batch_size=50,"
        " num_epochs=7, patience=2)\n"
        "presets = {'vae': {'num_epochs': 99, 'learning_rate': 0.25, 'validation_size': 9,"
        " 'latent_dim': 3}}\n"
    )
    notes = []
    plan = make_plan([str(tmp_path / "mine.py")], ["ae", "vae"], [0])
    plain, vae = make_cells(plan, lambda *note: notes.append(note))
    assert plain.config.optimization.patience is None
    assert vae.config.optimization.num_epochs == 7
    assert vae.config.optimization.learning_rate == 0.25
    assert notes == [
        ("mine", "patience is left out, so that all methods take equal steps"),
        ("mine", "num_epochs=7 for vae too, not its preset's"),
        ("mine", "validation_size=None for vae too, not its preset's"),
        ("mine", "latent_dim differs: 8 for ae; 3 for vae"),
    ]
    assert vae.config.data == plain.config.data


def test_what_is_not_equal_is_said():
    methods = {"vae": {}, "beta_vae": {"noise_scale": 0.5}, "avae": {}, "wae": {"width": 0.5}}
    notes = []
    plan = make_plan(["digits"], methods, [0], {"beta": 4.0, "latent_dim": 4})
    make_cells(plan, lambda *note: notes.append(note[1]))
    assert notes == [
        "beta=4 is set for beta_vae, avae, which may mean different things by it; for one alone, a "
        "plan's file has [methods.LABEL] beta",
        "width differs: 0.5 for wae; 2.0 for vae, beta_vae, avae",
        "noise_scale differs: measured for vae; 0.5 for beta_vae",
    ]


def test_methods_that_nobody_named_may_be_refused(tmp_path, monkeypatch):
    """They are left out with the reason, the reference is not."""
    some = {name: METHODS[name] for name in ("avae", "vae", "beta_vae")}
    monkeypatch.setattr("avae_jax.comparison.plan.METHODS", some)
    (tmp_path / "mine.py").write_text(
        "from avae_jax.training.config import configure\n"
        "config = configure(dataset='digits', architecture='digits', method='vae', batch_size=96)\n"
    )
    path = str(tmp_path / "mine.py")
    plan = make_plan([path], (), [0])
    left_out = find_refused(plan, Data())
    assert [*left_out["mine"]] == ["beta_vae"]
    notes = []
    cells = make_cells(plan, lambda *note: notes.append(note), left_out=left_out)
    assert [cell.label for cell in cells] == ["avae", "vae"]
    assert notes[0][1].startswith("beta_vae is left out: beta=None: method beta_vae needs")
    # Images that are not there would be missing for all: one line says it.
    with pytest.raises(RefusedError) as refused:
        find_refused(make_plan([path], (), [0], {"num_centers": 5000}), Data())
    assert len(refused.value.lines) == 1
    assert refused.value.lines[0].startswith("mine/avae: num_centers=5000")
    named = make_plan([path], ["vae", "beta_vae"], [0])
    assert find_refused(named, Data()) == {}
    with pytest.raises(RefusedError, match="mine/beta_vae"):
        make_cells(named)
    again = make_plan(**plan.to_dict())
    assert again == plan
    assert named.to_dict().keys() == plan.to_dict().keys() - {"is_every"}


def test_a_users_file_that_changes_is_another_run(tmp_path):
    path, nets = tmp_path / "mine.py", tmp_path / "nets.py"
    text = (
        "from avae_jax.training.config import configure\n"
        "config = configure(dataset='digits', architecture='digits', method='ae')\n"
    )

    def cell_of(experiment, **fields):
        return make_cells(make_plan([experiment], ["ae"], [0], fields))[0]

    path.write_text(text)
    before = cell_of(path).hash
    assert cell_of(path).hash == before
    path.write_text(text + "# A loss that is another one.\n")
    assert cell_of(path).hash != before
    nets.write_text("one")
    before = cell_of("digits", encoder=f"{nets}:Encoder")
    nets.write_text("two")
    assert cell_of("digits", encoder=f"{nets}:Encoder").hash != before.hash
    # A cell goes on as what it began as.
    assert before.folder.name.endswith(before.hash[:8])


def test_values_of_python_are_those_of_a_file(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(
        f'experiments = ["digits"]\nmethods = ["ae", "vae"]\nseeds = [1]\n[fields]\n'
        f'data_dir = "{tmp_path}"\nnum_epochs = 3\n[tune.vae]\nnoise_scale = [0.5, 1.0]\n'
    )
    fields = {"data_dir": tmp_path, "num_epochs": np.int64(3)}
    tune = {"vae": {"noise_scale": [np.float64(0.5), np.float64(1.0)]}}
    plan = make_plan([Path("digits")], ["ae", "vae"], np.array([1]), fields, tune=tune)
    assert plan == read_plan(path)
    assert plan.hash == read_plan(path).hash
    make_cells(plan)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"experiments": []}, "experiments must name at least one, got none"),
        ({"experiments": ["digts"]}, "unknown experiment 'digts'; did you mean 'digits'"),
        ({"experiments": ["digits", "a/digits.py"]}, "names of their own, got two digits"),
        ({"methods": ["vea"]}, "unknown method 'vea'; did you mean 'vae'"),
        ({"methods": ["vae", "vae"]}, "methods must each be given once, got vae twice"),
        ({"methods": "vae"}, "methods must be a list of names, got 'vae': write a list"),
        ({"methods": {"a b": {"method": "ae"}}}, "methods must have labels of letters, .* 'a b'"),
        ({"methods": {"..": {"method": "ae"}}}, "methods must have labels of letters, .* '..'"),
        ({"methods": {"vae": 3}}, "methods must hold fields by name, got 3 for vae"),
        ({"seeds": [1, 1]}, "seeds must each be given once, got 1, 1"),
        ({"seeds": [-1]}, "seeds must be an integer of at least 0, got -1"),
        ({"reference": "avea"}, "reference must be one of the methods compared, got 'avea'"),
        ({"fields": {"latent_dmi": 3}}, "got 'latent_dmi'; did you mean 'latent_dim'"),
        ({"fields": {"seed": 3}}, "seed must be given as seeds, got a field: leave it out"),
        ({"methods": ["ae"], "fields": {"tail": "none"}}, "of one of the methods compared, got"),
        ({"methods": {"vae": {"num_epochs": 3}}}, "num_epochs must be the same for all methods"),
        ({"tune": {"avea": {"beta": [1, 2]}}}, "tune must name methods compared, got 'avea'"),
        ({"tune": {"vae": {"beta": [1, 2]}}}, "tune must name fields of vae, got 'beta'"),
        ({"tune": {"vae": {"batch_size": [8, 9]}}}, "batch_size must be the same for all methods"),
        ({"tune": {"vae": [1, 2]}}, "tune must hold fields by name, got .1, 2. for vae"),
        ({"tune": {"vae": {"noise_scale": 1.0}}}, "vae.noise_scale must be a list of values"),
        ({"tune": {"vae": {"noise_scale": [1, 1]}}}, "each once, got .1, 1.: write one"),
        ({"tune": {"vae": {"noise_scale": [1]}}}, "must try several values, got 1 for vae"),
        (
            {"tune": {"vae": {"noise_scale": [1, 2]}, "wae": {"weight": [1, 2, 3]}}},
            "as many values for every method, got 2 for vae and 3 for wae: give as many",
        ),
        (
            {"tune": {"vae": {"noise_scale": [1, 2]}}, "fields": {"noise_scale": 1}},
            "noise_scale of vae must be given or tuned, got both: leave one out",
        ),
        ({"judge": "fid"}, "judge must be one of fd, mse, moment_kl, kde_kl, got 'fid'"),
    ],
)
def test_plans_that_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_plan(**{"experiments": ["digits"], **arguments})


def test_every_cell_that_cannot_be_run_has_its_line():
    methods = {"ae": {}, "beta_vae": {"beta": -1.0}, "vae": {"noise_scale": -1.0}}
    with pytest.raises(RefusedError) as refused:
        make_cells(make_plan(["digits"], methods))
    first, second = refused.value.lines
    assert first.startswith("digits/beta_vae: beta=-1.0")
    assert second.startswith("digits/vae: noise_scale=-1.0")


def test_trials_are_all_combinations_as_many_for_every_method(tmp_path):
    tune = {
        "beta_vae": {"beta": [1.0, 8.0], "noise_scale": [0.5, 1.0]},
        "wae": {"weight": [*"abcd"]},
    }
    plan = make_plan(["digits"], ["ae", "beta_vae", "wae"], [3, 1], tune=tune)
    assert plan.num_trials == 4
    assert plan.trials_of("ae") == [{}]
    assert plan.trials_of("beta_vae")[1] == {"beta": 1.0, "noise_scale": 1.0}
    with pytest.raises(RefusedError) as refused:
        make_trials(plan)
    assert len(refused.value.lines) == 4
    assert refused.value.lines[0].startswith("digits/wae/weight=a: weight must be")
    tune["wae"] = {"weight": [1, 2, 3, 4]}
    plan = make_plan(["digits"], ["ae", "beta_vae", "wae"], [3, 1], tune=tune, judge="mse")
    trials = make_trials(plan)
    assert [trial.name for trial in trials][3:5] == [
        "digits/beta_vae/seed3/beta=8, noise_scale=1", "digits/wae/seed3/weight=1",
    ]  # fmt: skip
    assert trials[2].config.method.beta == 8.0
    # Values are known of the methods that are done; the first trial stands for others in a check.
    cells = make_cells(plan, choices={("digits", "wae"): {"weight": 3}})
    assert [cell.name for cell in cells] == [
        f"digits/{label}/seed{seed}" for seed in (3, 1) for label in ("ae", "wae")
    ]
    assert cells[1].folder == trials[6].folder
    assert cells[1].evaluation_folder != trials[6].evaluation_folder
    assert len(make_cells(plan)) == 6
    # In a file too; and what decides nothing is not in the hash.
    path = tmp_path / "plan.toml"
    path.write_text(
        'experiments = ["digits"]\nmethods = ["ae", "beta_vae", "wae"]\nseeds = [3, 1]\n'
        'judge = "mse"\n[tune.beta_vae]\nbeta = [1.0, 8.0]\nnoise_scale = [0.5, 1.0]\n'
        "[tune.wae]\nweight = [1, 2, 3, 4]\n"
    )
    assert read_plan(path) == plan == make_plan(**plan.to_dict())
    untuned = [make_plan(["digits"], judge=judge).hash for judge in ("fd", "mse")]
    assert untuned[0] == untuned[1] != plan.hash


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("experiments = [", "plan must be a TOML file"),
        ("experiment = ['digits']", "unknown entry 'experiment' in .*did you mean 'experiments'"),
        ("experiments = ['digits']\nseeds = 3", "seeds must be a list of whole numbers, got 3"),
    ],
)
def test_files_that_are_refused(text, message, tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_plan(path)
    with pytest.raises(ConfigError, match="plan must be a file that is there"):
        read_plan(tmp_path / "none.toml")
