"""torch's recurrent modules on fastrnn's kernels: nn.LSTM, nn.GRU, nn.RNN and the three cells.

Reading order: ``Fast`` (when the kernels may run, and with which packed weights), ``_Layers`` and ``_Cell`` (what
torch's arguments mean), the six classes. One layer as one node of autograd is in ``autograd``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .. import _core
from .._base import dispatch
from .._core import Pass
from ..nn.parameters import GATES, shapes
from . import autocast, calls, internals, operators, resets, short_calls, trained_calls
from .autograd import TORCH_NAMES
from .weights import DTYPES, Cache, Weights, suits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike
    from torch.types import Device

    from .._base.typing import BoolArray
    from .weights import Tensors

    _ModuleBase: TypeAlias = nn.Module
    _LayerBase: TypeAlias = nn.RNNBase
    _CellBase: TypeAlias = nn.RNNCellBase
else:           # what the classes here are mixed into when they run
    _ModuleBase = _LayerBase = _CellBase = object


# ---- When the kernels may run ---------------------------------------------------------------------

class Fast(_ModuleBase):
    """What the six modules share. ``_fast`` returns None where a call is to run torch's own code."""

    hidden_size: int
    bias: bool
    _fast: Callable[[Any, Any], Any]

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Compute what torch's module of the same name computes.

        Calls that the kernels cannot compute, or that would gain nothing, run torch's own code.

        Parameters
        ----------
        input : torch.Tensor or torch.nn.utils.rnn.PackedSequence
            A layer takes [T, N, I] ([N, T, I] with ``batch_first``), [T, I] or a PackedSequence; a cell [N, I] or [I].
        hx : torch.Tensor or tuple of torch.Tensor, optional
            The initial state h_0 of a GRU or an RNN, the pair (h_0, c_0) of an LSTM; zeros if it is not given.

        Returns
        -------
        torch.Tensor or tuple
            For a layer the output and the final state or pair of states, for a cell the new state or pair of states.

        Examples
        --------
        >>> import torch
        >>> from fastrnn.pytorch import GRU, LSTMCell
        >>> output, h_n = GRU(3, 5)(torch.ones(7, 2, 3))
        >>> output.shape, h_n.shape
        (torch.Size([7, 2, 5]), torch.Size([1, 2, 5]))
        >>> h, c = LSTMCell(3, 5)(torch.ones(2, 3), (torch.zeros(2, 5), torch.zeros(2, 5)))
        """
        if isinstance(input, torch.fx.Proxy):       # a leaf of symbolic tracing, as torch's own modules are
            tracer: Any = input.tracer
            return tracer.create_proxy("call_module", tracer.path_of_module(self), (input, hx), {})
        results = self._fast(input, hx) if internals.eager() else None
        return super().forward(input, hx) if results is None else results

    def _tensors(self, names: Iterable[str]) -> list[torch.Tensor | None]:
        own = self._parameters      # most are there; properties and what hooks have set come by getattr
        return [own[name] if name in own else getattr(self, name) for name in names]

    def _packed(self, kind: str, place: int, tensors: Tensors, dtype: np.dtype[Any], input_size: int,
                proj_size: int = 0, precision: str | None = None) -> _core.Parameters | None:
        """The weights of one direction as the kernels take them; None where their kind or shape is not for them.

        They are packed anew when their contents have changed. Version counters would not tell: ``p.data.copy_(...)``
        leaves them as they are, and so does another process that trains shared memory.
        """
        cache: Cache = self.__dict__.setdefault("_fastrnn", Cache())
        key = kind, place, input_size, self.hidden_size, proj_size, precision
        weights = cache.get(key)
        if weights is None or not weights.are_of(tensors):
            if not suits(tensors):
                return None
            weights = Weights(tensors, weights.pack if weights is not None else None)
            expected = shapes(GATES[kind], input_size, self.hidden_size, self.bias, proj_size)
            if {name: a.shape for name, a in zip(TORCH_NAMES, weights.arrays, strict=True)
                    if a is not None} != expected:
                return None
            cache[key] = weights
        if weights.arrays[0].dtype != dtype:
            return None
        pack, table = weights.pack, dispatch.layer_table(dtype, self.hidden_size, precision)
        if pack is None or pack.capsule is not table or not pack.holds(*weights.arrays):
            copies: list[Any] = [None if a is None else a.copy() for a in weights.arrays]
            pack = weights.pack = _core.Parameters(table, kind, *copies)
        return pack

    def __prepare_scriptable__(self) -> Fast:
        """torch.jit.script puts the result in the module's place: TorchScript knows nothing but torch's classes."""
        turn(self, ORIGINALS.get(type(self), type(self)))
        return self

    @property
    def qconfig(self) -> Any:
        """What torch.ao.quantization notes on modules; there is none unless it was set."""
        if "qconfig" not in self.__dict__:
            raise AttributeError("qconfig")
        return self.__dict__["qconfig"]

    @qconfig.setter
    def qconfig(self, value: Any) -> None:
        original = ORIGINALS.get(parametrize.type_before_parametrizations(self))
        if value is not None or internals.to_be_quantised(original):
            raise RuntimeError(f"fastrnn.pytorch: an accelerated {type(self).__name__} cannot be quantised: call "
                               "fastrnn.pytorch.restore(model) first, quantise, then accelerate what is left")
        self.__dict__["qconfig"] = value

    @qconfig.deleter
    def qconfig(self) -> None:
        del self.__dict__["qconfig"]


_gains = short_calls.gains


# ---- Layers ---------------------------------------------------------------------------------------

class _Layers(Fast, _LayerBase):
    def forward(self, input: Any, hx: Any = None, *, reset_mask: ArrayLike | torch.Tensor | None = None) -> Any:
        """Compute what torch's module of the same name computes, with states that may start anew within a sequence.

        Calls that the kernels cannot compute, or that would gain nothing, run torch's own code.

        Parameters
        ----------
        input : torch.Tensor or torch.nn.utils.rnn.PackedSequence
            The sequences: [T, N, I] ([N, T, I] with ``batch_first``), [T, I] or a PackedSequence.
        hx : torch.Tensor or tuple of torch.Tensor, optional
            The initial state h_0 of a GRU or an RNN, the pair (h_0, c_0) of an LSTM; zeros if it is not given.
        reset_mask : torch.Tensor or array_like of bool, optional
            [T, N], or [T] for an input without an axis of rows, in this order with ``batch_first``, too: where it is
            True, the state of row n is zero just before the step at time t is taken, as where an episode starts. A
            layer that reads backwards takes its steps in the opposite order.

        Returns
        -------
        tuple
            The output and the final state or pair of states.

        Raises
        ------
        TypeError
            `reset_mask` is not of bools.
        ValueError
            `reset_mask` has another shape.
        NotImplementedError
            `reset_mask` is given with a PackedSequence where the kernels cannot run (see `fastrnn.pytorch`).

        Examples
        --------
        >>> import torch
        >>> from fastrnn.pytorch import GRU
        >>> layer, x = GRU(3, 5), torch.ones(7, 2, 3)
        >>> starts = torch.zeros(7, 2, dtype=torch.bool)
        >>> starts[4, 0] = True
        >>> output, h_n = layer(x, reset_mask=starts)
        >>> torch.allclose(output[4:, 0], layer(x)[0][:3, 0])
        True
        """
        trained = reset_mask is None and torch.is_grad_enabled()
        if trained and type(input) is torch.Tensor and short_calls.better_by_torch(self, input):
            short = internals.plain_call(self, input, hx)       # first: the checks below cost as much as the step
            return super(Fast, self).forward(input, hx) if short is None else short
        if isinstance(input, torch.fx.Proxy):       # a leaf of symbolic tracing, as torch's own modules are
            tracer: Any = input.tracer
            options = {} if reset_mask is None else {"reset_mask": reset_mask}
            return tracer.create_proxy("call_module", tracer.path_of_module(self), (input, hx), options)
        results = None
        if internals.eager():
            results = self._eager(input, hx, reset_mask, trained)
        elif internals.compiling():
            results = operators.in_a_graph(self, input, hx, reset_mask)
        if results is not None:
            return results
        if reset_mask is not None:
            return resets.by_torch(self, input, hx, reset_mask)
        return super(Fast, self).forward(input, hx)

    def _eager(self, input: Any, hx: Any, reset_mask: Any, trained: bool) -> Any:
        """The results by the shortest way that the kernels have for a call, or None where they have none."""
        results = None
        if not autocast.active():
            if trained:
                results = trained_calls.call(self, input, hx)
            elif reset_mask is None and type(input) is torch.Tensor:
                results = short_calls.call(self, input, hx)
        return self._fast(input, hx, reset_mask) if results is None else results

    def _batch(self, input: Any, x: torch.Tensor) -> tuple[_core.Batch, bool] | None:
        """How the rows are ordered, and whether there is an axis of rows; None for no sequence, or an empty one."""
        axes = x.dim()
        if isinstance(input, PackedSequence):
            batch = calls.packed_batch(input)
            return None if batch is None else (batch, True)
        if axes == 2:
            T, N = x.shape[0], 1
        elif axes == 3:
            T, N = (x.shape[1], x.shape[0]) if self.batch_first else x.shape[:2]
        else:
            return None
        return (_core.Batch(T, N, None, None), axes == 3) if T * N else None

    def _fast(self, input: Any, hx: Any, reset_mask: Any = None) -> tuple[Any, Any] | None:
        packed = isinstance(input, PackedSequence)
        x: torch.Tensor = input.data if packed else input
        kind = calls.KINDS.get(self.mode)
        states = calls.states(hx, kind == "lstm")
        names = internals.weight_names(self)
        cast = autocast.of(self.mode, x, states, packed or self.proj_size > 0, self.proj_size > 0)
        if cast is not None:
            x, states = cast.x, cast.states
        if kind is None or states is None or names is None or not suits((x, *states)):
            return None
        extent = self._batch(input, x)
        if extent is None or x.shape[-1] != self.input_size:
            return None
        batch, batched = extent
        T, N, H, S, D = batch.T, batch.N, self.hidden_size, self.proj_size or self.hidden_size, 1 + self.bidirectional
        for s, width in zip(states, (S, H)):
            if s.shape != ((self.num_layers * D, N, width) if batched else (self.num_layers * D, width)):
                return None
        parametrised = internals.parametrised_weights(self)
        weights = [self._direction(of_direction, parametrised) for of_direction in names]
        mask = None
        if reset_mask is not None:
            mask = resets.array(reset_mask, T, N, batched, input.sorted_indices if packed else None)
        trains = calls.trains(x, *states, *weights[0])
        if mask is None and kind != "lstm" and not parametrised:
            size = GATES[kind] * H * (self.input_size + H)
            if not _gains(kind, T, x.numel() // self.input_size, size, trains):
                return None
        packs = [self._packed(kind, i, five, DTYPES[x.dtype], self.input_size if i < D else D * S, self.proj_size,
                              None if cast is None else autocast.PRECISION)
                 for i, five in enumerate(weights)]
        if None in packs:
            return None
        lengths = None if mask is None else batch.lengths
        if lengths is not None:         # with a mask the kernels take padded rows
            x, _ = pad_packed_sequence(PackedSequence(x, input.batch_sizes))
            batch = _core.Batch(T, N, lengths, np.arange(N))
            calls.order_states(batch, input)
        x, finals = self._run_layers(x, states, batch, batched, weights, packs, mask)  # type: ignore[arg-type]  # no None there
        if lengths is not None:
            x = pack_padded_sequence(x, torch.from_numpy(lengths)).data
        if cast is not None:
            x, finals = cast.results(x, finals)
        last = tuple(finals) if kind == "lstm" else finals[0]
        return (PackedSequence(x, *input[1:]) if packed else x), last

    def _run_layers(self, x: torch.Tensor, states: Sequence[torch.Tensor], batch: _core.Batch, batched: bool,
                    weights: Sequence[Tensors], packs: list[_core.Parameters],
                    mask: BoolArray | None) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
        """The output and the final states of all layers, one after the other."""
        D, L, threads = 1 + self.bidirectional, self.num_layers, calls.threads()
        ragged = batch.lengths is not None and batch.order is None
        hidden = self.hidden_size if self.mode == "LSTM" else None
        state_rows = (D, batch.N) if batched else (D,)
        rows, finals = tuple(x.shape[:-1]), []
        swapped = self.batch_first and x.dim() == 3 and batch.lengths is None
        first = weights[0] if D == 1 else [*weights[0], *weights[1]]
        trains = calls.trains(x, *states, *first)
        x, x_swapped = self._kept_input(x, swapped, first, trains)
        for k in range(L):
            last, own = k == L - 1, slice(k * D, (k + 1) * D)
            of_layer = first if k == 0 else [w for five in weights[own] for w in five]
            initial = states if L == 1 else [s[own] for s in states]
            # between layers time comes first, as in torch's: dropout masks are drawn in that order
            call = Pass(packs[own], batch, ragged, hidden, (batch.T, batch.N) if swapped and not last else rows,
                        state_rows, x_swapped and k == 0, swapped and last, threads, mask)
            x, *new = calls.run(call, x, initial, of_layer, trains if k == 0 else calls.trains(x, *initial, *of_layer))
            finals.append(new)
            if self.dropout and self.training and not last:
                x = torch.dropout(x, self.dropout, True)
        return x, finals[0] if L == 1 else [torch.cat(parts) for parts in zip(*finals)]

    def _kept_input(self, x: torch.Tensor, swapped: bool, weights: Tensors,
                    trains: bool) -> tuple[torch.Tensor, bool]:
        """The first layer's input as the kernels may keep it until backward, and whether it is [N, T, I].

        A caller may change x in place after the call wherever torch's modules have made a copy of it, with batch_first,
        or do not need it, where no weight of this layer is trained. Elsewhere backward raises torch's error.
        """
        if not trains:
            return x, swapped
        if swapped:
            return x.transpose(0, 1).contiguous(), False
        return x if self.mode == "LSTM" or calls.trains(*weights) else x.clone(), False

    def _direction(self, names: Iterable[str], parametrised: Mapping[str, torch.Tensor]) -> list[torch.Tensor | None]:
        """The five weights of a direction, None for those it does not have."""
        weights: list[torch.Tensor | None] = (
            [parametrised[name] for name in names] if parametrised else self._tensors(names))
        if not self.bias:
            weights[2:2] = None, None
        return weights if self.proj_size else [*weights, None]


class LSTM(_Layers, nn.LSTM):
    """PyTorch's nn.LSTM on fastrnn's kernels, with torch's arguments, parameters and results.

    The equations are those of :class:`fastrnn.LSTM`.

    Parameters
    ----------
    input_size : int
        The number of features of the input.
    hidden_size : int
        The number of features of the state.
    num_layers : int
        The number of layers stacked on one another.
    bias : bool
        Whether there are biases.
    batch_first : bool
        Inputs and outputs are [N, T, ...] in place of [T, N, ...].
    dropout : float
        The probability of a zero in the output of each layer but the last, in training.
    bidirectional : bool
        Read the sequence in both directions.
    proj_size : int
        The size of a projection of the hidden state; 0 for none.
    device : torch.device, str or int, optional
        Where the parameters are; the kernels run on the CPU.
    dtype : torch.dtype, optional
        The dtype of the parameters; the kernels run in float32 and float64.

    Examples
    --------
    >>> import torch
    >>> from fastrnn.pytorch import LSTM
    >>> layer = LSTM(3, 5, num_layers=2, batch_first=True)
    >>> output, (h_n, c_n) = layer(torch.ones(2, 7, 3))
    >>> output.shape, h_n.shape
    (torch.Size([2, 7, 5]), torch.Size([2, 2, 5]))
    >>> output.sum().backward()
    >>> layer.weight_hh_l1.grad.shape
    torch.Size([20, 5])
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0,
                 device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(input_size, hidden_size, num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
                         bidirectional=bidirectional, proj_size=proj_size, device=device, dtype=dtype)


