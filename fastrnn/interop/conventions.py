"""What frameworks do differently, in one place: gate orders, and layers told from parameters' names and shapes."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from .._base.reading import ModelFormatError, refusing
from .._base.registry import CONTAINERS
from ..nn import GRU, LSTM, RNN
from ..nn.files import build, members

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._base.typing import Array, PathLike

Layer: TypeAlias = RNN | GRU | LSTM

# The gates in the order of the rows of a framework's weights. torch's order is fastrnn's (peepholes, which torch has
# not, are in its order too). Keras' c is the g here; ONNX, Keras and Paddle call the GRU's z, r, h (n here).
GATE_ORDERS: dict[str, dict[str, str]] = {
    "torch": {"rnn": "n", "gru": "rzn", "lstm": "ifgo", "peephole": "ifo"},
    "keras": {"rnn": "n", "gru": "zrn", "lstm": "ifgo"},
    "onnx": {"rnn": "n", "gru": "zrn", "lstm": "iofg", "peephole": "iof"},
    "nagisa": {"lstm": "ifog"},
}
CLASSES: dict[int, type[RNN] | type[GRU] | type[LSTM]] = {1: RNN, 3: GRU, 4: LSTM}      # gates -> layer
# Options that one class alone has; for layers of the others they are left out.
OF_ONE_CLASS: dict[str, type[RNN] | type[GRU] | type[LSTM]] = {
    "nonlinearity": RNN, "reset_after": GRU, "update": GRU, "coupled_gates": LSTM}


def reorder(a: Array, cell: str, source: str, target: str = "torch") -> Array:
    """Move the gates of a framework's weights to another framework's order.

    Parameters
    ----------
    a : array
        Weights or biases with the gates one after the other along axis 0, each with as many rows as the others.
    cell : {"rnn", "gru", "lstm", "peephole"}
        The kind of the cell, or "peephole" for an LSTM's peephole weights, which three of its gates have.
    source : str
        The framework that `a` is of, a key of ``GATE_ORDERS``.
    target : str, optional
        The framework whose order is wanted.

    Returns
    -------
    array
        A copy with the rows in the other order.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.interop.conventions import reorder
    >>> reorder(np.array([0, 1, 2]), "gru", "keras")            # z, r, h to r, z, n
    array([1, 0, 2])
    """
    gates = dict(zip(GATE_ORDERS[source][cell], np.split(a, len(GATE_ORDERS[source][cell])), strict=True))
    return np.concatenate([gates[gate] for gate in GATE_ORDERS[target][cell]])


def as_float(a: Array) -> Array:
    """Return weights as float32 or float64, of which float32 stands for narrower floats.

    Parameters
    ----------
    a : array
        Floating-point numbers of 16, 32 or 64 bits.

    Returns
    -------
    array
        The array itself where it has such a type in the machine's byte order, else a copy.

    Raises
    ------
    ModelFormatError
        The array is of another type.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.interop.conventions import as_float
    >>> as_float(np.ones(2, np.float16)).dtype
    dtype('float32')
    """
    if a.dtype.kind != "f" or a.dtype.itemsize > 8:
        raise ModelFormatError(f"expected floating-point weights, got {a.dtype}")
    return a.astype(a.dtype.newbyteorder("=") if a.dtype.itemsize >= 4 else np.float32, copy=False)


def keras_parameters(cell: str, kernel: Array, recurrent: Array, bias: Array | None = None) -> dict[str, Array]:
    """Name and turn Keras' arrays of one layer and direction as torch's are.

    Parameters
    ----------
    cell : {"rnn", "gru", "lstm"}
        The kind of the layer.
    kernel : array
        Keras' kernel, [I, G*H].
    recurrent : array
        Keras' recurrent kernel, [H, G*H].
    bias : array, optional
        [G*H]; or [2, G*H] of a GRU with reset_after: the input's biases and the state's.

    Returns
    -------
    dict of str to array
        ``weight_ih_l0``, ``weight_hh_l0`` and, if there is a bias, ``bias_ih_l0`` and ``bias_hh_l0``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.interop.conventions import keras_parameters
    >>> parameters = keras_parameters("gru", np.ones((2, 9)), np.ones((3, 9)))
    >>> {name: array.shape for name, array in parameters.items()}
    {'weight_ih_l0': (9, 2), 'weight_hh_l0': (9, 3)}
    """
    parameters = {"weight_ih_l0": reorder(kernel.T, cell, "keras"), "weight_hh_l0": reorder(recurrent.T, cell, "keras")}
    if bias is not None:
        first, second = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
        parameters |= {"bias_ih_l0": reorder(first, cell, "keras"), "bias_hh_l0": reorder(second, cell, "keras")}
    return parameters


_NAME = re.compile(r"(?P<prefix>.*?)(?P<name>weight_ih|weight_hh|weight_hr|bias_ih|bias_hh|peephole)"
                   r"(?:_l(?P<layer>\d+))?(?P<reverse>_reverse)?", re.DOTALL)


def is_parameter(name: str) -> bool:
    """Tell whether a recurrent layer or cell may have a parameter of this name.

    Parameters
    ----------
    name : str
        A name such as torch's state_dicts have.

    Returns
    -------
    bool
        True for ``weight_ih``, ``bias_hh_l1_reverse`` and so on, with whatever stands before them.

    Examples
    --------
    >>> from fastrnn.interop.conventions import is_parameter
    >>> is_parameter("encoder.lstm.weight_ih_l0_reverse"), is_parameter("head.weight")
    (True, False)
    """
    return _NAME.fullmatch(name) is not None


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options of a reader that are given, which None is not.

    Parameters
    ----------
    options : mapping of str to object
        Options by name.

    Returns
    -------
    dict of str to object
        Those that are not None.

    Examples
    --------
    >>> from fastrnn.interop.conventions import given_options
    >>> given_options({"batch_first": True, "dropout": None})
    {'batch_first': True}
    """
    return {name: value for name, value in options.items() if value is not None}


