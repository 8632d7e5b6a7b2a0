"""Runs a test once per implementation that this machine has."""

import pytest

from avae_jax.kernels.pairwise_lse.implementations import IMPLEMENTATIONS


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
def implementation(request):
    """Return the name of an implementation."""
    reason = IMPLEMENTATIONS[request.param].unavailable()
    if reason is not None:
        pytest.skip(f"{request.param}: {reason}")
    return request.param
