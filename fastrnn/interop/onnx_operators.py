"""Operators of ONNX in NumPy, as far as exporters leave them between weights and recurrent nodes.

Those in MOVES move numbers and compute none; ONNX's interface for backends uses them too. Those in COMPUTED compute
new numbers: sizes that slices are cut by, products of weight normalisation, dequantised weights. ``fold`` counts what
a node is about to allocate, and the time it takes, against what a model may spend before it calls any of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._base.reading import ModelFormatError
from .formats import protobuf
from .formats.protobuf import RANK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .._base.typing import Array

    Operator = Callable[..., Any]

BLOCK = 64                  # numbers that NumPy handles in the time that one step of the reader takes, at least
CAST: dict[int, type[np.generic]] = {
    1: np.float32, 2: np.uint8, 3: np.int8, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16,
    11: np.float64}
COPIES = {"Concat": None, "Reshape": None, "Flatten": None, "Cast": 8}  # which may copy numbers; of what size if known


class NotConstant(ModelFormatError):
    """A weight that is computed from the model's inputs, or by operators that are not followed."""


def fold(node: protobuf.Node, inputs: Sequence[Array | None], attributes: Mapping[str, Any],
         reader: protobuf.Reader) -> list[Array]:
    """The outputs of a node whose operator is in MOVES or COMPUTED; what it takes is counted before it is taken."""
    if node.op_type in MOVES:
        return move(node, inputs, attributes, reader.spend)
    given = [a for a in inputs if a is not None]
    try:
        reader.walk(sum(a.size for a in given) // BLOCK + 1)
        size, work = _cost(node.op_type, given, attributes)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError) as error:
        if isinstance(error, ModelFormatError):
            raise
        raise ModelFormatError(f"{node.op_type} node {node.name!r}: {type(error).__name__}: {error}") from error
    reader.spend(8 * size, f"{node.op_type} node {node.name!r}")
    reader.walk(work // BLOCK)
    return _called(COMPUTED[node.op_type], node, inputs, attributes)


def _cost(op_type: str, given: Sequence[Array], attributes: Mapping[str, Any]) -> tuple[int, int]:
    """(numbers that are allocated, numbers that are looked at) by an operator of COMPUTED."""
    if op_type in ("Shape", "Size"):
        return 0, 0
    if op_type in ("ConstantOfShape", "Expand"):        # a view, but what it is for takes as much
        shape = _sizes(given[-1])
        size = int(np.prod(np.broadcast_shapes(given[0].shape, shape) if op_type == "Expand" else shape, dtype=object))
        return size, 0
    if op_type == "Gather":
        x, indices = given
        size = x.size // max(1, x.shape[attributes.get("axis", 0)]) * indices.size
        return size, size
    if op_type in ("MatMul", "Gemm"):
        a, b = given[:2]
        rows = a.size // max(1, a.shape[-1]) if a.ndim else 1
        columns = b.size // max(1, b.shape[-2]) if b.ndim > 1 else b.size
        return rows * columns + a.size + b.size, max(rows * b.size, columns * a.size)
    if op_type in ("DequantizeLinear", *REDUCTIONS):
        return given[0].size, given[0].size
    size = int(np.prod(np.broadcast_shapes(*(a.shape for a in given)), dtype=object))
    return size, size


def move(node: protobuf.Node, inputs: Sequence[Array | None], attributes: Mapping[str, Any],
         spend: Callable[[int, str], None] | None = None) -> list[Array]:
    """The outputs of a node whose operator is in MOVES, views of its inputs where they can be."""
    if spend is not None and node.op_type in COPIES:
        sizes = [a.size * (COPIES[node.op_type] or a.itemsize) for a in inputs if a is not None]
        spend(sum(sizes), f"{node.op_type} node {node.name!r}")
    return _called(MOVES[node.op_type], node, inputs, attributes)


def _called(operator: Operator, node: protobuf.Node, inputs: Sequence[Array | None],
            attributes: Mapping[str, Any]) -> list[Array]:
    count = {"count": len(node.outputs)} if node.op_type == "Split" else {}
    try:
        with np.errstate(all="ignore"):
            outputs = operator(attributes, *inputs, **count)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, ZeroDivisionError) as error:
        raise ModelFormatError(f"{node.op_type} node {node.name!r}: {type(error).__name__}: {error}") from error
    return outputs if isinstance(outputs, list) else [outputs]


