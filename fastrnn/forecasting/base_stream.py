"""Base forecasts and intervals an observation at a time: what ``blend`` and ``intervals`` have, at constant cost."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base.trees import storable
from . import smoothing
from .intervals import further

if TYPE_CHECKING:
    from .._base.typing import Array, Float64Array
    from .blend import Blend
    from .intervals import Calibration

RATE = 0.03             # of the bounds' width, by which a bound that failed moves (times 1 - its probability)


@storable
class BaseStream:
    """The base members of one series' blend, weighted and added up.

    Parameters
    ----------
    blend : Blend
        A fitted one, whose state stands at the ends of the panel's series.
    row : int
        The series' number.
    z : array of float64, [T]
        The series so far, NaN where a value is missing.
    horizon : int
        Steps that are forecast.
    """

    _lines = False          # in snapshots of before

    def __init__(self, blend: Blend, row: int, z: Float64Array, horizon: int) -> None:
        table = smoothing.aligned([z])[0]
        self._horizon, trained = horizon, blend.count(smoothing.TRAINED)
        places, names = blend.naive_places, smoothing.naive_members(blend.seasons)
        weights = blend.weights[row]
        naive = dict(zip([names[k] for k in places], weights[trained:trained + len(places)].tolist(), strict=True))
        self._weights = {name: weight for name, weight in naive.items() if weight > 0}
        kept = np.flatnonzero(weights[trained + len(places):] > 0)
        self._parameters = None if blend.parameters is None or not len(kept) else blend.parameters.some(
            slice(row, row + 1), kept)
        self._recursion_weights = weights[trained + len(places):][kept]
        places_of_values = np.flatnonzero(~np.isnan(table))
        values = table[places_of_values]
        self._first, self._first_at = float(values[0]), int(places_of_values[0])
        self._last, self._last_at, self._at = float(values[-1]), int(places_of_values[-1]), len(table) - 1
        self._count, self._sum = len(values), float((values - self._first).sum())
        self._ordered = sorted(values.tolist()) if "median" in self._weights else []
        self._seasonal_naive = [(m, self._weights[f"seasonal naive {m}"]) for m in blend.seasons
                                if f"seasonal naive {m}" in self._weights]
        size = self._size = max([m for m, _ in self._seasonal_naive], default=0)
        if size:                        # the last values, missing ones carried forward, twice in a row
            carried = smoothing.carried(table[None])[0][-size:]
            self._ring = np.full(2 * size, np.nan)
            for value, t in zip(carried, range(len(table) - len(carried), len(table)), strict=True):
                self._ring[t % size] = self._ring[t % size + size] = value
        # Seasons that the series is too short for yet are taken up later, from its whole history.
        later: list[int] = []
        used_seasons: Any = () if self._parameters is None else self._parameters.uses.any(0)
        if self._parameters is not None:
            later = [self._first_at + 2 * m for m, used in zip(self._parameters.seasons, used_seasons, strict=True)
                     if used]
        self._later = [t for t in later if t >= len(table)]
        self._history = table.tolist() if self._later else []
        if self._parameters is not None:
            self._load(table)
        self._lines = self._parameters is not None and self._parameters.lines
        self._make_slices()

    def _load(self, table: Float64Array) -> None:
        """Take up the recursions where they stand after all values of `table`."""
        parameters: Any = self._parameters
        state = smoothing.begin(table[None], parameters)
        smoothing.advance(state, parameters, table[None])
        weights = self._recursion_weights
        self._base, self._t, self._sums = float(state.base[0]), state.steps, state.sums[:, 0].tolist()
        ahead = smoothing.Ahead(parameters, self._horizon)
        self._states = []
        rows = []
        for r, weight in enumerate(weights.tolist()):
            rates = [float(getattr(parameters, name)[0, r]) for name in smoothing.RATES]
            used = [j for j in range(len(parameters.seasons)) if parameters.uses[r, j]]
            self._states.append([weight, *rates, [(j, parameters.seasons[j], float(parameters.gamma[0, r, j]),
                                                   state.seasonal[j][:, 0, r].tolist()) for j in used],
                                 float(state.level[0, r]), float(state.trend[0, r]), float(state.transient[0, r])])
            rows += [weight * ahead.trend[0, r], weight * ahead.transient[0, r]]
        rows.append((weights[:, None] * ahead.theta[0]).sum(0))
        self._matrix = np.array(rows)
        self._coefficients = np.zeros(len(rows))
        self._seasonal = []             # of each season the weighted sum of its values, twice in a row
        for j, m in enumerate(parameters.seasons):
            total = state.seasonal[j][:, 0] @ weights
            self._seasonal.append((m, np.concatenate([total, total]), np.arange(self._horizon) % m))

    def _make_slices(self) -> None:
        k = np.arange(1, self._horizon + 1)
        self._k = k.astype(np.float64)
        self._naive_offsets = [(m, weight, k - m * -(-k // m)) for m, weight in self._seasonal_naive]

    def update(self, z: float, observed: bool) -> None:
        """Take the next value; `z` is not read where it is missing."""
        self._at += 1
        if observed:
            self._last, self._last_at = z, self._at
            self._count += 1
            self._sum += z - self._first
            if "median" in self._weights:
                bisect.insort(self._ordered, z)
        if self._size:
            at = self._at % self._size
            self._ring[at] = self._ring[at + self._size] = self._last
        if self._parameters is None:
            return
        if self._later:
            self._history.append(z if observed else float("nan"))
            if self._t in self._later:
                self._load(np.array(self._history))
                self._later = [t for t in self._later if t >= self._t]
                return
        self._step(z - self._base, observed)

    def _step(self, z: float, observed: bool) -> None:
        """One step of all recursions, as ``smoothing`` has it."""
        t, sums = self._t, self._sums
        self._t = t + 1
        if observed:
            sums[0] += 1
            sums[1] += t
            sums[2] += t * t
            sums[3] += z
            sums[4] += t * z
        n, lines = max(sums[0], 1), self._lines
        line, turn = 2 * (2 * n - 1) / (n * (n + 1)), 6 / (n * (n + 1))
        for state in self._states:
            weight, alpha, beta, phi, kappa, rho, _, seasons, level, trend, transient = state
            trend *= phi
            transient *= rho
            level += trend
            if observed:
                error = z - level - transient
                for _, m, _, values in seasons:
                    error -= values[t % m]
                least = 1 / n
                if beta and lines:
                    least = line
                    if n > 1:
                        trend += max(beta, turn) * error
                elif n > 3:
                    trend += beta * error
                if n > 1:
                    transient += kappa * error
                level += max(alpha, least) * error
                for j, m, gamma, values in seasons:
                    age = t - self._first_at
                    if age >= 2 * m:
                        change = max(gamma, 1 / (max(age // m, 1) + 1)) * error
                        values[t % m] += change
                        total, place = self._seasonal[j][1], t % m
                        total[place] += weight * change
                        total[place + m] += weight * change
            state[8], state[9], state[10] = level, trend, transient

    def forecasts(self) -> Float64Array:
        """The weighted sum of the base members' forecasts, as z [horizon]."""
        constant, weights = 0.0, self._weights
        slope = 0.0
        for name, weight in weights.items():
            if name == "naive":
                constant += weight * self._last
            elif name == "mean":
                constant += weight * (self._first + self._sum / self._count)
            elif name == "median":
                ordered, n = self._ordered, len(self._ordered)
                constant += weight * (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
            elif name == "drift":
                slope = (self._last - self._first) / max(self._last_at - self._first_at, 1)
                constant += weight * (self._last + slope * (self._at - self._last_at))
                slope *= weight
        if self._parameters is not None:
            coefficients, place = self._coefficients, 0
            for state in self._states:
                constant += state[0] * (state[8] + self._base)
                coefficients[place], coefficients[place + 1] = state[9], state[10]
                place += 2
            coefficients[place] = self._slope()
            result: Float64Array = coefficients @ self._matrix
            for m, total, places in self._seasonal:
                start = self._t % m
                result += (total[start:start + self._horizon] if self._horizon <= m else total[start + places])
        else:
            result = np.zeros(self._horizon)
        result += constant
        if slope:
            result += slope * self._k
        for m, weight, offsets in self._naive_offsets:
            end = self._at % self._size + self._size
            if self._at + 1 < m:        # no season has passed yet
                source = self._at + offsets
                result += weight * np.where(source >= 0, self._ring[source % self._size], self._last)
            elif self._horizon <= m:
                start = end + 1 - m
                result += weight * self._ring[start:start + self._horizon]
            else:
                result += weight * self._ring[end + offsets]
        return result

    def _slope(self) -> float:
        """The slope of the least-squares line through all values."""
        n, t, square, z, product = self._sums
        spread = n * square - t * t
        return (n * product - t * z) / spread if n > 2 and spread > 0 else 0.0


@storable
class AdaptiveInterval:
    """Bounds around a stream's forecasts that follow what comes: online conformal quantiles.

    With r the error k steps ahead in units of the calibrated spread, a bound b_k of probability p moves by

        b_k <- b_k + RATE w_k (p - [r < b_k]),

    with w_k the present width; in the long run a share p of the errors lies below it, whatever the series does.

    Parameters
    ----------
    calibration : Calibration
        Where the bounds begin.
    row : int
        The series' number.
    horizon : int
        Steps that are forecast.
    level : float
        The probability of the interval.
    """

    def __init__(self, calibration: Calibration, row: int, horizon: int, level: float) -> None:
        spread = calibration.spreads(horizon)[row]
        self._spread = np.where(spread > 0, spread, 1e-12)      # of a constant's forecasts it is 0
        self._growth, self._gap, self._size = calibration.growth, 0, self._spread
        self._p = np.array([[0.5 - level / 2], [0.5 + level / 2]])
        self._bounds: Float64Array = calibration.errors(self._p[:, 0], horizon).T.copy()
        self._made = np.full(horizon * horizon, np.nan)         # forecasts: row t mod horizon
        self._sizes = np.ones(horizon * horizon)                # the sizes of errors that were expected of them
        self._diagonal = (np.arange(horizon) + horizon * np.arange(-1, -horizon - 1, -1)) % (horizon * horizon)
        self._horizon, self._count = horizon, 0

    def observe(self, z: float) -> None:
        """Compare the forecasts that were made of this step with what came."""
        horizon = self._horizon
        places = (self._diagonal + horizon * self._count) % (horizon * horizon)
        errors = z - self._made[places]
        errors /= self._sizes[places]
        bounds = self._bounds
        known = min(self._count, horizon)       # forecasts of this step that were made in this stream
        width = bounds[1, :known] - bounds[0, :known]
        bounds[:, :known] += RATE * width * (self._p - (errors[:known] < bounds[:, :known]))

    def bounds(self, forecasts: Float64Array, gap: int = 0) -> Array:
        """The interval [2, horizon] around new forecasts, as z; `gap` values before them are missing."""
        if gap != self._gap:
            self._gap, self._size = gap, further(self._spread, self._growth, gap, self._horizon)
        start = self._count % self._horizon * self._horizon
        self._made[start:start + self._horizon] = forecasts
        self._sizes[start:start + self._horizon] = self._size
        self._count += 1
        bounds = self._bounds
        if gap:
            bounds = bounds[:, np.minimum(np.arange(gap, gap + self._horizon), self._horizon - 1)]
        result: Array = forecasts + self._size * bounds
        np.minimum(result[0], forecasts, out=result[0])
        np.maximum(result[1], forecasts, out=result[1])
        return result
