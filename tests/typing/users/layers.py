"""Layers, cells and streams, as a user writes them."""

from typing import assert_type

import numpy as np
import numpy.typing as npt

import fastrnn

rng = np.random.default_rng(0)
x = rng.standard_normal((20, 4, 3), np.float32)

# A GRU's state is an array, an LSTM's a pair.
gru = fastrnn.GRU(3, 8, 2, batch_first=False, dropout=0.1, bidirectional=False, reset_after=True, dtype=np.float32,
                  rng=0)
output, h_n = gru(x, lengths=[20, 4, 5, 0])
print(output.shape, h_n.shape, h_n.dtype)
output, h_n, cache = gru.forward(x, h_n, rng=1)
grads = gru.backward(cache, np.ones_like(output), d_state=np.zeros_like(h_n), need_input=True)
print(grads.parameters["weight_hh_l0"].shape)

lstm = fastrnn.LSTM(input_size=3, hidden_size=8, proj_size=4, peephole=False, rng=np.random.default_rng(1))
output, (h_n, c_n) = lstm(x)
output, (h_n, c_n), cells = lstm(x, (h_n, c_n), return_cell_states=True)
print(cells.shape, c_n.mean())
output, (h_n, c_n), cache = lstm.forward(x)
print(lstm.backward(cache, output).state)

rnn = fastrnn.RNN(3, 8, nonlinearity="relu", activations=[("leaky_relu", 0.1)], clip=3.0)
output, h_n = rnn(x, reset_mask=np.zeros((20, 4), bool), out=np.empty((20, 4, 8), np.float32))
output, h_n = rnn([[0.5, 1.0, 2.0], [1.0, 2.0, 3.0]])

# Parameters.
weights: dict[str, npt.NDArray[np.floating]] = {name: value * 0.5 for name, value in gru.state_dict().items()}
gru.load_state_dict(weights, strict=True)
with gru.updating() as parameters:
    parameters["bias_ih_l0"] += 1.0
copy = fastrnn.GRU.from_parameters(gru.state_dict(), 3, 8, 2)
print(copy.hidden_size, copy.num_layers, copy.bidirectional)

# Cells.
cell = fastrnn.GRUCell(3, 8)
h = cell(x[0])
h = cell(x[1], h)
h, step_cache = cell.forward(x[2], h)
print(cell.backward(step_cache, h).input)
lstm_cell = fastrnn.LSTMCell(3, 8)
h, c = lstm_cell(x[0])
h, c = lstm_cell(x[1], (h, c))

# Streams.
stream = gru.stream(batch_size=4)
out = np.empty((4, 8), np.float32)
stream.step(x[0], out)
print(stream.run(x), stream.state, stream.batch_size)
stream.reset([0, 2])
saved: bytes = stream.snapshot()
stream = gru.restore(saved)

# Files, threads, instruction sets.
gru.save("model.npz")
model = fastrnn.load("model.npz")
fastrnn.set_num_threads(2)
threads: int = fastrnn.get_num_threads()
with fastrnn.threads(1):
    isa: str = fastrnn.active_isa()
names: list[str] = fastrnn.available_isas()
assert_type(fastrnn.__version__, str)
