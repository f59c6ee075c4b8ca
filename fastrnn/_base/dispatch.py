"""Process-wide choices: which instruction set's kernels run, and on how many threads."""

import contextlib
import contextvars
import importlib
import os
import platform
import sys
import threading

import numpy as np

from .. import _core
from .validation import size

# name -> its number in src/kernel/simd.h; the widest first
_NUMBERS = {"avx512": 3, "avx2": 2, "baseline": 1}


def _load(isa):
    """dtype -> capsule with the kernel table of one instruction set, or None where it was not built."""
    try:
        return {np.dtype(name): importlib.import_module(f"fastrnn._{isa}_{name}").table
                for name in ("float32", "float64")}
    except ModuleNotFoundError:
        return None


# Only what this CPU and operating system run is ever imported: a module's initialisation may use its instructions.
_tables = {isa: tables for isa, number in _NUMBERS.items() if _core.isa_runs(number) and (tables := _load(isa))}
_active = None


def available_isas():
    """The instruction sets whose kernels this machine can run, widest first.

    >>> "baseline" in available_isas()
    True
    """
    return list(_tables)


def active_isa():
    """The instruction set in use: the widest available, or the one named by the environment's ``FASTRNN_ISA``."""
    return _active


def use_isa(isa):
    """Switches the kernels of this process; for tests and benchmarks. Existing streams keep theirs."""
    global _active
    if isa not in _tables:
        raise RuntimeError(f"FASTRNN_ISA: {isa!r} is not available here; available: {', '.join(_tables)}")
    _active = isa


def table(dtype):
    """The kernel table of the active instruction set."""
    return _tables[_active][dtype]


use_isa(os.environ.get("FASTRNN_ISA") or next(iter(_tables)))


# ---- Threads ------------------------------------------------------------------------------------

def _words(path, separator=None):
    with open(path) as file:
        return file.read().split(separator)


def _cgroup_cpus():
    """CPUs granted by the cgroup quota of this process or of a group above it (Linux); infinity without one."""
    granted = float("inf")
    try:
        groups = _words("/proc/self/cgroup", "\n")
    except OSError:
        return granted
    for line in filter(None, groups):
        _, controllers, path = line.split(":", 2)
        if controllers == "":                       # version 2: cpu.max holds "quota period" or "max period"
            root, files = "/sys/fs/cgroup", ["cpu.max"]
        elif "cpu" in controllers.split(","):       # version 1: a quota of -1 means none
            root, files = "/sys/fs/cgroup/cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        names = [name for name in path.split("/") if name]
        for depth in range(len(names), -1, -1):     # this group and those above it
            place = os.path.join(root, *names[:depth])
            try:
                quota, period = [word for name in files for word in _words(os.path.join(place, name))]
                if quota not in ("max", "-1"):
                    granted = min(granted, int(quota) / int(period))
            except (OSError, ValueError):
                pass                                # no such file at this level
    return granted


def _usable_cpus():
    if hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count() or 1
    return max(1, int(min(cpus, _cgroup_cpus())))


def _count_from_environment():
    text = os.environ.get("FASTRNN_NUM_THREADS")
    if not text:
        return _usable_cpus()
    try:
        return size(int(text), "FASTRNN_NUM_THREADS")
    except ValueError:
        raise ValueError(f"FASTRNN_NUM_THREADS: expected a whole number of at least 1, got {text!r}") from None


_num_threads = _count_from_environment()
_override = contextvars.ContextVar("fastrnn_threads", default=None)
os.register_at_fork(after_in_child=_core.forget_pool) if hasattr(os, "register_at_fork") else None


def set_num_threads(n):
    """Sets how many threads a call may use. Results do not depend on it, to the bit.

    A call below the work at which threads pay runs on one whatever is set here; so does every stream step.
    """
    global _num_threads
    _num_threads = size(n, "num_threads")


def get_num_threads():
    """How many threads a call may use.

    Unless set: the environment's ``FASTRNN_NUM_THREADS``, else the CPUs this process may use by its affinity
    and cgroup quota.
    """
    return _override.get() or _num_threads


@contextlib.contextmanager
def threads(n):
    """Within the block, in this thread or task, calls use `n` threads.

    >>> with threads(1):
    ...     get_num_threads()
    1
    """
    token = _override.set(size(n, "num_threads"))
    try:
        yield
    finally:
        _override.reset(token)


def show_config():
    """Prints versions, the instruction sets and the threads in use: what a bug report should bear."""
    from .. import __version__  # set before this module is imported
    print(f"fastrnn {__version__}, NumPy {np.__version__}, Python {platform.python_version()} on {platform.platform()}")
    print(f"instruction set: {active_isa()} (available: {', '.join(available_isas())}; environment FASTRNN_ISA: "
          f"{os.environ.get('FASTRNN_ISA', 'not set')})")
    print(f"threads: {get_num_threads()} (usable CPUs: {_usable_cpus()}; environment FASTRNN_NUM_THREADS: "
          f"{os.environ.get('FASTRNN_NUM_THREADS', 'not set')}; Python threads now: {threading.active_count()})")
    print(f"byte order: {sys.byteorder}, float32 vector: {_core.vector_length(table(np.dtype(np.float32)))} elements")
