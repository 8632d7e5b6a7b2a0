"""For which kind of device code is being traced: a machine with a GPU also has a CPU."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax

_TRACED_FOR: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


def platform() -> str:
    """Return the platform that code is being traced for: "cpu", "gpu" or "tpu"."""
    return _TRACED_FOR.get() or jax.default_backend()


def device() -> Any:
    """Return a device of the platform that code is being traced for."""
    return jax.local_devices(backend=_TRACED_FOR.get())[0]


@contextlib.contextmanager
def tracing_for(name: str) -> Iterator[None]:
    """Let `platform` and `device` be those of one platform."""
    token = _TRACED_FOR.set(name)
    try:
        yield
    finally:
        _TRACED_FOR.reset(token)


@functools.cache
def _has_cpu() -> bool:
    """Return whether JAX has the CPU too; JAX_PLATFORMS can leave it out."""
    try:
        return bool(jax.local_devices(backend="cpu"))
    except RuntimeError:
        return False


def per_platform(function: Callable) -> Callable:
    """Return a function of arrays that is traced once per platform that it may come to run on.

    Where it runs is known when it is compiled, not yet when it is traced: `jax.default_device`, or
    an argument that lies on the CPU, brings it to the CPU of a machine with a GPU.
    """
    default = jax.default_backend()
    if default == "cpu" or not _has_cpu():
        return function

    def on(name: str) -> Callable:
        def traced(*args):
            with tracing_for(name):
                return function(*args)

        return traced

    return lambda *args: jax.lax.platform_dependent(*args, cpu=on("cpu"), default=on(default))
