"""A weather forecast from start to end: ``python -m fastrnn demo``.

An ``RNNForecaster`` reads a year of hourly weather and says at every hour what the temperature will be 1, 2, ... hours
later. Seven days of every month are held out. The steps, each a function, in order: ``load``, ``pieces``, ``weeks``,
``forecaster``, ``evaluate``, ``stream``, ``draw``.
"""

import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .._base.dispatch import active_isa
from ..datasets import load_weather
from ..forecasting import RNNForecaster
from ..nn import reference
from .parser import Parser, natural, positive

WEEK = range(15, 22)    # days of each month that are held out
HOURS = 24 * len(WEEK)
APART = 24              # hours on either side of a held-out week that are not trained on: weather lasts
CONTEXT = 96            # hours read before the first forecast of a held-out week
QUANTILES = (0.1, 0.9)
MONTHS = "January February March April May June July August September October November December".split()


# ---- Data ---------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Series:
    """A year by the hour, arrays [8760]: times (of a year of 365 days), temperature (deg C), irradiance (W/m2)."""

    times: np.ndarray
    temperature: np.ndarray
    irradiance: np.ndarray

    @property
    def month(self):
        """1 to 12. An hour is named by its end: the last one of a month ends when the next month begins."""
        return (self.times - np.timedelta64(1, "h")).astype("datetime64[M]").astype(int) % 12 + 1

    @property
    def held_out(self):
        """Bools: hours of the held-out weeks."""
        begun = self.times - np.timedelta64(1, "h")
        day = (begun.astype("datetime64[D]") - begun.astype("datetime64[M]")).astype(int) + 1
        return (day >= WEEK.start) & (day < WEEK.stop)

    @property
    def first(self):
        """The first hour of every held-out week [12]."""
        return np.flatnonzero(np.diff(self.held_out, prepend=False) & self.held_out)

    def arguments(self, parts):
        """Parts of the series, each a slice, as ``RNNForecaster.fit`` takes them."""
        return {"X": None, "y": [self.temperature[part] for part in parts],
                "past": [self.irradiance[part, None] for part in parts], "times": [self.times[part] for part in parts]}


def load():
    """The year of weather that ships with fastrnn."""
    return Series(*load_weather())


def pieces(series):
    """Slices of hours that training may see, as input or as target. No hour of them is held out or near it, and none
    runs over a month's end, where the series jumps from one real year to another."""
    seen = ~series.held_out
    for first in series.first:
        seen[first - APART:first + HOURS + APART] = False
    edges = [0, *np.flatnonzero(np.diff(seen) | (np.diff(series.month) != 0)) + 1, len(seen)]
    return [slice(first, stop) for first, stop in itertools.pairwise(edges) if seen[first]]


def weeks(series):
    """Slices of the 12 held-out weeks, each with the hours read before its first forecast."""
    return [slice(first - CONTEXT, first + HOURS) for first in series.first]


# ---- Forecasts of the held-out weeks ------------------------------------------------------------

def forecaster(horizon, hidden, updates, seed):
    """Three GRUs, whose mean is the forecast. They read temperature, irradiance and time of day."""
    return RNNForecaster(horizon, window=48, hidden_size=hidden, scaling=None, ensemble=3, updates=updates,
                         time_features="day", quantiles=QUANTILES, random_state=seed, progress=True)


def evaluate(model, series):
    """The fitted forecaster on the held-out weeks.

    Returns
    -------
    Backtest
        A forecast at every hour of every week. To its ``others`` two are added: "24 hours ago", "regression".
    """
    found = model.backtest(**series.arguments(weeks(series)), start=CONTEXT, refit=False)
    made = series.first[found.series] - CONTEXT + found.origins - 1         # the last hour that was known
    found.others["24 hours ago"] = series.temperature[made[:, None] + np.arange(1, model.horizon + 1) - 24]
    found.others["regression"] = series.temperature[made, None] + linear(series, model.horizon, made)
    return found


def linear(series, horizon, at):
    """Changes of temperature in the hours after hours `at` [len(at), horizon], by linear regression: least squares on
    the hours trained on, from the last 24 temperatures and irradiances, the time of day (a constant for each hour) and
    of year."""
    year = 2 * np.pi * np.arange(len(series.times)) / len(series.times)

    def inputs(at):
        past = at[:, None] - np.arange(24)
        return np.concatenate([series.temperature[past], series.irradiance[past] / 1000, np.sin(year[at, None]),
                               np.cos(year[at, None]), at[:, None] % 24 == np.arange(24)], 1)

    hours = np.concatenate([np.arange(part.start + 23, part.stop - horizon) for part in pieces(series)])
    changes = series.temperature[hours[:, None] + np.arange(1, horizon + 1)] - series.temperature[hours, None]
    weight, *_ = np.linalg.lstsq(inputs(hours), changes)
    return inputs(at) @ weight


