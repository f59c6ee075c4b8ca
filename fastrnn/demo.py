"""A weather forecast from start to end: ``python -m fastrnn demo``.

A GRU reads a year of hourly weather and says at every hour how the temperature will have changed 1, 2, ... hours later.
Seven days of every month are held out. The steps, each a function, in order: ``load``, ``features``,
``training_windows``, ``train``, ``held_out_sequences``, ``evaluate``, ``stream``, ``draw``.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import GRU, active_isa, reference
from .cli import Parser, natural, positive

SERIES = Path(__file__).with_name("data") / "greensboro_tmy3.csv"
WEEK = range(15, 22)    # days of each month that are held out
APART = 24              # hours on either side of a held-out week that are not trained on: weather lasts
WINDOW = 96             # hours of a training sequence
WARM_UP = 24            # hours at its start without a loss, while the state fills
CONTEXT = 48            # hours read before the first forecast of a held-out week
BATCH = 16
RATE = 0.006            # Adam's, at its highest
MONTHS = "January February March April May June July August September October November December".split()


# ---- Data ---------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Series:
    """A year by the hour, arrays [8760]: month and day from 1, hour 1 to 24, temperature (deg C), irradiance (W/m2)."""

    month: np.ndarray
    day: np.ndarray
    hour: np.ndarray
    temperature: np.ndarray
    irradiance: np.ndarray

    @property
    def held_out(self):
        """Bools: hours of the held-out weeks."""
        return (self.day >= WEEK.start) & (self.day < WEEK.stop)

    @property
    def trained_on(self):
        """Bools: hours that training may see, as input or as target."""
        near = np.flatnonzero(np.diff(self.held_out))    # the last hour before every edge of a held-out week
        seen = ~self.held_out
        for edge in near:
            seen[max(0, edge + 1 - APART):edge + 1 + APART] = False
        return seen


def load(path=SERIES):
    """Reads the series: lines of month-day-hour, temperature, irradiance."""
    stamp, temperature, irradiance = np.loadtxt(path, delimiter=",", skiprows=2, unpack=True,
                                                converters={0: lambda text: int(text.replace("-", ""))})
    month, rest = np.divmod(stamp.astype(int), 10000)
    day, hour = np.divmod(rest, 100)
    return Series(month, day, hour, temperature, irradiance)


def features(series):
    """The GRU's input [8760, 6]: temperature and irradiance scaled by what training may see, time of day and year."""
    seen = series.trained_on
    scaled = [(a - a[seen].mean()) / a[seen].std() for a in (series.temperature, series.irradiance)]
    day, year = 2 * np.pi * series.hour / 24, 2 * np.pi * np.arange(len(seen)) / len(seen)
    return np.stack([*scaled, np.sin(day), np.cos(day), np.sin(year), np.cos(year)], 1).astype(np.float32)


def changes(temperature, at, horizon):
    """Temperature 1 ... horizon hours after the hours `at`, less that at them: at's shape + [horizon], deg C."""
    at = np.asarray(at)[..., None]
    return temperature[at + np.arange(1, horizon + 1)] - temperature[at]


def training_windows(series, horizon, rng=None):
    """Hours of the training sequences, [WINDOW, sequences]. No hour of them or of their targets is held out or near it,
    and none runs over a month's end, where the series jumps from one real year to another. `rng` shifts them, so
    that every epoch sees others; they overlap by the warm-up."""
    seen = series.trained_on
    edges = np.flatnonzero(np.diff(seen) | (np.diff(series.month) != 0)) + 1
    starts = []
    for first, stop in zip([0, *edges], [*edges, len(seen)], strict=True):
        last = stop - horizon - WINDOW
        if seen[first] and last >= first:
            stride = min(WINDOW - WARM_UP, last - first + 1)
            starts += range(first + (rng.integers(stride) if rng else 0), last + 1, stride)
    return np.array(starts) + np.arange(WINDOW)[:, None]


def held_out_sequences(series, horizon):
    """Hours of the 12 held-out weeks, [hours, 12]: context, then `horizon` hours in which the first forecasts for the
    week are made, then the week."""
    starts = np.flatnonzero(np.diff(series.held_out, prepend=False) & series.held_out)
    return starts + np.arange(-horizon - CONTEXT, 24 * len(WEEK))[:, None]


