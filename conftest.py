"""Shared set-up: eight virtual CPU devices, private caches, and workers that share the machine."""

import os
import shutil
import tempfile

# Read when JAX is imported and first asked for its devices, so they are set before any test is.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

# Most of the suite's time is XLA's compiler, on programs that several tests, workers and the
# processes that tests start have in common: they share what is compiled. Whoever sets the folder
# keeps the programs for the next run.
_COMPILED = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _COMPILED = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="avae-compiled-")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# Each worker gets its share of the cores, before XLA and BLAS make their threads.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _WORKERS > 1:
    for _name in ("PJRT_NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(_name, str(max(1, _num_cores() // _WORKERS)))

import pytest  # noqa: E402

GIB_OF_A_WORKER = 4  # The largest seen, rounded up.
MOST_WORKERS = 8  # With more, each compiles for itself what others are compiling.


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the workers of `-n auto`: one a core, as far as the memory goes; 0 is no worker."""
    workers = min(_num_cores(), MOST_WORKERS)
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        workers = min(workers, int(memory // GIB_OF_A_WORKER))
    return workers if workers > 1 else 0


def pytest_unconfigure():
    """Delete the compiled programs; only the process that made the folder knows it."""
    if _COMPILED is not None:
        shutil.rmtree(_COMPILED, ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def _private_caches(tmp_path_factory):
    """Keep the user's caches out of the tests, and the tests out of them."""
    os.environ["AVAE_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
