"""Files of ``torch.save`` and ``torch.jit.save``: their formats, and the tensors in their objects, with names.

Two formats are in use, told by the first bytes:

- a zip archive (PyTorch 1.6 on): under one folder of any name ``data.pkl``, the pickled object; ``data/<key>``, the
  bytes of each storage; ``byteorder``, and what does not matter here. TorchScript archives hold code beside it, whose
  text is looked at for the options of layers, and nothing is run;
- the older one: five pickles, of a magic number, a protocol version, facts about the machine, the object, and the keys
  of its storages; then of each storage the number of its elements (8 bytes) and the elements, little-endian.

Of whole pickled modules the parameters and plain attributes are read from what the pickle says of them, and NumPy's
arrays from their bytes.
"""

from __future__ import annotations

import functools
import io
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base.reading import Archive, ModelFormatError, read_bytes, refusing
from .formats import pickles
from .formats.pickles import Name, Opaque, Pairs, shown
from .parts import Unread
from .torch_tensors import ADVICE, DTYPES, Storage, Tensor, find, is_count

if TYPE_CHECKING:
    from .._base.typing import Array, PathLike

OPTIMIZER = re.compile(r"(?:^|_)optim(?:izers?)?(?:_|$)")
_DEEPEST = 100              # containers within containers
# The tensors may take this many times the bytes of the file's contents, and _SPARE more: some stand in several places
# (tied weights, a model under two names) or are broadcast.
_SHARING = 4
_SPARE = 1 << 20
_SCRIPT = "__torch__."      # before the names of TorchScript's classes
_VERSIONS = [b"%d" % version for version in range(1, 11)]           # of zip archives; PyTorch 2 writes 3
_ORDERS = {b"little": "<", b"big": ">"}
_MAGIC, _PROTOCOL = 0x1950a86a20f9469cfc6c, 1001                    # of the older format
_CONTAINERS = (list, tuple, Pairs)
# How NumPy's arrays are pickled: by protocols to 4, and by protocol 5.
_RECONSTRUCT = re.compile(r"numpy\.(?:_?core)\.multiarray\._reconstruct")
_FROM_BUFFER = re.compile(r"numpy\.(?:_?core)\.numeric\._frombuffer")
_NUMBER = re.compile(r"[<>|=]?(?:[fiu][1248]|b1)")
Fetch = Callable[[str], "bytes | memoryview"]


@dataclass
class Entry:
    """A tensor of a file: the keys that lead to it, the last the name that a state_dict would give it; its array.

    of_optimizer: whether it is a part of an optimizer's state.
    """

    keys: tuple[str, ...]
    value: Any
    of_optimizer: bool = False


@dataclass
class Contents:
    """What a file holds: tensors, and the modules that some of them are of.

    modules: the keys that lead to a module, and its name within them -> the module as the pickle has it.
    code: of TorchScript, the text of a file of code by its name; names: of the archive's files.
    known, refused: of exported programs, a layer's prefix -> its attributes, or why there is none.
    """

    entries: list[Entry] = field(default_factory=list)
    modules: dict[tuple[tuple[str, ...], str], Opaque] = field(default_factory=dict)
    code: Callable[[str], str] | None = None
    names: tuple[str, ...] = ()
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


