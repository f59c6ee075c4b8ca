"""What frameworks do differently, in one place: gate orders, and layers told from parameters' names and shapes."""

import os
import re

import numpy as np

from .._base.reading import ModelFormatError, refusing
from .._base.registry import CONTAINERS
from ..nn import GRU, LSTM, RNN
from ..nn.files import build, members

# The gates in the order of the rows of a framework's weights. torch's order is fastrnn's (peepholes, which torch has
# not, are in its order too). Keras' c is the g here; ONNX, Keras and Paddle call the GRU's z, r, h (n here).
GATE_ORDERS = {
    "torch": {"rnn": "n", "gru": "rzn", "lstm": "ifgo", "peephole": "ifo"},
    "keras": {"rnn": "n", "gru": "zrn", "lstm": "ifgo"},
    "onnx": {"rnn": "n", "gru": "zrn", "lstm": "iofg", "peephole": "iof"},
    "nagisa": {"lstm": "ifog"},
}
CLASSES = {1: RNN, 3: GRU, 4: LSTM}         # gates -> layer


def reorder(a, cell, source, target="torch"):
    """`a` with its rows, blocks of gates along axis 0, moved from one framework's order to another's.

    >>> reorder(np.array([0, 1, 2]), "gru", "keras")            # z r n to r z n
    array([1, 0, 2])
    """
    gates = dict(zip(GATE_ORDERS[source][cell], np.split(a, len(GATE_ORDERS[source][cell])), strict=True))
    return np.concatenate([gates[gate] for gate in GATE_ORDERS[target][cell]])


def as_float(a):
    """float32 or float64 as it is, a narrower float as float32; else a ModelFormatError."""
    if a.dtype.kind != "f" or a.dtype.itemsize > 8:
        raise ModelFormatError(f"expected floating-point weights, got {a.dtype}")
    return a.astype(a.dtype.newbyteorder("=") if a.dtype.itemsize >= 4 else np.float32, copy=False)


def keras_parameters(cell, kernel, recurrent, bias=None):
    """Keras' arrays of one layer and direction under torch's names, ``weight_ih_l0``, ...

    kernel [I, G*H], recurrent [H, G*H], bias [G*H], or [2, G*H] (input's and state's, of a GRU with reset_after).

    >>> sorted(keras_parameters("gru", np.ones((2, 9)), np.ones((3, 9))))
    ['weight_hh_l0', 'weight_ih_l0']
    """
    found = {"weight_ih_l0": reorder(kernel.T, cell, "keras"), "weight_hh_l0": reorder(recurrent.T, cell, "keras")}
    if bias is not None:
        first, second = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
        found |= {"bias_ih_l0": reorder(first, cell, "keras"), "bias_hh_l0": reorder(second, cell, "keras")}
    return found


_NAME = re.compile(r"(?P<prefix>.*?)(?P<name>weight_ih|weight_hh|weight_hr|bias_ih|bias_hh|peephole)"
                   r"(?:_l(?P<layer>\d+))?(?P<reverse>_reverse)?", re.DOTALL)


def is_parameter(name):
    """Whether a recurrent layer or cell may have a parameter of this name.

    >>> is_parameter("encoder.lstm.weight_ih_l0_reverse"), is_parameter("head.weight")
    (True, False)
    """
    return _NAME.fullmatch(name) is not None


def find_layers(tensors, options=None, skipped=None):
    """Layers from parameters under torch's names, found by their prefixes.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        Such as ``{"encoder.lstm.weight_ih_l0": ..., "head.weight": ...}``; a cell's names (``weight_ih``) do as well.
    options : mapping of str to dict, optional
        Options by prefix that shapes do not tell (``nonlinearity``, ``batch_first``, ...); those under None hold for
        every prefix.
    skipped : dict, optional
        Given, it takes prefix -> reason of what makes no layer, and nothing is raised.

    Returns
    -------
    dict of str to layer
        By prefix without its last dot. Class, sizes, number of layers, directions, bias and projection follow from
        names and shapes.

    Raises
    ------
    ModelFormatError
        Parameters under one prefix that do not make a layer.
    """
    groups = {}
    for name, value in tensors.items():
        if match := _NAME.fullmatch(name):
            suffix = f"_l{match['layer'] or 0}{match['reverse'] or ''}"
            groups.setdefault(match["prefix"].rstrip("."), {})[match["name"] + suffix] = value
    options, found = options or {}, {}
    for prefix, group in groups.items():
        if "weight_ih_l0" in group or "weight_hh_l0" in group:
            try:
                found[prefix] = make_layer(group, prefix or "the model",
                                           **{**options.get(None, {}), **options.get(prefix, {})})
            except ModelFormatError as error:
                if skipped is None:
                    raise
                skipped[prefix] = str(error)
    return found


def layers_of(path, tensors, configuration=None, skipped=None, **options):
    """Name -> layer of a file of named arrays: by `find_layers`, or as fastrnn's own configuration says.

    The options hold for every layer, nonlinearity for RNNs alone; one that there is not is a TypeError.
    """
    if configuration is None:
        try:
            return find_layers(tensors, {None: options}, skipped)
        except ModelFormatError as error:
            raise ModelFormatError(f"{os.fsdecode(path)}: {error}") from error.__cause__
    if configuration.get("class") in CONTAINERS:        # its recurrent layers; readers may have left out the others
        with refusing(path):
            modules = members(configuration, tensors)
        found = [(str(i), layers_of(path, part, one, skipped, **options)) for i, (one, part) in enumerate(modules)
                 if one.get("class") not in ("Linear", "Embedding")]
        return {f"{i}.{name}".rstrip("."): layer for i, inner in found for name, layer in inner.items()}
    if "nonlinearity" not in configuration:
        options.pop("nonlinearity", None)
    for name in options:
        if name not in configuration:
            raise TypeError(f"{name}: no option of a {configuration.get('class')!r:.50}")
    return {"": build(configuration, tensors, path, **options)}


def make_layer(parameters, where, **options):
    """A layer whose class and sizes follow from its parameters, by torch's names with ``_l{k}[_reverse]``.

    nonlinearity among the options is passed on for an RNN and left out for the others: a file of weights does not tell
    tanh from relu.
    """
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
        if cls is not RNN:
            options.pop("nonlinearity", None)
        if projection is not None:
            options["proj_size"] = state_size
        if "peephole_l0" in parameters and cls is LSTM:
            options["peephole"] = True
        num_layers = 1 + max(int(re.search(r"_l(\d+)", name)[1]) for name in parameters)
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
