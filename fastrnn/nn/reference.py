"""Every recurrence and every gradient of fastrnn in plain NumPy, written to be read. The kernels are tested against it.

The functions have the compiled kernels' signatures, so a test runs both on the same arguments. Reading order:
`sigmoid`, then the cells (each step with its back-propagation directly below), then `forward`, `backward`, `layers`.

Symbols: T steps, N batch rows, I inputs, H hidden units, G gates (RNN 1, GRU 3, LSTM 4), S outputs (H, or proj_size).
A row of an array is one sequence of the batch, so W v of an equation is `v @ W.T` in code. `dv` stands for dloss/dv.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .._base.typing import Array, ArrayLike
from .parameters import PLAIN

Named = Mapping[str, Any]                   # parameters by name, an array or None each
Rule = Callable[[Array, Any, Any], Array]   # an activation or its slope: of the sums a and two numbers alpha and beta


def sigmoid(x: ArrayLike) -> Array:
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
    e: Array = np.exp(-np.abs(x))
    result: Array = np.where(np.greater_equal(x, 0), 1, e) / (1 + e)
    return result


def quantise(v: Array, column: Array) -> tuple[Array, Array]:
    """Rows as int8 numbers q and a scale t each, so that v column is about t q: what int8 weights are multiplied with.

    Parameters
    ----------
    v : ndarray of float32 [n, K]
    column : ndarray of float32 [K], the scales of the weights' columns

    Returns
    -------
    q : ndarray of int64 [n, K], values -127 to 127
    t : ndarray of float32 [n]

    Notes
    -----
    With u = v column and m = max |u| of a row, t = m / 127 and q = u (127 / m) rounded to nearest, ties to even, every
    operation in float32. Where m < 2^-119, t and q are 0. Where a number is NaN, t is NaN and q is 0; else, where
    numbers are infinite, t is infinite, q is +-1 for them and 0 for the others.

    Examples
    --------
    >>> q, t = quantise(np.array([[1, -0.5, 0.1]], np.float32), np.ones(3, np.float32))
    >>> q, bool(t == np.float32(1) / np.float32(127))
    (array([[127, -64,  13]]), True)
    """
    with np.errstate(over="ignore"):
        u = v * column
    m = np.abs(u).max(axis=1, initial=0)
    normal = np.isfinite(m) & (m >= 2.0**-119)
    factor = np.float32(127) / np.where(normal, m, np.float32(1))
    q = np.rint(np.where(normal[:, None], u * factor[:, None], 0))
    q = np.where(np.isinf(m)[:, None] & np.isinf(u), np.sign(u), q)
    return q.astype(np.int64), np.where(normal, m / np.float32(127), np.where(np.isfinite(m), np.float32(0), m))


def round_half(v: Array) -> Array:
    """Numbers rounded to bfloat16, the upper 16 bits of a float32: what bfloat16 weights are multiplied with.

    Parameters
    ----------
    v : ndarray of float32, any shape

    Returns
    -------
    ndarray of float32, shaped as v

    Notes
    -----
    Rounding is to nearest, ties to even. Finite numbers stay finite: beyond the largest bfloat16 number, about 3.39e38,
    they become that. NaN and infinity stay what they are. Subnormal numbers become 0.

    Examples
    --------
    >>> round_half(np.array([1, 1.001, 0.1], np.float32))
    array([1.        , 1.        , 0.10009766], dtype=float32)
    """
    bits = v.astype(np.float32).view(np.uint32)
    sign, size = bits & 0x80000000, np.minimum(bits & 0x7FFFFFFF, 0x7F7F0000)
    rounded = (size + 0x7FFF + (size >> 16 & 1)) & 0xFFFF0000
    rounded[np.abs(v) < 2.0**-126] = 0
    result: Array = (rounded | sign).astype(np.uint32).view(np.float32)
    return np.where(np.isfinite(v), result, v)


def _pair_product(weight: Array, v: Array) -> Array:
    """W v of bfloat16 weights: of rounded numbers, in float32."""
    w = (weight.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(all="ignore"):
        product: Array = round_half(v) @ w.T
    return product


def _integer_product(weight: Array, row: Array, column: Array, v: Array) -> Array:
    """W v of int8 weights with the scales of their rows and columns: exact sums, then float32."""
    q, t = quantise(v, column)
    w = weight.T.astype(np.int64)
    with np.errstate(all="ignore"):
        product: Array = (q @ w).astype(np.float32) * t[:, None] * row
    for n in np.flatnonzero(np.isinf(t)):
        # An infinity of the sign of w v, NaN where both signs meet, 0 where the weights of infinite numbers are all 0.
        up, down = ((sign * q[n][:, None] * w > 0).any(axis=0) for sign in (1, -1))
        product[n] = np.where(up, np.where(down, np.nan, np.inf), np.where(down, -np.inf, 0))
    return product


def _factor(p: Named, v: Array) -> Array:
    """A factor of a product: v, rounded where the products' precision is bfloat16."""
    return round_half(v) if p.get("precision") == "bfloat16" else v


