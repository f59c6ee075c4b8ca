"""torch's recurrent modules on fastrnn's kernels: nn.LSTM, nn.GRU, nn.RNN and the three cells.

Reading order: ``Fast`` (when the kernels may run, and with which packed weights), ``_Layers`` and ``_Cell`` (what
torch's arguments mean), the six classes. One layer as one node of autograd is in ``autograd``.
"""

import numpy as np
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.utils.rnn import PackedSequence

from .. import _core
from .._base import dispatch
from .._base import validation as check
from ..nn.parameters import GATES, shapes
from .autograd import TORCH_NAMES, FastRNN, Pass, array, forward_pass

DTYPES = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
PLAIN = (torch.Tensor, nn.Parameter)
_KINDS = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn_tanh", "RNN_RELU": "rnn_relu"}


# ---- When the kernels may run ---------------------------------------------------------------------

class _Weights:
    """One direction's weights in the order of TORCH_NAMES (None: it has none): arrays on their memory, and packed."""

    def __init__(self, tensors, pack):
        self.tensors, self.pack = tensors, pack
        self.arrays = [None if t is None else check.contiguous(array(t)) for t in tensors]
        self.places = [None if t is None else t.data_ptr() for t in tensors]
        if any(t is not None and t.grad_fn is not None for t in tensors):
            self.tensors = ()       # made anew for every call, and to hold it would hold its graph

    def shows(self, tensors):
        """Whether the arrays show what these tensors contain now."""
        return len(self.tensors) == len(tensors) and all(
            t is mine and (t is None or (t.data_ptr() == place and t.is_contiguous()))
            for t, mine, place in zip(tensors, self.tensors, self.places))


class _Cache(dict):
    """A module's _Weights. Its copies and pickles start with none."""

    def __reduce__(self):
        return _Cache, ()


def _eager():
    """Whether calls are simply executed: nothing is traced, and no transform or mode must see torch's operations."""
    return not (torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active()
                or torch._C._len_torch_dispatch_stack() or forward_ad._current_level >= 0
                or torch.is_autocast_enabled("cpu"))


def _suits(tensors):
    """Whether all are plain tensors in memory, of one dtype that the kernels have. None is passed over."""
    dtype = getattr(tensors[0], "dtype", None)
    return dtype in DTYPES and all(
        t is None or (type(t) in PLAIN and t.dtype is dtype and t.is_cpu and t.layout is torch.strided
                      and not t.is_neg()) for t in tensors)


class Fast:
    """What the six modules share. ``_fast`` gives None where the call is torch's."""

    def forward(self, input, hx=None):
        """As the parent class."""
        if isinstance(input, torch.fx.Proxy):       # a leaf of symbolic tracing, as torch's own modules are
            tracer = input.tracer
            return tracer.create_proxy("call_module", tracer.path_of_module(self), (input, hx), {})
        results = self._fast(input, hx) if _eager() else None
        return super().forward(input, hx) if results is None else results

    def _tensors(self, names):
        own = self._parameters      # where most are; properties and what hooks have set come by getattr
        return [own[name] if name in own else getattr(self, name) for name in names]

    def _packed(self, kind, place, tensors, dtype, input_size, proj_size=0):
        """One direction's weights as the kernels take them; None where their sort or shape is not for them.

        Packed anew when their contents have changed. Versions would not tell: ``p.data.copy_(...)`` leaves them as they
        are, and so does another process that trains shared memory.
        """
        cache = self.__dict__.setdefault("_fastrnn", _Cache())
        key = kind, place, input_size, self.hidden_size, proj_size
        held = cache.get(key)
        if held is None or not held.shows(tensors):
            if not _suits(tensors):
                return None
            held = _Weights(tensors, held and held.pack)
            wanted = shapes(GATES[kind], input_size, self.hidden_size, self.bias, proj_size)
            if {name: a.shape for name, a in zip(TORCH_NAMES, held.arrays, strict=True) if a is not None} != wanted:
                return None
            cache[key] = held
        if held.arrays[0].dtype != dtype:
            return None
        pack, table = held.pack, dispatch.table(dtype)
        if pack is None or pack.capsule is not table or not pack.holds(*held.arrays):
            pack = held.pack = _core.Parameters(table, kind, *(None if a is None else a.copy() for a in held.arrays))
        return pack

    def __prepare_scriptable__(self):
        """torch.jit.script puts the result of this in the module's place: TorchScript knows torch's class alone."""
        turn(self, ORIGINALS.get(type(self), type(self)))
        return self


# torch.compile, which calls recurrent modules between its graphs, runs forward and what it calls as they are. (Without
# this it would take torch's code; torch.compiler.disable does the same, but imports the compiler and wraps every call.)
_eval_frame = torch._C._dynamo.eval_frame
if hasattr(_eval_frame, "set_code_exec_strategy"):
    _eval_frame.set_code_exec_strategy(Fast.forward.__code__, _eval_frame._FrameExecStrategy(
        _eval_frame._FrameAction.SKIP, _eval_frame._FrameAction.SKIP))


