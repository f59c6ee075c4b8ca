"""Micro-benchmarks of the parts, for watching a change: python -m pytest benchmarks/test_parts.py"""
import numpy as np
import pytest

import fastrnn

LAYERS = {"lstm": fastrnn.LSTM, "gru": fastrnn.GRU, "rnn": fastrnn.RNN}
SIZES = [(16, 32), (128, 256)]         # I, H
T, N = 50, 16


@pytest.fixture(params=[(cell, *size) for cell in LAYERS for size in SIZES], ids=lambda p: "{}-{}-{}".format(*p))
def layer(request):
    cell, *size = request.param
    return LAYERS[cell](*size, rng=0)


@pytest.fixture
def x(layer):
    return np.random.default_rng(0).standard_normal((T, N, layer.input_size), np.float32)


def test_step(benchmark, layer, x):
    stream, row, out = layer.stream(), x[0, 0], np.empty(layer.hidden_size, np.float32)
    benchmark(stream.step, row, out)


def test_sequence(benchmark, layer, x):
    benchmark(layer, x, out=np.empty((T, N, layer.hidden_size), np.float32))


def test_training_step(benchmark, layer, x):
    d_output = np.ones((T, N, layer.hidden_size), np.float32)

    def step():
        _, _, cache = layer.forward(x)
        return layer.backward(cache, d_output)

    benchmark(step)


def test_packing(benchmark, layer):
    """Parameters loaded, so the stream that follows packs them anew."""
    parameters = layer.state_dict()

    def change():
        layer.load_state_dict(parameters)
        return layer.stream()

    benchmark(change)