class _Pickle:
    """The object of a file: its pickle read, its storages noted."""

    def __init__(self, file: io.BytesIO) -> None:
        self.storages: dict[str, Storage] = {}
        self.modules: dict[tuple[tuple[str, ...], str], Opaque] = {}
        start = file.tell()
        self.value = pickles.load(file, find, self._storage)
        self.left = 8 * (file.tell() - start)       # steps that `tensors` may take

    def _storage(self, identity: Any) -> Any:
        if type(identity) is tuple and len(identity) == 4 and identity[0] == "module":
            return identity[1]                      # a class, with its source, in the older format
        if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
            raise ModelFormatError(f"a persistent id that is no storage; {ADVICE}")
        _, kind, key, _, length, *view = identity
        if type(kind) is not Name or not kind.name.endswith("Storage") or type(kind.value) is not str \
                or type(key) is not str or not is_count(length):
            raise ModelFormatError("a storage is told by a type, a key and a number of elements, not by "
                                   + ", ".join(map(shown, (kind.name if type(kind) is Name else kind, key, length))))
        storage = self.storages.setdefault(key, Storage(key, kind.value, length))
        if (storage.dtype, storage.length) != (kind.value, length):
            raise ModelFormatError(f"storage {shown(key)} is of {storage.length} {storage.dtype} and of {length} "
                                   f"{kind.value}")
        if not view or view[0] is None:
            return storage
        if type(view[0]) is not tuple or len(view[0]) != 3 or not all(map(is_count, view[0][1:])):
            raise ModelFormatError(f"storage {shown(key)}: a view is a key, an offset and a number of elements")
        _, start, part = view[0]
        if start + part > length:
            raise ModelFormatError(f"storage {shown(key)} has {length} elements, a view of it ends at {start + part}")
        return Storage(key, kind.value, part, start)

    def tensors(self) -> list[Entry]:
        """The tensors in order.

        Containers may hold each other without end, or be shared so often that no time would do: the steps are held to
        the size of the pickle, in which a tensor takes more than 100 bytes.
        """
        entries, names = [], set()
        for entry in self._walk(self.value):
            self._spend(100 + len(entry.keys) + sum(map(len, entry.keys)))
            name = ".".join(entry.keys)
            if name in names:
                raise ModelFormatError(f"two tensors are named {shown(name)}")
            names.add(name)
            entries.append(entry)
        return entries

    def _walk(self, value: Any, keys: tuple[str, ...] = (), of_optimizer: bool = False) -> Iterator[Entry]:
        if type(value) in (Tensor, Unread):
            yield Entry(keys, value, of_optimizer)
        if type(value) is Opaque:
            if _is_module(value):
                yield from self._walk_module(value, keys, "", of_optimizer)
                return
            if (array := numpy_array(value)) is not None:
                yield Entry(keys, array, of_optimizer)
                return
            value = value.pairs if value.pairs is not None else value.state
        if type(value) not in _CONTAINERS:
            return
        self._spend(1 + len(value))
        if len(keys) > _DEEPEST:
            raise ModelFormatError(f"containers within containers, more than {_DEEPEST} deep")
        children: Any = enumerate(value)
        if type(value) is Pairs:
            of_optimizer = of_optimizer or any(type(key) is str and key == "param_groups" for key in value[::2])
            children = zip(value[::2], value[1::2], strict=True)
        for number, (key, child) in enumerate(children):
            if type(child) in (Tensor, Unread, Opaque, *_CONTAINERS):
                name = _text(key, number)
                yield from self._walk(child, (*keys, name), of_optimizer or bool(OPTIMIZER.search(name)))

    def _walk_module(self, module: Opaque, keys: tuple[str, ...], prefix: str, of_optimizer: bool) -> Iterator[Entry]:
        """The tensors of a module under the names that its state_dict would give them."""
        self._spend(20 + len(prefix))
        if prefix.count(".") > _DEEPEST:
            raise ModelFormatError(f"modules within modules, more than {_DEEPEST} deep")
        self.modules[keys, prefix] = module
        for name, child in module_parts(module):
            self._spend(2)
            if type(child) in (Tensor, Unread):
                yield Entry((*keys, prefix + name), child, of_optimizer)
            elif type(child) is Opaque and _is_module(child):
                yield from self._walk_module(child, keys, f"{prefix}{name}.", of_optimizer)

    def _spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise ModelFormatError("containers or tensors stand in too many places")


def numpy_array(value: Opaque) -> Array | None:
    """The array of numbers that NumPy pickled; None where the object is none."""
    dtype: Any
    if _RECONSTRUCT.fullmatch(value.name) and type(value.state) is tuple and len(value.state) == 5:
        _, shape, dtype, order, data = value.state
    elif _FROM_BUFFER.fullmatch(value.name) and len(value.arguments) == 4:
        data, dtype, shape, order = value.arguments
    else:
        return None
    if type(dtype) is not Opaque or dtype.name != "numpy.dtype" or type(dtype.state) is not tuple or not (
            dtype.arguments and type(dtype.arguments[0]) is str and _NUMBER.fullmatch(dtype.arguments[0])):
        return None
    kind = np.dtype(dtype.arguments[0].lstrip("<>|="))
    if len(dtype.state) > 1 and dtype.state[1] == ">":
        kind = kind.newbyteorder(">")
    if type(data) not in (bytes, bytearray) or type(shape) is not tuple or len(shape) > 64 or not all(
            map(is_count, shape)) or math.prod(shape) * kind.itemsize != len(data):
        raise ModelFormatError("an array of NumPy's whose bytes do not fit its shape")
    fortran = order in (True, "F")
    array: Array = np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")
    return array


