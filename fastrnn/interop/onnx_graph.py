"""The graphs of an ONNX model: its recurrent nodes, and the constants that they are given.

Exporters leave weights as they were and put nodes in front of an operator that move them about: slices of gates put in
another order, axes added. ``Scope.value`` follows such a chain back to its constants and does with NumPy what it says.
"""

from __future__ import annotations

import array
import contextlib
import functools
import itertools
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from .._base.reading import ModelFormatError
from .formats.protobuf import BYTES, Node, Reader, Reference
from .onnx_loops import LOOP, LOOPS, looks_recurrent
from .onnx_nodes import foreign
from .onnx_operators import COMPUTED, MOVES, NotConstant, fold
from .onnx_quantized import DOMAIN, OPERATOR
from .onnx_run import Budget
from .onnx_shapes import Shapes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._base.typing import Array

Span: TypeAlias = tuple[int, int]
Found: TypeAlias = "tuple[Scope, Node, str | None]"
RECURRENT = ("RNN", "GRU", "LSTM")
DEPTH = 64                      # of graphs within graphs, functions that call functions, and chains of constants
FUNCTIONS = 1 << 13             # of one model
SCOPES = 1 << 16                # graphs, and calls of functions, in one model
NODE, INITIALIZER, INPUT = range(3)
# Fields of the messages: of ModelProto, and of GraphProto and FunctionProto what they give.
MODEL = {7: BYTES, 8: BYTES, 14: BYTES, 25: BYTES}
GRAPH = {1: NODE, 5: INITIALIZER, 11: INPUT}
FUNCTION = {7: NODE, 4: INPUT}
NAMES = {NODE: {2: BYTES}, INITIALIZER: {8: BYTES}, INPUT: {1: BYTES}}      # where each has the names that it gives


def is_recurrent(node: Node) -> bool:
    """Whether a node is one of ONNX's own recurrent operators, or of ONNX Runtime's quantised LSTM."""
    return node.op_type in RECURRENT if not node.domain else (node.domain, node.op_type) == (DOMAIN, OPERATOR)