class GRU(_Layers, nn.GRU):
    """PyTorch's nn.GRU on fastrnn's kernels, with torch's arguments, parameters and results.

    The equations are those of :class:`fastrnn.GRU`.

    Parameters
    ----------
    input_size : int
        The number of features of the input.
    hidden_size : int
        The number of features of the state.
    num_layers : int
        The number of layers stacked on one another.
    bias : bool
        Whether there are biases.
    batch_first : bool
        Inputs and outputs are [N, T, ...] in place of [T, N, ...].
    dropout : float
        The probability of a zero in the output of each layer but the last, in training.
    bidirectional : bool
        Read the sequence in both directions.
    device : torch.device, str or int, optional
        Where the parameters are; the kernels run on the CPU.
    dtype : torch.dtype, optional
        The dtype of the parameters; the kernels run in float32 and float64.

    Examples
    --------
    >>> import torch
    >>> from torch.nn.utils.rnn import pack_sequence
    >>> from fastrnn.pytorch import GRU
    >>> output, h_n = GRU(3, 5)(pack_sequence([torch.ones(7, 3), torch.ones(4, 3)]))
    >>> output.data.shape, h_n.shape
    (torch.Size([11, 5]), torch.Size([1, 2, 5]))
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
                 device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(input_size, hidden_size, num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
                         bidirectional=bidirectional, device=device, dtype=dtype)


class RNN(_Layers, nn.RNN):
    """PyTorch's nn.RNN on fastrnn's kernels, with torch's arguments, parameters and results.

    The equations are those of :class:`fastrnn.RNN`.

    Parameters
    ----------
    input_size : int
        The number of features of the input.
    hidden_size : int
        The number of features of the state.
    num_layers : int
        The number of layers stacked on one another.
    nonlinearity : str
        What is applied to the sums: "tanh" or "relu".
    bias : bool
        Whether there are biases.
    batch_first : bool
        Inputs and outputs are [N, T, ...] in place of [T, N, ...].
    dropout : float
        The probability of a zero in the output of each layer but the last, in training.
    bidirectional : bool
        Read the sequence in both directions.
    device : torch.device, str or int, optional
        Where the parameters are; the kernels run on the CPU.
    dtype : torch.dtype, optional
        The dtype of the parameters; the kernels run in float32 and float64.

    Examples
    --------
    >>> from fastrnn.pytorch import RNN
    >>> RNN(3, 5, nonlinearity="relu")
    RNN(3, 5)
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh",
                 bias: bool = True, batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
                 device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(input_size, hidden_size, num_layers, nonlinearity=nonlinearity, bias=bias,
                         batch_first=batch_first, dropout=dropout, bidirectional=bidirectional, device=device,
                         dtype=dtype)