# ---- Model and training -------------------------------------------------------------------------

@dataclass
class Model:
    """A GRU and a linear layer on its state: changes of temperature at every lead, in units of `scale` (deg C)."""

    layer: GRU
    head: dict              # weight [horizon, H], bias [horizon]
    scale: np.ndarray       # [horizon]: the usual size of a change

    def changes(self, h):
        """Forecast changes [..., horizon] in deg C from states [..., H]."""
        # Not a matrix product: BLAS may sum in an order that depends on the number of rows, and then a forecast made
        # alone would not equal, to the bit, the same forecast made among others.
        return ((h[..., None, :] * self.head["weight"]).sum(-1) + self.head["bias"]) * self.scale


class Adam:
    """Kingma & Ba (2015), Adam: a method for stochastic optimization. ICLR."""

    def __init__(self):
        self.steps, self.moments = 0, {}

    def update(self, parameters, gradients, rate):
        """One step, in place; the gradients' common norm is first brought down to 1."""
        norm = np.sqrt(sum(float(np.vdot(g, g)) for g in gradients.values()))
        self.steps += 1
        rate *= np.sqrt(1 - 0.999 ** self.steps) / (1 - 0.9 ** self.steps)
        for name, gradient in gradients.items():
            gradient = gradient / max(1, norm)
            m, v = self.moments.setdefault(name, (np.zeros_like(gradient), np.zeros_like(gradient)))
            m += 0.1 * (gradient - m)
            v += 0.001 * (gradient * gradient - v)
            parameters[name] -= rate * m / (np.sqrt(v) + 1e-8)


def gradients_of(model, x, target, counted):
    """Mean squared error of the counted steps, and its gradients by parameter name, by back-propagation through time.

    x [T, N, I], target [T, N, horizon] in units of the model's scale; the errors [T - counted.start, N, horizon] are
    returned too.
    """
    h, _, cache = model.layer.forward(x)
    error = (h @ model.head["weight"].T + model.head["bias"] - target)[counted]
    d_output = 2 / error.size * error
    dh = np.zeros_like(h)
    dh[counted] = d_output @ model.head["weight"]
    gradients = model.layer.backward(cache, dh).parameters
    gradients["weight"] = np.einsum("tnk,tnh->kh", d_output, h[counted])
    gradients["bias"] = d_output.sum((0, 1))
    return error, gradients


def train(series, x, hidden, horizon, epochs, seed):
    """A GRU trained on every hour that is not held out.

    Parameters
    ----------
    series : Series
    x : array [8760, I]
        From `features`.
    hidden, horizon, epochs, seed : int

    Returns
    -------
    Model
        Its weights are a running average over the last steps: that forecasts better than any one of them.
    """
    rng = np.random.default_rng(seed)
    at = training_windows(series, horizon)
    scale = changes(series.temperature, at, horizon).std((0, 1)).astype(np.float32)
    head = {"weight": rng.normal(0, 0.1 / np.sqrt(hidden), (horizon, hidden)).astype(np.float32),
            "bias": np.zeros(horizon, np.float32)}
    model = Model(GRU(x.shape[1], hidden, rng=rng), head, scale)
    adam, average = Adam(), {name: value.copy() for name, value in [*model.layer.parameters.items(), *head.items()]}

    with Progress(epochs) as progress:
        for epoch in range(epochs):
            windows = rng.permutation(training_windows(series, horizon, rng), axis=1)
            errors = []
            for batch in np.split(windows, range(BATCH, windows.shape[1], BATCH), axis=1):
                target = (changes(series.temperature, batch, horizon) / scale).astype(np.float32)
                error, gradients = gradients_of(model, x[batch], target, slice(WARM_UP, None))
                errors.append(np.square(error[..., -1]).mean())
                done = (epoch + len(errors) * BATCH / windows.shape[1]) / epochs
                rate = RATE * min(1, 20 * done) * (0.5 + 0.5 * np.cos(np.pi * min(1, done)))
                with model.layer.updating() as parameters:
                    parameters |= head      # the same arrays, so that head is updated too
                    adam.update(parameters, gradients, rate)
                    for name, value in average.items():
                        value += (1 - min(0.99, adam.steps / (adam.steps + 9))) * (parameters[name] - value)
                    for name in head:
                        del parameters[name]
            progress(f"train RMSE at {horizon} h {scale[-1] * np.sqrt(np.mean(errors)):.2f} deg C")

    model.head = {name: average.pop(name) for name in head}
    model.layer.load_state_dict(average)
    return model


