"""The recurrent layers: stacks of RNN, LSTM and GRU over whole sequences, forward and backward.

A call reads in one direction: validate (``_base.validation``), pack (``Parametrised._packed``, once for each version of
the parameters), kernel (``_core.forward_layer``, layer by layer), result.
"""

import warnings

import numpy as np

from .. import _core
from .._base import dispatch
from .._base import validation as check
from .._base.registry import in_files
from . import parameters
from .base import Gradients, Parametrised
from .streams import Stream


class Cache:
    """What ``forward`` keeps for ``backward``: activations, and the parameters they were computed with."""

    __slots__ = ("model", "saved", "dropped", "unbatched", "shape", "layers")

    def __init__(self, model, saved, dropped, unbatched, shape, layers):
        self.model, self.saved, self.dropped = model, saved, dropped
        self.unbatched, self.shape, self.layers = unbatched, shape, layers


class Recurrent(Parametrised):
    """What RNN, LSTM and GRU share. Dims: T steps, N rows, I input_size, H hidden_size, S state (H, or proj_size),
    L num_layers, D directions.

    Parameters
    ----------
    input_size, hidden_size : int
    num_layers : int
        Layers stacked, each reading the outputs of the one before.
    bias : bool
    batch_first : bool
        x and output are [N, T, ...]; states and masks are never affected.
    dropout : float
        Probability of zeroing an output between layers, in ``forward`` alone; the others are scaled by 1/(1-dropout).
    bidirectional : bool
        A second set of parameters walks the sequence from its end; outputs are concatenated.
    reverse : bool
        The one direction walks from each row's last valid step to its first; outputs stay at the time index of their
        input, h_n is the state after step 0 (ONNX direction="reverse", Keras go_backwards).
    proj_size : int
        LSTM only: h_t = W_hr m_t has this size (Sak, Senior & Beaufays 2014). 0: none.
    activations : sequence, optional
        Other activations, under ONNX's names and in its order f, g, h: for an LSTM of (gates i f o; candidate; cell
        state), a GRU (gates r z; candidate), an RNN (the unit). Each is a name, or (name, alpha), or (name, alpha,
        beta): sigmoid, tanh, relu, affine (alpha x + beta), leaky_relu, thresholded_relu (x where x > alpha, else 0),
        scaled_tanh (alpha tanh(beta x)), hard_sigmoid (alpha x + beta, held to 0...1; defaults 0.2, 0.5), elu,
        softsign, softplus. A bidirectional layer may have twice as many: forward's, then reverse's.
    clip : float, optional
        The sums that activations are taken of (biases and peepholes included) are held to -clip...clip.
    dtype : float32 or float64
    rng : numpy.random.Generator, int seed or None
        Parameters start from U(-1/sqrt(H), 1/sqrt(H)).

    Raises
    ------
    TypeError, ValueError
        An unsuitable argument, by name.
    """

    _is_lstm = False
    peephole = coupled_gates = False        # an LSTM's alone
    update = "torch"                        # a GRU's alone

    def __init__(self, input_size, hidden_size, num_layers=1, *, bias=True, batch_first=False, dropout=0.0,
                 bidirectional=False, reverse=False, proj_size=0, activations=None, clip=None, dtype=np.float32,
                 rng=None):
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
        rng = rng if rng is parameters.UNDRAWN else check.generator(rng)
        shapes = parameters.stacked_shapes(gates, self.input_size, self.hidden_size,
                                           self.num_layers, self._directions, self.bias, self.proj_size,
                                           self.peephole)
        self._parameters = parameters.initialise(shapes, self.hidden_size, self.dtype, rng)

    @classmethod
    def from_parameters(cls, mapping, *sizes, **options):
        """A layer with given parameters: no random numbers are drawn for it first.

        Parameters
        ----------
        mapping : mapping of str to array
            As for ``load_state_dict``.
        *sizes, **options
            As for the class.

        >>> layer = GRU(2, 3, rng=0)
        >>> GRU.from_parameters(layer.state_dict(), 2, 3)
        GRU(2, 3)
        """
        layer = cls(*sizes, rng=parameters.UNDRAWN, **options)
        layer.load_state_dict(mapping)
        return layer

    @property
    def _directions(self):
        return 2 if self.bidirectional else 1

    @property
    def _state_size(self):
        return self.proj_size or self.hidden_size

    def _options(self, direction):
        """What _core.Parameters takes as options: None for a plain cell."""
        if self.activations is None and self.clip is None and not (self.peephole or self.coupled_gates) \
                and self.update == "torch":
            return None
        plain = parameters.PLAIN[self._kind]
        used = self.activations or [(name, *parameters.ACTIVATIONS[name]) for name in plain]
        first = direction * len(plain) if len(used) > len(plain) else 0
        return (tuple((name, alpha or 0.0, beta or 0.0) for name, alpha, beta in used[first:first + len(plain)]),
                np.inf if self.clip is None else self.clip, self.coupled_gates, self.update == "mirror")

    def _make_pack(self, values):
        table = dispatch.table(self.dtype)
        return [[_core.Parameters(table, self._kind, *(
                    values.get(name + parameters.layer_suffix(layer, direction)) for name in parameters.NAMES),
                    self._options(direction))
                 for direction in range(self._directions)] for layer in range(self.num_layers)]

    def __repr__(self):
        options = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False,
                   "reverse": False, "proj_size": 0, "nonlinearity": "tanh", "reset_after": True, "update": "torch",
                   "peephole": False, "coupled_gates": False, "activations": None, "clip": None,
                   "dtype": np.dtype(np.float32)}
        shown = "".join(f", {name}={getattr(self, name)!s}" for name, default in options.items()
                        if getattr(self, name, default) != default)
        return f"{type(self).__name__}({self.input_size}, {self.hidden_size}{shown})"

    # ---- Forward ---------------------------------------------------------------------------------

    def __call__(self, x, state=None, *, lengths=None, reset_mask=None, out=None):
        """Runs the layers over sequences; nothing is kept for ``backward``.

        Parameters
        ----------
        x : array
            [T, N, I], [N, T, I] with batch_first, or unbatched [T, I]. Of the model's dtype, or one that converts
            up to it.
        state : array, or pair of arrays for LSTM, optional
            h_0 [L*D, N, S] (unbatched [L*D, S]) and c_0 [L*D, N, H]; zeros if not given.
        lengths : ints [N], optional
            Valid steps of each row, 0 to T, in any order. Later outputs are exactly 0 and cost nothing; h_n is the
            state after the last valid step.
        reset_mask : bools [T, N], optional
            The state of row n is zeroed before step t.
        out : array, optional
            Written in place and returned as output.

        Returns
        -------
        output : array
            [T, N, D*S] in x's convention.
        state : array, or pair of arrays for LSTM
            h_n (and c_n), shaped as the initial state.

        Raises
        ------
        TypeError, ValueError
            An unsuitable argument, by name, with what was expected.
        """
        return self._run(x, state, lengths, reset_mask, out)[:2]

    def forward(self, x, state=None, lengths=None, reset_mask=None, rng=None):
        """As calling the layer, and keeps what ``backward`` needs; dropout acts here.

        Parameters
        ----------
        x, state, lengths, reset_mask
            As in ``__call__``.
        rng : numpy.random.Generator, int seed or None
            Of the dropout.

        Returns
        -------
        output, state
            As ``__call__``, to the bit where dropout is 0.
        cache : Cache
            For ``backward``, any number of times. It holds copies: the caller may overwrite x.
        """
        rng = check.generator(rng) if self.dropout else None
        output, state, _, cache = self._run(x, state, lengths, reset_mask, None, keep=True, rng=rng)
        return output, state, cache

    def _states(self, state, N, unbatched, name="state", names=("h_0", "c_0")):
        """The pair (h, c) as contiguous [L*D, N, ...]; c is None unless LSTM."""
        layers = self.num_layers * self._directions
        h, c = check.pair(state, name) if self._is_lstm and state is not None else (state, None)
        if state is not None and self._is_lstm and (h is None or c is None):
            raise TypeError(f"{name}: expected a pair of arrays, got None in it")
        h = check.one_state(h, f"{name} {names[0]}" if self._is_lstm else name, layers, N, self._state_size,
                            self.dtype, unbatched)
        if self._is_lstm:
            c = check.one_state(c, f"{name} {names[1]}", layers, N, self.hidden_size, self.dtype, unbatched)
        return h, c

    def _state_result(self, h, c, unbatched):
        if unbatched:
            h, c = h[:, 0], None if c is None else c[:, 0]
        return (h, c) if self._is_lstm else h

    def _external(self, shape3, unbatched):
        """The caller's shape of [T, N, width]."""
        T, N, width = shape3
        return (T, width) if unbatched else (N, T, width) if self.batch_first else shape3

    def _external_view(self, a, unbatched):
        """[T, N, width] as a view in the caller's convention."""
        return a[:, 0] if unbatched else a.swapaxes(0, 1) if self.batch_first else a

    def _internal(self, a, unbatched):
        """[T, N, width] view of an array in the caller's convention."""
        return a[:, None] if unbatched else a.swapaxes(0, 1) if self.batch_first else a

    def _run(self, x, state, lengths, reset_mask, out, return_cell_states=False, keep=False, rng=None,
             name="x"):
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
        given = (h_0, c_0) if state is not None else ()
        if out is not None and not check.writable_in_place(target, x, mask, *given):
            target = np.empty((T, N, D * S), self.dtype)
        cells = np.empty(self._external((T, N, D * H), unbatched), self.dtype) if return_cell_states else None

        batch = _core.Batch(T, N, falling, order)
        packed, threads = self._packed(), dispatch.get_num_threads()
        h_n, c_n = np.empty_like(h_0), None if c_0 is None else np.empty_like(c_0)
        saved, dropped, inputs = [], [], x
        for layer, directions in enumerate(packed):
            last = layer == self.num_layers - 1
            at = slice(layer * D, (layer + 1) * D)
            y = target if last else np.empty((T, N, D * S), self.dtype)
            h_n[at], c, kept = _core.forward_layer(
                directions, batch, inputs, h_0[at], None if c_0 is None else c_0[at], mask, y,
                self._internal(cells, unbatched) if last and cells is not None else None, keep, threads, self.reverse,
                layer > 0)        # an inner layer's input is nobody else's
            if c is not None:
                c_n[at] = c
            saved.append(kept)
            if rng is not None and not last:
                scale = self.dtype.type(0 if self.dropout == 1 else 1 / (1 - self.dropout))
                dropped.append((rng.random(y.shape, np.float32) >= self.dropout).astype(self.dtype))
                dropped[-1] *= scale
                with np.errstate(all="ignore"):
                    y *= dropped[-1]
            inputs = y
        if out is not None and not np.may_share_memory(target, output):
            self._internal(output, unbatched)[...] = target
        cache = Cache(self, saved, dropped, unbatched, (T, N), packed) if keep else None
        return output, self._state_result(h_n, c_n, unbatched), cells, cache

    # ---- Backward --------------------------------------------------------------------------------

    def backward(self, cache, d_output, d_state=None, need_input=True):
        """Gradients of a loss L by back-propagation through time.

        Parameters
        ----------
        cache : Cache
            Of this layer's ``forward``. The parameters it was computed with are used, updated or not since.
        d_output : array
            dL/doutput, shaped as output; past a row's length it is not looked at.
        d_state : array, or pair of arrays for LSTM, optional
            dL/dh_n (and dL/dc_n), shaped as the state; zeros if not given.
        need_input : bool
            False: dL/dx is not computed, and is None.

        Returns
        -------
        Gradients
            ``input``, ``state``, ``parameters``: shaped as x, the initial state, each parameter. The same bits for any
            number of threads and from run to run.
        """
        if not isinstance(cache, Cache):
            raise TypeError(f"cache: expected what forward returned, got {type(cache).__name__}")
        if cache.model is not self:
            raise ValueError("cache: it is of another layer's forward")
        need_input = check.flag(need_input, "need_input")
        T, N = cache.shape
        D, S = self._directions, self._state_size
        shape = self._external((T, N, D * S), cache.unbatched)
        dy = check.shaped(check.array(d_output, "d_output", self.dtype), "d_output", shape)
        dy = check.walkable(self._internal(dy, cache.unbatched))
        dh_n, dc_n = self._states(d_state, N, cache.unbatched, "d_state", ("dh_n", "dc_n"))
        dh_0, dc_0 = np.empty_like(dh_n), None if dc_n is None else np.empty_like(dc_n)
        gradients, threads = {}, dispatch.get_num_threads()
        for layer in reversed(range(self.num_layers)):
            at = slice(layer * D, (layer + 1) * D)
            dy, dh_0[at], dc, found = _core.backward_layer(
                cache.saved[layer], dy, dh_n[at], None if dc_n is None else dc_n[at], threads,
                need_input or layer > 0)
            if dc is not None:
                dc_0[at] = dc
            if layer and cache.dropped:
                with np.errstate(all="ignore"):
                    dy *= cache.dropped[layer - 1]
            for direction, values in enumerate(found):
                suffix = parameters.layer_suffix(layer, direction)
                gradients.update((name + suffix, value) for name, value in values.items())
        dx = np.ascontiguousarray(self._external_view(dy, cache.unbatched)) if need_input else None
        return Gradients(dx, self._state_result(dh_0, dc_0, cache.unbatched),
                         {name: gradients[name] for name in self._parameters})

    # ---- Streaming -------------------------------------------------------------------------------

    def _packed_for_steps(self):
        """Each layer's packed parameters, for a stream; ValueError where this layer cannot be stepped."""
        if self.bidirectional or self.reverse:
            raise ValueError(f"a {'bidirectional' if self.bidirectional else 'reversed'} layer cannot stream: its "
                             "reversed direction starts at the sequence's end, which a stream has not seen")
        return [directions[0] for directions in self._packed()]

    def stream(self, batch_size=1):
        """A :class:`Stream`: this layer's weights as they are now, and a state of its own, stepped one by one."""
        return Stream(self, batch_size)

    def restore(self, snapshot):
        """The stream that ``Stream.snapshot`` wrote; ValueError if it is of another model, or damaged."""
        return Stream._restored(self, snapshot)


