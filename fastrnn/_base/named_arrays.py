"""Files of named arrays: .npz and .safetensors, and the configuration that fastrnn's own files keep beside them."""

import math

import numpy as np

from .reading import Archive, ModelFormatError, parse_json, parse_npy, read_bytes, refusing

VERSION = 1             # of fastrnn's own files


def read_npz(path, wanted=None):
    """Name -> array of a .npz, of those names for which wanted(name) is true; and the configuration, if fastrnn's own.

    Other entries are not looked at.
    """
    archive = Archive(read_bytes(path), path)
    with refusing(path):
        names = [entry.removesuffix(".npy") for entry in archive if entry.endswith(".npy")]
        tensors = {name: parse_npy(archive.read(name + ".npy"), name) for name in names
                   if name == "fastrnn" or wanted is None or wanted(name)}
        text = tensors.pop("fastrnn", None)
        return tensors, None if text is None else parse_configuration(text.tobytes())


def parse_configuration(text):
    """The JSON that `configuration` stands in, checked as far as its version."""
    found = parse_json(text)
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise ModelFormatError(f"expected a configuration of version {VERSION}, got {found!r:.200}")
    return found


_SAFETENSORS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
                "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}


def read_safetensors(path):
    """Name -> array of a .safetensors file; and the configuration, if fastrnn's own.

    bfloat16, which NumPy does not know, comes as float32; of other types that it has not, the bytes come, in a field of
    the type's name.
    """
    deserialize = safetensors_package().deserialize
    data = read_bytes(path)
    with refusing(path):
        # Lengths, offsets, overlaps and coverage are checked by the library; that no name stands twice is not.
        found = dict(deserialize(data))
        header = parse_json(data[8:8 + int.from_bytes(data[:8], "little")])
        text = (header.pop("__metadata__", None) or {}).get("fastrnn")
        tensors = {name: _tensor(**found[name]) for name in header}         # in the file's order
        return tensors, None if text is None else parse_configuration(text)


def _tensor(data, dtype, shape):
    if dtype == "BF16":             # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    if dtype not in _SAFETENSORS:
        a = np.frombuffer(data, [(dtype, "u1")])
        return a.reshape(shape) if a.size == math.prod(shape) else a
    return np.frombuffer(data, _SAFETENSORS[dtype]).reshape(shape)


def safetensors_package():
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("safetensors files need the package safetensors: pip install fastrnn[safetensors]") from error
    return safetensors
