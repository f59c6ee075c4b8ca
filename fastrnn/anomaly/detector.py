"""Anomaly detection on streams: a recurrent net forecasts the next row, and what it did not expect is judged.

Reading order: ``RNNAnomalyDetector`` (what users hold), ``_Watch`` (one stream: network, read-out, channels),
``Readout`` (recursive least squares), ``Channel`` (how unlikely one value is), ``Running`` (mean and spread).
"""

import copy
import math
import warnings
from collections import deque

import numpy as np

from .. import losses, optim, training
from .._base import validation as check
from .._base.estimator import Estimator, columns, numbers
from ..nn import Linear, Sequential, recurrent
from .likelihood import DIGITS, SETTLING, Channel
from .readout import CLIP, Readout

AUTO = -5 / 6            # minus the score above which predict calls a row an outlier: 1e-5
LARGEST = 1e100         # values past it would overflow when squared
SEQUENCE = 100          # rows that gradients go back over


class RNNAnomalyDetector(Estimator):
    """Tells unusual rows of a time series as they come.

    A recurrent net reads the rows, scaled by their running mean and standard deviation. A linear read-out of its state
    h_t forecasts the next row; it starts from "as the last one" and is refitted at every row by recursive least squares
    with forgetting. For every channel, with the error e_t in the channel's standard deviations:

        l_t = log(|e_t| + 0.25)             small errors are alike, large ones do not drown the rest
        a_t = running mean of l over about 4 rows
        p_t = Q((a_t - mean(a)) / std(a))   Q: upper tail of the normal distribution; mean and std over `memory` rows
        score = min(1, -log10(p_t) / 6)     1: once in a million rows; 0.5: once in a thousand

    This is the anomaly likelihood of Lavin & Ahmad (2015), of log errors. Besides, a channel scores 1 where its value,
    or the mean of its last 10 values, leaves the range of all before by more than `margin` of that range. A row's score
    is its worst channel's, -log10(p) less log10(channels) (Bonferroni). The first 50 rows score 0.

    Rows follow each other in time, so X is one series, [rows, channels]. NaN (or None) is a missing value: it is
    neither judged nor learnt, and the net is given its forecast instead.

    Parameters
    ----------
    cell : {"GRU", "LSTM", "RNN"}
    hidden_size : int
    num_layers : int
    epochs : int
        Passes of back-propagation over the rows given to ``fit``, before the read-out takes over. 0: the net keeps its
        random weights and only the read-out learns (a reservoir, Jaeger 2001), which needs no ``fit``.
    learning_rate : float
        Of these epochs (Adam).
    forgetting : float
        Weight of a row in the read-out after each further row, in (0, 1].
    memory : int
        Rows that running means and standard deviations look back on.
    margin : float or None
        How far out of the range seen so far is surely unusual, as a fraction of the range. None: the range is not
        looked at.
    refractory : int
        An alarm is raised once: a score is 0 unless it is above all scores of so many rows before. 0: off.
    contamination : "auto" or float in (0, 0.5]
        What ``predict`` calls an outlier. "auto": a score above 5/6 (p < 1e-5); a number: this part of the rows that
        ``fit`` was given, as scored after it.
    random_state : int, numpy.random.Generator or None
        Of the net's weights.

    Attributes
    ----------
    n_features_in_ : int
        Channels.
    feature_names_in_ : array of str
        Their names, where rows came as dicts or X as a frame.
    offset_ : float
        ``decision_function(X) = score_samples(X) - offset_``.
    model_ : layer
        The recurrent layer.

    Notes
    -----
    `score_one` and `learn_one` are river's: the first looks, the second learns; score a row, then learn it. Higher is
    more unusual, 0 to 1. `score_samples`, `decision_function` and `predict` are scikit-learn's: lower is more unusual,
    and X is what follows the rows learnt so far; they learn along on a copy, so that a call changes nothing.

    p is a probability as far as averages of log errors are normal. On independent noise of whatever distribution a
    tenth of the rows has p < 0.1; p < 0.01 comes at 1 % of the rows for normal, 0.1 % for uniform and 2 % for
    log-normal noise. Further out, heavy tails and rare events alarm up to ten times as often as p says.

    Averages and the rule of ranges alarm early and are sure of themselves: in the first hundreds of rows a range is not
    all seen, and noise leaves it now and then. A larger `margin` alarms less.

    The numbers in the text above and the defaults of `memory` and `margin` were chosen on the Numenta Anomaly
    Benchmark, in round numbers; ``benchmarks/nab.py --sensitivity`` shows what others would give there.

    References
    ----------
    Lavin & Ahmad, Evaluating Real-time Anomaly Detection Algorithms, ICMLA 2015. Jaeger, The "echo state" approach to
    analysing and training recurrent neural networks, 2001.

    Examples
    --------
    >>> x = np.sin(np.arange(1000) / 8) + 0.05 * np.random.default_rng(1).standard_normal(1000)
    >>> x[800:804] = -x[800:804]                    # within the range, and not what was to come
    >>> detector = RNNAnomalyDetector(refractory=20, random_state=0)
    >>> for row, value in enumerate(x.tolist()):
    ...     score = detector.score_one(value)
    ...     detector.learn_one(value)
    ...     if row >= 750 and score > 0.9:
    ...         print(row, round(score, 2))
    801 1.0

    The same by scikit-learn's methods:

    >>> detector = RNNAnomalyDetector(refractory=20, random_state=0).fit(x[:750, None])
    >>> np.flatnonzero(detector.predict(x[750:, None]) == -1) + 750
    array([801])
    """

    _estimator_type = "outlier_detector"

    def __init__(self, cell="GRU", hidden_size=32, num_layers=1, *, epochs=0, learning_rate=0.01, forgetting=0.999,
                 memory=5000, margin=0.02, refractory=0, contamination="auto", random_state=None):
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.forgetting = forgetting
        self.memory = memory
        self.margin = margin
        self.refractory = refractory
        self.contamination = contamination
        self.random_state = random_state

    # ---- Whole series: scikit-learn's methods -----------------------------------------------------

    def fit(self, X, y=None):
        """Forgets everything, then learns the rows of X in order.

        Parameters
        ----------
        X : array [rows, channels]
            A series, or a frame; NaN where a value is missing.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            An unsuitable parameter or X, by name.
        """
        rows = _rows(X)
        part = self.contamination if self.contamination == "auto" else check.number(self.contamination, "contamination")
        if part != "auto" and not 0 < part <= 0.5:
            raise ValueError(f"contamination: expected 'auto' or a number above 0 and up to 0.5, got {part}")
        self._begin(rows.shape[1], _names(X), rows)
        for row in rows.tolist():
            self._watch.learn(row)
        if part != "auto":
            self.offset_ = float(np.percentile(self.score_samples(rows), 100 * part))
        return self

    def partial_fit(self, X, y=None):
        """Learns further rows, as ``learn_one`` of each does."""
        rows = _rows(X)
        if self._watch is None:
            self._begin(rows.shape[1], _names(X))
        self._check_features(rows.shape[1])
        for row in rows.tolist():
            self._watch.learn(row)
        return self

    def score_samples(self, X):
        """Minus the anomaly score of every row of X, the series that follows what was learnt so far.

        Parameters
        ----------
        X : array [rows, channels]

        Returns
        -------
        array [rows], -1 (most unusual) to 0
        """
        return -self._follow(X, _Watch.score)

    def decision_function(self, X):
        """``score_samples(X) - offset_``: negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        """-1 for outliers, 1 for the other rows of X."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def fit_predict(self, X, y=None):
        """``fit(X).predict(X)``: the rows are seen twice."""
        return self.fit(X).predict(X)

    def explain(self, X):
        """Every channel's own score, as ``score_samples`` walks X.

        Returns
        -------
        array [rows, channels], 0 to 1 (most unusual)
            The channel that stands out is to blame; a missing value scores 0. `refractory` does not act here.
        """
        return self._follow(X, _Watch.channel_scores)

    def _follow(self, X, look):
        """look(watch, row) for every row, learning along on a copy."""
        self._check_fitted()
        rows = _rows(X)
        self._check_features(rows.shape[1])
        watch, found = copy.deepcopy(self._watch), []
        for row in rows.tolist():
            found.append(look(watch, row))
            watch.learn(row)
        return np.array(found)

    # ---- Row by row: river's methods --------------------------------------------------------------

    def score_one(self, x):
        """The anomaly score of the row that comes next; nothing is learnt.

        Parameters
        ----------
        x : float, array [channels], or dict of name to float
            A bare number where there is one channel. NaN or None, or a name left out, where a value is missing.

        Returns
        -------
        float, 0 to 1 (most unusual)

        Raises
        ------
        TypeError, ValueError
            Something else than numbers, infinite ones, or not one a channel.
        """
        watch = self._watch
        return 0.0 if watch is None else watch.score(self._row(x))

    def learn_one(self, x):
        """Takes a row in: the channels' statistics, the read-out, the net's state. x as in ``score_one``.

        The first row of a detector that was not fitted says how many channels there are, and their names.
        """
        if self._watch is None:
            self._begin(len(x) if isinstance(x, dict) else max(1, np.size(x)), _names(x))
        self._watch.learn(self._row(x))

    def explain_one(self, x):
        """Every channel's own score of the row that comes next: an array, or a dict if x is one."""
        self._check_fitted()
        scores = self._watch.channel_scores(self._row(x))
        return dict(zip(self.feature_names_in_, scores, strict=True)) if isinstance(x, dict) else np.array(scores)

    def _row(self, x):
        """x as a list of floats, one a channel, NaN where missing."""
        if type(x) is float:
            row = [x]
        elif isinstance(x, dict):
            names = getattr(self, "feature_names_in_", ())
            if not set(x) <= set(names):
                raise ValueError(f"x: expected values of {', '.join(names) or 'channels without names'}, "
                                 f"got {', '.join(map(str, x))}")
            row = numbers([x.get(name) for name in names], "x").tolist()
        else:
            row = numbers(x, "x")
            if row.ndim > 1:
                raise ValueError(f"x: expected one row, a number a channel, got shape {row.shape}")
            row = np.atleast_1d(row).tolist()
        if len(row) != self.n_features_in_:
            raise ValueError(f"x: expected {self.n_features_in_} channels, got {len(row)}")
        for value in row:
            if not -LARGEST < value < LARGEST and value == value:
                raise ValueError(f"x: expected numbers within {LARGEST:g}, got {value}")
        return row

    # ---- Beginning --------------------------------------------------------------------------------

    _watch = None

    def _begin(self, channels, names, rows=None):
        """Checks the parameters and starts anew: nothing is changed where one is unsuitable."""
        cell = getattr(recurrent, check.choice(self.cell, "cell", ("GRU", "LSTM", "RNN")))
        epochs = check.size(self.epochs, "epochs", least=0)
        rate = check.above(self.learning_rate, "learning_rate", 0)
        rng = check.generator(self.random_state, "random_state")
        layer = cell(channels, self.hidden_size, self.num_layers, rng=rng)
        head = Linear(layer.hidden_size, channels, rng=rng)
        with head.updating() as start:          # the forecast's change from the last row: none
            start["weight"][:], start["bias"][:] = 0, 0
        readout = Readout(channels, layer.hidden_size, self.forgetting)
        watched = [Channel(self.memory, self.margin) for _ in range(channels)]
        refractory = check.size(self.refractory, "refractory", least=0)
        if epochs and rows is not None and len(rows) > 2:
            _train(Sequential(layer, head), rows, epochs, rate, rng)
        readout.weight[:, :layer.hidden_size] = head.parameters["weight"]
        readout.weight[:, -1] = head.parameters["bias"]
        self.model_, self.n_features_in_, self.offset_ = layer, channels, AUTO
        vars(self).pop("feature_names_in_", None)
        if names is not None:
            self.feature_names_in_ = np.array(names, object)
        self._watch = _Watch(layer.stream(), readout, watched, refractory)


