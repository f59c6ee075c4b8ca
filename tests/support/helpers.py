"""What several test files share: layers of every kind, the oracle for whole stacks, array layouts, comparisons.

Everything that a layer gives is kept as one dict of name -> array (`run`, `oracle`), so that a comparison names what
differs: output, h_n, c_n, cells (all-step cell states), dx, dh_0, dc_0, and every parameter's gradient by its name.
"""

import contextlib
import dataclasses
import types

import numpy as np
import pytest

import fastrnn
from fastrnn import _core
from fastrnn._base import dispatch
from fastrnn.nn import reference
from fastrnn.nn.parameters import NAMES, layer_suffix

KINDS = {
    "rnn_tanh": (fastrnn.RNN, {}),
    "rnn_relu": (fastrnn.RNN, {"nonlinearity": "relu"}),
    "lstm": (fastrnn.LSTM, {}),
    "gru": (fastrnn.GRU, {}),
    "gru_before": (fastrnn.GRU, {"reset_after": False}),
}


@contextlib.contextmanager
def using_isa(isa):
    before = fastrnn.active_isa()
    dispatch.use_isa(isa)
    try:
        yield
    finally:
        dispatch.use_isa(before)


# ---- Layers and inputs --------------------------------------------------------------------------

def make_layer(kind, input_size, hidden_size, num_layers=1, *, rng, **options):
    """A layer with sums of order 1 whatever its sizes: matrices U(-1, 1) * sqrt(2 / columns), biases U(-0.5, 0.5)."""
    cls, own = KINDS[kind]
    layer = cls(input_size, hidden_size, num_layers, rng=0, **own, **options)
    rng = np.random.default_rng(rng)
    layer.load_state_dict({
        name: (rng.uniform(-1, 1, value.shape) * (np.sqrt(2 / value.shape[1]) if value.ndim == 2 else 0.5))
        .astype(layer.dtype) for name, value in layer.parameters.items()})
    return layer


def directions(layer):
    return 1 + layer.bidirectional


def state_sizes(layer):
    """Of h, and for LSTM of c."""
    return [layer.proj_size or layer.hidden_size] + [layer.hidden_size] * isinstance(layer, fastrnn.LSTM)


def make_state(layer, rows, rng):
    """(h,) or (h, c): [L*D, rows, size]; as good for their gradients."""
    return tuple(rng.standard_normal((layer.num_layers * directions(layer), rows, size)).astype(layer.dtype)
                 for size in state_sizes(layer))


def as_state(parts):
    """What a layer takes and gives, from the tuple (h,) or (h, c)."""
    return parts if parts is None or len(parts) == 2 else parts[0]


def as_parts(state):
    return state if isinstance(state, tuple) else (state,)


def named_state(state, *names):
    return dict(zip(names, as_parts(state), strict=False))


def multiply_adds(layer, rows):
    """Of the first layer over so many steps and rows, all directions: below 2e6 a call uses one thread."""
    return layer._packed()[0][0].multiply_adds * directions(layer) * rows


# ---- A layer's results, and the oracle's --------------------------------------------------------

def run(layer, x, state, d_output, d_state, **options):
    """All that forward, backward and a call with cell states give; forward and call are held to the same bits."""
    output, last, cache = layer.forward(x, as_state(state), **options)
    found = {"output": output, **named_state(last, "h_n", "c_n")}
    if isinstance(layer, fastrnn.LSTM):
        called, last, cells = layer(x, as_state(state), return_cell_states=True, **options)
        found["cells"] = cells
    else:
        called, last = layer(x, as_state(state), **options)
    assert_same_bits({"output": called, **named_state(last, "h_n", "c_n")},
                     {name: found[name] for name in ("output", "h_n", "c_n") if name in found})
    grads = layer.backward(cache, d_output, as_state(d_state))
    return found | {"dx": grads.input, **named_state(grads.state, "dh_0", "dc_0"), **grads.parameters}


