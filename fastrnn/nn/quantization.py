"""Narrowing a model's weights, with a report of what that saves and what it costs."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .._base import validation as check
from .._base.typing import Array, ArrayLike
from .modules import Container, Sequential
from .quantized import PRECISIONS, Quantizable
from .recurrent import Recurrent

if TYPE_CHECKING:
    from .quantized import Precision

ModelT = TypeVar("ModelT", bound=Quantizable)


@dataclass(frozen=True)
class LayerReport:
    """What narrow weights save and cost in one layer.

    Parameters
    ----------
    name : str
        The layer: the number of its module and, of a stack, its own, as in the names of parameters.
    bytes_before, bytes_after : int
        Bytes of its parameters.
    largest_error, mean_error : float or None
        The largest and the mean absolute difference of its outputs on the data, which the layers before it contribute
        to. None without data, and where the outputs of single parts are not known.

    Examples
    --------
    >>> import fastrnn
    >>> _, report = fastrnn.quantize(fastrnn.GRU(8, 64, 2, rng=0), "int8")
    >>> [layer.name for layer in report.layers]
    ['l0', 'l1']
    """

    name: str
    bytes_before: int
    bytes_after: int
    largest_error: float | None
    mean_error: float | None


@dataclass(frozen=True)
class QuantizationReport:
    """What narrow weights save and cost in a model; ``str`` shows it as a table.

    Parameters
    ----------
    precision : str
        The precision of the weights.
    layers : tuple of LayerReport
        Each layer in turn.
    bytes_before, bytes_after : int
        Bytes of all parameters.
    largest_error, mean_error : float or None
        The largest and the mean absolute difference of the model's outputs on the data. None without data.

    Examples
    --------
    >>> import fastrnn
    >>> import numpy as np
    >>> model = fastrnn.Sequential(fastrnn.GRU(8, 64, rng=0), fastrnn.Linear(64, 1, rng=1))
    >>> x = np.random.default_rng(0).standard_normal((50, 8), dtype=np.float32)
    >>> narrow, report = fastrnn.quantize(model, "int8", data=x)
    >>> report.bytes_after < 0.4 * report.bytes_before, report.largest_error < 0.01
    (True, True)
    """

    precision: str
    layers: tuple[LayerReport, ...]
    bytes_before: int
    bytes_after: int
    largest_error: float | None
    mean_error: float | None

    def __str__(self) -> str:
        def cells(name: str, part: LayerReport | QuantizationReport) -> list[str]:
            errors = ["-" if error is None else f"{error:.2g}" for error in (part.largest_error, part.mean_error)]
            return [name, f"{part.bytes_before}", f"{part.bytes_after}", *errors]

        rows = [["layer", "bytes before", self.precision, "largest error", "mean error"],
                *(cells(layer.name, layer) for layer in self.layers), cells("all", self)]
        widths = [max(map(len, column)) for column in zip(*rows)]
        return "\n".join("  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width
                                                               in zip(row[1:], widths[1:]))]) for row in rows)


def quantize(model: ModelT, precision: Precision, data: ArrayLike | None = None) -> tuple[ModelT, QuantizationReport]:
    """Narrow the weights of a model for inference, and report what that saves and costs.

    Parameters
    ----------
    model : RNN, LSTM, GRU, Linear, Embedding or Sequential
        The model, which is not changed.
    precision : {"int8", "bfloat16", "float16"}
        The precision of the weights; ``model.quantized`` says what it means.
    data : array, optional
        An input of the model, on which both models are run and compared. It changes nothing in the result.

    Returns
    -------
    model
        The narrow model, ``model.quantized(precision)``.
    report : QuantizationReport
        Bytes before and after, and errors on the data, by layer and of all.

    Raises
    ------
    TypeError, ValueError
        An argument is unsuitable; the message names it.

    Examples
    --------
    >>> import fastrnn
    >>> import numpy as np
    >>> layer = fastrnn.LSTM(16, 32, rng=0)
    >>> x = np.random.default_rng(0).standard_normal((50, 16), dtype=np.float32)
    >>> narrow, report = fastrnn.quantize(layer, "int8", data=x)
    >>> print(report)                                # doctest: +ELLIPSIS
    layer  bytes before  int8  largest error  mean error
    l0            25600  8384  ...
    all           25600  8384  ...
    """
    if not isinstance(model, Quantizable):
        raise TypeError(f"model: expected a recurrent layer, Linear, Embedding or Sequential, got "
                        f"{type(model).__name__}")
    check.choice(precision, "precision", PRECISIONS)
    narrow = model.quantized(precision)
    layers: list[LayerReport] = []
    outputs = _compare("", model, narrow, None if data is None else (data, data), layers)
    return narrow, QuantizationReport(precision, tuple(layers), sum(layer.bytes_before for layer in layers),
                                      sum(layer.bytes_after for layer in layers), *_errors(outputs))


Pair = tuple[Any, Any]          # the same of the model and of its narrow copy


def _compare(name: str, model: Any, narrow: Any, inputs: Pair | None, layers: list[LayerReport]) -> Pair | None:
    """Add the report of each layer of a model to `layers`; the outputs of both models, None without inputs."""
    if isinstance(model, Container):
        chain = inputs if isinstance(model, Sequential) else None       # of others the inputs of modules are not known
        for i, parts in enumerate(zip(model.modules, narrow.modules, strict=True)):
            chain = _compare(f"{name}{i}.", *parts, chain, layers)
        return chain if isinstance(model, Sequential) else _outputs(model, narrow, inputs)
    outputs = None
    stack = range(model.num_layers) if isinstance(model, Recurrent) else [None]
    for k in stack:
        before, after = (_first(part, k) for part in (model, narrow))
        outputs = _outputs(before, after, inputs)
        own = "" if k is None else f"l{k}"
        bytes_before, bytes_after = (sum(value.nbytes for key, value in part.parameters.items()
                                         if k is None or own in key.split("_")) for part in (before, after))
        layers.append(LayerReport((name + own).strip(".") or type(model).__name__, bytes_before, bytes_after,
                                  *_errors(outputs)))
    return outputs


def _first(layer: Any, k: int | None) -> Any:
    """A stack's layers up to k, as a stack; any other module as it is."""
    if k is None:
        return layer
    first = copy.copy(layer)
    first.num_layers = k + 1
    kept = {f"l{i}" for i in range(k + 1)}
    first._parameters = {name: value for name, value in layer.parameters.items() if kept & set(name.split("_"))}
    return first


def _outputs(before: Any, after: Any, inputs: Pair | None) -> Pair | None:
    return None if inputs is None else (before(inputs[0])[0], after(inputs[1])[0])


def _errors(outputs: Pair | None) -> tuple[float | None, float | None]:
    """The largest and the mean absolute difference."""
    if outputs is None:
        return None, None
    difference: Array = np.abs(outputs[0].astype(np.float64) - outputs[1])
    return (float(difference.max()), float(difference.mean())) if difference.size else (0.0, 0.0)
