"""Rolling origins: at which steps of the past forecasts are compared, and what trained members may learn before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .._base.typing import BoolArray, Float64Array, IntArray

ORIGINS = 40, 24        # at which members are judged; before those, at which parameters of base forecasts are compared
FEW_ORIGINS = 14, 10    # the same where there are many series


@dataclass
class Origins:
    """At which steps of a table of series [N, T] that end together forecasts are compared.

    The last ones, `judged`, lie in the steps that trained members have not seen.
    """

    lengths: IntArray           # of the series [N]
    ends: IntArray              # steps of each series that trained members learn from [N]
    at: IntArray                # origins, as first steps of the table, rising [O]
    judged: BoolArray           # which of them are the last ones [O]
    usable: BoolArray           # whether series n has an origin there [O, N]
    counts: Float64Array        # of each series' judged origins, those that do not overlap [N]
    steps: int                  # of the table

    @classmethod
    def of(cls, lengths: IntArray, T: int, horizon: int, numbers: tuple[int, int] = ORIGINS) -> Origins:
        """Those of series of these lengths in a table of T steps; `numbers` of judged and of earlier ones at most."""
        held = held_steps(T, horizon)
        back = np.unique(np.linspace(1, held, min(held, numbers[0])).astype(int))
        earlier = np.unique(np.linspace(held + 1, max(held + 1, int(0.85 * T)), numbers[1]).astype(int))
        earlier = earlier[(earlier > held) & (earlier < T)]
        every = np.concatenate([back, earlier])[::-1]
        each_held = np.minimum([held_steps(length, horizon) for length in lengths.tolist()], held)
        judged = every <= held
        usable = np.where(judged[:, None], every[:, None] <= each_held, every[:, None] < lengths - 1)
        counts = np.minimum(each_held / np.minimum(horizon, each_held), (usable & judged[:, None]).sum(0))
        return cls(lengths, lengths - each_held, T - every, judged, usable, counts, T)

    @property
    def count(self) -> float:
        """How many judged origins of the longest series do not overlap."""
        return float(self.counts.max())

    def places(self, n: int, length: int) -> list[int]:
        """The judged origins of series n, which has `length` steps, as so many of its first steps."""
        mask = self.judged & self.usable[:, n]
        return [int(length - (self.steps - origin)) for origin in self.at[mask]]


def held_steps(T: int, horizon: int) -> int:
    """How many of the last of T steps the judged origins lie in."""
    if T < 8 * horizon:
        return max(1, T // 3)
    return max(2 * horizon, min(T // 4, max(20 * horizon, 500)))


def masked_means(errors: Float64Array, mask: BoolArray) -> Float64Array:
    """Means of errors [O, N, G, H] over origins and steps that `mask` [O, N, H] has, [N, G]."""
    total = np.einsum("ongh,onh->ng", errors, mask.astype(np.float64))
    result: Float64Array = total / np.maximum(mask.sum((0, 2)), 1)[:, None]
    return result
