"""Models of other frameworks as fastrnn layers: one module per format, each with
``layers(path, skipped=None, **options) -> {name: layer}``.

``conventions`` holds what frameworks do differently: the order of the gates, activations by name, and how layers are
told from the names and shapes of their parameters. No module here imports torch or TensorFlow; each is imported when it
is first named (``interop.onnx``), with the packages it needs.
"""

import importlib
import os
import re

from .._base.reading import Archive, ModelFormatError, read_bytes

FORMATS = {
    "pytorch": "PyTorch .pt, .pth: state_dict or checkpoint",
    "keras": "Keras .keras, .h5",
    "onnx": "ONNX",
    "safetensors": "safetensors",
    "rtneural": "RTNeural JSON",
    "npz": "NumPy .npz",
}


def __getattr__(name):
    if name in FORMATS:
        return importlib.import_module("." + name, __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def detect(path):
    """The format of a model file, told from its contents.

    Returns
    -------
    str
        The name of the module here that reads it: ``"pytorch"``, ``"keras"``, ``"onnx"``, ``"safetensors"``,
        ``"rtneural"`` or ``"npz"``.

    Raises
    ------
    ModelFormatError
        None of these.
    OSError
        The file cannot be read.

    >>> import os, tempfile, fastrnn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.npz")
    ...     fastrnn.GRU(2, 3).save(path)
    ...     detect(path), layers(path)
    ('npz', {'': GRU(2, 3)})
    """
    data, size = read_bytes(path, 0, 512), os.path.getsize(path)
    if data[:4] in (b"PK\3\4", b"PK\5\6"):
        names = list(Archive(read_bytes(path), path))
        if any(re.fullmatch(r"(.*/)?data\.pkl", name) for name in names):
            return "pytorch"
        if "model.weights.h5" in names:
            return "keras"
        if not names or any(name.endswith(".npy") for name in names):
            return "npz"
        raise ModelFormatError(f"{os.fsdecode(path)}: a zip archive of no known kind, it holds {', '.join(names):.200}")
    if data[:8] == b"\x89HDF\r\n\x1a\n":
        return "keras"
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= size - 8:
        return "safetensors"
    if data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
        return "rtneural"
    # torch's older format: pickles one after the other, the first a number; before it, a tar archive.
    if re.match(rb"\x80[\2-\5]", data) or data[257:262] == b"ustar":
        return "pytorch"
    # Of protobuf only the first field's tag can be seen: its number and type must be those of an onnx.ModelProto.
    if re.match(rb"[\x08\x12\x1a\x22\x28\x32\x3a\x42\x72]|[\xa2\xca]\x01", data):
        return "onnx"
    raise ModelFormatError(f"{os.fsdecode(path)}: none of {', '.join(FORMATS.values())}")


def layers(path, skipped=None, **options):
    """The recurrent layers of a model file of any format.

    Parameters
    ----------
    path : str or path-like
    skipped : dict, optional
        Given, it takes name -> reason of layers that cannot be represented, and they raise nothing.
    **options
        For the format's own ``layers``: what the file does not tell, such as ``batch_first`` or ``nonlinearity``.

    Returns
    -------
    dict of str to layer
        By the file's names.

    Raises
    ------
    ModelFormatError
        A broken file, one of an unknown format, or layers that cannot be represented.
    OSError
        The file cannot be read.
    """
    return importlib.import_module("." + detect(path), __name__).layers(path, skipped, **options)
