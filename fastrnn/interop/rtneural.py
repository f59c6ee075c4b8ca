"""RTNeural's JSON models, in both dialects: Keras' layers one after the other, or a torch state_dict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._base import reading
from .._base import validation as check
from .._base.reading import ModelFormatError
from . import conventions
from .parts import Unread, is_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import Activation, Array, DTypeLike, PathLike
    from .conventions import Layer

TYPES = ("gru", "lstm")             # the recurrent ones of RTNeural's layer types


def layers(path: PathLike, skipped: dict[str, str] | None = None, *, dtype: DTypeLike = np.float32,
           batch_first: bool | None = None, dropout: float | None = None, nonlinearity: str | None = None,
           reset_after: bool | None = None, update: str | None = None, coupled_gates: bool | None = None,
           reverse: bool | None = None, activations: Sequence[Activation] | None = None,
           clip: float | None = None) -> dict[str, Layer]:
    """Read the recurrent layers of an RTNeural JSON model.

    The options say what the file does not tell, and hold for every layer of it that has such an option.

    Parameters
    ----------
    path : str or path-like
        The file.
    skipped : dict, optional
        If given, it takes name -> reason of the layers that cannot be represented. Without it the first of them is an
        error.
    dtype : float32 or float64, optional
        Type of the layers, which decimal numbers do not tell.
    batch_first : bool, optional
        Whether the layers take [N, T, I] instead of [T, N, I].
    dropout : float, optional
        Probability of dropout between stacked layers, in training.
    nonlinearity : {"tanh", "relu"}, optional
        Of every plain RNN.
    reset_after : bool, optional
        Of every GRU: where its reset gate acts. True, the default, is RTNeural's and torch's.
    update : {"torch", "mirror"}, optional
        Of every GRU: which of the two mixes the update gate is.
    coupled_gates : bool, optional
        Of every LSTM: whether its input gate is 1 - f.
    reverse : bool, optional
        Whether the layers walk from the last step to the first.
    activations : sequence, optional
        Activation functions in ONNX's order f, g, h.
    clip : float, optional
        Bound of the sums that activations are taken of.

    Returns
    -------
    dict of str to layer
        By prefix (``{"lstm": ...}``) for a torch state_dict; for Keras' layers by place, ``"layers.0"`` the first.

    Raises
    ------
    ModelFormatError
        The file is broken, or a layer's stored activation is not tanh: RTNeural would run it with tanh all the same,
        Keras with what is stored. Say which is meant by ``activations=("sigmoid", "tanh", "tanh")`` (LSTM; GRU two).
    OSError
        The file cannot be read.

    Notes
    -----
    Keras' dialect is ``{"in_shape": ..., "layers": [{"type": "gru", "activation": "tanh", "shape": ..., "weights":
    [kernel, recurrent kernel, bias]}, ...]}``, kernels [I, G*H] and [H, G*H], gates in Keras' order, the GRU with
    reset_after and a bias [2, 3H] (RTNeural/model_loader.h). The other is ``{"gru.weight_ih_l0": [[...]], ...}``
    (RTNeural/torch_helpers.h), or that under "state_dict", beside "model_data", as guitar amplifier models have it.

    Examples
    --------
    >>> import json, os, tempfile
    >>> import numpy as np
    >>> from fastrnn import interop
    >>> weights = [np.ones((1, 6)), np.ones((2, 6)), np.ones((2, 6))]
    >>> model = {"in_shape": [None, None, 1], "layers": [
    ...     {"type": "gru", "activation": "tanh", "shape": [None, None, 2], "weights": [w.tolist() for w in weights]}]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.json")
    ...     with open(path, "w") as file:
    ...         json.dump(model, file)
    ...     interop.rtneural.layers(path)
    {'layers.0': GRU(1, 2)}
    """
    dtype = check.model_dtype(dtype)
    data = reading.read_bytes(path)
    with reading.refusing(path):
        model = reading.parse_json(data)
        if not isinstance(model, dict):
            raise ModelFormatError(f"expected a JSON object, got {model!r:.50}")
        missed: dict[str, str] = {}
        tensors: dict[str, Any]
        if "layers" in model:
            tensors = _keras_layers(model["layers"], None if skipped is None else missed, dtype,
                                    activations is not None)
        else:
            tensors = _state_dict(model, dtype)
    options = conventions.given_options({
        "batch_first": batch_first, "dropout": dropout, "nonlinearity": nonlinearity, "reset_after": reset_after,
        "update": update, "coupled_gates": coupled_gates, "reverse": reverse, "activations": activations, "clip": clip})
    if skipped is not None:
        skipped.update(missed)
    if missed and not tensors:
        return {}
    if "layers" in model and not tensors:
        kinds = ", ".join(str(entry.get("type")) for entry in model["layers"])
        return conventions.explained({}, path, {}, skipped, lambda: f"its layers are {kinds or 'none at all':.300}")
    return conventions.layers_of(path, tensors, None, skipped, options)


def _state_dict(model: dict[str, Any], dtype: np.dtype[Any]) -> dict[str, Any]:
    """The arrays of a torch state_dict in JSON; what is no parameter of a recurrent layer is not read."""
    values = model.get("state_dict", model)
    if not isinstance(values, dict):
        raise ModelFormatError(f"state_dict: expected an object, got {values!r:.50}")
    if not any(isinstance(value, list) for value in values.values()):
        raise ModelFormatError('JSON, but not of RTNeural: it has neither "layers" nor arrays by name, it has '
                               + (f"{', '.join(values):.200}" or "nothing"))
    return {name: _array(value, name, dtype) if is_part(name) else Unread("its name is none of a recurrent layer",
                                                                          _nested_shape(value))
            for name, value in values.items() if isinstance(value, list) or is_part(name)}


def _nested_shape(value: Any) -> tuple[int, ...]:
    """The lengths of nested lists, as far as the first of each tells."""
    shape: tuple[int, ...] = ()
    while isinstance(value, list) and len(shape) < 8:
        shape, value = (*shape, len(value)), value[0] if value else None
    return shape


def _keras_layers(entries: Any, skipped: dict[str, str] | None, dtype: np.dtype[Any],
                  any_activation: bool) -> dict[str, Array]:
    """The recurrent layers' arrays under torch's names, with "layers.<place>." before them."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ModelFormatError("layers: expected a list of objects")
    tensors: dict[str, Array] = {}
    for index, entry in enumerate(entries):
        if entry.get("type") in TYPES:
            try:
                arrays = _keras_layer(entry, f"layers.{index}", dtype, any_activation)
            except ModelFormatError as error:
                if skipped is None:
                    raise
                skipped[f"layers.{index}"] = str(error)
            else:
                tensors |= {f"layers.{index}.{name}": a for name, a in arrays.items()}
    return tensors


def _keras_layer(entry: dict[str, Any], name: str, dtype: np.dtype[Any], any_activation: bool) -> dict[str, Array]:
    kind, weights = entry["type"], entry.get("weights")
    if entry.get("activation", "") not in ("", "tanh") and not any_activation:
        raise ModelFormatError(f"{name}: activation {entry['activation']!r:.50}; RTNeural runs a {kind} with tanh all "
                               "the same, Keras does not: the option activations=... tells what is meant")
    if not isinstance(weights, list) or len(weights) not in (2, 3):
        raise ModelFormatError(f"{name}: expected weights [kernel, recurrent kernel, bias]")
    arrays = [_array(value, f"{name} weights[{index}]", dtype) for index, value in enumerate(weights)]
    rows = len(conventions.GATE_ORDERS["keras"][kind]) * len(arrays[1])
    expected = [(len(arrays[0]), rows), (len(arrays[1]), rows), (2, rows) if kind == "gru" else (rows,)][:len(arrays)]
    if [a.shape for a in arrays] != expected:
        raise ModelFormatError(f"{name}: {kind} weights of shapes {[a.shape for a in arrays]}, expected {expected}")
    return conventions.keras_parameters(kind, *arrays)


def _array(value: Any, where: str, dtype: np.dtype[Any]) -> Array:
    """Nested lists of numbers as an array of one or two axes."""
    if not isinstance(value, list):
        raise ModelFormatError(f"{where}: expected lists of numbers, got {value!r:.50}")
    try:
        with np.errstate(over="ignore"):        # past dtype's range: not finite
            a = np.array(value, np.float64).astype(dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelFormatError(f"{where}: expected lists of numbers: {error}") from None
    if a.ndim > 2 or not a.size or not np.isfinite(a).all():
        raise ModelFormatError(f"{where}: expected a matrix or a list of finite numbers of {a.dtype}, got {a.shape}")
    return a
