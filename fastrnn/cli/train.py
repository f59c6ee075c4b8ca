"""``fastrnn train``: trains a small sequence model on a table and writes it to a file."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import losses, optim, training
from .._base.figures import new_figure
from ..nn import Linear, Sequential, recurrent
from ..training import History
from . import tables
from .common import (
    MODELS,
    PICTURES,
    TABLE_FORMATS,
    add_network_options,
    add_reading_options,
    blame_table,
    check_outputs,
    check_reading,
    matrix,
    numeric_columns,
    read_table,
    report_written,
)
from .parser import Parser, positive_float, positive_int, printable

LARGEST = 1e15          # standard deviations: the square of such a value is still a float32

Float64 = npt.NDArray[np.float64]


def main(argv: Sequence[str]) -> int:
    """Train a small sequence model on a table; ``fastrnn train --help`` lists the options."""
    parser = _parser()
    args = parser.parse_options(argv)
    check_reading(parser, args)
    check_outputs(args, out=MODELS, plot=PICTURES)
    return _run(args)


def _parser() -> Parser:
    parser = Parser("train", """\
Trains a recurrent layer and a linear one to forecast, at every row of a table, what the target columns will be --ahead
rows later; measures the model on the last rows, which are held out of training, beside the forecast that nothing
changes; and writes it to a file for fastrnn.load: a Sequential whose inputs and outputs are in the table's own units.
With --checkpoint, a run that was stopped goes on where it was and ends with the same bits.""" + TABLE_FORMATS,
                    ["train weather --target temperature_degC --ahead 6 --out model.npz",
                     "train weather --target temperature_degC --epochs 100 --checkpoint run.ckpt --plot losses.png"],
                    usage="FILE --target COL ... [options]")
    parser.add_argument("file", metavar="FILE", help="the table")
    parser.add_argument("--target", nargs="+", required=True, metavar="COL", help="columns to forecast")
    parser.add_argument("--columns", nargs="+", metavar="COL", help="columns to read (default: all that are numbers)")
    parser.add_argument("--ahead", type=positive_int, default=1, metavar="ROWS",
                        help="how many rows later the forecast is for (default: 1)")
    add_network_options(parser)
    parser.add_argument("--epochs", type=positive_int, default=30, metavar="N",
                        help="passes over the table (default: 30)")
    parser.add_argument("--tbptt", type=positive_int, default=50, metavar="ROWS",
                        help="truncated back-propagation through time: rows from one update of the weights to the "
                             "next, and how far back a gradient goes (default: 50)")
    parser.add_argument("--batch-size", type=positive_int, default=8, metavar="N",
                        help="the table is cut into so many stretches, which are trained on side by side (default: 8)")
    parser.add_argument("--learning-rate", type=positive_float, default=0.003, metavar="RATE",
                        help="Adam's learning rate at the start; it falls to 0 along a cosine (default: 0.003)")
    parser.add_argument("--held-out", type=positive_int, metavar="ROWS",
                        help="last rows to measure the model on, not trained on (default: a fifth)")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32",
                        help="bfloat16 rounds the factors of all products in training, which is faster for wide layers "
                             "where the CPU has instructions for it; the model stays float32 (default: float32)")
    parser.add_argument("--checkpoint", metavar="PATH",
                        help="file that is written as training goes on; if it is there already, training resumes")
    parser.add_argument("--out", metavar="MODEL.npz", help="write the model: .npz or .safetensors")
    parser.add_argument("--plot", metavar="OUT.png", help="draw the losses: .png, .svg or .pdf")
    add_reading_options(parser)
    return parser


@dataclass
class _Columns:
    """Some columns of the table, standardised: what the model reads, or what it forecasts."""

    names: list[str]
    scaled: npt.NDArray[np.float32]     # in units of `deviation` about `mean`, missing values 0 [rows, columns]
    present: npt.NDArray[np.bool_]      # whether a value is there [rows, columns]
    mean: Float64                       # of the rows that are trained on [columns]
    deviation: Float64                  # their standard deviation [columns]


def _run(args: argparse.Namespace) -> int:
    table = read_table(args, args.file)
    names = args.columns or _inputs(table, args.target)
    values, targets = matrix(table, names, "--columns"), matrix(table, args.target, "--target")
    values, targets, unchanged = values[:-args.ahead], targets[args.ahead:], targets[:-args.ahead]
    held_out = args.held_out or len(values) // 5
    trained = len(values) - held_out
    if trained < 2 * args.batch_size or not held_out:
        raise tables.TableError(f"{args.file}: {len(table)} rows are too few for {args.batch_size} stretches to train "
                                f"on (--batch-size), with {held_out} rows held out and {args.ahead} ahead")
    inputs = _standardised(table, names, values, trained)
    outputs = _standardised(table, args.target, targets, trained)
    model, history = _train(args, inputs, outputs, trained)
    best = "" if history.best_epoch is None else f", the best was {history.best_epoch + 1}"
    print(f"{model!r}: {len(history['loss'])} epochs on {trained} rows{best}")
    _print_errors(args, model, inputs, outputs, unchanged, trained)
    if args.out:
        _absorb_scaling(model, inputs, outputs)
        model.save(args.out)
        report_written("model", args.out)
    if args.plot:
        figure = new_figure("--plot", 7, 4)
        history.plot(figure.add_subplot())
        figure.savefig(args.plot, dpi=130)
        report_written("figure", args.plot)
    return 0


def _inputs(table: tables.Table, targets: Sequence[str]) -> list[str]:
    """The columns to read where the user names none: those of numbers, with the targets."""
    names = numeric_columns(table, exclude=targets) if set(table.numeric()) - set(targets) else []
    return [name for name in table.columns if name in {*names, *targets}]


def _standardised(table: tables.Table, names: list[str], values: Float64, trained: int) -> _Columns:
    """Columns by their mean and standard deviation in the rows that are trained on; a constant keeps its unit."""
    present = ~np.isnan(values)
    for number, name in enumerate(names):
        if not present[:trained, number].any():
            raise tables.TableError(f"{table.path}: column {name!r} has no value in the rows that are trained on")
    mean, deviation = np.nanmean(values[:trained], 0), np.nanstd(values[:trained], 0)
    deviation = np.where(deviation > 1e-9 * np.abs(mean), deviation, 1.0)
    with np.errstate(over="ignore"):
        scaled = np.where(present, (values - mean) / deviation, 0)
    for name, column in zip(names, scaled.T, strict=True):
        if not (np.abs(column) < LARGEST).all():
            raise tables.TableError(f"{table.path}: column {name!r} has values too far apart to be trained on")
    return _Columns(names, scaled.astype(np.float32), present, mean, deviation)


def _train(args: argparse.Namespace, inputs: _Columns, outputs: _Columns,
           trained: int) -> tuple[Sequential, History]:
    """Train on the first rows, cut into stretches; validate on the others, after reading the rows before them."""
    rng = np.random.default_rng(args.random_state)
    layer = getattr(recurrent, args.cell.upper())(len(inputs.names), args.hidden_size, args.num_layers, rng=rng)
    model = Sequential(layer, Linear(args.hidden_size, len(outputs.names), rng=rng))
    x, y, mask = (np.array_split(a[:trained], args.batch_size)
                  for a in (inputs.scaled, outputs.scaled, outputs.present))
    updates = -(-len(x[0]) // args.tbptt)       # in an epoch
    before = _first_read(args, trained)
    counts = outputs.present[before:] * (np.arange(before, len(inputs.scaled)) >= trained)[:, None]
    with blame_table(args.file):
        history = training.fit(
            model, x, y, mask=mask, tbptt=args.tbptt, loss=losses.MSE(), clip_norm=1.0,
            optimizer=optim.Adam(model, args.learning_rate, schedule=optim.cosine(args.epochs * updates)),
            epochs=args.epochs, batch_size=args.batch_size, checkpoint=args.checkpoint, rng=args.random_state,
            precision=args.precision,
            validation={"x": inputs.scaled[before:, None], "y": outputs.scaled[before:, None],
                        "mask": counts[:, None]})
    return model, history


def _first_read(args: argparse.Namespace, trained: int) -> int:
    """The first row that is read before the held-out ones, so that they do not begin from a zero state."""
    return max(0, trained - int(args.tbptt))


def _print_errors(args: argparse.Namespace, model: Sequential, inputs: _Columns, outputs: _Columns,
                  unchanged: Float64, trained: int) -> None:
    """Print the errors in the held-out rows: the model's, and those of the forecast that nothing changes."""
    before = _first_read(args, trained)
    forecasts: npt.NDArray[Any] = model(inputs.scaled[before:, None])[0][trained - before:, 0]
    print(f"{len(forecasts)} rows held out, {args.ahead} ahead. RMSE of the model, and of the forecast that nothing "
          "changes:")
    width = max(map(len, outputs.names))
    for n, name in enumerate(outputs.names):
        mean, deviation = outputs.mean[n], outputs.deviation[n]
        truth = np.where(outputs.present[trained:, n], outputs.scaled[trained:, n] * deviation + mean, np.nan)
        errors = forecasts[:, n] * deviation + mean - truth, unchanged[trained:, n] - truth
        print(f"  {printable(name):{width}}  {_rms(errors[0]):10.4g}  {_rms(errors[1]):10.4g}")


def _absorb_scaling(model: Sequential, inputs: _Columns, outputs: _Columns) -> None:
    """Make the model read and forecast the table's own units.

    In the first layer, W (x - m) / s + b = (W / s) x + (b - (W / s) m); in the last, s (V h + a) + m =
    (s V) h + (s a + m).
    """
    with model.updating() as p:
        weight = p["0.weight_ih_l0"] / inputs.deviation
        p["0.bias_ih_l0"] -= weight @ inputs.mean
        p["0.weight_ih_l0"][...] = weight
        p["1.weight"] *= outputs.deviation[:, None]
        p["1.bias"][...] = p["1.bias"] * outputs.deviation + outputs.mean


def _rms(errors: Float64) -> float:
    """Root of the mean square, over the values that are there."""
    return math.sqrt(np.nanmean(np.square(errors))) if not np.isnan(errors).all() else math.nan
