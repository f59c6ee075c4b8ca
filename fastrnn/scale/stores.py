"""Where pools keep the states of streams that they evict: a mapping, a folder, an SQLite file, or Redis.

A store holds bytes under keys. What the bytes are is the pool's to know; a pool takes back nothing of another model.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from .._base import validation as check
from .._base.reading import read_bytes
from .._base.writing import replacing
from .keys import encoded

if TYPE_CHECKING:
    from .._base.typing import PathLike

__all__ = ["Store", "MappingStore", "FolderStore", "SQLiteStore", "RedisStore", "opened"]

_AT_ONCE = 500          # keys that one query of SQLite asks for
_CACHE = 65536          # KiB of an SQLite file that are kept in memory: keys come in no order of the file
_LOG_PAGES = 8192       # pages of 4 KiB that SQLite's log may have before they go to the file, which waits for the disk
_LONGEST = 100          # bytes of a key that a file's name spells out; of longer ones it has a hash


class Store(ABC):
    """Base class of stores: bytes under keys.

    A class of your own derives from it to keep states elsewhere, and defines ``_get``, ``_put`` and ``_delete``.
    ``_put`` either keeps all or raises; a pool whose store raises keeps the streams that it was about to evict.

    Examples
    --------
    >>> from fastrnn import scale
    >>> class Logged(scale.MappingStore):
    ...     def _put(self, keys, states):
    ...         print("evicted", keys)
    ...         super()._put(keys, states)
    >>> Logged({}).put_many(["a", "b"], [b"1", b"2"])
    evicted ['a', 'b']
    """

    @abstractmethod
    def _get(self, keys: Sequence[Hashable]) -> list[bytes | None]:
        """What is kept under each key, or None."""

    @abstractmethod
    def _put(self, keys: Sequence[Hashable], states: Sequence[bytes]) -> None:
        """Keep bytes under keys."""

    @abstractmethod
    def _delete(self, key: Hashable) -> None:
        """Forget a key, where it is there."""

    def _flush(self, note: str | None) -> None:
        """Make what was put durable, with the note in the same transaction."""
        if note is not None:
            raise TypeError(f"note: a {type(self).__name__} has no transactions; an SQLiteStore keeps notes")

    def _close(self) -> None:
        """Let go of files and connections."""
        return

    def get_many(self, keys: Sequence[Hashable]) -> list[bytes | None]:
        """Return what was put under each key, or None.

        Parameters
        ----------
        keys : sequence
            The keys.

        Returns
        -------
        list of bytes or None
            One for each key.

        Examples
        --------
        >>> from fastrnn import scale
        >>> scale.MappingStore({"a": b"1"}).get_many(["a", "b"])
        [b'1', None]
        """
        return self._get(keys)

    def put_many(self, keys: Sequence[Hashable], states: Sequence[bytes]) -> None:
        """Keep bytes under keys, in place of what was there.

        Parameters
        ----------
        keys : sequence
            The keys.
        states : sequence of bytes
            What to keep, one for each key.

        Examples
        --------
        >>> from fastrnn import scale
        >>> states = {}
        >>> scale.MappingStore(states).put_many(["a"], [b"1"])
        >>> states
        {'a': b'1'}
        """
        self._put(keys, states)

    def delete(self, key: Hashable) -> None:
        """Forget a key; do nothing where it is not there.

        Parameters
        ----------
        key : hashable
            The key.

        Examples
        --------
        >>> from fastrnn import scale
        >>> states = {"a": b"1"}
        >>> scale.MappingStore(states).delete("a")
        >>> states
        {}
        """
        self._delete(key)

    def flush(self, note: str | None = None) -> None:
        """Make everything that was put durable.

        Parameters
        ----------
        note : str, optional
            A text that is kept with it in one transaction, in place of the last one: by an ``SQLiteStore`` with
            ``commit="flush"``.

        Raises
        ------
        TypeError, ValueError
            A note is given, and this store has no transactions, or ends them with every eviction.

        Examples
        --------
        >>> from fastrnn import scale
        >>> scale.MappingStore({}).flush()
        """
        self._flush(note)

    def close(self) -> None:
        """Let go of files and connections.

        Of an ``SQLiteStore`` with ``commit="flush"``, what was put since the last flush is forgotten.

        Examples
        --------
        >>> from fastrnn import scale
        >>> scale.MappingStore({}).close()
        """
        self._close()


class MappingStore(Store):
    """States in a mapping, such as a dict or a shelf, under the keys themselves.

    Parameters
    ----------
    mapping : mutable mapping
        Takes any hashable key, or those that its kind of mapping takes.

    Examples
    --------
    >>> import fastrnn, numpy as np
    >>> from fastrnn import scale
    >>> evicted = {}
    >>> pool = scale.StreamPool(fastrnn.GRU(2, 4, rng=0), capacity=1, store=evicted)
    >>> _ = pool.step(["a"], np.ones((1, 2), np.float32))
    >>> _ = pool.step(["b"], np.ones((1, 2), np.float32))
    >>> list(evicted)
    ['a']
    """

    def __init__(self, mapping: MutableMapping[Any, bytes]) -> None:
        self._mapping = mapping

    def _get(self, keys: Sequence[Hashable]) -> list[bytes | None]:
        return [self._mapping.get(key) for key in keys]

    def _put(self, keys: Sequence[Hashable], states: Sequence[bytes]) -> None:
        for key, state in zip(keys, states, strict=True):
            with _naming(key):
                self._mapping[key] = state

    def _delete(self, key: Hashable) -> None:
        self._mapping.pop(key, None)


class FolderStore(Store):
    """States as files of a folder, one for each key; each is written under another name, synced and renamed.

    The plainest store on a disk, and a slow one: a sync takes a millisecond or so. ``SQLiteStore`` is for many streams.

    Parameters
    ----------
    path : str or path-like
        The folder; it is made where there is none.

    Examples
    --------
    >>> import os, tempfile
    >>> from fastrnn import scale
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = scale.FolderStore(os.path.join(folder, "states"))
    ...     store.put_many(["a"], [b"state"])
    ...     store.get_many(["a", "b"])
    [b'state', None]
    """

    def __init__(self, path: PathLike) -> None:
        self._path = os.fsdecode(path)
        os.makedirs(self._path, exist_ok=True)

    def _file(self, key: Hashable) -> str:
        name = encoded(key)
        digest = hashlib.sha256(name).hexdigest()
        spelled = name.hex() if len(name) <= _LONGEST else "long-" + digest
        return os.path.join(self._path, digest[:2], spelled)        # 256 folders: file systems slow down with the count

    def _get(self, keys: Sequence[Hashable]) -> list[bytes | None]:
        states: list[bytes | None] = []
        for key in keys:
            try:
                states.append(read_bytes(self._file(key)))
            except FileNotFoundError:
                states.append(None)
        return states

    def _put(self, keys: Sequence[Hashable], states: Sequence[bytes]) -> None:
        for key, state in zip(keys, states, strict=True):
            with _naming(key):
                path = self._file(key)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with replacing(path) as file:
                    file.write(state)

    def _delete(self, key: Hashable) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.remove(self._file(key))


class SQLiteStore(Store):
    """States in an SQLite file, by the standard library: the embedded store for many streams.

    States that are evicted together are written in one transaction. A process that is killed loses no transaction that
    ended; a machine that loses power may lose the last ones, unless ``durable`` is set, but the file stays whole.

    Parameters
    ----------
    path : str or path-like
        The file; it is made where there is none.
    commit : {"write", "flush"}, default "write"
        When transactions end. "write": with every eviction. "flush": when ``pool.flush`` is called. Then the file is
        always as it was at a flush, with the note of that flush, whatever happens in between: a service that notes how
        far it has read its input goes on from there, and no row is lost or taken twice.
    durable : bool, default False
        Whether a transaction waits for the disk, so that it outlives a loss of power.

    Attributes
    ----------
    note : str or None
        The note of the last flush.

    Examples
    --------
    >>> import os, tempfile
    >>> import fastrnn, numpy as np
    >>> from fastrnn import scale
    >>> layer, x = fastrnn.GRU(2, 4, rng=0), np.ones((1, 2), np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = scale.SQLiteStore(os.path.join(folder, "states.sqlite"), commit="flush")
    ...     pool = scale.StreamPool(layer, capacity=1000, store=store)
    ...     _ = pool.step(["a"], x)
    ...     pool.flush(note="1 row")
    ...     store.close()
    ...     scale.SQLiteStore(os.path.join(folder, "states.sqlite")).note
    '1 row'
    """

    def __init__(self, path: PathLike, *, commit: Literal["write", "flush"] = "write", durable: bool = False) -> None:
        self._commits = check.choice(commit, "commit", ("write", "flush")) == "write"
        self._lost = False
        self._connection = sqlite3.connect(os.fsdecode(path), isolation_level=None, check_same_thread=False)
        for statement in ("PRAGMA journal_mode = WAL",
                          f"PRAGMA synchronous = {'FULL' if check.flag(durable, 'durable') else 'NORMAL'}",
                          f"PRAGMA cache_size = -{_CACHE}", f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}",
                          "CREATE TABLE IF NOT EXISTS states (key BLOB PRIMARY KEY, state BLOB) WITHOUT ROWID",
                          "CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, note TEXT) WITHOUT ROWID"):
            self._connection.execute(statement)

    @property
    def note(self) -> str | None:
        """The note of the last flush, or None where there is none."""
        row = self._connection.execute("SELECT note FROM notes WHERE name = 'note'").fetchone()
        return None if row is None else str(row[0])

    def _get(self, keys: Sequence[Hashable]) -> list[bytes | None]:
        self._check_whole()
        names = [encoded(key) for key in keys]
        states: dict[bytes, bytes] = {}
        for start in range(0, len(names), _AT_ONCE):
            part = names[start:start + _AT_ONCE]
            marks = ",".join("?" * len(part))
            states.update(self._connection.execute(f"SELECT key, state FROM states WHERE key IN ({marks})", part))
        return [states.get(name) for name in names]

    def _put(self, keys: Sequence[Hashable], states: Sequence[bytes]) -> None:
        rows = [(encoded(key), state) for key, state in zip(keys, states, strict=True)]
        with self._transaction():
            self._connection.executemany("INSERT INTO states VALUES (?, ?) "
                                         "ON CONFLICT (key) DO UPDATE SET state = excluded.state", rows)

    def _delete(self, key: Hashable) -> None:
        with self._transaction():
            self._connection.execute("DELETE FROM states WHERE key = ?", (encoded(key),))

    def _flush(self, note: str | None) -> None:
        if note is not None:
            if self._commits:
                raise ValueError("note: expected a store with commit='flush', whose transactions end at a flush")
            with self._transaction():
                self._connection.execute("INSERT OR REPLACE INTO notes VALUES ('note', ?)", (note,))
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing of the block; with commit="flush" as a part of the transaction that the flush ends."""
        self._check_whole()
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("SAVEPOINT part")
        try:
            yield
            self._connection.execute("RELEASE part")
            if self._commits:
                self._connection.execute("COMMIT")
        except BaseException:
            if not self._connection.in_transaction:     # SQLite itself has ended it, as where the disk is full
                self._lost = not self._commits
            elif self._commits:
                self._connection.execute("ROLLBACK")
            else:
                self._connection.execute("ROLLBACK TO part")
                self._connection.execute("RELEASE part")
            raise

    def _check_whole(self) -> None:
        """Raise RuntimeError where SQLite has taken back evictions that no flush has ended yet."""
        if self._lost:
            raise RuntimeError("store: SQLite took back what was evicted since the last flush; open the store again "
                               "and go on from the last flush's note")

    def _close(self) -> None:
        self._connection.close()


class RedisStore(Store):
    """States in Redis, for pools of several machines and for services that move between them.

    Parameters
    ----------
    client : str or redis.Redis
        An address such as ``"redis://127.0.0.1:6379/0"``, or a client that returns bytes (``decode_responses=False``):
        of it mget, mset, delete and close are called.
    prefix : str, default "fastrnn:"
        What the names in Redis begin with; pools of different models need different ones.

    Raises
    ------
    ImportError
        An address is given, and the package is missing: ``pip install fastrnn[redis]``.

    Examples
    --------
    A client that keeps all in this process, in the place of a server:

    >>> from fastrnn import scale
    >>> class Client(dict):
    ...     mset = dict.update
    ...     def mget(self, names):
    ...         return [self.get(name) for name in names]
    >>> client = Client()
    >>> scale.RedisStore(client, prefix="scores:").put_many(["a"], [b"1"])
    >>> list(client)
    [b'scores:sa']
    """

    def __init__(self, client: Any, *, prefix: str = "fastrnn:") -> None:
        if isinstance(client, str):
            try:
                import redis  # here: an optional extra
            except ModuleNotFoundError as error:
                raise ImportError("store: the package redis is missing: pip install fastrnn[redis]") from error
            client = redis.Redis.from_url(client)
        self._client, self._prefix = client, prefix.encode()

    def _name(self, key: Hashable) -> bytes:
        return self._prefix + encoded(key)

    def _get(self, keys: Sequence[Hashable]) -> list[bytes | None]:
        states: list[bytes | None] = self._client.mget([self._name(key) for key in keys]) if keys else []
        if any(isinstance(state, str) for state in states):
            raise TypeError("client: expected a Redis client that returns bytes (decode_responses=False)")
        return states

    def _put(self, keys: Sequence[Hashable], states: Sequence[bytes]) -> None:
        if keys:
            self._client.mset({self._name(key): state for key, state in zip(keys, states, strict=True)})

    def _delete(self, key: Hashable) -> None:
        self._client.delete(self._name(key))

    def _close(self) -> None:
        self._client.close()


@contextlib.contextmanager
def _naming(key: Hashable) -> Iterator[None]:
    """Note on an error of the block which key it was about."""
    try:
        yield
    except Exception as error:
        error.add_note(f"This was the state of key {key!r}.")
        raise


def opened(store: Any) -> Store | None:
    """The store that a pool's argument names: a Store, a mapping, a path, an address of Redis, or None."""
    if store is None or isinstance(store, Store):
        return store
    if isinstance(store, MutableMapping):
        return MappingStore(store)
    if isinstance(store, str) and store.startswith(("redis://", "rediss://", "unix://")):
        return RedisStore(store)
    if isinstance(store, (str, bytes, os.PathLike)):
        path = os.fsdecode(store)
        return SQLiteStore(path) if path.endswith((".sqlite", ".sqlite3", ".db")) else FolderStore(path)
    raise TypeError("store: expected a mapping, a folder, a file that ends in .sqlite, an address of Redis or a Store, "
                    f"got {type(store).__name__}")
