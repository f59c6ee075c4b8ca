"""Graphs of an ONNX model computed in NumPy, as far as recurrent steps that were written out as loops need it.

All floating-point numbers are float64 here, so that a layer can be compared with a graph to many digits. Only what is
asked for is computed. Nodes, numbers and steps are counted, and a model that asks for too many of them is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._base.reading import ModelFormatError
from .formats.protobuf import BYTES, Node
from .onnx_operators import COMPUTED, MOVES, NotConstant, integers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .._base.typing import Array
    from .onnx_graph import Model, Scope

NODES = 1 << 12             # of one graph that is computed
STEPS = 1 << 12             # of one loop
EVALUATIONS = 200_000       # nodes computed for one model, at most, and one more for each 8 bytes of it,
WORK = 100_000_000          # and products of numbers, and so many more
WORK_A_BYTE = 2000          # for each byte of the model
KEPT = 1 << 9               # bytes taken by what is kept of a node


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    y: Array = np.where(x >= 0, 1, e) / (1 + e)
    return y


def _clip(attributes: dict[str, Any], x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    low, high = attributes.get("min", low), attributes.get("max", high)
    return np.clip(x, -np.inf if low is None else low, np.inf if high is None else high)


def _tile(attributes: dict[str, Any], x: Array, repeats: Array) -> Array:
    return np.tile(x, integers(repeats, {}, "repeats") or [])


def _reverse(attributes: dict[str, Any], x: Array, lengths: Array) -> Array:
    time, batch = attributes.get("time_axis", 0), attributes.get("batch_axis", 1)
    moved = np.moveaxis(x, (time, batch), (0, 1)).copy()
    for row, length in enumerate(lengths):
        moved[:length, row] = moved[:length, row][::-1]
    return np.moveaxis(moved, (0, 1), (time, batch))


def _joined(function: Callable[..., Any]) -> Callable[..., Any]:
    def operator(attributes: dict[str, Any], first: Array, *others: Array) -> Array:
        for other in others:
            first = function(first, other)
        return first
    return operator


# The activations that a layer may have: ONNX's operator -> (its name there, defaults of alpha and beta).
ACTIVATIONS: dict[str, tuple[str, float | None, float | None]] = {
    "Sigmoid": ("sigmoid", None, None), "Tanh": ("tanh", None, None), "Relu": ("relu", None, None),
    "HardSigmoid": ("hard_sigmoid", 0.2, 0.5), "LeakyRelu": ("leaky_relu", 0.01, None), "Elu": ("elu", 1.0, None),
    "Softplus": ("softplus", None, None), "Softsign": ("softsign", None, None)}
OPERATORS: dict[str, Callable[..., Any]] = MOVES | COMPUTED | {
    "Sigmoid": lambda attributes, x: _sigmoid(x),
    "Tanh": lambda attributes, x: np.tanh(x),
    "Relu": lambda attributes, x: np.maximum(x, 0),
    "HardSigmoid": lambda attributes, x: np.clip(
        attributes.get("alpha", 0.2) * x + attributes.get("beta", 0.5), 0, 1),
    "LeakyRelu": lambda attributes, x: np.where(x < 0, attributes.get("alpha", 0.01) * x, x),
    "Elu": lambda attributes, x: np.where(x < 0, attributes.get("alpha", 1.0) * np.expm1(np.minimum(x, 0)), x),
    "Softplus": lambda attributes, x: np.logaddexp(0, x),
    "Softsign": lambda attributes, x: x / (1 + np.abs(x)),
    "Exp": lambda attributes, x: np.exp(x),
    "Clip": _clip,
    "Min": _joined(np.minimum), "Max": _joined(np.maximum), "Sum": _joined(np.add),
    "GreaterOrEqual": lambda attributes, a, b: a >= b, "LessOrEqual": lambda attributes, a, b: a <= b,
    "Tile": _tile,
    "ReverseSequence": _reverse,
}


class Budget:
    """What may be computed of one model.

    Parameters
    ----------
    model : Model
        The model, whose size says how much.
    """

    def __init__(self, model: Model) -> None:
        self.evaluations = EVALUATIONS + len(model.data) // 8
        self.work = WORK + WORK_A_BYTE * len(model.data)
        self.room = 4 * len(model.data) + (1 << 20)     # bytes of the arrays of one graph

    def spend(self, work: int) -> None:
        """Count a node, and the numbers that it takes."""
        self.evaluations -= 1
        self.work -= work
        if self.evaluations < 0 or self.work < 0:
            raise ModelFormatError("it takes too long to compute")


class Graph:
    """A graph that is computed any number of times: its nodes, made once.

    Parameters
    ----------
    scope : Scope
        The graph, or the body of a function.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope, model = scope, scope.model
        self.nodes: list[Node] = []
        for node in scope.nodes():
            model.spend(KEPT + sum(map(len, (*node.inputs, *node.outputs))), "nodes")
            self.nodes.append(node)
            if len(self.nodes) > NODES:
                raise ModelFormatError(f"a graph of more than {NODES} nodes")
        self.made = {name for node in self.nodes for name in node.outputs}
        ends: dict[int, list[str]] = {11: [], 12: []}
        for number, span in model.fields(scope.span, dict.fromkeys(ends, BYTES)) if scope.call is None else ():
            ends[number] += [model.text(value) for _, value in model.fields(span, {1: BYTES})]
        self.inputs, self.outputs = ends[11], ends[12]
        self.constants: dict[str, Array | None] = {}
        self.is_double = False          # whether a constant has float64
        self._attributes: dict[int, dict[str, Any]] = {}
        self._bodies: dict[int, Graph] = {}

    def attributes(self, node: Node) -> dict[str, Any]:
        """The attributes of a node, read once."""
        if id(node) not in self._attributes:
            self._attributes[id(node)] = self.scope.attributes(node)
        return self._attributes[id(node)]

    def body(self, node: Node) -> Graph:
        """The graph within a Loop or Scan."""
        if id(node) not in self._bodies:
            self._bodies[id(node)] = Graph(self.scope.within(node))
        return self._bodies[id(node)]

    def constant(self, name: str) -> Array | None:
        """The constant of a name as float64; None where it is none."""
        if name not in self.constants:
            try:
                a: Array | None = self.scope.value(name)
            except NotConstant:
                a = None
            if a is not None and a.dtype.kind == "f":
                self.is_double |= a.dtype.itemsize == 8
                self.scope.model.spend(8 * a.size, "constants")
                a = a.astype(np.float64)
            self.constants[name] = a
        return self.constants[name]


