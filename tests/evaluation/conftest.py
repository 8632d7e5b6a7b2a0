"""Runs trained in seconds, and ways to break one."""

import contextlib
import dataclasses
import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax.mesh import make_mesh
from avae_jax.posteriors import Dirac
from avae_jax.training import config as cfg
from avae_jax.training import loop
from avae_jax.training.run import Run, load_run


def train(folder, config, **options) -> Run:
    """Train quietly, on one device, and read the run back."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        loop.train(config, folder, mesh=make_mesh(1), **options)
    return load_run(folder)


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory) -> Run:
    """The shipped digits experiment, a quarter as long."""
    config = cfg.replace_fields(cfg.load_experiment("digits"), num_epochs=50, batch_size=96)
    return train(tmp_path_factory.mktemp("runs") / "digits", config)


@pytest.fixture(scope="session")
def vae_run(tmp_path_factory) -> Run:
    """A small VAE with a Bernoulli likelihood on the digits."""
    config = cfg.replace_fields(
        cfg.load_experiment("digits"), num_epochs=5, batch_size=96, width=1.0,
        method="vae", likelihood="bernoulli", latent_dim=4,
    )  # fmt: skip
    return train(tmp_path_factory.mktemp("runs") / "vae", config)


def with_codes(run: Run, forward, backward) -> Run:
    """Return a run whose codes are changed by `forward`, and undone by `backward` when decoded.

    Args:
      run: the run.
      forward: `[n, latent_dim]` codes -> changed codes, in JAX.
      backward: changed codes -> the codes the decoder was trained on.
    """
    method = run.method

    class Changed(type(method)):
        def encode(self, variables, x, *, train):
            posterior, variables = method.encode(variables, x, train=train)
            return Dirac(forward(posterior.mean())), variables

        def decode(self, variables, z, *, train):
            return method.decode(variables, backward(z), train=train)

    fields = {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}
    return dataclasses.replace(run, method=Changed(**fields))


def gaussianised(run: Run) -> Run:
    """Return a run whose codes have the claimed prior's mean and covariance.

    A short training leaves some of either; tests of what is added to a good model start from here.
    """
    from avae_jax.training.run import run_data

    dataset = run_data(run)
    z = run.encode(dataset.images[dataset.splits.train]).astype(np.float64)
    mean, covariance = z.mean(axis=0), np.cov(z, rowvar=False)
    values, vectors = np.linalg.eigh(covariance)
    scale = run.prior().std()
    to = jnp.asarray((vectors / np.sqrt(values)) @ vectors.T * scale, jnp.float32)
    back = jnp.asarray((vectors * np.sqrt(values)) @ vectors.T / scale, jnp.float32)
    shift = jnp.asarray(mean, jnp.float32)
    return with_codes(run, lambda z: (z - shift) @ to, lambda z: z @ back + shift)


@functools.partial(jax.jit, static_argnames=("scale",))
def open_hole(z, scale):
    """Push codes out of a disk in the plane of the first two axes, whose variances stay as is."""
    plane, rest = z[:, :2] / scale, z[:, 2:]
    radius = jnp.linalg.norm(plane, axis=1, keepdims=True)
    # The radius squared is chi-square with 2 degrees of freedom, mean 2: moved out by 1, and
    # shrunk to the same mean.
    wider = jnp.sqrt((jnp.square(radius) + 1.5) * (2.0 / 3.5))
    return jnp.concatenate([scale * plane * wider / jnp.maximum(radius, 1e-6), rest], axis=1)
