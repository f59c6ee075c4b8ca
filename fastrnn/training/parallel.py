"""Data-parallel training: minibatches cut into shards, whose gradients are summed over one fixed tree.

A minibatch is cut into a fixed number of shards, whatever the number of processes ("ranks"): shard s has the rows s,
s + shards, s + 2 shards and so on. Every rank computes the gradients of its block of shards. They are summed over a
binary tree whose leaves are the shards: at distance d = 1, 2, 4, ... node s, a multiple of 2 d, becomes the sum of
nodes s and s + d. A rank adds what lies within its block, and the ranks together the rest. So every element of the
gradient is the result of the same additions in the same order, for any number of ranks, and all that follows from it
has the same bits: the weights, the optimizer, the checkpoint.

All ranks run the same training and hold the same weights. What connects them is a ``World``; ``fastrnn.scale`` has one
of processes on this machine and one of MPI.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from .._base.typing import Array

ResultT = TypeVar("ResultT")


class RankError(RuntimeError):
    """Another rank failed or ended; the message says which, and why."""


class World(Protocol):
    """What a rank knows of the others, and how it reaches them. All ranks call its methods in the same order."""

    rank: int
    size: int

    def exchange(self, value: Any) -> list[Any]:
        """Give every rank the small objects of all ranks, by rank; RankError where one of them cannot go on."""
        ...

    def share(self, nodes: Mapping[int, Array | None], plan: Tree) -> None:
        """Offer the sums of this rank's subtrees, by their first shard; an ``exchange`` follows before ``total``."""
        ...

    def total(self, rows: int) -> Array:
        """Compute the sum of all ranks' subtrees over the tree, where the minibatch has so many rows."""
        ...


@runtime_checkable
class Parallel(Protocol):
    """The argument `parallel` of ``fit``: how many ranks there are, and how they come to run."""

    size: int

    def _launch(self, work: Callable[[World], ResultT], plan: Tree) -> ResultT:
        """Run `work` on every rank, and return what it returns on this one."""
        ...


class Tree:
    """Which rank computes which shards, and which sums of subtrees the ranks exchange.

    Parameters
    ----------
    shards, ranks : int
        How many there are.
    size : int
        The number of elements of a gradient.
    dtype : dtype
        Of its elements.
    """

    def __init__(self, shards: int, ranks: int, size: int, dtype: np.dtype[Any]) -> None:
        self.shards, self.ranks, self.size, self.dtype = shards, ranks, size, dtype
        self.width = 1 << (shards - 1).bit_length()             # a full tree; the leaves past the shards are empty
        # Node (start, length) -> its number among all that the ranks exchange, rank by rank.
        self.nodes: dict[tuple[int, int], int] = {}
        self.of_rank: list[list[tuple[int, int]]] = []
        for rank in range(ranks):
            block = self.block(rank)
            own = list(_subtrees(block.start, self.width if block.stop == shards else block.stop)) if block else []
            self.of_rank.append(own)
            for node in own:
                self.nodes[node] = len(self.nodes)

    def block(self, rank: int) -> range:
        """The shards of a rank."""
        starts = [s for s in range(self.shards) if s * self.ranks // self.shards == rank]
        return range(starts[0], starts[-1] + 1) if starts else range(0)

    def columns(self, rank: int) -> slice:
        """The elements of the gradient that a rank sums."""
        return slice(rank * self.size // self.ranks, (rank + 1) * self.size // self.ranks)

    def combine(self, sums: Array, rows: int) -> int:
        """Sum the nodes' elements, [nodes, elements], in place over the tree; the number of the node with the total.

        A node whose shards have no rows takes no part.
        """
        def total(start: int, length: int) -> int | None:
            if (start, length) in self.nodes:
                return self.nodes[start, length] if start < min(rows, self.shards) else None
            left, right = total(start, length // 2), total(start + length // 2, length // 2)
            if left is not None and right is not None:
                sums[left] += sums[right]
            return left if left is not None else right
        result = total(0, self.width)
        assert result is not None, "a minibatch has a row"
        return result


def _subtrees(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """The largest whole subtrees (start, length) that make up the leaves from `start` to `stop` - 1."""
    while start < stop:
        length = (start & -start) or 1 << (stop - start).bit_length() - 1
        while length > stop - start:
            length //= 2
        yield start, length
        start += length


class LocalSums:
    """The sums of a rank's subtrees, as its shards' gradients come in order: two subtrees of a parent become one."""

    def __init__(self, tree: Tree, rank: int) -> None:
        self._tree, self._whole = tree, set(tree.of_rank[rank])
        self._spare: list[Array] = []
        self._pending: list[tuple[int, int, Array | None]] = []

    def add(self, shard: int, gradients: Mapping[str, Array] | None) -> None:
        """Take in a shard's gradients by name; None where it has no rows."""
        if gradients is None:
            self._push(shard, 1, None)
            return
        values = [value.reshape(-1) for value in gradients.values()]
        left = self._left_of(shard, 1)
        if left is not None:                # added where it is, which spares a copy
            start = 0
            for value in values:
                left[start:start + value.size] += value
                start += value.size
            self._pending.pop()
            self._push(shard - 1, 2, left)
            return
        flat = self._spare.pop() if self._spare else np.empty(self._tree.size, self._tree.dtype)
        self._push(shard, 1, np.concatenate(values, out=flat))

    def _left_of(self, start: int, length: int) -> Array | None:
        """The sum of the last subtree that came, if it and the one of these leaves are the two parts of another."""
        if (start, length) in self._whole or not self._pending:
            return None
        left_start, left_length, left = self._pending[-1]
        return left if self._are_parts(left_start, left_length, start, length) else None

    @staticmethod
    def _are_parts(left_start: int, left_length: int, start: int, length: int) -> bool:
        return left_length == length and left_start % (2 * length) == 0 and left_start + length == start

    def _push(self, start: int, length: int, value: Array | None) -> None:
        self._pending.append((start, length, value))
        while (start, length) not in self._whole and len(self._pending) > 1:
            left_start, left_length, left = self._pending[-2]
            if not self._are_parts(left_start, left_length, start, length):
                return
            self._pending[-2:] = []
            if left is None or value is None:
                value = value if left is None else left
            else:
                left += value
                self._spare.append(value)
                value = left
            start, length = left_start, 2 * length
            self._pending.append((start, length, value))

    def take(self) -> dict[int, Array | None]:
        """The sums by their subtree's first shard; the arrays stay this object's, and are used again."""
        for leaf in range(self._tree.shards, self._tree.width):
            if any(start <= leaf < start + length for start, length in self._whole):
                self._push(leaf, 1, None)
        result = {start: value for start, _, value in self._pending}
        self._spare += [value for value in result.values() if value is not None]
        self._pending = []
        return result
