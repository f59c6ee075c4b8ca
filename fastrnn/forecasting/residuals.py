"""The errors that forecasts made at rolling origins, from which ``intervals`` are calibrated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import choice as choices
from . import smoothing
from .intervals import Calibration
from .judging import at_origins
from .origins import Origins
from .smoothing import TRAINED
from .weights import settled

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .._base.typing import Float64Array
    from .encoding import Encoding
    from .judging import Judged
    from .series import Series


def calibrated(judged: Judged, weights: Float64Array, part: bool, series: Sequence[Series],
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
        residuals[~settled(names, origins) & early[:, None]] = np.nan
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
    forecasts = at_origins(series, encoding, origins, outputs)
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
