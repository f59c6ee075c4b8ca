"""Windows of series, encoded when a minibatch needs them: what the networks are trained on.

Of a panel nothing is kept but z (the values themselves, unless there is a logarithm or a missing value) and, every
BLOCK steps, the sums from which level and scale of the following steps are computed. A window has the same bits as in
``Encoding.encode`` of its whole series, for the same numbers are added in the same order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..training.data import Data
from .encoding import FLOOR, TINY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._base.typing import Array, BoolArray, Float64Array, IntArray
    from .encoding import Encoding
    from .series import Series

BLOCK = 64                  # steps from one kept sum to the next
ELEMENTS = 2**15            # values of several series that are worked on at once
KEPT = 2**23                # bytes up to which all windows of a training are encoded once
CACHED = 2**15              # values that windows are encoded of at a time
WARM_UP = 4                 # the first quarter of a window that begins within a series does not count in the loss


class Prepared:
    """Series made ready for the encoding of any of their windows.

    Parameters
    ----------
    series : sequence of Series
        Each begins with a value.
    encoding : Encoding
        How they are read.
    """

    def __init__(self, series: Sequence[Series], encoding: Encoding) -> None:
        self.series, self.encoding = series, encoding
        self.lengths = np.array([len(each) for each in series], np.int64)
        missing = [bool(np.isnan(each.y).any()) for each in series]
        self.observed: BoolArray | None = None      # as z; None where nothing is missing
        if encoding.log or any(missing):
            self.z, self.offsets = np.concatenate([encoding.filled(each.y) for each in series]), _starts(self.lengths)
            if any(missing):
                self.observed = ~np.isnan(np.concatenate([each.y for each in series]))
        else:
            self.z, self.offsets = _joined([each.y for each in series])
        counts = (self.lengths - 1) // BLOCK + 1
        self.rows = _starts(counts)                 # the first row of each series in `kept`
        # Before step c * BLOCK: two sums and the count of values; level, scale and largest scale of the step before.
        self.kept = np.zeros((int(counts.sum()), 6))

    # ---- Level and scale ------------------------------------------------------------------------

    def scan(self) -> Iterator[tuple[int, int, BoolArray]]:
        """Keep the sums of all series, some at a time: the first, the one after the last, and at which steps [n, T]
        something has varied."""
        low, count = 0, len(self.series)
        while low < count:
            high, T = low, 0
            while high < count and (high == low or (high + 1 - low) * max(T, self.lengths[high]) <= ELEMENTS):
                T, high = max(T, int(self.lengths[high])), high + 1
            numbers, steps, nothing = np.arange(low, high), np.arange(T)[None], np.zeros((high - low, 3))
            sums = self._sums(numbers, steps, nothing)
            results = self._levels(numbers, sums, steps, np.zeros((1, 1), np.int64), nothing)
            marks = np.arange(0, T, BLOCK)
            own = marks < self.lengths[low:high, None]
            rows = self.kept[self.rows[low]:self.rows[low] + int(own.sum())]
            rows[:, :3] = np.stack([total[:, marks][own] for total in sums], 1)
            rows[:, 3:] = np.stack([np.pad(each[:, marks[1:] - 1], ((0, 0), (1, 0)))[own] for each in results], 1)
            level, _, largest = results
            yield low, high, largest > TINY * np.abs(level)
            low = high

    def _sums(self, numbers: IntArray, steps: IntArray, before: Float64Array) -> list[Float64Array]:
        """Sums [n, L + 1] before each of `steps` [n, L], and after the last, from those `before` on [n, 3].

        They are of the values less the series' first, of their squares or of the values' sizes, and of 1 a value.
        """
        encoding, ends = self.encoding, self.lengths[numbers, None]
        places = self.offsets[numbers, None] + np.minimum(steps, ends - 1)
        z, observed = self.z[places], steps < ends
        if self.observed is not None:
            observed = observed & self.observed[places]
        moved = np.where(observed, z - self.z[self.offsets[numbers], None], 0)
        second = moved * moved if encoding.scaling == "std" else np.where(observed, np.abs(z), 0)
        sums = []
        for column, values in enumerate((moved, second, np.broadcast_to(observed, z.shape))):
            total = np.concatenate([before[:, column, None], values], 1)
            sums.append(np.cumsum(total, 1, out=total))
        return sums

    def _levels(self, numbers: IntArray, sums: list[Float64Array], steps: IntArray, first: IntArray,
                before: Float64Array) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Level, scale (not yet bounded below) and largest scale at `steps` [n, K], as ``Encoding`` defines them.

        `sums` begin before the steps `first` [n, 1]; `before` [n, 3] has the results of the step before `steps`.
        """
        encoding = self.encoding
        if encoding.scaling is None:
            shape = len(numbers), steps.shape[1]
            return np.zeros(shape), np.ones(shape), np.ones(shape)
        upper, lower = steps + 1 - first, np.maximum(steps + 1 - encoding.window, 0) - first

        def total(values: Float64Array) -> Float64Array:
            return _picked(values, upper) - _picked(values, lower)

        count = total(sums[2])
        some = np.maximum(count, 1)
        mean = total(sums[0]) / some
        level = np.where(count > 0, self.z[self.offsets[numbers], None] + mean, 0)
        if encoding.scaling == "std":
            scale = np.sqrt(np.maximum(total(sums[1]) / some - mean * mean, 0))
        else:
            scale = np.ones(mean.shape) if encoding.log else total(sums[1]) / some
        empty = count == 0                      # a window without a value: level and scale are as they were
        if empty.any():
            last = np.maximum.accumulate(np.where(empty, -1, np.arange(empty.shape[1])), 1)
            level, scale = (np.where(last < 0, old, np.take_along_axis(values, np.maximum(last, 0), 1))
                            for values, old in ((level, before[:, :1]), (scale, before[:, 1:2])))
        largest = np.maximum(np.maximum.accumulate(scale, 1), before[:, 2:])
        return level, scale, largest

    def scaled(self, numbers: IntArray, starts: IntArray, steps: IntArray) -> tuple[Float64Array, ...]:
        """Level, scale and largest scale [n, S] of windows of series at `steps` [n, S], which begin with `starts`.

        ``scan`` must have run to its end.
        """
        block = starts // BLOCK                                             # results go on from here
        first = np.maximum(block * BLOCK + 1 - self.encoding.window, 0) // BLOCK    # and sums from here, in blocks
        kept = self.kept[self.rows[numbers] + first, :3]
        length = int((steps[:, -1] + 1 - first * BLOCK).max())
        sums = self._sums(numbers, first[:, None] * BLOCK + np.arange(length), kept)
        begin = block[:, None] * BLOCK
        every = np.minimum(begin + np.arange(int((steps[:, -1] + 1 - begin[:, 0]).max())), steps[:, -1:])
        level, scale, largest = (_picked(values, steps - begin) for values in self._levels(
            numbers, sums, every, first[:, None] * BLOCK, self.kept[self.rows[numbers] + block, 3:]))
        bounded = np.where(largest > TINY * np.abs(level), np.maximum(scale, FLOOR * largest), 1.0)
        return level, bounded, largest

    # ---- Inputs and targets ---------------------------------------------------------------------

    def at(self, numbers: IntArray, steps: IntArray, count: int) -> Float64Array:
        """z of `count` steps from each of `steps` [n, S] on: [n, S, count]; of no meaning outside of a series."""
        return _runs(self.z, self.offsets[numbers, None] + steps, count)

    def encode(self, numbers: IntArray, starts: IntArray, stops: IntArray,
               limits: IntArray) -> tuple[Array, Array]:
        """Inputs [n, S, I] and targets [n, S, horizon] of windows, float32; 0 past a window's end.

        Parameters
        ----------
        numbers, starts, stops : array of int, [n]
            The number of each window's series, its first step, and the step after its last.
        limits : array of int, [n]
            Targets are known before this step of the series.
        """
        encoding, length = self.encoding, int((stops - starts).max())
        steps = np.minimum(starts[:, None] + np.arange(length), stops[:, None] - 1)
        level, scale, largest = self.scaled(numbers, starts, steps)
        x = np.empty((*steps.shape, encoding.size), np.float32)
        y = np.empty((*steps.shape, encoding.horizon), np.float32)
        several = max(1, CACHED // (length * max(encoding.horizon, *encoding.profiles, 1)))
        for row in range(0, len(numbers), several):             # a few at a time, which the processor's cache holds
            part = slice(row, row + several)
            self._inputs(x[part], numbers[part], steps[part], level[part], 1 / scale[part])
            self._targets(y[part], numbers[part], steps[part], level[part], scale[part], limits[part])
        first = np.minimum(encoding.window, self.lengths[numbers] // 2)[:, None] - 1
        y[(steps < first) | (largest <= TINY * np.abs(level))] = np.nan
        past = np.arange(length) >= (stops - starts)[:, None]
        x[past], y[past] = 0, 0
        return x, y

    def _inputs(self, x: Array, numbers: IntArray, steps: IntArray, level: Float64Array,
                inverse: Float64Array) -> None:
        """Write the inputs x [n, S, I] of windows."""
        encoding = self.encoding
        z = self.at(numbers, steps, 1)[..., 0]
        x[..., 0] = (z - level) * inverse
        for n, m in enumerate((1, *encoding.seasons), 1):
            lagged = self.at(numbers, np.maximum(steps - m, 0), 1)[..., 0]
            x[..., n] = np.where(steps >= m, z - lagged, 0) * inverse
        start = 2 + len(encoding.seasons)
        for m, size in zip(encoding.seasons, encoding.profiles, strict=True):
            profile = self.at(numbers, steps + 1 - m, size)
            profile -= level[..., None]
            part = x[..., start:start + size]
            np.multiply(profile, inverse[..., None], out=part, casting="same_kind")
            if steps[:, 0].min() < m:
                part[steps[..., None] + encoding.offsets(m)[:size] < 0] = 0
            start += size
        if encoding.missing:
            places = self.offsets[numbers, None] + steps
            x[..., start] = 0 if self.observed is None else ~self.observed[places]
        if encoding.size > start + encoding.missing:
            for row, n in enumerate(numbers.tolist()):
                x[row, :, start + encoding.missing:] = encoding.columns(self.series[n], steps[row])

    def _targets(self, y: Array, numbers: IntArray, steps: IntArray, level: Float64Array, scale: Float64Array,
                 limits: IntArray) -> None:
        """Write the targets y [n, S, horizon] of windows."""
        encoding, H = self.encoding, self.encoding.horizon
        places = self.offsets[numbers, None] + steps + 1
        ahead = _runs(self.z, places, H)
        m = encoding.difference
        if not m:
            ahead -= level[..., None]
        elif m == 1:
            ahead -= self.at(numbers, steps, 1)
        elif m >= H:
            ahead -= self.at(numbers, steps + 1 - m, H)
        else:
            source = steps[..., None] + encoding.offsets(m)
            ahead -= self.z[self.offsets[numbers, None, None] + np.maximum(source, 0)]
        with np.errstate(over="ignore"):        # where nothing has varied yet targets are not learnt
            np.divide(ahead, scale[..., None], out=y, casting="same_kind")
        if m > 1 and steps[:, 0].min() < m:
            y[steps[..., None] + encoding.offsets(m) < 0] = np.nan
        if self.observed is not None:
            y[~_runs(self.observed, places, H)] = np.nan
        last = limits[:, None] - 1 - steps                  # the most steps ahead that are known
        if last.min() < H:
            y[np.arange(1, H + 1) > last[..., None]] = np.nan


def _starts(counts: IntArray) -> IntArray:
    result: IntArray = np.cumsum(counts) - counts
    return result


def _joined(values: list[Float64Array]) -> tuple[Float64Array, IntArray]:
    """Arrays one after another, and where each begins; without a copy where they are parts of one array."""
    base = values[0].base if values[0].base is not None else values[0]
    if isinstance(base, np.ndarray) and base.ndim == 1 and base.flags.c_contiguous and base.dtype == np.float64 and all(
            each is base or (each.base is base and each.strides == (8,)) for each in values):
        origin = base.__array_interface__["data"][0]
        return base, np.array([(each.__array_interface__["data"][0] - origin) // 8 for each in values], np.int64)
    return np.concatenate(values), _starts(np.array([len(each) for each in values], np.int64))


def _picked(values: Float64Array, places: IntArray) -> Float64Array:
    """values [n, L] at the places [n, K], or at places [1, K] that all rows share."""
    result: Float64Array = values[:, places[0]] if len(places) == 1 else np.take_along_axis(values, places, 1)
    return result


def _runs(values: Array, places: IntArray, count: int) -> Array:
    """values [places], and those that follow up to `count` of them, [*places.shape, count]; places outside are moved
    in."""
    if count == 1:
        result: Array = values[np.clip(places, 0, len(values) - 1)][..., None]
    elif places.min() >= 0 and places.max() + count <= len(values):
        result = sliding_window_view(values, count)[places]
    else:
        result = values[np.clip(places[..., None] + np.arange(count), 0, len(values) - 1)]
    return result


# ---- Windows ------------------------------------------------------------------------------------

class Windows:
    """Windows of prepared series: the numbers of their series, first steps, the steps after the last, and limits.

    ``marks`` says, where it is not None, of each window which steps count in the loss; else the first quarter of a
    window does not count, unless it begins the series.
    """

    def __init__(self, prepared: Prepared, bounds: Array, marks: list[BoolArray] | None = None,
                 length: int = 0) -> None:
        self.prepared, self.bounds, self.marks, self.length = prepared, bounds, marks, length

    def __len__(self) -> int:
        return len(self.bounds)

    def some(self, indices: Array) -> Windows:
        """Some of the windows."""
        marks = None if self.marks is None else [self.marks[n] for n in indices.tolist()]
        return Windows(self.prepared, self.bounds[indices], marks, self.length)

    def counts(self, rows: IntArray) -> BoolArray:
        """Which steps of some windows count in the loss, [n, S]; not those past a window's end."""
        starts, stops = self.bounds[rows, 1:3].astype(np.int64).T
        steps = np.arange(int((stops - starts).max()))
        valid: BoolArray = steps < (stops - starts)[:, None]
        if self.marks is None:
            valid &= (starts[:, None] == 0) | (steps >= self.length // WARM_UP)
            return valid
        for row, n in enumerate(rows.tolist()):
            valid[row, :len(self.marks[n])] &= self.marks[n]
        return valid

    def encode(self, rows: IntArray) -> tuple[Array, Array]:
        """Inputs [n, S, I] and targets [n, S, horizon] of some windows."""
        numbers, starts, stops, limits = self.bounds[rows].astype(np.int64).T
        return self.prepared.encode(numbers, starts, stops, limits)


class WindowData(Data):
    """Windows as training takes its data: rows that are encoded when a minibatch takes them, unless all are small."""

    def __init__(self, windows: Windows) -> None:
        self.windows, self.batch_first, self.ragged = windows, False, True
        encoding = windows.prepared.encoding
        self._axes = {"x": (encoding.size,), "y": (encoding.horizon,)}
        self.lengths = (windows.bounds[:, 2] - windows.bounds[:, 1]).astype(np.int64)
        self.rows, self.steps = len(windows), int(self.lengths.max())
        size = 4 * self.rows * self.steps * (encoding.size + encoding.horizon)
        self.kept = windows.encode(np.arange(self.rows)) if size <= KEPT else None

    def axes(self, name: str) -> tuple[int, ...]:
        """The shape of a part without the axes of rows and steps."""
        return self._axes[name.rpartition(" ")[2]]

    def take(self, rows: IntArray) -> tuple[Array, Array, IntArray | None, Array | None]:
        """x, y, lengths and mask of some windows, with as many steps as the longest of them has."""
        lengths = np.asarray(self.lengths)[rows]
        if self.kept is None:
            x, y = self.windows.encode(rows)
        else:
            x, y = (part[rows, :lengths.max()] for part in self.kept)
        return x.swapaxes(0, 1), y.swapaxes(0, 1), lengths, self.windows.counts(rows).T


def training_windows(prepared: Prepared, length: int, ends: Sequence[int]) -> Windows:
    """All windows of the steps before `ends` of each series that have something to learn."""
    encoding, bounds, limits = prepared.encoding, [], np.asarray(ends, np.int64)
    for low, high, varied in prepared.scan():
        t, lengths, end = np.arange(varied.shape[1]), prepared.lengths[low:high], limits[low:high]
        first = np.minimum(encoding.window, lengths // 2) - 1
        learnt = varied & (t >= first[:, None]) & (t < lengths[:, None]) & _have_targets(prepared, low, high, t, end)
        before = np.zeros((high - low, len(t) + 1), np.int32)
        np.cumsum(learnt, 1, out=before[:, 1:])
        for same in np.unique(end).tolist():            # series of one length have the same windows
            numbers, starts = np.flatnonzero(end == same), window_starts(same, length)
            stops = np.minimum(starts + length, same)
            own = before[numbers]
            rows, windows = np.nonzero(own[:, np.maximum(stops, 0)] > own[:, starts])
            part = np.stack([low + numbers[rows], starts[windows], stops[windows], np.full(len(rows), same)], 1)
            bounds.append(part.astype(np.int32))
    every = np.concatenate(bounds) if bounds else np.empty((0, 4), np.int32)
    if np.any(np.diff(every[:, 0]) < 0):
        every = every[np.argsort(every[:, 0], kind="stable")]
    return Windows(prepared, every, None, length)


def _have_targets(prepared: Prepared, low: int, high: int, t: IntArray, ends: IntArray) -> BoolArray:
    """At which steps t of the series low ... high-1 at least one target is known before step `ends`, [n, len(t)]."""
    encoding, H, m = prepared.encoding, prepared.encoding.horizon, prepared.encoding.difference
    known = np.minimum(ends[:, None] - 1 - t, H)            # steps ahead that are known
    result: BoolArray
    if prepared.observed is None:
        result = known >= 1
        return result & ((known >= m) | (t + known >= m)) if m else result
    places = prepared.offsets[low:high, None] + t
    result = np.zeros(known.shape, bool)
    for k, offset in enumerate((encoding.offsets(m) if m else np.zeros(H, np.int64)).tolist(), 1):
        observed = prepared.observed[np.minimum(places + k, len(prepared.observed) - 1)]
        result |= (known >= k) & (t + offset >= 0) & observed
    return result


def judged_windows(prepared: Prepared, length: int, ends: Sequence[int], origins: Sequence[Sequence[int]]) -> Windows:
    """The windows before the last origin of each series that has one; only the forecasts from origins count."""
    bounds, marks = [], []
    for n, (end, own) in enumerate(zip(ends, origins, strict=True)):
        if end > 0 and own:
            start, stop = max(0, end - length), max(own)
            bounds.append((n, start, stop, int(prepared.lengths[n])))
            marks.append(np.isin(np.arange(start, stop) + 1, own))
    return Windows(prepared, np.array(bounds, np.int32).reshape(-1, 4), marks, length)


def window_starts(T: int, length: int) -> IntArray:
    """First steps of the windows of a series of T steps: every quarter of a window, and the last window."""
    return np.array(sorted({*range(0, max(1, T - length + 1), max(1, length // WARM_UP)), max(0, T - length)}))