class Model(Reader):
    """An ONNX model: what a Reader of its bytes finds at the top.

    Attributes
    ----------
    main : Scope
        The main graph.
    functions : dict of (domain, name, overload) to span
    loops_budget : Budget
        What may be computed to tell what loops are.
    recurrent_nodes : int
        How many were found within functions and other nodes up to now.
    fastrnn : str or None
        The metadata under this name, where fastrnn wrote the model.
    """

    def __init__(self, data: bytes, path: str = "", external_data: bool = True) -> None:
        super().__init__(data, path, external_data)
        self._depth, self._scopes, self.fastrnn, self.functions = 0, 0, None, {}
        self.recurrent_nodes = 0
        self.loops_budget = Budget(self)
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

    def count_scope(self) -> None:
        self._scopes += 1
        if self._scopes > SCOPES:
            raise ModelFormatError(f"more than {SCOPES} graphs and calls of functions")

    def counted(self, nodes: Iterator[Found]) -> Iterator[Found]:
        """Yields nodes, and counts them in `recurrent_nodes`."""
        for node in nodes:
            self.recurrent_nodes += 1
            yield node

    @contextlib.contextmanager
    def deeper(self) -> Iterator[None]:
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

    def __init__(self, model: Model, span: Span, outer: Scope | None = None, call: Node | None = None) -> None:
        model.count_scope()
        self.model, self.span, self.outer, self.call = model, span, outer, call
        self._known: dict[str, Array | None] = {}
        self._index: list[Array] | None = None

    def _items(self, *kinds: int) -> Iterator[tuple[int, Span]]:
        """Yields (kind, span) of nodes, initializers and inputs; of these kinds alone."""
        fields = {number: kind for number, kind in (GRAPH if self.call is None else FUNCTION).items() if kind in kinds}
        for number, place in self.model.fields(self.span, dict.fromkeys(fields, BYTES)):
            yield fields[number], place

    def _names(self, kind: int, place: Span) -> list[str]:
        """The names that a node, initializer or input gives."""
        if kind == INPUT and self.call is not None:
            return [self.model.text(place)]
        return [self.model.text(value) for _, value in self.model.fields(place, NAMES[kind])]

    def _indexed(self) -> list[Array]:
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

    def find(self, name: str) -> tuple[int, Span] | None:
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

    def nodes(self) -> Iterator[Node]:
        """Yields every Node of this scope alone."""
        for _, place in self._items(NODE):
            yield Node(self.model, place)

    def recurrent(self) -> Iterator[Found]:
        """Yields (scope, node, None) of every recurrent node, those of graphs and functions within included.

        With a reason in the place of None: nodes that are recurrent, and of no operator that is read. With LOOP in it:
        a Loop or Scan without such nodes whose body looks like a step of one.
        """
        with self.model.deeper():
            for node in self.nodes():
                function = self.model.functions.get((node.domain, node.op_type, node.overload))
                if is_recurrent(node) and (function is None or not node.domain):
                    yield self, node, None
                    continue
                if function is not None:
                    count = self.model.recurrent_nodes
                    yield from self.model.counted(Scope(self.model, function, self, node).recurrent())
                    known = self.model.recurrent_nodes > count
                else:
                    known = False
                if not known and (reason := foreign(self, node, function is not None)) is not None:
                    yield self, node, reason
                count = self.model.recurrent_nodes
                for attribute in node.attributes:
                    for graph in self.model.subgraphs(attribute):
                        yield from self.model.counted(Scope(self.model, graph, self).recurrent())
                if node.op_type in LOOPS and not node.domain and count == self.model.recurrent_nodes and (
                        looks_recurrent(self, node)):
                    yield self, node, LOOP

    def within(self, node: Node) -> Scope:
        """The scope of the one graph that a Loop or Scan has."""
        spans = [span for attribute in node.attributes for span in self.model.subgraphs(attribute)]
        if len(spans) != 1:
            raise ModelFormatError(f"{node.op_type} node {node.name!r} with {len(spans)} graphs")
        return Scope(self.model, spans[0], self)

    def attributes(self, node: Node) -> dict[str, Any]:
        """Name -> value of a node's attributes."""
        found = {}
        for span in node.attributes:
            name, value = self.model.attribute(span)
            if name in found:
                raise ModelFormatError(f"attribute {name!r} is given more than once")
            found[name] = self._argument(value) if isinstance(value, Reference) else value
        return {name: value for name, value in found.items() if value is not None}

    def _argument(self, name: str) -> Any:
        """The value of an attribute of the function that this is in; None where it has none."""
        if self.call is None:
            return self.outer._argument(name) if self.outer is not None else None
        given = cast("Scope", self.outer).attributes(self.call)
        if name not in given:
            for _, span in self.model.fields(self.span, {11: BYTES}):
                default, value = self.model.attribute(span)
                given.setdefault(default, value)
        return given.get(name)

    def initializers(self, most: int) -> list[tuple[str, list[int]]]:
        """(name, shape) of the first arrays that this scope has, as many as `most`."""
        found: list[tuple[str, list[int]]] = []
        dims: list[int]
        for _, place in self._items(INITIALIZER):
            if len(found) == most:
                break
            name, dims = "", []
            for number, value in self.model.fields(place, {1: None, 8: BYTES}):
                if number == 8:
                    name = self.model.text(value)
                else:
                    dims.extend(itertools.islice(self.model.integers(value), 32))
            found.append((name[:100], dims[:32]))
        return found

    # ---- Shapes and sources ----------------------------------------------------------------------

    @functools.cached_property
    def shapes(self) -> Shapes:
        """What is known of the shapes of the arrays of this scope."""
        return Shapes(self)

    def producer(self, name: str) -> tuple[Scope, Any] | None:
        """Where an array comes from: (this scope, its Node), or (another scope, the name there).

        The node is None for initializers. None stands for what comes with the inputs of a graph, or from nowhere.
        """
        kind, place = self.find(name) or (None, (0, 0))
        if kind is None and self.call is None and self.outer is not None:
            return self.outer, name
        if kind == INPUT and self.call is not None:
            given = self._actual(name)
            return (cast("Scope", self.outer), given) if given else None
        if kind is None or kind == INPUT:
            return None
        return self, Node(self.model, place) if kind == NODE else None

    def _actual(self, name: str) -> str | None:
        """The name that the caller of this function has for its input of a name; None if it gives none."""
        formal = [self.model.text(span) for _, span in self.model.fields(self.span, {4: BYTES})]
        return dict(zip(formal, cast("Node", self.call).inputs)).get(name)

    @functools.cached_property
    def _declared(self) -> dict[int, tuple[float, ...]]:
        """Hash of a name -> its shape, of those that the graph says the shapes of."""
        found = {}
        for number, span in self.model.fields(self.span, {11: BYTES, 13: BYTES}) if self.call is None else ():
            name, shape = self.model.declared_shape(span)
            if shape is not None and (number == 11 or hash(name) not in found):
                self.model.spend(64 + 32 * len(shape), "shapes")
                found[hash(name)] = shape
        return found

    def declared(self, name: str) -> tuple[float, ...] | None:
        """The shape that the graph says an array has, with NaN for sizes it leaves open; None if it says nothing."""
        return self._declared.get(hash(name))

    # ---- Constants -------------------------------------------------------------------------------

    def value(self, name: str) -> Array | None:
        """The array that a name stands for; None for "", which stands for none. NotConstant where it is no constant."""
        if not name:
            return None
        if name not in self._known:
            with self.model.deeper():
                self._known |= self._folded(name)
        return self._known[name]

    def _folded(self, name: str) -> dict[str, Array | None]:
        """Name -> array, of this name and of what comes with it."""
        kind, place = self.find(name) or (None, (0, 0))
        if kind is None and self.call is None and self.outer is not None:
            return {name: self.outer.value(name)}
        if kind is None:
            raise NotConstant(f"{name!r} is not a constant: nothing in the graph gives it")
        if kind == INITIALIZER:
            return {name: self.model.tensor(place)}
        if kind == INPUT and self.call is None:
            raise NotConstant(f"{name!r} is not a constant: it is an input of the graph")
        if kind == INPUT:
            return {name: cast("Scope", self.outer).value(self._actual(name) or "")}
        node = Node(self.model, place)
        if node.domain not in ("", "com.microsoft" if node.op_type == "DequantizeLinear" else "") or (
                node.op_type not in MOVES and node.op_type not in COMPUTED):
            raise NotConstant(f"{name!r} is not a constant: {node.op_type} node {node.name!r} computes it")
        try:
            inputs = [self.value(given) for given in node.inputs]
        except NotConstant:
            sizes = self.shapes.sizes(name)     # those that are asked for may be known where others are not
            if sizes is None or np.isnan(sizes).any():
                raise
            return {name: sizes.astype(np.int64)}
        outputs = fold(node, inputs, self.attributes(node), self.model)
        found: dict[str, Array | None] = dict(zip(node.outputs, outputs))
        if name not in found:
            raise ModelFormatError(f"{name!r}: {node.op_type} node {node.name!r} has {len(outputs)} outputs")
        return found
