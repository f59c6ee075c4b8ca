"""Data-parallel training on several processes: of this machine, or of MPI.

``processes`` and ``mpi`` are what ``training.fit`` takes as `parallel`. Both connect the ranks in the same way: small
objects are exchanged by all with all; of the gradients each rank gets a range of elements of every subtree's sum, adds
them in the order of the tree, and gives the result to all. So a rank receives and sends about twice the gradient's size
for each update, however many ranks there are.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base import dispatch
from .._base import validation as check
from ..training.parallel import RankError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._base.typing import Array
    from ..training.parallel import ResultT, Tree, World


class _Failed:
    """What a rank exchanges instead of its value when it cannot go on."""

    def __init__(self, rank: int, reason: str) -> None:
        self.rank, self.reason = rank, reason


def _reason(error: BaseException) -> str:
    """An exception in words, which can be sent whatever it holds."""
    return "".join(traceback.format_exception_only(type(error), error)).strip()


def _received(values: list[Any]) -> list[Any]:
    """The ranks' values, or a RankError that names the first rank that failed."""
    for value in values:
        if isinstance(value, _Failed):
            raise RankError(f"rank {value.rank} of {len(values)} failed: {value.reason}")
    return values


# ---- Processes of this machine ------------------------------------------------------------------------

class processes:  # it reads as a function: fit(..., parallel=processes(4))
    """Train on several processes of this machine: for the argument `parallel` of ``training.fit``.

    The caller's process is the first of them; the others live as long as the call. Gradients go through shared memory.
    One process with several threads is as fast for large layers and minibatches; several processes also share what is
    done between the kernels, such as losses, clipping by Python and the reading of data.

    Parameters
    ----------
    n : int
        The number of processes.
    threads : int, optional
        The number of threads of each; by default the number that is set now (``fastrnn.get_num_threads()``), divided by
        `n`, and at least 1.
    start_method : {"fork", "spawn", "forkserver"}, optional
        How they are started, as in ``multiprocessing``; by default "fork" where the system has it. The others pickle
        the model, the data, the loss and the optimizer, and need the caller's script to be importable.

    Raises
    ------
    TypeError, ValueError
        An argument is unsuitable; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> from fastrnn import losses, optim, scale, training
    >>> x = np.random.default_rng(0).standard_normal((20, 32, 1)).astype(np.float32)
    >>> weights = []
    >>> for n in (1, 2):
    ...     model = fastrnn.Sequential(fastrnn.GRU(1, 8, rng=0), fastrnn.Linear(8, 1, rng=1))
    ...     history = training.fit(model, x, np.cumsum(x, 0), loss=losses.MSE(), optimizer=optim.Adam(model, 0.01),
    ...                            epochs=2, batch_size=16, parallel=scale.processes(n), rng=0, progress=False)
    ...     weights.append(model.parameters["0.weight_hh_l0"])
    >>> np.array_equal(weights[0], weights[1])
    True
    """

    def __init__(self, n: int, *, threads: int | None = None, start_method: str | None = None) -> None:
        self.size = check.size(n, "n")
        self.threads = None if threads is None else check.size(threads, "threads")
        methods = multiprocessing.get_all_start_methods()
        if start_method is not None and start_method not in methods:
            raise ValueError(f"start_method: expected one of {', '.join(methods)}, got {start_method!r}")
        self.start_method = start_method or ("fork" if "fork" in methods else "spawn")

    def __repr__(self) -> str:
        return f"processes({self.size})"

    def _launch(self, work: Callable[[World], ResultT], plan: Tree) -> ResultT:
        """Run `work` on every rank, and return what it returns in this process."""
        threads = self.threads or max(1, dispatch.get_num_threads() // self.size)
        context: Any = multiprocessing.get_context(self.start_method)
        elements = 2 * len(plan.nodes) * plan.size if self.size > 1 else 0
        memory = context.RawArray("B", max(1, elements * plan.dtype.itemsize))
        pipes = [context.Pipe() for _ in range(1, self.size)]
        leader = _Leader(plan, memory, [ours for ours, _ in pipes])
        try:
            for rank, (_, theirs) in enumerate(pipes, 1):
                others = [end for pipe in pipes for end in pipe if end is not theirs]
                # With "fork" a worker inherits the ends of all pipes, which it has to close: otherwise nobody would
                # notice when a process ends.
                inherited = others if self.start_method == "fork" else []
                process = context.Process(target=_work, daemon=True, name=f"fastrnn rank {rank}",
                                          args=(work, plan, memory, rank, theirs, inherited, threads))
                process.start()
                leader.workers.append(process)
            for _, theirs in pipes:
                theirs.close()
            with dispatch.threads(threads):
                result = work(leader)
        except BaseException:
            leader.end(at_once=True)
            raise
        leader.end()
        return result


class _Shared:
    """What ranks of one machine share: a place for every subtree's sum, twice, by turns.

    A rank that has the total of one update may write the sums of the next while others still read this total.
    """

    def __init__(self, plan: Tree, memory: Any, rank: int) -> None:
        self.rank, self.size, self.plan = rank, plan.ranks, plan
        count = 2 * len(plan.nodes) * plan.size if self.size > 1 else 0
        places = np.frombuffer(memory, plan.dtype, count)
        self._places: Array = places.reshape(2, len(plan.nodes) if count else 0, plan.size)
        self._turn = 0
        self._own: dict[int, Array | None] = {}

    def exchange(self, value: Any) -> list[Any]:
        """Give every rank the small objects of all ranks, by rank."""
        raise NotImplementedError

    def share(self, nodes: Mapping[int, Array | None], plan: Tree) -> None:
        """Offer the sums of this rank's subtrees."""
        self._own = dict(nodes)
        if self.size > 1:
            self._turn ^= 1
            for node in plan.of_rank[self.rank]:
                value = nodes.get(node[0])
                if value is not None:
                    self._places[self._turn][plan.nodes[node]] = value

    def total(self, rows: int) -> Array:
        """The sum over the tree: each rank adds a range of elements, and then has all of them."""
        if self.size == 1:
            (value,) = self._own.values()
            assert value is not None, "a minibatch has a row"
            return value
        places: Array = self._places[self._turn]
        root = self.plan.combine(places[:, self.plan.columns(self.rank)], rows)
        self.exchange(None)
        result: Array = places[root].copy()
        return result


class _Leader(_Shared):
    """Rank 0, the process that called ``fit``: it collects what is exchanged, and passes it on."""

    def __init__(self, plan: Tree, memory: Any, pipes: list[Connection]) -> None:
        super().__init__(plan, memory, 0)
        self._pipes = pipes
        self.workers: list[Any] = []

    def exchange(self, value: Any) -> list[Any]:
        """Give every rank the small objects of all ranks, by rank."""
        values = [value]
        for rank, pipe in enumerate(self._pipes, 1):
            try:
                values.append(pipe.recv())
            except (EOFError, OSError):
                process = self.workers[rank - 1]
                process.join(5)
                raise RankError(f"rank {rank} of {self.size} (process {process.pid}) ended: exit status "
                                f"{process.exitcode}") from None
        for pipe in self._pipes:
            try:
                pipe.send(values)
            except OSError:
                continue            # it has ended: the next exchange says so
        return _received(values)

    def end(self, at_once: bool = False) -> None:
        """Wait for the workers, which have nothing more to do; or stop them."""
        for pipe in self._pipes:
            pipe.close()
        for process in self.workers:
            process.join(0.2 if at_once else None)
            if process.is_alive():
                process.kill()
                process.join()


class _Worker(_Shared):
    """Another rank."""

    def __init__(self, plan: Tree, memory: Any, rank: int, pipe: Connection) -> None:
        super().__init__(plan, memory, rank)
        self._pipe = pipe

    def exchange(self, value: Any) -> list[Any]:
        """Give every rank the small objects of all ranks, by rank."""
        try:
            self._pipe.send(value)
            values: list[Any] = self._pipe.recv()
        except (EOFError, OSError):
            raise SystemExit(1) from None        # the process that called fit has ended, or does not go on
        return _received(values)


def _work(work: Callable[[World], Any], plan: Tree, memory: Any, rank: int, pipe: Connection,
          inherited: list[Connection], threads: int) -> None:
    """Run one worker."""
    for other in inherited:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)        # Ctrl-C is for the caller's process, which ends the others
    dispatch.set_num_threads(threads)
    world = _Worker(plan, memory, rank, pipe)
    try:
        work(world)
    except BaseException as error:      # KeyboardInterrupt and SystemExit of a loss, too
        try:
            pipe.send(_Failed(rank, _reason(error)))
            pipe.recv()
        except (EOFError, OSError):
            pass
        os._exit(1)


