"""Configurations: checks, names, JSON and what makes a run another run."""

import dataclasses
import json

import pytest

from avae_jax.methods import METHODS
from avae_jax.training import config as cfg

BASE = cfg.configure(tail="none")


def test_every_experiment_is_runnable():
    names = cfg.experiment_names()
    assert {"digits", "mnist", "cifar10", "celeb_a", "dsprites", "shapes3d"} <= set(names)
    for name in names:
        config = cfg.load_experiment(name)
        cfg.check_config(config)
        assert config.experiment == name
        assert cfg.from_dict(json.loads(json.dumps(cfg.to_dict(config)))) == config


def test_every_preset_is_runnable():
    for name in cfg.experiment_names():
        own, presets = cfg.read_experiment(name)
        for method, fields in presets.items():
            config = cfg.load_experiment(name, method)
            cfg.check_config(config)
            assert {field: getattr(config.method, field) for field in fields} == fields
            assert dataclasses.replace(config, method=own.method) == own
    assert cfg.load_experiment("mnist", "wae").method.weight == 200


def test_presets_are_read_with_their_file(tmp_path):
    """They stand where the defaults do: what a user gives replaces them, and mistakes are named."""
    file = tmp_path / "mine.py"
    text = "from avae_jax.training.config import configure\nconfig = configure(latent_dim=3)\n"
    file.write_text(text + "presets = {'beta_vae': {'beta': 6.0, 'num_epochs': 7}}\n")
    config = cfg.load_experiment(str(file), "beta_vae")
    assert (config.method.beta, config.optimization.num_epochs) == (6.0, 7)
    assert config.model.latent_dim == cfg.load_experiment(str(file), "vae").model.latent_dim == 3
    file.write_text(text + "presets = {'beta_vaes': {}}\n")
    with pytest.raises(cfg.ConfigError, match="unknown method 'beta_vaes'.*beta_vae"):
        cfg.load_experiment(str(file))
    file.write_text(text + "presets = {'beta_vae': {'betas': 6.0}}\n")
    with pytest.raises(cfg.ConfigError, match="betas"):
        cfg.load_experiment(str(file), "beta_vae")


