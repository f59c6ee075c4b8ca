"""safetensors files: recurrent layers under torch's parameter names, and fastrnn's own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .._base import named_arrays
from .._base.reading import ModelFormatError
from . import conventions
from .shards import is_index, read_index

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import Activation, Array, PathLike
    from .conventions import Layer


def layers(path: PathLike, skipped: dict[str, str] | None = None, *, batch_first: bool | None = None,
           dropout: float | None = None, nonlinearity: str | None = None, reset_after: bool | None = None,
           update: str | None = None, coupled_gates: bool | None = None, reverse: bool | None = None,
           activations: Sequence[Activation] | None = None, clip: float | None = None) -> dict[str, Layer]:
    """Read the recurrent layers of a .safetensors file, or of the index of several.

    The options say what weights do not tell, and hold for every layer of the file that has such an option. For a file
    of fastrnn's own they stand above what the file says.

    Parameters
    ----------
    path : str or path-like
        The file; or the index of a model in several files, ``model.safetensors.index.json``, with them beside it.
    skipped : dict, optional
        If given, it takes prefix -> reason of the layers that cannot be represented. Without it the first of them is
        an error.
    batch_first : bool, optional
        Whether the layers take [N, T, I] instead of [T, N, I].
    dropout : float, optional
        Probability of dropout between stacked layers, in training.
    nonlinearity : {"tanh", "relu"}, optional
        Of every plain RNN.
    reset_after : bool, optional
        Of every GRU: where its reset gate acts. True, the default, is torch's.
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
        By prefix: ``{"encoder.lstm": LSTM(40, 256)}`` of ``encoder.lstm.weight_ih_l0`` and its neighbours; "" where
        there is no prefix. float16 and bfloat16 weights become float32.

    Raises
    ------
    ModelFormatError
        The file is broken, or parameters make no layer.
    OSError
        The file cannot be read.

    Notes
    -----
    Nothing in the format says what a tensor is: layers are told by torch's names and by shapes. A file is 8 bytes with
    the length of a JSON header, the header, and the bytes of the tensors [1]_.

    References
    ----------
    .. [1] https://huggingface.co/docs/safetensors

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np, safetensors.numpy
    >>> from fastrnn import interop
    >>> weights = {"rnn.weight_ih_l0": np.ones((12, 2), "f4"), "rnn.weight_hh_l0": np.ones((12, 3), "f4")}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.safetensors")
    ...     safetensors.numpy.save_file(weights, path)
    ...     interop.safetensors.layers(path)
    {'rnn': LSTM(2, 3, bias=False)}
    """
    options = conventions.given_options({
        "batch_first": batch_first, "dropout": dropout, "nonlinearity": nonlinearity, "reset_after": reset_after,
        "update": update, "coupled_gates": coupled_gates, "reverse": reverse, "activations": activations, "clip": clip})
    if is_index(path):
        return conventions.layers_of(path, _of_shards(path), None, skipped, options)
    arrays, configuration = named_arrays.read_safetensors(path)
    return conventions.layers_of(path, arrays, configuration, skipped, options)


def _of_shards(path: PathLike) -> dict[str, Array]:
    """The arrays of all files of an index."""
    arrays: dict[str, Array] = {}
    for shard, names in read_index(path).items():
        found, _ = named_arrays.read_safetensors(shard)
        for name in names:
            if name not in found:
                raise ModelFormatError(f"{os.fsdecode(path)}: {os.path.basename(shard)} has no {name!r:.200}")
        arrays.update((name, found[name]) for name in names)
    return arrays
