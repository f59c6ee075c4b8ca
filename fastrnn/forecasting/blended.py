"""How a fitted forecaster's forecasts are put together: networks, other members of the blend, bounds around them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base import validation as check
from ..nn.quantized import model_precision
from . import choice, linear, tables
from .blend import Blend
from .encoding import missing_at_end
from .intervals import Interval
from .living import LivingForecaster
from .residuals import trained_errors, units
from .smoothing import TRAINED

if TYPE_CHECKING:
    from .._base.typing import Float64Array, IntArray, RandomState
    from .encoding import Encoding
    from .intervals import Calibration
    from .network import ForecastNetwork
    from .series import Series

BATCH = 64              # series forecast at once


class Transformed(Sequence[Any]):
    """z of every series of a panel, each made when it is asked for: all at once would be the panel's memory again."""

    def __init__(self, series: Sequence[Series], encoding: Encoding) -> None:
        self._series, self._encoding = series, encoding

    def __len__(self) -> int:
        return len(self._series)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return [self._encoding.transformed(each.y) for each in self._series[key]]
        return self._encoding.transformed(self._series[key].y)


class BlendedForecaster(LivingForecaster):
    """The part of ``RNNForecaster`` that makes forecasts, and quantiles and samples around them, of what was fitted.

    Examples
    --------
    >>> from fastrnn.forecasting import RNNForecaster
    >>> issubclass(RNNForecaster, BlendedForecaster)
    True
    """

    choice_: choice.Choice
    blend_: Blend | None
    calibration_: Calibration | None
    random_state: RandomState
    precision: str

    _state_version = 2          # until version 1 errors were forecasts less values

    @classmethod
    def _older(cls, version: int, parameters: dict[str, Any],
               attributes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a file of version 1 holds, with errors as values less forecasts."""
        calibration = attributes.get("calibration_")
        if calibration is not None and calibration.freedom is None:
            attributes["calibration_"] = replace(calibration, quantiles=-calibration.quantiles[::-1],
                                                 paths=-calibration.paths)
        return parameters, attributes

    def _settle(self, kept: int = 0, refit: bool = False, places: IntArray | None = None) -> None:
        """Bring the base forecasts to the ends of the panel's series, of which the first `kept` are as they were.

        If none are kept, series of another number than before have the mean weights. `places` says of each series
        which of those before it is, -1 where it is none of them: then it has the mean weights. `refit`: the linear
        forecast learns from all steps again.
        """
        series, nonnegative = self.panel_.series, choice.kept_nonnegative(self.options_, self.panel_.series)
        known = self.choice_.nonnegative
        if places is not None:
            nonnegative = tuple(own and (place < 0 or known[place])
                                for own, place in zip(nonnegative, places.tolist(), strict=True))
        elif len(known) in (kept, len(series)):             # what was found before stays, unless a value is below 0
            nonnegative = (*map(min, nonnegative, known), *nonnegative[len(known):])
        self.choice_ = replace(self.choice_, nonnegative=nonnegative)
        if self.blend_ is None:
            return
        values = Transformed(series, self.encoding_)
        if self.calibration_ is not None and (places is not None or len(values) != len(self.calibration_.spread)):
            self.calibration_ = self.calibration_.for_series(units(values), kept, places)
        blend = self.blend_.for_panel(values, kept, places)
        if refit and blend.linear is not None:
            blend = replace(blend, linear=linear.fit(series, self.encoding_, list(map(len, series))))
        self.blend_ = blend

    def _networks(self) -> list[ForecastNetwork]:
        """The networks that forecasts are made with: those that were trained, of the precision asked for."""
        precision = model_precision(self.precision)
        return [network.with_precision(precision) for network in self.models_]

    def _point(self, series: list[Series], steps: int) -> Float64Array:
        """Point forecasts [N, steps] as z; past the horizon forecasts are taken for observations."""
        encoding, horizon = self.encoding_, self.encoding_.horizon
        if steps > horizon and len(encoding.past[0]):
            raise ValueError(f"X: past columns are not known beyond horizon={horizon} steps, got {steps}")
        base = None
        if self.blend_ is not None:
            base = self.blend_.base(Transformed(series, encoding), steps)
            if not self.blend_.count(TRAINED):
                return base
        parts: list[Float64Array] = []
        for start in range(0, steps, horizon):
            if parts:
                values = self._values(parts[-1])
                series = [each.extended(forecast) for each, forecast in zip(series, values, strict=True)]
            part = self._trained(series)
            if base is not None:
                part = part[:, :base.shape[1] - start] + base[:, start:start + horizon]
            parts.append(part)
        return np.concatenate(parts, 1)[:, :steps]

    def _values(self, z: Float64Array) -> Float64Array:
        """Forecasts [N, ...] from their z; counts not below 0."""
        values = self.encoding_.restored(z)
        floor = np.where(self.choice_.nonnegative, 0.0, -np.inf).reshape(-1, *(1,) * (z.ndim - 1))
        return np.maximum(values, floor) if any(self.choice_.nonnegative) else values

    def _quantiles_about(self, z: Float64Array, levels: Sequence[float]) -> Float64Array:
        """Quantiles [N, steps, Q] of forecasts z; levels rise, and 0.5 stands for the point forecast."""
        gaps, steps = self._gaps(), z.shape[1]
        calibration, longest = self._calibration(), z.shape[1] + max(gaps)
        bounds = calibration.spreads(longest)[..., None] * calibration.errors(levels, longest)
        if any(gaps):
            bounds = np.stack([row[gap:gap + steps] for row, gap in zip(bounds, gaps, strict=True)])
        return self._values(z[..., None] + bounds)

    def _quantile_table(self, series: list[Series], steps: int) -> Any:
        """The quantiles that were asked for in ``fit``, as the kind of table that the panel came in.

        Without a blend they are the networks' own, which end at the horizon.
        """
        self._check_quantiles()
        quantiles, horizon = self.options_.quantiles, self.encoding_.horizon
        if self.blend_ is not None:
            values = self._quantiles_about(self._point(series, steps), quantiles)
        elif steps <= horizon:
            values = self._forecast(series)[:, :steps]
        else:
            raise ValueError(f"X: quantiles are forecast up to horizon={horizon} steps, got {steps}")
        return tables.table(self.panel_, values, [f"q{q:g}" for q in quantiles])

    def _interval_about(self, z: Float64Array, level: float) -> Any:
        """The interval of a probability around forecasts z [N, steps]; of a frame, one with three columns."""
        values = self._quantiles_about(z, (0.5 - level / 2, 0.5, 0.5 + level / 2))
        if self.panel_.kind == "frame":
            return tables.table(self.panel_, values, ["lower", "", "upper"])
        return Interval(*(tables.table(self.panel_, values[..., n]) for n in range(3)))

    def _gaps(self) -> list[int]:
        """How many of the last values of each series are missing: its errors are those of so many steps further."""
        return [missing_at_end(each.y) for each in self.panel_.series]

    def _samples_about(self, z: Float64Array, count: int) -> Any:
        """Sample paths around forecasts z [N, steps], as the kind of table that the panel came in."""
        rng = check.random_state(self.random_state, "random_state")
        gaps, steps = self._gaps(), z.shape[1]
        paths = self._calibration().samples(count, steps + max(gaps), rng)
        if any(gaps):
            paths = np.stack([paths[:, n, gap:gap + steps] for n, gap in enumerate(gaps)], 1)
        paths = paths + z
        values = self._values(np.moveaxis(paths, 0, -1))
        if self.panel_.kind == "frame":
            return tables.table(self.panel_, values, [f"sample{n}" for n in range(1, count + 1)])
        return np.stack([tables.table(self.panel_, values[..., n]) for n in range(count)])

    def _calibration(self) -> Calibration:
        """The errors of the past; without a blend those that the networks make where they were trained."""
        if self.calibration_ is not None:
            return self.calibration_
        return trained_errors(self.panel_.series, self.encoding_, self._outputs)

    def _check_quantiles(self) -> None:
        if not self.options_.quantiles:
            raise ValueError("quantiles: none were asked for when this forecaster was fitted")

    def _central(self, forecasts: Float64Array) -> Float64Array:
        """Point forecasts: the median of quantiles."""
        quantiles = self.options_.quantiles
        return forecasts[..., quantiles.index(0.5)] if quantiles else forecasts

    def _forecast(self, series: list[Series]) -> Float64Array:
        """Forecasts [N, horizon] or [N, horizon, Q] of the networks alone, from the ends of series."""
        return self.encoding_.restored(self._trained(series, whole=True))

    def _trained(self, series: list[Series], whole: bool = False) -> Float64Array:
        """What trained members add to forecasts from the ends of series, as z [N, horizon]; `whole`: all quantiles."""
        result, networks = [], self._networks()
        for start in range(0, len(series), BATCH):
            batch = series[start:start + BATCH]
            encoded = [self.encoding_.encode(each) for each in batch]
            lengths = np.array([len(each) for each in batch])
            outputs: Any = [None] * len(batch)
            if networks:
                x = np.zeros((lengths.max(), len(batch), self.encoding_.size), np.float32)
                for n, each in enumerate(encoded):
                    x[:len(each.z), n] = each.x
                outputs = sum(network.last(x, lengths) for network in networks) / len(networks)
            for n, (each, row) in enumerate(zip(encoded, outputs, strict=True), start):
                output = None if row is None else row[None]
                result.append(self._mixed(each, np.array([len(each.z) - 1]), output, n, whole)[0])
        return np.stack(result)

    def _mixed(self, encoded: Any, at: IntArray, outputs: Any, n: int, whole: bool = False) -> Float64Array:
        """What trained members add to forecasts of series n from the steps `at`, as z [len(at), horizon(, Q)]."""
        quantiles, blend = self.options_.quantiles, self.blend_
        if outputs is not None:
            if quantiles:
                outputs = np.sort(outputs.reshape(len(outputs), -1, len(quantiles)), axis=-1)
            outputs = outputs.astype(np.float64)
        if blend is None:
            z = self.encoding_.placed(encoded, at, outputs)
            return z if whole else self._central(z)
        result = np.zeros((len(at), self.encoding_.horizon))
        varied = self.encoding_.varied(encoded, at)[:, None]        # where nothing has varied outputs do not count
        if outputs is not None:
            outputs = self._central(outputs) * varied
            result += blend.weight("network")[n] * self.encoding_.placed(encoded, at, outputs)
        if blend.linear is not None:
            outputs = linear.inputs(encoded, at) @ blend.linear.T.astype(np.float64) * varied
            result += blend.weight("linear")[n] * self.encoding_.placed(encoded, at, outputs)
        return result

    def _outputs(self, encoded: Any, at: IntArray) -> Float64Array:
        """The networks' mean central output [len(at), horizon] at the steps `at`."""
        networks = self._networks()
        outputs: Any = sum(network(encoded.x)[0][at] for network in networks) / len(networks)
        quantiles = self.options_.quantiles
        if quantiles:
            outputs = np.sort(outputs.reshape(len(at), -1, len(quantiles)), axis=-1)
        return self._central(outputs.astype(np.float64))

    def _walked(self, series: Series, n: int, at: IntArray) -> tuple[Float64Array, Float64Array | None]:
        """Forecasts [len(at), horizon] of series n from the steps `at`, and quantiles of them where asked for."""
        quantiles, encoded, outputs = self.options_.quantiles, self.encoding_.encode(series), None
        networks = self._networks()
        if networks:
            outputs = sum(network(encoded.x)[0][at] for network in networks) / len(networks)
        if self.blend_ is None:
            every = self.encoding_.restored(self._mixed(encoded, at, outputs, n, whole=True))
            return self._central(every), every if quantiles else None
        z = self._mixed(encoded, at, outputs, n)
        z += self.blend_.walked(self.encoding_.transformed(series.y), n, at + 1, self.encoding_.horizon)
        one = copy.copy(self)
        one.choice_ = replace(self.choice_, nonnegative=self.choice_.nonnegative[n:n + 1] * len(z))
        spread = np.repeat(self._calibration().spread[n:n + 1], len(z), 0)
        if not quantiles:
            return one._values(z), None
        errors = self._calibration().errors(quantiles, z.shape[1])
        return one._values(z), one._values(z[..., None] + spread[..., None] * errors)
