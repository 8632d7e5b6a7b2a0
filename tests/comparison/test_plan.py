"""Plans: read, hashed, refused; and the cells they stand for."""

import json

import pytest

from avae_jax.comparison.cells import RefusedError, make_cells
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
        "presets = {'vae': {'num_epochs': 99, 'learning_rate': 0.25}}\n"
    )
    notes = []
    plan = make_plan([str(tmp_path / "mine.py")], ["ae", "vae"], [0])
    plain, vae = make_cells(plan, notes.append)
    assert plain.config.optimization.patience is None
    assert vae.config.optimization.num_epochs == 7
    assert vae.config.optimization.learning_rate == 0.25
    assert notes == [
        "mine: patience is left out, so that all methods take equal steps",
        "mine: num_epochs=7 for vae too, not its preset's",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"experiments": []}, "experiments must name at least one, got none"),
        ({"experiments": ["digts"]}, "unknown experiment 'digts'; did you mean 'digits'"),
        ({"experiments": ["digits", "a/digits.py"]}, "names of their own, got two digits"),
        ({"methods": ["vea"]}, "unknown method 'vea'; did you mean 'vae'"),
        ({"methods": ["vae", "vae"]}, "methods must each be given once, got vae twice"),
        ({"methods": "vae"}, "methods must be a list of names, got 'vae': write a list"),
        ({"methods": {"vae": 3}}, "methods must hold fields by name, got 3 for vae"),
        ({"seeds": [1, 1]}, "seeds must each be given once, got 1, 1"),
        ({"seeds": [-1]}, "seeds must be an integer of at least 0, got -1"),
        ({"reference": "avea"}, "reference must be one of the methods compared, got 'avea'"),
        ({"fields": {"latent_dmi": 3}}, "got 'latent_dmi'; did you mean 'latent_dim'"),
        ({"fields": {"seed": 3}}, "seed must be given as seeds, got a field: leave it out"),
        ({"methods": ["ae"], "fields": {"tail": "none"}}, "of one of the methods compared, got"),
        ({"methods": {"vae": {"num_epochs": 3}}}, "num_epochs must be the same for all methods"),
    ],
)
def test_plans_that_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_plan(**{"experiments": ["digits"], **arguments})


def test_every_cell_that_cannot_be_run_has_its_line():
    methods = {"ae": {}, "beta_vae": {}, "vae": {"noise_scale": -1.0}}
    with pytest.raises(RefusedError) as refused:
        make_cells(make_plan(["digits"], methods))
    first, second = refused.value.lines
    assert first.startswith("digits/beta_vae: beta=None")
    assert second.startswith("digits/vae: noise_scale=-1.0")


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
