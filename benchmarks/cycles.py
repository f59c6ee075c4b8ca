"""The targets for small networks, fixed costs, threads and packed batches, each printed with "met" or "MISSED".

    python benchmarks/cycles.py                        everything, about half an hour
    python benchmarks/cycles.py --only steps fixed     some parts
    python benchmarks/cycles.py --commit HEAD~3        another commit to compare with (default 0c7e2e8)
    python benchmarks/cycles.py --cell gru --rounds 5

The parts, each in processes of its own; in all of them the contestants take turns, and a figure is the median of the
rounds' ratios (or differences):

steps     one step with `out`, and sequences of one row, over the earlier commit built beside (see before.py)
general   all other cases of before.py: the geometric mean of their times over the earlier commit's, and the same bits
fixed     what a call of stream.run or a layer costs beside as many calls of stream.step, in microseconds
torch     an accelerated module of PyTorch, called for one step of one row, over PyTorch's own
lanes     many rows of layers narrower than a vector: the time of a row's step over that with 16 hidden units
threads   two threads over one, in sequences and training steps of one and four rows
taken     the same while another process keeps one of the CPUs busy: time over that of one thread
packed    training with a PackedSequence through fastrnn.pytorch.accelerate, over PyTorch (accelerate.py --module)

A figure that misses its target is printed, and is no error. Results with other bits than the earlier commit's are: the
exit status is then 1.
"""
# Nothing but the standard library (and what keeps to it) may be imported here: threads and CPUs are set before NumPy
# and torch load.
import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import geometric_mean, median

from peers import prepare_process, usable_cpus
from report import CELLS, label

PARTS = ["steps", "general", "fixed", "torch", "lanes", "threads", "taken", "packed"]
TURN = 2e-3             # seconds that a turn lasts at least
# Time over the earlier commit's: section and case (T, N, I, H), and at most what it may be.
STEPS = {("step", "lstm", (1, 1, 1, 16)): 0.72, ("step", "lstm", (1, 1, 1, 24)): 0.70,
         ("step", "lstm", (1, 1, 16, 32)): 0.75, ("step", "lstm", (1, 1, 32, 64)): 0.90,
         ("step", "gru", (1, 1, 16, 32)): 0.85, ("sequence", "lstm", (1000, 1, 1, 16)): 0.70}
# A block of 128 samples by layer(x) and by stream.run, over layer(x) before.
BLOCKS = {(128, 1, 1, 8): 0.50, (128, 1, 1, 16): 0.50, (128, 1, 1, 24): 0.62}
FIXED_SIZES = [(1, 16), (1, 32), (16, 32), (32, 64)]                  # I, H
FIXED_STEPS = [1, 8, 64, 256]
FIXED = {"run": 0.5, "layer": 1.5}                                    # microseconds
TORCH_SIZES = [(1, 8), (8, 8), (1, 16), (1, 32), (1, 64), (64, 64), (16, 128)]
TORCH_AIM = {"lstm": 1.0, "gru": 0.6, "rnn": 0.6}
LANES, LANES_CASE = {2: 0.7, 4: 0.7, 8: 0.7, 12: 1.0}, (33, 611, 1)   # H: at most; T, N, I
THREADS = {(100, 1, 64, 128): 1.3, (100, 4, 64, 128): 1.3, (100, 1, 256, 256): 1.5, (100, 4, 256, 256): 1.5,
           (100, 1, 512, 512): 1.5, (100, 4, 512, 512): 1.5}
TAKEN = 1.15
PACKED_CASES = [(50, 8, 32, 64), (100, 16, 128, 128), (100, 32, 256, 256)]
PACKED, PACKED_LEAST, PACKED_SHARE = {"lstm": 7, "gru": 7, "rnn": 8}, 4.5, 0.85


def arguments():
    first, rest = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(description=first, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS, help="parts (all)")
    parser.add_argument("--commit", default="0c7e2e8", help="the earlier commit (default 0c7e2e8)")
    parser.add_argument("--cell", choices=CELLS, nargs="+", default=CELLS, help="cells (all)")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="rounds of every case (15)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the rows here")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)        # of a process of its own
    return parser.parse_args()


class Table:
    """The rows of one part, printed as they come."""

    def __init__(self, part):
        self.part, self.rows = part, []

    def row(self, name, value, bound, least=False, unit="", aim=None, **more):
        met = value >= bound if least else value <= bound
        verdict = "met" if met else "MISSED"
        if met and aim is not None and value > aim:
            verdict = f"met, aim {aim:g} not"
        print(f"{self.part:9}{name:70}{value:8.3f}{unit:4}{'>=' if least else '<='} {bound:<6g}{verdict}", flush=True)
        self.rows.append({"part": self.part, "name": name, "value": value, "bound": bound, "met": met, **more})


