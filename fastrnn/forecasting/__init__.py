"""Forecasts of one series, or of many, by a recurrent network: ``RNNForecaster``.

``forecaster`` has the estimator, ``options`` the checks of its parameters, ``encoding`` what the network reads and
says, ``network`` the network, ``fitting`` its training, ``series`` and ``calendar`` arrays, frames and times,
``stream`` forecasts from one observation at a time, ``backtest`` their errors.
"""

from .backtest import Backtest, mase, smape
from .choice import Choice
from .forecaster import RNNForecaster
from .intervals import Interval
from .stream import ForecastStream

__all__ = ["Backtest", "Choice", "ForecastStream", "Interval", "RNNForecaster", "mase", "smape"]
