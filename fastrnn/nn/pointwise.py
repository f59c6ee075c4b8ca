"""Modules without a state, which treat every step of every row alone: Linear and Embedding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _core
from .._base import dispatch
from .._base import validation as check
from .._base.registry import in_files
from .._base.typing import Array, ArrayLike, DTypeLike, FloatDType, Parameters, Rng, TrainingPrecision
from . import parameters
from .base import Gradients, Packed
from .quantized import Quantizable, product_precision, scales_of, widened

# What `forward` keeps for `backward`: the module, its parameters at the time, the input, and the products' precision
# where it is not the model's.
PointwiseCache = tuple["Pointwise", Parameters, Array, str | None]


class StatelessPart:
    """A module without a state as one part of a Sequential's stream.

    ``step`` takes the array of one step, ``run`` a block of steps; both were checked by what comes before in the chain.
    """

    state = None

    def __init__(self, step: Callable[[Any], Array], run: Callable[[Any], Array]) -> None:
        self.step, self.run = step, run

    def reset(self, rows: ArrayLike | None = None) -> None:
        """Do nothing: there is no state."""


class Pointwise(Quantizable):
    """A module that treats every element of the leading axes alone."""

    dtype: FloatDType
    whole_numbers = False       # whether x holds whole numbers and has no last axis of features

    def _shown(self) -> str:
        """The dtype or the precision, where it is not the default, as the end of a repr's arguments."""
        if self.precision != self.dtype.name:
            return f", precision={self.precision}"
        return f", dtype={self.dtype}" if self.dtype != np.float32 else ""

    # What a subclass defines: the checked input, the output's shape, and the map itself.

    def _input(self, x: ArrayLike) -> Array:
        raise NotImplementedError

    def _shape(self, x: Array) -> tuple[int, ...]:
        raise NotImplementedError

    def _apply(self, x: Array, precision: str | None = None, values: Parameters | None = None) -> Array:
        raise NotImplementedError

    def __call__(self, x: ArrayLike, state: None = None, *, lengths: ArrayLike | None = None,
                 reset_mask: ArrayLike | None = None) -> tuple[Array, None]:
        """Compute the output of every step of every row.

        Parameters
        ----------
        x : array
            The input, with any leading axes.
        state : None
            There is no state; the argument is that of a recurrent layer.
        lengths, reset_mask : array, optional
            Arguments of a recurrent layer, which change nothing here.

        Returns
        -------
        output : array
            The output, with the leading axes of x.
        state : None
            Nothing is carried on.

        Raises
        ------
        TypeError, ValueError
            The input is unsuitable; the message says what was expected.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> output, _ = fastrnn.Linear(3, 2, rng=0)(np.ones((5, 4, 3), np.float32))
        >>> output.shape
        (5, 4, 2)
        """
        return self._apply(self._input(x)), None

    def forward(self, x: ArrayLike, state: None = None, lengths: ArrayLike | None = None,
                reset_mask: ArrayLike | None = None, rng: Rng = None, *,
                precision: TrainingPrecision | None = None) -> tuple[Array, None, PointwiseCache]:
        """Compute the output and keep what ``backward`` needs.

        Parameters
        ----------
        x : array
            The input, with any leading axes; it is copied, so the caller may overwrite it.
        state : None
            There is no state; the argument is that of a recurrent layer.
        lengths, reset_mask, rng : optional
            Arguments of a recurrent layer, which change nothing here.
        precision : {"float32", "float64", "bfloat16"}, optional
            That of the products, here and in ``backward``; the model's dtype if not given. With "bfloat16", for models
            of float32, the factors of each product are rounded to bfloat16, weights among them; parameters, states,
            sums and gradients stay float32.

        Returns
        -------
        output : array
            The output, with the leading axes of x.
        state : None
            Nothing is carried on.
        cache : tuple
            For ``backward``, which may be called with it any number of times.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> layer = fastrnn.Linear(3, 2, rng=0)
        >>> output, _, cache = layer.forward(np.ones((5, 3), np.float32))
        >>> layer.backward(cache, np.ones_like(output)).parameters["bias"]
        array([5., 5.], dtype=float32)
        """
        self._needs_gradients()
        x, rounded = self._input(x), check.training_precision(precision, self.dtype)
        values = self._parameters           # once, since another thread may replace them
        return self._apply(x, rounded, values), None, (self, values, x.copy(), rounded)

    def _keep(self, x: ArrayLike,
              precision: TrainingPrecision | None = None) -> tuple[Array, None, PointwiseCache]:
        """Compute ``forward`` of an input that nobody will overwrite, without a copy of it."""
        self._needs_gradients()
        x, rounded = self._input(x), check.training_precision(precision, self.dtype)
        values = self._parameters
        return self._apply(x, rounded, values), None, (self, values, x, rounded)

    def _stream_part(self, batch_size: int) -> StatelessPart:
        return StatelessPart(self._apply, lambda block: self._apply(self._input(block)))

    def _opened(self, cache: PointwiseCache, d_output: ArrayLike) -> tuple[Parameters, Array, Array, str | None]:
        """The parameters, the input, the gradient of the output and the precision that `backward` works with."""
        if not (isinstance(cache, tuple) and len(cache) == 4):
            raise TypeError(f"cache: expected what forward returned, got {type(cache).__name__}")
        module, values, x, precision = cache
        if module is not self:
            raise ValueError("cache: it is of another module's forward")
        dy = check.shaped(check.array(d_output, "d_output", self.dtype), "d_output", self._shape(x))
        return values, x, dy, precision