for _class in (Fast, _Layers):
    internals.leave_uncompiled(_class.forward)      # torch.compile calls recurrent modules between its graphs


# ---- Cells ----------------------------------------------------------------------------------------

class _Cell(Fast, _CellBase):
    _kind: Any                  # of the kernels

    def _fast(self, input: Any, hx: Any) -> Any:
        if not torch.is_grad_enabled() and not autocast.active():
            new = short_calls.of_cell(self, input, hx)
            if new is not None:
                return new
        kind: str = self._kind
        states = calls.states(hx, kind == "lstm")
        cast = autocast.of(kind, input, states, True, False)
        if cast is not None:
            input, states = cast.x, cast.states
        if states is None or not suits((input, *states)):
            return None
        rows = tuple(input.shape[:-1])
        N = rows[0] if rows else 1
        if (len(rows) > 1 or input.shape[-1:] != (self.input_size,) or N == 0
                or any(s.shape != (*rows, self.hidden_size) for s in states)):
            return None
        weights = [*self._tensors(TORCH_NAMES[:4]), None]
        size = GATES[kind] * self.hidden_size * (self.input_size + self.hidden_size)
        pack, trains = None, calls.trains(input, *states, *weights)
        if parametrize.is_parametrized(self) or _gains(kind, 1, N, size, trains):
            pack = self._packed(kind, 0, weights, DTYPES[input.dtype], self.input_size,
                                precision=None if cast is None else autocast.PRECISION)
        if pack is None:
            return None
        call = Pass([pack], _core.Batch(1, N, None, None), False, self.hidden_size if kind == "lstm" else None,
                    rows, rows, False, False, calls.threads())
        h, _, *c = calls.run(call, input, states, weights, trains)
        if cast is not None:
            h, c = cast.results(h, [h, *c])
            c = c[1:]
        return (h, *c) if kind == "lstm" else h


