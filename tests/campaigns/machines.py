"""fastrnn on other machines: each builds, and runs a slice of the tests, in an emulator where this CPU is another.

    python tests/campaigns/machines.py                    all of them, for an hour on two cores
    python tests/campaigns/machines.py x86-64 aarch64     some
    python tests/campaigns/machines.py --short            what CI runs: goldens alone, on the emulated x86-64 CPUs

itself
    This machine's own build and instruction sets. Its results are the goldens of tests/support/goldens.py: every cell,
    option, direction and precision at small sizes.
x86-64
    The same build in an emulator, on CPUs without AVX, with AVX alone, and with AVX2. Its results have the bits that
    the same instruction set has here.
clang
    Built by each clang that is there. No warning may come from a source of the project.
aarch64
    Built by a cross compiler against Debian's Python for arm64, which is unpacked below build/machines with NumPy and
    pytest from PyPI, and run in an emulator, on a CPU without sdot and on one that has it. Nothing is installed.
musl
    CPython and zlib built from Debian's sources against its newest musl, NumPy's wheel for musl, and fastrnn built by
    that Python.
pythons
    Every Python from 3.11 to 3.14 with the oldest NumPy that has a wheel for it and with the newest. A Python is looked
    for on PATH and among pyenv's; one that is missing is unpacked below build/machines from Debian's newest suite.
i386
    Debian's Python of 32 bits: setup.py refuses it in one line.

A line is printed for every machine: what ran there, seconds of this CPU and by the clock. A machine whose tools are
missing is named with them, and is not run. The exit status is not 0 where a run failed, took more CPU time than a slice
may, or where a machine that was asked for by name could not run.
"""

import argparse
import contextlib
import functools
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

# a checkout built in place is used where fastrnn is not installed
sys.path.append(str(Path(__file__).resolve().parents[2]))
import fastrnn

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "machines"
NARROW_TESTS = [f"tests/kernels/test_{name}.py" for name in ("quantized", "bfloat16", "pairs")]
KERNEL_TESTS = [*NARROW_TESTS, *(f"tests/kernels/test_{name}.py" for name in ("options", "packed", "promises"))]
# Left out: large layers, real models, examples by the hundred, what takes minutes in an emulator.
SELECTION = " and ".join(f"not {word}" for word in (
    "401", "330", "130", "100", "speaker", "voice", "test_agrees_with_the_oracle", "stream_run", "chunks_equal",
    "forward_equals", "nan_or_inf", "diverge"))
# For other Pythons: the files of these folders that do not import what takes too long to install for each of them.
SUITE = ["tests/kernels", "tests/nn", "tests/interop", "tests/training"]
LARGE = re.compile(r"^ *(?:import|from) (?:torch|keras|onnxruntime|onnx_nodes|sklearn|onnxscript)", re.MULTILINE)
WHEELS = ["pytest", "hypothesis"]
BUILD_WHEELS = ["setuptools>=77"]
# What the tests of files and of interchange use, where there is a wheel of it.
EXTRAS = ["onnx", "safetensors", "h5py", "psutil"]
OLDEST_NUMPY = {"3.11": "2.0.*", "3.12": "2.0.*", "3.13": "2.1.*", "3.14": "2.3.*"}
CLANGS = ["clang", *(f"clang-{version}" for version in range(14, 24))]
MUSL_PYTHON = "3.13"
MUSL_PLATFORMS = [f"musllinux_1_{minor}_x86_64" for minor in (1, 2)]
ARM_PLATFORMS = [f"{tag}_aarch64" for tag in ("manylinux2014", "manylinux_2_17", "manylinux_2_27", "manylinux_2_28")]
LIMIT = 3600            # seconds that one command may take
SLICE_LIMIT = 900       # seconds of CPU time that the slice of a machine may take in an emulator
APT = {"apt-get": "apt", "dpkg-deb": "dpkg"}
ARCHIVE = os.environ.get("FASTRNN_DEBIAN_MIRROR", "http://deb.debian.org/debian")
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
NEWEST_SUITE = "sid"
X86 = platform.machine() in ("x86_64", "AMD64")


class NotRun(Exception):
    """A machine cannot run here; the message says what is missing."""


