"""``fastrnn inspect``: the recurrent layers that a model file holds."""

import json

from .. import interop
from ..nn import files
from .models import model_parser, parameter_count, read_layers
from .parser import shown


def main(argv):
    """Lists the recurrent layers of a file; ``--json`` for machines."""
    parser = model_parser("inspect", "Lists the recurrent layers that a model file holds.", "inspect model.safetensors")
    parser.add_argument("--json", action="store_true", help="for machines: every option, every parameter's shape")
    args = parser.parse_args(argv)
    kind, layers, skipped = read_layers(parser, args)
    if args.json:
        print(json.dumps({"file": args.file, "format": kind, "layers": {
            name: files.configuration(layer) | {
                "parameters": {key: a.shape for key, a in layer.parameters.items()},
                "parameter_count": parameter_count(layer)}
            for name, layer in layers.items()}, "skipped": skipped}, indent=2))
        return 0
    print(shown(f"{args.file}: {interop.FORMATS[kind]}"))
    rows = [(shown(name) or "(no name)", repr(layer), layer.dtype.name, f"{parameter_count(layer):,}")
            for name, layer in layers.items()]
    if rows:
        rows.insert(0, ("name", "layer", "dtype", "parameters"))
        widths = [max(map(len, column)) for column in zip(*rows)]
        for name, layer, dtype, count in rows:
            print(f"  {name:{widths[0]}}  {layer:{widths[1]}}  {dtype:{widths[2]}}  {count:>{widths[3]}}")
    else:
        print("  no recurrent layer" + " that fastrnn has" * bool(skipped))
    for name, reason in skipped.items():
        print(f"  {shown(name) or '(no name)'} cannot be represented: {shown(reason)}")
    return 0
