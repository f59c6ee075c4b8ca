"""A source folder that is not built, and a machine that cannot build it, say what to do in one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from child import attempt

import fastrnn

ROOT = Path(__file__).parents[2]
PACKAGE = Path(fastrnn.__file__).parent
# An editable install of fastrnn would find the missing modules in its own folder.
WITHOUT_EDITABLE_INSTALLS = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in finder.__module__]
"""


@pytest.fixture
def checkout(tmp_path):
    """A source folder that was never built."""
    shutil.copytree(PACKAGE, tmp_path / "fastrnn", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


def failure(statement, folder, prelude=WITHOUT_EDITABLE_INSTALLS):
    """What a statement that fails prints to stderr where the folder comes first on the path."""
    result = attempt(statement, prelude=prelude, PYTHONPATH=str(folder), PYTHONSAFEPATH="1")
    assert result.returncode == 1 and not result.stdout
    return result.stderr.strip()


@pytest.mark.parametrize("statement", [
    "import fastrnn", "import fastrnn.interop.onnx", "from fastrnn.forecasting import RNNForecaster",
    "import runpy; runpy.run_module('fastrnn', run_name='__main__')"])
def test_a_checkout_that_is_not_built(statement, checkout):
    printed = failure(statement, checkout)
    last = printed.splitlines()[-1]
    assert last.startswith(f"ImportError: fastrnn was imported from its source folder {checkout}, ")
    assert "has no compiled modules" in last and "`python -m pip install -e .`" in last
    assert "circular" not in printed and "During handling" not in printed


def test_a_checkout_built_for_another_python(checkout):
    (checkout / "fastrnn" / "_core.cpython-27-m68k-linux-gnu.so").touch()
    printed = failure("import fastrnn", checkout)
    assert "for another Python (_core.cpython-27-m68k-linux-gnu.so)" in printed and "pip install -e ." in printed


def test_an_installed_package_without_its_compiled_modules(checkout):
    (checkout / "pyproject.toml").unlink()
    printed = failure("import fastrnn", checkout)
    assert "--force-reinstall" in printed and "source folder" not in printed


def test_a_missing_numpy_is_said_as_it_is():
    printed = failure("import fastrnn", PACKAGE.parent, prelude="import sys; sys.modules['numpy'] = None\n")
    assert printed.splitlines()[-1].startswith("ModuleNotFoundError: ") and "numpy" in printed.splitlines()[-1]
    assert "pip" not in printed


@pytest.mark.parametrize("machine", ["sys.maxsize = 2**31 - 1", "sysconfig.get_config_vars()['SIZEOF_VOID_P'] = 4"])
def test_a_32_bit_build_is_refused_in_one_line(machine):
    """By a Python of 32 bits, which need not have NumPy or Cython, and by one that builds for such a machine."""
    result = attempt(f"""
        import runpy, sys, sysconfig
        sys.modules["numpy"] = sys.modules["Cython"] = None
        {machine}
        runpy.run_path({str(ROOT / "setup.py")!r}, run_name="__main__")
    """, prelude="")
    assert result.returncode == 1 and not result.stdout
    assert result.stderr.splitlines() == ["fastrnn needs a 64-bit Python: its kernels are neither built nor tested for "
                                          "32-bit machines"]


@pytest.mark.slow
def test_without_a_compiler_the_build_ends_with_what_to_install(tmp_path):
    """The last line, with nothing behind it, is what pip shows last of the build's output."""
    pytest.importorskip("Cython")
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", tmp_path, "--build-temp", tmp_path]
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, "CC": str(tmp_path / "no-compiler")},
                            capture_output=True, text=True, timeout=300)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("fastrnn needs a C compiler") and "no-compiler" in last and "apt install" in last
