"""``fastrnn detect``: how unusual every row of a table is, as a live stream would be scored."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._base.figures import new_figure
from .._base.progress import tracked
from ..anomaly import RNNAnomalyDetector
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
    numeric_columns,
    report_written,
)
from .parser import Parser, fraction, natural, positive_int, printable

DRAWN = 4       # columns that are drawn


def main(argv: Sequence[str]) -> int:
    """Score every row of a table as it would have been scored live; ``fastrnn detect --help`` lists the options."""
    parser = _parser()
    args = parser.parse_options(argv)
    if not args.margin >= 0:
        parser.error(f"argument --margin: expected a number of at least 0, got {args.margin}")
    check_outputs(args, out=TABLES, plot=PICTURES)
    return _run(args)


def _parser() -> Parser:
    parser = Parser("detect", """\
Goes through the rows of a table in order, as they would have come in live: a recurrent network forecasts each row from
those before, the row is scored by how far off the forecast was, from 0 to 1 (most unusual), and then it is learnt. Rows
that score above --threshold are reported, with the column that stands out most.""" + TABLE_FORMATS,
                    ["detect WEATHER --columns temperature_degC ghi_W_per_m2 --plot scores.png",
                     "detect machine.csv --time timestamp --columns temperature pressure --out scores.csv"],
                    usage="FILE [options]")
    parser.add_argument("file", metavar="FILE", help="the table")
    parser.add_argument("--columns", nargs="+", metavar="COL", help="columns to watch (default: all that are numbers)")
    parser.add_argument("--time", metavar="COL", help="column of times, ISO 8601, to name rows by (default: by number)")
    parser.add_argument("--threshold", type=fraction, default=5 / 6, metavar="SCORE",
                        help="rows that score above it are reported; ordinary rows exceed the default, 5/6, once in "
                             "100,000 rows")
    parser.add_argument("--margin", type=float, default=0.02, metavar="PART",
                        help="a value outside the range of all earlier ones by more than this part of the range scores "
                             "1 (default: 0.02); inf: the range does not count")
    parser.add_argument("--join", type=positive_int, default=10, metavar="ROWS",
                        help="reported rows no further apart than this are reported as one place (default: 10)")
    parser.add_argument("--fit", type=natural, default=0, metavar="ROWS",
                        help="train the network by back-propagation on so many first rows, which are not scored "
                             "(default: 0)")
    parser.add_argument("--updates", type=positive_int, default=100, metavar="N",
                        help="updates by the optimizer on the rows of --fit (default: 100)")
    add_network_options(parser)
    parser.add_argument("--out", metavar="OUT.csv", help="write the score of every row: .csv or .json")
    parser.add_argument("--plot", metavar="OUT.png", help="draw columns and scores: .png, .svg or .pdf")
    return parser


@dataclass
class _Scores:
    """What was watched, and how it scored."""

    names: list[str]                    # of the columns
    values: npt.NDArray[np.float64]     # [rows, columns]
    positions: npt.NDArray[Any]         # of the rows: times, or numbers counted from 1 [rows]
    scores: npt.NDArray[np.float64]     # [rows]
    blamed: dict[int, str]              # reported row -> the column that stands out most in it


def _run(args: argparse.Namespace) -> int:
    table = tables.read(args.file)
    names = args.columns or numeric_columns(table, exclude=(args.time,))
    values = matrix(table, names, "--columns")
    positions = np.arange(len(values)) + 1 if args.time is None else table.times(args.time, "--time")
    if args.fit >= len(values):
        raise tables.TableError(f"{args.file}: --fit {args.fit} needs more rows than that, the table has {len(values)}")
    with blame_table(args.file):
        result = _Scores(names, values, positions, *_score(args, names, values))
    _print_places(args, result)
    if args.out:
        flags = np.zeros(len(values), int)
        flags[list(result.blamed)] = 1
        columns = np.array([result.blamed.get(row, "") for row in range(len(values))])
        tables.write(args.out, {args.time or "row": positions, "score": result.scores, "anomaly": flags,
                                "column": columns})
        report_written("scores", args.out)
    if args.plot:
        _draw(args, result)
        report_written("figure", args.plot)
    return 0


def _score(args: argparse.Namespace, names: list[str],
           values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], dict[int, str]]:
    """The score of every row, and for the rows above the threshold the column that stands out most."""
    detector = RNNAnomalyDetector(
        args.cell, args.hidden_size, args.num_layers, updates=args.updates if args.fit else 0,
        margin=None if math.isinf(args.margin) else args.margin, random_state=args.random_state)
    scores, blamed = np.zeros(len(values)), {}
    if args.fit:
        detector.fit(values[:args.fit])
    for row in tracked(range(args.fit, len(values)), "row", "scoring", at_least=20_000):
        scores[row] = detector.score_one(values[row])
        if scores[row] > args.threshold:
            blamed[row] = names[int(np.argmax(np.asarray(detector.explain_one(values[row]))))]
        detector.learn_one(values[row])
    return scores, blamed


def _print_places(args: argparse.Namespace, result: _Scores) -> None:
    """Print the rows above the threshold; those that are no further apart than --join as one place."""
    rows = np.array(list(result.blamed), int)
    places = np.split(rows, np.flatnonzero(np.diff(rows) > args.join) + 1) if len(rows) else []
    print(f"{len(result.values)} rows of {', '.join(map(printable, result.names))}: {len(rows)} score above "
          f"{args.threshold:.3g}, in {len(places)} places")
    labels = list(map(str, result.positions)) if args.time is None else tables.iso_times(result.positions)
    for place in places:
        highest = int(place[np.argmax(result.scores[place])])
        until = f" to {labels[place[-1]]}" if len(place) > 1 else ""
        print(f"  {labels[place[0]]}{until}: {result.scores[highest]:.3f}, {printable(result.blamed[highest])}")


def _draw(args: argparse.Namespace, result: _Scores) -> None:
    """Draw the first columns, with a dot at each reported row of the column that stands out, and the scores below."""
    rows = min(DRAWN, len(result.names))
    figure = new_figure("--plot", 10, 1.8 * rows + 2)
    *column_axes, score_axis = figure.subplots(rows + 1, 1, sharex=True)
    for ax, name, values in zip(column_axes, result.names, result.values.T, strict=False):
        ax.plot(result.positions, values, color="0.3", linewidth=0.8)
        marked = [row for row, blamed in result.blamed.items() if blamed == name]
        ax.plot(result.positions[marked], values[marked], "o", color="C3", markersize=4)
        ax.set_ylabel(name)
    score_axis.plot(result.positions, result.scores, color="C0", linewidth=0.8)
    score_axis.axhline(args.threshold, color="C3", linewidth=0.8, linestyle="--")
    score_axis.set(ylabel="score", ylim=(0, 1.05))
    label_dates(score_axis, result.positions)
    for ax in (*column_axes, score_axis):
        ax.grid(alpha=0.25)
    figure.savefig(args.plot, dpi=130)
