"""A weather forecast from start to end: ``fastrnn demo``.

An ``RNNForecaster`` reads a year of hourly weather and forecasts at every hour the temperature 1, 2, ... hours later.
Seven days of every month are held out. The steps, each a function, in order: ``load``, ``training_parts``,
``held_out_weeks``, ``forecaster``, ``evaluate``, ``stream``, ``draw``.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._base.dispatch import active_isa
from .._base.figures import new_figure
from ..datasets import load_weather
from ..forecasting import RNNForecaster
from ..forecasting.backtest import Backtest
from ..nn import reference
from ..nn.recurrent import Recurrent
from .common import PICTURES, add_random_state
from .parser import Parser, positive_int
from .writing import prepare_output

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WEEK = range(15, 22)    # days of each month that are held out
HOURS = 24 * len(WEEK)
APART = 24              # hours on either side of a held-out week that are not trained on, as weather lasts
CONTEXT = 96            # hours read before the first forecast of a held-out week
QUANTILES = (0.1, 0.9)
MONTHS = "January February March April May June July August September October November December".split()

Array = npt.NDArray[Any]


# ---- Data ---------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Series:
    """A year by the hour, arrays [8760]: times (of a year of 365 days), temperature (deg C), irradiance (W/m2)."""

    times: npt.NDArray[np.datetime64]
    temperature: npt.NDArray[np.float64]
    irradiance: npt.NDArray[np.float64]

    @property
    def begins(self) -> npt.NDArray[np.datetime64]:
        """When each hour begins. An hour is named by its end: the last of a month ends when the next month begins."""
        return self.times - np.timedelta64(1, "h")

    @property
    def month(self) -> npt.NDArray[np.int64]:
        """The month in which each hour lies, 1 to 12."""
        return self.begins.astype("datetime64[M]").astype(int) % 12 + 1

    @property
    def held_out(self) -> npt.NDArray[np.bool_]:
        """Whether each hour belongs to a held-out week."""
        begins = self.begins
        day = (begins.astype("datetime64[D]") - begins.astype("datetime64[M]")).astype(int) + 1
        return np.asarray((day >= WEEK.start) & (day < WEEK.stop))

    @property
    def first(self) -> npt.NDArray[np.int64]:
        """The first hour of every held-out week [12]."""
        return np.flatnonzero(np.diff(self.held_out, prepend=False) & self.held_out)

    def arguments(self, parts: Sequence[slice]) -> dict[str, Any]:
        """Parts of the series as the arguments of ``RNNForecaster.fit``."""
        return {"X": None, "y": [self.temperature[part] for part in parts],
                "past": [self.irradiance[part, None] for part in parts], "times": [self.times[part] for part in parts]}


def load() -> Series:
    """The year of weather that ships with fastrnn."""
    return Series(*load_weather())


def training_parts(series: Series) -> list[slice]:
    """The parts that training may see, as input or as target.

    No hour of them is held out or near one that is, and none runs over the end of a month, where the series jumps from
    one real year to another.
    """
    allowed = ~series.held_out
    for first in series.first:
        allowed[first - APART:first + HOURS + APART] = False
    edges = [0, *np.flatnonzero(np.diff(allowed) | (np.diff(series.month) != 0)) + 1, len(allowed)]
    return [slice(first, stop) for first, stop in itertools.pairwise(edges) if allowed[first]]


def held_out_weeks(series: Series) -> list[slice]:
    """The 12 held-out weeks, each with the hours that are read before its first forecast."""
    return [slice(first - CONTEXT, first + HOURS) for first in series.first]


# ---- Forecasts of the held-out weeks ------------------------------------------------------------

def forecaster(horizon: int, hidden_size: int, updates: int, random_state: int) -> RNNForecaster:
    """Three GRUs, whose mean is the forecast. They read temperature, irradiance and time of day."""
    return RNNForecaster(horizon, window=48, hidden_size=hidden_size, scaling=None, ensemble=3, updates=updates,
                         seasons=(), difference=1, log=False, blend=False, time_features="day", quantiles=QUANTILES,
                         random_state=random_state, progress=True)


def evaluate(model: RNNForecaster, series: Series) -> Backtest:
    """Measure the fitted forecaster on the held-out weeks.

    Returns
    -------
    Backtest
        A forecast at every hour of every week. Its ``others`` get two more: "24 hours ago" and "regression".
    """
    backtest: Backtest = model.backtest(**series.arguments(held_out_weeks(series)), start=CONTEXT, refit=False)
    last_known = series.first[backtest.series] - CONTEXT + backtest.origins - 1         # hour of the last known value
    steps = np.arange(1, model.horizon + 1)
    backtest.others["24 hours ago"] = series.temperature[last_known[:, None] + steps - 24]
    backtest.others["regression"] = series.temperature[last_known, None] + linear(series, model.horizon, last_known)
    return backtest


def linear(series: Series, horizon: int, at: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Changes of temperature in the hours after hours `at`, [len(at), horizon], by linear regression.

    Least squares on the hours trained on. Inputs: the last 24 temperatures and irradiances, the time of day (a constant
    for each hour) and the time of year.
    """
    year = 2 * np.pi * np.arange(len(series.times)) / len(series.times)

    def inputs(at: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        past = at[:, None] - np.arange(24)
        return np.concatenate([series.temperature[past], series.irradiance[past] / 1000, np.sin(year[at, None]),
                               np.cos(year[at, None]), at[:, None] % 24 == np.arange(24)], 1)

    hours = np.concatenate([np.arange(part.start + 23, part.stop - horizon) for part in training_parts(series)])
    changes = series.temperature[hours[:, None] + np.arange(1, horizon + 1)] - series.temperature[hours, None]
    weight, *_ = np.linalg.lstsq(inputs(hours), changes)
    return np.asarray(inputs(at) @ weight)


def stream(model: RNNForecaster, series: Series) -> tuple[Array, npt.NDArray[np.float64]]:
    """Forecast the held-out weeks hour by hour, as the weather comes in.

    Returns
    -------
    forecasts : array [12, HOURS, horizon, Q]
        Made before each hour of the week.
    microseconds : array [12, HOURS]
        What each took, from the hour's weather to the forecast.
    """
    forecasts: list[Array] = []
    microseconds = np.empty((len(series.first), HOURS))
    for week, first in enumerate(series.first.tolist()):
        before = slice(first - CONTEXT, first)
        live = model.apply(**series.arguments([before])).stream()
        temperature, irradiance = series.temperature.tolist(), series.irradiance[:, None]
        for hour in range(HOURS):
            forecasts.append(np.asarray(live.forecast_quantiles))
            begin = time.perf_counter_ns()
            live.step(temperature[first + hour], past=irradiance[first + hour])
            microseconds[week, hour] = (time.perf_counter_ns() - begin) / 1000
    return np.reshape(forecasts, (*microseconds.shape, *forecasts[0].shape)), microseconds


def step_times(layer: Recurrent, steps: int = 2000) -> dict[str, npt.NDArray[np.float64]]:
    """Microseconds of single steps of a GRU, [steps] each: by "fastrnn", and by "NumPy" (``fastrnn.nn.reference``)."""
    x = np.random.default_rng(0).standard_normal((steps, layer.input_size), np.float32)
    parameters = {name.removesuffix("_l0"): value for name, value in layer.parameters.items()}
    stream, h = layer.stream(), np.empty(layer.hidden_size, np.float32)
    state, times = np.zeros((1, layer.hidden_size), np.float32), {"fastrnn": np.empty(steps), "NumPy": np.empty(steps)}
    for t, row in enumerate(x):
        begin = time.perf_counter_ns()
        stream.step(row, h)
        times["fastrnn"][t] = time.perf_counter_ns() - begin
    for t, row in enumerate(x[:, None, None]):
        begin = time.perf_counter_ns()
        _, state, _, _, _ = reference.forward("gru", parameters, row, state)
        times["NumPy"][t] = time.perf_counter_ns() - begin
    return {name: nanoseconds / 1000 for name, nanoseconds in times.items()}


# ---- Figure -------------------------------------------------------------------------------------

LOOKS: dict[str, dict[str, Any]] = {
    "truth": {"color": "#222222", "lw": 1.4}, "forecast": {"color": "#d1495b", "lw": 1.8},
    "naive": {"color": "#8d99ae", "lw": 1.1}, "24 hours ago": {"color": "#edae49", "lw": 1.1},
    "regression": {"color": "#66a182", "lw": 1.1}}


def draw(path: Path, series: Series, backtest: Backtest, times: Mapping[str, npt.NDArray[np.float64]],
         weeks: tuple[int, int] = (1, 6)) -> None:
    """Draw two held-out weeks, the error by lead, and the latencies.

    Parameters
    ----------
    path : path-like
        Of the file to write; its ending says the format.
    series : Series
        The weather.
    backtest : Backtest
        What ``evaluate`` returned.
    times : dict of str to array
        Microseconds, by what they were measured of.
    weeks : ints
        Which two of the held-out weeks.
    """
    figure = new_figure("The figure", 12.5, 6.6)
    grid = figure.add_gridspec(2, 3)
    for row, week in enumerate(weeks):
        draw_week(figure.add_subplot(grid[row, :2]), backtest, week, legend=row == 0)
    draw_errors(figure.add_subplot(grid[0, 2]), backtest)
    draw_times(figure.add_subplot(grid[1, 2]), times)
    horizon = backtest.truth.shape[1]
    figure.suptitle(f"Greensboro NC: temperature {_hours(horizon)} ahead, forecast at every hour (NREL TMY3 723170)")
    figure.savefig(path, dpi=130)


def draw_week(ax: Axes, backtest: Backtest, week: int, legend: bool) -> None:
    """Draw a held-out week: what was forecast for every hour at the longest lead, and the truth."""
    rows, horizon = backtest.series == week, backtest.truth.shape[1]
    days = (backtest.origins[rows] - CONTEXT + horizon - 1) / 24
    low, _, high = np.asarray(backtest.quantile_forecasts)[rows, -1].T
    ax.fill_between(days, low, high, color=LOOKS["forecast"]["color"], alpha=0.18, lw=0,
                    label=f"its quantiles {QUANTILES[0]:g} to {QUANTILES[1]:g}")
    errors = {}
    for name, forecasts, label in (("naive", backtest.others["naive"], f"the temperature {_hours(horizon)} before"),
                                   ("forecast", backtest.forecasts, f"forecast, {_hours(horizon)} before"),
                                   ("truth", backtest.truth, "truth")):
        ax.plot(days, forecasts[rows, -1], **LOOKS[name], label=label)
        errors[name] = rms(forecasts[rows, -1] - backtest.truth[rows, -1])
    ax.set(xlim=(0, len(WEEK)), ylabel="temperature, °C")
    ax.set_title(f"{MONTHS[week]} {WEEK.start} to {WEEK.stop - 1}, not trained on. RMSE of this week: forecast "
                 f"{errors['forecast']:.1f} °C, naive {errors['naive']:.1f} °C", loc="left", fontsize=10)
    ax.set_xticks(range(len(WEEK)), [f"{MONTHS[week][:3]} {day}" for day in WEEK], ha="left")
    ax.grid(alpha=0.25)
    if legend:
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.16 * (high - low), high)      # room for the legend
        ax.legend(fontsize=8.5, ncols=4, loc="lower center", frameon=False)