def _affine(p: Named, name: str, v: Array, gates: slice = slice(None)) -> Any:
    """a = W v + b, of the given rows of W and b; b is left out where it is None."""
    weight, bias = p["weight_" + name][gates], p.get("bias_" + name)
    if weight.dtype == np.int8:
        product = _integer_product(weight, p["row_scale_" + name][gates], p["column_scale_" + name], v)
    elif weight.dtype == np.uint16:
        product = _pair_product(weight, v)
    else:
        product = _factor(p, v) @ _factor(p, weight).T
    return product if bias is None else product + bias[gates]


def _affine_backward(p: Named, gradients: dict[str, Array], name: str, v: Array, da: Array,
                     gates: slice = slice(None)) -> Any:
    # dW = sum over rows of da vᵀ
    gradients["weight_" + name][gates] += _factor(p, da).T @ _factor(p, v)
    # db = sum over rows of da
    if "bias_" + name in gradients:
        gradients["bias_" + name][gates] += da.sum(axis=0)
    # dv = Wᵀ da
    return _factor(p, da) @ _factor(p, p["weight_" + name][gates])


# Activations: name -> (f, its slope), of the sums a and two numbers alpha and beta; a NaN stays a NaN. At a corner the
# slope is that of the left side.

def _expm1_negative(a: Array) -> Any:
    return np.expm1(np.minimum(a, 0))


def _softsign(a: Array) -> Any:
    largest = np.finfo(a.dtype).max
    finite = np.clip(a, -largest, largest)      # an infinite sum has its limit, 1 or -1
    return finite / (1 + np.abs(finite))


def _sigmoid_slope(a: Array) -> Array:
    y = sigmoid(a)
    slope: Array = y * (1 - y)
    return slope


_ACTIVATIONS: dict[str, tuple[Rule, Rule]] = {
    "sigmoid": (lambda a, alpha, beta: sigmoid(a), lambda a, alpha, beta: _sigmoid_slope(a)),
    "tanh": (lambda a, alpha, beta: np.tanh(a), lambda a, alpha, beta: 1 - np.tanh(a)**2),
    "relu": (lambda a, alpha, beta: np.maximum(0, a), lambda a, alpha, beta: a > 0),
    "affine": (lambda a, alpha, beta: alpha * a + beta, lambda a, alpha, beta: np.full_like(a, alpha)),
    "leaky_relu": (lambda a, alpha, beta: np.where(a < 0, alpha * a, a),
                   lambda a, alpha, beta: np.where(a > 0, 1, alpha)),
    "thresholded_relu": (lambda a, alpha, beta: np.where(a <= alpha, 0, a), lambda a, alpha, beta: a > alpha),
    "scaled_tanh": (lambda a, alpha, beta: alpha * np.tanh(beta * a),
                    lambda a, alpha, beta: alpha * beta * (1 - np.tanh(beta * a)**2)),
    "hard_sigmoid": (lambda a, alpha, beta: np.clip(alpha * a + beta, 0, 1),
                     lambda a, alpha, beta: alpha * ((alpha * a + beta > 0) & (alpha * a + beta < 1))),
    "elu": (lambda a, alpha, beta: np.where(a < 0, alpha * _expm1_negative(a), a),
            lambda a, alpha, beta: np.where(a > 0, 1, alpha * _expm1_negative(a) + alpha)),
    "softsign": (lambda a, alpha, beta: _softsign(a), lambda a, alpha, beta: 1 / (1 + np.abs(a))**2),
    "softplus": (lambda a, alpha, beta: np.logaddexp(0, a), lambda a, alpha, beta: sigmoid(a)),
}


