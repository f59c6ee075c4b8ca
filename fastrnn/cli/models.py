"""What ``inspect`` and ``convert`` share: reading the layers of a model file of any format."""

import json
import re

from .. import interop
from .._base.reading import ModelFormatError
from .parser import Parser, shown


def model_parser(command, description, example):
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


def read_layers(parser, args):
    """The file's format, its layers, and name -> reason of those it has beside them."""
    options = dict(args.option)
    if args.nonlinearity:
        options["nonlinearity"] = args.nonlinearity
    if args.batch_first:
        options["batch_first"] = True
    kind, skipped = interop.detect(args.file), {}
    try:
        return kind, interop.layers(args.file, skipped, **options), skipped
    except ModelFormatError:
        raise
    except (TypeError, ValueError) as error:    # from the options: whatever a file has in it is a ModelFormatError
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        parser.error(f"{interop.FORMATS[kind]}: " + (f"there is no option {unknown[1]}" if unknown else shown(error)))


def parameter_count(layer):
    return sum(a.size for a in layer.parameters.values())