class Run:
    """One computation of a graph.

    Parameters
    ----------
    graph : Graph
        The graph.
    values : dict of str to array
        What is known: its inputs, and whatever stands for arrays that it would compute otherwise.
    budget : Budget
        What may be spent.
    outer : Run, optional
        The computation of the graph around.
    """

    def __init__(self, graph: Graph, values: dict[str, Any], budget: Budget, outer: Run | None = None) -> None:
        self.graph, self.values, self.budget, self.outer = graph, dict(values), budget, outer
        self._room = budget.room

    def value(self, name: str) -> Any:
        """The array of a name; None for no name."""
        if not name:
            return None
        if name not in self.values:
            self._prepare([name])
        return self.values[name]

    def results(self, names: Sequence[str]) -> list[Any]:
        """The arrays of names."""
        self._prepare([name for name in names if name and name not in self.values])
        return [self.values[name] if name else None for name in names]

    def _prepare(self, names: Iterable[str]) -> None:
        """Compute what is needed for the arrays of names: nodes stand in an order in which they can be computed."""
        wanted, plan = {name for name in names if name not in self.values}, []
        for name in list(wanted):
            self._known(name, wanted)
        for node in reversed(self.graph.nodes):
            if wanted.isdisjoint(node.outputs):
                continue
            plan.append(node)
            for name in node.inputs:
                if name and name not in self.values and name not in wanted:
                    wanted.add(name)
                    self._known(name, wanted)
        for node in reversed(plan):
            outputs = self._computed(node)
            self.values |= {name: a for name, a in zip(node.outputs, outputs) if name and name not in self.values}

    def _known(self, name: str, wanted: set[str]) -> None:
        """Look a wanted array up where no node of this graph computes it."""
        if name in self.graph.made:
            return
        constant = self.graph.constant(name) if self.graph.scope.find(name) is not None else None
        if constant is not None:
            self.values[name] = constant
        elif self.outer is None:
            raise NotConstant(f"{name!r} is given by nothing that is computed")
        else:
            self.values[name] = self.outer.value(name)
        wanted.discard(name)

    def _computed(self, node: Node) -> list[Any]:
        inputs: list[Any] = [self.values[name] if name else None for name in node.inputs]
        attributes = self.graph.attributes(node)
        sizes = [a.size for a in inputs if a is not None]
        work = sizes[0] * sizes[1] if node.op_type in ("MatMul", "Gemm") else sum(sizes)
        if node.op_type in ("MatMul", "Gemm") and inputs[0].ndim and inputs[0].shape[-1]:
            work //= inputs[0].shape[-1]
        self.budget.spend(work)
        if node.op_type == "Loop" and not node.domain:
            return self.loop(node, inputs)
        if node.op_type == "Scan" and not node.domain:
            return self.scan(node, inputs)
        if node.domain or node.op_type not in OPERATORS:
            raise NotConstant(f"{node.op_type} node {node.name!r} is none that is followed")
        if node.op_type == "Cast":
            return [inputs[0].astype(np.float64)] if attributes.get("to") in (1, 10, 11) else self._called(
                node, inputs, attributes)
        return self._called(node, inputs, attributes)

    def _called(self, node: Node, inputs: list[Any], attributes: dict[str, Any]) -> list[Any]:
        if node.op_type in ("Expand", "ConstantOfShape", "Tile"):
            sizes = np.ravel(inputs[-1]).astype(float)
            self._keep(8 * int(min(np.prod(np.maximum(sizes, 1)) * (inputs[0].size if len(inputs) > 1 else 1), 1e15)))
        elif node.op_type in ("Add", "Sub", "Mul", "Div", "Where", "MatMul", "Gather"):
            given = [a for a in inputs if a is not None]
            self._keep(8 * (given[0].shape[0] * given[1].size if node.op_type == "MatMul" and given[0].ndim
                            else given[1].size * given[0][:1].size if node.op_type == "Gather"
                            else int(np.prod(np.broadcast_shapes(*(a.shape for a in given)), dtype=object))))
        count = {"count": len(node.outputs)} if node.op_type == "Split" else {}
        with np.errstate(all="ignore"):
            outputs = OPERATORS[node.op_type](attributes, *inputs, **count)
        outputs = outputs if isinstance(outputs, list) else [np.asarray(outputs)]
        self.graph.is_double |= node.op_type == "Constant" and outputs[0].dtype == np.float64
        return [a.astype(np.float64) if a.dtype in (np.float32, np.float16) else a for a in outputs]

    def _keep(self, size: int) -> None:
        """Count bytes of arrays of this computation."""
        self._room -= size
        if self._room < 0:
            raise ModelFormatError("it takes too much memory to compute")

    # ---- Loops -----------------------------------------------------------------------------------

    def loop(self, node: Node, inputs: list[Any]) -> list[Any]:
        """The outputs of a Loop: the last of what it carries, and what it collects of every step."""
        body, carried = self.graph.body(node), list(inputs[2:])
        count = STEPS + 1 if inputs[0] is None else int(inputs[0])
        going, collected, step = inputs[1] is None or bool(np.all(inputs[1])), [], 0
        while going and step < count:
            if step == STEPS:
                raise ModelFormatError(f"a Loop of more than {STEPS} steps")
            values = dict(zip(body.inputs, [np.array(step), np.array(going), *carried], strict=True))
            results = Run(body, values, self.budget, self).results(body.outputs)
            going, carried = bool(np.all(results[0])), results[1:1 + len(carried)]
            collected.append(results[1 + len(carried):])
            self._keep(8 * sum(a.size for a in collected[-1]))
            step += 1
        return carried + [np.stack(parts) for parts in zip(*collected, strict=True)]

    def scan(self, node: Node, inputs: list[Any]) -> list[Any]:
        """The outputs of a Scan: its last states, and what it collects of every step. Axes are 0 alone."""
        body, attributes = self.graph.body(node), self.graph.attributes(node)
        count = int(attributes.get("num_scan_inputs", 0))
        states, sequences = list(inputs[:len(inputs) - count]), list(inputs[len(inputs) - count:])
        backwards = {name: [int(flag) for flag in attributes.get(f"scan_{name}_directions", ())]
                     for name in ("input", "output")}
        if any(np.any(attributes.get(f"scan_{name}_axes", 0)) for name in ("input", "output")) or not count:
            raise ModelFormatError("a Scan over other axes than the first")
        for number, flag in enumerate(backwards["input"][:count]):
            sequences[number] = sequences[number][::-1] if flag else sequences[number]
        if len({len(a) for a in sequences}) != 1 or len(sequences[0]) > STEPS:
            raise ModelFormatError(f"a Scan over sequences of different lengths, or of more than {STEPS} steps")
        collected = []
        for rows in zip(*sequences, strict=True):
            values = dict(zip(body.inputs, [*states, *rows], strict=True))
            results = Run(body, values, self.budget, self).results(body.outputs)
            states = results[:len(states)]
            collected.append(results[len(states):])
            self._keep(8 * sum(a.size for a in collected[-1]))
        outputs = [np.stack(parts) for parts in zip(*collected, strict=True)]
        flags = backwards["output"] + [0] * len(outputs)
        return states + [a[::-1] if flag else a for a, flag in zip(outputs, flags)]
