"""Files of named arrays: .npz and .safetensors, and the configuration that fastrnn's own files keep beside them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .pieces import as_stored, write_in_pieces
from .reading import Archive, ModelFormatError, parse_json, parse_npy, read_bytes, refusing
from .writing import replacing

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
        write_safetensors(path, tensors, text)


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


# ---- .safetensors -----------------------------------------------------------------------------------

# Types by the names that the format has for them, in its order, wider ones last: their bits, and NumPy's type.
_TYPES: dict[str, tuple[int, str | None]] = {
    "BOOL": (8, "?"), "F4": (4, None), "F6_E2M3": (6, None), "F6_E3M2": (6, None), "U8": (8, "u1"), "I8": (8, "i1"),
    "F8_E5M2": (8, None), "F8_E4M3": (8, None), "F8_E8M0": (8, None), "F8_E4M3FNUZ": (8, None),
    "F8_E5M2FNUZ": (8, None), "I16": (16, "<i2"), "U16": (16, "<u2"), "F16": (16, "<f2"), "BF16": (16, None),
    "I32": (32, "<i4"), "U32": (32, "<u4"), "F32": (32, "<f4"), "C64": (64, None), "F64": (64, "<f8"),
    "I64": (64, "<i8"), "U64": (64, "<u8")}
_TYPE_NAMES = {np.dtype(dtype): name for name, (_, dtype) in _TYPES.items() if dtype}
_RANKS = {name: rank for rank, name in enumerate(_TYPES)}
_LONGEST_HEADER = 100_000_000       # bytes, by the format
_AXES = 64                          # the most that NumPy has


def write_safetensors(path: PathLike, tensors: Mapping[str, Array], text: str) -> None:
    """Write arrays and a configuration, atomically and to the byte as the package safetensors does."""
    kinds = {name: _TYPE_NAMES[a.dtype.newbyteorder("<")] for name, a in tensors.items()}
    header: dict[str, Any] = {"__metadata__": {"fastrnn": text}}
    start = 0
    for name in sorted(tensors, key=lambda name: (-_RANKS[kinds[name]], name)):
        end = start + tensors[name].nbytes
        header[name] = {"dtype": kinds[name], "shape": tensors[name].shape, "data_offsets": (start, end)}
        start = end
    data = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    data += b" " * (-len(data) % 8)                 # so that the numbers are aligned
    with replacing(path) as file:
        file.write(len(data).to_bytes(8, "little") + data)
        for name in list(header)[1:]:
            write_in_pieces(file, as_stored(tensors[name]))


def read_safetensors(path: PathLike) -> Contents:
    """Name -> array of a .safetensors file; and the configuration of a file of fastrnn's own.

    bfloat16, which NumPy does not have, is read as float32. Of other types that NumPy does not have, the bytes are
    read, in a field that bears the type's name.
    """
    data = read_bytes(path)
    with refusing(path):
        start = 8 + int.from_bytes(data[:8], "little")
        if len(data) < 8 or start > min(len(data), 8 + _LONGEST_HEADER):
            raise ModelFormatError(f"the header claims to end at byte {start} of {len(data)}")
        header = parse_json(data[8:start].decode())
        if not isinstance(header, dict):
            raise ModelFormatError("the header: expected entries by name")
        metadata = header.pop("__metadata__", None)
        metadata = {} if metadata is None else metadata
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ModelFormatError("__metadata__: expected texts by name")
        _check_places(header, len(data) - start)
        numbers = memoryview(data)[start:]
        tensors = {name: _tensor(numbers[slice(*entry["data_offsets"])], entry["dtype"], entry["shape"])
                   for name, entry in header.items()}         # in the file's order
        text = metadata.get("fastrnn")
        return tensors, None if text is None else parse_configuration(text)


def _check_places(header: Mapping[str, Any], size: int) -> None:
    """Refuse entries that are not as large as type and shape ask for, or do not cover `size` bytes one by one."""
    for name, entry in header.items():
        name.encode()               # not half of a surrogate pair, which no message could show
        if not isinstance(entry, dict) or not entry.keys() >= {"dtype", "shape", "data_offsets"}:
            raise ModelFormatError(f"{name!r:.200}: expected dtype, shape and data_offsets, got {entry!r:.200}")
        kind, shape, place = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(kind, str) or kind not in _TYPES:
            raise ModelFormatError(f"{name!r:.200}: a type {kind!r:.200}, which the format does not have")
        if (not isinstance(shape, list) or len(shape) > _AXES or not isinstance(place, list) or len(place) != 2
                or any(type(number) is not int or not 0 <= number < 2**64 for number in shape + place)):
            raise ModelFormatError(f"{name!r:.200}: expected sizes and a place, got {shape!r:.200} and {place!r:.200}")
        if math.prod(shape) * _TYPES[kind][0] != 8 * (place[1] - place[0]):
            raise ModelFormatError(f"{name!r:.200}: {kind} {shape!r:.200} does not take the bytes {place}")
    reached = 0
    for start, end in sorted(entry["data_offsets"] for entry in header.values()):
        if start != reached:
            raise ModelFormatError(f"an entry begins at byte {start} of the data, where one ends at {reached}")
        reached = end
    if reached != size:
        raise ModelFormatError(f"the entries end at byte {reached} of {size} bytes of data")


def _tensor(data: memoryview, kind: str, shape: list[int]) -> Array:
    """The array of one entry."""
    if kind == "BF16":              # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    dtype = _TYPES[kind][1]
    if dtype is None:
        a = np.frombuffer(data, [(kind, "u1")])
        return a.reshape(shape) if a.size == math.prod(shape) else a
    return np.frombuffer(data, dtype).reshape(shape)
