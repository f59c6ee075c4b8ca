"""The wire format of protobuf, and of ONNX's messages what fastrnn reads of them: nodes, attributes, tensors.

A walker over the bytes of a file, with NumPy alone. Nothing is taken out of a message but what is asked for; everything
else is stepped over, and a tensor is a view of the file. So memory is bounded by the file's size whatever it claims
(protobuf's own parser makes an object of every field: up to a hundred times the size of a hostile file), and so is the
work.

A ``span`` is (start, stop), the place of a message or string in the file. The numbers of fields are onnx.proto's.
"""

from __future__ import annotations

import array
import math
import ntpath
import os
import stat
import struct
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..._base.reading import ModelFormatError, read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..._base.typing import Array

Span: TypeAlias = tuple[int, int]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5    # wire types; 3 and 4 (groups) are not in use
STEPS = 8                                       # fields and packed numbers read for each byte of a model, at most
EXPANSION = 8                                   # what is made of a model may take this many times its size,
ALLOWANCE = 1 << 21                             # and this on top
NAMES = 1 << 14                                 # inputs and outputs of one node
ATTRIBUTES = 256                                # of one node; strings in one attribute
RANK = 32                                       # of a tensor

GRAPH, INITIALIZER = 7, 5                       # fields of ModelProto and of GraphProto
RAW, FLOATS, DOUBLES = 9, 4, 10                 # fields of TensorProto with numbers; integers are in 5, 7 and 11
# TensorProto.data_type -> how its raw_data is laid out, and the field that may hold its numbers instead. bfloat16 (16),
# the upper half of a float32, is read as float32.
DTYPES = {1: ("<f4", FLOATS), 2: ("u1", 5), 3: ("i1", 5), 4: ("<u2", 5), 5: ("<i2", 5), 6: ("<i4", 5), 7: ("<i8", 7),
          9: ("?", 5), 10: ("<f2", 5), 11: ("<f8", DOUBLES), 12: ("<u4", 11), 13: ("<u8", 11), 16: ("<u2", 5)}
BFLOAT16 = 16

# Fields of messages that are read: number -> wire type, or None for numbers, packed or not.
PAIR = {1: BYTES, 2: BYTES}
NODE = dict.fromkeys((1, 2, 3, 4, 5, 7, 8), BYTES)
ATTRIBUTE = {1: BYTES, 2: FIXED32, 3: VARINT, 4: BYTES, 5: BYTES, 7: None, 8: None, 9: BYTES, 20: VARINT, 21: BYTES}
SUBGRAPHS = {6: BYTES, 11: BYTES}
TENSOR = {1: None, 2: VARINT, FLOATS: None, 5: None, 7: None, RAW: BYTES, DOUBLES: None, 11: None, 13: BYTES,
          14: VARINT}


