"""The polynomial exponential against NumPy float64."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax.kernels.pairwise_lse import stream
from avae_jax.kernels.pairwise_lse.exponential import cpu_exp, polynomial_exp
from avae_jax.kernels.pairwise_lse.forms import MATRIX
from avae_jax.kernels.pairwise_lse.implementations import IMPLEMENTATIONS, Implementation

from .contract import assert_values, call, make_problem

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("exp", [polynomial_exp, cpu_exp])
def test_error_is_below_a_quarter_of_a_millionth(exp):
    z = np.linspace(-87.0, 88.0, 2_000_001).astype(np.float32)
    actual = np.asarray(jax.jit(exp)(z), np.float64)
    assert np.max(np.abs(actual / np.exp(z.astype(np.float64)) - 1)) <= 2.0**-22


def test_edges():
    z = np.array([0.0, -87.01, -1e4, -1e38, -np.inf, 88.01, 1e38, np.inf, np.nan], np.float32)
    actual = np.asarray(jax.jit(polynomial_exp)(z))
    np.testing.assert_array_equal(actual[:5], [1.0, 0.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(actual[5:8], np.exp(88.0), rtol=1e-6)
    assert np.isnan(actual[8])


def test_float64_is_left_to_the_library():
    with jax.enable_x64(True):
        z = jnp.linspace(-700.0, 0.0, 1001)
        np.testing.assert_allclose(cpu_exp(z), np.exp(np.asarray(z)), rtol=1e-14)


def test_the_compiler_is_asked_what_it_fuses():
    # A flag of XLA's turns it off, in a process of its own.
    code = "import sys; sys.path.insert(0, '.')\nimport jax, jax.numpy as jnp\n"
    code += "from avae_jax.kernels.pairwise_lse.exponential import fuses_sums\n"
    code += "print(fuses_sums(jnp.dtype('float32')))"
    flags = {"XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type=", "JAX_PLATFORMS": "cpu"}
    run = functools.partial(subprocess.run, capture_output=True, text=True, check=True)
    without = run([sys.executable, "-c", code], env=os.environ | flags, cwd=ROOT).stdout
    assert without.strip() == "False"


@pytest.mark.parametrize("fuses", [False, True])
def test_values_do_not_depend_on_what_is_fused(monkeypatch, fuses):
    monkeypatch.setattr(stream, "fuses_sums", lambda dtype: fuses)
    # A new object, so that no function that jit has kept is used.
    entry = Implementation(functools.partial(stream.sums, MATRIX), MATRIX)
    monkeypatch.setitem(IMPLEMENTATIONS, "matrix", entry)
    for problem in (
        make_problem(20, 5000, 12, bandwidth=1.0),
        make_problem(20, 5000, 12, bandwidth=np.array([0.3, 2.0], np.float32)),
    ):
        assert_values(problem, call(problem, implementation="matrix"), "matrix")
