"""Training in one call: which data it takes, what it chooses for them, and what comes back."""

import dataclasses
import gc
import json
import shutil
import signal

import flax.linen as nn
import jax
import numpy as np
import pytest

import avae_jax as av
from avae_jax.data import DataError, ImageData, draw_splits, make_image_data
from avae_jax.mesh import make_mesh
from avae_jax.models import VALUE_RANGE
from avae_jax.training import api, loop
from avae_jax.training.config import Config, ConfigError, configure
from avae_jax.training.run import Run

RNG = np.random.default_rng(0)
SMALL = {"latent_dim": 2, "width": 0.1, "num_epochs": 1}


@pytest.fixture(scope="module")
def images(blobs):
    """Bumps in [0, 1] as floats, without a channel."""
    return blobs.images[..., 0] / 255


@pytest.fixture(scope="module")
def trained(images, blobs, tmp_path_factory):
    """Return a run in a folder, and what was said about it."""
    said = []
    run = av.train(
        images, labels=blobs.labels, test_size=0.25, validation_size=50, say=said.append,
        run_dir=tmp_path_factory.mktemp("api") / "run", method="avae", **SMALL,
    )  # fmt: skip
    return run, said


def test_an_array_becomes_a_run(trained, images, blobs):
    run, _ = trained
    assert run.step == run.history[-1]["step"] > 0
    assert [row["epoch"] for row in run.history] == [1]
    assert np.isfinite(run.history[0]["validation/criterion"])
    assert run.config.experiment == "array"
    assert repr(run) == f"Run({str(run.path)!r}, avae, latent_dim=2, step={run.step})"
    assert (run.config.data.validation_size, run.config.data.test_size) == (50, 100)
    codes = run.encode(images[:3])
    assert codes.shape == (3, 2)
    np.testing.assert_array_equal(codes, run.encode(images[:3, ..., None].astype(np.float32)))
    assert run.decode(codes).shape == run.reconstruct(images[:3]).shape == (3, 8, 8, 1)
    assert run.sample(5, scale="measured").shape == (5, 8, 8, 1)
    # It is the folder that the command line leaves.
    assert {"summary.json", "figures", "checkpoints"} <= {path.name for path in run.path.iterdir()}
    np.testing.assert_array_equal(av.load_run(run.path).encode(images[:3]), codes)


def test_a_run_knows_its_data(trained, images, blobs):
    from avae_jax.training.run import run_data

    dataset = run_data(trained[0])
    np.testing.assert_array_equal(dataset.labels, blobs.labels)
    np.testing.assert_array_equal(dataset.images[..., 0], images.astype(np.float32))
    assert len(dataset.splits.test) == 100
    # Read back from its folder, the run does not know the array.
    with pytest.raises(ValueError, match="data_path"):
        run_data(av.load_run(trained[0].path))


def test_what_does_not_fit_is_chosen_and_said(trained):
    run, said = trained
    # 250 training images on eight devices: ten steps an epoch of 24, and all of them are centers.
    assert run.config.optimization.batch_size == 24
    assert run.config.method.num_centers == 240
    assert said[-1:] == ["num_centers=240: what 250 training images have room for"]
    assert (run.config.model.architecture, run.config.model.activation) == ("digits", "sigmoid")


def test_a_folder_is_continued_with_what_was_chosen_for_it(trained, images, blobs, tmp_path):
    folder = shutil.copytree(trained[0].path, tmp_path / "run")
    again = {
        "labels": blobs.labels, "test_size": 0.25, "validation_size": 50, "run_dir": folder,
        **SMALL, "say": lambda line: None,
    }  # fmt: skip
    # On one device the batch would have been of 25.
    longer = av.train(images, **{**again, "num_epochs": 2, "mesh": make_mesh(1)})
    assert longer.config.optimization.batch_size == 24
    assert [row["epoch"] for row in longer.history] == [1, 2]
    with pytest.raises(ConfigError, match="latent_dim: 2 -> 3"):
        av.train(images, **{**again, "latent_dim": 3})
    with pytest.raises(ConfigError, match="other images"):
        av.train(images[::-1], **again)


