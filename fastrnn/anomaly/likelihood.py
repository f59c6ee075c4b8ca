"""How unlikely one value of a channel is: running statistics, and the tail probability of averaged errors."""

import math

from .._base import validation as check
from .readout import CLIP

DIGITS = 6              # score 1: a tail probability of 1e-6
SETTLING = 10           # rows of a channel before its deviation is a scale, and errors mean something
WARM_UP = 50            # rows before it is judged
FLOOR = 0.25            # in the channel's standard deviations: of smaller errors little is told apart
ERROR_SPAN = 4          # rows over which errors are averaged
VALUE_SPAN = 10         # rows over which values are averaged for the second look at the range
LEAST_SPREAD = 0.05     # of averaged log errors: keeps a series without noise from alarming at nothing


class Channel:
    """One channel's statistics, and how unlikely its next value is."""

    __slots__ = ("memory", "margin", "value", "level", "error", "average", "ranges", "judged", "digits", "z",
                 "next_error", "next_average")

    def __init__(self, memory, margin):
        self.memory = check.size(memory, "memory", least=2 * WARM_UP)
        self.margin = None if margin is None else check.at_least(margin, "margin", 0)
        self.value, self.level = Running(), Running()     # of values; of averaged log errors
        self.error, self.average = 0.0, 0.0                 # running means of log errors and of values
        self.ranges = [math.inf, -math.inf, math.inf, -math.inf]        # of values, of averages: low, high
        self.judged = math.nan                              # the value that the rest is about: judged, then learnt

    def judge(self, x, expected):
        """-log10 of the tail probability of x; 0 where nothing can be said, infinite out of the range."""
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
        elif self.margin is not None and self._outside(x, average):
            self.digits = math.inf
        else:
            deviations = (error - level.mean) / max(math.sqrt(level.variance), LEAST_SPREAD)
            self.digits = -math.log10(0.5 * math.erfc(min(deviations, 20.0) * math.sqrt(0.5)))
        return self.digits

    def _outside(self, x, average):
        low, high, low_average, high_average = self.ranges
        room, room_average = self.margin * (high - low), self.margin * (high_average - low_average)
        return (x > high + room or x < low - room
                or average > high_average + room_average or average < low_average - room_average)

    def learn(self, x, expected):
        """Takes x in. Returns it in standard deviations, held to what the net may see; where missing, the forecast."""
        if x != x:
            self.judged = math.nan          # what was judged met the forecast that is now past
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


class Running:
    """Mean and variance: of all values at first, then exponentially weighted over `memory` of them (Welford, West)."""

    __slots__ = ("mean", "variance", "count")

    def __init__(self):
        self.mean, self.variance, self.count = 0.0, 0.0, 0

    def learn(self, x, memory):
        if self.count < memory:
            self.count += 1
        difference, share = x - self.mean, 1 / self.count
        self.mean += difference * share
        self.variance = (1 - share) * (self.variance + difference * difference * share)

    def scaled(self, x):
        """x in standard deviations, finite even where there was no deviation yet."""
        if x == self.mean:
            return 0.0
        least = 1e-9 * abs(self.mean) + 1e-200
        return max(-1e6, min(1e6, (x - self.mean) / max(math.sqrt(self.variance), least)))
