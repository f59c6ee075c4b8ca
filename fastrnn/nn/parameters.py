"""Names, shapes, initialisation and loading of parameters, by torch's conventions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from .._base import validation as check
from .._base.pieces import copied, mapped
from .._base.typing import Activation, Array, FloatDType, Parameters, ParametersLike

# Gates of each kind of cell: the rows of its weight matrices are this many times hidden_size.
GATES = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3, "gru_before": 3}
UNDRAWN: Final[Any] = object()      # given as `rng`: the parameters come from elsewhere, and nothing is drawn
NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "peephole")
# ONNX's activations and its defaults of alpha and beta; None where an activation does not take that number.
ACTIVATIONS: dict[str, tuple[float | None, float | None]] = {
    "sigmoid": (None, None), "tanh": (None, None), "relu": (None, None), "affine": (1.0, 0.0),
    "leaky_relu": (0.01, None), "thresholded_relu": (1.0, None), "scaled_tanh": (1.0, 1.0),
    "hard_sigmoid": (0.2, 0.5), "elu": (1.0, None), "softsign": (None, None), "softplus": (None, None)}
# The default activations f, g, h of each kind of cell.
PLAIN: dict[str, tuple[str, ...]] = {
    "rnn_tanh": ("tanh",), "rnn_relu": ("relu",), "gru": ("sigmoid", "tanh"), "gru_before": ("sigmoid", "tanh"),
    "lstm": ("sigmoid", "tanh", "tanh")}

_BLOCK = 2**20       # elements: some milliseconds' work

CheckedActivation = tuple[str, float | None, float | None]      # name, alpha, beta
Shapes = dict[str, tuple[int, ...]]


def shapes(gates: int, input_size: int, hidden_size: int, bias: bool, proj_size: int = 0,
           peephole: bool = False) -> Shapes:
    """Name -> shape of one direction of one layer, in torch's order. S is proj_size, or H without projection."""
    state_size = proj_size or hidden_size
    rows = gates * hidden_size
    result: Shapes = {"weight_ih": (rows, input_size), "weight_hh": (rows, state_size)}
    if bias:
        result.update(bias_ih=(rows,), bias_hh=(rows,))
    if proj_size:
        result["weight_hr"] = (proj_size, hidden_size)
    if peephole:
        result["peephole"] = (3 * hidden_size,)
    return result


def layer_suffix(layer: int, direction: int) -> str:
    """torch's ending of a parameter's name: _l0, _l0_reverse, _l1, ..."""
    return f"_l{layer}" + ("_reverse" if direction else "")


def stacked_shapes(gates: int, input_size: int, hidden_size: int, num_layers: int, directions: int, bias: bool,
                   proj_size: int, peephole: bool) -> Shapes:
    """Name -> shape of a stack of layers."""
    state_size = proj_size or hidden_size
    result: Shapes = {}
    for layer in range(num_layers):
        layer_input_size = input_size if layer == 0 else directions * state_size
        for direction in range(directions):
            for name, shape in shapes(gates, layer_input_size, hidden_size, bias, proj_size, peephole).items():
                result[name + layer_suffix(layer, direction)] = shape
    return result


def activations(value: Sequence[Activation] | None, kind: str, directions: int) -> tuple[CheckedActivation, ...] | None:
    """The activations f, g, h of each direction as (name, alpha, beta), or None where all are the kind's defaults.

    The value is a sequence of names, (name, alpha) or (name, alpha, beta): those of one direction, or of both in turn.
    """
    if value is None:
        return None
    defaults = PLAIN[kind]
    if isinstance(value, str) or not isinstance(value, (tuple, list)):
        raise TypeError(f"activations: expected a sequence of {len(defaults)} names, got {type(value).__name__}")
    if len(value) not in (len(defaults), directions * len(defaults)):
        raise ValueError(f"activations: expected {len(defaults)}" + " or twice as many" * (directions == 2)
                         + f" (f, g, h of ONNX), got {len(value)}")
    result = tuple(map(_activation, value))
    if all(one == (name, *ACTIVATIONS[name]) for one, name in zip(result, defaults * directions)):
        return None
    return result


def _activation(value: Any) -> CheckedActivation:
    name, *numbers = value if isinstance(value, (tuple, list)) and value else (value,)
    check.choice(name, "activations", tuple(ACTIVATIONS))
    defaults = ACTIVATIONS[name]
    if len(numbers) > 2 or any(x is not None and default is None for x, default in zip(numbers, defaults)):
        raise ValueError(f"activations: {name!r} takes {2 - defaults.count(None)} numbers, got {value}")
    alpha, beta = (default if x is None else check.number(x, f"activations: {name} {which}")
                   for which, x, default in zip(("alpha", "beta"), (*numbers, None, None), defaults))
    return name, alpha, beta