class LSTMCell(_Cell, nn.LSTMCell):
    """PyTorch's nn.LSTMCell on fastrnn's kernels, with torch's arguments, parameters and results.

    Parameters
    ----------
    input_size : int
        The number of features of the input.
    hidden_size : int
        The number of features of the state.
    bias : bool
        Whether there are biases.
    device : torch.device, str or int, optional
        Where the parameters are; the kernels run on the CPU.
    dtype : torch.dtype, optional
        The dtype of the parameters; the kernels run in float32 and float64.

    Examples
    --------
    >>> import torch
    >>> from fastrnn.pytorch import LSTMCell
    >>> h, c = LSTMCell(3, 5)(torch.ones(2, 3))
    >>> h.shape, c.shape
    (torch.Size([2, 5]), torch.Size([2, 5]))
    """

    _kind = "lstm"

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Device = None,
                 dtype: torch.dtype | None = None) -> None:
        super().__init__(input_size, hidden_size, bias, device=device, dtype=dtype)


class GRUCell(_Cell, nn.GRUCell):
    """PyTorch's nn.GRUCell on fastrnn's kernels, with torch's arguments, parameters and results.

    Parameters
    ----------
    input_size : int
        The number of features of the input.
    hidden_size : int
        The number of features of the state.
    bias : bool
        Whether there are biases.
    device : torch.device, str or int, optional
        Where the parameters are; the kernels run on the CPU.
    dtype : torch.dtype, optional
        The dtype of the parameters; the kernels run in float32 and float64.

    Examples
    --------
    >>> import torch
    >>> from fastrnn.pytorch import GRUCell
    >>> GRUCell(3, 5)(torch.ones(3)).shape
    torch.Size([5])
    """

    _kind = "gru"

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Device = None,
                 dtype: torch.dtype | None = None) -> None:
        super().__init__(input_size, hidden_size, bias, device=device, dtype=dtype)


