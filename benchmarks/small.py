"""Small networks, step by step and in short blocks, beside RTNeural, ONNX Runtime, torch and an earlier commit.

    python benchmarks/small.py                              some minutes
    python benchmarks/small.py --rtneural ../RTNeural       with RTNeural, from a checkout with its submodules
    python benchmarks/small.py --cell lstm --commit HEAD~1 --rounds 9

LSTM and GRU of 1 to 32 inputs and 8 to 64 hidden units; one row; one step, and blocks of 16, 64 and 256 samples. Here a
step is `stream.step(x, out)` and a block `stream.run(block, out)`; in the earlier commit, built beside (see before.py),
a step is the same and a block its `layer(x, out=out)`. ONNX Runtime has sessions of its own for each length, torch its
modules. RTNeural is C++ compiled for each size, an LSTM alone; a compiler is needed, and Eigen where its checkout has
none in modules/Eigen (CPLUS_INCLUDE_PATH tells where). Without --rtneural it does not take part.

Every contestant is a process of its own on one pinned CPU with one thread; in each round each has its turn of at least
2 ms. A figure is the median over the rounds, a ratio (theirs over ours) the median of the rounds' ratios. The states
after the first steps are compared: a difference above 1e-4 is an error, and the exit status 1.
"""
# Nothing but the standard library may be imported here: threads are set before NumPy and the peers load.
import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import before
from peers import usable_cpus

CELLS = ["lstm", "gru"]
SIZES = [(1, 8), (1, 16), (1, 24), (8, 16), (16, 32), (32, 64)]      # I, H
LENGTHS = [1, 16, 64, 256]                                          # samples a call
CHECKED, TOLERANCE = 16, 1e-4
TURN = 2e-3             # seconds that a turn lasts at least
PLACE = before.ROOT / "build" / "small"
PEERS = {"onnxruntime": "OnnxRuntime", "torch": "Torch"}


# ---- Contestants that are Python processes --------------------------------------------------------

def of_fastrnn(way, cell, I, H, T):
    """(run(n), the state after CHECKED steps) of fastrnn; `way`: how a block is computed, "run" or "layer"."""
    import adapters
    import numpy as np
    problem = adapters.Problem(cell, CHECKED, 1, I, H)
    layer = adapters.FastRNN().layer(problem)
    state = layer.stream().run(problem.x)[-1, 0]
    block, out, stream = adapters.Problem(cell, T, 1, I, H).x, np.empty((T, 1, H), np.float32), layer.stream()
    first, target = block[0, 0], out[0, 0]

    def steps(n):
        for _ in range(n):
            stream.step(first, target)

    def blocks(n):
        for _ in range(n):
            stream.run(block, out)

    def calls(n):
        for _ in range(n):
            layer(block, out=out)

    return steps if T == 1 else blocks if way == "run" else calls, state


def of_peer(name, cell, I, H, T):
    """(run(n), the state after CHECKED steps) of ONNX Runtime or torch."""
    import adapters
    peer = getattr(adapters, PEERS[name])()
    check = peer.sequence(adapters.Problem(cell, CHECKED, 1, I, H))
    check.run(1)
    problem = adapters.Problem(cell, T, 1, I, H)
    return (peer.step if T == 1 else peer.sequence)(problem).run, check.output()[0].reshape(CHECKED, H)[-1]


def worker(name):
    """Answers lines of JSON: a case to prepare, or how often to do its work."""
    run = None
    for line in sys.stdin:
        order = json.loads(line)
        if "case" in order:
            run, state = (of_peer if name in PEERS else of_fastrnn)(name, *order["case"])
            run(1)
            answer = {"state": state.tolist()}
        else:
            begin = time.perf_counter()
            run(order["times"])
            answer = {"seconds": (time.perf_counter() - begin) / order["times"]}
        print(json.dumps(answer), flush=True)


