"""neural-amp-modeler's files (.nam) of LSTM models: guitar amplifiers, one sample of sound a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._base import validation as check
from .._base.reading import ModelFormatError, parse_json, read_bytes, refusing
from .conventions import make_layer

if TYPE_CHECKING:
    from .._base.typing import Array, DTypeLike, PathLike
    from .conventions import Layer

MOST_LAYERS = 1024


def load_state_dict(path: PathLike, *, dtype: DTypeLike = np.float32) -> dict[str, Array]:
    """Read the arrays of a .nam file of an LSTM, under torch's names.

    Parameters
    ----------
    path : str or path-like
        The file.
    dtype : float32 or float64, optional
        Type of the arrays, which decimal numbers do not tell.

    Returns
    -------
    dict of str to array
        ``weight_ih_l0``, ``weight_hh_l0``, ``bias_ih_l0`` (the sum of both biases) and ``bias_hh_l0`` (zeros), and so
        on for each layer; ``h_0`` and ``c_0`` [L, 1, H], the state that the model starts in; ``head.weight`` [1, H] and
        ``head.bias`` [1], of the linear layer that makes a sample of sound of the last layer's output.

    Raises
    ------
    ModelFormatError
        The file is broken, or its architecture is none of neural-amp-modeler's LSTMs, by name.
    OSError
        The file cannot be read.

    Notes
    -----
    The weights are one list. For each layer: the matrix [4H, I + H] of input and state, row by row, its gates in
    torch's order; the bias [4H]; the initial h [H] and c [H]. Behind the layers the head's H weights and its bias.

    Examples
    --------
    >>> import json, os, tempfile
    >>> from fastrnn import interop
    >>> model = {"version": "0.5.0", "architecture": "LSTM", "config": {
    ...     "input_size": 1, "hidden_size": 2, "num_layers": 1}}
    >>> model["weights"] = [0.5] * (8 * 3 + 8 + 2 + 2 + 2 + 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "amplifier.nam")
    ...     with open(path, "w") as file:
    ...         json.dump(model, file)
    ...     {name: array.shape for name, array in interop.nam.load_state_dict(path).items() if "_0" in name}
    {'h_0': (1, 1, 2), 'c_0': (1, 1, 2)}
    """
    dtype = check.model_dtype(dtype)
    with refusing(path):
        model = parse_json(read_bytes(path))
        if not isinstance(model, dict) or model.get("architecture") != "LSTM":
            architecture = model.get("architecture") if isinstance(model, dict) else model
            raise ModelFormatError(f"architecture {architecture!r:.100}: only neural-amp-modeler's LSTM is recurrent")
        input_size, hidden_size, num_layers = _sizes(model.get("config"))
        numbers = _numbers(model.get("weights"), dtype)
        I, H = input_size, hidden_size
        due = sum(4 * H * ((H if k else I) + H) + 6 * H for k in range(num_layers)) + H + 1
        if numbers.size != due:
            raise ModelFormatError(f"{numbers.size} weights, expected {due} of {num_layers} layer(s) with input_size "
                                   f"{I} and hidden_size {H}")
        return _arrays(numbers, input_size, hidden_size, num_layers)


def layers(path: PathLike, skipped: dict[str, str] | None = None, *, dtype: DTypeLike = np.float32,
           batch_first: bool | None = None) -> dict[str, Layer]:
    """Read the LSTM of a .nam file.

    Parameters
    ----------
    path : str or path-like
        The file.
    skipped : dict, optional
        If given, it takes the reason why a model of another architecture is no layer.
    dtype : float32 or float64, optional
        Type of the layer, which decimal numbers do not tell.
    batch_first : bool, optional
        Whether the layer takes [N, T, I] instead of [T, N, I].

    Returns
    -------
    dict of str to layer
        The LSTM under "lstm". It is one part of the model: `load_state_dict` gives the state that the model starts in
        and its head, a linear layer.

    Raises
    ------
    ModelFormatError
        The file is broken, or its architecture is none of neural-amp-modeler's LSTMs, by name.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> import json, os, tempfile
    >>> from fastrnn import interop
    >>> model = {"version": "0.5.0", "architecture": "LSTM", "config": {
    ...     "input_size": 1, "hidden_size": 2, "num_layers": 1}}
    >>> model["weights"] = [0.5] * (8 * 3 + 8 + 2 + 2 + 2 + 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "amplifier.nam")
    ...     with open(path, "w") as file:
    ...         json.dump(model, file)
    ...     interop.nam.layers(path)
    {'lstm': LSTM(1, 2)}
    """
    try:
        arrays = load_state_dict(path, dtype=dtype)
    except ModelFormatError as error:
        if skipped is None or "architecture" not in str(error):
            raise
        skipped[""] = str(error)
        return {}
    parameters = {name: array for name, array in arrays.items() if name.startswith(("weight", "bias"))}
    return {"lstm": make_layer(parameters, "lstm", {} if batch_first is None else {"batch_first": batch_first})}


def _sizes(config: Any) -> tuple[int, int, int]:
    """input_size, hidden_size and num_layers."""
    values: list[Any] = [None]
    if isinstance(config, dict):
        values = [config.get(name) for name in ("input_size", "hidden_size", "num_layers")]
    if any(type(value) is not int or not 0 < value < 1 << 31 for value in values) or values[2] > MOST_LAYERS:
        raise ModelFormatError(f"config: expected input_size, hidden_size and num_layers, got {config!r:.200}")
    return values[0], values[1], values[2]


def _numbers(values: Any, dtype: np.dtype[Any]) -> Array:
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise ModelFormatError("weights: expected a list of numbers")
    with np.errstate(over="ignore"):
        numbers = np.array(values, np.float64).astype(dtype)
    if not np.isfinite(numbers).all():
        raise ModelFormatError(f"weights: expected finite numbers of {numbers.dtype}")
    return numbers


def _arrays(numbers: Array, I: int, H: int, num_layers: int) -> dict[str, Array]:
    """The list of weights cut into arrays."""
    arrays: dict[str, Array] = {}
    states: list[Array] = []
    at = 0

    def take(*shape: int) -> Array:
        nonlocal at
        at += int(np.prod(shape))
        return numbers[at - int(np.prod(shape)):at].reshape(shape)

    for k in range(num_layers):
        columns = H if k else I
        matrix = take(4 * H, columns + H)
        arrays |= {f"weight_ih_l{k}": matrix[:, :columns], f"weight_hh_l{k}": matrix[:, columns:],
                   f"bias_ih_l{k}": take(4 * H), f"bias_hh_l{k}": np.zeros(4 * H, numbers.dtype)}
        states += [take(1, H), take(1, H)]
    arrays |= {"h_0": np.stack(states[::2]), "c_0": np.stack(states[1::2])}
    return arrays | {"head.weight": take(1, H), "head.bias": take(1)}
