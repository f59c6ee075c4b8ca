"""The suite's core on builds with sanitizers: memory errors, undefined behaviour and leaks (asan), data races (tsan).

    python tests/campaigns/sanitizers.py asan                            whole, with gcc and with clang
    python tests/campaigns/sanitizers.py tsan --compiler clang           threaded tests, one compiler
    python tests/campaigns/sanitizers.py asan --slice                    what CI runs: some minutes of one CPU
    python tests/campaigns/sanitizers.py asan --compiler gcc --build     builds into build/asan-gcc/lib, and no more
    python tests/campaigns/sanitizers.py asan --compiler gcc -- python fuzz.py      a program of one's own on that build

asan runs the core's tests with vectors on. Those with the fixture `isa` go over every instruction set by themselves;
the others run once for each. A last pass looks for leaks, in some cases of each test: there Python takes its memory
from malloc, and LeakSanitizer looks when the tests of a process are over and the interpreter is still alive, so that
only what nobody holds any more counts. tsan runs the tests with threads.

What a sanitizer reports goes into files below build/KIND-COMPILER/reports, those of the tests' own child processes too.
Nothing is suppressed there. The interpreter and NumPy are built without sanitizers, though: a leak or a race counts
where one of its stacks has a frame of fastrnn, and the others are counted apart. The exit status is 1 where a test
failed, where a report counts, or where a compiler is missing.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SANITIZERS = {"asan": "address,undefined", "tsan": "thread"}
COMPILERS = {"gcc": ["gcc"], "clang": ["clang", *(f"clang-{version}" for version in range(22, 13, -1))]}
PACKAGES = {"gcc": "gcc", "clang": "clang-19 libclang-rt-19-dev llvm-19"}      # of Debian
# The shared runtime, which is loaded before Python; and libstdc++, since another library may throw C++ exceptions.
RUNTIMES = {("asan", "gcc"): ["libasan.so", "libubsan.so", "libstdc++.so.6"],
            ("tsan", "gcc"): ["libtsan.so", "libstdc++.so.6"],
            ("asan", "clang"): ["libclang_rt.asan-x86_64.so", "libclang_rt.asan.so", "libstdc++.so.6"],
            ("tsan", "clang"): ["libclang_rt.tsan-x86_64.so", "libclang_rt.tsan.so", "libstdc++.so.6"]}
OPTIONS = {
    "asan": {"ASAN_OPTIONS": "detect_leaks={leaks}:leak_check_at_exit=0:allocator_may_return_null=1:"
                             "quarantine_size_mb=64:malloc_context_size={calls}:fast_unwind_on_malloc={fast}",
             "UBSAN_OPTIONS": "halt_on_error=0:print_stacktrace=1"},
    # The reports decide, not the exit status: a child process of a test may meet a race of the interpreter's own.
    "tsan": {"TSAN_OPTIONS": "exitcode=0:die_after_fork=0:history_size=4:second_deadlock_stack=1:"
                             "allocator_may_return_null=1"},
}
FRAME = '"    #%n %F %S (%m)"'          # with the module, by which fastrnn's frames are known

# ---- What runs ----------------------------------------------------------------------------------------

CORE = ["tests/kernels", "tests/nn", "tests/training"]
READERS = [f"tests/interop/test_{name}.py" for name in ("hdf5", "rtneural", "from_arrays", "tflite")]
# One process of the suite at a time may measure memory, and a sanitizer changes what there is to measure.
MEASURED = ["memory_of", "growth", "allocations_that_fail", "past_2_31", "allocate_nothing"]
LEAKS = [f"tests/kernels/test_{name}.py" for name in ("bad_input", "bad_options", "fuzz", "copies", "quantized")] + [
    f"tests/nn/test_{name}.py" for name in ("short_calls", "shared_models", "cells", "files")]
THREADED = ["tests/nn/test_shared_models.py", *(f"tests/kernels/test_{name}.py" for name in (
    "teams", "forks", "process", "robustness"))]
SLICE = {"asan": ["tests/kernels", "tests/nn"], "tsan": ["tests/nn/test_shared_models.py"]}     # one case of each


class Pass(NamedTuple):
    """One run of pytest."""

    name: str
    tests: list[str]
    isa: str = ""               # of the tests that do not go over all of them; the widest
    leaks: bool = False
    one_isa: bool = False       # without the tests that go over all of them
    sample: int = 0             # so many cases of each test function at most; 0: all


def passes(kind, isas, tests, piece):
    """What a whole run or its slice is made of."""
    if piece:
        return [Pass("slice", tests or SLICE[kind])]
    if kind == "tsan":
        tests = tests or THREADED
        return [Pass("threads", tests), *(Pass(isa, tests, isa, one_isa=True) for isa in isas[1:])]
    return [Pass("every-isa", tests or [*CORE, *READERS]),
            *(Pass(isa, tests or CORE, isa, one_isa=True) for isa in isas[1:]),
            # Some cases of each function: each allocation is noted with the calls that led to it, which takes long.
            Pass("leaks", tests or LEAKS, leaks=True, sample=6)]


# ---- A build --------------------------------------------------------------------------------------------

class Missing(Exception):
    """A compiler or its runtime is not there."""


def find_compiler(name):
    for command in COMPILERS[name]:
        if path := shutil.which(command):
            return path
    raise Missing(f"{name} was not found (Debian: apt install {PACKAGES[name]})")


def find_runtimes(kind, name):
    """The libraries that LD_PRELOAD names; of some, each version of a compiler has another name."""
    compiler, places = find_compiler(name), []
    for library in RUNTIMES[kind, name]:
        found = subprocess.run([compiler, f"-print-file-name={library}"], capture_output=True, text=True, check=True)
        if os.path.isabs(found.stdout.strip()):
            places.append(os.path.realpath(found.stdout.strip()))
    if not any(kind in Path(place).name for place in places):
        raise Missing(f"{name} has no shared runtime of {kind} (Debian: apt install {PACKAGES[name]})")
    return places


def build_folder(kind, name):
    return ROOT / "build" / f"{kind}-{name}"


def build(kind, name, isas=None):
    """Builds fastrnn into lib/ below build_folder, of these instruction sets alone where they are named."""
    folder = build_folder(kind, name)
    find_runtimes(kind, name)
    subprocess.run([sys.executable, "setup.py", "-q", "build", "--build-base", folder, "--build-lib", folder / "lib"],
                   cwd=ROOT, check=True,
                   env={**os.environ, "CC": find_compiler(name), "FASTRNN_SANITIZE": SANITIZERS[kind],
                        "FASTRNN_ISAS": ",".join(isas or [])})


def report_options(kind, name, reports, leaks=False):
    """The environment variables with options of the sanitizers; what is reported goes into the folder `reports`."""
    values = {"leaks": int(leaks), "fast": int(not leaks), "calls": 12 if leaks else 20}
    common = f":log_path={reports / kind}:stack_trace_format={FRAME}"
    symbolizer = shutil.which("llvm-symbolizer", path=os.path.dirname(os.path.realpath(find_compiler(name))))
    if symbolizer and name == "clang":
        common += f":external_symbolizer_path={symbolizer}"
    return {option: value.format(**values) + common for option, value in OPTIONS[kind].items()}


def environment(kind, name, reports, leaks=False):
    """The environment variables with which Python uses that build; what is reported goes into the folder `reports`."""
    lib = str(build_folder(kind, name) / "lib")
    return {
        **report_options(kind, name, reports, leaks),
        "LD_PRELOAD": " ".join(find_runtimes(kind, name)),
        # The folder of the checkout holds a fastrnn, too: it must not come before this one.
        "PYTHONPATH": os.pathsep.join([lib, str(ROOT / "tests/support")]), "PYTHONSAFEPATH": "1",
        "FASTRNN_SANITIZED_BUILD": lib, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
        **({"PYTHONMALLOC": "malloc"} if leaks else {}),
    }


def fixed_addresses(kind):
    """What comes before a command: ThreadSanitizer needs memory where a large random offset may not leave it."""
    bits = Path("/proc/sys/vm/mmap_rnd_bits")
    if kind == "tsan" and bits.exists() and int(bits.read_text()) > 28:
        return ["setarch", "-R"]
    return []


# ---- Reports --------------------------------------------------------------------------------------------

def split_reports(folder):
    """Each report of the files there: a paragraph of its own for a leak, the whole of anything else."""
    for file in sorted(folder.glob("*")):
        text = file.read_text(errors="replace")
        # A test asked for more memory than there is: it is refused, as it should be.
        text = re.sub(r"^==\d+==(?:WARNING: (?:Address|Thread)Sanitizer failed to allocate"
                      r"|ERROR: ThreadSanitizer: requested allocation size) .*\n", "", text, flags=re.M)
        if "LeakSanitizer: detected" in text:
            yield from re.findall(r"^(?:Direct|Indirect) leak of .*?(?=^\s*$)", text, re.M | re.S)
        elif "WARNING: ThreadSanitizer" in text:
            yield from re.findall(r"^WARNING: ThreadSanitizer.*?(?=^={18})", text + "=" * 18, re.M | re.S)
        elif text.strip():
            yield text


def sort_reports(folder, lib):
    """(those that count, the others)"""
    own, foreign = [], []
    for report in split_reports(folder):
        shared = re.match(r"(Direct|Indirect) leak of|WARNING: ThreadSanitizer: (?!.*CHECK failed)", report)
        (foreign if shared and f"{lib}/fastrnn/" not in report else own).append(report)
    return own, foreign


# ---- Runs -------------------------------------------------------------------------------------------------

def run_pass(kind, name, run, arguments, reports):
    """(line to print, whether all is well) of one run of pytest."""
    start, variables = time.monotonic(), environment(kind, name, reports, run.leaks)
    variables["FASTRNN_SANITIZED"] = " ".join(["leaks"] * run.leaks + ["one-isa"] * run.one_isa)
    variables |= {"FASTRNN_ISA": run.isa} if run.isa else {}
    words = " and ".join(f"not {word}" for word in MEASURED)
    processes = ["-n", arguments.workers, "--dist", "worksteal"] if arguments.workers != "0" else []
    if sample := arguments.sample or run.sample:
        processes += ["-p", "sampled"]
        variables["FASTRNN_SAMPLE"] = str(sample)
    command = [*fixed_addresses(kind), sys.executable, "-m", "pytest", "-q", "-p", "sanitized", "-p", "no:faulthandler",
               "-p", "no:cacheprovider", "-k", words, *(["-m", "not slow"] if kind == "asan" else []), *processes,
               *run.tests]
    printed = reports.parent / f"{run.name}.txt"
    with printed.open("w") as file:
        status = subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, stdout=file,
                                stderr=subprocess.STDOUT, check=False).returncode
    lines = printed.read_text(errors="replace")
    summary = re.findall(r"^=*\s*(\d+ (?:passed|failed|error).*?) in [\d.]+s", lines, re.M)
    if status:
        print("\n".join(lines.splitlines()[-60:]), flush=True)
    outcome = summary[-1] if summary else f"exit status {status}"
    return f"{kind} {name}, {run.name}: {outcome}; {time.monotonic() - start:.0f} s", status == 0


def judge(kind, name, reports):
    """Prints what counts; (how many do, how many do not)."""
    own, foreign = sort_reports(reports, build_folder(kind, name) / "lib")
    for report in own[:20]:
        print(report, flush=True)
    return len(own), len(foreign)


def campaign(kind, name, arguments):
    """Builds and runs; whether all is well."""
    import fastrnn  # the machine's own build tells which instruction sets there are

    isas = arguments.isas or fastrnn.available_isas()
    well, start = True, time.monotonic()
    if not arguments.as_built:
        build(kind, name, isas[:1] if arguments.slice else isas)
        print(f"{kind} {name}: built in {time.monotonic() - start:.0f} s", flush=True)
    for run in passes(kind, isas, arguments.tests, arguments.slice):
        if arguments.passes and run.name not in arguments.passes:
            continue
        reports = build_folder(kind, name) / "reports" / run.name
        shutil.rmtree(reports, ignore_errors=True)
        reports.mkdir(parents=True)
        line, passed = run_pass(kind, name, run, arguments, reports)
        own, foreign = judge(kind, name, reports)
        print(f"{line}; {own} findings, {foreign} reports without a frame of fastrnn", flush=True)
        well &= passed and not own
    return well


def run_program(kind, name, command):
    """A program on that build: whether it ended with 0 and nothing was reported."""
    reports = build_folder(kind, name) / "reports" / f"program-{os.getpid()}"
    reports.mkdir(parents=True)
    if command[0] == "python":
        command = [sys.executable, *command[1:]]
    status = subprocess.run([*fixed_addresses(kind), *command],
                            env={**os.environ, **environment(kind, name, reports)}, check=False).returncode
    own, _ = judge(kind, name, reports)
    print(f"{kind} {name}: exit status {status}; {own} findings", flush=True)
    return status == 0 and not own


def parse():
    words = sys.argv[1:]
    command = words[words.index("--") + 1:] if "--" in words else []
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=SANITIZERS)
    parser.add_argument("--compiler", nargs="+", choices=COMPILERS, default=list(COMPILERS))
    parser.add_argument("--isas", nargs="+", help="instruction sets; all that this machine has, where none is named")
    parser.add_argument("--tests", nargs="+", help="files or folders; those of the campaign where none is named")
    parser.add_argument("--workers", default="auto", help="processes that run tests; 0: this one (auto)")
    parser.add_argument("--slice", action="store_true", help="few tests of the widest instruction set")
    parser.add_argument("--build", action="store_true", help="build, and run nothing")
    parser.add_argument("--as-built", action="store_true", help="use the build that is there")
    parser.add_argument("--sample", type=int, help="so many cases of each test function at most, for a quick look")
    parser.add_argument("--passes", nargs="+", help="these alone, by the names that are printed, such as leaks")
    arguments = parser.parse_args(words[:words.index("--")] if "--" in words else words)
    if arguments.slice:
        arguments.sample = arguments.sample or 1
    return arguments, command


def main():
    arguments, command = parse()
    well = True
    for name in arguments.compiler:
        try:
            if (arguments.build or command) and not arguments.as_built:
                build(arguments.kind, name, arguments.isas)
            if command:
                well &= run_program(arguments.kind, name, command)
            elif not arguments.build:
                well &= campaign(arguments.kind, name, arguments)
        except Missing as error:
            print(f"{arguments.kind} {name}: not run: {error}", flush=True)
            well = False
    print(f"{arguments.kind}, {' and '.join(arguments.compiler)}: {'clean' if well else 'FAILED'}", flush=True)
    return not well


if __name__ == "__main__":
    sys.exit(main())
