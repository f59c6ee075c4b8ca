"""How the members of a blend are judged: what each forecasts at the rolling origins of the past, and how far off."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from . import choice as choices
from . import linear, smoothing
from .origins import Origins, held_steps, masked_means
from .smoothing import MEMBERS
from .weights import Pull, first_member, kind_of, weights_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import Array, Float64Array, IntArray
    from .encoding import Encoding
    from .fitting import Trainer
    from .options import Options
    from .series import Series

FEWEST = 20             # steps with targets that a network needs
ROOM = 500_000          # forecasts of recursions that are held at once
STATES = 1_000_000      # numbers of states of recursions that are held at once
RECENT = 500            # last steps by whose errors parameters of "ets" are chosen; five seasons where these are more


@dataclass
class Table:
    """Series that are judged together, as a table of values that end together, and their origins."""

    series: list[Series]
    values: Float64Array        # [N, T], NaN before the first value of a shorter series
    origins: Origins

    @property
    def scales(self) -> Float64Array:
        """For each series [N] the power of two below its largest value, in units of which errors have room in float32.
        """
        largest = np.maximum(np.nanmax(self.values, 1), -np.nanmin(self.values, 1))
        result: Float64Array = np.ldexp(1.0, np.frexp(np.where(largest > 0, largest, 1.0))[1] - 1)
        return result

    @classmethod
    def of(cls, series: Sequence[Series], rows: Sequence[int] | IntArray, encoding: Encoding,
           numbers: tuple[int, int]) -> Table:
        some = [series[n] for n in rows]
        values = [encoding.transformed(each.y) for each in some]
        table = smoothing.aligned(values, smoothing.LONGEST)
        lengths = np.minimum([len(each) for each in values], table.shape[1])
        return cls(some, table, Origins.of(lengths, table.shape[1], encoding.horizon, numbers))


@dataclass
class Judged:
    """What the origins of a table said of every member."""

    table: Table
    names: list[str]
    recursive: list[str]        # the last of these names
    parameters: smoothing.SmoothingParameters | None    # of the recursive members
    errors: Array               # [O, N, members, horizon] in units of ``Table.scales``, NaN where there is none
    naive: Float64Array         # of the naive forecast [O, N, horizon]
    weights: Float64Array       # [N, members]
    first: str                  # the member that is best by itself
    pull: Pull                  # what the weights were drawn to


def judge(table: Table, encoding: Encoding, options: Options, trained: dict[str, Any],
          pull: Pull | None = None) -> Judged:
    """The errors of every member at the origins of a table, and the weights that they give."""
    H, origins, values = encoding.horizon, table.origins, table.values
    allowed = allowed_kinds(options)
    simple = [name for name in smoothing.naive_members(options.seasons) if kind_of(name) in allowed]
    places = [smoothing.naive_members(options.seasons).index(name) for name in simple]
    naive = smoothing.naive(values, options.seasons, H, origins.at)
    recursive, parameters, forecasts = recursions(
        values, options.seasons, recursive_names(options), origins, H)
    base = [(simple, naive[:, :, places]), (recursive, forecasts)]
    if not (trained or simple or recursive):        # none of the members named can be had
        simple, base = ["naive"], [(["naive"], naive[:, :, [0]])]
    names = [*trained, *simple, *recursive]
    truth = np.where(origins.usable[..., None], choices.future(values, origins.at, H), np.nan)
    errors, scales = np.empty((len(origins.at), len(values), len(names), H), np.float32), table.scales
    for place, outputs in enumerate(trained.values()):
        errors[:, :, place] = (at_origins(table.series, encoding, origins, outputs) - truth) / scales[:, None]
    place = len(trained)
    for members, made in base:
        made -= truth[:, :, None]
        np.divide(made, scales[:, None, None], out=errors[:, :, place:place + len(members)], casting="same_kind")
        place += len(members)
    changes = naive[:, :, 0] - truth
    del base, made, forecasts, naive, truth         # in float64 they take more than all errors
    first = first_member(options, values)
    weights, pull = weights_of(errors, names, origins, first, pull)
    return Judged(table, names, recursive, parameters, errors, changes, weights, first, pull)


def recursions(table: Float64Array, seasons: Sequence[int], names: Sequence[str], origins: Origins, horizon: int,
               whole: bool = True) -> tuple[list[str], smoothing.SmoothingParameters | None, Float64Array]:
    """Of each recursive member: its name, the parameters that were best by the end, and its forecasts.

    Forecasts [O, N, R, horizon] are made with the parameters that were best before the judged origins; not `whole`:
    they are left out.
    """
    made = [_by_origins(table, seasons, names, origins, horizon, whole),
            _by_one_step(table, seasons, names, origins, horizon, whole)]
    parts = [part for part in made if part is not None]
    if not parts:
        return [], None, np.zeros((len(origins.at), len(table), 0, horizon))
    members, parameters, forecasts = zip(*parts, strict=True)
    beside = smoothing.SmoothingParameters.beside(parameters)
    return list(itertools.chain(*members)), beside, np.concatenate(forecasts, 2)


def _by_origins(table: Float64Array, seasons: Sequence[int], wanted: Sequence[str], origins: Origins, horizon: int,
                whole: bool) -> tuple[list[str], smoothing.SmoothingParameters, Float64Array] | None:
    """``recursions`` of the members whose parameters are chosen by forecasts from the origins."""
    groups, parameters = smoothing.grid(seasons)
    names = [name for name in groups if name in wanted]
    if not names:
        return None
    members = np.concatenate([groups[name] for name in names])
    parameters = parameters.some(slice(None), members)
    bounds = np.cumsum([0, *(len(groups[name]) for name in names)])
    forecasts = np.empty((len(origins.at), len(table) if whole else 0, len(names), horizon))
    best = np.empty((len(table), len(names)), int)
    chunk = max(1, ROOM // (len(members) * horizon * len(origins.at)))
    for start in range(0, len(table), chunk):
        part = slice(start, start + chunk)
        values = table[part]
        state = smoothing.begin(values, parameters)
        every = smoothing.advance(state, parameters, values, horizon, origins.at)
        truth = choices.future(values, origins.at, horizon)
        known = ~np.isnan(truth) & origins.usable[:, part, None]
        errors = np.abs(every - np.nan_to_num(truth)[:, :, None])
        cut = table.shape[1] - (origins.lengths - origins.ends)[part]
        before = known & (origins.at[:, None, None] + np.arange(horizon) < cut[:, None])
        early, late = masked_means(errors, before), masked_means(errors, known)
        for r in range(len(names)):
            group = slice(bounds[r], bounds[r + 1])
            picked = early[:, group].argmin(1) + bounds[r]
            if whole:
                forecasts[:, part, r] = np.take_along_axis(every, picked[None, :, None, None], 2)[:, :, 0]
            best[part, r] = late[:, group].argmin(1) + bounds[r]
    return names, parameters.taken(best), forecasts


def _by_one_step(table: Float64Array, seasons: Sequence[int], wanted: Sequence[str], origins: Origins, horizon: int,
                 whole: bool) -> tuple[list[str], smoothing.SmoothingParameters, Float64Array] | None:
    """``recursions`` of the members whose parameters are chosen by their errors one step ahead: "ets"."""
    groups, parameters = smoothing.grid(seasons, fine=True)
    names = [name for name in groups if name in wanted]
    if not names:
        return None
    best = np.empty((2, len(table), len(names)), int)
    width = min(table.shape[1], max(RECENT, *(5 * m for m in seasons), 0))
    held, lengths = origins.lengths - origins.ends, np.minimum(origins.lengths, width)
    for r, name in enumerate(names):
        some = parameters.some(slice(None), groups[name])
        begun = 2 * max(1, int((some.uses[0] * np.array(seasons, int)).max(initial=0)))     # before errors count
        first = width - lengths + np.where(lengths - held > max(6, 2 * begun), begun, (lengths - held) // 2)
        chunk = max(1, STATES // (len(groups[name]) * (10 + sum(seasons))))
        for start in range(0, len(table), chunk):
            part = slice(start, start + chunk)
            scores = smoothing.one_step_scores(table[part, -width:], some, (width - held)[part], first[part])
            for place, score in zip(best, scores, strict=True):
                place[part, r] = groups[name][score.argmin(1)]
    chosen = parameters.taken(best[0])
    forecasts = np.empty((len(origins.at), 0, len(names), horizon))
    if whole:
        forecasts = smoothing.advance(smoothing.begin(table, chosen), chosen, table, horizon, origins.at)
    return names, parameters.taken(best[1]), forecasts


def recursive_names(options: Options) -> list[str]:
    """The names of recursive members that may have a weight."""
    allowed = allowed_kinds(options)
    return [name for name in smoothing.recursive_members(options.seasons) if kind_of(name) in allowed]


def allowed_kinds(options: Options) -> tuple[str, ...]:
    """The kinds of members that may have a weight."""
    return MEMBERS if options.blend == "auto" else tuple(options.blend)


def trained_members(series: list[Series], rows: IntArray, encoding: Encoding, options: Options, origins: Origins,
                    trainer: Trainer) -> tuple[dict[str, Any], Any]:
    """For each trained member a function outputs(encoded, at) of what it forecasts; and the judged network."""
    result: dict[str, Any] = {}
    allowed = allowed_kinds(options)
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
        judged = trainer.judged(series, encoding, options, every_end, places)
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
    ends = [len(each) - min(held, held_steps(len(each), horizon)) for each in series]
    for n, row in enumerate(rows):
        ends[row] = len(series[row]) - int(origins.lengths[n] - origins.ends[n])
    return ends


def at_origins(series: Sequence[Series], encoding: Encoding, origins: Origins, outputs: Any) -> Float64Array:
    """The forecasts [O, N, horizon] that outputs(encoded, at) stand for; NaN where an origin is not judged."""
    result = np.full((len(origins.at), len(series), encoding.horizon), np.nan)
    for n, each in enumerate(series):
        mask = origins.judged & origins.usable[:, n]
        if mask.any():
            at = len(each) - (origins.steps - origins.at[mask]) - 1
            encoded = encoding.encode(each)
            result[mask, n] = encoding.placed(encoded, at, outputs(encoded, at))
    return result
