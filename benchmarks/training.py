"""Whole epochs of training a small net: fastrnn.training.fit beside the same loop in PyTorch.

    python benchmarks/training.py                both nets, some minutes
    python benchmarks/training.py --quick        few rounds: quick, but not accurate
    python benchmarks/training.py --cell gru --json out/training.json

The net is a recurrent layer followed by a linear layer. It forecasts the next values of 8 channels from those so far;
each channel is the sum of two sines, with periods, phases and noise of its own. All contestants use the mean squared
error, Adam with a learning rate of 0.001, the same first parameters, and the same minibatches in the same order. An
epoch of fastrnn is what `fit` does: taking the minibatch, forward, loss, backward, the norm of the gradient, the
update, the history. torch's epoch is the usual loop (zero_grad, forward, mse_loss, backward, step) with torch's own
fused Adam, with oneDNN and without.

First every contestant trains for all epochs, and the loss curves are compared. Final losses that differ by more than
1 % are an error, and the exit status is 1. As a yardstick the table also shows how far torch with oneDNN is from torch
without it. (At a learning rate of 0.003 the LSTM's curves separate after 18 epochs, and so do torch's two, by 1 %.)
Then epochs are timed: one CPU is pinned, every library has one thread, and the contestants take turns within a round.
A time is the median over the rounds, a ratio the median of the rounds' ratios to the faster torch. A target that is
missed is printed, and is no error.
"""
# Nothing but the standard library (and what keeps to it) may be imported here: threads and CPU are set before NumPy
# and torch load.
import argparse
import sys
from pathlib import Path
from statistics import median

from accelerate import begin, finish
from peers import ratio

# cell -> hidden size, rows of a minibatch, steps, target
NETS = {"lstm": (64, 32, 100, 1.5), "gru": (32, 64, 48, 3.0)}
CHANNELS, MINIBATCHES, LEARNING_RATE, TOLERANCE = 8, 16, 0.001, 0.01
CONTESTANTS = {"oneDNN": "torch", "no oneDNN": "torch, no oneDNN", "fastrnn": "fastrnn"}


def arguments():
    first, rest = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(description=first, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds, 5 epochs")
    parser.add_argument("--cell", choices=NETS, help="one net instead of both")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds that are timed (default 15)")
    parser.add_argument("--epochs", type=int, metavar="N", help="epochs whose losses are compared (default 30)")
    parser.add_argument("--isa", metavar="NAME", help="run fastrnn with FASTRNN_ISA=NAME, for example avx2")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything measured here")
    args = parser.parse_args()
    for name, usual, quick in (("rounds", 15, 3), ("epochs", 30, 5)):
        if (value := getattr(args, name)) is not None and value < 1:
            parser.error(f"--{name}: at least 1")
        setattr(args, name, value or (quick if args.quick else usual))
    args.child = args.only = None           # peers.prepare_process reads these
    args.input_gradient = args.module = False       # accelerate.header reads these
    return args


class Task:
    """The data and the first parameters of one net; every contestant trains a net of its own from them."""

    def __init__(self, cell):
        import numpy as np
        import torch
        self.cell, (self.hidden, self.batch, steps, _) = cell, NETS[cell]
        rng = np.random.default_rng(0)
        shape = (1, self.batch * MINIBATCHES, CHANNELS)
        time = np.arange(steps + 1)[:, None, None]
        waves = sum(np.sin(2 * np.pi * (time / rng.uniform(6, 40, shape) + rng.uniform(0, 1, shape))) for _ in range(2))
        series = (waves + 0.1 * rng.standard_normal(waves.shape)).astype(np.float32)
        self.x, self.y = series[:-1].copy(), series[1:].copy()
        torch.manual_seed(0)
        self.parts = getattr(torch.nn, cell.upper())(CHANNELS, self.hidden), torch.nn.Linear(self.hidden, CHANNELS)

    def contestant(self, name):
        """A function run(n) that trains for n epochs, and the list that it appends their losses to."""
        return self._fastrnn() if name == "fastrnn" else self._torch(name == "oneDNN")

    def _fastrnn(self):
        import fastrnn
        model = fastrnn.Sequential(getattr(fastrnn, self.cell.upper())(CHANNELS, self.hidden),
                                   fastrnn.Linear(self.hidden, CHANNELS))
        model.load_state_dict({f"{i}.{name}": value.detach().numpy() for i, part in enumerate(self.parts)
                               for name, value in part.named_parameters()})
        optimizer, losses = fastrnn.optim.Adam(model, LEARNING_RATE), []

        def run(n):
            losses.extend(fastrnn.training.fit(model, self.x, self.y, loss=fastrnn.losses.MSE(), optimizer=optimizer,
                                               epochs=n, batch_size=self.batch, shuffle=False, progress=False)["loss"])
        return run, losses

    def _torch(self, onednn):
        import copy

        import torch
        layer, head = copy.deepcopy(self.parts)
        optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], LEARNING_RATE, fused=True)
        x, y, losses = torch.from_numpy(self.x), torch.from_numpy(self.y), []

        def run(n):
            with torch.backends.mkldnn.flags(enabled=onednn):
                for _ in range(n):
                    total = 0.0
                    for at in range(0, x.shape[1], self.batch):
                        optimizer.zero_grad()
                        loss = torch.nn.functional.mse_loss(head(layer(x[:, at:at + self.batch])[0]),
                                                            y[:, at:at + self.batch])
                        loss.backward()
                        optimizer.step()
                        total += loss.item()
                    losses.append(total / MINIBATCHES)
        return run, losses


