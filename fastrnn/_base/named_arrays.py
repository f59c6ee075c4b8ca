"""Files of named arrays: .npz and .safetensors, and the configuration that fastrnn's own files keep beside them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .reading import Archive, ModelFormatError, parse_json, parse_npy, read_bytes, refusing
from .writing import replacing, write_in_pieces

if TYPE_CHECKING:
    from .typing import Array, PathLike

    Contents = tuple[dict[str, Array], dict[str, Any] | None]      # arrays by name, and fastrnn's configuration

VERSION = 1             # of fastrnn's own files


def write(path: PathLike, tensors: Mapping[str, Array], metadata: dict[str, Any]) -> None:
    """Write arrays and a configuration to a .npz or .safetensors file, atomically; the path's ending tells which."""
    kind, text = ending(path), json.dumps(metadata, allow_nan=False)
    if kind == ".npz":
        with replacing(path) as file:
            # The cast is for NumPy's stubs, in which `allow_pickle` might be among the names.
            np.savez(file, **cast("dict[str, Any]", dict(tensors)), fastrnn=np.frombuffer(text.encode(), np.uint8))
    else:
        data = safetensors_package().numpy.save(dict(tensors), metadata={"fastrnn": text})
        with replacing(path) as file:
            write_in_pieces(file, data)


def read(path: PathLike) -> Contents:
    """Name -> array of a .npz or .safetensors file, as the path's ending says; and the configuration of an own file."""
    return read_npz(path) if ending(path) == ".npz" else read_safetensors(path)


def ending(path: PathLike) -> str:
    """The ending of a path in lower case, .npz or .safetensors; ValueError for another."""
    result = os.path.splitext(os.fsdecode(path))[1].lower()
    if result not in (".npz", ".safetensors"):
        raise ValueError(f"path: expected a name that ends in .npz or .safetensors, got {os.fsdecode(path)!r}")
    return result


def read_npz(path: PathLike, wanted: Callable[[str], bool] | None = None) -> Contents:
    """Name -> array of a .npz, for the names that `wanted` accepts; and the configuration of a file of fastrnn's own.

    Other entries are not looked at.
    """
    return parse_npz(read_bytes(path), path, wanted)


def parse_npz(data: bytes, path: PathLike, wanted: Callable[[str], bool] | None = None) -> Contents:
    """What ``read_npz`` returns, of contents that were read already."""
    archive = Archive(data, path)
    with refusing(path):
        names = [entry.removesuffix(".npy") for entry in archive if entry.endswith(".npy")]
        tensors = {name: parse_npy(archive.read(name + ".npy"), name) for name in names
                   if name == "fastrnn" or wanted is None or wanted(name)}
        text = tensors.pop("fastrnn", None)
        return tensors, None if text is None else parse_configuration(text.tobytes())


def parse_configuration(text: str | bytes) -> dict[str, Any]:
    """The configuration in a file of fastrnn's own, checked as far as its version."""
    metadata = parse_json(text)
    if isinstance(metadata, dict) and type(metadata.get("version")) is int and metadata["version"] > VERSION:
        raise ModelFormatError(f"a later fastrnn wrote it: it has version {metadata['version']}, and version {VERSION} "
                               "is the last that this fastrnn reads")
    if not isinstance(metadata, dict) or type(metadata.get("version")) is not int or metadata["version"] != VERSION:
        raise ModelFormatError(f"expected a configuration of version {VERSION}, got {metadata!r:.200}")
    return metadata


_SAFETENSORS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
                "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}


def read_safetensors(path: PathLike) -> Contents:
    """Name -> array of a .safetensors file; and the configuration of a file of fastrnn's own.

    bfloat16, which NumPy does not have, is read as float32. Of other types that NumPy does not have, the bytes are
    read, in a field that bears the type's name.
    """
    deserialize = safetensors_package().deserialize
    data = read_bytes(path)
    with refusing(path):
        # The library checks lengths, offsets, overlaps and coverage, but not that a name stands there once only.
        entries = dict(deserialize(data))
        header = parse_json(data[8:8 + int.from_bytes(data[:8], "little")])
        text = (header.pop("__metadata__", None) or {}).get("fastrnn")
        tensors = {name: _tensor(**entries[name]) for name in header}         # in the file's order
        return tensors, None if text is None else parse_configuration(text)


def _tensor(data: bytes, dtype: str, shape: list[int]) -> Array:
    """The array of one entry."""
    if dtype == "BF16":             # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    if dtype not in _SAFETENSORS:
        a = np.frombuffer(data, [(dtype, "u1")])
        return a.reshape(shape) if a.size == math.prod(shape) else a
    return np.frombuffer(data, _SAFETENSORS[dtype]).reshape(shape)


def safetensors_package() -> Any:
    """The package safetensors; where it is missing, an ImportError that says what to install."""
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("safetensors files need the package safetensors: pip install fastrnn[safetensors]") from error
    return safetensors
