"""Optimizers with torch's names, options and results; learning-rate schedules; clipping of gradients.

    optimizer = Adam(model, learning_rate=1e-3, schedule=cosine(1000))
    optimizer.step(gradients)           # by parameter name: what model.backward(...).parameters is

A step is one pass over all parameters. It never writes to the arrays a model has: it fills others, which become the
model's, so that caches, streams and copies made before keep the weights they were made with.
"""

import math
import sys

import numpy as np

from . import _core
from ._base import dispatch
from ._base import validation as check
from .nn.base import Parametrised
from .nn.parameters import freeze

__all__ = ["SGD", "RMSprop", "Adam", "AdamW", "Optimizer", "clip_grad_norm", "warmup", "cosine", "step_decay",
           "exponential"]


class Optimizer:
    """What the optimizers share.

    Parameters
    ----------
    model : layer or Sequential
    learning_rate : float
        The learning rate; may be set at any time.
    weight_decay : float
        This share of the parameters is added to their gradients (AdamW: taken off the parameters, times learning_rate).
    schedule : function, optional
        The number of steps done -> a factor of learning_rate: ``cosine(...)``, ``warmup(...)``, or any other.

    Raises
    ------
    TypeError, ValueError
        An unsuitable argument, by name.

    Examples
    --------
    >>> import fastrnn
    >>> optimizer = SGD(fastrnn.Linear(2, 1), learning_rate=0.5, schedule=step_decay(10))
    >>> isinstance(optimizer, Optimizer), optimizer.learning_rate, optimizer.current_learning_rate
    (True, 0.5, 0.5)
    """

    _rule: str              # of the kernels (src/update.pxi)
    _slots: tuple           # names of the three arrays that it keeps, None where it does not

    def __init__(self, model, learning_rate, weight_decay, schedule):
        if not isinstance(model, Parametrised):
            raise TypeError(f"model: expected a layer or a Sequential, got {type(model).__name__}")
        if schedule is not None and not callable(schedule):
            raise TypeError(f"schedule: expected a function of the number of steps, got {type(schedule).__name__}")
        self.model, self.learning_rate, self.schedule, self.steps = model, learning_rate, schedule, 0
        self.weight_decay = check.at_least(weight_decay, "weight_decay", 0)
        self._places, size = {}, 0
        for name, value in model.parameters.items():
            self._places[name] = slice(size, size + value.size)
            size += value.size
        self._size = size
        self._kept = [None if slot is None else np.zeros(size, model.dtype) for slot in self._slots]
        self._buffers = []

    @property
    def learning_rate(self):
        """The learning rate before the schedule's factor."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value):
        self._learning_rate = check.at_least(value, "learning_rate", 0)

    @property
    def current_learning_rate(self):
        """The learning rate of the next step: learning_rate times the schedule's factor."""
        return self._learning_rate * (1.0 if self.schedule is None else
                           check.at_least(self.schedule(self.steps), "schedule's factor", 0))

    def step(self, gradients):
        """Updates the model's parameters.

        Parameters
        ----------
        gradients : mapping of str to array
            One for each parameter, by name: ``model.backward(...).parameters``.

        Raises
        ------
        TypeError, ValueError
            A missing, unknown or wrongly shaped gradient, by name; nothing is changed then.
        """
        values, dtype = self.model._parameters, self.model.dtype
        check.mapping(gradients, "gradients")
        if gradients.keys() != values.keys():
            wrong = sorted(gradients.keys() ^ values.keys())
            raise ValueError(f"gradients: expected one for each parameter, missing or unknown: {', '.join(wrong)}")
        gradients = [check.contiguous(check.shaped(check.array(gradients[name], name, dtype), name, value.shape))
                     for name, value in values.items()]
        fresh = self._buffer()
        _core.update_parameters(dispatch.table(dtype), self._rule, fresh, list(values.values()), gradients, self._kept,
                                _NEUTRAL | self._numbers(self.current_learning_rate))
        self.model._parameters = {name: freeze(fresh[at].reshape(values[name].shape))
                                  for name, at in self._places.items()}
        self.steps += 1

    def _buffer(self):
        """A flat array for new parameters: one that was used before, if nobody holds a view of it any more."""
        for i in range(len(self._buffers)):
            if sys.getrefcount(self._buffers[i]) == _UNHELD:
                return self._buffers[i]
        fresh = np.empty(self._size, self.model.dtype)
        self._buffers = [*self._buffers[-1:], fresh]
        return fresh

    def _slots_kept(self):
        return [(slot, kept) for slot, kept in zip(self._slots, self._kept) if slot is not None]

    def state_dict(self):
        """Everything a step depends on beside parameters and options: "steps", "learning_rate", and by "slot.parameter"
        copies of what is kept for each parameter."""
        return {"steps": self.steps, "learning_rate": self.learning_rate,
                **{f"{slot}.{name}": kept[at].reshape(self.model._parameters[name].shape).copy()
                   for slot, kept in self._slots_kept() for name, at in self._places.items()}}

    def load_state_dict(self, mapping):
        """Takes what ``state_dict`` gave.

        Raises
        ------
        TypeError, ValueError
            A missing, unknown or unsuitable key, by name; nothing is changed then.
        """
        shapes = {f"{slot}.{name}": value.shape for slot, _ in self._slots_kept()
                  for name, value in self.model._parameters.items()}
        wanted = {"steps", "learning_rate", *shapes}
        check.mapping(mapping, "state_dict")
        if mapping.keys() != wanted:
            raise ValueError(f"state_dict: missing or unknown: {', '.join(sorted(mapping.keys() ^ wanted))}")
        steps = check.size(mapping["steps"], "steps", least=0)
        learning_rate = check.at_least(mapping["learning_rate"], "learning_rate", 0)
        kept = {name: check.shaped(check.array(mapping[name], name, self.model.dtype), name, shape)
                for name, shape in shapes.items()}
        self.steps, self.learning_rate = steps, learning_rate
        for slot, flat in self._slots_kept():
            for name, at in self._places.items():
                flat[at] = kept[f"{slot}.{name}"].ravel()

    def options(self):
        """Name -> number of every option but learning_rate and schedule."""
        return {name: value for name, value in vars(self).items()
                if not name.startswith("_") and name not in ("model", "schedule", "steps")}

    def __getstate__(self):
        return vars(self) | {"_buffers": []}

    def __repr__(self):
        shown = "".join(f", {name}={value}" for name, value in self.options().items())
        return f"{type(self).__name__}(learning_rate={self.learning_rate}{shown})"


