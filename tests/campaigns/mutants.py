"""Plants faults in fastrnn, one at a time, and runs the tests that must catch each.

    python tests/campaigns/mutants.py                    every fault, two at once: some minutes
    python tests/campaigns/mutants.py --only 3 41        these faults
    python tests/campaigns/mutants.py --slice            a few faults, from a seed that is printed

The faults stand in tests/campaigns/faults/*.toml: realistic mistakes, each with its number, the file, the lines as they
are ("old") and as the mistake makes them ("new"), a sentence of what it breaks, and the tests that must catch it. The
sources of the project are never touched: the checkout is copied to build/mutants/, and faults are planted there.

Faults of the compiled side need one build for all. Each site becomes a choice between the old and the new lines by a
number, which the modules read from the environment variable FASTRNN_FAULT when they are imported. Faults in Python are
written into the copy while their tests run.

First all the named tests must pass with fault 0, which is none. Then a fault is caught if one of its tests fails: by an
assertion, an exception, a crash, or because it takes longer than the limit, which is said. The exit status is 1 if a
fault was not caught, and 2 if the tests fail without one, or a fault no longer fits the sources.
"""

import argparse
import concurrent.futures
import contextlib
import hashlib
import importlib.util
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FAULTS = Path(__file__).resolve().parent / "faults"
PLACE = ROOT / "build" / "mutants"
VARIABLE, NUMBER = "FASTRNN_FAULT", "planted_fault"
LIMIT = 150         # seconds after which the tests of a fault count as hanging
SLICE = 6           # faults of a slice; one of them is compiled
NOT_COPIED = {"build", "dist", "out", "htmlcov"}

# Included before everything else in every compiled file: the number of the fault, read when a module is loaded. It is
# volatile, so that the compiler does not make two versions of a loop for every site in it.
HEADER = """\
#include <stdlib.h>
static volatile int planted_fault;
__attribute__((constructor)) static void read_planted_fault(void)
{
    const char *number = getenv("FASTRNN_FAULT");
    planted_fault = number ? atoi(number) : 0;
}
"""
DECLARATION = """\
cdef extern from * nogil:
    int planted_fault

"""


class Drifted(Exception):
    """A fault no longer fits the sources."""


@dataclass(frozen=True)
class Fault:
    """A fault as its table has it."""

    number: int
    file: str
    old: str
    new: str
    breaks: str
    tests: tuple[str, ...]
    limit: float = LIMIT
    memory: int | None = None       # GB that the tests may take, where the fault lets a file take any

    @property
    def compiled(self):
        return self.file.startswith("src/")

    @property
    def module_group(self):
        """Which modules have to be built for it: "core" or "kernel"; "" for Python."""
        return self.file.split("/")[1] if self.compiled else ""


def read_faults():
    """The faults of all tables, by number."""
    faults = [Fault(**{**entry, "tests": tuple(entry["tests"])})
              for table in sorted(FAULTS.glob("*.toml")) for entry in tomllib.loads(table.read_text())["fault"]]
    return sorted(faults, key=lambda fault: fault.number)


# ---- Planting ------------------------------------------------------------------------------------

def lines_of(text):
    return textwrap.dedent(text).strip("\n").splitlines()


def find(lines, fault):
    """Where the old lines of a fault begin, and how far they are indented. They must be there once."""
    old = lines_of(fault.old)
    places = []
    for i in range(len(lines) - len(old) + 1):
        indent = lines[i][:len(lines[i]) - len(lines[i].lstrip())]
        if all(line == (indent + wanted if wanted else "") for line, wanted in zip(lines[i:], old)):
            places.append((i, indent))
    if len(places) != 1:
        raise Drifted(f"fault {fault.number}: its old lines stand {len(places)} times in {fault.file}, expected once")
    return places[0]


def replace(text, fault, make):
    """The text with the old lines replaced by what make(fault) gives, indented as they were."""
    lines = text.splitlines()
    i, indent = find(lines, fault)
    lines[i:i + len(lines_of(fault.old))] = [indent + line if line else "" for line in make(fault)]
    return "\n".join(lines) + "\n"


def planted(text, fault):
    """The text with the fault in it."""
    return replace(text, fault, lambda fault: lines_of(fault.new))


def switched(text, fault):
    """The text with a choice between the old and the new lines by the number of the fault."""
    return replace(text, fault, c_choice if fault.file.endswith(".h") else cython_choice)