def draw_errors(ax: Axes, backtest: Backtest) -> None:
    """Draw the RMSE of every way of forecasting over the lead."""
    from matplotlib.ticker import MaxNLocator
    for name, errors in by_lead(backtest).items():
        ax.plot(range(1, len(errors) + 1), errors, "o-", ms=4, **LOOKS[name], label=name)
    ax.set(xlabel="lead, hours", ylabel="RMSE, °C", ylim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    ax.set_title(f"All {len(set(backtest.series.tolist()))} held-out weeks", loc="left", fontsize=10)
    ax.legend(fontsize=8.5, frameon=False)
    ax.grid(alpha=0.25)


def draw_times(ax: Axes, times: Mapping[str, npt.NDArray[np.float64]]) -> None:
    """Draw histograms of microseconds, with their medians."""
    clipped = [np.clip(t, None, np.percentile(t, 99.5)) for t in times.values()]    # rare slow ones stretch the axis
    bins = np.geomspace(0.6 * min(t.min() for t in clipped), 1.6 * max(t.max() for t in clipped), 90)
    for (name, t), drawn, look in zip(times.items(), clipped, ("forecast", "24 hours ago", "naive"), strict=True):
        ax.hist(drawn, bins.tolist(), weights=np.full(len(drawn), 100 / len(drawn)), color=LOOKS[look]["color"],
                alpha=0.85, label=f"{name}: {_digits(np.median(t))} µs")
    ax.set(xscale="log", xlim=(bins[0], bins[-1]), xlabel="microseconds", ylabel="% of the steps",
           ylim=(0, 1.4 * ax.get_ylim()[1]))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_title("Time of a step, and its median", loc="left", fontsize=10)
    ax.legend(fontsize=8.5, frameon=False, loc="upper left")


def _hours(count: int) -> str:
    return f"{count} hour{'s' * (count > 1)}"


def _digits(microseconds: np.floating | float) -> str:
    return f"{microseconds:.{2 if microseconds < 10 else 0}f}"


# ---- Errors -------------------------------------------------------------------------------------

def rms(errors: Array) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(errors))))


