"""Loops and Scans of an ONNX model whose bodies are the step of an RNN, GRU or LSTM.

Converters write a recurrent layer as a loop where ONNX's operators do not fit, or where they do not see that they do:
tf2onnx does for masks, for every GRU and SimpleRNN of Keras 3, and for relu. The layer is found by experiment. The
sums that go into the body's activations are linear in the input and the state, so that computing them for the rows of
a unit matrix gives the weights, whatever way the body has for them. Then the parts are put together to a layer in
every way there is, and one is taken only if it gives what the loop gives, to 1e-9 in float64, at random inputs and
states of several sizes: whole sequences, every output, and with masks if there are any.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base.reading import ModelFormatError
from ..nn import GRU, LSTM, RNN
from .formats.protobuf import Node
from .onnx_operators import NotConstant
from .onnx_run import ACTIVATIONS, Budget, Graph, Run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._base.typing import Array
    from .conventions import Layer
    from .onnx_graph import Scope

LOOPS = ("Loop", "Scan")
LOOP = "loop"               # stands for a reason where a loop may be a layer
LOOKS = "whose body looks like a recurrent step"
TOLERANCE = 1e-9
ROWS = 16                   # rows that are computed at once
BLOCKS = 8                  # activations of one step, each for as many units as the state has
SCALES = (0.3, 1.0, 4.0)    # of the random inputs and states
UNKNOWN, OTHERS = (2, 5, 3), (3, 7, 4)      # what stands for sizes that a model leaves open; a second time


class NotRecognised(ModelFormatError):
    """A loop that looks like a recurrent step, but is not shown to be one that a layer has."""


@dataclasses.dataclass
class Block:
    """One activation of a step: of sums W x + R h + b of the input and a state, for as many units as the state has."""

    activation: tuple[str, float | None, float | None]
    name: str                               # of the array that the activation gives,
    place: int                              # and where in it
    sums: str                               # the array that it is taken of
    W: Array
    R: Array
    b: Array

    def parameters(self) -> dict[str, Array]:
        return {"weight_ih": self.W, "weight_hh": self.R, "bias_ih": self.b, "bias_hh": np.zeros_like(self.b)}


def looks_recurrent(scope: Scope, node: Node) -> bool:
    """Tell whether the body of a Loop or Scan has products and activations that depend on what it carries."""
    graph = Graph(scope.within(node))
    count = int(scope.attributes(node).get("num_scan_inputs", 0)) if node.op_type == "Scan" else 0
    carried = graph.inputs[2:] if node.op_type == "Loop" else graph.inputs[:len(graph.inputs) - count]
    depends = {name for name in carried if graph.scope.declared(name) != ()}        # not a counter
    product = activation = False
    for inner in graph.nodes:
        if depends.isdisjoint(inner.inputs):
            continue
        depends |= set(inner.outputs)
        product |= inner.op_type in ("MatMul", "Gemm")
        activation |= inner.op_type in ACTIVATIONS or inner.op_type == "Clip"
    return product and activation


def loop_layer(scope: Scope, node: Node) -> Layer:
    """The layer that a Loop or Scan computes; NotRecognised, with the reason, where none is shown to."""
    budget = scope.model.loops_budget
    try:
        return _Loop(scope, node, budget, UNKNOWN).layer()
    except NotRecognised as error:
        raise NotRecognised(f"a {node.op_type} {LOOKS}, but {error}") from None
    except (NotConstant, ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError,
            ZeroDivisionError) as error:
        raise NotRecognised(f"a {node.op_type} {LOOKS}, which cannot be followed ({error})"[:500]) from None


class _Loop:
    """A loop, with random arrays for the inputs of the model that it is in."""

    def __init__(self, scope: Scope, node: Node, budget: Budget, unknown: tuple[int, ...]) -> None:
        if scope.outer is not None or scope.call is not None:
            raise NotRecognised("it is within another graph or a function, where none is followed")
        self.scope, self.node, self.rng = scope, node, np.random.default_rng(0)
        self.budget, self.graph, self.unknown = budget, Graph(scope), unknown
        self.node = next(each for each in self.graph.nodes if each.outputs == node.outputs)
        self.body = self.graph.body(self.node)
        self.is_scan = node.op_type == "Scan"
        self.run = Run(self.graph, self._model_inputs(), self.budget)
        self._find_sequences()
        self._find_states()

    def _model_inputs(self) -> dict[str, Array]:
        values: dict[str, Array] = {}
        for name in self.graph.inputs:
            shape = self.scope.declared(name)
            if shape is None or self.scope.find(name) is None or len(shape) > 4:
                continue
            open_sizes = itertools.chain(self.unknown, itertools.repeat(3))
            sizes = [next(open_sizes) if np.isnan(size) else int(size) for size in shape]
            if np.prod(sizes, dtype=object) <= len(self.scope.model.data) + (1 << 14):
                values[name] = self.rng.standard_normal(sizes)
        return values

    # ---- What the loop walks along, and what it carries ---------------------------------------------

    def _find_sequences(self) -> None:
        """The input X [T, N, I], and perhaps a mask, by the names of the arrays that a step gets of them."""
        found: dict[str, str] = {}              # the name within the body -> the name outside
        inputs = self.node.inputs
        if self.is_scan:
            count = int(self.graph.attributes(self.node).get("num_scan_inputs", 0))
            found = dict(zip(self.body.inputs[len(inputs) - count:], inputs[len(inputs) - count:]))
        else:
            around = dict(zip(self.body.inputs[2:], inputs[2:]))
            for inner in self.body.nodes:
                if inner.op_type == "Gather" and inner.inputs[0] not in self.body.made:
                    if self.body.attributes(inner).get("axis", 0):
                        raise NotRecognised("it walks along another axis than the first")
                    if inner.inputs[1] not in self.body.inputs[:1] and inner.inputs[1] not in around:
                        raise NotRecognised("it takes its steps in an order that is not followed")
                    found[inner.outputs[0]] = around.get(inner.inputs[0], inner.inputs[0])
        self.x = self.mask = self.x_name = self.mask_name = ""
        for inside, outside in found.items():
            a = self.run.value(outside)
            if a.dtype.kind == "f" and a.ndim == 3 and not self.x:
                self.x, self.x_name = inside, outside
            elif a.dtype.kind == "b" and a.ndim in (2, 3) and not self.mask:
                self.mask, self.mask_name = inside, outside
            else:
                raise NotRecognised("it walks along other arrays than one input and a mask")
        if not self.x:
            raise NotRecognised("no input is found that it walks along")
        if self.mask and (constant := self.scope.shapes.contents(self.mask_name)) is not None and not constant.all():
            raise NotRecognised("its mask is a constant that leaves steps out")
        self.steps, self.rows, self.input_size = self.run.value(self.x_name).shape

    def _find_states(self) -> None:
        """The states that it carries: floats that it changes, and that its outputs depend on."""
        first = 0 if self.is_scan else 2
        carried = self.node.inputs[first:]
        if self.is_scan:
            carried = carried[:len(carried) - int(self.graph.attributes(self.node).get("num_scan_inputs", 0))]
        offset = 0 if self.is_scan else 1
        self.carried = [(inside, outside, self.body.outputs[offset + number])
                        for number, (inside, outside) in enumerate(zip(self.body.inputs[first:], carried))]
        self.collected = self.body.outputs[offset + len(self.carried):]
        starts = {outside: self.run.value(outside) for _, outside, _ in self.carried}
        self.varying = [(inside, outside, after) for inside, outside, after in self.carried if inside != after
                        and starts[outside].dtype.kind == "f" and starts[outside].ndim == 2]
        sizes = {self.run.value(outside).shape[1] for _, outside, _ in self.varying}
        if len(sizes) != 1:
            raise NotRecognised("it carries no state of one size")
        self.hidden_size = sizes.pop()
        x, states = self._random(ROWS)
        before = self._step(x, states)
        self.states = []
        for inside, outside, after in self.varying:
            moved = self._step(x, states | {inside: states[inside] + 0.5})
            if any(np.any(np.asarray(a) != b) for a, b in zip(before, moved, strict=True)):
                self.states.append((inside, outside, after))
        if len(self.states) not in (1, 2):
            raise NotRecognised(f"it has {len(self.states)} states")

    def _random(self, rows: int, scale: float = 1.0) -> tuple[Array, dict[str, Array]]:
        """(x, states by their names in the body), random."""
        return scale * self.rng.standard_normal((rows, self.input_size)), {
            inside: scale * self.rng.standard_normal((rows, self.hidden_size)) for inside, _, _ in self.varying}

    def _body_run(self, x: Array, states: dict[str, Array], values: dict[str, Any] | None = None) -> Run:
        """One step, for as many rows as x has, with all of them unmasked."""
        known: dict[str, Any] = {} if self.is_scan else {
            name: np.array(value) for name, value in zip(self.body.inputs[:2], (0, True))}
        known |= {inside: self.run.value(outside) for inside, outside, _ in self.carried} | states | {self.x: x}
        if self.mask:
            known[self.mask] = np.ones((len(x), *self.run.value(self.mask_name).shape[2:]), bool)
        return Run(self.body, known | (values or {}), self.budget, self.run)

    def _step(self, x: Array, states: dict[str, Array]) -> list[Any]:
        """What the states become, and what is collected."""
        return self._body_run(x, states).results([after for _, _, after in self.varying] + list(self.collected))

    # ---- The parts of the step ------------------------------------------------------------------------

    def _linear(self, name: str, state: str, values: dict[str, Any] | None = None) -> tuple[Array, Array, Array]:
        """(W, R, b) of sums W x + R h + b, of an array of the body: computed for the rows of a unit matrix."""
        I, H = self.input_size, self.hidden_size
        unit, parts = np.eye(I + H), []
        for start in range(-ROWS, I + H, ROWS):
            rows = unit[start:start + ROWS] if start >= 0 else np.zeros((ROWS, I + H))
            states = {inside: np.zeros((len(rows), H)) for inside, _, _ in self.varying} | {state: rows[:, I:]}
            a = self._body_run(rows[:, :I], states, {
                key: np.broadcast_to(value, (len(rows), *np.shape(value)[1:])) for key, value in (values or {}).items()
            }).value(name)
            parts.append(np.broadcast_to(a, (len(rows), a.shape[-1])))
        b = parts[0][0]
        columns = np.concatenate(parts[1:]) - b
        return columns[:I].T, columns[I:].T, b

    def _blocks(self, state: str) -> tuple[list[Block], list[tuple[Node, str]]]:
        """The activations of sums that are linear in x and the state; the other activations, and their sums."""
        blocks: list[Block] = []
        others: list[tuple[Node, str]] = []
        x, states = self._random(ROWS)
        run = self._body_run(x, states)
        for inner in self.body.nodes:
            if inner.op_type not in ACTIVATIONS or inner.domain:
                continue
            sums = run.value(inner.inputs[0])
            if sums.ndim != 2 or sums.shape[1] % self.hidden_size or sums.shape[0] != ROWS:
                raise NotRecognised("an activation is of another size than the state")
            W, R, b = self._linear(inner.inputs[0], state)
            if not _close(x @ W.T + states[state] @ R.T + b, sums):
                others.append((inner, inner.inputs[0]))
                continue
            for place in range(sums.shape[1] // self.hidden_size):
                rows = slice(place * self.hidden_size, (place + 1) * self.hidden_size)
                blocks.append(Block(self._activation(inner), inner.outputs[0], place, inner.inputs[0],
                                    W[rows], R[rows], b[rows]))
        if len(blocks) > BLOCKS:
            raise NotRecognised(f"its step has {len(blocks)} gates")
        return blocks, others

    def _activation(self, node: Node) -> tuple[str, float | None, float | None]:
        name, alpha, beta = ACTIVATIONS[node.op_type]
        attributes = self.body.attributes(node)
        return name, attributes.get("alpha", alpha), attributes.get("beta", beta)

    # ---- Putting the parts together -------------------------------------------------------------------

    def layer(self) -> Layer:
        """The layer of the loop, which is shown to compute what the loop does."""
        self._check_start()
        for cls, order, parameters, options in self._candidates():
            for reverse in (False, True):
                names = {f"{name}_l0": a for name, a in parameters.items()}
                layer = cls.from_parameters(names, self.input_size, self.hidden_size, dtype=np.float64, reverse=reverse,
                                            **options)
                if self._agrees(layer, order) and self._agrees_at_other_sizes(layer, order):
                    dtype = np.float64 if self.graph.is_double or self.body.is_double else np.float32
                    self.scope.model.spend(8 * sum(a.size for a in names.values()), "layers")
                    result: Layer = cls.from_parameters({name: a.astype(dtype) for name, a in names.items()},
                                                        self.input_size, self.hidden_size, dtype=dtype,
                                                        reverse=reverse, **options)
                    return result
        raise NotRecognised("no RNN, GRU or LSTM is shown to compute the same")

    def _check_start(self) -> None:
        """Refuse constant initial states that are not zero."""
        for _, outside, _ in self.states:
            contents = self.scope.shapes.contents(outside)
            if contents is not None and contents.any():
                raise NotRecognised("it starts at a constant state that is not zero")

    def _candidates(self) -> Iterator[tuple[Any, list[int], dict[str, Array], dict[str, Any]]]:
        """Yield (class, the states in the order h, c, parameters, options) of layers that may be it after one step."""
        for order in itertools.permutations(range(len(self.states))):
            state = self.states[order[0]][0]
            blocks, others = self._blocks(state)
            x, states = self._random(ROWS)
            run = self._body_run(x, states)
            after = [run.value(self.states[k][2]) for k in order]
            values = [run.value(block.name)[:, block.place * self.hidden_size:(block.place + 1) * self.hidden_size]
                      for block in blocks]
            if len(order) == 2:
                yield from self._lstms(list(order), blocks, others, values, after, states[self.states[order[1]][0]])
                continue
            for block, value in zip(blocks, values, strict=True):
                if _close(value, after[0]):
                    yield RNN, [0], block.parameters(), {"activations": [block.activation]}
            yield from self._grus(blocks, others, values, after[0], states[state], run)

    def _lstms(self, order: list[int], blocks: list[Block], others: list[tuple[Node, str]], values: list[Array],
               after: list[Array], c: Array) -> Iterator[tuple[Any, list[int], dict[str, Array], dict[str, Any]]]:
        """c' = f c + i g; h' = o act(c')."""
        for i, f, g in itertools.permutations(range(len(blocks)), 3):
            if not _close(values[f] * c + values[i] * values[g], after[1]):
                continue
            for o in set(range(len(blocks))) - {i, f, g}:
                gates = [blocks[k] for k in (i, f, g, o)]
                if not gates[0].activation == gates[1].activation == gates[3].activation:
                    continue
                for outer in [self._activation(node) for node, _ in others] or [("affine", 1.0, 0.0)]:
                    yield LSTM, order, _joined(gates), {
                        "activations": [gates[0].activation, gates[2].activation, outer]}

    def _grus(self, blocks: list[Block], others: list[tuple[Node, str]], values: list[Array], after: Array, h: Array,
              run: Run) -> Iterator[tuple[Any, list[int], dict[str, Array], dict[str, Any]]]:
        """n = act(W x + b + r (R h + c)) or act(W x + R (r h) + b); h' = (1 - z) n + z h, or z n + (1 - z) h."""
        if len(others) != 1:
            return
        node, sums = others[0]
        n = run.value(node.outputs[0])
        for z, r in itertools.permutations(range(len(blocks)), 2):
            update = "torch" if _close((1 - values[z]) * n + values[z] * h, after) else "mirror"
            if update == "mirror" and not _close(values[z] * n + (1 - values[z]) * h, after):
                continue
            if blocks[z].activation != blocks[r].activation:
                continue
            state, opened = self.states[0][0], []
            for value in (0.0, 1.0):        # the reset gate shut, and open
                gate = run.value(blocks[r].name)[:1].copy()
                gate[:, blocks[r].place * self.hidden_size:(blocks[r].place + 1) * self.hidden_size] = value
                opened.append(self._linear(sums, state, {blocks[r].name: gate}))
            (W, _, b), (_, R, both) = opened
            new = {"weight_ih": W, "weight_hh": R, "bias_ih": b, "bias_hh": both - b}
            parameters = {name: np.concatenate([blocks[r].parameters()[name], blocks[z].parameters()[name], new[name]])
                          for name in new}
            for reset_after in (True, False):
                yield GRU, [0], parameters, {"reset_after": reset_after, "update": update, "activations": [
                    blocks[z].activation, self._activation(node)]}

    # ---- The proof --------------------------------------------------------------------------------------

    def _agrees(self, layer: Layer, order: list[int]) -> bool:
        """Whether the layer gives all that the loop gives: at random inputs and states, unmasked and masked."""
        for scale in SCALES:
            if not self._agrees_once(layer, order, scale, None):
                return False
        if not self.mask:
            return True
        lengths = self.rng.integers(0, self.steps + 1, self.rows)
        lengths[0] = self.steps // 2
        return self._agrees_once(layer, order, 1.0, lengths)

    def _agrees_at_other_sizes(self, layer: Layer, order: list[int]) -> bool:
        """Whether the layer does so for another batch of another number of steps, where the model leaves them open."""
        other = _Loop(self.scope, self.node, self.budget, OTHERS)
        same = [each[0] for each in other.states] == [each[0] for each in self.states]
        return same and other._agrees(layer, order)

    def _agrees_once(self, layer: Layer, order: list[int], scale: float, lengths: Array | None) -> bool:
        T, N, H = self.steps, self.rows, self.hidden_size
        x = scale * self.rng.standard_normal((T, N, self.input_size))
        starts = [scale * self.rng.standard_normal((N, H)) for _ in self.states]
        values = dict(self.run.values) | {self.x_name: x}
        values |= {self.states[k][1]: start for k, start in zip(order, starts, strict=True)}
        if self.mask:
            valid = np.arange(T)[:, None] < (T if lengths is None else lengths)
            values[self.mask_name] = np.broadcast_to(valid, (T, N)).reshape(
                T, N, *[1] * (self.run.value(self.mask_name).ndim - 2))
        values = {name: a for name, a in values.items() if name not in self.node.outputs}
        if len({self.states[k][1] for k in order}) != len(order):       # both states start at one array
            return self._shared_start(layer, order, values, x, starts, lengths)
        return self._compare(layer, order, values, x, starts, lengths)

    def _shared_start(self, layer: Layer, order: list[int], values: dict[str, Any], x: Array, starts: list[Array],
                      lengths: Array | None) -> bool:
        starts = [starts[0]] * len(starts)
        return self._compare(layer, order, values | {self.states[0][1]: starts[0]}, x, starts, lengths)

    def _compare(self, layer: Layer, order: list[int], values: dict[str, Any], x: Array, starts: list[Array],
                 lengths: Array | None) -> bool:
        run = Run(self.graph, values, self.budget)
        inputs = run.results(self.node.inputs)
        results = run.scan(self.node, inputs) if self.is_scan else run.loop(self.node, inputs)
        state: Any = tuple(start[None] for start in starts) if isinstance(layer, LSTM) else starts[0][None]
        output, last = layer(x, state, lengths=lengths)
        finals = [part[0] for part in (last if isinstance(layer, LSTM) else (last,))]
        expected = {self.states[k][0]: final for k, final in zip(order, finals, strict=True)}
        for (inside, _, after), result in zip(self.carried, results):
            if inside in expected and not _close(result, expected[inside]):
                return False
            is_copy = inside not in expected and any(inside == each[0] for each in self.varying) and inside != after
            if is_copy and lengths is None and not _close(result, finals[0]):
                return False
        walked = np.ones(x.shape[:2], bool) if lengths is None else np.arange(len(x))[:, None] < lengths
        return all(result.shape == output.shape and _close(result[walked], output[walked])
                   for result in results[len(self.carried):])


def _joined(gates: list[Block]) -> dict[str, Array]:
    parts = [gate.parameters() for gate in gates]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _close(a: Any, b: Any) -> bool:
    """Whether arrays are equal to 1e-9 of the larger of 1 and their largest number."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return False
    largest = max(1.0, float(np.max(np.abs(a), initial=0)))
    return bool(np.max(np.abs(a - b), initial=0) <= TOLERANCE * largest)