class Progress:
    """Epochs done: tqdm's bar where it is installed, else about ten plain lines."""

    def __init__(self, epochs):
        self.epochs, self.done, self.bar = epochs, 0, None

    def __enter__(self):
        try:
            from tqdm import tqdm
            self.bar = tqdm(total=self.epochs, desc="training", unit="epoch", mininterval=0.2)
        except ImportError:
            pass
        return self

    def __call__(self, note):
        self.done += 1
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update()
        elif self.done % max(1, self.epochs // 10) == 0 or self.done == self.epochs:
            print(f"epoch {self.done} of {self.epochs}: {note}", flush=True)

    def __exit__(self, *exception):
        if self.bar is not None:
            self.bar.close()


# ---- Held-out weeks -----------------------------------------------------------------------------

def linear(series, x, at, horizon):
    """Forecast changes by linear regression [hours, weeks, horizon]: least squares on the training hours, from the last
    24 temperatures and irradiances, the time of day (a constant for each hour) and the time of year."""

    def inputs(at):
        past = x[at[..., None] - np.arange(24), :2].reshape(*at.shape, 48)
        return np.concatenate([past, x[at, 2:], series.hour[at][..., None] == np.arange(1, 25)], -1, dtype=float)

    hours = np.unique(training_windows(series, horizon)[WARM_UP:])
    weight, *_ = np.linalg.lstsq(inputs(hours), changes(series.temperature, hours, horizon))
    return inputs(at) @ weight


def evaluate(series, x, at, predicted):
    """Errors on the held-out weeks.

    Parameters
    ----------
    series : Series
    x : array [8760, I]
        From `features`.
    at : array [hours, weeks]
        Hours at which forecasts were made, from `held_out_sequences`.
    predicted : array [hours, weeks, horizon]
        Forecast changes, deg C.

    Returns
    -------
    dict of str to array [horizon, 168, weeks]
        Name of a way of forecasting -> forecast minus truth in deg C, by lead and hour of the week.
    """
    T, horizon = series.temperature, predicted.shape[-1]
    straight = linear(series, x, at, horizon)
    errors = {name: [] for name in ("GRU", "persistence", "24 hours ago", "regression")}
    for lead in range(1, horizon + 1):
        rows = slice(CONTEXT + horizon - lead, len(at) - lead)      # whose forecasts at this lead fall into the week
        made, truth = at[rows], T[at[rows] + lead]
        errors["GRU"].append(T[made] + predicted[rows, :, lead - 1] - truth)
        errors["persistence"].append(T[made] - truth)
        errors["24 hours ago"].append(T[made + lead - 24] - truth)
        errors["regression"].append(T[made] + straight[rows, :, lead - 1] - truth)
    return {name: np.array(of_lead) for name, of_lead in errors.items()}


def stream(model, x):
    """Runs sequences step by step, each beside the plain-NumPy reference.

    Parameters
    ----------
    model : Model
    x : array [hours, weeks, I]

    Returns
    -------
    predicted : array [hours, weeks, horizon]
        Forecast changes, each made as its hour came in.
    times : dict of str to array
        Microseconds of every step of the GRU, by "fastrnn" and by "NumPy".
    difference : float
        The largest absolute difference between the states of the two.
    """
    hours, weeks, _ = x.shape
    hidden = model.layer.hidden_size
    parameters = {name.removesuffix("_l0"): value for name, value in model.layer.parameters.items()}
    predicted = np.empty((hours, weeks, len(model.scale)), np.float32)
    times = {"fastrnn": np.empty((weeks, hours)), "NumPy": np.empty((weeks, hours))}
    difference, clock = 0.0, time.perf_counter_ns
    stream = model.layer.stream()
    h = np.empty((hours, hidden), np.float32)
    for week in range(weeks):
        rows = np.ascontiguousarray(x[:, week])
        stream.reset()
        for t in range(hours):
            x_t, h_t = rows[t], h[t]
            begin = clock()
            stream.step(x_t, h_t)
            times["fastrnn"][week, t] = clock() - begin
            predicted[t, week] = model.changes(h_t)
        state = np.zeros((1, hidden), np.float32)
        for t in range(hours):
            x_t = rows[None, t:t + 1]
            begin = clock()
            _, state, _, _, _ = reference.forward("gru", parameters, x_t, state)
            times["NumPy"][week, t] = clock() - begin
            difference = max(difference, np.abs(state[0] - h[t]).max())
    return predicted, {name: value.ravel() / 1000 for name, value in times.items()}, float(difference)


# ---- Figure -------------------------------------------------------------------------------------

def draw(path, series, errors, times, weeks=(1, 6)):
    """Draws two held-out weeks, the error by lead, and the latencies.

    Parameters
    ----------
    path : path-like
        Of the file written; its ending says the format.
    series : Series
    errors : dict
        From `evaluate`.
    times : dict
        From `stream`.
    weeks : ints
        Which two of the held-out weeks.
    """
    from matplotlib.figure import Figure

    horizon = len(errors["GRU"])
    looks = {"truth": {"color": "#222222", "lw": 1.4}, "GRU": {"color": "#d1495b", "lw": 1.8},
             "persistence": {"color": "#8d99ae", "lw": 1.1}, "24 hours ago": {"color": "#edae49", "lw": 1.1},
             "regression": {"color": "#66a182", "lw": 1.1}}
    figure = Figure(figsize=(12.5, 6.6), layout="constrained")
    grid = figure.add_gridspec(2, 3)
    hours = np.arange(24 * len(WEEK))
    first = np.flatnonzero(np.diff(series.held_out, prepend=False) & series.held_out)
    for row, week in enumerate(weeks):
        axes = figure.add_subplot(grid[row, :2])
        truth = series.temperature[first[week] + hours]
        axes.plot(hours / 24, truth + errors["persistence"][-1, :, week], **looks["persistence"],
                  label=f"persistence: the temperature {horizon} h before")
        axes.plot(hours / 24, truth + errors["GRU"][-1, :, week], **looks["GRU"], label=f"GRU, made {horizon} h before")
        axes.plot(hours / 24, truth, **looks["truth"], label="truth")
        axes.set(xlim=(0, len(WEEK)), ylabel="temperature, °C")
        axes.set_title(f"{MONTHS[week]} {WEEK.start} to {WEEK.stop - 1}, not trained on. RMSE of this week: GRU "
                       f"{rms(errors['GRU'][-1, :, week]):.1f} °C, persistence "
                       f"{rms(errors['persistence'][-1, :, week]):.1f} °C", loc="left", fontsize=10)
        axes.set_xticks(range(len(WEEK)), [f"{MONTHS[week][:3]} {day}" for day in WEEK], ha="left")
        axes.grid(alpha=0.25)
        if row == 0:
            axes.legend(fontsize=8.5, ncols=3, loc="lower center", frameon=False)
            low, high = axes.get_ylim()
            axes.set_ylim(low - 0.14 * (high - low), high)      # room for the legend

    axes = figure.add_subplot(grid[0, 2])
    for name, of_lead in errors.items():
        axes.plot(range(1, horizon + 1), [rms(e) for e in of_lead], "o-", ms=4, **looks[name], label=name)
    axes.set(xlabel="lead, hours", ylabel="RMSE, °C", ylim=(0, None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title(f"All {errors['GRU'].shape[-1]} held-out weeks", loc="left", fontsize=10)
    axes.legend(fontsize=8.5, frameon=False)
    axes.grid(alpha=0.25)

    axes = figure.add_subplot(grid[1, 2])
    shown = [np.clip(t, None, np.percentile(t, 99.5)) for t in times.values()]      # the rarest would stretch the axis
    bins = np.geomspace(0.6 * min(t.min() for t in shown), 1.6 * max(t.max() for t in shown), 90)
    for (name, t), of, look in zip(times.items(), shown, ("GRU", "persistence"), strict=True):
        color, high = looks[look]["color"], np.percentile(t, 99)
        median, most = (f"{value:.{2 if value < 10 else 0}f} µs" for value in (np.median(t), high))
        label = f"{name}: median {median}, 99 % within {most}"
        axes.hist(of, bins, color=color, alpha=0.85, label=label)
        axes.axvline(high, 0, 0.75, color=color, lw=1, ls="--")
    axes.set(xscale="log", xlim=(bins[0], bins[-1]), xlabel="one step of the stream, microseconds", ylabel="steps",
             ylim=(0, 1.35 * axes.get_ylim()[1]))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_title("Latency (dashed: 99th percentile)", loc="left", fontsize=10)
    axes.legend(fontsize=8.5, frameon=False, loc="upper left")
    figure.suptitle(f"Greensboro NC: temperature {horizon} hours ahead, forecast at every hour (NREL TMY3 723170)")
    figure.savefig(path, dpi=130)


def rms(errors):
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(errors))))


