"""Layers of arrays under any names, in any order of gates and any layout: ``interop.from_arrays``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from .._base import validation as check
from .conventions import CLASSES, GATE_ORDERS, as_float, given_options, make_layer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._base.typing import Activation, Array, ArrayLike
    from .conventions import Layer

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
SAME = str.maketrans({"c": "g", "j": "g", "h": "n"})    # other letters for the candidate: of an LSTM; of a GRU, an RNN
LAYOUTS = {"rows": "rows", "columns": "columns", "torch": "rows", "onnx": "rows", "keras": "columns",
           "tensorflow": "columns", "haiku": "columns"}
ROLE = re.compile(r"(weight_ih|weight_hh|weight_hr|weight|bias_ih|bias_hh|bias|peephole)(_l\d+)?(_reverse)?")


def from_arrays(arrays: Mapping[str, ArrayLike], kind: str, *, names: Mapping[str, str | Sequence[str]] | None = None,
                order: str = "torch", layout: str = "rows", forget_bias: float = 0.0, batch_first: bool | None = None,
                dropout: float | None = None, nonlinearity: str | None = None, reset_after: bool | None = None,
                update: str | None = None, coupled_gates: bool | None = None, reverse: bool | None = None,
                activations: Sequence[Activation] | None = None, clip: float | None = None) -> Layer:
    """Build a layer of arrays under any names, in any order of gates.

    The options from `batch_first` on are those of the layer.

    Parameters
    ----------
    arrays : mapping of str to array
        The arrays, such as ``numpy.load(path)`` of a .npz file; others than those of the layer may be among them.
    kind : {"lstm", "gru", "rnn"}
        What layer the arrays are of, in any case.
    names : mapping of str to str or sequence of str, optional
        Part of the layer -> the array it is. Parts are ``weight_ih`` (input's weights), ``weight_hh`` (state's), or
        ``weight``, which is both, one behind the other along the axis of inputs; ``bias_ih`` and ``bias_hh``, or
        ``bias`` for one that is added once; ``peephole`` and ``weight_hr`` (a projection) of an LSTM. Behind them may
        stand ``_l1``, ``_l2``, ... for the layers of a stack and ``_reverse`` for the other direction, as in torch.
        Where each gate has an array of its own, a sequence of their names in the order of `order`, or one text with
        ``{gate}``, for which each letter of `order` is put. Without `names`, the arrays have the parts' names.
    order : str, optional
        The gates in the arrays' order: a framework of ``conventions.GATE_ORDERS`` ("torch", "keras", "onnx",
        "tensorflow", "haiku", "caffe", "dynet", "nagisa"), or a letter for each gate, such as "ifog". An LSTM has the
        input gate i, the forget gate f, the candidate g (c or j do as well) and the output gate o; a GRU the reset gate
        r, the update gate z and the candidate n (or h).
    layout : {"rows", "columns"}, optional
        Whether the gates are rows of a matrix, [G*H, I] as torch's, or columns, [I, G*H] as Keras'. The names of these
        frameworks do as well.
    forget_bias : float, optional
        Added to the bias of an LSTM's forget gate, for frameworks that add it when they run: 1 in TensorFlow 1 and in
        Haiku.
    batch_first : bool, optional
        Whether the layer takes [N, T, I] instead of [T, N, I].
    dropout : float, optional
        Probability of dropout between stacked layers, in training.
    nonlinearity : {"tanh", "relu"}, optional
        Of an RNN.
    reset_after : bool, optional
        Of a GRU: where its reset gate acts. True is the default, as in torch.
    update : {"torch", "mirror"}, optional
        Of a GRU: which of the two mixes the update gate is; "torch" is h' = (1 - z) n + z h.
    coupled_gates : bool, optional
        Of an LSTM: whether its input gate is 1 - f.
    reverse : bool, optional
        Whether the layer walks from the last step to the first.
    activations : sequence, optional
        Activation functions in ONNX's order f, g, h.
    clip : float, optional
        Bound of the sums that activations are taken of.

    Returns
    -------
    RNN, GRU or LSTM
        The layer, in float64 if one of the arrays is, else in float32.

    Raises
    ------
    ValueError
        A name or a shape that does not fit, by name.
    TypeError
        An array that does not have numbers.

    Examples
    --------
    Keras' names, order and layout:

    >>> import numpy as np
    >>> from fastrnn import interop
    >>> arrays = {"encoder_w_i": np.ones((5, 18)), "encoder_w_h": np.ones((6, 18))}
    >>> interop.from_arrays(arrays, "gru", names={"weight_ih": "encoder_w_i", "weight_hh": "encoder_w_h"},
    ...                     order="zrh", layout="columns")
    GRU(5, 6, bias=False, dtype=float64)

    A matrix for each gate:

    >>> arrays = {f"{part}_{gate}": np.ones((3, columns), "f4") for gate in "ifco"
    ...           for part, columns in (("W", 2), ("U", 3))}
    >>> interop.from_arrays(arrays, "lstm", names={"weight_ih": "W_{gate}", "weight_hh": "U_{gate}"}, order="ifco")
    LSTM(2, 3, bias=False)
    """
    kind = check.choice(kind.lower() if isinstance(kind, str) else kind, "kind", tuple(GATES))
    layout = LAYOUTS[check.choice(layout, "layout", tuple(LAYOUTS))]
    letters = _letters(order, kind)
    if names is None:
        names = {name: name for name in arrays if ROLE.fullmatch(name)}
    if not names:
        raise ValueError("names: which array is which has to be told: none is called weight_ih, weight_hh, ...; the "
                         f"arrays are {', '.join(map(str, arrays)):.300}")
    parts = {role: _array(arrays, role, value, letters, layout) for role, value in names.items()}
    parameters: dict[str, Array] = {}
    for role, array in parts.items():
        match = ROLE.fullmatch(role)
        assert match is not None            # _array has checked it
        suffix = f"{match[2] or '_l0'}{match[3] or ''}"
        for name, part in _torch_parts(match[1], array, kind, letters.translate(SAME)).items():
            if name + suffix in parameters:
                raise ValueError(f"names: {name}{suffix} is told more than once")
            parameters[name + suffix] = part
    _complete_biases(parameters, kind, forget_bias)
    options = given_options({
        "batch_first": batch_first, "dropout": dropout, "nonlinearity": nonlinearity, "reset_after": reset_after,
        "update": update, "coupled_gates": coupled_gates, "reverse": reverse, "activations": activations, "clip": clip})
    layer = make_layer(parameters, "arrays", options)
    if not isinstance(layer, CLASSES[GATES[kind]]):
        shapes = ", ".join(f"{name} {a.shape}" for name, a in parts.items())
        raise ValueError(f"kind: {kind} was told, but {shapes} are of a {type(layer).__name__}")
    return layer


def _letters(order: str, kind: str) -> str:
    """The gates' letters, as many as the cell has."""
    if not isinstance(order, str):
        raise TypeError(f"order: expected a str, got {type(order).__name__}")
    if kind == "rnn":
        return "n"
    letters = GATE_ORDERS.get(order.lower(), {}).get(kind, order)
    if order.lower() in GATE_ORDERS and kind not in GATE_ORDERS[order.lower()]:
        raise ValueError(f"order: the order of a {kind} in {order} is not known here: write it, such as "
                         f"{GATE_ORDERS['torch'][kind]!r}")
    if sorted(letters.lower().translate(SAME)) != sorted(GATE_ORDERS["torch"][kind]):
        raise ValueError(f"order: expected one of {', '.join(GATE_ORDERS)}, or each of the gates "
                         f"{', '.join(GATE_ORDERS['torch'][kind])} once, got {order!r}")
    return letters


