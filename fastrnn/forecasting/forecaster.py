"""Forecasts of series by a recurrent network: ``RNNForecaster``.

Reading order: ``RNNForecaster.fit`` (what goes in), ``predict``, ``stream``, ``backtest``; then ``encoding`` (what the
network reads and says), ``network``, ``fitting`` (windows, loss, optimizer), ``options`` (the checks of parameters),
``preparation`` and ``series`` (arrays and frames), ``stream`` (one observation at a time), ``walk`` and ``backtest``
(forecasts of the past, and their errors).
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from .._base import validation as check
from . import choice, fitting, tables
from .blend import fit_blend
from .blended import BlendedForecaster
from .embeddings import with_embeddings
from .encoding import Encoding, missing_at_end
from .glitches import without_glitches
from .options import Options
from .preparation import like_fitted, places_by_name, prepared, read_panel, series_number, steps_ahead
from .requests import asks_for_other_series
from .stream import ForecastStream
from .walk import backtest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta
    from typing import Self

    from .._base.typing import ArrayLike, CellName, RandomState
    from ..nn.quantized import ModelPrecision
    from ..training import History
    from .backtest import Backtest
    from .fitting import Trainer
    from .network import ForecastNetwork
    from .series import Panel


class RNNForecaster(BlendedForecaster):
    """One recurrent network that forecasts one series, or any number of them, blended with simpler forecasts.

    At every step the network reads the last value (relative to the series' own recent level and scale), the values one
    season before, and what else is known. It forecasts the next `horizon` values at once, by a linear map of what it
    reads and of the state of a recurrent layer. The equations are in ``fastrnn/forecasting/encoding.py``.

    By default `fit` chooses by the data whatever is "auto", and blends the network with a linear forecast, naive ones
    and exponential smoothing by weights w_j that its errors at rolling origins set (see Notes). Where nothing can be
    learnt the forecast is nearly the naive one.

    Parameters
    ----------
    horizon : int
        Steps that are forecast at once. ``predict`` goes further by taking forecasts for observations.
    window : int or "auto"
        Steps over which level and scale are taken. "auto": the longest season or twice the horizon, and 32 or more
        where the series are long enough.
    cell : {"gru", "lstm", "rnn"}
        The recurrent layer, in upper or lower case.
    hidden_size : int or "auto"
        Units of the recurrent layer. "auto": 16 to 48, by the number of values.
    num_layers : int
        Layers stacked.
    dropout : float
        Probability of dropping an output between layers in training; needs `num_layers` above 1.
    log : bool, "1p" or "auto"
        Forecasts are made of log y ("1p": of log(1 + y)), for values above 0 (from 0 on) that change in proportion.
        "auto": of log y if all values are well above 0 and most series change in proportion to their height.
    scaling : {"std", "mean"} or None
        What the network reads is taken relative to the window: its mean is subtracted, then the difference is divided
        by its standard deviation ("std") or by the mean of the absolute values ("mean"; with `log`, by 1). None:
        neither, for series whose height a known or past column determines: with the other two the network does not
        see how high a series stands.
    difference : int or "auto"
        What the network's forecasts are relative to. 1: the last value; m: the value m steps before (a seasonal naive
        forecast); 0: the window's mean. "auto": whichever of these is the best forecast by itself.
    seasons : int, sequence of int, or "auto"
        Lengths of seasons in steps, such as (24, 168) for hours: the values one season before are read, too. "auto":
        those that are found in the values, or, where times are known, those of the calendar that the values show.
    blend : "auto", bool, str or sequence of str
        Which forecasts are blended. "auto" (or True): all. False: the network alone, trained once, without rolling
        origins. Else some of "network", "linear", "naive", "seasonal naive", "drift", "mean", "median", "smoothing",
        "trend", "theta" and "decay".
    nonnegative : bool or "auto"
        Whether forecasts and their quantiles are kept at 0 or above. "auto": for series of whole numbers or with
        zeros, that have no value below 0.
    time_features : str or sequence of str
        Any of "day", "week" and "year": sines and cosines of the time within them are read; needs times.
    quantiles : float or sequence of float
        Quantiles that are forecast beside the median, for intervals; the loss is then the quantile loss.
    loss : {"mae", "mse", "huber"}
        What training minimises where no quantiles are forecast.
    ensemble : int or "auto"
        Number of networks that are trained from different initial weights; forecasts are their mean. "auto": 1, or 3
        where there are 50,000 values or more.
    updates : int or "auto"
        Updates by the optimizer, for each network. Training makes the nearest whole number of passes over all windows.
        With a blend it is the most that the judged network gets: it keeps the weights that were best at the rolling
        origins, and then goes on with all values for a fourth of the updates that led there. "auto": 200 to 1,500, by
        the number of values (600 without a blend).
    sequence : int, optional
        Steps of the windows that are trained on; 2 * `window` if not given (for a long automatic window less).
    batch_size : int
        Windows of a minibatch.
    learning_rate : float
        Largest learning rate of AdamW: it rises over the first twentieth of the updates, then falls along half a
        cosine.
    weight_decay : float
        Weight decay of AdamW.
    patience : int, optional
        Early stopping: training stops after so many epochs without a better validation loss, and the weights of the
        best epoch are kept. Validation is at the rolling origins; without a blend, on the last `horizon` steps of every
        series, which are not trained on.
    target : str or sequence of str, optional
        Columns of a frame (pandas, polars, pyarrow; ``pip install fastrnn[frames]``) to forecast.
    time, series : str, optional
        Columns of a frame: the times; the name of the series that a row belongs to. Without `time` the times are those
        of the frame's index, where it is one of times. Rows may come in any order.
    known, past, static : str or sequence of str
        Columns of a frame: those known in advance; those known up to now; those that do not change within a series.
    categorical : str or sequence of str
        Those of the known, past and static columns that are categories, of text or of numbers. Up to 32 categories are
        read one-hot; more are embedded as vectors of 16 numbers, which ``fit`` learns. A category that ``fit`` has not
        seen is taken for a missing one, with a warning.
    freq : str or timedelta, optional
        The frequency of the times, such as "h", "15min", "D", "B" (Monday to Friday), "W-SUN", "MS" and "ME" (starts
        and ends of months), "BME" (last weekdays of months), "QE", "SMS" (the first and the 15th) or "YE"; found from
        the times if not given. It is needed where most steps are left out.
    resample : str or tuple of str, optional
        Makes regular steps of irregular times: "1h" takes the mean of every hour, ("1h", "sum") another function
        ("mean", "sum", "min", "max", "first", "last", "median" or "count"); "sum" alone takes `freq` for the step.
        Known and past columns are averaged. A step without rows is missing, or 0 for "sum" and "count".
    precision : {"float32", "int8", "bfloat16", "float16"}
        Of the recurrent layers' weights where forecasts are made; the layers' ``quantized`` says what it means.
        Training and the weights of the blend are float32 in any case. It may be changed after ``fit``, by
        ``set_params``, and a file keeps the float32 weights with it.
    random_state : int, numpy.random.Generator, numpy.random.RandomState or None
        For the initial weights, the order of the windows and dropout. An int gives the same forecasts every time.
    progress : bool
        Whether to show the progress of training.

    Attributes
    ----------
    choice_ : Choice
        What was chosen: seasons, logarithm, difference, updates, the number of origins, the weight of each member for
        each series, and more. ``summary()`` says it in words, and so does ``repr`` of a fitted forecaster.
    seasons_ : tuple of int
        The seasons, found or given.
    models_ : list of ForecastNetwork
        The networks: each has a recurrent ``layer`` and a ``head``, a Linear of the layer's outputs and inputs. Empty
        where the network has no weight in the blend.
    history_ : list of fastrnn.training.History
        The losses of each network's training.
    blend_ : Blend or None
        The members that count, and where they stand.
    calibration_ : Calibration or None
        The errors at the rolling origins, which intervals are made of.
    options_ : Options
        The parameters, with what was chosen for "auto".
    n_features_in_ : int
        Number of known columns.

    Raises
    ------
    TypeError, ValueError
        An unsuitable parameter, by name. ``fit`` raises it.

    Notes
    -----
    A missing value is NaN (or None). It is taken to be as one season before, or as the last value; if there were any in
    training the network reads that one is missing. Infinite values are errors. Steps are regular: times may be left
    out, which makes their values missing. One to three values that are 30 times further from the median than all others
    are left out with a UserWarning, and so are codes for missing values, such as -9999, in any number of rows. A series
    too short for a network is forecast by the other members, with a warning.

    With z the values or their logarithms, the forecast is sum_j w_j f_j over the members j, w_j >= 0, sum_j w_j = 1.
    The last quarter of a series (at most 20 horizons or 500 steps) has up to 40 origins. The network and the linear
    forecast learn from what lies before, every member forecasts from each origin, and the weights of a series are

        argmin_w  mean |sum_j w_j e_j| / min_j mean |e_j|  +  (tau / n) (1 + 4 / n) sum_j w_j log(w_j / p_j)

    with e_j the errors, n the number of them that do not overlap, and p a prior with most weight on naive forecasts;
    the weights of series in a panel are drawn to common ones. Smoothing, trend, theta and decay are the recursions of
    ``fastrnn/forecasting/smoothing.py`` [1]_ [2]_.

    Intervals are conformal [3]_: with s_k the mean size of the blend's errors k steps ahead at the origins, and q_p the
    quantile p of all errors over their s_k, the quantile of a forecast is f_k + s_k q_p; for an interval of level 1 - a
    the level is 1 - a + a min(0.3, 0.5 / n). Streams adapt the bounds as values come [4]_.

    References
    ----------
    .. [1] Hyndman & Athanasopoulos, Forecasting: Principles and Practice, 3rd edition (2021).
    .. [2] Assimakopoulos & Nikolopoulos, The theta model, International Journal of Forecasting 16 (2000).
    .. [3] Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World (2005).
    .. [4] Gibbs & Candes, Adaptive conformal inference under distribution shift, NeurIPS (2021).

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.forecasting import RNNForecaster
    >>> t = np.arange(300)
    >>> y = 10 + np.sin(t / 24 * 2 * np.pi) + 0.01 * t
    >>> model = RNNForecaster(horizon=12, window=24, seasons=24, difference=24, updates=100, random_state=0)
    >>> forecast = model.fit(y[:-12]).predict()
    >>> forecast.shape, bool(np.abs(forecast - y[-12:]).max() < 0.1)
    ((12,), True)

    Several series at once, in columns, with intervals:

    >>> y = np.stack([y, 3 * y[::-1]], 1)
    >>> model.set_params(quantiles=(0.1, 0.9)).fit(y).predict(quantiles=True).shape
    (12, 2, 3)
    """

    _estimator_type = "regressor"
    _multi_output = True

    models_: list[ForecastNetwork]
    history_: list[History]
    options_: Options
    encoding_: Encoding
    panel_: Panel

    def __init__(
            self, horizon: int = 1, window: int | Literal["auto"] = "auto", *, cell: CellName = "gru",
            hidden_size: int | Literal["auto"] = "auto", num_layers: int = 1, dropout: float = 0.0,
            log: bool | Literal["auto", "1p"] = "auto", scaling: Literal["std", "mean"] | None = "std",
            difference: int | Literal["auto"] = "auto", seasons: int | Sequence[int] | Literal["auto"] = "auto",
            blend: bool | str | Sequence[str] = "auto", nonnegative: bool | Literal["auto"] = "auto",
            time_features: str | Sequence[str] = (), quantiles: float | Sequence[float] = (),
            loss: Literal["mae", "mse", "huber"] = "mae", ensemble: int | Literal["auto"] = "auto",
            updates: int | Literal["auto"] = "auto",
            sequence: int | None = None, batch_size: int = 32, learning_rate: float = 4e-3, weight_decay: float = 0.0,
            patience: int | None = None, target: str | Sequence[str] | None = None, time: str | None = None,
            series: str | None = None, known: str | Sequence[str] = (), past: str | Sequence[str] = (),
            static: str | Sequence[str] = (), categorical: str | Sequence[str] = (),
            freq: str | timedelta | None = None, resample: str | tuple[str, str] | None = None,
            precision: ModelPrecision = "float32",
            random_state: RandomState = None, progress: bool = False) -> None:
        self.horizon, self.window = horizon, window
        self.cell, self.hidden_size, self.num_layers, self.dropout = cell, hidden_size, num_layers, dropout
        self.log, self.scaling, self.difference, self.seasons = log, scaling, difference, seasons
        self.blend, self.nonnegative = blend, nonnegative
        self.time_features, self.quantiles, self.loss, self.ensemble = time_features, quantiles, loss, ensemble
        self.updates, self.sequence, self.batch_size = updates, sequence, batch_size
        self.learning_rate, self.weight_decay, self.patience = learning_rate, weight_decay, patience
        self.target, self.time, self.series, self.known, self.past = target, time, series, known, past
        self.static, self.categorical, self.freq, self.resample = static, categorical, freq, resample
        self.precision: ModelPrecision = precision
        self.random_state, self.progress = random_state, progress

    def __repr__(self) -> str:
        text = super().__repr__()
        if "choice_" not in vars(self) or self.blend_ is None:
            return text
        return "\n  ".join([text, *self.choice_.summary().splitlines()])

    @property
    def seasons_(self) -> tuple[int, ...]:
        """The seasons, found or given."""
        self._check_fitted()
        return self.choice_.seasons

    def summary(self) -> str:
        """Say in a few lines what ``fit`` chose.

        Returns
        -------
        str
            Lines of text.

        Raises
        ------
        NotFittedError
            This forecaster is not fitted.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.forecasting import RNNForecaster
        >>> y = np.sin(np.arange(200) / 12 * 2 * np.pi) + 0.1 * np.random.default_rng(0).standard_normal(200)
        >>> RNNForecaster(horizon=3, blend=["seasonal naive"]).fit(y).summary().splitlines()[0]
        'seasons: 12; logarithm: no; difference: 12'
        """
        self._check_fitted()
        return self.choice_.summary()

    # ---- Fitting --------------------------------------------------------------------------------

    def fit(self, X: ArrayLike | None = None, y: ArrayLike | None = None, *, past: ArrayLike | None = None,
            times: ArrayLike | None = None, static: ArrayLike | None = None) -> Self:
        """Train on series, from whose ends ``predict`` and ``stream`` then go on.

        Columns are shared by all series of an array y; beside a list of series they are lists, too. A frame has all of
        them as columns, which the parameters `target`, `time`, `series`, `known` and `past` name.

        Parameters
        ----------
        X : array_like or frame
            With y: columns known in advance [T, F], or None for none. Without y: the series, as y has them.
        y : array_like, optional
            One series [T]; several, one a column [T, N]; or a list of arrays [T_n].
        past : array_like, optional
            Columns known up to now [T, P].
        times : array_like of datetime64, optional
            The times of the steps [T], rising; beside a list of series a list of them. Datetimes of Python, text and
            indices of pandas serve, too, with a time zone or without. A Series or DataFrame of pandas whose index is
            one of times has them itself, and forecasts then are Series or DataFrames that go on from it.
        static : array_like or frame, optional
            Columns that do not change with time [N, S], a row a series; columns of text are categories.

        Returns
        -------
        RNNForecaster
            This one.

        Raises
        ------
        TypeError, ValueError
            An unsuitable argument or parameter, by name; the estimator stays as it was.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.forecasting import RNNForecaster
        >>> RNNForecaster(horizon=3, random_state=0).fit(np.full(100, 5.0))
        RNNForecaster(horizon=3, random_state=0)
          seasons: none; logarithm: no; difference: 1
          forecast: 100 % naive (by 25 origins in the last 25 steps)
        """
        return self._fit(read_panel(self, X, y, past, times, static=static))

    def _fit(self, panel: Panel, trainer: Trainer = fitting, total: int | None = None) -> Self:
        """Fit to a panel. Of one that is a sample `trainer` has the rest, and `total` is how many values there are."""
        with self._whole_or_unchanged():
            self._fit_options(Options.of(self), panel, trainer, total)
        return self

    def _fit_options(self, options: Options, panel: Panel, trainer: Trainer, total: int | None) -> None:
        panel.series, left_out = without_glitches(panel.series)
        panel = prepared(panel, options)
        options = choice.resolved(options, _observed(panel), total)
        panel = with_embeddings(panel, options)
        observed = _observed(panel)
        encoding = Encoding(options.horizon, options.window, options.log, options.scaling, options.difference,
                            options.seasons, options.time_features, observed.series)
        self._train(observed, encoding, options, trainer)       # nothing is judged where the last values are missing
        self.choice_ = replace(self.choice_, left_out=left_out)
        self.panel_, self.encoding_, self.n_features_in_ = panel, encoding, len(encoding.known[0])
        self._settle()

    def _train(self, panel: Panel, encoding: Encoding, options: Options, trainer: Trainer) -> None:
        """Train the networks, and set the weights of the blend."""
        if options.blend is False:
            networks, histories = trainer.train(panel.series, encoding, options)
            self.blend_, self.calibration_ = None, None
            self.choice_ = choice.Choice(options.seasons, options.log, options.difference, options.window,
                                         options.hidden_size, options.ensemble, options.updates, ())
        else:
            fitted = fit_blend(panel.series, encoding, options, trainer)
            networks, histories = fitted.networks, fitted.histories
            self.blend_, self.calibration_, self.choice_ = fitted.blend, fitted.calibration, fitted.choice
        self.options_, self.models_, self.history_ = options, networks, histories

    def apply(self, X: ArrayLike | None, y: ArrayLike | None = None, *, past: ArrayLike | None = None,
              times: ArrayLike | None = None, static: ArrayLike | None = None) -> Self:
        """Make a copy of this fitted forecaster that goes on from other series, or longer ones, without training.

        Series of a frame have the weights of the fitted ones of their names, and others the mean weights. Series
        without names have those of the fitted ones in their places if they are as many, and the mean ones otherwise.

        Parameters
        ----------
        X, y, past, times, static : array_like, optional
            The series, as ``fit`` takes them. A category that ``fit`` has not seen is taken for a missing one, with a
            warning.

        Returns
        -------
        RNNForecaster
            A forecaster with the same networks.

        Raises
        ------
        TypeError, ValueError
            An unsuitable argument, by name.
        NotFittedError
            This forecaster is not fitted.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.forecasting import RNNForecaster
        >>> y = np.sin(np.arange(200) / 4)
        >>> model = RNNForecaster(horizon=3, updates=50, random_state=0).fit(y[:150])
        >>> model.apply(y).predict().shape
        (3,)
        """
        self._check_fitted()
        other = copy.copy(self)
        panel = read_panel(self, X, y, past, times, static=static, like=self.panel_)
        panel.series, left_out = without_glitches(panel.series)
        other.panel_ = like_fitted(self, prepared(panel, self.options_))
        other.choice_ = replace(self.choice_, left_out=left_out)
        other._settle(places=places_by_name(self.panel_, other.panel_))
        return other

    def _check_loaded(self) -> None:
        """Raise an error of any kind where what a file holds makes no forecast."""
        if self.__sklearn_is_fitted__():
            Options.of(RNNForecaster(**{**self.get_params(), "random_state": None}))
            like_fitted(self, self.panel_)
            self._point(self.panel_.series, 1)

    # ---- Forecasts ------------------------------------------------------------------------------

    def predict(self, X: int | ArrayLike | None = None, *, quantiles: bool = False, interval: float | None = None,
                samples: int | None = None) -> Any:
        """Forecast the steps that follow the series.

        Parameters
        ----------
        X : int, array_like or frame, optional
            How many steps; `horizon` of them if not given. Where there are known columns: their values in those steps,
            [h, F] (a list of arrays beside a list of series). Those of all `horizon` steps are best: where fewer are
            given, the last row stands for the rest. Rows of a frame are matched by series and time, in any order. Where
            there are no known columns: other series, or longer ones, which ``apply`` takes first.
        quantiles : bool
            Whether to give all quantiles, rising, in place of the median.
        interval : float, optional
            The probability of an interval, such as 0.9, to give with the forecasts.
        samples : int, optional
            How many paths to draw in place of the forecasts. Their steps hang together as errors of the past do.

        Returns
        -------
        array or frame
            [h] for one series, [h, N] for columns, [N, h] for a list; a frame of times and values for a frame. With
            quantiles an array has one more axis, [Q], and a frame a column for each: ``y_q0.1``, ``y_q0.5``, ... With
            an interval: an ``Interval`` (lower, point, upper) of arrays; of a frame, columns ``y_lower``, ``y`` and
            ``y_upper``. With samples an array has one more axis before the others; a frame has a column for each:
            ``y_sample1``, ...

        Raises
        ------
        TypeError, ValueError
            An unsuitable argument; more steps than `horizon` with past columns, or with quantiles and no blend.
        NotFittedError
            This forecaster is not fitted.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.forecasting import RNNForecaster
        >>> y = np.sin(np.arange(200) / 4)
        >>> model = RNNForecaster(horizon=3, updates=50, quantiles=(0.1, 0.9), random_state=0).fit(y)
        >>> model.predict().shape, model.predict(7).shape, model.predict(quantiles=True).shape
        ((3,), (7,), (3, 3))
        """
        self._check_fitted()
        if asks_for_other_series(X, self.panel_, self.n_features_in_):
            return self.apply(X).predict(quantiles=quantiles, interval=interval, samples=samples)
        series, steps = steps_ahead(self, X)
        if sum([check.flag(quantiles, "quantiles"), interval is not None, samples is not None]) > 1:
            raise ValueError("quantiles, interval, samples: expected one of them at most")
        if quantiles:
            return self._quantile_table(series, steps)
        z = self._point(series, steps)
        if interval is not None:
            return self._interval_about(z, check.probability(interval, "interval"))
        if samples is not None:
            return self._samples_about(z, check.size(samples, "samples"))
        return tables.table(self.panel_, self._values(z))

    def stream(self, series: int | str = 0, X: ArrayLike | None = None, *,
               interval: float | None = None) -> ForecastStream:
        """Begin a stream that goes on from the end of one series, an observation at a time, without refitting.

        Parameters
        ----------
        series : int or str
            Which series: its number, or its name in a frame.
        X : array_like or frame, optional
            Known columns of the next `horizon` steps [horizon, F], where there are any.
        interval : float, optional
            The probability of an interval that the stream's ``forecast_interval`` then has, which adapts to what comes.

        Returns
        -------
        ForecastStream
            A stream with its own copy of the weights.

        Raises
        ------
        TypeError, ValueError
            An unsuitable argument, by name.
        NotFittedError
            This forecaster is not fitted.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.forecasting import RNNForecaster
        >>> model = RNNForecaster(horizon=3, updates=50, random_state=0).fit(np.sin(np.arange(200) / 4))
        >>> model.stream()
        <ForecastStream after 200 observations, horizon 3>
        """
        self._check_fitted()
        row = series_number(self.panel_, series)
        each = self.panel_.series[row]
        if X is not None or self.n_features_in_:
            rows = tables.rows_to_come(X, self.panel_, each)
            self._check_features(rows.shape[1])
            each = each.knowing(check.shaped(rows, "X", (self.encoding_.horizon, self.n_features_in_)))
        return ForecastStream(self, each, row, None if interval is None else check.probability(interval, "interval"))

    # ---- Backtest -------------------------------------------------------------------------------

    def backtest(self, X: ArrayLike | None, y: ArrayLike | None = None, *, past: ArrayLike | None = None,
                 times: ArrayLike | None = None, static: ArrayLike | None = None, start: int, stride: int = 1,
                 refit: bool = True) -> Backtest:
        """Make forecasts as they would have been made in the past, and put them beside what came.

        Parameters
        ----------
        X, y, past, times, static : array_like, optional
            The series, as ``fit`` takes them.
        start : int
            The first forecast is made with y[:start]. A negative number counts from the end.
        stride : int
            Steps from one forecast to the next; forecasts are made as long as all that they forecast is there.
        refit : bool
            True: a copy of this estimator is trained on y[:start] first. False: this one is used as it is fitted;
            whether it has seen what it forecasts is the caller's to know.

        Returns
        -------
        Backtest
            The forecasts, and naive ones, beside the values.

        Raises
        ------
        TypeError, ValueError
            An unsuitable argument, by name.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.forecasting import RNNForecaster
        >>> y = np.sin(np.arange(200) / 4)
        >>> RNNForecaster(horizon=3, updates=50, random_state=0).backtest(y, start=-20, stride=2)
        <Backtest of 9 forecasts, horizon 3, 1 series>
        """
        data = {"X": X, "y": y, "past": past, "times": times, "static": static}
        return backtest(self, data, start, check.size(stride, "stride"), check.flag(refit, "refit"))


def _observed(panel: Panel) -> Panel:
    """The panel without what follows the last value of each series."""
    return panel.with_series([each.part(0, len(each) - missing_at_end(each.y)) for each in panel.series])
