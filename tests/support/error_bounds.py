"""Numbers that carry bounds of their rounding errors: how far a kernel's result may lie from that of the oracle.

The cells of ``fastrnn.nn.reference`` are run on them, so that the bound follows the very equations that give the value
(running error analysis: Wilkinson 1963; Higham, Accuracy and Stability of Numerical Algorithms, 3.3). With u the unit
roundoff of the kernel's dtype, 2^-24 or 2^-53, and the bounds e of what goes in:

    sum                     e_x + e_y + u (sizes of all terms so far): covers every order of the terms, and fused ones
    product x y             |x| e_y + |y| e_x + e_x e_y + 4 u (|x y| + min(|y|, 1)). The last term is for the kernels of
                            plain cells, which compute i g as g - (1 - i) g: that errs by u |g|, however small i is
    matrix product W v      |W| e_v + k u |W| |v|, where k is the number of terms of the whole sum and some more
    activation f(a)         sup |f'| e + 8 u |f|, the supremum over a - e ... a + e; a step at a corner counts in whole
                            where a - e ... a + e has the corner in it
    every result            the smallest normal number, since kernels flush what is below to zero

Nothing here is fitted to what kernels do: where a bound is passed, the kernel is wrong.

Where numbers may overflow (``wild``), a sum is kept with the size of its terms, and decided when it is used: infinite
if it is beyond the dtype in any order of its terms, finite if all terms together are below the largest number / 16 (a
kernel's form h - n of a difference may be larger than the result), and else undecided: the bound is infinite and any
result passes, NaN among them.
"""

import numpy as np

from fastrnn.nn import reference


class Arithmetic:
    """What a kernel computes in: unit roundoff, smallest normal and largest number; and the dtype of the oracle.

    terms: the number of terms of the longest sum of a step. half: the factors of products are rounded to bfloat16.
    """

    def __init__(self, dtype, terms, wild=False, half=False):
        info = np.finfo(dtype)
        self.u, self.tiny, self.largest = float(info.eps) / 2, float(info.tiny), float(info.max)
        self.terms, self.wild, self.half = terms + 16, wild, half
        # Of the oracle: the range of float64 does not show how a float64 kernel overflows.
        self.real = np.longdouble if wild and dtype == np.float64 else np.float64

    def exact(self, a):
        a = np.asarray(a, self.real)
        error = np.zeros(a.shape, self.real)
        if self.wild:
            error = np.where(np.abs(a) < self.tiny, np.abs(a), error)       # kernels take them for zero
        return Bounded(a, error, np.abs(a), self)

    def zeros(self, shape):
        return self.exact(np.zeros(shape, self.real))


