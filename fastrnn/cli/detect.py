"""``fastrnn detect``: how unusual every row of a table is, as a live stream would be scored."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from .._base.figures import new_figure
from .._base.progress import tracked
from .._base.reading import ModelFormatError
from ..anomaly import RNNAnomalyDetector
from ..forecasting.resample import Resampling, bins
from . import tables
from .common import (
    MODELS,
    PICTURES,
    STDOUT,
    TABLE_FORMATS,
    TABLES,
    add_precision,
    add_random_state,
    add_reading_options,
    blame_table,
    check_outputs,
    check_reading,
    check_resample,
    clean_stdout,
    hint_at_times,
    label_dates,
    matrix,
    numeric_columns,
    read_table,
    report_written,
    resample_parameter,
)
from .parser import (
    Parser,
    cell_name,
    fraction,
    margin,
    natural,
    positive_float,
    positive_int,
    printable,
    share,
    weight,
)

DRAWN, PRINTED = 4, 20      # columns that are drawn; series whose places are printed
PARAMETERS = ("cell", "hidden_size", "num_layers", "batch_size", "learning_rate", "forgetting", "memory", "refractory",
              "lags", "adapt", "rules", "precision")    # the options that are parameters of the detector as they are
MADE_WITH = ("--columns", "--series", "--margin", "--time-features", "--fit", "--updates", "--random-state",
             *(f"--{name.replace('_', '-')}" for name in PARAMETERS))       # what the file of a detector says
COLUMNS = "columns_"        # the attribute of a detector that keeps the names of its columns


def main(argv: Sequence[str]) -> int:
    """Score every row of a table as it would have been scored live; ``fastrnn detect --help`` lists the options."""
    parser = _parser()
    args = parser.parse_options(argv)
    check_reading(parser, args)
    check_resample(parser, args)
    check_outputs(args, out=TABLES, plot=PICTURES, save=MODELS)
    if args.save is not None and args.series is not None:
        parser.error("argument --save: a file holds one detector, and --series makes one for each series")
    if args.model is not None:
        _refuse_with_model(parser, argv)
    if args.events and args.out is None:
        args.out = STDOUT
    with clean_stdout(args.out) as stdout:
        return _run(args, stdout)


def _parser() -> Parser:
    parser = Parser("detect", """\
