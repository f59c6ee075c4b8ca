"""Forecasts from one observation at a time: step by step what ``encoding`` does for a whole series."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base.reading import ModelFormatError, refusing
from .._base.trees import packed, unpacked
from .categories import expanded, labels_of
from .encoding import FLOOR, HARMONICS, LARGEST, LOGARITHMS, PERIODS, TINY

if TYPE_CHECKING:
    from .._base.typing import Array, ArrayLike, Float64Array
    from .encoding import Encoded
    from .forecaster import RNNForecaster
    from .series import Series


class ForecastStream:
    """The running forecast of one series; made by ``RNNForecaster.stream``.

    It has its own copy of the networks' weights and state, so that a later ``fit`` does not change it. ``step`` takes
    the next observation and costs a few microseconds, however long the series is. A stream pickles.

    Parameters
    ----------
    forecaster : RNNForecaster
        A fitted one.
    series : Series
        Where the stream begins: a series of the forecaster's panel.

    Attributes
    ----------
    forecast : array of float64, [horizon]
        For the steps after the last observation.
    forecast_quantiles : array of float64, [horizon, Q], or None
        Quantiles for the same steps, rising, the median among them; None where the forecaster has no quantiles.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.forecasting import RNNForecaster
    >>> y = np.sin(np.arange(200) / 4)
    >>> model = RNNForecaster(horizon=3, updates=50, random_state=0).fit(y[:150])
    >>> stream = model.stream()
    >>> for value in y[150:]:
    ...     forecast = stream.step(value)
    >>> bool(np.allclose(forecast, model.apply(y).predict(), atol=1e-5))
    True
    >>> stream
    <ForecastStream after 200 observations, horizon 3>
    """

    forecast: Float64Array
    forecast_quantiles: Float64Array | None

    def __init__(self, forecaster: RNNForecaster, series: Series) -> None:
        encoding = self._encoding = forecaster.encoding_
        self._quantiles = forecaster.options_.quantiles
        self._labels = labels_of(forecaster.panel_)
        encoded = encoding.encode(series)
        layers = [network.layer for network in forecaster.models_]
        heads = [network.head for network in forecaster.models_]
        self._streams: list[Any] = [layer.stream() for layer in layers]
        # The heads' mean is one product with what they read: hidden states, 1 for the bias, and the input.
        hidden_weights, input_weights = zip(*(np.split(head.parameters["weight"], [layer.hidden_size], 1)
                                              for layer, head in zip(layers, heads, strict=True)), strict=True)
        bias: Any = sum(head.parameters["bias"] for head in heads)
        self._weight: Array = (np.concatenate([*hidden_weights, bias[:, None], sum(input_weights)], 1)
                               / np.float32(len(heads)))
        self._read: Array = np.ones(self._weight.shape[1], np.float32)
        self._read[-encoding.size:] = encoded.x[-1]
        self._angles = [2 * math.pi * n / PERIODS[name] for name in encoding.time_features
                        for n in range(1, HARMONICS + 1)]
        self._clock = series.clock if encoding.time_features else None
        self._remember(encoded)
        self._make_views()
        for stream, layer, hidden in zip(self._streams, layers, self._hidden, strict=True):
            stream.state = layer(encoded.x[:, None])[1]
            state = stream.state
            hidden[:] = (state[0] if isinstance(state, tuple) else state)[-1, 0]
        self._conclude()

    def _remember(self, encoded: Encoded) -> None:
        """Fill the memory of the last values, a ring; `_ring` has it twice in a row, so that slices need no wrap."""
        encoding, T = self._encoding, len(encoded.z)
        size = self._size = max(encoding.window, encoding.reach) + 1
        self._ring = np.full(2 * size, np.nan)
        self._z, self._observed = [0.0] * size, [False] * size
        self._count, self._at = T, (T - 1) % size
        last, observed = encoded.z[-size:].tolist(), encoded.observed[-size:].tolist()
        for z, is_observed, t in zip(last, observed, range(T - len(last), T), strict=True):
            self._z[t % size] = self._ring[t % size] = self._ring[t % size + size] = z
            self._observed[t % size] = is_observed
        self._level, self._scale = float(encoded.level[-1]), float(encoded.scale[-1])
        self._largest = float(encoded.largest[-1])
        self._sum()

    def _make_views(self) -> None:
        """Set the attributes that are views of others, or functions; a pickle leaves them out."""
        encoding, start = self._encoding, 0
        self._x: Array = self._read[-encoding.size:]
        self._hidden: list[Array] = []
        for stream in self._streams:
            self._hidden.append(self._read[start:start + stream.output_size])
            start += stream.output_size
        self._steps = [(stream.step, hidden) for stream, hidden in zip(self._streams, self._hidden, strict=True)]
        self._profiles: list[tuple[int, int, Array, Float64Array]] = []
        start = 2 + len(encoding.seasons)
        for m, size in zip(encoding.seasons, encoding.profiles, strict=True):
            self._profiles.append((m, size, self._x[start:start + size], np.empty(size)))
            start += size
        self._missing_at = start if encoding.missing else None
        self._times_at = start + encoding.missing
        self._past = self._x[encoding.past_at:encoding.known_at]
        self._known = self._x[encoding.known_at:]
        self._n_known = len(encoding.known[0])
        logarithm = LOGARITHMS.get(encoding.log)
        self._exp = None if logarithm is None else logarithm.inverse
        self._log = None if logarithm is None else logarithm.scalar
        self._above = -math.inf if logarithm is None else logarithm.above
        self._outputs = np.empty(len(self._weight), np.float32)
        m = encoding.difference         # below the horizon the reference repeats, and is no slice of the memory
        self._offsets = encoding.offsets(m) if 1 < m < encoding.horizon else None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items()
                if name not in ("_x", "_hidden", "_steps", "_profiles", "_past", "_known", "_exp", "_log", "_outputs")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._make_views()

    # ---- Snapshots ------------------------------------------------------------------------------

    def _weights(self) -> list[Array]:
        """The arrays that steps do not change, which snapshots leave out."""
        return [self._weight, *(value for stream in self._streams for value in stream._model.parameters.values())]

    def snapshot(self) -> bytes:
        """Write where the stream is to bytes, without the weights, for ``restore``.

        Returns
        -------
        bytes
            The state, a hash of the weights, a version and a checksum; no pickle. Any store of bytes can keep it.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.forecasting import RNNForecaster
        >>> y = np.sin(np.arange(200) / 4)
        >>> stream = RNNForecaster(horizon=3, updates=50, random_state=0).fit(y[:150]).stream()
        >>> snapshot, forecast = stream.snapshot(), stream.forecast
        >>> for value in y[150:]:
        ...     _ = stream.step(value)
        >>> stream.restore(snapshot)
        >>> bool(np.array_equal(stream.forecast, forecast))
        True
        """
        return packed(self.__getstate__(), type(self).__name__, self._weights())

    def restore(self, snapshot: bytes) -> None:
        """Bring the stream to where a snapshot was made, of this stream or of another with the same weights.

        Parameters
        ----------
        snapshot : bytes
            From ``snapshot``.

        Raises
        ------
        TypeError, ValueError
            It is no snapshot of such a stream, damaged, or of other weights; the stream stays as it was.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.forecasting import RNNForecaster
        >>> model = RNNForecaster(horizon=3, updates=50, random_state=0).fit(np.sin(np.arange(200) / 4))
        >>> first, second = model.stream(), model.stream()
        >>> forecast = first.step(1.5)
        >>> second.restore(first.snapshot())
        >>> second
        <ForecastStream after 201 observations, horizon 3>
        """
        state = unpacked(snapshot, type(self).__name__, self._weights())
        other = object.__new__(type(self))
        with refusing("snapshot"):
            if state.keys() != self.__getstate__().keys():
                raise ModelFormatError(f"expected {', '.join(self.__getstate__())}, got {', '.join(state)}")
            other.__setstate__(state)
        vars(self).update(vars(other))

    def __repr__(self) -> str:
        return f"<ForecastStream after {self._count} observations, horizon {self._encoding.horizon}>"

    def step(self, value: float | None, known: ArrayLike | None = None, past: ArrayLike | None = None) -> Float64Array:
        """Take the next observation and forecast the steps after it.

        Parameters
        ----------
        value : float
            The observation; NaN or None where it is missing.
        known : array_like, [F], optional
            Values of the known columns `horizon` steps after this one; needed where there are such columns. Categories
            stand for themselves.
        past : array_like, [P], optional
            Values of the past columns at this step; needed where there are such columns.

        Returns
        -------
        array of float64, [horizon]
            Forecasts of the steps that follow, which ``forecast`` also is.

        Raises
        ------
        TypeError, ValueError
            An unsuitable argument, by name; nothing is changed then.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.forecasting import RNNForecaster
        >>> model = RNNForecaster(horizon=3, updates=50, random_state=0).fit(np.sin(np.arange(200) / 4))
        >>> stream = model.stream()
        >>> stream.step(np.sin(200 / 4)).shape
        (3,)
        """
        z, observed = self._observation(value)
        if self._n_known or len(self._past):
            self._take_columns(known, past)
        elif known is not None or past is not None:
            raise ValueError("known, past: this forecaster was fitted without such columns, expected None")
        self._slide(z, observed)
        x, level, inverse, values = self._x, self._level, 1 / self._scale, self._z
        at, count = self._at, self._count
        x[0] = (z - level) * inverse
        x[1] = (z - values[at - 1]) * inverse
        for n, m in enumerate(self._encoding.seasons, 2):
            x[n] = (z - values[at - m]) * inverse if count > m else 0.0
        for m, width, part, difference in self._profiles:
            start = at + self._size + 1 - m
            np.subtract(self._ring[start:start + width], level, difference)
            np.multiply(difference, inverse, part)
            if count < m:
                np.nan_to_num(part, copy=False)
        if self._missing_at is not None:
            x[self._missing_at] = not observed
        if self._clock is not None:
            now, n = self._clock.second(count - 1), self._times_at
            for angle in self._angles:
                x[n], x[n + 1] = math.sin(angle * now), math.cos(angle * now)
                n += 2
        for network_step, hidden in self._steps:
            network_step(x, hidden)
        return self._conclude()

    def _slide(self, z: float, observed: bool) -> None:
        """Move the window on to a new value: the memory, the sums, and level and scale, as ``Encoding`` has them."""
        encoding, size, values = self._encoding, self._size, self._z
        at = self._at + 1
        if at == size:
            at = 0
        oldest = (at - encoding.window) % size
        leaving, was_observed = values[oldest], self._observed[oldest]
        self._at, self._count = at, self._count + 1
        values[at] = self._ring[at] = self._ring[at + size] = z
        self._observed[at] = observed
        if at == 0:
            self._sum()                 # afresh, now and then, so that rounding does not add up
        else:
            if observed:
                self._observed_count += 1
                moved = z - self._base
                self._total += moved
                self._squares += moved * moved
                self._sizes += abs(z)
            if was_observed and self._count > encoding.window:
                self._observed_count -= 1
                moved = leaving - self._base
                self._total -= moved
                self._squares -= moved * moved
                self._sizes -= abs(leaving)
        n = self._observed_count
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

    def _observation(self, value: float | None) -> tuple[float, bool]:
        """z of a value, and whether the value was observed; where it is missing z is filled."""
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

    def _take_columns(self, known: ArrayLike | None, past: ArrayLike | None) -> None:
        """Check a row of columns, then write it to the input, standardised."""
        encoding = self._encoding
        rows = []
        if self._labels is not None:
            known = expanded(known, self._labels["known"], "known")
            past = expanded(past, self._labels["past"], "past")
        for name, values, statistics in (("known", known, encoding.known), ("past", past, encoding.past)):
            count = len(statistics[0])
            row: Float64Array = np.empty(0) if values is None and not count else np.asarray(values, np.float64)
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

    def _sum(self) -> None:
        """Sum over the window's observed values, from the memory; differences from `_base` keep their digits."""
        size, window = self._size, min(self._encoding.window, self._count)
        places = [(self._at - k) % size for k in range(window)]
        values = [self._z[place] for place in places if self._observed[place]]
        self._base = values[0] if values else 0.0
        self._observed_count, self._sizes = len(values), sum(map(abs, values))
        self._total = sum(z - self._base for z in values)
        self._squares = sum((z - self._base) ** 2 for z in values)

    def _conclude(self) -> Float64Array:
        """Make the forecasts from the networks' hidden states and the input."""
        encoding, outputs = self._encoding, self._outputs
        np.dot(self._weight, self._read, outputs)
        forecasts: Float64Array = np.multiply(outputs, self._scale, dtype=np.float64)
        z = self._z[self._at]
        reference: Any
        if encoding.difference == 1:
            reference = z
        elif not encoding.difference:
            reference = self._level
        else:
            m, H, start = encoding.difference, encoding.horizon, self._at + self._size
            reference = (self._ring[start + 1 - m:start + 1 - m + H] if self._offsets is None
                         else self._ring[start + self._offsets])
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
