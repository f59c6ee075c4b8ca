"""``StreamPool``: thousands of live streams of one model, stepped together, and as many more in a store.

A step looks the keys up (``_core.Slots``: a dict, and a ring of the slots in the order of their last uses), admits
those that have no slot, and gives the slots to the model's ``Members``, which hold the states.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Hashable, Iterable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import _core
from .._base import validation as check
from .keys import decoded, encoded
from .members import members_of
from .stores import Store, opened

if TYPE_CHECKING:
    from .._base.typing import Array, ArrayLike, PathLike
    from ..anomaly import RNNAnomalyDetector
    from ..forecasting import ForecastStream, RNNForecaster
    from ..nn.modules import Sequential
    from ..nn.recurrent import Recurrent

__all__ = ["StreamPool"]

_ALL: Any = object()                # of snapshot and restore: no key, the whole pool
_MAGIC = b"FRNNPOOL"
_VERSION = 1
_HEADER = struct.Struct("<8sHxxQ")  # magic, version, number of streams
_LENGTH = struct.Struct("<Q")
_SHOWN = 5                          # keys that a message names


class StreamPool:
    """Live streams of one model by key: any of them take a step in one call.

    ``pool.step(keys, x)`` takes a row for each key. A key that is not in the pool is admitted: with the state that the
    store has of it, or as a new stream. Every stream has the bits of a solo stream (``layer.stream()``) that was given
    the same rows. Where the pool is full the streams that were used least recently make room: they go to the store.

    The states of a layer or a Sequential lie in one array, so that a step of many streams is one compiled call, whose
    rows threads share (``fastrnn.set_num_threads``). Streams of forecasters and detectors are objects, which take their
    steps one after another.

    Parameters
    ----------
    model : RNN, LSTM, GRU, Sequential, RNNForecaster, ForecastStream or RNNAnomalyDetector
        What the streams are of, with the weights that it has now; quantized models, too. Recurrent layers walk forward
        alone. A new stream has a state of zeros; of a forecaster of one series, or of a stream, it goes on from there;
        of a forecaster of several series the key is a series' name or number; of a detector it is as the detector is.
    capacity : int
        The most streams that are in the pool at once.
    evict : {"lru", None}, default "lru"
        Which streams make room where the pool is full: the least recently used, or none, so that a further key is an
        error.
    store : mapping, str, path-like, Store or None, default None
        Where streams go when they are evicted, and come back from: a mutable mapping, a folder, an SQLite file (a name
        that ends in ``.sqlite`` or ``.db``), an address of Redis, or a store of your own. Without one an evicted stream
        is forgotten.

    Attributes
    ----------
    capacity : int
        The most streams.
    hits, misses : int
        Rows whose stream was in the pool, and keys that had to be admitted.
    evictions, reloads : int
        Streams that made room, and admitted ones of which the store had a state.

    Raises
    ------
    TypeError, ValueError
        An argument is unsuitable; the message names it.

    Notes
    -----
    A store gets a stream's state when the stream is evicted and by ``flush``. A process that is killed loses the steps
    of the streams that were in the pool, back to their last eviction or flush: call ``flush`` or ``snapshot`` as often
    as rows can be read again. A state is written before its stream leaves the pool, so that a store that fails loses
    nothing. One pool at a time uses a store: two would overwrite each other's states.

    With a store keys are texts, whole numbers, floats, bytes, None and tuples of these; a mapping takes any key.

    Examples
    --------
    >>> import fastrnn
    >>> import numpy as np
    >>> from fastrnn import scale
    >>> layer = fastrnn.GRU(2, 4, rng=0)
    >>> pool = scale.StreamPool(layer, capacity=1000)
    >>> x = np.ones((3, 2), np.float32)
    >>> pool.step(["ann", "bob", "ann"], x).shape
    (3, 4)
    >>> solo = layer.stream()
    >>> _ = solo.step(x[0]), solo.step(x[2])
    >>> bool(np.array_equal(pool.step(["ann"], x[:1])[0], solo.step(x[0])))
    True
    """

    def __init__(self, model: Recurrent[Any, Any] | Sequential | RNNForecaster | ForecastStream | RNNAnomalyDetector,
                 capacity: int, evict: Literal["lru"] | None = "lru",
                 store: MutableMapping[Any, bytes] | PathLike | Store | None = None) -> None:
        self.capacity = check.size(capacity, "capacity")
        if evict not in ("lru", None):
            raise ValueError(f"evict: expected 'lru' or None, got {evict!r}")
        self._evict, self._model = evict, model
        check.addressable("capacity", self.capacity, 3)
        self._members = members_of(model, self.capacity)
        self._slots = _core.Slots(self.capacity)
        self._changed = np.zeros(self.capacity, bool)       # since the stream came from the store, or was flushed
        self._store = opened(store)
        self._exclusive = _core.Exclusive()
        self.hits = self.misses = self.evictions = self.reloads = 0

    # ---- Steps -----------------------------------------------------------------------------------

    def step(self, keys: Iterable[Hashable], x: ArrayLike, out: Array | None = None, *, known: ArrayLike | None = None,
             past: ArrayLike | None = None, times: ArrayLike | None = None) -> Array:
        """Take a row for each key, and return what each stream gives.

        Parameters
        ----------
        keys : iterable of hashable, [n]
            Whose rows they are. A key that stands there twice takes its rows in order.
        x : array
            The rows: [n, I] of a layer, or what the first module of a Sequential takes; observations [n] of a
            forecaster; [n, channels] (or [n] of one channel) of a detector.
        out : array, optional
            Shaped as the output; written in place and returned.
        known, past : array_like, [n, F], optional
            A forecaster's columns at each row, as ``ForecastStream.step`` takes them.
        times : array_like of datetimes, [n], optional
            A detector's times of the rows.

        Returns
        -------
        array
            Of a layer or a Sequential the output [n, S]; of a forecaster the forecasts [n, horizon]; of a detector the
            anomaly scores [n], after which the rows are learnt.

        Raises
        ------
        TypeError, ValueError
            An argument is unsuitable, or there are more different keys than the pool has room for.
        KeyError
            A forecaster of several series has none of this name.
        RuntimeError
            The store failed: the message names the keys, and their streams stay in the pool. Or another thread is in a
            call of this pool.

        Notes
        -----
        A step of a layer or a Sequential that raises has changed no state, whatever the reason. Of forecasters and
        detectors the rows are checked before any stream takes its own; where a stream raises in spite of this, those of
        the rows before it have taken theirs, which a note on the exception says.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> from fastrnn import scale
        >>> pool = scale.StreamPool(fastrnn.LSTM(3, 8, rng=0), capacity=100)
        >>> pool.step([("shop", 1), ("shop", 2)], np.ones((2, 3), np.float32)).shape
        (2, 8)
        """
        columns = {name: value for name, value in (("known", known), ("past", past), ("times", times))
                   if value is not None}
        return self._exclusive.call(self._step, (_listed(keys), x, out, columns))

    def _step(self, keys: Sequence[Hashable], x: ArrayLike, out: Array | None, columns: dict[str, Any]) -> Array:
        members, count = self._members, len(keys)
        inputs = members.checked(x, count, columns)
        result = members.outputs(count, out)
        slots = np.empty(count, np.intp)
        missing, repeated = self._slots.look_up(keys, slots, self._changed)
        new = self._admit(keys, slots) if missing else 0
        if missing:
            repeated = self._slots.look_up(keys, slots, self._changed)[1]
        if repeated:
            self._step_in_turns(slots, inputs, result)
        else:
            members.step(slots, inputs, None, result)
        self.hits += count - new
        return result

    def _step_in_turns(self, slots: Array, inputs: Any, result: Array) -> None:
        """Steps of streams of which some have several rows: first the first row of each, then the second, and so on."""
        order = np.argsort(slots, kind="stable")
        ordered = slots[order]
        begins = np.flatnonzero(np.diff(ordered, prepend=-1))
        turn = np.empty(len(slots), np.intp)
        turn[order] = np.arange(len(slots)) - np.repeat(begins, np.diff(begins, append=len(slots)))
        streams = ordered[begins]
        kept = self._members.kept(streams)
        try:
            for number in range(int(turn.max()) + 1):
                places = np.flatnonzero(turn == number)
                self._members.step(slots[places], inputs, places, result)
        except BaseException:
            if kept is not None:
                self._members.undo(streams, kept)
            raise

    def _admit(self, keys: Sequence[Hashable], slots: Array) -> int:
        """Give slots to the keys without one, and return how many there were; where that raises nothing has changed."""
        new = list(dict.fromkeys(key for key, slot in zip(keys, slots.tolist(), strict=True) if slot < 0))
        stay = len(np.unique(slots[slots >= 0]))
        if stay + len(new) > self.capacity:
            raise ValueError(f"keys: {stay + len(new)} different keys in one call, the pool holds {self.capacity}")
        leave = max(0, len(new) - self._slots.free)
        if leave and self._evict is None:
            raise ValueError(f"keys: the pool is full ({self.capacity} streams), and evict is None: no room for "
                             f"{_names(new)}")
        snapshots = self._loaded(new)
        states = self._read(new, snapshots)
        leaving = self._slots.oldest(leave)     # none of this call: those were used just now
        self._write(leaving)
        if leave:
            self._slots.remove(leaving)
        places = self._slots.next_free(len(new))
        self._members.put(places, states)
        self._changed[places] = False
        self._slots.add(new)
        self.misses += len(new)
        self.evictions += leave
        self.reloads += sum(snapshot is not None for snapshot in snapshots)
        return len(new)

    def _loaded(self, keys: list[Hashable]) -> list[bytes | None]:
        """What the store has of these keys."""
        if self._store is None:
            return [None] * len(keys)
        try:
            return self._store.get_many(keys)
        except TypeError:               # of a key that stores cannot name
            raise
        except Exception as error:
            raise RuntimeError(f"store: reading the states of {_names(keys)} failed: {error}; no row was taken"
                               ) from error

    def _read(self, keys: list[Hashable], snapshots: list[bytes | None]) -> Any:
        """The states of snapshots of the store; ValueError that names the key of an unsuitable one."""
        try:
            return self._members.read(keys, snapshots)
        except ValueError:
            for key, snapshot in zip(keys, snapshots, strict=True):
                try:
                    self._members.read([key], [snapshot])
                except ValueError as error:
                    raise ValueError(f"store: the state of key {key!r} is unsuitable: {error}") from error
            raise

    def _write(self, slots: list[int]) -> None:
        """Let the store have the states of these slots that have changed; RuntimeError, by key, where it fails."""
        if self._store is None:
            return
        changed = [slot for slot in slots if self._changed[slot]]
        if not changed:
            return
        keys = self._slots.keys_of(changed)
        try:
            self._store.put_many(keys, self._members.written(changed))
        except TypeError:
            raise
        except Exception as error:
            raise RuntimeError(f"store: writing the states of {_names(keys)} failed: {error}; the streams stay in the "
                               "pool, and no row was taken") from error

    # ---- What is there ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._slots

    def keys(self) -> list[Any]:
        """List the keys of the streams in the pool.

        Returns
        -------
        list
            The keys, the least recently used first, which is the next to be evicted.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> from fastrnn import scale
        >>> pool = scale.StreamPool(fastrnn.GRU(2, 4, rng=0), capacity=2)
        >>> for key in "aba":
        ...     _ = pool.step([key], np.ones((1, 2), np.float32))
        >>> pool.keys()
        ['b', 'a']
        """
        return self._exclusive.call(self._slots.keys)

    def drop(self, key: Hashable) -> bool:
        """Forget a stream, in the pool and in the store; its key is then an unknown one.

        Parameters
        ----------
        key : hashable
            The stream's key.

        Returns
        -------
        bool
            Whether the stream was in the pool.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> from fastrnn import scale
        >>> pool = scale.StreamPool(fastrnn.GRU(2, 4, rng=0), capacity=2)
        >>> _ = pool.step(["a"], np.ones((1, 2), np.float32))
        >>> pool.drop("a"), pool.drop("a"), len(pool)
        (True, False, 0)
        """
        return self._exclusive.call(self._drop, (key,))

    def _drop(self, key: Hashable) -> bool:
        if self._store is not None:
            self._store.delete(key)
        slot = self._slots.get(key)
        if slot is None:
            return False
        self._slots.remove([slot])
        return True

    # ---- Stores and snapshots --------------------------------------------------------------------

    def flush(self, note: str | None = None) -> None:
        """Let the store have every state that it has not got; the streams stay in the pool.

        Parameters
        ----------
        note : str, optional
            A text that the store keeps in the same transaction, such as how far the input was read. An ``SQLiteStore``
            with ``commit="flush"`` does so.

        Raises
        ------
        ValueError
            The pool has no store, or one that keeps no notes in time with states.
        TypeError
            A note is given, and the store has no transactions.
        RuntimeError
            The store failed; what it has not got is written again by the next flush.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> from fastrnn import scale
        >>> states = {}
        >>> pool = scale.StreamPool(fastrnn.GRU(2, 4, rng=0), capacity=2, store=states)
        >>> _ = pool.step(["a"], np.ones((1, 2), np.float32))
        >>> pool.flush()
        >>> list(states)
        ['a']
        """
        self._exclusive.call(self._flush, (note,))

    def _flush(self, note: str | None) -> None:
        if self._store is None:
            raise ValueError("store: this pool has none; snapshot() gives the states as bytes")
        slots = self._slots.oldest(self.capacity)
        self._write(slots)
        self._store.flush(note)
        self._changed[slots] = False

    def snapshot(self, key: Hashable = _ALL) -> bytes:
        """Write the state of one stream, or of every stream in the pool, to bytes.

        Parameters
        ----------
        key : hashable, optional
            The stream: in the pool, or in the store. If not given, all streams in the pool.

        Returns
        -------
        bytes
            Of one stream the bytes that a solo stream's ``snapshot`` has, with a hash of the model and a checksum. Of
            the pool all of these with their keys, in the order of their last uses.

        Raises
        ------
        KeyError
            There is no such stream.
        TypeError
            All streams are asked for, and a key is of a kind that bytes cannot hold.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> from fastrnn import scale
        >>> layer, x = fastrnn.GRU(2, 4, rng=0), np.ones((2, 2), np.float32)
        >>> pool, other = scale.StreamPool(layer, capacity=9), scale.StreamPool(layer, capacity=9)
        >>> _ = pool.step(["a", "b"], x)
        >>> solo = layer.restore(pool.snapshot("a"))
        >>> other.restore(pool.snapshot())
        >>> bool(np.array_equal(other.step(["a"], x[:1])[0], solo.step(x[0])))
        True
        """
        return self._exclusive.call(self._snapshot, (key,))

    def _snapshot(self, key: Hashable) -> bytes:
        if key is not _ALL:
            slot = self._slots.get(key)
            if slot is not None:
                return self._members.written([slot])[0]
            stored = self._loaded([key])[0]
            if stored is None:
                raise KeyError(key)
            return stored
        slots = self._slots.oldest(self.capacity)
        parts = [_HEADER.pack(_MAGIC, _VERSION, len(slots))]
        for each, state in zip(self._slots.keys_of(slots), self._members.written(slots), strict=True):
            name = encoded(each)
            parts += [_LENGTH.pack(len(name)), name, _LENGTH.pack(len(state)), state]
        data = b"".join(parts)
        return data + struct.pack("<I", zlib.crc32(data))

    def restore(self, snapshot: bytes, key: Hashable = _ALL) -> None:
        """Let one stream, or the whole pool, be as a snapshot has it.

        Parameters
        ----------
        snapshot : bytes
            From ``snapshot`` of a pool of the same model; of one stream also from a solo stream's ``snapshot``.
        key : hashable, optional
            The stream, which is admitted where it is not in the pool. If not given, the snapshot is of a pool: its
            streams replace those that are in this one.

        Raises
        ------
        TypeError, ValueError
            The snapshot is of another model, damaged, or of more streams than the pool has room for; nothing has
            changed then.
        RuntimeError
            The store failed to take the stream that was to make room.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> from fastrnn import scale
        >>> layer, x = fastrnn.GRU(2, 4, rng=0), np.ones((1, 2), np.float32)
        >>> stream, pool = layer.stream(), scale.StreamPool(layer, capacity=9)
        >>> _ = stream.step(x[0])
        >>> pool.restore(stream.snapshot(), "a")
        >>> bool(np.array_equal(pool.step(["a"], x)[0], stream.step(x[0])))
        True
        """
        if not isinstance(snapshot, (bytes, bytearray, memoryview)):
            raise TypeError(f"snapshot: expected bytes, got {type(snapshot).__name__}")
        self._exclusive.call(self._restore, (bytes(snapshot), key))

    def _restore(self, snapshot: bytes, key: Hashable) -> None:
        if key is _ALL:
            keys, states = _opened_snapshot(snapshot)
            self._fill(keys, self._checked_states(keys, states))
            return
        state = self._checked_states([key], [snapshot])
        slot = self._slots.get(key)
        if slot is None:
            slots = np.full(1, -1, np.intp)
            self._admit([key], slots)
            self._slots.look_up([key], slots)
            slot = int(slots[0])
        self._members.put([slot], state)
        self._changed[slot] = True

    def _checked_states(self, keys: list[Hashable], states: list[bytes]) -> Any:
        try:
            return self._members.read(keys, states)
        except ValueError as error:
            raise ValueError(f"snapshot: {error}") from error

    def _fill(self, keys: list[Hashable], states: Any) -> None:
        """Hold these streams and no others."""
        if len(keys) > self.capacity:
            raise ValueError(f"snapshot: {len(keys)} streams, the pool holds {self.capacity}")
        slots = _core.Slots(self.capacity)
        places = slots.next_free(len(keys))
        slots.add(keys)
        members = self._members.empty()
        members.put(places, states)
        vars(self).update(_members=members, _slots=slots, _changed=np.ones(self.capacity, bool))    # all at once

    # ---- Copies ----------------------------------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        if self._store is not None:
            raise TypeError("a pool with a store has no copy and no pickle, as two pools would overwrite each other's "
                            "states: flush it, and make another pool on the store")
        return _copied, (self._model, self.capacity, self._evict, *self._exclusive.call(self._written_streams))

    def _written_streams(self) -> tuple[list[Any], list[bytes]]:
        """The keys of all streams, and their states as bytes."""
        slots = self._slots.oldest(self.capacity)
        return self._slots.keys_of(slots), self._members.written(slots)

    def __repr__(self) -> str:
        return f"<StreamPool of {len(self)} of {self.capacity} streams, {self._model!r}>"


def _copied(model: Any, capacity: int, evict: Literal["lru"] | None, keys: list[Hashable],
            states: list[bytes]) -> StreamPool:
    pool = StreamPool(model, capacity, evict)
    pool._fill(keys, pool._members.read(keys, states))
    return pool


def _listed(keys: Iterable[Hashable]) -> Sequence[Hashable]:
    """Keys as a list or a tuple; the numbers of an array as Python's, which are the same keys."""
    if type(keys) is list or type(keys) is tuple:
        return keys
    if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
        raise TypeError(f"keys: expected a list of keys, got {type(keys).__name__}")
    if isinstance(keys, np.ndarray):
        if keys.ndim != 1:
            raise ValueError(f"keys: expected one dimension, got shape {keys.shape}")
        result: list[Hashable] = keys.tolist()
        return result
    return list(keys)


