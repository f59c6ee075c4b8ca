"""``fastrnn convert``: writes a recurrent layer of a model file in another format."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from .. import interop
from .._base.reading import ModelFormatError
from ..interop.conventions import Layer
from .models import model_parser, read_layers
from .parser import Parser, printable

ENDINGS = (".safetensors", ".npz", ".onnx")


def main(argv: Sequence[str]) -> int:
    """Write one layer of a model file to another file; ``fastrnn convert --help`` lists the options."""
    parser = model_parser("convert", "Writes a recurrent layer of a model file to a file of another format.",
                          ["convert model.npz layer.onnx", "convert model.pt encoder.safetensors --layer encoder.lstm"])
    parser.add_argument("out", metavar="OUT", help=f"the file to write; its ending says the format: "
                                                   f"{', '.join(ENDINGS)}")
    parser.add_argument("--layer", metavar="NAME", help="which layer, by the name that the command inspect shows; "
                                                        "needed where the file has several")
    args = parser.parse_options(argv)
    if os.path.splitext(args.out)[1].lower() not in ENDINGS:
        parser.error(f"argument OUT: expected a name that ends in one of {', '.join(ENDINGS)}, got {args.out!r}")
    _, layers, skipped = read_layers(parser, args)
    name = _chosen(parser, args, layers, skipped)
    layer = layers[name]
    if args.out.lower().endswith(".onnx"):
        try:
            interop.onnx.export(layer, args.out)
        except (TypeError, ValueError) as error:
            raise ModelFormatError(f"{args.out}: {layer!r} cannot be written as ONNX: {error}") from None
    else:
        layer.save(args.out)
    print(printable(f"{args.out}: {layer!r}" + f", {name}" * bool(name)))
    return 0


def _chosen(parser: Parser, args: argparse.Namespace, layers: dict[str, Layer], skipped: dict[str, str]) -> str:
    """The name of the layer that --layer names, or of the only one."""
    names = ", ".join(map(printable, map(repr, layers)))
    if args.layer in skipped:
        raise ModelFormatError(f"{args.file}: {args.layer} cannot be represented: {skipped[args.layer]}")
    if args.layer is not None and args.layer not in layers:
        parser.error(f"argument --layer: {args.file} has no layer {args.layer!r} that can be written; it has "
                     f"{names or 'none'}")
    if not layers:
        raise ModelFormatError(f"{args.file}: no recurrent layer" + "".join(
            f"; {name or 'one'} cannot be represented: {reason}" for name, reason in skipped.items()))
    if args.layer is None and len(layers) > 1:
        parser.error(f"argument --layer: {args.file} has several, choose one of {names}")
    return next(iter(layers)) if args.layer is None else str(args.layer)
