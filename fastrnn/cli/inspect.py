"""``fastrnn inspect``: the recurrent layers that a model file holds."""

from __future__ import annotations

import json
from collections.abc import Sequence

from .. import interop
from ..interop.conventions import Layer
from ..nn import files
from .models import model_parser, parameter_count, read_layers
from .parser import printable


def main(argv: Sequence[str]) -> int:
    """List the recurrent layers of a file; ``fastrnn inspect --help`` lists the options."""
    parser = model_parser("inspect", "Lists the recurrent layers that a model file holds.",
                          ["inspect model.npz", "inspect model.npz --json"])
    parser.add_argument("--json", action="store_true",
                        help="print JSON, with every option of the layers and the shapes of their parameters")
    args = parser.parse_options(argv)
    kind, layers, skipped = read_layers(parser, args)
    if args.json:
        print(json.dumps({"file": args.file, "format": kind, "layers": {
            name: files.configuration(layer) | {
                "parameters": {key: a.shape for key, a in layer.parameters.items()},
                "parameter_count": parameter_count(layer)}
            for name, layer in layers.items()}, "skipped": skipped}, indent=2))
        return 0
    print(printable(f"{args.file}: {interop.FORMATS[kind]}"))
    if layers:
        _print_layers(layers)
    else:
        print("  no recurrent layer" + " that fastrnn can represent" * bool(skipped))
    for name, reason in skipped.items():
        print(f"  {printable(name) or '(no name)'} cannot be represented: {printable(reason)}")
    return 0


def _print_layers(layers: dict[str, Layer]) -> None:
    rows = [("name", "layer", "precision", "parameters"),
            *((printable(name) or "(no name)", repr(layer), layer.precision, f"{parameter_count(layer):,}")
              for name, layer in layers.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, layer, precision, count in rows:
        print(f"  {name:{widths[0]}}  {layer:{widths[1]}}  {precision:{widths[2]}}  {count:>{widths[3]}}")