def _names(keys: Sequence[Hashable]) -> str:
    """The keys for a message, or the first of them."""
    shown = ", ".join(repr(key) for key in keys[:_SHOWN])
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{'key' if len(keys) == 1 else 'keys'} {shown}{more}"


def _opened_snapshot(data: bytes) -> tuple[list[Hashable], list[bytes]]:
    """The keys and the states of a pool's snapshot; ValueError for other bytes."""
    if not data.startswith(_MAGIC) or len(data) < _HEADER.size + 4:
        raise ValueError("snapshot: not one of a pool of fastrnn, or cut short")
    _, version, count = _HEADER.unpack_from(data)
    if version != _VERSION:
        raise ValueError(f"snapshot: version {version}, this fastrnn reads {_VERSION}")
    if zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        raise ValueError("snapshot: damaged (its checksum is wrong)")
    parts, at, end = [], _HEADER.size, len(data) - 4
    while at < end:
        length = _LENGTH.unpack_from(data, at)[0] if at + _LENGTH.size <= end else end
        at += _LENGTH.size
        if length > end - at:
            raise ValueError("snapshot: its lengths do not fit")
        parts.append(data[at:at + length])
        at += length
    keys = [decoded(name) for name in parts[::2]]
    if len(parts) != 2 * count or len(set(keys)) != count:
        raise ValueError("snapshot: its lengths do not fit")
    return keys, parts[1::2]
