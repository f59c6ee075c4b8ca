"""What models share: parameters by name, the packed form that the kernels read, and the gradients of ``backward``."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self

from .._base import dispatch
from .._base import validation as check
from .._base.pieces import copied
from .._base.typing import (
    Array,
    ArrayLike,
    FloatDType,
    Parameters,
    ParametersLike,
    PathLike,
    Rng,
    TrainingPrecision,
)
from . import files, parameters

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # its default makes a bare `Gradients` or `Stream` mean Any

    StateT = TypeVar("StateT", default=Any)
    StateLikeT = TypeVar("StateLikeT", default=Any)
    PackT = TypeVar("PackT", default=Any)
    StateT_co = TypeVar("StateT_co", default=Any, covariant=True)
    InputT_co = TypeVar("InputT_co", default=Any, covariant=True)
else:
    from typing import TypeVar

    StateT, StateLikeT, PackT = TypeVar("StateT"), TypeVar("StateLikeT"), TypeVar("PackT")
    StateT_co, InputT_co = TypeVar("StateT_co", covariant=True), TypeVar("InputT_co", covariant=True)


@dataclass(frozen=True)
class Gradients(Generic[StateT_co, InputT_co]):
    """Gradients of a loss L: what ``backward`` returns.

    Parameters
    ----------
    input : array or None
        The gradient dL/dx, shaped as x. None where it was not asked for, or where x is whole numbers.
    state : array, pair of arrays for an LSTM, or None
        The gradient dL/dh_0 (for an LSTM the pair dL/dh_0, dL/dc_0), shaped as the state. A Sequential has a tuple
        with one for each of its modules; Linear and Embedding, which carry no state, have None.
    parameters : dict of str to array
        The gradient of each parameter, by the names of ``state_dict``.

    Examples
    --------
    >>> import fastrnn
    >>> import numpy as np
    >>> layer = fastrnn.RNN(2, 3, rng=0)
    >>> output, h_n, cache = layer.forward(np.ones((4, 2), np.float32))
    >>> gradients = layer.backward(cache, np.ones_like(output))
    >>> gradients.input.shape, gradients.state.shape
    ((4, 2), (1, 3))
    >>> sorted(gradients.parameters)
    ['bias_hh_l0', 'bias_ih_l0', 'weight_hh_l0', 'weight_ih_l0']
    """

    input: InputT_co
    state: StateT_co
    parameters: Parameters


class Parametrised:
    """A model whose parameters have names: they are read, replaced, saved, and updated by an optimizer.

    The arrays of ``_parameters`` are read-only and never written to: an update replaces them, so that caches, streams
    and copies made before keep the weights they were made with.
    """

    _caches: tuple[str, ...] = "_pack", "_rounded_pack", "_fingerprint"     # a copy or a pickle makes them anew

    if TYPE_CHECKING:
        @property
        def dtype(self) -> FloatDType: ...

        @property
        def _parameters(self) -> Parameters: ...

        @_parameters.setter
        def _parameters(self, values: Parameters) -> None: ...

    @property
    def parameters(self) -> Mapping[str, Array]:
        """Read-only view of the parameters by name; ``updating()`` gives arrays that may be written to."""
        return types.MappingProxyType(self._parameters)

    def _replacements(self, values: Parameters) -> list[tuple[object, str, Parameters]]:
        """What has to be set to replace the parameters: (object, attribute, value), for ``_core.set_attributes``."""
        return [(self, "_parameters", values)]

    def state_dict(self) -> Parameters:
        """Copy every parameter.

        Returns
        -------
        dict of str to array
            The parameters by torch's names.

        Examples
        --------
        >>> import fastrnn
        >>> list(fastrnn.GRUCell(2, 3, rng=0).state_dict())
        ['weight_ih', 'weight_hh', 'bias_ih', 'bias_hh']
        """
        return {name: copied(value) for name, value in self._parameters.items()}

    def load_state_dict(self, mapping: ParametersLike, strict: bool = True) -> None:
        """Take parameters from a mapping such as ``state_dict()`` or torch's, turned to NumPy.

        Parameters
        ----------
        mapping : mapping of str to array
            The new values by name; they are copied.
        strict : bool, default True
            Whether a missing or an unknown name is an error. If False, such names are passed over.

        Raises
        ------
        TypeError
            The argument is no mapping, or a value no array of numbers.
        ValueError
            A name is missing or unknown, or an array has the wrong shape or a wider dtype. The message names it, and
            nothing is changed.

        Examples
        --------
        >>> import fastrnn
        >>> layer, other = fastrnn.GRU(2, 3, rng=0), fastrnn.GRU(2, 3, rng=1)
        >>> layer.load_state_dict(other.state_dict())
        >>> bool((layer.parameters["weight_hh_l0"] == other.parameters["weight_hh_l0"]).all())
        True
        """
        self._parameters = parameters.load(mapping, self._parameters, self.dtype, check.flag(strict, "strict"))

    def save(self, path: PathLike) -> None:
        """Write the model to a file, from which ``fastrnn.load`` makes the same one, bit for bit.

        Parameters
        ----------
        path : str or path-like
            The ending tells the format: ``.npz`` or ``.safetensors``. An existing file is replaced atomically.

        Raises
        ------
        TypeError
            The model is of a derived class, which ``load`` would not know.
        ValueError
            The path ends otherwise.
        OSError
            The file cannot be written.

        Examples
        --------
        >>> import os, tempfile
        >>> import fastrnn
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "gru.npz")
        ...     fastrnn.GRU(2, 3, rng=0).save(path)
        ...     fastrnn.load(path)
        GRU(2, 3)
        """
        files.save(self, path)

    @contextlib.contextmanager
    def updating(self) -> Iterator[Parameters]:
        """Change parameters in a ``with`` block.

        The block is given a dict of writable copies; when it ends without an exception they become the model's.

        Yields
        ------
        dict of str to array
            The parameters by name.

        Examples
        --------
        >>> import fastrnn
        >>> layer = fastrnn.GRU(2, 3, rng=0)
        >>> with layer.updating() as parameters:
        ...     parameters["bias_ih_l0"] += 1.0
        """
        self._needs_gradients()
        values = self.state_dict()
        yield values
        self._parameters = parameters.load(values, self._parameters, self.dtype, True)

    def _needs_gradients(self) -> None:
        """Raise TypeError where this model has none."""

    def __getstate__(self) -> dict[str, Any]:
        own = self.__dict__.copy()          # at once, since a call of another thread may add a cache
        return {name: value for name, value in own.items() if name not in self._caches}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._parameters = {name: parameters.freeze(value) for name, value in self._parameters.items()}


class Module(Parametrised):
    """A model over sequences: a recurrent layer, Linear, Embedding, or a container of such modules.

    A call gives (output, state); ``forward`` besides a cache, from which ``backward`` computes gradients. A module
    that carries no state has None for it.
    """

    if TYPE_CHECKING:
        def __call__(self, x: ArrayLike, state: Any = None, *, lengths: ArrayLike | None = None,
                     reset_mask: ArrayLike | None = None) -> tuple[Array, Any]: ...

        def forward(self, x: ArrayLike, state: Any = None, lengths: ArrayLike | None = None,
                    reset_mask: ArrayLike | None = None, rng: Rng = None, *,
                    precision: TrainingPrecision | None = None) -> tuple[Array, Any, Any]: ...

        def backward(self, cache: Any, d_output: ArrayLike, d_state: Any = None,
                     need_input: bool = True) -> Gradients[Any, Any]: ...

        def _stream_part(self, batch_size: int) -> Any: ...     # of a Sequential's stream: step, run, state, reset

        _precision: str | None

        def quantized(self, precision: Any) -> Self: ...


class Packed(Parametrised, Generic[PackT]):
    """A model whose parameters are packed for the kernels, once for each version of them and instruction set."""

    # (parameters, instruction set, packed); and the same, rounded for training in bfloat16.
    _pack: tuple[Parameters, str, PackT] | None = None
    _rounded_pack: tuple[Parameters, str, PackT] | None = None

    def _packed(self, precision: str | None = None, values: Parameters | None = None) -> PackT:
        """The parameters as they are now, packed for the active instruction set and a precision of training.

        A caller that needs the parameters besides has read them first, and gives them: another thread may replace them
        at any time.
        """
        if values is None:
            values = self._parameters
        isa = dispatch.active_isa()
        if precision is not None:
            rounded = self._rounded_pack
            if rounded is None or rounded[0] is not values or rounded[1] != isa:
                rounded = self._rounded_pack = (values, isa, self._make_rounded_pack(values))
            return rounded[2]
        pack = self._pack
        if pack is None or pack[0] is not values or pack[1] != isa:
            pack = self._pack = (values, isa, self._make_pack(values))
        return pack[2]

    if TYPE_CHECKING:
        def _make_pack(self, values: Parameters) -> PackT: ...

        def _make_rounded_pack(self, values: Parameters) -> PackT: ...