def cython_choice(fault):
    """Lines of Cython that are the new ones if the fault is planted, else the old ones."""
    old, new = lines_of(fault.old), lines_of(fault.new)
    both = "\n".join(old) + "\0" + "\n".join(new)
    chosen = f"if {NUMBER} == {fault.number} else"
    match = re.fullmatch(r"(while|if|elif) (.+):\0\1 (.+):", both, re.DOTALL)
    if match:
        return f"{match[1]} (({match[3]}) {chosen} ({match[2]})):".splitlines()
    match = re.fullmatch(r"for (\w+) in range\((.+)\):\0for \1 in range\((.+)\):", both)
    if match and match[2].count(",") == match[3].count(","):
        arguments = [one if one == other else f"({other}) {chosen} ({one})"
                     for one, other in zip(match[2].split(", "), match[3].split(", "))]
        return [f"for {match[1]} in range({', '.join(arguments)}):"]
    match = re.fullmatch(r"(cdef [^=]+) = (.+)\0\1 = (.+)", both)
    if match:
        return [f"{match[1]} = ({match[3]}) {chosen} ({match[2]})"]
    if not new:
        return [f"if {NUMBER} != {fault.number}:", *indented(old)]
    return [f"if {NUMBER} == {fault.number}:", *indented(new), "else:", *indented(old)]


def c_choice(fault):
    """The same in C: of statements, or of a function in one line."""
    old, new = lines_of(fault.old), lines_of(fault.new)
    if len(old) == len(new) == 1 and old[0].startswith("FN "):
        head, body = old[0].split("{", 1)
        return [f"{head}{{ if ({NUMBER} == {fault.number}) {{ {new[0].split('{', 1)[1]} {body}"]
    match = re.fullmatch(r"(\w+ \w+) = (.+);\0\1 = (.+);", "\n".join(old) + "\0" + "\n".join(new))
    if match:
        return [f"{match[1]} = {NUMBER} == {fault.number} ? {match[3]} : {match[2]};"]
    return [f"if ({NUMBER} == {fault.number}) {{", *indented(new), "} else {", *indented(old), "}"]


def indented(lines):
    return ["    " + line if line else "" for line in lines]


def check(faults):
    """Plants every fault in memory: Drifted where one no longer fits."""
    for number, fault in enumerate(faults, 1):
        if fault.number != number:
            raise Drifted(f"fault {fault.number}: expected number {number}; numbers run from 1 and none is left out")
        if not fault.tests or not fault.breaks.endswith("."):
            raise Drifted(f"fault {number}: expected tests, and a sentence of what breaks")
        text = (ROOT / fault.file).read_text()
        if planted(text, fault) == text:
            raise Drifted(f"fault {number}: its new lines are the old ones")
        for test in fault.tests:
            file, _, name = test.partition("::")
            name = name.split("[")[0].split("::")[-1]
            if not (ROOT / file).is_file() or (name and f"def {name}(" not in (ROOT / file).read_text()):
                raise Drifted(f"fault {number}: there is no test {test}")
    switched_sources(faults)


def switched_sources(faults):
    """The sources that have compiled faults, as {file: text} with all their choices."""
    texts = {}
    for fault in faults:
        if fault.compiled:
            text = texts.get(fault.file) or (ROOT / fault.file).read_text()
            texts[fault.file] = switched(text, fault)
    return texts


# ---- The copy ------------------------------------------------------------------------------------

def copy_checkout(target):
    """Copies everything but what is made and what is hidden; with the compiled modules."""
    shutil.rmtree(target, ignore_errors=True)

    def ignored(folder, names):
        top = Path(folder) == ROOT
        return [name for name in names if (name.startswith(".") and name != ".github") or name.endswith(".egg-info")
                or name in ("__pycache__", ".pytest_cache") or (top and name in NOT_COPIED)]
    shutil.copytree(ROOT, target, ignore=ignored)


