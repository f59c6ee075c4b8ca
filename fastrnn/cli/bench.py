"""``fastrnn bench``: how fast this machine is.

Steps, sequences and training steps of the three cells on one thread, each beside a NumPy loop
(``fastrnn.nn.reference``) and, where torch is installed, beside torch's layers in inference mode; and the two limits
that bound them: the rate of a matrix product (sequences, training) and the time to read the packed weights once
(steps).

The contestants take turns, round by round, so that a slower spell of the machine slows all of them; the median counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fastrnn

from ..nn import reference
from .parser import Parser, positive_float
from .writing import prepare_output

KINDS = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn_tanh"}
SHAPES: dict[str, list[tuple[int, int, int, int]]] = {      # T, N, I, H
    "step": [(1, 1, 16, 32), (1, 1, 64, 128), (1, 1, 128, 256)],
    "sequence": [(100, 1, 64, 128), (100, 32, 128, 128)],
    "training": [(100, 16, 64, 128)],
}
TITLES = {"step": "one step, one row", "sequence": "a sequence", "training": "training: forward, backward"}
UNITS = {"step": ("us", 1e6), "sequence": ("ms", 1e3), "training": ("ms", 1e3)}
ROUNDS = 7
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
MEASURING = "FASTRNN_BENCH_MEASURES"    # set in the environment of the process that measures

Run = Callable[[int], Any]


# ---- Contestants: each a function that does the work n times from the zero state and returns the last output --------

class Case:
    """One line of a table: the same weights, inputs and output gradient for every contestant."""

    def __init__(self, work: str, cell: str, shape: tuple[int, int, int, int]) -> None:
        T, N, I, H = shape
        rng = np.random.default_rng(0)
        self.work, self.cell, self.shape = work, cell, shape
        self.layer = getattr(fastrnn, cell)(I, H, rng=rng)
        self.x = rng.standard_normal((T, N, I), np.float32)
        self.dy = rng.standard_normal((T, N, H), np.float32) / np.float32(T * N)
        self.stream = self.layer.stream()
        self.packed = self.stream.parameters[0]

    @property
    def flops(self) -> int:
        """Floating-point operations of the matrix products; back-propagation has twice as many as the forward pass."""
        T, N, _, _ = self.shape
        return int(2 * self.packed.multiply_adds * T * N * (3 if self.work == "training" else 1))

    def fastrnn(self) -> Run:
        """A stream's step, a layer's call, or its forward and backward."""
        layer, x, stream = self.layer, self.x, self.stream
        out = np.empty(self.dy.shape[self.work == "step":], np.float32)

        def step(n: int) -> Any:
            stream.reset()
            for _ in range(n):
                stream.step(x[0], out)
            return out

        def sequence(n: int) -> Any:
            for _ in range(n):
                layer(x, out=out)
            return out

        def training(n: int) -> Any:
            for _ in range(n):
                _, _, cache = layer.forward(x)
                gradients = layer.backward(cache, self.dy)
            return gradients.input

        return {"step": step, "sequence": sequence, "training": training}[self.work]

    def numpy(self) -> Run:
        """The same by ``fastrnn.nn.reference``."""
        kind, (_, N, _, H) = KINDS[self.cell], self.shape
        parameters = {name.removesuffix("_l0"): value for name, value in self.layer.parameters.items()}
        zeros = [np.zeros((N, H), np.float32) for _ in range(2 if kind == "lstm" else 1)]

        def run(n: int) -> Any:
            state: Sequence[Any] = zeros
            for _ in range(n):
                y, h_n, c_n, _, cache = reference.forward(kind, parameters, self.x, *state)
                if self.work == "step":
                    state = h_n, c_n
                elif self.work == "training":
                    y, *_ = reference.backward(cache, self.dy)
            return y

        return run

    def torch(self) -> Run | None:
        """The same by torch.nn's layer in inference mode; None where torch is not installed."""
        try:
            import torch
        except ImportError:
            return None
        torch.set_num_threads(1)
        layer = getattr(torch.nn, self.cell)(*self.shape[2:])
        layer.load_state_dict({name: torch.tensor(value) for name, value in self.layer.parameters.items()})
        x = torch.tensor(self.x)

        def run(n: int) -> Any:
            state = None
            with torch.inference_mode():
                for _ in range(n):
                    y, last = layer(x, state)
                    if self.work == "step":
                        state = last
            return y.numpy()

        return run

    def matmul(self) -> Run:
        """A product of 1024 x 1024 float32 matrices by np.matmul."""
        a, b = np.random.default_rng(0).standard_normal((2, 1024, 1024), np.float32)
        out = np.empty_like(a)

        def run(n: int) -> None:
            for _ in range(n):
                np.matmul(a, b, out=out)

        return run

    def contestants(self) -> dict[str, Run]:
        """Name -> function, fastrnn first; among them the limit, measured under the same conditions."""
        contestants = {"fastrnn": self.fastrnn(), "numpy": self.numpy()}
        contestants |= {"read": self.packed.read} if self.work == "step" else {"matmul": self.matmul()}
        if self.work != "training" and (torch := self.torch()) is not None:
            contestants["torch"] = torch
        return contestants