class Place(NamedTuple):
    """A Python of a machine: the command that starts it, and the folders that its packages are in."""

    command: list
    folders: list


def run(command, **environment):
    """What a command prints that runs in ROOT; where it fails, an error that ends in what it printed last."""
    result = subprocess.run([str(word) for word in command], cwd=ROOT, env={**os.environ, **environment}, text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT,
                            check=False)
    if result.returncode:
        tail = "\n".join(result.stdout.splitlines()[-30:])
        raise RuntimeError(f"exit status {result.returncode} of {' '.join(map(str, command[:12]))}\n{tail}")
    return result.stdout


def need(tools):
    """Raises NotRun where a tool is not on PATH; `tools` maps each to its package of Debian."""
    if missing := [f"{tool} (Debian: {package})" for tool, package in tools.items() if not shutil.which(tool)]:
        raise NotRun(f"needs {', '.join(missing)}")


def need_x86():
    if not X86:
        raise NotRun("needs an x86-64 machine")


def build(folder, python=sys.executable, paths=(), **environment):
    """
    What the compiler prints when setup.py builds fastrnn in `folder`/lib.

    All Pythons use this one's Cython, for which the C files are up to date: each would write the very same again.
    """
    import Cython

    tools = WORK / "tools"
    tools.mkdir(parents=True, exist_ok=True)
    compiler = Path(Cython.__file__).parent
    for path in compiler, compiler.with_name("cython.py"):
        (tools / path.name).unlink(missing_ok=True)
        (tools / path.name).symlink_to(path)
    shutil.rmtree(folder / "lib", ignore_errors=True)
    environment = {"PYTHONPATH": os.pathsep.join(map(str, [*paths, tools])), **environment}
    return run([python, "setup.py", "-q", "build", "--build-base", folder / "build", "--build-lib", folder / "lib"],
               **environment)


def install_wheels(target, platforms, version, wheels):
    """Wheels for another platform, laid in a folder."""
    words = [word for tag in platforms for word in ("--platform", tag)]
    run([sys.executable, "-m", "pip", "install", "-q", "--target", target, "--only-binary=:all:", *words,
         "--python-version", version, "--implementation", "cp", *wheels])


# ---- The slice ------------------------------------------------------------------------------------

CONFIGURATION = """
import numpy, fastrnn
from fastrnn import _core
from fastrnn._base import dispatch
dot = _core.use_dot(dispatch.table(numpy.dtype(numpy.float32), "int8"))
print("found:", *fastrnn.available_isas(), "with dot" if dot else "without dot")
"""


def environment_of(place):
    return dict(PYTHONPATH=os.pathsep.join(map(str, [*place.folders, ROOT / "tests/support"])), PYTHONSAFEPATH="1",
                PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", CI="1",
                FASTRNN_DATA=str(ROOT))


@functools.cache
def goldens(isa):
    """A file of the results of this machine's kernels of an instruction set, and of the widest where isa is None."""
    name = isa or "widest"
    path, draft = WORK / f"goldens-{name}.npz", WORK / f"draft-{name}.npz"
    WORK.mkdir(parents=True, exist_ok=True)
    environment = {} if isa is None else {"FASTRNN_ISA": isa}
    run([sys.executable, "tests/support/goldens.py", "write", draft],
        PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "tests/support")]), **environment)
    return draft.replace(path)


def check_configuration(place, isas):
    """The instruction sets that fastrnn finds there are those expected."""
    printed = run([*place.command, "-c", CONFIGURATION], **environment_of(place))
    line = printed.splitlines()[-1]             # the emulator warns of what it leaves out before
    if isas not in line:
        raise RuntimeError(f"expected {isas}\n{printed}")


def compare_goldens(place, isa=None, same_bits=False):
    """What the goldens say there; with `same_bits` all arrays must have the bits that they have here."""
    printed = run([*place.command, "tests/support/goldens.py", "compare", goldens(isa), *["--bits"] * same_bits],
                  **environment_of(place))
    return printed.splitlines()[-1]


