"""Fuzzing of everything that reads model files, by atheris (libFuzzer for Python), guided by coverage.

    python tests/campaigns/fuzz_files.py                            2,000,000 executions of each loader
    python tests/campaigns/fuzz_files.py --executions 10000 --loaders onnx keras
    python tests/campaigns/fuzz_files.py --replay FILE --loaders onnx
    python tests/campaigns/fuzz_files.py --minimize                 the corpus of the repository, from what was found

Each loader (``tests/support/file_loaders.py``) is given files that are made of good ones, by libFuzzer's mutator and by
one that knows the containers and mends their lengths and checksums (``tests/support/structured.py``). A file must be
read, or refused by a ModelFormatError that names it; within 2 seconds of processor time, and with no more than 32 MiB
above what the process had; of one file in 500, every allocation is counted and held to the bounds of the tests. What is
accepted is now and then run, saved and loaded.

The folder (out/fuzz) keeps for each loader the files that reached new code and how often it was executed, so that the
executions of several runs add up: a run goes on where the last one ended. Inputs that break a promise are in
findings/LOADER, each with the traceback; the exit status is then 1.
"""

import argparse
import contextlib
import functools
import hashlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "support")]
sys.path.append(str(ROOT))          # a checkout built in place is used where fastrnn is not installed

SECONDS = 2.0                       # of processor time for one file
MEMORY = 32 << 20                   # bytes of addresses that one file may take
COUNTED, USED = 500, 400            # one file in so many has its allocations counted; one accepted in so many is used
SLICE = 200_000                     # executions of a loader before the next one's turn
EACH = 3                            # files that are kept of one kind of finding
INSTRUMENTED = ["fastrnn.interop", "fastrnn._base.reading", "fastrnn._base.named_arrays", "fastrnn._base.trees",
                "fastrnn._base.estimator_files", "fastrnn.nn.files", "fastrnn.nn.streams", "fastrnn.nn.parameters",
                "fastrnn.training.checkpoints", "fastrnn.scale.pool", "fastrnn.scale.members", "fastrnn.scale.keys"]


# ---- The process that executes one loader ------------------------------------------------------------

class Harness:
    """What is done with each file: it is written, read within limits, and a finding is kept.

    Parameters
    ----------
    loader : Loader
    folder : path
        Of this loader: takes ``executions`` and the findings.
    """

    def __init__(self, loader, folder):
        import mutations
        self.loader, self.mutations = loader, mutations
        self.findings = folder / "findings"
        self.findings.mkdir(parents=True, exist_ok=True)
        self.counter = os.open(folder / "executions", os.O_RDWR | os.O_CREAT)
        self.before = int(os.pread(self.counter, 20, 0) or 0)
        self.count = self.accepted = 0
        self.kinds = {}
        place = workplace(os.getpid(), folder)
        place.mkdir()
        loader.beside(place)
        self.path = str(place / loader.file)
        self.statm = os.open("/proc/self/statm", os.O_RDONLY)
        signal.signal(signal.SIGVTALRM, self.ring)

    def ring(self, signum, frame):
        raise self.mutations.Hung(f"still reading after {SECONDS} s of processor time")

    def limit(self):
        """Lets the process take MEMORY above what it has now."""
        size = int(os.pread(self.statm, 64, 0).split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))

    def __call__(self, data):
        """One execution."""
        self.count += 1
        os.pwrite(self.counter, b"%-20d" % (self.before + self.count), 0)
        if self.count % 200 == 1:
            self.limit()
        target = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(target, data)
        os.close(target)
        try:
            if self.count % COUNTED == 0:
                self.counted(data)
            else:
                self.once(data)
        except BaseException as error:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            self.keep(data, error)

    def once(self, data):
        """Reads the file, and uses some of those that are accepted."""
        error = None
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        try:
            result = self.loader.attempt(self.path)
        except self.mutations.ModelFormatError as refusal:
            error = refusal
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        if error is None:
            self.accepted += 1
            if self.accepted % USED == 0:
                self.loader.use(result)
        elif self.loader.file not in str(error):
            raise AssertionError(f"the message does not name the file: {error}") from error

    def counted(self, data):
        """Reads the file with every allocation counted."""
        most = min(self.loader.times * len(data) + (1 << 22),
                   self.mutations.MOST_TIMES * len(data) + self.mutations.MOST_PLUS)
        with self.mutations.bounded(most, 600), contextlib.suppress(self.mutations.ModelFormatError):
            self.loader.attempt(self.path)

    def keep(self, data, error):
        """A finding: the file and the traceback, of each kind the first few."""
        frames = [f"{Path(frame.filename).name}:{frame.name}" for frame in traceback.extract_tb(error.__traceback__)
                  if "fastrnn" in frame.filename]
        kind = f"{type(error).__name__}-{'-'.join(frames[-2:])}"
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        name = re.sub(r"[^\w.-]", "_", kind)[:100]
        if self.kinds[kind] > EACH or len(list(self.findings.glob(f"{name}-*.txt"))) >= EACH:
            return
        target = self.findings / f"{name}-{hashlib.sha1(data).hexdigest()[:10]}"
        target.write_bytes(data)
        target.with_name(target.name + ".txt").write_text(
            "".join(traceback.format_exception(error)), errors="backslashreplace")
        print(f"\nFINDING {target}: {error!r:.300}", file=sys.stderr, flush=True)