class _Form:
    """The options of a cell: its activations, and what differs from its plain form."""

    clip: float
    coupled: bool
    mirror: bool

    def __init__(self, kind: str, options: tuple[Any, ...] | None) -> None:
        activations, self.clip, self.coupled, self.mirror = options or (None, np.inf, False, False)
        self.activations = activations or [(name, None, None) for name in PLAIN[kind]]

    def value(self, which: int, a: Array, clipped: bool = True) -> Array:
        """Activation f (0), g (1) or h (2) of a, which is held to +-clip first; the cell state is not."""
        name, alpha, beta = self.activations[which]
        return _ACTIVATIONS[name][0](self._clip(a) if clipped else a, alpha, beta).astype(a.dtype, copy=False)

    def slope(self, which: int, a: Array, clipped: bool = True) -> Array:
        """The derivative of `value` by a: 0 beyond +-clip."""
        name, alpha, beta = self.activations[which]
        slope = _ACTIVATIONS[name][1](self._clip(a) if clipped else a, alpha, beta).astype(a.dtype, copy=False)
        return np.where(np.abs(a) > self.clip, 0, slope) if clipped and self.clip < np.inf else slope

    def _clip(self, a: Array) -> Array:
        return np.clip(a, -self.clip, self.clip) if self.clip < np.inf else a


# Cells. step(form, p, x, *state) -> (new state, saved); step_backward(form, p, gradients, saved, *dnew) ->
# (dx, *dstate) adds the parameters' gradients to `gradients`. The state is (h,), for LSTM (h, c). x [n, I], h [n, S],
# c [n, H]. f, g and h_c are the form's activations (plain: sigmoid, tanh, tanh), f', g' their slopes at the sums a.

Step = tuple[tuple[Array, ...], tuple[Array, ...]]      # the new state, and what the step's back-propagation needs


def _rnn_step(form: _Form, p: Named, x: Array, h: Array) -> Step:
    # h_t = f(a), a = W_ih x + b_ih + W_hh h + b_hh
    a = _affine(p, "ih", x) + _affine(p, "hh", h)
    return (form.value(0, a),), (x, h, a)


def _rnn_step_backward(form: _Form, p: Named, gradients: dict[str, Array], saved: tuple[Array, ...],
                       dh_new: Array) -> tuple[Array, ...]:
    x, h, a = saved
    # da = dh_t f'(a)
    da = dh_new * form.slope(0, a)
    return _affine_backward(p, gradients, "ih", x, da), _affine_backward(p, gradients, "hh", h, da)


def _lstm_step(form: _Form, p: Named, x: Array, h: Array, c: Array) -> Step:
    # a = W_ih x + b_ih + W_hh h + b_hh, gates in torch's order i, f, g, o
    a_i, a_f, a_g, a_o = np.split(_affine(p, "ih", x) + _affine(p, "hh", h), 4, axis=1)
    # with peepholes, a_i += p_i c, a_f += p_f c and a_o += p_o c_t
    p_i, p_f, p_o = np.split(p["peephole"], 3) if p.get("peephole") is not None else (None, None, None)
    if p_i is not None:
        a_i, a_f = a_i + p_i * c, a_f + p_f * c
    # i, f = f(a_i), f(a_f); coupled: f = 1 - i
    i, g = form.value(0, a_i), form.value(1, a_g)
    f = 1 - i if form.coupled else form.value(0, a_f)
    # c_t = f c + i g
    c_new = f * c + i * g
    if p_o is not None:
        a_o = a_o + p_o * c_new
    # m = o h_c(c_t)
    o, h_c = form.value(0, a_o), form.value(2, c_new, clipped=False)
    m = o * h_c
    # h_t = W_hr m with a projection, else m
    h_new = m if p.get("weight_hr") is None else _affine(p, "hr", m)
    return (h_new, c_new), (x, h, c, a_i, a_f, a_g, a_o, i, f, g, o, c_new, h_c, m)


