"""``fastrnn fit``: trains a forecaster on the series of a table and saves it, for ``predict`` and for Python."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .common import (
    MODELS,
    TABLE_FORMATS,
    add_reading_options,
    check_outputs,
    check_reading,
    dialect,
    read_table,
    report_written,
)
from .forecasters import Origin, add_forecaster_options, add_interval_option, check_forecaster_options, fitted
from .parser import Parser
from .series import add_column_options, read_series, roles_of


def main(argv: Sequence[str]) -> int:
    """Train a forecaster and save it; ``fastrnn fit --help`` lists the options."""
    parser = _parser()
    args = parser.parse_options(argv)
    check_forecaster_options(parser, args)
    check_reading(parser, args)
    check_outputs(args, out=MODELS)
    return _run(args)


def _parser() -> Parser:
    parser = Parser("fit", """\
Trains a forecaster on the series in a table, measures it beside naive forecasts on the last steps, which are held out
of training, and saves it: fastrnn predict makes forecasts of it, for this table or a later one, and so does
RNNForecaster.load in Python.""" + TABLE_FORMATS,
                    ["fit weather --target temperature_degC --horizon 24 --seasons 24 --out weather.npz",
                     "fit load.csv --target load --time time --time-features day week --horizon 24 --seasons 24 168 "
                     "--out load.npz"],
                    usage="FILE --horizon STEPS --out MODEL.npz [options]")
    parser.add_argument("file", metavar="FILE", help="the table")
    add_column_options(parser)
    add_forecaster_options(parser)
    add_interval_option(parser)
    parser.add_argument("--out", required=True, metavar="MODEL.npz", help="write the forecaster: .npz or .safetensors")
    add_reading_options(parser)
    return parser


def _run(args: argparse.Namespace) -> int:
    table = read_table(args, args.file)
    roles = roles_of(args, table)
    all_series = list(read_series(table, roles, args.horizon, in_future=False, resampled=bool(args.resample)))
    model = fitted(args, all_series).set_params(progress=False)
    Origin(roles, [series.name for series in all_series], all_series[0].style, dialect(args)).keep(model)
    model.save(args.out)
    report_written("forecaster", args.out)
    return 0
