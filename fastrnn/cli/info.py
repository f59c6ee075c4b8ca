"""``fastrnn info``: versions, instruction sets, threads, and where the example data is."""

from __future__ import annotations

from collections.abc import Sequence

from .._base.dispatch import show_config
from ..datasets import WEATHER
from .parser import Parser


def main(argv: Sequence[str]) -> int:
    """Print what ``fastrnn.show_config`` prints, and the path of the table of weather that ships with fastrnn."""
    parser = Parser("info", "Prints versions, instruction sets and threads (for bug reports), and where the table of "
                            "weather is\nthat ships with fastrnn, for examples.",
                    ["info", "FASTRNN_ISA=baseline info", "info --weather"])
    parser.add_argument("--weather", action="store_true", help="print the path of the table of weather and nothing "
                                                               "else, for use in other commands")
    args = parser.parse_options(argv)
    if args.weather:
        print(WEATHER)
    else:
        show_config()
        print(f"example data: {WEATHER}")
    return 0
