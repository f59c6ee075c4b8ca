"""The blend of a network's forecasts with base forecasts, by weights that errors at rolling origins set.

With z the values or their logarithms, the forecast of a series is sum_j w_j f_j over members j, w_j >= 0 and
sum_j w_j = 1. Trained members (the network and the linear forecast) learn from the steps before the last `judged` ones;
then every member forecasts from several origins in these, and the weights of a series are

    argmin_w  mean |sum_j w_j e_j| / min_j mean |e_j|  +  (tau / n) (1 + 4 / n) sum_j w_j log(w_j / p_j),

with e_j the errors at the origins, n how many of them do not overlap, and p a prior with more weight on naive
forecasts: where a few origins show little the forecast stays near it. At last the trained members learn from all steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base.trees import storable
from . import choice as choices
from . import fitting, linear, smoothing
from .judging import Judged, Table, judge, recursions, trained_members
from .origins import FEW_ORIGINS, ORIGINS, Origins
from .residuals import calibrated
from .smoothing import TRAINED
from .weights import Pull, pruned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .. import training
    from .._base.typing import Array, Float64Array, IntArray
    from .encoding import Encoding
    from .fitting import Trainer
    from .intervals import Calibration
    from .network import ForecastNetwork
    from .options import Options
    from .series import Series

POOL = 200              # series that are judged at once
OWN_WEIGHTS = 5_000     # of more series a sample is judged, and all share its weights
TOGETHER = 400          # series whose recursions are brought to their ends at once
SOME = 200              # series whose base forecasts are made at once
MANY = 20               # series
MOST_FITTED = 2_500_000     # steps of all series, up to which there is a member "ets"
HELD = 1_500_000        # errors of all members that are held; where there are many values, a fourth of these


# ---- What is fitted -------------------------------------------------------------------------------

@storable
@dataclass
class Blend:
    """The members that count, their weights, and where the base forecasts of the panel's series stand."""

    members: tuple[str, ...]                # trained ones first, then naive ones, then recursions
    weights: Float64Array                   # [N, members]
    seasons: tuple[int, ...]
    linear: Array | None                    # weights of ``linear``
    parameters: smoothing.SmoothingParameters | None     # of the recursions [N, R]
    state: smoothing.SmoothingState | None = None        # of the recursions at the ends of the series

    def count(self, names: Sequence[str]) -> int:
        """How many members are of these names."""
        return sum(name in names for name in self.members)

    @property
    def naive_places(self) -> list[int]:
        """The members of ``smoothing.naive`` that count."""
        names = smoothing.naive_members(self.seasons)
        return [names.index(name) for name in self.members if name in names]

    def for_panel(self, values: Sequence[Float64Array], kept: int = 0, places: IntArray | None = None) -> Blend:
        """The blend for other series: as many as before, or the first `kept`, keep their weights; others have the mean.

        `places` says of each series which of those before it is, whose weights it has; -1: none of them. Parameters of
        recursions that are not kept are those of the first series.
        """
        N = len(values)
        other = self
        if places is not None:
            weights = np.where(places[:, None] >= 0, self.weights[places], self.weights.mean(0))
            parameters = self.parameters
            if parameters is not None and len(parameters.alpha) > 1:
                parameters = parameters.some(np.maximum(places, 0))
            other = replace(self, weights=weights, parameters=parameters)
        elif N != len(self.weights):
            mean = np.repeat(self.weights.mean(0, keepdims=True), N - kept, 0)
            parameters = self.parameters
            if parameters is not None:
                first = parameters.some(slice(0, 1))
                parameters = (first if not kept or len(parameters.alpha) == 1 else
                              smoothing.SmoothingParameters.joined([parameters, *[first] * (N - kept)]))
            other = replace(self, weights=np.concatenate([self.weights[:kept], mean]), parameters=parameters)
        if "naive" in self.members:             # the forecast of a constant is the constant, to the last bit
            constant = np.array([np.nanmax(z) == np.nanmin(z) for z in values])[:, None]
            alone = np.array([name == "naive" for name in self.members])
            other = replace(other, weights=np.where(constant, alone, other.weights))
        if other.parameters is None:
            return replace(other, state=None)
        parts, length = [], max(map(len, values))
        for start in range(0, N, TOGETHER):
            parameters = other.parameters
            if len(parameters.alpha) > 1:
                parameters = parameters.some(slice(start, start + TOGETHER))
            table = smoothing.aligned(values[start:start + TOGETHER], length=length)
            parts.append(smoothing.begin(table, parameters))
            smoothing.advance(parts[-1], parameters, table)
        return replace(other, state=smoothing.SmoothingState.joined(parts))

    def base(self, values: Sequence[Float64Array], steps: int) -> Float64Array:
        """What the base members add to the forecasts from the ends of the series, [N, steps]."""
        result = np.zeros((len(values), steps))
        trained = self.count(TRAINED)
        places = self.naive_places
        if places:
            length, weights = max(map(len, values)), self.weights[:, trained:trained + len(places)]
            for start in range(0, len(values), TOGETHER):
                part = slice(start, start + TOGETHER)
                table = smoothing.aligned(values[part], length=length)
                forecasts = smoothing.naive(table, self.seasons, steps, [table.shape[1]])[0][:, places]
                result[part] += np.einsum("nk,nkh->nh", weights[part], forecasts)
        if self.parameters is not None and self.state is not None:
            for start in range(0, len(values), TOGETHER):
                part = slice(start, start + TOGETHER)
                forecasts = smoothing.Ahead(self.parameters.some(part), steps).forecasts(self.state.some(part))
                result[part] += np.einsum("nk,nkh->nh", self.weights[part, trained + len(places):], forecasts)
        return result

    def walked(self, z: Float64Array, row: int, origins: Sequence[int] | IntArray, horizon: int) -> Float64Array:
        """What the base members add to forecasts of one series from several origins, [origins, horizon]."""
        result = np.zeros((len(origins), horizon))
        trained, places = self.count(TRAINED), self.naive_places
        weights = self.weights[row if len(self.weights) > row else 0]
        if places:
            forecasts = smoothing.naive(z[None], self.seasons, horizon, origins)[:, 0, places]
            result += np.einsum("k,okh->oh", weights[trained:trained + len(places)], forecasts)
        if self.parameters is not None:
            parameters = self.parameters.some(slice(row, row + 1))
            state = smoothing.begin(z[None], parameters)
            forecasts = smoothing.advance(state, parameters, z[None], horizon, origins)[:, 0]
            result += np.einsum("k,okh->oh", weights[trained + len(places):], forecasts)
        return result

    def weight(self, name: str) -> Float64Array:
        """The weights [N] of one member; 0 where it does not count."""
        if name in self.members:
            return self.weights[:, self.members.index(name)]
        return np.zeros(len(self.weights))


