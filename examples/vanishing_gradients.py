# %% [markdown]
# # Vanishing gradients, and which cells learn in spite of them
#
# The output of a recurrent network at step T depends on its input at step t through T - t steps, and each of them is a
# factor of the gradient. The product of a plain RNN's factors vanishes; the gates of an LSTM and a GRU can hold the
# factors near 1 (Hochreiter & Schmidhuber 1997). Here that is measured on two tasks that need a long memory, and then
# the networks are trained on them.
#
# `python examples/vanishing_gradients.py` takes some seconds; `--full` trains every cell on lengths from 20 to 500 with
# three seeds (some minutes). `--task`, `--length`, `--cell`, `--seeds` and `--updates` choose a part of that, and
# `--plot out.png` draws the gradients and the losses after training.

# %%
import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

import fastrnn
from fastrnn import losses, optim
from fastrnn.diagnostics import GradientFlow, gradient_flow

parser = argparse.ArgumentParser()
parser.add_argument("--full", action="store_true", help="lengths from 20 to 500, three runs each")
parser.add_argument("--task", nargs="+", choices=("adding", "copying"), default=["adding", "copying"])
parser.add_argument("--length", nargs="+", type=int, help="T (100 for adding, 20 for copying)")
parser.add_argument("--cell", nargs="+", type=str.upper, choices=("RNN", "GRU", "LSTM"), default=["RNN", "GRU", "LSTM"])
parser.add_argument("--seeds", type=int, help="how many runs of each cell (1; with --full 3)")
parser.add_argument("--updates", type=int, help="of the weights, at most (adding: 4000, copying: 6000)")
parser.add_argument("--plot", help="write a figure to this file")
options = parser.parse_args()
HIDDEN, BATCH, SYMBOLS = 32, 32, 3


# %% [markdown]
# ## The tasks
#
# **Adding problem** (Hochreiter & Schmidhuber 1997, in the form of Le, Jaitly & Hinton 2015): at every step a number
# from 0 to 1 and a marker; the answer, at the last step, is the sum of the two marked numbers, one in each half. Always
# answering 1 gives a mean squared error of 1/6 = 0.167: that is the baseline.
#
# **Copy memory** (the same 1997; Arjovsky, Shah & Bengio 2016): some symbols out of eight, T blanks, a signal, and then
# the symbols are to be repeated. Guessing among eight gives a cross-entropy of ln 8 = 2.08 at those steps. There are
# three symbols here; with ten, the usual number, these small networks need ten times as long.

