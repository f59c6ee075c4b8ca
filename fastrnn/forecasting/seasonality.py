"""Seasons of a series: from its calendar, and from its values.

A length m is taken for a season if values of the same phase are alike: with x the series less its centred moving mean
over m steps, and the phases' means over all cycles, the share of the variance that these means explain (adjusted for
their number) and the F ratio must both be above a bound. Candidates come from the calendar (a day, a week, a year in
steps) where times are known, else from the peaks of the autocorrelation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import Float64Array
    from .calendar import Clock
    from .series import Series

CALENDAR = (3600.0, 86_400.0, 7 * 86_400.0, 365.2425 * 86_400.0)        # an hour, a day, a week, a year in seconds
LONGEST = 4000          # steps of a series' end that are looked at
SAMPLE = 60             # series of a panel that are looked at
CYCLES = 3              # times that a season must fit into the series
COMMON = (4, 7, 12, 24, 48, 52, 60, 96, 168, 288, 336, 365)     # seasons of calendars, in steps
COMMON_BONUS = 1.1      # by which the share of such a season counts for more than that of a length beside it
COUNT = 2               # seasons that are taken at most
VOTES = 3, 0.05         # series, and share of a panel's, that must have a season of a length before others are asked
SHARE = 0.2             # of a panel's series that must have it, once it is named
# Of the F ratio: the least bound, and the normal quantile that the bound stands for where m is small.
CALENDAR_BOUND, VALUES_BOUND, SECOND_BOUND = (2.5, 2.0), (5.0, 3.3), (2.5, 3.3)
EXPLAINED = 0.1         # bound of the share of the variance


def find_seasons(series: Sequence[Series], values: Sequence[Float64Array]) -> tuple[int, ...]:
    """Find the seasons that a fifth of a panel's series or more have, in steps and rising.

    A length must be found in some series by itself; then it is looked for in all, where less is enough.

    Parameters
    ----------
    series : sequence of Series
        The panel.
    values : sequence of array
        Their values or the logarithms of these; NaN where one is missing.

    Returns
    -------
    tuple of int
        The lengths; empty if there is none.
    """
    places = np.unique(np.linspace(0, len(series) - 1, min(SAMPLE, len(series))).astype(int))
    votes: dict[int, int] = {}
    for n in places:
        for m in seasons_of(values[n], series[n].clock):
            votes[m] = votes.get(m, 0) + 1
    least = max(VOTES[0], VOTES[1] * len(places))
    named = sorted((m for m, count in votes.items() if count >= least or 3 * count >= len(places)),
                   key=lambda m: -votes[m])
    rest = [_interpolated(values[n][-LONGEST:]) for n in places]
    chosen: list[int] = []
    for m in named:
        shares = [seasonal_share(z, m) if CYCLES * m <= len(z) else None for z in rest]
        having = [share is not None and share[0] > EXPLAINED and share[1] > _bound(m, CALENDAR_BOUND)
                  for share in shares]
        if len(chosen) < COUNT and sum(having) >= SHARE * len(places):
            chosen.append(m)
            rest = [z - share[2] if share is not None and has else z
                    for z, share, has in zip(rest, shares, having, strict=True)]
    return tuple(sorted(chosen))


def seasons_of(z: Float64Array, clock: Clock | None) -> tuple[int, ...]:
    """The seasons of one series, rising."""
    z = _interpolated(z[-LONGEST:])
    if len(z) < 2 * CYCLES or np.ptp(z) <= 1e-12 * np.abs(z).max():
        return ()
    chosen: list[int] = []
    x = z
    for m in calendar_seasons(clock):
        if CYCLES * m <= len(z) and len(chosen) < COUNT:
            explained, ratio, profile = seasonal_share(x, m)
            if explained > EXPLAINED and ratio > _bound(m, CALENDAR_BOUND):
                chosen.append(m)
                x = x - profile
    while clock is None and len(chosen) < COUNT:
        bound = SECOND_BOUND if chosen else VALUES_BOUND
        candidates = [(m, *seasonal_share(x, m)) for m in _peaks(x)]
        accepted = [each for each in candidates if each[1] > EXPLAINED and each[2] > _bound(each[0], bound)
                    and all(each[0] > m and each[0] % m == 0 for m in chosen)]
        if not accepted:
            break
        best = max(each[1] for each in accepted)
        m, _, _, profile = min((each for each in accepted if each[1] >= 0.9 * best), key=lambda each: each[0])
        parts = [each for each in accepted if m % each[0] == 0 and each[0] < m and each[1] > 0.5 * best]
        if parts:                   # a day within the week: the shorter first
            m, _, _, profile = max(parts, key=lambda each: each[1])
        near = range(max(2, m - 2), min(m + 2, len(z) // CYCLES) + 1)       # a peak may be a step or two beside
        if not chosen:
            m = max(near, key=lambda length: seasonal_share(x, length)[0] * (COMMON_BONUS if length in COMMON else 1))
            profile = seasonal_share(x, m)[2]
        chosen.append(m)
        x = x - profile
    return tuple(sorted(chosen))


def _bound(m: int, bound: tuple[float, float]) -> float:
    """The bound of the F ratio of m phases: by Wilson and Hilferty's approximation, where it is above the least."""
    least, quantile = bound
    part = 2 / (9 * (m - 1))
    return max(least, float((1 - part + quantile * part**0.5) ** 3))