def oracle(layer, x, state, d_output, d_state, lengths=None, reset_mask=None):
    """`run` by fastrnn.reference in float64, x as [T, N, I]; and how near a sum came to a corner of its activation."""
    D, margin = directions(layer), np.inf
    x, d_output = np.asarray(x, float), np.asarray(d_output, float)
    h, c = (*(np.asarray(part, float) for part in state), None)[:2]
    parameters = {name: np.asarray(value, float) for name, value in layer.parameters.items()}
    caches, finals, inputs = [], [], x
    for k in range(layer.num_layers):
        outputs, cells = [], []
        for d in range(D):
            one = {name: parameters.get(name + layer_suffix(k, d)) for name in NAMES}
            y, h_n, c_n, c_all, cache = reference.forward(
                layer._kind, one, inputs, h[k * D + d], None if c is None else c[k * D + d], lengths, reset_mask,
                reverse=d == 1 or layer.reverse, options=layer._options(d))
            outputs.append(y)
            cells.append(c_all)
            finals.append((h_n, c_n))
            caches.append(cache)
            margin = min([margin, *(_margin(layer._kind, cache["form"], saved) for *_, saved in cache["steps"])])
        inputs = np.concatenate(outputs, axis=-1)
    found = {"output": inputs, "h_n": np.stack([h_n for h_n, _ in finals])}
    if c is not None:
        found |= {"c_n": np.stack([c_n for _, c_n in finals]), "cells": np.concatenate(cells, axis=-1)}

    dh, dc = (*(np.asarray(part, float) for part in d_state), None)[:2]
    d_initial, gradients = [None] * len(caches), {}
    for k in reversed(range(layer.num_layers)):
        d_inputs = 0
        for d, dy in enumerate(np.split(d_output, D, axis=-1)):
            at = k * D + d
            dx, *d_initial[at], by_name = reference.backward(caches[at], dy, dh[at], None if dc is None else dc[at])
            d_inputs = d_inputs + dx
            gradients |= {name + layer_suffix(k, d): value for name, value in by_name.items()}
        d_output = d_inputs
    found |= {"dx": d_output, "dh_0": np.stack([dh_0 for dh_0, _ in d_initial])}
    if c is not None:
        found["dc_0"] = np.stack([dc_0 for _, dc_0 in d_initial])
    return found | gradients, margin


# kind -> of each activation's sums, which of f, g, h it is and where they stand in what the oracle's step saves.
_SUMS = {"rnn_tanh": [(0, 2)], "rnn_relu": [(0, 2)], "lstm": [(0, 3), (0, 4), (1, 5), (0, 6), (2, 11)],
         "gru": [(0, 2), (0, 3), (1, 4)], "gru_before": [(0, 2), (0, 3), (1, 4)]}


def _corners(name, alpha, beta):
    if name == "hard_sigmoid":
        return [-beta / alpha, (1 - beta) / alpha]
    return {"relu": [0], "leaky_relu": [0], "elu": [0], "thresholded_relu": [alpha]}.get(name, [])


def _margin(kind, form, saved):
    """The least distance of a sum from a corner of its activation, or from the bounds of clip."""
    margin = np.inf
    for which, at in _SUMS[kind]:
        clip = [form.clip, -form.clip] if which < 2 and form.clip < np.inf else []
        for corner in _corners(*form.activations[which]) + clip:
            margin = min(margin, np.min(np.abs(saved[at] - corner), initial=np.inf))
    return margin


# ---- Comparisons --------------------------------------------------------------------------------

def _where(difference):
    return tuple(int(i) for i in np.unravel_index(np.argmax(difference), np.shape(difference)))


def assert_close(actual, expected, tolerance, scales=None, title=""):
    """Same names and shapes; |difference| <= tolerance * max(scale, largest |expected|), array by array.

    scales: name -> scale, where it is not 1. The message lists every array that differs, with its largest difference.
    """
    assert sorted(actual) == sorted(expected)
    faults = []
    for name, want in expected.items():
        got = actual[name]
        assert got.shape == want.shape, f"{name}: shape {got.shape}, expected {want.shape}"
        difference = np.abs(got - want)
        bound = tolerance * np.max(np.abs(want), initial=(scales or {}).get(name, 1.0))
        if not np.all(difference <= bound):
            at = _where(np.nan_to_num(difference, nan=np.inf))
            faults.append(f"{name}: largest difference {difference[at]:.3e} (bound {bound:.3e}) at {at}: "
                          f"{got[at]:.9e} for {want[at]:.9e}")
    assert not faults, "\n".join([title, *faults])