def run_tests(place, tests, selection=SELECTION, **environment):
    """How many tests passed there."""
    printed = run([*place.command, "-m", "pytest", *tests, "-q", "-x", "-p", "no:cacheprovider", "-m", "not slow",
                   "-k", selection], **environment_of(place) | environment)
    return re.search(r"\d+ passed", printed)[0] + " tests"


# ---- The machines: each yields (name, check), and check() returns what is to be said of it -----------------------

def itself(short):
    def check():
        place = Place([sys.executable], [ROOT])
        said = compare_goldens(place, same_bits=True)
        return f"{', '.join(fastrnn.available_isas())}: {said}; {run_tests(place, KERNEL_TESTS)}"
    yield f"itself: {platform.machine()}", check


X86_CPUS = {
    "Nehalem": ("no AVX", "found: baseline without", "baseline"),
    "SandyBridge": ("AVX alone", "found: baseline without", "baseline"),
    "Haswell": ("AVX2", "found: avx2 baseline without", "avx2"),
}


def x86(short):
    for cpu, (words, isas, isa) in X86_CPUS.items():
        def check(cpu=cpu, isas=isas, isa=isa):
            need_x86()
            need({"qemu-x86_64": "qemu-user"})
            place = Place(["qemu-x86_64", "-cpu", cpu, sys.executable], [ROOT])
            check_configuration(place, isas)
            known = isa in fastrnn.available_isas()
            said = compare_goldens(place, isa if known else None, same_bits=known)
            # the baseline runs on the CPUs that have nothing else
            selection = SELECTION + " and not baseline" * (isa != "baseline")
            return said if short else f"{said}; {run_tests(place, KERNEL_TESTS, selection)}"
        yield f"x86-64 {cpu} ({words}), emulated", check


def clang(short):
    compilers = {os.path.realpath(path): name for name in reversed(CLANGS) if (path := shutil.which(name))}

    def check(compiler):
        folder = WORK / compiler
        shutil.rmtree(folder, ignore_errors=True)           # a file that is not compiled again warns of nothing
        printed = build(folder, CC=compiler)
        # Cython writes functions of its own into every module, needed there or not.
        ours = re.compile(r":\d+:\d+: warning: (?!unused function '__[Pp]yx)")
        warnings = [line for line in printed.splitlines() if ours.search(line)]
        if warnings:
            raise RuntimeError(f"{len(warnings)} warnings\n" + "\n".join(warnings[:20]))
        place = Place([sys.executable], [folder / "lib"])
        return f"no warning; {compare_goldens(place)}; {run_tests(place, KERNEL_TESTS)}"
    for compiler in sorted(compilers.values()):
        yield f"built by {compiler}", functools.partial(check, compiler)
    if not compilers:
        yield "built by clang", functools.partial(need, {"clang": "clang"})


# ---- Debian's Python of another architecture -----------------------------------------------------------

def unpack_packages(folder, architecture, packages, suite=None):
    """
    Packages of Debian and what they depend on, and apart from them the headers of a Python; by an apt of this folder's
    own. They are those of a suite of Debian, or of the suites that this machine uses.
    """
    state, archives = folder / "apt", folder / "apt/archives"
    for name in ("lists/partial", "archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    options = {"APT::Architecture": architecture, "APT::Architectures": architecture, "Dir::State": state,
               "Dir::State::status": state / "status", "Dir::State::lists": state / "lists", "Dir::Cache": state,
               "APT::Sandbox::User": "root"}
    if suite:
        (state / "sources.list").write_text(f"deb [signed-by={KEYS}] {ARCHIVE} {suite} main\n")
        options |= {"Dir::Etc::SourceList": state / "sources.list", "Dir::Etc::SourceParts": "-"}
    apt = ["apt-get", "-q", "-y", *(word for option, value in options.items() for word in ("-o", f"{option}={value}"))]
    with contextlib.suppress(RuntimeError):     # one of several lists may be out of step: what is missing shows below
        run([*apt, "update"])
    run([*apt, "install", "--download-only", "--no-install-recommends", *packages])
    for archive in sorted(archives.glob("*.deb")):
        run(["dpkg-deb", "-x", archive, folder / "root"])
        if re.match(r"libpython3\.\d+-dev_", archive.name):
            run(["dpkg-deb", "-x", archive, folder / "headers"])


