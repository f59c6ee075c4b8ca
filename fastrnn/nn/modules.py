"""What stands beside the recurrent layers in a small network: Linear, Embedding, and Sequential, which chains them.

They have the manners of layers: ``forward`` and ``backward`` with an explicit cache, ``state_dict``, ``save``. A state
is what a recurrent layer carries; Linear and Embedding have none, and say None.
"""

import copy
import itertools
from dataclasses import dataclass

import numpy as np

from .. import _core
from .._base import dispatch
from .._base import validation as check
from .._base.registry import in_files
from . import parameters
from .base import Gradients, Parametrised
from .recurrent import Recurrent


class Pointwise(Parametrised):
    """A module that treats every element of the leading axes alone. Its cache is (itself, parameters, input)."""

    whole_numbers = False       # x is numbers of things, without a last axis of features

    def __call__(self, x, state=None, *, lengths=None, reset_mask=None):
        """The output of x, and None. state, lengths and reset_mask are a recurrent layer's, and change nothing."""
        return self._apply(self._input(x)), None

    def forward(self, x, state=None, lengths=None, reset_mask=None, rng=None):
        """As calling the module; besides, what ``backward`` needs: it holds a copy of x."""
        x = self._input(x)
        return self._apply(x), None, (self, self._parameters, x.copy())

    def _keep(self, x):
        """``forward`` of an x that nobody will change: not copied."""
        x = self._input(x)
        return self._apply(x), None, (self, self._parameters, x)

    def _stepper(self, batch_size):
        return _Stepper(self._apply, lambda block: self._apply(self._input(block)))

    def _opened(self, cache, d_output):
        if not (isinstance(cache, tuple) and len(cache) == 3):
            raise TypeError(f"cache: expected what forward returned, got {type(cache).__name__}")
        if cache[0] is not self:
            raise ValueError("cache: it is of another module's forward")
        _, values, x = cache
        return values, x, check.shaped(check.array(d_output, "d_output", self.dtype), "d_output", self._shape(x))


@in_files
class Linear(Pointwise):
    """An affine map of the last axis:

        y = W x + b

    with W = ``weight`` [out_features, in_features] and b = ``bias`` [out_features], both from U(-1/sqrt(in_features),
    1/sqrt(in_features)) as torch has them.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
    dtype : float32 or float64
    rng : numpy.random.Generator, int seed or None
        Of the initialisation.

    Raises
    ------
    TypeError, ValueError
        An unsuitable argument, by name.

    Examples
    --------
    >>> layer = Linear(3, 2, rng=0)
    >>> y, _ = layer(np.ones((5, 4, 3), np.float32))
    >>> y.shape
    (5, 4, 2)
    """

    def __init__(self, in_features, out_features, bias=True, *, dtype=np.float32, rng=None):
        self.in_features = check.size(in_features, "in_features")
        self.out_features = check.size(out_features, "out_features")
        self.bias = check.flag(bias, "bias")
        self.dtype = check.model_dtype(dtype)
        rng = rng if rng is parameters.UNDRAWN else check.generator(rng)
        shapes = {"weight": (self.out_features, self.in_features)} | ({"bias": (self.out_features,)} if bias else {})
        self._parameters = parameters.initialise(shapes, self.in_features, self.dtype, rng)

    def __repr__(self):
        shown = ("" if self.bias else ", bias=False") + (f", dtype={self.dtype}" if self.dtype != np.float32 else "")
        return f"Linear({self.in_features}, {self.out_features}{shown})"

    def _input(self, x):
        x = check.array(x, "x", self.dtype)
        if not x.ndim or x.shape[-1] != self.in_features:
            raise ValueError(f"x: expected last axis {self.in_features}, got shape {x.shape}")
        return x

    def _shape(self, x):
        return *x.shape[:-1], self.out_features

    def _apply(self, x):
        flat = check.walkable(x.reshape(-1, self.in_features))
        y = np.empty((len(flat), self.out_features), self.dtype)
        return self._packed().apply(flat, y, dispatch.get_num_threads()).reshape(self._shape(x))

    def _stepper(self, batch_size):
        packed, size, dtype, read = self._packed(), self.out_features, self.dtype, (batch_size, self.in_features)

        def step(x):
            y = packed.apply(x.reshape(read), np.empty((batch_size, size), dtype), 1)
            return y if x.ndim == 2 else y[0]
        return _Stepper(step, lambda block: self._apply(self._input(block)))

    def _make_pack(self, values):
        return _core.Dense(dispatch.table(self.dtype), values["weight"], values.get("bias"))

    def backward(self, cache, d_output, d_state=None, need_input=True):
        """Gradients: dW = dy^T x, db = the sum of dy, dx = dy W. Arguments and result as a recurrent layer's."""
        values, x, dy = self._opened(cache, d_output)
        table, threads = dispatch.table(self.dtype), dispatch.get_num_threads()
        rows = check.contiguous(dy.reshape(-1, self.out_features))
        weight, bias = _core.affine_gradients(table, check.walkable(x.reshape(-1, self.in_features)), rows, self.bias,
                                              threads)
        dx = None
        if check.flag(need_input, "need_input"):
            transposed = _core.Dense(table, np.ascontiguousarray(values["weight"].T), None)
            dx = transposed.apply(rows, np.empty((len(rows), self.in_features), self.dtype), threads).reshape(x.shape)
        return Gradients(dx, None, {"weight": weight} | ({"bias": bias} if self.bias else {}))


