"""``fastrnn gradients``: how far back gradients reach, in a model file or in fresh layers."""

import contextlib
import math

import numpy as np

from .. import interop
from ..diagnostics import GradientFlow, gradient_flow, over_rows
from ..nn import Embedding, files, recurrent
from ..nn.modules import sizes
from . import tables
from .common import PICTURES, TABLES, check_outputs, matrix, numeric_columns, of_table, table_parser, wrote
from .parser import natural, positive, shown


def main(argv):
    """The gradient flow of a model in a file, or of fresh layers; see ``python -m fastrnn gradients --help``."""
    parser = table_parser("gradients", "[FILE] [options]", """\
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
    check_outputs(args, plot=PICTURES, out=TABLES)

    rng, x = np.random.default_rng(args.seed), None
    if args.data is not None:
        x = _last_rows(args.data, args.columns, args.length)[:, None]
        args.inputs = x.shape[2]
    models = _fresh_layers(args, rng) if args.file is None else {"": _model(parser, args.file, args.layer)}
    flows = {}
    for name, model in models.items():
        given = _random_input(model, args.length, args.rows, args.seed) if x is None else x.astype(model.dtype)
        with of_table(args.data or args.file):
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
        wrote("norms", args.out)
    if args.plot:
        flow.plot()[0].figure.savefig(args.plot, dpi=130)
        wrote("figure", args.plot)
    return 0


def _last_rows(path, names, length):
    """The last rows of a table's columns [length, columns], none of them missing."""
    table = tables.read(path)
    x = matrix(table, names or numeric_columns(table), "--columns")[-length:]
    if len(x) < length:
        raise tables.TableError(f"{path}: {len(x)} rows, and --length {length} of them are asked for")
    if np.isnan(x).any():
        raise tables.TableError(f"{path}: values are missing in the last {length} rows")
    return x


def _fresh_layers(args, rng):
    found = {}
    for kind in args.cell:
        layer = getattr(recurrent, kind.upper())(args.inputs, args.hidden, args.layers, rng=rng)
        if kind != "rnn":
            with layer.updating() as p:             # LSTM: gates i, f, g, o; GRU: r, z, n
                for number in range(args.layers):
                    p[f"bias_ih_l{number}"][args.hidden:2 * args.hidden] += args.forget_bias
        found[kind] = layer
    return found


def _model(parser, path, name):
    """A model that fastrnn saved, or the one recurrent layer of any other file that is named."""
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
    first, rng = model, np.random.default_rng(seed)
    while hasattr(first, "modules"):
        first = first.modules[0]
    if isinstance(first, Embedding):
        return rng.integers(0, first.num_embeddings, (length, rows))
    return rng.standard_normal((length, rows, sizes(first)[0])).astype(model.dtype)
