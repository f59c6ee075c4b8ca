"""Process-wide choices: which instruction set's kernels run, and on how many threads."""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import os
import platform
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .cpus import usable_cpus
from .validation import size

if TYPE_CHECKING:
    from typing_extensions import CapsuleType

    Tables = dict[np.dtype[Any] | str, CapsuleType]         # kernel table of each dtype, and of narrow weights

# name -> its number in src/kernel/simd.h; the widest first
_NUMBERS = {"avx512": 3, "avx2": 2, "baseline": 1}
_HALF_A_VECTOR = 32         # bytes, of AVX-512


def _load(isa: str) -> Tables | None:
    """The kernel tables of one instruction set, as capsules; None where it was not built."""
    try:
        single, double = (importlib.import_module(f"fastrnn._{isa}_{name}") for name in ("float32", "float64"))
        return {np.dtype(np.float32): single.table, np.dtype(np.float64): double.table, "int8": single.int8_table,
                "bfloat16": single.bfloat16_table, "training in bfloat16": single.bfloat16_training_table}
    except ModuleNotFoundError:
        return None


# Only instruction sets that this CPU and operating system run are imported, since a module's initialisation may already
# use its instructions.
_tables: dict[str, Tables] = {isa: tables for isa, number in _NUMBERS.items()
                              if _core.isa_runs(number) and (tables := _load(isa))}
_active: str


def available_isas() -> list[str]:
    """List the instruction sets whose kernels this machine can run.

    Returns
    -------
    list of str
        Names among "avx512", "avx2" and "baseline", the widest first.

    Examples
    --------
    >>> import fastrnn
    >>> "baseline" in fastrnn.available_isas()
    True
    """
    return list(_tables)


def active_isa() -> str:
    """Tell which instruction set's kernels are in use.

    It is the widest that is available, or the one that the environment variable ``FASTRNN_ISA`` names when fastrnn is
    imported. If that one is not available, the import is a RuntimeError that lists those that are.

    Returns
    -------
    str
        One of ``available_isas()``.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.active_isa() in fastrnn.available_isas()
    True
    """
    return _active


def use_isa(isa: str) -> None:
    """Switch the kernels of this process; for tests and benchmarks. Existing streams keep theirs."""
    global _active
    if isa not in _tables:
        raise RuntimeError(f"FASTRNN_ISA: {isa!r} is not available here; available: {', '.join(_tables)}")
    _active = isa


def table(dtype: np.dtype[Any], precision: str | None = None) -> CapsuleType:
    """The kernel table of the active instruction set, for a dtype or for a narrower precision of its weights."""
    return _tables[_active][precision or dtype]


def layer_table(dtype: np.dtype[Any], hidden_size: int, precision: str | None = None) -> CapsuleType:
    """The kernel table for a recurrent layer of so many units.

    Where half of a vector of AVX-512 holds all units, AVX2 is taken: a vector without empty lanes costs half as much.
    The bits are the same, since one vector of units leaves no order of sums to choose, and both have FMA.
    """
    if _active == "avx512" and hidden_size * dtype.itemsize <= _HALF_A_VECTOR and "avx2" in _tables:
        return _tables["avx2"][precision or dtype]
    return _tables[_active][precision or dtype]


def row_table(dtype: np.dtype[Any], hidden_size: int) -> CapsuleType:
    """The kernel table for one row of a plain layer of so many units.

    AVX2 is taken, too, where three of its vectors hold all units, which fill one and a half of AVX-512. The bits are
    the same here as well: each sum has an order of its own, and both have FMA.
    """
    if _active == "avx512" and 2 * _HALF_A_VECTOR < hidden_size * dtype.itemsize <= 3 * _HALF_A_VECTOR \
            and "avx2" in _tables:
        return _tables["avx2"][dtype]
    return layer_table(dtype, hidden_size)


use_isa(os.environ.get("FASTRNN_ISA") or next(iter(_tables)))


