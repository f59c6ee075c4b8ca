"""The oracle: every recurrence and every gradient of fastrnn in plain NumPy, written to be read.

The functions have the compiled kernels' signatures, so a test runs both on the same arguments. Reading order:
`sigmoid`, then the cells (each step with its back-propagation directly below), then `forward`, `backward`, `layers`.

Symbols: T steps, N batch rows, I inputs, H hidden units, G gates (RNN 1, GRU 3, LSTM 4), S outputs (H, or proj_size).
A row of an array is one sequence of the batch, so W v of an equation is `v @ W.T` in code. `dv` stands for dloss/dv.
"""
import numpy as np


def sigmoid(x):
    """Logistic function sigma(x) = 1 / (1 + exp(-x)), without overflow for any x.

    Parameters
    ----------
    x : array_like of float32 or float64, any shape

    Returns
    -------
    ndarray of x's shape and dtype, values in [0, 1]; NaN stays NaN

    Examples
    --------
    >>> sigmoid(np.array([-1e38, 0.0, 1e38]))
    array([0. , 0.5, 1. ])
    """
    # e <= 1; sigma(x) = 1 / (1 + e) for x >= 0, e / (1 + e) for x < 0
    e = np.exp(-np.abs(x))
    return np.where(np.greater_equal(x, 0), 1, e) / (1 + e)


def _affine(p, name, v, gates=slice(None)):
    """a = W v + b, of the given rows of W and b; b is left out where it is None."""
    weight, bias = p["weight_" + name][gates], p.get("bias_" + name)
    return v @ weight.T if bias is None else v @ weight.T + bias[gates]


def _affine_backward(p, gradients, name, v, da, gates=slice(None)):
    # dW = sum over rows of da vᵀ
    gradients["weight_" + name][gates] += da.T @ v
    # db = sum over rows of da
    if "bias_" + name in gradients:
        gradients["bias_" + name][gates] += da.sum(axis=0)
    # dv = Wᵀ da
    return da @ p["weight_" + name][gates]


# Cells. step(p, x, *state) -> (new state, saved); step_backward(p, gradients, saved, *dnew) -> (dx, *dstate) adds the
# parameters' gradients to `gradients`. The state is (h,), for LSTM (h, c). x [n, I], h [n, S], c [n, H].

def _rnn_tanh_step(p, x, h):
    # h_t = tanh(W_ih x + b_ih + W_hh h + b_hh)
    h_new = np.tanh(_affine(p, "ih", x) + _affine(p, "hh", h))
    return (h_new,), (x, h, h_new)


def _rnn_tanh_step_backward(p, gradients, saved, dh_new):
    x, h, h_new = saved
    # da = dh_t (1 - h_t²)
    da = dh_new * (1 - h_new**2)
    return _affine_backward(p, gradients, "ih", x, da), _affine_backward(p, gradients, "hh", h, da)


def _rnn_relu_step(p, x, h):
    # h_t = max(0, W_ih x + b_ih + W_hh h + b_hh)
    h_new = np.maximum(0, _affine(p, "ih", x) + _affine(p, "hh", h))
    return (h_new,), (x, h, h_new)


def _rnn_relu_step_backward(p, gradients, saved, dh_new):
    x, h, h_new = saved
    # da = dh_t where h_t > 0, else 0
    da = np.where(h_new <= 0, 0, dh_new)
    return _affine_backward(p, gradients, "ih", x, da), _affine_backward(p, gradients, "hh", h, da)


def _lstm_step(p, x, h, c):
    # a = W_ih x + b_ih + W_hh h + b_hh, gates in torch's order i, f, g, o
    a_i, a_f, a_g, a_o = np.split(_affine(p, "ih", x) + _affine(p, "hh", h), 4, axis=1)
    i, f, g, o = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
    # c_t = f c + i g
    c_new = f * c + i * g
    # m = o tanh(c_t)
    tanh_c = np.tanh(c_new)
    m = o * tanh_c
    # h_t = W_hr m with a projection, else m
    h_new = m if p.get("weight_hr") is None else _affine(p, "hr", m)
    return (h_new, c_new), (x, h, c, i, f, g, o, tanh_c, m)


def _lstm_step_backward(p, gradients, saved, dh_new, dc_new):
    x, h, c, i, f, g, o, tanh_c, m = saved
    # dm = W_hrᵀ dh_t with a projection, else dh_t
    dm = dh_new if p.get("weight_hr") is None else _affine_backward(p, gradients, "hr", m, dh_new)
    # c_t acts on the next step, and by m = o tanh(c_t)
    dc_new = dc_new + dm * o * (1 - tanh_c**2)
    # da_i = dc_t g i (1 - i)
    da_i = dc_new * g * i * (1 - i)
    # da_f = dc_t c f (1 - f)
    da_f = dc_new * c * f * (1 - f)
    # da_g = dc_t i (1 - g²)
    da_g = dc_new * i * (1 - g**2)
    # da_o = dm tanh(c_t) o (1 - o)
    da_o = dm * tanh_c * o * (1 - o)
    da = np.concatenate([da_i, da_f, da_g, da_o], axis=1)
    # dc = dc_t f
    return _affine_backward(p, gradients, "ih", x, da), _affine_backward(p, gradients, "hh", h, da), dc_new * f


