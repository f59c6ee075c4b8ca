"""The optimizers: SGD, RMSprop, Adam and AdamW, and what they share.

A step is one pass over all parameters. It never writes to the arrays that a model has: it fills other arrays, which
then become the model's. Caches, streams and copies made before therefore keep the weights they were made with.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._base import dispatch
from .._base import validation as check
from ..nn.base import Parametrised
from ..nn.parameters import freeze

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._base.typing import Array, ArrayLike
    from .schedules import Schedule


class Optimizer:
    """Base class of the optimizers.

    It is not used by itself: ``SGD``, ``RMSprop``, ``Adam`` and ``AdamW`` say how a step changes the parameters.

    Parameters
    ----------
    model : layer, cell, Linear, Embedding or Sequential
        The model whose parameters are updated.
    learning_rate : float
        The size of a step; at least 0. The attribute may be set at any time.
    weight_decay : float
        This share of the parameters is added to their gradients (``AdamW`` subtracts it from the parameters, times the
        learning rate).
    schedule : callable, optional
        A function from the number of steps done to a factor of the learning rate: ``cosine(...)``, ``warmup(...)``, or
        one of your own.

    Raises
    ------
    TypeError, ValueError
        An argument is unsuitable; the message names it.

    Examples
    --------
    >>> import fastrnn
    >>> from fastrnn import optim
    >>> optimizer = optim.SGD(fastrnn.Linear(2, 1), learning_rate=0.5)
    >>> isinstance(optimizer, optim.Optimizer), optimizer.learning_rate, optimizer.steps
    (True, 0.5, 0)
    """

    _rule: str              # the name of the update rule in the kernels (src/kernel/update.pxi)
    _slots: tuple[str | None, str | None, str | None]       # names of the three arrays it keeps; None: not this one

    def __init__(self, model: Parametrised, learning_rate: float, weight_decay: float,
                 schedule: Schedule | None) -> None:
        if not isinstance(model, Parametrised):
            raise TypeError(f"model: expected a layer, a cell or a Sequential, got {type(model).__name__}")
        if schedule is not None and not callable(schedule):
            raise TypeError(f"schedule: expected a function of the number of steps, got {type(schedule).__name__}")
        self.model, self.learning_rate, self.schedule, self.steps = model, learning_rate, schedule, 0
        self.weight_decay = check.at_least(weight_decay, "weight_decay", 0)
        self._places: dict[str, slice] = {}             # where each parameter lies in the flat arrays
        size = 0
        for name, value in model.parameters.items():
            self._places[name] = slice(size, size + value.size)
            size += value.size
        self._size = size
        self._kept = [None if slot is None else np.zeros(size, model.dtype) for slot in self._slots]
        self._buffers: list[Array] = []

    @property
    def learning_rate(self) -> float:
        """The learning rate before the factor of the schedule."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate: float = check.at_least(value, "learning_rate", 0)

    @property
    def current_learning_rate(self) -> float:
        """The learning rate of the next step: ``learning_rate`` times the factor of the schedule."""
        if self.schedule is None:
            return self._learning_rate
        return self._learning_rate * check.at_least(self.schedule(self.steps), "schedule's factor", 0)

    def step(self, gradients: Mapping[str, ArrayLike]) -> None:
        """Update the parameters of the model.

        Parameters
        ----------
        gradients : mapping of str to array_like
            The gradient of every parameter by its name, as in ``model.backward(...).parameters``.

        Raises
        ------
        TypeError, ValueError
            A gradient is missing, unknown or of the wrong shape; the message names it, and nothing is changed.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> model = fastrnn.Linear(1, 1, bias=False)
        >>> model.load_state_dict({"weight": np.array([[1.0]], np.float32)})
        >>> fastrnn.optim.SGD(model, learning_rate=0.25).step({"weight": np.array([[2.0]], np.float32)})
        >>> model.parameters["weight"].item()
        0.5
        """
        values, dtype = self.model._parameters, self.model.dtype
        check.mapping(gradients, "gradients")
        if gradients.keys() != values.keys():
            wrong = sorted(gradients.keys() ^ values.keys())
            raise ValueError(f"gradients: expected one for each parameter, missing or unknown: {', '.join(wrong)}")
        checked = [check.contiguous(check.shaped(check.array(gradients[name], name, dtype), name, value.shape))
                   for name, value in values.items()]
        flat = self._buffer()
        # Views, which show what is written to `flat`. All is set in one go: no Ctrl-C finds a part of an update.
        updated = {name: freeze(flat[place].reshape(values[name].shape)) for name, place in self._places.items()}
        _core.update_parameters(dispatch.table(dtype), self._rule, flat, list(values.values()), checked, self._kept,
                                _NEUTRAL | self._numbers(self.current_learning_rate),
                                [*self.model._replacements(updated), (self, "steps", self.steps + 1)])

    def _numbers(self, learning_rate: float) -> dict[str, float]:
        """The numbers of the update rule for the next step; those that are left out are ``_NEUTRAL``."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it updates parameters")

    def _buffer(self) -> Array:
        """A flat array for new parameters: one that was used before, if nobody holds a view of it any more."""
        for i in range(len(self._buffers)):
            if sys.getrefcount(self._buffers[i]) == _UNHELD:
                return self._buffers[i]
        flat = np.empty(self._size, self.model.dtype)
        self._buffers = [*self._buffers[-1:], flat]
        return flat

    def _kept_by_slot(self) -> dict[str, Array]:
        return {slot: kept for slot, kept in zip(self._slots, self._kept) if slot is not None and kept is not None}

    def state_dict(self) -> dict[str, Any]:
        """Copy everything that a step depends on beside the parameters and the options.

        Returns
        -------
        dict
            "steps", "learning_rate", and by "slot.parameter" what is kept for each parameter, for example
            "mean.weight_hh_l0".

        Examples
        --------
        >>> import fastrnn
        >>> list(fastrnn.optim.Adam(fastrnn.Linear(2, 1, bias=False)).state_dict())
        ['steps', 'learning_rate', 'mean.weight', 'square.weight']
        """
        return {"steps": self.steps, "learning_rate": self.learning_rate,
                **{f"{slot}.{name}": kept[place].reshape(self.model._parameters[name].shape).copy()
                   for slot, kept in self._kept_by_slot().items() for name, place in self._places.items()}}

    def load_state_dict(self, mapping: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned.

        Parameters
        ----------
        mapping : mapping of str to number or array_like
            The state of an optimizer of the same class and options, of a model with the same parameters.

        Raises
        ------
        TypeError, ValueError
            A key is missing, unknown or unsuitable; the message names it, and nothing is changed.

        Examples
        --------
        >>> import fastrnn
        >>> model = fastrnn.Linear(2, 1)
        >>> first, second = fastrnn.optim.Adam(model, learning_rate=0.1), fastrnn.optim.Adam(model)
        >>> second.load_state_dict(first.state_dict())
        >>> second.learning_rate
        0.1
        """
        shapes = {f"{slot}.{name}": value.shape for slot in self._kept_by_slot()
                  for name, value in self.model._parameters.items()}
        expected = {"steps", "learning_rate", *shapes}
        check.mapping(mapping, "state_dict")
        if mapping.keys() != expected:
            raise ValueError(f"state_dict: missing or unknown: {', '.join(sorted(mapping.keys() ^ expected))}")
        steps = check.size(mapping["steps"], "steps", least=0)
        learning_rate = check.at_least(mapping["learning_rate"], "learning_rate", 0)
        arrays = {name: check.shaped(check.array(mapping[name], name, self.model.dtype), name, shape)
                  for name, shape in shapes.items()}
        kept = [None if slot is None else np.concatenate([arrays[f"{slot}.{name}"].ravel() for name in self._places])
                for slot in self._slots]
        _core.set_attributes([(self, "steps", steps), (self, "_learning_rate", learning_rate), (self, "_kept", kept)])

    def options(self) -> dict[str, Any]:
        """Give every option but the learning rate and the schedule.

        Returns
        -------
        dict
            The options by name.

        Examples
        --------
        >>> import fastrnn
        >>> fastrnn.optim.Adam(fastrnn.Linear(2, 1)).options()
        {'betas': (0.9, 0.999), 'eps': 1e-08, 'weight_decay': 0.0}
        """
        return {name: value for name, value in vars(self).copy().items()
                if not name.startswith("_") and name not in ("model", "schedule", "steps")}

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_buffers": []}

    def __repr__(self) -> str:
        shown = "".join(f", {name}={value}" for name, value in self.options().items())
        return f"{type(self).__name__}(learning_rate={self.learning_rate}{shown})"


