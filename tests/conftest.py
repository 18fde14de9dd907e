"""What every test shares: the CPU backend, a cache of compiled programs, and jaxtyping's shapes checked at run time."""

import atexit
import gc
import importlib.util
import multiprocessing
import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs run once or twice here, on a few numbers: machine code that is not optimised, from the older of XLA's two
# emitters for CPUs and in one piece, compiles in a fifth of the time.
quick = "--xla_backend_optimization_level=0"
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):  # a newer XLA stops at a flag that it does not know
    older = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ.setdefault("XLA_FLAGS", f"{quick} {older}")
os.environ.setdefault("XLA_FLAGS", quick)
# Threads of PyTorch and of NumPy's algebra spin while they wait for one another, and the other worker has the core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Workers and the scripts that tests start inherit it: each train step is compiled once for the whole suite.
    cache = tempfile.mkdtemp(prefix="ledit-jax-tests-")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

# The TPU compiler, where `make test` puts it.
if (libtpu := Path(sys.prefix) / "tpu" / "libtpu" / "libtpu.so").is_file():
    os.environ.setdefault("TPU_LIBRARY_PATH", str(libtpu))

# Before the package is first imported.
install_import_hook("ledit_jax", "beartype.beartype")

# Compiled programs make millions of objects that stay; looking through them at every turn takes a tenth of the time.
gc.set_threshold(100_000, 20, 50)


def _start_method(method: str | None = None, get_context=multiprocessing.get_context):
    """Grain's worker processes, which would each import for two seconds, are forked from one that has imported."""
    if method != "spawn":
        return get_context(method)
    import script_runs  # here: it imports jax, which has to see the settings above

    return script_runs.PROCESSES


multiprocessing.get_context = _start_method


def pytest_exception_interact() -> None:
    """What a failed test left running would have the processor, and be waited for at the end."""
    for process in multiprocessing.active_children():
        process.kill()


@pytest.fixture(scope="session", autouse=True)
def _spared():
    """What jax and flax do for long runs, and costs short ones a tenth of their time."""
    import jax  # here: it has to see the settings above
    from jax._src.interpreters import partial_eval

    # Studies let compiled programs go after each arm. Those of the tests are small, and the next test's too.
    jax.clear_caches = lambda: None
    # Flax asks a traced counter of random keys for its sharding, and is answered with the story of where it came from.
    partial_eval.DynamicJaxprTracer._origin_msg = lambda tracer: ""


@pytest.fixture(scope="session")
def object_store():
    """A store of objects, see tests/object_store.py, with one bucket: tests use folders of their own in it.

    Its objects by name: (what number its last change has among all, what it holds).
    """
    if importlib.util.find_spec("gcsfs") is None:
        pytest.skip("gcsfs is not installed")
    from object_store import start

    return start()
