"""Models of other frameworks as fastrnn layers, with one module for each format.

``layers(path)`` reads a file of any of them, ``detect(path)`` tells which format it is. Every module has a function
``layers`` of its own, with the options of its format, such as ``fastrnn.interop.keras.layers``. A module is imported
when it is first named, with the packages it needs; none imports PyTorch or TensorFlow.
``conventions`` holds what the frameworks do differently: the order of the gates, and how the names and shapes of
parameters tell what layer they make.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from typing import TYPE_CHECKING, Any

from .._base.reading import Archive, ModelFormatError, parse_json, read_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import Activation, DTypeLike, PathLike
    from . import conventions, keras, nam, npz, onnx, pytorch, rtneural, safetensors, tflite
    from .assembly import from_arrays
    from .conventions import Layer

FORMATS: dict[str, str] = {
    "pytorch": "PyTorch .pt, .pth: state_dict, checkpoint, module or TorchScript",
    "keras": "Keras .keras, .h5",
    "onnx": "ONNX",
    "tflite": "TensorFlow Lite",
    "safetensors": "safetensors",
    "rtneural": "RTNeural JSON",
    "nam": "neural-amp-modeler .nam",
    "npz": "NumPy .npz",
}

# What a folder that has a file of such a name, or ending, is.
_FOLDERS = {
    "saved_model.pb": "a TensorFlow SavedModel, which is not read here: save the Keras model as .keras or .h5",
    ".distcp": "a distributed checkpoint of PyTorch: dcp_to_torch_save(folder, path) of "
               "torch.distributed.checkpoint.format_utils makes one file of it",
    "model.safetensors.index.json": "with shards of safetensors: give the path of model.safetensors.index.json",
    "pytorch_model.bin.index.json": "with shards of PyTorch: give the path of pytorch_model.bin.index.json",
    ".safetensors": "with safetensors files: give the path of one of them",
    "config.json": "with a config.json and no weights that are known here",
}

__all__ = ["FORMATS", "ModelFormatError", "conventions", "detect", "from_arrays", "keras", "layers", "nam", "npz",
           "onnx", "pytorch", "rtneural", "safetensors", "tflite"]


def __getattr__(name: str) -> Any:
    if name == "from_arrays":       # NumPy and the layers are imported with it
        from .assembly import from_arrays
        return from_arrays
    if name in FORMATS or name == "conventions":
        return importlib.import_module("." + name, __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


def detect(path: PathLike) -> str:
    """Tell the format of a model file from its contents.

    Parameters
    ----------
    path : str or path-like
        The file. The ending of its name says nothing here.

    Returns
    -------
    str
        The name of the module here that reads it: ``"pytorch"``, ``"keras"``, ``"onnx"``, ``"safetensors"``,
        ``"tflite"``, ``"rtneural"``, ``"nam"`` or ``"npz"``.

    Raises
    ------
    ModelFormatError
        The file is of none of these formats.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> import os, tempfile
    >>> import fastrnn
    >>> from fastrnn import interop
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.npz")
    ...     fastrnn.GRU(2, 3).save(path)
    ...     interop.detect(path)
    'npz'
    """
    if os.path.isdir(path):
        _refuse_folder(path)
    data, size = read_bytes(path, 0, 512), os.path.getsize(path)
    if data[:4] in (b"PK\3\4", b"PK\5\6"):
        return _archive_kind(path)
    if data[:8] == b"\x89HDF\r\n\x1a\n":
        return "keras"
    if data[4:8] == b"TFL3":
        return "tflite"
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= size - 8:
        return "safetensors"
    if data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
        return _json_kind(path)
    _refuse_foreign(path, data)
    # torch's older format: pickles one after the other, the first a number; before it, a tar archive.
    if re.match(rb"\x80[\2-\5]", data) or data[257:262] == b"ustar":
        return "pytorch"
    # Of protobuf only the first field's tag can be seen: its number and type must be those of an onnx.ModelProto.
    if re.match(rb"[\x08\x12\x1a\x22\x28\x32\x3a\x42\x72]|[\xa2\xca]\x01", data):
        return "onnx"
    raise ModelFormatError(f"{os.fsdecode(path)}: none of {', '.join(FORMATS.values())}")


def _archive_kind(path: PathLike) -> str:
    """The format of a zip archive."""
    names = list(Archive(read_bytes(path), path))
    if any(re.fullmatch(r"(.*/)?data\.pkl", name) for name in names) or any(
            re.fullmatch(r"([^/]*/)?(models/[^/]+|serialized_exported_program)\.json", name) for name in names):
        return "pytorch"
    if "model.weights.h5" in names:
        return "keras"
    if not names or any(name.endswith(".npy") for name in names):
        return "npz"
    if any(re.fullmatch(r"[^/]+/model\.json", name) for name in names):
        raise ModelFormatError(f"{os.fsdecode(path)}: a TorchScript archive of PyTorch's first releases, which is not "
                               "read here: torch.jit.load and torch.jit.save of PyTorch 1.4 or later write another")
    raise ModelFormatError(f"{os.fsdecode(path)}: a zip archive of no known kind, it holds {', '.join(names):.200}")


def _json_kind(path: PathLike) -> str:
    """The format of a JSON file: an index of shards, a model of neural-amp-modeler, or RTNeural's."""
    data = read_bytes(path)
    with contextlib.suppress(ValueError, RecursionError):       # the format's own reader says what is wrong
        model = parse_json(data)
        if isinstance(model, dict) and isinstance(model.get("weight_map"), dict):
            names = [str(name) for value in model["weight_map"].values()
                     for name in (value if isinstance(value, list) else [value])]
            if names and all(name.endswith(".h5") for name in names):
                return "keras"
            return "safetensors" if all(name.endswith(".safetensors") for name in names) else "pytorch"
        if isinstance(model, dict) and "architecture" in model and "config" in model:
            return "nam"
    return "rtneural"


