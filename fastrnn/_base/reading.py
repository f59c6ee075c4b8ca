"""Careful reading and writing of files: what every reader of model files shares.

Only regular files are read, and each of them whole, so that memory is bounded by the file's size. Contents are checked
before they are used, and nothing in them is ever executed. Every fault of the contents is a ``ModelFormatError``.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import io
import json
import math
import os
import stat
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, NoReturn

import numpy as np

if TYPE_CHECKING:
    from zipfile import ZipInfo

    from .typing import Array, PathLike

# A compressed entry may grow to this many times the size of its archive (weights hardly compress; zeros do).
EXPANSION = 64
# A JSON text may have so many lists and objects, and one more for each PART_SIZE bytes.
SMALL_PARTS, PART_SIZE = 100_000, 8
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


# ---- Careful reading ----------------------------------------------------------------------------

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
        return file.read(status.st_size if length is None else length)


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
        if _lacks_memory(error):
            raise MemoryError(f"{name}: there is not enough memory to read it") from error
        raise ModelFormatError(f"{name}: {type(error).__name__}: {error}") from error


def _lacks_memory(error: BaseException) -> bool:
    """Whether an error is what NumPy or Python makes of a failed allocation.

    Python's locks raise a RuntimeError, some of NumPy's functions end without an exception, and a file that is closed
    after a MemoryError may raise another error over it.
    """
    if isinstance(error, SystemError) and ("without exception set" in str(error)
                                           or "without setting an exception" in str(error)):
        return True
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't allocate" in str(error)):
        return True
    return error.__context__ is not None and _lacks_memory(error.__context__)


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
            data = file.read(entry.file_size + 1)
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
    file = io.BytesIO(data)
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in headers:
        raise ModelFormatError(f"{name!r}: .npy version {version} is of structured arrays, expected 1.0 or 2.0")
    try:
        shape, fortran, dtype = headers[version](file)
    except MemoryError:
        if file.tell() < LONG_HEADER:
            raise
        # This is how Python's parser refuses bottomless nesting, and no lack of memory.
        raise ModelFormatError(f"{name!r}: no .npy header") from None
    if dtype.kind not in "fiub":
        raise ModelFormatError(f"{name!r}: expected an array of numbers, got one of "
                               f"{'pickled objects, which are never read' if dtype.hasobject else dtype}")
    expected, count = math.prod(shape) * dtype.itemsize, len(data) - file.tell()
    if expected != count:
        raise ModelFormatError(f"{name!r}: {dtype} {shape} takes {expected} bytes, {count} are there")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if fortran else "C")


# ---- Writing --------------------------------------------------------------------------------------

@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[IO[bytes]]:
    """Write a file atomically: `path` is replaced when the block ends without an error, and stays as it was otherwise.

    A device or a pipe is written as it is. An OSError names `path`, whatever went wrong. A process that is killed
    leaves nothing behind, or one file of a known name in the same folder, which the next writer of `path` removes.
    """
    with _named(path), _open_draft(path) as draft:
        yield draft.file
        draft.finish()


def check_writable(path: PathLike) -> None:
    """Try whether ``replacing(path)`` could write, and leave no trace: for a caller with long work before it.

    Raises the OSError that writing would raise, by the path that the caller gave.
    """
    target = os.fsdecode(path)
    with _named(path):
        if _replaceable(target):
            with _open_draft(target):
                pass
        elif not os.access(target, os.W_OK):        # a pipe is not opened, since that would wait for its reader
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextlib.contextmanager
def _named(path: PathLike) -> Iterator[None]:
    """Turn an OSError of the block into the same error about the caller's path, instead of a draft's or of none.

    What NumPy and Python make of a failed allocation becomes a MemoryError.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise type(error)(error.errno, error.strerror, os.fsdecode(path)) from error
    except Exception as error:
        if _lacks_memory(error) and not isinstance(error, MemoryError):
            raise MemoryError(f"{os.fsdecode(path)}: there is not enough memory to write it") from error
        raise


class _Target:
    """A file that is no regular one, such as a device or a pipe: it is written in place, and cannot be replaced."""

    def __init__(self, target: str) -> None:
        self.file: IO[bytes] = open(target, "wb")

    def finish(self) -> None:
        """Hand everything that was written to the system."""
        self.file.flush()

    def __enter__(self) -> _Target:
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()


