"""The recurrent layers RNN, GRU and LSTM: their equations and options. What they share is in ``recurrent_base``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self, overload

import numpy as np

from .._base import validation as check
from .._base.registry import in_files
from .._base.typing import Activation, Array, ArrayLike, DTypeLike, LSTMState, LSTMStateLike, ParametersLike, Rng
from . import parameters
from .recurrent_base import Cache, Recurrent

__all__ = ["GRU", "LSTM", "RNN", "Cache", "Recurrent"]


@in_files
class RNN(Recurrent[Array, ArrayLike]):
    """Plain recurrent layers (Elman 1990 [1]_).

    The state of each layer is ::

        h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)

    or max(0, ...) in the place of tanh. The parameters bear torch's names: ``weight_ih_l{k}`` [H, in],
    ``weight_hh_l{k}`` [H, H], ``bias_ih_l{k}`` and ``bias_hh_l{k}`` [H] of layer k, with ``_reverse`` for a second
    direction.

    Parameters
    ----------
    input_size : int
        Number of features I of each step.
    hidden_size : int
        Number of units H.
    num_layers : int, default 1
        Number of layers stacked, each reading the output of the one before.
    nonlinearity : {"tanh", "relu"}, default "tanh"
        The unit's activation; `activations` may name another.
    bias : bool, default True
        Whether the sums have the biases b_ih and b_hh.
    batch_first : bool, default False
        Whether x and output are [N, T, ...] instead of [T, N, ...]. States and masks are not affected.
    dropout : float, default 0.0
        Probability of zeroing an output between layers, in ``forward`` alone; the other outputs are scaled by
        1/(1 - dropout).
    bidirectional : bool, default False
        Whether a second set of parameters walks each row from its last valid step to its first. The outputs of both
        directions are concatenated.
    reverse : bool, default False
        Whether the one direction walks from each row's last valid step to its first. Outputs stay at the time index of
        their input, and h_n is the state after step 0 (ONNX direction="reverse", Keras go_backwards).
    proj_size : int, default 0
        Torch's option; only an LSTM has a projection, so that it must be 0 here.
    activations : sequence, optional
        Other activations, under ONNX's names: that of the unit.
        Each is a name, (name, alpha) or (name, alpha, beta): sigmoid, tanh, relu, affine (alpha x + beta), leaky_relu,
        thresholded_relu (x where x > alpha, else 0), scaled_tanh (alpha tanh(beta x)), hard_sigmoid (alpha x + beta,
        held to 0...1; by default 0.2 and 0.5), elu, softsign, softplus. A bidirectional layer may have twice as many:
        those of the forward direction, then those of the reverse one.
    clip : float, optional
        Bound of the sums that activations are taken of, biases and peepholes included: they are held to -clip...clip.
    dtype : {float32, float64}, default float32
        Type of the parameters, the state and all arithmetic.
    rng : numpy.random.Generator, int or None, default None
        Random generator, or its seed, of the initial parameters, which are drawn from U(-1/sqrt(H), 1/sqrt(H)).

    Raises
    ------
    TypeError, ValueError
        An argument is unsuitable; the message names it.

    References
    ----------
    .. [1] Elman (1990), Finding structure in time. Cognitive Science 14.

    Examples
    --------
    >>> import fastrnn
    >>> import numpy as np
    >>> layer = fastrnn.RNN(3, 5, rng=0)
    >>> output, h_n = layer(np.ones((7, 2, 3), np.float32))
    >>> output.shape, h_n.shape
    ((7, 2, 5), (1, 2, 5))
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, *,
                 nonlinearity: Literal["tanh", "relu"] = "tanh", bias: bool = True, batch_first: bool = False,
                 dropout: float = 0.0, bidirectional: bool = False, reverse: bool = False, proj_size: Literal[0] = 0,
                 activations: Sequence[Activation] | None = None, clip: float | None = None,
                 dtype: DTypeLike = np.float32, rng: Rng = None) -> None:
        self.nonlinearity = check.choice(nonlinearity, "nonlinearity", ("tanh", "relu"))
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, reverse,
                         proj_size, activations, clip, dtype, rng)
        if self.activations and set(self.activations) == {("relu", None, None)}:
            self.nonlinearity, self.activations = "relu", None

    @classmethod
    def from_parameters(cls, mapping: ParametersLike, input_size: int, hidden_size: int, num_layers: int = 1, *,
                        nonlinearity: Literal["tanh", "relu"] = "tanh", bias: bool = True, batch_first: bool = False,
                        dropout: float = 0.0, bidirectional: bool = False, reverse: bool = False,
                        proj_size: Literal[0] = 0, activations: Sequence[Activation] | None = None,
                        clip: float | None = None, dtype: DTypeLike = np.float32) -> Self:
        """Make a layer with given parameters; no random numbers are drawn for it.

        Parameters
        ----------
        mapping : mapping of str to array
            The parameters by name, as for ``load_state_dict``.
        input_size, hidden_size, num_layers : int
            The sizes, as for the class.
        nonlinearity : {"tanh", "relu"}, default "tanh"
            The unit's activation, as for the class.
        bias, batch_first, dropout, bidirectional, reverse, proj_size, activations, clip, dtype : optional
            The options that all recurrent layers have, as for the class.

        Returns
        -------
        RNN
            The layer.

        Raises
        ------
        TypeError, ValueError
            An argument or a parameter is unsuitable; the message names it.

        Examples
        --------
        >>> import fastrnn
        >>> layer = fastrnn.RNN(2, 3, rng=0)
        >>> fastrnn.RNN.from_parameters(layer.state_dict(), 2, 3)
        RNN(2, 3)
        """
        layer = cls(input_size, hidden_size, num_layers, nonlinearity=nonlinearity, bias=bias,
                    batch_first=batch_first, dropout=dropout, bidirectional=bidirectional, reverse=reverse,
                    proj_size=proj_size, activations=activations, clip=clip, dtype=dtype, rng=parameters.UNDRAWN)
        layer.load_state_dict(mapping)
        return layer

    @property
    def _kind(self) -> str:
        return "rnn_" + self.nonlinearity