def find_layers(tensors: Mapping[str, Array], options: Mapping[str | None, Mapping[str, Any]] | None = None,
                skipped: dict[str, str] | None = None) -> dict[str, Layer]:
    """Make layers of parameters under torch's names, found by their prefixes.

    Class, sizes, number of layers, directions, bias and projection follow from names and shapes.

    Parameters
    ----------
    tensors : mapping of str to array
        Such as ``{"encoder.lstm.weight_ih_l0": ..., "head.weight": ...}``; a cell's names (``weight_ih``) do as well.
    options : mapping of str to dict, optional
        Options by prefix that shapes do not tell (``nonlinearity``, ``batch_first``, ...); those under None hold for
        every prefix.
    skipped : dict, optional
        If given, it takes prefix -> reason of what makes no layer. Without it the first of them is an error.

    Returns
    -------
    dict of str to layer
        By prefix without its last dot.

    Raises
    ------
    ModelFormatError
        Parameters under one prefix do not make a layer.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.interop.conventions import find_layers
    >>> tensors = {"encoder.weight_ih": np.ones((9, 2), "f4"), "encoder.weight_hh": np.ones((9, 3), "f4")}
    >>> find_layers(tensors, {"encoder": {"batch_first": True}})
    {'encoder': GRU(2, 3, bias=False, batch_first=True)}
    """
    groups: dict[str, dict[str, Array]] = {}
    for name, value in tensors.items():
        if match := _NAME.fullmatch(name):
            suffix = f"_l{match['layer'] or 0}{match['reverse'] or ''}"
            groups.setdefault(match["prefix"].rstrip("."), {})[match["name"] + suffix] = value
    options, layers = options or {}, {}
    for prefix, group in groups.items():
        if "weight_ih_l0" in group or "weight_hh_l0" in group:
            try:
                layers[prefix] = make_layer(group, prefix or "the model",
                                            {**options.get(None, {}), **options.get(prefix, {})})
            except ModelFormatError as error:
                if skipped is None:
                    raise
                skipped[prefix] = str(error)
    return layers


