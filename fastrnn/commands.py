"""``python -m fastrnn forecast | detect | train | gradients``: what is done with tables and models in files.

Each command reads its arguments, checks where it is to write, reads and checks the table, works, writes. Whatever is
wrong with a file is one line: ``tables.TableError``, which ``cli.main`` prints.
"""

import contextlib
import math
from dataclasses import dataclass

import numpy as np

from . import tables
from ._plots import new_figure
from ._series import Clock
from .cli import Parser, natural, positive, shown

DATA = """
FILE is CSV (.csv, .tsv, .txt: a header, then rows; empty cells and NA are missing values) or Parquet."""
LARGEST = 1e15          # standard deviations: the square is a float32 still
TABLES, PICTURES, MODELS = (".csv", ".json"), (".png", ".svg", ".pdf"), (".npz", ".safetensors")


def _parser(command, usage, description, *examples):
    lines = ["example:", *(f"python -m fastrnn {line}" for line in examples)]
    parser = Parser(command, description, "\n  ".join(lines))
    parser.usage = f"%(prog)s {usage}"          # argparse would put FILE last, after options that take any number
    return parser


def _outputs(args, **options):
    """Checks the names of files to be written, and makes their folders, before any work."""
    for option, endings in options.items():
        path = getattr(args, option)
        if path is not None:
            tables.check_out(path, f"--{option}", endings)
    if getattr(args, "plot", None):
        new_figure("--plot", 1, 1)


def _wrote(what, path):
    print(f"{what}: {shown(path)}")


@contextlib.contextmanager
def _of(path):
    """What a model or an estimator cannot make of a table's numbers is the table's fault."""
    try:
        yield
    except tables.TableError:
        raise
    except (TypeError, ValueError) as error:
        raise tables.TableError(f"{path}: {error}") from error


def _matrix(table, names, option):
    """Columns as float64 [rows, columns]."""
    found = np.empty((len(table), len(names)))
    for name, values in zip(names, found.T, strict=True):
        values[:] = table.numbers(name, option)
        if np.isnan(values).all():
            raise tables.TableError(f"{table.path}: column {name!r} has no value")
    return found


def _numeric(table, but=()):
    """Names of a table's columns of numbers, where nobody named any."""
    names = table.numeric(but)
    if not names:
        raise tables.TableError(f"{table.path}: there is no column of numbers")
    return names


# ---- forecast -----------------------------------------------------------------------------------

