"""The default number of threads by affinity and quota, calls of more threads than CPUs, two processes at once.

Times are judged beside others of the same minutes. `chrt -f 1` in front of the command keeps ordinary processes out of
them, where nothing quieter can be had.
"""

import contextlib
import os
import subprocess
import time
from pathlib import Path

import numpy as np

from .common import child

SPINNING = 1.15         # times a fair share that two processes of two threads each may take
SECONDS = 2.0           # of work in each measurement
ROUNDS = 4
GROUPS = Path("/sys/fs/cgroup")


# ---- In the child ---------------------------------------------------------------------------------------

def run_calls(threads, calls):
    """For every line of input makes calls of so many threads and prints the seconds; 0: as many as SECONDS hold."""
    import fastrnn
    calls = int(calls)
    layer, x = fastrnn.LSTM(256, 256, rng=0), np.ones((20, 32, 256), np.float32)
    with fastrnn.threads(int(threads)):
        for _ in range(20):
            layer(x)
        print("ready", flush=True)
        while input():
            begin, done = time.monotonic(), 0
            while done < calls or (calls == 0 and time.monotonic() - begin < SECONDS):
                layer(x)
                done += 1
            print(time.monotonic() - begin, done, flush=True)


def run_default():
    """Prints the number of threads that a call may use when nothing was set."""
    import fastrnn
    print(fastrnn.get_num_threads(), flush=True)


CHILDREN = {"calls": run_calls, "default": run_default}


# ---- In the parent --------------------------------------------------------------------------------------

class Calls:
    """A process that makes calls when it is asked to."""

    def __init__(self, threads, calls=0, group=None):
        self.process = child("cpus", "calls", threads, calls, preexec_fn=group and group.enter)
        assert self.process.stdout.readline() == "ready\n"

    def start(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def seconds(self):
        """Of the calls that were started last, and how many they were."""
        seconds, count = self.process.stdout.readline().split()
        return float(seconds), int(count)

    def end(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.process.communicate()


class Group:
    """A control group with a quota of CPU time, of either version; OSError where none can be made."""

    def __init__(self, name, cpus):
        if (GROUPS / "cpu" / "cpu.cfs_quota_us").exists() or (GROUPS / "cpu" / "tasks").exists():
            self.path, self.entry = GROUPS / "cpu" / name, "tasks"
            self.path.mkdir()
            (self.path / "cpu.cfs_period_us").write_text("100000")
            (self.path / "cpu.cfs_quota_us").write_text(str(int(cpus * 100000)))
        else:
            (GROUPS / "cgroup.subtree_control").write_text("+cpu")
            self.path, self.entry = GROUPS / name, "cgroup.procs"
            self.path.mkdir()
            (self.path / "cpu.max").write_text(f"{int(cpus * 100000)} 100000")

    def enter(self):
        """In a child: be in the group from now on."""
        (self.path / self.entry).write_text(str(os.getpid()))

    def remove(self):
        deadline = time.monotonic() + 5
        while True:
            try:
                self.path.rmdir()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


@contextlib.contextmanager
def group(cpus):
    made = Group(f"fastrnn-load-{os.getpid()}-{time.monotonic_ns()}", cpus)
    try:
        yield made
    finally:
        made.remove()


def default_threads(preexec_fn=None):
    environment = {name: value for name, value in os.environ.items() if name != "FASTRNN_NUM_THREADS"}
    code = "import fastrnn; print(fastrnn.get_num_threads())"
    import sys

    from .common import ROOT
    return int(subprocess.run([sys.executable, "-c", code], env=environment | {"PYTHONPATH": str(ROOT)},
                              preexec_fn=preexec_fn, capture_output=True, text=True, check=True).stdout)


def default_numbers(report):
    """Of the affinity, and of quotas where groups can be made."""
    cpus = sorted(os.sched_getaffinity(0))
    count = default_threads(lambda: os.sched_setaffinity(0, cpus[:1]))
    report.judge("affinity", count == 1, f"{count} threads on one CPU")
    free = default_threads()
    report.note(f"  without a quota {free} threads on {len(cpus)} CPUs")
    try:
        for quota in (1.0, 1.5, 0.5, 64.0):
            with group(quota) as made:
                count, expected = default_threads(made.enter), max(1, min(free, int(quota)))
            report.judge(f"quota {quota}", count == expected, f"{count} threads by a quota of {quota} CPUs")
    except OSError as error:
        report.note(f"  no control group can be made here: {error}")


def under_a_quota(report):
    """A call of two threads within a quota of one CPU: no slower than one of one thread, which would be spinning."""
    try:
        with group(1.0) as made:
            workers = {threads: Calls(threads, group=made) for threads in (1, 2)}
            rates = {1: [], 2: []}
            for _ in range(ROUNDS):
                for threads, worker in workers.items():
                    worker.start()
                    seconds, count = worker.seconds()
                    rates[threads].append(count / seconds)
            for worker in workers.values():
                worker.end()
    except OSError as error:
        report.note(f"  no control group can be made here: {error}")
        return
    ratio = max(rates[1]) / max(rates[2])
    report.judge("two threads under a quota of one CPU", ratio <= SPINNING,
                 f"{ratio:.2f} times as long as one thread, at most {SPINNING}")


def side_by_side(report):
    """Two processes of two threads each on two CPUs: each does half of what one does alone."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        report.note("  two CPUs are needed for two processes of two threads each")
        return
    os.sched_setaffinity(0, cpus[:2])
    try:
        probe = Calls(2)
        probe.start()
        count = probe.seconds()[1]
        probe.end()
        calls = max(1, int(count * 0.5))
        pair, alone, both = [Calls(2, calls) for _ in range(2)], [], []
        for _ in range(ROUNDS):
            pair[0].start()
            alone.append(pair[0].seconds()[0])
            for worker in pair:
                worker.start()
            both.append(max(worker.seconds()[0] for worker in pair))
        for worker in pair:
            worker.end()
    finally:
        os.sched_setaffinity(0, cpus)
    ratio = min(both) / (2 * min(alone))
    report.judge("two processes of two threads each", ratio <= SPINNING,
                 f"{min(both):.2f} s side by side, {min(alone):.2f} s alone: {ratio:.2f} times a fair share, "
                 f"at most {SPINNING}")


def run(options, report):
    """All of it; of the slice the numbers alone, without times."""
    default_numbers(report)
    if not options.slice:
        under_a_quota(report)
        side_by_side(report)
