"""Keys of streams as bytes: what stores and snapshots call a stream.

Two keys have the same bytes exactly where they are equal, as in a dict: 1, 1.0 and True are one key, 1 and "1" are two.
The bytes of a key do not change from run to run, and ``decoded`` makes the key again without running anything.

    n               None
    i-17            a whole number, in decimal
    f + 8 bytes     another float, little-endian
    s...            a text, as UTF-8
    b...            bytes
    t + (4 bytes of length, little-endian, + the bytes of an element) for each element of a tuple
"""

from __future__ import annotations

import struct
from collections.abc import Hashable

import numpy as np

_LENGTH = struct.Struct("<I")
_FLOAT = struct.Struct("<d")
_DEEPEST = 16           # tuples within tuples


def encoded(key: Hashable, depth: int = 0) -> bytes:
    """The bytes of a key: of a text, a number, bytes, None, or a tuple of these; TypeError for other kinds."""
    if isinstance(key, str):
        return b"s" + str.encode(key, "utf-8", "surrogatepass")
    if isinstance(key, (int, np.integer, np.bool_)):
        return b"i%d" % int(key)
    if isinstance(key, bytes):
        return b"b" + key
    if isinstance(key, (float, np.floating)):
        number = float(key)
        if number != number:
            raise TypeError("keys: NaN is not equal to itself, and no stream can be found by it")
        return b"i%d" % int(number) if number.is_integer() else b"f" + _FLOAT.pack(number)
    if key is None:
        return b"n"
    if isinstance(key, tuple):
        if depth == _DEEPEST:
            raise TypeError(f"keys: expected at most {_DEEPEST} tuples within each other")
        parts = [encoded(each, depth + 1) for each in key]
        return b"t" + b"".join(_LENGTH.pack(len(part)) + part for part in parts)
    raise TypeError(f"keys: a store or a snapshot of a pool takes texts, whole numbers, floats, bytes, None and tuples "
                    f"of these, got {type(key).__name__}")


def decoded(data: bytes, depth: int = 0) -> Hashable:
    """The key of which ``encoded`` made these bytes; ValueError for other bytes."""
    kind, content = data[:1], data[1:]
    key: Hashable = None
    if depth > _DEEPEST:
        raise ValueError(f"key: more than {_DEEPEST} tuples within each other")
    if kind == b"s":
        key = content.decode("utf-8", "surrogatepass")
    elif kind == b"i":
        key = int(content)
    elif kind == b"b":
        key = content
    elif kind == b"f" and len(content) == _FLOAT.size:
        key = _FLOAT.unpack(content)[0]
    elif kind == b"t":
        parts, at = [], 0
        while at < len(content):
            length, = _LENGTH.unpack_from(content.ljust(at + 4, b"\xff"), at)
            at += _LENGTH.size
            if length > len(content) - at:
                raise ValueError("key: cut short")
            parts.append(decoded(content[at:at + length], depth + 1))
            at += length
        key = tuple(parts)
    try:
        again = encoded(key, depth)     # every key has one form alone
    except TypeError as error:          # NaN
        raise ValueError(str(error)) from None
    if again != data:
        raise ValueError(f"key: expected the bytes of a key, got {data[:40]!r}")
    return key
