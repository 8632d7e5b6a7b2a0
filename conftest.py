"""Shared set-up: eight virtual CPU devices and private caches."""

import os

# Read when JAX first asks for its devices, so it is set before any test imports JAX.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

import pytest


@pytest.fixture(autouse=True, scope="session")
def _private_caches(tmp_path_factory):
    """Keep the user's caches out of the tests, and the tests out of them."""
    os.environ["AVAE_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
