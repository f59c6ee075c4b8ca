"""How unlikely one value of a channel is: running statistics, and the tail probability of averaged errors."""

from __future__ import annotations

import math

from .._base import validation as check
from .._base.trees import storable
from .readout import CLIP

DIGITS = 6              # a tail probability of 1e-6 scores 1
SETTLING = 10           # rows of a channel before its deviation serves as a scale and its errors are averaged
WARM_UP = 50            # rows of a channel before it is judged
FLOOR = 0.25            # in standard deviations of the channel: smaller errors are hardly told apart
ERROR_SPAN = 4          # rows over which log errors are averaged
VALUE_SPAN = 10         # rows over which values are averaged for the second check of the range
LEAST_SPREAD = 0.05     # least deviation of averaged log errors: a series without noise does not alarm at nothing


@storable
class Channel:
    """The statistics of one channel, and how unlikely its next value is.

    Parameters
    ----------
    memory : int
        Rows that means and variances look back on.
    margin : float or None
        How far out of the range of all values so far is surely unusual, as a fraction of the range.
    """

    __slots__ = ("memory", "margin", "value", "level", "error", "average", "ranges", "judged", "digits", "z",
                 "next_error", "next_average")

    def __init__(self, memory: int, margin: float | None) -> None:
        self.memory = check.size(memory, "memory", least=2 * WARM_UP)
        self.margin = None if margin is None else check.at_least(margin, "margin", 0)
        self.value = Running()                  # statistics of the values
        self.level = Running()                  # statistics of averaged log errors
        self.error, self.average = 0.0, 0.0     # running means of log errors and of values
        self.ranges = [math.inf, -math.inf, math.inf, -math.inf]        # lowest, highest value; the same of averages
        # What `judge` found out about a value is kept for `learn`, which mostly comes next with the same value:
        self.judged = math.nan
        self.digits = self.z = self.next_error = self.next_average = 0.0

    def judge(self, x: float, expected: float) -> float:
        """-log10 of the tail probability of x; 0 where nothing can be said, infinite where x is out of the range."""
        if x == self.judged:
            return self.digits
        if x != x:
            return 0.0
        value, level = self.value, self.level
        n = value.count
        self.z = z = value.scaled(x)
        log_error = math.log(abs(z - expected) + FLOOR)
        self.next_error = error = self.error + (log_error - self.error) / max(1, min(n + 1 - SETTLING, ERROR_SPAN))
        self.next_average = average = self.average + (x - self.average) / min(n + 1, VALUE_SPAN)
        self.judged = x
        if n < WARM_UP:
            self.digits = 0.0
        elif (margin := self.margin) is not None and self._outside(x, average, margin):
            self.digits = math.inf
        else:
            deviations = (error - level.mean) / max(math.sqrt(level.variance), LEAST_SPREAD)
            self.digits = -math.log10(0.5 * math.erfc(min(deviations, 20.0) * math.sqrt(0.5)))
        return self.digits

    def _outside(self, x: float, average: float, margin: float) -> bool:
        """Whether a value or the average leaves the range of all before by more than the margin."""
        low, high, low_average, high_average = self.ranges
        room, room_average = margin * (high - low), margin * (high_average - low_average)
        return (x > high + room or x < low - room
                or average > high_average + room_average or average < low_average - room_average)

    def learn(self, x: float, expected: float) -> float:
        """Learn x; the result is x in standard deviations, clipped for the network, or the forecast where x is NaN."""
        if x != x:
            self.judged = math.nan          # the next row has another forecast, so nothing that was judged holds
            return expected
        self.judge(x, expected)
        self.error, self.average, self.judged = self.next_error, self.next_average, math.nan
        low, high, low_average, high_average = self.ranges
        if not low <= x <= high or not low_average <= self.average <= high_average:
            self.ranges = [min(low, x), max(high, x), min(low_average, self.average), max(high_average, self.average)]
        if self.value.count >= SETTLING:
            self.level.learn(self.error, self.memory)
        self.value.learn(x, self.memory)
        return max(-CLIP, min(CLIP, self.z))


@storable
class Running:
    """Mean and variance of all values at first, then exponentially weighted over `memory` of them (Welford, West)."""

    __slots__ = ("mean", "variance", "count")

    def __init__(self) -> None:
        self.mean, self.variance, self.count = 0.0, 0.0, 0

    def learn(self, x: float, memory: int) -> None:
        """Take one value in."""
        if self.count < memory:
            self.count += 1
        difference, share = x - self.mean, 1 / self.count
        self.mean += difference * share
        self.variance = (1 - share) * (self.variance + difference * difference * share)

    def scaled(self, x: float) -> float:
        """x in standard deviations from the mean; finite even where nothing has varied yet."""
        if x == self.mean:
            return 0.0
        least = 1e-9 * abs(self.mean) + 1e-200
        return max(-1e6, min(1e6, (x - self.mean) / max(math.sqrt(self.variance), least)))
