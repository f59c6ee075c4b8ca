"""Beyond one machine's memory, or one process: many series, partition by partition; thousands of live streams.

``partition`` cuts a table of any size into files of whole series. ``forecast``, ``score`` and ``backtest`` work on them
in this process or on the workers of an executor, and go on where they were after a kill; ``fit`` trains one network on
all of them.

``many`` and ``fits`` have these functions, ``runs`` the run over all partitions, ``work`` what a worker does with one,
``tasks`` what it computes, ``draws`` what of a partition is trained on, ``reports`` what comes back. ``partitions``
makes partitions, ``sources`` reads them.

``StreamPool`` steps any of many live streams together: ``pool`` has it, ``members`` the states, ``stores`` where
evicted ones go, ``keys`` what they are called there.

``processes`` and ``mpi`` make ``training.fit`` run on several processes with the same bits; ``ranks`` has them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .fits import fit
    from .many import backtest, forecast, score
    from .partitions import partition
    from .pool import StreamPool
    from .ranks import mpi, processes
    from .reports import Failure, PartitionError, Report
    from .stores import FolderStore, MappingStore, RedisStore, SQLiteStore, Store

__all__ = ["forecast", "score", "fit", "backtest", "partition", "Report", "Failure", "PartitionError", "StreamPool",
           "processes", "mpi", "Store", "MappingStore", "FolderStore", "SQLiteStore", "RedisStore"]

# Where each name is: a module is imported when one of its names is first asked for.
_HOMES = {"forecast": "many", "score": "many", "fit": "fits", "backtest": "many", "partition": "partitions",
          "Report": "reports", "Failure": "reports", "PartitionError": "reports", "StreamPool": "pool",
          "processes": "ranks", "mpi": "ranks",
          **dict.fromkeys(("Store", "MappingStore", "FolderStore", "SQLiteStore", "RedisStore"), "stores")}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        globals()[name] = getattr(importlib.import_module("." + _HOMES[name], __name__), name)
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
