"""Regular steps from irregular times: the values of each step become one, their mean or another function of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base.trees import storable
from .frequency import Frequency
from .zones import to_local, to_universal

if TYPE_CHECKING:
    from .._base.typing import BoolArray, Float64Array, IntArray
    from .frequency import Times

FUNCTIONS = ("mean", "sum", "min", "max", "first", "last", "median", "count")
OF_NOTHING = {"sum": 0.0, "count": 0.0}         # what a step without rows has; others have a missing value


@storable
@dataclass(frozen=True)
class Resampling:
    """What the parameters `freq` and `resample` ask for."""

    frequency: Frequency | None = None      # None: found from the times
    function: str | None = None             # None: nothing is resampled

    @classmethod
    def of(cls, freq: Any, resample: Any) -> Resampling:
        """The two parameters, checked: `resample` is a function's name, a frequency, or both in a pair."""
        frequency = None if freq is None else Frequency.named(freq)
        if resample is None:
            return cls(frequency, None)
        step, function = resample if isinstance(resample, (tuple, list)) and len(resample) == 2 else (resample, None)
        if isinstance(step, str) and step in FUNCTIONS and function is None:
            if frequency is None:
                raise ValueError(f"freq: expected a frequency such as '1h', as resample={resample!r} names the "
                                 "function alone; resample=('1h', 'sum') says both")
            return cls(frequency, step)
        if function is not None and function not in FUNCTIONS:
            raise ValueError(f"resample: expected one of {', '.join(FUNCTIONS)}, got {function!r}")
        try:
            named = Frequency.named(step, "resample")
        except ValueError as error:
            raise ValueError(f"{error}; or, beside freq=, a function: one of {', '.join(FUNCTIONS)}") from None
        if frequency is not None and frequency != named:
            raise ValueError(f"freq: expected the step of resample={resample!r}, or None, got {freq!r}")
        return cls(named, function or "mean")

    @property
    def fill(self) -> float:
        """The value of a step without rows."""
        return OF_NOTHING.get(self.function or "", np.nan)


@dataclass
class Bins:
    """Rows grouped by series and step."""

    firsts: IntArray            # the first row of each group
    instants: Times             # the time of each group, of universal time where there is a zone
    starts: IntArray            # the first group of each series [N + 1]
    rows: int

    def reduced(self, values: Float64Array, function: str) -> Float64Array:
        """One value a group of values [rows] or [rows, columns]; missing ones are left out."""
        if values.ndim == 2:
            columns = [self.reduced(column, function) for column in values.T]
            return np.stack(columns, 1) if columns else np.empty((len(self.firsts), 0))
        observed = ~np.isnan(values)
        counts = np.add.reduceat(observed, self.firsts, dtype=np.int64)
        with np.errstate(invalid="ignore"):
            return self._reduced(values, function, observed, counts)

    def _reduced(self, values: Float64Array, function: str, observed: BoolArray, counts: IntArray) -> Float64Array:
        if function == "count":
            return counts.astype(np.float64)
        if function in ("min", "max"):
            extreme = np.fmin if function == "min" else np.fmax
            return np.asarray(extreme.reduceat(values, self.firsts), np.float64)
        if function in ("mean", "sum"):
            total = np.add.reduceat(np.where(observed, values, 0), self.firsts)
            return np.where(counts > 0, total / (np.maximum(counts, 1) if function == "mean" else 1), np.nan)
        if function == "median":
            group = np.repeat(np.arange(len(self.firsts)), np.diff(self.firsts, append=self.rows))
            rising = values[np.lexsort((values, group))]            # missing ones last in each group
            middle = self.firsts + np.maximum(counts - 1, 0) // 2
            upper = self.firsts + counts // 2
            return np.where(counts > 0, (rising[middle] + rising[np.minimum(upper, self.rows - 1)]) / 2, np.nan)
        rows = np.arange(self.rows)
        if function == "first":
            chosen = np.minimum.reduceat(np.where(observed, rows, self.rows - 1), self.firsts)
        else:
            chosen = np.maximum.reduceat(np.where(observed, rows, 0), self.firsts)
        return np.where(counts > 0, values[chosen], np.nan)


def bins(instants: Times, starts: IntArray, frequency: Frequency, zone: str | None) -> Bins:
    """The rows of series, sorted by time within each, grouped by the steps of a frequency.

    Steps of elapsed time begin at midnight of the first day; a day is one of the zone's; months and weeks are named as
    the frequency has it, by their first or last day.
    """
    local = to_local(instants, zone)
    begin = local.min().astype("datetime64[D]").astype("datetime64[us]")
    origin = to_universal(np.array([begin]), zone) if frequency.unit == "elapsed" else np.array([begin])
    numbers = frequency.binned(frequency.numbers(instants if frequency.unit == "elapsed" else local),
                               int(frequency.numbers(origin)[0]))
    begins = np.zeros(len(instants), bool)
    begins[starts[:-1]] = True
    begins[1:] |= numbers[1:] != numbers[:-1]
    firsts = np.flatnonzero(begins)
    times = frequency.times(numbers[firsts])
    named = times if frequency.unit == "elapsed" else to_universal(times, zone)
    return Bins(firsts, named, np.searchsorted(firsts, starts), len(instants))
