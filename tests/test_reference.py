"""The oracle against torch (autograd, float64) and against central differences; torch's own tests are of torch's kinds."""
import doctest

import numpy as np
import pytest

from fastrnn import reference

T, N, I, H = 6, 5, 3, 4
GATES = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3, "gru_before": 3}
TORCH_CELLS = [("rnn_tanh", 0), ("rnn_relu", 0), ("lstm", 0), ("lstm", 2), ("gru", 0)]  # kind, proj_size
CELLS = [*TORCH_CELLS, ("gru_before", 0)]
BIASES = ["bias_ih", "bias_hh"]
LENGTHS = [3, 0, T, 1, 5]
# Row 0: first step, last valid step (where reverse starts), past the length. Row 1 has no step: nothing is reset.
RESETS = np.zeros((T, N), bool)
RESETS[[0, 2, 4, 0, 3, 5, 1, 4], [0, 0, 0, 1, 2, 2, 4, 4]] = True

over = pytest.mark.parametrize
over_cells = over("kind, proj_size", CELLS, ids=lambda value: str(value))
over_reverse = over("reverse", [False, True], ids=["forwards", "reverse"])


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def make_parameters(rng, kind, proj_size=0, inputs=I, biases=BIASES):
    rows, outputs = GATES[kind] * H, proj_size or H
    shapes = {"weight_ih": (rows, inputs), "weight_hh": (rows, outputs)}
    shapes.update({name: (rows,) for name in biases})
    if proj_size:
        shapes["weight_hr"] = (proj_size, H)
    return {**dict.fromkeys(BIASES), **{name: 0.5 * rng.standard_normal(shape) for name, shape in shapes.items()}}


def make_state(rng, kind, proj_size, *lead):
    """(h_0,), for LSTM (h_0, c_0); gradients dh_n and dc_n have the same shapes."""
    sizes = (proj_size or H, H) if kind == "lstm" else (H,)
    return [rng.standard_normal((*lead, N, size)) for size in sizes]


def make_case(kind, proj_size, biases=BIASES, seed=0):
    """One direction of one layer: parameters, x, state, and the loss's gradients dy (past the lengths too) and dstate."""
    rng = np.random.default_rng(seed)
    return (make_parameters(rng, kind, proj_size, biases=biases), rng.standard_normal((T, N, I)),
            make_state(rng, kind, proj_size, N)[:0] or make_state(rng, kind, proj_size),
            rng.standard_normal((T, N, proj_size or H)), make_state(rng, kind, proj_size))
