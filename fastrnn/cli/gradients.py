"""``fastrnn gradients``: how far back gradients reach, in a model file or in fresh layers."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .. import interop
from .._base.figures import new_figure
from ..diagnostics import GradientFlow, LayerFlow, gradient_flow, rms_over_rows
from ..nn import Embedding, Sequential, files, recurrent
from ..nn.modules import sizes
from ..nn.recurrent import Recurrent
from . import tables
from .common import (
    PICTURES,
    TABLES,
    add_random_state,
    add_reading_options,
    blame_table,
    check_outputs,
    check_reading,
    matrix,
    numeric_columns,
    read_table,
    report_written,
)
from .parser import CELLS, Parser, cell_name, finite_float, positive_int, printable


def main(argv: Sequence[str]) -> int:
    """Show the gradient flow of a model or of fresh layers; ``fastrnn gradients --help`` lists the options."""
    parser = _parser()
    args = parser.parse_options(argv)
    check_reading(parser, args)
    check_outputs(args, plot=PICTURES, out=TABLES)
    return _run(parser, args)


def _parser() -> Parser:
    parser = Parser("gradients", """\
Prints, layer by layer, the norm of dL/dh_t over the steps t and the norm of the steps' Jacobians: whether the gradient
vanishes, explodes or lasts. L is the sum of the outputs at the last step. Shows a model file of any format that fastrnn
reads or, without a FILE, fresh layers of every kind. The input is normal random numbers, or rows of a table.""",
                    ["gradients --length 200 --hidden-size 64 --forget-bias 3 --plot gradients.png",
                     "gradients --data weather --columns temperature_degC",
                     "gradients model.npz --data series.csv --columns temperature --out gradients.csv"],
                    usage="[FILE] [options]")
    parser.add_argument("file", metavar="FILE", nargs="?", help="a model file; without it, fresh layers are shown")
    parser.add_argument("--layer", metavar="NAME", help="which of the file's layers, by the name that the command "
                                                        "inspect shows; needed where the file has several")
    parser.add_argument("--cell", nargs="+", type=cell_name, default=list(CELLS), metavar="CELL",
                        help="kinds of fresh layers: rnn, gru, lstm, in any case (default: all three)")
    parser.add_argument("--hidden-size", type=positive_int, default=32, metavar="N",
                        help="size of fresh layers' hidden state (default: 32)")
    parser.add_argument("--num-layers", type=positive_int, default=1, metavar="N",
                        help="how many fresh layers are stacked (default: 1)")
    parser.add_argument("--input-size", type=positive_int, default=1, metavar="N",
                        help="numbers that a fresh layer reads at each step (default: 1; with --data: its columns)")
    parser.add_argument("--forget-bias", type=finite_float, default=0.0, metavar="B",
                        help="added to the biases of a fresh LSTM's forget gates and a GRU's update gates (default: 0)")
    parser.add_argument("--length", type=positive_int, default=100, metavar="STEPS",
                        help="steps of the input (default: 100)")
    parser.add_argument("--batch-size", type=positive_int, default=4, metavar="N",
                        help="sequences of random input (default: 4)")
    parser.add_argument("--data", metavar="TABLE", help="take the last --length rows of a table as the input")
    parser.add_argument("--columns", nargs="+", metavar="COL",
                        help="the table's columns to read (default: all that are numbers)")
    add_random_state(parser, "fresh weights and random input")
    parser.add_argument("--plot", metavar="OUT.png", help="draw the norms: .png, .svg or .pdf")
    parser.add_argument("--out", metavar="OUT.csv", help="write every norm, by step: .csv, .json, .jsonl or .parquet")
    add_reading_options(parser)
    return parser


def _run(parser: Parser, args: argparse.Namespace) -> int:
    rng, rows = np.random.default_rng(args.random_state), None
    if args.data is not None:
        rows = _last_rows(read_table(args, args.data), args.columns, args.length)[:, None]
        args.input_size = rows.shape[2]
    models = _fresh_layers(args, rng) if args.file is None else {"": _model(parser, args.file, args.layer)}
    flows: dict[str, LayerFlow] = {}
    for name, model in models.items():
        x = _random_input(model, args) if rows is None else rows.astype(model.dtype)
        with blame_table(args.data or args.file):
            flow = gradient_flow(model, x.swapaxes(0, 1) if getattr(model, "batch_first", False) else x)
        flows |= {f"{name} {layer}".strip(): norms for layer, norms in flow.layers.items()}
    whole = GradientFlow(flows)
    print(whole)
    if args.out:
        tables.write(args.out, _norm_columns(flows, args.length))
        report_written("norms", args.out)
    if args.plot:
        figure = new_figure("--plot", 8, 6)
        whole.plot(ax=figure.subplots(2, 1, sharex=True))
        figure.savefig(args.plot, dpi=130)
        report_written("figure", args.plot)
    return 0


def _norm_columns(flows: dict[str, LayerFlow], length: int) -> dict[str, npt.ArrayLike]:
    """The columns to write: the step, and every layer's norms, joined over the rows of the batch."""
    columns: dict[str, npt.ArrayLike] = {"step": np.arange(length)}
    for name, flow in flows.items():
        norms = {"dL/dh": flow.hidden, "dL/dc": flow.cell, "jacobian": flow.jacobian}
        columns |= {f"{name} {what}": rms_over_rows(values) for what, values in norms.items() if values is not None}
    return columns