def _rows(X):
    """X as float64 [rows, channels]."""
    rows = columns(X)
    if (np.abs(rows) >= LARGEST).any():
        raise ValueError(f"X: expected numbers within {LARGEST:g}, got {np.nanmax(np.abs(rows))}")
    return rows


def _names(X):
    """Names of a frame's columns or a dict's keys, where there are such."""
    names = list(X) if isinstance(X, dict) else list(getattr(X, "columns", ()))
    return names if names and all(isinstance(name, str) for name in names) else None


def _train(model, rows, epochs, rate, rng):
    """Back-propagation: from every row, scaled, to the change that follows."""
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)         # a channel that is missing throughout
        mean, spread = np.nanmean(rows, 0), np.nanstd(rows, 0)
    z = np.clip((rows - mean) / np.where(spread > 0, spread, 1), -CLIP, CLIP)
    known = ~np.isnan(z)
    last = np.maximum.accumulate(np.where(known, np.arange(len(z))[:, None], 0), 0)
    z = np.nan_to_num(np.take_along_axis(z, last, 0)).astype(np.float32)      # a missing value: the last one known
    x, change, counts = z[:-1], np.diff(z, axis=0), known[1:].all(1)
    cuts = range(SEQUENCE, len(x), SEQUENCE)
    training.fit(model, np.split(x, cuts), np.split(change, cuts), mask=np.split(counts, cuts), loss=losses.Huber(),
                 optimizer=optim.Adam(model, rate), epochs=epochs, batch_size=16, clip_norm=1.0, rng=rng,
                 progress=False)


