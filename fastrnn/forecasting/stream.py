"""Forecasts from one observation at a time: step by step what ``_encoding`` says."""

import math

import numpy as np

from .encoding import FLOOR, HARMONICS, LARGEST, LOGS, PERIODS, TINY


class ForecastStream:
    """The running forecast of one series; made by ``RNNForecaster.stream``.

    It has its own copy of the network's weights and state. ``step`` takes the next observation and costs a few
    microseconds, however long the series is.

    Attributes
    ----------
    forecast : array [horizon]
        Of the steps after the last observation.
    forecast_quantiles : array [horizon, Q], or None
        Rising, the median among them.

    Examples
    --------
    >>> from fastrnn.forecasting import RNNForecaster
    >>> y = np.sin(np.arange(200) / 4)
    >>> model = RNNForecaster(horizon=3, updates=50, random_state=0).fit(y[:150])
    >>> stream = model.stream()
    >>> for value in y[150:]:
    ...     forecast = stream.step(value)
    >>> bool(np.allclose(forecast, model.apply(y).predict(), atol=1e-5))
    True
    """

    def __init__(self, forecaster, series):
        encoding = self._encoding = forecaster.encoding_
        self._quantiles = forecaster.options_["quantiles"]
        encoded = encoding.encode(series)
        layers, heads = zip(*((model.layer, model.head) for model in forecaster.models_), strict=True)
        self._streams = [layer.stream() for layer in layers]
        # What the networks' heads read, their mean being one product: hidden states, 1 for the bias, the input.
        of_hidden, of_x = zip(*(np.split(head.parameters["weight"], [layer.hidden_size], 1)
                                for layer, head in zip(layers, heads, strict=True)), strict=True)
        bias = sum(head.parameters["bias"] for head in heads)[:, None]
        self._weight = np.concatenate([*of_hidden, bias, sum(of_x)], 1) / np.float32(len(heads))
        self._read = np.ones(self._weight.shape[1], np.float32)
        self._read[-encoding.size:] = encoded.x[-1]

        size = self._size = max(encoding.window, encoding.reach) + 1       # of the memory: a ring, laid out twice
        self._ring = np.full(2 * size, np.nan)
        last = encoded.z[-size:]
        self._z, self._there = [0.0] * size, [False] * size
        self._count, self._at = len(series), (len(series) - 1) % size
        for z, there, t in zip(last.tolist(), encoded.observed[-size:].tolist(), range(len(series) - len(last),
                                                                                     len(series)), strict=True):
            self._z[t % size] = self._ring[t % size] = self._ring[t % size + size] = z
            self._there[t % size] = there
        self._level, self._scale = float(encoded.level[-1]), float(encoded.scale[-1])
        self._largest = float(encoded.largest[-1])
        self._sum()
        self._angles = [2 * math.pi * n / PERIODS[name] for name in encoding.time_features
                        for n in range(1, HARMONICS + 1)]
        self._clock = series.clock if encoding.time_features else None
        self._views()
        for stream, layer, hidden in zip(self._streams, layers, self._hidden, strict=True):
            stream.state = layer(encoded.x[:, None])[1]
            state = stream.state
            hidden[:] = (state[0] if isinstance(state, tuple) else state)[-1, 0]
        self._conclude()

    def _views(self):
        """What is a view of another attribute, or would be slow to look up."""
        encoding, start = self._encoding, 0
        self._x, self._hidden = self._read[-encoding.size:], []
        for stream in self._streams:
            self._hidden.append(self._read[start:start + stream.output_size])
            start += stream.output_size
        self._profiles, start = [], 2 + len(encoding.seasons)
        for m, size in zip(encoding.seasons, encoding.profiles, strict=True):
            self._profiles.append((m, size, self._x[start:start + size], np.empty(size)))
            start += size
        self._missing_at = start if encoding.missing else None
        self._times_at = start + encoding.missing
        self._past = self._x[encoding.past_at:encoding.known_at]
        self._known = self._x[encoding.known_at:]
        self._n_known = len(encoding.known[0])
        _, self._exp, self._log, self._above = LOGS.get(encoding.log, (None, None, None, -math.inf))
        self._outputs = np.empty(len(self._weight), np.float32)
        self._offsets = encoding.offsets(encoding.difference) if encoding.difference > 1 else None

    def __getstate__(self):
        return {name: value for name, value in vars(self).items()
                if name not in ("_x", "_hidden", "_profiles", "_past", "_known", "_exp", "_log", "_outputs")}

    def __setstate__(self, state):
        vars(self).update(state)
        self._views()

    def step(self, value, known=None, past=None):
        """Takes the next observation.

        Parameters
        ----------
        value : float
            NaN or None where it is missing.
        known : array_like [F], optional
            Where there are known columns: their values `horizon` steps after this one.
        past : array_like [P], optional
            Where there are past columns: their values at this step.

        Returns
        -------
        array [horizon]
            Forecasts of the steps that follow: ``forecast``.

        Raises
        ------
        TypeError, ValueError
            An unsuitable argument, by name; nothing is changed then.
        """
        encoding, size = self._encoding, self._size
        z, there = self._observation(value)
        if self._n_known or len(self._past):
            self._take_columns(known, past)
        elif known is not None or past is not None:
            raise ValueError("known, past: this forecaster was fitted without such columns, expected None")
        at, values = self._at + 1, self._z
        if at == size:
            at = 0
        old = (at - encoding.window) % size
        before, leaves = values[old], self._there[old]
        self._at, self._count = at, self._count + 1
        values[at] = self._ring[at] = self._ring[at + size] = z
        self._there[at] = there
        if at == 0:
            self._sum()                 # afresh, now and then, so that rounding does not add up
        else:
            if there:
                self._observed += 1
                moved = z - self._base
                self._total += moved
                self._squares += moved * moved
                self._sizes += abs(z)
            if leaves and self._count > encoding.window:
                self._observed -= 1
                moved = before - self._base
                self._total -= moved
                self._squares -= moved * moved
                self._sizes -= abs(before)
        self._rescale()

        x, level, inverse = self._x, self._level, 1 / self._scale
        x[0] = (z - level) * inverse
        x[1] = (z - values[at - 1]) * inverse
        count = self._count
        for n, m in enumerate(encoding.seasons, 2):
            x[n] = (z - values[at - m]) * inverse if count > m else 0.0
        for m, width, part, difference in self._profiles:
            start = at + size + 1 - m
            np.subtract(self._ring[start:start + width], level, difference)
            np.multiply(difference, inverse, part)
            if count < m:
                np.nan_to_num(part, copy=False)
        if self._missing_at is not None:
            x[self._missing_at] = not there
        if self._angles:
            now, n = self._clock.second(count - 1), self._times_at
            for angle in self._angles:
                x[n], x[n + 1] = math.sin(angle * now), math.cos(angle * now)
                n += 2
        for stream, hidden in zip(self._streams, self._hidden):
            stream.step(x, hidden)
        return self._conclude()

    def _observation(self, value):
        """z, and whether it was observed."""
        encoding = self._encoding
        if value is not None:
            try:
                z = float(value)
            except (TypeError, ValueError):
                raise TypeError(f"value: expected a number, got {type(value).__name__}") from None
            if z == z:
                if not -LARGEST <= z <= LARGEST:
                    raise ValueError(f"value: expected a number up to {LARGEST:g} in size, or NaN, got {z:g}")
                if z <= self._above:
                    raise ValueError(f"value: log={encoding.log!r} needs values above {self._above:g}, got {z:g}")
                return (z if self._log is None else self._log(z)), True
        fill = encoding.seasons[0] if encoding.seasons else 1
        return self._z[(self._at + 1 - (fill if self._count >= fill else 1)) % self._size], False

    def _take_columns(self, known, past):
        encoding = self._encoding
        rows = []
        for name, row, statistics in (("known", known, encoding.known), ("past", past, encoding.past)):
            count = len(statistics[0])
            row = np.empty(0) if row is None and not count else np.asarray(row, np.float64)
            if row.shape != (count,):
                raise ValueError(f"{name}: expected {count} values, got "
                                 f"{'None' if row.shape == () else f'shape {row.shape}'}")
            if not math.isfinite(row @ row):        # one of them is not, or all are very large
                if np.isinf(row).any():
                    raise ValueError(f"{name}: expected finite numbers or NaN, got {row}")
                row = np.where(np.isnan(row), statistics[0], row)
            rows.append((row - statistics[0]) / statistics[1])
        if self._n_known:
            self._known[:-self._n_known] = self._known[self._n_known:]
            self._known[-self._n_known:] = rows[0]
        self._past[:] = rows[1]

    def _sum(self):
        """Sums over the window, from the ring."""
        size, window = self._size, min(self._encoding.window, self._count)
        places = [(self._at - k) % size for k in range(window)]
        values = [self._z[i] for i in places if self._there[i]]
        self._base = values[0] if values else 0.0
        self._observed, self._sizes = len(values), sum(map(abs, values))
        self._total = sum(z - self._base for z in values)
        self._squares = sum((z - self._base) ** 2 for z in values)

    def _rescale(self):
        """Level and scale, as _encoding has them."""
        encoding, n = self._encoding, self._observed
        if encoding.scaling is None or not n:
            return
        mean = self._total / n
        self._level = self._base + mean
        if encoding.scaling == "std":
            scale = math.sqrt(max(0.0, self._squares / n - mean * mean))
        else:
            scale = self._sizes / n if self._log is None else 1.0
        if scale > self._largest:
            self._largest = scale
        if self._largest > TINY * abs(self._level):
            self._scale = max(scale, FLOOR * self._largest)
        else:
            self._scale = 1.0

    def _conclude(self):
        """Forecasts from the networks' hidden states."""
        encoding, outputs = self._encoding, self._outputs
        np.dot(self._weight, self._read, outputs)
        forecasts = np.multiply(outputs, self._scale, dtype=np.float64)
        z = self._z[self._at]
        if encoding.difference == 1:
            reference = z
        elif not encoding.difference:
            reference = self._level
        else:
            m, H, start = encoding.difference, encoding.horizon, self._at + self._size
            reference = self._ring[start + 1 - m:start + 1 - m + H] if H <= m else self._ring[start + self._offsets]
            if self._count < m:
                reference = np.where(np.isnan(reference), z, reference)
        if self._quantiles:
            forecasts = np.sort(forecasts.reshape(-1, len(self._quantiles)), axis=-1)
            forecasts += reference if encoding.difference < 2 else reference[:, None]
        else:
            forecasts += reference
        if self._exp is not None:
            self._exp(forecasts, forecasts)
        if self._quantiles:
            self.forecast_quantiles = forecasts
            forecasts = forecasts[:, self._quantiles.index(0.5)].copy()
        else:
            self.forecast_quantiles = None
        self.forecast = forecasts
        return forecasts
