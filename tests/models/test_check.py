import flax.linen as nn
import jax.numpy as jnp
import pytest

from avae_jax.models import ARCHITECTURES, check_shapes, make_decoder, make_encoder


class Encoder(nn.Module):
    num_outputs: int = 4
    train_outputs: int = 4

    @nn.compact
    def __call__(self, x, *, train):
        z = nn.Dense(max(self.num_outputs, self.train_outputs))(x.reshape(x.shape[0], -1))
        return z[:, : self.train_outputs if train else self.num_outputs]


class Decoder(nn.Module):
    image_shape: tuple = (6, 6, 1)
    activation: str = "linear"

    @nn.compact
    def __call__(self, z, *, train):
        features = 1
        for side in self.image_shape:
            features *= side
        return nn.Dense(features)(z).reshape(-1, *self.image_shape)


class DecoderWithoutActivation(nn.Module):
    @nn.compact
    def __call__(self, z, *, train):
        return nn.Dense(36)(z).reshape(-1, 6, 6, 1)


class WithVariables(nn.Module):
    """Keeps a count in a collection of its own, or sows a value."""

    collection: str = "cache"

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dense(4)(x.reshape(x.shape[0], -1))
        if self.collection == "intermediates":
            self.sow("intermediates", "codes", x)
        else:
            count = self.variable(self.collection, "count", jnp.zeros, ())
            if train:
                count.value += 1
        return x


class WithDropout(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dense(4)(x.reshape(x.shape[0], -1))
        return nn.Dropout(0.5, deterministic=not train)(x)


class NoTrainArgument(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x


class TwoOutputs(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return x, x


class IntegerOutput(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return jnp.zeros((x.shape[0], 4), jnp.int32)


def check(encoder=None, decoder=None, **kwargs):
    return check_shapes(
        encoder or Encoder(),
        decoder or Decoder(),
        **{"image_shape": (6, 6, 1), "latent_dim": 4} | kwargs,
    )


def test_counts_parameters():
    assert check() == (37 * 4, 5 * 36)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_passes_for_its_own_shape(name):
    image_shape = ARCHITECTURES[name].image_shape or (5, 7, 2)
    encoder = make_encoder(name, latent_dim=3, num_outputs=6)
    decoder = make_decoder(name, image_shape=image_shape)
    counts = check_shapes(encoder, decoder, image_shape=image_shape, latent_dim=3, num_outputs=6)
    assert min(counts) > 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"encoder": Encoder(3)},
            r"^encoder returned \[2, 3\], expected \[2, 4\]: end it in a layer of 4 features$",
        ),
        (
            {"num_outputs": 8},
            r"^encoder returned \[2, 4\], expected \[2, 8\]: end it in a layer of 8 ",
        ),
        (
            {"encoder": Encoder(4, train_outputs=5)},
            r"^encoder returned \[2, 5\] with train=True, expected \[2, 4\]: end it",
        ),
        (
            {"image_shape": (8, 8, 1)},
            r"^decoder returned \[2, 6, 6, 1\], but images are \[2, 8, 8, 1\]: reshape what",
        ),
        ({"encoder": TwoOutputs()}, r"^encoder returned a tuple, expected one array of shape"),
        ({"encoder": IntegerOutput()}, r"^encoder returned int32, expected floating point$"),
        (
            {"encoder": NoTrainArgument()},
            r"^encoder must take train, .* got NoTrainArgument without it: write def __call__",
        ),
        ({"decoder": Decoder(activation="softmax")}, "got 'softmax'"),
        ({"decoder": Decoder(activation=nn.relu)}, "^decoder.activation must be one of .* got <"),
        (
            {"encoder": WithVariables()},
            "^encoder keeps variables in 'cache', but training keeps only 'params' and 'batch_stat",
        ),
        (
            {"encoder": WithDropout()},
            r"^encoder draws random numbers in its forward pass, .* \(Dropout_0 needs PRNG",
        ),
    ],
)
def test_says_what_is_wrong_in_one_line(kwargs, message):
    with pytest.raises(ValueError, match=message) as caught:
        check(**kwargs)
    assert "\n" not in str(caught.value)


def test_decoder_without_activation_is_accepted():
    assert check(decoder=DecoderWithoutActivation()).decoder == 5 * 36


@pytest.mark.parametrize("collection", ["batch_stats", "intermediates"])
def test_batch_statistics_and_sown_values_are_accepted(collection):
    assert check(encoder=WithVariables(collection)).encoder == 37 * 4


def test_net_for_another_size_names_one_that_fits():
    decoder = make_decoder("mnist", image_shape=(32, 32, 1))
    with pytest.raises(ValueError, match=r"\[2, 32, 32, 1\].*\[2, 64, 64, 3\]; .*'celeb_a'"):
        check(decoder=decoder, image_shape=(64, 64, 3))
