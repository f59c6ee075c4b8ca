"""The last rows as they would be without doubtful values, so that a spike does not spoil the forecasts behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._base.trees import storable

if TYPE_CHECKING:
    from .._base.typing import Float64Array


@storable
class Repair:
    """The last rows with what was expected in place of every doubtful value, for as long as one of these is among them.

    Nobody knows at once whether a value far from its forecast is a glitch or how the series goes on. While such a value
    is among the rows that the read-out reads, there are two forecasts: of the rows as they came, and of these. The next
    value is judged by the nearer of the two: behind a glitch that is the second, behind a change that lasts the first.

    Parameters
    ----------
    channels, lags : int
        Of the read-out.
    """

    def __init__(self, channels: int, lags: int) -> None:
        self.channels, self.lags = channels, lags
        self.lagged: Float64Array = np.zeros(channels * lags)       # the latest row first
        self.left = 0               # rows for which a doubtful value will still be among them

    def learn(self, lagged: Float64Array, row: list[float], doubted: bool) -> None:
        """Take a row in.

        Parameters
        ----------
        lagged : array of float64, [lags * channels]
            The rows before it as they came.
        row : list of float, [channels]
            The row, with what was expected in place of what is doubtful.
        doubted : bool
            Whether a value of it is.
        """
        if not self.left:
            self.lagged[:] = lagged
        self.left = self.lags if doubted else self.left - 1
        self.lagged[self.channels:] = self.lagged[:-self.channels].copy()
        self.lagged[:self.channels] = row