class Reader:
    """The bytes of a model, and what may be spent on them.

    Parameters
    ----------
    data : bytes
    path : str, optional
        Of the model: in its folder lie the files with external data.
    external_data : bool
        Whether such files may be read.
    """

    def __init__(self, data: bytes, path: str = "", external_data: bool = True) -> None:
        self.data, self.path, self.external_data = data, path, external_data
        self._steps = STEPS * len(data) + 1000          # what is left of each
        self._room = EXPANSION * len(data) + ALLOWANCE
        self._files: set[str] = set()

    def spend(self, size: int, what: str) -> None:
        """Counts bytes that are about to be allocated."""
        if size > self._room:
            raise ModelFormatError(f"{what}: the model unfolds to more than {EXPANSION} times its size")
        self._room -= size

    # ---- Wire format -----------------------------------------------------------------------------

    def varint(self, at: int, stop: int) -> tuple[int, int]:
        """(value, where it ends) of up to 64 bits."""
        value = shift = 0
        while at < stop:
            byte = self.data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value & 0xFFFFFFFFFFFFFFFF, at
            shift += 7
            if shift > 63:
                raise ModelFormatError(f"byte {at}: a number of more than 64 bits")
        raise ModelFormatError(f"byte {at}: a number is cut off")

    def fields(self, span: Span, wanted: Mapping[int, int | None]) -> Iterator[tuple[int, Any]]:
        """Yields (number, value) of those fields of a message that are wanted: number -> wire type.

        A value is an int for VARINT, else a span. Where None is wanted it is (wire type, value): numbers that may come
        packed. A wanted field of another wire type is an error.
        """
        data, (at, stop), walked = self.data, span, 0
        value: int | Span
        try:
            while at < stop:
                walked += 1
                tag = data[at]
                at += 1
                if tag > 127:
                    tag, at = self.varint(at - 1, stop)
                number, wire = tag >> 3, tag & 7
                if wire == BYTES:
                    size = data[at] if at < stop else 128
                    at += 1
                    if size > 127:
                        size, at = self.varint(at - 1, stop)
                    value = at, at + size
                    at += size
                elif wire == VARINT:
                    value, at = self.varint(at, stop)
                elif wire in (FIXED32, FIXED64):
                    value = at, at + (4 if wire == FIXED32 else 8)
                    at = value[1]
                else:
                    raise ModelFormatError(f"byte {at}: wire type {wire} is not in use")
                if at > stop:
                    raise ModelFormatError(f"a field claims to end at byte {at}, what holds it ends at {stop}")
                if number in wanted:
                    if wanted[number] is None:
                        yield number, (wire, value)
                    elif wanted[number] == wire:
                        yield number, value
                    else:
                        raise ModelFormatError(f"byte {at}: field {number} has wire type {wire}, not {wanted[number]}")
                elif not number:
                    raise ModelFormatError(f"byte {at}: a field numbered 0")
        finally:
            self._steps -= walked
        self.walk(0)

    def walk(self, steps: int) -> None:
        """Counts what takes time."""
        self._steps -= steps
        if self._steps < 0:
            raise ModelFormatError("the same messages are used over and over")

    def text(self, span: Span) -> str:
        self.walk((span[1] - span[0]) // 64)
        return self.data[span[0]:span[1]].decode()

    def integers(self, field: tuple[int, Any]) -> Iterator[int]:
        """Yields the signed integers of a field (wire type, value), packed or not."""
        wire, value = field
        if wire == VARINT:
            yield signed(value)
        elif wire == BYTES:
            at, stop = value
            self.walk(stop - at)
            while at < stop:
                number, at = self.varint(at, stop)
                yield signed(number)
        else:
            raise ModelFormatError(f"integers of wire type {wire}")

    def floats(self, field: tuple[int, Any], size: int, before: Any = None) -> Any:
        """The bytes of floats of 4 or 8 bytes in a field (wire type, value), packed or not; behind those before."""
        wire, (start, stop) = field if field[0] != VARINT else (VARINT, (0, 0))
        if wire not in (BYTES, FIXED32 if size == 4 else FIXED64) or (stop - start) % size:
            raise ModelFormatError(f"byte {start}: floats of {size} bytes with wire type {wire}")
        part = memoryview(self.data)[start:stop]
        if before is None:
            return part                 # a view, of the one field there is in all but odd files
        joined = before if isinstance(before, bytearray) else bytearray(before)
        joined += part
        return joined

    def pair(self, span: Span) -> tuple[str, str]:
        """(key, value) of a StringStringEntryProto."""
        found = {number: self.text(value) for number, value in self.fields(span, PAIR)}
        return found.get(1, ""), found.get(2, "")

    def declared_shape(self, span: Span) -> tuple[str, tuple[float, ...] | None]:
        """(name, shape) of a ValueInfoProto: a tuple of floats with NaN for free sizes; None if it gives no shape."""
        name, shape = "", None
        for number, value in self.fields(span, PAIR):
            if number == 1:
                name = self.text(value)
                continue
            for _, tensor in self.fields(value, {1: BYTES}):            # TypeProto.tensor_type
                for _, dims in self.fields(tensor, {2: BYTES}):         # its shape
                    shape = self._dimensions(dims)
        return name, shape

    def _dimensions(self, span: Span) -> tuple[float, ...]:
        """The sizes of a TensorShapeProto."""
        sizes = []
        for _, dim in self.fields(span, {1: BYTES}):
            size = math.nan
            for _, number in self.fields(dim, {1: VARINT}):
                size = float(signed(number)) if signed(number) >= 0 else math.nan
            sizes.append(size)
            if len(sizes) > RANK:
                raise ModelFormatError(f"an array of more than {RANK} dimensions")
        return tuple(sizes)

    # ---- Attributes ------------------------------------------------------------------------------

    def attribute(self, span: Span) -> tuple[str, Any]:
        """(name, value) of an AttributeProto.

        The value is an int, float, str, list of str, or array of ints, floats or a tensor; a Reference where it is an
        attribute of the function around; None for graphs and the like. A float comes as `decimal`.
        """
        name, kind, found, floats, ints, strings = "", 0, {}, None, array.array("q"), []
        for number, value in self.fields(span, ATTRIBUTE):
            if number == 1:
                name = self.text(value)
            elif number == 7:
                floats = self.floats(value, 4, floats)
            elif number == 8:
                ints.extend(self.integers(value))
            elif number == 9:
                strings.append(self.text(value))
                if len(strings) > ATTRIBUTES:
                    raise ModelFormatError(f"attribute {name!r}: more than {ATTRIBUTES} strings")
            elif number == 20:
                kind = value
            else:
                found[number] = value
        if 21 in found:
            return name, Reference(self.text(found[21]))
        if not kind:                    # in files of 2017 the type is not written
            kind = next((number - 1 for number in (2, 3, 4, 5) if number in found),
                        6 if floats else 7 if ints else 8 if strings else 0)
        value = found.get(kind + 1)
        if kind == 1:
            return name, decimal(struct.unpack_from("<f", self.data, value[0])[0]) if value else 0.0
        if kind == 2:
            return name, signed(value or 0)
        if kind == 3:
            return name, self.text(value or (0, 0))
        if kind == 4:
            return name, self.tensor(value or (0, 0))
        return name, {6: np.frombuffer(floats or b"", "<f4"), 7: np.frombuffer(ints, np.int64), 8: strings}.get(kind)

    def subgraphs(self, span: Span) -> Iterator[Span]:
        """Yields the spans of the graphs in an AttributeProto."""
        for _, value in self.fields(span, SUBGRAPHS):
            yield value

    # ---- Tensors ---------------------------------------------------------------------------------

    def tensor(self, span: Span) -> Array:
        """The array of a TensorProto, a view of the file's bytes wherever it can be."""
        dims: list[int] = []
        held: dict[int, Any] = {}
        entries: dict[str, str] = {}
        kind, is_external = 0, False
        for number, value in self.fields(span, TENSOR):
            if number == 1:
                dims.extend(self.integers(value))
                if len(dims) > RANK:
                    raise ModelFormatError(f"a tensor of more than {RANK} dimensions")
            elif number == 2:
                kind = value
            elif number == RAW:
                held[RAW] = memoryview(self.data)[value[0]:value[1]]
            elif number in (FLOATS, DOUBLES):
                held[number] = self.floats(value, 4 if number == FLOATS else 8, held.get(number))
            elif number == 13:
                entries.update([self.pair(value)])
                if len(entries) > RANK:
                    raise ModelFormatError(f"a tensor with more than {RANK} entries of external data")
            elif number == 14:
                is_external = value == 1
            elif number in held:
                held[number].extend(self.integers(value))
            else:
                held[number] = array.array("q", self.integers(value))
        if kind not in DTYPES:
            raise ModelFormatError(f"a tensor of type {kind} (TensorProto.DataType), not one of weights")
        dtype, field = DTYPES[kind]
        if is_external:
            values = np.frombuffer(self.external(entries, dims, np.dtype(dtype)), dtype)
        elif held.get(RAW):
            values = np.frombuffer(held[RAW], dtype)
        elif field in (FLOATS, DOUBLES):
            values = np.frombuffer(held.get(field, b""), dtype)
        else:                           # float16 and bfloat16 stand as integers too
            integers = np.frombuffer(held.get(field, b""), np.int64)
            values = integers.astype("<u2" if dtype == "<f2" else dtype).view(dtype)
        if min(dims, default=0) < 0 or math.prod(dims) != values.size:
            raise ModelFormatError(f"a tensor of shape {dims} has {values.size} numbers of {values.dtype}")
        if kind == BFLOAT16:
            self.spend(8 * values.size, "bfloat16 weights")
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values.reshape(dims)

    def external(self, entries: Mapping[str, str], dims: Sequence[int], dtype: np.dtype[Any]) -> bytes:
        """The bytes of external data: of a file in the model's folder, and nowhere else.

        Their number is checked against the tensor's shape before any of them is read.
        """
        location = entries.get("location", "")
        what = f"external data at {location!r}"
        if not self.external_data:
            raise ModelFormatError(f"{what} is not read, as external_data=False says")
        parts = location.replace("\\", "/").split("/")
        if not location or not parts[0] or ".." in parts or "\0" in location or ntpath.splitdrive(location)[0]:
            raise ModelFormatError(f"{what}: not a path within the model's folder")
        folder = os.path.realpath(os.path.dirname(self.path))
        target = os.path.realpath(os.path.join(folder, location))
        if os.path.commonpath([folder, target]) != folder:
            raise ModelFormatError(f"{what}: a link out of the model's folder; a copy in the folder is read")
        try:
            status = os.stat(target)
            if not stat.S_ISREG(status.st_mode):
                raise ModelFormatError(f"{what}: not a regular file")
            size = status.st_size
            if target not in self._files:
                self._files.add(target)
                self._room += EXPANSION * size
            offset = int(entries.get("offset") or 0)
            length = int(entries.get("length") or size - offset)
            if offset < 0 or length < 0 or offset + length > size:
                raise ModelFormatError(f"{what}: {length} bytes from byte {offset} of a file of {size}")
            if length % dtype.itemsize:
                raise ModelFormatError(f"{what}: a buffer size of {length} bytes is none of {dtype}")
            if min(dims, default=0) < 0 or math.prod(dims) * dtype.itemsize != length:
                raise ModelFormatError(f"{what}: a tensor of shape {dims} has {length // dtype.itemsize} numbers of "
                                       f"{dtype}")
            self.spend(length, what)
            return read_bytes(target, offset, length)
        except OSError as error:
            raise ModelFormatError(f"{what}: {error.strerror}") from error


class Node:
    """What is read of a NodeProto: domain, op_type, name, inputs and outputs; its attributes as spans."""

    __slots__ = ("domain", "op_type", "overload", "name", "inputs", "outputs", "attributes")

    def __init__(self, reader: Reader, span: Span) -> None:
        self.domain = self.op_type = self.overload = self.name = ""
        self.inputs, self.outputs, self.attributes = [], [], []
        for number, value in reader.fields(span, NODE):
            if number == 1:
                self.inputs.append(reader.text(value))
            elif number == 2:
                self.outputs.append(reader.text(value))
            elif number == 3:
                self.name = reader.text(value)
            elif number == 4:
                self.op_type = reader.text(value)
            elif number == 5:
                self.attributes.append(value)
            elif number == 7:
                self.domain = reader.text(value)
            else:
                self.overload = reader.text(value)
            if len(self.inputs) + len(self.outputs) > NAMES or len(self.attributes) > ATTRIBUTES:
                raise ModelFormatError(f"a node with more than {NAMES} inputs and outputs, or {ATTRIBUTES} attributes")
        self.domain = "" if self.domain == "ai.onnx" else self.domain


class Reference(str):
    """The name of an attribute of the function in whose body this one stands."""

    __slots__ = ()


def field_start(number: int, size: int) -> bytes:
    """What stands before the `size` bytes of a message, string or packed numbers in a field of number 1 to 15."""
    result = bytearray([number << 3 | BYTES])
    while size > 127:
        result.append(size & 127 | 128)
        size >>= 7
    result.append(size)
    return bytes(result)


def signed(number: int) -> int:
    """The 64-bit two's complement of an unsigned number."""
    return number - ((number >> 63) << 64)


def decimal(number: float) -> float:
    """The shortest decimal that a float32 stands for, as a Python float: 0.1 for 0.1f, which is 0.10000000149."""
    return float(str(np.float32(number)))