def _is_module(value: Opaque) -> bool:
    return type(value.state) is Pairs and (
        value.name.startswith(_SCRIPT) or type(value.attribute("_parameters")) is Pairs)


def module_parts(module: Opaque) -> Iterator[tuple[str, Any]]:
    """(name, part) of a module's parameters, buffers and inner modules, or of a TorchScript object's attributes."""
    if module.name.startswith(_SCRIPT):
        tables = [module.state]
    else:
        tables = [module.attribute(name) for name in ("_parameters", "_buffers", "_modules")]
    for table in tables:
        if type(table) is Pairs:
            for name, part in zip(table[::2], table[1::2]):
                if type(name) is str:
                    yield name, part


def _text(key: Any, number: int) -> str:
    """A key as a part of a name. One that is no text or number is told by what it is, and by its number in the dict."""
    if isinstance(key, bytes):
        return key.decode(errors="replace")
    if isinstance(key, (str, int, float, type(None))):
        return str(key)
    if type(key) is Name:                   # a class: older releases of Lightning have callbacks under theirs
        return key.name
    return f"{shown(key.name) if type(key) is Opaque else shown(key)} {number}"


def _open_archive(archive: Archive, data: bytes) -> tuple[_Pickle, Fetch, str, int]:
    """The pickle, a function that gives the bytes of a storage, their order, and how many bytes there are in all."""
    folder = next(iter(archive), "").partition("/")[0] + "/"
    if folder + "data.pkl" not in archive:
        raise ModelFormatError(f"a zip archive without {shown(folder + 'data.pkl')}: not of torch.save; {ADVICE}")
    if archive.size(folder + "data.pkl") > len(data):
        raise ModelFormatError(f"data.pkl is said to be {archive.size(folder + 'data.pkl')} bytes, the archive is "
                               f"{len(data)}")
    if folder + "version" in archive and (version := archive.read(folder + "version").strip()) not in _VERSIONS:
        raise ModelFormatError(f"version {shown(version)} of the format, expected 1 to 10")
    order = archive.read(folder + "byteorder") if folder + "byteorder" in archive else b"little"
    if order not in _ORDERS:
        raise ModelFormatError(f"byteorder {shown(order)}, expected little or big")

    read = _Pickle(io.BytesIO(archive.read(folder + "data.pkl")))

    def fetch(key: str) -> bytes:
        name, storage = f"{folder}data/{key}", read.storages[key]
        if name in archive and archive.size(name) != storage.nbytes:
            raise ModelFormatError(f"{shown(name)} has {archive.size(name)} bytes, expected {storage.nbytes} of "
                                   f"{storage.length} {storage.dtype}")
        return archive.read(name)

    return read, fetch, _ORDERS[order], sum(map(archive.size, archive))


