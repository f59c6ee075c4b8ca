"""The models and estimators that files can hold, by the name of their class.

Classes register themselves where they are defined, so that code which reads files and code which defines models need
not import each other.
"""

from __future__ import annotations

import importlib
from typing import Any, TypeVar

MODELS: dict[str, type] = {}
Model = TypeVar("Model", bound=type)

CONTAINERS = ("Sequential", "ForecastNetwork")              # made of other models: files list these as "modules"
# What is defined further up than the code that reads files, with its module, which is imported once a file names it.
_DEFINED_IN = {"ForecastNetwork": "fastrnn.forecasting.network"}
_ESTIMATORS = {"RNNForecaster": "fastrnn.forecasting.forecaster", "RNNAnomalyDetector": "fastrnn.anomaly.detector"}


def in_files(cls: Model) -> Model:
    """Class decorator: lets files hold instances of this class, under its name."""
    MODELS[cls.__name__] = cls
    return cls


def model_class(name: object) -> type | None:
    """The class that files call `name`; None if there is none."""
    if not isinstance(name, str):
        return None
    if name not in MODELS and name in _DEFINED_IN:
        importlib.import_module(_DEFINED_IN[name])
    return MODELS.get(name)


def estimator_class(name: object) -> Any:
    """The estimator's class that files call `name`; None if there is none."""
    module = _ESTIMATORS.get(name) if isinstance(name, str) else None
    return None if module is None else getattr(importlib.import_module(module), str(name))
