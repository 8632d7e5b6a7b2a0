"""Code is chosen by the device it runs on, not by the machine's default one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from avae_jax.kernels.pairwise_lse import pairwise_lse, platforms

from .contract import assert_gradients, assert_values, make_cotangent, make_problem


@pytest.fixture
def machine_with_a_gpu(monkeypatch):
    """Let JAX say that the default device is a GPU; what is compiled here runs on the CPU."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    real = jax.local_devices
    monkeypatch.setattr(
        jax, "local_devices", lambda backend=None: real(backend="cpu" if backend else None)
    )
    jax.clear_caches()
    yield
    jax.clear_caches()


def test_a_function_is_traced_for_each_platform_that_may_run_it(machine_with_a_gpu):
    seen = []

    def function(x):
        seen.append(platforms.platform())
        return x + (1.0 if platforms.platform() == "cpu" else 2.0)

    value = jax.jit(platforms.per_platform(function))(jnp.zeros(()))
    assert sorted(set(seen)) == ["cpu", "gpu"]
    assert value == 1.0  # where it ran
    assert platforms.platform() == "gpu"


def test_on_the_cpu_of_a_machine_with_a_gpu(machine_with_a_gpu):
    problem = make_problem(20, 1500, 12, weights=True, exclude=True)
    cotangent = make_cotangent(problem)

    def loss(x, y, h, w):
        lse = pairwise_lse(x, y, bandwidth=h, log_weights=w, exclude=problem.exclude)
        return jnp.sum(cotangent * lse), lse

    gradients, lse = jax.jit(jax.grad(loss, (0, 1, 2, 3), has_aux=True))(*problem.args)
    assert_values(problem, lse, "matrix")
    assert_gradients(problem, gradients, cotangent, "matrix")


def test_products_are_those_of_the_device_they_are_compiled_for(machine_with_a_gpu):
    x = jax.ShapeDtypeStruct((8, 16), jnp.float32)
    text = {}
    for platform in ("cpu", "cuda"):
        exported = export.export(
            jax.jit(lambda x, y: pairwise_lse(x, y, bandwidth=0.5, implementation="matrix")),
            platforms=[platform],
        )(x, x)
        text[platform] = exported.mlir_module()
    assert "lhs_precision_type = bf16" in text["cuda"]
    assert "bf16" not in text["cpu"]


def test_queries_of_a_symbolic_number_are_exported():
    problem = make_problem(37, 1500, 12)
    size = export.symbolic_shape("n")[0]
    shape = jax.ShapeDtypeStruct((size, 12), jnp.float32)
    run = jax.jit(lambda x: pairwise_lse(x, problem.y, bandwidth=problem.bandwidth))
    exported = export.export(run)(shape)
    assert_values(problem, exported.call(problem.x), "matrix")
    np.testing.assert_allclose(exported.call(problem.x[:3]), run(problem.x[:3]), rtol=1e-5)