def _gru_step(p, x, h):
    # a = W_ih x + b_ih and u = W_hh h + b_hh, gates in torch's order r, z, n
    a_r, a_z, a_n = np.split(_affine(p, "ih", x), 3, axis=1)
    u_r, u_z, u_n = np.split(_affine(p, "hh", h), 3, axis=1)
    r, z = sigmoid(a_r + u_r), sigmoid(a_z + u_z)
    # n = tanh(W_in x + b_in + r (W_hn h + b_hn)): the reset gate acts after the product
    n = np.tanh(a_n + r * u_n)
    # h_t = (1 - z) n + z h
    return ((1 - z) * n + z * h,), (x, h, r, z, n, u_n)


def _gru_step_backward(p, gradients, saved, dh_new):
    x, h, r, z, n, u_n = saved
    # da_n = dh_t (1 - z) (1 - n²)
    da_n = dh_new * (1 - z) * (1 - n**2)
    # da_z = dh_t (h - n) z (1 - z)
    da_z = dh_new * (h - n) * z * (1 - z)
    # da_r = da_n u_n r (1 - r)
    da_r = da_n * u_n * r * (1 - r)
    # du = da, but du_n = da_n r
    da = np.concatenate([da_r, da_z, da_n], axis=1)
    du = np.concatenate([da_r, da_z, da_n * r], axis=1)
    # dh = dh_t z + W_hhᵀ du
    dh = dh_new * z + _affine_backward(p, gradients, "hh", h, du)
    return _affine_backward(p, gradients, "ih", x, da), dh


def _gru_before_step(p, x, h):
    gates_rz, gate_n = slice(0, 2 * h.shape[1]), slice(2 * h.shape[1], None)
    # a = W_ih x + b_ih, gates in torch's order r, z, n; u = W_hh h + b_hh for r and z only
    a_r, a_z, a_n = np.split(_affine(p, "ih", x), 3, axis=1)
    u_r, u_z = np.split(_affine(p, "hh", h, gates_rz), 2, axis=1)
    r, z = sigmoid(a_r + u_r), sigmoid(a_z + u_z)
    # n = tanh(W_in x + b_in + W_hn (r h) + b_hn): the reset gate acts before the product
    n = np.tanh(a_n + _affine(p, "hh", r * h, gate_n))
    # h_t = (1 - z) n + z h
    return ((1 - z) * n + z * h,), (x, h, r, z, n)


def _gru_before_step_backward(p, gradients, saved, dh_new):
    x, h, r, z, n = saved
    gates_rz, gate_n = slice(0, 2 * h.shape[1]), slice(2 * h.shape[1], None)
    # da_n = dh_t (1 - z) (1 - n²)
    da_n = dh_new * (1 - z) * (1 - n**2)
    # da_z = dh_t (h - n) z (1 - z)
    da_z = dh_new * (h - n) * z * (1 - z)
    # d(r h) = W_hnᵀ da_n
    drh = _affine_backward(p, gradients, "hh", r * h, da_n, gate_n)
    # da_r = d(r h) h r (1 - r)
    da_r = drh * h * r * (1 - r)
    # dh = dh_t z + d(r h) r + W_hrᵀ da_r + W_hzᵀ da_z
    da_rz = np.concatenate([da_r, da_z], axis=1)
    dh = dh_new * z + drh * r + _affine_backward(p, gradients, "hh", h, da_rz, gates_rz)
    return _affine_backward(p, gradients, "ih", x, np.concatenate([da_rz, da_n], axis=1)), dh


_STEPS = {
    "rnn_tanh": (_rnn_tanh_step, _rnn_tanh_step_backward),
    "rnn_relu": (_rnn_relu_step, _rnn_relu_step_backward),
    "lstm": (_lstm_step, _lstm_step_backward),
    "gru": (_gru_step, _gru_step_backward),
    "gru_before": (_gru_before_step, _gru_before_step_backward),
}


