"""The kernels on other machines: built for them, and run in an emulator with a slice of the kernel tests.

Run by `make machines`, or for some of them by `python tests/campaigns/machines.py aarch64`. A slice is tests of
cells, options and precisions at small sizes, and tests/support/goldens.py: every cell, option, direction and precision,
whose results are written by this machine's own kernels first.

aarch64
    The extension is built by a cross compiler against Debian's Python for arm64, which is unpacked below build/machines
    with NumPy and pytest from PyPI, and nothing is installed. It runs on a CPU without sdot, and on one that has it.
x86-64
    This machine's own build, on CPUs without AVX, with AVX alone, and with AVX2.

A machine whose tools are missing is named with them, and is not run. The exit status is not 0 where a run failed, or
where a machine that was asked for by name could not run.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "machines"
NARROW_TESTS = [f"tests/kernels/test_{name}.py" for name in ("quantized", "bfloat16", "pairs")]
KERNEL_TESTS = [*NARROW_TESTS, *(f"tests/kernels/test_{name}.py" for name in ("options", "packed", "promises"))]
# Left out: large layers, real models, examples by the hundred, what takes minutes in an emulator.
SELECTION = " and ".join(f"not {word}" for word in (
    "401", "330", "130", "100", "speaker", "voice", "test_agrees_with_the_oracle", "stream_run", "chunks_equal",
    "forward_equals", "nan_or_inf"))
PACKAGES = ["python3-minimal", "libpython3-stdlib", "libpython3-dev", "libstdc++6"]
WHEELS = ["numpy>=2.0", "pytest", "hypothesis"]
LIMIT = 1800            # seconds that one command may take


class Processor(NamedTuple):
    """A CPU of the emulator, and what runs on it."""

    name: str
    isas: str               # the instruction sets that fastrnn finds
    dot: bool = False       # it has an instruction for sums of int8 products
    tests: list[str] = KERNEL_TESTS


PROCESSORS = {
    # without sdot int8 products alone are summed in another way
    "aarch64": [Processor("neoverse-n1", "baseline", dot=True),
                Processor("cortex-a72", "baseline", tests=NARROW_TESTS[:1])],
    # the suite runs these kernels on newer CPUs, too: here is seen that they need nothing newer
    "x86-64": [Processor("Nehalem", "baseline", tests=NARROW_TESTS),
               Processor("SandyBridge", "baseline", tests=NARROW_TESTS[:1]),
               Processor("Haswell", "avx2 baseline", tests=NARROW_TESTS)],
}
NEEDED = {
    "aarch64": {"aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu", "qemu-aarch64": "qemu-user", "apt-get": "apt",
                "dpkg-deb": "dpkg"},
    "x86-64": {"qemu-x86_64": "qemu-user"},
}


def run(command, **environment):
    """What a command prints that runs in ROOT; where it fails, an error that ends in what it printed last."""
    result = subprocess.run([str(word) for word in command], cwd=ROOT, env={**os.environ, **environment}, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT, check=False)
    if result.returncode:
        tail = "\n".join(result.stdout.splitlines()[-30:])
        raise RuntimeError(f"exit status {result.returncode} of {' '.join(map(str, command[:12]))}\n{tail}")
    return result.stdout


# ---- aarch64: a Python to run, and the extension built for it ----------------------------------------

def unpack_python(folder):
    """Debian's Python for arm64 with its libraries, and apart from them its headers; by an apt of this folder's own."""
    state, archives = folder / "apt", folder / "apt/archives"
    for name in ("lists/partial", "archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    apt = ["apt-get", "-q", "-y"]
    for option, value in {"APT::Architecture": "arm64", "APT::Architectures": "arm64", "Dir::State": state,
                          "Dir::State::status": state / "status", "Dir::State::lists": state / "lists",
                          "Dir::Cache": state, "APT::Sandbox::User": "root"}.items():
        apt += ["-o", f"{option}={value}"]
    run([*apt, "update"])
    run([*apt, "install", "--download-only", "--no-install-recommends", *PACKAGES])
    for archive in sorted(archives.glob("*.deb")):
        run(["dpkg-deb", "-x", archive, folder / "root"])
        if re.match(r"libpython3\.\d+-dev_", archive.name):
            run(["dpkg-deb", "-x", archive, folder / "headers"])


def arm_python(folder):
    """The path of that Python, and its version as (3, minor)."""
    path = next(path for path in sorted((folder / "root/usr/bin").glob("python3.*")) if path.name[8:].isdigit())
    return path, (3, int(path.name[8:]))


def unpack_wheels(folder):
    """NumPy for that Python, pytest and hypothesis."""
    platforms = [word for tag in ("manylinux2014", "manylinux_2_17", "manylinux_2_27", "manylinux_2_28")
                 for word in ("--platform", f"{tag}_aarch64")]
    run([sys.executable, "-m", "pip", "install", "-q", "--target", folder / "site", "--only-binary=:all:", *platforms,
         "--python-version", "{}.{}".format(*arm_python(folder)[1]), "--implementation", "cp", *WHEELS])


def build_for_arm(folder):
    """setup.py with the settings of that Python, the cross compiler, and the headers of both."""
    major, minor = arm_python(folder)[1]
    data = next((folder / f"root/usr/lib/python{major}.{minor}").glob("_sysconfigdata__aarch64*.py"))
    (folder / "settings").mkdir(exist_ok=True)
    shutil.copy(data, folder / "settings")
    headers = [folder / "headers/usr/include", folder / f"headers/usr/include/python{major}.{minor}",
               folder / "site/numpy/_core/include"]
    shutil.rmtree(folder / "lib", ignore_errors=True)
    run([sys.executable, "setup.py", "-q", "build", "--build-base", folder / "build", "--build-lib", folder / "lib"],
        PYTHONPATH=str(folder / "settings"), _PYTHON_SYSCONFIGDATA_NAME=data.stem,
        _PYTHON_HOST_PLATFORM="linux-aarch64", CC="aarch64-linux-gnu-gcc",
        CFLAGS=" ".join(f"-I{path}" for path in headers))


def prepare_aarch64():
    """The command that starts Python there, but for the CPU, and the folders of its packages."""
    folder = WORK / "aarch64"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        unpack_python(folder)
        unpack_wheels(folder)
        (folder / "ready").touch()
    build_for_arm(folder)
    return ["qemu-aarch64", "-L", folder / "root"], arm_python(folder)[0], [folder / "lib", folder / "site"]


def prepare_x86():
    return ["qemu-x86_64"], sys.executable, [ROOT]


PREPARE = {"aarch64": prepare_aarch64, "x86-64": prepare_x86}


# ---- The slice ------------------------------------------------------------------------------------

CONFIGURATION = """
import numpy, fastrnn
from fastrnn import _core
from fastrnn._base import dispatch
print("found:", *fastrnn.available_isas(), _core.use_dot(dispatch.table(numpy.dtype(numpy.float32), "int8")))
"""


def run_slice(emulator, python, folders, processor):
    """What one CPU shows: (tests passed, what the goldens say)."""
    path = os.pathsep.join(map(str, [*folders, ROOT / "tests/support"]))
    environment = dict(PYTHONPATH=path, PYTHONDONTWRITEBYTECODE="1", PYTHONSAFEPATH="1", OMP_NUM_THREADS="1",
                       OPENBLAS_NUM_THREADS="1", CI="1", FASTRNN_DATA=str(ROOT))
    command = [*emulator, "-cpu", processor.name, python]
    printed = run([*command, "-c", CONFIGURATION], **environment)   # after warnings about what the emulator leaves out
    if f"found: {processor.isas} {processor.dot}\n" not in printed:
        raise RuntimeError(f"{processor.name}: expected {processor.isas} {processor.dot}\n{printed}")
    goldens = run([*command, "tests/support/goldens.py", "compare", WORK / "goldens.npz"], **environment)
    tests = run([*command, "-m", "pytest", *processor.tests, "-q", "-x", "-p", "no:cacheprovider", "-m", "not slow",
                 "-k", SELECTION], **environment)
    return re.search(r"\d+ passed", tests)[0], goldens.splitlines()[-1]


def write_goldens():
    WORK.mkdir(parents=True, exist_ok=True)
    run([sys.executable, "tests/support/goldens.py", "write", WORK / "draft.npz"],
        PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "tests/support")]))
    (WORK / "draft.npz").replace(WORK / "goldens.npz")


def missing_tools(name):
    missing = [f"{tool} (Debian: {package})" for tool, package in NEEDED[name].items() if not shutil.which(tool)]
    if name == "x86-64" and platform.machine() not in ("x86_64", "AMD64"):
        missing.append("an x86-64 build of this checkout")
    return missing


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("machines", nargs="*", help=f"of {', '.join(PREPARE)}; all where none is named")
    arguments = parser.parse_args()
    unknown = set(arguments.machines) - set(PREPARE)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(PREPARE)}")
    failed = False
    write_goldens()
    for name in arguments.machines or PREPARE:
        if missing := missing_tools(name):
            print(f"{name}: not run, needs {', '.join(missing)}", flush=True)
            failed |= name in arguments.machines
            continue
        try:
            ready = PREPARE[name]()
            for processor in PROCESSORS[name]:
                start = time.monotonic()
                passed, goldens = run_slice(*ready, processor)
                print(f"{name} {processor.name}: {passed}; {goldens}; {time.monotonic() - start:.0f} s", flush=True)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            failed = True
            print(f"{name}: FAILED: {error}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