def test_features_without_a_folder(capfd):
    x = RNG.uniform(-1, 1, (60, 5))
    run = av.train(x, method="vae", batch_size=8, **SMALL)
    assert run.method.activation == "tanh"
    assert run.config.model.architecture == "mlp"
    assert run.sample(3).shape == (3, 5)
    assert np.isfinite(run.reconstruct(x)).all()
    folder = run.path
    # The folder lives as long as the run, and so with its copies.
    copy = dataclasses.replace(run)
    del run
    gc.collect()
    assert len(copy.history) == 1
    del copy
    gc.collect()
    assert not folder.exists()
    # The data and the last step, and nothing of the libraries.
    assert len(capfd.readouterr().err.splitlines()) == 2


def test_the_name_of_a_data_set():
    run = av.train("digits", method="ae", **SMALL)
    assert run.config.data.dataset == run.config.experiment == "digits"
    assert run.encode(run.dataset.images[:2]).shape == (2, 2)
    assert run.config.optimization.batch_size == 96


def test_a_config_is_taken_as_it_is(small_config, tmp_path):
    config = configure(architecture="mlp", batch_size=104, num_centers=200, **SMALL)
    run = av.train(config, run_dir=tmp_path / "run", learning_rate=1e-3)
    assert run.config == dataclasses.replace(
        config, optimization=dataclasses.replace(config.optimization, learning_rate=1e-3)
    )
    with pytest.raises(ConfigError, match="batch_size=100 cannot be split over 8 devices: use 96"):
        av.train(Config())


