"""The clocks of a panel: one frequency for all of its series, found and checked over all rows at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .calendar import Clock, check_rising, shown
from .frequency import DAY
from .zones import to_local, to_universal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import BoolArray, IntArray
    from .frequency import Frequency, Times

ROWS = 2**20            # rows that are worked on at once, so that temporary arrays stay small


@dataclass
class Timeline:
    """The clocks of N series whose rows follow one another, and the step of each row in its series."""

    clocks: list[Clock]
    steps: IntArray             # [rows]
    lengths: IntArray           # steps of each series [N], missing ones among them


def timeline(instants: Times, starts: IntArray, names: Sequence[str], zone: str | None = None,
             frequency: Frequency | None = None, clock: Clock | None = None) -> Timeline:
    """The Timeline of series whose rows begin at `starts` [N + 1]; each series' times rise.

    Parameters
    ----------
    instants : array of datetime64[us]
        The times of all rows, of universal time where there is a zone.
    starts : array of int, [N + 1]
        The first row of each series, and the number of rows.
    names : sequence of str
        What messages call the times of each series.
    zone : str, optional
        The name of the times' zone.
    frequency : Frequency, optional
        That of all series; found from the times if not given.
    clock : Clock, optional
        Of series that these rows follow: all are taken to have its frequency, and one row of each is enough.

    Raises
    ------
    ValueError
        Times that do not rise or are not regular, or series with different steps; the message names the series.
    """
    shortest = _shortest_gaps(instants, starts)
    if shortest.min() <= 0:
        n = int(np.argmax(shortest <= 0))
        check_rising(instants[starts[n]:starts[n + 1]], names[n], zone)
    rows = np.diff(starts)
    reference = int(np.lexsort((-rows, shortest))[0])
    if clock is None and rows[reference] < 2:
        raise ValueError(f"{names[reference]}: expected two or more times, got one")
    if clock is not None:
        one, frequency = replace(clock, zone=zone), clock.frequency
    else:
        one, _ = Clock.of(instants[starts[reference]:starts[reference + 1]], names[reference], frequency, zone)
    clocks: list[Clock] = []
    steps, lengths = np.empty(len(instants), np.int64), np.empty(len(rows), np.int64)
    for low, high in _blocks(starts):
        part = slice(int(starts[low]), int(starts[high]))
        block_clocks, steps[part], fits = _clocks(instants[part], starts[low:high + 1] - starts[low], one)
        for n in np.flatnonzero(~fits).tolist():
            own = slice(int(starts[low + n]), int(starts[low + n + 1]))
            block_clocks[n], steps[own] = _own_clock(instants[own], names[low + n], one, names[reference], frequency)
        clocks += block_clocks
        lengths[low:high] = steps[starts[low + 1:high + 1] - 1] + 1
    if frequency is None:
        _check_steps(steps, starts, names, one, names[reference])
    crowded = lengths > np.maximum(1000, 100 * rows)
    if crowded.any():
        n = int(np.argmax(crowded))
        raise ValueError(f"{names[n]}: between first and last the step freq={one.name!r} fits {lengths[n]} times, "
                         f"there are only {rows[n]} rows; resample= with a longer step, such as resample='1D', takes "
                         "the mean of each")
    return Timeline(clocks, steps, lengths)


def _blocks(starts: IntArray) -> list[tuple[int, int]]:
    """Ranges of series that have about ROWS rows together."""
    low, blocks = 0, []
    while low < len(starts) - 1:
        high = max(low + 1, int(np.searchsorted(starts, starts[low] + ROWS, "right")) - 1)
        blocks.append((low, high))
        low = high
    return blocks


def _shortest_gaps(instants: Times, starts: IntArray) -> IntArray:
    """The shortest time between two rows of each series in microseconds; the largest integer for a series of one."""
    result = np.full(len(starts) - 1, np.iinfo(np.int64).max)
    for low, high in _blocks(starts):
        first = starts[low:high] - starts[low]
        gaps = np.diff(instants[starts[low]:starts[high]].astype(np.int64), append=0)
        gaps[starts[low + 1:high + 1] - 1 - starts[low]] = np.iinfo(np.int64).max
        result[low:high] = np.minimum.reduceat(gaps, first)
    return result


def _clocks(instants: Times, starts: IntArray, one: Clock) -> tuple[list[Clock], IntArray, BoolArray]:
    """The clocks of some series with the frequency of `one`, the step of each row, and whether each series fits."""
    frequency, rows, first = one.frequency, np.diff(starts), starts[:-1]
    local = to_local(instants, one.zone)
    numbers = one.numbers(instants, local)
    begins = numbers[first]
    steps = numbers - np.repeat(begins, rows)
    times_of_day = local[first].astype(np.int64) % DAY
    wrong = ~np.broadcast_to(frequency.fits(numbers), len(numbers)) | (steps % frequency.count > 0)
    if frequency.unit == "elapsed":
        times_of_day = np.zeros(len(rows), np.int64)
    else:
        if frequency.unit == "session":
            times_of_day = np.zeros(len(rows), np.int64)
        expected = frequency.times(numbers) + np.repeat(times_of_day, rows).astype("timedelta64[us]")
        wrong |= to_local(to_universal(expected, one.zone), one.zone) != local
    clocks = [Clock(begin, frequency, time, one.zone) for begin, time in zip(begins.tolist(), times_of_day.tolist(),
                                                                            strict=True)]
    return clocks, steps // frequency.count, ~np.logical_or.reduceat(wrong, first)


def _own_clock(instants: Times, name: str, one: Clock, reference: str,
               frequency: Frequency | None) -> tuple[Clock, IntArray]:
    """The clock of a series whose times are not on the frequency of `one`: they may lie on other days of the month."""
    if len(instants) == 1 and frequency is None:
        local = to_local(instants, one.zone)
        return Clock._begun(instants[0], local[0], one.frequency, one.zone), np.zeros(1, np.int64)
    clock, steps = Clock.of(instants, name, frequency, one.zone)
    if (clock.frequency.unit, clock.frequency.count) != (one.frequency.unit, one.frequency.count):
        raise ValueError(_different(name, clock.name, reference, one.name))
    return clock, steps


def _check_steps(steps: IntArray, starts: IntArray, names: Sequence[str], one: Clock, reference: str) -> None:
    """Raise ValueError, by name, for a series of which no two times are one step apart."""
    for low, high in _blocks(starts):
        gaps = np.diff(steps[starts[low]:starts[high]], append=0)
        gaps[starts[low + 1:high + 1] - 1 - starts[low]] = np.iinfo(np.int64).max
        shortest = np.minimum.reduceat(gaps, starts[low:high] - starts[low])
        odd = (shortest > 1) & (np.diff(starts[low:high + 1]) > 1)
        if odd.any():
            n = low + int(np.argmax(odd))
            raise ValueError(_different(names[n], f"{int(shortest[n - low])} times that", reference, one.name))


def _different(name: str, step: str, reference: str, other: str) -> str:
    return (f"{name}: expected one frequency for all series of a panel, got a step of {step}, where {reference} has "
            f"{other}; freq={other!r} makes missing values of the steps between, resample= one step for all")


# ---- Steps that follow --------------------------------------------------------------------------

def ahead(clocks: Sequence[Clock], lengths: IntArray, h: int) -> Times:
    """The times of the h steps that follow each series, datetime64[us] [N, h]."""
    result = np.empty((len(clocks), h), "datetime64[us]")
    groups: dict[Any, list[int]] = {}
    for n, clock in enumerate(clocks):
        groups.setdefault((clock.frequency, clock.time_of_day, clock.zone), []).append(n)
    for members in groups.values():
        clock = clocks[members[0]]
        first = np.array([clocks[n].first for n in members]) + lengths[members] * clock.frequency.count
        result[members] = clock.instants(first[:, None] + np.arange(h) * clock.frequency.count)
    return result


def some(times: Times, zone: str | None = None, most: int = 3) -> str:
    """A few times in words: "2024-01-01, 2024-01-02 and 5 more"."""
    local = to_local(times, zone)
    text = ", ".join(shown(time) for time in local[:most])
    return text if len(local) <= most else f"{text} and {len(local) - most} more"