def unpacked_python(folder):
    """The path of that Python, and its version."""
    path = next(path for path in sorted((folder / "root/usr/bin").glob("python3.*")) if path.name[8:].isdigit())
    return path, path.name[6:]


def build_for_arm(folder):
    """setup.py with the settings of that Python, the cross compiler, and the headers of both."""
    version = unpacked_python(folder)[1]
    data = next((folder / f"root/usr/lib/python{version}").glob("_sysconfigdata__aarch64*.py"))
    (folder / "settings").mkdir(exist_ok=True)
    shutil.copy(data, folder / "settings")
    headers = [folder / "headers/usr/include", folder / f"headers/usr/include/python{version}",
               folder / "site/numpy/_core/include"]
    build(folder, paths=[folder / "settings"], _PYTHON_SYSCONFIGDATA_NAME=data.stem,
          _PYTHON_HOST_PLATFORM="linux-aarch64", CC="aarch64-linux-gnu-gcc",
          CFLAGS=" ".join(f"-I{path}" for path in headers))


@functools.cache
def prepare_arm():
    """The folder of Python for arm64, with fastrnn built for it."""
    need({"aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu", "qemu-aarch64": "qemu-user", **APT})
    folder = WORK / "aarch64"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        unpack_packages(folder, "arm64", ["python3-minimal", "libpython3-stdlib", "libpython3-dev", "libstdc++6"])
        install_wheels(folder / "site", ARM_PLATFORMS, unpacked_python(folder)[1], ["numpy>=2.0", *WHEELS])
        (folder / "ready").touch()
    build_for_arm(folder)
    return folder


# Without sdot, int8 products alone are summed in another way.
ARM_CPUS = {"neoverse-n1": ("found: baseline with dot", KERNEL_TESTS),
            "cortex-a72": ("found: baseline without dot", NARROW_TESTS[:1])}


def aarch64(short):
    for cpu, (found, tests) in ARM_CPUS.items():
        def check(cpu=cpu, found=found, tests=tests):
            folder = prepare_arm()
            emulator = ["qemu-aarch64", "-L", folder / "root", "-cpu", cpu]
            place = Place([*emulator, unpacked_python(folder)[0]], [folder / "lib", folder / "site"])
            check_configuration(place, found)
            return f"{compare_goldens(place)}; {run_tests(place, tests)}"
        yield f"aarch64 {cpu}, emulated", check


def i386(short):
    def check():
        need_x86()
        need(APT)
        folder = WORK / "i386"
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            unpack_packages(folder, "i386", ["python3-minimal", "libpython3-stdlib"])
            (folder / "ready").touch()
        root = folder / "root"
        libraries = os.pathsep.join(str(root / name) for name in ("lib/i386-linux-gnu", "usr/lib/i386-linux-gnu"))
        python = [root / "lib/ld-linux.so.2", "--library-path", libraries, unpacked_python(folder)[0]]
        result = subprocess.run([*python, "setup.py", "build"], cwd=ROOT, text=True, capture_output=True, timeout=LIMIT,
                                env={**os.environ, "PYTHONHOME": root / "usr"}, check=False)
        if result.returncode != 1 or result.stdout or len(result.stderr.splitlines()) != 1 \
                or not result.stderr.startswith("fastrnn needs a 64-bit Python"):
            raise RuntimeError(f"setup.py ended with {result.returncode}\n{result.stdout}{result.stderr}")
        return f"refused in one line: {result.stderr.strip()}"
    yield "i386", check


# ---- Other Pythons --------------------------------------------------------------------------------

MUSL_COMPILER = """#!/bin/sh
# What this machine's compiler calls its system is not what it builds for here.
[ "$1" = --print-multiarch ] && exec echo x86_64-linux-musl
exec {compiler} "$@" -specs {specs}
"""


def musl_compiler(folder):
    """This machine's gcc with the headers, the library and the loader of Debian's newest musl, below `folder`.

    The releases before 1.2.4 do not know the relocations in which the libraries of NumPy's wheel are written.
    """
    unpack_packages(folder, "amd64", ["musl-dev"], NEWEST_SUITE)
    usr, compiler = folder / "root/usr", folder / "musl-cc"
    specs = next((usr / "lib").rglob("musl-gcc.specs"))
    text = specs.read_text().replace("/lib/ld-musl", f"{usr}/lib/ld-musl")
    specs.write_text(re.sub(r"(?<=[ :L])/usr(?=/)", str(usr), text))
    compiler.write_text(MUSL_COMPILER.format(compiler=shutil.which("gcc"), specs=specs))
    compiler.chmod(0o755)
    return compiler


