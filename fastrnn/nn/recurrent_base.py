"""What RNN, LSTM and GRU share: stacks of layers over whole sequences, forward and backward.

A call reads in one direction: check the arguments (``_base.validation``), pack the parameters (``Packed._packed``, once
for each version of them), run the kernel (``_core.forward_layer``, layer by layer), shape the result. The classes
themselves, with their equations and options, are in ``recurrent``.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, cast, overload

import numpy as np

from .. import _core
from .._base import dispatch
from .._base import validation as check
from .._base.typing import Activation, Array, ArrayLike, DTypeLike, FloatDType, Parameters, Rng, TrainingPrecision
from . import parameters
from .base import Gradients, Packed, StateLikeT, StateT
from .quantized import Quantizable, product_precision, scales_of, widened
from .streams import Caller, Stream

if TYPE_CHECKING:
    from typing_extensions import CapsuleType

_QUICK_STATE = 65536        # elements of a state above which a call's fixed cost is nothing beside its work
Pack = list[list[_core.Parameters]]     # [layer][direction]


class Cache:
    """What ``forward`` keeps for ``backward``: activations, and the parameters they were computed with."""

    __slots__ = ("model", "saved", "dropped", "unbatched", "shape", "layers")

    def __init__(self, model: Recurrent[Any, Any], saved: list[Any], dropped: list[Array], unbatched: bool,
                 shape: tuple[int, int], layers: Pack) -> None:
        self.model, self.saved, self.dropped = model, saved, dropped
        self.unbatched, self.shape, self.layers = unbatched, shape, layers


class Recurrent(Quantizable, Packed[Pack], Generic[StateT, StateLikeT]):
    """A stack of recurrent layers: the base of RNN, LSTM and GRU, which document the options.

    Dimensions: T steps, N rows, I input_size, H hidden_size, S size of a state (H, or proj_size), L num_layers,
    D directions (1 or 2).
    """

    _caches = "_pack", "_rounded_pack", "_fingerprint", "_quick"
    # (parameters, instruction set, rows, caller) of the last call that the general way was too long for.
    _quick: tuple[Parameters, str, int, Caller] | None = None
    dtype: FloatDType
    _is_lstm = False
    # Options that not every class has.
    peephole = coupled_gates = False
    update = "torch"

    if TYPE_CHECKING:
        @property
        def _kind(self) -> str: ...     # of the kernels: "rnn_tanh", "rnn_relu", "gru", "gru_before" or "lstm"

    def __init__(self, input_size: int, hidden_size: int, num_layers: int, bias: bool, batch_first: bool,
                 dropout: float, bidirectional: bool, reverse: bool, proj_size: int,
                 activations: Sequence[Activation] | None, clip: float | None, dtype: DTypeLike, rng: Rng) -> None:
        self.input_size = check.size(input_size, "input_size")
        self.hidden_size = check.size(hidden_size, "hidden_size")
        self.num_layers = check.size(num_layers, "num_layers")
        self.bias = check.flag(bias, "bias")
        self.batch_first = check.flag(batch_first, "batch_first")
        self.dropout = check.probability(dropout, "dropout")
        self.bidirectional = check.flag(bidirectional, "bidirectional")
        self.reverse = check.flag(reverse, "reverse")
        if self.reverse and self.bidirectional:
            raise ValueError("reverse: a bidirectional layer walks both ways already")
        self.activations = parameters.activations(activations, self._kind, self._directions)
        self.clip = check.clip(clip)
        self.proj_size = check.size(proj_size, "proj_size", least=0)
        self.dtype = check.model_dtype(dtype)
        if self.proj_size and not self._is_lstm:
            raise ValueError(f"proj_size: only an LSTM has a projection, got {proj_size}")
        if self.proj_size >= self.hidden_size:
            raise ValueError(f"proj_size: expected less than hidden_size {hidden_size}, got {proj_size}")
        gates = parameters.GATES[self._kind]
        check.addressable("num_layers", self.num_layers, self._directions, gates, itemsize=self.dtype.itemsize)
        if self.dropout and self.num_layers == 1:
            warnings.warn("dropout acts between layers: with num_layers=1 it has no effect", UserWarning, stacklevel=3)
        generator = rng if rng is parameters.UNDRAWN else check.generator(rng)
        shapes = parameters.stacked_shapes(gates, self.input_size, self.hidden_size,
                                           self.num_layers, self._directions, self.bias, self.proj_size,
                                           self.peephole)
        self._parameters = parameters.initialise(shapes, self.hidden_size, self.dtype, generator)

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def _state_size(self) -> int:
        return self.proj_size or self.hidden_size

    def _options(self, direction: int) -> tuple[Any, ...] | None:
        """The options of one direction as _core.Parameters takes them: None for a plain cell."""
        if self.activations is None and self.clip is None and not (self.peephole or self.coupled_gates) \
                and self.update == "torch":
            return None
        plain = parameters.PLAIN[self._kind]
        used = self.activations or [(name, *parameters.ACTIVATIONS[name]) for name in plain]
        first = direction * len(plain) if len(used) > len(plain) else 0
        return (tuple((name, alpha or 0.0, beta or 0.0) for name, alpha, beta in used[first:first + len(plain)]),
                np.inf if self.clip is None else self.clip, self.coupled_gates, self.update == "mirror")

    def _make_pack(self, values: Parameters, table: CapsuleType | None = None) -> Pack:
        precision = product_precision(self._precision)
        if table is None:
            table = dispatch.layer_table(self.dtype, self.hidden_size, precision)
        if precision is None and self._precision is not None:
            values = {name: widened(value, self._precision) for name, value in values.items()}

        def packed(layer: int, direction: int) -> _core.Parameters:
            suffix = parameters.layer_suffix(layer, direction)
            weight_ih, weight_hh, *others = (values.get(name + suffix) for name in parameters.NAMES)
            bias_ih, bias_hh, weight_hr, peephole = others
            scales: Any = None
            if precision is not None:
                scales = tuple(scales_of(values, name + suffix) for name in ("weight_ih", "weight_hh", "weight_hr"))
            return _core.Parameters(table, self._kind, cast(Array, weight_ih), cast(Array, weight_hh), bias_ih,
                                    bias_hh, weight_hr, peephole, self._options(direction), scales)

        return [[packed(layer, direction) for direction in range(self._directions)]
                for layer in range(self.num_layers)]

    def _make_rounded_pack(self, values: Parameters) -> Pack:
        return self._make_pack(values, dispatch.layer_table(self.dtype, self.hidden_size, "training in bfloat16"))

    def __repr__(self) -> str:
        options = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False,
                   "reverse": False, "proj_size": 0, "nonlinearity": "tanh", "reset_after": True, "update": "torch",
                   "peephole": False, "coupled_gates": False, "activations": None, "clip": None,
                   "dtype": np.dtype(np.float32), "precision": self.dtype.name}
        shown = "".join(f", {name}={getattr(self, name)!s}" for name, default in options.items()
                        if getattr(self, name, default) != default)
        return f"{type(self).__name__}({self.input_size}, {self.hidden_size}{shown})"

    # ---- Forward ---------------------------------------------------------------------------------

    def __call__(self, x: ArrayLike, state: StateLikeT | None = None, *, lengths: ArrayLike | None = None,
                 reset_mask: ArrayLike | None = None, out: Array | None = None) -> tuple[Array, StateT]:
        """Run the layers over sequences; nothing is kept for ``backward``.

        Parameters
        ----------
        x : array
            The input [T, N, I], [N, T, I] with ``batch_first``, or unbatched [T, I]. It has the model's dtype, or one
            that converts up to it; Python lists take the model's dtype.
        state : array, optional
            The initial state h_0 [L*D, N, H] (unbatched [L*D, H]); zeros if not given.
        lengths : array of int [N], optional
            Valid steps of each row, 0 to T, in any order. Later outputs are exactly 0 and cost nothing; h_n is the
            state after the last valid step.
        reset_mask : array of bool [T, N], optional
            Where set, the state of row n is zeroed before step t.
        out : array, optional
            Written in place and returned as output.

        Returns
        -------
        output : array
            The last layer's state after each step, [T, N, D*H] in x's convention.
        state : array
            The state h_n after the last step, shaped as the initial state.

        Raises
        ------
        TypeError, ValueError
            An argument is unsuitable; the message names it and says what was expected.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> layer = fastrnn.GRU(3, 5, rng=0)
        >>> output, h_n = layer(np.ones((7, 2, 3), np.float32), lengths=[7, 4])
        >>> output.shape, bool((output[4:, 1] == 0).all()), bool((h_n[0, 1] == output[3, 1]).all())
        ((7, 2, 5), True, True)
        """
        if lengths is None and reset_mask is None and type(x) is np.ndarray:
            result = self._quick_call(x, state, out)
            if result is not None:
                return result
        return self._run(x, state, lengths, reset_mask, out)[:2]

    def _quick_call(self, x: Array, state: StateLikeT | None, out: Array | None) -> tuple[Array, StateT] | None:
        """A call by a stream of the layer's own, which spares a short block most of a call's fixed cost.

        None where the general way is due: for two directions and reversed ones, for arrays that are not laid out as the
        kernels take them, for work that threads would share, and while another thread is in such a call.
        """
        quick: Any = self._quick
        if quick is not None and quick[0] is self._parameters and quick[1] == dispatch.active_isa():
            result: tuple[Array, StateT] | None = quick[3]._call(x, state, out)     # None for any other number of rows
            if result is not None:
                return result
        else:
            quick = None
        if x.ndim not in (2, 3):
            return None
        rows = 1 if x.ndim == 2 else x.shape[0 if self.batch_first else 1]
        if (quick is not None and quick[2] == rows) or self.bidirectional or self.reverse \
                or not 0 < rows * self.num_layers * self.hidden_size <= _QUICK_STATE:
            return None
        values = self._parameters           # once, since another thread may replace them
        caller: Any = Caller(self._packed_for_steps(rows, values), rows, self.batch_first)
        self._quick = values, dispatch.active_isa(), rows, caller
        return caller._call(x, state, out)      # type: ignore[no-any-return]   # as above

    def forward(self, x: ArrayLike, state: StateLikeT | None = None, lengths: ArrayLike | None = None,
                reset_mask: ArrayLike | None = None, rng: Rng = None, *,
                precision: TrainingPrecision | None = None) -> tuple[Array, StateT, Cache]:
        """Run the layers over sequences and keep what ``backward`` needs; dropout acts here.

        Parameters
        ----------
        x : array
            The input, as in ``__call__``. The cache holds a copy: the caller may overwrite it.
        state : array, or pair of arrays for an LSTM, optional
            The initial state, as in ``__call__``.
        lengths : array of int [N], optional
            Valid steps of each row.
        reset_mask : array of bool [T, N], optional
            Where set, the state of row n is zeroed before step t.
        rng : numpy.random.Generator, int or None, default None
            Random generator, or its seed, of the dropout masks.
        precision : {"float32", "float64", "bfloat16"}, optional
            That of the products, here and in ``backward``; the model's dtype if not given. With "bfloat16", for models
            of float32, the factors of each product are rounded to bfloat16, weights among them; parameters, states,
            sums and gradients stay float32.

        Returns
        -------
        output : array
            The output, without dropout and in the model's own precision bit for bit that of ``__call__``.
        state : array, or pair of arrays for an LSTM
            The last state, as in ``__call__``.
        cache : Cache
            For ``backward``, which may be called with it any number of times.

        Raises
        ------
        TypeError, ValueError
            An argument is unsuitable; the message names it and says what was expected.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> layer = fastrnn.LSTM(3, 5, rng=0)
        >>> output, (h_n, c_n), cache = layer.forward(np.ones((7, 2, 3), np.float32))
        >>> layer.backward(cache, np.ones_like(output)).input.shape
        (7, 2, 3)
        """
        self._needs_gradients()
        generator = check.generator(rng) if self.dropout else None
        output, last, _, cache = self._run(x, state, lengths, reset_mask, None, keep=True, rng=generator,
                                           precision=check.training_precision(precision, self.dtype))
        return output, last, cache

    def _states(self, state: Any, N: int, unbatched: bool, name: str = "state",
                names: tuple[str, str] = ("h_0", "c_0")) -> tuple[Array, Array | None]:
        """The pair (h, c) as contiguous [L*D, N, ...]; c is None unless this is an LSTM."""
        layers = self.num_layers * self._directions
        h, c = check.pair(state, name) if self._is_lstm and state is not None else (state, None)
        if state is not None and self._is_lstm and (h is None or c is None):
            raise TypeError(f"{name}: expected a pair of arrays, got None in it")
        h = check.one_state(h, f"{name} {names[0]}" if self._is_lstm else name, layers, N, self._state_size,
                            self.dtype, unbatched)
        if self._is_lstm:
            c = check.one_state(c, f"{name} {names[1]}", layers, N, self.hidden_size, self.dtype, unbatched)
        return h, c

    def _state_result(self, h: Array, c: Array | None, unbatched: bool) -> StateT:
        """The state as the caller has it: h, or for an LSTM the pair; without the axis of rows if unbatched."""
        result: Any
        if unbatched:
            result = h[:, 0] if c is None else (h[:, 0], c[:, 0])
        else:
            result = h if c is None else (h, c)
        return result       # type: ignore[no-any-return]   # which of the two StateT is follows from the class

    def _external(self, shape: tuple[int, int, int], unbatched: bool) -> tuple[int, ...]:
        """The shape [T, N, width] in the caller's convention."""
        T, N, width = shape
        return (T, width) if unbatched else (N, T, width) if self.batch_first else shape

    def _external_view(self, a: Array, unbatched: bool) -> Array:
        """An array [T, N, width] as a view in the caller's convention."""
        return a[:, 0] if unbatched else a.swapaxes(0, 1) if self.batch_first else a

    def _internal(self, a: Array, unbatched: bool) -> Array:
        """An array in the caller's convention as a view [T, N, width]."""
        return a[:, None] if unbatched else a.swapaxes(0, 1) if self.batch_first else a

    def _run(self, x: ArrayLike, state: Any, lengths: ArrayLike | None, reset_mask: ArrayLike | None,
             out: Array | None, return_cell_states: bool = False, keep: bool = False,
             rng: np.random.Generator | None = None, name: str = "x",
             precision: str | None = None) -> tuple[Array, StateT, Any, Any]:
        """(output, last state, cell states of all steps or None, cache or None): what every way to call runs."""
        x, unbatched = check.sequence(x, self.input_size, self.dtype, self.batch_first, name)
        T, N, _ = x.shape
        D, S, H = self._directions, self._state_size, self.hidden_size
        check.addressable(name, T, N, max(D * S, self.input_size, 4 * H if keep else H),
                          itemsize=self.dtype.itemsize)
        h_0, c_0 = self._states(state, N, unbatched)
        falling, order = check.row_lengths(lengths, T, N)
        mask = check.mask(reset_mask, T, N, unbatched)
        shape = self._external((T, N, D * S), unbatched)
        output = np.empty(shape, self.dtype) if out is None else check.output(out, "out", shape, self.dtype)
        target = self._internal(output, unbatched)
        if out is not None and not check.writable_in_place(target, x, mask, *(() if state is None else (h_0, c_0))):
            target = np.empty((T, N, D * S), self.dtype)
        cells = np.empty(self._external((T, N, D * H), unbatched), self.dtype) if return_cell_states else None

        batch = _core.Batch(T, N, falling, order)
        packed, threads = self._packed(precision), dispatch.get_num_threads()
        h_n, c_n = np.empty_like(h_0), None if c_0 is None else np.empty_like(c_0)
        saved, dropped, layer_input = [], [], x
        for layer, directions in enumerate(packed):
            last = layer == self.num_layers - 1
            at = slice(layer * D, (layer + 1) * D)
            y = target if last else np.empty((T, N, D * S), self.dtype)
            h_n[at], c, kept = _core.forward_layer(
                directions, batch, layer_input, h_0[at], None if c_0 is None else c_0[at], mask, y,
                self._internal(cells, unbatched) if last and cells is not None else None, keep, threads, self.reverse,
                layer > 0)        # nobody else holds the input of an inner layer, so that it need not be copied
            if c_n is not None:
                c_n[at] = c
            saved.append(kept)
            if rng is not None and not last:
                dropped.append(self._drop(y, rng))
            layer_input = y
        if out is not None and not np.may_share_memory(target, output):
            self._internal(output, unbatched)[...] = target
        cache = Cache(self, saved, dropped, unbatched, (T, N), packed) if keep else None
        return output, self._state_result(h_n, c_n, unbatched), cells, cache

    def _drop(self, y: Array, rng: np.random.Generator) -> Array:
        """Apply dropout to an inner layer's output in place; the factors, 0 or 1/(1 - dropout)."""
        scale = self.dtype.type(0 if self.dropout == 1 else 1 / (1 - self.dropout))
        factors: Array = (rng.random(y.shape, np.float32) >= self.dropout).astype(self.dtype)
        factors *= scale
        with np.errstate(all="ignore"):
            y *= factors
        return factors

    # ---- Backward --------------------------------------------------------------------------------

    @overload
    def backward(self, cache: Cache, d_output: ArrayLike, d_state: StateLikeT | None = None,
                 need_input: Literal[True] = True) -> Gradients[StateT, Array]: ...

    @overload
    def backward(self, cache: Cache, d_output: ArrayLike, d_state: StateLikeT | None = None, *,
                 need_input: Literal[False]) -> Gradients[StateT, None]: ...

    @overload
    def backward(self, cache: Cache, d_output: ArrayLike, d_state: StateLikeT | None = None,
                 need_input: bool = True) -> Gradients[StateT, Any]: ...

    def backward(self, cache: Cache, d_output: ArrayLike, d_state: StateLikeT | None = None,
                 need_input: bool = True) -> Gradients[StateT, Any]:
        """Compute the gradients of a loss L by back-propagation through time.

        Parameters
        ----------
        cache : Cache
            What this layer's ``forward`` returned. The parameters it was computed with are used, whether or not they
            were updated since.
        d_output : array
            The gradient dL/doutput, shaped as output. Past a row's length it is not looked at.
        d_state : array, or pair of arrays for an LSTM, optional
            The gradient dL/dh_n (and dL/dc_n), shaped as the state; zeros if not given.
        need_input : bool, default True
            Whether dL/dx is computed. If False, it is None.

        Returns
        -------
        Gradients
            The gradients ``input``, ``state`` and ``parameters``, shaped as x, the initial state and each parameter.
            They are the same, bit for bit, for any number of threads and from run to run.

        Raises
        ------
        TypeError, ValueError
            An argument is unsuitable; the message names it and says what was expected.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> layer = fastrnn.GRU(3, 5, rng=0)
        >>> output, h_n, cache = layer.forward(np.ones((7, 2, 3), np.float32))
        >>> gradients = layer.backward(cache, np.ones_like(output))
        >>> gradients.input.shape, gradients.parameters["weight_hh_l0"].shape
        ((7, 2, 3), (15, 5))
        """
        if not isinstance(cache, Cache):
            raise TypeError(f"cache: expected what forward returned, got {type(cache).__name__}")
        if cache.model is not self:
            raise ValueError("cache: it is of another layer's forward")
        need_input = check.flag(need_input, "need_input")
        T, N = cache.shape
        shape = self._external((T, N, self._directions * self._state_size), cache.unbatched)
        dy = check.shaped(check.array(d_output, "d_output", self.dtype), "d_output", shape)
        dh_n, dc_n = self._states(d_state, N, cache.unbatched, "d_state", ("dh_n", "dc_n"))
        dx, dh_0, dc_0, gradients = self._backward(cache, check.walkable(self._internal(dy, cache.unbatched)),
                                                   dh_n, dc_n, need_input)
        if dx is not None:
            dx = np.ascontiguousarray(self._external_view(dx, cache.unbatched))
        return Gradients(dx, self._state_result(dh_0, dc_0, cache.unbatched),
                         {name: gradients[name] for name in self._parameters})

    def _backward(self, cache: Cache, dy: Array, dh_n: Array, dc_n: Array | None,
                  need_input: bool) -> tuple[Array | None, Array, Array | None, Parameters]:
        """(dx, dh_0, dc_0, gradients of the parameters), walking the layers from the last to the first."""
        D, threads = self._directions, dispatch.get_num_threads()
        gradients: Parameters = {}
        dh_0, dc_0 = np.empty_like(dh_n), None if dc_n is None else np.empty_like(dc_n)
        dx: Any = dy            # of one layer after another; None in the end where it is not needed
        for layer in reversed(range(self.num_layers)):
            at = slice(layer * D, (layer + 1) * D)
            dx, dh_0[at], dc, by_direction = _core.backward_layer(
                cache.saved[layer], dx, dh_n[at], None if dc_n is None else dc_n[at], threads,
                need_input or layer > 0)
            if dc_0 is not None:
                dc_0[at] = dc
            if layer and cache.dropped:
                with np.errstate(all="ignore"):
                    dx *= cache.dropped[layer - 1]
            for direction, values in enumerate(by_direction):
                suffix = parameters.layer_suffix(layer, direction)
                for name, value in values.items():
                    gradients[name + suffix] = value
        return dx, dh_0, dc_0, gradients

    # ---- Streaming -------------------------------------------------------------------------------

    def _packed_for_steps(self, rows: int, values: Parameters | None = None) -> list[_core.Parameters]:
        """Each layer's parameters packed, for a stream of `rows`; ValueError where this layer cannot be stepped.

        Those of now, unless the caller gives the ones that it has read.
        """
        if values is None:
            values = self._parameters
        if self.bidirectional or self.reverse:
            raise ValueError(f"a {'bidirectional' if self.bidirectional else 'reversed'} layer cannot stream: its "
                             "reversed direction starts at the sequence's end, which a stream has not seen")
        table = dispatch.row_table(self.dtype, self.hidden_size)
        plain = product_precision(self._precision) is None and not self.proj_size and self._options(0) is None
        if rows > 1 or not plain or self._kind == "gru_before" \
                or table is dispatch.layer_table(self.dtype, self.hidden_size):
            return [directions[0] for directions in self._packed(values=values)]
        return [directions[0] for directions in self._make_pack(values, table)]

    def stream(self, batch_size: int = 1) -> Stream[StateT, StateLikeT]:
        """Make a stream of this layer, which takes one time step after another.

        The stream keeps the weights that the layer has now: parameters that are loaded or trained later do not reach
        it.

        Parameters
        ----------
        batch_size : int, default 1
            Number of rows, each with a state of its own.

        Returns
        -------
        Stream
            The stream, with a state of zeros.

        Raises
        ------
        ValueError
            The layer is bidirectional or reversed: its reversed direction starts at a sequence's end.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> stream = fastrnn.GRU(3, 5, rng=0).stream()
        >>> stream.step(np.ones(3, np.float32)).shape
        (5,)
        """
        return Stream(self, batch_size)

    def _stream_part(self, batch_size: int) -> Stream[StateT, StateLikeT]:
        return self.stream(batch_size)

    def restore(self, snapshot: bytes) -> Stream[StateT, StateLikeT]:
        """Make the stream again that ``Stream.snapshot`` was called on.

        Parameters
        ----------
        snapshot : bytes
            What ``snapshot`` returned, for a layer of the same configuration and weights.

        Returns
        -------
        Stream
            The stream, with the state it had.

        Raises
        ------
        TypeError
            The argument is no bytes.
        ValueError
            The snapshot is of another model, or damaged.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> layer = fastrnn.GRU(3, 5, rng=0)
        >>> stream = layer.stream()
        >>> _ = stream.step(np.ones(3, np.float32))
        >>> layer.restore(stream.snapshot())
        <Stream of 1 row, GRU(3, 5)>
        """
        return Stream._restored(self, snapshot)
