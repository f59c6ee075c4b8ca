"""A training step of a PyTorch model, before and after acceleration: forward, loss, backward, Adam.

    python benchmarks/accelerate.py                    everything, some minutes
    python benchmarks/accelerate.py --quick            few rounds: quick, but not accurate
    python benchmarks/accelerate.py --cell gru --form packed
    python benchmarks/accelerate.py --module           the recurrent module alone, without loss and Adam
    python benchmarks/accelerate.py --form autocast    the rows of torch.autocast alone
    python benchmarks/accelerate.py --profile          where the accelerated step's time goes

The model is one nn.LSTM, nn.GRU or nn.RNN, its loss the mean square of output minus target, its optimizer torch's Adam
with its defaults. The input needs no gradient, as data do not; with --input-gradient it needs one, as the input of a
layer in the middle of a model does. With --module a step is that of the module alone: forward, backward from a given
gradient of the output, and a plain step of gradient descent, in place, so that the weights change. "packed" is a
PackedSequence with lengths uniform in 1..T. The contestants are torch with oneDNN, torch without it (oneDNN has an LSTM
of its own), and the same model after accelerate(model). One CPU is pinned, every library has one thread, and the
contestants take turns within a round as in peers.py. A time is the median over the rounds, a ratio the median of the
rounds' ratios to the faster torch. "at most" is the ratio that would be reached if the products of the recurrent module
ran as fast as np.matmul 1024^3 in the same rounds, and everything else took no time. Before the rounds each contestant
takes ten steps from the same parameters; losses (of a module alone: logarithms of the gradients' norms) that differ by
more than 1e-4 are an error, and the exit status is 1. A target that is missed is printed, and is no error.

"autocast": forward and loss are under torch.autocast("cpu", dtype=torch.bfloat16). Results then differ by what bfloat16
leaves of them, so that these rows say how large the error is: the norm of the difference of all gradients from those of
the same model in float64, over the norm of these. "at most" supposes products at twice the rate of float32's.
"""
# Nothing but the standard library (and peers, which keeps to it) may be imported here: threads and CPU are set before
# NumPy and torch load.
import argparse
import contextlib
import copy
import datetime
import json
import os
import platform
import sys
import time
import warnings
from itertools import product
from pathlib import Path
from statistics import median

from peers import SGEMM, Turns, cpu_model, prepare_process, ratio
from report import CELLS, label

CASES = [(100, 16, 128, 128), (100, 32, 256, 256), (50, 8, 32, 64)]      # T, N, I, H
AUTOCAST_CASES = [(100, 16, 128, 128), (100, 32, 256, 256), (30, 64, 512, 512)]
FORMS = ["full", "packed", "autocast"]
CONTESTANTS = {"oneDNN": "torch", "no oneDNN": "torch, no oneDNN", "fastrnn": "accelerated"}
STEPS, TOLERANCE, RATE = 10, 1e-4, 1e-6


def target(cell, form, module):
    if form == "autocast":
        return 1.0
    if module and form == "packed":
        return 4.5
    return 5.0 if form == "packed" else 1.1 if cell == "lstm" else 2.0


