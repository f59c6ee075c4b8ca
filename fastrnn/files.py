"""fastrnn's own model files, and what every reader of files shares: careful reading, one kind of error.

A file is read whole, and only a regular one, so that memory is bounded by its size; what is found in it is believed
only as far as it was checked. Nothing in it is ever run.
"""

import contextlib
import io
import os
import stat
import zipfile

# A compressed entry may grow to this many times the size of its archive (weights hardly compress; zeros do).
EXPANSION = 64


class ModelFormatError(ValueError):
    """A model file that is broken, hostile, or not what it claims to be.

    >>> issubclass(ModelFormatError, ValueError)
    True
    """


# ---- Careful reading ----------------------------------------------------------------------------

def read_bytes(path):
    """The contents of a regular file; OSError where there is none."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ModelFormatError(f"{os.fspath(path)}: not a regular file")
        return file.read(status.st_size)


@contextlib.contextmanager
def refusing(path):
    """What goes wrong within is the file's fault: a ModelFormatError that names it. OSErrors pass."""
    path = os.fspath(path)
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
        self.path = os.fspath(path)
        with refusing(path):
            self._zip = zipfile.ZipFile(io.BytesIO(data))
            self._entries = {}
            for entry in self._zip.infolist():
                if entry.filename in self._entries:
                    raise ModelFormatError(f"{self.path}: {entry.filename!r} is in the archive twice")
                self._entries[entry.filename] = entry
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