@in_files
class Embedding(Pointwise):
    """A row of a table for every whole number: y = weight[x], weight [num_embeddings, embedding_dim] from N(0, 1).

    Parameters
    ----------
    num_embeddings : int
        Numbers 0 ... num_embeddings - 1 may come.
    embedding_dim : int
    dtype : float32 or float64
    rng : numpy.random.Generator, int seed or None
        Of the initialisation.

    Raises
    ------
    TypeError, ValueError
        An unsuitable argument, by name; a number outside the table.

    Examples
    --------
    >>> words = Embedding(10, 4, rng=0)
    >>> y, _ = words(np.array([[1, 2, 1]]))
    >>> y.shape, bool(np.array_equal(y[0, 0], y[0, 2]))
    ((1, 3, 4), True)
    """

    whole_numbers = True

    def __init__(self, num_embeddings, embedding_dim, *, dtype=np.float32, rng=None):
        self.num_embeddings = check.size(num_embeddings, "num_embeddings")
        self.embedding_dim = check.size(embedding_dim, "embedding_dim")
        self.dtype = check.model_dtype(dtype)
        shape = self.num_embeddings, self.embedding_dim
        check.addressable("num_embeddings", *shape, itemsize=self.dtype.itemsize)
        self._parameters = {"weight": np.broadcast_to(self.dtype.type(0), shape) if rng is parameters.UNDRAWN else
                            parameters.freeze(check.generator(rng).standard_normal(shape, self.dtype))}

    def __repr__(self):
        shown = f", dtype={self.dtype}" if self.dtype != np.float32 else ""
        return f"Embedding({self.num_embeddings}, {self.embedding_dim}{shown})"

    def _input(self, x):
        return check.indices(x, "x", self.num_embeddings)

    def _shape(self, x):
        return *x.shape, self.embedding_dim

    def _apply(self, x):
        return self._parameters["weight"][x]

    def backward(self, cache, d_output, d_state=None, need_input=True):
        """Gradients: row k of dweight is the sum of dy where x is k. Whole numbers have none: input is None."""
        values, x, dy = self._opened(cache, d_output)
        found = np.zeros(values["weight"].shape, self.dtype)
        if x.size:
            order = np.argsort(x, axis=None, kind="stable")
            rows = x.ravel()[order]
            first = np.flatnonzero(np.diff(rows, prepend=-1))
            with np.errstate(all="ignore"):
                found[rows[first]] = np.add.reduceat(dy.reshape(-1, self.embedding_dim)[order], first)
        return Gradients(None, None, {"weight": found})