def _lstm_step_backward(form: _Form, p: Named, gradients: dict[str, Array], saved: tuple[Array, ...], dh_new: Array,
                        dc_new: Array) -> tuple[Array, ...]:
    x, h, c, a_i, a_f, a_g, a_o, i, f, g, o, c_new, h_c, m = saved
    p_i, p_f, p_o = np.split(p["peephole"], 3) if p.get("peephole") is not None else (0, 0, 0)
    # dm = W_hrᵀ dh_t with a projection, else dh_t
    dm = dh_new if p.get("weight_hr") is None else _affine_backward(p, gradients, "hr", m, dh_new)
    # da_o = dm h_c f'(a_o)
    da_o = dm * h_c * form.slope(0, a_o)
    # c_t acts on the next step, by m = o h_c(c_t), and by a_o
    dc_new = dc_new + dm * o * form.slope(2, c_new, clipped=False) + da_o * p_o
    # da_i = dc_t g f'(a_i); coupled: dc_t (g - c) f'(a_i), and da_f = 0
    da_i = dc_new * (g - c if form.coupled else g) * form.slope(0, a_i)
    # da_f = dc_t c f'(a_f)
    da_f = np.zeros_like(da_i) if form.coupled else dc_new * c * form.slope(0, a_f)
    # da_g = dc_t i g'(a_g)
    da_g = dc_new * i * form.slope(1, a_g)
    da = np.concatenate([da_i, da_f, da_g, da_o], axis=1)
    if "peephole" in gradients:
        # dp = sum over rows of (da_i c, da_f c, da_o c_t)
        gradients["peephole"] += np.concatenate([da_i * c, da_f * c, da_o * c_new], axis=1).sum(axis=0)
    # dc = dc_t f + p_i da_i + p_f da_f
    dc = dc_new * f + p_i * da_i + p_f * da_f
    return _affine_backward(p, gradients, "ih", x, da), _affine_backward(p, gradients, "hh", h, da), dc


def _updated(form: _Form, z: Array, n: Array, h: Array) -> Any:
    # h_t = (1 - z) n + z h; mirrored: z n + (1 - z) h
    return z * n + (1 - z) * h if form.mirror else (1 - z) * n + z * h


def _updated_backward(form: _Form, z: Array, n: Array, h: Array, dh_new: Array) -> tuple[Any, Any, Any]:
    # dn = dh_t (1 - z), dz = dh_t (h - n), dh = dh_t z; mirrored: z and 1 - z change places
    if form.mirror:
        return dh_new * z, dh_new * (n - h), dh_new * (1 - z)
    return dh_new * (1 - z), dh_new * (h - n), dh_new * z


def _gru_step(form: _Form, p: Named, x: Array, h: Array) -> Step:
    # a = W_ih x + b_ih and u = W_hh h + b_hh, gates in torch's order r, z, n
    a_r, a_z, a_n = np.split(_affine(p, "ih", x), 3, axis=1)
    u_r, u_z, u_n = np.split(_affine(p, "hh", h), 3, axis=1)
    a_r, a_z = a_r + u_r, a_z + u_z
    r, z = form.value(0, a_r), form.value(0, a_z)
    # n = g(W_in x + b_in + r (W_hn h + b_hn)): the reset gate acts after the product
    a_n = a_n + r * u_n
    n = form.value(1, a_n)
    return (_updated(form, z, n, h),), (x, h, a_r, a_z, a_n, r, z, n, u_n)


