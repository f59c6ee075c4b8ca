"""fastrnn on a Python without a GIL (PEP 703): many threads in one model at once, and the suite's core.

    python tests/campaigns/free_threaded.py                             some minutes, and some more the first time
    python tests/campaigns/free_threaded.py --python python3.14t
    python tests/campaigns/free_threaded.py --slice                     only the tests of threads
    python tests/campaigns/free_threaded.py --tsan                      data races: tests with threads under tsan

Run by `make free-threaded`. Takes a free-threaded Python that is on the PATH, or else has one built from Debian's
source package (pythons.py). Into build/ go a virtual environment of it, with NumPy and pytest from PyPI, and fastrnn
built for it. That importing fastrnn leaves the GIL off is one of the tests.

With --tsan (`make free-threaded-tsan`) a second CPython of the same version is built, by clang with ThreadSanitizer,
and so is fastrnn, with one instruction set: then ThreadSanitizer knows the locks of the interpreter and its reference
counts. NumPy is the wheel of PyPI, and all that is not tried, pip and setup.py, runs on the first CPython. A report
counts where one of its stacks has a frame of fastrnn, and nothing is suppressed. The reports are in
build/free-threaded/tsan/reports. Needs clang with its runtime (Debian: clang-19 libclang-rt-19-dev).
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
import sanitizers

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "free-threaded"
VERSION = "3.13"                                    # the newest whose source Debian's mirrors were found to hold
ON_PATH = ["python3.15t", "python3.14t", "python3.13t"]
PACKAGES = ["numpy>=2.0", "cython>=3.1,<3.4", "setuptools>=77", "pytest", "hypothesis"]
THREADED = ["tests/nn/test_threads.py", "tests/package/test_free_threading.py",
            "tests/forecasting/test_forecasts_in_threads.py"]
# What needs nothing beside NumPy, pytest and hypothesis.
CORE = [*THREADED, "tests/nn/test_short_calls.py", "tests/scale/test_pool.py",
        *(f"tests/kernels/test_{name}.py" for name in ("kernels", "packed", "robustness", "teams", "forks"))]
LIMIT = 3600            # seconds that one command may take
CONTENTION = "contention"
# With ThreadSanitizer: what is printed, files, and how many cases of each test function at most.
RACES = [(CONTENTION, [], 0),
         ("threads", ["tests/nn/test_threads.py"], 100), ("shared models", ["tests/nn/test_shared_models.py"], 100),
         ("imports and forecasts", THREADED[1:], 100), ("forks", ["tests/kernels/test_forks.py"], 100),
         ("teams", ["tests/kernels/test_teams.py"], 2), ("pools", ["tests/scale/test_pool.py"], 2)]


def found_python():
    """A free-threaded Python on the PATH, or None."""
    return next((path for path in map(shutil.which, ON_PATH) if path), None)


def run(command, **environment):
    """What a command prints; where it fails, an error that ends in what it printed last."""
    variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(FOLDER / "cache")}
    result = subprocess.run([str(word) for word in command], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, timeout=LIMIT, check=False, env={**variables, **environment})
    if result.returncode:
        tail = "\n".join(result.stdout.splitlines()[-60:])
        raise RuntimeError(f"exit status {result.returncode} of {' '.join(map(str, command[:6]))}\n{tail}")
    return result.stdout


def prepare(python, folder):
    """The interpreter of a virtual environment in the folder, with the packages."""
    own = folder / "venv/bin/python"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        run([python, "-m", "venv", folder / "venv"])
        # nothing is built from source but fastrnn: of NumPy the newest version that there is a wheel of
        run([own, "-m", "pip", "install", "-q", "--no-compile", "--only-binary=:all:", *PACKAGES])
        (folder / "ready").touch()
    return own


def build(own, folder, **environment):
    """The folder of fastrnn, built by that interpreter for itself."""
    run([own, "setup.py", "-q", "build", "--build-base", folder / "build", "--build-lib", folder / "lib"],
        **environment)
    return folder / "lib"


# ---- ThreadSanitizer ------------------------------------------------------------------------------

def races_of(name, tests, most, python, paths):
    """Runs tests, or the program of contention, with that interpreter, with fastrnn and packages in these folders.

    The line to print, and whether all passed and nothing counts.
    """
    start, reports, library = time.monotonic(), FOLDER / "tsan/reports" / name.replace(" ", "-"), str(paths[0])
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    variables = {**sanitizers.report_options("tsan", "clang", reports), "PYTHONSAFEPATH": "1", "CI": "1",
                 "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT / "tests/support"])),
                 "FASTRNN_SANITIZED_BUILD": library, "FASTRNN_SAMPLE": str(most),
                 "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [*sanitizers.fixed_addresses("tsan"), python]
    if name == CONTENTION:
        command += ["tests/campaigns/contention.py"]
    else:
        command += ["-m", "pytest", *tests, "-q", "-m", "not slow", "-p", "sanitized", "-p", "sampled",
                    "-p", "no:faulthandler", "-p", "no:cacheprovider"]
    try:
        printed, passed = run(command, **variables), True
    except RuntimeError as error:
        printed, passed = str(error), False
        print(printed, flush=True)
    counted, others = sanitizers.sort_reports(reports, library)
    for report in counted[:20]:
        print(report, flush=True)
    summary = re.findall(r"^(?:=*\s*|contention: )(\d+ (?:passed|failed|error).*?)(?: in [\d.]+s|$)", printed, re.M)
    line = f"free-threaded tsan, {name}: {summary[-1] if summary else 'no summary'}; {time.monotonic() - start:.0f} s; "
    return f"{line}{len(counted)} findings, {len(others)} reports without a frame of fastrnn", passed and not counted


def find_races(only):
    """Builds all that ThreadSanitizer is to see, and runs the tests with threads, or those that are named; whether all
    is well."""
    sanitizers.find_runtimes("tsan", "clang")
    compiler = sanitizers.find_compiler("clang")
    ordinary = pythons.build(VERSION, free_threaded=True)
    python = pythons.build(VERSION, free_threaded=True, tsan=True, compiler=compiler)
    own = prepare(ordinary, FOLDER / ordinary.name)
    packages = run([own, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"]).strip()
    # the two have one binary interface
    library = build(own, FOLDER / "tsan", CC=compiler, FASTRNN_SANITIZE="thread", FASTRNN_ISAS=widest_isa())
    well = True
    for name, tests, most in RACES:
        if not only or name in only:
            line, clean = races_of(name, tests, most, python, [library, packages])
            print(line, flush=True)
            well &= clean
    return well


def widest_isa():
    """The widest instruction set of this machine, of those that fastrnn has kernels for."""
    import fastrnn  # this machine's own build

    return fastrnn.available_isas()[0]


# ---- The command line -----------------------------------------------------------------------------

def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="a free-threaded Python; the default is one on the PATH, or one that is built")
    parser.add_argument("--slice", action="store_true", help="only the tests of threads")
    parser.add_argument("--found", action="store_true", help="do nothing where no free-threaded Python is on the PATH")
    parser.add_argument("--tsan", action="store_true", help="look for data races, with a Python built for that")
    parser.add_argument("--only", nargs="+", choices=[name for name, _, _ in RACES], help="with --tsan: these tests")
    return parser.parse_args()


def version_of(python):
    return run([python, "-c", "import sys, numpy; print(sys.version.split()[0], 'NumPy', numpy.__version__)"]).strip()


def run_tests(python, tests):
    """Builds what is needed for that Python and runs the tests there; the line to print."""
    start, python = time.monotonic(), Path(python or pythons.build(VERSION, free_threaded=True))
    folder = FOLDER / python.name
    own = prepare(python, folder)
    library = build(own, folder)
    # the tests stand in the checkout, beside a fastrnn for another Python: its folder is left out of the path
    printed = run([own, "-m", "pytest", *tests, "-q", "-p", "no:cacheprovider", "-m", "not slow"],
                  PYTHONPATH=str(library), PYTHONSAFEPATH="1", CI="1")
    passed = re.search(r"[0-9]+ passed", printed)[0]
    return f"free-threaded: Python {version_of(own)}: {passed}, {time.monotonic() - start:.0f} s"


def main():
    arguments = parse()
    python = arguments.python or found_python()
    if arguments.found and python is None:
        print(f"free-threaded: not run, there is none of {', '.join(ON_PATH)} here")
        return 0
    try:
        if arguments.tsan:
            well = find_races(arguments.only)
            print(f"free-threaded tsan: {'clean' if well else 'FAILED'}")
            return not well
        print(run_tests(python, THREADED if arguments.slice else CORE))
    except (RuntimeError, subprocess.TimeoutExpired, sanitizers.Missing) as error:
        print(f"free-threaded: FAILED: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
