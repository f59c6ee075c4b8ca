# %% [markdown]
# # A PyTorch model, trained faster by one line
#
# `fastrnn.pytorch.accelerate(model)` makes every nn.LSTM, nn.GRU, nn.RNN and cell of a model on the CPU compute with
# fastrnn's kernels. The modules stay the same objects with the same parameters, so optimizers, hooks and checkpoints
# work as before.

# %%
import copy
import sys
import time

try:
    import torch
except ImportError:
    print("This example needs PyTorch: pip install fastrnn[torch]")
    sys.exit()
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import fastrnn.pytorch

torch.manual_seed(0)

# %% [markdown]
# ## A model and a task
#
# The adding problem (Hochreiter & Schmidhuber 1997): two numbers of a sequence are marked, and their sum is the
# answer. Sequences have lengths from 10 to 60, so they are packed. The model is ordinary PyTorch.


# %%
class Adder(nn.Module):
    def __init__(self, hidden=64):
        super().__init__()
        self.encoder = nn.GRU(2, hidden, num_layers=2, dropout=0.1, batch_first=True)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, h_n = self.encoder(packed)
        return self.head(h_n[-1])[:, 0]


def batch(rows, generator):
    lengths = torch.randint(10, 61, (rows,), generator=generator)
    x = torch.rand(rows, 60, 2, generator=generator)
    x[..., 1] = 0
    for row, length in enumerate(lengths):
        marked = torch.randperm(int(length), generator=generator)[:2]
        x[row, marked, 1] = 1
    return x, lengths, (x[..., 0] * x[..., 1]).sum(1)


model = Adder()
swapped = copy.deepcopy(model)

# %% [markdown]
# ## One line
#
# The report says which modules were swapped, and which were left and why.

# %%
report = fastrnn.pytorch.accelerate(swapped)
print(report)
assert isinstance(swapped.encoder, nn.GRU)

# %% [markdown]
# ## Training, before and after
#
# Same seeds, so the same batches and the same dropout masks: the losses agree to float error, step for step.


# %%
def train(model, steps=60):
    torch.manual_seed(1)
    generator, losses = torch.Generator().manual_seed(2), []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    batches = [batch(16, generator) for _ in range(steps)]
    begin = time.perf_counter()
    for x, lengths, target in batches:
        loss = nn.functional.mse_loss(model(x, lengths), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses), (time.perf_counter() - begin) / steps * 1e3


before, ms_before = train(model)
after, ms_after = train(swapped)
difference = (before - after).abs().max().item()
print(f"loss: {before[0]:.3f} at first, {before[-5:].mean():.3f} at last")
print(f"a step: {ms_before:.1f} ms by torch, {ms_after:.1f} ms accelerated ({ms_before / ms_after:.1f} times as fast)")
print(f"largest difference of a loss: {difference:.1e}")
assert difference <= 1e-3

# %% [markdown]
# ## The same modules by name
#
# `fastrnn.pytorch.LSTM`, `GRU`, `RNN` and the cells may also be written into a model in place of torch's. They load and
# give torch's state_dicts.

# %%
layer = fastrnn.pytorch.LSTM(2, 8, bidirectional=True)
layer.load_state_dict(nn.LSTM(2, 8, bidirectional=True).state_dict())
x, lengths, _ = batch(4, torch.Generator().manual_seed(3))
output, (h_n, c_n) = layer(pack_padded_sequence(x.transpose(0, 1), lengths, enforce_sorted=False))
padded, _ = pad_packed_sequence(output)
print(f"{layer}: packed {tuple(output.data.shape)}, padded {tuple(padded.shape)}, h_n {tuple(h_n.shape)}")

# %% [markdown]
# ## And back
#
# `restore` is for a model that is to be pickled for people without fastrnn, quantised or scripted. A state_dict needs
# no restoring.

# %%
x, lengths, _ = batch(16, torch.Generator().manual_seed(4))
swapped.eval()
with torch.inference_mode():
    accelerated = swapped(x, lengths)
    fastrnn.pytorch.restore(swapped)
    by_torch = swapped(x, lengths)
print(f"restored: {type(swapped.encoder).__module__}.{type(swapped.encoder).__name__}, "
      f"predictions differ by {(accelerated - by_torch).abs().max():.1e}")
assert type(swapped.encoder) is nn.GRU and torch.allclose(accelerated, by_torch, atol=1e-5)
