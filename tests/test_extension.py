"""A loss, a posterior, a prior, a data set and a method of a user: one file and one line each.

The files are written as a user would write them, beside an experiment that registers them by one
line each. All else goes through the doors that everybody uses.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
from types import SimpleNamespace
from typing import Any, cast

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

import avae_jax as av
from avae_jax import cli
from avae_jax.data import DATASETS, load_dataset
from avae_jax.data.sprites_like import load_sprites_like
from avae_jax.evaluation import evaluate_run
from avae_jax.evaluation.likelihood import NOT_GAUSSIAN, describe_likelihood
from avae_jax.likelihoods import LIKELIHOODS, Bernoulli
from avae_jax.methods import METHODS, Batch, vae
from avae_jax.posteriors import POSTERIORS, Gaussian
from avae_jax.priors import PRIORS, StandardNormal
from avae_jax.training import config as cfg
from avae_jax.training import loop
from avae_jax.training.setup import make_setup
from avae_jax.training.writers import read_metrics

pytestmark = pytest.mark.usefixtures("quick_compiler")

FILES = {
    "my_loss.py": '''
"""A reconstruction loss that outliers do not rule: Huber's, as a density."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

DELTA = 0.5
MASS = math.sqrt(2 * math.pi) * math.erf(DELTA / math.sqrt(2)) + 2 / DELTA * math.exp(-DELTA**2 / 2)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Huber:
    name: ClassVar[str] = "huber"
    takes_logits: ClassVar[bool] = False

    def nll(self, x, outputs):
        return self.reconstruction(x, outputs) + math.prod(x.shape[1:]) * math.log(MASS)

    def reconstruction(self, x, outputs):
        far = jnp.abs(x - outputs)
        each = jnp.where(far < DELTA, far**2 / 2, DELTA * (far - DELTA / 2))
        return each.reshape(len(x), -1).sum(axis=1)

    def mean(self, outputs):
        return outputs
''',
    "my_posterior.py": '''
"""Codes with uniform noise."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Box:
    loc: jax.Array
    half_width: jax.Array

    def mean(self):
        return self.loc

    def sample(self, key):
        return self.loc + self.half_width * jax.random.uniform(key, self.loc.shape, minval=-1)

    def log_prob(self, z):
        inside = jnp.abs(z - self.loc) <= 1.0001 * self.half_width
        return jnp.where(inside, -jnp.log(2 * self.half_width), -jnp.inf).sum(axis=-1)

    def kl(self, prior):
        return None


class Uniform:
    name: ClassVar[str] = "uniform"
    stochastic: ClassVar[bool] = True

    def num_outputs(self, latent_dim):
        return 2 * latent_dim

    def __call__(self, head):
        loc, raw = jnp.split(head, 2, axis=-1)
        return Box(loc, jax.nn.softplus(raw) + 1e-3)
''',
    "my_prior.py": '''
"""A prior with heavy tails, whose place and scale are learned."""

import dataclasses

import jax
import jax.numpy as jnp

from avae_jax.priors import BasePrior


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Laplace(BasePrior):
    loc: jax.Array
    log_scale: jax.Array

    @classmethod
    def make(cls, latent_dim, key):
        return cls(jnp.zeros(latent_dim), jnp.zeros(latent_dim))

    @property
    def latent_dim(self):
        return self.loc.shape[-1]

    def log_prob(self, z):
        far = jnp.abs(z - self.loc) * jnp.exp(-self.log_scale)
        return -(far + self.log_scale + jnp.log(2.0)).sum(axis=-1)

    def sample(self, key, num_samples):
        noise = jax.random.laplace(key, (num_samples, self.latent_dim))
        return self.loc + jnp.exp(self.log_scale) * noise

    def describe(self):
        return "a Laplace distribution"

    def std(self):
        return float(jnp.sqrt(2 * jnp.exp(2 * self.log_scale).mean()))
''',
    "my_data.py": '''
"""Bars at random places, lying or standing."""

import numpy as np

from avae_jax.data import ImageData, draw_splits


def load_bars(*, seed=0, validation_size=None, test_size=None):
    rng = np.random.default_rng(0)
    places, labels = rng.integers(8, size=400), rng.integers(2, size=400)
    images = rng.integers(0, 30, (400, 8, 8, 1)).astype(np.uint8)
    for image, place, stands in zip(images, places, labels, strict=True):
        (image.swapaxes(0, 1) if stands else image)[place] = 255
    splits = draw_splits(
        {"train": 400}, seed=seed, validation_size=validation_size, test_size=test_size
    )
    return ImageData("bars", images, labels, splits, 2)
''',
    "my_method.py": '''
"""A VAE whose draws are pulled to the prior by a critic as well."""

import dataclasses

import jax

from avae_jax.methods import Output, Player, vae
from avae_jax.methods.method import make_coder, require_positive
from avae_jax.methods.networks import Network
from avae_jax.terms import Term


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(vae.Options):
    """A VAE and a critic who tells its codes from the prior's."""

    pull: float = 1.0
    """Multiplies what the critic says."""

    name = "adversary"

    def check(self):
        super().check()
        require_positive("pull", self.pull)

    def make(self, setting, facts=None):
        from avae_jax.models import MLPCritic

        coder = make_coder(
            setting, posterior=self.posterior, likelihood=self.likelihood,
            critic=Network(MLPCritic(width=8, num_layers=1), (setting.latent_dim,)),
        )
        return Adversary(options=self, setting=setting, coder=coder)


