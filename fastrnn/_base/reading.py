"""Careful reading of files: what every reader of model files shares.

Only regular files are read, and each of them whole, so that memory is bounded by the file's size. Contents are checked
before they are used, and nothing in them is ever executed. Every fault of the contents is a ``ModelFormatError``.
"""

from __future__ import annotations

import collections
import contextlib
import io
import json
import math
import os
import re
import stat
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from .pieces import read_in_pieces

if TYPE_CHECKING:
    from zipfile import ZipInfo

    from .typing import Array, PathLike

# A compressed entry may grow to this many times the size of its archive (weights hardly compress; zeros do).
EXPANSION = 64
# A JSON text may have so many lists and objects, and one more for each PART_SIZE bytes.
SMALL_PARTS, PART_SIZE = 100_000, 8
# A .npy header of numbers, as NumPy writes it (with L behind its numbers in Python 2). All others are left to NumPy's
# parser, which takes ten times as long.
_SIDE = rb"(?:0|[1-9][0-9]{0,17})L?"
PLAIN_HEADER = re.compile(rb"\{'descr': '([<>|](?:f[248]|[iu][1248]|b1))', 'fortran_order': (True|False), "
                          rb"'shape': \((|%b,|%b(?:, %b)+)\), \} *\n" % (_SIDE, _SIDE, _SIDE))
# A .npy header of so many bytes may be nested deeper than Python's parser goes; that of numbers has under 200.
LONG_HEADER = 1000


