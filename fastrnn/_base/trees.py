"""Plain trees as JSON and named arrays: how the state of an estimator gets into a file, and back, without pickle.

A tree is made of None, bools, numbers, strings, lists, tuples, dicts, arrays, dates, random generators and objects of
registered classes (``storable``), to any depth. ``flatten`` takes one apart into a value that JSON can hold and a few
arrays; ``rebuild`` makes an equal tree of them, to the bit. In the JSON

- None, True, 3, 0.5, "text" and [...] stand for themselves;
- everything else is an object with one name, which tells the kind: ``{"tuple": [1, 2]}``, ``{"float": "nan"}``,
  ``{"array": ["float64", [3, 2]]}``, ``{"object": ["forecasting.Series", {"y": ...}]}``;
- ``{"same": 3}`` is the fourth value of such a kind that was completed: two names of one array or object stay so.

The elements of all arrays of one dtype follow each other in one array, in the order in which the JSON names them. An
array in the JSON takes the next so many of them, so that no file can ask for more memory than it brings elements. Only
registered classes are made, from data alone; nothing in a file is ever called.

A value of another kind, such as a function, is a TypeError that tells where it stands in the tree.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import json
import math
import struct
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from .reading import ModelFormatError, parse_json, refusing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .typing import Array

__all__ = ["storable", "add_kind", "flatten", "rebuild", "packed", "unpacked"]

Class = TypeVar("Class", bound=type)

NUMBERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32",
           "float64")
_NAMES = {np.dtype(name).newbyteorder("<"): name for name in NUMBERS}      # NumPy works a dtype's name out slowly
_LONG = 8               # a list of more floats than this is kept as an array


class Kind(NamedTuple):
    """How values of one kind are taken apart, and made again."""

    matches: Callable[[Any], bool]
    parts: Callable[[Any], Any]         # a value -> a tree of other kinds
    made: Callable[[Any], Any]          # that tree -> an equal value


KINDS: dict[str, Kind] = {}
CLASSES: dict[str, type] = {}


def storable(cls: Class) -> Class:
    """Class decorator: lets trees hold objects of this class, as "forecasting.Series", by package and name.

    Of a dataclass the fields are kept. Another class gives its attributes, or what its own ``__getstate__`` returns; it
    is made again without ``__init__``, by its own ``__setstate__`` where it has one.
    """
    name = _class_name(cls)
    if CLASSES.setdefault(name, cls) is not cls:
        raise ValueError(f"two storable classes are called {name}")
    return cls


def _class_name(cls: type) -> str:
    """What files call a class: modules may move within a package, so only the package is named."""
    packages = cls.__module__.split(".")[1:-1]
    return ".".join([*packages, cls.__name__])


def add_kind(name: str, matches: Callable[[Any], bool], parts: Callable[[Any], Any],
             made: Callable[[Any], Any]) -> None:
    """Let trees hold values for which matches(value) is true.

    Parameters
    ----------
    name : str
        What the JSON calls the kind.
    matches : callable
        Whether a value is of this kind.
    parts : callable
        Turns a value into a tree of other kinds.
    made : callable
        Turns that tree into an equal value. The tree may come from a hostile file.
    """
    KINDS[name] = Kind(matches, parts, made)


# ---- Writing ------------------------------------------------------------------------------------

def flatten(tree: Any, name: str = "state", shared: Sequence[Array] = ()) -> tuple[Any, dict[str, Array]]:
    """Take a tree apart.

    Parameters
    ----------
    tree : object
        The tree.
    name : str
        What error messages call it.
    shared : sequence of array
        Arrays that are not kept: where the tree has one of them the JSON has its place here, ``{"shared": 0}``.

    Returns
    -------
    value : object
        What JSON can hold.
    arrays : dict of str to array
        One array for each dtype that occurs, by the dtype's name.

    Raises
    ------
    TypeError
        Something in the tree is of no kind that can be kept; the message says where it stands.
    ValueError
        Something in the tree contains itself.

    Examples
    --------
    >>> import numpy as np
    >>> flatten({"size": 2, "weights": np.ones(3)})
    ({'dict': {'size': 2, 'weights': {'array': ['float64', [3]]}}}, {'float64': array([1., 1., 1.])})
    >>> flatten([1, max])
    Traceback (most recent call last):
        ...
    TypeError: state[1]: expected plain data or an object of a storable class, got builtin_function_or_method
    """
    writer = _Writer(shared)
    value = writer.written(tree, name)
    return value, {dtype: np.concatenate(parts) for dtype, parts in writer.parts.items()}


class _Writer:
    """One call of ``flatten``: the pieces of the arrays so far, and the values that have a number."""

    def __init__(self, shared: Sequence[Array]) -> None:
        self.shared = {_memory(each): n for n, each in enumerate(shared)}
        self.parts: dict[str, list[Array]] = {}         # by dtype
        self.numbers: dict[Any, int] = {}               # of completed values, by identity
        self.count = 0                                  # of completed values
        self.alive: list[Any] = []                      # so that no identity is used again
        self.open: set[int] = set()                     # what is being written

    def written(self, value: Any, name: str) -> Any:
        """The JSON for a value that error messages call `name`."""
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float and math.isfinite(value):
            return value
        identity: Any = _memory(value) if isinstance(value, np.ndarray) else id(value)
        if identity in self.shared:
            return {"shared": self.shared[identity]}
        if identity in self.numbers:
            return {"same": self.numbers[identity]}
        if id(value) in self.open:
            raise ValueError(f"{name}: it contains itself")
        self.open.add(id(value))
        result = self._list(value, name) if type(value) is list else self._tagged(value, name)
        self.open.discard(id(value))
        if isinstance(result, dict):
            if not isinstance(value, (tuple, float)):
                self.numbers[identity] = self.count
                self.alive.append(value)
            self.count += 1
        return result

    def _list(self, value: list[Any], name: str) -> Any:
        if len(value) > _LONG and all(type(each) is float for each in value):
            return {"floats": self._elements(np.array(value), "float64")}
        return [self.written(each, f"{name}[{n}]") for n, each in enumerate(value)]

    def _tagged(self, value: Any, name: str) -> dict[str, Any]:
        if isinstance(value, np.ndarray):
            return self._array(value, name)
        if type(value) is float:
            return {"float": repr(value)}
        if type(value) is tuple:
            return {"tuple": [self.written(each, f"{name}[{n}]") for n, each in enumerate(value)]}
        if type(value) is dict:
            if all(type(key) is str for key in value):
                return {"dict": {key: self.written(each, f"{name}[{key!r}]") for key, each in value.items()}}
            return {"pairs": [[self.written(key, f"a key of {name}"), self.written(each, f"{name}[{key!r}]")]
                              for key, each in value.items()]}
        if CLASSES.get(_class_name(type(value))) is type(value):
            return {"object": [_class_name(type(value)),
                               {key: self.written(each, f"{name}.{key}") for key, each in _attributes(value).items()}]}
        for kind, (matches, parts, _) in KINDS.items():
            if matches(value):
                tree = parts(value)
                self.alive.append(tree)
                return {kind: self.written(tree, name)}
        raise TypeError(f"{name}: expected plain data or an object of a storable class, got {type(value).__name__}")

    def _array(self, value: Array, name: str) -> dict[str, Any]:
        """An array: what it is, in JSON; its elements are appended to those of its dtype."""
        shape, known = list(value.shape), _NAMES.get(value.dtype)
        if known is not None and value.flags.c_contiguous:          # most arrays: nothing need be changed
            self.parts.setdefault(known, []).append(value.ravel())
            return {"array": [known, shape]}
        order = ["F"] if value.flags.f_contiguous and not value.flags.c_contiguous else []
        if value.dtype.kind == "O":
            items = value.ravel().tolist()
            return {"objects": [shape, [self.written(each, f"{name}[{n}]") for n, each in enumerate(items)]]}
        dtype = value.dtype
        flat = np.ascontiguousarray(value.ravel(order="F" if order else "C"))
        if dtype.kind in "mM":
            self._elements(flat.astype(dtype.newbyteorder("=")).view(np.int64), "int64")
            return {"array": [dtype.newbyteorder("=").name, shape, *order]}
        if dtype.kind == "U":
            width = max(1, dtype.itemsize // 4)
            self._elements(flat.astype(f"U{width}").view(np.uint32), "uint32")      # the characters' numbers
            return {"array": [f"U{width}", shape, *order]}
        if dtype.name not in NUMBERS:
            raise TypeError(f"{name}: expected an array of numbers, texts or times, got dtype {dtype}")
        self._elements(flat, dtype.name)
        return {"array": [dtype.name, shape, *order]}

    def _elements(self, flat: Array, dtype: str) -> int:
        self.parts.setdefault(dtype, []).append(flat.astype(np.dtype(dtype).newbyteorder("<"), copy=False))
        self.alive.append(flat)
        return len(flat)


def _memory(a: Array) -> Any:
    """What two arrays have in common that are one."""
    return a.__array_interface__["data"][0], a.dtype.str, a.shape, a.strides, *([] if a.size else [id(a)])


def _attributes(value: Any) -> dict[str, Any]:
    """The attributes of an object that a tree keeps, by name."""
    cls = type(value)
    if dataclasses.is_dataclass(cls):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(cls) if field.init}
    if any("__getstate__" in vars(base) for base in cls.__mro__[:-1]):
        return dict(value.__getstate__())
    slots = [name for base in cls.__mro__ for name in vars(base).get("__slots__", ())]
    return {name: getattr(value, name) for name in slots if hasattr(value, name)} | getattr(value, "__dict__", {})


# ---- Reading ------------------------------------------------------------------------------------

def rebuild(value: Any, arrays: dict[str, Array], shared: Sequence[Array] = ()) -> Any:
    """Make the tree that ``flatten`` took apart.

    Parameters
    ----------
    value : object
        The JSON.
    arrays : dict of str to array
        The arrays.
    shared : sequence of array
        The arrays that were not kept.

    Returns
    -------
    object
        An equal tree; its arrays are its own, and can be written to.

    Raises
    ------
    ModelFormatError
        The JSON names a kind or a class that there is not, or the arrays have more or fewer elements than it asks for.
        Unsuitable values raise other errors, too: readers of files turn all of them into a ModelFormatError.

    Examples
    --------
    >>> import numpy as np
    >>> rebuild(*flatten([np.arange(3), (1, float("inf"))]))
    [array([0, 1, 2]), (1, inf)]
    """
    reader = _Reader(arrays, shared)
    tree = reader.read(value)
    for dtype, elements in arrays.items():
        if reader.used.get(dtype, 0) != len(elements):
            raise ModelFormatError(f"{dtype}: {len(elements)} elements, of which {reader.used.get(dtype, 0)} are used")
    return tree


class _Reader:
    """One call of ``rebuild``: how many elements of each array are used so far, and the values that have a number."""

    def __init__(self, arrays: dict[str, Array], shared: Sequence[Array]) -> None:
        for name, elements in arrays.items():
            if elements.ndim != 1 or elements.dtype.name != name or name not in NUMBERS:
                raise ModelFormatError(f"{name!r}: expected one of {', '.join(NUMBERS)} in one dimension, got "
                                       f"{elements.dtype} {elements.shape}")
        self.arrays, self.used, self.shared = arrays, dict.fromkeys(arrays, 0), shared
        self.completed: list[Any] = []
        self.kinds = {"array": self._array, "floats": self._floats, "objects": self._objects, "object": self._object,
                      "tuple": lambda content: tuple(self.read(_a(list, content))),
                      "dict": lambda content: {key: self.read(each) for key, each in _a(dict, content).items()},
                      "pairs": lambda content: {self.read(key): self.read(each) for key, each in _a(list, content)},
                      "float": self._float}

    def read(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.read(each) for each in value]
        if not isinstance(value, dict):
            return value
        if len(value) != 1:
            raise ModelFormatError(f"expected one name, which tells a kind, got {list(value)!r:.200}")
        (kind, content), = value.items()
        if kind == "same":
            return self.completed[_size(content)]
        if kind == "shared":
            return self.shared[_size(content)]
        if kind in self.kinds:
            result = self.kinds[kind](content)
        elif kind in KINDS:
            result = KINDS[kind].made(self.read(content))
        else:
            raise ModelFormatError(f"expected a kind of value, got {kind!r:.200}")
        self.completed.append(result)
        return result

    def _float(self, content: Any) -> float:
        if content not in ("nan", "inf", "-inf"):
            raise ModelFormatError(f"float: expected nan, inf or -inf, got {content!r:.200}")
        return float(content)

    def _floats(self, content: Any) -> list[float]:
        return [float(each) for each in self._elements("float64", _size(content))]

    def _elements(self, dtype: str, count: int) -> Array:
        """The next elements of a dtype, a copy."""
        start = self.used.get(dtype, 0)
        if start + count > len(self.arrays.get(dtype, ())):
            raise ModelFormatError(f"an array of {count} elements of {dtype}, of which "
                                   f"{len(self.arrays.get(dtype, ())) - start} are left")
        if dtype in self.used:
            self.used[dtype] = start + count
        own = np.dtype(dtype)
        return np.empty(0, own) if not count else self.arrays[dtype][start:start + count].astype(own)

    def _array(self, content: Any) -> Array:
        dtype, sizes, *order = _a(list, content)
        name, shape = str(_a(str, dtype)), [_size(each) for each in _a(list, sizes)]
        count = math.prod(shape)
        if name in NUMBERS:
            flat = self._elements(name, count)
        elif name.startswith("U") and name[1:].isdecimal() and int(name[1:]):
            flat = self._elements("uint32", count * int(name[1:])).view(name)
        elif name.startswith(("datetime64", "timedelta64")) and np.dtype(name).kind in "mM":
            flat = self._elements("int64", count).view(name)
        else:
            raise ModelFormatError(f"array: expected a dtype of numbers, texts or times, got {name!r:.200}")
        if order not in ([], ["F"]):
            raise ModelFormatError(f"array: expected 'F' or nothing, got {order!r:.200}")
        return flat.reshape(shape, order="F" if order else "C")

    def _objects(self, content: Any) -> Array:
        sizes, items = _a(list, content)
        shape = [_size(each) for each in _a(list, sizes)]
        if math.prod(shape) != len(_a(list, items)):
            raise ModelFormatError(f"objects: expected {math.prod(shape)} of them, got {len(items)}")
        result: Array = np.empty(len(items), object)
        for n, item in enumerate(items):
            result[n] = self.read(item)
        return result.reshape(shape)

    def _object(self, content: Any) -> Any:
        name, attributes = _a(list, content)
        cls = CLASSES.get(_a(str, name))
        if cls is None:
            raise ModelFormatError(f"object: expected one of {', '.join(sorted(CLASSES))}, got {name!r:.200}")
        values = {key: self.read(each) for key, each in _a(dict, attributes).items()}
        return _made(cls, values)


def _made(cls: type, values: dict[str, Any]) -> Any:
    """The object of a storable class whose attributes have these values."""
    if dataclasses.is_dataclass(cls):
        return cls(**values)
    result: Any = object.__new__(cls)
    if hasattr(cls, "__setstate__"):
        result.__setstate__(values)
        return result
    for name, value in values.items():
        check_attribute(cls, name)
        setattr(result, name, value)
    return result


def check_attribute(cls: type, name: str) -> None:
    """Raise ModelFormatError unless a file may set this attribute of an object: no method, property or special name."""
    if not name.isidentifier() or name.startswith("__") or _is_function(getattr(cls, name, None)):
        raise ModelFormatError(f"{cls.__name__}: {name!r:.200} is no attribute that a file can set")


def _is_function(value: object) -> bool:
    return callable(value) or isinstance(value, property)


def _a(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise ModelFormatError(f"expected a {kind.__name__}, got {value!r:.200}")
    return value


def _size(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ModelFormatError(f"expected a number from 0 on, got {value!r:.200}")
    return value


# ---- Trees as bytes -----------------------------------------------------------------------------

_MAGIC = b"FRNNTREE"
_VERSION = 1
_HEADER = struct.Struct("<8sHxxI32s")       # magic, version, bytes of the JSON, hash of the shared arrays


def packed(tree: Any, name: str, shared: Sequence[Array] = ()) -> bytes:
    """A tree as bytes: a header, the JSON, the arrays, and a CRC-32 of all before it.

    Parameters
    ----------
    tree : object
        The tree.
    name : str
        What it is, such as the name of a class: ``unpacked`` takes no other.
    shared : sequence of array
        Arrays that are not kept, such as weights. Their hash is.

    Returns
    -------
    bytes
        For ``unpacked``.
    """
    value, arrays = flatten(tree, name, shared)
    counts = {dtype: len(elements) for dtype, elements in arrays.items()}
    text = json.dumps([name, counts, value], allow_nan=False, separators=(",", ":")).encode()
    data = b"".join([_HEADER.pack(_MAGIC, _VERSION, len(text), _digest_of(shared)), text,
                     *(elements.tobytes() for elements in arrays.values())])
    return data + struct.pack("<I", zlib.crc32(data))


def unpacked(data: bytes, name: str, shared: Sequence[Array] = ()) -> Any:
    """The tree of ``packed``; ValueError, which says why, for other bytes, and where the shared arrays are others."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"snapshot: expected bytes, got {type(data).__name__}")
    data = bytes(data)
    if not data.startswith(_MAGIC) or len(data) < _HEADER.size + 4:
        raise ModelFormatError("snapshot: not one of fastrnn's, or cut short")
    _, version, size, digest = _HEADER.unpack_from(data)
    if version > _VERSION:
        raise ModelFormatError(f"snapshot: a later fastrnn made it: it has version {version}, and version {_VERSION} "
                               "is the last that this fastrnn reads")
    if zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        raise ModelFormatError("snapshot: damaged (its checksum is wrong)")
    with refusing("snapshot"):
        what, counts, value = parse_json(data[_HEADER.size:_HEADER.size + size])
        if what != name:
            raise ModelFormatError(f"expected one of {name}, got one of {what!r:.200}")
        if digest != _digest_of(shared):
            raise ModelFormatError("of another model (weights differ)")
        arrays, start = {}, _HEADER.size + size
        for dtype, count in counts.items():
            own = np.dtype(dtype if dtype in NUMBERS else "V0").newbyteorder("<")
            arrays[dtype] = np.frombuffer(data, own, _size(count), start)
            start += arrays[dtype].nbytes
        if start != len(data) - 4:
            raise ModelFormatError("its length does not fit its header")
        return rebuild(value, arrays, shared)


