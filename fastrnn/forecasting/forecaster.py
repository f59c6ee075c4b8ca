"""Forecasts of series by a recurrent network: ``RNNForecaster``.

Reading order: ``RNNForecaster.fit`` (what goes in), ``_train`` (windows, loss, optimizer), ``predict``, ``backtest``;
then ``_encoding`` (what the network reads and says), ``_forecast_network``, ``_series`` (arrays and frames),
``_forecast_stream`` (one observation at a time), ``_backtest`` (errors).
"""

import copy
import math

import numpy as np

from .. import losses, optim, training
from .._base import validation as check
from .._base.estimator import Estimator
from ..nn import GRU, LSTM, RNN
from . import series as _series
from .backtest import Backtest, scale
from .encoding import LARGEST, LOGS, PERIODS, Encoding, first_observed
from .network import Network
from .stream import ForecastStream

CELLS = {"rnn": RNN, "gru": GRU, "lstm": LSTM}
LOSSES = {"mae": losses.MAE, "mse": losses.MSE, "huber": losses.Huber}
WARM_UP = 4             # the first quarter of a window that begins within a series does not count in the loss
BATCH = 64              # series forecast at once


class RNNForecaster(Estimator):
    """One recurrent network that forecasts one series, or any number of them.

    At every step it reads the last value (in terms of the series' own recent level and scale), what was one season
    before, and what else is known, and says at once what the next `horizon` values will be: a linear map of what it
    reads, and of the state of a recurrent layer. What exactly it reads and says: ``fastrnn/_encoding.py``.

    Parameters
    ----------
    horizon : int
        Steps forecast at once. ``predict`` goes further by taking forecasts for observations.
    window : int
        Steps over which level and scale are taken.
    cell : "gru", "lstm" or "rnn"
    hidden_size, num_layers : int
    dropout : float
        Between layers, in training.
    log : bool or "1p"
        Forecasts are made of log y ("1p": of log(1 + y)): for values above 0 (from 0 on) that change in proportion.
    scaling : "std", "mean" or None
        The window's mean is taken off; then by its standard deviation, or by the mean of the values without their
        sign (of logarithms: by 1). None: neither, for series that a known or past column sets by itself: with the
        others the network does not see how high a series stands.
    difference : int
        The network forecasts differences: 1, from the last value; m, from the value m steps before (a seasonal naive
        forecast); 0, from the window's mean.
    seasons : int or sequence of int
        Lengths of seasons in steps, such as (24, 168) of hours: what was one season before is read too.
    time_features : sequence of "day", "week", "year"
        Sines and cosines of the time of day, week, year are read; it needs times.
    quantiles : sequence of float
        Besides the median, quantiles forecast (for intervals); `loss` is then the quantile loss.
    loss : "mae", "mse" or "huber"
    ensemble : int
        So many networks from different initial weights are trained; forecasts are their mean.
    updates : int
        Steps of the optimizer, for each network; the nearest whole number of passes over all windows is made.
    sequence : int, optional
        Steps of the windows trained on; twice `window` if not given.
    batch_size : int
        Windows of a minibatch.
    lr, weight_decay : float
        Of AdamW; the rate rises over the first twentieth of the updates, then falls along half a cosine.
    patience : int, optional
        The last `horizon` steps of every series are kept for validation; the weights of the best epoch are kept, and
        training stops after so many without a better one.
    target, time, series, known, past : str, or sequence of str for target, known, past
        Columns of a frame (pandas, polars, pyarrow; ``pip install fastrnn[frames]``), by name: the values to forecast;
        their times; which series a row is of; exogenous columns known in advance; those known up to now.
    random_state : int, numpy.random.Generator or None
        An int: the same forecasts every time.
    progress : bool
        Show training.

    Attributes
    ----------
    models_ : list of networks
        A recurrent ``layer`` each, and a ``head``, a Linear of the layer's output and input.
    history_ : list of fastrnn.training.History
    n_features_in_ : int
        Known columns.

    Raises
    ------
    TypeError, ValueError
        By ``fit``: an unsuitable parameter, by name.

    Notes
    -----
    A missing value is NaN (or None). It is taken to be as one season before, or as the last value; if there were any in
    training the network is told. Infinite values are errors. Steps are regular: times may be left out, which makes
    their values missing.

    Examples
    --------
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

    def __init__(self, horizon=1, window=32, *, cell="gru", hidden_size=32, num_layers=1, dropout=0.0, log=False,
                 scaling="std", difference=1, seasons=(), time_features=(), quantiles=(), loss="mae", ensemble=1,
                 updates=600, sequence=None, batch_size=32, lr=4e-3, weight_decay=0.0, patience=None, target=None,
                 time=None, series=None, known=(), past=(), random_state=None, progress=False):
        self.horizon, self.window = horizon, window
        self.cell, self.hidden_size, self.num_layers, self.dropout = cell, hidden_size, num_layers, dropout
        self.log, self.scaling, self.difference, self.seasons = log, scaling, difference, seasons
        self.time_features, self.quantiles, self.loss, self.ensemble = time_features, quantiles, loss, ensemble
        self.updates, self.sequence, self.batch_size = updates, sequence, batch_size
        self.lr, self.weight_decay, self.patience = lr, weight_decay, patience
        self.target, self.time, self.series, self.known, self.past = target, time, series, known, past
        self.random_state, self.progress = random_state, progress

    # ---- Fitting --------------------------------------------------------------------------------

    def fit(self, X, y=None, *, past=None, times=None):
        """Trains on series, from whose ends ``predict`` and ``stream`` then go on.

        Parameters
        ----------
        X : array_like, or frame
            With y: columns known in advance [T, F] (None: there are none). Without: the series, as y.
        y : array_like
            One series [T]; several, one a column [T, N]; or a list of arrays [T_n].
        past : array_like, optional
            Columns known up to now [T, P].
        times : array_like of datetime64, optional
            [T], rising.

        X, past and times are shared by the columns of y; beside a list they are lists too. A frame has all of them as
        columns, which the estimator's parameters name.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            An unsuitable argument or parameter, by name; the estimator stays as it was.
        """
        return self._fit(self._read(X, y, past, times))

    def _fit(self, panel):
        options = self._checked()
        panel = self._prepared(panel, options)
        encoding = Encoding(*(options[name] for name in ("horizon", "window", "log", "scaling", "difference",
                                                         "seasons", "time_features")), panel.series)
        models, histories = _train(panel.series, encoding, options)
        self.options_, self.panel_, self.encoding_ = options, panel, encoding
        self.models_, self.history_, self.n_features_in_ = models, histories, len(encoding.known[0])
        return self

    def apply(self, X, y=None, *, past=None, times=None):
        """A copy of this fitted forecaster that goes on from other series, or longer ones, without training.

        Parameters
        ----------
        X, y, past, times
            As in ``fit``.

        Returns
        -------
        RNNForecaster
        """
        self._check_fitted()
        other = copy.copy(self)
        other.panel_ = self._like_fitted(self._prepared(self._read(X, y, past, times), self.options_))
        return other

    def _read(self, X, y, past, times):
        layout = _series.Layout(
            _series.check_names(self.target, "target") if self.target is not None else None,
            _series.check_name(self.time, "time"), _series.check_name(self.series, "series"),
            _series.check_names(self.known, "known"), _series.check_names(self.past, "past"))
        return _series.read(X, y, past, times, layout)

    def _checked(self):
        """The parameters, checked, by name; seasons, quantiles and time_features as tuples."""
        found = {name: check.size(getattr(self, name), name)
                 for name in ("horizon", "window", "hidden_size", "num_layers", "ensemble", "updates", "batch_size")}
        found["difference"] = check.size(self.difference, "difference", least=0)
        found["dropout"] = check.probability(self.dropout, "dropout")
        if found["dropout"] and found["num_layers"] == 1:
            raise ValueError("dropout: it acts between layers, expected 0 with num_layers=1")
        found["cell"] = check.choice(self.cell, "cell", tuple(CELLS))
        found["loss"] = check.choice(self.loss, "loss", tuple(LOSSES))
        text = isinstance(self.log, str)
        found["log"] = check.choice(self.log, "log", ("1p",)) if text else check.flag(self.log, "log")
        found["scaling"] = None if self.scaling is None else check.choice(self.scaling, "scaling", ("std", "mean"))
        seasons = self.seasons if isinstance(self.seasons, (tuple, list, np.ndarray)) else (self.seasons,)
        found["seasons"] = tuple(check.size(m, "seasons", least=2) for m in seasons)
        names = (self.time_features,) if isinstance(self.time_features, str) else tuple(self.time_features)
        found["time_features"] = tuple(check.choice(name, "time_features", tuple(PERIODS)) for name in names)
        quantiles = losses.Quantile(self.quantiles).quantiles if np.size(self.quantiles) else ()
        found["quantiles"] = tuple(sorted({*quantiles, 0.5})) if quantiles else ()
        found["sequence"] = 2 * found["window"] if self.sequence is None else check.size(self.sequence, "sequence", 2)
        found["lr"] = check.above(self.lr, "lr", 0)
        found["weight_decay"] = check.at_least(self.weight_decay, "weight_decay", 0)
        found["patience"] = None if self.patience is None else check.size(self.patience, "patience")
        found["progress"] = check.flag(self.progress, "progress")
        found["random_state"] = check.generator(self.random_state, "random_state")
        return found

    def _prepared(self, panel, options):
        """Its series from their first values on; refuses those that cannot be forecast."""
        for n, series in enumerate(panel.series):
            name = f"y[{n}]" if len(panel.series) > 1 else "y"
            first = first_observed(series.y)
            if len(series) - first < 2:
                raise ValueError(f"{name}: expected 2 samples or more from the first value on, got "
                                 f"{len(series) - first} sample{'s' * (len(series) - first != 1)}")
            if np.nanmax(np.abs(series.y)) > LARGEST:
                raise ValueError(f"{name}: expected values up to {LARGEST:g} in size, got "
                                 f"{np.nanmax(np.abs(series.y)):g}")
            above = LOGS[options["log"]][-1] if options["log"] else -math.inf
            if np.nanmin(series.y) <= above:
                raise ValueError(f"{name}: log={options['log']!r} needs values above {above:g}, got "
                                 f"{np.nanmin(series.y):g}")
            if options["time_features"] and series.clock is None:
                raise ValueError("times: expected them, as time_features are asked for; got None")
            panel.series[n] = series.part(first, len(series))
        return panel

    def _like_fitted(self, panel):
        self._check_features(panel.series[0].known.shape[1])
        count, expected = panel.series[0].past.shape[1], len(self.encoding_.past[0])
        if count != expected:
            raise ValueError(f"past: expected {expected} columns, got {count}")
        return panel

    # ---- Forecasts ------------------------------------------------------------------------------

    def predict(self, X=None, *, quantiles=False):
        """Forecasts of the steps that follow the series.

        Parameters
        ----------
        X : int, array_like or frame, optional
            How many steps (`horizon` of them if not given); where there are known columns, their values in those steps
            [h, F] (a list of arrays beside a list of series). Those of all `horizon` steps are best: where fewer are
            given the last row stands for the rest.
        quantiles : bool
            All quantiles in place of the median, rising; up to `horizon` steps.

        Returns
        -------
        array, or frame
            [h] for one series, [h, N] for columns, [N, h] for a list, a frame of times and values for a frame; with
            quantiles one axis [Q] more (in a frame, a column each: ``y_q0.1``), the median among them.

        Raises
        ------
        TypeError, ValueError
            An unsuitable argument; more steps than `horizon` with past columns or quantiles.
        NotFittedError
        """
        self._check_fitted()
        series, h = self._ahead(X)
        if check.flag(quantiles, "quantiles"):
            self._check_quantiles()
            if h > self.encoding_.horizon:
                raise ValueError(f"X: quantiles are forecast up to horizon={self.encoding_.horizon} steps, got {h}")
            names = [f"q{q:g}" for q in self.options_["quantiles"]]
            return _series.table(self.panel_, self._forecast(series)[:, :h], names)
        if h > self.encoding_.horizon and len(self.encoding_.past[0]):
            raise ValueError(f"X: past columns are not known beyond horizon={self.encoding_.horizon} steps, got {h}")
        parts = [self._central(self._forecast(series))]
        while len(parts) * self.encoding_.horizon < h:
            series = [one.extended(forecast) for one, forecast in zip(series, parts[-1], strict=True)]
            parts.append(self._central(self._forecast(series)))
        return _series.table(self.panel_, np.concatenate(parts, 1)[:, :h])

    def _ahead(self, X):
        """The series, with what X says of the steps to come, and the number of these."""
        if isinstance(X, (int, np.integer)) or X is None:
            if self.n_features_in_:
                raise ValueError(f"X: expected the {self.n_features_in_} known columns of the steps to come, got {X}")
            return self.panel_.series, self.encoding_.horizon if X is None else check.size(X, "X")
        known = _series.known_rows(X, self.panel_)
        self._check_features(known[0].shape[1])
        if len({len(one) for one in known}) > 1:
            raise ValueError("X: expected as many rows for every series")
        return [one.knowing(rows) for one, rows in zip(self.panel_.series, known, strict=True)], len(known[0])

    def _check_quantiles(self):
        if not self.options_["quantiles"]:
            raise ValueError("quantiles: none were asked for when this forecaster was fitted")

    def _central(self, forecasts):
        """Point forecasts: the median of quantiles."""
        quantiles = self.options_["quantiles"]
        return forecasts[..., quantiles.index(0.5)] if quantiles else forecasts

    def _forecast(self, series):
        """Forecasts [N, horizon] or [N, horizon, Q] from the ends of series."""
        found = []
        for start in range(0, len(series), BATCH):
            some = series[start:start + BATCH]
            encoded = [self.encoding_.encode(one) for one in some]
            lengths = np.array([len(one) for one in some])
            x = np.zeros((lengths.max(), len(some), self.encoding_.size), np.float32)
            for n, one in enumerate(encoded):
                x[:len(one.z), n] = one.x
            outputs = sum(model.last(x, lengths) for model in self.models_) / len(self.models_)
            found += [self._decoded(one, [-1], row[None])[0] for one, row in zip(encoded, outputs, strict=True)]
        return np.stack(found)

    def _decoded(self, encoded, at, outputs):
        """Forecasts [len(at), horizon(, Q)] from outputs [len(at), horizon * Q]."""
        quantiles = self.options_["quantiles"]
        if quantiles:
            outputs = np.sort(outputs.reshape(len(outputs), -1, len(quantiles)), axis=-1)
        at = np.asarray(at) % len(encoded.z)
        return self.encoding_.decode(encoded, at, outputs.astype(np.float64))

    def stream(self, series=0, X=None):
        """A :class:`ForecastStream`: goes on from the end of one series, an observation at a time, without refitting.

        Parameters
        ----------
        series : int or str
            Which: its number, or its name in a frame.
        X : array_like, optional
            Known columns of the next `horizon` steps [horizon, F], where there are any.

        Returns
        -------
        ForecastStream
        """
        self._check_fitted()
        panel = self.panel_.series
        names = [one.name for one in panel]
        if isinstance(series, (int, np.integer)) and not isinstance(series, bool) and series not in names:
            if not 0 <= series < len(panel):
                raise ValueError(f"series: expected 0 to {len(panel) - 1}, got {series}")
        elif series in names:
            series = names.index(series)
        else:
            raise ValueError(f"series: expected a number or one of {', '.join(map(str, names))}, got {series!r}")
        one = panel[series]
        if X is not None or self.n_features_in_:
            rows = _series.columns(X)
            self._check_features(rows.shape[1])
            one = one.knowing(check.shaped(rows, "X", (self.encoding_.horizon, self.n_features_in_)))
        return ForecastStream(self, one)

    def score(self, X, y):
        """R^2 of ``predict(X)``, y being what came: 1 - sum (y - forecast)^2 / sum (y - mean y)^2, as scikit-learn."""
        y, forecast = np.asarray(y, float), self.predict(X)
        if y.shape != np.shape(forecast):
            raise ValueError(f"y: expected shape {np.shape(forecast)}, that of the forecasts, got {y.shape}")
        spread = np.sum((y - y.mean(0)) ** 2)
        return float(1 - np.sum((y - forecast) ** 2) / spread) if spread else float(np.all(y == forecast))

    # ---- Backtest -------------------------------------------------------------------------------

    def backtest(self, X, y=None, *, past=None, times=None, start, stride=1, refit=True):
        """Forecasts as they would have been made, beside what came.

        Parameters
        ----------
        X, y, past, times
            As in ``fit``.
        start : int
            Step before which the past ends: the first forecast is made with y[:start]. Below 0: from the end.
        stride : int
            Forecasts are made every so many steps, as long as all that they forecast is there.
        refit : bool
            True: a copy of this estimator is trained on y[:start] first. False: this one is used as it is fitted;
            whether it has seen what it forecasts is the caller's to know.

        Returns
        -------
        Backtest
        """
        stride, refit = check.size(stride, "stride"), check.flag(refit, "refit")
        if isinstance(start, bool) or not isinstance(start, (int, np.integer)):
            raise TypeError(f"start: expected an int, got {type(start).__name__}")
        panel = self._read(X, y, past, times)
        starts = [start if start >= 0 else len(one) + start for one in panel.series]
        for n, (begin, one) in enumerate(zip(starts, panel.series, strict=True)):
            if begin < 2 or begin >= len(one):
                raise ValueError(f"start: expected a step from 2 to {len(one) - 1} of series {n}, got {begin}")
        model = self
        if refit:
            model = RNNForecaster(**self.get_params())
            heads = _series.Panel([one.part(0, begin) for one, begin in zip(panel.series, starts, strict=True)], "list")
            model._fit(heads)
        else:
            self._check_fitted()
        return model._walk(panel, starts, stride)

    def _walk(self, panel, starts, stride):
        """A Backtest of the fitted networks."""
        H, found = self.encoding_.horizon, []
        prepared = self._like_fitted(self._prepared(_series.Panel(list(panel.series), panel.kind), self.options_))
        for n, (one, whole, begin) in enumerate(zip(prepared.series, panel.series, starts, strict=True)):
            skipped = len(whole) - len(one)             # steps before its first value
            at = np.arange(begin - skipped, len(one) - H + 1, stride) - 1       # the last step of what is past
            if not len(at) or at[0] < 0:
                raise ValueError(f"start: expected horizon={H} steps from it on, and a value before it, in series {n}")
            encoded = self.encoding_.encode(one)
            outputs = sum(model(encoded.x)[0][at] for model in self.models_) / len(self.models_)
            others = {"naive": one.y[_before(one.y, at)][:, None].repeat(H, 1)}
            for m in self.options_["seasons"]:
                source = at[:, None] + self.encoding_.offsets(m)
                others[f"seasonal naive {m}"] = one.y[_before(one.y, np.maximum(source, 0))]
            truth = one.y[at[:, None] + np.arange(1, H + 1)]
            found.append((np.full(len(at), n), at + 1 + skipped, truth, self._decoded(encoded, at, outputs), others,
                          scale(one.y[:at[0] + 1], (*self.options_["seasons"], 1)[0])))
        series, origins, truth, forecasts, others, scales = zip(*found, strict=True)
        forecasts = np.concatenate(forecasts)
        return Backtest(np.concatenate(series), np.concatenate(origins), np.concatenate(truth),
                        self._central(forecasts), forecasts if self.options_["quantiles"] else None,
                        self.options_["quantiles"],
                        {name: np.concatenate([one[name] for one in others]) for name in others[0]}, np.array(scales))


# ---- Training -----------------------------------------------------------------------------------

class _WhereKnown:
    """A loss over the targets [T, N, horizon] that are not NaN; `output` [T, N, horizon * Q]."""

    def __init__(self, loss, quantiles):
        self.loss, self.quantiles = loss, quantiles

    def __call__(self, output, target, mask=None):
        counts = ~np.isnan(target)
        if mask is not None:
            counts &= mask[..., None].astype(bool)
        split = output.reshape(*target.shape, len(self.quantiles)) if self.quantiles else output
        value, slope = self.loss(split, target, counts)
        return value, slope.reshape(output.shape)


def _train(series, encoding, options):
    """(networks, their histories) for the targets of all steps of all series."""
    rng, L, H = options["random_state"], options["sequence"], encoding.horizon
    held = H if options["patience"] else 0         # last steps, which are not trained on
    x, y, mask, kept = [], [], [], []
    counts = np.arange(L) >= L // WARM_UP
    for one in series:
        end = len(one) - held
        encoded = encoding.encode(one)
        target = encoding.targets(encoded, one, min(encoding.window, len(one) // 2) - 1)
        if held and end > 0:
            kept.append((encoded.x[max(0, end - L):end], target[max(0, end - L):end].copy()))
            target[np.arange(len(one))[:, None] + np.arange(1, H + 1) >= end] = np.nan
        for start in _starts(end, L):
            part = slice(start, min(start + L, end))
            if not np.isnan(target[part]).all():
                x.append(encoded.x[part])
                y.append(target[part])
                mask.append(counts if start else np.ones(len(y[-1]), bool))
    if not x:
        raise ValueError(f"y: nothing to learn from: expected series of more samples than window={encoding.window} and "
                         f"horizon={H} need, whose values vary; the longest has {max(map(len, series))} samples")
    batch_size, updates = min(options["batch_size"], len(x)), options["updates"]
    if len(x) > updates * batch_size:
        some = np.sort(rng.choice(len(x), updates * batch_size, replace=False))
        x, y, mask = ([part[i] for i in some] for part in (x, y, mask))
    batches = -(-len(x) // batch_size)
    epochs = max(1, round(updates / batches))
    updates = epochs * batches
    validation = None
    if held:
        last = [np.arange(len(one)) == len(one) - 1 for one, _ in kept]
        validation = dict(zip(("x", "y", "mask"), (*map(list, zip(*kept, strict=True)), last), strict=True))
    quantiles = options["quantiles"]
    loss = _WhereKnown(losses.Quantile(quantiles) if quantiles else LOSSES[options["loss"]](), quantiles)
    models, histories = [], []
    for _ in range(options["ensemble"]):
        layer = CELLS[options["cell"]](encoding.size, options["hidden_size"], options["num_layers"],
                                       dropout=options["dropout"], rng=rng)
        model = Network(layer, H * max(1, len(quantiles)), rng=rng)
        with model.head.updating() as p:        # so that forecasts begin near the reference
            p["weight"] *= 0.1
            p["bias"] *= 0.1
        schedule = optim.warmup(max(1, updates // 20), optim.cosine(updates - updates // 20))
        optimizer = optim.AdamW(model, options["lr"], weight_decay=options["weight_decay"], schedule=schedule)
        histories.append(training.fit(model, x, y, loss=loss, optimizer=optimizer, epochs=epochs, batch_size=batch_size,
                                      mask=mask, clip_norm=1.0, validation=validation, patience=options["patience"],
                                      rng=rng, progress=options["progress"]))
        models.append(model)
    return models, histories


def _starts(T, L):
    """Of windows of L steps of T: every quarter of a window, and the last."""
    return sorted({*range(0, max(1, T - L + 1), max(1, L // WARM_UP)), max(0, T - L)})


def _before(y, at):
    """Where the last value at or before each step is; the first value is there."""
    last = np.maximum.accumulate(np.where(np.isnan(y), 0, np.arange(len(y))))
    return last[at]