def main_forecast(argv):
    """Forecasts columns of a table; see ``python -m fastrnn forecast --help``."""
    parser = _parser("forecast", "FILE --target COL ... --horizon STEPS [options]", """\
Trains one recurrent network on the series in a table, measures it on their last steps, which are held out, beside the
naive forecasts, and then forecasts the steps that follow the table.""" + DATA + """
Several --target columns, or a --series column in a table with the series one below the other, are several series.
Columns --known in advance have their values also in rows after the last target: the steps to forecast.""",
                     "forecast load.csv --target load --horizon 24 --season 24 168 --plot load.png --out forecasts.csv",
                     "forecast shops.parquet --target sales --time day --series shop --known holiday --horizon 14 "
                     "--season 7")
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--target", nargs="+", required=True, metavar="COL", help="columns to forecast")
    parser.add_argument("--horizon", type=positive(int), required=True, metavar="STEPS", help="how many steps")
    parser.add_argument("--time", metavar="COL", help="column of times, ISO 8601; missing ones become missing values")
    parser.add_argument("--series", metavar="COL", help="column that tells which series a row is of")
    parser.add_argument("--known", nargs="+", default=[], metavar="COL", help="columns known in advance")
    parser.add_argument("--past", nargs="+", default=[], metavar="COL", help="columns known up to now")
    parser.add_argument("--season", nargs="+", type=positive(int), default=[], metavar="STEPS",
                        help="lengths of seasons; forecasts are made from what was one (the longest) season before")
    parser.add_argument("--time-features", nargs="+", choices=("day", "week", "year"), default=[],
                        help="read the time of day, week, year as well (needs --time)")
    parser.add_argument("--quantiles", nargs="*", type=float, default=[0.1, 0.9], metavar="Q",
                        help="forecast beside the median (0.1 0.9); none given: none")
    parser.add_argument("--log", action="store_const", const=True, default=False,
                        help="forecast logarithms: for values above 0 that change in proportion")
    parser.add_argument("--log1p", dest="log", action="store_const", const="1p",
                        help="the same of 1 + value, where values may be 0")
    parser.add_argument("--window", type=positive(int), metavar="STEPS",
                        help="over which level and scale are taken (the longest season, and twice the horizon or more)")
    parser.add_argument("--cell", choices=("rnn", "gru", "lstm"), default="gru", help="(gru)")
    parser.add_argument("--hidden", type=positive(int), default=32, help="hidden size (32)")
    parser.add_argument("--updates", type=positive(int), default=300, help="steps of training (300)")
    parser.add_argument("--held-out", type=natural, metavar="STEPS",
                        help="last steps to measure it on, not trained on (twice the horizon); 0: train on all")
    parser.add_argument("--seed", type=natural, default=0, help="of the weights (0)")
    parser.add_argument("--out", metavar="OUT.csv", help="write the forecasts: .csv or .json")
    parser.add_argument("--plot", metavar="OUT.png", help="draw them")
    args = parser.parse_args(argv)
    if args.series and len(args.target) > 1:
        parser.error("argument --target: expected one column where --series tells series apart")
    if args.time_features and not args.time:
        parser.error("argument --time-features: needs --time")
    _outputs(args, out=TABLES, plot=PICTURES)

    from .forecasting import RNNForecaster
    every = list(_every_series(args))
    held = 2 * args.horizon if args.held_out is None else args.held_out
    if 0 < held < args.horizon:
        parser.error(f"argument --held-out: expected at least the horizon, {args.horizon}, or 0, got {held}")
    sequence, season = max(2 * args.horizon, 32), max(args.season, default=1)
    for one in every:
        if len(one.y) < held + 2:
            raise tables.TableError(f"{args.file}: series {one.name!r} has {len(one.y)} rows, too few to train on all "
                                    f"but the last {held} (--held-out)")
    model = RNNForecaster(
        args.horizon, args.window or max(sequence, season), cell=args.cell, hidden_size=args.hidden,
        updates=args.updates, sequence=sequence, seasons=args.season, difference=season, log=args.log,
        time_features=args.time_features, quantiles=args.quantiles, random_state=args.seed, progress=True)
    with _of(args.file):
        model.fit(**_arguments(every, slice(None, -held or None)))
        if held:
            print(f"{model!r}\nThe last {held} steps of {len(every)} series, not trained on:")
            _report(model.backtest(**_arguments(every), start=-held, refit=False))
        model = model.apply(**_arguments(every))
        ahead = [one.future for one in every] if args.known else args.horizon
        found = np.asarray(model.predict(ahead, quantiles=bool(args.quantiles)))
    quantiles = model.options_["quantiles"] or (0.5,)
    found = found.reshape(len(every), args.horizon, len(quantiles))
    if args.out:
        tables.write(args.out, _forecast_columns(args, every, found, quantiles))
        _wrote("forecasts", args.out)
    else:
        _print_forecasts(every, found[..., quantiles.index(0.5)])
    if args.plot:
        _draw_forecasts(args, every, found, quantiles)
        _wrote("figure", args.plot)
    return 0


@dataclass
class _OneSeries:
    """Of a table: values [T], columns [T, F] and [T, P], times [T] or steps; and of the steps to come [horizon]."""

    name: str
    y: np.ndarray
    known: np.ndarray
    past: np.ndarray
    times: np.ndarray | None
    future: np.ndarray          # known columns [horizon, F]
    ahead: np.ndarray           # times, or numbers of steps from 1


def _every_series(args):
    """The series of a table, one after the other, in the order of their first rows."""
    table = tables.read(args.file)
    y, known, past = (_matrix(table, names, option) for names, option in (
        (args.target, "--target"), (args.known, "--known"), (args.past, "--past")))
    times = None if args.time is None else table.times(args.time, "--time")
    cells = table.column(args.series, "--series") if args.series else [""] * len(table)
    names = np.array(list(map(str, cells)))
    for name in dict.fromkeys(names.tolist()):
        rows = np.flatnonzero(names == name)
        if times is not None:
            rows = rows[np.argsort(times[rows], kind="stable")]
        for n, target in enumerate(args.target):
            label = name if args.series else target
            there = np.flatnonzero(~np.isnan(y[rows, n]))
            if not len(there):
                raise tables.TableError(f"{args.file}: series {label!r} has no value")
            T = there[-1] + 1 if args.known else len(rows)
            now, later = rows[:T], rows[T:T + args.horizon]
            if args.known and len(later) < args.horizon:
                raise tables.TableError(f"{args.file}: series {label!r} has {len(later)} rows after its last value, "
                                        f"expected --horizon {args.horizon} of them with the --known columns")
            ahead = T + 1 + np.arange(args.horizon)
            if times is not None:
                with _of(args.file):
                    clock, at = Clock.of(times[now], f"--time, series {label!r}")
                    ahead = clock.at(at[-1] + 1 + np.arange(args.horizon))
            yield _OneSeries(label, y[now, n], known[now], past[now], None if times is None else times[now],
                             known[later], ahead)