Goes through the rows of a table in order, as they would have come in live: a recurrent network forecasts each row from
those before, the row is scored by how far off the forecast was, from 0 to 1 (most unusual), and then it is learnt. Rows
that score above --threshold are reported, with the column that stands out most; those that are near each other are one
event.""" + TABLE_FORMATS,
                    ["detect weather --columns temperature_degC ghi_W_per_m2 --plot scores.png",
                     "detect machine.csv --time timestamp --columns temperature pressure --out scores.csv",
                     "detect machine.csv.gz --time timestamp --events --out alarms.csv",
                     "detect monday.csv --time time --save machine.npz",
                     "detect tuesday.csv --time time --model machine.npz --save machine.npz",
                     "detect export.csv --time Datum Uhrzeit --decimal , --date-format '%d.%m.%Y %H:%M'"],
                    usage="FILE [options]")
    parser.add_argument("file", metavar="FILE", help="the table")
    parser.add_argument("--columns", nargs="+", metavar="COL", help="columns to watch (default: all that are numbers, "
                                                                    "but for those that only number the rows)")
    parser.add_argument("--time", nargs="+", metavar="COL",
                        help="column of times to name rows by (default: by number), or two columns, of dates and of "
                             "times of the day; rows are sorted by it")
    parser.add_argument("--resample", nargs="+", metavar=("STEP", "FUNCTION"),
                        help="make regular steps of the rows first, such as 1h: the mean of the rows of each, or their "
                             "sum, min, max, first, last, median or count (needs --time)")
    parser.add_argument("--series", metavar="COL",
                        help="column that says which series a row belongs to; each has a detector of its own")
    parser.add_argument("--threshold", type=fraction, default=5 / 6, metavar="SCORE",
                        help="rows that score above it are reported; ordinary rows exceed the default, 5/6, once in "
                             "100,000 rows")
    parser.add_argument("--join", type=positive_int, default=10, metavar="ROWS",
                        help="reported rows no further apart than this are one event (default: 10)")
    _add_detector_options(parser)
    parser.add_argument("--out", metavar="OUT.csv",
                        help="write the score of every row: .csv, .csv.gz, .json, .jsonl, .parquet, or - for CSV on "
                             "standard output")
    parser.add_argument("--events", action="store_true",
                        help="write events in place of rows: begin, end, peak (the row that scores highest), its "
                             "score, the column that stands out in it, and how many rows were reported (default of "
                             "--out: -)")
    parser.add_argument("--plot", metavar="OUT.png", help="draw columns and scores: .png, .svg or .pdf")
    add_reading_options(parser)
    return parser


def _refuse_with_model(parser: Parser, argv: Sequence[str]) -> None:
    """Refuse the options that make a detector where one comes from a file."""
    for argument in argv:
        flag = argument.partition("=")[0]
        if flag in MADE_WITH:
            parser.error(f"argument {flag}: cannot be with --model, whose file says it")


def _add_detector_options(parser: Parser) -> None:
    """Add the options that are parameters of the detector, and what it is trained on before."""
    parser.add_argument("--model", metavar="MODEL.npz",
                        help="go on with a detector that --save (or RNNAnomalyDetector.save) wrote, which has learnt "
                             "earlier rows; it knows its columns")
    parser.add_argument("--save", metavar="MODEL.npz",
                        help="write the detector as it is after the last row: .npz or .safetensors")
    parser.add_argument("--margin", type=margin, metavar="PART",
                        help="how far out of the range of the earlier values is nothing much, as a part of that range "
                             "(default: 0.02); inf: ranges do not count")
    parser.add_argument("--memory", type=positive_int, metavar="ROWS",
                        help="rows that running means and standard deviations look back on (default: 5000)")
    parser.add_argument("--forgetting", type=share, metavar="PART",
                        help="weight of a row after each further row, up to 1 (default: 0.999)")
    parser.add_argument("--refractory", type=natural, metavar="ROWS",
                        help="an alarm is raised once: a score is 0 unless it is above those of so many rows before "
                             "(default: 0, off)")
    parser.add_argument("--lags", type=natural, metavar="ROWS",
                        help="earlier rows that a forecast reads beside the network (default: 16 of one column or two, "
                             "fewer of more)")
    parser.add_argument("--rules", nargs="+", choices=("error", "average", "range", "joint"), metavar="RULE",
                        help="what is judged: error of the row, average of errors, range of values, joint errors of "
                             "all columns (default: all)")
    parser.add_argument("--time-features", nargs="+", choices=("day", "week", "year", "none"), metavar="PERIOD",
                        help="with --time: forecasts know the time of the day, week, year (default: day week); none")
    parser.add_argument("--fit", type=natural, default=0, metavar="ROWS",
                        help="train the network by back-propagation on so many first rows, which are not scored "
                             "(default: 0)")
    parser.add_argument("--adapt", type=weight, metavar="WEIGHT",
                        help="weight, in what is learnt, of the rows after those of --fit: 1 (default), or 0: nothing "
                             "more is learnt, so that long anomalies stay unusual")
    parser.add_argument("--updates", type=positive_int, default=100, metavar="N",
                        help="updates by the optimizer on the rows of --fit (default: 100)")
    parser.add_argument("--batch-size", type=positive_int, metavar="N",
                        help="pieces of 100 rows in a minibatch of these updates (default: 16)")
    parser.add_argument("--learning-rate", type=positive_float, metavar="RATE",
                        help="Adam's learning rate in these updates (default: 0.01)")
    parser.add_argument("--cell", type=cell_name, metavar="CELL", help="rnn, gru or lstm, in any case (default: gru)")
    parser.add_argument("--hidden-size", type=positive_int, metavar="N", help="size of the hidden state (default: 32)")
    parser.add_argument("--num-layers", type=positive_int, metavar="N",
                        help="how many recurrent layers are stacked (default: 1)")
    add_precision(parser)
    add_random_state(parser, "the initial weights and the order of training")


@dataclass
class _Scores:
    """What was watched in one series, and how it scored."""

    series: str | None                  # its name
    names: list[str]                    # of the columns
    values: npt.NDArray[np.float64]     # [rows, columns]
    positions: npt.NDArray[Any]         # of the rows: times, or numbers counted from 1 [rows]
    labels: list[str]                   # the positions as the table writes them [rows]
    scores: npt.NDArray[np.float64]     # [rows]
    blamed: dict[int, str]              # reported row -> the column that stands out most in it

    def events(self, join: int) -> list[npt.NDArray[np.intp]]:
        """The reported rows; those that are no further apart than `join` together."""
        rows = np.array(list(self.blamed), np.intp)
        return np.split(rows, np.flatnonzero(np.diff(rows) > join) + 1) if len(rows) else []

    def peak(self, event: npt.NDArray[np.intp]) -> int:
        """The row of an event that scores highest."""
        return int(event[np.argmax(self.scores[event])])


def _run(args: argparse.Namespace, stdout: TextIO) -> int:
    table = read_table(args, args.file)
    if args.time is None:
        hint_at_times(table)
    detector = None if args.model is None else _loaded(args.model)
    if detector is not None:
        names = _columns_of(detector, table, args)
    else:
        names = args.columns or numeric_columns(table, exclude=(*(args.time or ()), args.series))
    values = matrix(table, names, "--columns")
    results, last = [], None
    for series, own_values, positions, labels in _series(args, table, values):
        if args.fit >= len(labels):
            of_series = "" if series is None else f"series {series!r} of "
            raise tables.TableError(f"{args.file}: --fit {args.fit} needs more rows than that, {of_series}the table "
                                    f"has {len(labels)}")
        with blame_table(args.file):
            last = _detector(args) if detector is None else detector
            results.append(_Scores(series, names, own_values, positions, labels, np.zeros(len(labels)), {}))
            _score(args, last, results[-1])
    _report(args, results, stdout)
    if args.save and last is not None:
        vars(last)[COLUMNS] = names
        last.save(args.save)
        report_written("detector", args.save)
    return 0


def _report(args: argparse.Namespace, results: list[_Scores], stdout: TextIO) -> None:
    """Print, write and draw the scores."""
    for result in results[:PRINTED]:
        _print_events(args, result)
    if len(results) > PRINTED:
        print(f"and {len(results) - PRINTED} more series; --out writes them all")
    if args.out:
        tables.write(args.out, _event_columns(args, results) if args.events else _row_columns(args, results), stdout)
        report_written("events" if args.events else "scores", args.out)
    if args.plot:
        _draw(args, results[0])
        report_written("figure", args.plot)


def _loaded(path: str) -> RNNAnomalyDetector:
    try:
        detector = RNNAnomalyDetector.load(path)
    except ModelFormatError:
        raise
    except ValueError as error:
        raise tables.TableError(str(error)) from None
    if not hasattr(detector, "n_features_in_"):
        raise tables.TableError(f"{path}: this detector was saved before it had learnt anything")
    return detector


def _columns_of(detector: RNNAnomalyDetector, table: tables.Table, args: argparse.Namespace) -> list[str]:
    """The columns that a detector has learnt; of one that does not know their names all that are numbers."""
    names = vars(detector).get(COLUMNS, getattr(detector, "feature_names_in_", None))
    if names is None:
        names = numeric_columns(table, exclude=args.time or ())
    if len(names) != detector.n_features_in_:
        raise tables.TableError(f"{args.model}: the detector has learnt {detector.n_features_in_} columns, "
                                f"{table.path} has {len(names)} of numbers: {', '.join(map(repr, names))}")
    return list(map(str, names))


def _series(args: argparse.Namespace, table: tables.Table, values: tables.Numbers
            ) -> Iterator[tuple[str | None, tables.Numbers, npt.NDArray[Any], list[str]]]:
    """Of every series its name, its values in order, and the times or numbers of the rows, as values and as text."""
    column = None if args.time is None else table.time_column(args.time, "--time")
    with blame_table("--resample"):
        resampling = Resampling.of(None, resample_parameter(args))
    for name, rows in table.groups(args.series, "--series"):
        if column is None:
            yield name, values[rows], rows + 1, [str(row + 1) for row in rows.tolist()]
            continue
        rows = table.in_order(column, rows, name, twice=resampling.function is not None)
        if resampling.function is None or resampling.frequency is None:
            yield name, values[rows], column.values[rows], [column.cells[row] for row in rows.tolist()]
        else:
            steps = bins(column.values[rows], np.array([0, len(rows)]), resampling.frequency, None)
            yield name, steps.reduced(values[rows], resampling.function), steps.instants, \
                column.style.texts(steps.instants)


def _detector(args: argparse.Namespace) -> RNNAnomalyDetector:
    """The detector that the options ask for; what they do not say is the estimator's to choose."""
    parameters: dict[str, Any] = {name: value for name in PARAMETERS if (value := getattr(args, name)) is not None}
    if args.margin is not None:
        parameters["margin"] = None if math.isinf(args.margin) else args.margin
    if args.time_features is not None:
        parameters["time_features"] = tuple(name for name in args.time_features if name != "none")
    return RNNAnomalyDetector(**parameters, updates=args.updates if args.fit else 0, random_state=args.random_state)


