"""Names, shapes, initialisation and loading of parameters, by torch's conventions."""

import math

import numpy as np

from .._base import validation as check

GATES = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3, "gru_before": 3}
UNDRAWN = object()      # for rng: the parameters come from elsewhere, nothing is drawn
NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "peephole")
# ONNX's activations and its defaults of alpha and beta; one that takes fewer has None there.
ACTIVATIONS = {"sigmoid": (None, None), "tanh": (None, None), "relu": (None, None), "affine": (1.0, 0.0),
               "leaky_relu": (0.01, None), "thresholded_relu": (1.0, None), "scaled_tanh": (1.0, 1.0),
               "hard_sigmoid": (0.2, 0.5), "elu": (1.0, None), "softsign": (None, None), "softplus": (None, None)}
# What the activations f, g, h of a cell are unless it is told otherwise.
PLAIN = {"rnn_tanh": ("tanh",), "rnn_relu": ("relu",), "gru": ("sigmoid", "tanh"), "gru_before": ("sigmoid", "tanh"),
         "lstm": ("sigmoid", "tanh", "tanh")}


def shapes(gates, input_size, hidden_size, bias, proj_size=0, peephole=False):
    """Name -> shape of one direction of one layer, in torch's order. S is proj_size, or H without projection."""
    state_size = proj_size or hidden_size
    rows = gates * hidden_size
    found = {"weight_ih": (rows, input_size), "weight_hh": (rows, state_size)}
    if bias:
        found.update(bias_ih=(rows,), bias_hh=(rows,))
    if proj_size:
        found["weight_hr"] = (proj_size, hidden_size)
    if peephole:
        found["peephole"] = (3 * hidden_size,)
    return found


def layer_suffix(layer, direction):
    """torch's ending of a parameter's name: _l0, _l0_reverse, _l1, ..."""
    return f"_l{layer}" + ("_reverse" if direction else "")


def stacked_shapes(gates, input_size, hidden_size, num_layers, directions, bias, proj_size, peephole):
    """Name -> shape of a stack of layers."""
    state_size = proj_size or hidden_size
    found = {}
    for layer in range(num_layers):
        inputs = input_size if layer == 0 else directions * state_size
        for direction in range(directions):
            for name, shape in shapes(gates, inputs, hidden_size, bias, proj_size, peephole).items():
                found[name + layer_suffix(layer, direction)] = shape
    return found


def activations(value, kind, directions):
    """The activations f, g, h of each direction as (name, alpha, beta), or None where all are the kind's plain ones.

    value: a sequence of names, (name, alpha) or (name, alpha, beta); those of one direction, or of both in turn.
    """
    if value is None:
        return None
    plain = PLAIN[kind]
    if isinstance(value, str) or not isinstance(value, (tuple, list)):
        raise TypeError(f"activations: expected a sequence of {len(plain)} names, got {type(value).__name__}")
    if len(value) not in (len(plain), directions * len(plain)):
        raise ValueError(f"activations: expected {len(plain)}" + " or twice as many" * (directions == 2)
                         + f" (f, g, h of ONNX), got {len(value)}")
    found = tuple(map(_activation, value))
    if all(one == (name, *ACTIVATIONS[name]) for one, name in zip(found, plain * directions)):
        return None
    return found


def _activation(value):
    name, *given = value if isinstance(value, (tuple, list)) and value else (value,)
    check.choice(name, "activations", tuple(ACTIVATIONS))
    defaults = ACTIVATIONS[name]
    if len(given) > 2 or any(x is not None and default is None for x, default in zip(given, defaults)):
        raise ValueError(f"activations: {name!r} takes {2 - defaults.count(None)} numbers, got {value}")
    return name, *(default if x is None else check.number(x, f"activations: {name} {which}")
                   for which, x, default in zip(("alpha", "beta"), (*given, None, None), defaults))


def freeze(a):
    a.flags.writeable = False
    return a


def initialise(wanted, hidden_size, dtype, rng):
    """Every parameter from U(-1/sqrt(H), 1/sqrt(H)), as torch does; zeros that take no memory where rng is UNDRAWN."""
    bound = 1 / math.sqrt(hidden_size)      # a Python float: in-place arithmetic then needs no casting buffers
    found = {}
    for name, shape in wanted.items():
        check.addressable(name, *shape, itemsize=dtype.itemsize)
        if rng is UNDRAWN:
            found[name] = np.broadcast_to(dtype.type(0), shape)
            continue
        values = rng.random(shape, dtype=dtype)
        values *= 2 * bound
        values -= bound
        found[name] = freeze(values)
    return found


def load(mapping, current, dtype, strict):
    """New parameters from a mapping; raises, naming the key, before anything is changed."""
    try:
        given = dict(mapping.items())
    except AttributeError:
        raise TypeError(f"state_dict: expected a mapping of names to arrays, got {type(mapping).__name__}") from None
    missing = [name for name in current if name not in given]
    unknown = [name for name in given if name not in current]
    if strict and (missing or unknown):
        raise ValueError("state_dict: " + "; ".join(
            f"{what} key{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"
            for what, names in (("missing", missing), ("unknown", unknown)) if names))
    loaded = dict(current)
    for name in current:
        if name in given:
            value = check.shaped(check.array(given[name], name, dtype), name, current[name].shape)
            loaded[name] = freeze(np.array(value, dtype, order="C", copy=True))
    return loaded