# Where torch is the faster one. A step of torch's costs some 20 (RNN) to 80 us (GRU) beside its arithmetic, forward and
# backward, and a call of the kernels to bring the weights into their order and the gradients out of it about 1 ns a
# weight: one step pays for so many weights, and so many rows for any, as their arithmetic is the faster one. Without
# gradients there is only the comparison of weights, which one row in one step does not pay for.
_WEIGHTS_OF_A_STEP, _ROWS_THAT_TRAIN, _ROWS_OF_A_STEP = 50_000, 64, 4


def _gains(kind, steps, rows, weights, trains):
    """Whether a call is faster here than by torch's GRU, RNN or cells (its nn.LSTM never is): measured on one thread,
    Zen 4, torch 2.13. rows: of all steps together."""
    if steps == 1 and kind.startswith("rnn"):
        return False
    if trains:
        return steps * _WEIGHTS_OF_A_STEP >= weights or (steps > 1 and rows >= _ROWS_THAT_TRAIN)
    return steps > 1 or rows >= _ROWS_OF_A_STEP


def _trains(*tensors):
    """Whether a gradient may be asked for."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _run(at, x, states, weights):
    """One layer, as a node of autograd or without. `weights`: five a direction."""
    h_0, c_0 = (*states, None, None)[:2]
    if _trains(x, h_0, c_0, *weights):
        return FastRNN.apply(at, x, h_0, c_0, *weights)
    return forward_pass(at, x, h_0, c_0, False)[0]


def _states(hx, lstm):
    """hx as a tuple of tensors, empty for None; None where it is something else."""
    if hx is None:
        return ()
    found = hx if lstm else (hx,)
    return tuple(found) if isinstance(found, (tuple, list)) and len(found) == 1 + lstm else None


def _threads():
    """Both libraries' settings are kept."""
    return min(dispatch.get_num_threads(), torch.get_num_threads())


# ---- Layers ---------------------------------------------------------------------------------------

def _row_lengths(x, sizes):
    """Steps of each row, falling, by a PackedSequence's batch_sizes; None where they do not fit its rows."""
    if x.dim() != 2 or sizes.ndim != 1 or not sizes.size:
        return None
    ended = sizes.copy()        # rows that have their last step here
    ended[:-1] -= sizes[1:]
    if ended.min() < 0 or sizes[-1] == 0 or sizes.sum() != len(x):
        return None
    return np.arange(len(sizes), 0, -1).repeat(ended[::-1])


class _Layers(Fast):
    def _extent(self, input, x):
        """Steps, rows, their lengths where these differ, and whether there is an axis of rows; None for no sequence."""
        if isinstance(input, PackedSequence):
            T, lengths = len(input.batch_sizes), _row_lengths(x, input.batch_sizes.numpy())
            return None if lengths is None else (T, len(lengths), lengths if lengths[-1] < T else None, True)
        if x.dim() == 3:
            T, N = (x.shape[1], x.shape[0]) if self.batch_first else x.shape[:2]
            return T, N, None, True
        return (x.shape[0], 1, None, False) if x.dim() == 2 else None

    def _fast(self, input, hx):
        packed = isinstance(input, PackedSequence)
        x, kind = input.data if packed else input, _KINDS.get(self.mode)
        H, D = self.hidden_size, 2 if self.bidirectional else 1
        states = _states(hx, kind == "lstm")
        extent = self._extent(input, x) if states is not None and _suits((x, *states)) else None
        if extent is None:
            return None
        T, N, lengths, batched = extent
        state_rows, S = (D, N) if batched else (D,), self.proj_size or H
        if x.shape[-1] != self.input_size or not T * N or any(
                s.shape != (self.num_layers * D, *state_rows[1:], width) for s, width in zip(states, (S, H))):
            return None
        weights = [self._direction(names) for names in self._all_weights]
        if kind != "lstm" and not _gains(kind, T, x.numel() // self.input_size, GATES[kind] * H * (self.input_size + H),
                                         _trains(x, *states, *weights[0])):
            return None
        packs = [self._packed(kind, i, five, DTYPES[x.dtype], self.input_size if i < D else D * S, self.proj_size)
                 for i, five in enumerate(weights)]
        if None in packs:
            return None

        if packed and input.sorted_indices is not None:
            states = [s.index_select(1, input.sorted_indices) for s in states]
        batch, threads, finals = _core.Batch(T, N, lengths, None, lengths is not None), _threads(), []
        rows, swapped = tuple(x.shape[:-1]), self.batch_first and x.dim() == 3
        for k in range(self.num_layers):
            last, own = k == self.num_layers - 1, slice(k * D, (k + 1) * D)
            # between layers time comes first, as in torch's: dropout masks are drawn in that order
            at = Pass(packs[own], batch, lengths is not None, H if kind == "lstm" else None,
                       (T, N) if swapped and not last else rows, state_rows,
                       swapped and k == 0, swapped and last, threads)
            x, *new = _run(at, x, states if self.num_layers == 1 else [s[own] for s in states],
                           [w for five in weights[own] for w in five])
            finals.append(new)
            if self.dropout and self.training and not last:
                x = torch.dropout(x, self.dropout, True)
        finals = finals[0] if self.num_layers == 1 else [torch.cat(parts) for parts in zip(*finals)]
        if packed:
            if input.unsorted_indices is not None:
                finals = [s.index_select(1, input.unsorted_indices) for s in finals]
            x = PackedSequence(x, *input[1:])
        return x, tuple(finals) if kind == "lstm" else finals[0]

    def _direction(self, names):
        """The five weights of a direction, None for those it does not have."""
        found = self._tensors(names)
        if not self.bias:
            found[2:2] = None, None
        return found if self.proj_size else [*found, None]


