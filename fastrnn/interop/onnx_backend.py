"""ONNX's interface for backends: models of recurrent nodes, and of nodes that move numbers about, are computed."""

try:
    from onnx.backend import base
except ImportError as error:
    raise ImportError("ONNX's backend interface needs the package onnx: pip install fastrnn[onnx]") from error

from .formats.protobuf import Node, Reader
from .onnx import INPUTS, OUTPUTS, node_layer, run_layer, run_node
from .onnx_graph import MOVES, RECURRENT, Model, NotConstant, move


class Backend(base.Backend):
    """fastrnn as a backend of ONNX (``onnx.backend.base.Backend``).

    It computes models of RNN, GRU and LSTM nodes and of nodes that move numbers and compute none (Transpose, Reshape,
    Slice, Concat, ...): single operators, and what ``export`` writes.

    >>> Backend.supports_device("CPU"), Backend.supports_device("CUDA")
    (True, False)
    """

    @classmethod
    def supports_device(cls, device):
        """Whether it is a CPU."""
        return device.split(":")[0] == "CPU"

    @classmethod
    def is_compatible(cls, model, device="CPU", **kwargs):
        """Whether every node of an onnx.ModelProto is one that is computed here."""
        return cls.supports_device(device) and all(map(_is_known, model.graph.node))

    @classmethod
    def prepare(cls, model, device="CPU", **kwargs):
        """An onnx.ModelProto, checked, as a `Representation` that runs any number of times."""
        super().prepare(model, device, **kwargs)
        _check(device, model.graph.node)
        return Representation(model)

    @classmethod
    def run_node(cls, node, inputs, device="CPU", outputs_info=None, **kwargs):
        """The outputs of an onnx.NodeProto, a named tuple; None among the inputs stands for one that is not given."""
        super().run_node(node, inputs, device, outputs_info, **kwargs)
        _check(device, [node])
        data = node.SerializeToString()
        reader = Reader(data)
        read = Node(reader, (0, len(data)))
        found = _compute(read, inputs, dict(map(reader.attribute, read.attributes)))
        return base.namedtupledict("Outputs", read.outputs)(*found)


class Representation(base.BackendRep):
    """A model made ready: its constants are folded, and nodes with constant weights have their layers."""

    def __init__(self, model):
        initializers = {tensor.name for tensor in model.graph.initializer}
        self.inputs = [value.name for value in model.graph.input if value.name not in initializers]
        self.outputs = [value.name for value in model.graph.output]
        data = model.SerializeToString()
        self._main, self._plan, made = Model(data).main, [], {}
        for node in self._main.nodes():
            layer = None
            if node.op_type in RECURRENT:
                try:
                    layer = node_layer(self._main, node, made)
                except NotConstant:
                    pass                    # they come with the inputs
            self._plan.append((node, self._main.attributes(node), layer))

    def run(self, inputs, **kwargs):
        """The model's outputs, a named tuple.

        inputs: arrays in the order of the model's inputs (those with a value in the model left out), or by name.
        """
        given = dict(inputs) if isinstance(inputs, dict) else dict(zip(self.inputs, inputs))
        if sorted(given) != sorted(self.inputs) or len(inputs) != len(self.inputs):
            raise ValueError(f"inputs: expected {', '.join(self.inputs)}, got {len(inputs)} of them"
                             + f": {', '.join(map(str, inputs))}" * isinstance(inputs, dict))
        for node, attributes, layer in self._plan:
            values = [given[name] if name in given else self._main.value(name) for name in node.inputs]
            given |= zip(node.outputs, _compute(node, values, attributes, layer))
        return base.namedtupledict("Outputs", self.outputs)(*map(given.__getitem__, self.outputs))


def _compute(node, values, attributes, layer=None):
    """The outputs of a node, as many as it names."""
    if node.op_type in MOVES:
        return move(node, values, attributes)
    named = dict(zip(INPUTS, values))
    if layer is not None:
        found = run_layer(layer, *map(named.get, ("X", "sequence_lens", "initial_h", "initial_c")))
    else:
        found = run_node(node.op_type, named, attributes)
    return [found[name] for name in OUTPUTS[:len(node.outputs)]]


def _is_known(node):
    return node.domain in ("", "ai.onnx") and node.op_type in (*RECURRENT, *MOVES)


def _check(device, nodes):
    if not Backend.supports_device(device):
        raise ValueError(f"device: expected CPU, got {device!r}")
    for node in nodes:
        if not _is_known(node):
            raise NotImplementedError(f"{node.op_type} node {node.name!r}: only {', '.join((*RECURRENT, *MOVES))} are "
                                      "computed")
