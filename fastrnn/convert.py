"""``python -m fastrnn inspect`` and ``convert``: what recurrent layers a file holds, and a way into other formats."""

import json
import os
import re

from . import files, interop
from .cli import Parser, shown

ENDINGS = (".safetensors", ".npz", ".onnx")


def _parser(command, description, example):
    parser = Parser(command, "\n".join([description, "The format is told from the contents:",
                                        *("  " + about for about in interop.FORMATS.values())]),
                    "example:\n  python -m fastrnn " + example)
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--nonlinearity", choices=("tanh", "relu"), help="of plain RNNs, where the file does not tell")
    parser.add_argument("--batch-first", action="store_true", help="layers that take [N, T, I], where the file does "
                                                                    "not tell")
    parser.add_argument("--option", metavar="NAME=VALUE", action="append", default=[], type=_option,
                        help="another option of the format's layers() or of the layers themselves, such as "
                             "recurrent_activation=hard_sigmoid or dropout=0.5; VALUE is JSON or plain text")
    return parser


def _option(text):
    name, equals, value = text.partition("=")
    if not name.isidentifier() or not equals:
        raise ValueError
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


_option.__name__ = "NAME=VALUE"                 # argparse says "invalid NAME=VALUE value: 'x'"


def _read(parser, args):
    """The file's format, its layers, and name -> reason of those it has beside them."""
    options = dict(args.option)
    if args.nonlinearity:
        options["nonlinearity"] = args.nonlinearity
    if args.batch_first:
        options["batch_first"] = True
    kind, skipped = interop.detect(args.file), {}
    try:
        return kind, interop.layers(args.file, skipped, **options), skipped
    except files.ModelFormatError:
        raise
    except (TypeError, ValueError) as error:    # from the options: whatever a file has in it is a ModelFormatError
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        parser.error(f"{interop.FORMATS[kind]}: " + (f"there is no option {unknown[1]}" if unknown else shown(error)))


def _count(layer):
    return sum(a.size for a in layer.parameters.values())


def main_inspect(argv):
    """Lists the recurrent layers of a file; ``--json`` for machines."""
    parser = _parser("inspect", "Lists the recurrent layers that a model file holds.", "inspect model.safetensors")
    parser.add_argument("--json", action="store_true", help="for machines: every option, every parameter's shape")
    args = parser.parse_args(argv)
    kind, layers, skipped = _read(parser, args)
    if args.json:
        print(json.dumps({"file": args.file, "format": kind, "layers": {
            name: files.configuration(layer) | {
                "parameters": {key: a.shape for key, a in layer.parameters.items()}, "parameter_count": _count(layer)}
            for name, layer in layers.items()}, "skipped": skipped}, indent=2))
        return 0
    print(shown(f"{args.file}: {interop.FORMATS[kind]}"))
    rows = [(shown(name) or "(no name)", repr(layer), layer.dtype.name, f"{_count(layer):,}")
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


def main_convert(argv):
    """Writes one layer of a file to another one."""
    parser = _parser("convert", "Writes a recurrent layer of a model file to a file of another format.",
                     "convert model.pt encoder.safetensors --layer encoder.lstm\n"
                     "  python -m fastrnn convert model.pt layer.onnx")
    parser.add_argument("out", metavar="OUT", help=f"its ending tells the format: {', '.join(ENDINGS)}")
    parser.add_argument("--layer", metavar="NAME", help="which one, by the name that inspect shows; needed where the "
                                                        "file has several")
    args = parser.parse_args(argv)
    if os.path.splitext(args.out)[1].lower() not in ENDINGS:
        parser.error(f"OUT: expected a name that ends in one of {', '.join(ENDINGS)}, got {args.out!r}")
    _, layers, skipped = _read(parser, args)
    if args.layer in skipped:
        raise files.ModelFormatError(f"{args.file}: {args.layer} cannot be represented: {skipped[args.layer]}")
    if args.layer is not None and args.layer not in layers:
        parser.error(f"--layer: {args.file} has no layer {args.layer!r} that can be written; it has "
                     + (", ".join(map(shown, map(repr, layers))) or "none"))
    if not layers:
        raise files.ModelFormatError(f"{args.file}: no recurrent layer" + "".join(
            f"; {name or 'one'} cannot be represented: {reason}" for name, reason in skipped.items()))
    if args.layer is None and len(layers) > 1:
        parser.error(f"--layer: {args.file} has several, choose one of {', '.join(map(shown, map(repr, layers)))}")
    name = next(iter(layers)) if args.layer is None else args.layer
    if args.out.lower().endswith(".onnx"):
        try:
            interop.onnx.export(layers[name], args.out)
        except (TypeError, ValueError) as error:
            raise files.ModelFormatError(f"{args.out}: {layers[name]!r} cannot be written as ONNX: {error}") from None
    else:
        layers[name].save(args.out)
    print(shown(f"{args.out}: {layers[name]!r}" + f", {name}" * bool(name)))
    return 0
