"""FlatBuffers, read with care: https://flatbuffers.dev/internals. Nothing of a file is trusted or run.

A file is a web of offsets. A table begins with the distance to its vtable, which has for each field its place in the
table, or 0 where the field has its default. Vectors and strings begin with their length, and stand apart, as tables
do: what holds one has its distance. Every place is checked against the file's size before it is read; since places may
be shared, what is read is counted, and a file whose parts are used over and over is refused.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from ..._base.reading import ModelFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..._base.typing import Array

STEPS = 4                   # places read for each byte of a file, at most
ALLOWANCE = 1 << 14         # and these on top


class Buffer:
    """The bytes of a file, and how many places of it may be read.

    Parameters
    ----------
    data : bytes
        The file.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._steps = STEPS * len(data) + ALLOWANCE

    def number(self, kind: str, at: int) -> int | float:
        """The number at a place, of a kind that struct names."""
        self._steps -= 1
        if self._steps < 0:
            raise ModelFormatError("the same parts are used over and over")
        if not 0 <= at <= len(self.data) - struct.calcsize("<" + kind):
            raise ModelFormatError(f"an offset to byte {at}, of a file of {len(self.data)}")
        result: int | float = struct.unpack_from("<" + kind, self.data, at)[0]
        return result

    def integer(self, kind: str, at: int) -> int:
        """The integer at a place."""
        return int(self.number(kind, at))

    def follow(self, at: int) -> int:
        """Where the offset at a place leads to."""
        return at + self.integer("I", at)

    def root(self) -> Table:
        """The table that the file is of."""
        return Table(self, self.follow(0))


class Table:
    """A table of a file, with its fields by their numbers in the schema.

    Parameters
    ----------
    buffer : Buffer
        The file.
    at : int
        Where the table begins.
    """

    def __init__(self, buffer: Buffer, at: int) -> None:
        self.buffer, self.at = buffer, at
        self._vtable = at - buffer.integer("i", at)
        self._size = buffer.integer("H", self._vtable)
        if self._size < 4 or self._size % 2:
            raise ModelFormatError(f"byte {self._vtable}: a vtable of {self._size} bytes")

    def place(self, field: int) -> int:
        """Where a field stands, or 0 if it is not there."""
        entry = 4 + 2 * field
        if entry >= self._size:
            return 0
        offset = self.buffer.integer("H", self._vtable + entry)
        return self.at + offset if offset else 0

    def number(self, field: int, kind: str, default: float = 0) -> int | float:
        """A number, of a kind that struct names; its default where it is not there."""
        at = self.place(field)
        return self.buffer.number(kind, at) if at else default

    def integer(self, field: int, kind: str, default: int = 0) -> int:
        """An integer; its default where it is not there."""
        return int(self.number(field, kind, default))

    def table(self, field: int) -> Table | None:
        """The table that a field leads to."""
        at = self.place(field)
        return Table(self.buffer, self.buffer.follow(at)) if at else None

    def span(self, field: int, itemsize: int) -> tuple[int, int]:
        """(start, length) of a vector, which is there as a whole; (0, 0) if the field is not."""
        at = self.place(field)
        if not at:
            return 0, 0
        at = self.buffer.follow(at)
        length = self.buffer.integer("I", at)
        if length * itemsize > len(self.buffer.data) - at - 4:
            raise ModelFormatError(f"byte {at}: a vector of {length} times {itemsize} bytes, of a file of "
                                   f"{len(self.buffer.data)}")
        return at + 4, length

    def text(self, field: int) -> str:
        """A string; one that is not there is empty."""
        start, length = self.span(field, 1)
        return self.buffer.data[start:start + length].decode()

    def array(self, field: int, dtype: str) -> Array:
        """A vector of numbers, a view of the file."""
        start, length = self.span(field, np.dtype(dtype).itemsize)
        return np.frombuffer(self.buffer.data, dtype, length, start)

    def tables(self, field: int) -> Tables:
        """A vector of tables."""
        return Tables(self.buffer, *self.span(field, 4))


class Tables:
    """A vector of tables, each made when it is asked for."""

    def __init__(self, buffer: Buffer, start: int, length: int) -> None:
        self.buffer, self.start, self.length = buffer, start, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Table:
        if not 0 <= index < self.length:
            raise ModelFormatError(f"table {index} of {self.length}")
        return Table(self.buffer, self.buffer.follow(self.start + 4 * index))

    def __iter__(self) -> Iterator[Table]:
        return map(self.__getitem__, range(self.length))
