"""``fastrnn quantize``: makes a model of narrow weights of a model file, and reports what that saves and costs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

import fastrnn

from .._base import named_arrays
from .._base.reading import ModelFormatError, parse_npy, read_bytes, refusing
from .._base.registry import estimator_class, model_class
from .._base.writing import check_writable
from ..nn.quantized import PRECISIONS, Quantizable
from .models import chosen_layer, model_parser, read_layers
from .parser import Parser, printable


def main(argv: Sequence[str]) -> int:
    """Narrow the weights of a model file and write the result; ``fastrnn quantize --help`` lists the options."""
    parser = model_parser("quantize", "Makes a model of narrow weights, for inference, of a model file, and reports "
                                      "what that saves and costs.",
                          ["quantize model.npz narrow.npz", "quantize model.npz narrow.npz --data x.npy"])
    parser.add_argument("out", metavar="OUT", help="the file to write; it ends in .npz or .safetensors")
    parser.add_argument("--precision", choices=PRECISIONS, default=PRECISIONS[0],
                        help=f"the precision of the weights (default: {PRECISIONS[0]})")
    parser.add_argument("--data", metavar="X.npy", help="an input of the model, on which both models are compared")
    parser.add_argument("--layer", metavar="NAME", help="which layer, by the name that the command inspect shows; "
                                                        "needed where a file of another library has several")
    args = parser.parse_options(argv)
    try:
        named_arrays.ending(args.out)
    except ValueError as error:
        parser.error(f"argument OUT: {error}")
    check_writable(args.out)
    model = _model(parser, args)
    data = None if args.data is None else _array(args.data)
    try:
        narrow, report = fastrnn.quantize(model, args.precision, data=data)
    except (TypeError, ValueError) as error:
        parser.error(printable(f"{args.file}: {model!r}: {error}"))
    narrow.save(args.out)
    print(printable(f"{args.out}: {narrow!r}"))
    print(report)
    return 0


def _model(parser: Parser, args: argparse.Namespace) -> Any:
    """The whole model of a file of fastrnn's own; of others the one layer, or the one that --layer names."""
    if args.layer is None and os.path.splitext(args.file)[1].lower() in (".npz", ".safetensors"):
        metadata = named_arrays.read(args.file)[1]
        if metadata is not None:
            if estimator_class(metadata.get("class")) is not None:
                raise ModelFormatError(f"{args.file}: the precision of a {metadata['class']} is a parameter of its "
                                       "own, precision= in Python and --precision of the commands that make or use it")
            cls = model_class(metadata.get("class"))
            if cls is None or not issubclass(cls, Quantizable):
                raise ModelFormatError(f"{args.file}: a {printable(repr(metadata.get('class')))} cannot be quantized")
            return fastrnn.load(args.file)
    _, layers, skipped = read_layers(parser, args)
    return layers[chosen_layer(parser, args, layers, skipped)]


def _array(path: str) -> np.ndarray[Any, Any]:
    """The array of a .npy file; no code from it is run."""
    with refusing(path):
        return parse_npy(read_bytes(path), os.path.basename(path))
