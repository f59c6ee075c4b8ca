"""``fastrnn info``: versions, instruction sets and threads."""

from .._base.dispatch import show_config
from .parser import Parser


def main(argv):
    """Prints what ``fastrnn.show_config`` does."""
    Parser("info", "Prints versions, instruction sets and threads: what a bug report should bear.",
           "example:\n  python -m fastrnn info\n  FASTRNN_ISA=baseline python -m fastrnn info").parse_args(argv)
    show_config()
    return 0