@dataclass
class Fitted:
    """What ``fit_blend`` gives."""

    blend: Blend
    calibration: Calibration
    choice: choices.Choice
    networks: list[ForecastNetwork]
    histories: list[training.History]


# ---- Fitting --------------------------------------------------------------------------------------

def fit_blend(series: list[Series], encoding: Encoding, options: Options, trainer: Trainer = fitting) -> Fitted:
    """Judge every member at rolling origins, set the weights, then train on all steps; `trainer` trains networks."""
    N = len(series)
    numbers = ORIGINS if N <= MANY else FEW_ORIGINS
    if options.blend == "auto" and sum(map(len, series)) > MOST_FITTED:
        options = replace(options, blend=tuple(name for name in smoothing.MEMBERS if name != "ets"))
    most = _at_once(series, encoding, options, numbers)
    rows = np.arange(N) if N <= most else np.unique(np.linspace(0, N - 1, most).astype(int))
    table = Table.of(series, rows, encoding, numbers)
    trained, judgement = trained_members(series, rows, encoding, options, table.origins, trainer)
    sample = judge(table, encoding, options, trained)
    names, weights, parameters = sample.names, sample.weights, sample.parameters
    calibration = calibrated(sample, weights, len(rows) < N, series, encoding)
    shared = N > OWN_WEIGHTS
    if shared:
        weights = pruned(weights.mean(0, keepdims=True))
    elif len(rows) < N:
        weights, parameters, calibration = _each(series, encoding, options, numbers, trained, most, calibration,
                                                 sample.pull)
    counts = weights.max(0) > 0
    if shared and "naive" in names:
        counts[names.index("naive")] = True
    members = [name for name, count in zip(names, counts, strict=True) if count]
    networks, histories, options = _networks(series, encoding, options, judgement if "network" in members else None,
                                             trainer)
    solution = linear.fit(series, encoding, [len(each) for each in series]) if "linear" in members else None
    last = [k for k, name in enumerate(sample.recursive) if name in members]
    picked = parameters.some(slice(None), last) if parameters is not None and last else None
    if picked is not None and shared:
        picked = _picked(series, encoding, options, [sample.recursive[k] for k in last])
    weights = np.repeat(weights, N if shared else 1, 0)
    blend = Blend(tuple(members), weights[:, counts], options.seasons, solution, picked)
    return Fitted(blend, calibration, _choice(sample, options, weights), networks, histories)