def build(faults, isas, quick):
    """Builds the modules that the faults are in, with all choices; returns the folder of the modules.

    `quick`: of the kernels those of float32 alone that this machine takes by itself, which every test runs.
    """
    groups = {fault.module_group for fault in faults}
    names = ["_core"] * ("core" in groups)
    if "kernel" in groups:
        taken = isas[:2] if isas[0] == "avx512" else isas[:1]       # AVX2 for layers of few units
        names += ([f"_{isa}_float32" for isa in taken] if quick else
                  [f"_{isa}_{dtype}" for isa in isas for dtype in ("float32", "float64")])
    folder = PLACE / "modules"
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in sorted(ROOT.glob("src/*/*"))}
    texts.update(switched_sources(faults))
    texts["src/kernel/structs.pxi"] = DECLARATION + texts["src/kernel/structs.pxi"]
    texts["src/planted.h"] = HEADER
    script = (ROOT / "setup.py").read_text()
    if script.count("\nsetup(\n") != 1:
        raise Drifted("setup.py: expected one call of setup()")
    texts["setup.py"] = script.replace("\nsetup(\n", f"\nextensions = [one for one in extensions if one.name in "
                                       f"{[f'fastrnn.{name}' for name in names]}]\n\nsetup(\n")
    digest = hashlib.sha256(repr((sorted(texts.items()), sys.version)).encode()).hexdigest()
    stamp = folder / "stamp"
    if stamp.is_file() and stamp.read_text() == digest:
        print("the modules are those of the last run: nothing to build", flush=True)
        return folder / "fastrnn"
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for name in ("pyproject.toml", "README.md", "LICENSE", "fastrnn/__init__.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    begin = time.monotonic()
    print(f"building {', '.join(names)}", flush=True)
    flags = f"{os.environ.get('CFLAGS', '')} -include {folder}/src/planted.h"
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace", "--parallel", "2"], cwd=folder,
                   check=True, env=os.environ | {"CFLAGS": flags, "PYTHONPATH": ""})
    stamp.write_text(digest)
    print(f"built in {time.monotonic() - begin:.0f} s", flush=True)
    return folder / "fastrnn"


def make_copies(count, modules):
    """Copies of the checkout, one for each process that runs tests, with the modules that were built."""
    copies = []
    for i in range(count):
        copies.append(PLACE / f"copy{i}")
        copy_checkout(copies[-1])
        for module in modules.glob("*.so") if modules else []:
            shutil.copy(module, copies[-1] / "fastrnn" / module.name)
    return copies


@contextlib.contextmanager
def plant(copy, fault):
    """Writes a fault of Python into a copy, and takes it out again."""
    file = copy / fault.file
    if fault.compiled:
        yield
        return
    text, compiled = file.read_text(), Path(importlib.util.cache_from_source(file))
    try:
        file.write_text(planted(text, fault))
        compiled.unlink(missing_ok=True)        # otherwise Python might take it to be that of the changed file
        yield
    finally:
        file.write_text(text)
        compiled.unlink(missing_ok=True)


# ---- Running -------------------------------------------------------------------------------------

def run_tests(copy, number, tests, limit, memory=None, stop=True):
    """Runs tests in a copy; returns pytest's exit status (None: it took longer than the limit), and what it wrote."""
    def limit_memory():
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory << 30, memory << 30))
    data = Path(os.environ.get("FASTRNN_DATA") or ROOT.parent / "shared" / "data")
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", VARIABLE: str(number)}
    environment |= {"FASTRNN_DATA": str(data), "CI": "1"} if data.is_dir() else {}     # CI: hypothesis without chance
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "--tb=short",
               "--basetemp", str(copy.with_name(copy.name + "-tmp")), *["-x"] * stop, *tests]
    process = subprocess.Popen(command, cwd=copy, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, errors="replace", start_new_session=True, preexec_fn=limit_memory)
    try:
        output, _ = process.communicate(timeout=limit)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        with contextlib.suppress(ProcessLookupError):       # what a test has started ends with it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def verdict(status, output):
    """How a fault was caught; None where it was not."""
    if status is None:
        return "a test went over its limit"
    if status < 0 or status > 128:
        return f"a crash ({signal.Signals(-status if status < 0 else status - 128).name})"
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    return failed[1] if status in (1, 2, 3) and failed else None


