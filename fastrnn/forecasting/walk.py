"""``RNNForecaster.backtest``: forecasts as they would have been made, step by step through the past."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .backtest import Backtest, naive_forecasts, scale
from .embeddings import with_vectors
from .glitches import without_glitches_before
from .preparation import like_fitted, places_by_name, prepared, read_panel
from .series import Panel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .forecaster import RNNForecaster


def backtest(model: RNNForecaster, data: dict[str, Any], start: Any, stride: int, refit: bool) -> Backtest:
    """Forecasts of a model, or with `refit` of a copy that learns what lies before `start`, beside what came.

    Parameters
    ----------
    model : RNNForecaster
        It stays as it is.
    data : dict
        The arguments of ``fit`` by name.
    start : int
        The first forecast is made with so many steps; a negative number counts from the end.
    stride : int
        Steps from one forecast to the next.
    refit : bool
        Whether a copy is fitted.
    """
    if isinstance(start, (bool, np.bool_)) or not isinstance(start, (int, np.integer)):
        raise TypeError(f"start: expected an int, got {type(start).__name__}")
    panel = read_panel(model, **data, like=None if refit else vars(model).get("panel_"))
    starts = [int(start) if start >= 0 else len(each) + int(start) for each in panel.series]
    for n, (begin, each) in enumerate(zip(starts, panel.series, strict=True)):
        if begin < 2 or begin >= len(each):
            raise ValueError(f"start: expected a step from 2 to {len(each) - 1} of series {n}, got {begin}")
    if refit:
        model = type(model)(**model.get_params())
        heads = [each.part(0, begin) for each, begin in zip(panel.series, starts, strict=True)]
        model._fit(panel.with_series(heads, "list"))
        panel = with_vectors(panel, model.panel_.categories)
    else:
        model._check_fitted()
    return replace(_walked(model, panel, starts, stride), names=tuple(each.name for each in panel.series),
                   clocks=tuple(each.clock for each in panel.series))


def _walked(fitted: RNNForecaster, panel: Panel, starts: Sequence[int], stride: int) -> Backtest:
    """A Backtest of a fitted forecaster, from one step on in each series."""
    H, quantiles, parts = fitted.encoding_.horizon, fitted.options_.quantiles, []
    known = [without_glitches_before(*each) for each in zip(panel.series, starts, strict=True)]
    ready = like_fitted(fitted, prepared(Panel(known, panel.kind, panel.layout), fitted.options_))
    model, places = copy.copy(fitted), places_by_name(fitted.panel_, ready)
    if places is not None or len(ready.series) != len(fitted.panel_.series):
        model.panel_ = Panel([each.part(0, max(2, begin - len(whole) + len(each))) for each, whole, begin in
                              zip(ready.series, panel.series, starts, strict=True)], panel.kind)
        model._settle(places=places)
    for n, (each, whole, begin) in enumerate(zip(ready.series, panel.series, starts, strict=True)):
        skipped = len(whole) - len(each)            # steps before its first value
        at = np.arange(begin - skipped, len(each) - H + 1, stride) - 1      # the last step of what is past
        if not len(at) or at[0] < 0:
            raise ValueError(f"start: expected horizon={H} steps from it on, and a value before it, in series {n}")
        point, every = model._walked(each, n, at)
        seasons = fitted.options_.seasons
        parts.append(Backtest(
            np.full(len(at), n), at + 1 + skipped, each.y[at[:, None] + np.arange(1, H + 1)],
            point, every, quantiles,
            naive_forecasts(each.y, at, H, seasons), np.array([scale(each.y[:at[0] + 1], (*seasons, 1)[0])])))
    return Backtest._joined(parts)
