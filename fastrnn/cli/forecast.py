"""``fastrnn forecast``: forecasts of the series in a table, beside naive ones."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._base.figures import new_figure
from ..forecasting import RNNForecaster
from ..forecasting.backtest import Backtest
from ..forecasting.calendar import Clock
from . import tables
from .common import (
    PICTURES,
    TABLE_FORMATS,
    TABLES,
    add_network_options,
    blame_table,
    check_outputs,
    label_dates,
    matrix,
    report_written,
)
from .parser import Parser, natural, positive_int, printable

PRINTED, DRAWN = 5, 4       # series whose forecasts are printed, and drawn


def main(argv: Sequence[str]) -> int:
    """Forecast columns of a table; ``fastrnn forecast --help`` lists the options."""
    parser = _parser()
    args = parser.parse_options(argv)
    held_out = 2 * args.horizon if args.held_out is None else args.held_out
    if args.series and len(args.target) > 1:
        parser.error("argument --target: expected one column where --series says which series a row belongs to")
    if args.time_features and not args.time:
        parser.error("argument --time-features: needs --time")
    if 0 < held_out < args.horizon:
        parser.error(f"argument --held-out: expected at least the horizon, {args.horizon}, or 0, got {held_out}")
    check_outputs(args, out=TABLES, plot=PICTURES)
    return _run(args, held_out)


def _parser() -> Parser:
    parser = Parser("forecast", """\
