"""What is chosen by the data: seasons, logarithm, difference, and the size of the network and of its training.

Everything here looks at the series alone, before any training. The weights of the forecasts are chosen afterwards, by
``blend``, from errors at rolling origins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .._base.trees import storable
from . import seasonality, smoothing
from .encoding import LOGARITHMS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import BoolArray, Float64Array, IntArray
    from .options import Options
    from .series import Panel, Series

SAMPLE = 64             # series of a panel that choices look at
SHOWN = 5               # values left out that a summary names
ORIGINS = 24            # origins at which naive forecasts are compared


@storable
@dataclass
class Choice:
    """What ``fit`` chose, or was told; in ``RNNForecaster.choice_``.

    Attributes
    ----------
    seasons : tuple of int
        Lengths of seasons in steps.
    log : bool or str
        Whether forecasts are made of the logarithm.
    difference : int
        What the network's forecasts are relative to.
    window, hidden_size, ensemble, updates : int
        Of the network; updates of the first of its ensemble, before training went on with all steps.
    nonnegative : tuple of bool
        For each series, whether its forecasts are kept from falling below 0.
    origins : int
        At how many origins of a series forecasts were judged.
    judged : int
        How many last steps the origins cover; the network that was judged had been trained on what lies before.
    members : tuple of str
        The forecasts that were judged.
    weights : array of float64, [N, members]
        What each counts for each series; rows sum to 1.
    errors : array of float64, [members]
        Mean absolute errors at the origins, over that of the naive forecast.
    left_out : tuple of (int, int)
        Series and row of each value that was taken for a glitch.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.forecasting import RNNForecaster
    >>> choice = RNNForecaster(horizon=3, random_state=0).fit(np.full(100, 5.0)).choice_
    >>> choice.seasons, choice.origins, choice.weights.sum()
    ((), 25, np.float64(1.0))
    """

    seasons: tuple[int, ...]
    log: bool | str
    difference: int
    window: int
    hidden_size: int
    ensemble: int
    updates: int
    nonnegative: tuple[bool, ...]
    origins: int = 0
    judged: int = 0
    members: tuple[str, ...] = ("network",)
    weights: Float64Array | None = None
    errors: Float64Array | None = None
    left_out: tuple[tuple[int, int], ...] = ()

    def summary(self) -> str:
        """Say in a few lines what was chosen.

        Returns
        -------
        str
            Lines of text.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.forecasting import RNNForecaster
        >>> model = RNNForecaster(horizon=3, random_state=0).fit(np.full(100, 5.0))
        >>> print(model.choice_.summary())
        seasons: none; logarithm: no; difference: 1
        forecast: 100 % naive (by 25 origins in the last 25 steps)
        """
        log = "of 1 + y" if self.log == "1p" else "yes" if self.log else "no"
        lines = [f"seasons: {', '.join(map(str, self.seasons)) or 'none'}; logarithm: {log}; "
                 f"difference: {self.difference}"]
        if any(self.nonnegative):
            which = "forecasts" if all(self.nonnegative) else f"forecasts of {sum(self.nonnegative)} series"
            lines.append(f"{which} are never below 0")
        if self.weights is not None:
            means = self.weights.mean(0)
            parts = [f"{100 * means[k]:.0f} % {self.members[k]}" for k in np.argsort(-means) if means[k] >= 0.005]
            lines.append(f"forecast: {', '.join(parts)} (by {self.origins} origins in the last {self.judged} steps)")
            if any("network" in part for part in parts):
                lines.append(f"network: {self.ensemble} of {self.hidden_size} units, window {self.window}, "
                             f"{self.updates} updates")
        lines += [f"left out as a glitch: row {row} of series {n}" for n, row in self.left_out[:SHOWN]]
        if len(self.left_out) > SHOWN:
            lines.append(f"and {len(self.left_out) - SHOWN} more")
        return "\n".join(lines)


# ---- Values below 0 --------------------------------------------------------------------------------

def kept_nonnegative(options: Options, series: Sequence[Series]) -> tuple[bool, ...]:
    """For each series, whether forecasts stay at 0 or above: for counts, and for values with zeros, none below."""
    if options.nonnegative != "auto":
        return (bool(options.nonnegative),) * len(series)
    result = []
    for each in series:
        y = each.y[~np.isnan(each.y)]
        counts = bool(len(y) and y.min() >= 0 and np.ptp(y) > 0 and ((y == 0).any() or np.all(y == np.floor(y))))
        result.append(counts)
    return tuple(result)


# ---- Options --------------------------------------------------------------------------------------

def resolved(options: Options, panel: Panel, total: int | None = None) -> Options:
    """The options with a value for each that is "auto"; `total`: values that are learnt from, where not the panel's."""
    series = panel.series
    places = np.unique(np.linspace(0, len(series) - 1, min(SAMPLE, len(series))).astype(int))
    some = [series[n] for n in places]
    if options.log == "auto":
        positive = all(np.nanmin(each.y) > 0 for each in series)
        options = replace(options, log=positive and _takes_logarithm([each.y for each in some]))
    values = [LOGARITHMS[options.log].forward(each.y) if options.log else each.y for each in some]
    if options.seasons == "auto":
        options = replace(options, seasons=seasonality.find_seasons(some, values))
    longest, total = max(map(len, series)), sum(map(len, series)) if total is None else total
    if options.window == "auto":
        options = replace(options, window=_window(options, longest))
    if options.sequence is None:
        options = replace(options, sequence=_sequence(options))
    if options.difference == "auto":
        options = replace(options, difference=_difference(options, values))
    if options.hidden_size == "auto":
        options = replace(options, hidden_size=16 if total < 20_000 else 32 if total < 100_000 else 48)
    if options.ensemble == "auto":
        options = replace(options, ensemble=1 if total < 50_000 or options.blend is False else 3)
    if options.updates == "auto":
        if options.blend is False:
            updates = 600
        else:
            updates = int(np.clip(200 * (total / 2000) ** 0.5, 200, 1500))
        options = replace(options, updates=updates)
    return options