class Adversary(vae.VAE):
    terms = {**vae.TERMS, "fooled": Term(caption="The critic is fooled", unit="nats")}

    @property
    def players(self):
        return {
            "model": Player(parts=("encoder", "decoder", "prior", "likelihood")),
            "critic": Player(parts=("critic",), learning_rate=2e-3),
        }

    def losses(self, variables, memory, batch, key, *, step, train):
        of_code, of_prior = jax.random.split(key)
        nll, kl, terms, posterior, z, variables = self.forward(
            variables, batch, of_code, train=train
        )
        real = self.prior(variables).sample(of_prior, len(z))

        def judge(codes):
            return self.networks(variables, "critic", codes, train=train)[0]

        fooled = jax.nn.softplus(-judge(z))
        critic = jax.nn.softplus(-judge(jax.lax.stop_gradient(real)))
        critic += jax.nn.softplus(judge(jax.lax.stop_gradient(z)))
        losses = {"model": nll + kl + self.options.pull * fooled, "critic": critic}
        return Output(losses, {**terms, "fooled": fooled}, variables, posterior.mean())

    def criterion(self, terms):
        return terms["nll"] + terms["kl"]
''',
    "mine.py": '''
"""Bars by an adversary."""

from my_data import load_bars
from my_loss import Huber
from my_method import Options
from my_posterior import Uniform
from my_prior import Laplace

from avae_jax.data import DATASETS
from avae_jax.likelihoods import LIKELIHOODS
from avae_jax.methods import METHODS
from avae_jax.posteriors import POSTERIORS
from avae_jax.priors import PRIORS
from avae_jax.training.config import configure

DATASETS["bars"] = load_bars
LIKELIHOODS["huber"] = Huber
POSTERIORS["uniform"] = Uniform
PRIORS["laplace"] = Laplace.make
METHODS["adversary"] = Options

