"""The streams of a pool, by slot: how each kind of model begins, steps, writes and reads the states of many streams.

``LayerStreams`` has the states of a layer or a Sequential in one array and steps any of them in one compiled call.
``ObjectStreams`` has an object for each stream of a forecaster or a detector, and steps one after the other.
"""

from __future__ import annotations

import copy
import hashlib
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._base import dispatch
from .._base import validation as check
from ..nn.modules import Sequential
from ..nn.pointwise import Linear, Pointwise
from ..nn.recurrent import Recurrent
from ..nn.streams import _HEADER, _MAGIC, _VERSION, fingerprint

if TYPE_CHECKING:
    from .._base.typing import Array, ArrayLike

_CHAIN_MAGIC = b"FRNNCHAI"      # of a Sequential's stream; a layer's has that of Stream.snapshot


class Members(ABC):
    """The streams of one pool, by slot. A method that raises has changed no stream, unless it says so."""

    @abstractmethod
    def checked(self, x: ArrayLike, count: int, columns: dict[str, Any]) -> Any:
        """What ``step`` takes of the inputs of so many rows; TypeError or ValueError where they are unsuitable."""

    @abstractmethod
    def step(self, slots: Array, inputs: Any, places: Array | None, out: Array) -> None:
        """One step of these streams, none twice: of all rows, or of those at `places` of the inputs and of out."""

    @abstractmethod
    def outputs(self, count: int, out: Array | None) -> Array:
        """The array for the outputs of so many rows: `out`, checked, or a new one."""

    @abstractmethod
    def written(self, slots: Sequence[int]) -> list[bytes]:
        """The snapshot of each of these streams."""

    @abstractmethod
    def read(self, keys: Sequence[Hashable], snapshots: Sequence[bytes | None]) -> Any:
        """The states of streams that begin: from their snapshots, or where there is None at the beginning."""

    @abstractmethod
    def put(self, slots: Sequence[int], states: Any) -> None:
        """Let streams have states from ``read``."""

    @abstractmethod
    def empty(self) -> Members:
        """Members for the same model, without streams."""

    def kept(self, slots: Array) -> Any:
        """What ``undo`` needs to undo steps of these streams; None where steps cannot be undone."""
        return None

    def undo(self, slots: Array, kept: Any) -> None:
        """Bring streams back to where they were when ``kept`` was called."""
        raise NotImplementedError


def _pointwise_step(module: Pointwise) -> Callable[[Array, int], Array]:
    """One step of any rows of a module without a state, by the weights of now."""
    if not isinstance(module, Linear):
        return lambda x, threads: module._apply(x)
    packed, width, dtype = module._packed(), module.out_features, module.dtype
    return lambda x, threads: packed.apply(x, np.empty((len(x), width), dtype), threads)


