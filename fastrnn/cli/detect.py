"""``fastrnn detect``: how unusual every row of a table is, as a live stream would be scored."""

import math

import numpy as np

from .._base.figures import new_figure
from .._base.progress import tracked
from ..anomaly import RNNAnomalyDetector
from . import tables
from .common import (
    DATA,
    PICTURES,
    TABLES,
    check_outputs,
    dates_along,
    matrix,
    numeric_columns,
    of_table,
    table_parser,
    wrote,
)
from .parser import natural, positive, shown


def main(argv):
    """Scores every row of a table as it would have been live; see ``python -m fastrnn detect --help``."""
    parser = table_parser("detect", "FILE [options]", """\
Walks the rows of a table as they would have come: each is scored by a recurrent net that forecasts it from those
before, 0 to 1 (most unusual), and then learnt. Rows that score above --threshold are told, with the column to blame.
""" + DATA.lstrip(),
                     "detect machine.csv --time timestamp --columns temperature pressure --out scores.csv "
                     "--plot scores.png")
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--columns", nargs="+", metavar="COL", help="columns to watch (all that are numbers)")
    parser.add_argument("--time", metavar="COL", help="column of times, ISO 8601, to tell rows by")
    parser.add_argument("--threshold", type=positive(float), default=5 / 6, metavar="SCORE",
                        help="what is told: 5/6, the default, is once in 100,000 rows")
    parser.add_argument("--margin", type=float, default=0.02, metavar="PART",
                        help="values so far out of the range of all before, as a part of it, are surely unusual "
                             "(0.02); inf: the range is not looked at")
    parser.add_argument("--join", type=positive(int), default=10, metavar="ROWS",
                        help="told rows no further apart than this are one place (10)")
    parser.add_argument("--fit", type=natural, default=0, metavar="ROWS", help="first rows to train the net on by "
                                                                               "back-propagation, too (0)")
    parser.add_argument("--epochs", type=positive(int), default=10, help="passes over these (10)")
    parser.add_argument("--cell", choices=("rnn", "gru", "lstm"), default="gru", help="(gru)")
    parser.add_argument("--hidden", type=positive(int), default=32, help="hidden size (32)")
    parser.add_argument("--seed", type=natural, default=0, help="of the weights (0)")
    parser.add_argument("--out", metavar="OUT.csv", help="write every row's score: .csv or .json")
    parser.add_argument("--plot", metavar="OUT.png", help="draw columns and scores")
    args = parser.parse_args(argv)
    if not args.margin >= 0:
        parser.error(f"argument --margin: expected a number of at least 0, got {args.margin}")
    check_outputs(args, out=TABLES, plot=PICTURES)

    table = tables.read(args.file)
    names = args.columns or numeric_columns(table, but=(args.time,))
    x = matrix(table, names, "--columns")
    when = np.arange(len(x)) + 1 if args.time is None else table.times(args.time, "--time")
    if args.fit >= len(x):
        raise tables.TableError(f"{args.file}: {len(x)} rows, and --fit {args.fit} of them are asked for")
    detector = RNNAnomalyDetector(args.cell.upper(), args.hidden, epochs=args.epochs if args.fit else 0,
                                  margin=None if math.isinf(args.margin) else args.margin, random_state=args.seed)
    scores, blame = np.zeros(len(x)), {}
    with of_table(args.file):
        if args.fit:
            detector.fit(x[:args.fit])
        for row in tracked(range(args.fit, len(x)), "row", "scoring", at_least=20_000):
            scores[row] = detector.score_one(x[row])
            if scores[row] > args.threshold:        # by the channel that stands out most
                blame[row] = names[int(np.argmax(detector.explain_one(x[row])))]
            detector.learn_one(x[row])
    flagged = scores > args.threshold
    told = np.flatnonzero(flagged)
    found = np.split(told, np.flatnonzero(np.diff(told) > args.join) + 1) if len(told) else []
    print(f"{len(x)} rows of {', '.join(map(shown, names))}: {len(told)} score above {args.threshold:.3g}, in "
          f"{len(found)} places")
    labels = list(map(str, when)) if args.time is None else tables.told(when)
    for place in found:
        worst = place[np.argmax(scores[place])]
        until = f" to {labels[place[-1]]}" if len(place) > 1 else ""
        print(f"  {labels[place[0]]}{until}: {scores[worst]:.3f}, {shown(blame[worst])}")
    if args.out:
        blamed = np.array([blame.get(row, "") for row in range(len(x))])
        tables.write(args.out, {args.time or "row": when, "score": scores, "anomaly": flagged.astype(int),
                                "column": blamed})
        wrote("scores", args.out)
    if args.plot:
        _draw_scores(args, names, x, when, scores, blame)
        wrote("figure", args.plot)
    return 0


def _draw_scores(args, names, x, when, scores, blame, most=4):
    rows = min(most, len(names))
    figure = new_figure("--plot", 10, 1.8 * rows + 2)
    *above, below = figure.subplots(rows + 1, 1, sharex=True)
    for axes, name, values in zip(above, names, x.T, strict=False):
        axes.plot(when, values, color="0.3", linewidth=0.8)
        marked = [row for row, blamed in blame.items() if blamed == name]
        axes.plot(when[marked], values[marked], "o", color="C3", markersize=4)
        axes.set_ylabel(name)
    below.plot(when, scores, color="C0", linewidth=0.8)
    below.axhline(args.threshold, color="C3", linewidth=0.8, linestyle="--")
    below.set(ylabel="score", ylim=(0, 1.05))
    dates_along(below, when)
    for axes in (*above, below):
        axes.grid(alpha=0.25)
    figure.savefig(args.plot, dpi=130)