# ---- Measuring ----------------------------------------------------------------------------------

def timed(run: Run, n: int) -> float:
    """Seconds that a contestant takes to do its work n times."""
    begin = time.perf_counter()
    run(n)
    return time.perf_counter() - begin


def medians(contestants: Mapping[str, Run], seconds: float) -> dict[str, float]:
    """Name -> median seconds of doing the work once.

    Takes about `seconds` in all; slow contestants take longer, with fewer rounds.
    """
    begin, share = time.perf_counter(), seconds / ROUNDS / len(contestants)
    counts: dict[str, int] = {}
    rounds: list[list[float]] = []
    for name, run in contestants.items():
        n = 1
        while (spent := timed(run, n)) < share / 4:     # warms up, too
            n *= 4
        counts[name] = max(1, round(n * share / spent))
    while len(rounds) < 3 or (len(rounds) < ROUNDS and time.perf_counter() - begin < 2 * seconds):
        rounds.append([timed(run, counts[name]) / counts[name] for name, run in contestants.items()])
    return dict(zip(contestants, np.median(rounds, 0).tolist(), strict=True))


def measure(case: Case, seconds: float) -> dict[str, Any]:
    """Measure one case: a dict for the table and the JSON file."""
    contestants = case.contestants()
    outputs = [run(1) for name, run in contestants.items() if name not in ("read", "matmul")]
    difference = max(float(np.abs(y.ravel() - outputs[0].ravel()).max() / np.abs(outputs[0]).max()) for y in outputs)
    times = medians(contestants, seconds)
    limit = {"matmul_gflops": 2 * 1024 ** 3 / times["matmul"] / 1e9} if "matmul" in times else {}
    return {"work": case.work, "cell": case.cell, **dict(zip("TNIH", case.shape, strict=True)), "seconds": times,
            "gflops": case.flops / times["fastrnn"] / 1e9, **limit, "packed_bytes": case.packed.packed_bytes,
            "largest_relative_difference": difference}


def pin() -> int | None:
    """Tie this thread to one CPU, where the operating system allows it; its number, or None."""
    try:
        cpu = max(os.sched_getaffinity(0))      # not the first: that is where interrupts tend to go
        os.sched_setaffinity(0, {cpu})
    except (AttributeError, OSError):
        return None
    return cpu


# ---- Tables -------------------------------------------------------------------------------------

def heading(work: str, peers: Mapping[str, str]) -> str:
    """The lines above the cases of one kind of work."""
    unit, _ = UNITS[work]
    shape = "I -> H" if work == "step" else "T, N, I -> H"
    limit = f"{'read ' + unit:>9}{'x read':>8}" if work == "step" else f"{'matmul':>8}{'share':>7}"
    return (f"\n{TITLES[work]}\n{'':6}{shape:22}{'fastrnn ' + unit:>12}{'GFLOP/s':>9}{limit}"
            + "".join(f"{f'{name} {unit}':>11}{'ratio':>8}" for name in peers.values()))


