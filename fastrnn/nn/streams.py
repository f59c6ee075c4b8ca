"""Streams: a model's weights and its running state, advanced step by step."""

from __future__ import annotations

import copy
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, cast

import numpy as np

from .. import _core
from .._base import dispatch, trees
from .._base import validation as check
from .._base.typing import Array, ArrayLike
from .base import StateLikeT, StateT

if TYPE_CHECKING:
    from .modules import Sequential
    from .recurrent import Recurrent

# Snapshot: header, model hash, h and c as little-endian floats, and a CRC-32 of all before it.
_MAGIC = b"FRNNSNAP"
_VERSION = 1
_HEADER = struct.Struct("<8sHBxIQ")        # magic, version, bytes of a float, layers, batch_size


def fingerprint(model: Recurrent[Any, Any]) -> bytes:
    """SHA-256 of a model's configuration and parameters."""
    import hashlib  # here: it loads OpenSSL, which most programs never need
    options = model._options(0)
    digest = hashlib.sha256(repr((model._kind, model.input_size, model.hidden_size, model.num_layers, model.proj_size,
                                  model.precision, *([options] if options else []))).encode())
    for name, value in model.parameters.items():
        digest.update(name.encode())
        digest.update(value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.digest()


class Caller(_core.StreamCore):
    """The compiled part of a layer's short calls: a stream whose state is set before every block."""

    def _threads(self) -> int:
        return dispatch.get_num_threads()


class Stream(_core.StreamCore, Generic[StateT, StateLikeT]):
    """A recurrence that runs step by step: the weights of a layer and the state of N rows.

    Made by ``layer.stream(batch_size)``. ``step`` takes one time step and is the library's fastest way; with `out` it
    allocates nothing. The outputs are, bit for bit, those of one call on the whole sequence.

    A stream keeps the weights that the layer had when the stream was made: parameters that are loaded or trained later
    do not reach it. Make a new stream for those, and carry the state over by ``state``.

    Parameters
    ----------
    layer : RNN, LSTM or GRU
        The layer, which walks forward alone.
    batch_size : int, default 1
        Number of rows N, each with a state of its own.

    Examples
    --------
    >>> import fastrnn
    >>> import numpy as np
    >>> layer = fastrnn.GRU(2, 4, rng=0)
    >>> x = np.ones((5, 2), np.float32)
    >>> stream = layer.stream()
    >>> steps = np.stack([stream.step(x_t) for x_t in x])
    >>> bool(np.array_equal(steps, layer(x)[0]))
    True
    """

    _model: Recurrent[StateT, StateLikeT]

    def __new__(cls, layer: Recurrent[StateT, StateLikeT], batch_size: int = 1) -> Stream[StateT, StateLikeT]:
        packed_for_steps = getattr(layer, "_packed_for_steps", None)
        if packed_for_steps is None or isinstance(layer, type):
            raise TypeError(f"layer: expected an RNN, LSTM or GRU, got {type(layer).__name__}")
        batch_size = check.size(batch_size, "batch_size")
        model = copy.copy(layer)            # keeps the parameters of now: an update replaces, never writes to them
        packed = packed_for_steps(batch_size, model._parameters)
        check.addressable("batch_size", batch_size, layer.num_layers, 4 * max(layer.input_size, layer.hidden_size))
        self = cast("Stream[StateT, StateLikeT]", super().__new__(cls, packed, batch_size, layer.batch_first))
        self._model = model
        return self

    def _convert(self, x: ArrayLike) -> Array:
        x = check.array(x, "x", self._model.dtype)
        shapes = [(self.batch_size, self.input_size)] + [(self.input_size,)] * (self.batch_size == 1)
        if x.shape not in shapes:
            raise ValueError(f"x: expected shape {' or '.join(map(str, shapes))}, got {x.shape}")
        return check.contiguous(x)

    def _check_out(self, out: Array, shape: list[int]) -> None:
        check.output(out, "out", tuple(shape), self._model.dtype)

    def _threads(self) -> int:
        return dispatch.get_num_threads()

    def _run_any(self, block: ArrayLike, out: Array | None) -> Array:
        block = check.array(block, "block", self._model.dtype)
        if block.ndim == 2 and self.batch_size != 1:
            raise ValueError(f"block: expected 3 dimensions, {self.batch_size} rows, got shape {block.shape}")
        if block.ndim == 3 and block.shape[0 if self._model.batch_first else 1] != self.batch_size:
            raise ValueError(f"block: expected {self.batch_size} rows, got shape {block.shape}")
        one_row = block.ndim == 2

        def work() -> Array:
            state = self._model._state_result(*self._get_state(), one_row)
            output, state = self._model._run(block, state, None, None, out, name="block")[:2]
            self._set_state(*self._model._states(state, self.batch_size, one_row))
            return output

        result: Array = self._exclusively(work)
        return result

    @property
    def state(self) -> StateT:
        """The state h [L, N, S], for an LSTM the pair (h, c) with c [L, N, H]: copies.

        Assigning checks the arrays and copies them.
        """
        h, c = self._get_state()
        return cast(StateT, h if c is None else (h, c))

    @state.setter
    def state(self, value: StateLikeT) -> None:
        h, c = self._checked(value)
        self._exclusively(lambda: self._set_state(h, c))

    def _checked(self, value: StateLikeT) -> tuple[Array, Array | None]:
        if value is None:
            raise TypeError("state: expected an array (a pair for an LSTM), got None; reset() zeroes it")
        return self._model._states(value, self.batch_size, False)

    def reset(self, rows: ArrayLike | None = None) -> None:
        """Zero the state of all rows, or of some.

        Parameters
        ----------
        rows : int, array of int, or array of bool [N], optional
            Index, indices or mask of the rows; all if not given.

        Raises
        ------
        TypeError, ValueError
            The argument is no index, indices or mask of rows.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> stream = fastrnn.GRU(2, 4, rng=0).stream(batch_size=3)
        >>> _ = stream.step(np.ones((3, 2), np.float32))
        >>> stream.reset([0, 2])
        >>> stream.state.any(axis=(0, 2)).tolist()
        [False, True, False]
        """
        chosen = _chosen(rows, self.batch_size)
        self._exclusively(lambda: self._clear(chosen))

    def snapshot(self) -> bytes:
        """Write the state and a hash of the model to bytes, for ``layer.restore``.

        Returns
        -------
        bytes
            The snapshot: a magic number, a version, the dtype, the model's SHA-256, the state, and a checksum.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> layer, x = fastrnn.GRU(2, 4, rng=0), np.ones(2, np.float32)
        >>> stream = layer.stream()
        >>> _ = stream.step(x)
        >>> again = layer.restore(stream.snapshot())
        >>> bool(np.array_equal(again.step(x), stream.step(x)))
        True
        """
        h, c = self._get_state()
        dtype = self._model.dtype.newbyteorder("<")
        body = _HEADER.pack(_MAGIC, _VERSION, self._model.dtype.itemsize, self._model.num_layers, self.batch_size)
        body += fingerprint(self._model) + h.astype(dtype).tobytes()
        body += b"" if c is None else c.astype(dtype).tobytes()
        return body + struct.pack("<I", zlib.crc32(body))

    @classmethod
    def _restored(cls, layer: Recurrent[StateT, StateLikeT], snapshot: bytes) -> Stream[StateT, StateLikeT]:
        """The stream that `snapshot` was written of; ValueError if it is of another model, or damaged."""
        if not isinstance(snapshot, (bytes, bytearray, memoryview)):
            raise TypeError(f"snapshot: expected bytes, got {type(snapshot).__name__}")
        data = bytes(snapshot)
        if not data.startswith(_MAGIC) or len(data) < _HEADER.size + 36:
            raise ValueError("snapshot: not one of fastrnn's, or cut short")
        _, version, itemsize, layers, batch_size = _HEADER.unpack_from(data)
        if version != _VERSION:
            raise ValueError(f"snapshot: version {version}, this fastrnn reads {_VERSION}")
        if zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
            raise ValueError("snapshot: damaged (its checksum is wrong)")
        if itemsize != layer.dtype.itemsize:
            raise ValueError(f"snapshot: of a float{8 * itemsize} model, this one is {layer.dtype}")
        if data[_HEADER.size:_HEADER.size + 32] != fingerprint(layer):
            raise ValueError("snapshot: of another model (configuration or weights differ)")
        if layers != layer.num_layers or not batch_size:
            raise ValueError(f"snapshot: of {layers} layers and {batch_size} rows, which this model cannot have")
        h_size = layers * batch_size * layer._state_size
        c_size = layers * batch_size * layer.hidden_size * layer._is_lstm
        if len(data) != _HEADER.size + 36 + (h_size + c_size) * itemsize:
            raise ValueError("snapshot: its length does not fit its header")
        values = np.frombuffer(data[_HEADER.size + 32:-4], layer.dtype.newbyteorder("<")).astype(layer.dtype)
        h, c = (part.reshape(layers, batch_size, -1) for part in (values[:h_size], values[h_size:]))
        stream = cls(layer, batch_size)
        stream.state = cast(StateLikeT, (h, c) if layer._is_lstm else h)
        return stream

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._restored, (self._model, self.snapshot())

    def __repr__(self) -> str:
        return f"<Stream of {self.batch_size} row{'s' * (self.batch_size > 1)}, {self._model!r}>"


def _chosen(rows: ArrayLike | None, batch_size: int) -> list[int]:
    """The indices of rows that `reset` is given; all of them for None."""
    every_row = np.arange(batch_size)
    if rows is None:
        return every_row.tolist()
    index = check.as_array(rows, "rows")
    if index.dtype.kind not in "iub" and index.size:
        raise TypeError(f"rows: expected ints or a bool mask, got dtype {index.dtype}")
    try:
        chosen = np.atleast_1d(every_row[index if index.size else index.astype(np.intp)])
    except (IndexError, OverflowError):
        raise ValueError(f"rows: expected indices below {batch_size} or a mask of that length, got {index}") from None
    result: list[int] = chosen.ravel().tolist()
    return result


class SequentialStream:
    """A Sequential that runs step by step: its weights and the states of N rows.

    Made by ``model.stream(batch_size)`` and stepped like a layer's stream. It keeps the weights that the model had when
    the stream was made. A step that is interrupted leaves the states of all layers as they were.

    Parameters
    ----------
    model : Sequential
        The model, whose recurrent layers walk forward alone.
    batch_size : int, default 1
        Number of rows N, each with states of its own.

    Examples
    --------
    >>> import fastrnn
    >>> import numpy as np
    >>> model = fastrnn.Sequential(fastrnn.GRU(2, 4, rng=0), fastrnn.Linear(4, 1, rng=1))
    >>> stream = model.stream()
    >>> stream.step(np.ones(2, np.float32)).shape
    (1,)
    """

    def __init__(self, model: Sequential, batch_size: int = 1) -> None:
        self.batch_size = check.size(batch_size, "batch_size")
        self._model = copy.copy(model)
        self._parts = [module._stream_part(batch_size) for module in self._model.modules]
        self._chain = _core.Chain(list(self._leaves()))
        # Linear and Embedding leave the check of x to this class; streams of layers do their own.
        first: Any = model
        while hasattr(first, "modules"):
            first = first.modules[0]
        self._first = first if hasattr(first, "whole_numbers") else None

    def _leaves(self) -> Iterator[Any]:
        """The parts in order; of a Sequential within this one its own."""
        for part in self._parts:
            if isinstance(part, SequentialStream):
                yield from part._leaves()
            else:
                yield part

    def step(self, x: ArrayLike, out: Array | None = None) -> Array:
        """Advance every row by one step.

        Parameters
        ----------
        x : array
            The input of one step: [N, I], or [I] when batch_size is 1. Of whole numbers [N], or one alone.
        out : array, optional
            Shaped as the output; written in place and returned.

        Returns
        -------
        array
            The last module's output.

        Raises
        ------
        TypeError, ValueError
            An argument is unsuitable; the message names it.
        RuntimeError
            Another thread is in a step of this stream.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> model = fastrnn.Sequential(fastrnn.Embedding(9, 2, rng=0), fastrnn.GRU(2, 4, rng=0))
        >>> model.stream().step(3).shape
        (4,)
        """
        value: Any = x          # from here on the array that the next module reads
        if self._first is not None:
            value = self._first._input(x)
            leading = value.shape if self._first.whole_numbers else value.shape[:-1]
            if leading != (self.batch_size,) and (leading or self.batch_size != 1):
                raise ValueError(f"x: expected {self.batch_size} rows, got shape {value.shape}")
        output = self._chain.step(value)
        if out is None:
            return output
        check.output(out, "out", output.shape, output.dtype)[...] = output
        return out

    def run(self, block: ArrayLike) -> Array:
        """Advance every row by many steps in one call.

        Parameters
        ----------
        block : array
            The steps, in the model's convention: [T, N, I], [N, T, I] with ``batch_first``, or [T, I] when batch_size
            is 1. Of whole numbers without the last axis.

        Returns
        -------
        array
            The last module's output after each step.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> model = fastrnn.Sequential(fastrnn.GRU(2, 4, rng=0), fastrnn.Linear(4, 1, rng=1))
        >>> model.stream().run(np.ones((10, 2), np.float32)).shape
        (10, 1)
        """
        return self._chain.run(block)

    @property
    def state(self) -> tuple[Any, ...]:
        """Tuple with each module's state, None where it has none: copies. Assigning checks and copies."""
        return tuple(part.state for part in self._parts)

    @state.setter
    def state(self, value: Sequence[Any]) -> None:
        self._chain.set_states(list(self._checked(value)))

    def _checked(self, value: Sequence[Any]) -> Iterator[tuple[Array, Array | None]]:
        """The states of all layers in order."""
        for part, part_state in zip(self._parts, check.states(value, "state", len(self._parts))):
            if isinstance(part, SequentialStream):
                yield from part._checked(part_state)
            elif isinstance(part, Stream):
                yield part._checked(part_state)

    def reset(self, rows: ArrayLike | None = None) -> None:
        """Zero the state of all rows, or of some.

        Parameters
        ----------
        rows : int, array of int, or array of bool [N], optional
            Index, indices or mask of the rows; all if not given.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> stream = fastrnn.Sequential(fastrnn.GRU(2, 4, rng=0), fastrnn.Linear(4, 1, rng=1)).stream()
        >>> _ = stream.step(np.ones(2, np.float32))
        >>> stream.reset()
        >>> bool(stream.state[0].any())
        False
        """
        self._chain.clear(_chosen(rows, self.batch_size))

    @classmethod
    def _restored(cls, model: Sequential, batch_size: int, state: tuple[Any, ...]) -> SequentialStream:
        stream = cls(model, batch_size)
        stream.state = state
        return stream

    def __reduce__(self) -> tuple[Any, ...]:
        return self._restored, (self._model, self.batch_size, self.state)

    def __repr__(self) -> str:
        return f"<Stream of {self.batch_size} row{'s' * (self.batch_size > 1)}, {self._model!r}>"


# ---- Streams in the state of estimators -------------------------------------------------------------

def _made(parts: Any) -> Stream[Any, Any]:
    layer, state = parts
    rows = np.shape(state[0] if isinstance(state, tuple) else state)[1:2]       # checked before anything is allocated
    if not hasattr(layer, "stream") or not rows or not rows[0]:
        raise ValueError("stream: expected a layer and a state [L, N, S]")
    stream: Stream[Any, Any] = Stream(layer, rows[0])
    stream.state = state
    return stream


trees.add_kind("stream", lambda value: type(value) is Stream, lambda value: [value._model, value.state], _made)