class Bounded:
    """An array of numbers with a bound of the error of each, and the size of the terms it was summed from."""

    __slots__ = ("value", "error", "size", "by")
    __array_ufunc__ = None          # operators of NumPy arrays leave the work to this class

    def __init__(self, value, error, size, by):
        self.value, self.error, self.size, self.by = value, error, size, by

    dtype = property(lambda self: self.value.dtype)
    shape = property(lambda self: self.value.shape)
    T = property(lambda self: Bounded(self.value.T, self.error.T, self.size.T, self.by))

    def __getitem__(self, at):
        return Bounded(self.value[at], self.error[at], self.size[at], self.by)

    def __setitem__(self, at, new):
        if not isinstance(new, Bounded):
            new = self.by.exact(np.broadcast_to(new, self.value[at].shape))
        self.value[at], self.error[at], self.size[at] = new.value, new.error, new.size

    def copy(self):
        return Bounded(self.value.copy(), self.error.copy(), self.size.copy(), self.by)

    def _other(self, other):
        return other if isinstance(other, Bounded) else self.by.exact(other)

    def settled(self):
        """This as a stored number: finite, infinite, or undecided with an infinite error."""
        by = self.by
        if not by.wild:
            return self
        with np.errstate(all="ignore"):
            size, value, error = self.size, self.value, self.error
            below = size + error < by.largest / 16
            if below.all():
                return self
            special = ~np.isfinite(value)
            # Terms of the other sign, which the rounding of `size` may hide, must not overflow by themselves.
            other = (size - np.abs(value)) / 2 + size * 2.0**-50
            beyond = (np.abs(value) - error > by.largest) & (other < by.largest / 16) & ~special
            undecided = ~(below | beyond | special)
            value = np.where(beyond, np.copysign(np.inf, value), value)
            error = np.where(beyond | special & ~np.isinf(error), 0, np.where(undecided, np.inf, error))
        return Bounded(value, error, np.abs(value), by)

    def _result(self, value, error, size, undecided=False):
        """The result of an operation; undecided: where an operand was so."""
        if self.by.wild:
            unknown = np.isnan(error)
            if unknown.any():
                error = np.where(unknown, np.where(np.isfinite(value) | undecided, np.inf, 0), error)
        return Bounded(value, error, size, self.by)

    def _sum(self, other, value):
        size = self.size + other.size
        error = self.error + other.error + self.by.u * size
        if self.by.wild:    # infinity beside terms that may have overflowed to the other one: a NaN or not
            far = [np.isfinite(part.value) & (part.size > self.by.largest / 16) for part in (self, other)]
            error = np.where(~np.isfinite(value) & (far[0] | far[1]), np.inf, error)
        return self._result(value, error, size, np.isinf(self.error) | np.isinf(other.error))

    def __add__(self, other):
        other = self._other(other)
        return self._sum(other, self.value + other.value)

    def __sub__(self, other):
        other = self._other(other)
        return self._sum(other, self.value - other.value)

    __radd__ = __add__

    def __rsub__(self, other):
        return self._other(other) - self

    def __mul__(self, other):
        x, y = self.settled(), self._other(other).settled()
        value, by = x.value * y.value, self.by
        size, y_size = np.abs(value), np.abs(y.value)
        error = np.abs(x.value) * y.error + (y_size + y.error) * x.error + by.tiny
        error += 4 * by.u * (size + np.minimum(y_size, 1))
        if by.wild:     # infinite times a number whose sign is not certain
            loose = ~np.isfinite(x.value) & (y_size <= y.error) | ~np.isfinite(y.value) & (np.abs(x.value) <= x.error)
            error = np.where(loose & ((x.error > 0) | (y.error > 0)), np.inf, error)
        return self._result(value, error, size, np.isinf(x.error) | np.isinf(y.error))

    __rmul__ = __mul__

    def __matmul__(self, other):
        x = self.settled()
        if isinstance(other, (Weight, IntegerWeight)):
            return other.product(x)
        y = self._other(other).settled()
        if self.by.half:
            x, y = x.rounded(), y.rounded()
        y_size = np.abs(y.value)
        size = np.abs(x.value) @ y_size
        error = np.abs(x.value) @ y.error + x.error @ (y_size + y.error)
        return self._result(x.value @ y.value, error + (self.by.terms + len(y.value)) * self.by.u * size
                            + self.by.tiny, size, np.isinf(x.error).any(-1, keepdims=True) | np.isinf(y.error).any(0))

    def rounded(self):
        """Rounded to bfloat16. Rounding keeps order, so that it takes a - e ... a + e to the ends' rounded values."""
        value, low, high = (_round_half(v) for v in (self.value, self.value - self.error, self.value + self.error))
        return Bounded(value, np.maximum(high - value, value - low), np.abs(value), self.by)

    def sum(self, axis):
        size = self.size.sum(axis=axis)
        return Bounded(self.value.sum(axis=axis), self.error.sum(axis=axis) + self.shape[axis] * self.by.u * size,
                       size, self.by)

    def astype(self, dtype, copy=True):
        return self

    def __array_function__(self, function, types, arguments, options):
        by = self.by
        if function is np.split:
            parts = zip(*(np.split(part, *arguments[1:], **options) for part in (self.value, self.error, self.size)))
            return [Bounded(*part, by) for part in parts]
        if function is np.concatenate:
            parts = [part if isinstance(part, Bounded) else by.exact(part) for part in arguments[0]]
            return Bounded(*(np.concatenate([getattr(part, name) for part in parts], **options)
                             for name in ("value", "error", "size")), by)
        if function is np.zeros_like:
            return by.zeros(self.shape)
        return NotImplemented