def _open_legacy(data: bytes) -> tuple[_Pickle, Fetch, str, int]:
    """As _open_archive."""
    if data[:1] not in (b"\x80", b"L"):         # a pickle of a long, by protocol 2 on or 1
        raise ModelFormatError(f"neither a zip archive nor the older format of torch.save; {ADVICE}")
    file = io.BytesIO(data)
    magic = pickles.load(file, find)
    if type(magic) is not int or magic != _MAGIC:
        raise ModelFormatError(f"a pickle, but not of torch.save: no magic number; {ADVICE}")
    if (protocol := pickles.load(file, find)) != _PROTOCOL:
        raise ModelFormatError(f"protocol {shown(protocol)}, expected {_PROTOCOL}")
    pickles.load(file, find)                   # facts about the machine that wrote it
    read = _Pickle(file)
    keys, found = pickles.load(file, find), {}
    if type(keys) is not list:
        raise ModelFormatError(f"expected a list of the storages' keys, got a {type(keys).__name__}")
    for key in keys:
        storage = read.storages.get(key) if type(key) is str else None
        if storage is None or key in found:
            raise ModelFormatError(f"storage {shown(key)}: " + ("given twice" if storage else "no tensor is of it"))
        count, left = int.from_bytes(file.read(8), "little"), len(data) - file.tell()
        if count != storage.length or storage.nbytes > left:
            raise ModelFormatError(f"storage {shown(key)}: expected {storage.length} {storage.dtype}, the file counts "
                                   f"{count} and has {left} bytes left")
        found[key] = memoryview(data)[file.tell():file.tell() + storage.nbytes]
        file.seek(storage.nbytes, 1)
    if file.tell() != len(data):
        raise ModelFormatError(f"{len(data) - file.tell()} bytes follow the last storage")

    def fetch(key: str) -> memoryview:
        if key not in found:
            raise ModelFormatError(f"storage {shown(key)} is not in the file")
        return found[key]

    return read, fetch, "<", len(data)


def read(path: PathLike) -> Contents:
    """The tensors of a file as arrays; those that NumPy cannot hold as Unread."""
    data = read_bytes(path)
    with refusing(path):
        return parse(data, path)


def parse(data: bytes, path: PathLike) -> Contents:
    """The tensors in the bytes of a file; path is for messages. To be called within ``refusing``."""
    if data[257:262] == b"ustar":
        raise ModelFormatError("the tar format of PyTorch's first releases (2016): save it again with a later one")
    archive = Archive(data, path) if data[:4] == b"PK\x03\x04" else None
    opened = _open_legacy(data) if archive is None else _open_archive(archive, data)
    pickle, fetch, order, size = opened
    entries = pickle.tensors()
    tensors = [entry.value for entry in entries if type(entry.value) is Tensor]
    total = sum(tensor.nbytes for tensor in tensors)
    if total > _SHARING * size + _SPARE:
        raise ModelFormatError(f"its tensors would take {total} bytes, its contents {size}: {_SHARING} times as "
                               f"much and {_SPARE} bytes more are read")
    flat: dict[tuple[str, str], Array] = {}
    arrays: dict[Tensor, Array] = {}
    for tensor in tensors:
        if tensor not in arrays:
            arrays[tensor] = _array(tensor, flat, fetch, order)
    for entry in entries:
        if type(entry.value) is Tensor:
            entry.value = arrays[entry.value]
    contents = Contents(entries, pickle.modules)
    if archive is not None:
        contents.names = tuple(archive)
        contents.code = functools.partial(_code, archive)
    return contents


def _code(archive: Archive, name: str) -> str:
    """The text of a TorchScript archive's file of code; "" where there is none."""
    entry = next(iter(archive), "").partition("/")[0] + "/code/" + name
    return archive.read(entry).decode(errors="replace") if entry in archive else ""


def _array(tensor: Tensor, flat: dict[tuple[str, str], Array], fetch: Fetch, order: str) -> Array:
    """A view of its storage's elements, which are kept in `flat`."""
    storage, dtype = tensor.storage, tensor.dtype
    if 0 in tensor.size:
        return np.empty(tensor.size, _elements(b"", dtype, order).dtype)
    if (storage.key, dtype) not in flat:
        flat[storage.key, dtype] = _elements(fetch(storage.key), dtype, order)
    elements = flat[storage.key, dtype]
    array = np.ndarray(
        tensor.size, elements.dtype, elements, (storage.start + tensor.offset) * elements.itemsize,
        [step * elements.itemsize if n > 1 else 0 for n, step in zip(tensor.size, tensor.stride, strict=True)])
    if "conj" in tensor.flags:
        array = array.conj()
    return -array if "neg" in tensor.flags else array


def _elements(data: bytes | memoryview, dtype: str, order: str) -> Array:
    """A storage's bytes as an array of one dimension; a copy."""
    stored = DTYPES[dtype]
    found = np.frombuffer(data, np.dtype(order + stored.str[1:]), len(data) // stored.itemsize).astype(stored)
    if dtype == "bfloat16":                 # the upper half of a float32
        return (found.astype(np.uint32) << 16).view(np.float32)
    return found != 0 if dtype == "bool" else found
