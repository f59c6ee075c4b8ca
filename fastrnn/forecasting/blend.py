"""The blend of a network's forecasts with base forecasts, by weights that errors at rolling origins set.

With z the values or their logarithms, the forecast of a series is sum_j w_j f_j over members j, w_j >= 0 and
sum_j w_j = 1. Trained members (the network and the linear forecast) learn from the steps before the last `judged` ones;
then every member forecasts from several origins in these, and the weights of a series are

    argmin_w  mean |sum_j w_j e_j| / min_j mean |e_j|  +  (tau / n) (1 + 4 / n) sum_j w_j log(w_j / p_j),

with e_j the errors at the origins, n how many of them do not overlap, and p a prior with more weight on naive
forecasts: where a few origins show little the forecast stays near it. At last the trained members learn from all steps.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base.trees import storable
from . import choice as choices
from . import fitting, linear, smoothing
from .intervals import Calibration
from .smoothing import MEMBERS, TRAINED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .. import training
    from .._base.typing import Array, BoolArray, Float64Array, IntArray
    from .encoding import Encoding
    from .network import ForecastNetwork
    from .options import Options
    from .series import Series

POOL = 200              # series that are judged at once
OWN_WEIGHTS = 5_000     # of more series a sample is judged, and all share its weights
TOGETHER = 400         # series whose recursions are brought to their ends at once
SOME = 200              # series whose base forecasts are made at once
ORIGINS = 40, 24        # at which members are judged; before those, at which parameters of base forecasts are compared
FEW_ORIGINS = 14, 10    # the same where there are many series
MANY = 20               # series
PRIOR = 5.0             # of the weight of the forecast that is first by itself; 2 for other naive ones, else 1
UNFIT = 0.15            # prior of members with a season where there is none, and of those without where there is one
TAU = 0.25              # strength of the prior
LEAST = 0.03            # smaller weights become 0
FEWEST = 20             # steps with targets that a network needs
ROOM = 500_000          # forecasts of recursions that are held at once
HELD = 1_500_000        # errors of all members that are held; where there are many values, as many as these


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

    def for_panel(self, values: Sequence[Float64Array], kept: int = 0) -> Blend:
        """The blend for other series: as many as before, or the first `kept`, keep their weights; others have the mean.

        Parameters of recursions that are not kept are those of the first series.
        """
        N = len(values)
        other = self
        if N != len(self.weights):
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
            forecasts = smoothing.Ahead(self.parameters, steps).forecasts(self.state)
            result += np.einsum("nk,nkh->nh", self.weights[:, trained + len(places):], forecasts)
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


# ---- Rolling origins ------------------------------------------------------------------------------

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
    count: float                # of judged origins of the longest series, those that do not overlap

    @classmethod
    def of(cls, lengths: IntArray, T: int, horizon: int, numbers: tuple[int, int] = ORIGINS) -> Origins:
        """Those of series of these lengths in a table of T steps; `numbers` of judged and of earlier ones at most."""
        held = _held(T, horizon)
        back = np.unique(np.linspace(1, held, min(held, numbers[0])).astype(int))
        earlier = np.unique(np.linspace(held + 1, max(held + 1, int(0.85 * T)), numbers[1]).astype(int))
        earlier = earlier[(earlier > held) & (earlier < T)]
        every = np.concatenate([back, earlier])[::-1]
        each_held = np.minimum([_held(length, horizon) for length in lengths.tolist()], held)
        judged = every <= held
        usable = np.where(judged[:, None], every[:, None] <= each_held, every[:, None] < lengths - 1)
        return cls(lengths, lengths - each_held, T - every, judged, usable, held / min(horizon, held))

    def places(self, n: int, length: int) -> list[int]:
        """The judged origins of series n, which has `length` steps, as so many of its first steps."""
        T = int(self.at[-1]) + 1
        mask = self.judged & self.usable[:, n]
        return [int(length - (T - origin)) for origin in self.at[mask]]


def _held(T: int, horizon: int) -> int:
    """How many of the last of T steps the judged origins lie in."""
    if T < 8 * horizon:
        return max(1, T // 3)
    return max(2 * horizon, min(T // 4, max(20 * horizon, 500)))


def _masked_means(errors: Float64Array, mask: BoolArray) -> Float64Array:
    """Means of errors [O, N, G, H] over origins and steps that `mask` [O, N, H] has, [N, G]."""
    total = np.einsum("ongh,onh->ng", errors, mask.astype(np.float64))
    result: Float64Array = total / np.maximum(mask.sum((0, 2)), 1)[:, None]
    return result


def _recursions(table: Float64Array, seasons: Sequence[int], allowed: BoolArray, origins: Origins, rows: IntArray,
                horizon: int, whole: bool = True,
                ) -> tuple[list[str], smoothing.SmoothingParameters | None, Float64Array]:
    """Of each recursive member: its name, the parameters that were best by the end, and its forecasts.

    Forecasts [O, N, R, horizon] are made with the parameters that were best before the judged origins; not `whole`:
    they are left out.
    """
    groups, parameters = smoothing.grid(seasons)
    names = [name for name, wanted in zip(groups, allowed, strict=True) if wanted]
    if not names:
        return [], None, np.zeros((len(origins.at), len(table), 0, horizon))
    members = np.concatenate([groups[name] for name in names])
    parameters = parameters.some(slice(None), members)
    bounds = np.cumsum([0, *(len(groups[name]) for name in names)])
    forecasts = np.empty((len(origins.at), len(table) if whole else 0, len(names), horizon))
    best = np.empty((len(table), len(names)), int)
    T = table.shape[1]
    chunk = max(1, ROOM // (len(members) * horizon * len(origins.at)))
    for start in range(0, len(table), chunk):
        part = slice(start, start + chunk)
        values = table[part]
        state = smoothing.begin(values, parameters)
        every = smoothing.advance(state, parameters, values, horizon, origins.at)
        truth = choices.future(values, origins.at, horizon)
        known = ~np.isnan(truth) & origins.usable[:, rows[part], None]
        errors = np.abs(every - np.nan_to_num(truth)[:, :, None])
        cut = T - (origins.lengths - origins.ends)[rows[part]]
        before = known & (origins.at[:, None, None] + np.arange(horizon) < cut[:, None])
        early, late = _masked_means(errors, before), _masked_means(errors, known)
        for r in range(len(names)):
            group = slice(bounds[r], bounds[r + 1])
            picked = early[:, group].argmin(1) + bounds[r]
            if whole:
                forecasts[:, part, r] = np.take_along_axis(every, picked[None, :, None, None], 2)[:, :, 0]
            best[part, r] = late[:, group].argmin(1) + bounds[r]
    return names, parameters.taken(best), forecasts


# ---- Weights --------------------------------------------------------------------------------------

def simplex_weights(errors: Float64Array, prior: Float64Array, count: Float64Array) -> Float64Array:
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
    pull = (TAU / count * (1 + 4 / count))[:, None]
    for i in range(200):
        residual = np.sign(np.einsum("nmk,nk->nm", errors, weights))
        slope = np.einsum("nm,nmk->nk", residual, errors) / total[:, None] + pull * (logs - start)
        logs = logs - 0.3 / np.sqrt(1 + i / 10) * (slope - slope.min(1, keepdims=True))
        logs -= logs.max(1, keepdims=True)
        weights = np.exp(np.maximum(logs, -50))
        weights /= weights.sum(1, keepdims=True)
        logs = np.log(weights)
    return weights


def _prior(names: Sequence[str], first: str, early: Float64Array) -> Float64Array:
    """The prior weights [1, K]: most for the member that is first by itself, and less where errors were large before.

    `early` [O, N, K, H] has the errors of base members at origins before the judged ones, after two seasons.
    """
    seasonal = first.startswith("seasonal")
    values = np.array([PRIOR if name == first else 2.0 if _kind(name) in ("naive", "seasonal naive") else
                       1.0 if name in TRAINED or _kind(name) == "drift" or (_kind(name) != name) == seasonal else UNFIT
                       for name in names])
    known = np.isfinite(early)
    count = known.sum((0, 3))
    sizes = np.where(known, np.abs(early), 0).sum((0, 3)) / np.maximum(count, 1)        # [N, K]
    usable = (count > 0) & (sizes > 0)
    best = np.where(usable, sizes, np.inf).min(1, keepdims=True)
    ratio = np.where(usable, best / np.where(usable, sizes, 1.0), np.nan)
    share = np.array([np.nanmean(column) if np.isfinite(column).any() else 0.8 for column in ratio.T])
    values = values * share**2
    result: Float64Array = (values / values.sum())[None]
    return result


def _first(options: Options, table: Float64Array) -> str:
    """The member that is best by itself: the median where most values are it, and the others single, else what
    `difference` names."""
    observed = ~np.isnan(table)
    middle = np.array([np.median(row[known]) for row, known in zip(table, observed, strict=True)])
    other = observed & (table != middle[:, None])
    begins = other[:, 1:] & ~other[:, :-1]
    if 0 < other.sum() < 0.5 * observed.sum() and begins.sum() > 0.5 * other.sum():
        return "median"
    return {0: "mean", 1: "naive"}.get(options.difference, f"seasonal naive {options.difference}")


def _settled(names: Sequence[str], origins: Origins) -> BoolArray:
    """At which origins [O, N] the seasons of all members have been taken up, which is after two of them."""
    longest = max((int(m) for name in names if _kind(name) != name for m in name.split()[-1].split("+")), default=0)
    result: BoolArray = origins.at[:, None] - (int(origins.at[-1]) + 1 - origins.lengths) > 2 * longest
    return result


def _kind(name: str) -> str:
    """The kind of a member: its name without the season."""
    return name.rstrip("0123456789+").rstrip() if name[-1].isdigit() else name


def _pruned(weights: Float64Array) -> Float64Array:
    weights = np.where(weights < np.minimum(LEAST, weights.max(1, keepdims=True)), 0, weights)
    result: Float64Array = weights / weights.sum(1, keepdims=True)
    return result


# ---- Fitting --------------------------------------------------------------------------------------

def fit_blend(series: list[Series], encoding: Encoding, options: Options) -> Fitted:
    """Judge every member at rolling origins, set the weights, then train on all steps."""
    H, N = encoding.horizon, len(series)
    numbers = ORIGINS if N <= MANY else FEW_ORIGINS
    groups, _ = smoothing.grid(options.seasons)
    each = sum(numbers) * H * (len(groups) + len(options.seasons) + 6)          # errors of one series
    most = int(np.clip(max(HELD, sum(map(len, series)) // 2) / each, MANY, POOL))
    rows = np.arange(N) if N <= most else np.unique(np.linspace(0, N - 1, most).astype(int))
    table = _Table.of(series, rows, encoding, numbers)
    trained, judgement = _trained(series, rows, encoding, options, table.origins)
    sample = _judge(table, encoding, options, trained)
    names, weights, parameters = sample.names, sample.weights, sample.parameters
    calibration = _calibrated(sample, weights, len(rows) < N, series, encoding)
    shared = N > OWN_WEIGHTS
    if shared:
        weights = _pruned(weights.mean(0, keepdims=True))
    elif len(rows) < N:
        weights, parameters, calibration = _each(series, encoding, options, numbers, trained, most, calibration)
    counts = weights.max(0) > 0
    if shared and "naive" in names:
        counts[names.index("naive")] = True
    histories: list[training.History] = []
    networks: list[ForecastNetwork] = []
    if "network" in names and counts[names.index("network")] and judgement is not None:
        network, history, options = judgement
        networks, more = fitting.finished(network, series, encoding, options, options.updates)
        histories = [history, *more[1:]]
    solution = None
    if "linear" in names and counts[names.index("linear")]:
        solution = linear.fit(series, encoding, [len(each) for each in series])
    kept = [k for k in range(len(names)) if counts[k]]
    first = len(names) - len(sample.recursive)
    last = [k - first for k in kept if k >= first]
    picked = parameters.some(slice(None), last) if parameters is not None and last else None
    if picked is not None and shared:
        picked = _picked(series, encoding, options, [sample.recursive[k] for k in last])
    blend = Blend(tuple(names[k] for k in kept), np.repeat(weights[:, kept], N if shared else 1, 0), options.seasons,
                  solution, picked)
    chosen = _choice(sample, options, np.repeat(weights, N if shared else 1, 0))
    return Fitted(blend, calibration, chosen, networks, histories)


def _choice(sample: _Judged, options: Options, weights: Float64Array) -> choices.Choice:
    """What is said of the choice: errors of members are those of the series that were judged first."""
    origins = sample.table.origins
    judged = sample.errors[origins.judged]
    sizes = np.nanmean(np.abs(judged), (0, 1, 3)) if np.isfinite(judged).any() else np.ones(len(sample.names))
    changes = np.abs(sample.naive[origins.judged])
    unit = np.nanmean(changes) if np.isfinite(changes).any() else 0.0
    return choices.Choice(
        options.seasons, options.log, options.difference, options.window, options.hidden_size, options.ensemble,
        options.updates, (), int(origins.judged.sum()),
        int(sample.table.values.shape[1] - origins.at[origins.judged][0]), tuple(sample.names), weights,
        sizes / unit if unit > 0 else np.ones(len(sample.names)))


@dataclass
class _Table:
    """Series that are judged together, as a table of values that end together, and their origins."""

    series: list[Series]
    values: Float64Array        # [N, T], NaN before the first value of a shorter series
    origins: Origins

    @classmethod
    def of(cls, series: Sequence[Series], rows: Sequence[int] | IntArray, encoding: Encoding,
           numbers: tuple[int, int]) -> _Table:
        some = [series[n] for n in rows]
        values = [encoding.transformed(each.y) for each in some]
        table = smoothing.aligned(values, smoothing.LONGEST)
        lengths = np.minimum([len(each) for each in values], table.shape[1])
        return cls(some, table, Origins.of(lengths, table.shape[1], encoding.horizon, numbers))


@dataclass
class _Judged:
    """What the origins of a table said of every member."""

    table: _Table
    names: list[str]
    recursive: list[str]        # the last of these names
    parameters: smoothing.SmoothingParameters | None    # of the recursive members
    errors: Float64Array        # [O, N, members, horizon], NaN where there is none
    naive: Float64Array         # of the naive forecast [O, N, horizon]
    weights: Float64Array       # [N, members]


def _judge(table: _Table, encoding: Encoding, options: Options, trained: dict[str, Any]) -> _Judged:
    """The errors of every member at the origins of a table, and the weights that they give."""
    H, origins, values = encoding.horizon, table.origins, table.values
    allowed = _allowed(options)
    groups, _ = smoothing.grid(options.seasons)
    simple = [name for name in smoothing.naive_members(options.seasons) if _kind(name) in allowed]
    places = [smoothing.naive_members(options.seasons).index(name) for name in simple]
    naive = smoothing.naive(values, options.seasons, H, origins.at)
    recursive, parameters, forecasts = _recursions(
        values, options.seasons, np.array([_kind(name) in allowed for name in groups]), origins,
        np.arange(len(values)), H)
    base = np.concatenate([naive[:, :, places], forecasts], 2)
    if not (trained or simple or recursive):        # none of the members named can be had
        simple, base = ["naive"], naive[:, :, :1]
    names = [*trained, *simple, *recursive]
    parts = [_at_origins(table.series, encoding, origins, outputs)[:, :, None] for outputs in trained.values()]
    errors = np.concatenate([*parts, base], 2)
    truth = np.where(origins.usable[..., None], choices.future(values, origins.at, H), np.nan)
    errors -= truth[:, :, None]
    weights = _weights(errors, names, origins, _first(options, values))
    return _Judged(table, names, recursive, parameters, errors, naive[:, :, 0] - truth, weights)


def _each(series: list[Series], encoding: Encoding, options: Options, numbers: tuple[int, int],
          trained: dict[str, Any], most: int, common: Calibration,
          ) -> tuple[Float64Array, smoothing.SmoothingParameters | None, Calibration]:
    """Weights, parameters and sizes of errors of every series of a panel, so many judged at once.

    The shape of the errors' distribution is that of `common`.
    """
    weights, parameters, spreads, sizes = [], [], [], []
    for start in range(0, len(series), most):
        rows = np.arange(start, min(start + most, len(series)))
        judged = _judge(_Table.of(series, rows, encoding, numbers), encoding, options, trained)
        calibration = _calibrated(judged, judged.weights, False, series, encoding)
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
    groups, _ = smoothing.grid(options.seasons)
    wanted, parts = np.array([name in names for name in groups]), []
    for start in range(0, len(series), SOME):
        values = [encoding.transformed(each.y) for each in series[start:start + POOL]]
        table = smoothing.aligned(values, smoothing.LONGEST)
        lengths = np.minimum([len(each) for each in values], table.shape[1])
        origins = Origins.of(lengths, table.shape[1], encoding.horizon, FEW_ORIGINS)
        parts.append(_recursions(table, options.seasons, wanted, origins, np.arange(len(table)),
                                 encoding.horizon, False)[1])
    return smoothing.SmoothingParameters.joined([part for part in parts if part is not None])


def _allowed(options: Options) -> tuple[str, ...]:
    """The kinds of members that may have a weight."""
    return MEMBERS if options.blend == "auto" else tuple(options.blend)


def _trained(series: list[Series], rows: IntArray, encoding: Encoding, options: Options,
             origins: Origins) -> tuple[dict[str, Any], Any]:
    """For each trained member a function outputs(encoded, at) of what it forecasts; and the judged network."""
    result: dict[str, Any] = {}
    allowed = _allowed(options)
    every_end = _ends(series, rows, origins, encoding.horizon)
    if "linear" in allowed:
        weight = linear.fit(series, encoding, every_end)
        if weight is not None:
            result["linear"] = lambda encoded, at: linear.inputs(encoded, at) @ weight.T.astype(np.float64)
    judgement = None
    steps = sum(max(0, end - encoding.horizon - min(encoding.window, end // 2)) for end in every_end)
    if "network" in allowed and steps < FEWEST:
        if any(np.nanmax(each.y) > np.nanmin(each.y) for each in series):
            warnings.warn(f"y: {max(map(len, series))} values are too few to train a network with horizon="
                          f"{encoding.horizon}; the forecast is of the other members", UserWarning, stacklevel=5)
    elif "network" in allowed:
        places: list[list[int]] = [[] for _ in series]
        for n, row in enumerate(rows):
            places[row] = origins.places(n, len(series[row]))
        judged = fitting.judged(series, encoding, options, every_end, places)
        if judged is not None:
            network, history, updates = judged
            judgement = network, history, replace(options, updates=updates)
            quantiles = options.quantiles

            def outputs(encoded: Any, at: IntArray) -> Float64Array:
                output = network(encoded.x)[0][at]
                if quantiles:
                    output = np.sort(output.reshape(len(at), -1, len(quantiles)))[..., quantiles.index(0.5)]
                return output.astype(np.float64)

            result = {"network": outputs, **result}
    return result, judgement


def _ends(series: Sequence[Series], rows: IntArray, origins: Origins, horizon: int) -> list[int]:
    """How many first steps of every series trained members learn from before they are judged."""
    held = int((origins.lengths - origins.ends).max())
    ends = [len(each) - min(held, _held(len(each), horizon)) for each in series]
    for n, row in enumerate(rows):
        ends[row] = len(series[row]) - int(origins.lengths[n] - origins.ends[n])
    return ends


def _at_origins(series: Sequence[Series], encoding: Encoding, origins: Origins, outputs: Any) -> Float64Array:
    """The forecasts [O, N, horizon] that outputs(encoded, at) stand for; NaN where an origin is not judged."""
    result = np.full((len(origins.at), len(series), encoding.horizon), np.nan)
    T = int(origins.at[-1]) + 1
    for n, each in enumerate(series):
        mask = origins.judged & origins.usable[:, n]
        if mask.any():
            at = len(each) - (T - origins.at[mask]) - 1
            encoded = encoding.encode(each)
            result[mask, n] = encoding.placed(encoded, at, outputs(encoded, at))
    return result


def _weights(errors: Float64Array, names: Sequence[str], origins: Origins, first: str) -> Float64Array:
    """The weights [N, K] from errors [O, N, K, H] at the judged origins: each series' own, drawn to common ones."""
    O, N, K, H = errors[origins.judged].shape
    own = np.moveaxis(errors[origins.judged], (1, 0, 3), (0, 1, 2)).reshape(N, O * H, K)
    held = origins.lengths - origins.ends
    count = held / np.minimum(H, held)
    early = np.where(_settled(names, origins)[..., None, None], errors, np.nan)[~origins.judged]
    prior = _prior(names, first, early)
    if N > 1:
        size = np.abs(own).mean(2)
        unit = np.array([np.nanmean(row) if np.isfinite(row).any() else 0 for row in size])
        scaled = (own / np.where(unit > 0, unit, np.inf)[:, None, None]).reshape(1, -1, K)
        total = min(N, 20) * float(count.mean())
        common = simplex_weights(scaled[:, :200_000], prior, np.array([total]))
        prior = 0.3 * prior + 0.7 * common
    weights = _pruned(simplex_weights(own, prior, count))
    known: Any = np.isfinite(own).all(2)
    sizes = np.where(known[..., None], np.abs(own), 0).sum(1)
    exact = known.any(1) & (sizes.min(1) == 0)          # such as a constant: the first of the exact members alone
    order = np.argsort([name in TRAINED for name in names], kind="stable")
    winner = order[np.argmin(sizes[:, order], 1)]
    return np.where(exact[:, None], np.arange(K) == winner[:, None], weights)


