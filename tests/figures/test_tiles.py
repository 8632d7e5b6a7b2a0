"""Many images as one picture."""

import numpy as np
import pytest

from avae_jax.figures import tiles


def _bands(inked):
    """Return the (start, stop) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inked, [False]]).astype(int)))
    return list(zip(edges[::2], edges[1::2], strict=True))


def test_a_stack_keeps_its_gaps():
    rows = [np.zeros((2, 4, 4, 1)), np.zeros((1, 4, 4, 1)), np.zeros((2, 4, 4, 1))]
    stack = tiles.stack_images(rows, [5, 9], tile=4, gap=2)
    assert _bands((stack.picture < 1.0).any(axis=(1, 2))) == [(0, 4), (9, 13), (22, 26)]
    assert _bands((stack.picture[:4] < 1.0).any(axis=(0, 2))) == [(0, 4), (6, 10)]
    assert stack.centers == [2.0, 11.0, 24.0]
    with pytest.raises(ValueError, match="zip"):
        tiles.stack_images(rows, [5], tile=4)


@pytest.mark.parametrize(
    ("height", "width", "tile", "side"),
    [(8, 8, 48, 48), (8, 4, 40, 40), (28, 28, 40, 28), (9, 64, 40, 64)],
)
def test_images_are_enlarged_by_a_whole_factor_towards_the_tile(height, width, tile, side):
    stack = tiles.stack_images([np.zeros((1, height, width, 3))], [], tile=tile)
    assert stack.tile == side == max(stack.picture.shape[:2])
    assert stack.picture.shape[0] * width == stack.picture.shape[1] * height


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_values_of_all_types_lie_between_black_and_white(channels):
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 3, channels))
    expected = x / 255.0 if channels in (1, 3) else x.mean(axis=-1, keepdims=True) / 255.0
    # The limits are those of floats: uint8 have their own.
    np.testing.assert_allclose(tiles.to_unit(x.astype(np.uint8), (-1.0, 1.0)), expected)
    np.testing.assert_allclose(tiles.to_unit(x / 127.5 - 1.0, (-1.0, 1.0)), expected, atol=1e-12)
    beyond = np.array([-np.inf, -5.0, np.nan, 5.0, np.inf]).reshape(1, 1, 5, 1)
    np.testing.assert_array_equal(tiles.to_unit(beyond, (-1.0, 1.0)).ravel(), [0, 0, 0.5, 1, 1])