Trains one recurrent network on the series in a table, measures it beside naive forecasts on the last steps, which are
held out of training, and then forecasts the steps that follow the table.""" + TABLE_FORMATS + """
Several --target columns are several series; so are the rows of a table that has the series one below the other and a
--series column that names them. Columns --known in advance also have values in rows after the last target: these rows
are the steps to forecast.""",
                    ["forecast WEATHER --target temperature_degC --past ghi_W_per_m2 --horizon 24 --seasons 24",
                     "forecast load.csv --target load --time time --time-features day week --horizon 24 "
                     "--seasons 24 168 --plot load.png --out forecasts.csv",
                     "forecast shops.parquet --target sales --time day --series shop --known holiday --horizon 14 "
                     "--seasons 7"],
                    usage="FILE --target COL ... --horizon STEPS [options]")
    parser.add_argument("file", metavar="FILE", help="the table")
    _add_column_options(parser)
    parser.add_argument("--horizon", type=positive_int, required=True, metavar="STEPS",
                        help="how many steps to forecast")
    parser.add_argument("--seasons", nargs="+", type=positive_int, default=[], metavar="STEPS",
                        help="lengths of seasons; the network forecasts the difference from one (the longest) season "
                             "before")
    parser.add_argument("--quantiles", nargs="*", type=float, default=[0.1, 0.9], metavar="Q",
                        help="quantiles to forecast beside the median (default: 0.1 0.9); none if no value follows")
    parser.add_argument("--log", action="store_const", const=True, default=False,
                        help="forecast logarithms: for values above 0 that change in proportion to their size")
    parser.add_argument("--log1p", dest="log", action="store_const", const="1p",
                        help="forecast log(1 + value): for such values that may be 0")
    parser.add_argument("--window", type=positive_int, metavar="STEPS",
                        help="steps over which a series' level and scale are taken (default: the longest season, and "
                             "at least twice the horizon and 32)")
    add_network_options(parser)
    parser.add_argument("--updates", type=positive_int, default=300, metavar="N",
                        help="steps of training (default: 300)")
    parser.add_argument("--held-out", type=natural, metavar="STEPS",
                        help="last steps to measure the forecasts on, not trained on (default: twice the horizon); 0: "
                             "train on all")
    parser.add_argument("--out", metavar="OUT.csv", help="write the forecasts: .csv or .json")
    parser.add_argument("--plot", metavar="OUT.png", help="draw the forecasts: .png, .svg or .pdf")
    return parser


def _add_column_options(parser: Parser) -> None:
    """Add the options that say what the columns of the table are."""
    parser.add_argument("--target", nargs="+", required=True, metavar="COL", help="columns to forecast")
    parser.add_argument("--time", metavar="COL",
                        help="column of times, ISO 8601; steps that the table lacks become missing values")
    parser.add_argument("--series", metavar="COL", help="column that says which series a row belongs to")
    parser.add_argument("--known", nargs="+", default=[], metavar="COL", help="input columns known in advance")
    parser.add_argument("--past", nargs="+", default=[], metavar="COL", help="input columns known up to the present")
    parser.add_argument("--time-features", nargs="+", choices=("day", "week", "year"), default=[],
                        help="the network also reads the time of day, week, year (needs --time)")


def _run(args: argparse.Namespace, held_out: int) -> int:
    all_series = list(_read_series(args))
    for series in all_series:
        if len(series.y) < held_out + 2:
            raise tables.TableError(f"{args.file}: series {series.name!r} has {len(series.y)} rows, too few to train "
                                    f"on all but the last {held_out} (--held-out)")
    model = _forecaster(args)
    with blame_table(args.file):
        model.fit(**_arguments(all_series, slice(None, -held_out or None)))
        if held_out:
            print(f"{model!r}\nThe last {held_out} steps of {len(all_series)} series, not trained on:")
            _print_errors(model.backtest(**_arguments(all_series), start=-held_out, refit=False))
        model = model.apply(**_arguments(all_series))
        future = [series.future for series in all_series] if args.known else args.horizon
        forecasts = np.asarray(model.predict(future, quantiles=bool(args.quantiles)))
    quantiles = model.options_.quantiles or (0.5,)
    forecasts = forecasts.reshape(len(all_series), args.horizon, len(quantiles))
    if args.out:
        tables.write(args.out, _forecast_columns(args, all_series, forecasts, quantiles))
        report_written("forecasts", args.out)
    else:
        _print_forecasts(all_series, forecasts[..., quantiles.index(0.5)])
    if args.plot:
        _draw_forecasts(args, all_series, forecasts, quantiles)
        report_written("figure", args.plot)
    return 0


def _forecaster(args: argparse.Namespace) -> RNNForecaster:
    sequence, season = max(2 * args.horizon, 32), max(args.seasons, default=1)
    return RNNForecaster(
        args.horizon, args.window or max(sequence, season), cell=args.cell, hidden_size=args.hidden_size,
        num_layers=args.num_layers, updates=args.updates, sequence=sequence, seasons=tuple(args.seasons),
        difference=season, log=args.log, time_features=tuple(args.time_features), quantiles=tuple(args.quantiles),
        random_state=args.random_state, progress=True)


# ---- The series of a table ------------------------------------------------------------------------

@dataclass
class _Series:
    """One series: up to its last value, and what is known of the steps to forecast."""

    name: str
    y: npt.NDArray[np.float64]                      # values [T]
    known: npt.NDArray[np.float64]                  # columns known in advance [T, F]
    past: npt.NDArray[np.float64]                   # columns known up to the present [T, P]
    times: npt.NDArray[np.datetime64] | None        # [T]
    future: npt.NDArray[np.float64]                 # columns known in advance, of the steps to forecast [horizon, F]
    steps_ahead: npt.NDArray[Any]                   # of these steps the times, or the numbers, counted from 1 [horizon]


def _read_series(args: argparse.Namespace) -> Iterator[_Series]:
    """The series of a table, one after the other, in the order of their first rows."""
    table = tables.read(args.file)
    y, known, past = (matrix(table, names, option) for names, option in (
        (args.target, "--target"), (args.known, "--known"), (args.past, "--past")))
    times = None if args.time is None else table.times(args.time, "--time")
    cells = table.column(args.series, "--series") if args.series else [""] * len(table)
    row_names = np.array(list(map(str, cells)))
    for name in dict.fromkeys(row_names.tolist()):
        rows = np.flatnonzero(row_names == name)
        if times is not None:
            rows = rows[np.argsort(times[rows], kind="stable")]
        for column, target in enumerate(args.target):
            label = name if args.series else target
            with_value = np.flatnonzero(~np.isnan(y[rows, column]))
            if not len(with_value):
                raise tables.TableError(f"{args.file}: series {label!r} has no value")
            T = int(with_value[-1]) + 1 if args.known else len(rows)
            until_now, later = rows[:T], rows[T:T + args.horizon]
            if args.known and len(later) < args.horizon:
                raise tables.TableError(f"{args.file}: series {label!r} has {len(later)} rows after its last value, "
                                        f"expected --horizon {args.horizon} of them with the --known columns")
            past_times = None if times is None else times[until_now]
            yield _Series(label, y[until_now, column], known[until_now], past[until_now], past_times, known[later],
                          _steps_ahead(args, label, T, past_times))


def _steps_ahead(args: argparse.Namespace, label: str, T: int,
                 times: npt.NDArray[np.datetime64] | None) -> npt.NDArray[Any]:
    """Of the steps after the first T their times, if there are times, else their numbers, counted from 1."""
    ahead = 1 + np.arange(args.horizon)
    if times is None:
        return T + ahead
    with blame_table(args.file):
        clock, positions = Clock.of(times, f"--time, series {label!r}")
        return np.asarray(clock.at(positions[-1] + ahead))


def _arguments(all_series: list[_Series], steps: slice = slice(None)) -> dict[str, Any]:
    """The series, or some of their steps, as the arguments of ``RNNForecaster.fit``."""
    def parts(name: str) -> list[Any]:
        return [getattr(series, name)[steps] for series in all_series]

    first = all_series[0]
    return {"X": parts("known") if first.known.shape[1] else None, "y": parts("y"),
            "past": parts("past") if first.past.shape[1] else None,
            "times": None if first.times is None else parts("times")}


# ---- Results --------------------------------------------------------------------------------------

def _print_errors(backtest: Backtest) -> None:
    """Print the errors beside those of naive forecasts, over all steps of the horizon, and the quantiles' coverage."""
    scores = backtest.scores()
    width, measures = max(map(len, scores)), list(next(iter(scores.values())))
    print(" " * width + "".join(f"{measure:>12}" for measure in measures))
    for name, errors in scores.items():
        print(f"{name:{width}}" + "".join(f"{errors[measure]:12.4g}" for measure in measures))
    if backtest.quantiles:
        print("values at or below quantile " + ", ".join(f"{q:g}: {share:.1%}" for q, share in
                                                         backtest.coverage().items()))