class Container(Parametrised):
    """A model made of several modules, whose parameters it holds under the modules' numbers.

    The parameters are named "0.weight_ih_l0", "0.bias_ih_l0", ..., "1.weight": the number of the module, then its own
    name. What a container computes from its modules is for the derived class to say.

    Parameters
    ----------
    *modules : recurrent layers, Linear, Embedding or containers
        The modules, all of one dtype, none of them twice. Recurrent layers agree in ``batch_first``.

    Raises
    ------
    TypeError, ValueError
        Something else is among the modules, or they do not go together.
    """

    def __init__(self, *modules):
        if not modules:
            raise ValueError("modules: expected at least one")
        for i, module in enumerate(modules):
            if not isinstance(module, (Recurrent, Pointwise, Container)):
                raise TypeError(f"modules: expected recurrent layers, Linear, Embedding or Sequential, got "
                                f"{type(module).__name__} at {i}")
            if any(module is other for other in modules[:i]):
                raise ValueError(f"modules: {module!r} at {i} is there twice; a copy.deepcopy has weights of its own")
            if module.dtype != modules[0].dtype:
                raise ValueError(f"modules: expected all of {modules[0].dtype}, got {module.dtype} at {i}")
        orders = {layer.batch_first for layer in recurrent(modules)}
        if len(orders) > 1:
            raise ValueError("modules: expected batch_first of all recurrent layers alike, got both")
        self.modules = modules
        self.dtype = modules[0].dtype
        self.batch_first = True in orders

    @property
    def recurrent(self):
        """The recurrent layers, those of inner containers included."""
        return recurrent(self.modules)

    @property
    def _parameters(self):
        return {f"{i}.{name}": value for i, module in enumerate(self.modules)
                for name, value in module._parameters.items()}

    @_parameters.setter
    def _parameters(self, values):
        for i, module in enumerate(self.modules):
            module._parameters = {name: values[f"{i}.{name}"] for name in module._parameters}

    def __setstate__(self, state):
        self.__dict__.update(state)         # the modules have frozen their own parameters

    def __copy__(self):
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, modules=tuple(map(copy.copy, self.modules)))
        return twin

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(map(repr, self.modules))})"


@dataclass(frozen=True)
class Trace:
    """The cache of a Sequential: its modules' caches, and which outputs lie past a row's end."""

    model: "Sequential"
    caches: list
    past: np.ndarray | None


