"""One of several processes that compute a sharded call together; `test_processes.py` starts them.

Run as `python -m tests.kernels.pairwise_lse.process_worker PORT NUM_PROCESSES PROCESS_ID`.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from avae_jax.kernels.pairwise_lse import (
    pairwise_lse,
    sharded_pairwise_lse,
    sharded_pairwise_lse_stats,
)

from .contract import (
    ARGNUMS,
    assert_gradients,
    assert_stats,
    assert_values,
    make_cotangent,
    make_problem,
)

# Query axis, center axis, n, m.
CASES = {
    "centers": (None, "a", 10, 24),
    "gather": ("a", "a", 8, 24),
    "ring": ("a", "a", 24, 20),
}


def check(name):
    """Check values, statistics and gradients of one layout, all of them on every process."""
    query_axis, center_axis, n, m = CASES[name]
    problem = make_problem(n, m, 3, weights=True, exclude=True)
    cotangent = make_cotangent(problem)
    mesh = jax.make_mesh((jax.device_count(),), ("a",), axis_types=(AxisType.Auto,))

    def place(a, axis=None):
        sharding = NamedSharding(mesh, P(axis))
        return jax.make_array_from_callback(np.shape(a), sharding, lambda index: a[index])

    x, exclude = (place(a, query_axis) for a in (problem.x, problem.exclude))
    y, log_weights = (place(a, center_axis) for a in (problem.y, problem.log_weights))
    bandwidth = place(problem.bandwidth)
    axes = {"mesh": mesh, "query_axis": query_axis, "center_axis": center_axis}

    @jax.jit
    def step(x, y, bandwidth, log_weights, exclude, cotangent):
        def loss(x, y, bandwidth, log_weights):
            lse = sharded_pairwise_lse(
                x, y, bandwidth=bandwidth, log_weights=log_weights, exclude=exclude, **axes
            )
            return jnp.sum(cotangent * lse), lse

        step = jax.value_and_grad(loss, ARGNUMS, has_aux=True)
        (_, lse), gradients = step(x, y, bandwidth, log_weights)
        return lse, gradients

    lse, gradients = step(x, y, bandwidth, log_weights, exclude, place(cotangent, query_axis))
    assert not gradients[1].is_fully_addressable
    options = {"bandwidth": bandwidth, "log_weights": log_weights, "exclude": exclude}
    stats = sharded_pairwise_lse_stats(x, y, **options, **axes)
    # Left to the compiler to spread. No process can read all of `exclude`, and none may try.
    left_to_compiler = pairwise_lse(x, y, **options)
    lse, gradients, stats, left_to_compiler = process_allgather(
        (lse, gradients, stats, left_to_compiler), tiled=True
    )
    assert_values(problem, lse, "difference")
    assert_values(problem, left_to_compiler, "difference")
    assert_gradients(problem, gradients, cotangent, "difference")
    assert_stats(problem, stats, "difference")


def main(port, num_processes, process_id):
    jax.distributed.initialize(f"localhost:{port}", int(num_processes), int(process_id))
    assert jax.process_count() == int(num_processes)
    assert jax.device_count() > jax.local_device_count()
    for name in CASES:
        check(name)
        print(f"{name}: agrees on {jax.device_count()} devices", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
