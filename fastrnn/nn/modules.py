"""Containers of modules: Sequential, which chains them, and the base it shares with other networks of several parts."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np

from .. import _core
from .._base import validation as check
from .._base.registry import in_files
from .._base.typing import Array, ArrayLike, BoolArray, FloatDType, Parameters, Rng, TrainingPrecision
from .base import Gradients, Module
from .pointwise import Embedding, Linear, Pointwise
from .quantized import Quantizable
from .recurrent import Recurrent
from .streams import SequentialStream

__all__ = ["Container", "Embedding", "Linear", "Pointwise", "Sequential", "recurrent", "sizes"]

# Each module's state in turn; None for a module without one.
States = tuple[Any, ...]


class Container(Quantizable):
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

    dtype: FloatDType

    def __init__(self, *modules: Module) -> None:
        if not modules:
            raise ValueError("modules: expected at least one")
        for i, module in enumerate(modules):
            if not isinstance(module, Module):
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
    def recurrent(self) -> list[Recurrent[Any, Any]]:
        """The recurrent layers, those of inner containers included."""
        return recurrent(self.modules)

    @property
    def _parameters(self) -> Parameters:
        leaves = list(_leaves(self.modules))
        values = _core.attributes([leaf for _, leaf in leaves], "_parameters")      # of one version
        return {f"{prefix}{name}": value for (prefix, _), own in zip(leaves, values, strict=True)
                for name, value in own.items()}

    @_parameters.setter
    def _parameters(self, values: Parameters) -> None:
        _core.set_attributes(self._replacements(values))

    def _replacements(self, values: Parameters) -> list[tuple[object, str, Parameters]]:
        return [replacement for i, module in enumerate(self.modules) for replacement in module._replacements(
            {name: values[f"{i}.{name}"] for name in module._parameters})]

    @property
    def _precision(self) -> str | None:         # type: ignore[override]    # that of the modules
        return next((module._precision for module in self.modules if module._precision is not None), None)

    def _narrowed(self, precision: str) -> Self:
        twin = copy.copy(self)
        twin.modules = tuple(module.quantized(precision) for module in self.modules)
        twin.dtype = twin.modules[0].dtype
        return twin

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)         # the modules have frozen their own parameters

    def __copy__(self) -> Self:
        twin = object.__new__(type(self))
        modules = tuple(map(copy.copy, self.modules))
        values = _core.attributes([leaf for _, leaf in _leaves(self.modules)], "_parameters")       # of one version
        _core.set_attributes([(leaf, "_parameters", own)
                              for (_, leaf), own in zip(_leaves(modules), values, strict=True)])
        twin.__dict__.update(self.__dict__, modules=modules)
        return twin

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.modules))})"

    if TYPE_CHECKING:
        def stream(self, batch_size: int = 1) -> Any: ...

    def _stream_part(self, batch_size: int) -> Any:
        return self.stream(batch_size)


def _leaves(modules: Iterable[Module], prefix: str = "") -> Iterator[tuple[str, Module]]:
    """The modules that hold parameters, those of inner containers among them, and what precedes their names."""
    for i, module in enumerate(modules):
        if isinstance(module, Container):
            yield from _leaves(module.modules, f"{prefix}{i}.")
        else:
            yield f"{prefix}{i}.", module


@dataclass(frozen=True)
class Trace:
    """What a Sequential's ``forward`` keeps for ``backward``.

    ``caches`` has each module's cache; ``past`` is true for outputs past the end of their row, or None.
    """

    model: Sequential
    caches: list[Any]
    past: BoolArray | None


@in_files
class Sequential(Container):
    """Modules in a chain, each reading the output of the one before.

    The parameters are the modules', named "0.weight_ih_l0", "0.bias_ih_l0", ..., "1.weight", as torch names them. The
    state is a tuple with one state for each module, None for those that carry none. ``len``, iteration, and indexing
    give the modules; a slice is a Sequential of the same modules.

    Parameters
    ----------
    *modules : RNN, LSTM, GRU, Linear, Embedding or Sequential
        The modules, all of one dtype, none of them twice. Recurrent layers agree in ``batch_first``, and the output
        size of each module is the input size of the next.

    Raises
    ------
    TypeError, ValueError
        Something else is among the modules, or they do not fit one another.

    Examples
    --------
    >>> import fastrnn
    >>> import numpy as np
    >>> model = fastrnn.Sequential(fastrnn.GRU(3, 8, rng=0), fastrnn.Linear(8, 1, rng=1))
    >>> output, state, cache = model.forward(np.ones((5, 2, 3), np.float32))
    >>> gradients = model.backward(cache, np.ones_like(output))
    >>> output.shape, gradients.input.shape, list(gradients.parameters)[-1]
    ((5, 2, 1), (5, 2, 3), '1.bias')
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__(*modules)
        for i, (before, module) in enumerate(itertools.pairwise(modules), start=1):
            output_size, input_size = sizes(before)[1], sizes(module)[0]
            if output_size != input_size:
                raise ValueError(f"modules: {module!r} at {i} reads {input_size or 'whole numbers'}, the one before "
                                 f"gives {output_size}")

    def __len__(self) -> int:
        return len(self.modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.modules)

    @overload
    def __getitem__(self, i: int) -> Module: ...

    @overload
    def __getitem__(self, i: slice) -> Sequential: ...

    def __getitem__(self, i: int | slice) -> Module:
        return Sequential(*self.modules[i]) if isinstance(i, slice) else self.modules[i]

    # ---- Forward ---------------------------------------------------------------------------------

    def __call__(self, x: ArrayLike, state: Sequence[Any] | None = None, *, lengths: ArrayLike | None = None,
                 reset_mask: ArrayLike | None = None) -> tuple[Array, States]:
        """Run the chain over sequences; nothing is kept for ``backward``.

        Parameters
        ----------
        x : array
            The input of the first module: [T, N, I], [N, T, I] with ``batch_first``, or unbatched [T, I]. For an
            Embedding it is whole numbers, without the last axis.
        state : sequence with a state for each module, optional
            The initial states, None for modules without one; zeros if not given.
        lengths : array of int [N], optional
            Valid steps of each row. Later outputs are exactly 0.
        reset_mask : array of bool [T, N], optional
            Where set, the states of row n are zeroed before step t.

        Returns
        -------
        output : array
            The last module's output.
        state : tuple
            The last state of each module.

        Raises
        ------
        TypeError, ValueError
            An argument is unsuitable; the message names it.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> model = fastrnn.Sequential(fastrnn.Embedding(10, 3, rng=0), fastrnn.LSTM(3, 8, rng=1))
        >>> output, (_, (h_n, c_n)) = model(np.array([[1, 4], [2, 5], [3, 6]]))
        >>> output.shape, h_n.shape
        ((3, 2, 8), (1, 2, 8))
        """
        states = []
        output: Any = x
        for module, module_state in zip(self.modules, self._split(state, "state")):
            output, module_state = module(output, module_state, lengths=lengths, reset_mask=reset_mask)
            states.append(module_state)
        past = self._past(output, lengths)
        return (output if past is None else _cleared(output, past)), tuple(states)

    def forward(self, x: ArrayLike, state: Sequence[Any] | None = None, lengths: ArrayLike | None = None,
                reset_mask: ArrayLike | None = None, rng: Rng = None, *,
                precision: TrainingPrecision | None = None) -> tuple[Array, States, Trace]:
        """Run the chain and keep what ``backward`` needs; dropout acts here.

        Parameters
        ----------
        x : array
            The input, as in ``__call__``.
        state : sequence with a state for each module, optional
            The initial states, as in ``__call__``.
        lengths : array of int [N], optional
            Valid steps of each row.
        reset_mask : array of bool [T, N], optional
            Where set, the states of row n are zeroed before step t.
        rng : numpy.random.Generator, int or None, default None
            Random generator, or its seed, of the dropout masks.
        precision : {"float32", "float64", "bfloat16"}, optional
            That of the products, here and in ``backward``; the model's dtype if not given. With "bfloat16", for models
            of float32, the factors of each product are rounded to bfloat16, weights among them; parameters, states,
            sums and gradients stay float32.

        Returns
        -------
        output : array
            The last module's output.
        state : tuple
            The last state of each module.
        cache : object
            For ``backward``, which may be called with it any number of times.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> model = fastrnn.Sequential(fastrnn.GRU(3, 8, rng=0), fastrnn.Linear(8, 1, rng=1))
        >>> output, state, cache = model.forward(np.ones((5, 2, 3), np.float32))
        >>> len(model.backward(cache, np.ones_like(output)).parameters)
        6
        """
        generator = check.generator(rng) if rng is not None else None
        states, caches = [], []
        output: Any = x
        for i, (module, module_state) in enumerate(zip(self.modules, self._split(state, "state"))):
            if i and isinstance(module, Pointwise):
                output, module_state, cache = module._keep(output, precision)
            else:
                output, module_state, cache = module.forward(output, module_state, lengths, reset_mask, generator,
                                                              precision=precision)
            states.append(module_state)
            caches.append(cache)
        past = self._past(output, lengths)
        return (output if past is None else _cleared(output, past)), tuple(states), Trace(self, caches, past)

    def _split(self, state: Sequence[Any] | None, name: str) -> Sequence[Any]:
        return [None] * len(self.modules) if state is None else check.states(state, name, len(self.modules))

    def _past(self, output: Array, lengths: ArrayLike | None) -> BoolArray | None:
        """Bools of the leading axes: outputs past their row's end. None where there are none, or kernels clear them."""
        if lengths is None or isinstance(self.modules[-1], (Recurrent, Container)):
            return None
        leading = output.shape[:-1]
        T, N = (*leading, 1)[:2] if len(leading) == 1 else leading[::-1] if self.batch_first else leading
        check.row_lengths(lengths, T, N)
        past: BoolArray = np.arange(T)[:, None] >= np.atleast_1d(lengths)
        return past[:, 0] if len(leading) == 1 else past.T if self.batch_first else past

    # ---- Backward --------------------------------------------------------------------------------

    def backward(self, cache: Trace, d_output: ArrayLike, d_state: Sequence[Any] | None = None,
                 need_input: bool = True) -> Gradients[States, Any]:
        """Compute the gradients of a loss L by back-propagation through the chain.

        Parameters
        ----------
        cache : object
            What this model's ``forward`` returned.
        d_output : array
            The gradient dL/doutput. Past a row's length it is not looked at.
        d_state : sequence with a gradient for each module, optional
            The gradients of the last states, None for modules without a state; zeros if not given.
        need_input : bool, default True
            Whether dL/dx is computed. If False, it is None.

        Returns
        -------
        Gradients
            The gradients of the input (None for whole numbers), of the states (a tuple) and of the parameters.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> model = fastrnn.Sequential(fastrnn.GRU(3, 8, rng=0), fastrnn.Linear(8, 1, rng=1))
        >>> output, state, cache = model.forward(np.ones((5, 2, 3), np.float32))
        >>> model.backward(cache, np.ones_like(output)).parameters["1.bias"]
        array([10.], dtype=float32)
        """
        if not isinstance(cache, Trace):
            raise TypeError(f"cache: expected what forward returned, got {type(cache).__name__}")
        if cache.model is not self:
            raise ValueError("cache: it is of another model's forward")
        need_input = check.flag(need_input, "need_input")
        dy: Any = check.array(d_output, "d_output", self.dtype)
        if cache.past is not None:
            dy = _cleared(check.shaped(dy, "d_output", (*cache.past.shape, dy.shape[-1] if dy.ndim else 0)),
                          cache.past)
        by_module, states = {}, []
        d_states = self._split(d_state, "d_state")
        for i in reversed(range(len(self.modules))):
            gradients = self.modules[i].backward(cache.caches[i], dy, d_states[i], need_input or i > 0)
            dy = gradients.input
            states.append(gradients.state)
            by_module[i] = gradients.parameters
        return Gradients(dy, tuple(reversed(states)),
                         {f"{i}.{name}": by_module[i][name] for i, module in enumerate(self.modules)
                          for name in module._parameters})

    # ---- Streaming -------------------------------------------------------------------------------

    def stream(self, batch_size: int = 1) -> SequentialStream:
        """Make a stream of the chain, stepped like a layer's stream.

        The stream keeps the weights that the model has now: parameters that are loaded or trained later do not reach
        it.

        Parameters
        ----------
        batch_size : int, default 1
            Number of rows, each with a state of its own.

        Returns
        -------
        SequentialStream
            The stream, with a state of zeros.

        Raises
        ------
        ValueError
            A layer is bidirectional or reversed.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> model = fastrnn.Sequential(fastrnn.GRU(3, 8, rng=0), fastrnn.Linear(8, 1, rng=1))
        >>> model.stream().step(np.ones(3, np.float32)).shape
        (1,)
        """
        return SequentialStream(self, batch_size)


def _cleared(a: Array, past: BoolArray) -> Array:
    """The array with zeros where `past` is true."""
    return np.where(past[..., None], a.dtype.type(0), a)


def recurrent(modules: Iterable[Module]) -> list[Recurrent[Any, Any]]:
    """The recurrent layers among modules and within them."""
    return [layer for module in modules
            for layer in ([module] if isinstance(module, Recurrent) else recurrent(getattr(module, "modules", ())))]


def sizes(module: Module) -> tuple[int | None, int]:
    """Size of the input's last axis, None where the input is whole numbers, and size of the output's last axis."""
    if isinstance(module, Container):
        return sizes(module.modules[0])[0], sizes(module.modules[-1])[1]
    if isinstance(module, Linear):
        return module.in_features, module.out_features
    if isinstance(module, Embedding):
        return None, module.embedding_dim
    if isinstance(module, Recurrent):
        return module.input_size, module._directions * module._state_size
    raise TypeError(f"module: expected one of fastrnn's, got {type(module).__name__}")
