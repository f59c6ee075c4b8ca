"""The graphs of an ONNX model: its recurrent nodes, and the constants that they are given.

Exporters leave weights as they were and put nodes in front of an operator that move them about: slices of gates put in
another order, axes added, scales multiplied. ``Scope.value`` follows such a chain back to its constants and does with
NumPy what it says.
"""

import array
import contextlib
import math
import re

import numpy as np

from .._base.reading import ModelFormatError
from .formats import protobuf
from .formats.protobuf import BYTES, RANK, Node, Reader, Reference

RECURRENT = ("RNN", "GRU", "LSTM")
OTHER_RECURRENT = re.compile(r"RNN|GRU|LSTM|(?:^|_)(?:rnn|gru|lstm)(?:_|$)")      # operators of other domains
DEPTH = 64                      # of graphs within graphs, functions that call functions, and chains of constants
FUNCTIONS = 1 << 13             # of one model
SCOPES = 1 << 16                # graphs, and calls of functions, in one model
NODE, INITIALIZER, INPUT = range(3)
# Fields of the messages: of ModelProto, and of GraphProto and FunctionProto what they give.
MODEL = {7: BYTES, 8: BYTES, 14: BYTES, 25: BYTES}
GRAPH = {1: NODE, 5: INITIALIZER, 11: INPUT}
FUNCTION = {7: NODE, 4: INPUT}
NAMES = {NODE: {2: BYTES}, INITIALIZER: {8: BYTES}, INPUT: {1: BYTES}}      # where each has the names that it gives


class NotConstant(ModelFormatError):
    """A weight that is computed from the model's inputs, or by operators that are not followed."""


class Model(Reader):
    """An ONNX model: what a Reader of its bytes finds at the top.

    Attributes
    ----------
    main : Scope
        The main graph.
    functions : dict of (domain, name, overload) to span
    fastrnn : str or None
        The metadata under this name, where fastrnn wrote the model.
    """

    def __init__(self, data, path="", external_data=False):
        super().__init__(data, path, external_data)
        self._depth, self._scopes, self.fastrnn, self.functions = 0, 0, None, {}
        graphs, opsets = [], 0
        for number, span in self.fields((0, len(data)), MODEL):
            if number == 7:
                graphs.append(span)
            elif number == 8:
                opsets += 1
            elif number == 14:
                key, value = self.pair(span)
                self.fastrnn = value if key == "fastrnn" else self.fastrnn
            else:
                names = dict.fromkeys((10, 1, 13), "")      # domain, name, overload
                names |= {field: self.text(value) for field, value in self.fields(span, dict.fromkeys(names, BYTES))}
                self.functions[tuple(names.values())] = span
            if len(graphs) > 1 or len(self.functions) > FUNCTIONS:
                raise ModelFormatError(f"a model of more than one graph, or of more than {FUNCTIONS} functions")
        if not graphs or not opsets:
            raise ModelFormatError("not an ONNX model: it has no graph, or names no operator set")
        self.main = Scope(self, graphs[0])

    def count_scope(self):
        self._scopes += 1
        if self._scopes > SCOPES:
            raise ModelFormatError(f"more than {SCOPES} graphs and calls of functions")

    @contextlib.contextmanager
    def deeper(self):
        """Counts what is nested, or follows one another."""
        self._depth += 1
        if self._depth > DEPTH:
            raise ModelFormatError(f"graphs, functions or constants are nested, or chained, more than {DEPTH} deep")
        try:
            yield
        finally:
            self._depth -= 1


