"""``fastrnn forecast``: forecasts of the series in a table, beside naive ones."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TextIO

from . import tables
from .common import (
    PICTURES,
    TABLE_FORMATS,
    TABLES,
    add_reading_options,
    check_outputs,
    check_reading,
    clean_stdout,
    dialect,
    read_table,
    report_written,
)
from .forecasters import (
    Origin,
    add_forecaster_options,
    add_interval_option,
    check_forecaster_options,
    fitted,
    forecast,
    history,
)
from .parser import Parser
from .series import add_column_options, read_series, roles_of


def main(argv: Sequence[str]) -> int:
    """Forecast columns of a table; ``fastrnn forecast --help`` lists the options."""
    parser = _parser()
    args = parser.parse_options(argv)
    check_forecaster_options(parser, args)
    check_reading(parser, args)
    check_outputs(args, out=TABLES, plot=PICTURES)
    with clean_stdout(args.out) as stdout:
        return _run(args, stdout)


def _parser() -> Parser:
    parser = Parser("forecast", """\
Forecasts the series in a table by one recurrent network, blended with simpler forecasts by how well each does. First
the forecasts are measured, beside naive ones, on the last steps, which are held out of training; then they are made for
the steps that follow the table.""" + TABLE_FORMATS + """
Several --target columns are several series; so are the rows of a table that has the series one below the other and a
--series column that names them. Columns --known in advance also have values in rows after the last target: these rows
are the steps to forecast.""",
                    ["forecast weather --target temperature_degC --past ghi_W_per_m2 --horizon 24 --seasons 24",
                     "forecast load.csv --target load --time time --time-features day week --horizon 24 "
                     "--seasons 24 168 --plot load.png --out forecasts.csv",
                     "forecast shops.parquet --target sales --time day --series shop --known holiday --horizon 14 "
                     "--seasons 7"],
                    usage="FILE --horizon STEPS [options]")
    parser.add_argument("file", metavar="FILE", help="the table")
    add_column_options(parser)
    add_forecaster_options(parser)
    add_interval_option(parser)
    parser.add_argument("--out", metavar="OUT.csv",
                        help="write the forecasts: .csv, .csv.gz, .json, .jsonl, .parquet, or - for CSV on standard "
                             "output")
    parser.add_argument("--plot", metavar="OUT.png", help="draw the forecasts: .png, .svg or .pdf")
    add_reading_options(parser)
    return parser


def _run(args: argparse.Namespace, stdout: TextIO) -> int:
    table = read_table(args, args.file)
    roles = roles_of(args, table)
    all_series = list(read_series(table, roles, args.horizon, resampled=bool(args.resample)))
    model = fitted(args, all_series)
    origin = Origin(roles, [series.name for series in all_series], all_series[0].style, dialect(args))
    future = [series.future for series in all_series] if roles.known else args.horizon
    forecasts = forecast(model, origin, future, args.interval, args.file)
    if args.out:
        tables.write(args.out, forecasts.columns(), stdout)
        report_written("forecasts", args.out)
    else:
        forecasts.print()
    if args.plot:
        forecasts.draw(args.plot, history(model))
        report_written("figure", args.plot)
    return 0
