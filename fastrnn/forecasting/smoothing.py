"""Base forecasts, which need no training: naive ones and exponential smoothing, of many series and origins at once.

With z the series (or its logarithm), every member of the smoothing family is one recursion. It keeps a level l, a trend
b, a transient u and, for each season of m steps, m seasonal values s:

    p_t = l + phi b + rho u + s[t mod m],     e_t = z_t - p_t,
    l <- l + phi b + alpha e_t,     b <- phi b + beta e_t,     u <- rho u + kappa e_t,
    s[t mod m] <- s[t mod m] + gamma e_t,

and forecasts k steps ahead

    l + (phi + ... + phi^k) b + rho^k u + s[(t + k) mod m] + theta (k - 1 + 1 / alpha) slope,

with the slope of the least-squares line through all values. alpha is at least 1 over the number of values seen, and
gamma 1 over the number of seasons, so that 0 means the mean of the past; after n values a recursion with a trend has

    alpha >= 2 (2 n - 1) / (n (n + 1)),     beta >= 6 / (n (n + 1)),

so that its first values lie on the least-squares line through them. Where a value is missing e_t = 0. Simple
exponential smoothing has alpha alone, the damped trend (Holt) beta and phi, Theta theta = 1/2, and a decay to the mean
(a first-order autoregression) rho and kappa = 1. "ets" is any of the first two: of many parameters those with the least
corrected information criterion (AICc) of the errors one step ahead.

References: Hyndman & Athanasopoulos, Forecasting: Principles and Practice, 3rd edition (2021), chapters 5 and 8;
Assimakopoulos & Nikolopoulos, The theta model, International Journal of Forecasting 16 (2000).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base.trees import storable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import Array, BoolArray, Float64Array, IntArray

RATES = ("alpha", "beta", "phi", "kappa", "rho", "theta")
TRAINED = ("network", "linear")
MEMBERS = (*TRAINED, "naive", "seasonal naive", "drift", "mean", "median", "smoothing", "trend", "theta", "decay",
           "ets")
LONGEST = 4000          # steps of a series' end that choices are made by, at most


# ---- Members and their parameters -----------------------------------------------------------------

@storable
@dataclass
class SmoothingParameters:
    """SmoothingParameters of G recursions, each an array [1, G], or [N, G] where N series have their own."""

    alpha: Float64Array
    beta: Float64Array
    phi: Float64Array
    kappa: Float64Array
    rho: Float64Array
    theta: Float64Array
    gamma: Float64Array             # [N or 1, G, S]
    uses: BoolArray                 # which seasons a recursion has [G, S]
    seasons: tuple[int, ...]        # S lengths
    lines: bool = False             # whether a trend begins on the least-squares line; not in files of before

    def taken(self, choice: IntArray) -> SmoothingParameters:
        """Of each series those recursions whose numbers stand in `choice` [N, K]; they use the same seasons."""
        def take(values: Array) -> Array:
            picked = np.broadcast_to(values, (len(choice), *values.shape[1:]))
            return np.take_along_axis(picked, choice if values.ndim == 2 else choice[..., None], 1)

        rates = {name: take(getattr(self, name)) for name in RATES}
        return SmoothingParameters(**rates, gamma=take(self.gamma), uses=self.uses[choice[0]], seasons=self.seasons,
                                   lines=self.lines)

    @classmethod
    def joined(cls, parts: Sequence[SmoothingParameters]) -> SmoothingParameters:
        """Those of several groups of series, one after the other; each has a row for every series."""
        changes: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts])
                                   for name in (*RATES, "gamma")}
        return replace(parts[0], **changes)

    @classmethod
    def beside(cls, parts: Sequence[SmoothingParameters]) -> SmoothingParameters:
        """Those of several groups of recursions of the same series, which have a row for each."""
        changes: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts], 1)
                                   for name in (*RATES, "gamma")}
        return replace(parts[0], **changes, uses=np.concatenate([part.uses for part in parts]))

    def some(self, rows: Any, members: Any = slice(None)) -> SmoothingParameters:
        """Those of some series (all have the same where there is one row), and of some recursions."""
        def part(values: Array) -> Array:
            return (values if len(values) == 1 else values[rows])[:, members]

        changes: dict[str, Any] = {name: part(getattr(self, name)) for name in (*RATES, "gamma")}
        return replace(self, **changes, uses=self.uses[members])


def grid(seasons: Sequence[int], fine: bool = False) -> tuple[dict[str, IntArray], SmoothingParameters]:
    """All parameters that are tried: the numbers of each member's recursions by its name, and the parameters.

    Parameters
    ----------
    seasons : sequence of int
        Lengths of seasons. Each has members of its own; if there are several, more members have all of them.
    fine : bool
        Whether those of "ets" are wanted, or those of all other members.

    Returns
    -------
    members : dict of str to array of int
        Which recursions belong to a member.
    parameters : SmoothingParameters
        Those of all recursions.
    """
    rows: list[tuple[str, dict[str, float], tuple[int, ...]]] = []
    sets: list[tuple[int, ...]] = [(), *((m,) for m in seasons)]
    if len(seasons) > 1:
        sets.append(tuple(seasons))
    for chosen in sets:
        suffix = f" {'+'.join(map(str, chosen))}" if chosen else ""
        rows += [(name + suffix, rates, chosen) for name, rates in (_fine_rates if fine else _rates)(bool(chosen))]
    columns = {name: np.array([[rates.get(name, default) for _, rates, _ in rows]])
               for name, default in zip(RATES, (0.0, 0.0, 1.0, 0.0, 0.0, 0.0), strict=True)}
    uses = np.array([[m in chosen for m in seasons] for _, _, chosen in rows]).reshape(len(rows), len(seasons))
    gamma = np.array([[rates.get("gamma", 0.0)] * len(seasons) for _, rates, _ in rows]).reshape(1, *uses.shape)
    names = [name for name, _, _ in rows]
    members = {name: np.flatnonzero(np.array(names) == name) for name in dict.fromkeys(names)}
    return members, SmoothingParameters(**columns, gamma=gamma, uses=uses, seasons=tuple(seasons), lines=True)


def recursive_members(seasons: Sequence[int]) -> list[str]:
    """The names of all members that are recursions."""
    return [*grid(seasons)[0], *grid(seasons, fine=True)[0]]


def _rates(seasonal: bool) -> list[tuple[str, dict[str, float]]]:
    """(member, parameters) of every recursion that is tried, with or without seasons."""
    product = itertools.product
    if not seasonal:
        return [
            *(("smoothing", {"alpha": a}) for a in (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)),
            *(("trend", {"alpha": a, "beta": r * a, "phi": phi}) for a, (r, phi) in product(
                (0.1, 0.3, 0.6, 0.95), ((0.05, 0.9), (0.2, 0.9), (0.05, 0.98), (0.2, 0.98), (0.05, 1.0)))),
            *(("theta", {"alpha": a, "theta": 0.5}) for a in (0.1, 0.3, 0.5, 0.7, 0.9)),
            *(("decay", {"rho": rho, "kappa": kappa}) for rho, kappa in product(
                (0.3, 0.6, 0.8, 0.9, 0.96, 0.99), (1.0, 0.6)))]
    return [
        *(("smoothing", {"alpha": a, "gamma": g}) for a, g in product((0.0, 0.05, 0.15, 0.4, 0.8), (0.0, 0.1, 0.3))),
        *(("trend", {"alpha": a, "beta": 0.1 * a, "phi": phi, "gamma": g}) for a, phi, g in product(
            (0.05, 0.3, 0.8), (0.98, 1.0), (0.0, 0.1))),
        *(("theta", {"alpha": a, "theta": 0.5, "gamma": g}) for a, g in product((0.1, 0.3, 0.7), (0.0, 0.1))),
        *(("decay", {"rho": rho, "kappa": 1.0, "alpha": a, "gamma": g}) for rho, a, g in product(
            (0.5, 0.8, 0.95), (0.0, 0.03), (0.0, 0.1)))]


def _fine_rates(seasonal: bool) -> list[tuple[str, dict[str, float]]]:
    """(member, parameters) of the recursions of "ets": without a trend, with one, with a damped one."""
    rates: list[dict[str, float]] = []
    for alpha in (0.02, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 0.99):
        rates.append({"alpha": alpha})
        rates += [{"alpha": alpha, "beta": max(ratio * alpha, 1e-9)} for ratio in (0.0, 0.02, 0.1, 0.3, 0.8)]
        rates += [{"alpha": alpha, "beta": ratio * alpha, "phi": phi}
                  for ratio, phi in itertools.product((0.02, 0.1, 0.3, 0.8), (0.8, 0.93))]
    return [("ets", each | {"gamma": gamma} if seasonal else each)
            for each in rates for gamma in ((0.0, 0.1, 0.3) if seasonal else (0.0,))]


# ---- The recursion --------------------------------------------------------------------------------

@storable
@dataclass
class SmoothingState:
    """Where G recursions of N series stand after `steps` steps; values are differences from `base`."""

    base: Float64Array              # [N], a value of each series
    level: Float64Array             # [N, G]
    trend: Float64Array
    transient: Float64Array
    seasonal: list[Float64Array]    # for each season [m, N, G]
    sums: Float64Array              # of 1, t, t^2, z and t z over the values [5, N]
    first: IntArray                 # the step of each series' first value [N]
    steps: int

    def copied(self) -> SmoothingState:
        """A state that does not change with this one."""
        return replace(self, level=self.level.copy(), trend=self.trend.copy(), transient=self.transient.copy(),
                       seasonal=[values.copy() for values in self.seasonal], sums=self.sums.copy())

    @classmethod
    def joined(cls, parts: Sequence[SmoothingState]) -> SmoothingState:
        """The states of several groups of series, one after the other, after the same number of steps."""
        if len(parts) == 1:
            return parts[0]
        changes: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts])
                                   for name in ("base", "level", "trend", "transient", "first")}
        seasonal = [np.concatenate(values, 1) for values in zip(*(part.seasonal for part in parts), strict=True)]
        return replace(parts[0], seasonal=seasonal, sums=np.concatenate([part.sums for part in parts], 1), **changes)

    def some(self, rows: slice) -> SmoothingState:
        """The states of some series."""
        changes: dict[str, Any] = {name: getattr(self, name)[rows]
                                   for name in ("base", "level", "trend", "transient", "first")}
        return replace(self, seasonal=[values[:, rows] for values in self.seasonal], sums=self.sums[:, rows], **changes)

    def slopes(self) -> Float64Array:
        """The slope of the least-squares line through each series [N]; 0 where there are fewer than three values."""
        n, t, square, z, product = self.sums
        spread = n * square - t * t
        return np.where((n > 2) & (spread > 0), (n * product - t * z) / np.where(spread > 0, spread, 1.0), 0.0)


def begin(values: Float64Array, parameters: SmoothingParameters) -> SmoothingState:
    """The state before the first step of series [N, T], which end together; NaN before a series' first value."""
    N, G = len(values), len(parameters.uses)
    observed = ~np.isnan(values)
    first = observed.argmax(1)
    return SmoothingState(values[np.arange(N), first], np.zeros((N, G)), np.zeros((N, G)), np.zeros((N, G)),
                 [np.zeros((m, N, G)) for m in parameters.seasons], np.zeros((5, N)), first, 0)


