"""NumPy archives: recurrent layers under torch's parameter names, and fastrnn's own."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from .._base.named_arrays import parse_configuration
from .._base.reading import Archive, parse_npy, read_bytes, refusing
from . import conventions
from .parts import Unread, is_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import Activation, PathLike
    from .conventions import Layer

# Scales of narrow weights, in fastrnn's own files.
SCALE = re.compile(r"(?:.*\.)?(?:row|column)_scale_(?:ih|hh|hr)_l\d+(?:_reverse)?", re.DOTALL)


def layers(path: PathLike, skipped: dict[str, str] | None = None, *, batch_first: bool | None = None,
           dropout: float | None = None, nonlinearity: str | None = None, reset_after: bool | None = None,
           update: str | None = None, coupled_gates: bool | None = None, reverse: bool | None = None,
           activations: Sequence[Activation] | None = None, clip: float | None = None) -> dict[str, Layer]:
    """Read the recurrent layers of a .npz file.

    Arrays under names that are not those of a recurrent layer are not read. The options say what weights do not
    tell, and hold for every layer of the file that has such an option. For a file of fastrnn's own they stand above
    what the file says.

    Parameters
    ----------
    path : str or path-like
        The file.
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
        there is no prefix.

    Raises
    ------
    ModelFormatError
        The file is broken, its weights are pickled objects, or parameters make no layer.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from fastrnn import interop
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.npz")
    ...     np.savez(path, weight_ih_l0=np.ones((9, 2)), weight_hh_l0=np.ones((9, 3)))
    ...     interop.npz.layers(path)
    {'': GRU(2, 3, bias=False, dtype=float64)}
    """
    options = conventions.given_options({
        "batch_first": batch_first, "dropout": dropout, "nonlinearity": nonlinearity, "reset_after": reset_after,
        "update": update, "coupled_gates": coupled_gates, "reverse": reverse, "activations": activations, "clip": clip})
    archive, configuration = Archive(read_bytes(path), path), None
    arrays: dict[str, Any] = {}
    with refusing(path):
        for entry in archive:
            name = entry.removesuffix(".npy")
            if name == "fastrnn":
                configuration = parse_configuration(parse_npy(archive.read(entry), name).tobytes())
            elif (is_part(name) or SCALE.fullmatch(name)) and entry != name:
                arrays[name] = parse_npy(archive.read(entry), name)
            elif entry != name:
                shape = functools.partial(_shape, archive, entry)
                arrays[name] = Unread("its name is none of a recurrent layer", shape)
    if configuration is not None:
        arrays = {name: value for name, value in arrays.items() if not isinstance(value, Unread)}
    return conventions.layers_of(path, arrays, configuration, skipped, options, flat=True)


def _shape(archive: Archive, entry: str) -> tuple[int, ...] | None:
    """The shape of an entry that is not read otherwise; None where it is no array of numbers."""
    try:
        return parse_npy(archive.read(entry), entry).shape
    except (ValueError, EOFError):
        return None
