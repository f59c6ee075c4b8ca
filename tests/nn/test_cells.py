"""Cells as models: optimizers train them, and their parameters bear torch's cell keys."""

import numpy as np
import pytest
import torch
from helpers import assert_same_bits, refuses

import fastrnn
from fastrnn import losses, optim
from fastrnn.nn.base import Module, Parametrised

CELLS = {"RNNCell": fastrnn.RNNCell, "GRUCell": fastrnn.GRUCell, "LSTMCell": fastrnn.LSTMCell}
each_cell = pytest.mark.parametrize("name", CELLS)


def h_of(state):
    return state[0] if isinstance(state, tuple) else state


@each_cell
def test_names_are_torchs(name):
    cell, theirs = CELLS[name](2, 3, rng=0), getattr(torch.nn, name)(2, 3)
    assert isinstance(cell, Parametrised) and not isinstance(cell, Module)
    assert [(key, a.shape) for key, a in cell.state_dict().items()] == \
        [(key, tuple(a.shape)) for key, a in theirs.state_dict().items()]
    assert list(cell.parameters) == list(cell.state_dict())
    assert not any(a.flags.writeable for a in cell.parameters.values())


@each_cell
@pytest.mark.parametrize("rule", [optim.SGD, optim.RMSprop, optim.Adam, optim.AdamW])
def test_an_optimizer_steps_a_cell(name, rule):
    """Every parameter changes, the cell computes with the new ones, and a cache keeps those it was made with."""
    cell, rng = CELLS[name](2, 3, rng=0), np.random.default_rng(1)
    optimizer = rule(cell, 0.1)
    x, h, c = (rng.standard_normal((4, size)).astype(np.float32) for size in (2, 3, 3))
    start = (h, c) if name == "LSTMCell" else h
    before, output_before = cell.state_dict(), h_of(cell(x, start))
    state, cache = cell.forward(x, start)
    d_state = tuple(map(np.ones_like, state)) if isinstance(state, tuple) else np.ones_like(state)
    gradients = cell.backward(cache, d_state)
    assert gradients.parameters.keys() == before.keys()
    optimizer.step(gradients.parameters)
    for key, value in cell.parameters.items():
        assert np.all(value != before[key]), key
        assert not value.flags.writeable
    assert not np.array_equal(h_of(cell(x, start)), output_before)
    assert_same_bits(cell.backward(cache, d_state).parameters, gradients.parameters)
    fresh = CELLS[name](2, 3, rng=5)
    fresh.load_state_dict(cell.state_dict())
    assert_same_bits(h_of(cell(x, start)), h_of(fresh(x, start)))


@each_cell
def test_a_loop_over_steps_trains_a_cell(name):
    """Through time by hand: forward step by step, backward from the last one; the loss falls to a tenth."""
    cell, head, rng = CELLS[name](1, 8, rng=0), fastrnn.Linear(8, 1, rng=1), np.random.default_rng(2)
    optimizers, loss = [optim.Adam(cell, 0.02), optim.Adam(head, 0.02)], losses.MSE()
    x = rng.uniform(-1, 1, (6, 32, 1)).astype(np.float32)
    y = x.mean(axis=0)
    history = []
    for _ in range(150):
        state, caches = None, []
        for x_t in x:
            state, cache = cell.forward(x_t, state)
            caches.append(cache)
        output, _, head_cache = head.forward(h_of(state))
        value, d_output = loss(output, y)
        history.append(value)
        head_gradients = head.backward(head_cache, d_output)
        d_state = head_gradients.input
        if isinstance(state, tuple):
            d_state = d_state, np.zeros_like(d_state)
        total = {}
        for cache in reversed(caches):
            gradients = cell.backward(cache, d_state)
            d_state = gradients.state
            total = {key: total.get(key, 0) + value for key, value in gradients.parameters.items()}
        for optimizer, values in zip(optimizers, (total, head_gradients.parameters)):
            optimizer.step(values)
    assert history[-1] < 0.1 * history[0]


def test_a_checkpoint_of_an_optimizer_of_a_cell():
    cell = fastrnn.GRUCell(2, 3, rng=0)
    optimizer = optim.Adam(cell, 0.1)
    gradients = {key: np.ones_like(a) for key, a in cell.parameters.items()}
    optimizer.step(gradients)
    twin = fastrnn.GRUCell(2, 3, rng=1)
    twin.load_state_dict(cell.state_dict())
    other = optim.Adam(twin, 0.5)
    other.load_state_dict(optimizer.state_dict())
    optimizer.step(gradients)
    other.step(gradients)
    assert_same_bits(twin.state_dict(), cell.state_dict())


def test_training_over_sequences_is_refused_by_name():
    cell = fastrnn.GRUCell(2, 3, rng=0)
    x = np.zeros((4, 2, 2), np.float32)
    with refuses(TypeError, "model"):
        fastrnn.training.fit(cell, x, x, loss=losses.MSE(), optimizer=optim.Adam(cell), epochs=1, batch_size=1)
    with refuses(TypeError, "modules"):
        fastrnn.Sequential(cell)


@each_cell
def test_parameters_are_updated_in_a_block(name):
    cell = CELLS[name](2, 3, rng=0)
    x = np.ones((2, 2), np.float32)
    before, state = cell.state_dict(), h_of(cell(x))

    def fail():
        with cell.updating() as parameters:
            parameters["bias_ih"] += 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert_same_bits(cell.state_dict(), before)
    with cell.updating() as parameters:
        parameters["bias_ih"] += 1
    assert not np.array_equal(h_of(cell(x)), state)
    with refuses(ValueError, "state_dict"), cell.updating() as parameters:
        del parameters["bias_ih"]
