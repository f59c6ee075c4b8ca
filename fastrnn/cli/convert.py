"""``fastrnn convert``: writes a recurrent layer of a model file in another format."""

import os

from .. import interop
from .._base.reading import ModelFormatError
from .models import model_parser, read_layers
from .parser import shown

ENDINGS = (".safetensors", ".npz", ".onnx")


def main(argv):
    """Writes one layer of a file to another one."""
    parser = model_parser("convert", "Writes a recurrent layer of a model file to a file of another format.",
                     "convert model.pt encoder.safetensors --layer encoder.lstm\n"
                     "  python -m fastrnn convert model.pt layer.onnx")
    parser.add_argument("out", metavar="OUT", help=f"its ending tells the format: {', '.join(ENDINGS)}")
    parser.add_argument("--layer", metavar="NAME", help="which one, by the name that inspect shows; needed where the "
                                                        "file has several")
    args = parser.parse_args(argv)
    if os.path.splitext(args.out)[1].lower() not in ENDINGS:
        parser.error(f"OUT: expected a name that ends in one of {', '.join(ENDINGS)}, got {args.out!r}")
    _, layers, skipped = read_layers(parser, args)
    if args.layer in skipped:
        raise ModelFormatError(f"{args.file}: {args.layer} cannot be represented: {skipped[args.layer]}")
    if args.layer is not None and args.layer not in layers:
        parser.error(f"--layer: {args.file} has no layer {args.layer!r} that can be written; it has "
                     + (", ".join(map(shown, map(repr, layers))) or "none"))
    if not layers:
        raise ModelFormatError(f"{args.file}: no recurrent layer" + "".join(
            f"; {name or 'one'} cannot be represented: {reason}" for name, reason in skipped.items()))
    if args.layer is None and len(layers) > 1:
        parser.error(f"--layer: {args.file} has several, choose one of {', '.join(map(shown, map(repr, layers)))}")
    name = next(iter(layers)) if args.layer is None else args.layer
    if args.out.lower().endswith(".onnx"):
        try:
            interop.onnx.export(layers[name], args.out)
        except (TypeError, ValueError) as error:
            raise ModelFormatError(f"{args.out}: {layers[name]!r} cannot be written as ONNX: {error}") from None
    else:
        layers[name].save(args.out)
    print(shown(f"{args.out}: {layers[name]!r}" + f", {name}" * bool(name)))
    return 0
