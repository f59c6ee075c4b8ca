"""Pictures of forecasts and backtests, by matplotlib, which is imported when something is drawn."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base import validation as check
from .._base.figures import finish, new_figure
from .preparation import series_number
from .tables import known_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .._base.typing import Array, Float64Array, IntArray
    from .backtest import Backtest
    from .calendar import Clock
    from .forecaster import RNNForecaster

PAST, AHEAD = "0.25", "C0"      # colours: what came, forecasts
BAND = 0.2                      # opacity of the band between the outer quantiles


def as_arrays(model: RNNForecaster) -> RNNForecaster:
    """A copy of a forecaster whose forecasts are arrays [N, h], whatever table its series came in."""
    twin = copy.copy(model)
    twin.panel_ = replace(model.panel_, kind="list", layout=None)
    return twin


def draw_forecast(model: RNNForecaster, X: Any, series: int | str, interval: float, past: int | None,
                  ax: Axes | None) -> Axes:
    """``RNNForecaster.plot``: the end of a series, its forecast and an interval."""
    number = series_number(model.panel_, series)
    each, options = model.panel_.series[number], model.options_
    if model.n_features_in_:
        X = known_rows(X, model.panel_)
    low, forecast, high = (values[number] for values in as_arrays(model).predict(X, interval=interval))
    count = min(len(each), max(3 * len(forecast), options.window) if past is None else check.size(past, "past"))
    if ax is None:
        ax = new_figure("RNNForecaster.plot", 8, 4).add_subplot()
    x = _places(each.clock, np.arange(len(each) - count, len(each) + len(forecast)))
    values = each.y[-count:]
    _line(ax, x[:count], values, color=PAST, label="values")
    last = np.arange(count - (not np.isnan(values[-1])), count)     # the forecast's line begins at the last value
    x_ahead = np.concatenate([x[last], x[count:]])
    _line(ax, x_ahead, np.concatenate([values[last], forecast]), color=AHEAD, label="forecast")
    if interval:
        ax.fill_between(x_ahead, np.concatenate([values[last], low]), np.concatenate([values[last], high]),
                        color=AHEAD, alpha=BAND, linewidth=0, label=f"{100 * interval:g} % interval")
    finish(ax, x, _title("Forecast", each.name), _x_label(each.clock), _y_label(model, number))
    return ax


def draw_backtest(backtest: Backtest, series: int | str, ahead: int | None, ax: Axes | None) -> Axes:
    """``Backtest.plot``: the forecasts of one series over the values that came."""
    horizon, number = backtest.truth.shape[1], _number(backtest, series)
    if ahead is not None and check.size(ahead, "ahead") > horizon:
        raise ValueError(f"ahead: expected 1 to {horizon} steps, got {ahead}")
    if ax is None:
        ax = new_figure("Backtest.plot", 8, 4).add_subplot()
    rows = np.flatnonzero(backtest.series == number)
    clock = backtest.clocks[number] if backtest.clocks else None
    name = backtest.names[number] if backtest.names else None
    steps = backtest.origins[rows, None] + np.arange(horizon)
    every = np.arange(steps.min(), steps.max() + 1)
    values: Float64Array = np.full(len(every), np.nan)
    values[steps - every[0]] = backtest.truth[rows]
    _line(ax, _places(clock, every), values, color=PAST, label="values", zorder=3)
    if ahead is None:
        _draw_whole(backtest, rows, [_places(clock, each) for each in steps], ax)
    else:
        _draw_ahead(backtest, rows, _places(clock, steps[:, ahead - 1]), ahead, ax)
    errors = {name: values["MAE"] for name, values in backtest._part(number).scores().items()}
    beside = ", ".join(f"{name} {error:.3g}" for name, error in errors.items() if name != "forecast")
    finish(ax, _places(clock, every[:1]), f"{_title('Backtest', name)}: MAE {errors['forecast']:.3g} ({beside})",
           _x_label(clock), "value")
    return ax


def _draw_whole(backtest: Backtest, rows: IntArray, places: list[Array], ax: Axes) -> None:
    """Every forecast as a line of its own; the band of each is the fainter, the more of them overlap."""
    quantiles, horizon = backtest.quantile_forecasts, backtest.truth.shape[1]
    stride = int(np.diff(backtest.origins[rows]).min(initial=horizon))
    for n, (row, x) in enumerate(zip(rows, places, strict=True)):
        ax.plot(x, backtest.forecasts[row], color=AHEAD, linewidth=1, alpha=0.8, label=None if n else "forecasts")
        if horizon == 1:
            ax.plot(x, backtest.forecasts[row], ".", color=AHEAD, markersize=4)
        if quantiles is not None:
            ax.fill_between(x, quantiles[row, :, 0], quantiles[row, :, -1], color=AHEAD, linewidth=0,
                            alpha=max(0.02, BAND * min(1, stride / horizon)))
    if quantiles is not None:       # the legend shows the band as it is where many lie over each other
        ax.fill_between(places[0][:0], [], [], color=AHEAD, linewidth=0, alpha=BAND, label=_between(backtest.quantiles))


def _draw_ahead(backtest: Backtest, rows: IntArray, x: Array, ahead: int, ax: Axes) -> None:
    """What was forecast so many steps before as one line, and the naive forecasts, dashed."""
    quantiles, column = backtest.quantile_forecasts, ahead - 1
    for n, (name, others) in enumerate(backtest.others.items()):
        ax.plot(x, others[rows, column], color=f"C{1 + n}", linestyle="--", linewidth=0.8, label=name)
    label = f"forecasts {ahead} step{'s' * (ahead > 1)} ahead"
    _line(ax, x, backtest.forecasts[rows, column], color=AHEAD, label=label)
    if quantiles is not None:
        ax.fill_between(x, quantiles[rows, column, 0], quantiles[rows, column, -1], color=AHEAD, alpha=BAND,
                        linewidth=0, label=_between(backtest.quantiles))


def _number(backtest: Backtest, series: int | str) -> int:
    """The number of a series in a backtest, from its number or its name."""
    if series in backtest.names:
        return backtest.names.index(series)
    count = len(backtest.scales)
    if not isinstance(series, (int, np.integer)) or isinstance(series, bool) or not 0 <= series < count:
        names = ", ".join(map(repr, filter(None, backtest.names)))
        raise ValueError(f"series: expected 0 to {count - 1}{' or one of ' * bool(names)}{names}, got {series!r}")
    return int(series)


def _places(clock: Clock | None, steps: IntArray) -> Array:
    """What stands on the axis for some steps: their times, or their numbers."""
    places: Array = steps if clock is None else np.asarray(clock.local(steps))
    return places


def _x_label(clock: Clock | None) -> str:
    if clock is None:
        return "step"
    return "time" if clock.zone is None else f"time ({clock.zone})"


def _y_label(model: RNNForecaster, number: int) -> str:
    """The name of the column that was forecast, or "value"."""
    targets = () if model.panel_.layout is None else model.panel_.layout.targets
    return "value" if not targets else str(targets[number] if len(targets) > 1 else targets[0])


def _title(what: str, name: object) -> str:
    return what if name is None else f"{what} of {name}"


def _between(quantiles: tuple[float, ...]) -> str:
    return f"{100 * quantiles[0]:g} to {100 * quantiles[-1]:g} %"


def _line(ax: Axes, x: Array, y: Float64Array, **style: Any) -> None:
    """A line, with a point where it would not show: a value between two missing ones, or one alone."""
    line, = ax.plot(x, y, **style)
    there = ~np.isnan(y)
    before, after = np.concatenate([[False], there[:-1]]), np.concatenate([there[1:], [False]])
    alone = there & ~before & ~after
    if alone.any():
        ax.plot(np.asarray(x)[alone], y[alone], ".", color=line.get_color(), markersize=4, zorder=line.get_zorder())