# The numbers of a rule that have no effect unless it sets them; "rate" is the learning rate.
_NEUTRAL = {"rate": 0.0, "decay": 0.0, "shrink": 1.0, "momentum": 0.0, "fresh": 1.0, "fresh_square": 0.0, "eps": 0.0,
            "scale": 1.0, "nesterov": False}


def _unheld() -> int:
    arrays = [np.empty(1)]
    return sys.getrefcount(arrays[0])


_UNHELD = _unheld()         # the reference count of an array that nothing but a list holds


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum [1]_ or Nesterov's momentum [2]_.

    With the gradient g, the running mean b (at first b = g) and the parameters p::

        b = momentum b + (1 - dampening) g
        p = p - learning_rate b                         or, with nesterov,
        p = p - learning_rate (g + momentum b)

    Parameters
    ----------
    model : layer, cell, Linear, Embedding or Sequential
        The model whose parameters are updated.
    learning_rate : float
        The size of a step; at least 0.
    momentum : float
        The share of the running mean that stays; 0 for plain descent.
    dampening : float
        How much less than in full a gradient enters the running mean.
    weight_decay : float
        This share of the parameters is added to their gradients.
    nesterov : bool
        Use Nesterov's momentum; it needs a momentum and no dampening.
    schedule : callable, optional
        A function from the number of steps done to a factor of the learning rate.

    Raises
    ------
    TypeError, ValueError
        An argument is unsuitable; the message names it.

    References
    ----------
    .. [1] B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    .. [2] I. Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> model = fastrnn.Linear(2, 1, rng=0)
    >>> optimizer = fastrnn.optim.SGD(model, learning_rate=0.1, momentum=0.9, nesterov=True)
    >>> optimizer.step({name: np.ones_like(value) for name, value in model.parameters.items()})
    """

    _rule = "sgd"

    def __init__(self, model: Parametrised, learning_rate: float = 1e-3, *, momentum: float = 0.0,
                 dampening: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False,
                 schedule: Schedule | None = None) -> None:
        self.momentum = check.at_least(momentum, "momentum", 0)
        self.dampening = check.number(dampening, "dampening")
        self.nesterov = check.flag(nesterov, "nesterov")
        if self.nesterov and (not self.momentum or self.dampening):
            raise ValueError("nesterov: it needs momentum, and no dampening")
        self._slots = ("momentum" if self.momentum else None, None, None)
        super().__init__(model, learning_rate, weight_decay, schedule)

    def _numbers(self, learning_rate: float) -> dict[str, float]:
        return {"rate": learning_rate, "decay": self.weight_decay, "momentum": self.momentum,
                "nesterov": self.nesterov, "fresh": 1 - self.dampening if self.steps else 1.0}


class RMSprop(Optimizer):
    """Gradients divided by the root of their running mean square [1]_.

    With the gradient g and the parameters p::

        v = alpha v + (1 - alpha) g^2
        m = alpha m + (1 - alpha) g                     with centered, v - m^2 takes the place of v below
        p = p - learning_rate g / (sqrt(v) + eps)       or, with momentum,
        b = momentum b + g / (sqrt(v) + eps)
        p = p - learning_rate b

    Parameters
    ----------
    model : layer, cell, Linear, Embedding or Sequential
        The model whose parameters are updated.
    learning_rate : float
        The size of a step; at least 0.
    alpha : float
        The share of the running means that stays, from 0 to 1.
    eps : float
        Added to the divisor so that it is not 0.
    weight_decay : float
        This share of the parameters is added to their gradients.
    momentum : float
        The share of the running step b that stays; 0 for none.
    centered : bool
        Divide by the root of the running variance in place of the mean square.
    schedule : callable, optional
        A function from the number of steps done to a factor of the learning rate.

    Raises
    ------
    TypeError, ValueError
        An argument is unsuitable; the message names it.

    References
    ----------
    .. [1] G. Hinton, "Neural networks for machine learning", lecture 6e, 2012.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.optim.RMSprop(fastrnn.Linear(2, 1), momentum=0.5)
    RMSprop(learning_rate=0.01, alpha=0.99, eps=1e-08, momentum=0.5, centered=False, weight_decay=0.0)
    """

    _rule = "rmsprop"

    def __init__(self, model: Parametrised, learning_rate: float = 1e-2, *, alpha: float = 0.99, eps: float = 1e-8,
                 weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False,
                 schedule: Schedule | None = None) -> None:
        self.alpha = check.probability(alpha, "alpha")
        self.eps = check.at_least(eps, "eps", 0)
        self.momentum = check.at_least(momentum, "momentum", 0)
        self.centered = check.flag(centered, "centered")
        self._slots = ("momentum" if self.momentum else None, "square", "mean" if self.centered else None)
        super().__init__(model, learning_rate, weight_decay, schedule)

    def _numbers(self, learning_rate: float) -> dict[str, float]:
        return {"rate": learning_rate, "decay": self.weight_decay, "momentum": self.momentum,
                "fresh_square": 1 - self.alpha, "eps": self.eps}


class Adam(Optimizer):
    """Adaptive moments [1]_.

    With the gradient g and the parameters p, at step t = 1, 2, ...::

        m = beta1 m + (1 - beta1) g
        v = beta2 v + (1 - beta2) g^2
        p = p - learning_rate m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)

    Parameters
    ----------
    model : layer, cell, Linear, Embedding or Sequential
        The model whose parameters are updated.
    learning_rate : float
        The size of a step; at least 0.
    betas : pair of float
        The shares of the running means m and v that stay, each from 0 to below 1.
    eps : float
        Added to the divisor so that it is not 0.
    weight_decay : float
        This share of the parameters is added to their gradients.
    schedule : callable, optional
        A function from the number of steps done to a factor of the learning rate.

    Raises
    ------
    TypeError, ValueError
        An argument is unsuitable; the message names it.

    References
    ----------
    .. [1] D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR 2015.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> model = fastrnn.Linear(2, 1, rng=0)
    >>> optimizer = fastrnn.optim.Adam(model, learning_rate=0.01)
    >>> optimizer.step({name: np.ones_like(value) for name, value in model.parameters.items()})
    >>> optimizer.steps
    1
    """

    _rule = "adam"
    _slots = ("mean", "square", None)

    def __init__(self, model: Parametrised, learning_rate: float = 1e-3, *, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.0, schedule: Schedule | None = None) -> None:
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"betas: expected a pair of numbers, got {betas!r:.80}")
        self.betas = check.probability(betas[0], "betas"), check.probability(betas[1], "betas")
        if 1.0 in self.betas:
            raise ValueError(f"betas: expected numbers below 1, got {betas}")
        self.eps = check.at_least(eps, "eps", 0)
        super().__init__(model, learning_rate, weight_decay, schedule)

    def _numbers(self, learning_rate: float) -> dict[str, float]:
        t, (beta1, beta2) = self.steps + 1, self.betas
        return {"rate": learning_rate / (1 - beta1 ** t), "decay": self.weight_decay, "fresh": 1 - beta1,
                "fresh_square": 1 - beta2, "eps": self.eps, "scale": 1 / math.sqrt(1 - beta2 ** t)}


class AdamW(Adam):
    """Adam with the decay of weights apart from the gradients [1]_.

    The parameters are first shrunk, then Adam's step without weight decay follows::

        p = p - learning_rate weight_decay p

    Parameters
    ----------
    model : layer, cell, Linear, Embedding or Sequential
        The model whose parameters are updated.
    learning_rate : float
        The size of a step; at least 0.
    betas : pair of float
        The shares of the running means m and v that stay, each from 0 to below 1.
    eps : float
        Added to the divisor so that it is not 0.
    weight_decay : float
        This share of the parameters, times the learning rate, is subtracted from them at every step.
    schedule : callable, optional
        A function from the number of steps done to a factor of the learning rate.

    Raises
    ------
    TypeError, ValueError
        An argument is unsuitable; the message names it.

    References
    ----------
    .. [1] I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.optim.AdamW(fastrnn.Linear(2, 1))
    AdamW(learning_rate=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01)
    """

    def __init__(self, model: Parametrised, learning_rate: float = 1e-3, *, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 1e-2, schedule: Schedule | None = None) -> None:
        super().__init__(model, learning_rate, betas=betas, eps=eps, weight_decay=weight_decay, schedule=schedule)

    def _numbers(self, learning_rate: float) -> dict[str, float]:
        return super()._numbers(learning_rate) | {"decay": 0.0, "shrink": 1 - learning_rate * self.weight_decay}