def _score(args: argparse.Namespace, detector: RNNAnomalyDetector, result: _Scores) -> None:
    """Score every row, and of the rows above the threshold find the column that stands out most."""
    values, timed = result.values, _knows_times(args, detector)
    times: Any = result.positions if timed else [None] * len(values)
    if args.fit:
        detector.fit(values[:args.fit], times=times[:args.fit] if timed else None)
    for row in tracked(range(args.fit, len(values)), "row", "scoring", at_least=20_000):
        score = result.scores[row] = detector.score_one(values[row], times[row])
        if score > args.threshold:
            stands_out = np.argmax(np.asarray(detector.explain_one(values[row], times[row])))
            result.blamed[row] = result.names[int(stands_out)]
        detector.learn_one(values[row], times[row])


def _knows_times(args: argparse.Namespace, detector: RNNAnomalyDetector) -> bool:
    """Whether a detector is told when rows are: a fresh one if there are times, one from a file if it was before."""
    if args.model is None:
        return bool(args.time)
    learnt = getattr(detector._state, "clock", None) is not None
    if learnt and not args.time:
        raise tables.TableError(f"{args.model}: the detector has learnt rows with their times: --time names their "
                                "column")
    return learnt


# ---- Results --------------------------------------------------------------------------------------

def _print_events(args: argparse.Namespace, result: _Scores) -> None:
    """Print how many rows score above the threshold, and where."""
    events = result.events(args.join)
    of_series = "" if result.series is None else f"{printable(result.series)}: "
    print(f"{of_series}{len(result.values)} rows of {', '.join(map(printable, result.names))}: {len(result.blamed)} "
          f"score above {args.threshold:.3g}, in {len(events)} places")
    for event in events if args.out != STDOUT else ():
        highest, last = result.peak(event), event[-1]
        until = f" to {printable(result.labels[last])}" if len(event) > 1 else ""
        print(f"  {printable(result.labels[event[0]])}{until}: {result.scores[highest]:.3f}, "
              f"{printable(result.blamed[highest])}")