def _arguments(every, steps=slice(None)):
    """Series as ``fit`` takes them, or some of their steps."""
    def parts(name):
        return [getattr(one, name)[steps] for one in every]

    with_known, with_past, with_times = every[0].known.shape[1], every[0].past.shape[1], every[0].times is not None
    return {"X": parts("known") if with_known else None, "y": parts("y"), "past": parts("past") if with_past else None,
            "times": parts("times") if with_times else None}


def _report(backtest):
    """Errors beside those of naive forecasts, over all steps of the horizon, and how much the quantiles cover."""
    scores = backtest.scores()
    width, measures = max(map(len, scores)), list(next(iter(scores.values())))
    print(" " * width + "".join(f"{measure:>12}" for measure in measures))
    for name, one in scores.items():
        print(f"{name:{width}}" + "".join(f"{one[measure]:12.4g}" for measure in measures))
    if backtest.quantiles:
        print("values at or below quantile " + ", ".join(f"{q:g}: {share:.1%}" for q, share in
                                                         backtest.coverage().items()))


def _forecast_columns(args, every, found, quantiles):
    """Column by column: series (if there is such a column), time or step, forecast, quantiles."""
    width = 1 if args.series else len(args.target)          # targets stand side by side
    columns = {args.series: np.repeat([one.name for one in every], args.horizon)} if args.series else {}
    columns[args.time or "step"] = np.concatenate([one.ahead for one in every[::width]])
    for n, target in enumerate(args.target):
        of_target = found[n::width]
        columns[target] = of_target[..., quantiles.index(0.5)].ravel()
        if len(quantiles) > 1:
            columns |= {f"{target}_q{q:g}": of_target[..., i].ravel() for i, q in enumerate(quantiles) if q != 0.5}
    return columns


def _print_forecasts(every, found, shown_series=5):
    for one, forecasts in list(zip(every, found, strict=True))[:shown_series]:
        print(f"{shown(one.name)}:")
        ahead = map(str, one.ahead) if one.times is None else tables.told(one.ahead)
        for when, value in zip(ahead, forecasts, strict=True):
            print(f"  {when:>16}  {value:.6g}")
    if len(every) > shown_series:
        print(f"and {len(every) - shown_series} series more: --out writes them all")


def _draw_forecasts(args, every, found, quantiles, most=4):
    """The ends of the first series, their forecasts, and the outermost quantiles as a band."""
    some = every[:most]
    figure = new_figure("--plot", 9, 2.6 * len(some) + 0.6)
    for axes, one, forecasts in zip(figure.subplots(len(some), 1, squeeze=False)[:, 0], some, found, strict=False):
        last = max(4 * args.horizon, 50)
        when = (np.arange(len(one.y)) + 1 if one.times is None else one.times)[-last:]
        axes.plot(when, one.y[-last:], color="0.2", linewidth=1.2, label=one.name)
        if len(quantiles) > 1:
            axes.fill_between(one.ahead, forecasts[:, 0], forecasts[:, -1], color="C3", alpha=0.2, linewidth=0,
                              label=f"{quantiles[0]:g} to {quantiles[-1]:g}")
        axes.plot(one.ahead, forecasts[:, quantiles.index(0.5)], color="C3", label="forecast")
        _by_time(axes, one.ahead)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    figure.savefig(args.plot, dpi=130)


def _by_time(axes, when):
    """Short dates along the axis, where it has dates."""
    if when.dtype.kind == "M":
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
        locator = AutoDateLocator()
        axes.xaxis.set(major_locator=locator, major_formatter=ConciseDateFormatter(locator))


# ---- detect -------------------------------------------------------------------------------------