class Scope:
    """A graph, or the body of a function where it is called, and the names in it.

    Of every name only a hash is kept and the place of what gives it: a fraction of what objects would take.

    Parameters
    ----------
    model : Model
    span : (int, int)
        Of the GraphProto or FunctionProto.
    outer : Scope, optional
        Around this one.
    call : Node, optional
        Of `outer`, where this is a function's body.
    """

    def __init__(self, model, span, outer=None, call=None):
        model.count_scope()
        self.model, self.span, self.outer, self.call = model, span, outer, call
        self._known, self._index = {}, None

    def _items(self, *kinds):
        """Yields (kind, span) of nodes, initializers and inputs; of these kinds alone."""
        fields = {number: kind for number, kind in (GRAPH if self.call is None else FUNCTION).items() if kind in kinds}
        for number, place in self.model.fields(self.span, dict.fromkeys(fields, BYTES)):
            yield fields[number], place

    def _names(self, kind, place):
        """The names that a node, initializer or input gives."""
        if kind == INPUT and self.call is not None:
            return [self.model.text(place)]
        return [self.model.text(value) for _, value in self.model.fields(place, NAMES[kind])]

    def _indexed(self):
        """(hashes, starts, stops): of each name its hash, in order, start << 2 | kind and stop of what gives it."""
        if self._index is None:
            hashes, starts, stops = array.array("q"), array.array("q"), array.array("q")
            for kind, place in self._items(NODE, INITIALIZER, INPUT):
                for name in self._names(kind, place):
                    hashes.append(hash(name))
                    starts.append(place[0] << 2 | kind)
                    stops.append(place[1])
            order = np.argsort(np.frombuffer(hashes, np.int64))
            self._index = [np.frombuffer(column, np.int64)[order] for column in (hashes, starts, stops)]
        return self._index

    def _find(self, name):
        """(kind, span) of what gives a name in this scope, or None.

        Up to IR version 3 an initializer is an input as well: then it is the initializer.
        """
        found, (hashes, starts, stops) = {}, self._indexed()
        for at in range(np.searchsorted(hashes, hash(name)), len(hashes)):
            if hashes[at] != hash(name):
                break
            start, stop = int(starts[at]), int(stops[at])
            kind, place = start & 3, (start >> 2, stop)
            if name in self._names(kind, place):
                if (kind == INPUT) in found:
                    raise ModelFormatError(f"{name!r} is given more than once")
                found[kind == INPUT] = kind, place
        return found.get(False, found.get(True))

    # ---- Nodes -----------------------------------------------------------------------------------

    def nodes(self):
        """Yields every Node of this scope alone."""
        for _, place in self._items(NODE):
            yield Node(self.model, place)

    def recurrent(self):
        """Yields (scope, node) of every recurrent node, those of graphs and functions within included."""
        with self.model.deeper():
            for node in self.nodes():
                if not node.domain and node.op_type in RECURRENT:
                    yield self, node
                    continue
                function = self.model.functions.get((node.domain, node.op_type, node.overload))
                if function is not None:
                    yield from Scope(self.model, function, self, node).recurrent()
                elif OTHER_RECURRENT.search(node.op_type):
                    yield self, node            # which makes no layer, and is named
                for attribute in node.attributes:
                    for graph in self.model.subgraphs(attribute):
                        yield from Scope(self.model, graph, self).recurrent()

    def attributes(self, node):
        """Name -> value of a node's attributes."""
        found = {}
        for span in node.attributes:
            name, value = self.model.attribute(span)
            if name in found:
                raise ModelFormatError(f"attribute {name!r} is given more than once")
            found[name] = self._argument(value) if isinstance(value, Reference) else value
        return {name: value for name, value in found.items() if value is not None}

    def _argument(self, name):
        """The value of an attribute of the function that this is in; None where it has none."""
        if self.call is None:
            return self.outer._argument(name) if self.outer is not None else None
        given = self.outer.attributes(self.call)
        if name not in given:
            for _, span in self.model.fields(self.span, {11: BYTES}):
                default, value = self.model.attribute(span)
                given.setdefault(default, value)
        return given.get(name)

    # ---- Constants -------------------------------------------------------------------------------

    def value(self, name):
        """The array that a name stands for; None for "", which stands for none. NotConstant where it is no constant."""
        if not name:
            return None
        if name not in self._known:
            with self.model.deeper():
                self._known |= self._folded(name)
        return self._known[name]

    def _folded(self, name):
        """Name -> array, of this name and of what comes with it."""
        kind, place = self._find(name) or (None, None)
        if kind is None and self.call is None and self.outer is not None:
            return {name: self.outer.value(name)}
        if kind is None:
            raise NotConstant(f"{name!r} is not a constant: nothing in the graph gives it")
        if kind == INITIALIZER:
            return {name: self.model.tensor(place)}
        if kind == INPUT and self.call is None:
            raise NotConstant(f"{name!r} is not a constant: it is an input of the graph")
        if kind == INPUT:
            formal = [self.model.text(span) for _, span in self.model.fields(self.span, {4: BYTES})]
            return {name: self.outer.value(dict(zip(formal, self.call.inputs)).get(name))}
        node = Node(self.model, place)
        if node.domain or node.op_type not in FOLDS:
            raise NotConstant(f"{name!r} is not a constant: {node.op_type} node {node.name!r} computes it")
        outputs = move(node, [self.value(given) for given in node.inputs], self.attributes(node), self.model.spend)
        found = dict(zip(node.outputs, outputs))
        if name not in found:
            raise ModelFormatError(f"{name!r}: {node.op_type} node {node.name!r} has {len(outputs)} outputs")
        return found