def _row_columns(args: argparse.Namespace, results: list[_Scores]) -> dict[str, npt.ArrayLike]:
    """The columns to write of every row: series (if there is such a column), time or number, score, anomaly, column."""
    columns: dict[str, npt.ArrayLike] = {}
    if args.series:
        columns[args.series] = [result.series or "" for result in results for _ in result.labels]
    if args.time is None:
        columns["row"] = np.concatenate([result.positions for result in results])
    else:
        columns[" ".join(args.time)] = [label for result in results for label in result.labels]
    columns["score"] = np.concatenate([result.scores for result in results])
    columns["anomaly"] = [int(row in result.blamed) for result in results for row in range(len(result.labels))]
    columns["column"] = [result.blamed.get(row, "") for result in results for row in range(len(result.labels))]
    return columns


def _event_columns(args: argparse.Namespace, results: list[_Scores]) -> dict[str, npt.ArrayLike]:
    """The columns to write of every event."""
    names = ["begin", "end", "peak", "score", "column", "rows"]
    lines: list[list[Any]] = []
    for result in results:
        labels: Sequence[Any] = result.labels if args.time else result.positions.tolist()
        for event in result.events(args.join):
            highest = result.peak(event)
            lines.append([labels[event[0]], labels[event[-1]], labels[highest], float(result.scores[highest]),
                          result.blamed[highest], len(event), result.series])
    columns: dict[str, npt.ArrayLike] = {}
    if args.series:
        columns[args.series] = [line[-1] for line in lines]
    return columns | {name: [line[number] for line in lines] for number, name in enumerate(names)}


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
    if result.series is not None:
        column_axes[0].set_title(result.series)
    score_axis.plot(result.positions, result.scores, color="C0", linewidth=0.8)
    score_axis.axhline(args.threshold, color="C3", linewidth=0.8, linestyle="--")
    score_axis.set(ylabel="score", ylim=(0, 1.05), xlabel=" ".join(args.time) if args.time else "row")
    label_dates(score_axis, result.positions)
    for ax in (*column_axes, score_axis):
        ax.grid(alpha=0.25)
    figure.savefig(args.plot, dpi=130)