def freeze(a: Array) -> Array:
    """The array, made read-only."""
    a.flags.writeable = False
    return a


def undrawn(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Read-only zeros that take no memory, in the place of parameters that are loaded next."""
    return np.broadcast_to(dtype.type(0), shape)


def initialise(wanted: Shapes, hidden_size: int, dtype: FloatDType, rng: np.random.Generator) -> Parameters:
    """Every parameter from U(-1/sqrt(H), 1/sqrt(H)), as torch does; nothing is drawn where rng is UNDRAWN."""
    bound = 1 / math.sqrt(hidden_size)      # a Python float: in-place arithmetic then needs no casting buffers
    result = {}
    for name, shape in wanted.items():
        check.addressable(name, *shape, itemsize=dtype.itemsize)
        if rng is UNDRAWN:
            result[name] = undrawn(shape, dtype)
            continue
        values = np.empty(shape, dtype)
        for block in blocks(values):
            rng.random(dtype=dtype, out=block)
            block *= 2 * bound
            block -= bound
        result[name] = freeze(values)
    return result


def blocks(a: Array) -> Iterator[Array]:
    """Views of a contiguous array's elements, one block after the other: between two of them Ctrl-C is answered."""
    flat = a.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        yield flat[start:start + _BLOCK]


def to_bfloat16(value: Array) -> Array:
    """The bits of bfloat16 numbers, the upper halves of those of float32: NumPy has no such dtype.

    Rounded to nearest, ties to even. Finite numbers stay finite, at most the largest bfloat16 number; NaN stays NaN.
    """
    return mapped(_bfloat16_bits, value, np.dtype(np.uint16))


def _bfloat16_bits(value: Array) -> Array:
    with np.errstate(over="ignore"):
        bits = value.astype(np.float32).view(np.uint32)
    size = bits & 0x7FFFFFFF
    rounded = np.minimum(size, 0x7F7F0000)
    rounded = rounded + 0x7FFF + (rounded >> 16 & 1)
    quiet = np.where(size > 0x7F800000, size | 0x00400000, size)
    rounded = np.where(size >= 0x7F800000, quiet, rounded) | (bits & 0x80000000)
    result: Array = rounded >> 16
    return result


def from_bfloat16(value: Array) -> Array:
    """The float32 numbers of bfloat16 bits."""
    return mapped(lambda bits: (bits.astype(np.uint32) << 16).view(np.float32), value, np.dtype(np.float32))


def to_float16(value: Array, name: str) -> Array:
    """Numbers rounded to float16; ValueError where a finite one is beyond its range."""
    with np.errstate(over="ignore"):
        result: Array = value.astype(np.float16)
    if (np.isinf(result) & np.isfinite(value)).any():
        raise ValueError(f"{name}: expected weights of at most 65504 in size, the largest that float16 holds, got "
                         f"{np.abs(value[np.isfinite(value)]).max():g}")
    return result


def _stored(value: Any, name: str, stored: np.dtype[Any], dtype: FloatDType) -> Array:
    """A parameter as the model of this dtype stores it; narrow floats are rounded where wider ones are given."""
    if stored == dtype:
        return check.array(value, name, dtype)
    if stored == np.uint16:             # bfloat16
        exact = getattr(value, "dtype", None) == np.uint16
        return check.exact(value, name, stored) if exact else to_bfloat16(check.array(value, name, dtype))
    if stored == np.float16:
        return to_float16(check.array(value, name, dtype), name)
    return check.exact(value, name, stored)


def load(mapping: ParametersLike, current: Mapping[str, Array], dtype: FloatDType, strict: bool) -> Parameters:
    """New parameters from a mapping. An error names the key, and is raised before anything is changed."""
    try:
        values = dict(mapping.items())
    except AttributeError:
        raise TypeError(f"state_dict: expected a mapping of names to arrays, got {type(mapping).__name__}") from None
    missing = [name for name in current if name not in values]
    unknown = [name for name in values if name not in current]
    if strict and (missing or unknown):
        raise ValueError("state_dict: " + "; ".join(
            f"{what} key{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"
            for what, names in (("missing", missing), ("unknown", unknown)) if names))
    loaded = dict(current)
    for name in current:
        if name in values:
            stored = current[name].dtype        # the model's dtype, but of narrow weights
            value = _stored(values[name], name, stored, dtype)
            loaded[name] = freeze(copied(check.shaped(value, name, current[name].shape), stored))
    return loaded
