"""``RNNForecaster.update``: series get longer by new rows, and the networks go on training from where they were.

Training reads the windows that reach the new steps and as many earlier ones of the same series, drawn at random, so
that what was learnt before stays. AdamW begins afresh, at a lower rate: on series that change, running means of
gradients kept from the last training made forecasts no better, and on random walks they made them worse.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .. import losses, optim, training
from ..training.run import fit_data
from .fitting import KnownTargets
from .following import following
from .glitches import without_glitches
from .options import LOSSES
from .preparation import like_fitted, prepared
from .series import Panel
from .windows import Prepared, WindowData, Windows, training_windows

if TYPE_CHECKING:
    from .encoding import Encoding
    from .forecaster import RNNForecaster
    from .network import ForecastNetwork
    from .options import Options
    from .series import Series

RATE = 0.3              # of the learning rate of fit: the networks are trained already


def update(model: RNNForecaster, new: Panel, updates: int | None) -> None:
    """Lengthen the series of a fitted forecaster by new rows, and train its networks on; see ``RNNForecaster.update``.

    Parameters
    ----------
    model : RNNForecaster
        It is changed when everything has gone well, and stays as it was otherwise.
    new : Panel
        The rows.
    updates : int or None
        Updates by the optimizer for each network; None: as many a row as in ``fit``.
    """
    rows, others = following(model.panel_, new)
    if others and model.panel_.kind not in ("list", "frame"):
        raise ValueError(f"X: expected {len(model.panel_.series)} series, got {len(new.series)}")
    rows = [None if each is None else replace(each, static=series.static)
            for each, series in zip(rows, model.panel_.series, strict=True)]
    for each in [*filter(None, rows), *others]:
        model._check_features(each.known.shape[1])
        like_fitted(model, Panel([each], "list"))
    before = [len(each) for each in model.panel_.series] + [0] * len(others)
    series = [each if more is None else _grown(each, more)
              for each, more in zip(model.panel_.series, rows, strict=True)] + others
    series, left_out = without_glitches(series)
    panel = prepared(replace(model.panel_, series=series), model.options_)
    count = sum(map(len, panel.series)) - sum(before)
    if updates is None:
        updates = max(1, round(model.options_.updates * count / sum(before))) if count else 0
    windows = _windows(panel.series, before, model.encoding_, model.options_) if updates else None
    other = copy.copy(model)            # so that nothing is half changed where something fails
    if windows:
        results = [_trained_on(network, windows, model.options_, updates) for network in model.models_]
        other.models_ = [network for network, _ in results]
        other.history_ = [_joined(first, history)
                          for first, (_, history) in zip(model.history_, results, strict=True)]
    other.panel_ = panel
    other.choice_ = replace(model.choice_, left_out=(*model.choice_.left_out, *left_out))
    other._settle(len(before) - len(others), refit=bool(windows))
    vars(model).update(vars(other))


def _grown(series: Series, rows: Series) -> Series:
    """The series with more steps at its end."""
    return replace(series, y=np.concatenate([series.y, rows.y]), past=np.concatenate([series.past, rows.past]),
                   known=np.concatenate([series.known_to(len(series)), rows.known]))


def _windows(series: list[Series], before: list[int], encoding: Encoding, options: Options) -> Windows:
    """Windows with targets at new steps, and as many earlier ones of the same series.

    `before` is how many steps of each series were there before: the others are new.
    """
    grown = [(each, count) for each, count in zip(series, before, strict=True) if len(each) > count]
    longer, counts = [each for each, _ in grown], np.array([count for _, count in grown])
    windows = training_windows(Prepared(longer, encoding), options.sequence, list(map(len, longer)))
    reaching = windows.bounds[:, 2] + encoding.horizon > counts[windows.bounds[:, 0]]
    fresh, earlier = np.flatnonzero(reaching), np.flatnonzero(~reaching)
    if len(earlier) > len(fresh):
        earlier = np.sort(options.generator.choice(earlier, len(fresh), replace=False))
    return windows.some(np.concatenate([fresh, earlier]))


def _trained_on(network: ForecastNetwork, windows: Windows, options: Options,
                updates: int) -> tuple[ForecastNetwork, training.History]:
    """A copy of the network after further updates, and the history of this training."""
    network, quantiles = copy.copy(network), options.quantiles
    batch_size = min(options.batch_size, len(windows))
    if len(windows) > updates * batch_size:
        windows = windows.some(np.sort(options.generator.choice(len(windows), updates * batch_size, replace=False)))
    batches = -(-len(windows) // batch_size)
    epochs = max(1, round(updates / batches))
    optimizer = optim.AdamW(network, RATE * options.learning_rate, weight_decay=options.weight_decay,
                            schedule=optim.cosine(epochs * batches))
    loss = KnownTargets(losses.Quantile(quantiles) if quantiles else LOSSES[options.loss](), quantiles)
    history = fit_data(network, WindowData(windows), None, loss=loss, optimizer=optimizer, epochs=epochs,
                       batch_size=batch_size, clip_norm=1.0, rng=options.generator, progress=options.progress)
    return network, history


def _joined(first: training.History, second: training.History) -> training.History:
    """One history of two trainings, of the numbers that both have."""
    return training.History({name: first[name] + second[name] for name in first if name in second})