def instrument(dataflow):
    """Has the modules that read files tell libFuzzer where they go; with `dataflow` also what they compare.

    atheris.instrument_imports takes whole packages only, and would slow down the layers, too.
    """
    from importlib.machinery import PathFinder, SourceFileLoader

    import atheris

    class Loader(SourceFileLoader):
        def get_code(self, fullname):
            return atheris.patch_code(super().get_code(fullname), dataflow)

    class Finder(PathFinder):
        @classmethod
        def find_spec(cls, fullname, path=None, target=None):
            if not f"{fullname}.".startswith(tuple(f"{name}." for name in INSTRUMENTED)):
                return None
            spec = super().find_spec(fullname, path, target)
            if spec is not None and type(spec.loader) is SourceFileLoader:
                spec.loader = Loader(spec.loader.name, spec.loader.path)
            return spec

    sys.meta_path.insert(0, Finder)


def child(name, folder, dataflow, arguments):
    """Executes one loader in this process; libFuzzer ends it."""
    import gettext
    import warnings

    import atheris
    gettext.find = functools.cache(gettext.find)        # argparse looks for translations, a fifth of `inspect`'s time
    instrument(dataflow)
    import file_loaders
    import structured
    loader = file_loaders.LOADERS[name]
    for data in loader.good():              # what is imported late, and takes memory once
        with contextlib.suppress(ValueError, OSError):
            path = folder / loader.file
            path.write_bytes(data)
            loader.attempt(path)
    (folder / loader.file).unlink(missing_ok=True)
    warnings.simplefilter("error")
    harness = Harness(loader, folder)
    rng = random.Random(harness.before)

    def mutator(data, most, seed):
        return structured.mutated(data, rng, atheris.Mutate, most)

    atheris.Setup([sys.argv[0], *arguments], harness, custom_mutator=mutator)
    atheris.Fuzz()


# ---- The campaign ---------------------------------------------------------------------------------------

def executions(folder):
    """How often the loader of this folder was executed."""
    path = folder / "executions"
    return int(path.read_text() or 0) if path.exists() else 0


def seeded(loader, folder):
    """The folder of a loader's corpus: what it has, the repository's corpus, good files."""
    from file_loaders import CORPUS, MOST
    corpus = folder / "corpus"
    if not corpus.exists():
        corpus.mkdir(parents=True)
        known = [path.read_bytes() for path in sorted((CORPUS / loader.name).glob("*"))]
        for data in [*loader.good(), *known]:
            if len(data) <= MOST:
                (corpus / hashlib.sha1(data).hexdigest()).write_bytes(data)
    return corpus


def turn(loader, folder, count, seconds):
    """One process of so many executions, or seconds. Returns whether it ended as it should."""
    from file_loaders import MOST
    corpus, log = seeded(loader, folder), folder / "log"
    before, begin = executions(folder), time.monotonic()
    command = [sys.executable, __file__, "--child", loader.name, "--folder", str(folder),
               *["--dataflow"] * (before < SLICE), "--", str(corpus),
               f"-runs={count}", f"-max_total_time={max(1, int(seconds))}", f"-max_len={MOST}", "-len_control=0",
               "-timeout=300", "-rss_limit_mb=3072",
               "-print_final_stats=1", "-reload=0", f"-seed={before % (1 << 31) + 1}",
               f"-artifact_prefix={folder}/findings/"]
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | {"OMP_NUM_THREADS": "1"})
        try:
            status = process.wait()
        finally:
            process.kill()
            process.wait()
            clean(process.pid, folder)
    seconds, done = time.monotonic() - begin, executions(folder) - before
    coverage = re.findall(rb"cov: (\d+) ft: (\d+)", log.read_bytes())
    found = len(list((folder / "findings").glob("*.txt"))) + len(list((folder / "findings").glob("crash-*")))
    print(f"{time.strftime('%H:%M:%S')} {loader.name:17} {executions(folder):>9,} executions, {done / seconds:6.0f}/s, "
          f"coverage {coverage[-1][0].decode() if coverage else '?'}, {len(list(corpus.iterdir()))} files in the "
          f"corpus, {found} findings", flush=True)
    if status:
        print(f"{loader.name}: exit status {status}, see {log}", flush=True)
    return status == 0


def workplace(number, folder):
    """Where the process of this number has the file that it reads: in memory where that can be had."""
    from file_loaders import memory_folder
    return Path(memory_folder() or folder) / f"fastrnn-fuzz-{number}"


def clean(number, folder):
    """Removes the workplace of a process that has ended."""
    shutil.rmtree(workplace(number, folder), ignore_errors=True)