class LayerStreams(Members):
    """States of a layer or a Sequential, in one array [capacity, 2, width]: see src/core/pools.pxi."""

    def __init__(self, model: Recurrent[Any, Any] | Sequential, capacity: int) -> None:
        model = copy.copy(model)            # keeps the parameters of now
        self._modules = _modules(model)
        self._chain = isinstance(model, Sequential)
        self.dtype = model.dtype
        self._parts: list[tuple[_core.RowSteps, int] | Callable[[Array, int], Array]] = []
        width = 0
        for module in self._modules:
            if isinstance(module, Recurrent):
                steps = _core.RowSteps(module._packed_for_steps(2, module._parameters))
                self._parts.append((steps, width))
                width += steps.width
            else:
                self._parts.append(_pointwise_step(module))
        check.addressable("capacity", capacity, 2, width, itemsize=self.dtype.itemsize)
        self._states: Array = np.zeros((capacity, 2, width), self.dtype)
        self._side = np.zeros(capacity, np.uint8)
        self._prefix = self._make_prefix()

    def _make_prefix(self) -> bytes:
        """What the snapshot of every stream begins with: header and hash of the model."""
        first = self._modules[0]
        if not self._chain:
            return _HEADER.pack(_MAGIC, _VERSION, self.dtype.itemsize, first.num_layers, 1) + fingerprint(first)
        digest = hashlib.sha256()
        for module in self._modules:
            if isinstance(module, Recurrent):
                digest.update(fingerprint(module))
                continue
            digest.update(repr((type(module).__name__, module.precision)).encode())
            for name, value in module.parameters.items():
                digest.update(f"{name}{value.shape}".encode())
                digest.update(value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes())
        return _HEADER.pack(_CHAIN_MAGIC, _VERSION, self.dtype.itemsize, len(self._modules), 1) + digest.digest()

    def checked(self, x: ArrayLike, count: int, columns: dict[str, Any]) -> Array:
        if columns:
            raise TypeError(f"{', '.join(columns)}: a layer has no such columns, expected None")
        first = self._modules[0]
        if isinstance(first, Recurrent):
            a = check.array(x, "x", self.dtype)
            shape: tuple[int, ...] = (count, first.input_size)
        else:
            a = first._input(x)
            shape = (count,) if first.whole_numbers else (count, first.in_features)
        if a.shape != shape:
            raise ValueError(f"x: expected shape {shape}, a row for each key, got {a.shape}")
        return check.contiguous(a)

    def outputs(self, count: int, out: Array | None) -> Array:
        last = self._modules[-1]
        width = last._shape(np.empty((0, last.in_features) if isinstance(last, Linear) else 0, np.intp))[-1] \
            if isinstance(last, Pointwise) else last._state_size
        if out is None:
            return np.empty((count, width), self.dtype)
        return check.output(out, "out", (count, width), self.dtype)

    def step(self, slots: Array, inputs: Any, places: Array | None, out: Array) -> None:
        threads = dispatch.get_num_threads()
        value: Array = inputs if places is None else inputs[places]
        for part in self._parts:
            if isinstance(part, tuple):
                steps, offset = part
                # The last part writes to `out` where that is laid out as the kernels write.
                straight = (part is self._parts[-1] and places is None and out.flags.c_contiguous and out.flags.aligned
                            and not np.may_share_memory(out, value))
                y = out if straight else np.empty((len(slots), steps.output_size), self.dtype)
                steps.step(value, y, self._states, offset, self._side, slots, threads)
                value = y
            else:
                value = part(value, threads)
        _core.turn_sides(self._side, slots)     # all is done: from here on the new states are the streams'
        if places is not None:
            out[places] = value
        elif value is not out:
            out[...] = value

    def _records(self, slots: Sequence[int] | Array) -> Array:
        index = np.asarray(slots, np.intp)
        records: Array = self._states[index, self._side[index]]
        return records

    def kept(self, slots: Array) -> Any:
        return self._records(slots)

    def undo(self, slots: Array, kept: Any) -> None:
        self._states[slots, self._side[slots]] = kept

    def written(self, slots: Sequence[int]) -> list[bytes]:
        prefix = self._prefix
        bodies = [prefix + record.tobytes()
                  for record in self._records(slots).astype(self.dtype.newbyteorder("<"), copy=False)]
        return [body + struct.pack("<I", zlib.crc32(body)) for body in bodies]

    def read(self, keys: Sequence[Hashable], snapshots: Sequence[bytes | None]) -> Array:
        size, width = len(self._prefix), self._states.shape[2]
        length = size + width * self.dtype.itemsize + 4
        states: Array = np.zeros((len(keys), width), self.dtype)
        for n, snapshot in enumerate(snapshots):
            if snapshot is None:
                continue
            if len(snapshot) != length or snapshot[:size] != self._prefix \
                    or zlib.crc32(snapshot[:-4]) != struct.unpack("<I", snapshot[-4:])[0]:
                raise ValueError(self._fault(snapshot))
            states[n] = np.frombuffer(snapshot, self.dtype.newbyteorder("<"), width, size)
        return states

    def _fault(self, snapshot: bytes) -> str:
        """What is wrong with a snapshot that is not one of a stream of this model."""
        if snapshot[:8] != self._prefix[:8]:
            return f"no snapshot of a stream of a {'Sequential' if self._chain else 'layer'}"
        if len(snapshot) < len(self._prefix) + 4 or zlib.crc32(snapshot[:-4]) != struct.unpack("<I", snapshot[-4:])[0]:
            return "damaged (its checksum is wrong), or cut short"
        return "of another model (configuration or weights differ), or of more rows than one"

    def put(self, slots: Sequence[int], states: Any) -> None:
        index = np.asarray(slots, np.intp)
        self._states[index, self._side[index]] = states

    def empty(self) -> LayerStreams:
        twin = copy.copy(self)
        twin._states, twin._side = np.zeros_like(self._states), np.zeros_like(self._side)
        return twin


