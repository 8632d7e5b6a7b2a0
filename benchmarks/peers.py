"""Other libraries' ways to a log-sum-exp of Gaussian logits, one small function each.

    python benchmarks/peers.py

says which are installed and how far each is from NumPy float64 on a small problem.

A peer is set up once per problem (untimed: data moved, densities fitted, code compiled) and then
called for time. A density estimator takes its kernel's shape from the covariance of the data, so it
gets the problem in coordinates in which that is the identity: the same cost, and an isotropic
kernel. Its density becomes a log-sum-exp by adding its normaliser. Peers with a GPU path run on the
GPU if JAX does; scipy and scikit-learn always on the CPU.
"""

import argparse
import contextlib
import importlib
import io
import math
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from avae_jax.kernels.pairwise_lse.reference import reference_stats

# What a peer may raise on a problem or with versions that it does not fit.
PEER_ERRORS = (RuntimeError, ValueError, TypeError, AttributeError, OSError, MemoryError)


class Unavailable(Exception):
    """A peer cannot take a problem; the message says why."""


class Ready(NamedTuple):
    """A contender that is set up for one problem.

    Attributes:
      call: starts the computation and returns its result, ready or not.
      wait: takes that result and returns when it is there.
      lse: takes that result to a [n] NumPy array.
      x: [n, d], the queries in the coordinates the contender was given.
      y: [m, d], the centers in the same.
      compile_seconds: time to trace and compile; None where it is not apart from the first call.
      temporary_bytes: memory beside arguments and results, where the compiler tells.
      peak_bytes: the same with arguments and results.
    """

    call: Callable[[], Any]
    wait: Callable[[Any], Any]
    lse: Callable[[Any], np.ndarray]
    x: np.ndarray
    y: np.ndarray
    compile_seconds: float | None = None
    temporary_bytes: int | None = None
    peak_bytes: int | None = None


class Peer(NamedTuple):
    """One way to compute it.

    Attributes:
      package: the distribution it needs.
      make: (x [n, d], y [m, d], bandwidth) -> Ready; raises Unavailable.
      matrix: whether it holds all n * m logits at once.
      gradient: whether it returns the gradient in x after the value.
    """

    package: str
    make: Callable[[np.ndarray, np.ndarray, float], Ready]
    matrix: bool = False
    gradient: bool = False


def compile_jax(function, *args) -> tuple[Callable, dict[str, Any]]:
    """Compile for these arguments.

    Returns:
      (the compiled function, the last three fields of `Ready`).
    """
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    if memory is None:
        return compiled, {"compile_seconds": seconds}
    temporary = memory.temp_size_in_bytes
    peak = temporary + memory.argument_size_in_bytes + memory.output_size_in_bytes
    return compiled, {
        "compile_seconds": seconds,
        "temporary_bytes": temporary,
        "peak_bytes": peak,
    }


def _ready_jax(function, args, x, y, offset: float = 0.0) -> Ready:
    args = jax.device_put(args)
    compiled, costs = compile_jax(function, *args)
    return Ready(
        lambda: compiled(*args),
        jax.block_until_ready,
        lambda lse: np.asarray(lse, np.float64) + offset,
        x,
        y,
        **costs,
    )


def jnp_dense(x, y, bandwidth) -> Ready:
    """Write the matrix form down in jax.numpy and leave it to XLA."""

    def dense(x, y, bandwidth):
        product = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
        squared = jnp.sum(x * x, 1)[:, None] + jnp.sum(y * y, 1)[None, :] - 2 * product
        return jax.nn.logsumexp(-squared / (2 * bandwidth**2), axis=1)

    return _ready_jax(dense, (x, y, np.float32(bandwidth)), x, y)


def jax_gaussian_kde(x, y, bandwidth) -> Ready:
    """Evaluate `jax.scipy.stats.gaussian_kde.logpdf`."""
    x, y = _whitened(x, y)
    kde = jax.scipy.stats.gaussian_kde(jnp.asarray(y.T), bw_method=bandwidth)
    return _ready_jax(
        lambda kde, points: kde.logpdf(points), (kde, x.T), x, y, _log_normalizer(y, bandwidth)
    )


def ott(x, y, bandwidth) -> Ready:
    """Apply the soft-min of ott-jax's point cloud, in batches of queries."""
    pointcloud = _import("ott.geometry.pointcloud")
    m = len(y)

    def soft_min(x, y, epsilon):
        def row(query):
            cloud = pointcloud.PointCloud(query[None], y, epsilon=epsilon)
            return cloud.apply_lse_kernel(jnp.zeros(1), jnp.zeros(m), epsilon, axis=1)[0][0]

        # As PointCloud(batch_size=...) does, which in ott-jax 0.6 fails with JAX 0.10.
        return jax.lax.map(row, x, batch_size=_rows(len(x), m)) / epsilon

    return _ready_jax(soft_min, (x, y, np.float32(2 * bandwidth**2)), x, y)