def campaign(loaders, folder, count, size, minutes):
    """Turns of all loaders until each was executed so often. Returns how much is wrong or missing."""
    end = time.monotonic() + 60 * minutes
    failures = dict.fromkeys(loaders, 0)
    waiting = list(loaders)
    while waiting:
        for name in list(waiting):
            left, seconds = count - executions(folder / name), end - time.monotonic()
            if left <= 0 or seconds <= 0 or failures[name] > 3:
                waiting.remove(name)
                continue
            failures[name] += not turn(loaders[name], folder / name, min(size, left), seconds)
    findings = [path for name in loaders for path in sorted((folder / name / "findings").glob("*"))
                if path.suffix != ".txt"]
    for path in findings:
        print(f"finding: {path}")
    total = sum(executions(folder / name) for name in loaders)
    short = [name for name in loaders if executions(folder / name) < count]
    print(f"{total:,} executions of {len(loaders)} loaders, {len(findings)} inputs that break a promise"
          + (f"; not ended: {', '.join(short)}" if short else ""))
    return len(findings) + len(short)


def minimize(loaders, folder, share):
    """The repository's corpus: of each loader small files that together reach what all reach, `share` bytes of them.

    A file is taken, the smallest first, where it reaches a line after another line that neither the good files nor one
    before it did.
    """
    from file_loaders import CORPUS
    for name, loader in loaders.items():
        place, target, reached, size = workplace(os.getpid(), folder), CORPUS / name, set(), 0
        place.mkdir()
        loader.beside(place)
        target.mkdir(parents=True, exist_ok=True)
        kept = {path: path.read_bytes() for path in target.iterdir()}
        found = {path.read_bytes() for path in seeded(loader, folder / name).iterdir()} | set(kept.values())
        for path in kept:
            if re.fullmatch("[0-9a-f]{12}", path.name):         # others were findings, and stay
                path.unlink()

        def steps_of(data, loader=loader, path=place / loader.file):
            path.write_bytes(data)
            return walked(lambda: loader.attempt(str(path)))
        for data in loader.good():
            reached |= steps_of(data)
        for data in sorted(found, key=lambda data: (len(data), data)):
            steps = steps_of(data)
            if steps - reached and size + len(data) <= share:
                size += len(data)
                reached |= steps
                (target / hashlib.sha1(data).hexdigest()[:12]).write_bytes(data)
        clean(os.getpid(), folder)
        print(f"{name}: {len(list(target.iterdir()))} files of {len(found)}, {size:,} bytes, {len(reached)} steps",
              flush=True)


def walked(call):
    """Pairs of lines, one after the other, of the modules that read files, through which a call went."""
    steps, names = set(), tuple(name.replace(".", os.sep) for name in INSTRUMENTED)

    def enter(frame, event, argument):
        code = frame.f_code
        if not any(name in code.co_filename for name in names):
            return None
        before = 0

        def step(frame, event, argument):
            nonlocal before
            if event == "line":
                steps.add((code, before, frame.f_lineno))
                before = frame.f_lineno
            return step
        return step

    sys.settrace(enter)
    try:
        with contextlib.suppress(ValueError, OSError):
            call()
    finally:
        sys.settrace(None)
    return steps


def replay(loader, path):
    """Reads one file without limits, and shows what comes of it."""
    try:
        result = loader.attempt(path)
    except ValueError as error:
        print(f"{type(error).__name__}: {error}")
    else:
        print(f"read: {result!r}")
        loader.use(result)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executions", type=int, default=2_000_000,
                        help="of each loader, those of earlier runs included")
    parser.add_argument("--loaders", nargs="+", metavar="NAME", help="some of them alone")
    parser.add_argument("--folder", type=Path, default=ROOT / "out" / "fuzz", help="what is kept between runs")
    parser.add_argument("--slice", type=int, default=SLICE, help="executions of a loader before the next one's turn")
    parser.add_argument("--minutes", type=float, default=1e4, help="end after so many, whatever was done")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="read one file with the first of --loaders")
    parser.add_argument("--minimize", action="store_true", help="write the repository's corpus")
    parser.add_argument("--share", type=int, default=50_000, help="bytes of each loader's corpus in the repository")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--dataflow", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.folder, args.dataflow, args.rest)
        return
    from file_loaders import LOADERS
    names = args.loaders or list(LOADERS)
    if unknown := set(names) - LOADERS.keys():
        parser.error(f"--loaders: {', '.join(sorted(unknown))}: expected some of {', '.join(LOADERS)}")
    loaders = {name: LOADERS[name] for name in names}
    if args.replay:
        replay(LOADERS[names[0]], args.replay)
    elif args.minimize:
        minimize(loaders, args.folder, args.share)
    else:
        signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))     # ends the loader's process, too
        sys.exit(campaign(loaders, args.folder, args.executions, args.slice, args.minutes) > 0)


if __name__ == "__main__":
    main()
