"""What frameworks do differently, in one place: gate orders, and layers told from parameters' names and shapes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from .._base.pieces import copy_into
from .._base.reading import ModelFormatError, refusing
from .._base.registry import CONTAINERS
from ..nn import GRU, LSTM, RNN
from ..nn.files import build, members
from .parts import NAME, Group, Neighbours, Unread, gather, hint, resolve, unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    from .._base.typing import Array, PathLike

Layer: TypeAlias = RNN | GRU | LSTM

# The gates in the order of the blocks of a framework's weights. torch's order is fastrnn's (peepholes, which torch has
# not, are in its order too). Others call the candidates c, j or h; here an LSTM's is g, a GRU's n.
GATE_ORDERS: dict[str, dict[str, str]] = {
    "torch": {"rnn": "n", "gru": "rzn", "lstm": "ifgo", "peephole": "ifo"},
    "keras": {"rnn": "n", "gru": "zrn", "lstm": "ifgo"},
    "onnx": {"rnn": "n", "gru": "zrn", "lstm": "iofg", "peephole": "iof"},
    "tensorflow": {"rnn": "n", "lstm": "igfo"},         # BasicLSTMCell, LSTMCell and LSTMBlockCell of TensorFlow 1
    "haiku": {"rnn": "n", "lstm": "igfo"},
    "caffe": {"lstm": "ifog"},
    "dynet": {"lstm": "ifog"},
    "nagisa": {"lstm": "ifog"},
}
CLASSES: dict[int, type[RNN] | type[GRU] | type[LSTM]] = {1: RNN, 3: GRU, 4: LSTM}      # gates -> layer
FROM_ARRAYS = ("A layer is built of arrays under any names, in any order of gates, by "
               "fastrnn.interop.from_arrays(arrays, kind, names=..., order=..., layout=...)")
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
    before, after = GATE_ORDERS[source][cell], GATE_ORDERS[target][cell]
    gates = a.reshape(len(before), len(a) // len(before), *a.shape[1:])
    result = np.empty(gates.shape, a.dtype.newbyteorder("="))
    for rows, gate in zip(result, after, strict=True):
        copy_into(rows, gates[before.index(gate)])
    return result.reshape(a.shape)


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
    match = NAME.fullmatch(name)
    return match is not None and not match["part"] and not match["parametrised"]


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
        By prefix without its last dot and without what wrappers put into it (``module``, ``_orig_mod``, ...).

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
    return named(found_layers(tensors, options, skipped), skipped or ())


def found_layers(tensors: Mapping[str, Array], options: Mapping[str | None, Mapping[str, Any]] | None = None,
                 skipped: dict[str, str] | None = None, peepholes: bool = True,
                 flat: bool = False) -> list[tuple[str, Layer]]:
    """Make layers as `find_layers` does, with their whole prefixes.

    Parameters
    ----------
    tensors : mapping of str to array
        As for `find_layers`.
    options : mapping of str to dict, optional
        As for `find_layers`.
    skipped : dict, optional
        As for `find_layers`.
    peepholes : bool, optional
        Whether ``peephole`` is taken for an LSTM's, which are fastrnn's and no other framework's name for them.
    flat : bool, optional
        Whether the names are not those of a state_dict but were put together by hand, so that beside the parameters of
        a layer without a prefix those of others may stand, such as ``embeddings``.

    Returns
    -------
    list of (str, layer)
        Prefixes without their last dots, and layers.

    Raises
    ------
    ModelFormatError
        Parameters under one prefix do not make a layer.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.interop.conventions import found_layers
    >>> found_layers({"module.cell.weight_ih": np.ones((9, 2)), "module.cell.weight_hh": np.ones((9, 3))})
    [('module.cell', GRU(2, 3, bias=False, dtype=float64))]
    """
    options, groups, layers = options or {}, gather(tensors), []
    neighbours = Neighbours(tensors, groups, flat)
    for prefix, group in groups.items():
        if all(base.startswith("peephole") for base in group.bases):
            continue
        name = prefix.rstrip(".")
        chosen = {**options.get(None, {}), **options.get(unwrapped(name), {}), **options.get(name, {})}
        try:
            parameters = _accounted(prefix, group, neighbours)
            if not peepholes and any(base.startswith("peephole") for base in parameters):
                raise ModelFormatError(f"{name or 'the model'}: peephole weights in an order that is not known. "
                                       f"{FROM_ARRAYS}")
            layers.append((name, make_layer(parameters, name or "the model", chosen)))
        except ModelFormatError as error:
            if skipped is None:
                raise
            skipped[unwrapped(name)] = str(error)
    return layers


def named(layers: Sequence[tuple[str, Layer]], others: Container[str] = ()) -> dict[str, Layer]:
    """Name layers by their prefixes without what wrappers put into them, unless two would have one name then.

    Parameters
    ----------
    layers : sequence of (str, layer)
        Prefixes and layers.
    others : container of str, optional
        Names that are taken.

    Returns
    -------
    dict of str to layer
        The layers by name.

    Examples
    --------
    >>> import fastrnn
    >>> from fastrnn.interop.conventions import named
    >>> named([("module.encoder._orig_mod.rnn", fastrnn.GRU(2, 3))])
    {'encoder.rnn': GRU(2, 3)}
    """
    short = {unwrapped(prefix): layer for prefix, layer in layers}
    return short if len(short) == len(layers) and not any(name in others for name in short) else dict(layers)


def _accounted(prefix: str, group: Group, neighbours: Neighbours) -> dict[str, Array]:
    """The parameters of a group by torch's names, if everything under its prefix is accounted for."""
    where, parameters = prefix.rstrip(".") or "the model", {}
    strangers = neighbours.of(prefix, group)
    if strangers:
        shown = ", ".join(name[len(prefix):] for name in strangers[:3]) + ", ..." * (len(strangers) > 3)
        raise ModelFormatError(f"{where}: beside its parameters there are {shown:.300}{hint(strangers)}: it is not "
                               f"taken for a plain layer. {FROM_ARRAYS}")
    if group.problems:
        raise ModelFormatError(f"{where}: {group.problems[0]:.300}. {FROM_ARRAYS}")
    numbered = [base for base in group.bases if "_l" in base]
    if numbered and len(numbered) < len(group.bases):
        other = next(base for base in group.bases if base not in numbered)
        raise ModelFormatError(f"{where}: {numbered[0]} is a layer's, {other} a cell's: both are there, and which "
                               "counts is not known")
    for base, parts in group.bases.items():
        name, number, rest = base.partition("_l")
        if not number:
            name, _, rest = base.partition("_reverse")
            rest = "0" + base[len(name):]
        key = f"{name}_l{rest}"
        try:
            parameters[key] = resolve(base, parts)
        except ModelFormatError as error:
            raise ModelFormatError(f"{where}: {error}") from None
    if "weight_ih_l0" not in parameters and "weight_hh_l0" not in parameters:
        raise ModelFormatError(f"{where}: a part of a layer, of which only {', '.join(group.bases):.200} are here")
    return parameters