def layers_of(path: PathLike, tensors: Mapping[str, Array], configuration: dict[str, Any] | None = None,
              skipped: dict[str, str] | None = None, options: Mapping[str, Any] | None = None) -> dict[str, Layer]:
    """Make the layers of a file of named arrays, by `find_layers` or as fastrnn's own configuration says.

    Parameters
    ----------
    path : str or path-like
        The file, for messages.
    tensors : mapping of str to array
        Its arrays.
    configuration : dict, optional
        The configuration that fastrnn's own files have.
    skipped : dict, optional
        If given, it takes prefix -> reason of what makes no layer.
    options : mapping of str to object, optional
        Options of every layer. One that a layer of a configuration does not have is an error, unless it is one that
        another class of layers has.

    Returns
    -------
    dict of str to layer
        By prefix; a file of one fastrnn layer has it under "".

    Raises
    ------
    ModelFormatError
        Parameters do not make a layer.
    TypeError
        An option that there is not.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.interop.conventions import layers_of
    >>> layers_of("a file", {"weight_ih": np.ones((9, 2)), "weight_hh": np.ones((9, 3))})
    {'': GRU(2, 3, bias=False, dtype=float64)}
    """
    options = dict(options or {})
    if configuration is None:
        try:
            return find_layers(tensors, {None: options}, skipped)
        except ModelFormatError as error:
            raise ModelFormatError(f"{os.fsdecode(path)}: {error}") from error.__cause__
    if configuration.get("class") in CONTAINERS:        # its recurrent layers; readers may have left out the others
        with refusing(path):
            modules = members(configuration, tensors)
        inner = {str(index): layers_of(path, part, one, skipped, options) for index, (one, part) in enumerate(modules)
                 if one.get("class") not in ("Linear", "Embedding")}
        return {f"{index}.{name}".rstrip("."): layer for index, layers in inner.items()
                for name, layer in layers.items()}
    options = {name: value for name, value in options.items() if name in configuration or name not in OF_ONE_CLASS}
    for name in options:
        if name not in configuration:
            raise TypeError(f"{name}: no option of a {configuration.get('class')!r:.50}")
    return {"": cast("Layer", build(configuration, tensors, path, **options))}


def make_layer(parameters: Mapping[str, Array], where: str, options: Mapping[str, Any] | None = None) -> Layer:
    """Make a layer whose class and sizes follow from its parameters.

    Parameters
    ----------
    parameters : mapping of str to array
        By torch's names, with ``_l{k}`` and perhaps ``_reverse`` behind them.
    where : str
        What the parameters are of, for messages.
    options : mapping of str to object, optional
        Options of the layer. Those of ``OF_ONE_CLASS`` are left out where the layer is of another class: a file of
        weights does not tell tanh from relu, and an option holds for every layer of a file.

    Returns
    -------
    RNN, GRU or LSTM
        The layer; it has the parameters' type, float32 or float64.

    Raises
    ------
    ModelFormatError
        The parameters do not make a layer.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.interop.conventions import make_layer
    >>> make_layer({"weight_ih_l0": np.ones((9, 2)), "weight_hh_l0": np.ones((9, 3))}, "the example")
    GRU(2, 3, bias=False, dtype=float64)
    """
    options = dict(options or {})
    try:
        for name in ("weight_ih_l0", "weight_hh_l0"):
            if name not in parameters or parameters[name].ndim != 2:
                raise ModelFormatError(f"no matrix {name}")
        rows, input_size = parameters["weight_ih_l0"].shape
        state_size = parameters["weight_hh_l0"].shape[1]
        projection = parameters.get("weight_hr_l0")
        if projection is not None and projection.ndim != 2:
            raise ModelFormatError(f"weight_hr_l0 {projection.shape} is no matrix")
        hidden_size = state_size if projection is None else projection.shape[-1]
        gates, rest = divmod(rows, hidden_size) if hidden_size else (0, 1)
        if rest or gates not in CLASSES or not input_size:
            raise ModelFormatError(f"weight_ih_l0 {parameters['weight_ih_l0'].shape} and weight_hh_l0 "
                                   f"{parameters['weight_hh_l0'].shape} are of no RNN, GRU or LSTM")
        cls = CLASSES[gates]
        options = {name: value for name, value in options.items() if OF_ONE_CLASS.get(name, cls) is cls}
        if projection is not None:
            options["proj_size"] = state_size
        if "peephole_l0" in parameters and cls is LSTM:
            options["peephole"] = True
        num_layers = 1 + max(int(name.removesuffix("_reverse").rpartition("_l")[2]) for name in parameters)
        if num_layers > len(parameters):
            raise ModelFormatError(f"a parameter of layer {num_layers - 1}, but only {len(parameters)} in all")
        values = {name: as_float(value) for name, value in parameters.items()}
        dtype = np.result_type(*values.values())
        with np.errstate(invalid="ignore"):         # a signalling NaN warns when it is widened
            values = {name: value.astype(dtype, copy=False) for name, value in values.items()}
        return cls.from_parameters(
            values, input_size, hidden_size, num_layers, bias="bias_ih_l0" in values, dtype=dtype,
            bidirectional="weight_ih_l0_reverse" in values, **options)
    except ValueError as error:
        raise ModelFormatError(f"{where}: {error}") from None
