"""Forecasters of the series of a table, for the commands forecast, fit and predict: their options, fitting, files.

A forecaster that ``fit`` saved is an ``RNNForecaster``, which ``RNNForecaster.load`` reads. With it goes what the
command knows of the table (``Origin``): which columns were what, and how times were written.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..forecasting import RNNForecaster
from ..forecasting.preparation import read_panel
from . import tables
from .common import add_precision, blame_table, check_resample, resample_parameter
from .forecasts import Forecasts, print_errors
from .parser import (
    Parser,
    cell_name,
    fraction,
    natural,
    non_negative_float,
    note,
    part,
    positive_float,
    positive_int,
    season,
)
from .series import Roles, TableSeries, fit_arguments
from .times import TimeStyle

__all__ = ["Origin", "add_forecaster_options", "add_interval_option", "check_forecaster_options", "fitted", "forecast"]

ORIGIN = "table_"       # the attribute of a forecaster that keeps its Origin

# The options that are parameters of RNNForecaster as they are.
PARAMETERS = ("window", "cell", "hidden_size", "num_layers", "dropout", "log", "scaling", "difference", "nonnegative",
              "loss", "ensemble", "updates", "sequence", "batch_size", "learning_rate", "weight_decay", "patience",
              "freq", "precision")


# ---- Options ------------------------------------------------------------------------------------

def add_forecaster_options(parser: Parser) -> None:
    """Add the options that say what is forecast and by what network; those of the estimator have its names."""
    parser.add_argument("--horizon", type=positive_int, required=True, metavar="STEPS",
                        help="how many steps to forecast")
    parser.add_argument("--seasons", nargs="+", type=season, metavar="STEPS",
                        help="lengths of seasons in steps, such as 24 168 for hours; none: there are none (default: "
                             "those that are found)")
    parser.add_argument("--quantiles", nargs="*", type=fraction, metavar="Q",
                        help="quantiles to forecast beside the median (default: 0.1 0.9); none if no value follows")
    parser.add_argument("--nonnegative", action=argparse.BooleanOptionalAction,
                        help="keep forecasts from falling below 0 (default: where the values say so, such as counts)")
    parser.add_argument("--freq", metavar="STEP",
                        help="the step of the times, such as h, 15min, D, B (Monday to Friday), W-SUN, MS, ME "
                             "(default: found from the times)")
    parser.add_argument("--resample", nargs="+", metavar=("STEP", "FUNCTION"),
                        help="make regular steps of irregular times, such as 1h: the mean of the rows of each, or "
                             "their sum, min, max, first, last, median or count")
    parser.add_argument("--held-out", type=natural, metavar="STEPS",
                        help="last steps to measure the forecasts on, not trained on (default: twice the horizon); 0: "
                             "train on all")
    _add_training_options(parser)


def _add_training_options(parser: Parser) -> None:
    """Add the options of the network, its training, and what it is blended with."""
    group = parser.add_argument_group("the network and its training (by default chosen by the data where it matters)")
    group.add_argument("--blend", nargs="+", metavar="NAME",
                       help="forecasts that are blended, by their errors: network, linear, naive, ... (default: all); "
                            "none: the network alone")
    group.add_argument("--log", action="store_const", const=True,
                       help="forecast logarithms: for values above 0 that change in proportion to their size")
    group.add_argument("--log1p", dest="log", action="store_const", const="1p",
                       help="forecast log(1 + value): for such values that may be 0")
    group.add_argument("--no-log", dest="log", action="store_const", const=False,
                       help="forecast the values themselves, whatever they look like")
    group.add_argument("--window", type=positive_int, metavar="STEPS",
                       help="steps over which a series' level and scale are taken")
    group.add_argument("--scaling", choices=("std", "mean"), help="what the network reads is taken relative to the "
                       "window's standard deviation (the default) or mean")
    group.add_argument("--difference", type=natural, metavar="STEPS",
                       help="what the network's forecasts are relative to: the value so many steps before; 0: the "
                            "window's mean")
    group.add_argument("--cell", type=cell_name, metavar="CELL", help="rnn, gru or lstm, in any case (default: gru)")
    group.add_argument("--hidden-size", type=positive_int, metavar="N", help="size of the hidden state")
    group.add_argument("--num-layers", type=positive_int, metavar="N",
                       help="how many recurrent layers are stacked (default: 1)")
    group.add_argument("--dropout", type=part, metavar="P",
                       help="probability of dropping an output between layers in training (default: 0)")
    group.add_argument("--ensemble", type=positive_int, metavar="N", help="networks whose mean is the forecast")
    group.add_argument("--loss", choices=("mae", "mse", "huber"),
                       help="what training minimises where no quantiles are forecast (default: mae)")
    group.add_argument("--updates", type=positive_int, metavar="N",
                       help="steps of training, at most")
    group.add_argument("--sequence", type=positive_int, metavar="STEPS",
                       help="steps of the windows that are trained on")
    group.add_argument("--batch-size", type=positive_int, metavar="N", help="windows of a minibatch (default: 32)")
    group.add_argument("--learning-rate", type=positive_float, metavar="RATE",
                       help="largest learning rate of AdamW (default: 0.004)")
    group.add_argument("--weight-decay", type=non_negative_float, metavar="RATE",
                       help="weight decay of AdamW (default: 0)")
    group.add_argument("--patience", type=positive_int, metavar="N",
                       help="early stopping: training ends after so many passes without a better one (default: off)")
    add_precision(group)
    group.add_argument("--random-state", type=natural, default=0, metavar="SEED",
                       help="seed of the initial weights and the order of training (default: 0)")


def add_interval_option(parser: Parser) -> None:
    """Add ``--interval``."""
    parser.add_argument("--interval", type=fraction, metavar="PART",
                        help="an interval that holds so large a part of the values, such as 0.9: columns lower and "
                             "upper beside the forecast")


def check_forecaster_options(parser: Parser, args: argparse.Namespace) -> None:
    """Refuse options that contradict each other; set those that follow from others."""
    if args.series and len(args.target or ()) > 1:
        parser.error("argument --target: expected one column where --series says which series a row belongs to")
    check_resample(parser, args)
    for option, needed in (("time_features", "time"), ("freq", "time"), ("static", "series")):
        if getattr(args, option) and not getattr(args, needed):
            parser.error(f"argument --{option.replace('_', '-')}: needs --{needed}")
    if args.resample and args.known:
        parser.error("argument --resample: the rows to forecast have no times of their own where --known columns are "
                     "resampled, too; resample the table first")
    if args.dropout and (args.num_layers or 1) == 1:
        parser.error("argument --dropout: it acts between layers and needs --num-layers 2 or more")
    args.held_out_by_default = args.held_out is None
    if args.held_out is None:
        args.held_out = 2 * args.horizon
    if 0 < args.held_out < args.horizon:
        parser.error(f"argument --held-out: expected at least the horizon, {args.horizon}, or 0, got {args.held_out}")
    if args.quantiles is None:
        args.quantiles = [0.1, 0.9]
        if getattr(args, "interval", None) is not None:
            args.quantiles = [round(0.5 - args.interval / 2, 9), round(0.5 + args.interval / 2, 9)]


def _forecaster(args: argparse.Namespace) -> RNNForecaster:
    """The forecaster that the options ask for; what they do not say is the estimator's to choose."""
    parameters: dict[str, Any] = {name: value for name in PARAMETERS if (value := getattr(args, name)) is not None}
    if args.seasons is not None:
        parameters["seasons"] = tuple(length for length in args.seasons if length is not None)
    if args.blend is not None:
        parameters["blend"] = False if args.blend == ["none"] else tuple(args.blend)
    return RNNForecaster(args.horizon, **parameters, resample=resample_parameter(args),
                         time_features=tuple(args.time_features),
                         quantiles=tuple(args.quantiles), random_state=args.random_state, progress=True)


