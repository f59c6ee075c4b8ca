"""fastrnn beside torch, ONNX Runtime, OpenVINO and JAX: same weights, same inputs, outputs compared.

    python benchmarks/peers.py                         everything, about half an hour: one thread, then two
    python benchmarks/peers.py --quick                 few rounds, no large cases: a look, not a result
    python benchmarks/peers.py --only step --cell gru
    python benchmarks/peers.py --threads 2             the tables for two threads alone
    python benchmarks/peers.py --json out/peers.json --plot out/peers.png

How it measures. One process; the contestants of a case take turns within a round, and there are many rounds: a time is
the median over rounds, a ratio the median of the rounds' ratios, so that a neighbour's noise meets all alike. One CPU
is pinned and every library has one thread. The tables for two threads come from a process of its own, which may use two
CPUs: there a library that can be given a number of threads for each model takes one or two, whichever was faster in a
short trial, and 20 ms pass before each turn, in which the idle threads of the others stop spinning. Two threads against
one, fastrnn against itself, has its own process too.
A turn lasts at least 2 ms (short calls are repeated in it); a call below 20 ms has one before it that is not timed. A
turn that other processes cut into (CPU time below 97 % of wall time) is taken anew, three times at most. A contestant
five times slower than the best peer leaves after three rounds. The limits (the sgemm rate of np.matmul 1024^3, one
read of the packed weights) are contestants too: same run, same rounds. GFLOP/s count 2 operations a multiply-add of
the gates' products, training three times that. Every output and gradient is compared with fastrnn's; a difference
above 1e-4 (of a gradient whose numbers pass 1: relative to its maximum) is an error, and the exit status 1. A target
that is missed is only said.
"""
# Nothing but the standard library (and report, which keeps to it) may be imported here: threads and CPU are set
# before NumPy and the peers load.
import argparse
import datetime
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import tracemalloc
from functools import partial
from pathlib import Path
from statistics import median

from report import CELLS, label, plot, summary, targets

SECTIONS = ["step", "sequence", "training", "limits", "threads"]
STEP = [(1, 1, 16, 32), (1, 1, 32, 64), (1, 1, 64, 128), (1, 1, 128, 256), (1, 1, 512, 512)]     # T, N, I, H
SEQUENCE = [(100, 1, 64, 128), (100, 1, 256, 256), (100, 1, 512, 512), (100, 4, 64, 128), (100, 16, 128, 128),
            (100, 32, 256, 256), (50, 64, 512, 512), (50, 128, 128, 128), (784, 64, 1, 128), (1000, 1, 16, 32)]
TRAINING = [(100, 1, 64, 128), (50, 8, 32, 64), (100, 16, 128, 128), (100, 32, 256, 256), (50, 128, 128, 128),
            (30, 64, 512, 512), (784, 64, 1, 128)]
CASES = {"step": STEP, "sequence": SEQUENCE, "training": TRAINING}
MANY_THREADS = 2
RAGGED = (100, 64, 128, 128)
MEMORY_STEPS = 10_000_000
TOLERANCE = 1e-4
SUBNORMAL = 1e-40
SGEMM = 2 * 1024 ** 3                  # operations
ATTEMPTS = 3
LONG_CALL = 0.02                       # seconds
PAUSE = 0.02                           # seconds before a turn with many threads
SLOW, TRIAL_ROUNDS = 5, 3              # who is SLOW times slower than the best peer leaves after TRIAL_ROUNDS
UNITS = {"step": (1e6, "us"), "sequence": (1e3, "ms"), "training": (1e3, "ms")}