def _gru_step_backward(form: _Form, p: Named, gradients: dict[str, Array], saved: tuple[Array, ...],
                       dh_new: Array) -> tuple[Array, ...]:
    x, h, a_r, a_z, a_n, r, z, n, u_n = saved
    dn, dz, dh = _updated_backward(form, z, n, h, dh_new)
    # da_n = dn g'(a_n), da_z = dz f'(a_z)
    da_n, da_z = dn * form.slope(1, a_n), dz * form.slope(0, a_z)
    # da_r = da_n u_n f'(a_r)
    da_r = da_n * u_n * form.slope(0, a_r)
    # du = da, but du_n = da_n r
    da = np.concatenate([da_r, da_z, da_n], axis=1)
    du = np.concatenate([da_r, da_z, da_n * r], axis=1)
    # dh += W_hhᵀ du
    dh = dh + _affine_backward(p, gradients, "hh", h, du)
    return _affine_backward(p, gradients, "ih", x, da), dh


def _gru_before_step(form: _Form, p: Named, x: Array, h: Array) -> Step:
    gates_rz, gate_n = slice(0, 2 * h.shape[1]), slice(2 * h.shape[1], None)
    # a = W_ih x + b_ih, gates in torch's order r, z, n; u = W_hh h + b_hh for r and z only
    a_r, a_z, a_n = np.split(_affine(p, "ih", x), 3, axis=1)
    u_r, u_z = np.split(_affine(p, "hh", h, gates_rz), 2, axis=1)
    a_r, a_z = a_r + u_r, a_z + u_z
    r, z = form.value(0, a_r), form.value(0, a_z)
    # n = g(W_in x + b_in + W_hn (r h) + b_hn): the reset gate acts before the product
    a_n = a_n + _affine(p, "hh", r * h, gate_n)
    n = form.value(1, a_n)
    return (_updated(form, z, n, h),), (x, h, a_r, a_z, a_n, r, z, n)


def _gru_before_step_backward(form: _Form, p: Named, gradients: dict[str, Array], saved: tuple[Array, ...],
                              dh_new: Array) -> tuple[Array, ...]:
    x, h, a_r, a_z, a_n, r, z, n = saved
    gates_rz, gate_n = slice(0, 2 * h.shape[1]), slice(2 * h.shape[1], None)
    dn, dz, dh = _updated_backward(form, z, n, h, dh_new)
    # da_n = dn g'(a_n), da_z = dz f'(a_z)
    da_n, da_z = dn * form.slope(1, a_n), dz * form.slope(0, a_z)
    # d(r h) = W_hnᵀ da_n
    drh = _affine_backward(p, gradients, "hh", r * h, da_n, gate_n)
    # da_r = d(r h) h f'(a_r)
    da_r = drh * h * form.slope(0, a_r)
    # dh += d(r h) r + W_hrᵀ da_r + W_hzᵀ da_z
    da_rz = np.concatenate([da_r, da_z], axis=1)
    dh = dh + drh * r + _affine_backward(p, gradients, "hh", h, da_rz, gates_rz)
    return _affine_backward(p, gradients, "ih", x, np.concatenate([da_rz, da_n], axis=1)), dh


_STEPS: dict[str, tuple[Callable[..., Step], Callable[..., tuple[Array, ...]]]] = {
    "rnn_tanh": (_rnn_step, _rnn_step_backward),
    "rnn_relu": (_rnn_step, _rnn_step_backward),
    "lstm": (_lstm_step, _lstm_step_backward),
    "gru": (_gru_step, _gru_step_backward),
    "gru_before": (_gru_before_step, _gru_before_step_backward),
}


