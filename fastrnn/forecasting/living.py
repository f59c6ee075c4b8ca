"""What a fitted forecaster does beside forecasting: it is scored and drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from .._base.estimator import Estimator
from .plots import draw_forecast
from .scoring import score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .._base.typing import ArrayLike
    from ..training import History
    from .encoding import Encoding
    from .forecaster import RNNForecaster
    from .network import ForecastNetwork
    from .options import Options
    from .series import Panel


class LivingForecaster(Estimator):
    """The part of ``RNNForecaster`` that needs no more than what was fitted, and what its methods return.

    Examples
    --------
    >>> from fastrnn.forecasting import RNNForecaster
    >>> issubclass(RNNForecaster, LivingForecaster)
    True
    """

    models_: list[ForecastNetwork]
    history_: list[History]
    options_: Options
    encoding_: Encoding
    panel_: Panel

    def score(self, X: int | ArrayLike | None, y: ArrayLike | None = None) -> float:
        """Compute R^2 of the forecasts beside the values that came, as scikit-learn's regressors have it.

        With the forecasts f and the values y it is 1 - sum (y - f)^2 / sum (y - mean y)^2. Missing values are left out.

        Parameters
        ----------
        X : int, array_like or frame
            With y: as for ``predict``. Without y: the values that came, as ``fit`` takes series; of a frame with its
            columns. So scikit-learn's searches score a forecaster that is fitted with series alone.
        y : array_like, optional
            The values that came, shaped as the forecasts.

        Returns
        -------
        float
            1 for perfect forecasts, 0 for forecasts as good as the mean of y.

        Raises
        ------
        ValueError
            The shape of y is not that of the forecasts, or the rows of X do not follow the series.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.forecasting import RNNForecaster
        >>> y = np.sin(np.arange(220) / 4)
        >>> model = RNNForecaster(horizon=20, seasons=25, updates=100, random_state=0).fit(y[:200])
        >>> model.score(20, y[200:]) > 0.9, model.score(y[200:]) == model.score(20, y[200:])
        (True, True)
        """
        self._check_fitted()
        return score(cast("RNNForecaster", self), X, y)

    def plot(self, X: int | ArrayLike | None = None, *, series: int | str = 0, past: int | None = None,
             ax: Axes | None = None) -> Axes:
        """Draw the end of one series and its forecast, with the outer quantiles where there are some.

        Parameters
        ----------
        X : int, array_like or frame, optional
            As for ``predict``: how many steps, or the known columns of the steps to come.
        series : int or str
            Which series: its number, or its name in a frame.
        past : int, optional
            How many steps before the forecast are drawn.
        ax : matplotlib.axes.Axes, optional
            Where to draw. If it is not given, a new figure is made, without pyplot.

        Returns
        -------
        matplotlib.axes.Axes
            The axes that were drawn in; ``ax.figure.savefig(path)`` writes the figure.

        Raises
        ------
        ImportError
            Matplotlib is missing: ``pip install fastrnn[plot]``.
        TypeError, ValueError
            An unsuitable argument, by name.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.forecasting import RNNForecaster
        >>> model = RNNForecaster(horizon=12, updates=50, random_state=0).fit(np.sin(np.arange(200) / 4))
        >>> ax = model.plot(past=60)
        >>> ax.get_title(), [text.get_text() for text in ax.get_legend().get_texts()]
        ('Forecast', ['values', 'forecast'])
        """
        self._check_fitted()
        return draw_forecast(cast("RNNForecaster", self), X, series, past, ax)