def _calibrated(judged: _Judged, weights: Float64Array, part: bool, series: Sequence[Series],
                encoding: Encoding) -> Calibration:
    """The calibration by the blend's errors; before the judged origins by those of the base members alone.

    Where only a part of the series was judged, it is carried over to all.
    """
    errors, names, origins = judged.errors, judged.names, judged.table.origins
    trained = [name in TRAINED for name in names]
    weighted = np.broadcast_to(weights, (errors.shape[1], weights.shape[1]))
    residuals = np.einsum("onkh,nk->onh", np.where(weighted[..., None] > 0, errors, 0.0), weighted)
    early = ~origins.judged
    rest = np.where(trained, 0, weighted)
    share = rest.sum(1, keepdims=True)
    count = origins.count
    if early.any() and (share > 0.1).all():
        alone = np.einsum("onkh,nk->onh", np.where(np.array(trained)[:, None], 0, errors), rest / share)
        late = origins.judged
        ratio = _size(residuals[late]) / np.maximum(_size(alone[late]), 1e-300)
        residuals[early] = alone[early] * np.clip(ratio, 0.2, 1.0)[:, None]
        residuals[~_settled(names, origins) & early[:, None]] = np.nan
        count = count * 1.5 + 1
    else:
        residuals[early] = np.nan
    calibration = Calibration.of(residuals, units(list(judged.table.values)), count)
    if part:
        calibration = calibration.for_series(units(encoding.transformed(each.y) for each in series))
    return calibration


