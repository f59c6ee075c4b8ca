# %% [markdown]
# # From a PyTorch checkpoint to numbers, without PyTorch
#
# A model was trained and saved with PyTorch. Here its file is read without PyTorch: its contents are listed, its
# recurrent layers become fastrnn's, its other weights become arrays, and the predictions are the same.

# %%
import tempfile
from pathlib import Path

import numpy as np

import fastrnn
from fastrnn.interop import conventions, pytorch

try:
    import torch
except ImportError:
    torch = None
    print("PyTorch is not installed: weights made here stand for its file, a loop in NumPy for its numbers.")

x = np.random.default_rng(0).standard_normal((7, 50, 8)).astype(np.float32)      # 7 sequences of 50 steps, 8 features
folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "checkpoint.pt"

# %% [markdown]
# ## Where the file comes from
#
# A forecaster as PyTorch users write it, one step of training, and a checkpoint with the optimizer's state in it.
# (Only this cell needs PyTorch: any .pt or .pth file of a state_dict or a checkpoint will do.)

# %%
if torch:
    torch.manual_seed(0)

    class Forecaster(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = torch.nn.LSTM(8, 32, num_layers=2, batch_first=True)
            self.head = torch.nn.Linear(32, 1)

        def forward(self, x):
            output, _ = self.encoder(x)
            return self.head(output[:, -1])

    model = Forecaster()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.from_numpy(x)).square().mean().backward()
    optimizer.step()
    torch.save({"model_state": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, path)
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()

# %% [markdown]
# ## What is in it
#
# Every tensor by name; the keys of nested dicts are joined by dots. The pickle in the file is read by an interpreter
# that can only make tensors and containers. So a file from anywhere may be looked at: nothing in it is ever run.

# %%
if torch:
    tensors = pytorch.load_state_dict(path)
    for name, tensor in tensors.items():
        if not name.startswith("optimizer."):
            print(f"{name:40} {tensor.dtype} {tensor.shape}")
    print(f"... and {sum(name.startswith('optimizer.') for name in tensors)} tensors of the optimizer")
    weights = {name.removeprefix("model_state."): tensor for name, tensor in tensors.items()}

# %% [markdown]
# ## The layers
#
# Layers are recognised by names and shapes. Whether x comes as [N, T, I] is not in a file of weights, so it is given
# here.
# (`python -m fastrnn inspect checkpoint.pt` prints the same from a shell.)

# %%
if torch:
    layers = pytorch.layers(path, batch_first=True)
    for name, layer in layers.items():
        print(f"{name}: {layer}")
    encoder = layers["encoder"]

# %% [markdown]
# Without PyTorch, a state_dict is made by hand, and the expected output is computed step by step from the equations.


# %%
def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def lstm_by_hand(x, weights, layer):
    w_ih, w_hh, b_ih, b_hh = (weights[f"encoder.{name}_l{layer}"]
                              for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h = c = np.zeros((len(x), w_hh.shape[1]), np.float32)
    outputs = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ w_ih.T + b_ih + h @ w_hh.T + b_hh, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, axis=1)


if not torch:
    rng = np.random.default_rng(1)
    shapes = {name: a.shape for name, a in fastrnn.LSTM(8, 32, 2).parameters.items()}
    weights = {f"encoder.{name}": rng.uniform(-0.2, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}
    weights |= {"head.weight": rng.uniform(-0.2, 0.2, (1, 32)).astype(np.float32), "head.bias": np.zeros(1, np.float32)}
    encoder = conventions.find_layers(weights, {None: {"batch_first": True}})["encoder"]
    print(f"encoder: {encoder}")
    output = lstm_by_hand(lstm_by_hand(x, weights, 0), weights, 1)
    expected = output[:, -1] @ weights["head.weight"].T + weights["head.bias"]

# %% [markdown]
# ## The numbers
#
# fastrnn computes the recurrent part, one line of NumPy the head.

# %%
output, state = encoder(x)
predicted = output[:, -1] @ weights["head.weight"].T + weights["head.bias"]
difference = np.abs(predicted - expected).max()
print(f"predictions: {predicted[:, 0].round(4)}")
print(f"largest difference from {'PyTorch' if torch else 'the loop'}: {difference:.1e}")
assert difference <= 1e-5

# %% [markdown]
# Where data come one step at a time, a stream holds the state. It gives the same bits.

# %%
stream, step = encoder.stream(), np.empty(32, np.float32)
for x_t in x[0]:
    stream.step(x_t, step)
assert np.array_equal(step, output[0, -1])
print("streamed step by step: the same to the bit")

# %% [markdown]
# ## Whole modules
#
# `torch.save(model)` pickles classes by name, and loading such a file in PyTorch imports and runs code. Here it is
# read as data: its layers come back with the options they had, and nothing in it is run. A file without a recurrent
# layer is an error that lists what it holds.

# %%
if torch:
    torch.save(torch.nn.Sequential(torch.nn.GRU(2, 3, batch_first=True), torch.nn.Linear(3, 1)), path)
    print(pytorch.layers(path))
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), path)
    try:
        pytorch.layers(path)
    except fastrnn.ModelFormatError as error:
        print(str(error).replace(str(path), path.name))
    else:
        raise AssertionError("a recurrent layer was found where there is none")

folder.cleanup()
