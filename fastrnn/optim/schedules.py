"""Schedules of the learning rate: functions from the number of steps done to a factor."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

from .._base import validation as check

if TYPE_CHECKING:
    from collections.abc import Callable

# A schedule gives the factor of the learning rate for a step from the number of steps done before it.
Schedule: TypeAlias = "Callable[[int], float]"


def warmup(steps: int, then: Schedule | None = None) -> Schedule:
    """Make a schedule that rises from 0 to 1 along a straight line.

    Parameters
    ----------
    steps : int
        The number of steps until the factor is 1.
    then : callable, optional
        The schedule from there on, whose steps count anew; without one the factor stays 1.

    Returns
    -------
    callable
        The function from the number of steps done to the factor of the learning rate.

    Raises
    ------
    TypeError, ValueError
        `steps` is not a whole number of at least 1.

    Examples
    --------
    >>> from fastrnn.optim import warmup
    >>> [warmup(4)(step) for step in (0, 1, 3, 9)]
    [0.25, 0.5, 1.0, 1.0]
    """
    steps = check.size(steps, "steps")

    def factor(step: int) -> float:
        if step < steps:
            return (step + 1) / steps
        return 1.0 if then is None else then(step - steps)
    return factor


def cosine(steps: int, floor: float = 0.0) -> Schedule:
    """Make a schedule that falls from 1 to `floor` along half a cosine [1]_.

    Parameters
    ----------
    steps : int
        The number of steps until the factor is `floor`, where it stays.
    floor : float
        The smallest factor, at least 0.

    Returns
    -------
    callable
        The function from the number of steps done to the factor of the learning rate.

    Raises
    ------
    TypeError, ValueError
        An argument is unsuitable; the message names it.

    References
    ----------
    .. [1] I. Loshchilov and F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017.

    Examples
    --------
    >>> from fastrnn.optim import cosine
    >>> [round(cosine(4)(step), 3) for step in range(6)]
    [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """
    steps, floor = check.size(steps, "steps"), check.at_least(floor, "floor", 0)
    return lambda step: floor + (1 - floor) * (0.5 + 0.5 * math.cos(math.pi * min(1, step / steps)))


def step_decay(every: int, factor: float = 0.1) -> Schedule:
    """Make a schedule that is multiplied by `factor` after every `every` steps.

    Parameters
    ----------
    every : int
        The number of steps from one change to the next.
    factor : float
        What the learning rate is multiplied by, at least 0.

    Returns
    -------
    callable
        The function from the number of steps done to the factor of the learning rate.

    Raises
    ------
    TypeError, ValueError
        An argument is unsuitable; the message names it.

    Examples
    --------
    >>> from fastrnn.optim import step_decay
    >>> [step_decay(2, 0.5)(step) for step in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    every, factor = check.size(every, "every"), check.at_least(factor, "factor", 0)
    return lambda step: factor ** (step // every)


def exponential(factor: float) -> Schedule:
    """Make a schedule that is multiplied by `factor` after every step.

    Parameters
    ----------
    factor : float
        What the learning rate is multiplied by, at least 0.

    Returns
    -------
    callable
        The function from the number of steps done to the factor of the learning rate.

    Raises
    ------
    TypeError, ValueError
        `factor` is not a number of at least 0.

    Examples
    --------
    >>> from fastrnn.optim import exponential
    >>> [exponential(0.5)(step) for step in range(3)]
    [1.0, 0.5, 0.25]
    """
    factor = check.at_least(factor, "factor", 0)
    return lambda step: factor ** step
