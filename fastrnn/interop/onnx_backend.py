"""ONNX's interface for backends: models of recurrent nodes, and of nodes that move numbers about, are computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    from onnx.backend import base
except ImportError as error:
    raise ImportError("ONNX's backend interface needs the package onnx: pip install fastrnn[onnx]") from error

from .formats.protobuf import Node, Reader
from .onnx import INPUTS, OUTPUTS, node_layer, run_layer, run_node
from .onnx_graph import RECURRENT, Model
from .onnx_operators import MOVES, NotConstant, move
from .onnx_quantized import DOMAIN, OPERATOR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

    from .._base.typing import Array, ArrayLike
    from .conventions import Layer


class Backend(base.Backend):  # type: ignore[misc]     # onnx has no types
    """Backend of ONNX (``onnx.backend.base.Backend``) that computes with fastrnn.

    It computes models of RNN, GRU and LSTM nodes, of com.microsoft's DynamicQuantizeLSTM with constant weights, and of
    nodes that move numbers and compute none (Transpose, Reshape, Slice, Concat, ...): single operators, and what
    ``export`` writes.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np, onnx
    >>> import fastrnn
    >>> from fastrnn import interop
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "rnn.onnx")
    ...     interop.onnx.export(fastrnn.RNN(2, 3), path)
    ...     prepared = interop.onnx.Backend.prepare(onnx.load(path))
    >>> outputs = prepared.run([np.ones((5, 1, 2), np.float32), np.zeros((1, 1, 3), np.float32)])
    >>> outputs.output.shape, outputs.h_n.shape
    ((5, 1, 3), (1, 1, 3))
    """

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Tell whether a device is a CPU.

        Parameters
        ----------
        device : str
            ONNX's name of a device, such as ``"CPU"`` or ``"CUDA:0"``.

        Returns
        -------
        bool
            True for the CPU alone.

        Examples
        --------
        >>> from fastrnn import interop
        >>> interop.onnx.Backend.supports_device("CPU"), interop.onnx.Backend.supports_device("CUDA")
        (True, False)
        """
        return device.split(":")[0] == "CPU"

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: object) -> bool:
        """Tell whether every node of a model is one that is computed here.

        Parameters
        ----------
        model : onnx.ModelProto
            The model.
        device : str, optional
            ONNX's name of a device.
        **kwargs : object
            Passed over; ONNX's interface has them.

        Returns
        -------
        bool
            Whether `prepare` takes the model.

        Examples
        --------
        >>> from onnx import helper
        >>> from fastrnn import interop
        >>> graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "graph", [], [])
        >>> interop.onnx.Backend.is_compatible(helper.make_model(graph))
        False
        """
        return cls.supports_device(device) and all(map(_is_known, model.graph.node))

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: object) -> Representation:
        """Check a model and make it ready to run any number of times.

        Parameters
        ----------
        model : onnx.ModelProto
            The model.
        device : str, optional
            ONNX's name of a device; only the CPU is there.
        **kwargs : object
            Options of ``onnx.backend.base.Backend.prepare``.

        Returns
        -------
        Representation
            The model, to be run by its method ``run``.

        Raises
        ------
        ValueError
            The device is not the CPU.
        NotImplementedError
            The model has a node that is not computed here.

        Examples
        --------
        >>> import numpy as np
        >>> from onnx import TensorProto, helper
        >>> from fastrnn import interop
        >>> ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in ("x", "y")]
        >>> node = helper.make_node("Transpose", ["x"], ["y"])
        >>> model = helper.make_model(helper.make_graph([node], "graph", ends[:1], ends[1:]))
        >>> interop.onnx.Backend.prepare(model).run([np.zeros((2, 3), np.float32)]).y.shape
        (3, 2)
        """
        super().prepare(model, device, **kwargs)
        _check(device, model.graph.node)
        return Representation(model)

    @classmethod
    def run_node(cls, node: onnx.NodeProto, inputs: Sequence[ArrayLike | None], device: str = "CPU",
                 outputs_info: object = None, **kwargs: object) -> Any:
        """Compute one node.

        Parameters
        ----------
        node : onnx.NodeProto
            The node.
        inputs : sequence of array
            Its inputs in order; None stands for one that is not given.
        device : str, optional
            ONNX's name of a device; only the CPU is there.
        outputs_info : object, optional
            Passed over; ONNX's interface has it.
        **kwargs : object
            Options of ``onnx.backend.base.Backend.run_node``.

        Returns
        -------
        namedtuple of array
            The outputs by the names that the node has for them.

        Examples
        --------
        >>> import numpy as np
        >>> from onnx import helper
        >>> from fastrnn import interop
        >>> node = helper.make_node("RNN", ["X", "W", "R"], ["Y"], activations=["Relu"])
        >>> interop.onnx.Backend.run_node(node, [np.ones((3, 1, 1)), np.ones((1, 1, 1)), np.ones((1, 1, 1))]).Y.ravel()
        array([1., 2., 3.])
        """
        super().run_node(node, inputs, device, outputs_info, **kwargs)
        _check(device, [node])
        data = node.SerializeToString()
        reader = Reader(data, external_data=False)
        read = Node(reader, (0, len(data)))
        outputs = _compute(read, inputs, dict(map(reader.attribute, read.attributes)))
        return base.namedtupledict("Outputs", read.outputs)(*outputs)