def test_field_names_are_unique():
    for method in METHODS:
        config = cfg.replace_fields(cfg.Config(), method=method)
        parts = cfg.sections_of(config).values()
        total = sum(len(dataclasses.fields(part)) for part in parts)
        assert len(cfg.section_of_field(config)) == total


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"latent_dim": 0}, "latent_dim=0: give at least 1"),
        ({"width": -1.0}, "width=-1.0: give a number > 0"),
        ({"beta": 0.0}, "beta=0.0: give a number > 0"),
        ({"beta": float("nan")}, "beta=nan"),
        ({"weight": -2.0}, "weight=-2.0"),
        ({"weight": "bits"}, "weight must be nats, log10 or a number, got 'bits': choose one"),
        ({"max_cdf": 1.0}, "max_cdf=1.0: give a probability"),
        (
            {"method": "vae", "beta": 4.0},
            "beta has no effect with method vae: leave it out, or use",
        ),
        ({"likelihood": "bernoulli", "activation": "tanh"}, "activation=tanh: likelihood"),
        ({"tail": "auto"}, "tail must be one of none, official, got 'auto': choose one"),
        ({"method": "beta_vae"}, "beta=None: method beta_vae needs"),
        ({"bandwidth": 0.0}, "bandwidth=0.0: give a number between 0 and 1"),
        ({"bandwidth": -1.0}, "bandwidth=-1.0"),
        ({"bandwidth": 1.2}, "bandwidth=1.2"),
        ({"num_centers": 1}, "num_centers=1: give at least 2"),
        ({"refresh_every": 0}, "refresh_every=0"),
        ({"batch_size": 1}, "batch_size=1"),
        ({"num_epochs": 0}, "num_epochs=0"),
        ({"patience": 0}, "patience=0: give at least 1"),
        ({"patience": 2, "validate_every": 3}, "patience=2: it is less than validate_every"),
        ({"validate_every": 0}, "validate_every=0: give at least 1"),
        ({"checkpoint_every": 0.0}, "checkpoint_every=0.0: give a number > 0"),
        ({"num_epochs": 1.5}, "num_epochs must be a whole number, got 1.5: give one"),
        (
            {"norm": "batc"},
            "norm must be one of batch, group, none, got 'batc': did you mean 'batch'",
        ),
        ({"data_path": 3}, "data_path must be a text, got 3: give one"),
        ({"learning_rate": float("inf")}, "learning_rate=inf"),
        ({"clip_norm": 0.0}, "clip_norm=0.0"),
        ({"plateau_factor": 1.0}, "plateau_factor=1.0"),
        ({"plateau_patience": 0}, "plateau_patience=0"),
        ({"ema_decay": 1.0}, "ema_decay=1.0"),
        ({"latent_dim": "8"}, "latent_dim must be a whole number, got '8'"),
        ({"latent_dim": True}, "latent_dim must be a whole number, got True"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(cfg.ConfigError, match=message.replace("(", r"\(")):
        cfg.check_config(cfg.replace_fields(BASE, **fields))


def test_the_floor_follows_the_dimensions():
    for latent_dim, gap in ((8, 1e-6), (16, 1e-4), (64, 1e-2), (128, 1e-1)):
        config = cfg.configure(latent_dim=latent_dim)
        assert 1 - config.method.floor_at(latent_dim) == pytest.approx(gap)
    assert cfg.configure(max_cdf=0.3).method.floor_at(8) == 0.3
    assert BASE.method.floor_at(8) is None
    cfg.check_config(cfg.Config())


def test_integers_pass_for_floats():
    cfg.check_config(cfg.replace_fields(BASE, width=1, weight=2))


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(cfg.ConfigError, match="unknown field 'latent_dmi'; did you mean 'latent_d"):
        cfg.replace_fields(BASE, latent_dmi=3)
    with pytest.raises(cfg.ConfigError, match="unknown experiment 'mnits'; did you mean 'mnist'"):
        cfg.load_experiment("mnits")
    with pytest.raises(cfg.ConfigError, match="unknown section 'modle'; did you mean 'model'"):
        cfg.from_dict({"modle": {}})
    with pytest.raises(cfg.ConfigError, match="unknown field 'widht'; did you mean 'width'"):
        cfg.from_dict({"model": {"widht": 1.0}})


def test_experiment_files(tmp_path):
    good = tmp_path / "mine.py"
    good.write_text("from avae_jax.training.config import Config\nconfig = Config()\n")
    assert cfg.load_experiment(str(good)).experiment == "mine"
    bad = tmp_path / "empty.py"
    bad.write_text("x = 1\n")
    with pytest.raises(cfg.ConfigError, match="defines no `config`"):
        cfg.load_experiment(str(bad))
    broken = tmp_path / "broken.py"
    broken.write_text("x = 1\ndef (\n")
    with pytest.raises(cfg.ConfigError, match=r"broken.py.: SyntaxError: .*line 2"):
        cfg.load_experiment(str(broken))
    broken.write_text("import no_such_module\n")
    with pytest.raises(cfg.ConfigError, match="broken.py.: ModuleNotFoundError"):
        cfg.load_experiment(str(broken))
    with pytest.raises(cfg.ConfigError, match="does not exist"):
        cfg.load_experiment(str(tmp_path / "none.py"))


def test_config_files(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(cfg.to_dict(BASE)))
    assert cfg.load_config(path) == BASE
    path.write_text("{")
    with pytest.raises(cfg.ConfigError, match="is not JSON"):
        cfg.load_config(path)
    with pytest.raises(cfg.ConfigError, match="is not a run folder"):
        cfg.load_config(tmp_path / "none" / "config.json")


def test_a_change_of_method_keeps_what_all_methods_have():
    config = cfg.configure(likelihood="bernoulli", beta=3.0, latent_dim=5)
    changed = cfg.replace_fields(config, method="ae")
    assert changed.method == METHODS["ae"](likelihood="bernoulli")
    assert changed.model.latent_dim == 5
    assert cfg.replace_fields(config, method="avae").method == config.method
    with pytest.raises(cfg.ConfigError, match="unknown method 'avea'; did you mean 'avae'"):
        cfg.replace_fields(config, method="avea")


def test_the_format_before_is_refused():
    with pytest.raises(cfg.ConfigError, match="format before 2.*train again"):
        cfg.from_dict({"objective": {"method": "avae"}})


def test_differences():
    assert cfg.differences(BASE, BASE) == []
    longer = cfg.replace_fields(BASE, num_epochs=99, data_dir="elsewhere")
    assert cfg.differences(BASE, longer) == []
    assert cfg.differences(BASE, cfg.replace_fields(BASE, latent_dim=9)) == ["latent_dim: 8 -> 9"]
    assert cfg.differences(BASE, cfg.replace_fields(BASE, method="vae")) == ["method: avae -> vae"]
    cosine = cfg.replace_fields(BASE, schedule="cosine")
    assert cfg.differences(cosine, cfg.replace_fields(cosine, num_epochs=99))