def forward(kind, parameters, x, h_0, c_0=None, lengths=None, reset_mask=None, reverse=False):
    """One direction of one recurrent layer over a batch of sequences, with all that `backward` needs.

    Parameters
    ----------
    kind : {"rnn_tanh", "rnn_relu", "lstm", "gru", "gru_before"}
    parameters : dict of str to ndarray
        weight_ih [G*H, I], weight_hh [G*H, S], bias_ih and bias_hh [G*H] or None, for an LSTM with projection also
        weight_hr [S, H]; all float32 or all float64. All arithmetic is done in this dtype.
    x : array_like [T, N, I]
    h_0 : array_like [N, S]
    c_0 : array_like [N, H], LSTM only
    lengths : array_like of int [N], optional
        Steps of each row, 0 to T, in any order; T if not given. What lies past them is never read.
    reset_mask : array_like of bool [T, N], optional
        Where set, the state of row n is zero just before the step at time index t is taken.
    reverse : bool
        Walk row n from t = lengths[n] - 1 down to 0. The output stays at the time index of its input.

    Returns
    -------
    y : ndarray [T, N, S]
        h after each step, exactly 0 past a row's length.
    h_n [N, S], c_n [N, H] : ndarray
        State after the last step taken; the initial state for a row of length 0.
    c_all : ndarray [T, N, H]
        c after each step, as `y`. Both c_n and c_all are None unless LSTM.
    cache : dict
        For `backward`.

    Raises
    ------
    ValueError for an unknown `kind`; TypeError for an LSTM without `c_0`, or another kind with it.

    Notes
    -----
    h and c on the right are the state before the step, sigma is `sigmoid`, products of vectors are elementwise::

        RNN [1]_          h_t = tanh(W_ih x + b_ih + W_hh h + b_hh), or max(0, ·)
        LSTM [2]_, [3]_   i, f, o = sigma(W_ih x + b_ih + W_hh h + b_hh), g likewise with tanh; rows in order i, f, g, o
                          c_t = f c + i g
                          h_t = o tanh(c_t), with projection [5]_ W_hr (o tanh(c_t))
        GRU [4]_          r, z = sigma(W_ih x + b_ih + W_hh h + b_hh); rows in order r, z, n
          "gru"           n = tanh(W_in x + b_in + r (W_hn h + b_hn)), as in torch
          "gru_before"    n = tanh(W_in x + b_in + W_hn (r h) + b_hn), as in the paper
                          h_t = (1 - z) n + z h

    The LSTM has no peepholes, and its projection is recurrent only. Two biases and the orders of the gates are torch's.

    References
    ----------
    .. [1] Elman (1990), Finding structure in time. Cognitive Science 14.
    .. [2] Hochreiter & Schmidhuber (1997), Long short-term memory. Neural Computation 9.
    .. [3] Gers, Schmidhuber & Cummins (2000), Learning to forget. Neural Computation 12. (The forget gate.)
    .. [4] Cho et al. (2014), Learning phrase representations using RNN encoder-decoder. EMNLP.
    .. [5] Sak, Senior & Beaufays (2014), Long short-term memory recurrent neural network architectures for large scale
       acoustic modeling. Interspeech. (LSTMP.)

    Examples
    --------
    All inputs and weights are 1, so y counts the steps:

    >>> parameters = {"weight_ih": np.ones((1, 1)), "weight_hh": np.ones((1, 1)), "bias_ih": None, "bias_hh": None}
    >>> y, h_n, _, _, _ = forward("rnn_relu", parameters, np.ones((3, 2, 1)), np.zeros((2, 1)), lengths=[3, 2])
    >>> y[:, :, 0].T
    array([[1., 2., 3.],
           [1., 2., 0.]])
    >>> h_n[:, 0]
    array([3., 2.])
    """
    if kind not in _STEPS:
        raise ValueError(f"kind must be one of {', '.join(_STEPS)}; got {kind!r}")
    if (c_0 is not None) != (kind == "lstm"):
        raise TypeError(f"c_0 is needed for kind 'lstm' and for no other; got c_0={type(c_0).__name__} for {kind!r}")
    step, _ = _STEPS[kind]
    dtype = parameters["weight_ih"].dtype
    x = np.asarray(x, dtype)
    T, N, _ = x.shape
    lengths = np.full(N, T) if lengths is None else np.asarray(lengths)
    reset_mask = np.zeros((T, N), bool) if reset_mask is None else np.asarray(reset_mask, bool)

    state = [np.array(initial, dtype) for initial in (h_0, c_0) if initial is not None]
    series = [np.zeros((T, *part.shape), dtype) for part in state]
    steps = []
    for t in reversed(range(T)) if reverse else range(T):
        rows = np.flatnonzero(t < lengths)
        before = [part[rows] for part in state]
        for part in before:
            part[reset_mask[t, rows]] = 0
        after, saved = step(parameters, x[t, rows], *before)
        for part, part_series, new in zip(state, series, after):
            part[rows] = part_series[t, rows] = new
        steps.append((t, rows, reset_mask[t, rows], saved))

    cache = {"kind": kind, "parameters": parameters, "x_shape": x.shape, "state_shapes": [part.shape for part in state],
             "steps": steps}
    c_n, c_all = (state[1], series[1]) if kind == "lstm" else (None, None)
    return series[0], state[0], c_n, c_all, cache


