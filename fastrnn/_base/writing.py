"""Writing of files: whole or not at all, so that whoever reads one never sees a part of it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from .pieces import PIECE
from .reading import lacks_memory

if TYPE_CHECKING:
    from .typing import PathLike


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
        if lacks_memory(error) and not isinstance(error, MemoryError):
            raise MemoryError(f"{os.fsdecode(path)}: there is not enough memory to write it") from error
        raise


def _sync(file: IO[bytes]) -> None:
    """Have the disk take what was written. For a large file another thread waits, so that Ctrl-C is answered here."""
    file.flush()
    if os.fstat(file.fileno()).st_size <= PIECE:
        os.fsync(file.fileno())
        return
    import threading
    descriptor, errors = os.dup(file.fileno()), []      # which stays open where this thread is interrupted

    def work() -> None:
        try:
            os.fsync(descriptor)
        except OSError as error:
            errors.append(error)
        finally:
            os.close(descriptor)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        thread.join()
    except BaseException:       # what is left to be written need not be: a process waits for it before it ends
        os.ftruncate(file.fileno(), 0)
        raise
    if errors:
        raise errors[0]


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
        _keep_permissions(self.file.fileno(), self.target)
        _sync(self.file)
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
        _keep_permissions(self.name, self.target)
        _sync(self.file)
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
