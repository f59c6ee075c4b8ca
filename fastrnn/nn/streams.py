"""Streams: a model's weights and its running state, stepped one by one."""

import copy
import struct
import zlib

import numpy as np

from .. import _core
from .._base import validation as check

# Snapshot: header, model hash, h and c as little-endian floats, and a CRC-32 of all before it.
_MAGIC = b"FRNNSNAP"
_VERSION = 1
_HEADER = struct.Struct("<8sHBxIQ")        # magic, version, bytes of a float, layers, batch_size


def fingerprint(model):
    """SHA-256 of a model's configuration and parameters."""
    import hashlib  # here: it loads OpenSSL, which most programs never need
    options = model._options(0)
    digest = hashlib.sha256(repr((model._kind, model.input_size, model.hidden_size, model.num_layers, model.proj_size,
                                  str(model.dtype), *([options] if options else []))).encode())
    for name, value in model.parameters.items():
        digest.update(name.encode())
        digest.update(value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.digest()


class Stream(_core.StreamCore):
    """A running recurrence: the packed weights of a layer as they were at its making, and the state of N rows.

    Made by ``layer.stream(batch_size)``. ``step`` takes one time step and is the library's fastest way: with `out` it
    allocates nothing. The bits are those of one call on the whole sequence.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> layer = fastrnn.GRU(2, 4, rng=0)
    >>> x = np.ones((5, 2), np.float32)
    >>> stream = layer.stream()
    >>> steps = np.stack([stream.step(x_t) for x_t in x])
    >>> bool(np.array_equal(steps, layer(x)[0]))
    True
    """

    def __new__(cls, layer, batch_size=1):
        packed_for_steps = getattr(layer, "_packed_for_steps", None)
        if packed_for_steps is None:
            raise TypeError(f"layer: expected an RNN, LSTM or GRU, got {type(layer).__name__}")
        batch_size = check.size(batch_size, "batch_size")
        packed = packed_for_steps()
        check.addressable("batch_size", batch_size, layer.num_layers, 4 * max(layer.input_size, layer.hidden_size))
        self = super().__new__(cls, packed, batch_size)
        self._model = copy.copy(layer)      # keeps the parameters of now: an update replaces, never writes to them
        return self

    def _convert(self, x):
        x = check.array(x, "x", self._model.dtype)
        shapes = [(self.batch_size, self.input_size)] + [(self.input_size,)] * (self.batch_size == 1)
        if x.shape not in shapes:
            raise ValueError(f"x: expected shape {' or '.join(map(str, shapes))}, got {x.shape}")
        return check.contiguous(x)

    def _check_out(self, out, shape):
        check.output(out, "out", tuple(shape), self._model.dtype)

    def run(self, block, out=None):
        """Many steps in one call.

        Parameters
        ----------
        block : array
            [T, N, I], [N, T, I] of a batch_first layer, or [T, I] when batch_size is 1.
        out : array, optional
            Written in place and returned.

        Returns
        -------
        array
            The last layer's outputs, in the block's convention.
        """
        block = check.array(block, "block", self._model.dtype)
        if block.ndim == 2 and self.batch_size != 1:
            raise ValueError(f"block: expected 3 dimensions, {self.batch_size} rows, got shape {block.shape}")
        if block.ndim == 3 and block.shape[0 if self._model.batch_first else 1] != self.batch_size:
            raise ValueError(f"block: expected {self.batch_size} rows, got shape {block.shape}")
        one_row = block.ndim == 2

        def work():
            state = self._model._state_result(*self._get_state(), one_row)
            output, state = self._model._run(block, state, None, None, out, name="block")[:2]
            self._set_state(*self._model._states(state, self.batch_size, one_row))
            return output

        return self._exclusively(work)

    @property
    def state(self):
        """h [L, N, S], or the pair (h, c) with c [L, N, H] for LSTM: copies. Assigning checks and copies."""
        h, c = self._get_state()
        return h if c is None else (h, c)

    @state.setter
    def state(self, value):
        if value is None:
            raise TypeError("state: expected an array (a pair for an LSTM), got None; reset() zeroes it")
        h, c = self._model._states(value, self.batch_size, False)
        self._exclusively(lambda: self._set_state(h, c))

    def reset(self, rows=None):
        """Zeroes the state of all rows, or of some: an index, indices, or a bool mask [N]."""
        everything = np.arange(self.batch_size)
        if rows is None:
            rows = everything
        else:
            rows = check.as_array(rows, "rows")
            if rows.dtype.kind not in "iub" and rows.size:
                raise TypeError(f"rows: expected ints or a bool mask, got dtype {rows.dtype}")
            try:
                rows = np.atleast_1d(everything[rows if rows.size else rows.astype(np.intp)])
            except (IndexError, OverflowError):
                raise ValueError(f"rows: expected indices below {self.batch_size} or a mask of that length, "
                                 f"got {rows}") from None
        self._exclusively(lambda: self._clear(rows.ravel().tolist()))

    def snapshot(self):
        """The state and what model it belongs to, as bytes for ``layer.restore``."""
        h, c = self._get_state()
        kind = self._model.dtype.newbyteorder("<")
        body = _HEADER.pack(_MAGIC, _VERSION, self._model.dtype.itemsize, self._model.num_layers, self.batch_size)
        body += fingerprint(self._model) + h.astype(kind).tobytes() + (b"" if c is None else c.astype(kind).tobytes())
        return body + struct.pack("<I", zlib.crc32(body))

    @classmethod
    def _restored(cls, layer, snapshot):
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
        h = values[:h_size].reshape(layers, batch_size, -1)
        stream = cls(layer, batch_size)
        stream.state = (h, values[h_size:].reshape(layers, batch_size, -1)) if layer._is_lstm else h
        return stream

    def __reduce__(self):
        return type(self)._restored, (self._model, self.snapshot())

    def __repr__(self):
        return f"<Stream of {self.batch_size} row{'s' * (self.batch_size > 1)}, {self._model!r}>"
