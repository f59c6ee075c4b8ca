"""Forecasts of one series, or of many, by a recurrent network: ``RNNForecaster``.

``forecaster`` has the estimator, ``options`` the checks of its parameters, ``encoding`` what the network reads and
says, ``network`` the network, ``fitting`` and ``windows`` its training, ``series``, ``frames`` and ``tables`` arrays
and frames, ``calendar``, ``frequency``, ``zones``, ``timeline`` and ``resample`` their times, ``categories`` columns of
names, ``stream`` forecasts from one observation at a time, ``backtest`` their errors.
"""

from .backtest import Backtest, mase, smape
from .choice import Choice
from .forecaster import RNNForecaster
from .intervals import Interval
from .stream import ForecastStream

__all__ = ["Backtest", "Choice", "ForecastStream", "Interval", "RNNForecaster", "mase", "smape"]