def build_musl_python(folder):
    """A CPython of Debian's source that is linked with musl, with zlib, once."""
    import pythons

    if not (folder / "ready").exists():
        pythons.WORK.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        compiler, zlib = musl_compiler(folder), folder / "zlib"
        # The libraries of this machine are those of another C library: pkg-config must not name them.
        settings = {"CC": str(compiler), "CFLAGS": "-O2 -fPIC", "PKG_CONFIG": "false",
                    "ZLIB_CFLAGS": f"-I{zlib}/include", "ZLIB_LIBS": f"{zlib}/lib/libz.a"}
        for package, target, options in (
                ("zlib", zlib, ["--static"]),
                (f"python{MUSL_PYTHON}", folder / "installed", ["--without-ensurepip", "--disable-test-modules"])):
            source, objects = pythons.unpack_source(package), folder / f"objects-{package}"
            shutil.copytree(source, objects)            # zlib leaves what it builds beside its sources
            for step in (["./configure", f"--prefix={target}", *options], ["make", f"-j{os.cpu_count()}"],
                         ["make", "install" if package == "zlib" else "altinstall"]):
                run(["env", "-C", objects, *step], **settings)
        (folder / "ready").touch()
    return folder / f"installed/bin/python{MUSL_PYTHON}"


def musl(short):
    def check():
        need_x86()
        need({"gcc": "gcc", "make": "make", "xz": "xz-utils", **APT})
        folder = WORK / "musl"
        python, site = build_musl_python(folder), folder / "site"
        if not (site / "ready").exists():
            shutil.rmtree(site, ignore_errors=True)
            install_wheels(site, MUSL_PLATFORMS, MUSL_PYTHON, ["numpy>=2.0", *WHEELS, *BUILD_WHEELS])
            (site / "ready").touch()
        build(folder, python, [site])
        place = Place([python], [folder / "lib", site])
        library = run([python, "-c", "import sysconfig; print(sysconfig.get_config_var('SOABI'))"]).strip()
        if "musl" not in library:
            raise RuntimeError(f"not a Python on musl: {library}")
        return f"{library}: {compare_goldens(place)}; {run_tests(place, KERNEL_TESTS)}"
    yield f"musl, Python {MUSL_PYTHON}", check


def find_python(version):
    """The path of a Python of this machine with its headers, or None."""
    paths = [sys.executable] if sys.version_info[:2] == tuple(map(int, version.split("."))) else []
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    paths += sorted(pyenv.glob(f"{version}.*/bin/python{version}"))
    paths += [path] if (path := shutil.which(f"python{version}")) else []
    for python in paths:
        result = subprocess.run([python, "-c", "import venv, sysconfig; print(sysconfig.get_path('include'))"],
                                capture_output=True, text=True, check=False)
        if result.returncode == 0 and (Path(result.stdout.strip()) / "Python.h").exists():
            return python
    return None


