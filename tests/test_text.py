"""The did-you-mean of messages and the numbers of reports."""

import math
import re

import numpy as np
import pytest

from avae_jax.text import nearest, number


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("minst", "; did you mean 'mnist'?"),
        ("CELEB_A", "; did you mean 'celeb_a'?"),
        ("dense", "; did you mean 'Dense'?"),
        ("zzz", "; known: digits, mnist, celeb_a, Dense"),
        ("", "; known: digits, mnist, celeb_a, Dense"),
        (7, "; known: digits, mnist, celeb_a, Dense"),
    ],
)
def test_nearest(name, expected):
    assert nearest(name, iter(["digits", "mnist", "celeb_a", "Dense"])) == expected


def test_of_names_that_differ_in_capitals_the_first_is_suggested():
    assert nearest("DENSE", ["Dense", "dense"]) == "; did you mean 'Dense'?"


@pytest.mark.parametrize(("count", "end"), [(40, "n39"), (41, "n39 and 1 more")])
def test_a_long_list_is_cut(count, end):
    text = nearest("zzz", [f"n{i}" for i in range(count)])
    assert text.startswith("; known: n0, n1, ")
    assert text.endswith(f", {end}")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0.00"),
        (-0.0, "0.00"),
        (0.001, "0.00100"),
        (0.00099, "9.90e-04"),
        (0.12345, "0.123"),
        (-1.5, "-1.50"),
        (99.96, "100"),
        (999.4, "999"),
        (999.6, "1,000"),
        (12345.6, "12,346"),
        (999_999.4, "999,999"),
        (1e6, "1.00e+06"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
        (None, "nan"),
        (True, "yes"),
        (np.bool_(False), "no"),
        (12_345_678, "12,345,678"),
        (np.int32(-1000), "-1,000"),
        (np.float32(0.5), "0.500"),
        (np.array(2.0), "2.00"),
        ("mnist", "mnist"),
        ((1, 2), "(1, 2)"),
    ],
)
def test_number(value, expected):
    assert number(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "–"), (math.nan, "–"), (math.inf, "∞"), (-math.inf, "−∞"), (-2e-5, "−2.00e−05")],
)
def test_typographic_number(value, expected):
    assert number(value, typographic=True) == expected


def test_a_float_is_within_half_a_unit_of_its_third_digit():
    generator = np.random.default_rng(0)
    values = generator.choice([-1.0, 1.0], 500) * 10.0 ** generator.uniform(-8, 9, 500)
    for value in values:
        text = number(float(value))
        assert text.isascii()
        assert abs(float(text.replace(",", "")) - value) <= 0.00501 * abs(value), text
        if 1e-3 <= abs(value) < 999:
            digits = re.sub(r"^0+", "", text.lstrip("-").replace(".", ""))
            assert len(digits) == 3, text