_SHARED_DOC = Recurrent.__doc__ or ""         # None under python -OO


@in_files
class RNN(Recurrent):
    __doc__ = """Plain (Elman 1990) recurrent layers:

        h_t = tanh or relu (W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)

    nonlinearity: "tanh" or "relu" (activations=[...] may name another). Everything else:

    """ + _SHARED_DOC + """
    Examples
    --------
    >>> import numpy as np
    >>> layer = RNN(3, 5, rng=0)
    >>> output, h_n = layer(np.ones((7, 2, 3), np.float32))
    >>> output.shape, h_n.shape
    ((7, 2, 5), (1, 2, 5))
    """

    def __init__(self, input_size, hidden_size, num_layers=1, *, nonlinearity="tanh", **options):
        self.nonlinearity = check.choice(nonlinearity, "nonlinearity", ("tanh", "relu"))
        super().__init__(input_size, hidden_size, num_layers, **options)
        if self.activations and set(self.activations) == {("relu", None, None)}:
            self.nonlinearity, self.activations = "relu", None

    @property
    def _kind(self):
        return "rnn_" + self.nonlinearity


@in_files
class GRU(Recurrent):
    __doc__ = """Gated recurrent units (Cho et al. 2014), gates in torch's order r, z, n:

        r_t = sigmoid(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)
        z_t = sigmoid(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)
        n_t = tanh(W_in x_t + b_in + r_t (W_hn h_{t-1} + b_hn))
        h_t = (1 - z_t) n_t + z_t h_{t-1}

    reset_after: True, as above: torch, Keras' default, ONNX linear_before_reset=1. False, the paper's form:
    n_t = tanh(W_in x_t + b_in + W_hn (r_t h_{t-1}) + b_hn). update: "torch", as above, also Keras' and ONNX's;
    "mirror": h_t = z_t n_t + (1 - z_t) h_{t-1} (Chung et al. 2014, Paddle, madmom). Everything else:

    """ + _SHARED_DOC + """
    Examples
    --------
    >>> import numpy as np
    >>> layer = GRU(3, 5, batch_first=True, rng=0)
    >>> output, h_n = layer(np.ones((2, 7, 3), np.float32), lengths=[7, 4])
    >>> bool(np.all(output[1, 4:] == 0)), bool(np.array_equal(h_n[0, 1], output[1, 3]))
    (True, True)
    """

    def __init__(self, input_size, hidden_size, num_layers=1, *, reset_after=True, update="torch", **options):
        self.reset_after = check.flag(reset_after, "reset_after")
        self.update = check.choice(update, "update", ("torch", "mirror"))
        super().__init__(input_size, hidden_size, num_layers, **options)

    @property
    def _kind(self):
        return "gru" if self.reset_after else "gru_before"


