"""How the tests compile: quickly where a file says so, fully where a test of it does."""

import jax
import pytest
from jax._src import compiler

pytestmark = pytest.mark.usefixtures("quick_compiler")


@jax.jit
def _function(x):
    return 2 * x + 1


def test_no_quick_program_is_taken_where_digits_count(monkeypatch, request):
    quickly, options_of_tests = [], compiler.get_compile_options

    def spy(*args, **kwargs):
        options = options_of_tests(*args, **kwargs)
        quickly.append(("xla_cpu_use_fusion_emitters", False) in options.env_option_overrides)
        return options

    monkeypatch.setattr(compiler, "get_compile_options", spy)
    _function(1.0)
    _function(2.0)
    assert quickly == [True]
    request.getfixturevalue("full_compiler")
    _function(3.0)
    assert quickly == [True, False]