def stream(model, series):
    """Forecasts the held-out weeks hour by hour as they come in.

    Returns
    -------
    forecasts : array [12, HOURS, horizon, Q]
        Made before each hour of the week.
    times : array [12, HOURS]
        Microseconds that each took, from the hour's weather to the forecast.
    """
    forecasts, times = [], np.empty((len(series.first), HOURS))
    for week, first in enumerate(series.first.tolist()):
        before = slice(first - CONTEXT, first)
        live = model.apply(**series.arguments([before])).stream()
        temperature, irradiance = series.temperature.tolist(), series.irradiance[:, None]
        for hour in range(HOURS):
            forecasts.append(live.forecast_quantiles)
            begin = time.perf_counter_ns()
            live.step(temperature[first + hour], past=irradiance[first + hour])
            times[week, hour] = time.perf_counter_ns() - begin
    return np.reshape(forecasts, (*times.shape, *forecasts[0].shape)), times / 1000


def step_times(layer, steps=2000):
    """Microseconds of single steps of a GRU: {"fastrnn": [steps], "NumPy": [steps]}, by ``fastrnn.reference``."""
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
    return {name: value / 1000 for name, value in times.items()}


# ---- Figure -------------------------------------------------------------------------------------

LOOKS = {"truth": {"color": "#222222", "lw": 1.4}, "forecast": {"color": "#d1495b", "lw": 1.8},
         "naive": {"color": "#8d99ae", "lw": 1.1}, "24 hours ago": {"color": "#edae49", "lw": 1.1},
         "regression": {"color": "#66a182", "lw": 1.1}}


def draw(path, series, found, times, some=(1, 6)):
    """Draws two held-out weeks, the error by lead, and the latencies.

    Parameters
    ----------
    path : path-like
        Of the file written; its ending says the format.
    series : Series
    found : Backtest
    times : dict of str to array
        Microseconds, by what they are of.
    some : ints
        Which two of the held-out weeks.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 6.6), layout="constrained")
    grid = figure.add_gridspec(2, 3)
    for row, week in enumerate(some):
        draw_week(figure.add_subplot(grid[row, :2]), series, found, week, legend=row == 0)

    axes = figure.add_subplot(grid[0, 2])
    for name, errors in by_lead(found).items():
        axes.plot(range(1, len(errors) + 1), errors, "o-", ms=4, **LOOKS[name], label=name)
    axes.set(xlabel="lead, hours", ylabel="RMSE, °C", ylim=(0, None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title(f"All {len(series.first)} held-out weeks", loc="left", fontsize=10)
    axes.legend(fontsize=8.5, frameon=False)
    axes.grid(alpha=0.25)

    axes = figure.add_subplot(grid[1, 2])
    shown = [np.clip(t, None, np.percentile(t, 99.5)) for t in times.values()]      # the rarest would stretch the axis
    bins = np.geomspace(0.6 * min(t.min() for t in shown), 1.6 * max(t.max() for t in shown), 90)
    for (name, t), of, look in zip(times.items(), shown, ("forecast", "24 hours ago", "naive"), strict=True):
        axes.hist(of, bins, weights=np.full(len(of), 100 / len(of)), color=LOOKS[look]["color"], alpha=0.85,
                  label=f"{name}: {told(np.median(t))} µs")
    axes.set(xscale="log", xlim=(bins[0], bins[-1]), xlabel="microseconds", ylabel="% of the steps",
             ylim=(0, 1.4 * axes.get_ylim()[1]))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_title("Time of a step, and its median", loc="left", fontsize=10)
    axes.legend(fontsize=8.5, frameon=False, loc="upper left")
    horizon = found.truth.shape[1]
    figure.suptitle(f"Greensboro NC: temperature {horizon} hour{'s' * (horizon > 1)} ahead, forecast at every hour "
                    "(NREL TMY3 723170)")
    figure.savefig(path, dpi=130)


def draw_week(axes, series, found, week, legend):
    """A held-out week: what was forecast for every hour at the longest lead, and what came."""
    rows, horizon = found.series == week, found.truth.shape[1]
    days = (found.origins[rows] - CONTEXT + horizon - 1) / 24
    low, _, high = found.quantile_forecasts[rows, -1].T
    axes.fill_between(days, low, high, color=LOOKS["forecast"]["color"], alpha=0.18, lw=0,
                      label=f"its quantiles {QUANTILES[0]:g} to {QUANTILES[1]:g}")
    hours = f"{horizon} hour{'s' * (horizon > 1)}"
    errors = {}
    for name, forecasts, label in (("naive", found.others["naive"], f"the temperature {hours} before"),
                                   ("forecast", found.forecasts, f"forecast, {hours} before"),
                                   ("truth", found.truth, "truth")):
        axes.plot(days, forecasts[rows, -1], **LOOKS[name], label=label)
        errors[name] = rms(forecasts[rows, -1] - found.truth[rows, -1])
    axes.set(xlim=(0, len(WEEK)), ylabel="temperature, °C")
    axes.set_title(f"{MONTHS[week]} {WEEK.start} to {WEEK.stop - 1}, not trained on. RMSE of this week: forecast "
                   f"{errors['forecast']:.1f} °C, naive {errors['naive']:.1f} °C", loc="left", fontsize=10)
    axes.set_xticks(range(len(WEEK)), [f"{MONTHS[week][:3]} {day}" for day in WEEK], ha="left")
    axes.grid(alpha=0.25)
    if legend:
        low, high = axes.get_ylim()
        axes.set_ylim(low - 0.16 * (high - low), high)      # room for the legend
        axes.legend(fontsize=8.5, ncols=4, loc="lower center", frameon=False)


def told(microseconds):
    return f"{microseconds:.{2 if microseconds < 10 else 0}f}"


# ---- Errors -------------------------------------------------------------------------------------

def rms(errors):
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(errors))))


def by_lead(found):
    """Name of a way of forecasting -> RMSE at every lead."""
    return {name: [rms(e) for e in (forecasts - found.truth).T]
            for name, forecasts in {"forecast": found.forecasts, **found.others}.items()}


def report(found):
    """Prints the errors by lead."""
    errors, horizon = by_lead(found), found.truth.shape[1]
    print(f"\n12 held-out weeks, {len(found.truth)} forecasts at each lead. RMSE in deg C:")
    print("  lead" + "".join(f"{name:>14}" for name in errors))
    for lead in sorted({1, *range(horizon, 0, -max(1, horizon // 6))}):
        print(f"{lead:>4} h" + "".join(f"{of[lead - 1]:14.2f}" for of in errors.values()))
    print("naive: the last temperature; 24 hours ago: that of the same hour the day before; regression: linear, on\n"
          "the last 24 hours and the time of day and year, fitted to the same training hours.")
    print("Temperatures at or below quantile " + ", ".join(f"{q:g}: {share:.1%}"
                                                            for q, share in found.coverage().items()))


# ---- Command ------------------------------------------------------------------------------------

def main(argv=None):
    """Runs the demo; see ``python -m fastrnn demo --help``."""
    parser = Parser("demo", """\
