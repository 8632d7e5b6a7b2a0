import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from avae_jax.models.convolution import conv2d, conv_transpose2d

# (kernel size, stride): the nets use (4, 2) and (4, 1), the others hold the index arithmetic.
GEOMETRIES = [(4, 2), (4, 1), (6, 3), (3, 2)]


def same_padding(side, size, stride):
    total = max((-(-side // stride) - 1) * stride + size - side, 0)
    return total // 2, total - total // 2


def conv2d_numpy(x, kernel, stride):
    size = kernel.shape[0]
    pads = [same_padding(side, size, stride) for side in x.shape[1:3]]
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    rows = (x.shape[1] - size) // stride + 1
    columns = (x.shape[2] - size) // stride + 1
    y = np.zeros((x.shape[0], rows, columns, kernel.shape[3]))
    for i in range(rows):
        for j in range(columns):
            window = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
            y[:, i, j] = np.tensordot(window, kernel, axes=3)
    return y


def conv_transpose2d_numpy(x, kernel, stride):
    batch, height, width, _ = x.shape
    size, _, out_channels, _ = kernel.shape
    full = np.zeros(
        (batch, (height - 1) * stride + size, (width - 1) * stride + size, out_channels)
    )
    for i in range(height):
        for j in range(width):
            stamp = np.einsum("nc,aboc->nabo", x[:, i, j], kernel)
            full[:, i * stride : i * stride + size, j * stride : j * stride + size] += stamp
    low = same_padding(height * stride, size, stride)[0]
    return full[:, low : low + height * stride, low : low + width * stride]


@pytest.mark.parametrize("implementation", ["lax", "matmul"])
@pytest.mark.parametrize(("size", "stride"), GEOMETRIES)
@pytest.mark.parametrize("side", [1, 6])
def test_conv2d_equals_numpy(side, size, stride, implementation):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, side, side + 1, 3))
    kernel = rng.normal(size=(size, size, 3, 5))
    y = conv2d(
        x.astype(np.float32),
        kernel.astype(np.float32),
        stride=stride,
        implementation=implementation,
    )
    np.testing.assert_allclose(y, conv2d_numpy(x, kernel, stride), atol=2e-4)


@pytest.mark.parametrize(
    ("size", "stride", "implementation"),
    [
        (size, stride, implementation)
        for size, stride in GEOMETRIES
        for implementation in ("lax", "matmul")
        if implementation != "matmul" or size % stride == 0
    ],
)
@pytest.mark.parametrize("side", [1, 5])
def test_conv_transpose2d_equals_numpy(side, size, stride, implementation):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, side, side + 1, 3))
    kernel = rng.normal(size=(size, size, 5, 3))
    y = conv_transpose2d(
        x.astype(np.float32),
        kernel.astype(np.float32),
        stride=stride,
        implementation=implementation,
    )
    expected = conv_transpose2d_numpy(x, kernel, stride)
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, atol=2e-4)


@pytest.mark.parametrize("implementation", ["lax", "matmul", None])
def test_the_two_are_transposes_of_each_other(implementation):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 8, 8, 3)).astype(np.float32)
    y = rng.normal(size=(2, 4, 4, 5)).astype(np.float32)
    kernel = rng.normal(size=(4, 4, 3, 5)).astype(np.float32)
    forward = np.vdot(conv2d(x, kernel, stride=2, implementation=implementation), y)
    back = np.vdot(x, conv_transpose2d(y, kernel, stride=2, implementation=implementation))
    np.testing.assert_allclose(forward, back, rtol=1e-4)


@pytest.mark.parametrize("function", [conv2d, conv_transpose2d])
def test_matmul_gradients(function):
    with jax.enable_x64(True):
        rng = np.random.default_rng(3)
        x = jnp.asarray(rng.normal(size=(1, 4, 4, 2)))
        kernel = jnp.asarray(rng.normal(size=(4, 4, 2, 2)))
        check_grads(
            lambda x, kernel: jnp.sin(function(x, kernel, stride=2, implementation="matmul")),
            (x, kernel),
            order=1,
            modes=["rev"],
        )


@pytest.mark.parametrize("function", [conv2d, conv_transpose2d])
def test_unknown_implementation(function):
    with pytest.raises(ValueError, match=r"implementation must be one of .* got 'cudnn'"):
        function(np.ones((1, 4, 4, 1)), np.ones((4, 4, 1, 1)), stride=2, implementation="cudnn")


def test_matmul_needs_a_multiple_of_the_stride():
    with pytest.raises(ValueError, match="multiple of stride 2, got 3"):
        conv_transpose2d(
            np.ones((1, 4, 4, 1)), np.ones((3, 3, 1, 1)), stride=2, implementation="matmul"
        )