def unpack_newer_python(version):
    """Debian's Python of a version that this machine lacks, with the C library that it needs, and its headers."""
    folder = WORK / f"python-{version}"
    root = folder / "root"
    python = root / f"usr/bin/python{version}"
    if not (folder / "ready").exists():
        need_x86()
        need({"patchelf": "patchelf", **APT})
        shutil.rmtree(folder, ignore_errors=True)
        unpack_packages(folder, "amd64", [f"python{version}-minimal", f"libpython{version}-stdlib",
                                        f"libpython{version}-dev", "libstdc++6"], NEWEST_SUITE)
        loader = next(root.glob("**/x86_64-linux-gnu/ld-linux-x86-64.so.2"))
        libraries = [root / name for name in ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")]
        run(["patchelf", "--set-interpreter", loader, "--force-rpath", "--set-rpath", ":".join(map(str, libraries)),
             python])
        (folder / "ready").touch()
    return python, folder / "headers/usr/include"


def prepare_environment(version, numpy):
    """An environment of a Python with a NumPy, and what it takes to build fastrnn and to test it."""
    folder = WORK / f"python-{version}-numpy-{'newest' if numpy == 'numpy' else numpy[7:-2]}"
    python, base, headers = folder / "environment/bin/python", find_python(version), None
    if base is None:
        base, headers = unpack_newer_python(version)
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        run([base, "-m", "venv", "--without-pip", folder / "environment"])
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--only-binary=:all:"]
        try:
            run([*pip, numpy, *WHEELS, *BUILD_WHEELS, *EXTRAS])
        except RuntimeError:
            print(f"Python {version}, {numpy}: no wheels of {', '.join(EXTRAS)}; their tests are skipped", flush=True)
            run([*pip, numpy, *WHEELS, *BUILD_WHEELS])
        (folder / "ready").touch()
    return folder, python, headers


def suite():
    """The files of the suite's core."""
    files = sorted(path for folder in SUITE for path in (ROOT / folder).glob("test_*.py"))
    return [path for path in files if not LARGE.search(path.read_text())]


def other_python(version, numpy):
    """Builds against the newest NumPy, as a wheel is, or against 2.0; of each test of the core some cases run."""
    folder, python, headers = prepare_environment(version, numpy)
    newest = WORK / f"python-{version}-numpy-newest"
    if numpy == "numpy" or "2.0" in numpy:
        build(folder, python, **({"CFLAGS": f"-I{headers}"} if headers else {}))
    place = Place([python], [(folder if (folder / "lib").exists() else newest) / "lib"])
    script = "import numpy, platform; print(platform.python_version(), 'NumPy', numpy.__version__)"
    versions = run([python, "-c", script], **environment_of(place)).strip()
    said = run_tests(place, ["-p", "sampled", *suite()], "", CI="", FASTRNN_DATA="", FASTRNN_SAMPLE="4")
    return f"{versions}: {compare_goldens(place)}; {said}"


def other_pythons(short):
    for version, oldest in OLDEST_NUMPY.items():
        yield f"Python {version}, newest NumPy", functools.partial(other_python, version, "numpy")
        yield f"Python {version}, NumPy {oldest}", functools.partial(other_python, version, f"numpy=={oldest}")


# ---- The table ------------------------------------------------------------------------------------

GROUPS = {"itself": itself, "x86-64": x86, "clang": clang, "i386": i386, "pythons": other_pythons, "aarch64": aarch64,
          "musl": musl}
SHORT = ["x86-64"]


def seconds_of_cpu():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_machine(name, check, emulated):
    """Prints the line of a machine, and returns "ran", "not run" or "failed"."""
    start, cpu = time.monotonic(), seconds_of_cpu()
    try:
        said, outcome = check(), "ran"
        if emulated and seconds_of_cpu() - cpu > SLICE_LIMIT:
            said, outcome = f"{said}, but it took more than {SLICE_LIMIT} s", "failed"
    except NotRun as error:
        said, outcome = str(error), "not run"
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        said, outcome = str(error), "failed"
    word = {"ran": "", "not run": "not run: ", "failed": "FAILED: "}[outcome]
    print(f"| {name} | {word}{said} | {seconds_of_cpu() - cpu:.0f} s of CPU, {time.monotonic() - start:.0f} s |",
          flush=True)
    return outcome


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("machines", nargs="*", help=f"of {', '.join(GROUPS)}; all where none is named")
    parser.add_argument("--short", action="store_true", help="the slice of CI: goldens on the emulated x86-64 CPUs")
    arguments = parser.parse_args()
    unknown = set(arguments.machines) - set(GROUPS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    outcomes = {"ran": 0, "not run": 0, "failed": 0}
    for group in arguments.machines or (SHORT if arguments.short else GROUPS):
        for name, check in GROUPS[group](arguments.short):
            outcomes[run_machine(name, check, "emulated" in name)] += 1
    print("machines: " + ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()))
    return outcomes["failed"] > 0 or (bool(arguments.machines) and outcomes["not run"] > 0)


if __name__ == "__main__":
    sys.exit(main())