def describe(arrays: Mapping[str, Any], most: int = 12) -> str:
    """Name the arrays of a file with their shapes, for messages.

    Parameters
    ----------
    arrays : mapping of str to array
        The arrays.
    most : int, optional
        How many of them are named.

    Returns
    -------
    str
        Names and shapes.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.interop.conventions import describe
    >>> describe({"kernel": np.ones((2, 8)), "bias": np.ones(8)})
    'kernel (2, 8), bias (8,)'
    """
    shown = [f"{name:.60} {'(no array of numbers)' if value.shape is None else value.shape}"
             for name, value, _ in zip(arrays, arrays.values(), range(most))]
    return ", ".join(shown) + (f" and {len(arrays) - most} more" if len(arrays) > most else "")


def explained(layers: dict[str, Layer], path: PathLike, missed: Mapping[str, str], skipped: dict[str, str] | None,
              contents: Callable[[], str]) -> dict[str, Layer]:
    """Return the layers of a file; where there are none and nothing says why, say what the file has instead.

    Parameters
    ----------
    layers : dict of str to layer
        The layers that were made.
    path : str or path-like
        The file.
    missed : mapping of str to str
        Name -> reason of what made no layer.
    skipped : dict, optional
        The user's, which takes `missed`. Without it, that there are no layers is an error.
    contents : callable
        What the file has, as a part of a message; it is called where there are no layers.

    Returns
    -------
    dict of str to layer
        The layers.

    Raises
    ------
    ModelFormatError
        There are no layers, and no `skipped` that could take the reason.

    Examples
    --------
    >>> from fastrnn.interop.conventions import explained
    >>> skipped = {}
    >>> explained({}, "model.npz", {}, skipped, lambda: "it is empty"), skipped
    ({}, {'': 'no recurrent layer: it is empty'})
    """
    if not layers and not missed:
        missed = {"": f"no recurrent layer: {contents()}"}
        if skipped is None:
            raise ModelFormatError(f"{os.fsdecode(path)}: {missed['']}")
    if skipped is not None:
        skipped.update(missed)
    return layers


def contents_of(arrays: Mapping[str, Any]) -> str:
    """Say what arrays a file has under other names than a recurrent layer's, and how to make a layer of them.

    Parameters
    ----------
    arrays : mapping of str to array
        The arrays.

    Returns
    -------
    str
        A part of a message.

    Examples
    --------
    >>> from fastrnn.interop.conventions import contents_of
    >>> contents_of({})
    'there are no arrays in the file'
    """
    if not arrays:
        return "there are no arrays in the file"
    return (f"its arrays are {describe(arrays)}; their names (such as weight_ih_l0 and weight_hh_l0) tell of none. "
            f"{FROM_ARRAYS}")


def layers_of(path: PathLike, tensors: Mapping[str, Array], configuration: dict[str, Any] | None = None,
              skipped: dict[str, str] | None = None, options: Mapping[str, Any] | None = None,
              flat: bool = False) -> dict[str, Layer]:
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
    flat : bool, optional
        As for `found_layers`.

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
        missed: dict[str, str] = {}
        try:
            reasons = None if skipped is None else missed
            layers = named(found_layers(tensors, {None: options}, reasons, flat=flat), missed)
        except ModelFormatError as error:
            raise ModelFormatError(f"{os.fsdecode(path)}: {error}") from error.__cause__
        return explained(layers, path, missed, skipped, lambda: contents_of(tensors))
    if configuration.get("class") in CONTAINERS:        # its recurrent layers; readers may have left out the others
        with refusing(path):
            modules = members(configuration, dict(tensors))
        inner = {str(index): layers_of(path, part, one, skipped, options) for index, (one, part) in enumerate(modules)
                 if one.get("class") not in ("Linear", "Embedding")}
        return {f"{index}.{name}".rstrip("."): layer for index, layers in inner.items()
                for name, layer in layers.items()}
    options = {name: value for name, value in options.items() if name in configuration or name not in OF_ONE_CLASS}
    for name in options:
        if name not in configuration:
            raise TypeError(f"{name}: no option of a {configuration.get('class')!r:.50}")
    return {"": cast("Layer", build(configuration, dict(tensors), path, **options))}


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
        for name, value in parameters.items():
            if isinstance(value, Unread):
                raise ModelFormatError(f"{name} is not read: {value.reason}")
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
