"""``fastrnn predict``: forecasts of a forecaster that ``fastrnn fit`` saved."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import TextIO

from .._base.reading import ModelFormatError
from ..forecasting import RNNForecaster
from . import tables
from .common import (
    PICTURES,
    TABLE_FORMATS,
    TABLES,
    add_precision,
    add_reading_options,
    blame_table,
    check_outputs,
    check_reading,
    clean_stdout,
    dialect,
    report_written,
)
from .forecasters import Origin, add_interval_option, forecast, history
from .parser import Parser, positive_int
from .series import fit_arguments, read_series


def main(argv: Sequence[str]) -> int:
    """Forecast by a saved forecaster; ``fastrnn predict --help`` lists the options."""
    parser = _parser()
    args = parser.parse_options(argv)
    check_reading(parser, args)
    check_outputs(args, out=TABLES, plot=PICTURES)
    with clean_stdout(args.out) as stdout:
        return _run(parser, args, stdout)


def _parser() -> Parser:
    parser = Parser("predict", """\
Makes forecasts by a forecaster that fastrnn fit saved, or RNNForecaster.save in Python: of the steps that follow the
table that it was fitted on or, with a FILE, of those that follow another table with the same columns. Nothing is
trained. Where there are columns known in advance, the FILE has them in rows after the last target.""" + TABLE_FORMATS,
                    ["predict weather.npz --out forecasts.csv",
                     "predict load.npz load_until_today.csv --interval 0.9 --out -"],
                    usage="MODEL [FILE] [options]",
                    notes="A model to try it with: the first example of the command fit writes weather.npz.")
    parser.add_argument("model", metavar="MODEL", help="the forecaster: .npz or .safetensors")
    parser.add_argument("file", metavar="FILE", nargs="?", help="the table to go on from")
    parser.add_argument("--horizon", type=positive_int, metavar="STEPS",
                        help="how many steps to forecast (default: as many as the forecaster was fitted for)")
    add_interval_option(parser)
    add_precision(parser, "that of the file")
    parser.add_argument("--out", metavar="OUT.csv",
                        help="write the forecasts: .csv, .csv.gz, .json, .jsonl, .parquet, or - for CSV on standard "
                             "output")
    parser.add_argument("--plot", metavar="OUT.png", help="draw the forecasts: .png, .svg or .pdf")
    add_reading_options(parser)
    return parser


def _run(parser: Parser, args: argparse.Namespace, stdout: TextIO) -> int:
    try:
        model = RNNForecaster.load(args.model)
    except ModelFormatError:
        raise
    except ValueError as error:
        raise tables.TableError(str(error)) from None
    if not hasattr(model, "panel_"):
        raise tables.TableError(f"{args.model}: this forecaster was saved before it was fitted")
    if args.precision is not None:
        model.set_params(precision=args.precision)
    origin = Origin.of(model, args.model)
    model.panel_ = dataclasses.replace(model.panel_, kind="list")
    future: int | list[tables.Numbers] = args.horizon or model.horizon
    if args.file is not None:
        model, origin, future = _going_on(args, model, origin)
    elif origin.roles.known:
        parser.error("argument FILE: expected a table whose rows after the last target have the columns known in "
                     f"advance, {', '.join(origin.roles.known)}")
    forecasts = forecast(model, origin, future, args.interval, args.file or args.model)
    if args.out:
        tables.write(args.out, forecasts.columns(), stdout)
        report_written("forecasts", args.out)
    else:
        forecasts.print()
    if args.plot:
        forecasts.draw(args.plot, history(model))
        report_written("figure", args.plot)
    return 0


def _going_on(args: argparse.Namespace, model: RNNForecaster,
              origin: Origin) -> tuple[RNNForecaster, Origin, int | list[tables.Numbers]]:
    """The forecaster at the ends of a table's series, and what is known of the steps after them."""
    steps = args.horizon or model.horizon
    table = tables.read(args.file, dialect(args, origin.dialect))
    all_series = list(read_series(table, origin.roles, steps, resampled=model.resample is not None))
    model.set_params(target=None, time=None, series=None, known=(), past=(), static=(), categorical=())      # as arrays
    with blame_table(args.file, [series.name for series in all_series]):
        model = model.apply(**fit_arguments(all_series))
    origin = dataclasses.replace(origin, names=[series.name for series in all_series], style=all_series[0].style)
    return model, origin, [series.future for series in all_series] if origin.roles.known else steps