def trained_errors(series: Sequence[Series], encoding: Encoding, outputs: Any) -> Calibration:
    """The calibration by errors where networks were trained, which are somewhat smaller than those to come."""
    values = [encoding.transformed(each.y) for each in series]
    table = smoothing.aligned(values, smoothing.LONGEST)
    lengths = np.minimum([len(each) for each in values], table.shape[1])
    origins = Origins.of(lengths, table.shape[1], encoding.horizon)
    forecasts = _at_origins(series, encoding, origins, outputs)
    truth = np.where(origins.usable[..., None], choices.future(table, origins.at, encoding.horizon), np.nan)
    return Calibration.of(forecasts - truth, units(values), origins.count)


def _size(residuals: Float64Array) -> Float64Array:
    """The mean size of residuals [O, N, H] of each series."""
    known = np.isfinite(residuals)
    result: Float64Array = np.where(known, np.abs(residuals), 0).sum((0, 2)) / np.maximum(known.sum((0, 2)), 1)
    return result


def units(values: Iterable[Float64Array]) -> Float64Array:
    """The mean absolute difference of neighbouring values of each series."""
    result = []
    for row in values:
        z = row[~np.isnan(row)]
        result.append(float(np.abs(np.diff(z)).mean()) if len(z) > 1 else 0.0)
    return np.array(result)
