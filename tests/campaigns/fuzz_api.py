"""Random cases of the array API, each compared with the float64 oracle and with what must have the same bits.

    python tests/campaigns/fuzz_api.py                       500,000 cases, on all CPUs
    python tests/campaigns/fuzz_api.py --cases 5000 --first 100000
    python tests/campaigns/fuzz_api.py --case 123456         one case again, simpler as long as it still fails
    python tests/campaigns/fuzz_api.py --case '{"kind": "gru", "H": 3}'

A case is determined by its number: a cell with its options, sizes, layouts, dtypes, lengths, masks, an instruction set,
threads, a precision, and some of the checks of tests/support/fuzz_checks.py and fuzz_relations.py. The bounds of the
oracle's comparisons are computed with its values (tests/support/error_bounds.py).

Workers take chunks of cases. A finding is a check that fails, an unexpected exception, a worker that dies, a case that
takes more than 2 s of CPU time or, asleep, 60 s, and memory past a budget: each is kept as a file in the folder of
findings, with the command that repeats it. The exit status is 1 if there was any. The build under test is the
installed one, or another by PYTHONPATH, one with sanitizers for instance.
"""

import argparse
import collections
import json
import mmap
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# a checkout built in place is used where fastrnn is not installed
sys.path.append(str(ROOT))
sys.path.append(str(ROOT / "tests" / "support"))

CHUNK = 200
CPU_LIMIT, SLEEP_LIMIT = 2.0, 60.0          # seconds of one case
SANITIZED = "asan" in os.environ.get("LD_PRELOAD", "")
GROWTH = (1024 if SANITIZED else 96) * 2**20    # of a worker's resident memory: sanitizers keep freed memory
HEADROOM = 512 * 2**20                      # of its address space
SHRINKS = 300                               # cases tried to make a finding simpler


# ---- One case ------------------------------------------------------------------------------------------

def failure(case):
    """What is wrong with a case, as text; None if nothing is."""
    import fuzz_checks
    try:
        fuzz_checks.run(case)
    except Exception:
        return traceback.format_exc(limit=-4)
    return None


def shrunk(case, fails):
    """A simpler case that still fails, after at most SHRINKS tries."""
    import fuzz_cases
    tries = iter(range(SHRINKS))
    return fuzz_cases.shrink(case, lambda other: next(tries, None) is not None and fails(other))


def repeat(text):
    """Run one case, given as its number or as JSON; 1 if it fails."""
    import fuzz_cases
    case = fuzz_cases.draw(int(text)) if text.isdecimal() else fuzz_cases.Case.from_json(text)
    print(case.as_json(), flush=True)
    error = failure(case)
    if error is None:
        print("1 case, 0 findings")
        return 0
    simple = shrunk(case, lambda other: failure(other) is not None)
    print(f"{error}\nsimplest case that fails: {simple.as_json()}\n{failure(simple)}\n1 case, 1 finding")
    return 1


# ---- A worker ------------------------------------------------------------------------------------------

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def work(progress):
    """Run the chunks that stdin names, and report each on stdout as a line of JSON."""
    import fuzz_cases
    import numpy as np
    np.seterr(all="ignore")
    if not SANITIZED:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + HEADROOM, used + HEADROOM))
    with open(progress, "r+b") as file:
        place = mmap.mmap(file.fileno(), 8)
    least = None
    for line in sys.stdin:
        start, stop = map(int, line.split())
        counts = collections.Counter()
        for number in range(start, stop):
            place[:] = number.to_bytes(8, "little")
            case, before = fuzz_cases.draw(number), time.process_time()
            error = failure(case)
            if error is None and time.process_time() - before > CPU_LIMIT:
                error = f"took {time.process_time() - before:.1f} s"
            if error is not None:
                report(finding=number, error=error, case=case.as_json())
                simple = shrunk(case, lambda other: failure(other) is not None)
                report(finding=number, error=f"{failure(simple)}\n{error}", case=simple.as_json())
            counts[case.isa] += 1
        memory = resident()
        least = memory if least is None and start else least
        if least is not None and memory - least > GROWTH:
            report(finding=start, error=f"memory grew by {(memory - least) / 2**20:.0f} MiB until here", case="")
            least = memory
        report(done=counts)


def report(**values):
    print(json.dumps(values), flush=True)


