import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax.models import ARCHITECTURES, VALUE_RANGE, make_decoder, make_encoder
from avae_jax.models.registry import describe_fitting

# Networks of the published sizes compile for seconds and run for moments.
pytestmark = pytest.mark.usefixtures("quick_compiler")

LATENT_DIM = 3


def shape_of(architecture):
    return ARCHITECTURES[architecture].image_shape or (6, 5, 2)


def make_both(architecture, *, width=0.1, **kwargs):
    image_shape = kwargs.pop("image_shape", shape_of(architecture))
    encoder = make_encoder(architecture, latent_dim=LATENT_DIM, width=width, **kwargs)
    decoder = make_decoder(architecture, image_shape=image_shape, width=width, **kwargs)
    return encoder, decoder, image_shape


def init_both(encoder, decoder, image_shape, *, batch=2):
    x = jnp.zeros((batch, *image_shape))
    z = jnp.zeros((batch, LATENT_DIM))
    return fill(encoder, x), fill(decoder, z)


def fill(module, x):
    """Makes variables of the module's shapes; compiling its initialisers would take seconds."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            std = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return rng.normal(scale=std, size=leaf.shape).astype(np.float32)
        return np.full(leaf.shape, name in ("scale", "var"), np.float32)

    shapes = jax.eval_shape(lambda key: module.init(key, x, train=False), jax.random.key(0))
    return jax.tree_util.tree_map_with_path(draw, shapes)


def apply(module, variables, x):
    return jax.jit(lambda variables, x: module.apply(variables, x, train=False))(variables, x)


def count(module, *shape):
    variables = jax.eval_shape(
        lambda key, x: module.init(key, x, train=False), jax.random.key(0), jnp.zeros((2, *shape))
    )
    return sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(variables["params"]))


# One factor per layer of the published list: 4x4 kernels, a bias in every layer, scale and offset
# of every batch norm.
PUBLISHED = {
    "mnist": (
        (32, 32, 1),
        16,
        (16 * 1 + 1 + 2) * 64
        + (16 * 64 + 1 + 2) * 128
        + (16 * 128 + 1 + 2) * 256
        + (16 * 256 + 1 + 2) * 512
        + (2 * 2 * 512 + 1) * 16,
        (16 + 1) * 2 * 2 * 512
        + (16 * 512 + 1 + 2) * 256
        + (16 * 256 + 1 + 2) * 128
        + (16 * 128 + 1 + 2) * 64
        + (16 * 64 + 1) * 1,
    ),
    "cifar10": (
        (32, 32, 3),
        128,
        (16 * 3 + 1 + 2) * 128
        + (16 * 128 + 1 + 2) * 256
        + (16 * 256 + 1 + 2) * 512
        + (16 * 512 + 1 + 2) * 1024
        + (2 * 2 * 1024 + 1) * 128,
        (128 + 1) * 8 * 8 * 1024
        + (16 * 1024 + 1 + 2) * 512
        + (16 * 512 + 1 + 2) * 256
        + (16 * 256 + 1) * 3,
    ),
    "celeb_a": (
        (64, 64, 3),
        64,
        (16 * 3 + 1 + 2) * 64
        + (16 * 64 + 1 + 2) * 128
        + (16 * 128 + 1 + 2) * 256
        + (16 * 256 + 1 + 2) * 512
        + (4 * 4 * 512 + 1) * 64,
        (64 + 1) * 8 * 8 * 512
        + (16 * 512 + 1 + 2) * 256
        + (16 * 256 + 1 + 2) * 128
        + (16 * 128 + 1 + 2) * 64
        + (16 * 64 + 1) * 3,
    ),
    "factors": (
        (64, 64, 3),
        10,
        (16 * 3 + 1) * 32
        + (16 * 32 + 1) * 32
        + (16 * 32 + 1) * 64
        + (16 * 64 + 1) * 64
        + (4 * 4 * 64 + 1) * 256
        + (256 + 1) * 10,
        (10 + 1) * 256
        + (256 + 1) * 4 * 4 * 64
        + (16 * 64 + 1) * 64
        + (16 * 64 + 1) * 32
        + (16 * 32 + 1) * 32
        + (16 * 32 + 1) * 3,
    ),
}


@pytest.mark.parametrize("architecture", PUBLISHED)
def test_parameter_counts_are_the_published_ones(architecture):
    image_shape, latent_dim, encoder_count, decoder_count = PUBLISHED[architecture]
    assert count(make_encoder(architecture, latent_dim=latent_dim), *image_shape) == encoder_count
    decoder = make_decoder(architecture, image_shape=image_shape)
    assert count(decoder, latent_dim) == decoder_count


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_shapes_with_every_norm(architecture, norm):
    encoder, decoder, image_shape = make_both(architecture, norm=norm)

    def autoencode(key, x):
        z, encoder_variables = encoder.init_with_output(key, x, train=True)
        x_recon, decoder_variables = decoder.init_with_output(key, z, train=True)
        return z, x_recon, encoder_variables, decoder_variables

    x = jnp.zeros((4, *image_shape))
    z, x_recon, *variables = jax.eval_shape(autoencode, jax.random.key(0), x)
    assert z.shape == (4, LATENT_DIM)
    assert x_recon.shape == x.shape
    assert z.dtype == x_recon.dtype == jnp.float32
    for collections in variables:
        assert ("batch_stats" in collections) == (norm == "batch")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_gradient_step_is_finite(architecture):
    encoder, decoder, image_shape = make_both(architecture)
    variables = init_both(encoder, decoder, image_shape)
    x = np.random.default_rng(0).uniform(size=(4, *image_shape)).astype(np.float32)

    @jax.jit
    def step(variables):
        def loss(params):
            (encoder_variables, decoder_variables) = [
                v | {"params": p} for v, p in zip(variables, params, strict=True)
            ]
            z, encoder_stats = encoder.apply(
                encoder_variables, x, train=True, mutable=["batch_stats"]
            )
            x_recon, decoder_stats = decoder.apply(
                decoder_variables, z, train=True, mutable=["batch_stats"]
            )
            return jnp.sum(jnp.square(x_recon - x)), (encoder_stats, decoder_stats)

        params = [v["params"] for v in variables]
        return jax.value_and_grad(loss, has_aux=True)(params)

    outputs = step(variables)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(outputs))
    for gradient in outputs[1]:
        assert all(np.any(layer["kernel"]) for layer in gradient.values() if "kernel" in layer)


@pytest.mark.parametrize("architecture", ["mnist", "digits"])
def test_batch_stats_move_in_training_only(architecture):
    encoder, _, image_shape = make_both(architecture, norm="batch")
    x = np.random.default_rng(0).uniform(size=(8, *image_shape)).astype(np.float32)
    variables = fill(encoder, x)
    evaluated, trained = (
        jax.jit(lambda v, train=train: encoder.apply(v, x, train=train, mutable=["batch_stats"]))(
            variables
        )[1]
        for train in (False, True)
    )
    initial = jax.tree.leaves(variables["batch_stats"])
    for old, same in zip(initial, jax.tree.leaves(evaluated["batch_stats"]), strict=True):
        np.testing.assert_array_equal(old, same)
    for old, new in zip(initial, jax.tree.leaves(trained["batch_stats"]), strict=True):
        assert np.abs(old - new).max() > 0


def test_batch_norm_has_keras_momentum_and_epsilon():
    encoder = make_encoder("digits", latent_dim=1, width=0.1, norm="batch")
    x = jax.random.uniform(jax.random.key(1), (8, 8, 8, 1))
    variables = fill(encoder, x)
    _, captured = encoder.apply(
        variables,
        x,
        train=True,
        mutable=["batch_stats", "intermediates"],
        capture_intermediates=lambda module, _: isinstance(module, nn.Dense | nn.BatchNorm),
    )
    before = np.asarray(captured["intermediates"]["dense_0"]["__call__"][0], np.float64)
    after = captured["intermediates"]["dense_norm_0"]["__call__"][0]
    expected = (before - before.mean(0)) / np.sqrt(before.var(0) + 1e-3)
    np.testing.assert_allclose(after, expected, atol=2e-5)
    running = captured["batch_stats"]["dense_norm_0"]
    np.testing.assert_allclose(running["mean"], 0.01 * before.mean(0), atol=1e-6)
    np.testing.assert_allclose(running["var"], 0.99 + 0.01 * before.var(0), atol=1e-6)


def check_moments(kernel, std, kurtosis):
    """Checks mean 0 and the standard deviation within five standard errors."""
    kernel = np.asarray(kernel, np.float64).ravel()
    assert abs(kernel.mean()) < 5 * std / np.sqrt(kernel.size)
    variance_error = std**2 * np.sqrt((kurtosis - 1) / kernel.size)
    assert abs(np.mean(kernel**2) - std**2) < 5 * variance_error


def test_initial_values():
    encoder = make_encoder("mnist", latent_dim=16, width=0.5)
    decoder = make_decoder("mnist", image_shape=(32, 32, 1), width=0.5)
    keys = jax.random.split(jax.random.key(0))

    def init(keys):
        encoder_variables = encoder.init(keys[0], jnp.zeros((1, 32, 32, 1)), train=False)
        decoder_variables = decoder.init(keys[1], jnp.zeros((1, 16)), train=False)
        return encoder_variables["params"], decoder_variables["params"]

    # Compiled, XLA drops the forward passes.
    encoder_params, decoder_params = jax.jit(init)(keys)
    # A normal cut at two standard deviations has kurtosis 2.06, a uniform 1.8.
    he_fans = {0: 1, 1: 32, 2: 64, 3: 128}
    for i, fan in he_fans.items():
        check_moments(encoder_params[f"conv_{i}"]["kernel"], np.sqrt(2 / (16 * fan)), 2.1)
    for i, out_channels in enumerate((128, 64, 32)):
        kernel = decoder_params[f"conv_{i}"]["kernel"]
        check_moments(kernel, np.sqrt(2 / (16 * out_channels)), 2.1)
    check_moments(encoder_params["output"]["kernel"], np.sqrt(2 / (1024 + 16)), 1.8)
    check_moments(decoder_params["projection"]["kernel"], np.sqrt(2 / (1024 + 16)), 1.8)
    check_moments(decoder_params["output"]["kernel"], np.sqrt(2 / (16 * 33)), 1.8)
    for params in (encoder_params, decoder_params):
        for name, layer in params.items():
            assert not np.any(layer["bias"]), name


@pytest.mark.parametrize(
    ("norm", "width", "channels"),
    [
        ("batch", 0.5, (32, 64, 128, 256)),
        ("batch", 0.001, (1, 1, 1, 1)),
        ("none", 2.0, (128, 256, 512, 1024)),
        ("group", 0.3, (16, 40, 80, 152)),
        ("group", 0.001, (8, 8, 8, 8)),
    ],
)
def test_width(norm, width, channels):
    assert make_encoder("mnist", latent_dim=1, width=width, norm=norm).channels == channels


def test_num_outputs():
    encoder = make_encoder("digits", latent_dim=3, num_outputs=6)
    x = jnp.zeros((2, 8, 8, 1))
    z = jax.eval_shape(
        lambda key: encoder.init_with_output(key, x, train=True)[0], jax.random.key(0)
    )
    assert z.shape == (2, 6)


@pytest.mark.parametrize("activation", VALUE_RANGE)
@pytest.mark.parametrize("architecture", ["mnist", "mlp"])
def test_decoder_output_lies_in_the_declared_range(architecture, activation):
    decoder = make_decoder(architecture, image_shape=(16, 16, 1), width=0.1, activation=activation)
    assert decoder.activation == activation
    z = 30 * jax.random.normal(jax.random.key(0), (8, LATENT_DIM))
    x_recon = apply(decoder, fill(decoder, z), z)
    if activation in ("sigmoid", "tanh"):
        low, high = VALUE_RANGE[activation]
        assert low <= x_recon.min() < x_recon.max() <= high
    else:
        assert x_recon.min() < -1.5
        assert x_recon.max() > 1.5


@pytest.mark.parametrize(
    ("architecture", "image_shape", "activation"),
    [
        ("mnist", (32, 32, 1), "sigmoid"),
        ("cifar10", (32, 32, 3), "sigmoid"),
        ("celeb_a", (64, 64, 3), "tanh"),
        ("factors", (64, 64, 1), "logits"),
        ("factors", (64, 64, 3), "sigmoid"),
    ],
)
def test_default_activation(architecture, image_shape, activation):
    assert make_decoder(architecture, image_shape=image_shape).activation == activation


@pytest.mark.parametrize(
    ("architecture", "activation", "centered"),
    [
        ("mnist", None, True),
        ("mnist", "logits", True),
        ("mnist", "tanh", False),
        ("mnist", "linear", False),
        ("celeb_a", None, False),
        ("celeb_a", "sigmoid", True),
        ("factors", None, False),
        ("digits", None, True),
    ],
)
def test_encoder_centers_unit_range_images_once(architecture, activation, centered):
    encoder = make_encoder(architecture, latent_dim=2, width=0.1, activation=activation)
    assert encoder.center_input == centered


@pytest.mark.parametrize(
    ("architecture", "centered"), [("mnist", True), ("celeb_a", False), ("digits", True)]
)
def test_centering_maps_one_half_to_zero(architecture, centered):
    encoder = make_encoder(architecture, latent_dim=2, width=0.1, norm="none")
    shape = shape_of(architecture)
    variables = fill(encoder, jnp.zeros((1, *shape)))
    # With zero biases the output is 0 where the first layer sees 0.
    constants = jnp.broadcast_to(jnp.array([0.0, 0.5]).reshape(2, 1, 1, 1), (2, *shape))
    is_zero = ~np.any(apply(encoder, variables, constants), axis=1)
    assert is_zero.tolist() == [not centered, centered]


@pytest.mark.parametrize("shape", [(7,), (5, 4), (6, 5, 2)])
def test_mlp_takes_any_shape(shape):
    encoder, decoder, _ = make_both("mlp", image_shape=shape, activation="linear")
    variables = init_both(encoder, decoder, shape)
    z = apply(encoder, variables[0], jnp.ones((2, *shape)))
    assert apply(decoder, variables[1], z).shape == (2, *shape)


def test_convolutional_nets_take_other_sizes_they_can_reach():
    encoder, decoder, shape = make_both("celeb_a", image_shape=(32, 16, 3))
    variables = init_both(encoder, decoder, shape)
    z = apply(encoder, variables[0], jnp.ones((2, *shape)))
    assert apply(decoder, variables[1], z).shape == (2, 32, 16, 3)


def test_integer_images_are_refused():
    encoder = make_encoder("digits", latent_dim=2)
    with pytest.raises(TypeError, match=r"got uint8: divide uint8 images by 255"):
        encoder.init(jax.random.key(0), np.zeros((1, 8, 8, 1), np.uint8), train=False)


def test_flat_data_in_a_convolutional_encoder_is_refused():
    with pytest.raises(ValueError, match="use architecture 'mlp'"):
        make_encoder("mnist", latent_dim=2).init(jax.random.key(0), np.zeros((2, 9)), train=False)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"architecture": "mnst"}, r"got 'mnst'; did you mean 'mnist'\?"),
        ({"latent_dim": 0}, "latent_dim must be an integer of at least 1, got 0"),
        ({"num_outputs": -1}, "num_outputs must be an integer of at least 1, got -1"),
        ({"width": 0}, "width must be finite and positive, got 0"),
        ({"norm": "layer"}, "norm must be one of .* got 'layer'"),
        ({"activation": "relu"}, "activation must be one of .* got 'relu'"),
    ],
)
def test_bad_encoder_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_encoder(**{"architecture": "mnist", "latent_dim": 2} | kwargs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"architecture": "celeba"}, "did you mean 'celeb_a'"),
        ({"image_shape": (32, 0, 1)}, "image_shape must be an integer of at least 1, got 0"),
        (
            {"image_shape": (28, 28, 1)},
            r"\(28, 28, 1\): it needs .* multiples of 16; these take this shape: .*'mlp'",
        ),
        ({"architecture": "digits", "width": -1.0}, "width must be finite and positive, got -1.0"),
        (
            {"architecture": "cifar10", "image_shape": (30, 30, 3)},
            "multiples of 4; these take this shape: 'mlp'",
        ),
        ({"image_shape": (100,)}, r"needs \[height, width, channels\]"),
        ({"activation": "relu"}, "activation must be one of .* got 'relu'"),
    ],
)
def test_bad_decoder_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_decoder(**{"architecture": "mnist", "image_shape": (32, 32, 1)} | kwargs)


@pytest.mark.parametrize("latent_dim", [2.0, True, "2"])
def test_a_latent_dim_that_is_no_integer_is_refused(latent_dim):
    with pytest.raises(TypeError, match="latent_dim must be an integer of at least 1, got"):
        make_encoder("mnist", latent_dim=latent_dim)


def test_fitting_architectures_are_named():
    assert describe_fitting((32, 32, 1)) == "designed for this shape: 'mnist'"
    assert describe_fitting((7,)) == "these take this shape: 'mlp'"
