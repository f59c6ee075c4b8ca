"""A smoke test of an installed wheel, run by the Python of an environment that holds fastrnn and NumPy alone.

``make wheel`` and cibuildwheel call it. It imports nothing from the suite and needs no test runner.
"""

import importlib.metadata
import platform
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import numpy as np

before = set(sys.modules)       # what the environment's own hooks have loaded

import fastrnn  # noqa: E402
from fastrnn.anomaly import RNNAnomalyDetector  # noqa: E402
from fastrnn.forecasting import RNNForecaster  # noqa: E402

PACKAGE = Path(fastrnn.__file__).parent
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
X86 = platform.machine().lower() in ("x86_64", "amd64")


def check_files():
    """Compiled modules, types and data are there; sources of the compiled modules are not."""
    site = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    assert PACKAGE.parent.resolve() in site, f"{PACKAGE}: not the installed package"
    isas = ("baseline", "avx2", "avx512") if X86 else ("baseline",)
    for name in ("_core", *(f"_{isa}_{dtype}" for isa in isas for dtype in ("float32", "float64"))):
        assert (PACKAGE / (name + SUFFIX)).is_file(), f"{name}: not built"
    assert (PACKAGE / "py.typed").is_file()
    assert (PACKAGE / "_core.pyi").is_file()
    assert list(PACKAGE.rglob("greensboro_tmy3.csv")), "the demo's data"
    endings = {path.suffix for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert endings <= {".py", ".pyi", ".typed", ".csv", ".md", Path(SUFFIX).suffix}, endings


def check_layers():
    """A layer runs, streams the same bits, trains a step, and survives a file."""
    layer = fastrnn.LSTM(3, 4, rng=0)
    x = np.random.default_rng(0).standard_normal((5, 2, 3), np.float32)
    output, _, cache = layer.forward(x)
    stream = layer.stream(batch_size=2)
    assert all(np.array_equal(stream.step(x_t), y_t) for x_t, y_t in zip(x, output, strict=True))
    assert np.isfinite(layer.backward(cache, d_output=output).input).all()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lstm.npz"
        layer.save(path)
        assert np.array_equal(fastrnn.load(path)(x)[0], output)


def check_estimators():
    wave = np.sin(np.arange(200.0))
    assert RNNForecaster(horizon=3, updates=5).fit(wave).predict().shape == (3,)
    assert RNNAnomalyDetector().fit(wave[:, None]).predict(wave[:5, None]).shape == (5,)


def check_imports():
    """Everything above has loaded NumPy, and no other package."""
    packages = {name.partition(".")[0] for name, module in sys.modules.items() if name not in before
                and "site-packages" in (getattr(module, "__file__", None) or "")}
    assert packages <= {"numpy", "fastrnn"}, packages


def output(command):
    """What a command prints; it succeeds."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def check_command():
    """The command and ``python -m`` run; the version they print is the one that was installed."""
    version = importlib.metadata.version("fastrnn")
    assert version == fastrnn.__version__, (version, fastrnn.__version__)
    script = Path(sysconfig.get_path("scripts")) / ("fastrnn.exe" if sys.platform == "win32" else "fastrnn")
    for command in ([script], [sys.executable, "-P", "-m", "fastrnn"]):
        assert output([*command, "--version"]) == f"fastrnn {version}\n"
        assert f"instruction set: {fastrnn.active_isa()}" in output([*command, "info"])


if __name__ == "__main__":
    check_files()
    check_layers()
    check_estimators()
    check_imports()
    check_command()
    print(f"fastrnn {fastrnn.__version__} on NumPy {np.__version__}, Python {platform.python_version()}: "
          f"{', '.join(fastrnn.available_isas())} run")