class RNNCell(_Cell, nn.RNNCell):
    """PyTorch's nn.RNNCell on fastrnn's kernels, with torch's arguments, parameters and results.

    Parameters
    ----------
    input_size : int
        The number of features of the input.
    hidden_size : int
        The number of features of the state.
    bias : bool
        Whether there are biases.
    nonlinearity : str
        What is applied to the sums: "tanh" or "relu".
    device : torch.device, str or int, optional
        Where the parameters are; the kernels run on the CPU.
    dtype : torch.dtype, optional
        The dtype of the parameters; the kernels run in float32 and float64.

    Examples
    --------
    >>> import torch
    >>> from fastrnn.pytorch import RNNCell
    >>> RNNCell(3, 5, nonlinearity="relu")(torch.ones(2, 3)).shape
    torch.Size([2, 5])
    """

    _kind = property(lambda self: f"rnn_{self.nonlinearity}")

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh",
                 device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(input_size, hidden_size, bias, nonlinearity, device=device, dtype=dtype)


# ---- Which of torch's modules each stands for -------------------------------------------------------------

SWAPS: dict[type[nn.Module], type[Fast]] = {
    nn.LSTM: LSTM, nn.GRU: GRU, nn.RNN: RNN, nn.LSTMCell: LSTMCell, nn.GRUCell: GRUCell, nn.RNNCell: RNNCell}
ORIGINALS: dict[type[nn.Module], type[nn.Module]] = {ours: theirs for theirs, ours in SWAPS.items()}


def turn(module: nn.Module, cls: type[nn.Module]) -> None:
    """Gives a module another class; its parameters, hooks and options stay.

    A parametrised module has a class of its own, derived from the one it had before, with a property for each
    parametrised tensor. It gets a new one, because copies of the module share the old one.
    """
    if parametrize.is_parametrized(module):
        own = {name: value for name, value in vars(type(module)).items() if name not in ("__dict__", "__weakref__")}
        cls = type(type(module).__name__, (cls,), own)
    module.__class__ = cls
    module.__dict__.pop("_fastrnn", None)
