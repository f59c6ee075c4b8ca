"""Fixtures of the whole suite."""

import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

# Before NumPy and torch are imported, here and in the processes of pytest-xdist: their idle threads would spin on the
# CPUs that other tests need.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import keras_files
import pytest
from helpers import using_isa

import fastrnn
from fastrnn import _core
from fastrnn.nn.streams import Caller

# In CI the same examples every time; elsewhere new ones. Kernels are timed by benchmarks, not here.
hypothesis.settings.register_profile("fastrnn", deadline=None, derandomize="CI" in os.environ, print_blob=True)
hypothesis.settings.load_profile("fastrnn")


def pytest_make_parametrize_id(config, val, argname):
    """Ids that every process writes alike: bytes may hold a time, and a set's order is another in every process."""
    return argname if isinstance(val, (bytes, set, frozenset)) else None


@pytest.fixture(params=fastrnn.available_isas())
def isa(request):
    """Every instruction set of this machine in turn; in use while the test runs."""
    with using_isa(request.param):
        yield request.param


@pytest.fixture(scope="session")
def data_dir():
    """The folder of models and goldens, outside the project: FASTRNN_DATA, else ../shared/data of the repository."""
    place = Path(os.environ.get("FASTRNN_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not place.is_dir():
        message = f"no test data at {place}: set FASTRNN_DATA to its folder"
        if os.environ.get("CI"):
            pytest.fail(message + " (in CI it must be there)")
        pytest.skip(message)
    return place


@pytest.fixture
def passes(monkeypatch):
    """The calls of the compiled passes, as (name, arguments)."""
    calls = []
    for name in ("forward_layer", "backward_layer"):
        def spy(name, real, *args, **options):
            calls.append((name, args, options))
            return real(*args, **options)
        monkeypatch.setattr(_core, name, functools.partial(spy, name, getattr(_core, name)))

    def spy_on_short(self, *args):
        result = _core.StreamCore._call(self, *args)
        if result is not None:
            calls.append(("short call", args, {}))
        return result
    monkeypatch.setattr(Caller, "_call", spy_on_short)
    return calls


@pytest.fixture(scope="session")
def keras_folder(tmp_path_factory):
    """The folder of what Keras wrote."""
    folder = tmp_path_factory.mktemp("keras")
    subprocess.run([sys.executable, keras_files.__file__, folder], check=True, timeout=300, capture_output=True,
                   env={**os.environ, "KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"})
    return folder


@pytest.fixture(scope="session")
def script():
    """The module of a script in benchmarks/, by its name."""
    def load(name):
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "benchmarks" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    return load
