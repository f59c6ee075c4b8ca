"""Forecasts from one observation at a time: step by step what ``encoding`` does for a whole series."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from .._base.reading import ModelFormatError, refusing
from .._base.trees import packed, unpacked
from .base_stream import AdaptiveInterval, BaseStream
from .categories import expanded, labels_of
from .encoding import FLOOR, HARMONICS, LARGEST, LOGARITHMS, PERIODS, TINY, missing_at_end
from .glitches import Guard
from .intervals import Interval, further
from .linear import LAGS
from .smoothing import TRAINED

if TYPE_CHECKING:
    from .._base.typing import Array, ArrayLike, Float64Array
    from .blend import Blend
    from .encoding import Encoded
    from .forecaster import RNNForecaster
    from .series import Series


def _refuse(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("an exception, such as that of Ctrl-C, ended an earlier step midway: the stream is neither as "
                       "before that step nor as after it; restore a snapshot, or make a new stream")


class ForecastStream:
    """The running forecast of one series; made by ``RNNForecaster.stream``.

    It has its own copy of the networks' weights and state, so that a later ``fit`` does not change it. ``step`` takes
    the next observation and costs some microseconds, however long the series is. A stream pickles.

    Parameters
    ----------
    forecaster : RNNForecaster
        A fitted one.
    series : Series
        Where the stream begins: a series of the forecaster's panel.
    row : int
        Its number there.
    interval : float, optional
        The probability of an interval that ``forecast_interval`` gives.

    Attributes
    ----------
    forecast : array of float64, [horizon]
        For the steps after the last observation.
    forecast_quantiles : array of float64, [horizon, Q], or None
        Quantiles for the same steps, rising, the median among them; None where the forecaster has no quantiles.
    forecast_interval : Interval or None
        Lower bounds, forecasts and upper bounds, [horizon] each; None where no interval was asked for. The bounds
        follow what comes: one that fails more often than it should moves outwards.

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

    def __init__(self, forecaster: RNNForecaster, series: Series, row: int = 0, interval: float | None = None) -> None:
        encoding = self._encoding = forecaster.encoding_
        self._quantiles = forecaster.options_.quantiles
        self._labels = labels_of(forecaster.panel_)
        self._floor = bool(forecaster.choice_.nonnegative[row])
        self._guard = Guard(series.y)
        blend = forecaster.blend_
        encoded = encoding.encode(series)
        self._networks = forecaster._networks()
        self._share = 1.0               # the weight of trained members together
        self._members: BaseStream | None = None
        self._linear: Array | None = None
        if blend is not None:
            self._share = float(sum(blend.weight(name)[row] for name in TRAINED))
            self._members = BaseStream(blend, row, encoding.transformed(series.y), encoding.horizon)
            self._linear = blend.linear if blend.weight("linear")[row] > 0 else None
            if not blend.weight("network")[row] > 0:
                self._networks = []
        self._streams: list[Any] = [network.layer.stream() for network in self._networks]
        self._weigh(blend, row)
        self._read: Array = np.ones(self._weight.shape[1], np.float32)
        self._read[-encoding.size:] = encoded.x[-1]
        self._angles = [2 * math.pi * n / PERIODS[name] for name in encoding.time_features
                        for n in range(1, HARMONICS + 1)]
        self._clock = series.clock if encoding.time_features else None
        self._remember(encoded)
        self._make_views()
        for stream, network, hidden in zip(self._streams, self._networks, self._hidden, strict=True):
            stream.state = network.layer(encoded.x[:, None])[1]
            state = stream.state
            hidden[:] = (state[0] if isinstance(state, tuple) else state)[-1, 0]
        del self._networks
        if self._lags is not None:
            self._fill_lags()
        self._gap = missing_at_end(series.y)            # missing values since the last one
        self._spread: Float64Array | None = None        # of quantiles about the forecasts
        if blend is not None and self._quantiles:
            calibration = forecaster._calibration()
            self._error_sizes, self._error_growth = calibration.spread[row], calibration.growth
            self._error_quantiles = calibration.errors(self._quantiles, encoding.horizon)
            self._spread_out()
        self._adaptive = None if interval is None else AdaptiveInterval(
            forecaster._calibration(), row, encoding.horizon, interval)
        self._interval: tuple[Float64Array, ...] | None = None
        self._conclude()

    def _spread_out(self) -> None:
        """Set the distances of quantiles from the forecasts: as far ahead as the last value lies behind."""
        gap, horizon = self._gap, self._encoding.horizon
        sizes = further(self._error_sizes, self._error_growth, gap, horizon)
        self._spread = sizes[:, None] * self._error_quantiles[np.minimum(np.arange(gap, gap + horizon), horizon - 1)]

    @property
    def forecast_interval(self) -> Interval | None:
        """Lower bounds, forecasts and upper bounds, [horizon] each; None where no interval was asked for."""
        return None if self._interval is None else Interval(*self._interval)

    def _weigh(self, blend: Blend | None, row: int) -> None:
        """Set the weights of what is read: hidden states, 1 for the bias, last values for a linear forecast, the input.

        The heads' mean is one product with these. Without quantiles the linear forecast is in the same product; with
        them the network's central quantile is weighted after sorting, and `_line` holds the linear forecast's weights.
        """
        encoding = self._encoding
        outputs = encoding.horizon * max(1, len(self._quantiles))
        lags = LAGS if self._linear is not None else 0
        sizes = [network.layer.hidden_size for network in self._networks]
        weight = np.zeros((outputs, sum(sizes) + 1 + lags + encoding.size), np.float32)
        start = 0
        for size, network in zip(sizes, self._networks, strict=True):
            head = network.head
            weight[:, start:start + size] = head.parameters["weight"][:, :size]
            weight[:, sum(sizes)] += head.parameters["bias"]
            weight[:, -encoding.size:] += head.parameters["weight"][:, size:]
            start += size
        weight /= np.float32(max(1, len(sizes)))
        self._weight: Array = weight
        self._line: Array | None = None
        self._network_share = 1.0 if blend is None else float(blend.weight("network")[row])
        if self._linear is not None and blend is not None:
            line = np.zeros((encoding.horizon, weight.shape[1]), np.float32)
            share = np.float32(blend.weight("linear")[row])
            line[:, sum(sizes)] = share * self._linear[:, 0]
            line[:, -encoding.size:] = share * self._linear[:, 1:1 + encoding.size]
            line[:, -encoding.size - lags:-encoding.size] = share * self._linear[:, :-lags - 1:-1]     # oldest first
            self._line = line
        if not self._quantiles and blend is not None:
            self._weight = weight * np.float32(self._network_share)
            if self._line is not None:
                self._weight += self._line
                self._line = None

    def _remember(self, encoded: Encoded) -> None:
        """Fill the memory of the last values, a ring; `_ring` has it twice in a row, so that slices need no wrap."""
        encoding, T = self._encoding, len(encoded.z)
        size = self._size = max(encoding.window, encoding.reach, LAGS if self._linear is not None else 1) + 1
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
        self._lags = self._read[-encoding.size - LAGS:-encoding.size] if self._linear is not None else None
        m = encoding.difference         # below the horizon the reference repeats, and is no slice of the memory
        self._offsets = encoding.offsets(m) if 1 < m < encoding.horizon else None

    def __getstate__(self) -> dict[str, Any]:
        if "step" in vars(self):
            _refuse()
        return self._state()

    def _state(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).copy().items()
                if name not in ("step", "_x", "_hidden", "_steps", "_profiles", "_past", "_known", "_exp", "_log",
                                "_outputs", "_lags")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._make_views()

    # ---- Snapshots ------------------------------------------------------------------------------

    def _weights(self) -> list[Array]:
        """The arrays that steps do not change, which snapshots leave out."""
        own = [each for each in (self._weight, self._line, self._linear) if each is not None]
        return [*own, *(value for stream in self._streams for value in stream._model.parameters.values())]

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
            if state.keys() != self._state().keys():
                raise ModelFormatError(f"expected {', '.join(self._state())}, got {', '.join(state)}")
            other.__setstate__(state)
            if [*map(id, other._weights())] != [*map(id, self._weights())]:
                raise ModelFormatError("it has weights of its own")
            other._try()
        self.__dict__ = vars(other)         # all at once

    def _try(self) -> None:
        """Raise an error of any kind where what a snapshot holds cannot take a value and a missing one."""
        lasting = (*self._weights(), *(stream._model for stream in self._streams))
        trial = copy.deepcopy(self, {id(each): each for each in lasting})
        counts = [len(statistics[0] if self._labels is None else self._labels[name]) for name, statistics in
                  (("known", self._encoding.known), ("past", self._encoding.past))]
        known, past = (np.full(count, None) if count else None for count in counts)     # missing in every column
        last = float(self._value(np.array(self._z[self._at])))
        with np.errstate(all="ignore"):
            for value in (min(max(last, self._guard.low), self._guard.high), None):
                forecasts = trial.step(value, known, past)
        if forecasts.shape != (self._encoding.horizon,):
            raise ModelFormatError(f"{forecasts.shape} forecasts, of a horizon of {self._encoding.horizon}")

    def __repr__(self) -> str:
        return f"<ForecastStream after {self._count} observations, horizon {self._encoding.horizon}>"

    def step(self, value: float | None, known: ArrayLike | None = None, past: ArrayLike | None = None) -> Float64Array:
        """Take the next observation and forecast the steps after it.

        Parameters
        ----------
        value : float
            The observation; NaN or None where it is missing. One that is 30 times further from the median than all
            before is left out as missing, with a warning; after three in a row the fourth is taken.
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
        RuntimeError
            An exception, such as that of Ctrl-C, ended an earlier step midway: the stream needs a ``restore``.

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
        columns = None
        if self._n_known or len(self._past) or known is not None or past is not None:
            columns = self._checked_columns(known, past)
        try:
            if columns is not None:
                self._take_columns(*columns)
            self._slide(z, observed)
            gap = 0 if observed else self._gap + 1
            if gap != self._gap:
                self._go_missing(gap)
            if self._members is not None:
                self._members.update(z, observed)
            if self._adaptive is not None and observed:
                self._adaptive.observe(z)
            if not self._share:
                return self._conclude()
            x, inverse = self._x, 1 / self._scale
            x[0] = (z - self._level) * inverse
            x[1] = (z - self._z[self._at - 1]) * inverse
            if self._profiles:
                self._fill_seasons(z, inverse)
            if self._missing_at is not None:
                x[self._missing_at] = not observed
            if self._clock is not None:
                self._fill_times(self._clock.second(self._count - 1))
            if self._lags is not None:
                self._fill_lags()
            for network_step, hidden in self._steps:
                network_step(x, hidden)
            return self._conclude()
        except BaseException:           # such as that of Ctrl-C
            vars(self)["step"] = _refuse
            raise

    def _go_missing(self, gap: int) -> None:
        """Note how many values are missing since the last one: quantiles are those of so many steps further."""
        self._gap = gap
        if self._spread is not None:
            self._spread_out()

    def _fill_seasons(self, z: float, inverse: float) -> None:
        """Write, for every season, the change since one season before, and the steps to come as they were then."""
        x, level, values, ring = self._x, self._level, self._z, self._ring
        at, count, end = self._at, self._count, self._at + self._size + 1
        for n, (m, width, part, difference) in enumerate(self._profiles, 2):
            x[n] = (z - values[at - m]) * inverse if count > m else 0.0
            start = end - m
            np.subtract(ring[start:start + width], level, difference)
            np.multiply(difference, inverse, part)
            if count < m:
                np.nan_to_num(part, copy=False)

    def _fill_times(self, now: float) -> None:
        """Write sines and cosines of a time in seconds."""
        x, n = self._x, self._times_at
        for angle in self._angles:
            x[n], x[n + 1] = math.sin(angle * now), math.cos(angle * now)
            n += 2

    def _fill_lags(self) -> None:
        """Write the last values before this one, relative to the window; 0 where there are none."""
        lags: Any = self._lags
        end = self._at + self._size
        difference = self._ring[end - LAGS:end] - self._level       # float64: float32 has no room for every scale
        np.multiply(difference, 1 / self._scale, lags, casting="unsafe")
        if self._count <= LAGS:
            np.nan_to_num(lags, copy=False)

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
                if type(value).__name__ == "NAType":        # of pandas
                    return self._filled(), False
                raise TypeError(f"value: expected a number, got {type(value).__name__}") from None
            if z == z:
                if not self._guard.low <= z <= self._guard.high:
                    if not -LARGEST <= z <= LARGEST:
                        raise ValueError(f"value: expected a number up to {LARGEST:g} in size, or NaN, got {z:g}")
                    if self._guard.leaves_out(z, self._count):
                        return self._filled(), False
                if z <= self._above:
                    raise ValueError(f"value: log={encoding.log!r} needs values above {self._above:g}, got {z:g}")
                return (z if self._log is None else self._log(z)), True
        return self._filled(), False

    def _filled(self) -> float:
        """What stands for a missing value: the one a season before, or the last one."""
        fill = self._encoding.seasons[0] if self._encoding.seasons else 1
        return self._z[(self._at + 1 - (fill if self._count >= fill else 1)) % self._size]

    def _checked_columns(self, known: ArrayLike | None, past: ArrayLike | None) -> list[Float64Array]:
        """A row of known columns and one of past columns, checked and standardised."""
        if not self._n_known and not len(self._past):
            raise ValueError("known, past: this forecaster was fitted without such columns, expected None")
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
        return rows

    def _take_columns(self, known: Float64Array, past: Float64Array) -> None:
        """Write a row of columns to the input."""
        if self._n_known:
            self._known[:-self._n_known] = self._known[self._n_known:]
            self._known[-self._n_known:] = known
        self._past[:] = past

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
        quantiles = self._quantiles
        forecasts = self._trained() if self._share else np.zeros(self._encoding.horizon)
        if self._members is not None:
            if quantiles and self._share:
                forecasts = forecasts[:, quantiles.index(0.5)]
            forecasts = forecasts + self._members.forecasts()
            if self._adaptive is not None:
                lower, upper = self._adaptive.bounds(forecasts, self._gap)
                self._interval = tuple(self._value(z) for z in (lower, forecasts, upper))
            if self._spread is not None:
                forecasts = forecasts[:, None] + self._spread
        elif self._adaptive is not None:
            point = forecasts[:, quantiles.index(0.5)] if quantiles else forecasts
            lower, upper = self._adaptive.bounds(point, self._gap)
            self._interval = tuple(self._value(z) for z in (lower, point, upper))
        forecasts = self._value(forecasts)
        if quantiles:
            self.forecast_quantiles = forecasts
            forecasts = forecasts[:, quantiles.index(0.5)].copy()
        else:
            self.forecast_quantiles = None
        self.forecast = forecasts
        return forecasts

    def _value(self, z: Float64Array) -> Float64Array:
        """Values of z, a fresh array where z is not one; counts not below 0."""
        if self._exp is not None:
            z = self._exp(z)
        return np.maximum(z, 0.0) if self._floor else z

    def _trained(self) -> Float64Array:
        """What trained members add to the forecasts, as z: [horizon], or [horizon, Q] of networks with quantiles."""
        encoding, outputs = self._encoding, self._outputs
        np.dot(self._weight, self._read, outputs)
        size = self._scale
        if self._members is not None and not self._largest > TINY * abs(self._level):     # nothing has varied yet
            size = 0.0
        forecasts: Float64Array = np.multiply(outputs, size, dtype=np.float64)
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
        if self._members is not None:
            reference = reference * self._share
        if self._quantiles:
            forecasts = np.sort(forecasts.reshape(-1, len(self._quantiles)), axis=-1)
            if self._members is not None:
                forecasts *= self._network_share
            if self._line is not None:
                forecasts += (np.dot(self._line, self._read) * size)[:, None]
            forecasts += reference if encoding.difference < 2 else reference[:, None]
        else:
            forecasts += reference
        return forecasts