def test_modules(blobs, monkeypatch):
    class Encoder(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            return nn.Dense(2)(x.reshape(len(x), -1))

    class Decoder(nn.Module):
        activation: str = "tanh"

        @nn.compact
        def __call__(self, z, *, train):
            return nn.tanh(nn.Dense(64)(z)).reshape(-1, 8, 8, 1)

    def evaluate(self):
        raise ValueError("codes of the run hold NaN")

    # A model that cannot be measured comes back all the same.
    monkeypatch.setattr(Run, "evaluate", evaluate)
    said = []
    run = av.train(
        blobs, encoder=Encoder(), decoder=Decoder(), method="ae", say=said.append, **SMALL
    )
    assert said == [f"{run.path} has no summary: codes of the run hold NaN"]
    assert run.config.data.dataset == "array"  # Blobs is no name that could be read again.
    assert run.method.value_range == (-1.0, 1.0)
    assert jax.tree.leaves(run.params["encoder"])[1].shape == (64, 2)
    assert run.decode(np.zeros((2, 2))).shape == (2, 8, 8, 1)
    with pytest.raises(TypeError, match="encoder must be a Flax module .*give an object"):
        av.train(blobs, encoder=Encoder)


@pytest.mark.parametrize(
    ("data", "given", "message"),
    [
        (np.zeros(5), {}, r"shape \(5,\): expected"),
        (np.zeros((2, 3, 4, 5, 6)), {}, "expected"),
        (np.zeros((50, 3, 8, 8)), {}, "channels first"),
        (np.full((50, 4), np.nan), {}, "200 NaN or infinite"),
        (np.full((50, 4), 256), {}, "integers must lie in 0..255"),
        ([[1.0], [1.0, 2.0]], {}, "give all of them one shape"),
        (np.zeros((2, 4)), {}, "2 images are too few"),
        (np.zeros((9, 4)), {}, "training split must hold at least 8 images, got 7"),
        (np.zeros((50, 4)), {"labels": np.zeros(49, int)}, "labels must be 50 integers"),
        (np.zeros((50, 4)), {"test_size": 1.5}, "test_size=1.5 must lie in"),
        (np.zeros((50, 4)), {"test_size": 50}, "leaves no training image"),
        (np.zeros((50, 4)), {"batch_size": 60}, "batch_size=60 is larger than the training split"),
        (np.zeros((50, 4)), {"num_centers": 60}, "num_centers=60: it is larger"),
        (np.zeros((50, 4)), {"architecture": "mnist"}, "does not suit images of shape"),
        (np.full((50, 4), 2.0), {"activation": "sigmoid"}, "rescale the data"),
        (np.zeros((50, 4)), {"latent_dmi": 2}, "unknown field 'latent_dmi'; did you mean"),
        (np.zeros((50, 4)), {"method": "vea"}, "unknown method 'vea'; did you mean 'vae'"),
        (np.zeros((50, 4)), {"dataset": "mnist"}, "dataset must not be given"),
        (np.zeros((50, 4)), {"data_path": "x"}, "data_path must not be given"),
        ("digtis", {}, "unknown dataset 'digtis'; did you mean 'digits'"),
        ("images.npy", {}, "give 'array' and data_path='images.npy'"),
        ("digits", {"labels": np.zeros(5)}, "labels must not be given"),
        (Config(), {"labels": np.zeros(5)}, "labels must not be given"),
        (Config(), {"no_field": 1}, "unknown field 'no_field'"),
        (3, {}, "data must be an array, an ImageData, .* got int"),
        (None, {}, "got NoneType"),
        ({}, {}, "got dict"),
    ],
)
def test_what_cannot_be_trained_on_is_one_line(data, given, message, tmp_path):
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        av.train(data, run_dir=tmp_path / "run", say=lambda line: None, **given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_splits_of_an_image_data_are_its_own(blobs):
    with pytest.raises(ConfigError, match="test_size must not be given, got it beside an ImageD"):
        av.train(blobs, test_size=3)


def chosen_for(images, *, given=(), **fields):
    dataset = ImageData("array", images, None, draw_splits({"train": len(images)}))
    return api.fit_defaults(configure(**fields), dataset, given={*given, *fields}, num_devices=1)


@pytest.mark.parametrize(
    ("shape", "architecture"),
    [
        ((8, 8, 1), "digits"),
        ((32, 32, 1), "mnist"),
        ((28, 28, 1), "mlp"),
        ((7,), "mlp"),
        ((48, 16, 3), "factors"),
    ],
)
def test_the_architecture_follows_the_shape(shape, architecture):
    given = {"width": 1.0}
    assert chosen_for(np.zeros((40, *shape), np.uint8), **given)[0]["architecture"] == architecture


def test_a_small_net_for_gray_images_ends_where_the_likelihood_can_use_it():
    images = np.zeros((40, 16, 16, 1), np.uint8)
    assert chosen_for(images, width=1.0)[0]["activation"] == "sigmoid"
    assert "activation" not in chosen_for(images, width=1.0, likelihood="bernoulli")[0]


def test_the_network_is_no_larger_than_the_data():
    """As far as a quarter of its width goes."""
    found = [
        api.choose_width("digits", (8, 8, 1), num_values=num_values, latent_dim=8)
        for num_values in (10**6, 20_000, 1)
    ]
    # Dense layers, weights and biases: 64 to 128 to 64 to 8 and back, at width 1.
    sizes = [(64, 128, 64, 8), (64, 64, 32, 8), (64, 32, 16, 8)]
    counts = [sum(2 * i * o + i + o for i, o in zip(row, row[1:], strict=False)) for row in sizes]
    assert found == [(1.0, counts[0]), (0.5, counts[1]), (0.25, counts[2])]
    _, notes = chosen_for(np.zeros((400, 8, 8, 1), np.uint8))
    assert notes[0] == (
        f"architecture=digits, width=0.5: {counts[1]:,} parameters for 17,920 values in 280 "
        "training images of shape (8, 8, 1)"
    )


def test_epochs_and_when_to_stop_follow_the_number_of_steps():
    images = np.zeros((400, 8, 8, 1), np.uint8)
    chosen, notes = chosen_for(images)
    assert (chosen["num_epochs"], chosen["patience"], chosen["plateau_patience"]) == (300, 60, 18)
    assert notes[1] == (
        "batch_size=28, num_epochs=300: 10 steps an epoch; ends after 60 without a lower "
        "validation criterion"
    )
    chosen, _ = chosen_for(images, batch_size=2, patience=7)
    assert chosen["num_epochs"] == 36
    assert "patience" not in chosen
    assert not {"num_epochs", "patience"} & {*chosen_for(images, num_epochs=3)[0]}


@pytest.mark.parametrize(
    ("low", "high", "activation"),
    [(0, 1, "sigmoid"), (0.2, 1 + 1e-5, "sigmoid"), (-1, 1, "tanh"), (0, 1.1, "linear")],
)
def test_the_output_reaches_the_range(low, high, activation):
    x = np.linspace(low, high, 120, dtype=np.float32).reshape(40, 3)
    chosen, notes = chosen_for(x, **SMALL)
    assert chosen["activation"] == activation
    bottom, top = VALUE_RANGE[activation] or (-np.inf, np.inf)
    assert bottom - 1e-3 <= low <= high <= top + 1e-3
    assert len(notes) == 1  # Of the centers alone.
    assert "activation" not in chosen_for(x, likelihood="bernoulli")[0]
    assert "activation" not in chosen_for(x, given=["decoder"])[0]


def test_bytes_given_as_floats_are_pointed_out():
    _, notes = chosen_for(np.linspace(0, 255, 40 * 64).reshape(40, 8, 8, 1), method="ae", **SMALL)
    assert len(notes) == 1
    assert "[0, 255]" in notes[0]


@pytest.mark.parametrize("num_devices", [1, 3, 8])
@pytest.mark.parametrize("num_train", [8, 9, 99, 500, 1259, 100_000])
def test_the_batch_is_one_that_the_devices_divide(num_train, num_devices):
    batch_size = api.choose_batch_size(num_train, num_devices)
    assert batch_size % num_devices == 0
    assert max(2, num_devices) <= batch_size <= min(100, num_train)


def test_an_interrupted_run_can_be_continued(images, monkeypatch):
    epoch = loop.Loop.epoch

    def interrupted(self, state, metrics):
        signal.raise_signal(signal.SIGINT)
        return epoch(self, state, metrics)

    monkeypatch.setattr(loop.Loop, "epoch", interrupted)
    options = {**SMALL, "method": "ae", "num_epochs": 2, "say": lambda line: None}
    with pytest.raises(
        loop.Interrupted, match=r"saved in .*: train again with run_dir='"
    ) as caught:
        av.train(images, **options)
    folder = str(caught.value).split("run_dir='")[1].split("'")[0]
    monkeypatch.undo()
    run = av.train(images, run_dir=folder, **options)
    assert [row["epoch"] for row in run.history] == [1, 2]
    shutil.rmtree(folder)


@pytest.mark.slow
def test_a_run_evaluates_itself(trained, tmp_path):
    run = trained[0]
    quick = run.evaluate()
    assert quick["about"]["dataset"] == "array"
    assert quick["verdict"]["headline"]
    assert json.loads((run.path / "summary.json").read_text())["about"]["num_images"] == 100
    output = tmp_path / "report"
    whole = run.evaluate(quick=False, num_images=100, num_samples=40, output=output)
    assert whole["reconstruction"]["mse"] == quick["reconstruction"]["mse"]
    assert {*whole} > {*quick} - {"training"}
    assert (output / "report.html").exists()


def test_shares_are_those_of_the_array():
    data = make_image_data(np.zeros((40, 3)), np.arange(40) % 3, validation_size=0.5, test_size=4)
    assert [len(s) for s in (data.splits.train, data.splits.validation, data.splits.test)] == [
        16, 20, 4,
    ]  # fmt: skip
    assert data.num_classes == 3
    with pytest.raises(DataError, match="one shape"):
        make_image_data([[1.0], [2.0, 3.0]])