# ---- Input ----------------------------------------------------------------------------------------

def _last_rows(table: tables.Table, names: list[str] | None, length: int) -> npt.NDArray[np.float64]:
    """The last rows of a table's columns [length, columns]; none of the values may be missing."""
    rows = matrix(table, names or numeric_columns(table), "--columns")[-length:]
    if len(rows) < length:
        raise tables.TableError(f"{table.path}: --length {length} needs as many rows, the table has {len(rows)}")
    if np.isnan(rows).any():
        raise tables.TableError(f"{table.path}: values are missing in the last {length} rows")
    return rows


def _random_input(model: Recurrent | Sequential, args: argparse.Namespace) -> npt.NDArray[Any]:
    """Input for a model [T, N, ...]: normal random numbers, or whole ones for an Embedding."""
    first: Any = model
    rng = np.random.default_rng(args.random_state)
    while hasattr(first, "modules"):
        first = first.modules[0]
    if isinstance(first, Embedding):
        return rng.integers(0, first.num_embeddings, (args.length, args.batch_size))
    width = cast(int, sizes(first)[0])          # None of an Embedding only
    return rng.standard_normal((args.length, args.batch_size, width)).astype(model.dtype)


# ---- Models ---------------------------------------------------------------------------------------

def _fresh_layers(args: argparse.Namespace, rng: np.random.Generator) -> dict[str, Recurrent]:
    """A layer of every kind that --cell names."""
    layers = {}
    for cell in args.cell:
        layer = getattr(recurrent, cell.upper())(args.input_size, args.hidden_size, args.num_layers, rng=rng)
        if cell != "rnn":
            with layer.updating() as p:             # LSTM: gates i, f, g, o; GRU: r, z, n
                for number in range(args.num_layers):
                    p[f"bias_ih_l{number}"][args.hidden_size:2 * args.hidden_size] += args.forget_bias
        layers[cell] = layer
    return layers


def _model(parser: Parser, path: str, name: str | None) -> Any:
    """The model in a file that fastrnn saved, or one recurrent layer of any other file."""
    if interop.detect(path) in ("npz", "safetensors") and name is None:
        with contextlib.suppress(ValueError):       # of another program, or broken: interop's error says which
            return files.load(path)
    layers = interop.layers(path)
    if name is None and len(layers) == 1:
        return next(iter(layers.values()))
    if name not in layers:
        fault = "expected the name of a layer" if name is None else f"there is no layer {name!r}"
        parser.error(f"argument --layer: {fault}; {printable(path)} has "
                     f"{', '.join(map(printable, map(repr, layers))) or 'none'}")
    return layers[name]
