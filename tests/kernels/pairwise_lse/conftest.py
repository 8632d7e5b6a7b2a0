"""Runs a test once per implementation that this machine can run."""

import pytest

from .contract import run_here


@pytest.fixture(params=run_here())
def implementation(request):
    """Return the name of an implementation."""
    return request.param
