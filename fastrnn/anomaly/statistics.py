"""Running statistics that an outlier changes by a bounded amount: location and scale, tails, and records."""

from __future__ import annotations

import math

from .._base.trees import storable

SETTLING = 10           # rows of a channel before its location and scale are known
ROUNDING = 4e-15        # of the level: 18 units in the last place; no scale is below this
LEAST = 1e-200          # no scale is below this, either
OUTLYING = 4.0          # standard deviations from the mean: a surprising row counts as no further away
BOUND = 8.0             # standard deviations from the mean: no row counts as further away
ACCEPTED = 20           # rows in a row further away than that: this is the new level
FAST, SLOW = 32, 2000   # rows that the two means of an error's size look back on
QUIET = 200             # rows without an excess, after which quantiles fall faster
MOST = 4.0              # mean excesses that an excess counts for
LEARNT, LOWER_LEARNT = 2000.0, 500.0    # rows after which the two quantiles of a tail move by steps of one size
SEEN = 48.0             # excesses that a tail's mean excess looks back on
CHANGES = 3             # changes of what was constant until the smallest of them gives a scale
APART = 10              # rows after which an excess, or a change of what was constant, is no more of the same run
CAP = 5.0               # a mean of errors' sizes takes in no more than so many times itself
NORMAL = 1.2533         # standard deviation over mean absolute value, of normal errors: sqrt(pi / 2)


