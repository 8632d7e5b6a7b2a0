import numpy as np
import pytest

from avae_jax.data import DataError, check_images, check_value_range
from avae_jax.data.checks import check_finite


class _CountingReader:
    """A lazy reader that counts the rows asked for."""

    dtype = np.dtype(np.float32)

    def __init__(self, count):
        self.shape = (count, 2, 2, 1)
        self.read = 0

    def __getitem__(self, rows):
        self.read += len(rows)
        return np.full((len(rows), 2, 2, 1), 0.5, np.float32)


def test_message_names_span_activation_and_mend():
    images = np.linspace(0, 300, 40, dtype=np.float32).reshape(10, 2, 2, 1)
    with pytest.raises(DataError) as caught:
        check_value_range(images, (0.0, 1.0), "sigmoid")
    assert str(caught.value) == (
        "images span [0, 300] but decoder activation 'sigmoid' gives (0, 1): "
        "rescale the data or choose activation 'linear'"
    )


@pytest.mark.parametrize("value", [-1.01, 1.01])
def test_both_ends(value):
    images = np.zeros((5, 2, 2, 1), np.float32)
    images[3, 1, 0, 0] = value
    with pytest.raises(DataError, match="tanh"):
        check_value_range(images, (-1.0, 1.0), "tanh")
    check_value_range(images, None, "linear")


def test_rounding_is_forgiven_and_uint8_always_passes():
    check_value_range(np.full((3, 4), 1 + 1e-6, np.float32), (0.0, 1.0), "sigmoid")
    check_value_range(np.full((3, 4), 255, np.uint8), (0.0, 1.0), "sigmoid")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(value):
    images = np.zeros((5000, 2), np.float32)
    images[0, 1] = value
    with pytest.raises(DataError, match="NaN or infinite"):
        check_value_range(images, None, "linear")


def test_large_data_is_sampled():
    reader = _CountingReader(1_000_000)
    check_value_range(reader, (0.0, 1.0), "sigmoid")
    assert reader.read == 4096


def test_check_finite_counts_and_locates():
    images = np.zeros((3000, 4), np.float32)
    check_finite(images, source="x")
    images[1500, 2] = np.nan
    images[2999, 0] = -np.inf
    images[2999, 1] = np.inf
    with pytest.raises(
        DataError, match=r"x holds 3 NaN or infinite values, the first at index \(1500, 2\)"
    ):
        check_finite(images, source="x")
    # Huge but finite values overflow a float32 sum, and must pass.
    check_finite(np.full((10, 10), 3e38, np.float32), source="x")


@pytest.mark.parametrize("check", [check_images, check_value_range])
@pytest.mark.parametrize("value_range", [(0.0, 1.0), None])
@pytest.mark.parametrize("dtype", [np.int32, np.bool_, np.complex64])
def test_other_dtypes_are_refused_with_a_mend(check, value_range, dtype):
    with pytest.raises(DataError, match=f"dtype {np.dtype(dtype)}: convert to uint8"):
        check(np.zeros((2, 4, 4, 1), dtype), value_range, "sigmoid")


def test_check_images_looks_at_every_row():
    images = np.full((5000, 2), 0.5, np.float64)
    check_images(images, (0.0, 1.0), "sigmoid")
    images[1] = 2.0
    check_value_range(images, (0.0, 1.0), "sigmoid", num_samples=3)
    with pytest.raises(DataError, match=r"images span \[0.5, 2\]"):
        check_images(images, (0.0, 1.0), "sigmoid")
    images[1] = np.nan
    with pytest.raises(DataError, match="NaN or infinite"):
        check_images(images, None, "linear")


def test_no_images_are_refused():
    with pytest.raises(DataError, match=r"shape \(0, 4\): give at least one"):
        check_images(np.zeros((0, 4), np.float32), (0.0, 1.0), "sigmoid")
