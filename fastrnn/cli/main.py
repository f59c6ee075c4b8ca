"""The command line: finds the command, runs it, and turns every way in which it ends into an exit code."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence

import fastrnn

from .._base.reading import ModelFormatError
from .parser import Parser, closest, note, printable, program
from .tables import TableError

COMMANDS = {
    "demo": "train on a year of weather, forecast held-out weeks, stream them hour by hour",
    "bench": "time this machine: steps, sequences and training beside NumPy (and torch, if installed)",
    "forecast": "forecast columns of a table (CSV, Parquet, .xlsx), beside naive forecasts",
    "fit": "train a forecaster on the columns of a table, and save it",
    "predict": "forecast by a saved forecaster, of the table it was fitted on or a later one",
    "detect": "score every row of a table by how unusual it is, as a live stream would be",
    "train": "train a small sequence model on a table, with checkpoints, and save it",
    "gradients": "show how far back gradients reach, in a model file or in fresh layers of every kind",
    "inspect": "list the recurrent layers that a model file of any framework holds",
    "convert": "write a recurrent layer of a model file as .safetensors, .npz or .onnx",
    "quantize": "make a model of narrow weights of a model file, for inference, and report what that costs",
    "info": "print versions, instruction sets and threads (for bug reports), and where the example data is",
}
INTERRUPTED, BROKEN_PIPE = 130, 141     # 128 + the signal's number, as shells report SIGINT and SIGPIPE


def command(name: str) -> Callable[[Sequence[str]], int]:
    """Import a command's module and return its function: arguments in, exit code out."""
    run: Callable[[Sequence[str]], int] = importlib.import_module(f".{name}", __package__).main
    return run


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Command and its arguments; those of the process if not given.

    Returns
    -------
    int
        Exit code: 0 done; 1 a file could not be read or written, or is broken; 2 wrong arguments; 130 interrupted by
        Ctrl-C; 141 whoever read the output closed it, as ``head`` does.

    Examples
    --------
    >>> from fastrnn.cli import main
    >>> main(["inspect", "there_is_no_such_file.onnx"])     # the message goes to standard error
    1
    """
    try:
        try:
            return _main(sys.argv[1:] if argv is None else list(argv))
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE


def _main(argv: list[str]) -> int:
    width = max(map(len, COMMANDS))
    parser = Parser("", "Fast recurrent networks on a CPU: what can be run from the command line.",
                    ["demo --updates 200 --plot demo.png", "forecast --help"],
                    notes="\n".join(["commands:", *(f"  {name:{width}}  {about}" for name, about in COMMANDS.items())]))
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="one of those below; each has its own --help")
    parser.add_argument("--version", action="version", version=f"fastrnn {fastrnn.__version__}",
                        help="print the version of fastrnn and exit")
    if not argv:
        parser.print_help()
        return 0
    name = parser.parse_options(argv[:1]).command
    if name not in COMMANDS:
        suggestion = closest(name, COMMANDS)
        parser.error(f"there is no command {printable(name)!r}" + (
            f", did you mean {suggestion}?" if suggestion else f": expected one of {', '.join(COMMANDS)}"))
    try:
        with _warnings_as_notes():
            return command(name)(argv[1:])
    except KeyboardInterrupt:
        gc.freeze()         # the process ends sooner where nobody looks for garbage once more
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except MemoryError:
        print(f"{program()} {name}: there is not enough memory for this", file=sys.stderr)
        return 1
    except FileNotFoundError as error:
        print(f"{program()} {name}: {_no_such_file(error)}", file=sys.stderr)
        return 1
    except (OSError, ModelFormatError, TableError, ImportError) as error:
        print(f"{program()} {name}: {printable(error)}", file=sys.stderr)
        return 1


def _no_such_file(error: FileNotFoundError) -> str:
    """That there is no such file, and one of a similar name beside it."""
    path = str(error.filename or "")
    folder, file = os.path.split(path)
    beside = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
    suggestion = closest(file, beside) if file else None
    return f"No such file: {printable(path)!r}" + (
        f", did you mean {printable(os.path.join(folder, suggestion))!r}?" if suggestion else "")


@contextlib.contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Show what the estimators warn of, each warning once, as notes without the place in the program."""
    shown = set()

    def show(message: Warning | str, *place: object, **more: object) -> None:
        if str(message) not in shown:
            shown.add(str(message))
            note(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


def _discard_output() -> None:
    """Send what standard output still buffers to nowhere, so that the interpreter's last flush does not fail, too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