# ---- MPI ----------------------------------------------------------------------------------------------

class mpi:  # it reads as a function: fit(..., parallel=mpi())
    """Train on the processes of an MPI communicator: for the argument `parallel` of ``training.fit``.

    Every process runs the same script and calls ``fit`` with the same arguments: ``mpirun -n 4 python train.py``. The
    history and the trained weights are the same in all of them. Rank 0 alone reads and writes the checkpoint, and shows
    the progress.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, optional
        The communicator; by default ``MPI.COMM_WORLD``.

    Raises
    ------
    ImportError
        The package mpi4py is missing: ``pip install fastrnn[mpi]``, beside an MPI library.
    TypeError
        `comm` is no communicator.

    Examples
    --------
    >>> from fastrnn import scale
    >>> parallel = scale.mpi()                                      # doctest: +SKIP
    >>> history = training.fit(model, x, y, parallel=parallel, ...)  # doctest: +SKIP
    """

    def __init__(self, comm: Any = None) -> None:
        try:
            from mpi4py import MPI
        except ImportError as error:
            raise ImportError("parallel: the package mpi4py is missing: pip install fastrnn[mpi], beside an MPI "
                              "library such as Debian's openmpi-bin and libopenmpi-dev") from error
        self.comm = MPI.COMM_WORLD if comm is None else comm
        if not isinstance(self.comm, MPI.Comm):
            raise TypeError(f"comm: expected a communicator of mpi4py, got {type(comm).__name__}")
        self.size: int = self.comm.size

    def __repr__(self) -> str:
        return f"mpi(rank {self.comm.rank} of {self.size})"

    def _launch(self, work: Callable[[World], ResultT], plan: Tree) -> ResultT:
        """Run `work` as this rank."""
        world = _Communicator(self.comm.Dup(), plan)
        try:
            return work(world)
        except BaseException as error:      # the others would wait for ever, whatever ended this rank
            world.fail(error)
            raise
        finally:
            world.comm.Free()


