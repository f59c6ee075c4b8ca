"""safetensors files: recurrent layers under torch's parameter names, and fastrnn's own."""

from .._base import named_arrays
from . import conventions


def layers(path, skipped=None, **options):
    """The recurrent layers of a .safetensors file.

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
        float16 and bfloat16 weights become float32.

    Raises
    ------
    ModelFormatError
        A broken file, or parameters that make no layer.
    OSError
        The file cannot be read.
    ImportError
        The package safetensors is missing: ``pip install fastrnn[safetensors]``.

    Notes
    -----
    Nothing in the format says what a tensor is: layers are told by torch's names and by shapes. The format: 8 bytes
    with the length of a JSON header, the header, the tensors' bytes (https://huggingface.co/docs/safetensors).

    >>> import os, tempfile
    >>> import numpy as np, safetensors.numpy
    >>> weights = {"rnn.weight_ih_l0": np.ones((12, 2), "f4"), "rnn.weight_hh_l0": np.ones((12, 3), "f4")}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.safetensors")
    ...     safetensors.numpy.save_file(weights, path)
    ...     layers(path)
    {'rnn': LSTM(2, 3, bias=False)}
    """
    return conventions.layers_of(path, *named_arrays.read_safetensors(path), skipped, **options)