class Representation(base.BackendRep):  # type: ignore[misc]     # onnx has no types
    """A model made ready: its constants are folded, and nodes with constant weights have their layers.

    Parameters
    ----------
    model : onnx.ModelProto
        The model.

    Examples
    --------
    >>> import numpy as np
    >>> from onnx import TensorProto, helper
    >>> from fastrnn import interop
    >>> ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    >>> graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "graph", ends[:1], ends[1:])
    >>> interop.onnx.Backend.prepare(helper.make_model(graph)).run({"x": np.ones(2)}).y
    array([1., 1.])
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        initializers = {tensor.name for tensor in model.graph.initializer}
        self.inputs = [value.name for value in model.graph.input if value.name not in initializers]
        self.outputs = [value.name for value in model.graph.output]
        data = model.SerializeToString()
        self._main = Model(data, external_data=False).main
        self._plan: list[tuple[Node, dict[str, Any], Layer | None]] = []
        made: dict[tuple[Any, ...], Any] = {}
        for node in self._main.nodes():
            layer = None
            if node.op_type in (*RECURRENT, OPERATOR):
                try:
                    layer = node_layer(self._main, node, made)
                except NotConstant:
                    pass                    # they come with the inputs
            self._plan.append((node, self._main.attributes(node), layer))

    def run(self, inputs: Sequence[ArrayLike] | Mapping[str, ArrayLike], **kwargs: object) -> Any:
        """Compute the model's outputs.

        Parameters
        ----------
        inputs : sequence or mapping of str to array
            In the order of the model's inputs (those with a value in the model left out), or by name.
        **kwargs : object
            Passed over; ONNX's interface has them.

        Returns
        -------
        namedtuple of array
            The outputs by their names in the model.

        Raises
        ------
        ValueError
            The inputs are not those of the model.

        Examples
        --------
        >>> import numpy as np
        >>> from onnx import TensorProto, helper
        >>> from fastrnn import interop
        >>> ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
        >>> graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "graph", ends[:1], ends[1:])
        >>> interop.onnx.Backend.prepare(helper.make_model(graph)).run([np.ones(2)]).y
        array([1., 1.])
        """
        values = dict(inputs) if isinstance(inputs, dict) else dict(zip(self.inputs, inputs))
        if sorted(values) != sorted(self.inputs) or len(inputs) != len(self.inputs):
            raise ValueError(f"inputs: expected {', '.join(self.inputs)}, got {len(inputs)} of them"
                             + f": {', '.join(map(str, inputs))}" * isinstance(inputs, dict))
        for node, attributes, layer in self._plan:
            arguments = [values[name] if name in values else self._main.value(name) for name in node.inputs]
            values |= zip(node.outputs, _compute(node, arguments, attributes, layer))
        return base.namedtupledict("Outputs", self.outputs)(*map(values.__getitem__, self.outputs))


def _compute(node: Node, values: Sequence[Any], attributes: dict[str, Any], layer: Layer | None = None) -> list[Array]:
    """The outputs of a node, as many as it names."""
    if node.op_type in MOVES:
        moved: list[Array] = move(node, values, attributes)
        return moved
    named = dict(zip(INPUTS, values))
    if layer is not None:
        outputs = run_layer(layer, *map(named.get, ("X", "sequence_lens", "initial_h", "initial_c")))
    elif node.op_type == OPERATOR:
        raise NotImplementedError(f"{OPERATOR} node {node.name!r}: its weights must be constants of the model")
    else:
        outputs = run_node(node.op_type, named, attributes)
    return [outputs[name] for name in OUTPUTS[:len(node.outputs)]]


def _is_known(node: onnx.NodeProto) -> bool:
    if node.domain == DOMAIN:
        return node.op_type == OPERATOR
    return node.domain in ("", "ai.onnx") and node.op_type in (*RECURRENT, *MOVES)


def _check(device: str, nodes: Sequence[onnx.NodeProto]) -> None:
    if not Backend.supports_device(device):
        raise ValueError(f"device: expected CPU, got {device!r}")
    for node in nodes:
        if not _is_known(node):
            raise NotImplementedError(f"{node.op_type} node {node.name!r}: only {', '.join((*RECURRENT, *MOVES))} are "
                                      "computed")