def advance(state: SmoothingState, parameters: SmoothingParameters, values: Float64Array, horizon: int = 0,
            origins: Sequence[int] | IntArray = ()) -> Float64Array:
    """Take the steps of `values` [N, T], changing `state`; forecasts [len(origins), N, G, horizon] on the way.

    Origin o forecasts from the first o steps of `values`, rising. Forecasts are in the units of the series.
    """
    N, G = state.level.shape
    result = np.empty((len(origins), N, G, horizon))
    ahead = Ahead(parameters, horizon) if len(origins) else None
    observed = ~np.isnan(values)
    moved = carried(values - state.base[:, None])
    starts = _season_starts(state, parameters, values.shape[1])
    wanted = {int(origin): n for n, origin in enumerate(origins)}
    for i in range(values.shape[1] + 1):
        if ahead is not None and i in wanted:
            result[wanted[i]] = ahead.forecasts(state)
        if i == values.shape[1]:
            break
        for rows, members in starts.get(state.steps, ()):
            _begin_season(state, parameters, moved, rows, members)
        _step(state, parameters, moved[:, i], observed[:, i])
    return result


def carried(values: Float64Array) -> Float64Array:
    """The rows with each missing value replaced by the last one before it; 0 where there is none."""
    T = values.shape[1]
    last = np.maximum.accumulate(np.where(np.isnan(values), 0, np.arange(T)), 1)
    return np.nan_to_num(np.take_along_axis(values, last, 1)) if T else values