@in_files
class Sequential(Container):
    """Modules in a chain, each reading the output of the one before.

    Its parameters are the modules', named "0.weight_ih_l0", "0.bias_ih_l0", ..., "1.weight", as torch names them. Its
    state is a tuple: one state for each module, None for those that have none.

    Parameters
    ----------
    *modules : RNN, LSTM, GRU, Linear, Embedding or Sequential
        Of one dtype, no module twice; recurrent layers agree in ``batch_first``. The output size of each is the input
        size of the next.

    Raises
    ------
    TypeError, ValueError
        Something else among them, or modules that do not fit.

    Examples
    --------
    >>> from fastrnn import GRU
    >>> model = Sequential(GRU(3, 8, rng=0), Linear(8, 1, rng=1))
    >>> x = np.ones((5, 2, 3), np.float32)
    >>> output, state, cache = model.forward(x)
    >>> grads = model.backward(cache, np.ones_like(output))
    >>> output.shape, grads.input.shape, list(grads.parameters)[-1]
    ((5, 2, 1), (5, 2, 3), '1.bias')
    """

    def __init__(self, *modules):
        super().__init__(*modules)
        for i, (before, module) in enumerate(itertools.pairwise(modules), start=1):
            output_size, input_size = sizes(before)[1], sizes(module)[0]
            if output_size != input_size:
                raise ValueError(f"modules: {module!r} at {i} reads {input_size or 'whole numbers'}, the one before "
                                 f"gives {output_size}")

    def __len__(self):
        return len(self.modules)

    def __iter__(self):
        return iter(self.modules)

    def __getitem__(self, i):
        return self.modules[i]

    # ---- Forward ---------------------------------------------------------------------------------

    def __call__(self, x, state=None, *, lengths=None, reset_mask=None):
        """Runs the chain over sequences; nothing is kept for ``backward``.

        Parameters
        ----------
        x : array
            As the first module has it: [T, N, I], [N, T, I] with batch_first, unbatched [T, I]; whole numbers without
            the last axis for an Embedding.
        state : sequence with a state for each module, or None, optional
        lengths : ints [N], optional
            Valid steps of each row; later outputs are exactly 0.
        reset_mask : bools [T, N], optional
            The states of row n are zeroed before step t.

        Returns
        -------
        output : array
        state : tuple
            The last states.

        Raises
        ------
        TypeError, ValueError
            An unsuitable argument, by name.
        """
        states = []
        for module, h in zip(self.modules, self._split(state, "state")):
            x, h = module(x, h, lengths=lengths, reset_mask=reset_mask)
            states.append(h)
        past = self._past(x, lengths)
        return (x if past is None else self._cleared(x, past)), tuple(states)

    def forward(self, x, state=None, lengths=None, reset_mask=None, rng=None):
        """As calling the model; besides, what ``backward`` needs. Dropout acts here, drawn from `rng`.

        Parameters
        ----------
        x, state, lengths, reset_mask
            As in ``__call__``.
        rng : numpy.random.Generator, int seed or None

        Returns
        -------
        output, state
        cache
            For ``backward``, any number of times.
        """
        rng = check.generator(rng) if rng is not None else None
        states, caches = [], []
        for i, (module, h) in enumerate(zip(self.modules, self._split(state, "state"))):
            if i and isinstance(module, Pointwise):
                x, h, cache = module._keep(x)
            else:
                x, h, cache = module.forward(x, h, lengths, reset_mask, rng)
            states.append(h)
            caches.append(cache)
        past = self._past(x, lengths)
        return (x if past is None else self._cleared(x, past)), tuple(states), Trace(self, caches, past)

    def _split(self, state, name):
        return [None] * len(self.modules) if state is None else _split(state, name, len(self.modules))

    def _past(self, output, lengths):
        """Bools of the leading axes: outputs past their row's end. None where there are none, or the kernels clear
        them."""
        if lengths is None or isinstance(self.modules[-1], (Recurrent, Container)):
            return None
        leading = output.shape[:-1]
        T, N = (*leading, 1)[:2] if len(leading) == 1 else leading[::-1] if self.batch_first else leading
        check.row_lengths(lengths, T, N)
        past = np.arange(T)[:, None] >= np.atleast_1d(lengths)
        return past[:, 0] if len(leading) == 1 else past.T if self.batch_first else past

    @staticmethod
    def _cleared(a, past):
        return np.where(past[..., None], a.dtype.type(0), a)

    # ---- Backward --------------------------------------------------------------------------------

    def backward(self, cache, d_output, d_state=None, need_input=True):
        """Gradients of a loss L.

        Parameters
        ----------
        cache
            Of this model's ``forward``.
        d_output : array
            dL/doutput; past a row's length it is not looked at.
        d_state : sequence with dL/dstate of each module, or None, optional
        need_input : bool
            False: dL/dx is not computed, and is None.

        Returns
        -------
        Gradients
            ``input`` (None for whole numbers), ``state`` (a tuple), ``parameters`` by the names of ``state_dict``.
        """
        if not isinstance(cache, Trace):
            raise TypeError(f"cache: expected what forward returned, got {type(cache).__name__}")
        if cache.model is not self:
            raise ValueError("cache: it is of another model's forward")
        need_input = check.flag(need_input, "need_input")
        dy = check.array(d_output, "d_output", self.dtype)
        if cache.past is not None:
            dy = self._cleared(check.shaped(dy, "d_output", (*cache.past.shape, dy.shape[-1] if dy.ndim else 0)),
                               cache.past)
        found, states = {}, []
        given = self._split(d_state, "d_state")
        for i in reversed(range(len(self.modules))):
            grads = self.modules[i].backward(cache.caches[i], dy, given[i], need_input or i > 0)
            dy = grads.input
            states.append(grads.state)
            found[i] = grads.parameters
        return Gradients(dy, tuple(reversed(states)),
                         {f"{i}.{name}": found[i][name] for i, module in enumerate(self.modules)
                          for name in module._parameters})

    # ---- Streaming -------------------------------------------------------------------------------

    def stream(self, batch_size=1):
        """A ``SequentialStream``: the weights as they are now and a state of its own, stepped one by one."""
        return SequentialStream(self, batch_size)