def _round_half(v):
    return reference.round_half(v.astype(np.float32)).astype(np.float64)


# ---- Weights --------------------------------------------------------------------------------------

class Weight:
    """A matrix of weights as the oracle's cells use it: sliced by gates, transposed, and multiplied with."""

    dtype = None        # the cells ask for int8 and uint16, whose products are `product` here

    def __init__(self, value, by):
        self.value, self.by = np.asarray(value, by.real), by
        if by.half:
            self.value = _round_half(self.value)

    shape = property(lambda self: self.value.shape)

    def __getitem__(self, gates):
        return self._of(self.value[gates])

    @property
    def T(self):
        return self._of(self.value.T)

    def _of(self, value):
        new = object.__new__(type(self))
        new.value, new.by = value, self.by
        return new

    def product(self, v):
        """v @ weight."""
        by = self.by
        if by.half:
            v = v.rounded()
        weight_size = np.abs(self.value)
        size, value = np.abs(v.value) @ weight_size, v.value @ self.value
        error = v.error @ weight_size + by.terms * by.u * size + by.tiny * (1 + by.wild * weight_size.sum(axis=0))
        if by.wild:         # as in Bounded._sum
            others = np.where(np.isfinite(v.value), np.abs(v.value), 0) @ weight_size
            error = np.where(~np.isfinite(value) & (others > by.largest / 16), np.inf, error)
        return v._result(value, error, size, np.isinf(v.error).any(-1, keepdims=True))


class IntegerWeight:
    """Int8 weights with the scales of their rows and columns."""

    dtype = None

    def __init__(self, weight, row, column, by):
        self.weight, self.row, self.column, self.by = weight, row, column, by

    def __getitem__(self, gates):
        return IntegerWeight(self.weight[gates], self.row[gates], self.column, self.by)

    T = property(lambda self: self)     # only W v is ever asked of them

    def product(self, v):
        """W v: exact sums of whole numbers, if those of v are certain; some float32 operations follow.

        With an error of v, its scale t has one, too, and where u / t may lie on either side of a half, so has q: by 1,
        or by what the error is if that is more.
        """
        by, given = self.by, v.value.astype(np.float32)
        value = reference._integer_product(self.weight, self.row, self.column, given).astype(np.float64)
        error = 8 * by.u * np.abs(value) + by.tiny
        if v.error.any():
            q, t = reference.quantise(given, self.column)
            scale = np.maximum(t.astype(np.float64), 2.0**-126)[:, None]
            u_error = (v.error + 2 * by.u * np.abs(v.value)) * self.column
            t_error = u_error.max(axis=1, initial=0, keepdims=True) / 127
            scaled = v.value * self.column / scale
            scaled_error = (u_error + np.abs(scaled) * t_error) / scale + 4 * by.u * np.abs(scaled)
            distance = 0.5 - np.abs(scaled - np.rint(scaled))
            q_error = np.where(distance <= scaled_error, np.ceil(scaled_error), 0)
            size = np.abs(self.weight.T.astype(np.float64))
            error = error + ((scale + t_error) * (q_error @ size) + t_error * (np.abs(q) @ size)) * self.row
        return v._result(value, error, np.abs(value))


# ---- Activations ----------------------------------------------------------------------------------

def _scaled(slope, error):
    """slope * error, where an infinite error stays one and a zero stays zero."""
    return np.where(np.isinf(error), np.inf, slope * error)


