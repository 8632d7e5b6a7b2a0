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

GIB_OF_A_WORKER = 3  # Two together took 5.6 GiB at most.
MOST_WORKERS = 8  # With more, each compiles for itself what others are compiling.


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the workers of `-n auto`: one a core, as far as the memory goes; 0 is no worker."""
    workers = min(_num_cores(), MOST_WORKERS)
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        workers = min(workers, int(memory // GIB_OF_A_WORKER))
    return workers if workers > 1 else 0


# Files that share a trained run stay on one worker, and what takes longest begins first.
LONGEST = (
    "training/test_loop",
    "test_accelerator",
    "training/test_trainer",
    "evaluation",
    "test_cli",
    "kernels",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give files to workers, those of `tests/evaluation` together, the longest first."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::", 1)[0]
            return "tests/evaluation" if file.startswith("tests/evaluation/") else file

    config.option.loadscopereorder = False
    return ByFile(config, log)


def pytest_collection_modifyitems(items):
    """Sort the longest files first where several workers share them."""
    if _WORKERS > 1:

        def place(item):
            starts = [item.nodeid.startswith(f"tests/{name}") for name in LONGEST]
            return starts.index(True) if True in starts else len(LONGEST)

        items.sort(key=place)


def pytest_unconfigure():
    """Delete the compiled programs; only the process that made the folder knows it."""
    if _COMPILED is not None:
        shutil.rmtree(_COMPILED, ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def _private_caches(tmp_path_factory):
    """Keep the user's caches out of the tests, and the tests out of them."""
    os.environ["AVAE_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def quick_environment():
    """Return the environment of a process that compiles like `quick_compiler`."""
    quick = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    return {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {quick}"}


class _QuickPrograms:
    """Whether JAX may hold programs that were compiled quickly, which it would take for any."""

    held = False

    def forget(self):
        """Have what is called next compiled again, if any of it was compiled quickly."""
        import jax

        if self.held:
            jax.clear_caches()
        self.held = False


@pytest.fixture(scope="session")
def _quick_programs():
    """Have programs without optimizations fused by XLA's older way as well.

    It has no pipeline of its own for each fusion: a CPU compiles in half the time again.
    """
    import jax
    from jax._src import compiler

    programs = _QuickPrograms()
    options_of_users = compiler.get_compile_options

    def options_of_tests(*args, **kwargs):
        options = options_of_users(*args, **kwargs)
        if jax.config.read("jax_disable_most_optimizations"):
            programs.held = True
            old = ("xla_cpu_use_fusion_emitters", False)
            options.env_option_overrides = [*options.env_option_overrides, old]
        return options

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "get_compile_options", options_of_tests)
        yield programs


@pytest.fixture(scope="module")
def quick_compiler(_quick_programs):
    """Compile a file's programs without LLVM's optimizations, which take most of the time.

    For tests of logic. The kernel, the losses and the metrics are compared with float64 as users
    compile them, by `full_compiler` or in files of their own, for which no program is left behind.
    """
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    _quick_programs.forget()


@pytest.fixture
def full_compiler(quick_compiler, _quick_programs):
    """Compile one test of such a file as users do: its digits count, or it runs for long."""
    import jax

    _quick_programs.forget()
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