class _Communicator:
    """A rank of MPI."""

    def __init__(self, comm: Any, plan: Tree) -> None:
        self.comm, self.plan, self.rank, self.size = comm, plan, comm.rank, comm.size
        self._nodes: Mapping[int, Array | None] = {}
        self._failed = False

    def exchange(self, value: Any) -> list[Any]:
        """Give every rank the small objects of all ranks, by rank."""
        values = self.comm.allgather(value)
        self._failed = any(isinstance(each, _Failed) for each in values)
        return _received(values)

    def fail(self, error: BaseException) -> None:
        """Tell the other ranks, which wait for an exchange, why this one does not go on."""
        if not self._failed:
            self.comm.allgather(_Failed(self.rank, _reason(error)))

    def share(self, nodes: Mapping[int, Array | None], plan: Tree) -> None:
        """Offer the sums of this rank's subtrees."""
        self._nodes = nodes

    def total(self, rows: int) -> Array:
        """The sum over the tree: each rank adds a range of elements, and then has all of them."""
        from mpi4py import MPI
        plan, ranks = self.plan, range(self.size)
        columns = [plan.columns(rank) for rank in ranks]
        widths = [part.stop - part.start for part in columns]
        own = [self._nodes.get(start) for start, _ in plan.of_rank[self.rank]]
        kind = {"float32": MPI.FLOAT, "float64": MPI.DOUBLE}[plan.dtype.name]
        sent = np.zeros(len(own) * plan.size, plan.dtype)
        at = 0
        for part, width in zip(columns, widths):
            for value in own:
                if value is not None:
                    sent[at:at + width] = value[part]
                at += width
        counts = [len(plan.of_rank[rank]) * widths[self.rank] for rank in ranks]
        sums = np.empty((len(plan.nodes), widths[self.rank]), plan.dtype)
        self.comm.Alltoallv([sent, [len(own) * width for width in widths], kind], [sums, counts, kind])
        root = plan.combine(sums, rows)
        result = np.empty(plan.size, plan.dtype)
        self.comm.Allgatherv([np.ascontiguousarray(sums[root]), kind], [result, widths, kind])
        return result