def by_lead(backtest: Backtest) -> dict[str, list[float]]:
    """Name of a way of forecasting -> RMSE at every lead."""
    return {name: [rms(errors) for errors in (forecasts - backtest.truth).T]
            for name, forecasts in {"forecast": backtest.forecasts, **backtest.others}.items()}


def print_errors(backtest: Backtest) -> None:
    """Print the errors by lead."""
    errors, horizon = by_lead(backtest), backtest.truth.shape[1]
    print(f"\n12 held-out weeks, {len(backtest.truth)} forecasts at each lead. RMSE in deg C:")
    print("  lead" + "".join(f"{name:>14}" for name in errors))
    for lead in sorted({1, *range(horizon, 0, -max(1, horizon // 6))}):
        print(f"{lead:>4} h" + "".join(f"{values[lead - 1]:14.2f}" for values in errors.values()))
    print("naive: the last temperature; 24 hours ago: that of the same hour the day before; regression: linear, on\n"
          "the last 24 hours and the time of day and year, fitted to the same training hours.")
    print("Temperatures at or below quantile " + ", ".join(f"{q:g}: {share:.1%}"
                                                            for q, share in backtest.coverage().items()))


def print_times(forecast_times: npt.NDArray[np.float64], difference: float, layer: Recurrent,
                of_steps: Mapping[str, npt.NDArray[np.float64]]) -> None:
    """Print the latencies of the stream and of a step of one network."""
    own, plain = np.median(of_steps["fastrnn"]), np.median(of_steps["NumPy"])
    print(f"\nThe same weeks as a stream of {forecast_times.size} hours. From an hour's weather to the next forecast: "
          f"median {_digits(np.median(forecast_times))} us,\n99th percentile "
          f"{_digits(np.percentile(forecast_times, 99))} us. Streamed forecasts and those of whole weeks differ by "
          f"{difference:.1g} deg C at most.")
    print(f"One step of one of its networks, {layer!r}, {active_isa()} kernels: median {_digits(own)} us; in plain "
          f"NumPy {_digits(plain)} us, {plain / own:.0f} times as long.")


# ---- Command ------------------------------------------------------------------------------------

def main(argv: Sequence[str]) -> int:
    """Run the demo; ``fastrnn demo --help`` lists the options."""
    args = _parser().parse_options(argv)
    prepare_output(str(args.plot), "--plot", PICTURES)      # now, not after the training
    return _run(args)


def _parser() -> Parser:
    parser = Parser("demo", """\
Trains an RNNForecaster to forecast temperature, with intervals, from a year of hourly weather (Greensboro NC, NREL
TMY3), compares it with simpler forecasts on weeks it has not seen, streams those weeks hour by hour, and draws a figure
(needs matplotlib). Takes a few seconds.""",
                    ["demo", "demo --horizon 12 --hidden-size 64 --plot twelve.png"])
    parser.add_argument("--updates", type=positive_int, default=600, metavar="N",
                        help="steps of training of each network (default: 600)")
    parser.add_argument("--hidden-size", type=positive_int, default=48, metavar="N",
                        help="size of the hidden state of the three GRUs (default: 48)")
    parser.add_argument("--horizon", type=int, choices=range(1, 25), default=6, metavar="HOURS",
                        help="forecast 1 to so many hours ahead, up to 24 (default: 6)")
    add_random_state(parser, "the weights and the order of training")
    parser.add_argument("--plot", type=Path, default=Path("out/demo.png"), metavar="OUT.png",
                        help="the figure's file (default: out/demo.png)")
    return parser


def _run(args: argparse.Namespace) -> int:
    begin = time.perf_counter()
    series = load()
    parts = training_parts(series)
    print(f"{len(series.times)} hours of weather: {series.held_out.sum()} held out (days {WEEK.start} to "
          f"{WEEK.stop - 1} of every month), {sum(part.stop - part.start for part in parts)} to train on", flush=True)
    model = forecaster(args.horizon, args.hidden_size, args.updates, args.random_state)
    model.fit(**series.arguments(parts))
    print(f"{model!r}: trained in {time.perf_counter() - begin:.1f} s")
    backtest = evaluate(model, series)
    print_errors(backtest)
    streamed, forecast_times = stream(model, series)
    at_once = np.asarray(backtest.quantile_forecasts)
    difference = float(np.abs(streamed[:, :HOURS - args.horizon + 1].reshape(at_once.shape) - at_once).max())
    layer = model.models_[0].layer
    of_steps = step_times(layer)
    print_times(forecast_times, difference, layer, of_steps)
    try:
        draw(args.plot, series, backtest, {"a forecast by the stream": forecast_times.ravel(),
                                           "of that, a step of one GRU": of_steps["fastrnn"],
                                           "such a step in plain NumPy": of_steps["NumPy"]})
        print(f"figure: {args.plot}")
    except ImportError:
        print("no figure: matplotlib is not installed (pip install fastrnn[plot])")
    print(f"whole demo: {time.perf_counter() - begin:.1f} s")
    return 0 if difference < 1e-3 else 1