def calendar_seasons(clock: Clock | None) -> list[int]:
    """An hour, a day, a week and a year in steps of a clock, those of 2 steps or more that are whole numbers."""
    if clock is None:
        return []
    if clock.frequency.unit == "session":       # a day and a week, which have fewer steps than the time that passes
        size, days = clock.frequency.days[-1], clock.frequency.weekmask.count("1")
        return sorted({size // clock.frequency.count, size * days // clock.frequency.count} - {0, 1})
    step = float(clock.seconds(np.array([240]))[0] - clock.seconds(np.array([0]))[0]) / 240     # a mean: months differ
    result = []
    for period in CALENDAR:
        m = round(period / step)
        if m >= 2 and abs(period / step - m) < (0.01 * m if period == CALENDAR[-1] else 1e-6 * m):
            result.append(m)
    return result


def seasonal_share(x: Float64Array, m: int) -> tuple[float, float, Float64Array]:
    """How much of the variance about a moving mean of m steps the phases' means explain.

    Returns
    -------
    explained : float
        The share, adjusted for the number of means.
    ratio : float
        The F ratio: the variance between phases over that within them.
    profile : array of float64, [T]
        The phases' means at every step.
    """
    T, half = len(x), m // 2
    weights = np.ones(m) / m if m % 2 else np.r_[0.5, np.ones(m - 1), 0.5] / m
    sums = np.concatenate([[0.0], np.cumsum(x - x.mean())])
    if m % 2:
        trend = (sums[m:] - sums[:-m]) / m
    else:
        whole = (sums[m:] - sums[:-m]) / m
        trend = (whole[1:] + whole[:-1]) / 2
    core = x[half:half + len(trend)] - x.mean() - trend
    phase = np.arange(half, half + len(core)) % m
    count = np.maximum(np.bincount(phase, minlength=m), 1)
    means = np.bincount(phase, core, m) / count
    means -= means.mean()
    rest = core - means[phase]
    free = len(core) - m
    total = float(core @ core)
    if free < 1 or total <= 0 or len(weights) > T:
        return 0.0, 0.0, np.zeros(T)
    within, between = float(rest @ rest) / free, float(np.sum(count * means**2)) / (m - 1)
    explained = 1 - within / (total / max(len(core) - 1, 1))
    return explained, between / within if within > 0 else np.inf, means[np.arange(T) % m]


def _peaks(x: Float64Array) -> list[int]:
    """Lags of the highest local maxima of the autocorrelation of the series and of its differences."""
    T, lags = len(x), set()
    largest = T // CYCLES
    if largest < 2:
        return []
    t = np.arange(T)
    slope = np.polyfit(t, x, 1)
    for e in (x - np.polyval(slope, t), np.diff(x) - np.diff(x).mean()):
        size = 1 << (2 * len(e) - 1).bit_length()
        power = np.abs(np.fft.rfft(e, size)) ** 2
        correlation = np.fft.irfft(power)[:min(largest + 2, len(e))]
        if correlation[0] <= 0:
            continue
        correlation = correlation / correlation[0]
        inner = correlation[2:-1]
        top = 2 + np.flatnonzero((inner > correlation[1:-2]) & (inner >= correlation[3:]) & (inner > 0.05))
        lags.update(top[np.argsort(-correlation[top])[:6]].tolist())
    return sorted(m for m in lags if 2 <= m <= largest)


def _interpolated(z: Float64Array) -> Float64Array:
    """The values with missing ones on straight lines between their neighbours."""
    observed = ~np.isnan(z)
    if not observed.any():
        return np.zeros(0)
    places = np.flatnonzero(observed)
    filled: Float64Array = np.interp(np.arange(places[0], len(z)), places, z[observed])
    return filled
