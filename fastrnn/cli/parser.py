"""Argument parsing shared by the commands: one-line errors, suggestions, argument types, text that is safe to print."""

from __future__ import annotations

import argparse
import difflib
import math
import os
import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn

CELLS = ("rnn", "gru", "lstm")
CHARACTERS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|", "space": " ", "point": ".",
              "apostrophe": "'"}

# Flags of other tools, by the name of the parameter that they set here.
OTHER_NAMES = {"--seed": "--random-state", "--lr": "--learning-rate", "--output": "--out", "--figure": "--plot",
               "--layers": "--num-layers", "--bptt": "--tbptt"}


def program() -> str:
    """What the user typed to start the program: ``fastrnn``, or ``python -m fastrnn``."""
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    return "fastrnn" if os.path.splitext(name)[0] in ("fastrnn", "fastrnn-script") else "python -m fastrnn"


def closest(name: str, names: Iterable[str]) -> str | None:
    """The name that `name` was most likely meant to be: one that has it as a part, else the most similar one."""
    names = list(names)
    if OTHER_NAMES.get(name) in names:
        return OTHER_NAMES[name]
    word = name.strip("-")
    longer = [other for other in names if word in other.strip("-").split("-")]
    return next(iter(longer + difflib.get_close_matches(name, names, n=1)), None)


class Parser(argparse.ArgumentParser):
    """An argument parser with one-line errors and examples at the end of its help.

    Parameters
    ----------
    command : str
        Name of the command; empty for the program itself.
    description : str
        What the command does.
    examples : sequence of str
        Command lines without the program's name, which is put before each. An example may begin with a variable of the
        environment, ``NAME=VALUE``.
    usage : str, optional
        What follows the command in the usage line. argparse would put a positional FILE last, after options that take
        any number of values and so would take the FILE, too.
    notes : str, optional
        Text between the options and the examples.
    """

    def __init__(self, command: str, description: str, examples: Sequence[str], *, usage: str | None = None,
                 notes: str = "") -> None:
        prog = f"{program()} {command}".rstrip()
        lines = ["examples:", *map(_example, examples)]
        super().__init__(prog=prog, usage=None if usage is None else f"%(prog)s {usage}", description=description,
                         epilog="\n".join([notes, "", *lines] if notes else lines),
                         formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)

    def parse_options(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse the arguments; a flag that does not exist is refused first, with the closest one that does."""
        for argument in argv:
            if argument == "--":                # what follows are no flags
                break
            flag = argument.partition("=")[0]
            if flag.startswith("--") and flag not in self._option_string_actions:
                suggestion = closest(flag, self._option_string_actions)
                self.error(f"there is no option {printable(flag)}"
                           + (f", did you mean {suggestion}?" if suggestion else ""))
        return self.parse_args(argv)

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 after one line that says what is wrong."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _example(line: str) -> str:
    """A line of the help: what a user would type, so that it can be copied into a shell."""
    first, _, others = line.partition(" ")
    return f"  {first} {program()} {others}" if "=" in first else f"  {program()} {line}"


def natural(text: str) -> int:
    """An argument type: a whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")
    return int(text)


def positive_int(text: str) -> int:
    """An argument type: a whole number of at least 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def season(text: str) -> int | None:
    """An argument type: a whole number of at least 2; "none" is None."""
    if text.lower() == "none":
        return None
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 2, or none, got {text!r}")
    return int(text)


def positive_float(text: str) -> float:
    """An argument type: a finite number above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a finite number above 0, got {text!r}")
    return value


def finite_float(text: str) -> float:
    """An argument type: a finite number."""
    value = _number(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text!r}")
    return value


def fraction(text: str) -> float:
    """An argument type: a number between 0 and 1."""
    value = _number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, got {text!r}")
    return value


def non_negative_float(text: str) -> float:
    """An argument type: a finite number of at least 0."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a finite number of at least 0, got {text!r}")
    return value


def margin(text: str) -> float:
    """An argument type: a number of at least 0, or infinity."""
    value = _number(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return value


def weight(text: str) -> float:
    """An argument type: a number from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value


def part(text: str) -> float:
    """An argument type: a number of at least 0 and below 1."""
    value = _number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0 and below 1, got {text!r}")
    return value


def share(text: str) -> float:
    """An argument type: a number above 0 and up to 1."""
    value = _number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and up to 1, got {text!r}")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}") from None


def character(text: str) -> str:
    """An argument type: one character, or the name of one that is awkward to type."""
    value = CHARACTERS.get(text.lower(), text)
    if len(value) != 1:
        raise argparse.ArgumentTypeError(f"expected one character or one of {', '.join(CHARACTERS)}, got {text!r}")
    return value


def encoding_name(text: str) -> str:
    """An argument type: the name of a text encoding that Python has."""
    try:
        "".encode(text)
    except (LookupError, UnicodeError, ValueError):
        raise argparse.ArgumentTypeError(f"expected the name of a text encoding such as cp1252, got {text!r}") from None
    return text


def cell_name(text: str) -> str:
    """An argument type: the name of a cell in any case; the result is in lower case."""
    name = text.lower()
    if name not in CELLS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(CELLS)} (in any case), got {text!r}")
    return name


def note(text: str) -> None:
    """Say on stderr how something that could be meant in several ways was understood."""
    if sys.stderr is not None:
        print(f"note: {printable(text)}", file=sys.stderr)


def printable(text: object) -> str:
    """A name or message out of a file as one line of text without control characters, in the terminal's encoding."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return line.encode(encoding, "backslashreplace").decode(encoding)
