"""What the commands' parsers share: one-line errors, argument types, text that is safe to print."""

import argparse
import sys


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and whose help ends with an example laid out as written."""

    def __init__(self, command, description, example):
        super().__init__(prog=f"python -m fastrnn {command}".rstrip(), description=description, epilog=example,
                         formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (--help shows what is)\n")


def natural(text):
    """An argparse type: a whole number of at least 0."""
    if not text.isdecimal():
        raise ValueError
    return int(text)


def positive(kind):
    """An argparse type: a finite number of the kind (int or float) above 0."""
    def convert(text):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value
    convert.__name__ = f"positive {kind.__name__}"      # argparse says "invalid positive int value: '-3'"
    return convert


def shown(text):
    """A name or message of a file as a terminal may have it: one line, no control characters, in its encoding."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