def forward(kind: str, parameters: Named, x: ArrayLike, h_0: ArrayLike, c_0: ArrayLike | None = None,
            lengths: ArrayLike | None = None, reset_mask: ArrayLike | None = None, reverse: bool = False,
            options: tuple[Any, ...] | None = None,
            precision: str | None = None) -> tuple[Array, Array, Array | None, Array | None, dict[str, Any]]:
    """One direction of one recurrent layer over a batch of sequences, with all that `backward` needs.

    Parameters
    ----------
    kind : {"rnn_tanh", "rnn_relu", "lstm", "gru", "gru_before"}
    parameters : dict of str to ndarray
        weight_ih [G*H, I], weight_hh [G*H, S], bias_ih and bias_hh [G*H] or None, for an LSTM with projection also
        weight_hr [S, H], with peepholes peephole [3*H] (for i, f, o); all float32 or all float64. All arithmetic is
        done in this dtype. Or all weights are int8, with float32 row_scale_ih [G*H], column_scale_ih [I] and so on for
        each of them: W = row_scale w column_scale; then products are those of `quantise`, and all else is float32. Or
        all weights are uint16, the bits of bfloat16 numbers: then the numbers they are multiplied with are those of
        `round_half`, and all else is float32.
    x : array_like [T, N, I]
    h_0 : array_like [N, S]
    c_0 : array_like [N, H], LSTM only
    lengths : array_like of int [N], optional
        Steps of each row, 0 to T, in any order; T if not given. What lies past them is never read.
    reset_mask : array_like of bool [T, N], optional
        Where set, the state of row n is zero just before the step at time index t is taken.
    reverse : bool
        Walk row n from t = lengths[n] - 1 down to 0. The output stays at the time index of its input.
    options : tuple (activations, clip, coupled, mirror), optional
        Activations f, g, h as (name, alpha, beta), those of the layers' option (a GRU has f, g, an RNN f); the bound of
        the sums they are taken of, infinity for none; for an LSTM, whether f = 1 - i; for a GRU, whether
        h_t = z n + (1 - z) h.
    precision : {"bfloat16"}, optional
        The factors of every product, forward and in `backward`, are those of `round_half`: weights, x, h, r h and m,
        and the gradients of sums and of a projection's output. All else is float32, the sums of biases' gradients too.

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

    The projection is recurrent only. Two biases and the orders of the gates are torch's; the options are those of
    ONNX's operators RNN, LSTM and GRU, with ``clip`` as ONNX Runtime has it, on the whole sum.

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
    step, form = _STEPS[kind][0], _Form(kind, options)
    dtype = parameters["weight_ih"].dtype
    if dtype in (np.int8, np.uint16):
        dtype = np.dtype(np.float32)
    if precision is not None:
        parameters = {**parameters, "precision": precision}
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
        after, saved = step(form, parameters, x[t, rows], *before)
        for part, part_series, new in zip(state, series, after):
            part[rows] = part_series[t, rows] = new
        steps.append((t, rows, reset_mask[t, rows], saved))

    cache = {"kind": kind, "form": form, "parameters": parameters, "x_shape": x.shape,
             "state_shapes": [part.shape for part in state], "steps": steps}
    c_n, c_all = (state[1], series[1]) if kind == "lstm" else (None, None)
    return series[0], state[0], c_n, c_all, cache


def backward(cache: dict[str, Any], dy: ArrayLike, dh_n: ArrayLike | None = None,
             dc_n: ArrayLike | None = None) -> tuple[Array, Array, Array | None, dict[str, Array]]:
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
    dstate = [np.zeros(shape, dtype) if last is None else np.array(last, dtype)
              for shape, last in zip(cache["state_shapes"], (dh_n, dc_n))]
    gradients = {name: np.zeros_like(value) for name, value in parameters.items()
                 if value is not None and name != "precision"}

    for t, rows, resets, saved in reversed(cache["steps"]):
        dh, *dc = [dpart[rows] for dpart in dstate]
        # dh_t = dy_t + (what the next step sent back)
        dx[t, rows], *dbefore = step_backward(cache["form"], parameters, gradients, saved, dh + dy[t, rows], *dc)
        for dpart, new in zip(dstate, dbefore):
            new[resets] = 0
            dpart[rows] = new

    return dx, dstate[0], dstate[1] if cache["kind"] == "lstm" else None, gradients


def layers(kind: str, parameters: Sequence[Named], x: ArrayLike, h_0: Array | Sequence[Array],
           c_0: Array | Sequence[Array] | None = None, lengths: ArrayLike | None = None,
           reset_mask: ArrayLike | None = None, num_layers: int = 1,
           directions: int = 1) -> tuple[ArrayLike, Array, Array | None]:
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
    cells = [c_n for _, c_n in states if c_n is not None]
    return x, np.stack([h_n for h_n, _ in states]), np.stack(cells) if kind == "lstm" else None
