"""Tests run on 8 virtual CPU devices, whatever the machine has."""

import functools
import gc
import importlib.metadata
import importlib.util
import json
import os
import signal
import tempfile

# Imports make a half million objects that stay: looking through them again and again
# takes nearly as long as the imports. On again when all tests are known.
gc.disable()

os.environ["JAX_PLATFORMS"] = "cpu"
# One folder of compiled programs for all workers and for the processes that tests
# start: most programs are compiled by several tests. It ends with the session.
if "PYTEST_XDIST_WORKER" not in os.environ:
    programs = tempfile.TemporaryDirectory(prefix="snclr_programs_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = programs.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    # Programs here run for milliseconds: compiling them fast matters more.
    + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    # Not optimized, a float64 convolution of XLA's own takes many times as long. What
    # the import of snclr_jax says of it counts only where nothing is said here.
    + " --xla_cpu_experimental_ynn_fusion_type=individual_convolution,individual_dot"
)
# No line of Python beside each operation of a program: it is traced and lowered faster.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"

if importlib.metadata.version("jaxlib").startswith("0.10."):
    # Sums are as slow, and right in 0.10. The other flag, which is gone in 0.11, halves
    # the time that a step takes to compile.
    os.environ["XLA_FLAGS"] += ",reduce --xla_cpu_use_fusion_emitters=false"

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from snclr_jax.data import digits  # noqa: E402
from snclr_jax.devices.mesh import make_mesh  # noqa: E402

# A shell lets its background jobs ignore SIGINT, and so would the programs under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Modules of the slow tests that compare with PyTorch, where there is one.
collect_ignore = [] if importlib.util.find_spec("torch") else ["torch_modules.py"]


def pytest_xdist_auto_num_workers():
    """One more than there are cores: tests wait for disks, clocks and processes."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items):
    """First comes the file whose fixture takes longest: workers steal what is last."""
    items.sort(key=lambda item: item.path.name != "test_one_definition.py")


def pytest_collection_finish():
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Drops the compiled programs of a test file when it ends.

    JAX keeps what it lowered, and with each program a context of MLIR. A new context
    takes time in proportion to those there are, so the last files of a long run took
    many times what they take alone, and the process gigabytes.
    """
    yield
    jax.clear_caches()


@pytest.fixture(scope="session", autouse=True)
def digits_are_drawn_once():
    """Nothing changes a picture that was drawn, and drawing them takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "open_digits", functools.cache(digits.open_digits))
        yield


@pytest.fixture(scope="module")
def few_digits():
    """The first digits alone, in place of all: 300 to train on and 100 to test on."""
    whole = digits.open_digits

    def first(*which):
        train, test, names = whole(*which)
        return train.subset(np.arange(300)), test.subset(np.arange(100)), names

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "open_digits", functools.cache(first))
        yield


@pytest.fixture
def blank_figures(monkeypatch):
    """Writes no figure of a report: drawing them takes nearly all of its time."""
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)


@pytest.fixture(scope="module")
def equal_runs_share_a_step():
    """Lets the runs of a file that take the same step trace it once: it takes seconds.

    What is excluded from the comparison is not read by a step.
    """
    from snclr_jax.settings import training

    make_train_step, made = training.make_train_step, {}

    def make_once(model, objective, optimizer, config, mesh, **steps):
        read = config.to_dict() | {"data": (config.data.mean, config.data.std)}
        for name in ("checkpoint", "evaluate", "log", "steps_per_call"):
            del read[name]
        key = json.dumps([read, steps]), mesh
        if key not in made:
            parts = (model, objective, optimizer, config, mesh)
            made[key] = make_train_step(*parts, **steps)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "make_train_step", make_once)
        yield


@pytest.fixture(scope="session")
def mesh_of():
    """Returns a function from a number of devices to a mesh over the first ones."""
    return lambda count: make_mesh(jax.devices()[:count])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    """A labelled folder of small pictures, with a test split."""
    from pictures import make_folder  # loads TFDS, which takes seconds

    return make_folder(tmp_path / "pictures")


@pytest.fixture
def no_pool(monkeypatch):
    """Lets `snclr prepare` decode in this process: workers take half a second."""
    from snclr_jax.data.prepare import run
    from snclr_jax.data.prepare.checking import check_image, read_encoded

    def read_checked(images, workers):
        for image in images:
            yield image, check_image(image) or read_encoded(image)

    monkeypatch.setattr(run, "read_checked", read_checked)