Trains an RNNForecaster to forecast temperature, with intervals, from a year of hourly weather (Greensboro NC, NREL
TMY3), compares it with simpler forecasts on weeks it has not seen, streams those weeks hour by hour, and draws a figure
(needs matplotlib). Takes a few seconds.""", """\
example:
  python -m fastrnn demo
  python -m fastrnn demo --horizon 12 --hidden 64 --out twelve.png""")
    parser.add_argument("--updates", type=positive(int), default=600, help="steps of training of each network (600)")
    parser.add_argument("--hidden", type=positive(int), default=48, help="hidden size of the three GRUs (48)")
    parser.add_argument("--horizon", type=int, choices=range(1, 25), default=6, metavar="HOURS",
                        help="forecast 1 to so many hours ahead, up to 24 (6)")
    parser.add_argument("--seed", type=natural, default=0, help="of weights and shuffling (0)")
    parser.add_argument("--out", type=Path, default=Path("out/demo.png"), help="the figure's file (out/demo.png)")
    options = parser.parse_args(argv)
    options.out.parent.mkdir(parents=True, exist_ok=True)     # now, not after the training

    begin = time.perf_counter()
    series = load()
    parts = pieces(series)
    print(f"{len(series.times)} hours of weather: {series.held_out.sum()} held out (days {WEEK.start} to "
          f"{WEEK.stop - 1} of every month), {sum(part.stop - part.start for part in parts)} to train on", flush=True)
    model = forecaster(options.horizon, options.hidden, options.updates, options.seed)
    model.fit(**series.arguments(parts))
    print(f"{model!r}: trained in {time.perf_counter() - begin:.1f} s")

    found = evaluate(model, series)
    report(found)

    streamed, of_forecasts = stream(model, series)
    streamed = streamed[:, :HOURS - options.horizon + 1].reshape(found.quantile_forecasts.shape)
    difference = np.abs(streamed - found.quantile_forecasts).max()
    layer = model.models_[0][0]
    of_steps = step_times(layer)
    print(f"\nThe same weeks as a stream, {of_forecasts.size} hours, each forecast from as it came in: median "
          f"{told(np.median(of_forecasts))} us, 99th percentile {told(np.percentile(of_forecasts, 99))} us.\n"
          f"Its forecasts and those of whole weeks differ by {difference:.1g} deg C at most.")
    print(f"One step of one of its networks, {layer!r}, {active_isa()} kernels: median "
          f"{told(np.median(of_steps['fastrnn']))} us; in plain NumPy {told(np.median(of_steps['NumPy']))} us, "
          f"{np.median(of_steps['NumPy']) / np.median(of_steps['fastrnn']):.0f} times as long.")

    try:
        draw(options.out, series, found, {"a forecast by the stream": of_forecasts.ravel(),
                                          "of that, a step of one GRU": of_steps["fastrnn"],
                                          "such a step in plain NumPy": of_steps["NumPy"]})
        print(f"figure: {options.out}")
    except ImportError:
        print("no figure: matplotlib is not installed (pip install fastrnn[plot])")
    print(f"whole demo: {time.perf_counter() - begin:.1f} s")
    return 0 if difference < 1e-3 else 1
