"""Forks in the midst of calls of two threads, in every way that Python has.

Each child computes with what it was given by the fork, and compares the bits; or, where it goes on in a call whose
threads it lacks, is refused by name. A child that has not ended after LIMIT seconds is late, which a busy machine may
explain; one that has not ended after PATIENCE seconds hangs.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np

from .common import child

FORKS = 1000
LIMIT, PATIENCE = 2.0, 30.0      # seconds
ROUND = 50              # forks of a process
LATE = "late"

warnings.simplefilter("ignore", DeprecationWarning)     # of os.fork() where there are threads


class Work:
    """What children compute: a call of two threads, one with gradients, steps of a stream, an update."""

    def __init__(self):
        import fastrnn
        fastrnn.set_num_threads(2)
        self.layer, self.x = fastrnn.LSTM(96, 96, 2, rng=0), np.ones((10, 24, 96), np.float32)
        self.expected = self.results()
        self.stream, self.block = self.layer.stream(24), self.x
        self.steps = self.stream.run(self.block)
        self.stream.reset()

    def results(self):
        output, _, cache = self.layer.forward(self.x)
        return output.tobytes() + self.layer.backward(cache, output).input.tobytes()

    def check(self):
        """In a child: 0 where all bits are as expected."""
        same = self.results() == self.expected
        self.stream.reset()
        same = same and np.array_equal(self.stream.run(self.block), self.steps)
        os._exit(0 if same else 1)


def waited(pid, forked):
    """The exit status of a child, LATE of one that ended well but late; None of one that hangs, which is killed."""
    while time.monotonic() - forked < PATIENCE:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return LATE if code == 0 and time.monotonic() - forked > LIMIT else code
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


class Calls(threading.Thread):
    """A thread that is in calls of two threads all the time."""

    def __init__(self, work, stream=False):
        super().__init__(daemon=True)
        self.work, self.stop, self.wrong = work, False, 0
        self.stream = work.layer.stream(24) if stream else None

    def run(self):
        while not self.stop:
            if self.stream is not None:
                self.stream.reset()
                self.wrong += not np.array_equal(self.stream.run(self.work.block), self.work.steps)
            else:
                self.wrong += self.work.results() != self.work.expected


# ---- The ways, each in a process of its own -------------------------------------------------------------

def fork(work):
    forked, pid = time.monotonic(), os.fork()
    if pid == 0:
        try:
            work.check()
        finally:
            os._exit(2)
    return waited(pid, forked)


def by_thread(work):
    """A thread forks while others call."""
    result = []
    thread = threading.Thread(target=lambda: result.append(fork(work)))
    thread.start()
    thread.join()
    return result[0]


def by_multiprocessing(work):
    forked, process = time.monotonic(), multiprocessing.get_context("fork").Process(target=work.check)
    process.start()
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return LATE if process.exitcode == 0 and time.monotonic() - forked > LIMIT else process.exitcode


def by_subprocess(work):
    """Another program; the child computes before it becomes one."""
    forked, process = time.monotonic(), subprocess.Popen(["true"], preexec_fn=work.check)
    try:
        code = process.wait(PATIENCE)
        return LATE if code == 0 and time.monotonic() - forked > LIMIT else code
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def by_handler(work):
    """A signal handler forks within a call; its child goes on in the call, which is refused, and then computes."""
    children, forked = [], []

    def handler(*_):
        forked.append(time.monotonic())
        children.append(os.fork())

    before = signal.signal(signal.SIGALRM, handler)
    long = np.broadcast_to(work.x[:1], (2000, 24, 96))
    signal.setitimer(signal.ITIMER_REAL, np.random.default_rng(time.monotonic_ns()).uniform(0.002, 0.12))
    try:
        while not children:
            work.layer(long)
        if children[0] == 0:            # the fork came between two calls, or after the last look of one
            work.check()
    except RuntimeError as error:
        if children and children[0] == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            if "forked" not in str(error):
                os._exit(3)
            work.check()
        raise
    finally:
        if children and children[0] == 0:
            os._exit(4)
        signal.signal(signal.SIGALRM, before)
    return waited(children[0], forked[0])


WAYS = {"os.fork": fork, "a thread": by_thread, "multiprocessing": by_multiprocessing, "subprocess": by_subprocess,
        "a signal handler": by_handler}


def run_way(name, count):
    """Forks `count` times in one way while two threads call; prints what became of the children."""
    work = Work()
    calls = [Calls(work), Calls(work, stream=True)] if name != "a signal handler" else []
    for call in calls:
        call.start()
    pause, counts = np.random.default_rng(os.getpid()), {"right": 0, "late": 0, "wrong": 0, "hang": 0}
    for _ in range(int(count)):
        time.sleep(pause.uniform(0, 0.003))
        status = WAYS[name](work)
        counts["right" if status == 0 else "late" if status == LATE else "hang" if status is None else "wrong"] += 1
    for call in calls:
        call.stop = True
    for call in calls:
        call.join(60)
        counts["wrong"] += call.wrong + call.is_alive()
    print(*counts.values(), flush=True)
    sys.stdout.flush()
    os._exit(0)


CHILDREN = {"way": run_way}


def run(options, report):
    """FORKS forks, as many in each way."""
    total = {"right": 0, "late": 0, "wrong": 0, "hang": 0}
    each = (20 if options.slice else FORKS) // len(WAYS)
    for name in WAYS:
        begin, counts, left = time.monotonic(), [0, 0, 0, 0], each
        while left > 0:
            count = min(left, ROUND)
            process = child("forks", "way", name, count, threads=2)
            try:
                printed = process.communicate(timeout=120 + (PATIENCE + 1) * count)[0].split()
            except subprocess.TimeoutExpired:
                process.kill()
                printed = []
            counts = [a + int(b) for a, b in zip(counts, printed or (0, 0, 0, count), strict=True)]
            left -= count
        report.note(f"  {name:20} {each:5} forks: {counts[0]} right, {counts[1]} late, {counts[2]} wrong, "
                    f"{counts[3]} hang; {time.monotonic() - begin:.0f} s")
        for key, count in zip(total, counts, strict=True):
            total[key] += count
    ended = total["right"] + total["late"]
    report.judge("forks", ended == each * len(WAYS),
                 f"{total['right']} of {each * len(WAYS)} children right within {LIMIT:.0f} s, "
                 f"{total['late']} right but late, {total['wrong']} wrong, {total['hang']} hang")
