"""What can be said of an ONNX model's arrays before it runs: their shapes, sizes computed of shapes, constant states.

Exporters compute sizes of a batch that is not known yet: ``Concat(1, Shape(x)[1], 4)`` has the sizes 1, any, 4, and a
weight that is sliced at the last of them is a constant all the same. Sizes are floats here, and NaN stands for one
that is not known, so that every rule of arithmetic carries it along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._base.reading import ModelFormatError
from .formats.protobuf import RANK
from .onnx_operators import COMPUTED, MOVES, NotConstant, integers

if TYPE_CHECKING:
    from .._base.typing import Array
    from .formats.protobuf import Node
    from .onnx_graph import Scope

    Shape = tuple[float, ...]

MOST = 1 << 10              # sizes in one array
# Operators that change shapes or the order of numbers alone: what they give is made of numbers of their first input.
SAME_NUMBERS = ("Cast", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile",
                "Transpose", "Unsqueeze")
SAME_SHAPE = ("Cast", "Identity", "Relu", "Sigmoid", "Tanh", "Dropout", "Neg")
OF_SIZES = ("Concat", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Unsqueeze", "Identity", "Add", "Sub", "Mul",
            "Cast")


class Shapes:
    """The shapes and sizes of one scope, as far as they are known.

    Parameters
    ----------
    scope : Scope
        The graph, or the body of a function, that the names are of.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._shapes: dict[str, Shape | None] = {}
        self._sizes: dict[str, Array | None] = {}
        self._contents: dict[str, Array | None] = {}

    # ---- Shapes ----------------------------------------------------------------------------------

    def shape(self, name: str) -> Shape | None:
        """The shape of the array that a name stands for, NaN for sizes that are not known; None if its rank is not."""
        if name not in self._shapes:
            self._shapes[name] = None           # of an array that depends on itself
            with self.scope.model.deeper():
                self._shapes[name] = self._shape(name)
        return self._shapes[name]

    def _shape(self, name: str) -> Shape | None:
        declared = self.scope.declared(name)
        if declared is not None and not any(np.isnan(declared)):
            return declared
        source, value = self.scope.producer(name), None
        if source is None or source[0] is not self.scope:
            return source[0].shapes.shape(source[1]) if source is not None else declared
        try:
            value = self.scope.value(name)
        except ModelFormatError:
            value = None
        if value is not None:
            return value.shape
        node = source[1]
        inferred = None if node is None else self._inferred(node, node.outputs.index(name))
        if inferred is None or declared is None or len(inferred) != len(declared):
            return declared if inferred is None else inferred
        return tuple(b if np.isnan(a) else a for a, b in zip(declared, inferred, strict=True))

    def _fills(self, node: Node) -> bool:
        """Whether a ConstantFill, which PyTorch 1.0 wrote before there was ConstantOfShape, is of its input's shape."""
        return bool(self.scope.attributes(node).get("input_as_shape", 0))

    def _inferred(self, node: Node, which: int) -> Shape | None:
        """The shape of an output of a node, by the rule of its operator."""
        if node.domain or not node.inputs:
            return None
        operator, first = node.op_type, node.inputs[0]
        if operator == "ConstantOfShape" or (operator == "ConstantFill" and self._fills(node)):
            return self._as_shape(self.sizes(first))
        if operator in SAME_SHAPE:
            return self.shape(first)
        x = self.shape(first)
        if x is None:
            return None
        attributes = self.scope.attributes(node)
        if operator == "Transpose":
            order = integers(None, attributes, "perm")
            return tuple(x[axis] for axis in order) if order and len(order) == len(x) else x[::-1]
        if operator == "Expand":
            return _broadcast(x, self._as_shape(self.sizes(node.inputs[1])))
        if operator in ("Squeeze", "Unsqueeze"):
            axes = attributes.get("axes")
            if axes is None and len(node.inputs) > 1:
                axes = self.scope.value(node.inputs[1])
            if axes is None or np.size(axes) > RANK:
                return None
            return _squeezed(x, np.ravel(axes)) if operator == "Squeeze" else _unsqueezed(x, np.ravel(axes))
        if operator == "Slice" and len(node.inputs) > 1:
            sliced = set(range(len(x))) if len(node.inputs) < 4 else {
                int(axis) % len(x) for axis in np.ravel(np.asarray(self.scope.value(node.inputs[3])))[:RANK]}
            return tuple(np.nan if axis in sliced else size for axis, size in enumerate(x))
        return None

    def _as_shape(self, sizes: Array | None) -> Shape | None:
        return None if sizes is None or sizes.ndim != 1 or sizes.size > RANK else tuple(sizes)

    # ---- Sizes -----------------------------------------------------------------------------------

    def sizes(self, name: str) -> Array | None:
        """An array of sizes, floats with NaN for those that are not known; None where it is none that is followed."""
        if name not in self._sizes:
            self._sizes[name] = None
            with self.scope.model.deeper():
                self._sizes[name] = self._computed_sizes(name)
        return self._sizes[name]

    def _computed_sizes(self, name: str) -> Array | None:
        source = self.scope.producer(name)
        if source is None:
            return None
        if source[0] is not self.scope:
            return source[0].shapes.sizes(source[1])
        node = source[1]
        if node is None or node.domain or node.op_type == "Constant":
            value = self._constant(name)
            return None if value is None or value.dtype.kind not in "iu" or value.size > MOST else value.astype(float)
        if node.op_type == "Shape":
            attributes, x = self.scope.attributes(node), self.shape(node.inputs[0])
            return None if x is None else np.array(x[attributes.get("start", 0):attributes.get("end")], float)
        if node.op_type not in OF_SIZES:
            return None
        return self._moved_sizes(node, name)

    def _constant(self, name: str) -> Array | None:
        try:
            value: Array | None = self.scope.value(name)
        except ModelFormatError:
            value = None
        return value

    def _moved_sizes(self, node: Node, name: str) -> Array | None:
        attributes = self.scope.attributes(node)
        inputs: list[Any] = [self.sizes(each) if each else None for each in node.inputs]
        if any(a is None for each, a in zip(node.inputs, inputs, strict=True) if each):
            return None
        if node.op_type == "Cast":
            return inputs[0] if attributes.get("to") in (6, 7) else None
        if any(np.isnan(a).any() for a in inputs[1:] if a is not None and node.op_type not in ("Concat", "Mul", "Add",
                                                                                              "Sub")):
            return None
        if node.op_type in ("Gather",):
            inputs[1] = inputs[1].astype(np.int64)
        operator = (MOVES | COMPUTED)[node.op_type]
        count = {"count": len(node.outputs)} if node.op_type == "Split" else {}
        try:
            result = operator(attributes, *inputs, **count)
        except (ValueError, TypeError, IndexError, KeyError, OverflowError):
            return None
        result = result[node.outputs.index(name)] if isinstance(result, list) else np.asarray(result)
        return result if result.size <= MOST else None

    # ---- Constant numbers in an array of unknown size ----------------------------------------------

    def contents(self, name: str) -> Array | None:
        """The constants that an array is made of, whatever its size will be; None where it depends on inputs.

        Numbers that operators move about are followed, and repeated ones (Expand, Tile); of those that compute, sums
        and products are. A constant that any other operator computes is NotConstant.
        """
        if name not in self._contents:
            self._contents[name] = None
            with self.scope.model.deeper():
                self._contents[name] = self._followed(name)
        return self._contents[name]

    def _followed(self, name: str) -> Array | None:
        try:
            value: Array | None = self.scope.value(name)
            return value
        except NotConstant:
            pass
        source = self.scope.producer(name)
        if source is None:
            return None
        if source[0] is not self.scope:
            return source[0].shapes.contents(source[1])
        node = source[1]
        if node is None:
            return None
        if node.op_type == "ConstantOfShape" and not node.domain:
            return np.ravel(self.scope.attributes(node).get("value", np.float32(0)))
        if node.op_type == "ConstantFill" and not node.domain and self._fills(node):
            return np.ravel(np.float32(self.scope.attributes(node).get("value", 0)))
        if node.op_type in SAME_NUMBERS and not node.domain:
            return self.contents(node.inputs[0])
        parts = [self.contents(each) for each in node.inputs if each]
        known = [part for part in parts if part is not None]
        if node.op_type == "Mul" and any(not part.any() for part in known):
            return np.zeros(1, np.float32)
        if node.op_type in ("Concat", "Add") and any(part.any() for part in known):
            return next(part for part in known if part.any())      # a part of it is constant, and not zero
        if len(known) < len(parts):
            return None
        if node.op_type in ("Concat", "Add", "Sub", "Mul"):
            return known[0] if all(not part.any() for part in known) else np.ones(1, np.float32)
        raise NotConstant(f"a constant that {node.op_type} node {node.name!r} computes")


def _broadcast(a: Shape, b: Shape | None) -> Shape | None:
    if b is None:
        return None
    size = max(len(a), len(b))
    pairs = zip((1.0,) * (size - len(a)) + a, (1.0,) * (size - len(b)) + b, strict=True)
    return tuple(y if x == 1 else x if y == 1 or (np.isnan(y) and not np.isnan(x)) else y for x, y in pairs)


def _squeezed(x: Shape, axes: Array) -> Shape | None:
    gone = {int(axis) % max(1, len(x)) for axis in axes}
    return tuple(size for axis, size in enumerate(x) if axis not in gone)


def _unsqueezed(x: Shape, axes: Array) -> Shape | None:
    rank = len(x) + axes.size
    new, sizes = {int(axis) % max(1, rank) for axis in axes}, iter(x)
    return tuple(1.0 if axis in new else next(sizes) for axis in range(rank)) if len(new) == axes.size else None