def torch_matrix(x, y, bandwidth) -> Ready:
    """Materialise the matrix of logits: the usual way to write it in torch."""
    torch, x_torch, y_torch = _torch(x, y)
    return _ready_torch(torch, lambda: _torch_tile(x_torch, y_torch, bandwidth), x, y)


def torch_chunked(x, y, bandwidth) -> Ready:
    """Take the same tile by tile and combine the tiles."""
    torch, x_torch, y_torch = _torch(x, y)
    return _ready_torch(
        torch, lambda: _torch_tiles(torch, _torch_tile, x_torch, y_torch, bandwidth), x, y
    )


def torch_chunked_gradient(x, y, bandwidth) -> Ready:
    """Differentiate the chunked form in x, one chunk of queries after the other."""
    torch, x_torch, y_torch = _torch(x, y)
    rows = _rows(len(x), len(y))

    def run():
        values, gradients = [], []
        for chunk in x_torch.split(rows):
            leaf = chunk.detach().requires_grad_()
            lse = _torch_tile(leaf, y_torch, bandwidth)
            gradients.append(torch.autograd.grad(lse.sum(), leaf)[0])
            values.append(lse.detach())
        return torch.cat(values), torch.cat(gradients)

    return _ready_torch(torch, run, x, y)


def torch_compile(x, y, bandwidth) -> Ready:
    """Take the chunked form with its tile compiled by `torch.compile`."""
    torch, x_torch, y_torch = _torch(x, y)
    torch.compiler.reset()
    tile = torch.compile(_torch_tile)
    return _ready_torch(torch, lambda: _torch_tiles(torch, tile, x_torch, y_torch, bandwidth), x, y)


def pykeops(x, y, bandwidth) -> Ready:
    """Reduce a symbolic matrix of pykeops; compiled at first use per number of dimensions."""
    with contextlib.redirect_stdout(io.StringIO()):  # It reports on CUDA when imported.
        keops, lazy = _import("pykeops"), _import("pykeops.torch")
    keops.set_verbose(False)
    torch, x_torch, y_torch = _torch(x, y)

    def run():
        x_lazy, y_lazy = lazy.LazyTensor(x_torch[:, None, :]), lazy.LazyTensor(y_torch[None, :, :])
        squared = ((x_lazy - y_lazy) ** 2).sum(-1)
        return (-squared / (2 * bandwidth**2)).logsumexp(dim=1)[:, 0]

    return _ready_torch(torch, run, x, y)


def scipy_gaussian_kde(x, y, bandwidth) -> Ready:
    """Evaluate `scipy.stats.gaussian_kde.logpdf`: float64, one thread."""
    stats = _import("scipy.stats")
    x, y = _whitened(x, y)
    kde = stats.gaussian_kde(y.T, bw_method=bandwidth)
    points, offset = x.T, _log_normalizer(y, bandwidth)
    return Ready(lambda: kde.logpdf(points), _no_wait, lambda lse: lse + offset, x, y)


def sklearn_kernel_density(x, y, bandwidth) -> Ready:
    """Score scikit-learn's `KernelDensity`, all centers in one leaf: float64, one thread.

    With leaves of the default size it was slower in 2 to 64 dimensions and, from 64 on, wrong by
    tens of nats (scikit-learn 1.9).
    """
    neighbors = _import("sklearn.neighbors")
    kde = neighbors.KernelDensity(bandwidth=bandwidth, leaf_size=len(y)).fit(y)
    offset = _log_normalizer(y, bandwidth)
    return Ready(lambda: kde.score_samples(x), _no_wait, lambda lse: lse + offset, x, y)


PEERS = {
    "jnp_dense": Peer("jax", jnp_dense, matrix=True),
    "jax_gaussian_kde": Peer("jax", jax_gaussian_kde),
    "ott": Peer("ott-jax", ott),
    "torch_matrix": Peer("torch", torch_matrix, matrix=True),
    "torch_chunked": Peer("torch", torch_chunked),
    "torch_compile": Peer("torch", torch_compile),
    "pykeops": Peer("pykeops", pykeops),
    "scipy_gaussian_kde": Peer("scipy", scipy_gaussian_kde),
    "sklearn": Peer("scikit-learn", sklearn_kernel_density),
    "torch_chunked_grad": Peer("torch", torch_chunked_gradient, gradient=True),
}


