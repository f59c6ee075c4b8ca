"""``fastrnn train``: trains a small sequence model on a table and writes it to a file."""

import math

import numpy as np

from .. import losses, optim, training
from .._base.figures import new_figure
from ..nn import Linear, Sequential, recurrent
from . import tables
from .common import DATA, MODELS, PICTURES, check_outputs, matrix, numeric_columns, of_table, table_parser, wrote
from .parser import natural, positive, shown

LARGEST = 1e15          # standard deviations: the square is a float32 still


def main(argv):
    """Trains a small sequence model on a table; see ``python -m fastrnn train --help``."""
    parser = table_parser("train", "FILE --target COL ... [options]", """\
Trains a recurrent layer and a linear one to say, at every row of a table, what the target columns will be --ahead rows
later; measures it on the last rows, which are held out, beside "as it is now"; and writes it to a file for
fastrnn.load: a Sequential whose inputs and outputs are in the table's own units. With --checkpoint a run that was
stopped goes on where it was, and ends with the same bits.""" + DATA,
                     "train weather.csv --target temperature --ahead 6 --out model.npz",
                     "train weather.csv --target temperature --epochs 200 --checkpoint run.ckpt --plot losses.png")
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--target", nargs="+", required=True, metavar="COL", help="columns to forecast")
    parser.add_argument("--inputs", nargs="+", metavar="COL", help="columns to read (all that are numbers)")
    parser.add_argument("--ahead", type=positive(int), default=1, metavar="ROWS", help="how far ahead (1)")
    parser.add_argument("--cell", choices=("rnn", "gru", "lstm"), default="gru", help="(gru)")
    parser.add_argument("--hidden", type=positive(int), default=32, help="hidden size (32)")
    parser.add_argument("--layers", type=positive(int), default=1, help="recurrent layers stacked (1)")
    parser.add_argument("--epochs", type=positive(int), default=30, help="passes over the table (30)")
    parser.add_argument("--window", type=positive(int), default=50, metavar="ROWS",
                        help="rows between updates, and how far back a gradient goes (50)")
    parser.add_argument("--stretches", type=positive(int), default=8, metavar="N",
                        help="the table is cut into so many, which are trained on side by side (8)")
    parser.add_argument("--rate", type=positive(float), default=0.003, help="Adam's learning rate at the start (0.003)")
    parser.add_argument("--held-out", type=positive(int), metavar="ROWS", help="last rows held out (a fifth)")
    parser.add_argument("--seed", type=natural, default=0, help="of the weights (0)")
    parser.add_argument("--checkpoint", metavar="PATH", help="written as training goes on; taken up if it is there")
    parser.add_argument("--out", metavar="MODEL.npz", help="the model: .npz or .safetensors")
    parser.add_argument("--plot", metavar="OUT.png", help="draw the losses")
    args = parser.parse_args(argv)
    check_outputs(args, out=MODELS, plot=PICTURES)

    table = tables.read(args.file)
    inputs = args.inputs or numeric_columns(table)
    x, y = matrix(table, inputs, "--inputs"), matrix(table, args.target, "--target")
    x, y, now = x[:-args.ahead], y[args.ahead:], y[:-args.ahead]
    held = args.held_out or len(x) // 5
    seen = len(x) - held
    if seen < 2 * args.stretches or not held:
        raise tables.TableError(f"{args.file}: {len(table)} rows are too few for {args.stretches} stretches to train "
                                f"on, with {held} rows held out and {args.ahead} ahead")
    scales = [_scale(table, names, a[:seen]) for names, a in ((inputs, x), (args.target, y))]
    (x, _), (y, y_there) = (_scaled(table, *parts) for parts in ((inputs, x, *scales[0]), (args.target, y, *scales[1])))

    rng = np.random.default_rng(args.seed)
    model = Sequential(getattr(recurrent, args.cell.upper())(len(inputs), args.hidden, args.layers, rng=rng),
                       Linear(args.hidden, len(args.target), rng=rng))
    stretches = [np.array_split(a[:seen], args.stretches) for a in (x, y, y_there)]
    updates = -(-len(stretches[0][0]) // args.window)
    before = max(0, seen - args.window)                     # read before the first that is held out, and not counted
    counted = y_there[before:] * (np.arange(before, len(x)) >= seen)[:, None]
    with of_table(args.file):
        history = training.fit(
            model, stretches[0], stretches[1], mask=stretches[2], tbptt=args.window, loss=losses.MSE(), clip_norm=1.0,
            optimizer=optim.Adam(model, args.rate, schedule=optim.cosine(args.epochs * updates)),
            epochs=args.epochs, batch_size=args.stretches, checkpoint=args.checkpoint, rng=args.seed,
            validation={"x": x[before:, None], "y": y[before:, None], "mask": counted[:, None]})
    print(f"{model!r}: {len(history['loss'])} epochs on {seen} rows, the best was {history.best_epoch + 1}")

    found = model(x[before:, None])[0][seen - before:, 0]
    mean, spread = scales[1]
    print(f"{held} rows held out, {args.ahead} ahead. RMSE of the model, and of taking it to be as it is now:")
    width = max(map(len, args.target))
    for n, name in enumerate(args.target):
        truth = np.where(y_there[seen:, n], y[seen:, n] * spread[n] + mean[n], np.nan)
        errors = found[:, n] * spread[n] + mean[n] - truth, now[seen:, n] - truth
        print(f"  {shown(name):{width}}  {_rms(errors[0]):10.4g}  {_rms(errors[1]):10.4g}")
    if args.out:
        _in_units(model, *scales)
        model.save(args.out)
        wrote("model", args.out)
    if args.plot:
        ax = new_figure("--plot", 7, 4).add_subplot()
        history.plot(ax).figure.savefig(args.plot, dpi=130)
        wrote("figure", args.plot)
    return 0


def _scale(table, names, a):
    """Mean and standard deviation of every column, of what is not missing; a constant one keeps its unit."""
    there = ~np.isnan(a)
    for name, some in zip(names, there.any(0), strict=True):
        if not some:
            raise tables.TableError(f"{table.path}: column {name!r} has no value in the rows that are trained on")
    mean, spread = np.nanmean(a, 0), np.nanstd(a, 0)
    return mean, np.where(spread > 1e-9 * np.abs(mean), spread, 1.0)


def _scaled(table, names, a, mean, spread):
    """float32 in units of the spread about the mean, missing values at the mean; and what is there."""
    there = ~np.isnan(a)
    with np.errstate(over="ignore"):
        scaled = np.where(there, (a - mean) / spread, 0)
    for name, values in zip(names, scaled.T, strict=True):
        if not (np.abs(values) < LARGEST).all():
            raise tables.TableError(f"{table.path}: column {name!r} has values too far apart to be trained on")
    return scaled.astype(np.float32), there


def _in_units(model, inputs, outputs):
    """Takes the scaling of inputs and outputs into the weights: W (x - m) / s = (W / s) x - (W / s) m."""
    with model.updating() as p:
        weight = p["0.weight_ih_l0"] / inputs[1]
        p["0.bias_ih_l0"] -= weight @ inputs[0]
        p["0.weight_ih_l0"][...] = weight
        p["1.weight"] *= outputs[1][:, None]
        p["1.bias"][...] = p["1.bias"] * outputs[1] + outputs[0]


def _rms(errors):
    return math.sqrt(np.nanmean(np.square(errors))) if not np.isnan(errors).all() else math.nan