def _array(arrays: Mapping[str, ArrayLike], role: str, value: str | Sequence[str], letters: str, layout: str) -> Array:
    """The array of a part, with its gates along axis 0."""
    match = ROLE.fullmatch(role) if isinstance(role, str) else None
    if match is None:
        raise ValueError(f"names: {role!r} is none of weight_ih, weight_hh, weight_hr, weight, bias_ih, bias_hh, bias "
                         "and peephole, with _l1 and _reverse behind them")
    if isinstance(value, str):
        gates = letters if match[1] != "peephole" else [gate for gate in letters if gate in "ifo"]
        value = [value.format(gate=gate) for gate in gates] if "{gate}" in value else [value]
    elif len(value) not in (len(letters), len(letters) - 1):
        raise ValueError(f"names: {role}: expected a name for each of the gates {letters}, got {len(value)}")
    pieces = []
    for name in value:
        if name not in arrays:
            raise ValueError(f"names: {role}: there is no array {name!r}; there are {', '.join(map(str, arrays)):.300}")
        piece = as_float(np.asarray(arrays[name]))
        pieces.append(piece.T if piece.ndim == 2 and layout == "columns" else piece)
    if len({piece.shape for piece in pieces}) > 1:
        raise ValueError(f"names: {role}: arrays of different shapes, "
                         + ", ".join(f"{name} {piece.shape}" for name, piece in zip(value, pieces)))
    return np.concatenate([np.atleast_1d(piece) for piece in pieces]) if len(pieces) > 1 else pieces[0]


def _torch_parts(part: str, array: Array, kind: str, letters: str) -> dict[str, Array]:
    """The parameters that a part of a layer is, by torch's names and in torch's order."""
    if part == "weight_hr":
        return {part: array}
    target = GATE_ORDERS["torch"][kind]
    if part == "peephole":
        letters, target = "".join(gate for gate in letters if gate in "ifo"), GATE_ORDERS["torch"]["peephole"]
    if array.ndim not in (1, 2) or array.shape[0] % len(letters):
        raise ValueError(f"names: {part} {array.shape}: expected {len(letters)} gates along an axis; is the layout "
                         "another?")
    gates = dict(zip(letters, np.split(array, len(letters)), strict=True))
    array = np.concatenate([gates[gate] for gate in target])
    if part == "weight":
        hidden = array.shape[0] // len(letters)
        if array.ndim != 2 or array.shape[1] <= hidden:
            raise ValueError(f"names: weight {array.shape}: expected more than {hidden} columns, the input's, then the "
                             "state's")
        return {"weight_ih": array[:, :-hidden], "weight_hh": array[:, -hidden:]}
    return {"bias_ih" if part == "bias" else part: array}


def _complete_biases(parameters: dict[str, Array], kind: str, forget_bias: float) -> None:
    """One bias for input and state is the input's; forget_bias is added to it."""
    suffixes = [name.removeprefix("weight_hh") for name in parameters if name.startswith("weight_hh")]
    has_bias = bool(forget_bias) or any(name.startswith("bias") for name in parameters)
    for suffix in suffixes if has_bias else ():
        rows = parameters["weight_hh" + suffix].shape[0]
        for name in ("bias_ih", "bias_hh"):
            parameters.setdefault(name + suffix, np.zeros(rows, parameters["weight_hh" + suffix].dtype))
        if forget_bias and kind == "lstm":
            bias = parameters["bias_ih" + suffix].copy()
            bias[rows // 4:rows // 2] += check.number(forget_bias, "forget_bias")
            parameters["bias_ih" + suffix] = bias