config = configure(
    method="adversary", dataset="bars", likelihood="huber", posterior="uniform", prior="laplace",
    latent_dim=2, architecture="mlp", width=0.05, batch_size=64, num_epochs=2, learning_rate=1e-2,
)
''',
}

ADDED = {
    "bars": DATASETS, "huber": LIKELIHOODS, "uniform": POSTERIORS, "laplace": PRIORS,
    "adversary": METHODS,
}  # fmt: skip
"""Each name, and where it is registered."""


def forget() -> None:
    """Make this process one that has never heard of the user's files."""
    for name, registry in ADDED.items():
        registry.pop(name, None)
    for name in [name for name in sys.modules if name.startswith(("my_", "avae_jax_user_"))]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The user's folder."""
    folder = tmp_path_factory.mktemp("user")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    yield folder
    forget()


@pytest.fixture
def config(folder) -> cfg.Config:
    """The user's experiment, everything registered."""
    return cfg.load_experiment(str(folder / "mine.py"))


@pytest.fixture(scope="module")
def straight(folder):
    """A run by name, from Python, without an interruption."""
    cfg.load_experiment(str(folder / "mine.py"))
    config = cfg.configure(
        method="adversary", dataset="bars", likelihood="huber", posterior="uniform",
        prior="laplace", latent_dim=2, architecture="mlp", width=0.05, batch_size=64, num_epochs=2,
        learning_rate=1e-2,
    )  # fmt: skip
    return loop.train(config, folder / "straight")


def last_state(path):
    """Return all arrays of a run's last checkpoint by name, read without our reader."""
    with contextlib.closing(ocp.CheckpointManager(path / "checkpoints")) as manager:
        items = {name: ocp.args.StandardRestore() for name in ("model", "training")}
        restored = manager.restore(manager.latest_step(), args=ocp.args.Composite(**items))
    return {
        name: jax.random.key_data(leaf)
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else leaf
        for item in items
        for name, leaf in restored[item].items()
    }


def test_what_was_added_is_trained(straight):
    run = av.load_run(straight, which="latest")
    start = run.method.init(jax.random.key(0))["params"]
    # Each network and the prior moved, each by its own player.
    for part in ("encoder", "decoder", "critic", "prior"):
        before, after = jax.tree.leaves(start[part]), jax.tree.leaves(run.params[part])
        assert any(np.any(a != b) for a, b in zip(before, after, strict=True)), part
    rows = read_metrics(straight)
    assert {"train/fooled", "train/critic_loss", "validation/fooled"} <= rows[0].keys()
    assert rows[1]["validation/criterion"] < rows[0]["validation/criterion"]


@pytest.fixture(scope="module")
def resumed(folder, straight):
    """The same run from the command line, interrupted inside its second epoch and resumed."""
    command = ["train", str(folder / "mine.py"), "--run-dir", str(folder / "resumed")]
    advance, taken = loop.Trainer.advance, []

    def interrupt(self, *arguments):
        taken.append(None)
        if len(taken) == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Trainer, "advance", interrupt)
        assert cli.run(command) == 130
    assert av.load_run(folder / "resumed", which="latest").step == 6
    assert cli.run(command) == 0
    return folder / "resumed"


def test_an_interrupted_run_goes_on_with_the_same_bits(resumed, straight):
    one, other = last_state(resumed), last_state(straight)
    assert set(one) == set(other)
    assert {"params/prior/loc", "params/critic/output/kernel"} <= {*one}
    for name, leaf in one.items():
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(other[name]), err_msg=name)


def test_a_run_is_sampled_where_nothing_is_registered(resumed, tmp_path, capsys):
    """As in another process: the run folder knows which file to import."""
    forget()
    assert cli.run(["sample", str(resumed), "--output", str(tmp_path / "x"), "--seed", "3"]) == 0
    run = av.load_run(resumed)
    z = run.prior().sample(jax.random.key(3), 64)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), run.decode(z))
    # The codes are the user's prior's: a Laplace distribution has a kurtosis of 6.
    z = np.asarray(run.prior().sample(jax.random.key(0), 20_000), np.float64)
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    assert 5 < (z**4).mean() < 7
    capsys.readouterr()


def test_a_file_that_is_gone_is_named(resumed, tmp_path):
    shutil.copytree(resumed, tmp_path / "run")
    values = json.loads((tmp_path / "run" / "config.json").read_text())
    values["source"] = str(tmp_path / "gone.py")
    (tmp_path / "run" / "config.json").write_text(json.dumps(values))
    forget()
    with pytest.raises(
        cfg.ConfigError, match=r"unknown method 'adversary'.*gone.py' does not exist"
    ):
        av.load_run(tmp_path / "run")


def test_a_run_is_evaluated(resumed, tmp_path):
    summary = evaluate_run(
        resumed, num_images=80, num_samples=80, iwae_samples=5, output=tmp_path / "evaluation"
    )
    assert summary["verdict"]
    assert (tmp_path / "evaluation" / "report.html").stat().st_size > 10_000


def test_the_help_lists_what_was_added(folder, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", str(folder / "mine.py"), "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for word in (
        "bars",
        "--pull",
        "Multiplies what the critic says",
        "huber",
        "uniform",
        "laplace",
    ):
        assert word in text, word
    assert "adversary" in text.split("--method", 1)[1]
    assert cli.run(["train", str(folder / "mine.py"), "--pull", "0"]) == 2
    assert "pull=0.0: give a number > 0" in capsys.readouterr().err


@pytest.mark.parametrize("name", ADDED)
def test_what_is_not_registered_is_refused(name, config, tmp_path, monkeypatch):
    monkeypatch.delitem(ADDED[name], name)
    with pytest.raises(ValueError, match=name):
        loop.train(cfg.replace_fields(config, method=config.method.name), tmp_path / "run")


OTHERS = {
    "bars": lambda *, seed, validation_size, test_size: load_sprites_like(
        seed=seed, validation_size=100, test_size=100
    ),
    "huber": Bernoulli,
    "uniform": Gaussian,
    "laplace": StandardNormal.make,
    "adversary": vae.Options,
}


def parts(setup) -> dict[str, str]:
    """Return the kind of each thing that is registered."""
    method = setup.method
    return {
        "bars": setup.dataset.name,
        "huber": type(method.likelihood(method.init(jax.random.key(0)))).__name__,
        "uniform": type(method.coder.posterior).__name__,
        "laplace": type(method.init_prior(jax.random.key(0))).__name__,
        "adversary": type(method).__name__,
    }


WANTED = {
    "bars": "bars", "huber": "Huber", "uniform": "Uniform", "laplace": "Laplace",
    "adversary": "Adversary",
}  # fmt: skip


@pytest.mark.parametrize("name", ADDED)
def test_a_name_means_what_is_registered_under_it(name, config, monkeypatch):
    """Another entry under a name changes what is built, and nothing else."""
    assert parts(make_setup(config)) == WANTED
    monkeypatch.setitem(ADDED[name], name, OTHERS[name])
    fields = {"architecture": "mlp"}
    if name == "adversary":
        # Its options are others: those that both have are taken over.
        fields |= {"posterior": "uniform", "prior": "laplace", "method": name}
    found = parts(make_setup(cfg.replace_fields(config, **fields)))
    assert found[name] != WANTED[name]
    assert {**found, name: WANTED[name]} == WANTED


def huber64(x, outputs):
    far = np.abs(np.asarray(x, np.float64) - np.asarray(outputs, np.float64))
    return np.where(far < 0.5, far**2 / 2, 0.5 * (far - 0.25)).reshape(len(x), -1).sum(axis=1)


@pytest.mark.parametrize(
    "fields", [{"method": "ae"}, {"method": "avae", "num_centers": 64, "bandwidth": 0.5}],
    ids=lambda fields: fields["method"],
)  # fmt: skip
def test_the_methods_of_the_library_take_the_loss(fields, config):
    method = make_setup(
        cfg.configure(dataset="bars", likelihood="huber", batch_size=64, width=0.05, **fields)
    ).method
    x = np.random.default_rng(0).random((16, 8, 8, 1)).astype(np.float32)
    batch = Batch(x, np.arange(16, dtype=np.int32), np.ones(16, np.float32), np.full(16, -1))
    key = jax.random.key(0)
    variables, memory = method.init(key), method.init_memory()
    output = method.losses(variables, memory, batch, key, step=0, train=False)
    outputs, _ = method.decode(variables, output.z, train=False)
    np.testing.assert_allclose(output.terms["reconstruction"], huber64(x, outputs), rtol=1e-5)


def test_the_losses_take_the_loss(config):
    x, outputs = np.random.default_rng(0).normal(size=(2, 5, 4, 4, 1)).astype(np.float32)
    code = np.zeros((5, 2), np.float32)
    _, terms = av.losses.beta_elbo(x, outputs, code, code, beta=2.0, likelihood="huber")
    np.testing.assert_allclose(terms["reconstruction"], huber64(x, outputs), rtol=1e-5)
    # Normalized: over one pixel its density has mass one.
    grid = np.linspace(-60, 60, 400_001)[:, None]
    nll = np.asarray(LIKELIHOODS["huber"]().nll(grid, np.zeros_like(grid)), np.float64)
    assert np.trapezoid(np.exp(-nll), grid[:, 0]) == pytest.approx(1, rel=1e-4)


def test_what_needs_a_gaussian_posterior_is_left_out_in_words(config):
    setup = make_setup(cfg.replace_fields(config, method="vae", posterior="uniform"))
    run = SimpleNamespace(method=setup.method, prior=lambda: StandardNormal(2))
    run.variables = setup.method.init(jax.random.key(0))
    x = np.zeros((3, 8, 8, 1), np.float32)
    posterior, _ = setup.method.encode(run.variables, setup.method.prepare(x), train=False)
    material = SimpleNamespace(run=run, x=x, posterior=posterior)
    assert describe_likelihood(cast(Any, material)) == NOT_GAUSSIAN


def test_a_prior_without_what_a_method_needs_is_refused_in_words(config):
    with pytest.raises(cfg.ConfigError, match="prior=laplace: its density must have a closed form"):
        make_setup(cfg.configure(dataset="bars", prior="laplace", num_centers=64, batch_size=64))


def test_the_data_are_the_users(config):
    data = load_dataset("bars", seed=1, test_size=50)
    assert (data.name, data.images.shape, len(data.splits.test)) == ("bars", (400, 8, 8, 1), 50)
