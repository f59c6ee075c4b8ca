"""NumPy archives: recurrent layers under torch's parameter names, and fastrnn's own."""

from .._base import named_arrays
from . import conventions


def layers(path, skipped=None, **options):
    """The recurrent layers of a .npz file; arrays under other names are not looked at.

    Parameters
    ----------
    path : str or path-like
    skipped : dict, optional
        Given, it takes prefix -> reason of layers that cannot be represented, and they raise nothing.
    **options
        What weights do not tell, for every layer: ``batch_first``, ``nonlinearity="relu"``, ``dropout``, ...; see
        ``conventions.find_layers``. For a file of fastrnn's own they stand above what it says.

    Returns
    -------
    dict of str to layer
        By prefix: ``{"encoder.lstm": LSTM(40, 256)}`` of ``encoder.lstm.weight_ih_l0``, ...; "" where there is none.

    Raises
    ------
    ModelFormatError
        A broken file, pickled weights, or parameters that make no layer.
    OSError
        The file cannot be read.

    >>> import os, tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.npz")
    ...     np.savez(path, weight_ih_l0=np.ones((9, 2)), weight_hh_l0=np.ones((9, 3)))
    ...     layers(path)
    {'': GRU(2, 3, bias=False, dtype=float64)}
    """
    return conventions.layers_of(path, *named_arrays.read_npz(path, conventions.is_parameter), skipped, **options)
