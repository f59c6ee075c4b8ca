"""fastrnn on a Python without a GIL (PEP 703): many threads in one model at once, and the suite's core.

    python tests/campaigns/free_threaded.py                             some minutes, and some more the first time
    python tests/campaigns/free_threaded.py --python python3.14t
    python tests/campaigns/free_threaded.py --slice                     only the tests of threads

Run by `make free-threaded`. Takes a free-threaded Python that is on the PATH, or else has one built from Debian's
source package (pythons.py). Into build/ go a virtual environment of it, with NumPy and pytest from PyPI, and fastrnn
built for it. That importing fastrnn leaves the GIL off is one of the tests.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pythons

ROOT = Path(__file__).resolve().parents[2]
VERSION = "3.13"                                    # the newest whose source Debian's mirrors were found to hold
ON_PATH = ["python3.15t", "python3.14t", "python3.13t"]
PACKAGES = ["numpy>=2.0", "cython>=3.1,<3.4", "setuptools>=77", "pytest", "hypothesis"]
THREADED = ["tests/nn/test_threads.py", "tests/package/test_free_threading.py",
            "tests/forecasting/test_forecasts_in_threads.py"]
# What needs nothing beside NumPy, pytest and hypothesis.
CORE = [*THREADED, "tests/nn/test_short_calls.py", "tests/scale/test_pool.py",
        *(f"tests/kernels/test_{name}.py" for name in ("kernels", "packed", "robustness", "teams", "forks"))]
LIMIT = 3600            # seconds that one command may take


def found_python():
    """A free-threaded Python on the PATH, or None."""
    return next((path for path in map(shutil.which, ON_PATH) if path), None)


def run(command, **environment):
    """What a command prints; where it fails, an error that ends in what it printed last."""
    result = subprocess.run([str(word) for word in command], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, timeout=LIMIT, check=False,
                            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment})
    if result.returncode:
        tail = "\n".join(result.stdout.splitlines()[-60:])
        raise RuntimeError(f"exit status {result.returncode} of {' '.join(map(str, command[:6]))}\n{tail}")
    return result.stdout


def prepare(python, folder):
    """The interpreter of a virtual environment in the folder, and the folder of fastrnn, built for it."""
    own, library = folder / "venv/bin/python", folder / "lib"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        run([python, "-m", "venv", folder / "venv"])
        # nothing is built from source but fastrnn: of NumPy the newest version that there is a wheel of
        run([own, "-m", "pip", "install", "-q", "--only-binary=:all:", *PACKAGES])
        (folder / "ready").touch()
    run([own, "setup.py", "-q", "build", "--build-base", folder / "build", "--build-lib", library])
    return own, library


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="a free-threaded Python; the default is one on the PATH, or one that is built")
    parser.add_argument("--slice", action="store_true", help="only the tests of threads")
    parser.add_argument("--found", action="store_true", help="do nothing where no free-threaded Python is on the PATH")
    arguments = parser.parse_args()
    start, python = time.monotonic(), arguments.python or found_python()
    if arguments.found and python is None:
        print(f"free-threaded: not run, there is none of {', '.join(ON_PATH)} here")
        return 0
    try:
        python = Path(python or pythons.build(VERSION, free_threaded=True))
        own, library = prepare(python, ROOT / "build" / "free-threaded" / python.name)
        tests = THREADED if arguments.slice else CORE
        # the tests stand in the checkout, beside a fastrnn for another Python: its folder is left out of the path
        printed = run([own, "-m", "pytest", *tests, "-q", "-p", "no:cacheprovider", "-m", "not slow"],
                      PYTHONPATH=str(library), PYTHONSAFEPATH="1", CI="1")
        versions = run([own, "-c", "import sys, numpy; print(sys.version.split()[0], 'NumPy', numpy.__version__)"])
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        print(f"free-threaded: FAILED: {error}")
        return 1
    passed = re.search(r"[0-9]+ passed", printed)[0]
    print(f"free-threaded: Python {versions.strip()}: {passed}, {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