def without_faults(copies, faults):
    """Runs the tests of all faults with none planted, and says which fail. True if all pass."""
    tests = sorted({(fault.memory or 0, test) for fault in faults for test in fault.tests})
    places = sorted({(memory, test.split("::")[0]) for memory, test in tests})
    begin = time.monotonic()
    print(f"fault 0, which is none: {len(tests)} tests", flush=True)

    def run_part(i):
        results = []
        for memory in sorted({memory for memory, _ in tests}):
            part = [test for each, test in tests
                    if each == memory and (memory, test.split("::")[0]) in places[i::len(copies)]]
            if part:
                results.append(run_tests(copies[i], 0, part, 30 * 60, memory or None, stop=False))
        return results

    with concurrent.futures.ThreadPoolExecutor(len(copies)) as pool:
        results = [result for part in pool.map(run_part, range(len(copies))) for result in part]
    good = True
    for status, output in results:
        if status != 0:
            good = False
            print(output[-8000:] or "the tests went over their limit", flush=True)
    print(f"fault 0: {'all pass' if good else 'tests FAIL'}, {time.monotonic() - begin:.0f} s", flush=True)
    return good


def try_faults(copies, faults):
    """Plants each fault and runs its tests; returns the faults that were not caught."""
    free, lock, missed = list(copies), threading.Lock(), []

    def try_one(fault):
        with lock:
            copy = free.pop()
        begin = time.monotonic()
        with plant(copy, fault):
            status, output = run_tests(copy, fault.number, fault.tests, fault.limit, fault.memory)
        if status is None and run_tests(copy, 0, fault.tests, fault.limit, fault.memory)[0] is None:
            status, output = 0, "without a fault these tests go over their limit, too: the machine is too slow\n"
        caught = verdict(status, output)
        with lock:
            free.append(copy)
            print(f"fault {fault.number:2} {time.monotonic() - begin:5.1f} s  {fault.file}: {fault.breaks}\n"
                  f"    {'NOT CAUGHT' if caught is None else 'caught by ' + caught}", flush=True)
            if caught is None:
                missed.append(fault)
                print(textwrap.indent(output[-1500:], "        "), flush=True)

    with concurrent.futures.ThreadPoolExecutor(len(copies)) as pool:
        for done in [pool.submit(try_one, fault) for fault in faults]:
            done.result()
    return missed


def choose(faults, arguments):
    """The faults to try."""
    if arguments.only:
        return [fault for fault in faults if fault.number in arguments.only]
    if arguments.slice is None:
        return faults
    seed = arguments.slice or int(time.time())
    print(f"a slice of the faults: --slice {seed} has the same", flush=True)
    rng = random.Random(seed)
    compiled = rng.sample([fault for fault in faults if fault.compiled], 1)
    return compiled + rng.sample([fault for fault in faults if not fault.compiled], SLICE - 1)


def available_isas():
    """The instruction sets of this machine, the widest first, asked in a process of its own."""
    script = "import fastrnn; print(*fastrnn.available_isas())"
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, text=True,
                          stdout=subprocess.PIPE).stdout.split()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", type=int, nargs="+", metavar="NUMBER", help="try these faults alone")
    parser.add_argument("--slice", type=int, nargs="?", const=0, metavar="SEED",
                        help=f"try {SLICE} faults, one of them compiled; without a seed from the clock")
    parser.add_argument("--processes", type=int, default=2, help="how many faults are tried at once (default 2)")
    parser.add_argument("--check", action="store_true", help="tell whether every fault fits the sources, no more")
    arguments = parser.parse_args()
    begin = time.monotonic()
    try:
        faults = read_faults()
        check(faults)
        if arguments.check:
            print(f"{len(faults)} faults fit the sources")
            return 0
        faults = choose(faults, arguments)
        compiled = [fault for fault in faults if fault.compiled]
        quick = arguments.slice is not None
        # All compiled faults are switched at once, whichever are tried: so the build is the same the next time.
        built = compiled if quick else [fault for fault in read_faults() if fault.compiled] if compiled else []
        modules = build(built, available_isas(), quick) if built else None
    except Drifted as error:
        print(error)
        return 2
    copies = make_copies(arguments.processes, modules)
    if not without_faults(copies, faults):
        return 2
    missed = try_faults(copies, faults)
    for copy in copies:
        shutil.rmtree(copy)
        shutil.rmtree(copy.with_name(copy.name + "-tmp"), ignore_errors=True)
    used = os.times()
    print(f"{len(faults) - len(missed)} of {len(faults)} faults caught, {time.monotonic() - begin:.0f} s, "
          f"{used.children_user + used.children_system:.0f} s of CPU"
          + (f"; not caught: {', '.join(str(fault.number) for fault in missed)}" if missed else ""), flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