# ---- Operators that move numbers and compute none -------------------------------------------------

CAST = {1: np.float32, 6: np.int32, 7: np.int64, 10: np.float16, 11: np.float64}
COPIES = {"Concat": None, "Reshape": None, "Cast": 8}       # which may copy numbers, and of what size if it is another


def move(node, inputs, attributes, spend=None):
    """The outputs of a node whose operator is in FOLDS, views of its inputs where they can be."""
    if spend is not None:
        if node.op_type in COPIES:
            sizes = [a.size * (COPIES[node.op_type] or a.itemsize) for a in inputs if a is not None]
            spend(sum(sizes), f"{node.op_type} node {node.name!r}")
        elif node.op_type not in MOVES:
            spend(_made(node, inputs), f"{node.op_type} node {node.name!r}")
    count = {"count": len(node.outputs)} if node.op_type == "Split" else {}
    try:
        with np.errstate(all="ignore"):
            outputs = FOLDS[node.op_type](attributes, *inputs, **count)
    except (ValueError, TypeError, IndexError, KeyError, OverflowError) as error:
        raise ModelFormatError(f"{node.op_type} node {node.name!r}: {type(error).__name__}: {error}") from error
    return outputs if isinstance(outputs, list) else [outputs]


def _made(node, inputs):
    """The bytes that an operator which computes takes for its output, at most."""
    shapes = [a.shape for a in inputs if a is not None]
    try:
        if node.op_type in ("Expand", "ConstantOfShape"):
            size = inputs[-1]
            if size.ndim != 1 or len(size) > RANK or not all(0 <= int(n) < 1 << 40 for n in size):
                raise ModelFormatError(f"{node.op_type} node {node.name!r}: {size!r:.100} is no shape")
            shapes = [*shapes[:-1], tuple(int(n) for n in size)]
        elif node.op_type == "Gather":
            return 8 * inputs[0].size * max(inputs[1].size, 1) // max(min(inputs[0].shape, default=1), 1)
        return 8 * math.prod(np.broadcast_shapes(*shapes)) if node.op_type != "DequantizeLinear" else 8 * inputs[0].size
    except (ValueError, AttributeError, IndexError) as error:
        raise ModelFormatError(f"{node.op_type} node {node.name!r}: {error}") from None


def _ints(given, attributes, name, most=RANK):
    """Integers that are an input in newer operator sets and an attribute in older ones; None where they are neither."""
    given = attributes.get(name) if given is None else given
    if np.size(given) > most:
        raise ValueError(f"{name}: {np.size(given)} integers")
    return None if given is None else [int(number) for number in given]


