# %% [markdown]
# # A NumPy loop, and fastrnn in its place
#
# An LSTM as it is often written by hand: one matrix for each gate over `[h, x]`, and one step of Python per time
# step. In four lines its weights become a layer that computes the same numbers without the loop.

# %%
import time

import numpy as np

import fastrnn

rng = np.random.default_rng(0)
I, H, T = 16, 64, 500
W = {gate: rng.standard_normal((H, H + I)) / np.sqrt(H + I) for gate in "ifgo"}     # input, forget, candidate, output
b = {gate: rng.standard_normal(H) for gate in "ifgo"}
x = rng.standard_normal((T, I))


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def by_hand(x):
    h, c, outputs = np.zeros(H), np.zeros(H), []
    for x_t in x:
        both = np.concatenate([h, x_t])
        i = sigmoid(W["i"] @ both + b["i"])
        f = sigmoid(W["f"] @ both + b["f"])
        g = np.tanh(W["g"] @ both + b["g"])
        o = sigmoid(W["o"] @ both + b["o"])
        c = f * c + i * g
        h = o * np.tanh(c)
        outputs.append(h)
    return np.array(outputs)


# %% [markdown]
# The same weights under torch's names: the gates lie one below the other in the order i, f, g, o, and the columns of h
# and of x are separate matrices. fastrnn has two biases, as torch has; the second is zero here.

# %%
stacked = np.concatenate([W[gate] for gate in "ifgo"])
parameters = {"weight_hh_l0": stacked[:, :H], "weight_ih_l0": stacked[:, H:],
              "bias_ih_l0": np.concatenate([b[gate] for gate in "ifgo"]), "bias_hh_l0": np.zeros(4 * H)}
layer = fastrnn.LSTM.from_parameters(parameters, I, H, dtype=np.float64)

output, (h, c) = layer(x)
difference = np.abs(output - by_hand(x)).max()
print(f"largest difference: {difference:.1e}")
assert difference < 1e-12

# %% [markdown]
# Where data come one step at a time, a stream carries the state. Its results are equal to the call's, to the bit.

# %%
stream, out = layer.stream(), np.empty(H)
for t, x_t in enumerate(x):
    assert np.array_equal(stream.step(x_t, out), output[t])

# %% [markdown]
# float32 is enough for most trained networks, and twice as fast again.

# %%
single = fastrnn.LSTM.from_parameters({name: value.astype(np.float32) for name, value in parameters.items()}, I, H)
x32 = x.astype(np.float32)
assert np.abs(single(x32)[0] - output).max() < 1e-5


# %%
def best(call, repeats=20):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def streamed():
    for x_t in x:
        stream.step(x_t, out)


with fastrnn.threads(1):
    loop = best(lambda: by_hand(x))
    for name, call in (("the loop", lambda: by_hand(x)), ("layer(x)", lambda: layer(x)), ("stream.step", streamed),
                       ("layer(x), float32", lambda: single(x32))):
        seconds = best(call)
        print(f"{name:20}{seconds / T * 1e6:8.2f} us a step{loop / seconds:8.1f} times the loop's speed")