def _value_error(name, alpha, beta, a, e, y, u):
    """The bound of f's error at sums a with errors e; y = f(a)."""
    size = np.abs(y)
    if name == "sigmoid":
        return _scaled(y * (1 - y) + 0.1 * np.minimum(e, 3), e) + 8 * u
    if name in ("tanh", "scaled_tanh"):
        inner, outer = (1.0, 1.0) if name == "tanh" else (abs(beta), abs(alpha))
        with np.errstate(over="ignore"):
            e = inner * e + 2 * u * inner * np.minimum(np.abs(a), 20 / max(inner, 1e-30))
            steep = 1 - np.tanh(np.maximum(inner * np.abs(a) - e, 0))**2
        return outer * _scaled(steep, e) + 8 * u * size
    if name == "affine":
        return abs(alpha) * e + 4 * u * (np.abs(alpha * a) + abs(beta))
    if name == "leaky_relu":
        return max(1.0, abs(alpha)) * e + 4 * u * size
    if name == "thresholded_relu":
        near = np.abs(a - alpha) <= e + 2 * u * abs(alpha)
        return np.where(near, np.maximum(np.abs(a), abs(alpha)) + e, np.where(a > alpha, e, 0))
    if name == "hard_sigmoid":
        return abs(alpha) * e + 4 * u * np.where((y > 0) & (y < 1), np.abs(alpha * a) + abs(beta), 1 + abs(beta))
    if name == "elu":
        return max(1.0, abs(alpha)) * e + 8 * u * (size + abs(alpha) * (a < 0))
    if name == "softsign":
        with np.errstate(over="ignore"):
            steep = 1 / (1 + np.maximum(np.abs(a) - np.where(np.isinf(e), np.abs(a), e), 0))**2
        return _scaled(steep, e) + 4 * u
    if name == "softplus":
        return e + 8 * u * (size + 1)
    return e            # relu


def _slope_error(name, alpha, beta, a, e, s, u):
    """The bound of the error of f's slope s at sums a with errors e."""
    def jump(corner, height):
        return np.where(np.abs(a - corner) <= e + 2 * u * abs(corner), abs(height), 0)

    if name == "sigmoid":
        return 0.1 * e + 8 * u
    if name == "tanh":
        return 0.8 * e + 8 * u
    if name == "scaled_tanh":
        inner = abs(beta) * e + 2 * u * np.minimum(np.abs(beta * a), 20)
        return abs(alpha * beta) * (0.8 * inner + 8 * u) + 4 * u * abs(alpha * beta)
    if name == "softsign":
        return 2 * e + 8 * u
    if name == "softplus":
        return 0.25 * e + 8 * u
    if name == "elu":
        return jump(0, 1 - alpha) + np.where(a < e, abs(alpha) * (np.minimum(e, 1e30) + 8 * u), 0)
    if name == "hard_sigmoid":
        y, spread = alpha * a + beta, abs(alpha) * e + 4 * u * (np.abs(alpha * a) + abs(beta))
        return np.where((np.abs(y) <= spread) | (np.abs(y - 1) <= spread), abs(alpha), 0) + 2 * u * abs(alpha)
    if name == "affine":
        return np.full(a.shape, 2 * u * abs(alpha))
    corner, height = {"relu": (0, 1), "leaky_relu": (0, 1 - (alpha or 0)), "thresholded_relu": (alpha, 1)}[name]
    return jump(corner, height) + 2 * u * np.abs(s)