class ModelFormatError(ValueError):
    """A model file is broken, hostile, or not what it claims to be.

    The message names the file and what is wrong with it. Readers never run code from a file, and the memory they take
    is bounded by the file's size.

    Examples
    --------
    >>> import os, tempfile
    >>> import fastrnn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.npz")
    ...     with open(path, "wb") as file:
    ...         _ = file.write(b"no archive")
    ...     try:
    ...         fastrnn.load(path)
    ...     except fastrnn.ModelFormatError as error:
    ...         print(str(error).partition("model.npz: ")[2])
    BadZipFile: File is not a zip file
    """


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; of a pipe without waiting for its writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_bytes(path: PathLike, offset: int = 0, length: int | None = None) -> bytes:
    """The contents of a regular file, or `length` bytes from `offset`; OSError if there is no such file."""
    with refusing(path), open(path, "rb", opener=_open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ModelFormatError("not a regular file")
        file.seek(offset)
        return read_in_pieces(file, status.st_size if length is None else length)


@contextlib.contextmanager
def refusing(path: PathLike) -> Iterator[None]:
    """Turn every error of the block, except OSError and MemoryError, into a ModelFormatError that names the file."""
    name = os.fsdecode(path)
    try:
        yield
    except (OSError, MemoryError):
        raise
    except ModelFormatError as error:
        if name in str(error):
            raise
        raise ModelFormatError(f"{name}: {error}") from error.__cause__
    except Exception as error:
        if lacks_memory(error):
            raise MemoryError(f"{name}: there is not enough memory to read it") from error
        raise ModelFormatError(f"{name}: {type(error).__name__}: {error}") from error


def lacks_memory(error: BaseException) -> bool:
    """Whether an error is what NumPy or Python makes of a failed allocation.

    Python's locks raise a RuntimeError, some of NumPy's functions end without an exception, and a file that is closed
    after a MemoryError may raise another error over it.
    """
    if isinstance(error, SystemError) and ("without exception set" in str(error)
                                           or "without setting an exception" in str(error)):
        return True
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't allocate" in str(error)):
        return True
    return error.__context__ is not None and lacks_memory(error.__context__)


class Archive:
    """A zip archive in memory: its names, and the contents of its entries, at most EXPANSION times the archive."""

    def __init__(self, data: bytes, path: PathLike) -> None:
        import zipfile  # here, because importing fastrnn is quicker without it
        self.path = os.fsdecode(path)
        with refusing(path):
            self._zip = zipfile.ZipFile(io.BytesIO(data))
            self._entries: dict[str, ZipInfo] = {}
            for entry in self._zip.infolist():
                if entry.filename in self._entries:
                    raise ModelFormatError(f"{self.path}: {entry.filename!r} is in the archive twice")
                # zipfile unpacks the others without a bound
                if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ModelFormatError(f"{self.path}: {entry.filename!r} is neither stored nor deflated")
                self._entries[entry.filename] = entry
        reached = 0
        for entry in sorted(self._entries.values(), key=lambda entry: entry.header_offset):
            if entry.header_offset < reached:
                raise ModelFormatError(f"{self.path}: {entry.filename!r} overlaps another entry of the archive")
            reached = entry.header_offset + 30 + entry.compress_size       # 30: a header, without its name
        if reached > self._zip.start_dir:
            raise ModelFormatError(f"{self.path}: an entry overlaps the archive's directory")
        total = sum(entry.file_size for entry in self._entries.values())
        if total > EXPANSION * len(data):
            raise ModelFormatError(f"{self.path}: an archive of {len(data)} bytes claims to hold {total}; at most "
                                   f"{EXPANSION} times its size is read")

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def size(self, name: str) -> int:
        """Bytes of an entry, by the archive's directory."""
        return self._entries[name].file_size

    def read(self, name: str) -> bytes:
        """The contents of an entry, checked against its size and CRC."""
        if name not in self._entries:
            raise ModelFormatError(f"{self.path}: the archive has no {name!r}")
        entry = self._entries[name]
        with refusing(self.path), self._zip.open(entry) as file:
            data = read_in_pieces(file, entry.file_size + 1)
            if len(data) != entry.file_size:
                raise ModelFormatError(f"{self.path}: {name!r} has {len(data)} bytes, its header says "
                                       f"{entry.file_size}")
            return data


def parse_json(data: str | bytes) -> Any:
    """The value of a JSON text. A name twice in one object, NaN, Infinity and bottomless nesting are errors.

    So are lists and objects with next to nothing in them, by the million: an empty list of 3 bytes takes 70 in memory.
    """
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            name = collections.Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise ModelFormatError(f"{name!r} stands twice in a JSON object")
        return result

    def refuse(constant: str) -> NoReturn:
        raise ModelFormatError(f"{constant} is no JSON")

    open_list, open_object = ("[", "{") if isinstance(data, str) else (b"[", b"{")
    count = data.count(open_list) + data.count(open_object)         # type: ignore[arg-type]
    if count > SMALL_PARTS + len(data) // PART_SIZE:
        raise ModelFormatError(f"{count} lists and objects in {len(data)} bytes of JSON; those of weights hold "
                               f"numbers, {PART_SIZE} bytes each and more")
    return json.loads(data, object_pairs_hook=unique, parse_constant=refuse)


def parse_npy(data: bytes, name: str) -> Array:
    """The array of a .npy file's contents: only numbers, and exactly as many bytes as dtype and shape ask for."""
    shape, fortran, dtype, start = _npy_header(data, name)
    if dtype.kind not in "fiub":
        raise ModelFormatError(f"{name!r}: expected an array of numbers, got one of "
                               f"{'pickled objects, which are never read' if dtype.hasobject else dtype}")
    expected, count = math.prod(shape) * dtype.itemsize, len(data) - start
    if expected != count:
        raise ModelFormatError(f"{name!r}: {dtype} {shape} takes {expected} bytes, {count} are there")
    return np.frombuffer(data, dtype, offset=start).reshape(shape, order="F" if fortran else "C")


def _npy_header(data: bytes, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether it is in Fortran's order, dtype, and where the numbers begin, of a .npy file's contents."""
    if data[:8] == b"\x93NUMPY\1\0" and len(data) >= 10:
        start = 10 + struct.unpack_from("<H", data, 8)[0]
        plain = PLAIN_HEADER.fullmatch(data, 10, start)
        if plain is not None and start <= len(data):
            shape = tuple(int(side.rstrip(b"L")) for side in plain[3].split(b",") if side)
            return shape, plain[2] == b"True", np.dtype(plain[1].decode()), start
    file = io.BytesIO(data)
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if data[:6] != b"\x93NUMPY" or len(data) < 8:
        raise ModelFormatError(f"{name!r}: not a .npy file, or cut short")
    version = data[6], data[7]
    if version not in headers:
        raise ModelFormatError(f"{name!r}: .npy version {version} is of structured arrays, expected 1.0 or 2.0")
    file.seek(8)
    try:
        shape, fortran, dtype = headers[version](file)
        return shape, fortran, dtype, file.tell()
    except Exception as error:
        # MemoryError is also how Python's parser refuses bottomless nesting, and then no lack of memory.
        if lacks_memory(error) and file.tell() < LONG_HEADER:
            raise
        raise ModelFormatError(f"{name!r}: no .npy header: {type(error).__name__}: {error}") from None