def _constant(attributes):
    (name, value), = attributes.items()
    if name not in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        raise ValueError(f"a constant given as {name}")
    return np.float32(value) if name == "value_float" else np.asarray(value)


def _reshape(attributes, x, shape=None):
    shape = _ints(shape, attributes, "shape")
    if not attributes.get("allowzero"):
        shape = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    return x.reshape(shape)


def _squeeze(attributes, x, axes=None):
    axes = _ints(axes, attributes, "axes")
    return np.squeeze(x, None if axes is None else tuple(axes))


def _unsqueeze(attributes, x, axes=None):
    return np.expand_dims(x, tuple(_ints(axes, attributes, "axes")))


def _slice(attributes, x, starts=None, ends=None, axes=None, steps=None):
    starts, ends, axes, steps = (_ints(given, attributes, name) for given, name in
                                 ((starts, "starts"), (ends, "ends"), (axes, "axes"), (steps, "steps")))
    axes = range(len(starts)) if axes is None else axes
    cut = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(starts), strict=True):
        cut[axis] = slice(start, end, step)
    return x[tuple(cut)]


def _split(attributes, x, sizes=None, *, count):
    axis = attributes.get("axis", 0)
    sizes = _ints(sizes, attributes, "split", protobuf.NAMES) or [-(-x.shape[axis] // count)] * (count - 1)
    ends = np.cumsum([0, *sizes])
    if ends[-1] > x.shape[axis] or min(sizes, default=0) < 0:
        raise ValueError(f"an axis of {x.shape[axis]} cannot be split into {sizes}")
    return np.split(x, ends[1:count], axis)


def _shape(attributes, x):
    return np.array(x.shape[attributes.get("start", 0):attributes.get("end")], np.int64)


def _gather(attributes, x, indices):
    return np.take(x, indices, attributes.get("axis", 0))


def _constant_of_shape(attributes, shape):
    value = attributes.get("value", np.zeros(1, np.float32))
    return np.full([int(n) for n in shape], np.asarray(value).reshape(-1)[0])


def _expand(attributes, x, shape):
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(int(n) for n in shape)))


def _dequantize(attributes, x, scale, zero_point=None):
    """(x - zero_point) * scale, per tensor or along one axis."""
    if attributes.get("block_size"):
        raise ValueError("quantised in blocks")

    def along(a):
        return a if a.size == 1 else a.reshape([-1 if axis == attributes.get("axis", 1) % x.ndim else 1
                                                for axis in range(x.ndim)])
    shifted = x.astype(np.int32) - (0 if zero_point is None else along(zero_point.astype(np.int32)))
    return shifted.astype(scale.dtype) * along(scale)


def _divide(attributes, x, y):
    if x.dtype.kind in "iu":
        quotient = np.abs(x) // np.abs(y)           # towards zero
        return (np.sign(x) * np.sign(y) * quotient).astype(x.dtype)
    return x / y


def _cast(attributes, x):
    if attributes["to"] not in CAST:
        raise ValueError(f"a cast to type {attributes['to']} (TensorProto.DataType)")
    return x.astype(CAST[attributes["to"]], copy=False)


MOVES = {
    "Constant": _constant,
    "Identity": lambda attributes, x: x,
    "Transpose": lambda attributes, x: np.transpose(x, _ints(None, attributes, "perm")),
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Slice": _slice,
    "Split": _split,
    "Concat": lambda attributes, *inputs: np.concatenate(inputs, attributes["axis"]),
    "Cast": _cast,
}
# What is computed of constants, too: exporters leave it around weights.
FOLDS = MOVES | {
    "Shape": _shape,
    "Gather": _gather,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "DequantizeLinear": _dequantize,
    "Mul": lambda attributes, x, y: x * y,
    "Add": lambda attributes, x, y: x + y,
    "Sub": lambda attributes, x, y: x - y,
    "Div": _divide,
    "Neg": lambda attributes, x: -x,
}