def backward(cache, dy, dh_n=None, dc_n=None):
    """Gradients of one direction of one layer by back-propagation through time [1]_.

    Parameters
    ----------
    cache : dict
        From `forward`; not changed, so it may be used again.
    dy : array_like [T, N, S]
        What lies past a row's length has no effect: y is the constant 0 there.
    dh_n [N, S], dc_n [N, H] : array_like, optional
        Zero if not given; dc_n for LSTM only.

    Returns
    -------
    dx [T, N, I], dh_0 [N, S], dc_0 [N, H] : ndarray
        In the parameters' dtype; dc_0 is None unless LSTM.
    gradients : dict of str to ndarray
        For each parameter that is not None, by its name, an array of its shape and dtype.

    Notes
    -----
    Steps are walked in the opposite order, at each dloss/dh_t = dy_t + (what the next step sent back); a state that
    was reset sends nothing back. Each cell's equations stand in its step_backward.

    References
    ----------
    .. [1] Werbos (1990), Backpropagation through time: what it does and how to do it. Proceedings of the IEEE 78.

    Examples
    --------
    y counts the steps, so that the first of three inputs counts three times in the sum of y:

    >>> parameters = {"weight_ih": np.ones((1, 1)), "weight_hh": np.ones((1, 1)), "bias_ih": None, "bias_hh": None}
    >>> y, _, _, _, cache = forward("rnn_relu", parameters, np.ones((3, 1, 1)), np.zeros((1, 1)))
    >>> dx, _, _, gradients = backward(cache, np.ones_like(y))
    >>> dx[:, 0, 0]
    array([3., 2., 1.])
    >>> gradients["weight_ih"]
    array([[6.]])
    """
    parameters = cache["parameters"]
    dtype = parameters["weight_ih"].dtype
    _, step_backward = _STEPS[cache["kind"]]
    dy = np.asarray(dy, dtype)
    dx = np.zeros(cache["x_shape"], dtype)
    dstate = [np.zeros(shape, dtype) if given is None else np.array(given, dtype)
              for shape, given in zip(cache["state_shapes"], (dh_n, dc_n))]
    gradients = {name: np.zeros_like(value) for name, value in parameters.items() if value is not None}

    for t, rows, resets, saved in reversed(cache["steps"]):
        dh, *dc = [dpart[rows] for dpart in dstate]
        # dh_t = dy_t + (what the next step sent back)
        dx[t, rows], *dbefore = step_backward(parameters, gradients, saved, dh + dy[t, rows], *dc)
        for dpart, new in zip(dstate, dbefore):
            new[resets] = 0
            dpart[rows] = new

    return dx, dstate[0], dstate[1] if cache["kind"] == "lstm" else None, gradients


def layers(kind, parameters, x, h_0, c_0=None, lengths=None, reset_mask=None, num_layers=1, directions=1):
    """A stack of layers in one or two directions, without dropout.

    Parameters
    ----------
    parameters : list of L*D dicts as in `forward`, for L = num_layers and D = directions
        In torch's order: layer by layer, in each the forward direction, then the reverse one.
    h_0 [L*D, N, S], c_0 [L*D, N, H] : array_like
        In the order of `parameters`; c_0 for LSTM only.
    num_layers : int
    directions : {1, 2}
    kind, x, lengths, reset_mask
        As in `forward`. A layer after the first has the y of the one before as its input: I = D*S there.

    Returns
    -------
    y : ndarray [T, N, D*S]
        Of the last layer: y = (y of the forward direction, y of the reverse one), concatenated on the last axis.
    h_n [L*D, N, S], c_n [L*D, N, H] : ndarray
        As in `forward`; c_n is None unless LSTM.

    Examples
    --------
    >>> one = {"weight_ih": np.ones((1, 1)), "weight_hh": np.ones((1, 1))}
    >>> y, h_n, _ = layers("rnn_relu", [one, one], np.ones((3, 1, 1)), np.zeros((2, 1, 1)), directions=2)
    >>> y[:, 0].T
    array([[1., 2., 3.],
           [3., 2., 1.]])
    """
    states = []
    for k in range(num_layers):
        outputs = []
        for index in range(k * directions, (k + 1) * directions):
            y, h_n, c_n, _, _ = forward(kind, parameters[index], x, h_0[index], None if c_0 is None else c_0[index],
                                        lengths, reset_mask, reverse=index % directions == 1)
            outputs.append(y)
            states.append((h_n, c_n))
        x = np.concatenate(outputs, axis=-1)
    h_n, c_n = zip(*states)
    return x, np.stack(h_n), np.stack(c_n) if kind == "lstm" else None
