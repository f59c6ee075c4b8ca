"""The running state of a detector: network, read-out and channels, from row to row."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from .._base.trees import storable
from .alike import EVERY, judge_alike
from .likelihood import score_of
from .repair import Repair
from .statistics import SETTLING

if TYPE_CHECKING:
    from ..nn import Stream
    from .clock import Clock
    from .joint import Joint
    from .likelihood import Channel
    from .readout import Readout


def _refuse(*_: object) -> NoReturn:
    raise RuntimeError("an exception, such as that of Ctrl-C, came while a row was being learnt: the detector is "
                       "neither as before the row nor as after it; restore a snapshot, or fit it again")


@storable
class State:
    """All that changes from row to row. A row is a list of floats, one a channel, NaN where a value is missing.

    Parameters
    ----------
    stream : Stream
        Of the recurrent layer, which reads a row, and sines and cosines of the next row's time.
    readout : Readout
        From the layer's state to the forecast of the next row.
    channels : list of Channel
        The statistics of each channel.
    joint : Joint or None
        The statistics of the channels' errors together.
    clock : Clock or None
        Where rows have times.
    refractory : int
        A score is 0 unless it is above all scores of so many rows before.
    """

    def __init__(self, stream: Stream, readout: Readout, channels: list[Channel], joint: Joint | None = None,
                 clock: Clock | None = None, refractory: int = 0) -> None:
        self.stream, self.readout, self.channels, self.refractory = stream, readout, channels, refractory
        self.joint, self.clock = joint, clock
        self.x, self.h = np.zeros(stream.input_size, np.float32), np.zeros(stream.output_size, np.float32)
        self.correction = math.log10(len(channels) + (joint is not None))   # Bonferroni's for so many tests, in digits
        self.share = 1.0                            # weight of a row in what is learnt
        self.count = 0                              # rows so far
        # (row, digits) of the last `refractory` rows with falling digits: the first is the highest.
        self.peaks: deque[tuple[int, float]] = deque()
        self.repair = Repair(len(channels), readout.lags)

    def __setstate__(self, values: dict[str, Any]) -> None:
        vars(self).update(values)
        if "repair" not in values:                  # of version 1
            self.repair = Repair(len(self.channels), self.readout.lags)
            for channel in self.channels:
                channel.upgrade(len(self.channels))

    def __getstate__(self) -> dict[str, Any]:
        if "learn" in vars(self):
            _refuse()
        return vars(self)

    def _break(self) -> None:
        """Refuse everything from now on: an exception, such as that of Ctrl-C, came while a row was being learnt."""
        vars(self).update(learn=_refuse, tell=_refuse, digits=_refuse, channel_scores=_refuse)

    def __repr__(self) -> str:
        return f"<State of a detector after {self.count} rows of {len(self.channels)} channels>"

    @property
    def forecast(self) -> list[float]:
        """The forecast of the next row, in each channel's standard deviations."""
        return [channel.forecast for channel in self.channels]

    def tell(self, second: float, instant: float, zoned: bool) -> None:
        """The time of the next row, on the wall clock and as an instant; it is forecast anew where another time was
        expected."""
        clock = self.clock
        if clock is None:
            return
        try:
            clock.instant, clock.zoned = instant, zoned
            if second != clock.next:
                if clock.last != clock.last:        # the first time: the step to the next one is not known
                    clock.last = second
                clock.next = second
                self._expect(self.readout.again(clock.features(second)))
        except BaseException:
            self._break()
            raise

    def digits(self, row: list[float]) -> float:
        """-log10 of the probability of the row that comes next; nothing is learnt."""
        digits = self._digits(row)
        return 0.0 if self.peaks and digits <= self.peaks[0][1] else digits

    def channel_scores(self, row: list[float]) -> list[float]:
        """The score of every channel, 0 to 1; that of all together is the score of the channel least expected."""
        digits = [channel.judge(x) for channel, x in zip(self.channels, row)]
        if self.joint is not None:
            errors = self._errors(row)
            together = self._together(errors)
            blamed = self.joint.blamed(errors)
            digits[blamed] = max(digits[blamed], together)
        return list(map(score_of, digits))

    def _digits(self, row: list[float]) -> float:
        digits = max([channel.judge(x) for channel, x in zip(self.channels, row)])
        if self.joint is not None:
            together = self._together(self._errors(row))
            if together > digits:
                digits = together
        digits -= self.correction
        return digits if digits > 0.0 else 0.0

    def _errors(self, row: list[float]) -> list[float]:
        """The errors of a row that was judged, in their scales."""
        return [channel.size if x == x else 0.0 for channel, x in zip(self.channels, row)]

    def _together(self, errors: list[float]) -> float:
        """The digits of the channels' errors together, once there are enough rows, and two values at least."""
        joint = self.joint
        if joint is None or joint.count < joint.settled or len(errors) - errors.count(0.0) < 2:
            return 0.0
        return joint.digits(errors)

    def learn(self, row: list[float]) -> None:
        """Take a row in: statistics, read-out, the network's state, and the forecast of the next row."""
        try:
            if self.refractory:
                self._remember(self._digits(row))
            channels, share, clock = self.channels, self.share, self.clock
            z = [channel.learn(x, share) for channel, x in zip(channels, row)]
            if self.count >= SETTLING and share:
                self.readout.learn([channel.residual for channel in channels], share)
                if self.joint is not None:
                    errors = self._errors(row)
                    if any(errors):
                        self.joint.learn(errors, share)
            self.count += 1
            if self.count % EVERY == 0 and share and len(channels) > 1:
                judge_alike(channels)
            repair, doubted = self.repair, False
            for channel in channels:
                if channel.doubted:
                    doubted = True
            if doubted or repair.left:
                repair.learn(self.readout.lagged, [channel.expected if channel.doubted else value
                                                   for channel, value in zip(channels, z)], doubted)
            if clock is None:
                if len(z) == 1:                         # one number is written much faster than a list
                    self.x[0] = z[0]
                else:
                    self.x[:] = z
                forecasts = self.readout.forecast(self.stream.step(self.x, self.h), z)
            else:
                clock.advance()
                times = clock.features(clock.next)
                self.x[:] = z + times
                forecasts = self.readout.forecast(self.stream.step(self.x, self.h), z, times)
            self._expect(forecasts)
        except BaseException:
            self._break()
            raise

    def _expect(self, forecasts: list[float]) -> None:
        """Tell every channel its forecast; and, for some rows after a doubtful value, the forecast without it."""
        for channel, forecast in zip(self.channels, forecasts):
            channel.expect(forecast)
        if self.repair.left:
            for channel, other in zip(self.channels, self.readout.otherwise(self.repair.lagged)):
                channel.other = other

    def _remember(self, digits: float) -> None:
        """Keep the peaks of the last `refractory` rows: one goes when it is too old, or a later one is as high."""
        peaks = self.peaks
        while peaks and peaks[-1][1] <= digits:
            peaks.pop()
        peaks.append((self.count, digits))
        if peaks[0][0] <= self.count - self.refractory:
            peaks.popleft()