def line(row: Mapping[str, Any], peers: Mapping[str, str]) -> str:
    """The line of one case."""
    _, factor = UNITS[row["work"]]
    times = {name: factor * t for name, t in row["seconds"].items()}
    own, size = times["fastrnn"], f"{row['I']} -> {row['H']}"
    if row["work"] == "step":
        limit = f"{times['read']:9.2f}{own / times['read']:8.2f}"
    else:
        size = f"{row['T']}, {row['N']}, {size}"
        limit = f"{row['matmul_gflops']:8.1f}{row['gflops'] / row['matmul_gflops']:7.0%}"
    beside = "".join(f"{times[key]:11.2f}{times[key] / own:8.1f}" if key in times else f"{'-':>11}{'-':>8}"
                     for key in peers)
    doubt = "" if row["largest_relative_difference"] < 1e-4 else "   OUTPUTS DIFFER"
    return f"{row['cell']:6}{size:22}{own:12.2f}{row['gflops']:9.1f}{limit}{beside}{doubt}"


def _run(seconds: float, out: Path | None) -> int:
    """Measure every case, printing as it goes; write the JSON file if one is named."""
    cpu = pin()
    with fastrnn.threads(1):
        peers, versions = {"numpy": "NumPy"}, {"fastrnn": fastrnn.__version__, "numpy": np.__version__}
        try:
            import torch
            peers["torch"], versions["torch"] = "torch", torch.__version__
        except ImportError:
            pass
        _print_conditions(cpu, versions, "torch" in peers)
        rows = []
        for work, shapes in SHAPES.items():
            print(heading(work, peers))
            for shape in shapes:
                for cell in KINDS:
                    rows.append(measure(Case(work, cell, shape), seconds))
                    print(line(rows[-1], peers), flush=True)
    if out is not None:
        out.write_text(json.dumps({"versions": versions, "isa": fastrnn.active_isa(), "cpu": cpu, "threads": 1,
                                   "cases": rows}, indent=1) + "\n")
        print(f"\nfigures: {out}")
    return 0


def _print_conditions(cpu: int | None, versions: Mapping[str, str], has_torch: bool) -> None:
    """Print what is measured, with what, and what the tables' columns mean."""
    print(", ".join(f"{name} {version}" for name, version in versions.items()), end="; ")
    print(f"{fastrnn.active_isa()} kernels, float32, one thread "
          f"{'(not pinned to a CPU)' if cpu is None else f'on CPU {cpu}'}")
    print("read: the time to read a step's packed weights once, its lower limit; x read: the step's time over it\n"
          "matmul: GFLOP/s of np.matmul, 1024 x 1024, the limit of sequences and training; share: GFLOP/s over it\n"
          "ratio: that time over fastrnn's. NumPy: fastrnn.nn.reference. torch: torch.nn in inference mode"
          + ("" if has_torch else " (not installed)"), flush=True)


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; ``fastrnn bench --help`` lists the options."""
    parser = Parser("bench", """\
Times the three cells on this machine, on one thread: steps, sequences and training beside a NumPy loop and, if it is
installed, torch; and the two limits of the hardware beside them.""",
                    ["bench", "bench --seconds 2 --out bench.json", "FASTRNN_ISA=avx2 bench"])
    parser.add_argument("--seconds", type=positive_float, default=0.5, metavar="S",
                        help="time to spend on each line of the tables, about (default: 0.5)")
    parser.add_argument("--out", type=Path, metavar="OUT.json", help="write the figures, times in seconds")
    args = parser.parse_options(argv)
    if args.out is not None:
        prepare_output(str(args.out), "--out", [".json"])       # now, not after the measuring
    if not os.environ.get(MEASURING):
        # BLAS takes its number of threads from the environment when it is loaded, and here it is loaded already.
        environment = {**os.environ, MEASURING: "1", **dict.fromkeys(BLAS_THREADS, "1")}
        return subprocess.call([sys.executable, "-m", "fastrnn", "bench", *argv], env=environment)
    try:
        return _run(args.seconds, args.out)
    except KeyboardInterrupt:
        sys.stdout.flush()
        os._exit(130)       # at once, without unloading torch; the process that started this one prints the message