def in_turn(calls, rounds):
    """Seconds of one call in every round, for each function in the dict `calls`."""
    counts, times = {}, {name: [] for name in calls}
    for name, call in calls.items():
        call()
        count, took = 1, 0.0
        while took < TURN:
            begin = time.perf_counter()
            for _ in range(count):
                call()
            took = time.perf_counter() - begin
            counts[name] = count
            count = max(count + 1, int(1.3 * TURN / max(took / count, 1e-9)))
    for number in range(rounds):
        for name in list(calls)[:: 1 if number % 2 else -1]:
            call, count = calls[name], counts[name]
            call()
            begin = time.perf_counter()
            for _ in range(count):
                call()
            times[name].append((time.perf_counter() - begin) / count)
    return times


def ratio(above, below):
    return median(a / b for a, b in zip(above, below))


# ---- Over the earlier commit ----------------------------------------------------------------------

def both_trees(commit):
    import before
    folder = before.built(commit)
    os.sched_setaffinity(0, {usable_cpus()[-1]})        # the processes of the trees inherit it
    return before.Tree(before.ROOT), before.Tree(folder)


def steps(args, table):
    import before
    now, earlier = both_trees(args.commit)
    for (section, cell, case), bound in STEPS.items():
        if cell in args.cell:
            row = before.measure((section, cell.upper(), case), now, earlier, args.rounds)
            table.row(f"{section} {cell} ({label(case)}) over before", row["ratio"], bound, us=row["now"] * 1e6,
                      same_bits=row["same_bits"])
    for case, bound in BLOCKS.items():
        for section in ("sequence", "run"):
            if "lstm" in args.cell:
                row = before.measure((section, "LSTM", case), now, earlier, args.rounds, ("sequence", "LSTM", case))
                table.row(f"block lstm ({label(case)}) by {'layer(x)' if section == 'sequence' else section}, "
                          "over layer(x) before", row["ratio"], bound, us=row["now"] * 1e6)
    now.close()
    earlier.close()


