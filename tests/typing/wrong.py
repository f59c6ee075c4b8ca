"""Calls that type checkers must reject: a line with `# wrong` is one, and every other line must be fine."""

from pathlib import Path

import numpy as np

import fastrnn
from fastrnn import interop, losses, optim, training
from fastrnn.anomaly import RNNAnomalyDetector
from fastrnn.datasets import load_weather
from fastrnn.diagnostics import gradient_flow
from fastrnn.forecasting import RNNForecaster

x = np.ones((5, 2, 3), np.float32)
gru, lstm, rnn = fastrnn.GRU(3, 4), fastrnn.LSTM(3, 4), fastrnn.RNN(3, 4)
model = fastrnn.Sequential(gru, fastrnn.Linear(4, 1))
optimizer = optim.Adam(model)

# Options that there are not, or are another cell's.
fastrnn.GRU(3, 4, hiden_size=5)  # wrong
fastrnn.GRU(3, 4, bidirectionall=True)  # wrong
fastrnn.GRU(3, 4, peephole=True)  # wrong
fastrnn.LSTM(3, 4, reset_after=False)  # wrong
fastrnn.RNN(3, 4, coupled_gates=True)  # wrong
fastrnn.GRU(3)  # wrong
fastrnn.GRU(3, 4, 1, True)  # wrong
fastrnn.GRUCell(3, 4, num_layers=2)  # wrong
fastrnn.Linear(3, 4, activation="tanh")  # wrong
fastrnn.Embedding(3)  # wrong

# Arguments of another type.
fastrnn.GRU("3", 4)  # wrong
fastrnn.GRU(3, 4, bias="yes")  # wrong
fastrnn.GRU(3, 4, dropout="half")  # wrong
fastrnn.GRU(3, 4, update="keras")  # wrong
fastrnn.RNN(3, 4, nonlinearity="sigmoid")  # wrong
fastrnn.Sequential("gru")  # wrong
fastrnn.set_num_threads("two")  # wrong
fastrnn.load(3)  # wrong
gru.save(3)  # wrong
gru.stream(batch_size="4")  # wrong
gru.restore("snapshot")  # wrong
gru.load_state_dict([1, 2])  # wrong

# Calls.
gru(x, length=[5, 5])  # wrong
gru(x, return_cell_states=True)  # wrong
gru(x, None, [5, 5])  # wrong
lstm(x, lengths=[5, 5], outt=x)  # wrong
gru.forward()  # wrong
gru.backward()  # wrong
output, (h_n, c_n), cells = lstm(x)  # wrong
gru.stream().step()  # wrong
gru.stream().steps(x)  # wrong
fastrnn.LSTMCell(3, 4)(x[0]).shape  # wrong
gru.hidden  # wrong
fastrnn.lstm(3, 4)  # wrong

# The same, in other places.
fastrnn.GRU(3, 5, reset_atfer=True)  # wrong
fastrnn.GRU(3, 5, proj_size=2)  # wrong
fastrnn.GRU(3, 5, 1, True)  # wrong
fastrnn.GRU("3", 5)  # wrong
fastrnn.GRU(3, 5, update="troch")  # wrong
fastrnn.RNN(3, 5, nonlinearity="sigmoid")  # wrong
fastrnn.RNN(3, 5, reset_after=True)  # wrong
fastrnn.LSTM(3, 5, nonlinearity="relu")  # wrong
lstm(x, x)  # wrong
lstm(x, (x, x, x))  # wrong
gru(x, (x, x), return_cell_states=True)  # wrong
gru(x, length=[1])  # wrong
gru(None)  # wrong
a, b, c = lstm(x)  # wrong
gru.stream(batch=2)  # wrong
gru.stream().stp(x)  # wrong
gru.backward(x, x)  # wrong
fastrnn.GRU.from_parameters({}, 3)  # wrong
fastrnn.GRU.from_parameters({}, 3, 5, hiden=3)  # wrong
fastrnn.Linear(3)  # wrong
fastrnn.Linear(3, 2, bais=True)  # wrong
fastrnn.Embedding(3, 2, padding_idx=0)  # wrong
fastrnn.Sequential(gru, np.tanh)  # wrong
fastrnn.Sequential([gru])  # wrong
fastrnn.GRUCell(3, 5, nonlinearity="relu")  # wrong
fastrnn.LSTMCell(3, 5)(x, x)  # wrong
fastrnn.load()  # wrong
fastrnn.GRU(3, 5, rng="seed")  # wrong
gru.load_state_dict([x])  # wrong
gru.state_dict()["a"].nope  # wrong
fastrnn.optim.Adam(gru.stream())  # wrong
lstm.stream().state = x  # wrong
gru.stream().reset(row=0)  # wrong
gru.parameters["a"] = x  # wrong
fastrnn.threads()  # wrong
fastrnn.Stream(gru, rows=2)  # wrong

# Training.
training.fit(model, x, x, loss=losses.MSE(), optimizer=optimizer, epochs=1)  # wrong
training.fit(model, x, x, loss=losses.MSE(), optimizer=optimizer, epochs="1", batch_size=1)  # wrong
training.fit(model, x, x, loss="mse", optimizer=optimizer, epochs=1, batch_size=1)  # wrong
training.fit(model, x, x, loss=losses.MSE(), optimizer="adam", epochs=1, batch_size=1)  # wrong
optim.Adam(model, lr=0.1)  # wrong
optim.SGD(model, learning_rate="fast")  # wrong
losses.Huber(alpha=1.0)  # wrong
gradient_flow(gru)  # wrong

# Series.
RNNForecaster(horizon="24")  # wrong
RNNForecaster(hidden=32)  # wrong
RNNForecaster(lr=0.01)  # wrong
RNNForecaster(random_state="a")  # wrong
RNNAnomalyDetector(epochs=10)  # wrong
RNNForecaster(24, 48).predict(quantile=True)  # wrong
RNNForecaster(24).backtest(x)  # wrong
RNNAnomalyDetector(hidden_size=[16])  # wrong
RNNAnomalyDetector(treshold=0.5)  # wrong
load_weather("file.csv")  # wrong

# Models of others.
interop.layers()  # wrong
interop.layers(Path("model.pt"), skipped=[])  # wrong
interop.onnx.export("model.onnx")  # wrong