def arguments():
    first, rest = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(description=first, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds")
    parser.add_argument("--cell", choices=CELLS, help="one cell instead of all")
    parser.add_argument("--form", choices=FORMS, help="one form instead of both")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of every case (default 15)")
    parser.add_argument("--input-gradient", action="store_true", help="the input needs a gradient too")
    parser.add_argument("--module", action="store_true", help="the recurrent module alone")
    parser.add_argument("--profile", action="store_true", help="shares of the accelerated step, instead of the contest")
    parser.add_argument("--isa", metavar="NAME", help="run fastrnn with FASTRNN_ISA=NAME, for example avx2")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything measured here")
    args = parser.parse_args()
    if args.rounds is not None and args.rounds < 1:
        parser.error("--rounds: at least 1")
    args.rounds = args.rounds or (3 if args.quick else 15)
    args.child = args.only = None       # peers.prepare_process reads these
    return args


class Task:
    """The data and the first parameters of one case; every contestant trains a copy of the model."""

    def __init__(self, cell, form, case, input_gradient, alone=False):
        import torch
        T, N, I, H = case
        self.alone, self.form = alone, form
        torch.manual_seed(0)
        self.module = getattr(torch.nn, cell.upper())(I, H)
        self.x, self.target = torch.randn(T, N, I), torch.randn(T, N, H) / 2
        self.steps = T * N
        if form == "packed":
            lengths = torch.randint(1, T + 1, (N,))
            lengths[0] = T
            self.steps = lengths.sum().item()
            packed = [torch.nn.utils.rnn.pack_padded_sequence(a, lengths, enforce_sorted=False)
                      for a in (self.x, self.target)]
            self.x, self.target = packed[0], packed[1].data
        gates = len(self.module.weight_hh_l0) // H
        # forward; backward to the states, and to x where it is asked for; weights
        self.operations = 2 * self.steps * gates * H * ((I + H) + (H + I * input_gradient) + (I + H))
        if input_gradient:
            leaf = self.x.data.requires_grad_()
            self.x = self.x._replace(data=leaf) if form == "packed" else leaf

    def autocast(self):
        import torch
        return torch.autocast("cpu", torch.bfloat16, enabled=self.form == "autocast")

    def gradients(self, name):
        """The gradients of a contestant's parameters in one step from the first ones, in a row, as float64.

        The name "float64" stands for torch's module in that dtype, without autocast.
        """
        import torch

        import fastrnn.pytorch
        module, x, target = copy.deepcopy(self.module), self.x, self.target
        if name == "fastrnn":
            fastrnn.pytorch.accelerate(module)
        if name == "float64":
            module, x, target = module.double(), x.double(), target.double()
        with torch.backends.mkldnn.flags(enabled=name != "no oneDNN"), \
                self.autocast() if name != "float64" else contextlib.nullcontext():
            output = module(x)[0]
        torch.nn.functional.mse_loss(output.to(target.dtype), target).backward()
        return torch.cat([p.grad.double().ravel() for p in module.parameters()])

    def error(self, name):
        exact = self.gradients("float64")
        return float((self.gradients(name) - exact).norm() / exact.norm())

    def contestant(self, name):
        """A function run(n) that takes n optimizer steps, and a function that lists their losses.

        Of a module alone the list is of the logarithms of its gradients' norms, after the last step.
        """
        import torch

        import fastrnn.pytorch
        module = copy.deepcopy(self.module)
        if name == "fastrnn":
            fastrnn.pytorch.accelerate(module)
        optimizer, mse, losses = torch.optim.Adam(module.parameters()), torch.nn.functional.mse_loss, []
        leaf = self.x if torch.is_tensor(self.x) else self.x.data
        parameters = list(module.parameters())

        target = {torch.bfloat16: self.target.bfloat16()}

        def module_steps(n):
            with torch.backends.mkldnn.flags(enabled=name != "no oneDNN"):
                for _ in range(n):
                    leaf.grad = None
                    for p in parameters:
                        p.grad = None
                    with self.autocast():
                        output, _ = module(self.x)
                    output = output if torch.is_tensor(output) else output.data
                    output.backward(target.get(output.dtype, self.target))
                    with torch.no_grad():       # all parameters in one call, so that the update costs little
                        torch._foreach_add_(parameters, [p.grad for p in parameters], alpha=-RATE)

        def run(n):
            with torch.backends.mkldnn.flags(enabled=name != "no oneDNN"):
                for _ in range(n):
                    optimizer.zero_grad()
                    leaf.grad = None
                    with self.autocast():
                        output, _ = module(self.x)
                        loss = mse(output if torch.is_tensor(output) else output.data, self.target)
                    loss.backward()
                    optimizer.step()
                    losses.append(loss.detach())

        if self.alone:
            return module_steps, lambda: [p.grad.norm().log().item() for p in parameters]
        return run, lambda: [loss.item() for loss in losses]


def contest(task, turns):
    """The seconds of every contestant in every round, and the largest difference of the first losses."""
    from adapters import sgemm
    runs, first = {"sgemm": sgemm().run}, {}
    for name in CONTESTANTS:
        runs[name], results = task.contestant(name)
        runs[name](STEPS)
        first[name] = results()
    difference = max(abs(a - b) for name in CONTESTANTS for a, b in zip(first[name], first["fastrnn"]))
    return turns.measure(runs), difference


class Stopwatch:
    """The seconds spent in watched functions, without those spent in watched functions that they call."""

    def __init__(self):
        self.spent, self.stack = {}, []

    def watch(self, owner, name, title):
        function = getattr(owner, name)

        def watched(*args, **options):
            self.stack.append(0.0)
            begin = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                took = time.perf_counter() - begin
                self.spent[title] = self.spent.get(title, 0.0) + took - self.stack.pop()
                if self.stack:
                    self.stack[-1] += took
        setattr(owner, name, watched)
        return lambda: setattr(owner, name, function)


def profile(task, steps):
    """The milliseconds of each part of a step, by name, and of the whole step."""
    import torch

    from fastrnn import _core
    run, _ = task.contestant("fastrnn")
    run(STEPS)
    watch = Stopwatch()
    undo = [watch.watch(_core, "Parameters", "packing"), watch.watch(_core, "forward_layer", "forward pass"),
            watch.watch(_core, "backward_layer", "backward pass"),
            watch.watch(torch.nn.functional, "mse_loss", "loss"), watch.watch(torch.optim.Adam, "step", "Adam")]
    run, _ = task.contestant("fastrnn")
    run(1)
    watch.spent.clear()
    begin = time.perf_counter()
    run(steps)
    whole = (time.perf_counter() - begin) / steps * 1e3
    for each in undo:
        each()
    parts = {name: seconds / steps * 1e3 for name, seconds in watch.spent.items()}
    return {**parts, "Python, autograd, loss's gradient": whole - sum(parts.values())}, whole


def header(args, cpu):
    import numpy as np
    import torch

    import fastrnn
    return {"date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "machine": f"{cpu_model()}, {os.cpu_count()} CPUs, {platform.system()} {platform.machine()}",
            "load": " ".join(f"{x:.2f}" for x in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown",
            "pinned to": "no CPU" if cpu is None else f"CPU {cpu}",
            "fastrnn": f"{fastrnn.__version__}, {fastrnn.active_isa()}",
            "python": f"{platform.python_version()}, NumPy {np.__version__}, torch {torch.__version__}",
            "rounds": args.rounds, "input": "needs a gradient" if args.input_gradient else "needs no gradient",
            "step": "of the module alone" if args.module else "with loss and Adam"}


def begin(args):
    """Pins one CPU, gives torch and fastrnn one thread, prints the header; returns it and the turns to take."""
    cpu = prepare_process(args)
    import torch

    import fastrnn
    warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")
    torch.set_num_threads(1)
    fastrnn.set_num_threads(1)
    head = header(args, cpu)
    for key, value in head.items():
        print(f"{key:<12}{value}")
    return head, Turns(args.rounds, 2e-3)


def finish(args, turns, head, rows):
    """Prints how often other processes disturbed the turns, and writes the JSON file if one was asked for."""
    if turns.interrupted:
        print(f"\n{turns.interrupted} of {turns.taken} turns were disturbed by other processes three times in a row")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"header": head, "rows": rows}, indent=1))