class BoundedForm(reference._Form):
    """The oracle's activations of Bounded sums."""

    def __init__(self, kind, options, by):
        super().__init__(kind, options)
        self.by = by
        if kind == "rnn_relu" and not options:
            self.activations = [("relu", None, None)]

    def _clipped(self, a):
        """(sums within +-clip, their errors)."""
        if not self.clip < np.inf:
            return a.value, a.error
        low, middle, high = (np.clip(v, -self.clip, self.clip) for v in (a.value - a.error, a.value, a.value + a.error))
        with np.errstate(invalid="ignore"):
            error = np.where(np.isinf(a.error), np.inf, np.maximum(high - middle, middle - low))
        return middle, np.where(np.isnan(middle), a.error, error) + self.by.u * self.clip

    def value(self, which, a, clipped=True):
        name, alpha, beta = self.activations[which]
        a = a.settled()
        sums, errors = self._clipped(a) if clipped else (a.value, a.error)
        y = reference._ACTIVATIONS[name][0](sums, alpha, beta)
        error = _value_error(name, alpha, beta, sums, errors, y, self.by.u) + self.by.tiny
        return a._result(y, error, np.abs(y))

    def slope(self, which, a, clipped=True):
        name, alpha, beta = self.activations[which]
        sums, errors = self._clipped(a) if clipped else (a.value, a.error)
        s = super().slope(which, a.value, clipped)
        inside = np.asarray(reference._ACTIVATIONS[name][1](sums, alpha, beta), float)
        error = _slope_error(name, alpha, beta, sums, errors, inside, self.by.u) + self.by.tiny
        if clipped and self.clip < np.inf:
            distance = np.abs(np.abs(a.value) - self.clip)
            error = np.where(distance <= a.error + 2 * self.by.u * self.clip, error + np.abs(inside),
                             np.where(np.abs(a.value) > self.clip, 0, error))
        return Bounded(np.asarray(s, float), error, np.abs(s), self.by)


# ---- Whole directions, as reference.forward and reference.backward walk them ------------------------------

def parameters_of(values, suffix, by):
    """The parameters of one direction as the oracle's cells take them."""
    result = {}
    for name in ("ih", "hh", "hr"):
        weight = values.get(f"weight_{name}{suffix}")
        if weight is None:
            continue
        if weight.dtype == np.int8:
            result["weight_" + name] = IntegerWeight(weight, values[f"row_scale_{name}{suffix}"],
                                                     values[f"column_scale_{name}{suffix}"], by)
            continue
        if weight.dtype == np.uint16:
            weight = (weight.astype(np.uint32) << 16).view(np.float32)
        result["weight_" + name] = Weight(weight, by)
    for name in ("bias_ih", "bias_hh", "peephole"):
        value = values.get(name + suffix)
        if value is not None:
            result[name] = np.asarray(value, by.real)
    return result


def step(kind, form, p, x, *state):
    """One step of many rows: what the kernel gives for these inputs and this state before it, within its errors."""
    with np.errstate(all="ignore"):
        return reference._STEPS[kind][0](form, p, x, *state)


def walk(kind, form, p, x, state, lengths, resets, reverse):
    """(series of each part of the state, last state, what `walk_back` needs) from Bounded x [T, N, I] and state."""
    T = len(x.value)
    state = [part.copy() for part in state]
    series = [part.by.zeros((T, *part.shape)) for part in state]
    steps = []
    for t in reversed(range(T)) if reverse else range(T):
        rows = np.flatnonzero(t < lengths)
        before = [part[rows] for part in state]
        for part in before:
            part[resets[t, rows]] = 0
        after, saved = step(kind, form, p, x[t, rows], *before)
        for part, part_series, new in zip(state, series, after):
            part[rows] = new
            part_series[t, rows] = new
        steps.append((t, rows, resets[t, rows], saved))
    return series, state, steps


def walk_back(kind, form, p, steps, x_shape, dy, d_state):
    """(dx, gradient of the first state, gradients of the parameters) from Bounded dy and gradient of the last state."""
    by = dy.by
    dx = by.zeros(x_shape)
    d_state = [part.copy() for part in d_state]
    gradients = {name: by.zeros(value.shape) for name, value in p.items()}
    count = 0
    for t, rows, resets, saved in reversed(steps):
        count += len(rows)
        dh, *dc = [part[rows] for part in d_state]
        with np.errstate(all="ignore"):
            dx[t, rows], *before = reference._STEPS[kind][1](form, p, gradients, saved, dh + dy[t, rows], *dc)
        for part, new in zip(d_state, before):
            new[resets] = 0
            part[rows] = new
    for value in gradients.values():        # sums over all steps and rows, in any order
        value.error += count * by.u * value.size
    return dx, d_state, gradients