def arguments():
    first, rest = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(description=first, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 rounds of short turns, large cases left out")
    parser.add_argument("--only", choices=SECTIONS, help="one section instead of all")
    parser.add_argument("--cell", choices=CELLS, help="one cell instead of all")
    parser.add_argument("--case", type=lambda text: tuple(map(int, text.split(","))), nargs="+", metavar="T,N,I,H",
                        help="these cases of the section that --only names")
    parser.add_argument("--isa", metavar="NAME", help="run fastrnn with FASTRNN_ISA=NAME, for example avx2")
    parser.add_argument("--peers", metavar="LIST", help="comma-separated instead of all; 'none' for fastrnn alone")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of every case (default 25)")
    parser.add_argument("--threads", type=int, metavar="N",
                        help="threads of every contestant (default: one, then two in tables of their own; "
                             "with --only, one)")
    parser.add_argument("--json", type=Path, metavar="PATH",
                        help="write everything measured here (default out/peers.json, without --only)")
    parser.add_argument("--plot", type=Path, metavar="PATH",
                        help="draw the picture for the README here (default out/peers.png, without --only)")
    # rows only, for a parent process, on these CPUs
    parser.add_argument("--child", type=json.loads, metavar="LIST", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rounds is not None and args.rounds < 1:
        parser.error("--rounds: at least 1")
    cpus = len(args.child or usable_cpus())         # a child begins with its parent's one CPU
    if args.threads is not None and not 1 <= args.threads <= cpus:
        parser.error(f"--threads: 1 to {cpus}, the CPUs that this process may use")
    if args.case is not None and args.only not in CASES:
        parser.error("--case needs --only step, sequence or training")
    args.both = args.threads is None and args.only is None and args.child is None
    args.threads = args.threads or 1
    if args.only is None and args.child is None:
        args.json, args.plot = args.json or Path("out/peers.json"), args.plot or Path("out/peers.png")
    args.rounds = args.rounds or (5 if args.quick else 25)
    args.budget = 0.5e-3 if args.quick else 2e-3
    return args


def prepare_process(args):
    """As many threads for every library, as many CPUs for the process (all of them for the threads section).

    Returns the number of the CPU where there is one.
    """
    threads = getattr(args, "threads", 1)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["XLA_FLAGS"] = (f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'} "
                               f"intra_op_parallelism_threads={threads}")
    os.environ["JAX_PLATFORMS"] = "cpu"
    if args.isa:
        os.environ["FASTRNN_ISA"] = args.isa
    # a checkout built in place is used where fastrnn is not installed
    sys.path.append(str(Path(__file__).resolve().parent.parent))
    if not hasattr(os, "sched_setaffinity"):
        return None
    if args.child:
        os.sched_setaffinity(0, args.child)       # a child inherits the parent's one CPU
    if args.only == "threads":
        return None
    cpus = usable_cpus()[-threads:]               # the last: interrupts tend to be served by the first
    os.sched_setaffinity(0, cpus)
    return cpus[0] if threads == 1 else None


class Turns:
    """Takes the times. `interrupted` of `taken` turns had other processes in them even at the last attempt."""

    def __init__(self, rounds, budget, pause=0):
        self.rounds, self.budget, self.pause, self.taken, self.interrupted = rounds, budget, pause, 0, 0

    def seconds(self, run, n):
        """Wall time of one of n calls."""
        best, self.taken = float("inf"), self.taken + 1
        for _ in range(ATTEMPTS):
            wall, cpu = time.perf_counter(), time.process_time()
            run(n)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            best = min(best, wall / n)
            if cpu >= 0.97 * wall:
                return best
        self.interrupted += 1
        return best

    def calls(self, run):
        """How many calls make a turn, and whether one is so long that cold caches do not matter to it."""
        run(1)
        n, took = 1, self.seconds(run, 1)
        while n * took < self.budget / 2:
            n = min(10 * n, int(self.budget / took) + 1)
            took = self.seconds(run, n)
        return max(1, round(self.budget / took)), took > LONG_CALL

    def measure(self, runs, competing=()):
        """Seconds of a call in every round for each run(n) in the dict `runs`; names in `competing` may leave early."""
        calls, times = {name: self.calls(run) for name, run in runs.items()}, {name: [] for name in runs}
        staying = list(runs)
        gc.collect()
        gc.disable()
        try:
            for number in range(self.rounds):
                if number == TRIAL_ROUNDS and competing:
                    bound = SLOW * min(median(times[name]) for name in competing)
                    staying = [name for name in runs if name not in competing or median(times[name]) <= bound]
                for name in staying if number % 2 == 0 else staying[::-1]:
                    n, long = calls[name]
                    if self.pause:
                        time.sleep(self.pause)
                    if not long:
                        runs[name](1)             # its weights and code are in the caches again
                    times[name].append(self.seconds(runs[name], n))
        finally:
            gc.enable()
        return times


def ratio(above, below):
    """Median of the rounds' ratios; who left early is compared over the rounds it was in."""
    return median(a / b for a, b in zip(above, below))


class Bench:
    """Runs the sections; `rows` has one dict for every case measured."""

    def __init__(self, args, cpu):
        import adapters
        self.args, self.cpu, self.adapters, self.rows, self.bar = args, cpu, adapters, [], None
        self.turns = Turns(args.rounds, args.budget, PAUSE if args.threads > 1 else 0)
        try:
            self.fastrnn = adapters.FastRNN()
        except (ImportError, RuntimeError) as error:       # RuntimeError: an instruction set that is not there
            sys.exit(f"fastrnn cannot be imported: {error}\n(not built? python setup.py build_ext --inplace)")
        if args.only != "threads":
            self.fastrnn.module.set_num_threads(args.threads)
        self.isa = self.fastrnn.module.active_isa()
        # what an AVX2 kernel can reach on a machine whose sgemm uses AVX-512
        halved = self.isa == "avx2" and "avx512" in self.fastrnn.module.available_isas()
        self.share_of = 0.5 if halved else 1.0
        self.peers, self.absent = {}, {}
        names = list(adapters.PEERS) if args.peers is None else [n.strip() for n in args.peers.split(",")]
        names = [] if names == ["none"] else names
        for name in names:
            if name not in adapters.PEERS:
                sys.exit(f"--peers: {name!r} is none of {', '.join(adapters.PEERS)}")
            if args.only in (None, *CASES):
                try:
                    self.peers[name] = adapters.PEERS[name][1]()
                except Exception as error:        # a broken installation raises anything
                    self.absent[name] = f"{type(error).__name__}: {error}"

    def header(self):
        import numpy as np
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        versions = {peer.package: peer.version() for peer in self.peers.values()}
        return {
            "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "machine": f"{cpu_model()}, {os.cpu_count()} CPUs, {platform.system()} {platform.machine()}",
            "load": " ".join(f"{x:.2f}" for x in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown",
            "pinned to": f"CPUs {', '.join(map(str, usable_cpus()))}" if self.cpu is None else f"CPU {self.cpu}",
            "threads": self.args.threads,
            "fastrnn": f"{self.fastrnn.version()}, {self.isa} of {', '.join(self.fastrnn.module.available_isas())}",
            "python": platform.python_version(),
            "numpy": f"{np.__version__} with {blas.get('name')} {blas.get('version')}",
            "peers": ", ".join(f"{name} {number}" for name, number in versions.items()) or "none",
            "not taking part": "; ".join(f"{name} ({why})" for name, why in self.absent.items()) or "nobody",
            "rounds": self.args.rounds,
            "quick": self.args.quick,
        }

    def problems(self, cases):
        """(cell, case) as the command line restricts them."""
        cases = [case for case in cases if self.args.case is None or case in self.args.case]
        cases = [(T, N, I, H) for T, N, I, H in cases if not (self.args.quick and T * N * H * (I + H) > 4e8)]
        return [(cell, case) for cell in CELLS if self.args.cell in (None, cell) for case in cases]

    def run(self):
        """The sections asked for that run in this process."""
        # threads alone are not pinned: they have a process of their own
        sections = list(CASES) if self.args.threads > 1 else SECTIONS[:-1]
        for name in [self.args.only] if self.args.only else sections:
            getattr(self, name)()

    def say(self, text):
        self.bar.write(text) if self.bar else print(text, flush=True)

    def with_progress(self, problems, title):
        """Yields the problems; a bar on stderr where tqdm is there and stderr is a terminal, else the rows are it."""
        try:
            from tqdm import tqdm
        except ImportError:
            yield from problems
            return
        with tqdm(problems, desc=title, disable=None, leave=False) as bar:
            self.bar = None if bar.disable else bar
            for cell, case in bar:
                bar.set_postfix_str(f"{cell} {label(case)}")
                yield cell, case
            self.bar = None

    def row(self, section, cell, case, **figures):
        row = {"section": section, "cell": cell, "case": case, "isa": self.isa, "threads": self.args.threads, **figures}
        self.rows.append(row)
        return row

    def contest(self, section, cell, case):
        """fastrnn, its peers and the limits in one case of step, sequence or training."""
        problem = self.adapters.Problem(cell, *case)
        calls = 3 if section == "step" else 1     # the third step has a state other than 0 behind it
        mine = getattr(self.fastrnn, section)(problem)
        mine.run(calls)
        expected = [array.copy() for array in mine.output()]
        runs, keep, competing, differences, errors = {"fastrnn": mine.run}, [], [], {}, {}
        for name in self.columns(section):
            try:
                theirs = getattr(self.peers[name], section)(problem)
                theirs.run(calls)
                differences[name] = self.adapters.difference(theirs.output(), expected)
            except Exception as error:            # whatever a peer raises is its row's entry, not our end
                errors[name] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                continue
            if not differences[name] <= TOLERANCE:         # NaN too
                errors[name] = f"differs by {differences[name]:.2g}"
                continue
            runs[name] = theirs.run
            competing.append(name)
            keep.append(theirs)
        if section == "step":
            read = self.fastrnn.read(mine.about)
            runs["read"] = read.run
            if (cell, case) == ("lstm", STEP[0]):
                runs["np.add"] = self.adapters.small_add(case[3]).run
        else:
            runs["sgemm"] = self.adapters.sgemm().run
        times = self.turns.measure(runs, competing)
        row = self.row(section, cell, case, differences=differences, errors=errors,
                       seconds={name: median(t) for name, t in times.items()}, rounds=times,
                       ratios={name: ratio(times[name], times["fastrnn"]) for name in competing})
        if competing:
            row["best"] = min(row["ratios"], key=row["ratios"].get)
            row["ratio"] = row["ratios"][row["best"]]
        if section == "step":
            row["packed_bytes"] = mine.about.parameters[0].packed_bytes
            row["of_read"] = ratio(times["fastrnn"], times["read"])
            row["of_add"] = ratio(times["fastrnn"], times["np.add"]) if "np.add" in times else None
        else:
            work = 2 * problem.multiply_adds * problem.T * problem.N * (3 if section == "training" else 1)
            row["gflops"] = work / row["seconds"]["fastrnn"] / 1e9
            row["sgemm_gflops"] = SGEMM / row["seconds"]["sgemm"] / 1e9
            row["share_whole"] = ratio(times["sgemm"], times["fastrnn"]) * work / SGEMM
            row["share"] = row["share_whole"] / self.share_of
        return row

    def columns(self, section):
        """The peers that take part: ONNX Runtime and OpenVINO do not train, torch's cells take single steps."""
        nobody = getattr(self.adapters.Peer, section)
        return [name for name, peer in self.peers.items()
                if getattr(type(peer), section) is not nobody and (section == "step" or " cell" not in name)]

    def table_head(self, section):
        columns = [self.adapters.PEERS[name][0] for name in self.columns(section)]
        heads = "".join(f"{head:>9}" for head in ["fastrnn", *columns])
        tail = "  of read" if section == "step" else f"  GFLOP/s{'of sgemm/2' if self.share_of < 1 else 'of sgemm':>11}"
        title = {"step": "one step, N = 1", "sequence": "sequences, forward", "training": "training step"}[section]
        legend = "; a - after the name: without oneDNN" if "torch-" in columns else ""
        title += "" if self.args.threads == 1 else f", {self.args.threads} threads"
        self.say(f"\n{title}; {UNITS[section][1]} a call; ratio: the best peer's time over ours{legend}"
                 f"\n{'':5}{'T, N, I, H':<18}{heads}   ratio  best    {tail}  max diff")

    def table_row(self, row):
        scale = UNITS[row["section"]][0]
        cells = [f"{row['seconds'][name] * scale:9.4g}" if name in row["seconds"] else f"{'error':>9}"
                 if name in row["errors"] else f"{'-':>9}" for name in ["fastrnn", *self.columns(row["section"])]]
        best = self.adapters.PEERS[row["best"]][0] if "best" in row else "-"
        tail = f"{row['of_read']:8.2f}x" if row["section"] == "step" else f"{row['gflops']:9.1f}{row['share']:11.0%}"
        worst = max(row["differences"].values(), default=0)
        against = f"{row['ratio']:6.2f}x" if "ratio" in row else f"{'-':>7}"
        self.say(f"{row['cell']:5}{label(row['case']):<18}{''.join(cells)} {against}  {best:<8}{tail}{worst:10.1e}")
        for name, message in row["errors"].items():
            self.say(f"     {name}: {message}")
        if row.get("of_add"):
            self.say(f"     np.add of two arrays of {row['case'][3]}: {row['seconds']['np.add'] * scale:.3f} us; "
                     f"the step takes {row['of_add']:.2f} of it")

    def contests(self, section, cases):
        self.table_head(section)
        for cell, case in self.with_progress(self.problems(cases), section):
            self.table_row(self.contest(section, cell, case))

    def step(self):
        self.contests("step", STEP)

    def sequence(self):
        # a child measures what the AVX2 target asks for, no more
        self.contests("sequence", [case for case in SEQUENCE if case[1] >= 16 or self.args.child is None
                                   or self.args.threads > 1])

    def training(self):
        self.contests("training", TRAINING)

    def limits(self):
        """Ragged batches, subnormal numbers, memory: fastrnn against itself."""
        import numpy as np
        problem = self.adapters.Problem
        lengths = np.random.default_rng(0).integers(1, RAGGED[0] + 1, RAGGED[1])
        share = lengths.mean() / RAGGED[0]
        self.say(f"\nragged batch {label(RAGGED)}, lengths uniform in 1..T ({share:.2f} of the steps): over unragged")
        for cell, case in self.with_progress(self.problems([RAGGED]), "ragged"):
            times = self.turns.measure({"whole": self.fastrnn.sequence(problem(cell, *case)).run,
                                  "ragged": self.fastrnn.sequence(problem(cell, *case), lengths=lengths).run})
            row = self.row("ragged", cell, case, value=ratio(times["ragged"], times["whole"]), rounds=times)
            self.say(f"{cell:5}{row['value']:.3f}")
        self.say("\nsubnormal input and state against normal: time over time")
        for cell, case in self.with_progress(self.problems([STEP[2], (1, 16, 128, 128), SEQUENCE[4]]), "subnormal"):
            runs = {}
            for kind, value in (("normal", None), ("subnormal", SUBNORMAL)):
                task = problem(cell, *case)
                state = np.random.default_rng(1).standard_normal((1, case[1], case[3]), np.float32)
                if value:
                    task.x[...], state[...] = value, value
                state = (state, state) if cell == "lstm" else state
                # without a bias, which would make the state normal at once
                method = self.fastrnn.step if case in STEP else self.fastrnn.sequence
                runs[kind] = method(task, state=state, bias=False).run
            times = self.turns.measure(runs)
            row = self.row("subnormal", cell, case, value=ratio(times["subnormal"], times["normal"]), rounds=times)
            self.say(f"{cell:5}{label(case):<18}{row['value']:.3f}")
        self.memory()

    def memory(self):
        """Growth of the process over many steps of a stream, and what one step allocates."""
        run = self.fastrnn.step(self.adapters.Problem("lstm", *STEP[0])).run
        run(1000)
        before = resident_bytes()
        run(MEMORY_STEPS)
        growth = None if before is None else resident_bytes() - before
        # the loop's own iterator is the same for any number of steps, so it is subtracted
        allocated = allocations(lambda: run(1000)) - allocations(lambda: run(0))
        self.row("memory", "lstm", STEP[0], steps=MEMORY_STEPS, growth=growth, allocated=allocated)
        self.say(f"\na stream of {MEMORY_STEPS} steps, lstm {label(STEP[0])}: resident memory grew by "
                 f"{'unknown' if growth is None else growth} bytes; 1000 steps with out allocated {allocated} bytes")

    def threads(self):
        """Two threads over one, in this process, which is not pinned."""
        module = self.fastrnn.module
        if len(usable_cpus()) < 2:
            self.say("\ntwo threads over one: this process may use one CPU only, not measured")
            return
        for section in ("sequence", "training"):
            self.say(f"\ntwo threads over one, {section}")
            cases = [case for case in CASES[section] if case[1] >= 16]
            for cell, case in self.with_progress(self.problems(cases), "threads"):
                inner = getattr(self.fastrnn, section)(self.adapters.Problem(cell, *case)).run

                used = []

                def run_with(number, n, inner=inner, used=used):
                    wall, cpu = time.perf_counter(), time.process_time()
                    with module.threads(number):
                        inner(n)
                    if number == 2:
                        used.append((time.process_time() - cpu) / (time.perf_counter() - wall))

                times = self.turns.measure({"one": partial(run_with, 1), "two": partial(run_with, 2)})
                row = self.row("threads", cell, case, kind=section, value=ratio(times["one"], times["two"]),
                               cpus=median(used), rounds=times)
                one, two = median(times["one"]) * 1e3, median(times["two"]) * 1e3
                self.say(f"{cell:5}{label(case):<18}{one:9.4g} ms {two:9.4g} ms {row['value']:6.2f}x   "
                         f"two threads got {row['cpus']:.2f} CPUs")


def usable_cpus():
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def cpu_model():
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown CPU"


def resident_bytes():
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def allocations(call):
    """The most bytes that Python and NumPy held at once for a call."""
    call()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def child(args, cpus, *options):
    """Rows of this program run once more as a process of its own, which may use `cpus`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        command = [sys.executable, __file__, "--child", json.dumps(cpus), "--json", str(path),
                   "--rounds", str(args.rounds), *options]
        command += ["--quick"] if args.quick else []
        command += ["--cell", args.cell] if args.cell else []
        code = subprocess.run(command).returncode
        if code or not path.exists():
            print(f"{' '.join(options)}: failed with status {code}; its figures are missing")
            return []
        return json.loads(path.read_text())["rows"]


def main():
    args = arguments()
    cpus = usable_cpus()
    bench = Bench(args, prepare_process(args))
    header = bench.header()
    if args.child is None:
        for key, value in header.items():
            print(f"{key:<16}{value}", flush=True)
    wall, cpu = time.perf_counter(), time.process_time()
    bench.run()
    used = (time.process_time() - cpu) / (time.perf_counter() - wall)
    if bench.cpu is not None and used > 1.02:
        print(f"\nwarning: {used:.2f} CPUs were used although one was pinned: a library moved its threads elsewhere")
    rows = bench.rows
    if args.both and len(cpus) >= MANY_THREADS:
        print(f"\n{MANY_THREADS} threads, in a process of their own")
        rows += child(args, cpus, "--threads", str(MANY_THREADS), *(["--peers", args.peers] if args.peers else []),
                      *(["--isa", args.isa] if args.isa else []))
    if args.only is None and args.child is None and args.threads == 1:
        rows += child(args, cpus, "--only", "threads", *(["--isa", args.isa] if args.isa else []))
        if bench.isa == "avx512":
            print("\nthe AVX2 kernels, in a process of their own")
            found = child(args, cpus, "--only", "sequence", "--isa", "avx2", "--peers", "none")
            rows += [{**row, "section": "avx2"} for row in found]
    found = targets(rows)
    if args.child is None:
        summary(bench, rows, found)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        everything = {"header": header, "rows": rows, "targets": [target._asdict() for target in found]}
        args.json.write_text(json.dumps(everything, indent=1))
        if args.child is None:
            print(f"everything: {args.json}")
    if args.plot:
        plot(rows, header, args.plot)
    wrong = [(row, name) for row in rows for name, d in row.get("differences", {}).items() if not d <= TOLERANCE]
    for row, name in wrong:
        print(f"ERROR: {row['section']} {row['cell']} ({label(row['case'])}): {name} {row['errors'][name]}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