def _window(options: Options, longest: int) -> int:
    """Steps over which level and scale are taken: a season and two horizons or more, and not most of the series."""
    wanted = max(32, 2 * min(options.horizon, 48), *(m for m in options.seasons if m <= 200), 0)
    return int(max(2, min(wanted, max(8, longest // 4))))


def _sequence(options: Options) -> int:
    return int(max(2, 2 * options.window if options.window <= 64 else max(128, options.window)))


def _takes_logarithm(values: Sequence[Float64Array]) -> bool:
    """Whether most series are above 0 and change in proportion to their height."""
    votes = [vote for vote in map(_proportional, values) if vote is not None]
    if not votes or any(np.nanmin(y) < 0.02 * np.nanmedian(y) for y in values):
        return False        # near 0 a value to come may well be 0 or below
    return 2 * sum(votes) > len(votes)


def _proportional(y: Float64Array) -> bool | None:
    """Whether changes are in proportion to the height; None where the series is too short or level to tell."""
    y = y[~np.isnan(y)]
    if len(y) < 32 or y.min() <= 0:
        return None
    blocks = int(min(40, len(y) // 8))
    size = len(y) // blocks
    parts = y[-blocks * size:].reshape(blocks, size)
    level, change = parts.mean(1), np.abs(np.diff(parts, axis=1)).mean(1)
    if level.max() < 1.5 * level.min() or (change <= 0).any():
        return None
    x, z = np.log(level), np.log(change)
    x, z = x - x.mean(), z - z.mean()
    slope, correlation = x @ z / (x @ x), x @ z / np.sqrt((x @ x) * (z @ z) + 1e-300)
    return bool(slope > 0.5 and correlation > 0.4)


def _difference(options: Options, values: Sequence[Float64Array]) -> int:
    """1, a season, or 0 (the window's mean): whichever naive forecast was best in the past."""
    table = smoothing.aligned(values, smoothing.LONGEST)
    T, H = table.shape[1], options.horizon
    if T < 4:
        return 1
    origins = np.unique(np.linspace(max(2, T // 3), T - 1, ORIGINS).astype(int))
    forecasts = smoothing.naive(table, options.seasons, H, origins)
    truth = future(table, origins, H)
    errors = np.abs(forecasts - truth[:, :, None])
    usable = ~np.isnan(truth)
    unit = np.maximum(_means(errors[:, :, 0], usable, (0, 2)), 1e-300)
    relative = [float(np.median(_means(errors[:, :, k], usable, (0, 2)) / unit))
                for k in range(len(options.seasons) + 1)]
    relative.append(float(np.median(_means(errors[:, :, -2], usable, (0, 2)) / unit)))
    best = int(np.argmin(np.array(relative) * np.array([0.97, *(1.0,) * len(options.seasons), 1.05])))
    return int((1, *options.seasons, 0)[best])


def future(table: Float64Array, origins: Sequence[int] | IntArray, horizon: int) -> Float64Array:
    """What followed the first o steps of each row, [len(origins), N, horizon]; NaN past the end."""
    at = np.asarray(origins)[:, None] + np.arange(horizon)
    values = table[:, np.minimum(at, table.shape[1] - 1)]
    values = np.where(at < table.shape[1], values, np.nan)
    return np.moveaxis(values, 0, 1)


def _means(values: Float64Array, usable: BoolArray, axes: tuple[int, ...]) -> Float64Array:
    """Means over those that are usable; 0 where none is."""
    total: Float64Array = np.where(usable, values, 0).sum(axes) / np.maximum(usable.sum(axes), 1)
    return total