def _modules(model: Any) -> list[Any]:
    """The modules of a chain in order, those of inner chains included; a layer alone."""
    if not isinstance(model, Sequential):
        return [model]
    return [inner for module in model.modules for inner in _modules(module)]


class ObjectStreams(Members):
    """Streams that are objects of their own, each stepped by itself."""

    def __init__(self, capacity: int) -> None:
        self._objects: list[Any] = [None] * capacity

    @abstractmethod
    def begin(self, key: Hashable) -> Any:
        """A new stream for a key; KeyError where there can be none."""

    @abstractmethod
    def taken(self, key_slot: int, inputs: Any, place: int) -> Any:
        """One step of one stream."""

    def step(self, slots: Array, inputs: Any, places: Array | None, out: Array) -> None:
        for n, slot in enumerate(slots.tolist()):
            place = n if places is None else int(places[n])
            try:
                out[place] = self.taken(slot, inputs, place)
            except Exception as error:
                error.add_note(f"This was row {place} of the call; streams of rows before it have taken theirs.")
                raise

    def written(self, slots: Sequence[int]) -> list[bytes]:
        return [self._objects[slot].snapshot() for slot in slots]

    def read(self, keys: Sequence[Hashable], snapshots: Sequence[bytes | None]) -> list[Any]:
        streams = []
        for key, snapshot in zip(keys, snapshots, strict=True):
            stream = self.begin(key)
            if snapshot is not None:
                stream.restore(snapshot)
            streams.append(stream)
        return streams

    def put(self, slots: Sequence[int], states: Any) -> None:
        for slot, stream in zip(slots, states, strict=True):
            self._objects[slot] = stream

    def empty(self) -> ObjectStreams:
        twin = copy.copy(self)
        twin._objects = [None] * len(self._objects)
        return twin


class ForecastStreams(ObjectStreams):
    """Streams of a forecaster: each key begins at the end of its series, or at the end of the only one."""

    def __init__(self, model: Any, capacity: int) -> None:
        super().__init__(capacity)
        self._forecaster = None
        self._first = model
        if hasattr(model, "panel_"):
            self._first = model.stream(0)
            if len(model.panel_.series) > 1:
                self._forecaster = model
        self._snapshot = self._first.snapshot()

    def begin(self, key: Hashable) -> Any:
        if self._forecaster is not None:
            try:
                return self._forecaster.stream(key)
            except (TypeError, ValueError, KeyError, IndexError) as error:
                raise KeyError(f"keys: the forecaster has no series {key!r} that a stream could go on from") from error
        stream = copy.copy(self._first)
        stream.restore(self._snapshot)      # gives the copy arrays of its own
        return stream

    def checked(self, x: ArrayLike, count: int, columns: dict[str, Any]) -> Any:
        if "times" in columns:
            raise TypeError("times: a stream of forecasts goes on by its own steps, expected None")
        values = _numbers(x, "x")
        if values.shape != (count,):
            raise ValueError(f"x: expected shape ({count},), an observation for each key, got {values.shape}")
        if np.isinf(values).any():
            raise ValueError("x: expected finite numbers, or NaN where an observation is missing")
        rows = {name: _rows_of(column, name, count) for name, column in columns.items()}
        return values.tolist(), rows.get("known", [None] * count), rows.get("past", [None] * count)

    def outputs(self, count: int, out: Array | None) -> Array:
        shape = count, len(self._first.forecast)
        return np.empty(shape) if out is None else check.output(out, "out", shape, np.dtype(np.float64))

    def taken(self, key_slot: int, inputs: Any, place: int) -> Any:
        values, known, past = inputs
        return self._objects[key_slot].step(values[place], known[place], past[place])


