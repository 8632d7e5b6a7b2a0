import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from avae_jax.models import check_shapes, load_module, make_decoder, make_encoder

SOURCE = """
import flax.linen as nn

class Encoder(nn.Module):
    latent_dim: int
    depth: int = 1

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(self.latent_dim)(x.reshape(x.shape[0], -1))

class Decoder(nn.Module):
    image_shape: tuple
    activation: str = "linear"

    @nn.compact
    def __call__(self, z, *, train):
        height, width, channels = self.image_shape
        return nn.Dense(height * width * channels)(z).reshape(-1, *self.image_shape)

def make(latent_dim):
    return Encoder(latent_dim, depth=3)

def wrong():
    return 3

def fails():
    return {}["key"]

class Wide(nn.Module):
    latent_dim: int
    width: float = 1.0
    norm: str = "none"

class PlainDecoder(nn.Module):
    image_shape: tuple

    @nn.compact
    def __call__(self, z, *, train):
        return nn.Dense(16)(z).reshape(-1, *self.image_shape)

class NeedsMore(nn.Module):
    colour: str

built = nn.Dense(4)
number = 7
"""


@pytest.fixture
def nets(tmp_path):
    path = tmp_path / "my nets.py"
    path.write_text(SOURCE)
    return str(path)


def test_nets_of_a_file_pass_the_shape_check(nets):
    encoder = make_encoder(f"{nets}:Encoder", latent_dim=5)
    decoder = make_decoder(f"{nets}:Decoder", image_shape=(4, 4, 1), activation="sigmoid")
    assert decoder.activation == "sigmoid"
    counts = check_shapes(encoder, decoder, image_shape=(4, 4, 1), latent_dim=5)
    assert counts == (17 * 5, 6 * 16)
    variables = encoder.init(jax.random.key(0), jnp.ones((2, 4, 4, 1)), train=False)
    assert encoder.apply(variables, jnp.ones((2, 4, 4, 1)), train=True).shape == (2, 5)


def test_package_path():
    module = load_module("flax.linen:Dense", features=3, latent_dim=8)
    assert isinstance(module, nn.Dense)
    assert module.features == 3


def test_functions_and_built_modules(nets):
    assert load_module(f"{nets}:make", latent_dim=2, image_shape=(1, 1, 1)).depth == 3
    assert load_module(f"{nets}:built", latent_dim=2).features == 4


def test_files_with_one_name_do_not_collide(tmp_path):
    paths = []
    for folder, size in (("a", 1), ("b", 2)):
        path = tmp_path / folder / "net.py"
        path.parent.mkdir()
        path.write_text(f"import flax.linen as nn\nnet = nn.Dense({size})\n")
        paths.append(f"{path}:net")
    assert [load_module(path).features for path in paths] == [1, 2]


@pytest.mark.parametrize("path", ["Encoder", "nets.py", "nets.py:", ":Encoder", "nets.py:a.b"])
def test_malformed_path(path):
    with pytest.raises(ValueError, match=r"path must be 'package.module:Name'"):
        load_module(path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no/such/file.py:Encoder", "file 'no/such/file.py' does not exist"),
        ("no_such_package.nets:Encoder", "could not import 'no_such_package.nets'"),
        ("flax.linen:Dens", r"'flax.linen' has no 'Dens'; did you mean 'Dense'\?"),
    ],
)
def test_missing_file_module_or_name(path, message):
    with pytest.raises(ImportError, match=message):
        load_module(path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\n1 / 0\n", r"ZeroDivisionError: division by zero \(.*broken.py, line 2\)$"),
        ("class (:\n", r"SyntaxError: invalid syntax \(broken.py, line 1\)$"),
        (
            "import no_such_thing",
            r"ModuleNotFoundError: .*no_such_thing.* \(.*broken.py, line 1\)$",
        ),
        ("raise ValueError('one\\ntwo')", r"ValueError: one \(.*broken.py, line 1\)$"),
        ("raise ValueError", r"ValueError: no message \("),
        ("import sys\nsys.exit(0)", r"SystemExit: 0 \(.*broken.py, line 2\)$"),
    ],
)
@pytest.mark.parametrize("as_package", [False, True])
def test_file_that_fails_to_import(tmp_path, monkeypatch, source, message, as_package):
    package = tmp_path / "package_that_fails"
    package.mkdir()
    (package / "broken.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    path = "package_that_fails.broken" if as_package else str(package / "broken.py")
    with pytest.raises(ImportError, match=message) as caught:
        load_module(f"{path}:Encoder")
    assert "\n" not in str(caught.value)
    assert repr(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("Encoder", {"latent_dim": 2, "colour": "red"}, "does not take the argument colour"),
        ("built", {"colour": "red"}, "is already built and does not take colour"),
        ("fails", {}, r"fails' failed: KeyError: 'key' \(.*my nets.py, line \d+\)$"),
        ("NeedsMore", {"latent_dim": 2}, "needs the argument colour, which is not given"),
        ("number", {}, "must be a Flax module class or a function, got 7"),
        ("wrong", {}, "must give a Flax Linen module .* got int"),
    ],
)
def test_unusable_target(nets, name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        load_module(f"{nets}:{name}", **kwargs)


def test_settings_of_an_experiment_are_given_only_to_modules_that_take_them(nets):
    settings = {"width": 2.0, "norm": "group"}
    assert make_encoder(f"{nets}:Encoder", latent_dim=2, **settings).latent_dim == 2
    assert make_encoder(f"{nets}:built", latent_dim=4, **settings).features == 4
    wide = make_encoder(f"{nets}:Wide", latent_dim=2, **settings)
    assert (wide.width, wide.norm) == (2.0, "group")
    make_decoder(f"{nets}:Decoder", image_shape=(4, 4, 1), **settings)


@pytest.mark.parametrize("activation", [None, "logits", "tanh"])
def test_a_decoder_without_activation_has_the_one_asked_for(nets, activation):
    decoder = make_decoder(
        f"{nets}:PlainDecoder", image_shape=(4, 4, 1), activation=activation, width=2.0
    )
    encoder = make_encoder(f"{nets}:Encoder", latent_dim=5)
    assert check_shapes(encoder, decoder, image_shape=(4, 4, 1), latent_dim=5).decoder == 6 * 16


@pytest.mark.parametrize("path", ["nets.py", "folder/nets", "package.module"])
@pytest.mark.parametrize("make", [make_encoder, make_decoder])
def test_a_path_without_a_class_says_so(make, path):
    kwargs = {"latent_dim": 2} if make is make_encoder else {"image_shape": (4, 4, 1)}
    with pytest.raises(ValueError, match=f"'{path}' names no class: .* such as '{path}:Encoder'"):
        make(path, **kwargs)


def test_an_encoder_need_not_take_the_activation(nets):
    assert make_encoder(f"{nets}:Encoder", latent_dim=2, activation="tanh").latent_dim == 2


def test_a_decoder_must_have_the_activation_asked_for(tmp_path):
    path = tmp_path / "fixed.py"
    path.write_text(
        "import flax.linen as nn\n\nclass Decoder(nn.Dense):\n"
        "    features: int = 1\n    activation = 'linear'\n"
    )
    make_decoder(f"{path}:Decoder", image_shape=(1,), activation="linear")
    with pytest.raises(ValueError, match=r"activation='tanh' was asked for, but .*='linear'"):
        make_decoder(f"{path}:Decoder", image_shape=(1,), activation="tanh")
