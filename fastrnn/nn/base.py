"""What every model shares: parameters by name, and the gradients that ``backward`` returns."""

import contextlib
import types
from dataclasses import dataclass

import numpy as np

from .._base import dispatch
from .._base import validation as check
from . import files, parameters


@dataclass(frozen=True)
class Gradients:
    """What ``backward`` returns.

    Attributes
    ----------
    input : array
        dL/dx, shaped as x.
    state : array, or pair of arrays for LSTM
        dL/dh_0 (and dL/dc_0), shaped as the state.
    parameters : dict of str to array
        dL/dparameter by the names of ``state_dict``.

    Examples
    --------
    >>> import fastrnn
    >>> layer = fastrnn.RNN(2, 3, rng=0)
    >>> output, h_n, cache = layer.forward(np.ones((4, 2), np.float32))
    >>> sorted(layer.backward(cache, np.ones_like(output)).parameters)
    ['bias_hh_l0', 'bias_ih_l0', 'weight_hh_l0', 'weight_ih_l0']
    """

    input: np.ndarray
    state: np.ndarray | tuple
    parameters: dict


class Parametrised:
    """Parameters by torch's names: read, loaded, updated; packed for the kernels when they have changed."""

    _parameters: dict
    _pack = None            # (parameters, instruction set, packed): valid while both are current

    @property
    def parameters(self):
        """Name -> array, read-only; ``updating()`` gives writable ones."""
        return types.MappingProxyType(self._parameters)

    def state_dict(self):
        """A copy of every parameter, by torch's names."""
        return {name: value.copy() for name, value in self._parameters.items()}

    def load_state_dict(self, mapping, strict=True):
        """Takes parameters from a mapping such as ``state_dict()`` or torch's, turned to NumPy.

        Parameters
        ----------
        mapping : mapping of str to array
        strict : bool
            False: keys that are missing or unknown are passed over.

        Raises
        ------
        ValueError
            A missing, unknown or wrongly shaped key, by name; nothing is changed then.
        """
        self._parameters = parameters.load(mapping, self._parameters, self.dtype, check.flag(strict, "strict"))

    def save(self, path):
        """Writes the model, options and parameters, for ``fastrnn.load``: .npz or, with safetensors, .safetensors."""
        files.save(self, path)

    @contextlib.contextmanager
    def updating(self):
        """Gives a dict of writable copies of the parameters; on a regular end they become the layer's.

        >>> import fastrnn
        >>> layer = fastrnn.GRU(2, 3, rng=0)
        >>> with layer.updating() as p:
        ...     p["bias_ih_l0"] += 1.0
        """
        fresh = self.state_dict()
        yield fresh
        self._parameters = parameters.load(fresh, self._parameters, self.dtype, True)

    def _packed(self):
        """[layer][direction] packed for the active instruction set."""
        values, isa = self._parameters, dispatch.active_isa()
        pack = self._pack
        if pack is None or pack[0] is not values or pack[1] != isa:
            pack = self._pack = (values, isa, self._make_pack(values))
        return pack[2]

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name not in ("_pack", "_fingerprint")}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._parameters = {name: parameters.freeze(value) for name, value in self._parameters.items()}
