"""``fastrnn forecast``: forecasts of the series in a table, beside naive ones."""

from dataclasses import dataclass

import numpy as np

from .._base.figures import new_figure
from ..forecasting import RNNForecaster
from ..forecasting.calendar import Clock
from . import tables
from .common import DATA, PICTURES, TABLES, check_outputs, dates_along, matrix, of_table, table_parser, wrote
from .parser import natural, positive, shown


def main(argv):
    """Forecasts columns of a table; see ``python -m fastrnn forecast --help``."""
    parser = table_parser("forecast", "FILE --target COL ... --horizon STEPS [options]", """\
Trains one recurrent network on the series in a table, measures it on their last steps, which are held out, beside the
naive forecasts, and then forecasts the steps that follow the table.""" + DATA + """
Several --target columns, or a --series column in a table with the series one below the other, are several series.
Columns --known in advance have their values also in rows after the last target: the steps to forecast.""",
                     "forecast load.csv --target load --horizon 24 --season 24 168 --plot load.png --out forecasts.csv",
                     "forecast shops.parquet --target sales --time day --series shop --known holiday --horizon 14 "
                     "--season 7")
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--target", nargs="+", required=True, metavar="COL", help="columns to forecast")
    parser.add_argument("--horizon", type=positive(int), required=True, metavar="STEPS", help="how many steps")
    parser.add_argument("--time", metavar="COL", help="column of times, ISO 8601; missing ones become missing values")
    parser.add_argument("--series", metavar="COL", help="column that tells which series a row is of")
    parser.add_argument("--known", nargs="+", default=[], metavar="COL", help="columns known in advance")
    parser.add_argument("--past", nargs="+", default=[], metavar="COL", help="columns known up to now")
    parser.add_argument("--season", nargs="+", type=positive(int), default=[], metavar="STEPS",
                        help="lengths of seasons; forecasts are made from what was one (the longest) season before")
    parser.add_argument("--time-features", nargs="+", choices=("day", "week", "year"), default=[],
                        help="read the time of day, week, year as well (needs --time)")
    parser.add_argument("--quantiles", nargs="*", type=float, default=[0.1, 0.9], metavar="Q",
                        help="forecast beside the median (0.1 0.9); none given: none")
    parser.add_argument("--log", action="store_const", const=True, default=False,
                        help="forecast logarithms: for values above 0 that change in proportion")
    parser.add_argument("--log1p", dest="log", action="store_const", const="1p",
                        help="the same of 1 + value, where values may be 0")
    parser.add_argument("--window", type=positive(int), metavar="STEPS",
                        help="over which level and scale are taken (the longest season, and twice the horizon or more)")
    parser.add_argument("--cell", choices=("rnn", "gru", "lstm"), default="gru", help="(gru)")
    parser.add_argument("--hidden", type=positive(int), default=32, help="hidden size (32)")
    parser.add_argument("--updates", type=positive(int), default=300, help="steps of training (300)")
    parser.add_argument("--held-out", type=natural, metavar="STEPS",
                        help="last steps to measure it on, not trained on (twice the horizon); 0: train on all")
    parser.add_argument("--seed", type=natural, default=0, help="of the weights (0)")
    parser.add_argument("--out", metavar="OUT.csv", help="write the forecasts: .csv or .json")
    parser.add_argument("--plot", metavar="OUT.png", help="draw them")
    args = parser.parse_args(argv)
    if args.series and len(args.target) > 1:
        parser.error("argument --target: expected one column where --series tells series apart")
    if args.time_features and not args.time:
        parser.error("argument --time-features: needs --time")
    check_outputs(args, out=TABLES, plot=PICTURES)

    every = list(_every_series(args))
    held = 2 * args.horizon if args.held_out is None else args.held_out
    if 0 < held < args.horizon:
        parser.error(f"argument --held-out: expected at least the horizon, {args.horizon}, or 0, got {held}")
    sequence, season = max(2 * args.horizon, 32), max(args.season, default=1)
    for one in every:
        if len(one.y) < held + 2:
            raise tables.TableError(f"{args.file}: series {one.name!r} has {len(one.y)} rows, too few to train on all "
                                    f"but the last {held} (--held-out)")
    model = RNNForecaster(
        args.horizon, args.window or max(sequence, season), cell=args.cell, hidden_size=args.hidden,
        updates=args.updates, sequence=sequence, seasons=args.season, difference=season, log=args.log,
        time_features=args.time_features, quantiles=args.quantiles, random_state=args.seed, progress=True)
    with of_table(args.file):
        model.fit(**_arguments(every, slice(None, -held or None)))
        if held:
            print(f"{model!r}\nThe last {held} steps of {len(every)} series, not trained on:")
            _report(model.backtest(**_arguments(every), start=-held, refit=False))
        model = model.apply(**_arguments(every))
        ahead = [one.future for one in every] if args.known else args.horizon
        found = np.asarray(model.predict(ahead, quantiles=bool(args.quantiles)))
    quantiles = model.options_["quantiles"] or (0.5,)
    found = found.reshape(len(every), args.horizon, len(quantiles))
    if args.out:
        tables.write(args.out, _forecast_columns(args, every, found, quantiles))
        wrote("forecasts", args.out)
    else:
        _print_forecasts(every, found[..., quantiles.index(0.5)])
    if args.plot:
        _draw_forecasts(args, every, found, quantiles)
        wrote("figure", args.plot)
    return 0


