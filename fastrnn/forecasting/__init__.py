"""Forecasts of one series, or of many, by a recurrent network: ``RNNForecaster``.

``forecaster`` has the estimator, ``options`` the checks of its parameters, ``preparation`` what it is given as a panel,
``choice`` and ``seasonality`` what is chosen by the data. ``encoding`` is what the network reads and says, ``network``
the network, ``fitting`` and ``windows`` its training, ``embeddings`` and ``categories`` columns of names.

``blend`` has the members beside the network and what weighs them: ``smoothing`` and ``linear`` forecast, ``origins``,
``judging``, ``weights`` and ``residuals`` say how far off each was in the past, ``intervals`` what follows for bounds;
``blended`` puts a forecast together. ``stream`` and ``base_stream`` are the same from one observation at a time.

``series``, ``frames`` and ``tables`` are arrays and frames, ``glitches`` their wild values, ``calendar``,
``frequency``, ``zones``, ``timeline`` and ``resample`` their times, ``requests`` what a forecast is asked for.
``living``, ``updating`` and ``following`` are what comes after the fit, ``walk``, ``backtest`` and ``scoring`` its
errors, ``plots`` its pictures.
"""

from .backtest import Backtest, mase, smape
from .choice import Choice
from .forecaster import RNNForecaster
from .intervals import Interval
from .stream import ForecastStream

__all__ = ["Backtest", "Choice", "ForecastStream", "Interval", "RNNForecaster", "mase", "smape"]