def assert_same_bits(actual, expected):
    """Arrays, or dicts of them: dtype, shape and every bit, signs of zeros included. Any NaN equals any NaN."""
    if not isinstance(expected, dict):
        actual, expected = {"array": actual}, {"array": expected}
    assert sorted(actual) == sorted(expected)
    faults = []
    for name, want in expected.items():
        got = np.asarray(actual[name])
        assert (got.dtype, got.shape) == (want.dtype, want.shape), (
            f"{name}: {got.dtype} {got.shape}, expected {want.dtype} {want.shape}")
        differs = ~((got == want) & (np.signbit(got) == np.signbit(want)) | np.isnan(got) & np.isnan(want))
        if differs.any():
            at = _where(differs)
            faults.append(f"{name}: {differs.sum()} of {differs.size} differ, the first at {at}: "
                          f"{got[at].item().hex()} for {want[at].item().hex()}")
    assert not faults, "\n".join(["", *faults])


def central_differences(loss, array, step):
    """dloss/darray for a loss that reads `array` anew at every call."""
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + step
        above = loss()
        array[index] = value - step
        gradient[index] = (above - loss()) / (2 * step)
        array[index] = value
    return gradient


# ---- tanh and sigmoid -----------------------------------------------------------------------------

def elementwise(function, x):
    """"tanh" or "sigmoid" of a contiguous array, by the kernels of the instruction set in use."""
    return _core.elementwise(dispatch.table(x.dtype), function == "tanh", x)


def exact(function, x):
    """The same in float64."""
    with np.errstate(over="ignore", invalid="ignore"):      # exp's overflow; a signalling NaN
        x = x.astype(np.float64)
        return np.tanh(x) if function == "tanh" else 1 / (1 + np.exp(-x))


def ulp(y):
    """Of float32 at the float64 values y; below the smallest normal number it stays that one's."""
    return np.ldexp(1.0, np.maximum(np.frexp(y)[1], -125) - 24)


# ---- Array layouts ------------------------------------------------------------------------------

def _spaced(a, last_step):
    """Every second element of every axis, the last one's next to each other or not, of an array full of NaN."""
    steps = [2] * (a.ndim - 1) + [last_step]
    wide = np.full([step * n + 2 for step, n in zip(steps, a.shape, strict=True)],
                   np.nan if a.dtype.kind == "f" else 1, a.dtype)
    view = wide[tuple(slice(1, 1 + step * n, step) for step, n in zip(steps, a.shape, strict=True))]
    view[...] = a
    return view


def _reversed(a, axes):
    backwards = (slice(None, None, -1),) * axes
    return np.array(a[backwards], order="C")[backwards]


def _misaligned(a):
    view = np.empty(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def _read_only(a):
    a = a.copy()
    a.setflags(write=False)
    return a


LAYOUTS = {
    "contiguous": np.ascontiguousarray,
    # walked in place
    "apart": lambda a: _spaced(a, 1),
    "backwards": lambda a: _reversed(a, a.ndim - 1),
    "swapped": lambda a: np.array(a.swapaxes(0, a.ndim // 2), order="C").swapaxes(0, a.ndim // 2),
    "read_only": _read_only,
    # copied first
    "strided": lambda a: _spaced(a, 2),
    "reversed": lambda a: _reversed(a, a.ndim),
    "fortran": lambda a: np.array(a, order="F"),
    "misaligned": _misaligned,
    "big_endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
}


# ---- Refusals ----------------------------------------------------------------------------------------------

def arrays(*results):
    """All arrays of what a call gives, as a dict for assert_same_bits."""
    found = []
    for result in results:
        if isinstance(result, np.ndarray):
            found.append(result)
        elif dataclasses.is_dataclass(result):
            found += arrays(result.input, result.state, result.parameters).values()
        elif isinstance(result, (dict, types.MappingProxyType)):
            found += arrays(*result.values()).values()
        elif isinstance(result, tuple):
            found += arrays(*result).values()
    return dict(enumerate(found))


@contextlib.contextmanager
def refuses(error, name, *words):
    """Asserts that exception, not one of its subclasses, and that the message begins with the argument's name; it has
    the words in it."""
    with pytest.raises(error, match=rf"^{name}\b") as raised:
        yield
    assert raised.type is error
    assert all(word in str(raised.value) for word in words), raised.value
