"""What a fitted forecaster does beside forecasting: it goes on training with new rows, is scored and drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from .._base import validation as check
from .._base.estimator import Estimator
from .following import read_following
from .plots import draw_forecast
from .scoring import score
from .updating import update

if TYPE_CHECKING:
    from typing import Self

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

    def update(self, X: ArrayLike | None = None, y: ArrayLike | None = None, *, past: ArrayLike | None = None,
               times: ArrayLike | None = None, static: ArrayLike | None = None, updates: int | None = None) -> Self:
        """Take rows that follow the series, and train the networks on from where they are.

        ``predict`` and ``stream`` then go on from the new ends. Half of what is trained on are windows that reach the
        new rows, half are earlier ones of the same series, at 0.3 times the learning rate of ``fit``. What was found in
        ``fit`` (scales of columns, seasons) stays as it is: where a series has become another, fit again.

        Parameters
        ----------
        X, y, past : array_like or frame, optional
            The new rows in the kind of table that ``fit`` took, with the same columns. Rows of a frame are matched by
            the name of their series and by time; steps that are left out have missing values. Rows of arrays follow the
            last ones, series by their places. Further series of a frame or a list are taken in, too.
        times : array_like of datetime64, optional
            The times of the new rows of arrays; without them they follow step by step.
        static : array_like, optional
            Columns that do not change with time, a row a series: where a list has further series. Those of the others
            stay as they are.
        updates : int, optional
            Updates by the optimizer, for each network; 0: none. If it is not given: as many for each row as in ``fit``,
            one at least.

        Returns
        -------
        RNNForecaster
            This one.

        Raises
        ------
        TypeError, ValueError
            An unsuitable argument, by name, or rows that do not follow the series; the forecaster stays as it was.
        NotFittedError
            This forecaster is not fitted.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.forecasting import RNNForecaster
        >>> y = np.sin(np.arange(200) / 4)
        >>> model = RNNForecaster(horizon=3, updates=50, random_state=0).fit(y[:150])
        >>> model.update(y[150:180]).stream()
        <ForecastStream after 180 observations, horizon 3>
        """
        self._check_fitted()
        model = cast("RNNForecaster", self)
        count = None if updates is None else check.size(updates, "updates", least=0)
        update(model, read_following(model, X, y, past, times, static), count)
        return self

    def partial_fit(self, X: ArrayLike | None = None, y: ArrayLike | None = None, *, past: ArrayLike | None = None,
                    times: ArrayLike | None = None, static: ArrayLike | None = None) -> Self:
        """Fit where nothing was fitted yet, else ``update``: scikit-learn's way to learn from data in pieces.

        Parameters
        ----------
        X, y, past, times, static : array_like, optional
            The first rows, or those that follow, as ``fit`` takes them.

        Returns
        -------
        RNNForecaster
            This one.

        Raises
        ------
        TypeError, ValueError
            An unsuitable argument, by name; the forecaster stays as it was.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.forecasting import RNNForecaster
        >>> y = np.sin(np.arange(200) / 4)
        >>> model = RNNForecaster(horizon=3, updates=50, random_state=0)
        >>> for piece in np.split(y, 4):
        ...     model = model.partial_fit(piece)
        >>> model.stream()
        <ForecastStream after 200 observations, horizon 3>
        """
        if self.__sklearn_is_fitted__():
            return self.update(X, y, past=past, times=times, static=static)
        return cast("Self", cast("RNNForecaster", self).fit(X, y, past=past, times=times, static=static))

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

    def plot(self, X: int | ArrayLike | None = None, *, series: int | str = 0, interval: float = 0.8,
             past: int | None = None, ax: Axes | None = None) -> Axes:
        """Draw the end of one series, its forecast and an interval.

        Parameters
        ----------
        X : int, array_like or frame, optional
            As for ``predict``: how many steps, or the known columns of the steps to come.
        series : int or str
            Which series: its number, or its name in a frame.
        interval : float
            The probability of the interval; 0: none.
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
        ('Forecast', ['values', 'forecast', '80 % interval'])
        """
        self._check_fitted()
        return draw_forecast(cast("RNNForecaster", self), X, series, interval, past, ax)