def main():
    args = arguments()
    head, turns = begin(args)
    rows = []
    if not args.profile:
        print(f"\nms a step\n{'':5}{'T, N, I, H':<18}{'':9}" + "".join(f"{name:>18}" for name in CONTESTANTS.values())
              + "   ratio   at most  target         largest difference")
    for cell, case, form in product(CELLS, dict.fromkeys(CASES + AUTOCAST_CASES), FORMS):
        if args.cell not in (None, cell) or args.form not in (None, form) \
                or case not in (AUTOCAST_CASES if form == "autocast" else CASES):
            continue
        task, name = Task(cell, form, case, args.input_gradient, args.module), f"{cell:5}{label(case):<18}{form:9}"
        row = {"cell": cell, "case": case, "form": form, "steps": task.steps}
        if args.profile:
            row["ms"], row["whole"] = profile(task, max(3, args.rounds))
            print(f"{name}{row['whole']:9.3f} ms: " + ", ".join(
                f"{part} {ms:.3f} ({ms / row['whole']:.0%})" for part, ms in row["ms"].items()), flush=True)
        else:
            times, row["difference"] = contest(task, turns)
            row["ratios"] = {peer: ratio(times[peer], times["fastrnn"]) for peer in ("oneDNN", "no oneDNN")}
            best = min(row["ratios"], key=row["ratios"].get)
            rate = 2 if form == "autocast" else 1       # of the products, over that of sgemm
            row |= {"ms": {who: median(seconds) * 1e3 for who, seconds in times.items()}, "rounds": times,
                    "ratio": row["ratios"][best], "target": target(cell, form, args.module),
                    "at_most": rate * ratio(times[best], times["sgemm"]) * SGEMM / task.operations}
            verdict = "met" if row["ratio"] >= row["target"] else "MISSED"
            print(name + "".join(f"{row['ms'][who]:18.3f}" for who in CONTESTANTS)
                  + f"{row['ratio']:7.2f}x{row['at_most']:9.2f}x{row['target']:7.1f}x  {verdict:6}"
                  f"{row['difference']:10.1e}", flush=True)
            if form == "autocast":
                del row["difference"]           # that of bfloat16
                row["errors"] = {who: task.error(who) for who in CONTESTANTS}
                print(f"{'':9}error of the gradients".ljust(32)
                      + "".join(f"{row['errors'][who]:18.1e}" for who in CONTESTANTS), flush=True)
        rows.append(row)
    finish(args, turns, head, rows)
    wrong = [row for row in rows if not row.get("difference", 0) <= TOLERANCE]
    for row in wrong:
        print(f"ERROR: {row['cell']} {label(row['case'])} {row['form']}: losses differ by {row['difference']:.1e}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