class _UnnamedDraft(_Target):
    """A file without a name, as Linux has them, which gets one when it is complete: a kill leaves nothing behind.

    A complete file cannot take another's name in one step, so for a moment it stands under a name of its own. Whoever
    finds one there (of a process that was killed in that moment, or of one that writes the same file now) puts it in
    place first and then his own: nobody waits, and every file that is ever seen at `target` is whole.
    """

    def __init__(self, target: str) -> None:
        self.target, self.name = target, _draft_name(target, ".tmp")
        folder = os.path.dirname(target)
        self.file = open(os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666), "w+b")

    def finish(self) -> None:
        """Put the file in its place."""
        self.file.flush()
        _keep_permissions(self.file.fileno(), self.target)
        os.fsync(self.file.fileno())
        while True:
            try:
                # A directory's descriptor makes Python follow the link, as it has to be here; the path is absolute.
                os.link(f"/proc/self/fd/{self.file.fileno()}", self.name, src_dir_fd=self.file.fileno())
                break
            except FileExistsError:
                with contextlib.suppress(FileNotFoundError):
                    _put_in_place(self.name, self.target)
        try:
            os.replace(self.name, self.target)
        except FileNotFoundError:                           # another writer has put it in place already
            if not os.path.exists(self.target):
                raise
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(self.name)
            raise
        _sync_folder(os.path.dirname(self.target))


class _NamedDraft(_Target):
    """A file that has a known name until it is complete, for systems that have none without a name.

    The next writer of the same target takes the name over. If the first is still at work, it gets an OSError.
    """

    def __init__(self, target: str) -> None:
        self.target, self.name, self.complete = target, _draft_name(target, ".part"), False
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.name)
        self.file = open(self.name, "xb")

    def finish(self) -> None:
        """Put the file in its place."""
        self.file.flush()
        _keep_permissions(self.name, self.target)
        os.fsync(self.file.fileno())
        if not self._owned():
            raise OSError(errno.EBUSY, "another writer of the same file began before this one had ended")
        self.file.close()                                   # Windows renames no open files
        os.replace(self.name, self.target)
        self.complete = True
        _sync_folder(os.path.dirname(self.target))

    def _owned(self) -> bool:
        """Whether the draft's name is still this writer's file."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.stat(self.name), os.fstat(self.file.fileno()))
        return False

    def __exit__(self, *exception: object) -> None:
        owned = not self.complete and (self.file.closed or self._owned())
        self.file.close()
        if owned:
            with contextlib.suppress(OSError):
                os.unlink(self.name)


def _open_draft(path: PathLike) -> _Target:
    target = os.path.realpath(os.fsdecode(path))    # a symbolic link stays, and what it points to is replaced
    if os.path.isdir(target):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not _replaceable(target):
        return _Target(target)
    if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
        try:
            return _UnnamedDraft(target)
        except OSError as error:        # what file systems and kernels without unnamed files answer
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS):
                raise
    return _NamedDraft(target)


def _replaceable(target: str) -> bool:
    """Whether a path is no device, pipe or socket."""
    return not os.path.exists(target) or os.path.isfile(target) or os.path.isdir(target)


def _draft_name(target: str, ending: str) -> str:
    """The one name that drafts of a target have. A digest, because a name may already have all letters allowed."""
    import hashlib  # here, because importing fastrnn is quicker without it
    folder, name = os.path.split(target)
    digest = hashlib.blake2b(os.fsencode(name), digest_size=8).hexdigest()
    return os.path.join(folder, f".fastrnn-{digest}{ending}")


def _put_in_place(name: str, target: str) -> None:
    """Put another writer's complete draft in its place; one that another user or program made is removed instead."""
    status = os.lstat(name)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
        os.replace(name, target)
    else:
        os.unlink(name)


def _keep_permissions(draft: int | str, target: str) -> None:
    """Give a draft the permissions of the file that it will replace."""
    with contextlib.suppress(OSError):
        os.chmod(draft, stat.S_IMODE(os.stat(target).st_mode))


def _sync_folder(path: str) -> None:
    """Write a folder's entries to the disk: without that, a power failure may lose a new name."""
    with contextlib.suppress(OSError):      # Windows cannot open folders, and some file systems cannot sync them
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