def _step(state: SmoothingState, parameters: SmoothingParameters, z: Float64Array,
          observed: BoolArray) -> Float64Array:
    """One step of all recursions; their errors [N, G]."""
    t, sums = state.steps, state.sums
    seen = observed.astype(np.float64)
    sums += np.stack([seen, t * seen, t * t * seen, z * seen, t * z * seen])
    count = np.maximum(sums[0], 1)
    trend = parameters.phi * state.trend
    transient = parameters.rho * state.transient
    level = state.level + trend
    error = z[:, None] - level
    error -= transient
    for values, m in zip(state.seasonal, parameters.seasons, strict=True):
        error -= values[t % m]
    error *= seen[:, None]
    few = (1 / count)[:, None]
    least = few * np.where(parameters.beta > 0, (4 - 2 * few) / (1 + few), 1.0) if parameters.lines else few
    slope = np.where(few < 1 if parameters.lines else count[:, None] > 3, parameters.beta, 0.0)
    if parameters.lines:
        slope = np.where(slope > 0, np.maximum(slope, 6 * few * few / (1 + few)), slope)
    state.trend = trend + slope * error
    state.transient = transient + np.where(few < 1, parameters.kappa, 0.0) * error
    state.level = level + np.maximum(parameters.alpha, least) * error
    for j, (values, m) in enumerate(zip(state.seasonal, parameters.seasons, strict=True)):
        cycles = np.maximum((t - state.first) // m, 1) + 1
        ready = (t - state.first >= 2 * m)[:, None] & parameters.uses[:, j]
        values[t % m] += np.where(ready, np.maximum(parameters.gamma[..., j], (1 / cycles)[:, None]), 0) * error
    state.steps += 1
    return error


def _season_starts(state: SmoothingState, parameters: SmoothingParameters,
                   T: int) -> dict[int, list[tuple[IntArray, IntArray]]]:
    """By the step, which series and recursions take up their seasons there: after two of the longest they use."""
    result: dict[int, list[tuple[IntArray, IntArray]]] = {}
    if not parameters.seasons or state.steps:
        return result
    longest = (parameters.uses * np.array(parameters.seasons)).max(1, initial=0)
    for m in sorted(set(longest.tolist()) - {0}):
        members = np.flatnonzero(longest == m)
        for start in np.unique(state.first):
            if start + 2 * m <= T:
                result.setdefault(int(start + 2 * m), []).append((np.flatnonzero(state.first == start), members))
    return result


def _begin_season(state: SmoothingState, parameters: SmoothingParameters, moved: Float64Array, rows: IntArray,
                  members: IntArray) -> None:
    """Level, trend and seasonal values from the two seasons before this step."""
    m = int((parameters.uses[members[0]] * np.array(parameters.seasons)).max())
    t = state.steps - 2 * m + np.arange(2 * m)
    z = moved[rows][:, t]
    cycles = z.reshape(len(rows), 2, m).mean(2)
    trend, centre = (cycles[:, 1] - cycles[:, 0]) / m, cycles.mean(1)
    detrended = z - centre[:, None] - trend[:, None] * (np.arange(2 * m) - m + 0.5)
    at = np.ix_(rows, members)
    damped = np.broadcast_to(parameters.beta, state.trend.shape)[at] > 0
    state.trend[at] = np.where(damped, trend[:, None], 0)
    state.level[at] = (centre + trend * (m - 0.5))[:, None]
    state.transient[at] = 0
    for g in members:                   # seasons from the shortest on, each of what the ones before leave
        rest = detrended
        for j in sorted(np.flatnonzero(parameters.uses[g]), key=parameters.seasons.__getitem__):
            length = parameters.seasons[j]
            phase = t % length
            means = np.stack([rest[:, phase == k].mean(1) for k in range(length)])
            state.seasonal[j][:, rows, g] = means
            rest = rest - means[phase].T


def one_step_scores(values: Float64Array, parameters: SmoothingParameters, before: IntArray,
                    first: IntArray) -> tuple[Float64Array, Float64Array]:
    """The corrected information criterion (AICc) of recursions [N, G] by their errors one step ahead.

    Parameters
    ----------
    values : array of float64, [N, T]
        Series that end together.
    parameters : SmoothingParameters
        Of G recursions, the same for all series.
    before : array of int, [N]
        The first criterion is of the steps before this one.
    first : array of int, [N]
        Errors count from this step on.

    Returns
    -------
    early, late : array of float64, [N, G]
        The criterion before that step, and of all steps.
    """
    state = begin(values, parameters)
    observed, moved = ~np.isnan(values), carried(values - state.base[:, None])
    starts = _season_starts(state, parameters, values.shape[1])
    squares = np.zeros((2, *state.level.shape))
    for i in range(values.shape[1]):
        for rows, members in starts.get(i, ()):
            _begin_season(state, parameters, moved, rows, members)
        error = _step(state, parameters, moved[:, i], observed[:, i])
        error *= error
        error[i < first] = 0
        squares[1] += error
        squares[0] += np.where((i < before)[:, None], error, 0.0)
    at = np.arange(values.shape[1])
    counted = observed & (at >= first[:, None])
    numbers = np.stack([(counted & (at < before[:, None])).sum(1), counted.sum(1)])
    free = 1 + (parameters.beta > 0) + (parameters.phi < 1) + parameters.uses.any(1)
    early, late = (_corrected_criterion(total, number[:, None], free)
                   for total, number in zip(squares, numbers, strict=True))
    return early, late


def _corrected_criterion(squares: Float64Array, count: IntArray, free: IntArray) -> Float64Array:
    """AICc of recursions with `free` parameters and a variance, from the sums of so many squared errors."""
    some = np.maximum(count, 1)
    variance = squares / some
    typical = np.median(variance, 1, keepdims=True)
    likelihood = some * np.log(np.where(typical > 0, variance / np.where(typical > 0, typical, 1), 0) + 1e-12)
    known = free + 1
    result: Float64Array = likelihood + 2 * known + 2 * known * (known + 1) / np.maximum(count - known - 1, 1)
    return result


class Ahead:
    """What forecasts of some recursions need of their parameters, for 1 ... `horizon` steps ahead."""

    def __init__(self, parameters: SmoothingParameters, horizon: int, first: int = 1) -> None:
        k = np.arange(first, first + horizon)
        phi, rho = parameters.phi[..., None], parameters.rho[..., None]
        near = phi * (1 - phi**k) / np.where(phi < 1, 1 - phi, 1)
        self.trend = np.where(phi < 1, near, k)
        self.transient = rho**k
        alpha = np.maximum(parameters.alpha, 0.05)[..., None]
        self.theta = parameters.theta[..., None] * (k - 1 + 1 / alpha)
        self.k, self.seasons = k, parameters.seasons

    def forecasts(self, state: SmoothingState) -> Float64Array:
        """Forecasts [N, G, horizon] from a state, in the units of the series."""
        result = (state.level + state.base[:, None])[..., None] + state.trend[..., None] * self.trend
        result += state.transient[..., None] * self.transient
        result += state.slopes()[:, None, None] * self.theta
        for values, m in zip(state.seasonal, self.seasons, strict=True):
            result += np.moveaxis(values[(state.steps - 1 + self.k) % m], 0, -1)
        return result


# ---- Naive forecasts ------------------------------------------------------------------------------

def naive_members(seasons: Sequence[int]) -> list[str]:
    """The names of the members that ``naive`` forecasts."""
    return ["naive", *(f"seasonal naive {m}" for m in seasons), "drift", "mean", "median"]


def naive(values: Float64Array, seasons: Sequence[int], horizon: int, origins: Sequence[int] | IntArray,
          first_ahead: int = 1) -> Float64Array:
    """Forecasts [len(origins), N, K, horizon] of the members of ``naive_members``.

    Parameters
    ----------
    values : array of float64, [N, T]
        Series that end together; NaN before a series begins, and where a value is missing.
    seasons : sequence of int
        Lengths of seasons.
    horizon : int
        How many steps are forecast.
    origins : sequence of int
        Each forecast is made from so many first steps.
    first_ahead : int
        The first of the steps ahead that are forecast.

    Returns
    -------
    array of float64
        Before a season has passed its seasonal naive forecast is the naive one.
    """
    N, T = values.shape
    observed = ~np.isnan(values)
    first, rows = observed.argmax(1), np.arange(N)
    last = np.maximum.accumulate(np.where(observed, np.arange(T), first[:, None]), 1)
    count = np.maximum(observed.cumsum(1), 1)
    base = values[rows, first]
    means = base[:, None] + np.where(observed, values - base[:, None], 0).cumsum(1) / count
    k = np.arange(first_ahead, first_ahead + horizon)
    result = np.empty((len(origins), N, len(seasons) + 4, horizon))
    for o, origin in enumerate(origins):
        at = int(origin) - 1
        newest = last[:, at]
        now = values[rows, newest]
        result[o, :, 0] = now[:, None]
        for n, m in enumerate(seasons, 1):
            source = at + k - m * -(-k // m)
            source = np.where(source >= first[:, None], np.maximum(source, 0), newest[:, None])
            result[o, :, n] = values[rows[:, None], last[rows[:, None], source]]
        slope = (now - base) / np.maximum(newest - first, 1)
        result[o, :, -3] = now[:, None] + slope[:, None] * (at - newest[:, None] + k)
        result[o, :, -2] = means[:, at][:, None]
        result[o, :, -1] = np.where(at >= first, _medians(values[:, :at + 1]), now)[:, None]
    return result


def _medians(values: Float64Array) -> Float64Array:
    """The median of each row's values [N], NaN where there is none; without the warning of nanmedian."""
    ordered, count = np.sort(values, 1), (~np.isnan(values)).sum(1)     # NaN comes last
    some = np.maximum(count, 1)
    rows = np.arange(len(values))
    result: Float64Array = (ordered[rows, (some - 1) // 2] + ordered[rows, some // 2]) / 2
    return result


def aligned(series: Sequence[Float64Array], longest: int | None = None, length: int | None = None) -> Float64Array:
    """Series as rows [N, T] that end together, with NaN before each begins; of their last `longest` steps if given.

    T is `length`, or that of the longest series.
    """
    T = max(map(len, series)) if length is None else length
    T = T if longest is None else min(T, longest)
    result = np.full((len(series), T), np.nan)
    for row, z in zip(result, series, strict=True):
        part = z[-T:]
        row[T - len(part):] = part
    return result