# ---- Threads ------------------------------------------------------------------------------------

def _count_from_environment() -> int:
    """The number of threads at first: FASTRNN_NUM_THREADS, or else the usable CPUs."""
    text = os.environ.get("FASTRNN_NUM_THREADS")
    if not text:
        return usable_cpus()
    try:
        return size(int(text), "FASTRNN_NUM_THREADS")
    except ValueError:
        raise ValueError(f"FASTRNN_NUM_THREADS: expected a whole number of at least 1, got {text!r}") from None


_num_threads = _count_from_environment()
_override: contextvars.ContextVar[int | None] = contextvars.ContextVar("fastrnn_threads", default=None)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_core.forget_pool)


def set_num_threads(n: int) -> None:
    """Set how many threads a call may use, for the whole process.

    Results do not depend on it, bit for bit. A call, or a step of a stream, below the work at which threads pay runs on
    one thread whatever is set here.

    Parameters
    ----------
    n : int
        Number of threads, at least 1.

    Raises
    ------
    TypeError, ValueError
        The argument is no int, or less than 1.

    Examples
    --------
    >>> import fastrnn
    >>> before = fastrnn.get_num_threads()
    >>> fastrnn.set_num_threads(1)
    >>> fastrnn.get_num_threads()
    1
    >>> fastrnn.set_num_threads(before)
    """
    global _num_threads
    _num_threads = size(n, "num_threads")


def get_num_threads() -> int:
    """Tell how many threads a call may use.

    Unless it was set, this is the environment variable ``FASTRNN_NUM_THREADS``, or else the number of CPUs this process
    may use by its affinity and cgroup quota.

    Returns
    -------
    int
        Number of threads.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.get_num_threads() >= 1
    True
    """
    return _override.get() or _num_threads


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """Set how many threads calls may use within a ``with`` block, in this thread or task alone.

    Parameters
    ----------
    n : int
        Number of threads, at least 1.

    Yields
    ------
    None
        Nothing; the number before holds again after the block.

    Raises
    ------
    TypeError, ValueError
        The argument is no int, or less than 1.

    Examples
    --------
    >>> import fastrnn
    >>> with fastrnn.threads(1):
    ...     fastrnn.get_num_threads()
    1
    """
    token = _override.set(size(n, "num_threads"))
    try:
        yield
    finally:
        _override.reset(token)


def show_config() -> None:
    """Print versions, instruction sets and threads, as a bug report needs them.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.show_config()                   # doctest: +ELLIPSIS
    fastrnn ..., NumPy ..., Python ... on ...
    instruction set: ...
    threads: ...
    byte order: ..., float32 vector: ... elements
    int8 products: ...
    bfloat16 products: ...
    """
    from .. import __version__  # set before this module is imported
    print(f"fastrnn {__version__}, NumPy {np.__version__}, Python {platform.python_version()} on {platform.platform()}")
    print(f"instruction set: {active_isa()} (available: {', '.join(available_isas())}; environment FASTRNN_ISA: "
          f"{os.environ.get('FASTRNN_ISA', 'not set')})")
    print(f"threads: {get_num_threads()} (usable CPUs: {usable_cpus()}; environment FASTRNN_NUM_THREADS: "
          f"{os.environ.get('FASTRNN_NUM_THREADS', 'not set')}; Python threads now: {threading.active_count()})")
    print(f"byte order: {sys.byteorder}, float32 vector: {_core.vector_length(table(np.dtype(np.float32)))} elements")
    instruction = "vpdpbusd (AVX-512 VNNI)" if active_isa() == "avx512" else "sdot (ARM)"
    products = instruction if _core.use_dot(table(np.dtype(np.float32), "int8")) else "widened to int16"
    print(f"int8 products: {products}")
    products = "vdpbf16ps (AVX-512 BF16)" if _core.use_dot(table(np.dtype(np.float32), "bfloat16")) else \
        "widened to float32"
    print(f"bfloat16 products: {products}")