# ---- One stream -----------------------------------------------------------------------------------

class _Watch:
    """All that changes from row to row. A row is a list of floats, one a channel, NaN where missing."""

    def __init__(self, stream, readout, channels, refractory):
        self.stream, self.readout, self.channels, self.refractory = stream, readout, channels, refractory
        self.x, self.h = np.zeros(len(channels), np.float32), np.zeros(stream.output_size, np.float32)
        self.forecast = [0.0] * len(channels)       # of the next row, in each channel's standard deviations
        self.price = math.log10(len(channels))      # Bonferroni's, in digits
        self.count, self.peaks = 0, deque()         # rows so far; (row, score), falling: the highest of each tail

    def channel_scores(self, row):
        return [min(1.0, channel.judge(x, expected) / DIGITS)
                for channel, x, expected in zip(self.channels, row, self.forecast)]

    def score(self, row):
        score = self._score(row)
        return 0.0 if self.peaks and score <= self.peaks[0][1] else score

    def _score(self, row):
        digits = max([channel.judge(x, expected)
                      for channel, x, expected in zip(self.channels, row, self.forecast)]) - self.price
        return 0.0 if digits <= 0 else 1.0 if digits >= DIGITS else digits / DIGITS

    def learn(self, row):
        if self.refractory:
            self._remember(self._score(row))
        z = [channel.learn(x, expected) for channel, x, expected in zip(self.channels, row, self.forecast)]
        if self.count >= SETTLING:
            self.readout.learn([a - b for a, b in zip(z, self.forecast)])
        self.count += 1
        self.x[:] = z
        self.forecast = self.readout.forecast(self.stream.step(self.x, self.h), z)

    def _remember(self, score):
        """The peaks of the last `refractory` rows: a peak goes when it is too old, or when a later one is as high."""
        peaks = self.peaks
        while peaks and peaks[-1][1] <= score:
            peaks.pop()
        peaks.append((self.count, score))
        if peaks[0][0] <= self.count - self.refractory:
            peaks.popleft()