class Worker:
    """A process that runs cases, and the chunk it has."""

    def __init__(self, folder, index):
        self.folder, self.index = folder, index
        self.progress = folder / f"progress{index}"
        self.log = folder / f"stderr{index}"
        self.chunk = None
        self.start()

    def start(self):
        self.progress.write_bytes(bytes(8))
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([sys.executable, __file__, "--worker", self.progress], text=True,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                            process_group=0,            # Ctrl-C is for the parent
                                            env=os.environ | {"OMP_NUM_THREADS": "1"})
        os.set_blocking(self.process.stdout.fileno(), False)
        self.text, self.seen = "", None

    def give(self, chunk):
        self.chunk = chunk
        self.progress.write_bytes(chunk[0].to_bytes(8, "little"))
        self.process.stdin.write(f"{chunk[0]} {chunk[1]}\n")
        self.process.stdin.flush()
        self.seen = None

    def reports(self):
        """What it has written since."""
        self.text += os.read(self.process.stdout.fileno(), 2**20).decode() if self._readable() else ""
        *lines, self.text = self.text.split("\n")
        return [json.loads(line) for line in lines]

    def _readable(self):
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def case(self):
        return int.from_bytes(self.progress.read_bytes(), "little")

    def overdue(self):
        """Why the case it is at has taken too long; None if it has not."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            return None
        state, cpu = fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        now, number = time.monotonic(), self.case()
        if self.seen is None or self.seen[0] != number:
            self.seen = number, cpu, now
        if state != "S":        # waiting for a CPU is no sleep
            self.seen = number, self.seen[1], now
        limit = 5 * CPU_LIMIT       # what ends later than it may says so itself
        if cpu - self.seen[1] > limit:
            return f"used {cpu - self.seen[1]:.1f} s of CPU time and had not ended"
        return f"slept for {SLEEP_LIMIT:.0f} s" if now - self.seen[2] > SLEEP_LIMIT else None

    def stop(self):
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


# ---- The campaign --------------------------------------------------------------------------------------

class Campaign:
    """Chunks of cases, dealt to workers; what was found."""

    def __init__(self, first, cases, seconds, findings):
        self.next, self.end = first, first + cases
        self.seconds, self.findings = seconds, findings
        self.counts, self.found = collections.Counter(), {}
        self.begun = self.shown = time.monotonic()
        self.stopped = False
        self.again = []         # chunks to be run once more, without a case that ended its worker

    def stop(self, *_):
        self.stopped = True

    def run(self, number):
        with tempfile.TemporaryDirectory() as folder:
            workers = [Worker(Path(folder), index) for index in range(number)]
            try:
                while any([self.attend(worker) for worker in workers]):
                    if self.seconds and time.monotonic() - self.begun > self.seconds:
                        self.stop()
                    if time.monotonic() - self.shown > 60:
                        self.shown = time.monotonic()
                        print(self.line(), flush=True)
                    time.sleep(0.05)
            finally:
                for worker in workers:
                    worker.stop()

    def chunk(self):
        """The next cases to run; None when there are none."""
        if self.stopped:
            return None
        if self.again:
            return self.again.pop()
        start, self.next = self.next, min(self.next + CHUNK, self.end)
        return (start, self.next) if start < self.next else None

    def attend(self, worker):
        """Read what a worker says, give it work, replace it if it is dead or overdue; whether it still works."""
        for values in worker.reports():
            if "done" in values:
                self.counts.update(values["done"])
                worker.chunk = None
            else:
                self.keep(values["finding"], values["error"], values["case"])
        status = worker.process.poll()
        late = worker.overdue() if worker.chunk and status is None else None
        if status is not None or late:
            self.replace(worker, late or f"the process ended, status {status}")
        if worker.chunk is None:
            chunk = self.chunk()
            if chunk:
                worker.give(chunk)
        return worker.chunk is not None

    def replace(self, worker, why):
        number, chunk = worker.case(), worker.chunk
        worker.stop()
        if chunk is None:
            sys.exit(f"a worker failed at its start: {why}\n{worker.log.read_text(errors='replace')}")
        if number not in self.found:
            self.keep(number, f"{why}\n{worker.log.read_text(errors='replace')[-20000:]}", "")
        self.counts["cut short"] += number + 1 - chunk[0]
        if number + 1 < chunk[1]:
            self.again.append((number + 1, chunk[1]))
        worker.chunk = None
        worker.start()

    def keep(self, number, error, case):
        first = number not in self.found
        self.found[number] = error
        self.findings.mkdir(parents=True, exist_ok=True)
        command = f"python tests/campaigns/fuzz_api.py --case {number}"
        text = f"{command}\n{case}\n{error}\n"
        (self.findings / f"{number}.txt").write_text(text)
        if first:
            print(f"FOUND: {command}\n{error}", flush=True)

    def line(self):
        cases, seconds = sum(self.counts.values()), time.monotonic() - self.begun
        parts = ", ".join(f"{name} {count:,}" for name, count in sorted(self.counts.items()))
        return (f"{cases:,} cases ({parts}), {len(self.found)} finding{'s' * (len(self.found) != 1)}, "
                f"{seconds:.0f} s, {cases / max(seconds, 1e-9):.0f} a second; the next is {self.next}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=500_000, help="how many cases (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first case (default: %(default)s)")
    parser.add_argument("--seconds", type=float, help="end after so many seconds, whatever is left")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: CPUs)")
    parser.add_argument("--findings", type=Path, default=Path("out/fuzz_api"), help="folder of what is found")
    parser.add_argument("--case", help="run one case: its number, or JSON")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.worker)
    if arguments.case:
        return repeat(arguments.case)
    campaign = Campaign(arguments.first, arguments.cases, arguments.seconds, arguments.findings)
    for number in (signal.SIGINT, signal.SIGTERM):      # they end it with its closing line
        signal.signal(number, campaign.stop)
    campaign.run(arguments.workers)
    print(campaign.line())
    return 1 if campaign.found else 0


if __name__ == "__main__":
    sys.exit(main())
