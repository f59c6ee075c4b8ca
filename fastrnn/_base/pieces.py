"""Large files and arrays, read, written and copied piece by piece: between two pieces Python answers Ctrl-C.

One call of the system or of NumPy is not interrupted, and takes a tenth of a second for some 100 MB.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .typing import Array

PIECE = 2**24           # bytes: some ten milliseconds' work


class _PieceReader(io.RawIOBase):
    """Another file, of which a single read takes a piece at most."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file: Any = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._file.readinto(memoryview(buffer)[:PIECE])
        return count


def read_in_pieces(file: IO[bytes], size: int) -> bytes:
    """Up to `size` bytes of a file."""
    if size <= PIECE:
        return file.read(size)
    return io.BufferedReader(_PieceReader(file)).read(size)      # it reads each piece into its place in the result


def write_in_pieces(file: IO[bytes], data: bytes | memoryview | Array) -> None:
    """Write bytes, or the numbers of a contiguous array."""
    view = data.reshape(-1).view(np.uint8).data if isinstance(data, np.ndarray) else memoryview(data)
    for start in range(0, len(view), PIECE):
        file.write(view[start:start + PIECE])


def _pieces(a: Array) -> Iterator[slice]:
    """The rows of an array, as many at a time as make a piece, or one."""
    rows = max(1, PIECE * len(a) // max(1, a.nbytes))
    return (slice(start, start + rows) for start in range(0, len(a), rows))


def copy_into(target: Array, source: Array) -> None:
    """Write the numbers of an array into another one of the same shape, one axis or more, some rows at a time."""
    for rows in _pieces(target):
        target[rows] = source[rows]


def copied(a: Array, dtype: np.dtype[Any] | None = None) -> Array:
    """A contiguous copy of an array, perhaps as another dtype."""
    if a.nbytes <= PIECE:
        return np.array(a, dtype, order="C", copy=True)
    result = np.empty(a.shape, a.dtype if dtype is None else dtype)
    copy_into(result, a)
    return result


def mapped(function: Callable[[Array], Array], a: Array, dtype: np.dtype[Any]) -> Array:
    """What a function gives for the numbers of an array, each by itself, as an array of a dtype."""
    if a.nbytes <= PIECE:
        return function(a).astype(dtype, copy=False)
    result = np.empty(a.shape, dtype)
    for rows in _pieces(a):
        result[rows] = function(a[rows])
    return result


def as_stored(a: Array) -> Array:
    """The numbers as files have them, contiguous and with the lowest byte first: the array itself, or a copy."""
    dtype = a.dtype.newbyteorder("<")
    return a if a.flags.c_contiguous and a.dtype == dtype else copied(a, dtype)


def stacked(arrays: Sequence[Array]) -> Array:
    """Arrays of one shape and dtype along a new first axis."""
    result = np.empty((len(arrays), *arrays[0].shape), arrays[0].dtype)
    for target, a in zip(result, arrays):
        copy_into(target, a)
    return result