# What a rule does not name has no effect.
_NEUTRAL = {"rate": 0.0, "decay": 0.0, "shrink": 1.0, "momentum": 0.0, "fresh": 1.0, "fresh_square": 0.0, "eps": 0.0,
            "scale": 1.0, "nesterov": False}


def _unheld():
    held = [np.empty(1)]
    return sys.getrefcount(held[0])


_UNHELD = _unheld()         # the reference count of an array that only a list holds


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Polyak 1964) or Nesterov's (Sutskever et al. 2013):

        b = momentum b + (1 - dampening) g        (the first time b = g)
        p = p - learning_rate b,  or with nesterov  p - learning_rate (g + momentum b)

    Parameters
    ----------
    model, learning_rate, weight_decay, schedule
        As all optimizers have them.
    momentum, dampening : float
    nesterov : bool

    Examples
    --------
    >>> import fastrnn
    >>> model = fastrnn.Linear(2, 1, rng=0)
    >>> SGD(model, learning_rate=0.1, momentum=0.9, nesterov=True).step({name: np.ones_like(p) for name, p in
    ...                                                       model.parameters.items()})
    """

    _rule = "sgd"

    def __init__(self, model, learning_rate=1e-3, *, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False,
                 schedule=None):
        self.momentum = check.at_least(momentum, "momentum", 0)
        self.dampening = check.number(dampening, "dampening")
        self.nesterov = check.flag(nesterov, "nesterov")
        if self.nesterov and (not self.momentum or self.dampening):
            raise ValueError("nesterov: it needs momentum, and no dampening")
        self._slots = ("momentum" if self.momentum else None, None, None)
        super().__init__(model, learning_rate, weight_decay, schedule)

    def _numbers(self, rate):
        return {"rate": rate, "decay": self.weight_decay, "momentum": self.momentum, "nesterov": self.nesterov,
                "fresh": 1 - self.dampening if self.steps else 1.0}


class RMSprop(Optimizer):
    """Gradients divided by a running root of their mean square (Hinton 2012):

        v = alpha v + (1 - alpha) g^2,  centered: m = alpha m + (1 - alpha) g,  v - m^2 in place of v below
        p = p - learning_rate g / (sqrt(v) + eps),  or with momentum
        b = momentum b + g / (sqrt(v) + eps),  p = p - learning_rate b

    Parameters
    ----------
    model, learning_rate, weight_decay, schedule
        As all optimizers have them.
    alpha, eps, momentum : float
    centered : bool

    Examples
    --------
    >>> import fastrnn
    >>> RMSprop(fastrnn.Linear(2, 1), momentum=0.5)
    RMSprop(learning_rate=0.01, alpha=0.99, eps=1e-08, momentum=0.5, centered=False, weight_decay=0.0)
    """

    _rule = "rmsprop"

    def __init__(self, model, learning_rate=1e-2, *, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0,
                 centered=False, schedule=None):
        self.alpha = check.probability(alpha, "alpha")
        self.eps = check.at_least(eps, "eps", 0)
        self.momentum = check.at_least(momentum, "momentum", 0)
        self.centered = check.flag(centered, "centered")
        self._slots = ("momentum" if self.momentum else None, "square", "mean" if self.centered else None)
        super().__init__(model, learning_rate, weight_decay, schedule)

    def _numbers(self, rate):
        return {"rate": rate, "decay": self.weight_decay, "momentum": self.momentum, "fresh_square": 1 - self.alpha,
                "eps": self.eps}


class Adam(Optimizer):
    """Adaptive moments (Kingma & Ba 2015), after t steps:

        m = beta1 m + (1 - beta1) g
        v = beta2 v + (1 - beta2) g^2
        p = p - learning_rate m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)

    Parameters
    ----------
    model, learning_rate, weight_decay, schedule
        As all optimizers have them.
    betas : pair of float
    eps : float

    Examples
    --------
    >>> import fastrnn
    >>> model = fastrnn.Linear(2, 1, rng=0)
    >>> optimizer = Adam(model, learning_rate=0.01)
    >>> optimizer.step({name: np.ones_like(p) for name, p in model.parameters.items()})
    >>> optimizer.steps
    1
    """

    _rule = "adam"
    _slots = ("mean", "square", None)

    def __init__(self, model, learning_rate=1e-3, *, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, schedule=None):
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"betas: expected a pair of numbers, got {betas!r:.80}")
        self.betas = tuple(check.probability(beta, "betas") for beta in betas)
        if 1.0 in self.betas:
            raise ValueError(f"betas: expected numbers below 1, got {betas}")
        self.eps = check.at_least(eps, "eps", 0)
        super().__init__(model, learning_rate, weight_decay, schedule)

    def _numbers(self, rate):
        t, (beta1, beta2) = self.steps + 1, self.betas
        return {"rate": rate / (1 - beta1 ** t), "decay": self.weight_decay, "fresh": 1 - beta1,
                "fresh_square": 1 - beta2, "eps": self.eps, "scale": 1 / math.sqrt(1 - beta2 ** t)}


class AdamW(Adam):
    """Adam with the decay of weights apart from the gradient (Loshchilov & Hutter 2019):
    p = p - learning_rate weight_decay p, then Adam's step. Parameters and equations: ``Adam``.

    Examples
    --------
    >>> import fastrnn
    >>> AdamW(fastrnn.Linear(2, 1))
    AdamW(learning_rate=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01)
    """

    def __init__(self, model, learning_rate=1e-3, *, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, schedule=None):
        super().__init__(model, learning_rate, betas=betas, eps=eps, weight_decay=weight_decay, schedule=schedule)

    def _numbers(self, rate):
        return super()._numbers(rate) | {"decay": 0.0, "shrink": 1 - rate * self.weight_decay}


# ---- Gradients ------------------------------------------------------------------------------------

def clip_grad_norm(gradients, max_norm):
    """Scales gradients in place so that their common 2-norm is at most max_norm.

    Parameters
    ----------
    gradients : mapping of str to array
    max_norm : float
        Infinity: they are only measured.

    Returns
    -------
    float
        The norm before. Where it is not finite - a gradient has NaN or infinity in it - nothing is scaled: the caller
        sees it, and skips the step.

    Raises
    ------
    TypeError, ValueError
        An unsuitable argument, by name; nothing is scaled then.

    >>> gradients = {"weight": np.array([3.0, 4.0])}
    >>> clip_grad_norm(gradients, 1.0), gradients["weight"].round(6).tolist()
    (5.0, [0.6, 0.8])
    """
    max_norm = check.bound(max_norm, "max_norm")
    check.mapping(gradients, "gradients")
    arrays = [check.contiguous(check.scalable(gradient, name)) for name, gradient in gradients.items()]
    norm = math.sqrt(sum(_core.sum_of_squares(dispatch.table(a.dtype), a) for a in arrays))
    if math.isfinite(norm) and norm > max_norm:
        for gradient in gradients.values():
            gradient *= gradient.dtype.type(max_norm / norm)
    return norm


# ---- Schedules ------------------------------------------------------------------------------------

def warmup(steps, then=None):
    """From 0 up to 1 along a straight line, in `steps` steps; from there on `then`, a schedule whose steps count anew.

    >>> [warmup(4)(step) for step in (0, 1, 3, 9)]
    [0.25, 0.5, 1.0, 1.0]
    """
    steps = check.size(steps, "steps")

    def factor(step):
        if step < steps:
            return (step + 1) / steps
        return 1.0 if then is None else then(step - steps)
    return factor


def cosine(steps, floor=0.0):
    """From 1 down to `floor` along half a cosine, in `steps` steps, and floor from there on (Loshchilov & Hutter 2017).

    >>> [round(cosine(4)(step), 3) for step in range(6)]
    [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """
    steps, floor = check.size(steps, "steps"), check.at_least(floor, "floor", 0)
    return lambda step: floor + (1 - floor) * (0.5 + 0.5 * math.cos(math.pi * min(1, step / steps)))


def step_decay(every, factor=0.1):
    """Times `factor` after every `every` steps.

    >>> [step_decay(2, 0.5)(step) for step in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    every, factor = check.size(every, "every"), check.at_least(factor, "factor", 0)
    return lambda step: factor ** (step // every)


def exponential(factor):
    """Times `factor` after every step.

    >>> [exponential(0.5)(step) for step in range(3)]
    [1.0, 0.5, 0.25]
    """
    factor = check.at_least(factor, "factor", 0)
    return lambda step: factor ** step