def _forecast_columns(args: argparse.Namespace, all_series: list[_Series], forecasts: npt.NDArray[np.floating],
                      quantiles: Sequence[float]) -> dict[str, npt.NDArray[Any]]:
    """The columns to write: series (if there is such a column), time or step, forecast, quantiles."""
    side_by_side = 1 if args.series else len(args.target)
    columns = {}
    if args.series:
        columns[args.series] = np.repeat([series.name for series in all_series], args.horizon)
    columns[args.time or "step"] = np.concatenate([series.steps_ahead for series in all_series[::side_by_side]])
    for number, target in enumerate(args.target):
        of_target = forecasts[number::side_by_side]
        columns[target] = of_target[..., quantiles.index(0.5)].ravel()
        if len(quantiles) > 1:
            columns |= {f"{target}_q{q:g}": of_target[..., i].ravel() for i, q in enumerate(quantiles) if q != 0.5}
    return columns


def _print_forecasts(all_series: list[_Series], medians: npt.NDArray[np.floating]) -> None:
    for series, values in list(zip(all_series, medians, strict=True))[:PRINTED]:
        print(f"{printable(series.name)}:")
        numbered = series.times is None
        labels = map(str, series.steps_ahead) if numbered else tables.iso_times(series.steps_ahead)
        for label, value in zip(labels, values, strict=True):
            print(f"  {label:>16}  {value:.6g}")
    if len(all_series) > PRINTED:
        print(f"and {len(all_series) - PRINTED} more series; --out writes them all")


def _draw_forecasts(args: argparse.Namespace, all_series: list[_Series], forecasts: npt.NDArray[np.floating],
                    quantiles: Sequence[float]) -> None:
    """Draw the ends of the first series and their forecasts, with the outermost quantiles as a band."""
    drawn = all_series[:DRAWN]
    figure = new_figure("--plot", 9, 2.6 * len(drawn) + 0.6)
    for ax, series, values in zip(figure.subplots(len(drawn), 1, squeeze=False)[:, 0], drawn, forecasts, strict=False):
        last = max(4 * args.horizon, 50)
        positions = (np.arange(len(series.y)) + 1 if series.times is None else series.times)[-last:]
        ax.plot(positions, series.y[-last:], color="0.2", linewidth=1.2, label=series.name)
        if len(quantiles) > 1:
            ax.fill_between(series.steps_ahead, values[:, 0], values[:, -1], color="C3", alpha=0.2, linewidth=0,
                            label=f"{quantiles[0]:g} to {quantiles[-1]:g}")
        ax.plot(series.steps_ahead, values[:, quantiles.index(0.5)], color="C3", label="forecast")
        label_dates(ax, series.steps_ahead)
        ax.grid(alpha=0.25)
        ax.legend(fontsize=8, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    figure.savefig(args.plot, dpi=130)
