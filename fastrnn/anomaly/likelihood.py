"""How unlikely one value of a channel is: its error against those before, their average, and the range of values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from .._base import validation as check
from .._base.trees import storable
from .statistics import (
    APART,
    CAP,
    CHANGES,
    FAST,
    LEAST,
    NORMAL,
    OUTLYING,
    ROUNDING,
    SETTLING,
    SLOW,
    Level,
    Records,
    Tail,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

ALARM = 5.0             # digits of the probability that raises an alarm: p < 1e-5
WARM_UP = 50            # rows of a channel before it is judged
SCALED = 30             # rows of a channel before the tails of its errors are learnt: the scale comes first
FLOOR = 0.05            # of the values' deviation: no scale of errors is below this
BEHIND = 1.5            # digits by which the average of errors may count for more than the row's own, as behind a spike
HUBER = 4.0             # scales of an error: the read-out learns from larger ones as from these
SURPRISING = 5.0        # mean excesses beyond the quantile that 2 % of the rows exceed: such a row surprises
DOUBTED = 2.0           # the same: from there on (about p < 0.003) a value may be a glitch
ERROR_SPAN = 4          # rows over which sizes of errors are averaged
VALUE_SPAN = 10         # rows over which values are averaged for the second check of the range
RULES = ("error", "average", "range", "joint")
# Digits taken off for the choice among several rules (a weighted Bonferroni correction). Some are added to those of
# ranges, as rows of 3 digits came less often than these say.
ERROR_COST, AVERAGE_COST, RANGE_COST, AVERAGE_RANGE_COST = 0.1, 0.6, -0.1, -0.3
# Of the error's digits above ORDINARY so much is added to the ranges' digits, where forecasts explain all the variance.
ORDINARY, RANGE_EVIDENCE, AVERAGE_EVIDENCE = 1.0, 0.6, 1.2


def score_of(digits: float) -> float:
    """The score in [0, 1) of -log10 p: a sixth of it up to 5, d / (d + 1) beyond, which goes on to tell apart."""
    return 0.0 if digits <= 0 else digits / 6.0 if digits <= ALARM else digits / (digits + 1.0)


@storable
class Channel:
    """The statistics of one channel, and how unlikely its next value is.

    Parameters
    ----------
    memory : int
        Rows that means and variances look back on.
    margin : float or None
        The room of the range; None: the range does not count.
    rules : sequence of str
        Which of RULES count.
    channels : int
        Of the row: the more there are the more is taken off the ranges' digits, beside what is taken off all digits.
    """

    __slots__ = ("level", "point", "average_error", "error_cost", "average_cost", "crowd", "ranges", "average_ranges",
                 "fast", "slow", "scale", "inverse", "ratio", "gain", "offset", "center", "error", "average", "gap",
                 "rows", "judged", "digits", "miss", "size", "w", "next_error", "next_average", "residual", "forecast",
                 "other", "doubted", "changes", "changed")

    def __init__(self, memory: int, margin: float | None, rules: Sequence[str] = RULES, channels: int = 1) -> None:
        memory = check.size(memory, "memory", least=2 * WARM_UP)
        self.level = Level(memory)
        self.point = Tail(1.43, 1.71, 0.15, 3.0, 2.0)                # of the root of an error's size
        self.average_error = Tail(1.11, 1.22, 0.055, 6.0)       # of its average over ERROR_SPAN rows
        self.error_cost = ERROR_COST if "error" in rules else math.inf
        self.average_cost = AVERAGE_COST if "average" in rules else math.inf
        self.crowd = math.log10(channels)
        self.ranges: Records | None = None
        self.average_ranges: Records | None = None
        if margin is not None:
            margin = check.at_least(margin, "margin", 0)
            if "range" in rules:
                self.ranges, self.average_ranges = Records(memory, margin), Records(memory, margin)
        self.fast = self.slow = 0.0                             # mean sizes of errors
        self.scale = self.inverse = 1.0                         # of an error, and what it is multiplied by
        self.ratio = 1.0                                        # root of this scale over that of about SLOW rows
        self.gain, self.offset = 1.0, 0.0                       # from w to what `point` judges; see `alike`
        self.rows = 0
        self.changes: list[float] = []                          # errors while there was no scale
        self.changed = 0                                        # the row of the last of these
        self.center = self.forecast = 0.0                       # what is expected, and in deviations from the mean
        self.other = math.nan                                   # another forecast, if there is one
        self.doubted = False                                    # whether the last value may have been a glitch
        self.error, self.average, self.gap = 0.92, 0.0, 0       # averages; rows missing since the last value
        # What `judge` found out about a value is kept for `learn`, which mostly comes next with the same value:
        self.judged = math.nan
        self.digits = self.miss = self.size = self.w = self.next_average = self.residual = 0.0
        self.next_error = self.error

    def expect(self, forecast: float) -> None:
        """Keep the forecast of the next value, in deviations from the mean."""
        level = self.level
        self.forecast, self.judged, self.other = forecast, math.nan, math.nan
        self.center = level.mean + level.deviation * forecast

    @property
    def expected(self) -> float:
        """The forecast that was nearer to the value judged, in deviations from the mean."""
        return self.forecast if self.miss == self.judged - self.center else self.other

    def upgrade(self, channels: int) -> None:
        """Complete what a file of version 1 holds, which had one forecast and one scale of errors."""
        self.crowd, self.judged, self.miss, self.other = math.log10(channels), math.nan, 0.0, math.nan
        self.doubted, self.gain, self.offset = False, 1.0, 0.0
        self._rescale()

    def judge(self, x: float) -> float:
        """-log10 of the probability of a value as unlikely as x; 0 where nothing can be said."""
        if x == self.judged:
            return self.digits
        if x != x:
            return 0.0
        self.judged = x
        miss, other = x - self.center, self.other
        if other == other:
            level = self.level
            second = x - (level.mean + level.deviation * other)
            if abs(second) < abs(miss):
                miss = second
        self.miss = miss
        self.size = size = miss * self.inverse
        w = math.sqrt(size if size >= 0 else -size)
        self.w = own = w * self.ratio
        point = self.point
        cap = point.held_u + SURPRISING * point.held_m
        rows = self.rows
        if rows < SETTLING:
            self.next_average = self.average + (x - self.average) / (rows + 1)
            self.digits = 0.0
            return 0.0
        evidence = point.digits(own * self.gain + self.offset)
        digits = evidence - self.error_cost
        self.next_error = error = self.error + ((w if w < cap else cap) - self.error) / ERROR_SPAN
        together = self.average_error.digits(error) - self.average_cost
        if together > digits:
            digits = together if together < evidence + BEHIND else max(digits, evidence + BEHIND)
        if (ranges := self.ranges) is not None:
            if x > ranges.high or x < ranges.low:
                digits = max(digits, self._leaving(ranges, x, evidence, RANGE_EVIDENCE, RANGE_COST))
                x = ranges.bounded(x)
            self.next_average = average = self.average + (x - self.average) / VALUE_SPAN
            ranges = cast(Records, self.average_ranges)
            if average > ranges.high or average < ranges.low:
                digits = max(digits, self._leaving(ranges, average, evidence, AVERAGE_EVIDENCE, AVERAGE_RANGE_COST))
        self.digits = digits = digits if digits > 0.0 and rows >= WARM_UP else 0.0
        return digits

    def _leaving(self, ranges: Records, x: float, evidence: float, part: float, cost: float) -> float:
        """The digits of x that leaves a range, and a part of the evidence of the row's error.

        In noise a value far out and a large error are the same thing; where the forecasts explain the values, they are
        two.
        """
        digits = ranges.digits(x, self.rows)
        if digits <= 0.0:
            return 0.0
        return digits + part * self._explained() * max(0.0, evidence - ORDINARY) - cost - self.crowd

    def learn(self, x: float, share: float) -> float:
        """Learn x with the weight `share`; the result is what the network reads, the forecast where x is NaN."""
        if x != x:
            self.residual, self.doubted = 0.0, False
            self.gap += 1
            self._rescale()
            return self.forecast
        self.judge(x)
        level, point, w = self.level, self.point, self.w
        count = level.count
        self.error, self.average = self.next_error, self.next_average
        surprising = w > point.held_u + SURPRISING * point.held_m
        self.doubted = self.rows >= SCALED and w > point.held_u + DOUBTED * point.held_m
        if count >= SETTLING:
            error, deviation = self.miss, level.deviation
            room = HUBER * self.scale
            far = surprising and abs(x - level.mean) > OUTLYING * deviation
            if share:
                if self.rows >= SCALED:
                    point.learn(w, share)
                    self.average_error.learn(self.error, share)
                if not far:
                    self._learn_scale(abs(error), share)
                if self.ranges is not None and self.average_ranges is not None:
                    self._learn_ranges(x, self.ranges, self.average_ranges)
            # Where the other forecast was nearer, this one erred by a glitch that it read: nothing to be learnt.
            near = not far and error == x - self.center
            self.residual = max(-room, min(room, error)) / deviation if near else 0.0
        z = level.learn(x, surprising, share)
        if count == SETTLING - 1:
            self.fast = self.slow = level.deviation / NORMAL
            self.average = level.mean
        self.gap = 0
        self.rows += 1
        self._rescale()
        return z

    def _learn_scale(self, size: float, share: float) -> None:
        """Take the size of an error into both means of sizes, clipped at CAP times the scale."""
        if self.gap:
            size /= math.sqrt(1.0 + self.gap)
        scale, rows = self.scale, self.level.count - SETTLING + 5
        if size > CAP * scale:
            if scale > 2.0 * ROUNDING * abs(self.level.mean) + 2.0 * LEAST:
                size = CAP * scale
            else:                           # nothing was off before: the smallest of three errors gives a scale
                if self.rows - self.changed >= APART or not self.changes:
                    self.changes = [*self.changes, size][-CHANGES:]
                    self.changed = self.rows
                if len(self.changes) < CHANGES:
                    return
                size = min(self.changes)
        self.fast += share * (size - self.fast) / (rows if rows < FAST else FAST)
        self.slow += share * (size - self.slow) / (rows if rows < SLOW else SLOW)

    def _rescale(self) -> None:
        """The scale of the next error: the geometric mean of the recent and the long-run mean size, above rounding.

        Its ratio to the long-run one alone, by which the row's own error is judged, is kept beside it as a root.
        """
        level, slow = self.level, self.slow
        least = max(FLOOR * level.deviation, ROUNDING * abs(level.mean) + LEAST)
        scale = math.sqrt(self.fast * slow)
        if scale < least:
            scale = least
        self.scale = scale
        self.inverse = 1.0 / (scale if not self.gap else scale * math.sqrt(1.0 + self.gap))
        self.ratio = math.sqrt(scale / (slow if slow > least else least))

    def _explained(self) -> float:
        """The part of the values' variance that the forecasts explain, from 0 to 1."""
        left = NORMAL * self.slow / self.level.deviation
        return max(0.0, 1.0 - left * left)

    def _learn_ranges(self, x: float, ranges: Records, averages: Records) -> None:
        """Take a value and the average of values into the ranges."""
        average, rows = self.average, self.rows
        if rows - ranges.start >= ranges.memory:
            ranges.forget(rows)
            averages.forget(rows)
        if x > ranges.recent_high or x < ranges.recent_low:
            ranges.learn(x, rows)
        if average > averages.recent_high or average < averages.recent_low:
            averages.learn(average, rows)