def integers(value: Any, attributes: Mapping[str, Any], name: str, most: int = RANK) -> list[int] | None:
    """Integers that are an input in newer operator sets and an attribute in older ones; None where they are neither."""
    value = attributes.get(name) if value is None else value
    if np.size(value) > most:
        raise ValueError(f"{name}: {np.size(value)} integers")
    return None if value is None else [int(number) for number in np.ravel(value)]


# ---- Operators that move numbers and compute none -------------------------------------------------

def _constant(attributes: Mapping[str, Any]) -> Any:
    (name, value), = attributes.items()
    if name not in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        raise ValueError(f"a constant given as {name}")
    return np.float32(value) if name == "value_float" else np.asarray(value)


def _reshape(attributes: Mapping[str, Any], x: Array, shape: Array | None = None) -> Array:
    sizes = integers(shape, attributes, "shape") or []
    if not attributes.get("allowzero"):
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(attributes: Mapping[str, Any], x: Array) -> Array:
    axis = attributes.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    rows = int(np.prod(x.shape[:axis], dtype=int))
    return x.reshape(rows, x.size // rows if rows else 0)


def _squeeze(attributes: Mapping[str, Any], x: Array, axes: Array | None = None) -> Array:
    which = integers(axes, attributes, "axes")
    return np.squeeze(x, None if which is None else tuple(which))


def _unsqueeze(attributes: Mapping[str, Any], x: Array, axes: Array | None = None) -> Array:
    return np.expand_dims(x, tuple(integers(axes, attributes, "axes") or ()))


def _slice(attributes: Mapping[str, Any], x: Array, starts: Array | None = None, ends: Array | None = None,
           axes: Array | None = None, steps: Array | None = None) -> Array:
    begins, stops, which, strides = (integers(value, attributes, name) for value, name in
                                     ((starts, "starts"), (ends, "ends"), (axes, "axes"), (steps, "steps")))
    if begins is None or stops is None:
        raise ValueError("starts and ends are missing")
    cut = [slice(None)] * x.ndim
    for axis, start, end, step in zip(range(len(begins)) if which is None else which, begins, stops,
                                      strides or [1] * len(begins), strict=True):
        cut[axis] = slice(start, end, step)
    return x[tuple(cut)]


def _split(attributes: Mapping[str, Any], x: Array, sizes: Array | None = None, *, count: int) -> list[Array]:
    axis = attributes.get("axis", 0)
    parts = integers(sizes, attributes, "split", protobuf.NAMES) or [-(-x.shape[axis] // count)] * (count - 1)
    ends = np.cumsum([0, *parts])
    if ends[-1] > x.shape[axis] or min(parts, default=0) < 0:
        raise ValueError(f"an axis of {x.shape[axis]} cannot be split into {parts}")
    return np.split(x, ends[1:count], axis)


def _cast(attributes: Mapping[str, Any], x: Array) -> Array:
    if attributes["to"] not in CAST:
        raise ValueError(f"a cast to type {attributes['to']} (TensorProto.DataType)")
    return x.astype(CAST[attributes["to"]], copy=False)


MOVES: dict[str, Operator] = {
    "Constant": _constant,
    "Identity": lambda attributes, x: x,
    "Transpose": lambda attributes, x: np.transpose(x, integers(None, attributes, "perm")),
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Slice": _slice,
    "Split": _split,
    "Concat": lambda attributes, *inputs: np.concatenate(inputs, attributes["axis"]),
    "Cast": _cast,
}


# ---- Operators that compute -------------------------------------------------------------------------

def _shape(attributes: Mapping[str, Any], x: Array) -> Array:
    return np.array(x.shape[attributes.get("start", 0):attributes.get("end")], np.int64)


def _sizes(shape: Array) -> tuple[int, ...]:
    """The sizes that an array of them says."""
    if shape.ndim != 1 or shape.dtype.kind not in "iu" or shape.size > RANK or (shape < 0).any():
        raise ValueError(f"{shape!r:.100} is no shape")
    return tuple(shape.tolist())


def _expand(attributes: Mapping[str, Any], x: Array, shape: Array) -> Array:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, _sizes(shape)))


def _constant_of_shape(attributes: Mapping[str, Any], shape: Array) -> Array:
    value = np.reshape(attributes.get("value", np.float32(0)), ())
    return np.broadcast_to(value, _sizes(shape))


def _divide(attributes: Mapping[str, Any], a: Array, b: Array) -> Array:
    """Integers are cut towards zero, as in C."""
    if a.dtype.kind not in "iu":
        quotient: Array = np.divide(a, b)
        return quotient
    if not np.all(b):
        raise ZeroDivisionError("a division by 0")
    signs = np.sign(a) * np.sign(b) if a.dtype.kind == "i" else 1
    return (abs(a) // abs(b) * signs).astype(a.dtype)


def _dequantize(attributes: Mapping[str, Any], x: Array, scale: Array, zero: Array | None = None) -> Array:
    """y = (x - zero) * scale, with a scale and a zero point for all of x, or for each index of an axis of it."""
    if attributes.get("block_size"):
        raise ValueError("weights with a scale for each block")

    def along(a: Array) -> Array:
        if a.size == 1:
            return a.reshape(())
        shape = [1] * x.ndim
        shape[attributes.get("axis", 1)] = a.size
        return a.reshape(shape)

    y = x.astype(np.float32)
    if zero is not None:
        y -= along(zero)
    y *= along(scale)
    return y.astype(scale.dtype, copy=False)


def _gather(attributes: Mapping[str, Any], x: Array, indices: Array) -> Array:
    axis = attributes.get("axis", 0)
    if indices.dtype.kind not in "iu":
        raise ValueError(f"indices of {indices.dtype}")
    return np.take(x, indices, axis)        # an index out of bounds is an IndexError


def _gemm(attributes: Mapping[str, Any], a: Array, b: Array, c: Array | None = None) -> Array:
    a, b = a.T if attributes.get("transA") else a, b.T if attributes.get("transB") else b
    y: Array = (a @ b) * a.dtype.type(attributes.get("alpha", 1))
    if c is not None:
        y = y + c * a.dtype.type(attributes.get("beta", 1))
    return y


def _reduced(function: Operator) -> Operator:
    def reduce(attributes: Mapping[str, Any], x: Array, axes: Array | None = None) -> Array:
        which = integers(axes, attributes, "axes")
        if not which and attributes.get("noop_with_empty_axes"):
            return x
        y = function(x, axis=tuple(which) if which else None, keepdims=bool(attributes.get("keepdims", 1)))
        return np.asarray(y, x.dtype)
    return reduce


REDUCTIONS: dict[str, Operator] = {
    "ReduceL2": _reduced(lambda x, **where: np.sqrt(np.sum(x * x, **where))),
    "ReduceMax": _reduced(np.max), "ReduceMean": _reduced(np.mean), "ReduceMin": _reduced(np.min),
    "ReduceProd": _reduced(np.prod), "ReduceSum": _reduced(np.sum),
    "ReduceSumSquare": _reduced(lambda x, **where: np.sum(x * x, **where)),
}

def _pairwise(function: Operator) -> Operator:
    return lambda attributes, a, b: function(a, b)


COMPUTED: dict[str, Operator] = {
    "Shape": _shape,
    "Size": lambda attributes, x: np.array(x.size, np.int64),
    "Expand": _expand,
    "ConstantOfShape": _constant_of_shape,
    "Gather": _gather,
    "Add": _pairwise(np.add), "Sub": _pairwise(np.subtract), "Mul": _pairwise(np.multiply), "Div": _divide,
    "Pow": lambda attributes, a, b: np.power(a, b).astype(a.dtype),
    "Sqrt": lambda attributes, x: np.sqrt(x),
    "Neg": lambda attributes, x: np.negative(x),
    "Abs": lambda attributes, x: np.abs(x),
    "Reciprocal": lambda attributes, x: np.reciprocal(x),
    "Equal": _pairwise(np.equal), "Less": _pairwise(np.less), "Greater": _pairwise(np.greater),
    "Not": lambda attributes, x: np.logical_not(x),
    "And": _pairwise(np.logical_and), "Or": _pairwise(np.logical_or),
    "Where": lambda attributes, condition, a, b: np.where(condition, a, b),
    "DequantizeLinear": _dequantize,
    "MatMul": _pairwise(np.matmul),
    "Gemm": _gemm,
    **REDUCTIONS,
}