class LSTM(_Layers, nn.LSTM):
    """torch.nn.LSTM on fastrnn's kernels: arguments, parameters, results are torch's. Equations: :class:`fastrnn.LSTM`.

    Examples
    --------
    >>> layer = LSTM(3, 5, num_layers=2, batch_first=True)
    >>> output, (h_n, c_n) = layer(torch.ones(2, 7, 3))
    >>> output.shape, h_n.shape
    (torch.Size([2, 7, 5]), torch.Size([2, 2, 5]))
    >>> output.sum().backward()
    >>> layer.weight_hh_l1.grad.shape
    torch.Size([20, 5])
    """


class GRU(_Layers, nn.GRU):
    """torch.nn.GRU on fastrnn's kernels: arguments, parameters, results are torch's. Equations: :class:`fastrnn.GRU`.

    Examples
    --------
    >>> from torch.nn.utils.rnn import pack_sequence
    >>> output, h_n = GRU(3, 5)(pack_sequence([torch.ones(7, 3), torch.ones(4, 3)]))
    >>> output.data.shape, h_n.shape
    (torch.Size([11, 5]), torch.Size([1, 2, 5]))
    """


class RNN(_Layers, nn.RNN):
    """torch.nn.RNN on fastrnn's kernels: arguments, parameters, results are torch's. Equations: :class:`fastrnn.RNN`.

    Examples
    --------
    >>> RNN(3, 5, nonlinearity="relu")
    RNN(3, 5)
    """


# ---- Cells ----------------------------------------------------------------------------------------

class _Cell(Fast):
    def _fast(self, input, hx):
        kind = self._kind
        states = _states(hx, kind == "lstm")
        if states is None or not _suits((input, *states)):
            return None
        rows = tuple(input.shape[:-1])
        N = rows[0] if rows else 1
        if (len(rows) > 1 or input.shape[-1:] != (self.input_size,) or N == 0
                or any(s.shape != (*rows, self.hidden_size) for s in states)):
            return None
        weights = [*self._tensors(TORCH_NAMES[:4]), None]
        size = GATES[kind] * self.hidden_size * (self.input_size + self.hidden_size)
        pack = None
        if _gains(kind, 1, N, size, _trains(input, *states, *weights)):
            pack = self._packed(kind, 0, weights, DTYPES[input.dtype], self.input_size)
        if pack is None:
            return None
        at = Pass([pack], _core.Batch(1, N, None, None), False, self.hidden_size if kind == "lstm" else None,
                   rows, rows, False, False, _threads())
        h, _, *c = _run(at, input, states, weights)
        return (h, *c) if kind == "lstm" else h


class LSTMCell(_Cell, nn.LSTMCell):
    """torch.nn.LSTMCell on fastrnn's kernels: arguments, parameters and results are torch's.

    Examples
    --------
    >>> h, c = LSTMCell(3, 5)(torch.ones(2, 3))
    >>> h.shape, c.shape
    (torch.Size([2, 5]), torch.Size([2, 5]))
    """

    _kind = "lstm"


class GRUCell(_Cell, nn.GRUCell):
    """torch.nn.GRUCell on fastrnn's kernels: arguments, parameters and results are torch's.

    Examples
    --------
    >>> GRUCell(3, 5)(torch.ones(3)).shape
    torch.Size([5])
    """

    _kind = "gru"


class RNNCell(_Cell, nn.RNNCell):
    """torch.nn.RNNCell on fastrnn's kernels: arguments, parameters and results are torch's.

    Examples
    --------
    >>> RNNCell(3, 5, nonlinearity="relu")(torch.ones(2, 3)).shape
    torch.Size([2, 5])
    """

    _kind = property(lambda self: f"rnn_{self.nonlinearity}")


# ---- Which of torch's modules each stands for -------------------------------------------------------------

SWAPS = {nn.LSTM: LSTM, nn.GRU: GRU, nn.RNN: RNN, nn.LSTMCell: LSTMCell, nn.GRUCell: GRUCell, nn.RNNCell: RNNCell}
ORIGINALS = {ours: theirs for theirs, ours in SWAPS.items()}


def turn(module, cls):
    """Another class over the same parameters, hooks and options."""
    module.__class__ = cls
    module.__dict__.pop("_fastrnn", None)