class _Stepper:
    """A module without state in a stream; step takes the checked array of its place in the chain."""

    state = None

    def __init__(self, step, run):
        self.step, self.run = step, run

    def reset(self, rows=None):
        pass


class SequentialStream:
    """A running Sequential: made by ``model.stream(batch_size)``, stepped like a layer's stream.

    Examples
    --------
    >>> from fastrnn import GRU
    >>> model = Sequential(GRU(2, 4, rng=0), Linear(4, 1, rng=1))
    >>> stream = model.stream()
    >>> stream.step(np.ones(2, np.float32)).shape
    (1,)
    """

    def __init__(self, model, batch_size=1):
        self.batch_size = check.size(batch_size, "batch_size")
        self._model = copy.copy(model)
        self._parts = [module._stepper(batch_size) if isinstance(module, Pointwise) else module.stream(batch_size)
                       for module in self._model.modules]
        self._steps = [part.step for part in self._parts]
        self._first = model.modules[0]

    def step(self, x, out=None):
        """One step.

        Parameters
        ----------
        x : array [N, I], or [I] when batch_size is 1; whole numbers [N], or one alone
        out : like the output, optional
            Written in place and returned.

        Returns
        -------
        array
            The last module's output.
        """
        if isinstance(self._first, Pointwise):
            x = self._first._input(x)
            leading = x.shape if self._first.whole_numbers else x.shape[:-1]
            if leading != (self.batch_size,) and (leading or self.batch_size != 1):
                raise ValueError(f"x: expected {self.batch_size} rows, got shape {x.shape}")
        for step in self._steps:
            x = step(x)
        if out is None:
            return x
        check.output(out, "out", x.shape, x.dtype)[...] = x
        return out

    def run(self, block):
        """Many steps in one call; block in the model's convention, [T, I] when batch_size is 1."""
        for part in self._parts:
            block = part.run(block)
        return block

    @property
    def state(self):
        """A tuple with each module's state, None where it has none: copies. Assigning checks and copies."""
        return tuple(part.state for part in self._parts)

    @state.setter
    def state(self, value):
        for part, one in zip(self._parts, _split(value, "state", len(self._parts))):
            part.state = one

    def reset(self, rows=None):
        """Zeroes the state of all rows, or of some: an index, indices, or a bool mask [N]."""
        for part in self._parts:
            part.reset(rows)

    @classmethod
    def _restored(cls, model, batch_size, state):
        stream = cls(model, batch_size)
        stream.state = state
        return stream

    def __reduce__(self):
        return self._restored, (self._model, self.batch_size, self.state)


def _split(state, name, size):
    if not isinstance(state, (tuple, list)):
        raise TypeError(f"{name}: expected a tuple with a state for each module, got {type(state).__name__}")
    if len(state) != size:
        raise ValueError(f"{name}: expected {size} states, one for each module, got {len(state)}")
    return state


def recurrent(modules):
    """The recurrent layers among modules and within them."""
    return [layer for module in modules
            for layer in ([module] if isinstance(module, Recurrent) else recurrent(getattr(module, "modules", ())))]


def sizes(module):
    """(size of the input's last axis, or None for whole numbers; size of the output's)."""
    if isinstance(module, Container):
        return sizes(module.modules[0])[0], sizes(module.modules[-1])[1]
    if isinstance(module, Linear):
        return module.in_features, module.out_features
    if isinstance(module, Embedding):
        return None, module.embedding_dim
    return module.input_size, module._directions * module._state_size
