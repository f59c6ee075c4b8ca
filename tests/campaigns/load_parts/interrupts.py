"""Ctrl-C at random moments of every long call: how soon it is answered, and what it leaves behind.

Each call runs in a process of its own, which gets its SIGINTs from outside. The latency is the time from the signal to
the KeyboardInterrupt in the caller's hands; of a command, to the end of its process. Where other processes keep a CPU
busy, the CPU time that the process itself took meanwhile is the better figure, and is printed beside.
"""

import json
import os
import random
import select
import shutil
import signal
import tempfile
import time
from pathlib import Path

from .common import child, percentile, restore_interrupts, tell

MOST = 0.100            # seconds from the signal to the answer that 99 of 100 may take
EACH = 10               # interrupts of a call
SLICE = ("layer(x), small", "training.fit", "load_state_dict", "Sequential's stream.step", "detector.learn_one",
         "forecast stream")

# Commands, run within a folder that has table.csv and model.npz.
COMMANDS = {
    "fastrnn forecast": ["forecast", "weather", "--target", "temperature_degC", "--horizon", "12", "--plot", "out.png"],
    "fastrnn detect": ["detect", "weather"],
    "fastrnn train": ["train", "weather", "--target", "temperature_degC", "--out", "out.npz"],
    "fastrnn gradients": ["gradients", "--hidden-size", "96", "--length", "300"],
    "fastrnn bench": ["bench"],
    "fastrnn demo": ["demo", "--plot", "out.png"],
    "fastrnn convert": ["convert", "model.npz", "out.onnx"],
    "fastrnn inspect": ["inspect", "model.npz"],
}


# ---- In the child ---------------------------------------------------------------------------------------

def run_call(name):
    """Answers each line of its input with the moment at which an interrupted call was over."""
    from .interrupted import CALLS
    restore_interrupts()
    with tempfile.TemporaryDirectory() as folder:
        call, check = CALLS[name](Path(folder))
        durations = []
        for _ in range(3):      # the first takes longer, and so does another on a busy machine
            begin = time.monotonic()
            call()
            durations.append(time.monotonic() - begin)
            check()
        tell({"took": min(durations)})
        while input():
            answer(call, check)


def answer(call, check):
    over = False
    try:
        print("begin", flush=True)
        call()
        over = True
        while True:             # the signal is on its way, or came in the call's last instruction: then a sleep goes on
            time.sleep(0.01)
    except KeyboardInterrupt:
        at, cpu = time.monotonic(), time.process_time()
    fault = None
    try:
        check()
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
    tell({"at": at, "cpu": cpu, "over": over, "fault": fault})


def run_command(name):
    """Runs one command of fastrnn; tells when it begins."""
    restore_interrupts()
    import sys

    from fastrnn import cli
    print("begin", flush=True)
    sys.exit(cli.main(COMMANDS[name]))


CHILDREN = {"call": run_call, "command": run_command}


# ---- In the parent --------------------------------------------------------------------------------------

class Interrupts:
    """The figures of one call."""

    def __init__(self, name):
        self.name, self.latencies, self.cpu, self.late, self.faults = name, [], [], 0, []

    def add(self, latency, cpu):
        self.latencies.append(max(0.0, latency))
        self.cpu.append(cpu)

    def line(self):
        text = f"{self.name:36} {len(self.latencies):4} interrupts"
        if self.latencies:
            text += "".join(f"  {what} {1000 * value:6.1f}" for what, value in (
                ("p50", percentile(self.latencies, 0.5)), ("p99", percentile(self.latencies, 0.99)),
                ("max", max(self.latencies)))) + f" ms; at work p99 {1000 * percentile(self.cpu, 0.99):6.1f} ms"
        return text + "".join(f"\n    {fault}" for fault in sorted(set(self.faults)))


def clock_of(pid):
    """The number of the clock of another process's CPU time, as clock_getcpuclockid of Linux gives it."""
    return ~pid << 3 | 2