@in_files
class LSTM(Recurrent):
    __doc__ = """Long short-term memory (Hochreiter & Schmidhuber 1997; Gers et al. 2000), gates in torch's order
    i, f, g, o:

        i_t, f_t, o_t = sigmoid(W_i. x_t + b_i. + W_h. h_{t-1} + b_h.)
        g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
        c_t = f_t c_{t-1} + i_t g_t
        h_t = o_t tanh(c_t),  or W_hr (o_t tanh(c_t)) with proj_size

    peephole: the sums of i and f also have p_i c_{t-1} and p_f c_{t-1}, that of o has p_o c_t (Gers & Schmidhuber
    2000); the parameter ``peephole_l{k}`` [3*H] holds p_i, p_f, p_o. coupled_gates: f_t = 1 - i_t (ONNX input_forget;
    Greff et al. 2017); the parameters keep the shapes of four gates, those of f have no effect. Everything else:

    """ + _SHARED_DOC + """
    Examples
    --------
    >>> import numpy as np
    >>> layer = LSTM(3, 5, rng=0)
    >>> x = np.ones((7, 2, 3), np.float32)
    >>> output, (h_n, c_n), cache = layer.forward(x)
    >>> grads = layer.backward(cache, np.ones_like(output))
    >>> grads.input.shape, grads.parameters["weight_hh_l0"].shape
    ((7, 2, 3), (20, 5))
    """

    _kind = "lstm"
    _is_lstm = True

    def __init__(self, input_size, hidden_size, num_layers=1, *, peephole=False, coupled_gates=False, **options):
        self.peephole = check.flag(peephole, "peephole")
        self.coupled_gates = check.flag(coupled_gates, "coupled_gates")
        super().__init__(input_size, hidden_size, num_layers, **options)

    def __call__(self, x, state=None, *, lengths=None, reset_mask=None, out=None, return_cell_states=False):
        output, state, cells, _ = self._run(x, state, lengths, reset_mask, out,
                                            check.flag(return_cell_states, "return_cell_states"))
        return (output, state, cells) if return_cell_states else (output, state)

    __call__.__doc__ = (Recurrent.__call__.__doc__ or "").replace("""        Returns
        -------
""", """        return_cell_states : bool
            Also return the last layer's cell states of all steps, [T, N, D*H] in x's convention.

        Returns
        -------
""")
