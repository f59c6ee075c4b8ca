"""Anomaly detection on streams: a recurrent network forecasts the next row, and unexpected rows score high.

Reading order: ``RNNAnomalyDetector``, then ``online`` (single rows, snapshots), ``state`` (one stream: network,
read-out, channels), ``readout`` (recursive least squares), ``likelihood`` (how unlikely one value is), ``repair``
(forecasts without doubtful values), ``fitting`` (back-propagation).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from .._base import validation as check
from .._base.estimator import cell_name
from ..nn import GRU, LSTM, RNN, Linear, Sequential
from ..nn.quantized import model_precision
from .clock import Clock
from .fitting import train
from .joint import Joint
from .likelihood import RULES, Channel
from .online import OnlineDetector
from .plots import draw_scores
from .readout import Readout
from .rows import channel_names, checked_rows, row_moments, told_rows
from .state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    import numpy.typing as npt
    from matplotlib.axes import Axes

    from .._base.typing import ArrayLike, CellName, Float64Array, IntArray, RandomState
    from ..nn.quantized import ModelPrecision, Precision
    from .clock import Moments

LAYERS = {"rnn": RNN, "gru": GRU, "lstm": LSTM}
AUTO = -5.0             # log10 of the probability below which predict calls a row an outlier
MOST_LAGS = 16          # rows that the read-out reads of one channel or two; of more channels fewer


class RNNAnomalyDetector(OnlineDetector):
    """Score how unusual each row of a time series is, as rows come.

    A recurrent network reads the rows, scaled by their running mean and standard deviation. A linear read-out of its
    state, of the last `lags` rows and of the time of the row to come forecasts the next row. The read-out starts from
    "as the last row" and is refitted at every row by recursive least squares with forgetting. For every channel, with
    the error e_t, its long-run scale S_t (the mean |e| of about 2000 rows) and its scale of now s_t (the geometric mean
    of S_t and the mean |e| of about 32 rows)::

        w_t = sqrt(|e_t| / S_t)
        a_t = running mean of sqrt(|e| / s) over about 4 rows, each clipped
        p   = the least of   P(w > w_t),   P(a > a_t),   P(the value leaves its range by so much),
                             P(the mean of the last 10 values leaves theirs by so much),
              corrected for the choice among these and for the number of channels (Bonferroni)
        score = d / 6 up to d = 5,   d / (d + 1) beyond,   d = -log10(p)

    So a row's own error is judged alike in calm and in stormy times, and the average of errors is not. The average
    counts for 1.5 digits more than the row's own error at the most, so that the rows behind a spike do not rank like
    it.

    The tails P(w > x) and P(a > x) follow the quantiles that a tenth and a fiftieth of the rows exceed; beyond, they
    are exponential, as wide as the excesses were (extreme-value theory, peaks over threshold). Leaving a range is as
    unlikely as records were: growth, trends and random walks set many, and are expected to. In noise, a value far out
    and a large error are the same evidence; where forecasts explain the values (a part R^2 of their variance), they are
    two, and g R^2 (d_w - 1) is added to the digits of the ranges, with d_w = -log10 P(w > w_t) if above 1 and g = 0.6
    for values, 1.2 for means.

    With several channels, their errors are judged together, too, by Mahalanobis' distance, which finds what every
    channel hides. Quantiles and tails of P(w > x) that differ between channels by no more than chance are replaced by
    their means; the more they differ, the more each channel has its own (shrinkage, James & Stein 1961). Leaving a
    range counts log10(channels) digits less than a large error.

    **A spike does not spoil the rows behind it.** While a doubtful value (w among its highest 0.3 %) is among the
    last rows that the read-out reads there are two forecasts: of the rows as they came, and of these with what was
    expected in place of doubtful values. The next value is judged by the nearer one: behind a glitch that is the
    second, behind a change that lasts the first.

    **One anomaly does not spoil what follows.** What is learnt from a row is bounded by what was likely: the network
    reads and the statistics take in clipped values, the read-out learns clipped errors (Huber 1964), quantiles move by
    the sign of a row's distance alone, and ranges grow by a quarter at most and forget. A level that lasts for 20 rows
    is accepted; until then every row of it alarms.

    Rows follow each other in time, so X is one series, [rows, channels]. NaN (or None) is a missing value: it is
    neither judged nor learnt, and the network reads its forecast instead. The first 50 rows score 0.

    Parameters
    ----------
    cell : {"gru", "lstm", "rnn"}
        The recurrent layer, in upper or lower case.
    hidden_size, num_layers : int
        Units of the recurrent layer; layers stacked.
    updates : int
        Updates by the optimizer (Adam) in ``fit``, by back-propagation over the rows given, before the read-out takes
        over; the nearest whole number of passes over these rows is made. 0: the network keeps its random weights and
        only the read-out learns (a reservoir, Jaeger 2001), which needs no ``fit``.
    batch_size : int
        Pieces of 100 rows in a minibatch of these updates.
    learning_rate : float
        Learning rate of these updates.
    forgetting : float
        Weight of a row in the read-out after each further row, in (0, 1].
    memory : int
        Rows that running means and standard deviations look back on.
    margin : float or None
        How far out of the range is nothing much, as a fraction of the range: it is added to the mean size of records.
        A larger one alarms less. None: ranges do not count.
    refractory : int
        An alarm is raised once: a score is 0 unless it is above all scores of so many rows before. 0: off.
    contamination : "auto" or float
        Which rows ``predict`` calls outliers. "auto": those that score above 5/6 (p < 1e-5). A number in (0, 0.5]:
        this share of the rows given to ``fit``, as scored after it.
    lags : int or None
        Rows that the read-out reads beside the network's state. None: 16 of one channel or two, fewer of more.
    adapt : float
        Weight, in what is learnt, of rows that come after ``fit``, against 1 of those in it. 1: online. 0: frozen, as
        scikit-learn's detectors are, for long anomalies, which an online model would learn; the network still reads the
        rows. It holds for rows that are judged, for ``partial_fit`` and for ``learn_one``; where ``fit`` was never
        called, all rows weigh 1.
    rules : sequence of {"error", "average", "range", "joint"}
        Which probabilities count, one at least: of the error of the row, of the average of errors, of ranges, of the
        errors of all channels together.
    time_features : str or sequence of {"day", "week", "year"}
        Periods whose sines and cosines are read where times of rows are given. None are read where times are not.
    precision : {"float32", "int8", "bfloat16", "float16"}
        Of the recurrent layer's weights; its ``quantized`` says what it means. Training by `updates` is float32, the
        read-out float64 in any case.
    random_state : int, numpy.random.Generator, numpy.random.RandomState or None
        For the network's weights and the order of training. An int gives the same scores every time.

    Attributes
    ----------
    n_features_in_ : int
        Number of channels.
    feature_names_in_ : array of str
        Names of the channels, where rows came as dicts or X as a frame.
    offset_ : float
        ``decision_function(X) = score_samples(X) - offset_``.
    model_ : RNN, LSTM or GRU
        The recurrent layer, of the precision asked for.

    Raises
    ------
    TypeError, ValueError
        An unsuitable parameter, by name. ``fit`` or the first ``learn_one`` raises it.

    Notes
    -----
    ``score_one`` and ``learn_one`` are river's: the first looks, the second learns; score a row, then learn it. Higher
    is more unusual, 0 to 1. ``score_samples``, ``decision_function`` and ``predict`` are scikit-learn's: lower is more
    unusual, and X is what follows the rows learnt so far; they learn along on a copy, so that a call changes nothing.

    So ``score_samples(X)`` in one call equals that of the first rows, ``partial_fit`` of them, and ``score_samples`` of
    the rest. ``score_samples`` is log10 p itself, without a bound; a row scores above 5/6 where p < 1e-5.

    On series of 5,000 rows with nothing unusual (independent noise of several distributions, random walks, trends,
    growth, GARCH, counts, days and weeks) p < 0.1 comes at 9 to 12 % of the rows (14 to 24 % where the level drifts),
    p < 0.001 at up to 0.6 %, and p < 1e-5 at none to three of 4,250 rows.

    With ``times=`` (``time=`` for one row), or a frame whose index is datetimes, the forecast knows the time of the row
    to come. Times are those of the wall clock; they may be irregular. Give them with every row or with none.

    The spans of the averages and how the rules are weighed against each other were chosen on synthetic series with
    planted anomalies (``benchmarks/anomaly_planted.py``) and on the Numenta Anomaly Benchmark; ``benchmarks/nab.py
    --sensitivity`` shows what other choices would give there.

    References
    ----------
    Lavin & Ahmad, Evaluating Real-time Anomaly Detection Algorithms, ICMLA 2015. Jaeger, The "echo state" approach to
    analysing and training recurrent neural networks, 2001. Huber, Robust Estimation of a Location Parameter, Annals of
    Mathematical Statistics 35, 1964. Robbins & Monro, A Stochastic Approximation Method, ibid. 22, 1951. Pickands,
    Statistical Inference Using Extreme Order Statistics, Annals of Statistics 3, 1975. Arnold, Balakrishnan & Nagaraja,
    Records, Wiley 1998. James & Stein, Estimation with Quadratic Loss, Fourth Berkeley Symposium, 1961.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.anomaly import RNNAnomalyDetector
    >>> x = np.sin(np.arange(1000) / 8) + 0.05 * np.random.default_rng(1).standard_normal(1000)
    >>> x[800:804] = -x[800:804]                    # within the range, but not as expected
    >>> detector = RNNAnomalyDetector(refractory=20, random_state=0)
    >>> for row, value in enumerate(x.tolist()):
    ...     score = detector.score_one(value)
    ...     detector.learn_one(value)
    ...     if row >= 750 and score > 5 / 6:
    ...         print(row, round(score, 2))
    800 0.88

    The same by scikit-learn's methods:

    >>> detector = RNNAnomalyDetector(refractory=20, random_state=0).fit(x[:750, None])
    >>> np.flatnonzero(detector.predict(x[750:, None]) == -1) + 750
    array([800])
    """

    _estimator_type = "outlier_detector"
    _state_version = 2

    offset_: float

    def __init__(self, cell: CellName = "gru", hidden_size: int = 32, num_layers: int = 1, *, updates: int = 0,
                 batch_size: int = 16, learning_rate: float = 0.01, forgetting: float = 0.999, memory: int = 5000,
                 margin: float | None = 0.02, refractory: int = 0, contamination: float | Literal["auto"] = "auto",
                 lags: int | None = None, adapt: float = 1.0, rules: Sequence[str] = RULES,
                 time_features: str | Sequence[str] = ("day", "week"), precision: ModelPrecision = "float32",
                 random_state: RandomState = None) -> None:
        self.cell, self.hidden_size, self.num_layers = cell, hidden_size, num_layers
        self.updates, self.batch_size, self.learning_rate = updates, batch_size, learning_rate
        self.forgetting, self.memory, self.margin, self.refractory = forgetting, memory, margin, refractory
        self.contamination: float | Literal["auto"] = contamination
        self.lags, self.adapt, self.rules, self.time_features = lags, adapt, rules, time_features
        self.precision: ModelPrecision = precision
        self.random_state = random_state

    # ---- Whole series: scikit-learn's methods -----------------------------------------------------

    def fit(self, X: ArrayLike, y: object = None, *, times: ArrayLike | None = None) -> Self:
        """Forget everything, then learn the rows of X in order.

        Parameters
        ----------
        X : array_like or frame, [rows, channels]
            A series; NaN where a value is missing.
        y : None
            Not used; part of scikit-learn's protocol.
        times : array_like of datetimes, [rows], or None
            When each row was, where the detector learns from times. A frame's index of datetimes serves by itself.
            None may be before the one above it, and all have a zone or none has.

        Returns
        -------
        RNNAnomalyDetector
            This one.

        Raises
        ------
        TypeError, ValueError
            An unsuitable parameter or X, by name.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.anomaly import RNNAnomalyDetector
        >>> RNNAnomalyDetector(random_state=0).fit(np.sin(np.arange(500) / 8)[:, None])
        RNNAnomalyDetector(random_state=0)
        """
        rows = checked_rows(X)
        share = None if self.contamination == "auto" else check.number(self.contamination, "contamination")
        if share is not None and not 0 < share <= 0.5:
            raise ValueError(f"contamination: expected 'auto' or a number above 0 and up to 0.5, got {share}")
        moments = self._moments(X, times, len(rows))
        with self._whole_or_unchanged():
            state = self._begin(rows.shape[1], channel_names(X), rows, moments)
            for row in told_rows(state, rows, moments):
                state.learn(row)
            state.share = self._adapt
            if share is not None:
                self.offset_ = float(np.percentile(self.score_samples(X, times=times), 100 * share))
        return self

    def partial_fit(self, X: ArrayLike, y: object = None, *, times: ArrayLike | None = None) -> Self:
        """Learn further rows, as ``learn_one`` of each does.

        Parameters
        ----------
        X : array_like or frame, [rows, channels]
            The rows that follow those learnt so far.
        y : None
            Not used; part of scikit-learn's protocol.
        times : array_like of datetimes, [rows], or None
            When each row was, where the detector learns from times. A frame's index of datetimes serves by itself.

        Returns
        -------
        RNNAnomalyDetector
            This one.

        Raises
        ------
        TypeError, ValueError
            An unsuitable parameter or X, by name.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.anomaly import RNNAnomalyDetector
        >>> x = np.sin(np.arange(500) / 8)[:, None]
        >>> detector = RNNAnomalyDetector(random_state=0).fit(x[:300])
        >>> detector.partial_fit(x[300:]).n_features_in_
        1
        """
        rows = checked_rows(X)
        moments = self._moments(X, times, len(rows))
        state = self._state or self._begin(rows.shape[1], channel_names(X), times=moments)
        self._check_features(rows.shape[1])
        self._check_names(channel_names(X))
        for row in told_rows(state, rows, moments):
            state.learn(row)
        return self

    def score_samples(self, X: ArrayLike, *, times: ArrayLike | None = None) -> Float64Array:
        """Compute minus the anomaly score of every row of X, the series that follows what was learnt so far.

        Parameters
        ----------
        X : array_like or frame, [rows, channels]
            The rows to score; they are learnt along on a copy.
        times : array_like of datetimes, [rows], or None
            When each row was, where the detector learns from times. A frame's index of datetimes serves by itself.

        Returns
        -------
        array of float64, [rows]
            Logarithms (base 10) of the probability p of so unusual a row: 0 and below, lower for more unusual rows,
            without a bound.

        Raises
        ------
        TypeError, ValueError
            An unsuitable X.
        NotFittedError
            No row was learnt yet.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.anomaly import RNNAnomalyDetector
        >>> x = np.sin(np.arange(500)[:, None] / 8) + 0.05 * np.random.default_rng(0).standard_normal((500, 1))
        >>> x[450] = 3
        >>> detector = RNNAnomalyDetector(random_state=0).fit(x[:400])
        >>> int(np.argmin(detector.score_samples(x[400:])))
        50
        """
        return 0.0 - self._follow(X, times, State.digits)

    def decision_function(self, X: ArrayLike, *, times: ArrayLike | None = None) -> Float64Array:
        """Compute ``score_samples(X) - offset_``, which is negative for outliers.

        Parameters
        ----------
        X : array_like or frame, [rows, channels]
            The rows that follow those learnt so far.
        times : array_like of datetimes, [rows], or None
            When each row was, where the detector learns from times. A frame's index of datetimes serves by itself.

        Returns
        -------
        array of float64, [rows]
            Below 0 for outliers.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.anomaly import RNNAnomalyDetector
        >>> x = np.sin(np.arange(500) / 8)[:, None]
        >>> detector = RNNAnomalyDetector(random_state=0).fit(x[:400])
        >>> bool((detector.decision_function(x[400:]) < 0).any())
        False
        """
        return self.score_samples(X, times=times) - self.offset_

    def predict(self, X: ArrayLike, *, times: ArrayLike | None = None) -> IntArray:
        """Tell outliers from the other rows of X.

        Parameters
        ----------
        X : array_like or frame, [rows, channels]
            The rows that follow those learnt so far.
        times : array_like of datetimes, [rows], or None
            When each row was, where the detector learns from times. A frame's index of datetimes serves by itself.

        Returns
        -------
        array of int, [rows]
            -1 for outliers, 1 for other rows.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.anomaly import RNNAnomalyDetector
        >>> x = np.sin(np.arange(500)[:, None] / 8) + 0.05 * np.random.default_rng(0).standard_normal((500, 1))
        >>> x[450] = 3
        >>> detector = RNNAnomalyDetector(refractory=20, random_state=0).fit(x[:400])
        >>> np.flatnonzero(detector.predict(x[400:]) == -1)
        array([50])
        """
        return np.where(self.decision_function(X, times=times) < 0, -1, 1)

    def fit_predict(self, X: ArrayLike, y: object = None, *, times: ArrayLike | None = None) -> IntArray:
        """Return ``fit(X).predict(X)``; the rows are walked twice.

        Parameters
        ----------
        X : array_like or frame, [rows, channels]
            A series.
        y : None
            Not used; part of scikit-learn's protocol.
        times : array_like of datetimes, [rows], or None
            When each row was, where the detector learns from times. A frame's index of datetimes serves by itself.

        Returns
        -------
        array of int, [rows]
            -1 for outliers, 1 for other rows.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.anomaly import RNNAnomalyDetector
        >>> x = np.random.default_rng(0).standard_normal((500, 1))
        >>> labels = RNNAnomalyDetector(contamination=0.1, random_state=0).fit_predict(x)
        >>> int((labels == -1).sum())
        50
        """
        return self.fit(X, times=times).predict(X, times=times)

    def explain(self, X: ArrayLike, *, times: ArrayLike | None = None) -> Float64Array:
        """Compute the score of every channel, walking X as ``score_samples`` does.

        Parameters
        ----------
        X : array_like or frame, [rows, channels]
            The rows that follow those learnt so far.
        times : array_like of datetimes, [rows], or None
            When each row was, where the detector learns from times. A frame's index of datetimes serves by itself.

        Returns
        -------
        array of float64, [rows, channels]
            From 0 to 1 (most unusual): the channel that stands out is to blame. A missing value scores 0; `refractory`
            has no effect here.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.anomaly import RNNAnomalyDetector
        >>> x = np.sin(np.arange(500)[:, None] / [8, 5])
        >>> x[450, 1] = 3
        >>> detector = RNNAnomalyDetector(random_state=0).fit(x[:400])
        >>> int(np.argmax(detector.explain(x[400:])[50]))
        1
        """
        return self._follow(X, times, State.channel_scores)

    def _follow(self, X: ArrayLike, times: ArrayLike | None, look: Callable[[State, list[float]], Any]) -> Float64Array:
        """look(state, row) for every row, learning along on a copy."""
        self._check_fitted()
        rows = checked_rows(X)
        self._check_features(rows.shape[1])
        self._check_names(channel_names(X))
        moments = self._moments(X, times, len(rows))
        state, results = copy.deepcopy(cast(State, self._state)), []
        for row in told_rows(state, rows, moments, follow=False):       # which may be those of ``fit`` again
            results.append(look(state, row))
            state.learn(row)
        return np.array(results)

    def _moments(self, X: object, times: ArrayLike | None, rows: int) -> Moments | None:
        """The times of X's rows; None where the detector does not learn from times."""
        return row_moments(X, times, rows) if self.time_features else None

    def plot(self, X: ArrayLike, *, times: ArrayLike | None = None,
             ax: Sequence[Axes] | npt.NDArray[np.object_] | None = None) -> tuple[Axes, Axes]:
        """Draw rows above their scores, walking X as ``score_samples`` does, with the outliers marked.

        Parameters
        ----------
        X : array_like or frame, [rows, channels]
            The rows that follow those learnt so far.
        times : array_like of datetime64, optional
            The times of the rows; without them the rows are numbered.
        ax : pair of matplotlib.axes.Axes, or array of two, optional
            Where to draw: the values, the scores. If it is not given, a new figure is made, without pyplot.

        Returns
        -------
        pair of matplotlib.axes.Axes
            The two panels. ``detector.plot(X)[0].figure.savefig(path)`` writes the figure.

        Raises
        ------
        ImportError
            Matplotlib is missing: ``pip install fastrnn[plot]``.
        TypeError, ValueError
            An unsuitable argument, by name.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.anomaly import RNNAnomalyDetector
        >>> x = np.sin(np.arange(500)[:, None] / 8) + 0.05 * np.random.default_rng(0).standard_normal((500, 1))
        >>> x[450] = 3
        >>> values, scores = RNNAnomalyDetector(refractory=20, random_state=0).fit(x[:400]).plot(x[400:])
        >>> values.get_title(), scores.get_xlabel()
        ('1 outlier in 100 rows', 'row')
        """
        rows, names = checked_rows(X), list(map(str, getattr(self, "feature_names_in_", ())))
        known = times if self._state is not None and self._state.clock is not None else None
        return draw_scores(rows, -self.score_samples(X, times=known), self.explain(X, times=known), -self.offset_,
                           names=names, times=times, label="anomaly score: -log10 p", ax=ax)

    # ---- The beginning ----------------------------------------------------------------------------

    def _begin(self, channels: int, names: list[str] | None, rows: Float64Array | None = None,
               times: Moments | None = None) -> State:
        """Check the parameters and start anew; where one is unsuitable nothing is changed."""
        cell = LAYERS[cell_name(self.cell)]
        updates = check.size(self.updates, "updates", least=0)
        batch_size = check.size(self.batch_size, "batch_size")
        learning_rate = check.above(self.learning_rate, "learning_rate", 0)
        refractory = check.size(self.refractory, "refractory", least=0)
        adapt = check.probability(self.adapt, "adapt")
        lags = (max(1, min(MOST_LAGS, 2 * MOST_LAGS // channels)) if self.lags is None
                else check.size(self.lags, "lags"))
        rules = [check.choice(rule, "rules", RULES) for rule in self.rules]
        if not rules:
            raise ValueError(f"rules: expected one of {', '.join(map(repr, RULES))} at least, got {self.rules!r}")
        features = (self.time_features,) if isinstance(self.time_features, str) else tuple(self.time_features)
        clock, precision = Clock(features), model_precision(self.precision)
        rng = check.random_state(self.random_state, "random_state")
        waves = 0 if times is None else 2 * len(clock.rates)
        layer = cell(channels + waves, self.hidden_size, self.num_layers, rng=rng)
        head = Linear(layer.hidden_size, channels, rng=rng)
        with head.updating() as parameters:     # at first the forecast's change from the last row is none
            parameters["weight"][:], parameters["bias"][:] = 0, 0
        readout = Readout(channels, layer.hidden_size, self.forgetting, lags, waves)
        statistics = [Channel(self.memory, self.margin, rules, channels) for _ in range(channels)]
        if updates and rows is not None and len(rows) > 2:
            read = None
            if waves and times is not None:
                read = np.array([clock.features(time) for time in times.shown.tolist()])
            train(Sequential(layer, head), rows, updates, batch_size, learning_rate, rng, read)
        readout.weight[:, :layer.hidden_size] = head.parameters["weight"]
        readout.weight[:, -1] = head.parameters["bias"]
        if precision != layer.precision:
            layer = layer.quantized(cast("Precision", precision))
        self.model_, self.n_features_in_, self.offset_, self._adapt = layer, channels, AUTO, adapt
        vars(self).pop("feature_names_in_", None)
        if names is not None:
            self.feature_names_in_ = np.array(names, object)
        joint = Joint(channels) if channels > 1 and "joint" in rules else None
        self._state = State(layer.stream(), readout, statistics, joint, clock if waves else None, refractory)
        return self._state