# %%
def adding(rng, T, rows):
    """x [T, rows, 2], target [T, rows, 1], mask [T, 1] of the steps that count."""
    x = np.zeros((T, rows, 2), np.float32)
    x[..., 0] = rng.random((T, rows))
    first, second = rng.integers(0, T // 2, rows), rng.integers(T // 2, T, rows)
    x[first, range(rows), 1] = x[second, range(rows), 1] = 1
    target = np.broadcast_to((x[..., 0] * x[..., 1]).sum(0)[..., None], (T, rows, 1))
    return x, target, (np.arange(T) == T - 1)[:, None]


def copying(rng, T, rows):
    """x [T + 6, rows, 10], target [T + 6, rows], mask [T + 6, 1]: symbols 0-7, blank 8, signal 9."""
    symbols = np.full((T + 2 * SYMBOLS, rows), 8)
    symbols[:SYMBOLS] = rng.integers(0, 8, (SYMBOLS, rows))
    target = np.roll(symbols, T + SYMBOLS, 0)
    symbols[T + SYMBOLS - 1] = 9
    return np.eye(10, dtype=np.float32)[symbols], target, (np.arange(len(symbols)) >= T + SYMBOLS)[:, None]


TASKS = {           # what makes a batch, inputs, outputs, loss, baseline, when it counts as learnt, updates at most
    "adding": (adding, 2, 1, losses.MSE(), 1 / 6, 0.01, 4000),
    "copying": (copying, 10, 10, losses.CrossEntropy(), np.log(8), 0.1, 6000),
}


# %% [markdown]
# ## The networks
#
# One recurrent layer of 32 units and a linear layer. What the gates do depends on how they start. Half open, as they
# are drawn, they forget half at each step, and the gradient vanishes just as it does without them. So their biases
# are set such that units remember for spans from 1 to T steps ("chrono" initialisation, Tallec & Ollivier 2018): an
# LSTM's forget gates at ln u with u uniform in 1 ... T and its input gates at -ln u, a GRU's update gates at ln u.

# %%
def network(cell, task, T, seed, chrono=True):
    _, inputs, outputs, *_ = TASKS[task]
    rng = np.random.default_rng(seed)
    layer = getattr(fastrnn, cell)(inputs, HIDDEN, rng=rng)
    span = np.log(rng.uniform(1, max(2, T - 1), HIDDEN))
    if chrono and cell != "RNN":
        with layer.updating() as p:
            p["bias_ih_l0"][HIDDEN:2 * HIDDEN] = span       # LSTM: gates i, f, g, o; GRU: r, z, n
            if cell == "LSTM":
                p["bias_ih_l0"][:HIDDEN] = -span
    return fastrnn.Sequential(layer, fastrnn.Linear(HIDDEN, outputs, rng=rng))


# %% [markdown]
# ## The gradient before training
#
# The norm of dL/dh_t: how much of the loss at the end reaches the state at each earlier step.

# %%
LENGTH = 200


def flow(task, cell, chrono):
    make, _, _, loss, *_ = TASKS[task]
    x, target, mask = make(np.random.default_rng(0), LENGTH, 4)
    model = network(cell, task, LENGTH, seed=0, chrono=chrono)
    return gradient_flow(model, x, lambda output: loss(output, target, mask)[1])["0.l0"]


for task in options.task:
    print(f"{task}, T {LENGTH}: |dL/dh_t| at the last step, 50 steps before, at the first, factor a step")
    for cell in options.cell:
        for chrono in (True, False) if cell != "RNN" else (False,):
            gradient = flow(task, cell, chrono)
            norm = gradient.hidden.mean(1)
            print(f"  {cell:4} {'(gates half open)' * (cell != 'RNN' and not chrono):17}  {norm[-1]:.1e}  "
                  f"{norm[-51]:.1e}  {norm[0]:.1e}  {gradient.rate:.3f}")


# %% [markdown]
# ## Training
#
# Every update has new sequences. The optimizer is Adam, and the gradient's norm is held to 1, as that of a plain RNN
# can also explode. The RNN's learning rate is lower: at the rate of the others it learns nothing at all.

# %%
RATES = {"RNN": 3e-3, "GRU": 1e-2, "LSTM": 1e-2}


def train(task, cell, T, updates, seed):
    """The loss on 1000 fresh sequences, and the updates made: fewer than `updates` if it has learnt before."""
    make, _, _, loss, _, enough, _ = TASKS[task]
    rng = np.random.default_rng([seed, T])
    model = network(cell, task, T, seed)
    adam = optim.Adam(model, learning_rate=RATES[cell])
    recent = np.inf                     # a running mean of the loss
    for update in range(1, updates + 1):
        x, target, mask = make(rng, T, BATCH)
        output, _, cache = model.forward(x)
        value, d_output = loss(output, target, mask)
        gradients = model.backward(cache, d_output, need_input=False).parameters
        if np.isfinite(optim.clip_grad_norm(gradients, 1.0)):
            adam.step(gradients)
        recent = value if update == 1 else recent + 0.02 * (value - recent)
        if recent < enough / 2:
            break
    x, target, mask = make(np.random.default_rng(10 ** 6 + seed), T, 1000)
    return loss(model(x)[0], target, mask)[0], update


if options.full:
    plan = {task: (20, 50, 100, 200, 500) for task in options.task}
else:
    plan = {"adding": (100,), "copying": (20,)}
seeds = options.seeds or (3 if options.full else 1)
losses_of = {}
fastrnn.set_num_threads(1)              # seeds run side by side: no kernel holds the interpreter
for task in options.task:
    baseline, enough, most = TASKS[task][4:]
    most = options.updates or most
    print(f"\n{task}: the baseline is {baseline:.3f}, learnt is below {enough}; up to {most} updates, of {BATCH} "
          "sequences each")
    for T in options.length or plan[task]:
        for cell in options.cell:
            begin = time.perf_counter()
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                runs = list(pool.map(partial(train, task, cell, T, most), range(seeds)))
            final = losses_of[task, T, cell] = [loss for loss, _ in runs]
            print(f"  T {T:3}, {cell:4}: learnt {sum(loss < enough for loss in final)} of {seeds}; loss "
                  f"{', '.join(f'{loss:.4f}' for loss in final)} after {', '.join(f'{update}' for _, update in runs)} "
                  f"updates ({time.perf_counter() - begin:.0f} s)", flush=True)


# %% [markdown]
# ## Both in one figure
#
# Above, how far back the loss reaches; below, the losses after training. Between them are the spectral norms of the
# Jacobians of the steps: those of the plain RNN are above 1, and its gradient vanishes all the same, because a
# direction that one step lengthens is shortened by the next ones.

# %%
if options.plot:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(options.task), 9), layout="constrained")
    for (gradients, jacobians, learnt), task in zip(figure.subplots(3, len(options.task), squeeze=False).T,
                                                    options.task, strict=True):
        baseline, enough, _ = TASKS[task][4:]
        GradientFlow({cell: flow(task, cell, chrono=True) for cell in options.cell}).plot(ax=(gradients, jacobians))
        gradients.set_title(f"{task}: gradients before training, T {LENGTH}", fontsize=10)
        for cell, marker in zip(options.cell, "osd", strict=False):
            lengths = [T for of, T, kind in losses_of if of == task and kind == cell]
            final = np.array([losses_of[task, T, cell] for T in lengths])
            color = f"C{options.cell.index(cell)}"
            learnt.plot(lengths, np.median(final, 1), marker + "-", color=color, label=cell)
            learnt.plot(lengths, final, marker, color=color, markersize=4, alpha=0.4)
        learnt.axhline(baseline, color="0.4", linewidth=0.8, linestyle=":", label="baseline")
        learnt.axhline(enough, color="0.4", linewidth=0.8, linestyle="--", label="learnt")
        learnt.set(xscale="log", yscale="log", xlabel="length T", ylabel="loss after training")
        learnt.set_xticks(lengths, lengths)
        learnt.minorticks_off()
        learnt.grid(alpha=0.25)
        learnt.legend(fontsize=8, frameon=False, ncols=5, loc="lower left", bbox_to_anchor=(0, 1))
    os.makedirs(os.path.dirname(os.path.abspath(options.plot)), exist_ok=True)
    figure.savefig(options.plot, dpi=130)
    print(f"figure: {options.plot}")