@storable
class Level:
    """Location and scale of a channel's values: mean and standard deviation of values that are clipped before.

    ::

        z = (x - mean) / deviation, clipped to [-bound, bound]
        mean += deviation z / n,   variance = (1 - 1/n) (variance + (deviation z)^2 / n)

    with n the rows so far, at most `memory` (Welford, West; the clipping is winsorising). The first rows are kept, and
    mean and deviation are then their median and their median distance from it. After ACCEPTED surprising rows, one
    after another, further away than OUTLYING deviations, these are the level: mean and deviation start from them.

    Parameters
    ----------
    memory : int
        Rows that mean and deviation look back on.
    """

    __slots__ = ("memory", "mean", "deviation", "variance", "count", "first", "away", "since")

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.mean, self.deviation, self.variance, self.count = 0.0, LEAST, 0.0, 0
        self.first: list[float] = []        # the first rows, SETTLING at most
        # The last rows in a row that were too far away; while the channel is constant, changes that are far apart:
        self.away: list[float] = []
        self.since = 0                      # rows since the last of these

    def learn(self, x: float, surprising: bool, share: float) -> float:
        """Take one value in, of weight `share`; the result is how many deviations from the mean it was, clipped."""
        if self.count < SETTLING:
            return self._settle(x)
        deviation, mean = self.deviation, self.mean
        difference = x - mean
        bound = (OUTLYING if surprising else BOUND) * deviation
        if difference > bound or difference < -bound:
            difference = bound if difference > 0 else -bound
            if share:
                constant = self.is_constant
                if not constant or self.since >= APART or not self.away:
                    self.away.append(x)
                    self.since = 0
                self.since += 1
                if len(self.away) >= (CHANGES if constant else ACCEPTED):
                    return self._accept(constant)
                if constant:
                    return difference / deviation
        elif self.away:
            self.since += 1
            if not self.is_constant:
                self.away = []
        if share:
            if self.count < self.memory:
                self.count += 1
            part = share / self.count
            self.mean = mean = mean + difference * part
            self.variance = variance = (1.0 - part) * (self.variance + difference * difference * part)
            least = ROUNDING * abs(mean) + LEAST
            self.deviation = math.sqrt(variance)
            if self.deviation < least:
                self.deviation = least
        return difference / deviation

    @property
    def is_constant(self) -> bool:
        """Whether nothing but rounding has varied so far."""
        return self.deviation <= ROUNDING * abs(self.mean) + LEAST

    def _settle(self, x: float) -> float:
        """One of the first rows."""
        self.first.append(x)
        self.count += 1
        self._restart(self.first)
        if self.count == SETTLING:
            self.first = []
        return max(-OUTLYING, min(OUTLYING, (x - self.mean) / self.deviation))

    def _accept(self, constant: bool) -> float:
        """The rows that were too far away are the level now; the scale does not shrink."""
        x, away, least = self.away[-1], self.away, self.deviation
        self.away = []
        if constant:                        # changes of a channel that was constant: the smallest gives it a scale
            change = min([abs(value - self.mean) for value in away])
            self.variance = change * change / self.count
            self.deviation = math.sqrt(self.variance)
        else:
            self.count = SETTLING
            self._restart(away)
            self.away = []
            if self.deviation < least:
                self.deviation, self.variance = least, least * least
        return max(-OUTLYING, min(OUTLYING, (x - self.mean) / self.deviation))

    def _restart(self, rows: list[float]) -> None:
        """Median, and root mean square distance from it, of distances clipped at three times their median.

        Where more than half of the rows are equal there is no scale yet, and the others are changes of a constant.
        """
        ordered = sorted(rows)
        self.mean = mean = ordered[len(ordered) // 2]
        distances = sorted([abs(x - mean) for x in rows])
        most = 3.0 * 1.4826 * distances[len(distances) // 2]
        self.variance = sum([min(distance, most) ** 2 for distance in distances]) / len(rows)
        self.deviation = max(math.sqrt(self.variance), ROUNDING * abs(mean) + LEAST)
        if self.is_constant:
            self.away = [x for x in rows if x != mean][-CHANGES + 1:]


class Numbers:
    """An object whose attributes are numbers: files and pickles keep them as one list, in the order of __slots__."""

    __slots__: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, list[float]]:
        return {"numbers": [float(getattr(self, name)) for name in self.__slots__]}

    def __setstate__(self, state: dict[str, list[float]]) -> None:
        for name, value in zip(self.__slots__, state["numbers"], strict=True):
            setattr(self, name, float(value))


@storable
class Tail(Numbers):
    """How far out a statistic is: a tenth of the rows is above one quantile, 2 % above another, an exponential beyond.

    The quantiles q and u move by steps that only the sign of a row's distance decides (Robbins & Monro 1951), and
    beyond u the mean excess m is learnt of excesses clipped at 4 m (`following` m where another one was among the
    last 10 rows), so that neither a row nor a burst moves any of them far::

        -log10 P(w > x) = 1.7 + k log10(1 + (x - u) / (k m))        x > u
                        = 1 + 0.7 (x - q) / (u - q)                 q < x <= u
                        = (x / q)^s                                 x <= q

    In a run of rows above q, all are judged by u and m as they were before it. The first line is the exponential tail
    exp(-(x - u) / m), seen from k excesses that m was estimated from (Pareto's distribution of the second kind): with
    few rows, far-out values are less unlikely than m says.

    Parameters
    ----------
    q, u, m : float
        Of normal errors; where the statistics start from.
    power : float
        s.
    following : float
        Mean excesses that a further excess of a run counts for.
    """

    __slots__ = ("q", "u", "m", "k", "count", "since", "power", "following", "held_u", "held_m")

    def __init__(self, q: float, u: float, m: float, power: float, following: float = MOST) -> None:
        self.q, self.u, self.m, self.k, self.power, self.following = q, u, m, 8.0, power, following
        self.held_u, self.held_m = u, m         # as they were before the present run of rows above q
        self.count, self.since = 25.0, 0        # rows, and those since the last excess that was learnt

    def digits(self, x: float) -> float:
        """-log10 of the probability of values above x."""
        u = self.held_u
        if x > u:
            k = self.k
            return 1.7 + k * math.log10(1.0 + (x - u) / (k * self.held_m))
        q = self.q
        if x > q:
            return 1.0 + 0.7 * (x - q) / (u - q) if q < u else 1.7
        return float((x / q) ** self.power)

    def learn(self, x: float, share: float) -> None:
        """Take one value in."""
        if self.count < LEARNT:
            self.count += 1.0
        self.since += 1
        m, u = self.m, self.u
        step = share * m / self.count
        lower = step if self.count < LOWER_LEARNT else share * m / LOWER_LEARNT     # of q, which more rows decide about
        if x <= self.q:
            self.held_u, self.held_m = u, m
            if self.since > QUIET:          # u is far too high: 2 % of the rows should be above it
                step *= self.since / 50.0
                lower = max(lower, step)
            if self.q > 0.3 + lower:
                self.q -= lower
            if u - step > 1.05 * self.q:
                self.u = u - step
        elif x <= u:
            self.u = u - step
            self.q += 9.0 * lower
            if self.u < 1.05 * self.q:
                self.u = 1.05 * self.q
        else:
            self.q += 9.0 * lower
            self.u = max(u + 49.0 * step, 1.05 * self.q)
            if self.k < SEEN:
                self.k += share
            most = MOST if self.since >= APART else self.following
            self.since = 0
            self.m = max(m + share * (min(x - u, most * m) - m) / self.k, 0.02)


@storable
class Records(Numbers):
    """How unlikely it is that a series leaves its range by so much: how often records come, and by how much.

    The range is that of the last `memory` to 2 `memory` rows. A row that leaves it is a record. With the records K
    among about the last N = 1000 rows, their mean excess m over the range, seen from k of them, and the room that
    `margin` gives, a record by d has::

        P = (K + 0.3) / N (1 + d / (k (m + room)))^-k,   room = margin (high - low)

    Independent rows set 1.4 records, on average, among so many rows again as there were (the theory of records);
    random walks, trends and growth set many, of the size of their steps, and are expected to. A record counts for no
    more than 5 (m + room) and widens the range by no more than that or a quarter of it, so that a glitch does not open
    the range for all that follows.

    Parameters
    ----------
    memory : int
        Rows after which a range may be forgotten.
    margin : float
        Part of the range.
    """

    __slots__ = ("memory", "margin", "low", "high", "recent_low", "recent_high", "start", "records", "last", "m", "k")

    def __init__(self, memory: int, margin: float) -> None:
        self.memory, self.margin = memory, margin
        self.low, self.high = math.inf, -math.inf
        self.recent_low, self.recent_high, self.start = math.inf, -math.inf, 0      # of the block that began at `start`
        self.records, self.last, self.m, self.k = 0.0, 0, 0.0, 4.0

    def digits(self, x: float, count: int) -> float:
        """-log10 of the probability that row number `count` leaves the range by as much as x does."""
        excess = x - self.high if x > self.high else self.low - x
        if excess <= ROUNDING * abs(x) or self.high < self.low:
            return 0.0
        rows = min(count, 1000)
        rate = (self.records * math.exp((self.last - count) / 1000.0) + 0.3) / rows
        scale = self.m + self.margin * (self.high - self.low)
        if scale <= LEAST:
            scale = ROUNDING * abs(x) + LEAST
        k = self.k
        return k * math.log10(1.0 + min(excess / (k * scale), 1e60)) - math.log10(min(1.0, rate))

    def bounded(self, x: float) -> float:
        """x, or what lies outside of the range by a quarter of it."""
        width = 0.25 * (self.high - self.low)
        return max(self.low - width, min(self.high + width, x)) if width > 0 else x

    def learn(self, x: float, count: int) -> None:
        """Take a row in that may be outside of the range."""
        if x > self.high or x < self.low:
            if self.high < self.low:
                self.low = self.high = x
            else:
                excess = x - self.high if x > self.high else self.low - x
                width = self.high - self.low
                room = self.m + self.margin * width
                self.records = self.records * math.exp((self.last - count) / 1000.0) + 1.0
                self.last = count
                bounded = min(excess, max(5.0 * room, 0.1 * width)) if room > 0 else excess
                self.k = min(self.k + 2.0, 20.0)
                self.m += (bounded - self.m) / self.k
                step = min(excess, max(0.25 * width, bounded)) if width > 0 else excess
                x = self.high + step if x > self.high else self.low - step
                self.low, self.high = min(self.low, x), max(self.high, x)
        if x > self.recent_high:
            self.recent_high = x
        if x < self.recent_low:
            self.recent_low = x

    def forget(self, count: int) -> None:
        """Every `memory` rows a block ends, and the range is that of the last block alone."""
        if count - self.start >= self.memory:
            self.start = count
            self.low, self.high = self.recent_low, self.recent_high
            self.recent_low, self.recent_high = math.inf, -math.inf
