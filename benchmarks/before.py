"""This checkout beside an earlier commit: the same bits, and the time of each case over the time it took before.

    python benchmarks/before.py 0c7e2e8                    every case, some ten minutes
    python benchmarks/before.py HEAD~3 --only step --rounds 9

The earlier commit is built in a folder of its own, build/before/<commit>. Both trees run at the same time, each in a
process of its own, on one and the same pinned CPU, with one thread, and take turns: a round has a turn of each, in
alternating order. A figure is the median of the rounds' ratios, so that what else the machine does meets both alike.
Every case also gives a digest of its outputs, states and gradients: that of both trees must be the same, or the exit
status is 1.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import geometric_mean, median

ROOT = Path(__file__).resolve().parents[1]
CELLS = ("LSTM", "GRU", "RNN")
# T, N, I, H: the cases of peers.py, and the small ones where a call's fixed cost is what counts.
CASES = {
    "step": [(1, 1, 1, 8), (1, 1, 1, 16), (1, 1, 1, 24), (1, 1, 16, 32), (1, 1, 32, 64), (1, 1, 64, 128),
             (1, 1, 128, 256), (1, 1, 512, 512), (1, 16, 16, 32)],
    "cell": [(1, 1, 16, 32), (1, 8, 64, 128)],
    "sequence": [(1, 1, 16, 32), (16, 1, 1, 16), (128, 1, 1, 8), (128, 1, 1, 16), (128, 1, 1, 24), (1000, 1, 1, 16),
                 (100, 1, 64, 128), (100, 1, 256, 256), (100, 1, 512, 512), (100, 4, 64, 128), (100, 16, 128, 128),
                 (100, 32, 256, 256), (50, 64, 512, 512), (50, 128, 128, 128), (784, 64, 1, 128), (1000, 1, 16, 32)],
    "run": [(16, 1, 1, 16), (128, 1, 1, 8), (128, 1, 1, 16), (128, 1, 1, 24), (100, 1, 64, 128)],
    "training": [(1, 1, 16, 32), (100, 1, 64, 128), (50, 8, 32, 64), (100, 16, 128, 128), (100, 32, 256, 256),
                 (50, 128, 128, 128), (30, 64, 512, 512), (784, 64, 1, 128)],
}
TURN = 2e-3             # seconds that a turn lasts at least


# ---- In a process of its own: one tree -----------------------------------------------------------

def arrays_in(value):
    """The arrays in nested tuples and dicts, in order."""
    if value is None:
        return []
    if isinstance(value, dict):
        return [a for name in sorted(value) for a in arrays_in(value[name])]
    if isinstance(value, (tuple, list)):
        return [a for part in value for a in arrays_in(part)]
    return [value]


def digest(*values):
    result = hashlib.sha256()
    for a in arrays_in(values):
        result.update(a.tobytes())
    return result.hexdigest()


def work(section, cell, shape):
    """(a function that does the work n times, a digest of all that the work gives)."""
    import numpy as np

    import fastrnn
    T, N, I, H = shape
    rng = np.random.default_rng(0)
    layer = getattr(fastrnn, cell)(I, H, rng=rng)
    x = rng.standard_normal((T, N, I), np.float32)
    dy = rng.standard_normal((T, N, H), np.float32)
    out = np.empty((T, N, H), np.float32)
    if section == "step":
        stream = layer.stream(N)
        first, target = x[0], out[0]

        def run(n):
            for _ in range(n):
                stream.step(first, target)
        return run, digest([stream.step(first).copy() for _ in range(5)], stream.state)
    if section == "cell":
        one = getattr(fastrnn, cell + "Cell")(I, H, rng=rng)
        first, state = x[0], one(x[0])

        def run(n):
            for _ in range(n):
                one(first, state)
        return run, digest(one(first, state))
    if section == "run":
        stream = layer.stream()
        block = x[:, 0]

        def run(n):
            for _ in range(n):
                stream.run(block)
        return run, digest(stream.run(block), stream.state)
    if section == "sequence":
        def run(n):
            for _ in range(n):
                layer(x, out=out)
        return run, digest(layer(x))

    def run(n):
        for _ in range(n):
            cache = layer.forward(x)[2]
            layer.backward(cache, dy)
    output, state, cache = layer.forward(x)
    grads = layer.backward(cache, dy)
    return run, digest(output, state, grads.input, grads.state, grads.parameters)


def worker():
    """Answers lines of JSON: a case to prepare, or how often to do its work."""
    import fastrnn
    fastrnn.set_num_threads(1)
    print(json.dumps({"from": str(Path(fastrnn.__file__).parents[1])}), flush=True)
    run = None
    for line in sys.stdin:
        order = json.loads(line)
        if "case" in order:
            run, found = work(*order["case"])
            run(1)
            answer = {"digest": found}
        else:
            begin = time.perf_counter()
            run(order["times"])
            answer = {"seconds": (time.perf_counter() - begin) / order["times"]}
        print(json.dumps(answer), flush=True)


class Tree:
    """A checkout at work in a process of its own."""

    def __init__(self, folder):
        environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen([sys.executable, __file__, "--worker"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, cwd=folder, env=environment)
        place = Path(json.loads(self.process.stdout.readline())["from"])
        if place != Path(folder):
            sys.exit(f"expected to measure {folder}, and fastrnn comes from {place}")

    def ask(self, **order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"a measuring process ended with status {self.process.wait()}")
        return json.loads(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


# ---- Both trees in turn --------------------------------------------------------------------------

def built(commit):
    """The folder of an earlier commit, built in place."""
    name = subprocess.run(["git", "rev-parse", "--short", f"{commit}^{{commit}}"], cwd=ROOT, check=True,
                          capture_output=True, text=True).stdout.strip()
    folder = ROOT / "build" / "before" / name
    if not any((folder / "fastrnn").glob("_core*.so")):
        folder.mkdir(parents=True, exist_ok=True)
        print(f"building {name} ...", file=sys.stderr)
        archive = subprocess.run(["git", "archive", name], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "x"], cwd=folder, input=archive, check=True)
        subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=folder, check=True)
    return folder


def measure(case, now, before, rounds, case_before=None):
    """One case: the row of the table. With `case_before` the earlier commit does another than this checkout."""
    digests = [tree.ask(case=of_tree)["digest"] for tree, of_tree in ((now, case), (before, case_before or case))]
    times = max(1, round(TURN / max(now.ask(times=1)["seconds"], 1e-9)))
    times = max(1, round(TURN / max(now.ask(times=times)["seconds"], 1e-9)))
    pairs = []
    for number in range(rounds):
        order = (now, before) if number % 2 else (before, now)
        seconds = {tree: tree.ask(times=times)["seconds"] for tree in order}
        pairs.append((seconds[now], seconds[before]))
    section, cell, shape = case
    return {"section": section, "cell": cell, "case": shape, "now": median(a for a, _ in pairs),
            "before": median(b for _, b in pairs), "ratio": median(a / b for a, b in pairs),
            "same_bits": digests[0] == digests[1]}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0],
                                     epilog=__doc__.partition("\n\n")[2],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", nargs="?", help="the earlier commit")
    parser.add_argument("--only", choices=list(CASES), nargs="+", default=list(CASES), help="sections (all)")
    parser.add_argument("--cell", choices=CELLS, nargs="+", default=CELLS, help="cells (all)")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="rounds of every case (15)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the rows here")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.commit is None and not args.worker:
        parser.error("which commit? for example HEAD~1")
    return args


def main():
    args = parse_arguments()
    if args.worker:
        return worker()
    before_folder = built(args.commit)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})         # the processes below inherit it
    now, before = Tree(ROOT), Tree(before_folder)
    rows = []
    print(f"{'':10}{'cell':6}{'T, N, I, H':>20}{'now, us':>12}{'before, us':>12}{'ratio':>8}  bits")
    for section in args.only:
        for shape in CASES[section]:
            for cell in args.cell:
                row = measure((section, cell, shape), now, before, args.rounds)
                rows.append(row)
                print(f"{section:10}{cell:6}{', '.join(map(str, shape)):>20}{row['now'] * 1e6:12.2f}"
                      f"{row['before'] * 1e6:12.2f}{row['ratio']:8.3f}  {'same' if row['same_bits'] else 'DIFFERENT'}",
                      flush=True)
    now.close()
    before.close()
    for section in args.only:
        print(f"{section}: geometric mean {geometric_mean([r['ratio'] for r in rows if r['section'] == section]):.3f}")
    different = [row for row in rows if not row["same_bits"]]
    print(f"all {len(rows)} cases: geometric mean {geometric_mean([row['ratio'] for row in rows]):.3f}, "
          f"{len(different)} with different bits")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