def _refuse_folder(path: PathLike) -> None:
    """Says what a folder is, if it is a model's: none of them is one file."""
    names = set(os.listdir(path))
    for member, what in _FOLDERS.items():
        if member in names or any(name.endswith(member) for name in names):
            raise ModelFormatError(f"{os.fsdecode(path)}: a folder, {what}")


def _refuse_foreign(path: PathLike, data: bytes) -> None:
    """Names formats that are told by their beginnings and are not read here."""
    what = None
    if re.match(rb"#(Lookup)?Parameter# ", data):
        what = ("a DyNet model, which is not read here: save its arrays as .npz and build a layer by "
                'interop.from_arrays(..., order="dynet")')
    elif data[:3] == b"\x08\x01\x12" and re.search(rb"\x22\x05serve|\x22\x05train", read_bytes(path)):
        what = "the graph of a TensorFlow SavedModel, which is not read here: save the Keras model as .keras or .h5"
    elif re.match(rb"\x0a.{1,3}\x0a", data, re.DOTALL) and re.search(rb"\x12.(Placeholder|Const|NoOp)", data):
        what = "a frozen graph of TensorFlow, which is not read here: save the Keras model as .keras or .h5"
    elif re.match(rb"\x80[\2-\5]", data) and b"StructuredToParameterName@@" in read_bytes(path):
        what = ("a Paddle checkpoint, which is not read here: save its arrays as .npz and build a layer by "
                "interop.from_arrays; Paddle's gates are in torch's order")
    if what is not None:
        raise ModelFormatError(f"{os.fsdecode(path)}: {what}")


def layers(path: PathLike, skipped: dict[str, str] | None = None, *, batch_first: bool | None = None,
           dropout: float | None = None, nonlinearity: str | None = None, reset_after: bool | None = None,
           update: str | None = None, coupled_gates: bool | None = None, reverse: bool | None = None,
           activations: Sequence[Activation] | None = None, clip: float | None = None, dtype: DTypeLike | None = None,
           activation: Activation | None = None, recurrent_activation: Activation | None = None,
           external_data: bool | None = None, ignore_cell_clip: bool | None = None) -> dict[str, Layer]:
    """Read the recurrent layers of a model file of any format.

    The format is told from the contents by `detect`. The options say what a file of weights does not tell; each format
    has only some of them, and one that the format of the file has not is an error. None stands for an option that is
    not given.

    Parameters
    ----------
    path : str or path-like
        The file.
    skipped : dict, optional
        If given, it takes name -> reason of the layers that cannot be represented. Without it the first of them is an
        error.
    batch_first : bool, optional
        Whether the layers take [N, T, I] instead of [T, N, I].
    dropout : float, optional
        Probability of dropout between stacked layers, in training.
    nonlinearity : {"tanh", "relu"}, optional
        Of every plain RNN.
    reset_after : bool, optional
        Of every GRU: where its reset gate acts.
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
    dtype : float32 or float64, optional
        Of the layers, where the file has only decimal numbers (RTNeural, neural-amp-modeler).
    activation : str or tuple, optional
        Of Keras layers without a configuration in the file.
    recurrent_activation : str or tuple, optional
        Of Keras layers without a configuration in the file.
    external_data : bool, optional
        Whether an ONNX model's weights may be read from other files beside it, which is the default.
    ignore_cell_clip : bool, optional
        Whether LSTMs of TensorFlow Lite that hold their cell states to a bound become layers that do not.

    Returns
    -------
    dict of str to layer
        RNN, GRU and LSTM by the names that the file has for them.

    Raises
    ------
    ModelFormatError
        The file is broken or of an unknown format, or a layer cannot be represented.
    TypeError
        An option that files of this format do not have.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from fastrnn import interop
    >>> weights = {"encoder.weight_ih_l0": np.ones((12, 2)), "encoder.weight_hh_l0": np.ones((12, 3))}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.npz")
    ...     np.savez(path, **weights)
    ...     interop.layers(path, batch_first=True)
    {'encoder': LSTM(2, 3, bias=False, batch_first=True, dtype=float64)}
    """
    options: dict[str, Any] = {
        "batch_first": batch_first, "dropout": dropout, "nonlinearity": nonlinearity, "reset_after": reset_after,
        "update": update, "coupled_gates": coupled_gates, "reverse": reverse, "activations": activations, "clip": clip,
        "dtype": dtype, "activation": activation, "recurrent_activation": recurrent_activation,
        "external_data": external_data, "ignore_cell_clip": ignore_cell_clip}
    options = {name: value for name, value in options.items() if value is not None}
    kind = detect(path)
    read = importlib.import_module("." + kind, __name__).layers
    for name in options:
        if name not in read.__kwdefaults__:
            raise TypeError(f"{name}: {FORMATS[kind]} files have no such option; they have "
                            + ", ".join(read.__kwdefaults__))
    result: dict[str, Layer] = read(path, skipped, **options)
    return result
