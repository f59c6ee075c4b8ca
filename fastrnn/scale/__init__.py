"""Beyond one machine's memory, or one process: many series, partition by partition.

``partition`` cuts a table of any size into files of whole series. ``partitions`` has it, ``sources`` how partitions are
read.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .partitions import partition

__all__ = ["partition"]

# Where each name is: a module is imported when one of its names is first asked for.
_HOMES = {"partition": "partitions"}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        globals()[name] = getattr(importlib.import_module("." + _HOMES[name], __name__), name)
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