@in_files
class GRU(Recurrent[Array, ArrayLike]):
    """Gated recurrent units (Cho et al. 2014 [1]_).

    The gates stand in torch's order r, z, n, and the state of each layer is ::

        r_t = sigmoid(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)
        z_t = sigmoid(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)
        n_t = tanh(W_in x_t + b_in + r_t (W_hn h_{t-1} + b_hn))
        h_t = (1 - z_t) n_t + z_t h_{t-1}

    The parameters bear torch's names: ``weight_ih_l{k}`` [3*H, in], ``weight_hh_l{k}`` [3*H, H], ``bias_ih_l{k}`` and
    ``bias_hh_l{k}`` [3*H] of layer k, with ``_reverse`` for a second direction.

    Parameters
    ----------
    input_size : int
        Number of features I of each step.
    hidden_size : int
        Number of units H.
    num_layers : int, default 1
        Number of layers stacked, each reading the output of the one before.
    reset_after : bool, default True
        Whether the reset gate acts after the product with W_hn, as above: torch, Keras' default, ONNX
        linear_before_reset=1. False is the form of the paper, n_t = tanh(W_in x_t + b_in + W_hn (r_t h_{t-1}) + b_hn).
    update : {"torch", "mirror"}, default "torch"
        How the update gate is read: "torch" as above, which is Keras' and ONNX's form, too; "mirror" as
        h_t = z_t n_t + (1 - z_t) h_{t-1} (Chung et al. 2014 [2]_, Paddle, madmom).
    bias : bool, default True
        Whether the sums have the biases b_ih and b_hh.
    batch_first : bool, default False
        Whether x and output are [N, T, ...] instead of [T, N, ...]. States and masks are not affected.
    dropout : float, default 0.0
        Probability of zeroing an output between layers, in ``forward`` alone; the other outputs are scaled by
        1/(1 - dropout).
    bidirectional : bool, default False
        Whether a second set of parameters walks each row from its last valid step to its first. The outputs of both
        directions are concatenated.
    reverse : bool, default False
        Whether the one direction walks from each row's last valid step to its first. Outputs stay at the time index of
        their input, and h_n is the state after step 0 (ONNX direction="reverse", Keras go_backwards).
    proj_size : int, default 0
        Torch's option; only an LSTM has a projection, so that it must be 0 here.
    activations : sequence, optional
        Other activations, under ONNX's names: of the gates r and z, then of n.
        Each is a name, (name, alpha) or (name, alpha, beta): sigmoid, tanh, relu, affine (alpha x + beta), leaky_relu,
        thresholded_relu (x where x > alpha, else 0), scaled_tanh (alpha tanh(beta x)), hard_sigmoid (alpha x + beta,
        held to 0...1; by default 0.2 and 0.5), elu, softsign, softplus. A bidirectional layer may have twice as many:
        those of the forward direction, then those of the reverse one.
    clip : float, optional
        Bound of the sums that activations are taken of, biases and peepholes included: they are held to -clip...clip.
    dtype : {float32, float64}, default float32
        Type of the parameters, the state and all arithmetic.
    rng : numpy.random.Generator, int or None, default None
        Random generator, or its seed, of the initial parameters, which are drawn from U(-1/sqrt(H), 1/sqrt(H)).

    Raises
    ------
    TypeError, ValueError
        An argument is unsuitable; the message names it.

    References
    ----------
    .. [1] Cho et al. (2014), Learning phrase representations using RNN encoder-decoder. EMNLP.
    .. [2] Chung et al. (2014), Empirical evaluation of gated recurrent neural networks on sequence modeling.
       arXiv:1412.3555.

    Examples
    --------
    >>> import fastrnn
    >>> import numpy as np
    >>> layer = fastrnn.GRU(3, 5, batch_first=True, rng=0)
    >>> output, h_n = layer(np.ones((2, 7, 3), np.float32), lengths=[7, 4])
    >>> bool(np.all(output[1, 4:] == 0)), bool(np.array_equal(h_n[0, 1], output[1, 3]))
    (True, True)
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, *,
                 reset_after: bool = True, update: Literal["torch", "mirror"] = "torch", bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, reverse: bool = False,
                 proj_size: Literal[0] = 0, activations: Sequence[Activation] | None = None, clip: float | None = None,
                 dtype: DTypeLike = np.float32, rng: Rng = None) -> None:
        self.reset_after = check.flag(reset_after, "reset_after")
        self.update = check.choice(update, "update", ("torch", "mirror"))
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, reverse,
                         proj_size, activations, clip, dtype, rng)

    @classmethod
    def from_parameters(cls, mapping: ParametersLike, input_size: int, hidden_size: int, num_layers: int = 1, *,
                        reset_after: bool = True, update: Literal["torch", "mirror"] = "torch", bias: bool = True,
                        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
                        reverse: bool = False, proj_size: Literal[0] = 0,
                        activations: Sequence[Activation] | None = None, clip: float | None = None,
                        dtype: DTypeLike = np.float32) -> Self:
        """Make a layer with given parameters; no random numbers are drawn for it.

        Parameters
        ----------
        mapping : mapping of str to array
            The parameters by name, as for ``load_state_dict``.
        input_size, hidden_size, num_layers : int
            The sizes, as for the class.
        reset_after, update : optional
            The options of a GRU, as for the class.
        bias, batch_first, dropout, bidirectional, reverse, proj_size, activations, clip, dtype : optional
            The options that all recurrent layers have, as for the class.

        Returns
        -------
        GRU
            The layer.

        Raises
        ------
        TypeError, ValueError
            An argument or a parameter is unsuitable; the message names it.

        Examples
        --------
        >>> import fastrnn
        >>> layer = fastrnn.GRU(2, 3, rng=0)
        >>> fastrnn.GRU.from_parameters(layer.state_dict(), 2, 3)
        GRU(2, 3)
        """
        layer = cls(input_size, hidden_size, num_layers, reset_after=reset_after, update=update, bias=bias,
                    batch_first=batch_first, dropout=dropout, bidirectional=bidirectional, reverse=reverse,
                    proj_size=proj_size, activations=activations, clip=clip, dtype=dtype, rng=parameters.UNDRAWN)
        layer.load_state_dict(mapping)
        return layer

    @property
    def _kind(self) -> str:
        return "gru" if self.reset_after else "gru_before"


@in_files
class LSTM(Recurrent[LSTMState, LSTMStateLike]):
    """Long short-term memory (Hochreiter & Schmidhuber 1997 [1]_; Gers et al. 2000 [2]_).

    The gates stand in torch's order i, f, g, o, and the state of each layer is the pair (h, c) ::

        i_t, f_t, o_t = sigmoid(W_i. x_t + b_i. + W_h. h_{t-1} + b_h.)
        g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
        c_t = f_t c_{t-1} + i_t g_t
        h_t = o_t tanh(c_t),  or W_hr (o_t tanh(c_t)) with proj_size

    The parameters bear torch's names: ``weight_ih_l{k}`` [4*H, in], ``weight_hh_l{k}`` [4*H, S], ``bias_ih_l{k}`` and
    ``bias_hh_l{k}`` [4*H], ``weight_hr_l{k}`` [proj_size, H] of layer k, with ``_reverse`` for a second direction. S is
    proj_size, or H without projection.

    Parameters
    ----------
    input_size : int
        Number of features I of each step.
    hidden_size : int
        Number of units H.
    num_layers : int, default 1
        Number of layers stacked, each reading the output of the one before.
    peephole : bool, default False
        Whether the gates see the cell state (Gers & Schmidhuber 2000 [4]_): p_i c_{t-1} and p_f c_{t-1} are added to
        the sums of i and f, p_o c_t to that of o. The parameter ``peephole_l{k}`` [3*H] holds p_i, p_f and p_o.
    coupled_gates : bool, default False
        Whether f_t = 1 - i_t (ONNX input_forget; Greff et al. 2017 [5]_). The parameters keep the shapes of four gates,
        and those of f have no effect.
    bias : bool, default True
        Whether the sums have the biases b_ih and b_hh.
    batch_first : bool, default False
        Whether x and output are [N, T, ...] instead of [T, N, ...]. States and masks are not affected.
    dropout : float, default 0.0
        Probability of zeroing an output between layers, in ``forward`` alone; the other outputs are scaled by
        1/(1 - dropout).
    bidirectional : bool, default False
        Whether a second set of parameters walks each row from its last valid step to its first. The outputs of both
        directions are concatenated.
    reverse : bool, default False
        Whether the one direction walks from each row's last valid step to its first. Outputs stay at the time index of
        their input, and h_n is the state after step 0 (ONNX direction="reverse", Keras go_backwards).
    proj_size : int, default 0
        Size of the projection h_t = W_hr m_t (Sak, Senior & Beaufays 2014) [3]_; 0 for none. Less than hidden_size.
    activations : sequence, optional
        Other activations, under ONNX's names: of the gates i, f and o, then of g, then of c_t.
        Each is a name, (name, alpha) or (name, alpha, beta): sigmoid, tanh, relu, affine (alpha x + beta), leaky_relu,
        thresholded_relu (x where x > alpha, else 0), scaled_tanh (alpha tanh(beta x)), hard_sigmoid (alpha x + beta,
        held to 0...1; by default 0.2 and 0.5), elu, softsign, softplus. A bidirectional layer may have twice as many:
        those of the forward direction, then those of the reverse one.
    clip : float, optional
        Bound of the sums that activations are taken of, biases and peepholes included: they are held to -clip...clip.
    dtype : {float32, float64}, default float32
        Type of the parameters, the state and all arithmetic.
    rng : numpy.random.Generator, int or None, default None
        Random generator, or its seed, of the initial parameters, which are drawn from U(-1/sqrt(H), 1/sqrt(H)).

    Raises
    ------
    TypeError, ValueError
        An argument is unsuitable; the message names it.

    References
    ----------
    .. [1] Hochreiter & Schmidhuber (1997), Long short-term memory. Neural Computation 9.
    .. [2] Gers, Schmidhuber & Cummins (2000), Learning to forget. Neural Computation 12.
    .. [3] Sak, Senior & Beaufays (2014), Long short-term memory recurrent neural network architectures for large scale
       acoustic modeling. Interspeech.
    .. [4] Gers & Schmidhuber (2000), Recurrent nets that time and count. IJCNN.
    .. [5] Greff et al. (2017), LSTM: A search space odyssey. IEEE Transactions on Neural Networks and Learning
       Systems 28.

    Examples
    --------
    >>> import fastrnn
    >>> import numpy as np
    >>> layer = fastrnn.LSTM(3, 5, rng=0)
    >>> output, (h_n, c_n), cache = layer.forward(np.ones((7, 2, 3), np.float32))
    >>> gradients = layer.backward(cache, np.ones_like(output))
    >>> gradients.input.shape, gradients.parameters["weight_hh_l0"].shape
    ((7, 2, 3), (20, 5))
    """

    _kind = "lstm"
    _is_lstm = True

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, *,
                 peephole: bool = False, coupled_gates: bool = False, bias: bool = True, batch_first: bool = False,
                 dropout: float = 0.0, bidirectional: bool = False, reverse: bool = False, proj_size: int = 0,
                 activations: Sequence[Activation] | None = None, clip: float | None = None,
                 dtype: DTypeLike = np.float32, rng: Rng = None) -> None:
        self.peephole = check.flag(peephole, "peephole")
        self.coupled_gates = check.flag(coupled_gates, "coupled_gates")
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, reverse,
                         proj_size, activations, clip, dtype, rng)

    @classmethod
    def from_parameters(cls, mapping: ParametersLike, input_size: int, hidden_size: int, num_layers: int = 1, *,
                        peephole: bool = False, coupled_gates: bool = False, bias: bool = True,
                        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
                        reverse: bool = False, proj_size: int = 0, activations: Sequence[Activation] | None = None,
                        clip: float | None = None, dtype: DTypeLike = np.float32) -> Self:
        """Make a layer with given parameters; no random numbers are drawn for it.

        Parameters
        ----------
        mapping : mapping of str to array
            The parameters by name, as for ``load_state_dict``.
        input_size, hidden_size, num_layers : int
            The sizes, as for the class.
        peephole, coupled_gates : optional
            The options of an LSTM, as for the class.
        bias, batch_first, dropout, bidirectional, reverse, proj_size, activations, clip, dtype : optional
            The options that all recurrent layers have, as for the class.

        Returns
        -------
        LSTM
            The layer.

        Raises
        ------
        TypeError, ValueError
            An argument or a parameter is unsuitable; the message names it.

        Examples
        --------
        >>> import fastrnn
        >>> layer = fastrnn.LSTM(2, 3, rng=0)
        >>> fastrnn.LSTM.from_parameters(layer.state_dict(), 2, 3)
        LSTM(2, 3)
        """
        layer = cls(input_size, hidden_size, num_layers, peephole=peephole, coupled_gates=coupled_gates, bias=bias,
                    batch_first=batch_first, dropout=dropout, bidirectional=bidirectional, reverse=reverse,
                    proj_size=proj_size, activations=activations, clip=clip, dtype=dtype, rng=parameters.UNDRAWN)
        layer.load_state_dict(mapping)
        return layer

    @overload
    def __call__(self, x: ArrayLike, state: LSTMStateLike | None = None, *, lengths: ArrayLike | None = None,
                 reset_mask: ArrayLike | None = None, out: Array | None = None,
                 return_cell_states: Literal[False] = False) -> tuple[Array, LSTMState]: ...

    @overload
    def __call__(self, x: ArrayLike, state: LSTMStateLike | None = None, *, lengths: ArrayLike | None = None,
                 reset_mask: ArrayLike | None = None, out: Array | None = None,
                 return_cell_states: Literal[True]) -> tuple[Array, LSTMState, Array]: ...

    @overload
    def __call__(self, x: ArrayLike, state: LSTMStateLike | None = None, *, lengths: ArrayLike | None = None,
                 reset_mask: ArrayLike | None = None, out: Array | None = None,
                 return_cell_states: bool) -> tuple[Array, LSTMState] | tuple[Array, LSTMState, Array]: ...

    def __call__(self, x: ArrayLike, state: LSTMStateLike | None = None, *, lengths: ArrayLike | None = None,
                 reset_mask: ArrayLike | None = None, out: Array | None = None,
                 return_cell_states: bool = False) -> tuple[Array, LSTMState] | tuple[Array, LSTMState, Array]:
        """Run the layers over sequences; nothing is kept for ``backward``.

        Parameters
        ----------
        x : array
            The input [T, N, I], [N, T, I] with ``batch_first``, or unbatched [T, I]. It has the model's dtype, or one
            that converts up to it; Python lists take the model's dtype.
        state : pair of arrays, optional
            The initial state: h_0 [L*D, N, S] and c_0 [L*D, N, H] (unbatched without N); zeros if not given.
        lengths : array of int [N], optional
            Valid steps of each row, 0 to T, in any order. Later outputs are exactly 0 and cost nothing; h_n and c_n are
            the state after the last valid step.
        reset_mask : array of bool [T, N], optional
            Where set, the state of row n is zeroed before step t.
        out : array, optional
            Written in place and returned as output.
        return_cell_states : bool, default False
            Whether the last layer's cell states of all steps are returned, too.

        Returns
        -------
        output : array
            The last layer's h after each step, [T, N, D*S] in x's convention.
        state : pair of arrays
            The state h_n, c_n after the last step, shaped as the initial state.
        cell_states : array
            The last layer's c after each step, [T, N, D*H] in x's convention; with return_cell_states alone.

        Raises
        ------
        TypeError, ValueError
            An argument is unsuitable; the message names it and says what was expected.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> layer = fastrnn.LSTM(3, 5, rng=0)
        >>> output, (h_n, c_n), cells = layer(np.ones((7, 2, 3), np.float32), return_cell_states=True)
        >>> output.shape, h_n.shape, bool((cells[-1] == c_n[0]).all())
        ((7, 2, 5), (1, 2, 5), True)
        """
        if return_cell_states is False and lengths is None and reset_mask is None and type(x) is np.ndarray:
            result = self._quick_call(x, state, out)
            if result is not None:
                return result
        output, last, cells, _ = self._run(x, state, lengths, reset_mask, out,
                                           check.flag(return_cell_states, "return_cell_states"))
        return (output, last, cells) if return_cell_states else (output, last)
