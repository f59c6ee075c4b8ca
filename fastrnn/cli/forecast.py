"""``fastrnn forecast``: forecasts of the series in a table, beside naive ones."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TextIO

import numpy as np

from ..forecasting import RNNForecaster
from . import tables
from .common import (
    PICTURES,
    TABLE_FORMATS,
    TABLES,
    add_network_options,
    add_reading_options,
    blame_table,
    check_outputs,
    check_reading,
    clean_stdout,
    read_table,
    report_written,
)
from .forecasts import Forecasts, print_errors
from .parser import Parser, fraction, natural, positive_int
from .series import add_column_options, fit_arguments, read_series, roles_of


def main(argv: Sequence[str]) -> int:
    """Forecast columns of a table; ``fastrnn forecast --help`` lists the options."""
    parser = _parser()
    args = parser.parse_options(argv)
    held_out = 2 * args.horizon if args.held_out is None else args.held_out
    if args.series and len(args.target or ()) > 1:
        parser.error("argument --target: expected one column where --series says which series a row belongs to")
    if args.time_features and not args.time:
        parser.error("argument --time-features: needs --time")
    if 0 < held_out < args.horizon:
        parser.error(f"argument --held-out: expected at least the horizon, {args.horizon}, or 0, got {held_out}")
    check_reading(parser, args)
    check_outputs(args, out=TABLES, plot=PICTURES)
    with clean_stdout(args.out) as stdout:
        return _run(args, held_out, stdout)


def _parser() -> Parser:
    parser = Parser("forecast", """\
Trains one recurrent network on the series in a table, measures it beside naive forecasts on the last steps, which are
held out of training, and then forecasts the steps that follow the table.""" + TABLE_FORMATS + """
Several --target columns are several series; so are the rows of a table that has the series one below the other and a
--series column that names them. Columns --known in advance also have values in rows after the last target: these rows
are the steps to forecast.""",
                    ["forecast weather --target temperature_degC --past ghi_W_per_m2 --horizon 24 --seasons 24",
                     "forecast load.csv --target load --time time --time-features day week --horizon 24 "
                     "--seasons 24 168 --plot load.png --out forecasts.csv",
                     "forecast shops.parquet --target sales --time day --series shop --known holiday --horizon 14 "
                     "--seasons 7"],
                    usage="FILE --target COL ... --horizon STEPS [options]")
    parser.add_argument("file", metavar="FILE", help="the table")
    add_column_options(parser)
    parser.add_argument("--horizon", type=positive_int, required=True, metavar="STEPS",
                        help="how many steps to forecast")
    parser.add_argument("--seasons", nargs="+", type=positive_int, default=[], metavar="STEPS",
                        help="lengths of seasons; the network forecasts the difference from one (the longest) season "
                             "before")
    parser.add_argument("--quantiles", nargs="*", type=fraction, default=[0.1, 0.9], metavar="Q",
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
    parser.add_argument("--out", metavar="OUT.csv",
                        help="write the forecasts: .csv, .csv.gz, .json, .jsonl, .parquet, or - for CSV on standard "
                             "output")
    parser.add_argument("--plot", metavar="OUT.png", help="draw the forecasts: .png, .svg or .pdf")
    add_reading_options(parser)
    return parser


def _run(args: argparse.Namespace, held_out: int, stdout: TextIO) -> int:
    table = read_table(args, args.file)
    roles = roles_of(args, table)
    all_series = list(read_series(table, roles, args.horizon))
    for series in all_series:
        if len(series.y) < held_out + 2:
            raise tables.TableError(f"{args.file}: series {series.name!r} has {len(series.y)} rows, too few to train "
                                    f"on all but the last {held_out} (--held-out)")
    model = _forecaster(args)
    with blame_table(args.file):
        model.fit(**fit_arguments(all_series, slice(None, -held_out or None)))
        if held_out:
            print(f"{model!r}\nThe last {held_out} steps of {len(all_series)} series, not trained on:")
            print_errors(model.backtest(**fit_arguments(all_series), start=-held_out, refit=False))
        model = model.apply(**fit_arguments(all_series))
        future = [series.future for series in all_series] if roles.known else args.horizon
        values = np.asarray(model.predict(future, quantiles=bool(args.quantiles)))
    quantiles = model.options_.quantiles or (0.5,)
    values = values.reshape(len(all_series), args.horizon, len(quantiles))
    bounds = {f"q{q:g}": values[..., n] for n, q in enumerate(quantiles) if q != 0.5}
    steps = [np.asarray(each.clock.at(len(each) + np.arange(args.horizon))) if each.clock else
             len(series.y) + 1 + np.arange(args.horizon)
             for each, series in zip(model.panel_.series, all_series, strict=True)]
    forecasts = Forecasts(roles, [series.name for series in all_series], steps, all_series[0].style,
                          values[..., quantiles.index(0.5)], bounds)
    if args.out:
        tables.write(args.out, forecasts.columns(), stdout)
        report_written("forecasts", args.out)
    else:
        forecasts.print()
    if args.plot:
        forecasts.draw(args.plot, [(np.arange(len(each.y)) + 1 if each.times is None else each.times, each.y)
                                   for each in all_series])
        report_written("figure", args.plot)
    return 0


def _forecaster(args: argparse.Namespace) -> RNNForecaster:
    sequence, season = max(2 * args.horizon, 32), max(args.seasons, default=1)
    return RNNForecaster(
        args.horizon, args.window or max(sequence, season), cell=args.cell, hidden_size=args.hidden_size,
        num_layers=args.num_layers, updates=args.updates, sequence=sequence, seasons=tuple(args.seasons),
        difference=season, log=args.log, time_features=tuple(args.time_features), quantiles=tuple(args.quantiles),
        random_state=args.random_state, progress=True)