def _at_once(series: Sequence[Series], encoding: Encoding, options: Options, numbers: tuple[int, int]) -> int:
    """How many series are judged at once, so that the errors of all members have room."""
    members = len(smoothing.recursive_members(options.seasons)) + len(options.seasons) + 6
    errors = sum(numbers) * encoding.horizon * members          # of one series
    return int(np.clip(max(HELD, sum(map(len, series)) // 4) / errors, MANY, POOL))


def _networks(series: list[Series], encoding: Encoding, options: Options, judgement: Any,
              trainer: Trainer) -> tuple[list[ForecastNetwork], list[training.History], Options]:
    """The networks trained on all steps, their histories, and the options with the updates that were best; none
    without a judged one."""
    if judgement is None:
        return [], [], options
    network, history, options = judgement
    networks, histories = trainer.finished(network, series, encoding, options, options.updates)
    return networks, [history, *histories[1:]], options


def _choice(sample: Judged, options: Options, weights: Float64Array) -> choices.Choice:
    """What is said of the choice: errors of members are those of the series that were judged first."""
    origins = sample.table.origins
    judged = sample.errors[origins.judged]
    observed = np.isfinite(judged)
    sums = np.where(observed, np.abs(judged), 0).sum((0, 3), dtype=np.float64)          # of each series and member
    sizes = np.ones(len(sample.names))
    if observed.any():
        sizes = (sums * sample.table.scales[:, None]).sum(0) / np.maximum(observed.sum((0, 1, 3)), 1)
    changes = np.abs(sample.naive[origins.judged])
    unit = np.nanmean(changes) if np.isfinite(changes).any() else 0.0
    return choices.Choice(
        options.seasons, options.log, options.difference, options.window, options.hidden_size, options.ensemble,
        options.updates, (), int(origins.judged.sum()),
        int(sample.table.values.shape[1] - origins.at[origins.judged][0]), tuple(sample.names), weights,
        sizes / unit if unit > 0 else np.ones(len(sample.names)))


def _each(series: list[Series], encoding: Encoding, options: Options, numbers: tuple[int, int],
          trained: dict[str, Any], most: int, common: Calibration, pull: Pull,
          ) -> tuple[Float64Array, smoothing.SmoothingParameters | None, Calibration]:
    """Weights, parameters and sizes of errors of every series of a panel, so many judged at once.

    The shape of the errors' distribution is that of `common`.
    """
    weights, parameters, spreads, sizes = [], [], [], []
    for start in range(0, len(series), most):
        rows = np.arange(start, min(start + most, len(series)))
        judged = judge(Table.of(series, rows, encoding, numbers), encoding, options, trained, pull)
        calibration = calibrated(judged, judged.weights, False, series, encoding)
        weights.append(judged.weights)
        spreads.append(calibration.spread)
        sizes.append(calibration.units)
        if judged.parameters is not None:
            parameters.append(judged.parameters)
    return (np.concatenate(weights), smoothing.SmoothingParameters.joined(parameters) if parameters else None,
            replace(common, spread=np.concatenate(spreads), units=np.concatenate(sizes)))


def _picked(series: Sequence[Series], encoding: Encoding, options: Options,
            names: Sequence[str]) -> smoothing.SmoothingParameters:
    """The parameters [N, R] of recursive members that were best for each series, a few hundred series at a time."""
    parts = []
    for start in range(0, len(series), SOME):
        values = [encoding.transformed(each.y) for each in series[start:start + POOL]]
        table = smoothing.aligned(values, smoothing.LONGEST)
        lengths = np.minimum([len(each) for each in values], table.shape[1])
        origins = Origins.of(lengths, table.shape[1], encoding.horizon, FEW_ORIGINS)
        parts.append(recursions(table, options.seasons, names, origins, encoding.horizon, False)[1])
    return smoothing.SmoothingParameters.joined([part for part in parts if part is not None])
