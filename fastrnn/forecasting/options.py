"""The forecaster's parameters, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import losses
from .._base import validation as check
from .._base.estimator import cell_name
from .._base.trees import storable
from .encoding import PERIODS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .forecaster import RNNForecaster

LOSSES: dict[str, Callable[[], Any]] = {"mae": losses.MAE, "mse": losses.MSE, "huber": losses.Huber}


@storable
@dataclass(frozen=True)
class Options:
    """The parameters of an ``RNNForecaster``, checked by ``fit``; what may be one or several is a tuple."""

    horizon: int
    window: int
    cell: str                       # in lower case
    hidden_size: int
    num_layers: int
    dropout: float
    log: bool | str
    scaling: str | None
    difference: int
    seasons: tuple[int, ...]
    time_features: tuple[str, ...]
    quantiles: tuple[float, ...]    # rising, the median among them; empty where none were asked for
    loss: str
    ensemble: int
    updates: int
    sequence: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    patience: int | None
    generator: np.random.Generator
    progress: bool

    @classmethod
    def of(cls, forecaster: RNNForecaster) -> Options:
        """The parameters of a forecaster; TypeError or ValueError, by name, for an unsuitable one."""
        sizes = {name: check.size(getattr(forecaster, name), name) for name in (
            "horizon", "window", "hidden_size", "num_layers", "ensemble", "updates", "batch_size")}
        dropout = check.probability(forecaster.dropout, "dropout")
        if dropout and sizes["num_layers"] == 1:
            raise ValueError("dropout: it acts between layers, expected 0 with num_layers=1")
        log, scaling = forecaster.log, forecaster.scaling
        return cls(
            **sizes,
            difference=check.size(forecaster.difference, "difference", least=0),
            dropout=dropout,
            cell=cell_name(forecaster.cell),
            loss=check.choice(forecaster.loss, "loss", tuple(LOSSES)),
            log=check.choice(log, "log", ("1p",)) if isinstance(log, str) else check.flag(log, "log"),
            scaling=None if scaling is None else check.choice(scaling, "scaling", ("std", "mean")),
            seasons=_seasons(forecaster.seasons),
            time_features=_time_features(forecaster.time_features),
            quantiles=_quantiles(forecaster.quantiles),
            sequence=(2 * sizes["window"] if forecaster.sequence is None
                      else check.size(forecaster.sequence, "sequence", 2)),
            learning_rate=check.above(forecaster.learning_rate, "learning_rate", 0),
            weight_decay=check.at_least(forecaster.weight_decay, "weight_decay", 0),
            patience=None if forecaster.patience is None else check.size(forecaster.patience, "patience"),
            progress=check.flag(forecaster.progress, "progress"),
            generator=check.random_state(forecaster.random_state, "random_state"))


def _seasons(seasons: Any) -> tuple[int, ...]:
    several = seasons if isinstance(seasons, (tuple, list, np.ndarray)) else (seasons,)
    return tuple(check.size(length, "seasons", least=2) for length in several)


def _time_features(features: Any) -> tuple[str, ...]:
    names = (features,) if isinstance(features, str) else tuple(features)
    return tuple(check.choice(name, "time_features", tuple(PERIODS)) for name in names)


def _quantiles(quantiles: Any) -> tuple[float, ...]:
    checked = losses.Quantile(np.atleast_1d(quantiles)).quantiles if np.size(quantiles) else ()
    return tuple(sorted({*checked, 0.5})) if checked else ()
