"""The forecaster's parameters, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import losses
from .._base import validation as check
from .._base.estimator import cell_name
from .._base.trees import storable
from ..nn.quantized import model_precision
from .encoding import PERIODS
from .smoothing import MEMBERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .forecaster import RNNForecaster

LOSSES: dict[str, Callable[[], Any]] = {"mae": losses.MAE, "mse": losses.MSE, "huber": losses.Huber}


@storable
@dataclass(frozen=True)
class Options:
    """The parameters of an ``RNNForecaster``, checked by ``fit``; what may be one or several is a tuple."""

    horizon: int
    window: Any
    cell: str                       # in lower case
    hidden_size: Any                # like the others of Any: a number, or "auto" until ``choice.resolved`` was asked
    num_layers: int
    dropout: float
    log: Any                        # False, True, "1p", or "auto"
    scaling: str | None
    difference: Any
    seasons: Any                    # a tuple of numbers, or "auto"
    time_features: tuple[str, ...]
    quantiles: tuple[float, ...]    # rising, the median among them; empty where none were asked for
    loss: str
    ensemble: Any
    updates: Any
    sequence: Any
    batch_size: int
    learning_rate: float
    weight_decay: float
    patience: int | None
    blend: Any                      # "auto", False, or a tuple of names of members
    nonnegative: bool | str
    generator: np.random.Generator
    progress: bool

    @classmethod
    def of(cls, forecaster: RNNForecaster) -> Options:
        """The parameters of a forecaster; TypeError or ValueError, by name, for an unsuitable one."""
        sizes: dict[str, Any] = {name: check.size(getattr(forecaster, name), name)
                                 for name in ("horizon", "num_layers", "batch_size")}
        sizes |= {name: _automatic(getattr(forecaster, name), name)
                  for name in ("window", "hidden_size", "ensemble", "updates")}
        dropout = check.probability(forecaster.dropout, "dropout")
        if dropout and sizes["num_layers"] == 1:
            raise ValueError("dropout: it acts between layers, expected 0 with num_layers=1")
        log, scaling = forecaster.log, forecaster.scaling
        model_precision(forecaster.precision)           # which forecasts ask for, and training does not
        return cls(
            **sizes,
            difference=_automatic(forecaster.difference, "difference", least=0),
            dropout=dropout,
            cell=cell_name(forecaster.cell),
            loss=check.choice(forecaster.loss, "loss", tuple(LOSSES)),
            log=check.choice(log, "log", ("auto", "1p")) if isinstance(log, str) else check.flag(log, "log"),
            scaling=None if scaling is None else check.choice(scaling, "scaling", ("std", "mean")),
            seasons=_seasons(forecaster.seasons),
            time_features=_time_features(forecaster.time_features),
            quantiles=_quantiles(forecaster.quantiles),
            sequence=_sequence(forecaster.sequence, sizes["window"]),
            learning_rate=check.above(forecaster.learning_rate, "learning_rate", 0),
            weight_decay=check.at_least(forecaster.weight_decay, "weight_decay", 0),
            patience=None if forecaster.patience is None else check.size(forecaster.patience, "patience"),
            blend=_blend(forecaster.blend),
            nonnegative=_flag_or_auto(forecaster.nonnegative, "nonnegative"),
            progress=check.flag(forecaster.progress, "progress"),
            generator=check.random_state(forecaster.random_state, "random_state"))


def _automatic(value: Any, name: str, least: int = 1) -> int | str:
    """A number of `least` or more, or "auto"."""
    if isinstance(value, str):
        return str(check.choice(value, name, ("auto",)))
    return check.size(value, name, least)


def _flag_or_auto(value: Any, name: str) -> bool | str:
    """A bool, or "auto"."""
    return str(check.choice(value, name, ("auto",))) if isinstance(value, str) else check.flag(value, name)


def _sequence(sequence: Any, window: int | str) -> int | None:
    if sequence is not None:
        return check.size(sequence, "sequence", 2)
    return None if isinstance(window, str) else 2 * window


def _blend(blend: Any) -> bool | str | tuple[str, ...]:
    """"auto", False, or a tuple of names of members."""
    if isinstance(blend, (bool, np.bool_)):
        return "auto" if blend else False
    if isinstance(blend, str) and blend == "auto":
        return blend
    if not isinstance(blend, (str, tuple, list, set, frozenset)):
        raise TypeError(f"blend: expected \"auto\", False, or some of {', '.join(MEMBERS)}; got {type(blend).__name__}")
    names = (blend,) if isinstance(blend, str) else tuple(blend)
    if not names:
        raise ValueError(f"blend: expected \"auto\", False, or some of {', '.join(MEMBERS)}; got none")
    return tuple(check.choice(name, "blend", MEMBERS) for name in names)


def _seasons(seasons: Any) -> tuple[int, ...] | str:
    if seasons is None:
        return ()
    if isinstance(seasons, str):
        return str(check.choice(seasons, "seasons", ("auto",)))
    several = seasons if isinstance(seasons, (tuple, list, np.ndarray)) else (seasons,)
    return tuple(check.size(length, "seasons", least=2) for length in several)


def _time_features(features: Any) -> tuple[str, ...]:
    names = (features,) if isinstance(features, str) else tuple(features)
    return tuple(check.choice(name, "time_features", tuple(PERIODS)) for name in names)


def _quantiles(quantiles: Any) -> tuple[float, ...]:
    checked = losses.Quantile(np.atleast_1d(quantiles)).quantiles if np.size(quantiles) else ()
    return tuple(sorted({*checked, 0.5})) if checked else ()