def general(args, table):
    import before
    now, earlier = both_trees(args.commit)
    ratios, different = [], []
    for section, cases in before.CASES.items():
        for case in cases:
            for cell in args.cell:
                row = before.measure((section, cell.upper(), case), now, earlier, max(3, args.rounds // 2))
                different += [] if row["same_bits"] else [f"{section} {cell} ({label(case)})"]
                small = (case[1] == 1 and case[3] <= 24) or (section, cell, case) in STEPS
                if not small:
                    ratios.append(row["ratio"])
                if row["ratio"] > 1.03:
                    print(f"         {section} {cell} ({label(case)}): {row['ratio']:.3f} of before", flush=True)
    now.close()
    earlier.close()
    table.row(f"geometric mean of {len(ratios)} other cases over before", geometric_mean(ratios), 1.01)
    table.row("cases with other bits than before", len(different), 0, same_bits=not different)
    for name in different:
        print(f"         other bits: {name}")


# ---- One process, one CPU -------------------------------------------------------------------------

def fixed(args, table):
    import numpy as np

    import fastrnn
    worst = {}
    for cell in args.cell:
        for I, H in FIXED_SIZES:
            layer = getattr(fastrnn, cell.upper())(I, H, rng=0)
            stream, other = layer.stream(), layer.stream()
            for T in FIXED_STEPS:
                x, out, target = np.zeros((T, 1, I), "f4"), np.empty((T, 1, H), "f4"), np.empty(H, "f4")
                rows = list(x[:, 0])

                def by_steps(rows=rows, target=target, step=stream.step):
                    for row in rows:
                        step(row, target)

                calls = {"steps": by_steps, "run": partial(other.run, x, out), "layer": partial(layer, x, out=out)}
                times = in_turn(calls, args.rounds)
                for name in FIXED:
                    excess = 1e6 * median(a - b for a, b in zip(times[name], times["steps"]))
                    worst[name] = max(worst.get(name, (-1e9, "")), (excess, f"{cell} {I} -> {H}, T {T}"))
    for name, bound in FIXED.items():
        value, where = worst[name]
        table.row(f"{'stream.run' if name == 'run' else 'layer(x)'} beside T steps, worst: {where}", value, bound,
                  unit=" us")


def accelerated(args, table):
    import torch

    import fastrnn.pytorch
    torch.set_num_threads(1)
    for cell in args.cell:
        for suffix in ("", "Cell"):
            worst, aim = (0.0, ""), TORCH_AIM[cell]
            for I, H in TORCH_SIZES:
                module = getattr(torch.nn, cell.upper() + suffix)(I, H).eval()
                fast = copy.deepcopy(module)
                fastrnn.pytorch.accelerate(fast)
                x, state = (torch.randn(1, I), torch.zeros(1, H)) if suffix else (
                    torch.randn(1, 1, I), torch.zeros(1, 1, H))
                state = (state, state) if cell == "lstm" else state
                with torch.inference_mode():
                    times = in_turn({"torch": partial(module, x, state), "fastrnn": partial(fast, x, state)},
                                    args.rounds)
                worst = max(worst, (ratio(times["fastrnn"], times["torch"]), f"{I} -> {H}"))
            table.row(f"torch.nn.{cell.upper()}{suffix}, one step, worst: {worst[1]}", worst[0], 1.0, aim=aim)


def lanes(args, table):
    import numpy as np

    import fastrnn
    T, N, I = LANES_CASE
    x = np.random.default_rng(0).standard_normal((T, N, I), np.float32)
    for cell in args.cell:
        layers = {H: getattr(fastrnn, cell.upper())(I, H, rng=0) for H in (*LANES, 16)}
        calls = {H: partial(layer, x, out=np.empty((T, N, H), np.float32)) for H, layer in layers.items()}
        times = in_turn(calls, args.rounds)
        for H, bound in LANES.items():
            table.row(f"{cell}, N {N}, T {T}, H {H} over H 16", ratio(times[H], times[16]), bound,
                      ns_of_row_step=median(times[H]) / T / N * 1e9)


def packed(args, table):
    import warnings

    import torch
    from accelerate import Task, contest
    from peers import SGEMM, Turns
    warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")
    torch.set_num_threads(1)
    for cell in args.cell:
        ratios = []
        for case in PACKED_CASES:
            task = Task(cell, "packed", case, False, alone=True)
            times, _ = contest(task, Turns(args.rounds, TURN))
            best = min(("oneDNN", "no oneDNN"), key=lambda name: ratio(times[name], times["fastrnn"]))
            ratios.append((ratio(times[best], times["fastrnn"]), case))
            at_most = ratio(times[best], times["sgemm"]) * SGEMM / task.operations
            table.row(f"packed {cell} ({label(case)}) over torch", ratios[-1][0], PACKED_LEAST, least=True)
            table.row(f"packed {cell} ({label(case)}) of at most {at_most:.1f}", ratios[-1][0] / at_most, PACKED_SHARE,
                      least=True)
        table.row(f"packed {cell} over torch, best case ({label(max(ratios)[1])})", max(ratios)[0], PACKED[cell],
                  least=True)


# ---- Two threads ----------------------------------------------------------------------------------

def one_and_two(args, kind, cell, case):
    """Seconds in every round of one thread and of two."""
    import adapters

    import fastrnn
    inner = getattr(adapters.FastRNN(), kind)(adapters.Problem(cell, *case)).run

    def call(number):
        with fastrnn.threads(number):
            inner(1)

    return in_turn({"one": partial(call, 1), "two": partial(call, 2)}, args.rounds)


def threads(args, table):
    for kind in ("sequence", "training"):
        for case, bound in THREADS.items():
            for cell in args.cell:
                times = one_and_two(args, kind, cell, case)
                table.row(f"two threads over one, {kind} {cell} ({label(case)})", ratio(times["one"], times["two"]),
                          bound, least=True)


def taken(args, table):
    """With one CPU busy: the other process is this Python, in a loop, on the last CPU."""
    loop = "import os, sys\nos.sched_setaffinity(0, {%d})\nwhile os.getppid() == %d:\n    for _ in range(10**6): pass"
    busy = subprocess.Popen([sys.executable, "-c", loop % (usable_cpus()[-1], os.getpid())])
    try:
        for kind in ("sequence", "training"):
            for case in THREADS:
                for cell in args.cell:
                    times = one_and_two(args, kind, cell, case)
                    table.row(f"two threads, one CPU taken, {kind} {cell} ({label(case)})",
                              ratio(times["two"], times["one"]), TAKEN)
    finally:
        busy.kill()
        busy.wait()


# ---- The parts together ---------------------------------------------------------------------------

def run_part(args):
    """One part, in this process; its rows go to the file args.json."""
    args.only = "threads" if args.part in ("threads", "taken", "steps", "general") else None
    args.child, args.isa = None, None           # peers.prepare_process reads these
    if args.part in ("threads", "taken") and len(usable_cpus()) < 2:
        print(f"{args.part}: this process may use one CPU only, not measured")
        return 0
    prepare_process(args)
    table = Table(args.part)
    {"steps": steps, "general": general, "fixed": fixed, "torch": accelerated, "lanes": lanes, "threads": threads,
     "taken": taken, "packed": packed}[args.part](args, table)
    args.json.write_text(json.dumps(table.rows))
    return 0


def main():
    args = arguments()
    if args.part:
        return run_part(args)
    rows, failed = [], []
    for part in args.only:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.json"
            code = subprocess.run([sys.executable, __file__, "--part", part, "--json", str(path), "--commit",
                                   args.commit, "--rounds", str(args.rounds), "--cell", *args.cell]).returncode
            rows += json.loads(path.read_text()) if path.exists() else []
            failed += [part] if code else []
    missed = [row for row in rows if not row["met"]]
    print(f"\n{len(rows) - len(missed)} of {len(rows)} met" + "".join(f"\n  MISSED {row['name']}: {row['value']:.3f}"
                                                                     for row in missed))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(rows, indent=1))
    different = [row["name"] for row in rows if row.get("same_bits") is False]
    for name in different:
        print(f"ERROR: other bits than before: {name}")
    for part in failed:
        print(f"ERROR: {part} failed; its figures are missing")
    return 1 if different or failed else 0


if __name__ == "__main__":
    sys.exit(main())