class Worker:
    """A library in a process of its own."""

    def __init__(self, name, folder=before.ROOT):
        path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
                                    "OPENBLAS_NUM_THREADS": "1", "FASTRNN_NUM_THREADS": "1"}
        self.process = subprocess.Popen([sys.executable, __file__, "--worker", name], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, cwd=folder, env=environment)

    def ask(self, **order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        return json.loads(answer) if answer else None

    def prepare(self, *case):
        """The state to compare; None where the library is not there."""
        answer = self.ask(case=case)
        return answer and answer["state"]

    def seconds(self, times):
        return self.ask(times=times)["seconds"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


# ---- RTNeural: a program for each size ------------------------------------------------------------

class RTNeural:
    """RTNeural's LSTM, compiled for the size of the case; `folder` is a checkout."""

    def __init__(self, folder):
        self.folder, self.process, self.length = folder, None, 0

    def compiled(self, I, H):
        PLACE.mkdir(parents=True, exist_ok=True)
        program, source = PLACE / f"rtneural_{I}_{H}", Path(__file__).with_name("rtneural.cpp")
        alignment = 64 if "avx512f" in cpu_flags() else 32
        defined = ["NDEBUG", "RTNEURAL_USE_EIGEN=1", f"RTNEURAL_DEFAULT_ALIGNMENT={alignment}", f"INPUTS={I}",
                   f"HIDDEN={H}"]
        subprocess.run([os.environ.get("CXX", "g++"), "-std=c++17", "-O3", "-march=native",
                        *(f"-D{name}" for name in defined), f"-I{self.folder}", f"-I{self.folder}/modules/Eigen",
                        str(source), "-o", str(program)], check=True)
        return program

    def prepare(self, cell, I, H, T):
        import adapters
        import numpy as np
        if cell != "lstm":
            return None
        self.close()
        problem = adapters.Problem(cell, CHECKED, 1, I, H)
        w = problem.weights                     # gates i f g o, which RTNeural calls i f c o
        numbers = PLACE / f"rtneural_{I}_{H}.bin"
        program = self.compiled(I, H) if T == LENGTHS[0] else PLACE / f"rtneural_{I}_{H}"
        parts = [w["weight_ih_l0"].T, w["weight_hh_l0"].T, w["bias_ih_l0"] + w["bias_hh_l0"], problem.x]
        numbers.write_bytes(b"".join(np.ascontiguousarray(a, np.float32).tobytes() for a in parts))
        self.process = subprocess.Popen([program, numbers], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.length = T
        return [float(number) for number in self.ask("check").split()]

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def seconds(self, times):
        return float(self.ask(f"time {self.length} {times}"))

    def close(self):
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()
            self.process = None


def cpu_flags():
    try:
        return Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return []


# ---- All of them in turn --------------------------------------------------------------------------

def measure(contestants, cell, I, H, T, rounds):
    """The row of a case: seconds, ratios and differences by name."""
    states = {}
    for name, each in contestants.items():
        states[name] = each.prepare(cell, I, H, T)
    taking_part = {name: each for name, each in contestants.items() if states[name] is not None}
    times, counts = {name: [] for name in taking_part}, {}
    for name, each in taking_part.items():
        count = max(1, round(TURN / max(each.seconds(1), 1e-9)))
        counts[name] = max(1, round(TURN / max(each.seconds(count), 1e-9)))
    for number in range(rounds):
        for name in list(taking_part)[:: 1 if number % 2 else -1]:
            times[name].append(taking_part[name].seconds(counts[name]))
    mine = states["fastrnn"]
    return {"cell": cell, "size": (I, H), "samples": T, "seconds": {name: median(t) for name, t in times.items()},
            "ratios": {name: median(a / b for a, b in zip(t, times["fastrnn"])) for name, t in times.items()},
            "differences": {name: max(abs(a - b) for a, b in zip(states[name], mine)) for name in taking_part}}


def arguments():
    first, rest = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(description=first, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", choices=CELLS, nargs="+", default=CELLS, help="cells (both)")
    parser.add_argument("--commit", default="0c7e2e8", help="the earlier commit (default 0c7e2e8)")
    parser.add_argument("--rtneural", type=Path, metavar="FOLDER", help="a checkout of RTNeural")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="rounds of every case (15)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the rows here")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    args = arguments()
    if args.worker:
        return worker(args.worker)
    earlier = before.built(args.commit)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {usable_cpus()[-1]})        # the processes inherit it
    contestants = {"fastrnn": Worker("run"), args.commit: Worker("layer", earlier)}
    if args.rtneural:
        contestants["RTNeural"] = RTNeural(args.rtneural.resolve())
    contestants |= {name: Worker(name) for name in PEERS}
    names, rows = list(contestants), []
    print(f"us a call; in brackets the time over ours\n{'':5}{'I -> H':>9}{'samples':>9}"
          + "".join(f"{name:>20}" for name in names), flush=True)
    for cell in args.cell:
        for I, H in SIZES:
            for T in LENGTHS:
                row = measure(contestants, cell, I, H, T, args.rounds)
                rows.append(row)
                cells = [f"{row['seconds'][name] * 1e6:.4g} ({row['ratios'][name]:.2f})"
                         if name in row["seconds"] else "-" for name in names]
                print(f"{cell:5}{f'{I} -> {H}':>9}{T:9}" + "".join(f"{text:>20}" for text in cells), flush=True)
    for each in contestants.values():
        each.close()
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(rows, indent=1))
    wrong = [(row, name) for row in rows for name, d in row["differences"].items() if not d <= TOLERANCE]
    for row, name in wrong:
        print(f"ERROR: {row['cell']} {row['size']}: {name}'s state differs by {row['differences'][name]:.1e}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
