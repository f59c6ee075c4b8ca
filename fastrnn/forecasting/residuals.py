"""The errors that forecasts made at rolling origins, from which ``intervals`` are calibrated."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from . import choice as choices
from . import smoothing
from .intervals import Calibration
from .judging import at_origins
from .origins import Origins
from .smoothing import TRAINED
from .weights import settled, weights_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .._base.typing import Float64Array
    from .encoding import Encoding
    from .judging import Judged
    from .series import Series

EARLIER = 0.7           # what an error before the judged origins counts for: parameters were chosen by it
DRAWN = 8.0             # differences of all times that the units at an origin have beside those until then

def calibrated(judged: Judged, weights: Float64Array, part: bool, series: Sequence[Series],
                encoding: Encoding) -> Calibration:
    """The calibration by the blend's errors; before the judged origins by those of the base members alone.

    Where only a part of the series was judged, it is carried over to all.
    """
    errors, names, table = judged.errors, judged.names, judged.table
    origins, values = table.origins, table.values
    trained = [name in TRAINED for name in names]
    weights = np.broadcast_to(weights, (errors.shape[1], weights.shape[1]))
    late, early = origins.judged, ~origins.judged
    residuals = np.full((*errors.shape[:2], errors.shape[3]), np.nan)
    residuals[late] = _crossed(judged, weights)
    rest = np.where(trained, 0, weights)
    share = rest.sum(1, keepdims=True)
    count = origins.count
    if early.any() and (share > 0.1).all():
        seen = _size(_weighted(errors[late], weights))
        alone = _weighted(np.where(np.array(trained)[:, None], 0, errors), rest / share)
        ratio = np.clip(seen / np.maximum(_size(alone[late]), 1e-300), 0.2, 1.0)
        ratio *= np.clip(_size(residuals[late]) / np.maximum(seen, 1e-300), 1.0, 1.5)
        residuals[early] = alone[early] * ratio[:, None]
        residuals[~settled(names, origins) & early[:, None]] = np.nan
        count = count * 1.5 + 1
    residuals *= table.scales[:, None]
    calibration = Calibration.of(residuals, units(list(values)), count, _independent(residuals, origins),
                                 _past_units(values, origins))
    if part:
        calibration = calibration.for_series(units(encoding.transformed(each.y) for each in series))
    return calibration


def trained_errors(series: Sequence[Series], encoding: Encoding, outputs: Any) -> Calibration:
    """The calibration by errors where networks were trained, which are somewhat smaller than those to come."""
    values = [encoding.transformed(each.y) for each in series]
    table = smoothing.aligned(values, smoothing.LONGEST)
    lengths = np.minimum([len(each) for each in values], table.shape[1])
    origins = Origins.of(lengths, table.shape[1], encoding.horizon)
    forecasts = at_origins(series, encoding, origins, outputs)
    truth = np.where(origins.usable[..., None], choices.future(table, origins.at, encoding.horizon), np.nan)
    residuals = truth - forecasts
    return Calibration.of(residuals, units(values), origins.count, _independent(residuals, origins))


def _weighted(errors: Float64Array, weights: Float64Array) -> Float64Array:
    """The values less the blend's forecasts [O, N, H] where members were off by errors [O, N, K, H]."""
    result: Float64Array = -np.einsum("onkh,nk->onh", np.where(weights[..., None] > 0, errors, 0.0), weights)
    return result


def _crossed(judged: Judged, weights: Float64Array) -> Float64Array:
    """The blend's residuals at the judged origins, of each half of these with the weights that the other half gives.

    With weights chosen by the same errors residuals would be smaller than errors to come.
    """
    errors, origins = judged.errors, judged.table.origins
    places = np.flatnonzero(origins.judged)
    if len(places) < 2:
        return _weighted(errors[places], weights)
    parts = []
    for half, other in zip(np.array_split(places, 2), np.array_split(places, 2)[::-1], strict=True):
        kept = ~origins.judged
        kept[other] = True
        shown = replace(origins, at=origins.at[kept], judged=origins.judged[kept], usable=origins.usable[kept])
        crossed, _ = weights_of(errors[kept], judged.names, shown, judged.first, judged.pull)
        parts.append(_weighted(errors[half], crossed))
    return np.concatenate(parts)


def _independent(residuals: Float64Array, origins: Origins) -> Float64Array:
    """How many residuals [O, N, H] of each series do not overlap, at each step [N, H]."""
    k, total = np.arange(1, residuals.shape[2] + 1), np.zeros(residuals.shape[1:])
    for part, weight in ((origins.judged, 1.0), (~origins.judged, EARLIER)):
        if part.any():
            at, count = origins.at[part], np.isfinite(residuals[part]).sum(0)
            between = max(1.0, (at[-1] - at[0]) / max(len(at) - 1, 1))
            total += weight * np.where(count > 0, np.minimum(count, (count * between + k - 1) / k), 0)
    return total


def _past_units(table: Float64Array, origins: Origins) -> Float64Array:
    """The mean absolute differences [O, N] of the values until each origin, drawn towards those of all values."""
    differences = np.abs(np.diff(table, axis=1))
    observed = np.isfinite(differences)
    at = np.maximum(origins.at - 2, 0)
    if not differences.shape[1]:
        return np.zeros((len(at), len(table)))
    sums, count = np.where(observed, differences, 0).cumsum(1), observed.cumsum(1)
    mean = (sums[:, -1] / np.maximum(count[:, -1], 1))[:, None]
    result: Float64Array = (sums[:, at] * (origins.at > 1) + DRAWN * mean) / (count[:, at] * (origins.at > 1) + DRAWN)
    return result.T


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