# ---- Command ------------------------------------------------------------------------------------

def report(errors):
    """Prints the errors by lead."""
    horizon, hours, weeks = errors["GRU"].shape
    print(f"\n{weeks} held-out weeks, {hours * weeks} forecasts at each lead. RMSE (MAE) in deg C:")
    print(f"{'lead':>6}" + "".join(f"{name:>16}" for name in errors))
    for lead in sorted({1, *range(horizon, 0, -max(1, horizon // 6))}):
        print(f"{lead:>4} h" + "".join(f"{f'{rms(e[lead - 1]):.2f} ({np.abs(e[lead - 1]).mean():.2f})':>16}"
                                       for e in errors.values()))
    print("persistence: the last temperature; 24 hours ago: that of the same hour the day before; regression: linear,\n"
          "on the last 24 hours and the time of day and year, fitted to the same training hours.")


def main(argv=None):
    """Runs the demo; see ``python -m fastrnn demo --help``."""
    parser = Parser("demo", """\
Trains a GRU by back-propagation through time to forecast temperature from a year of hourly weather (Greensboro NC,
NREL TMY3), compares it with simpler forecasts on weeks it has not seen, streams those weeks step by step, and draws a
figure (needs matplotlib). Takes a few seconds.""", """\
example:
  python -m fastrnn demo
  python -m fastrnn demo --horizon 12 --hidden 32 --out twelve.png""")
    parser.add_argument("--epochs", type=positive(int), default=120, help="passes over the training hours (120)")
    parser.add_argument("--hidden", type=positive(int), default=64, help="hidden size of the GRU (64)")
    parser.add_argument("--horizon", type=int, choices=range(1, 25), default=6, metavar="HOURS",
                        help="forecast 1 to so many hours ahead, up to 24 (6)")
    parser.add_argument("--seed", type=natural, default=0, help="of weights and shuffling (0)")
    parser.add_argument("--out", type=Path, default=Path("out/demo.png"), help="the figure's file (out/demo.png)")
    options = parser.parse_args(argv)
    options.out.parent.mkdir(parents=True, exist_ok=True)     # now, not after the training

    begin = time.perf_counter()
    series = load()
    x, at = features(series), held_out_sequences(series, options.horizon)
    print(f"{len(x)} hours of weather: {series.held_out.sum()} held out (days {WEEK.start} to {WEEK.stop - 1} of every "
          f"month), {series.trained_on.sum()} to train on", flush=True)
    model = train(series, x, options.hidden, options.horizon, options.epochs, options.seed)
    print(f"{model.layer!r} and a linear layer: {options.epochs} epochs in {time.perf_counter() - begin:.1f} s")

    predicted = model.changes(model.layer(x[at])[0])
    errors = evaluate(series, x, at, predicted)
    report(errors)

    streamed, times, difference = stream(model, x[at])
    equal = np.array_equal(streamed, predicted)
    print(f"\nThe same weeks as a stream, {times['NumPy'].size} steps of one row ({active_isa()} kernels); a step took")
    for name, t in times.items():
        print(f"{name:>9}: median {np.median(t):7.2f} us, 99th percentile {np.percentile(t, 99):7.2f} us")
    print(f"    ratio: median {np.median(times['NumPy']) / np.median(times['fastrnn']):7.1f}\n"
          "NumPy: fastrnn.reference. The 99th percentile also shows what else the machine was doing.")
    print(f"streamed forecasts and those of one batched call: {'equal to the bit' if equal else 'NOT EQUAL'}; "
          f"states and the NumPy reference's differ by {difference:.1g} at most")

    try:
        draw(options.out, series, errors, times)
        print(f"figure: {options.out}")
    except ImportError:
        print("no figure: matplotlib is not installed (pip install matplotlib)")
    print(f"whole demo: {time.perf_counter() - begin:.1f} s")
    return 0 if equal else 1
