"""``fastrnn convert``: writes a recurrent layer of a model file in another format."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .. import interop
from .._base.reading import ModelFormatError
from .._base.writing import check_writable
from .models import chosen_layer, model_parser, read_layers
from .parser import printable

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
    check_writable(args.out)
    _, layers, skipped = read_layers(parser, args)
    name = chosen_layer(parser, args, layers, skipped)
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