def contest(task, epochs, turns):
    """The losses of every contestant, and the seconds of an epoch in every round."""
    runs, curves = {}, {}
    for name in CONTESTANTS:
        runs[name], losses = task.contestant(name)
        runs[name](epochs)
        curves[name] = losses[:epochs]
    return curves, turns.measure(runs)


def main():
    args = arguments()
    head, turns = begin(args)
    rows = []
    print(f"\nms an epoch of {MINIBATCHES} minibatches\n{'':5}{'hidden, N, T':<14}"
          + "".join(f"{name:>18}" for name in CONTESTANTS.values())
          + f"   ratio  target         loss 1st and {args.epochs}th epoch   final, torch   largest difference"
          "   torch's own")
    for cell, (hidden, N, T, target) in NETS.items():
        if args.cell not in (None, cell):
            continue
        curves, times = contest(Task(cell), args.epochs, turns)
        mine = curves["fastrnn"]
        gaps = {name: [abs(a / b - 1) for a, b in zip(mine, curves[name], strict=True)]
                for name in ("oneDNN", "no oneDNN")}
        ratios = {name: ratio(times[name], times["fastrnn"]) for name in gaps}
        row = {"cell": cell, "hidden": hidden, "N": N, "T": T, "losses": curves, "rounds": times, "ratios": ratios,
               "ms": {name: median(seconds) * 1e3 for name, seconds in times.items()}, "ratio": min(ratios.values()),
               "target": target, "gap": max(map(max, gaps.values())),
               "final_gap": max(gap[-1] for gap in gaps.values()),
               "torch_gap": max(abs(a / b - 1) for a, b in zip(curves["oneDNN"], curves["no oneDNN"], strict=True))}
        rows.append(row)
        print(f"{cell:5}{f'{hidden}, {N}, {T}':<14}" + "".join(f"{row['ms'][name]:18.2f}" for name in CONTESTANTS)
              + f"{row['ratio']:7.2f}x{target:6.1f}x  {'met' if row['ratio'] >= target else 'MISSED':6}"
              f"{mine[0]:14.5f}{mine[-1]:14.5f}{curves['oneDNN'][-1]:15.5f}{row['gap']:21.2e}"
              f"{row['torch_gap']:14.2e}", flush=True)
    finish(args, turns, head, rows)
    wrong = [row for row in rows if not row["final_gap"] <= TOLERANCE]
    for row in wrong:
        print(f"ERROR: {row['cell']}: final losses differ by {row['final_gap']:.1%}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