# ---- Fitting --------------------------------------------------------------------------------------

def fitted(args: argparse.Namespace, all_series: list[TableSeries]) -> RNNForecaster:
    """A forecaster trained on all but the last steps, measured on these, and brought to the ends of the series."""
    names = [series.name for series in all_series]
    model = _forecaster(args)
    arguments = fit_arguments(all_series)
    with blame_table(args.file, names):
        model.fit(**_before(args, model, all_series))
        if args.held_out:
            print(f"{model!r}\nThe last {args.held_out} steps of {len(all_series)} series, not trained on:")
            print_errors(model.backtest(**arguments, start=-args.held_out, refit=False))
        return model.apply(**arguments)


def _before(args: argparse.Namespace, model: RNNForecaster, all_series: list[TableSeries]) -> dict[str, Any]:
    """The arguments of ``fit`` without the last steps, which are held out."""
    arguments = fit_arguments(all_series)
    panel = read_panel(model, **arguments)
    shortest = min(map(len, panel.series))
    if args.held_out_by_default and 1 < shortest < 2 * args.held_out:
        note(f"{args.file}: {shortest} steps are too few to leave out the last {args.held_out} and measure errors "
             "there; all are trained on")
        args.held_out = 0
    cut = []
    for series, steps in zip(all_series, panel.series, strict=True):
        first = len(steps) - args.held_out          # of the steps that are held out
        if len(steps) < 2:
            raise tables.TableError(f"{args.file}: series {series.name!r} has {len(steps)} step, expected two or more")
        if first < 2:
            raise tables.TableError(f"{args.file}: series {series.name!r} has {len(steps)} steps, too few to train on "
                                    f"all but the last {args.held_out} (--held-out)")
        rows = first
        if series.times is not None and steps.clock is not None:
            rows = int(np.searchsorted(series.times, steps.clock.at(np.array([first]))[0])) if args.held_out else None
        cut.append(series.first(rows))
    return fit_arguments(cut)