def _digest_of(arrays: Sequence[Array]) -> bytes:
    """A hash of arrays: of their types, shapes and values."""
    import hashlib  # here: it loads OpenSSL, which most programs never need
    digest = hashlib.sha256()
    for each in arrays:
        digest.update(f"{each.dtype.name}{each.shape}".encode())
        digest.update(each.astype(each.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.digest()


# ---- Kinds of values ------------------------------------------------------------------------------

def _scalar(parts: Any) -> Any:
    name, value = parts
    if name not in NUMBERS:
        raise ModelFormatError(f"scalar: expected one of {', '.join(NUMBERS)}, got {name!r:.200}")
    return np.dtype(name).type(value)


def _generator(parts: Any) -> Any:
    name, state = parts
    if name not in ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"):
        raise ModelFormatError(f"generator: expected one of NumPy's bit generators, got {name!r:.200}")
    bits = getattr(np.random, name)(0)
    bits.state = _checked_state(state)
    return np.random.Generator(bits)


def _random_state(state: Any) -> np.random.RandomState:
    result = np.random.RandomState(0)
    result.set_state(_checked_state(state))
    return result


def _checked_state(state: Any) -> Any:
    """The state of a bit generator whose position lies within its buffer: NumPy does not look, and reads there."""
    name = state["bit_generator"]
    if name == "MT19937" and not 0 <= _size(state["state"]["pos"]) <= 624:
        raise ModelFormatError(f"generator: expected a position from 0 to 624, got {state['state']['pos']}")
    if name == "Philox" and not 0 <= _size(state["buffer_pos"]) <= 4:
        raise ModelFormatError(f"generator: expected a position from 0 to 4, got {state['buffer_pos']}")
    return state


def _zone(name: Any) -> datetime.tzinfo:
    import zoneinfo  # here, because few files have one
    return zoneinfo.ZoneInfo(_a(str, name))


add_kind("scalar", lambda value: isinstance(value, np.generic) and value.dtype.name in NUMBERS,
         lambda value: [value.dtype.name, value.item()], _scalar)
add_kind("text", lambda value: isinstance(value, np.str_), str, lambda text: np.str_(_a(str, text)))
add_kind("time", lambda value: isinstance(value, (np.datetime64, np.timedelta64)),
         lambda value: np.array(value), lambda array: array[()])
add_kind("date and time", lambda value: type(value) is datetime.datetime and value.tzinfo is None,
         datetime.datetime.isoformat, datetime.datetime.fromisoformat)
add_kind("date", lambda value: type(value) is datetime.date, datetime.date.isoformat, datetime.date.fromisoformat)
add_kind("zone", lambda value: type(value).__name__ == "ZoneInfo" and getattr(value, "key", None) is not None,
         lambda value: value.key, _zone)
add_kind("bytes", lambda value: type(value) is bytes, bytes.hex, bytes.fromhex)
add_kind("deque", lambda value: type(value) is collections.deque, lambda value: [value.maxlen, list(value)],
         lambda parts: collections.deque(_a(list, parts[1]), parts[0]))
add_kind("generator", lambda value: isinstance(value, np.random.Generator),
         lambda value: [type(value.bit_generator).__name__, value.bit_generator.state], _generator)
add_kind("random state", lambda value: isinstance(value, np.random.RandomState),
         lambda value: value.get_state(legacy=False), _random_state)