def interrupt_call(name, count, rng):
    """Interrupts a call `count` times."""
    result = Interrupts(name)
    process = child("interrupts", "call", name)
    with process:
        first = process.stdout.readline()
        if not first:
            result.faults.append("the call itself fails")
            return result
        took = json.loads(first)["took"]
        while len(result.latencies) < count and result.late < 5 * count:
            process.stdin.write("next\n")
            process.stdin.flush()
            assert process.stdout.readline() == "begin\n"
            time.sleep(rng.uniform(0, took))
            cpu, sent = time.clock_gettime(clock_of(process.pid)), time.monotonic()
            process.send_signal(signal.SIGINT)
            line = process.stdout.readline() if select.select([process.stdout], [], [], 60)[0] else ""
            if not line:
                result.faults.append("it does not answer within a minute, or ended")
                process.kill()
                return result
            reply = json.loads(line)
            if reply["fault"]:
                result.faults.append(reply["fault"])
            if reply["over"]:
                result.late += 1
            else:
                result.add(reply["at"] - sent, reply["cpu"] - cpu)
        process.stdin.write("\n")
    return result


def interrupt_command(name, count, rng, folder):
    """Interrupts a command `count` times, and all processes of its group, as a terminal does."""
    result, took = Interrupts(name), None
    while len(result.latencies) < count and result.late < 3 * count:
        process = child("interrupts", "command", name, own_group=True, cwd=folder, stderr=-1)
        with process:
            while process.stdout.readline() not in ("begin\n", ""):
                pass
            begin = time.monotonic()
            if took is None:                    # the first is not interrupted
                process.communicate()
                took = time.monotonic() - begin
                continue
            time.sleep(rng.uniform(0, took))
            cpu, sent = time.clock_gettime(clock_of(process.pid)), time.monotonic()
            os.killpg(process.pid, signal.SIGINT)
            _, status, used = os.wait4(process.pid, 0)
            at, process.returncode = time.monotonic(), os.waitstatus_to_exitcode(status)
            errors = process.communicate()[1]
            # Python ends by the signal itself, and says nothing, where the command is over and its interpreter ends.
            if process.returncode == 0 or (process.returncode == -signal.SIGINT and "Traceback" not in errors):
                result.late += 1
                continue
            result.add(at - sent, used.ru_utime + used.ru_stime - cpu)
            if process.returncode != 130 or "Traceback" in errors or "Interrupted." not in errors:
                result.faults.append(f"exit status {process.returncode}: {errors[-300:]!r}")
            left = [path.name for path in Path(folder).iterdir() if path.name.startswith(".fastrnn")]
            if left:
                result.faults.append(f"a draft is left: {left}")
    return result


def run(options, report):
    """All calls and commands, or those of the slice."""
    rng = random.Random(options.seed)
    from .interrupted import CALLS
    names = options.calls or (SLICE if options.slice else [*CALLS, *COMMANDS])
    each = 3 if options.slice else options.interrupts or EACH
    latencies, cpu, faults = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        if any(name in COMMANDS for name in names):
            import fastrnn
            fastrnn.LSTM(1500, 1500, rng=0).save(Path(folder) / "model.npz")
        for name in names:
            result = (interrupt_command(name, each, rng, folder) if name in COMMANDS
                      else interrupt_call(name, each, rng))
            report.note(f"  {result.line()}")
            latencies += result.latencies
            cpu += result.cpu
            faults += len(result.faults)
    shutil.rmtree(folder, ignore_errors=True)
    report.judge("whole", faults == 0, f"{len(latencies)} interrupts of {len(names)} calls left {faults} faults behind")
    if not options.slice:
        share = percentile(latencies, 0.99)
        report.judge("Ctrl-C", share <= MOST, f"99 of 100 interrupts are answered within {1000 * share:.0f} ms "
                     f"({1000 * percentile(cpu, 0.99):.0f} ms at work), at most {1000 * MOST:.0f}")
