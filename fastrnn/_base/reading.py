"""Careful reading and writing of files: what every reader of model files shares.

A file is read whole, and only a regular one, so that memory is bounded by its size. What is found in it is used only
after it was checked, and nothing in it is ever executed. Every failure of the contents is a ``ModelFormatError``.
"""

import collections
import contextlib
import io
import json
import math
import os
import stat

import numpy as np

# A compressed entry may grow to this many times the size of its archive (weights hardly compress; zeros do).
EXPANSION = 64


class ModelFormatError(ValueError):
    """A model file that is broken, hostile, or not what it claims to be.

    >>> issubclass(ModelFormatError, ValueError)
    True
    """


# ---- Careful reading ----------------------------------------------------------------------------

def read_bytes(path, offset=0, length=None):
    """The contents of a regular file, or `length` bytes from `offset`; OSError where there is none."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ModelFormatError(f"{os.fsdecode(path)}: not a regular file")
        file.seek(offset)
        return file.read(status.st_size if length is None else length)


@contextlib.contextmanager
def refusing(path):
    """What goes wrong within is the file's fault: a ModelFormatError that names it. OSErrors pass."""
    path = os.fsdecode(path)
    try:
        yield
    except (OSError, MemoryError):
        raise
    except ModelFormatError as error:
        if path in str(error):
            raise
        raise ModelFormatError(f"{path}: {error}") from error.__cause__
    except Exception as error:
        raise ModelFormatError(f"{path}: {type(error).__name__}: {error}") from error


class Archive:
    """A zip archive in memory: names, and the contents of an entry, never more than EXPANSION times the archive."""

    def __init__(self, data, path):
        import zipfile  # here, for an import of fastrnn without it is quicker
        self.path = os.fsdecode(path)
        with refusing(path):
            self._zip = zipfile.ZipFile(io.BytesIO(data))
            self._entries = {}
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

    def __iter__(self):
        return iter(self._entries)

    def __contains__(self, name):
        return name in self._entries

    def size(self, name):
        return self._entries[name].file_size

    def read(self, name):
        """The contents of an entry, checked against its size and CRC."""
        if name not in self._entries:
            raise ModelFormatError(f"{self.path}: the archive has no {name!r}")
        entry = self._entries[name]
        with refusing(self.path), self._zip.open(entry) as file:
            data = file.read(entry.file_size + 1)
            if len(data) != entry.file_size:
                raise ModelFormatError(f"{self.path}: {name!r} has {len(data)} bytes, its header says "
                                       f"{entry.file_size}")
            return data


def parse_json(data):
    """What a JSON text says. A name twice in one object, NaN or Infinity, and nesting without end are errors."""
    def unique(pairs):
        found = dict(pairs)
        if len(found) != len(pairs):
            name = collections.Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise ModelFormatError(f"{name!r} stands twice in a JSON object")
        return found

    def refuse(constant):
        raise ModelFormatError(f"{constant} is no JSON")

    return json.loads(data, object_pairs_hook=unique, parse_constant=refuse)


def parse_npy(data, name):
    """The array of a .npy file's contents: numbers alone, as many bytes as dtype and shape ask for."""
    file = io.BytesIO(data)
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in headers:
        raise ModelFormatError(f"{name!r}: .npy version {version} is of structured arrays, expected 1.0 or 2.0")
    try:
        shape, fortran, dtype = headers[version](file)
    except MemoryError:             # how Python's parser refuses nesting without end
        raise ModelFormatError(f"{name!r}: no .npy header") from None
    if dtype.kind not in "fiub":
        raise ModelFormatError(f"{name!r}: expected an array of numbers, got one of "
                               f"{'pickled objects, which are never read' if dtype.hasobject else dtype}")
    due, there = math.prod(shape) * dtype.itemsize, len(data) - file.tell()
    if due != there:
        raise ModelFormatError(f"{name!r}: {dtype} {shape} takes {due} bytes, {there} are there")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if fortran else "C")


# ---- Writing --------------------------------------------------------------------------------------

@contextlib.contextmanager
def replacing(path, draft=None):
    """A file to write to that becomes `path` on a regular end; until then, and otherwise, `path` stays as it was.

    draft: the name it has until then, which one writer alone uses: if it is killed, the next writes over what it left.
    Without it every writer has a name of its own.
    """
    path = os.path.realpath(os.fsdecode(path))      # through a symbolic link to what it points to
    mode = "xb" if draft is None else "wb"
    draft = os.path.join(os.path.dirname(path), f".fastrnn-{os.urandom(8).hex()}.tmp" if draft is None else draft)
    try:
        with open(draft, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(OSError):          # who may read the file that is replaced may read the new one
            os.chmod(draft, stat.S_IMODE(os.stat(path).st_mode))
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
    _sync_folder(os.path.dirname(path))


def _sync_folder(path):
    """Has the system write a folder's entries, without which a new name may be lost with the power."""
    with contextlib.suppress(OSError):      # Windows opens no folders, some file systems sync none
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