def make_peer(name: str, x: np.ndarray, y: np.ndarray, bandwidth: float) -> Ready:
    """Set a peer up.

    Args:
      name: a key of PEERS.
      x: [n, d] float32 queries.
      y: [m, d] float32 centers.
      bandwidth: number > 0.

    Raises:
      Unavailable: its package is missing, or it fails on this problem.
    """
    try:
        return PEERS[name].make(x, y, bandwidth)
    except PEER_ERRORS as error:
        raise Unavailable(one_line(error)) from error


def agreement_tolerance(x, y, bandwidth) -> float:
    """Return the nats by which float32 may be wrong on a problem that is not centered.

    64 roundings of the largest terms of the matrix form, (max |x|^2 + max |y|^2) / (2 h^2); a form
    with a product in TF32 or bfloat16 does not pass.
    """
    radius = sum(np.einsum("ij,ij->i", points, points).max() for points in (x, y))
    return 64 * 2.0**-24 * (1 + float(radius) / (2 * bandwidth**2))


def one_line(error: BaseException) -> str:
    """Return an error's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:100]


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Unavailable("not installed") from error


def _torch(x, y) -> tuple[Any, Any, Any]:
    """Return (torch, x, y), the tensors on the kind of device that JAX runs on."""
    torch = _import("torch")
    torch.set_num_threads(os.cpu_count() or 1)
    device = "cpu"
    if jax.default_backend() != "cpu":
        if not torch.cuda.is_available():
            raise Unavailable("torch sees no GPU")
        device = "cuda"
    return torch, torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)


def _rows(num_queries: int, num_centers: int) -> int:
    """Return how many queries at a time meet all centers; few would be no matrix product."""
    return min(num_queries, max(64, _tile() // num_centers))


def _tile() -> int:
    """Return the logits at a time of the chunked peers: 4 MiB on a CPU, else 256 MiB."""
    return 2**20 if jax.default_backend() == "cpu" else 2**26


def _torch_tile(x, y, bandwidth):
    x_sq, y_sq = (x * x).sum(1)[:, None], (y * y).sum(1)[None, :]
    return (-(x_sq + y_sq - 2 * x @ y.T) / (2 * bandwidth**2)).logsumexp(dim=1)


def _torch_tiles(torch, tile, x, y, bandwidth):
    rows = min(len(x), math.isqrt(_tile()))
    columns = min(len(y), _tile() // rows)
    values = []
    for queries in x.split(rows):
        lse = None
        for centers in y.split(columns):
            part = tile(queries, centers, bandwidth)
            lse = part if lse is None else torch.logaddexp(lse, part)
        values.append(lse)
    return torch.cat(values)


def _ready_torch(torch, call, x, y) -> Ready:
    def wait(result):
        del result
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def lse(result):
        lse = result[0] if isinstance(result, tuple) else result
        return lse.cpu().numpy().astype(np.float64)

    return Ready(call, wait, lse, x, y)


def _no_wait(result):
    return result


def _whitened(x, y) -> tuple[np.ndarray, np.ndarray]:
    """Return both in the coordinates in which the covariance of y is the identity."""
    if len(y) <= 2 * y.shape[1]:
        raise Unavailable("too few centers for a covariance")
    mean = y.mean(0, dtype=np.float64)
    inverse = np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(y.T, dtype=np.float64)))).T
    return tuple(((points - mean) @ inverse).astype(np.float32) for points in (x, y))


def _log_normalizer(y, bandwidth) -> float:
    """Return what to add to a kernel log density to get the log-sum-exp, nats."""
    m, d = y.shape
    return math.log(m) + 0.5 * d * math.log(2 * math.pi * bandwidth**2)


def main(argv=None) -> None:
    """Try every peer on a small problem."""
    argparse.ArgumentParser(
        description="Say which peers are installed and how exact each is."
    ).parse_args(argv)
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((k, 16), dtype=np.float32) for k in (64, 2000))
    for name, peer in PEERS.items():
        try:
            ready = make_peer(name, x, y, 0.8)
            lse = ready.lse(ready.call())
        except Unavailable as reason:
            print(f"{name:<20} {peer.package:<13} {reason}")
            continue
        error = np.max(np.abs(lse - reference_stats(ready.x, ready.y, bandwidth=0.8).lse))
        print(f"{name:<20} {peer.package:<13} max error {error:.1e} nats")


if __name__ == "__main__":
    main()
