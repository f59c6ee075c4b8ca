"""The running state of a detector: network, read-out and channels, from row to row."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from .._base.trees import storable
from .likelihood import DIGITS, SETTLING

if TYPE_CHECKING:
    from ..nn import Stream
    from .likelihood import Channel
    from .readout import Readout


@storable
class State:
    """All that changes from row to row. A row is a list of floats, one a channel, NaN where a value is missing.

    Parameters
    ----------
    stream : Stream
        Of the recurrent layer, which reads a row.
    readout : Readout
        From the layer's state to the forecast of the next row.
    channels : list of Channel
        The statistics of each channel.
    refractory : int
        A score is 0 unless it is above all scores of so many rows before.
    """

    def __init__(self, stream: Stream, readout: Readout, channels: list[Channel], refractory: int) -> None:
        self.stream, self.readout, self.channels, self.refractory = stream, readout, channels, refractory
        self.x, self.h = np.zeros(len(channels), np.float32), np.zeros(stream.output_size, np.float32)
        self.forecast = [0.0] * len(channels)       # of the next row, in each channel's standard deviations
        self.correction = math.log10(len(channels))     # Bonferroni's for so many channels, in digits
        self.count = 0                              # rows so far
        # (row, score) of the last `refractory` rows with falling scores: the first is the highest.
        self.peaks: deque[tuple[int, float]] = deque()

    def __repr__(self) -> str:
        return f"<State of a detector after {self.count} rows of {len(self.channels)} channels>"

    def channel_scores(self, row: list[float]) -> list[float]:
        """The score of every channel, 0 to 1."""
        return [min(1.0, channel.judge(x, expected) / DIGITS)
                for channel, x, expected in zip(self.channels, row, self.forecast)]

    def score(self, row: list[float]) -> float:
        """The score of the row that comes next, 0 to 1; nothing is learnt."""
        score = self._score(row)
        return 0.0 if self.peaks and score <= self.peaks[0][1] else score

    def _score(self, row: list[float]) -> float:
        digits = max([channel.judge(x, expected)
                      for channel, x, expected in zip(self.channels, row, self.forecast)]) - self.correction
        return 0.0 if digits <= 0 else 1.0 if digits >= DIGITS else digits / DIGITS

    def learn(self, row: list[float]) -> None:
        """Take a row in: statistics, read-out, the network's state, and the forecast of the next row."""
        if self.refractory:
            self._remember(self._score(row))
        z = [channel.learn(x, expected) for channel, x, expected in zip(self.channels, row, self.forecast)]
        if self.count >= SETTLING:
            self.readout.learn([a - b for a, b in zip(z, self.forecast)])
        self.count += 1
        self.x[:] = z
        self.forecast = self.readout.forecast(self.stream.step(self.x, self.h), z)

    def _remember(self, score: float) -> None:
        """Keep the peaks of the last `refractory` rows: one goes when it is too old, or a later score is as high."""
        peaks = self.peaks
        while peaks and peaks[-1][1] <= score:
            peaks.pop()
        peaks.append((self.count, score))
        if peaks[0][0] <= self.count - self.refractory:
            peaks.popleft()
