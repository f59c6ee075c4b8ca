"""What ``inspect``, ``convert`` and ``quantize`` share: reading the layers of a model file of any format."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from typing import Any

from .. import interop
from .._base.reading import ModelFormatError
from ..interop.conventions import Layer
from .parser import Parser, printable


def model_parser(command: str, description: str, examples: Sequence[str]) -> Parser:
    """A parser with the options that say how a model file is to be read."""
    parser = Parser(command, "\n".join([description, "The format is recognised by the file's contents:",
                                        *("  " + about for about in interop.FORMATS.values())]), examples,
                    notes="A model file to try it with: the first example of the command train writes model.npz.")
    parser.add_argument("file", metavar="FILE", help="the model file")
    parser.add_argument("--nonlinearity", choices=("tanh", "relu"),
                        help="of plain RNNs, where the file does not say it")
    parser.add_argument("--batch-first", action="store_true",
                        help="make layers that read [N, T, I], where the file does not say the order")
    parser.add_argument("--option", metavar="NAME=VALUE", action="append", default=[], type=_option,
                        help="another parameter of the format's layers() or of the layers themselves, such as "
                             "recurrent_activation=hard_sigmoid or dropout=0.5; VALUE is JSON or plain text")
    return parser


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name.isidentifier() or not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def read_layers(parser: Parser, args: argparse.Namespace) -> tuple[str, dict[str, Layer], dict[str, str]]:
    """Read a model file.

    Returns
    -------
    kind : str
        The file's format, a key of ``interop.FORMATS``.
    layers : dict of str to layer
        The recurrent layers by their names.
    skipped : dict of str to str
        The names of those that fastrnn cannot represent, and why.
    """
    options = dict(args.option)
    if args.nonlinearity:
        options["nonlinearity"] = args.nonlinearity
    if args.batch_first:
        options["batch_first"] = True
    kind = interop.detect(args.file)
    skipped: dict[str, str] = {}
    try:
        return kind, interop.layers(args.file, skipped, **options), skipped
    except ModelFormatError:
        raise
    except (TypeError, ValueError) as error:    # about the options: faults of the file are ModelFormatErrors
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        fault = f"there is no option {unknown[1]}" if unknown else printable(error)
        parser.error(f"{interop.FORMATS[kind]}: {fault}")


def parameter_count(layer: Layer) -> int:
    """How many numbers a layer's parameters are."""
    return sum(a.size for a in layer.parameters.values())


def chosen_layer(parser: Parser, args: argparse.Namespace, layers: dict[str, Layer], skipped: dict[str, str]) -> str:
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
