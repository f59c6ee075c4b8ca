# %% [markdown]
# # Vanishing gradients, and which cells learn in spite of them
#
# What a recurrent network puts out at step T depends on what came in at step t by way of T - t steps; in the gradient
# each is a factor. A plain RNN's factors multiply up to nothing, an LSTM's and a GRU's gates can hold them near 1
# (Hochreiter & Schmidhuber 1997). Here that is measured on two tasks that need a long memory, and then the networks are
# trained on them.
#
# `python examples/vanishing_gradients.py` takes half a minute; `--full` trains every cell on lengths from 20 to 500
# with three seeds (some hours on one core); `--task`, `--lengths`, `--cells`, `--seeds`, `--steps` choose among it,
# `--plot out.png` draws the gradients.

# %%
import argparse
import time

import numpy as np

import fastrnn
from fastrnn import losses, optim
from fastrnn.diagnostics import GradientFlow, gradient_flow

parser = argparse.ArgumentParser()
parser.add_argument("--full", action="store_true")
parser.add_argument("--task", nargs="+", choices=("adding", "copying"), default=["adding", "copying"])
parser.add_argument("--lengths", nargs="+", type=int)
parser.add_argument("--cells", nargs="+", choices=("RNN", "GRU", "LSTM"), default=["RNN", "GRU", "LSTM"])
parser.add_argument("--seeds", type=int)
parser.add_argument("--steps", type=int)
parser.add_argument("--plot")
options = parser.parse_args()
HIDDEN, BATCH = 64, 50


# %% [markdown]
# ## The tasks
#
# **Adding problem** (Hochreiter & Schmidhuber 1997, in the form of Le, Jaitly & Hinton 2015): at every step a number
# from 0 to 1 and a marker; the answer, at the last step, is the sum of the two marked numbers, one in each half. Who
# always says 1 has an MSE of 1/6 = 0.167: that is the baseline.
#
# **Copy memory** (the same 1997; Arjovsky, Shah & Bengio 2016): ten symbols out of eight, T blanks, a signal, and
# then the ten are to be said again. Who guesses among eight has a cross-entropy of ln 8 = 2.08 at those ten steps.

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
    """x [T + 20, rows, 10], target [T + 20, rows], mask [T + 20, 1]: symbols 0-7, blank 8, signal 9."""
    symbols = np.full((T + 20, rows), 8)
    symbols[:10] = rng.integers(0, 8, (10, rows))
    target = np.roll(symbols, T + 10, 0)
    symbols[T + 9] = 9
    return np.eye(10, dtype=np.float32)[symbols], target, (np.arange(T + 20) >= T + 10)[:, None]


TASKS = {           # what makes a batch, inputs, outputs, loss, baseline, when it counts as learnt
    "adding": (adding, 2, 1, losses.MSE(), 1 / 6, 0.01),
    "copying": (copying, 10, 10, losses.CrossEntropy(), np.log(8), 0.1),
}


# %% [markdown]
# ## The networks
#
# One recurrent layer of 64 units and a linear layer. What gates are worth depends on how they start: half open, they
# forget half at each step, and the gradient vanishes just as it does without them. So their biases start such that
# units remember for spans from 1 to T steps ("chrono" initialisation, Tallec & Ollivier 2018): an LSTM's forget gates
# at ln u with u uniform in 1 ... T and its input gates at -ln u, a GRU's update gates at ln u.

# %%
def network(cell, inputs, outputs, T, seed):
    rng = np.random.default_rng(seed)
    layer = getattr(fastrnn, cell)(inputs, HIDDEN, rng=rng)
    with layer.updating() as p:
        span = np.log(rng.uniform(1, max(2, T - 1), HIDDEN))
        if cell == "LSTM":              # gates i, f, g, o
            p["bias_ih_l0"][:HIDDEN], p["bias_ih_l0"][HIDDEN:2 * HIDDEN] = -span, span
        elif cell == "GRU":             # gates r, z, n
            p["bias_ih_l0"][HIDDEN:2 * HIDDEN] = span
    return fastrnn.Sequential(layer, fastrnn.Linear(HIDDEN, outputs, rng=rng))


# %% [markdown]
# ## The gradient before training
#
# How much of the loss at the end reaches the state at every step before: the norm of dL/dh_t.

# %%
LENGTH = 200
make, inputs, outputs, loss, *_ = TASKS["adding"]
x, target, mask = make(np.random.default_rng(0), LENGTH, 4)
flows = {}
for cell in options.cells:
    flow = gradient_flow(network(cell, inputs, outputs, LENGTH, seed=0), x, lambda y: loss(y, target, mask)[1])
    flows[cell] = flow["0.l0"]
    norm = flow["0.l0"].hidden.mean(1)
    print(f"{cell:4}: |dL/dh_t| at the last step {norm[-1]:.1e}, 50 steps before {norm[-51]:.1e}, at the first "
          f"{norm[0]:.1e}: times {flow['0.l0'].rate:.3f} a step")
if options.plot:
    GradientFlow(flows).plot()[0].figure.savefig(options.plot)


# %% [markdown]
# ## Training
#
# Fresh sequences at every step; Adam; the gradient's norm held to 1, as a plain RNN's can also explode.

# %%
def train(task, cell, T, seed, steps, rate=3e-3):
    """The loss on 1000 fresh sequences, and the steps taken: fewer than `steps` if it has learnt before."""
    make, inputs, outputs, loss, _, enough = TASKS[task]
    rng = np.random.default_rng([seed, T])
    model = network(cell, inputs, outputs, T, seed)
    adam = optim.Adam(model, lr=rate)
    recent = np.inf                     # a running mean of the loss
    for step in range(1, steps + 1):
        x, target, mask = make(rng, T, BATCH)
        output, _, cache = model.forward(x)
        value, d_output = loss(output, target, mask)
        gradients = model.backward(cache, d_output, need_input=False).parameters
        if np.isfinite(optim.clip_grad_norm(gradients, 1.0)):
            adam.step(gradients)
        recent = value if step == 1 else recent + 0.02 * (value - recent)
        if recent < enough / 4:
            break
    x, target, mask = make(np.random.default_rng(10 ** 6 + seed), T, 1000)
    return loss(model(x)[0], target, mask)[0], step


if options.full:
    plan = {task: (20, 50, 100, 200, 500) for task in options.task}
    seeds, most = options.seeds or 3, options.steps or 10_000
else:
    plan = {"adding": (50,), "copying": (20,)}
    seeds, most = options.seeds or 1, options.steps or 1500
for task in options.task:
    baseline, enough = TASKS[task][4:]
    print(f"\n{task}: the baseline is {baseline:.3f}, learnt is below {enough}")
    for T in options.lengths or plan[task]:
        for cell in options.cells:
            for seed in range(seeds):
                begin = time.perf_counter()
                final, steps = train(task, cell, T, seed, most)
                verdict = "learnt" if final < enough else "at the baseline" if final > 0.9 * baseline else "on its way"
                print(f"  T {T:3}, {cell:4}, seed {seed}: loss {final:.4f} after {steps:5} steps "
                      f"({time.perf_counter() - begin:.0f} s): {verdict}", flush=True)