def main_detect(argv):
    """Scores every row of a table as it would have been live; see ``python -m fastrnn detect --help``."""
    parser = _parser("detect", "FILE [options]", """\
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
    _outputs(args, out=TABLES, plot=PICTURES)

    from .anomaly import RNNAnomalyDetector
    table = tables.read(args.file)
    names = args.columns or _numeric(table, but=(args.time,))
    x = _matrix(table, names, "--columns")
    when = np.arange(len(x)) + 1 if args.time is None else table.times(args.time, "--time")
    if args.fit >= len(x):
        raise tables.TableError(f"{args.file}: {len(x)} rows, and --fit {args.fit} of them are asked for")
    detector = RNNAnomalyDetector(args.cell.upper(), args.hidden, epochs=args.epochs if args.fit else 0,
                                  margin=None if math.isinf(args.margin) else args.margin, random_state=args.seed)
    scores, blame = np.zeros(len(x)), {}
    with _of(args.file):
        if args.fit:
            detector.fit(x[:args.fit])
        for row in _progress(range(args.fit, len(x)), "rows"):
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
        _wrote("scores", args.out)
    if args.plot:
        _draw_scores(args, names, x, when, scores, blame)
        _wrote("figure", args.plot)
    return 0


def _progress(items, unit):
    """The items, one by one: tqdm's bar where it is installed, else ten plain lines where it takes long."""
    try:
        from tqdm import tqdm
    except ImportError:
        tenth = max(20_000, -(-len(items) // 10))
        for done, item in enumerate(items):
            if done and done % tenth == 0:
                print(f"{done} of {len(items)} {unit}", flush=True)
            yield item
    else:
        yield from tqdm(items, desc="watching", unit=f" {unit}", mininterval=0.2)


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
    _by_time(below, when)
    for axes in (*above, below):
        axes.grid(alpha=0.25)
    figure.savefig(args.plot, dpi=130)


# ---- gradients ----------------------------------------------------------------------------------

def main_gradients(argv):
    """The gradient flow of a model in a file, or of fresh layers; see ``python -m fastrnn gradients --help``."""
    parser = _parser("gradients", "[FILE] [options]", """\
Prints the norm of dL/dh_t over the steps t, layer by layer, and of the steps' Jacobians: whether the gradient vanishes,
explodes or lasts. L is the sum of the outputs at the last step. Of a model file of any format that fastrnn reads, or of
fresh layers of every kind. Input: normal random numbers, or rows of a table.""",
                     "gradients --length 200 --hidden 64 --forget-bias 3 --plot gradients.png",
                     "gradients model.npz --data series.csv --columns temperature --out gradients.csv")
    parser.add_argument("file", metavar="FILE", nargs="?", help="a model; without it, fresh layers are looked at")
    parser.add_argument("--layer", metavar="NAME", help="which of the file's layers, by the name that inspect shows; "
                                                        "needed where it has several")
    parser.add_argument("--cell", nargs="+", choices=("rnn", "gru", "lstm"), default=["rnn", "gru", "lstm"],
                        help="kinds of fresh layers (all three)")
    parser.add_argument("--hidden", type=positive(int), default=32, help="their hidden size (32)")
    parser.add_argument("--layers", type=positive(int), default=1, help="how many are stacked (1)")
    parser.add_argument("--inputs", type=positive(int), default=1, help="their input size (1)")
    parser.add_argument("--forget-bias", type=float, default=0.0, metavar="B",
                        help="added to the biases of an LSTM's forget gates and a GRU's update gates (0)")
    parser.add_argument("--length", type=positive(int), default=100, help="steps (100)")
    parser.add_argument("--rows", type=positive(int), default=4, help="sequences, where the input is random (4)")
    parser.add_argument("--data", metavar="TABLE", help="the input: the last --length rows of a table (see --columns)")
    parser.add_argument("--columns", nargs="+", metavar="COL", help="its columns (all that are numbers)")
    parser.add_argument("--seed", type=natural, default=0, help="of fresh weights and random input (0)")
    parser.add_argument("--plot", metavar="OUT.png", help="draw them")
    parser.add_argument("--out", metavar="OUT.csv", help="write every norm, by step: .csv or .json")
    args = parser.parse_args(argv)
    if not math.isfinite(args.forget_bias):
        parser.error(f"argument --forget-bias: expected a finite number, got {args.forget_bias}")
    _outputs(args, plot=PICTURES, out=TABLES)

    from .diagnostics import GradientFlow, gradient_flow, over_rows
    rng, x = np.random.default_rng(args.seed), None
    if args.data is not None:
        x = _last_rows(args.data, args.columns, args.length)[:, None]
        args.inputs = x.shape[2]
    models = _fresh_layers(args, rng) if args.file is None else {"": _model(parser, args.file, args.layer)}
    flows = {}
    for name, model in models.items():
        given = _random_input(model, args.length, args.rows, args.seed) if x is None else x.astype(model.dtype)
        with _of(args.data or args.file):
            found = gradient_flow(model, given.swapaxes(0, 1) if getattr(model, "batch_first", False) else given)
        flows |= {f"{name} {part}".strip(): flow for part, flow in found.layers.items()}
    flow = GradientFlow(flows)
    print(flow)
    if args.out:
        columns = {"step": np.arange(len(given))}
        for name, one in flows.items():
            parts = {"dL/dh": one.hidden, "dL/dc": one.cell, "jacobian": one.jacobian}
            columns |= {f"{name} {what}": over_rows(norms) for what, norms in parts.items() if norms is not None}
        tables.write(args.out, columns)
        _wrote("norms", args.out)
    if args.plot:
        flow.plot()[0].figure.savefig(args.plot, dpi=130)
        _wrote("figure", args.plot)
    return 0


def _last_rows(path, names, length):
    """The last rows of a table's columns [length, columns], none of them missing."""
    table = tables.read(path)
    x = _matrix(table, names or _numeric(table), "--columns")[-length:]
    if len(x) < length:
        raise tables.TableError(f"{path}: {len(x)} rows, and --length {length} of them are asked for")
    if np.isnan(x).any():
        raise tables.TableError(f"{path}: values are missing in the last {length} rows")
    return x


def _fresh_layers(args, rng):
    from . import layers
    found = {}
    for kind in args.cell:
        layer = getattr(layers, kind.upper())(args.inputs, args.hidden, args.layers, rng=rng)
        if kind != "rnn":
            with layer.updating() as p:             # LSTM: gates i, f, g, o; GRU: r, z, n
                for number in range(args.layers):
                    p[f"bias_ih_l{number}"][args.hidden:2 * args.hidden] += args.forget_bias
        found[kind] = layer
    return found


def _model(parser, path, name):
    """A model that fastrnn saved, or the one recurrent layer of any other file that is named."""
    from . import files, interop
    if interop.detect(path) in ("npz", "safetensors") and name is None:
        with contextlib.suppress(ValueError):       # not fastrnn's own, or broken, which interop says as well
            return files.load(path)
    layers = interop.layers(path)
    if name is None and len(layers) == 1:
        return next(iter(layers.values()))
    if name not in layers:
        wrong = "expected the name of a layer" if name is None else f"there is no layer {name!r}"
        parser.error(f"--layer: {wrong}; {shown(path)} has {', '.join(map(shown, map(repr, layers))) or 'none'}")
    return layers[name]


def _random_input(model, length, rows, seed):
    """What a model reads, at random: normal numbers, or whole ones for an Embedding."""
    from .modules import Embedding, sizes
    first, rng = model, np.random.default_rng(seed)
    while hasattr(first, "modules"):
        first = first.modules[0]
    if isinstance(first, Embedding):
        return rng.integers(0, first.num_embeddings, (length, rows))
    return rng.standard_normal((length, rows, sizes(first)[0])).astype(model.dtype)


# ---- train --------------------------------------------------------------------------------------

def main_train(argv):
    """Trains a small sequence model on a table; see ``python -m fastrnn train --help``."""
    parser = _parser("train", "FILE --target COL ... [options]", """\
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
    _outputs(args, out=MODELS, plot=PICTURES)

    from . import layers, losses, optim, training
    from .modules import Linear, Sequential
    table = tables.read(args.file)
    inputs = args.inputs or _numeric(table)
    x, y = _matrix(table, inputs, "--inputs"), _matrix(table, args.target, "--target")
    x, y, now = x[:-args.ahead], y[args.ahead:], y[:-args.ahead]
    held = args.held_out or len(x) // 5
    seen = len(x) - held
    if seen < 2 * args.stretches or not held:
        raise tables.TableError(f"{args.file}: {len(table)} rows are too few for {args.stretches} stretches to train "
                                f"on, with {held} rows held out and {args.ahead} ahead")
    scales = [_scale(table, names, a[:seen]) for names, a in ((inputs, x), (args.target, y))]
    (x, _), (y, y_there) = (_scaled(table, *parts) for parts in ((inputs, x, *scales[0]), (args.target, y, *scales[1])))

    rng = np.random.default_rng(args.seed)
    model = Sequential(getattr(layers, args.cell.upper())(len(inputs), args.hidden, args.layers, rng=rng),
                       Linear(args.hidden, len(args.target), rng=rng))
    stretches = [np.array_split(a[:seen], args.stretches) for a in (x, y, y_there)]
    updates = -(-len(stretches[0][0]) // args.window)
    before = max(0, seen - args.window)                     # read before the first that is held out, and not counted
    counted = y_there[before:] * (np.arange(before, len(x)) >= seen)[:, None]
    with _of(args.file):
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
        _wrote("model", args.out)
    if args.plot:
        ax = new_figure("--plot", 7, 4).add_subplot()
        history.plot(ax).figure.savefig(args.plot, dpi=130)
        _wrote("figure", args.plot)
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