class DetectorStreams(ObjectStreams):
    """Streams of a detector: each key begins as the detector is now; a row is scored, then learnt."""

    def __init__(self, model: Any, capacity: int) -> None:
        super().__init__(capacity)
        self._first = copy.deepcopy(model)
        self._snapshot: bytes | None = None
        if self._first._state is None and not isinstance(model.random_state, (int, np.integer)):
            raise ValueError("model: expected a detector that was fitted, or one with an int for random_state, so that "
                             "all streams have the same network")
        if self._first._state is not None:
            self._snapshot = self._first.snapshot()

    def checked(self, x: ArrayLike, count: int, columns: dict[str, Any]) -> Any:
        if "known" in columns or "past" in columns:
            raise TypeError("known, past: a detector reads x alone, expected None")
        rows = _numbers(x, "x")
        if rows.ndim not in (1, 2) or len(rows) != count:
            raise ValueError(f"x: expected [{count}, channels], a row for each key, got shape {rows.shape}")
        rows = rows.reshape(count, -1) if count else rows.reshape(0, 1 if rows.ndim == 1 else rows.shape[1])
        if np.isinf(rows).any():
            raise ValueError("x: expected finite numbers, or NaN where a value is missing")
        times = _rows_of(columns["times"], "times", count) if "times" in columns else [None] * count
        if self._snapshot is None and count:    # the first rows say how many channels there are
            from ..anomaly.clock import moments_of
            begun = type(self._first)(**self._first.get_params())
            moments = moments_of(times, "times") if "times" in columns and begun.time_features else None
            begun._begin(rows.shape[1], None, times=moments)
            self._first, self._snapshot = begun, begun.snapshot()
        if count and rows.shape[1] != self._first.n_features_in_:
            raise ValueError(f"x: expected {self._first.n_features_in_} channels, got {rows.shape[1]}")
        return rows.tolist(), times

    def begin(self, key: Hashable) -> Any:
        if self._snapshot is None:
            raise ValueError("snapshot: this pool's detector has learnt no row yet and has no network")
        detector = copy.copy(self._first)
        detector.restore(self._snapshot)    # gives the copy a state of its own
        return detector

    def outputs(self, count: int, out: Array | None) -> Array:
        return np.empty(count) if out is None else check.output(out, "out", (count,), np.dtype(np.float64))

    def taken(self, key_slot: int, inputs: Any, place: int) -> Any:
        rows, times = inputs
        detector = self._objects[key_slot]
        score = detector.score_one(rows[place], times[place])
        detector.learn_one(rows[place], times[place])
        return score


def _numbers(x: ArrayLike, name: str) -> Any:
    """Numbers as float64; None counts as NaN."""
    a = check.as_array(x, name)
    if a.dtype == object:
        a = np.array([[np.nan if each is None else each for each in row] if isinstance(row, (list, tuple)) else
                      np.nan if row is None else row for row in a.tolist()])
    if a.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected numbers, got dtype {a.dtype}")
    return a.astype(np.float64)


def _rows_of(column: Any, name: str, count: int) -> Sequence[Any]:
    if not hasattr(column, "__len__") or len(column) != count:
        raise ValueError(f"{name}: expected {count}, one for each key")
    return column       # type: ignore[no-any-return]


def members_of(model: Any, capacity: int) -> Members:
    """The streams of a model: a layer, a Sequential, a forecaster, its stream, or a detector."""
    if isinstance(model, (Recurrent, Sequential)):
        return LayerStreams(model, capacity)
    from ..anomaly.online import OnlineDetector  # here: a pool of a layer needs neither
    from ..forecasting.forecaster import RNNForecaster
    from ..forecasting.stream import ForecastStream
    if isinstance(model, (RNNForecaster, ForecastStream)):
        return ForecastStreams(model, capacity)
    if isinstance(model, OnlineDetector):
        return DetectorStreams(model, capacity)
    raise TypeError("model: expected a recurrent layer, a Sequential, a forecaster, a ForecastStream or a detector, "
                    f"got {type(model).__name__}")
