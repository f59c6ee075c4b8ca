"""The weights of a blend's members, from their errors at rolling origins; ``blend`` has the equation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .smoothing import TRAINED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import Array, BoolArray, Float64Array
    from .options import Options
    from .origins import Origins

PRIOR = 5.0             # of the weight of the forecast that is first by itself; 2 for other naive ones, else 1
FITTED = 8.0            # of "ets", whose parameters every one of a series' values has set
UNFIT = 0.15            # prior of members with a season where there is none, and of those without where there is one
TAU = 0.25              # strength of the prior
STRENGTHS = 0.25, 1.0, 4.0      # the same in a panel, where the data choose
SEVERAL = 5             # series, from which on they do
SHARED = 0.8            # of the prior of a panel's series, what all have in common
SOME = 150              # errors of each series that tell this
LEAST = 0.03            # smaller weights become 0


@dataclass
class Pull:
    """To which weights those of every series are drawn, and how much."""

    prior: Float64Array         # [1, K]
    strength: float             # tau in the equation of ``blend``


def weights_of(errors: Array, names: Sequence[str], origins: Origins, first: str,
               pull: Pull | None = None) -> tuple[Float64Array, Pull]:
    """The weights [N, K] from errors [O, N, K, H] at the judged origins: each series' own, drawn to common ones.

    Returns
    -------
    weights : array of float64, [N, K]
        A row for each series.
    pull : Pull
        What they were drawn to: `pull`, or what these series have in common.
    """
    O, N, K, H = errors[origins.judged].shape
    own = np.moveaxis(errors[origins.judged], (1, 0, 3), (0, 1, 2)).reshape(N, O * H, K)
    if pull is None:
        early = np.where(settled(names, origins)[..., None, None], errors, np.nan)[~origins.judged]
        pull = _common(own, _prior(names, first, early), origins.counts)
    weights = pruned(simplex_weights(own, pull.prior, origins.counts, pull.strength))
    known: Any = np.isfinite(own).all(2)
    sizes = np.where(known[..., None], np.abs(own), 0).sum(1)
    exact = known.any(1) & (sizes.min(1) == 0)          # such as a constant: the first of the exact members alone
    order = np.argsort([name in TRAINED for name in names], kind="stable")
    winner = order[np.argmin(sizes[:, order], 1)]
    return np.where(exact[:, None], np.arange(K) == winner[:, None], weights), pull


def _common(own: Array, prior: Float64Array, counts: Float64Array) -> Pull:
    """What a panel's series are drawn to: a mixture of the prior and the weights that are best for all of them.

    How strongly: the strength with which weights from one half of each series' errors [N, M, K] are best on the other.
    """
    N, M, K = own.shape
    if N == 1:
        return Pull(prior, TAU)
    own = own[:, ::-(-M // SOME)]
    size = np.abs(own).mean(2)
    units = np.array([np.nanmean(row) if np.isfinite(row).any() else 0 for row in size])
    units = np.where(units > 0, units, np.inf)
    scaled = own / units[:, None, None]
    best = simplex_weights(scaled.reshape(1, -1, K), prior, np.array([min(N, 20) * float(counts.mean())]))
    prior = (1 - SHARED) * prior + SHARED * best
    if N < SEVERAL:
        return Pull(prior, TAU)
    halves = scaled[:, :scaled.shape[1] // 2], scaled[:, scaled.shape[1] // 2:]
    losses = [sum(_loss(other, simplex_weights(half, prior, counts / 2, strength))
                  for half, other in (halves, halves[::-1])) for strength in STRENGTHS]
    return Pull(prior, STRENGTHS[int(np.argmin(losses))])


def _loss(errors: Float64Array, weights: Float64Array) -> float:
    """The mean size of the errors [N, M, K] weighted and added up, each series as much as another."""
    known: Any = np.isfinite(errors).all(2)
    size = np.abs(np.einsum("nmk,nk->nm", np.where(known[..., None], errors, 0), weights))
    return float(np.mean(size.sum(1) / np.maximum(known.sum(1), 1)))


def simplex_weights(errors: Array, prior: Float64Array, count: Float64Array,
                    strength: float = TAU) -> Float64Array:
    """The weights [N, K] of members with errors [N, M, K], drawn towards a prior [N or 1, K] (see the module).

    A row of errors that is NaN does not count; `count` [N] is the number of errors that do not overlap.
    """
    observed: Any = np.isfinite(errors).all(2)
    total = np.maximum(observed.sum(1), 1)
    errors = np.where(observed[..., None], errors, 0.0)
    count = np.maximum(count, 0.5)
    sizes = np.abs(errors).sum(1) / total[:, None]
    unit = sizes.min(1) + np.median(sizes, 1) / count**2        # one error may be small by chance
    errors = errors / np.where(unit > 0, unit, 1.0)[:, None, None]
    weights = np.repeat(prior, len(errors), 0) if len(prior) == 1 else prior.copy()
    logs, start = np.log(weights), np.log(prior)
    pull = (strength / count * (1 + 4 / count))[:, None]
    for i in range(200):
        residual = np.sign(np.einsum("nmk,nk->nm", errors, weights))
        slope = np.einsum("nm,nmk->nk", residual, errors) / total[:, None]
        step = 0.3 / np.sqrt(1 + i / 10)
        logs = (logs - step * (slope - slope.min(1, keepdims=True)) + step * pull * start) / (1 + step * pull)
        logs -= logs.max(1, keepdims=True)
        weights = np.exp(np.maximum(logs, -50))
        weights /= weights.sum(1, keepdims=True)
        logs = np.log(weights)
    return weights


def _prior(names: Sequence[str], first: str, early: Float64Array) -> Float64Array:
    """The prior weights [1, K]: most for the member that is first by itself, and less where errors were large before.

    `early` [O, N, K, H] has the errors of base members at origins before the judged ones, after two seasons.
    """
    values = np.array([_belief(name, first) for name in names])
    known = np.isfinite(early)
    count = known.sum((0, 3))
    sizes = np.where(known, np.abs(early), 0).sum((0, 3)) / np.maximum(count, 1)        # [N, K]
    usable = (count > 0) & (sizes > 0)
    best = np.where(usable, sizes, np.inf).min(1, keepdims=True)
    ratio = np.where(usable, best / np.where(usable, sizes, 1.0), np.nan)
    share = np.array([np.nanmean(column) if np.isfinite(column).any() else 0.8 for column in ratio.T])
    values = values * share**4
    result: Float64Array = (values / values.sum())[None]
    return result


def _belief(name: str, first: str) -> float:
    """The prior weight of a member by its name alone, in units of that of an ordinary one."""
    kind = kind_of(name)
    if name == first:
        return PRIOR
    seasonal = (kind != name) == first.startswith("seasonal")
    if kind == "ets":
        return FITTED * (1.0 if seasonal else UNFIT)
    if kind in ("naive", "seasonal naive"):
        return 2.0
    return 1.0 if seasonal or name in TRAINED or kind == "drift" else UNFIT


def first_member(options: Options, table: Float64Array) -> str:
    """The member that is best by itself: the median where most values are it, and the others single, else what
    `difference` names."""
    observed = ~np.isnan(table)
    middle = np.array([np.median(row[known]) for row, known in zip(table, observed, strict=True)])
    other = observed & (table != middle[:, None])
    begins = other[:, 1:] & ~other[:, :-1]
    if 0 < other.sum() < 0.5 * observed.sum() and begins.sum() > 0.5 * other.sum():
        return "median"
    return {0: "mean", 1: "naive"}.get(options.difference, f"seasonal naive {options.difference}")


def settled(names: Sequence[str], origins: Origins) -> BoolArray:
    """At which origins [O, N] the seasons of all members have been taken up, which is after two of them."""
    longest = max((int(m) for name in names if kind_of(name) != name for m in name.split()[-1].split("+")), default=0)
    result: BoolArray = origins.at[:, None] - (origins.steps - origins.lengths) > 2 * longest
    return result


def kind_of(name: str) -> str:
    """The kind of a member: its name without the season."""
    return name.rstrip("0123456789+").rstrip() if name[-1].isdigit() else name


def pruned(weights: Float64Array) -> Float64Array:
    weights = np.where(weights < np.minimum(LEAST, weights.max(1, keepdims=True)), 0, weights)
    result: Float64Array = weights / weights.sum(1, keepdims=True)
    return result