@dataclass
class _OneSeries:
    """Of a table: values [T], columns [T, F] and [T, P], times [T] or steps; and of the steps to come [horizon]."""

    name: str
    y: np.ndarray
    known: np.ndarray
    past: np.ndarray
    times: np.ndarray | None
    future: np.ndarray          # known columns [horizon, F]
    ahead: np.ndarray           # times, or numbers of steps from 1


def _every_series(args):
    """The series of a table, one after the other, in the order of their first rows."""
    table = tables.read(args.file)
    y, known, past = (matrix(table, names, option) for names, option in (
        (args.target, "--target"), (args.known, "--known"), (args.past, "--past")))
    times = None if args.time is None else table.times(args.time, "--time")
    cells = table.column(args.series, "--series") if args.series else [""] * len(table)
    names = np.array(list(map(str, cells)))
    for name in dict.fromkeys(names.tolist()):
        rows = np.flatnonzero(names == name)
        if times is not None:
            rows = rows[np.argsort(times[rows], kind="stable")]
        for n, target in enumerate(args.target):
            label = name if args.series else target
            there = np.flatnonzero(~np.isnan(y[rows, n]))
            if not len(there):
                raise tables.TableError(f"{args.file}: series {label!r} has no value")
            T = there[-1] + 1 if args.known else len(rows)
            now, later = rows[:T], rows[T:T + args.horizon]
            if args.known and len(later) < args.horizon:
                raise tables.TableError(f"{args.file}: series {label!r} has {len(later)} rows after its last value, "
                                        f"expected --horizon {args.horizon} of them with the --known columns")
            ahead = T + 1 + np.arange(args.horizon)
            if times is not None:
                with of_table(args.file):
                    clock, at = Clock.of(times[now], f"--time, series {label!r}")
                    ahead = clock.at(at[-1] + 1 + np.arange(args.horizon))
            yield _OneSeries(label, y[now, n], known[now], past[now], None if times is None else times[now],
                             known[later], ahead)


def _arguments(every, steps=slice(None)):
    """Series as ``fit`` takes them, or some of their steps."""
    def parts(name):
        return [getattr(one, name)[steps] for one in every]

    with_known, with_past, with_times = every[0].known.shape[1], every[0].past.shape[1], every[0].times is not None
    return {"X": parts("known") if with_known else None, "y": parts("y"), "past": parts("past") if with_past else None,
            "times": parts("times") if with_times else None}


def _report(backtest):
    """Errors beside those of naive forecasts, over all steps of the horizon, and how much the quantiles cover."""
    scores = backtest.scores()
    width, measures = max(map(len, scores)), list(next(iter(scores.values())))
    print(" " * width + "".join(f"{measure:>12}" for measure in measures))
    for name, one in scores.items():
        print(f"{name:{width}}" + "".join(f"{one[measure]:12.4g}" for measure in measures))
    if backtest.quantiles:
        print("values at or below quantile " + ", ".join(f"{q:g}: {share:.1%}" for q, share in
                                                         backtest.coverage().items()))


def _forecast_columns(args, every, found, quantiles):
    """Column by column: series (if there is such a column), time or step, forecast, quantiles."""
    width = 1 if args.series else len(args.target)          # targets stand side by side
    columns = {args.series: np.repeat([one.name for one in every], args.horizon)} if args.series else {}
    columns[args.time or "step"] = np.concatenate([one.ahead for one in every[::width]])
    for n, target in enumerate(args.target):
        of_target = found[n::width]
        columns[target] = of_target[..., quantiles.index(0.5)].ravel()
        if len(quantiles) > 1:
            columns |= {f"{target}_q{q:g}": of_target[..., i].ravel() for i, q in enumerate(quantiles) if q != 0.5}
    return columns


def _print_forecasts(every, found, shown_series=5):
    for one, forecasts in list(zip(every, found, strict=True))[:shown_series]:
        print(f"{shown(one.name)}:")
        ahead = map(str, one.ahead) if one.times is None else tables.told(one.ahead)
        for when, value in zip(ahead, forecasts, strict=True):
            print(f"  {when:>16}  {value:.6g}")
    if len(every) > shown_series:
        print(f"and {len(every) - shown_series} series more: --out writes them all")


def _draw_forecasts(args, every, found, quantiles, most=4):
    """The ends of the first series, their forecasts, and the outermost quantiles as a band."""
    some = every[:most]
    figure = new_figure("--plot", 9, 2.6 * len(some) + 0.6)
    for axes, one, forecasts in zip(figure.subplots(len(some), 1, squeeze=False)[:, 0], some, found, strict=False):
        last = max(4 * args.horizon, 50)
        when = (np.arange(len(one.y)) + 1 if one.times is None else one.times)[-last:]
        axes.plot(when, one.y[-last:], color="0.2", linewidth=1.2, label=one.name)
        if len(quantiles) > 1:
            axes.fill_between(one.ahead, forecasts[:, 0], forecasts[:, -1], color="C3", alpha=0.2, linewidth=0,
                              label=f"{quantiles[0]:g} to {quantiles[-1]:g}")
        axes.plot(one.ahead, forecasts[:, quantiles.index(0.5)], color="C3", label="forecast")
        dates_along(axes, one.ahead)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    figure.savefig(args.plot, dpi=130)
