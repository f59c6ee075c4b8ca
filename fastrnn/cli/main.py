"""The commands: ``python -m fastrnn demo | bench | ...``. Each loads its module only when it is called."""

import importlib
import sys

from .._base.reading import ModelFormatError
from .parser import Parser, shown
from .tables import TableError

COMMANDS = {
    "demo": "train on a year of weather, forecast held-out weeks, stream them hour by hour",
    "bench": "time this machine: steps, sequences and training beside NumPy (and torch, if installed)",
    "forecast": "forecast columns of a CSV or Parquet file, beside naive forecasts",
    "detect": "score every row of such a file by how unusual it is, as a live stream would be",
    "train": "train a small sequence model on such a file, with checkpoints, and save it",
    "gradients": "how far back gradients reach: of a model file, or of fresh layers of every kind",
    "inspect": "list the recurrent layers that a model file of any framework holds",
    "convert": "write a layer of such a file as .safetensors, .npz or .onnx",
    "info": "print versions, instruction sets and threads: what a bug report should bear",
}


def command(name):
    """The function of a command: takes its arguments, returns an exit code or None."""
    return importlib.import_module(f".{name}", __package__).main


def main(argv=None):
    """Runs a command.

    Parameters
    ----------
    argv : list of str, optional
        Command and its arguments; those of the process if not given.

    Returns
    -------
    int
        Exit code: 0 done, 1 a file could not be read or written, or is broken, 2 wrong arguments, 130 interrupted by
        Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    width = max(map(len, COMMANDS))
    parser = Parser("", "Recurrent networks on a CPU: what can be run from the command line.", "\n".join(
        ["commands:", *(f"  {name:{width}}  {about}" for name, about in COMMANDS.items()),
         "", "example:", "  python -m fastrnn demo --updates 200 --out demo.png", "  python -m fastrnn bench --help"]))
    parser.add_argument("command", nargs="?", metavar="{" + ",".join(COMMANDS) + "}",
                        help="see below; each has its own --help")
    if not argv:
        parser.print_help()
        return 0
    name = parser.parse_args(argv[:1]).command
    if name not in COMMANDS:
        parser.error(f"unknown command {name!r}: expected one of {', '.join(COMMANDS)}")
    try:
        return command(name)(argv[1:]) or 0
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    except (OSError, ModelFormatError, TableError, ImportError) as error:
        print(f"python -m fastrnn {name}: {shown(error)}", file=sys.stderr)
        return 1