# ---- Forecasting ----------------------------------------------------------------------------------

def forecast(model: RNNForecaster, origin: Origin, future: int | list[npt.NDArray[np.float64]],
             interval: float | None, path: str) -> Forecasts:
    """Forecasts of a forecaster that goes on from series; `future` is how many steps, or their known columns."""
    with blame_table(path, origin.names):
        quantiles = model.options_.quantiles
        h = future if isinstance(future, int) else len(future[0])
        if interval is None and quantiles and (h <= model.horizon or model.blend_ is not None):
            values = np.asarray(model.predict(future, quantiles=True))
            bounds = {f"q{q:g}": values[..., n] for n, q in enumerate(quantiles) if q != 0.5}
            values = values[..., quantiles.index(0.5)]
        elif interval is None:
            values, bounds = np.asarray(model.predict(future)), {}
        else:
            lower, values, upper = model.predict(future, interval=interval)
            bounds = {"lower": lower, "upper": upper}
        steps = [len(each) + 1 + np.arange(h) if each.clock is None else
                 np.asarray(each.clock.at(len(each) + np.arange(h))).astype("datetime64[us]")
                 for each in model.panel_.series]
    return Forecasts(origin.roles, origin.names, steps, origin.style, values, bounds)


def history(model: RNNForecaster) -> list[tuple[npt.NDArray[Any], npt.NDArray[np.floating]]]:
    """The positions and values of the series that a forecaster goes on from, for pictures."""
    return [(np.arange(len(each)) + 1 if each.clock is None else
             np.asarray(each.clock.at(np.arange(len(each)))).astype("datetime64[us]"), each.y)
            for each in model.panel_.series]


# ---- What is known of the table -------------------------------------------------------------------

@dataclass(frozen=True)
class Origin:
    """The table that a forecaster was fitted on.

    Attributes
    ----------
    roles : Roles
        What its columns are.
    names : list of str
        The names of the series.
    style : TimeStyle
        How it writes times.
    dialect : tables.Dialect
        How it is written, as far as options said it.
    """

    roles: Roles
    names: list[str]
    style: TimeStyle
    dialect: tables.Dialect

    def keep(self, model: RNNForecaster) -> None:
        """Let a forecaster remember this, in plain values that its file can hold."""
        vars(model)[ORIGIN] = {"names": self.names, **{
            part: dataclasses.asdict(getattr(self, part)) for part in ("roles", "style", "dialect")}}

    @classmethod
    def of(cls, model: RNNForecaster, path: str) -> Origin:
        """What a forecaster remembers; of one that was fitted in Python what its parameters and series say."""
        kept = vars(model).get(ORIGIN)
        if kept is None:
            target, time, series = model.target, model.time, model.series
            names = [str(n + 1) if each.name is None else str(each.name) for n, each in enumerate(model.panel_.series)]
            targets = () if target is None else (target,) if isinstance(target, str) else tuple(target)
            timed = model.panel_.series[0].clock is not None
            roles = Roles(targets or ("forecast",), (time or "time",) if timed else (),
                          series or ("series" if len(names) > max(1, len(targets)) else None),
                          _tuple(model.known), _tuple(model.past), _tuple(model.static))
            return cls(roles, names, TimeStyle("%Y-%m-%dT%H:%M", "m"), tables.Dialect())
        try:
            return cls(Roles(**kept["roles"]), list(kept["names"]), TimeStyle(**kept["style"]),
                       tables.Dialect(**kept["dialect"]))
        except (TypeError, KeyError, AttributeError) as error:
            raise tables.TableError(f"{path}: what it says of its table is broken: {error}") from None


def _tuple(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