@in_files
class Linear(Pointwise, Packed[_core.Dense]):
    """Affine map of the last axis.

    The output is y = W x + b, with W = ``weight`` [out_features, in_features] and b = ``bias`` [out_features]. Both
    start from U(-1/sqrt(in_features), 1/sqrt(in_features)), as torch's do.

    Parameters
    ----------
    in_features : int
        Size of the input's last axis.
    out_features : int
        Size of the output's last axis.
    bias : bool, default True
        Whether b is added.
    dtype : {float32, float64}, default float32
        Type of the parameters and of all arithmetic.
    rng : numpy.random.Generator, int or None, default None
        Random generator, or its seed, of the initial parameters.

    Raises
    ------
    TypeError, ValueError
        An argument is unsuitable; the message names it.

    Examples
    --------
    >>> import fastrnn
    >>> import numpy as np
    >>> layer = fastrnn.Linear(3, 2, rng=0)
    >>> output, _ = layer(np.ones((5, 4, 3), np.float32))
    >>> output.shape
    (5, 4, 2)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, dtype: DTypeLike = np.float32,
                 rng: Rng = None) -> None:
        self.in_features = check.size(in_features, "in_features")
        self.out_features = check.size(out_features, "out_features")
        self.bias = check.flag(bias, "bias")
        self.dtype = check.model_dtype(dtype)
        generator = rng if rng is parameters.UNDRAWN else check.generator(rng)
        shapes: dict[str, tuple[int, ...]] = {"weight": (self.out_features, self.in_features)}
        if bias:
            shapes["bias"] = (self.out_features,)
        self._parameters = parameters.initialise(shapes, self.in_features, self.dtype, generator)

    def __repr__(self) -> str:
        return f"Linear({self.in_features}, {self.out_features}{'' if self.bias else ', bias=False'}{self._shown()})"

    def _input(self, x: ArrayLike) -> Array:
        x = check.array(x, "x", self.dtype)
        if not x.ndim or x.shape[-1] != self.in_features:
            raise ValueError(f"x: expected last axis {self.in_features}, got shape {x.shape}")
        return x

    def _shape(self, x: Array) -> tuple[int, ...]:
        return *x.shape[:-1], self.out_features

    def _apply(self, x: Array, precision: str | None = None, values: Parameters | None = None) -> Array:
        flat = check.walkable(x.reshape(-1, self.in_features))
        y = np.empty((len(flat), self.out_features), self.dtype)
        return self._packed(precision, values).apply(flat, y, dispatch.get_num_threads()).reshape(self._shape(x))

    def _stream_part(self, batch_size: int) -> StatelessPart:
        packed, dtype = self._packed(), self.dtype
        x_shape, y_shape = (batch_size, self.in_features), (batch_size, self.out_features)

        def step(x: Array) -> Array:
            y = packed.apply(x.reshape(x_shape), np.empty(y_shape, dtype), 1)
            return y if x.ndim == 2 else y[0]
        return StatelessPart(step, lambda block: self._apply(self._input(block)))

    def _make_pack(self, values: Parameters) -> _core.Dense:
        precision = product_precision(self._precision)
        weight = values["weight"] if precision else widened(values["weight"], self._precision)
        return _core.Dense(dispatch.table(self.dtype, precision), weight, values.get("bias"),
                           scales_of(values, "weight"))

    def _make_rounded_pack(self, values: Parameters) -> _core.Dense:
        return _core.Dense(dispatch.table(self.dtype, "training in bfloat16"), values["weight"], values.get("bias"))

    def backward(self, cache: PointwiseCache, d_output: ArrayLike, d_state: None = None,
                 need_input: bool = True) -> Gradients[None, Any]:
        """Compute the gradients of a loss L.

        With the rows of x and dy = dL/dy, they are dW = dy^T x, db = the sum of the rows of dy, and dx = dy W.

        Parameters
        ----------
        cache : tuple
            What this module's ``forward`` returned.
        d_output : array
            The gradient dL/dy, shaped as the output.
        d_state : None
            There is no state; the argument is that of a recurrent layer.
        need_input : bool, default True
            Whether dL/dx is computed. If False, it is None.

        Returns
        -------
        Gradients
            The gradients of the input and of the parameters.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> layer = fastrnn.Linear(3, 2, rng=0)
        >>> output, _, cache = layer.forward(np.ones((5, 3), np.float32))
        >>> gradients = layer.backward(cache, np.ones_like(output))
        >>> gradients.input.shape, gradients.parameters["weight"].shape
        ((5, 3), (2, 3))
        """
        values, x, dy, precision = self._opened(cache, d_output)
        table = dispatch.table(self.dtype, None if precision is None else "training in bfloat16")
        threads = dispatch.get_num_threads()
        rows = check.contiguous(dy.reshape(-1, self.out_features))
        weight, bias = _core.affine_gradients(table, check.walkable(x.reshape(-1, self.in_features)), rows, self.bias,
                                              threads)
        dx = None
        if check.flag(need_input, "need_input"):
            transposed = _core.Dense(table, np.ascontiguousarray(values["weight"].T), None)
            dx = transposed.apply(rows, np.empty((len(rows), self.in_features), self.dtype), threads).reshape(x.shape)
        gradients = {"weight": weight}
        if bias is not None:
            gradients["bias"] = bias
        return Gradients(dx, None, gradients)


@in_files
class Embedding(Pointwise):
    """Table with a row of numbers for every whole number.

    The output is y = ``weight``[x], with ``weight`` [num_embeddings, embedding_dim], which starts from N(0, 1).

    Parameters
    ----------
    num_embeddings : int
        Number of rows: the input holds numbers from 0 to num_embeddings - 1.
    embedding_dim : int
        Size of a row.
    dtype : {float32, float64}, default float32
        Type of the parameters.
    rng : numpy.random.Generator, int or None, default None
        Random generator, or its seed, of the initial parameters.

    Raises
    ------
    TypeError, ValueError
        An argument is unsuitable; the message names it.

    Examples
    --------
    >>> import fastrnn
    >>> import numpy as np
    >>> words = fastrnn.Embedding(10, 4, rng=0)
    >>> output, _ = words(np.array([[1, 2, 1]]))
    >>> output.shape, bool(np.array_equal(output[0, 0], output[0, 2]))
    ((1, 3, 4), True)
    """

    whole_numbers = True

    def __init__(self, num_embeddings: int, embedding_dim: int, *, dtype: DTypeLike = np.float32,
                 rng: Rng = None) -> None:
        self.num_embeddings = check.size(num_embeddings, "num_embeddings")
        self.embedding_dim = check.size(embedding_dim, "embedding_dim")
        self.dtype = check.model_dtype(dtype)
        shape = self.num_embeddings, self.embedding_dim
        check.addressable("num_embeddings", *shape, itemsize=self.dtype.itemsize)
        if rng is parameters.UNDRAWN:
            weight = parameters.undrawn(shape, self.dtype)
        else:
            weight = parameters.freeze(check.generator(rng).standard_normal(shape, self.dtype))
        self._parameters = {"weight": weight}

    def __repr__(self) -> str:
        return f"Embedding({self.num_embeddings}, {self.embedding_dim}{self._shown()})"

    def _input(self, x: ArrayLike) -> Array:
        return check.indices(x, "x", self.num_embeddings)

    def _shape(self, x: Array) -> tuple[int, ...]:
        return *x.shape, self.embedding_dim

    def _apply(self, x: Array, precision: str | None = None, values: Parameters | None = None) -> Array:
        if values is None:
            values = self._parameters
        result: Array = widened(values["weight"][x], self._precision)
        scales = scales_of(values, "weight")
        return result if scales is None else result * scales[1] * scales[0][x][..., None]

    def backward(self, cache: PointwiseCache, d_output: ArrayLike, d_state: None = None,
                 need_input: bool = True) -> Gradients[None, None]:
        """Compute the gradient of a loss L with respect to the table.

        Row k of dweight is the sum of dL/dy over all places where x is k.

        Parameters
        ----------
        cache : tuple
            What this module's ``forward`` returned.
        d_output : array
            The gradient dL/dy, shaped as the output.
        d_state : None
            There is no state; the argument is that of a recurrent layer.
        need_input : bool, default True
            Without effect: whole numbers have no gradient.

        Returns
        -------
        Gradients
            The gradient of the table; ``input`` is None.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> words = fastrnn.Embedding(3, 2, rng=0)
        >>> output, _, cache = words.forward([1, 2, 1])
        >>> words.backward(cache, np.ones_like(output)).parameters["weight"]
        array([[0., 0.],
               [2., 2.],
               [1., 1.]], dtype=float32)
        """
        values, x, dy, _ = self._opened(cache, d_output)
        gradient = np.zeros(values["weight"].shape, self.dtype)
        if x.size:
            order = np.argsort(x, axis=None, kind="stable")
            rows = x.ravel()[order]
            first = np.flatnonzero(np.diff(rows, prepend=-1))
            with np.errstate(all="ignore"):
                gradient[rows[first]] = np.add.reduceat(dy.reshape(-1, self.embedding_dim)[order], first)
        return Gradients(None, None, {"weight": gradient})
