"""The checks of arguments that all packages share."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax import checks


@pytest.mark.parametrize("value", [1, 7, np.int64(3), np.uint8(2), np.array(5), jnp.array(4)])
def test_an_integer_passes_as_an_int(value):
    count = checks.check_count("n", value, minimum=1)
    assert type(count) is int
    assert count == int(value)


@pytest.mark.parametrize(("minimum", "maximum"), [(2, None), (2, 5)])
def test_the_limits_belong_to_the_range(minimum, maximum):
    assert checks.check_count("n", minimum, minimum=minimum, maximum=maximum) == minimum
    with pytest.raises(ValueError, match="n must be an integer .* got 1: give a larger one"):
        checks.check_count("n", minimum - 1, minimum=minimum, maximum=maximum)
    if maximum is None:
        assert checks.check_count("n", 10**20, minimum=minimum) == 10**20
    else:
        assert checks.check_count("n", maximum, minimum=minimum, maximum=maximum) == maximum
        with pytest.raises(ValueError, match="n must be an integer from 2 to 5, got 6: give a sm"):
            checks.check_count("n", maximum + 1, minimum=minimum, maximum=maximum)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (2.0, "2.0"),
        (True, "True"),
        (np.True_, "True"),
        (None, "None"),
        ("3", "'3'"),
        (np.arange(2), r"array\(\[0, 1\]\)"),
        (list(range(100)), "a value of type list"),
    ],
)
def test_what_is_no_integer_is_a_type_error(value, shown):
    with pytest.raises(TypeError, match=rf"n must be an integer of .* got .*{shown}.*: give"):
        checks.check_count("n", value, minimum=0)


@pytest.mark.parametrize("value", [1, 1e-300, np.float32(2.0), np.array(3), jnp.array(0.5)])
def test_a_positive_number_passes_as_a_float(value):
    number = checks.check_positive("h", value)
    assert type(number) is float
    assert number == float(value)
    checks.check_positive_unless_traced("h", value)


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, np.float64(-0.0)])
def test_a_number_that_is_not_positive(value):
    for check in (checks.check_positive, checks.check_positive_unless_traced):
        with pytest.raises(ValueError, match="h must be finite and positive, got .*: give one abo"):
            check("h", value)


@pytest.mark.parametrize("value", [None, "wide", [1.0, 2.0]])
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match="h must be a number, got"):
        checks.check_positive("h", value)
    with pytest.raises(TypeError, match="h must be a number, got"):
        checks.check_between("h", value, 0, 1)


def test_traced_arrays_pass():
    def scaled(h):
        checks.check_positive_unless_traced("h", h)
        return 2 * h

    assert jax.jit(scaled)(1.5) == 3.0


def test_between_leaves_both_ends_out():
    for inside in (1e-12, 0.5, np.float32(0.25)):
        assert checks.check_between("share", inside, 0, 1) == float(inside)
    for outside in (0, 1.0, -0.5, 2, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"share must lie in \(0, 1\), got .*: give one betw"):
            checks.check_between("share", outside, 0, 1)


def test_choices_are_listed():
    checks.check_choice("norm", None, (None, "batch"))
    checks.check_choice("norm", "batch", {"batch": 1})
    with pytest.raises(ValueError, match="norm must be one of None, 'batch', got 'x': choose one"):
        checks.check_choice("norm", "x", (None, "batch"))


def test_shapes_are_compared_with_the_first():
    x = np.zeros((2, 3))
    checks.check_same_shape(x=x, y=jnp.ones((2, 3)), z=[[0, 0, 0], [1, 1, 1]])
    with pytest.raises(ValueError, match=r"z must have the shape of x, \(2, 3\), got \(3,\): give"):
        checks.check_same_shape(x=x, y=x, z=x[0])


def test_arrays_have_the_axes_they_must_have():
    x, z = np.zeros((7, 4, 3)), np.zeros((7, 5))
    checks.check_axes(
        x=("batch ...", x), z=("batch latent_dim", z), h=("", 0.5), exclude=("batch", None)
    )
    for change, message in (
        (
            {"z": ("batch latent_dim", z[0])},
            r"z .* \[batch, latent_dim\], got \(5,\): give z\[None\]",
        ),
        ({"x": ("batch ...", z[0])}, r"x .* \[batch, ...\], got \(5,\): give x\[None\]"),
        ({"z": ("batch latent_dim", x)}, r"z .* got \(7, 4, 3\): give an array of that shape"),
        ({"w": ("batch", z[:, :1])}, r"w .* got \(7, 1\): give w\[..., 0\]"),
        ({"h": ("", z)}, r"h must be one number, got shape \(7, 5\): give one"),
        ({"z": ("batch latent_dim", z[:6])}, "z must have the batch of x, 7, got 6"),
        ({"c": ("m latent_dim", np.zeros((2, 4)))}, "c must have the latent_dim of z, 5, got 4"),
    ):
        given = {"x": ("batch ...", x), "z": ("batch latent_dim", z)} | change
        with pytest.raises(ValueError, match=message):
            checks.check_axes(**given)
