"""Channels whose errors are alike are judged alike: what each tail was found to be is pulled to the mean of all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .._base.typing import Float64Array
    from .likelihood import Channel

EVERY = 50              # rows after which it is done again
# Variances of the logarithms of a tail's quantile and of its mean excess, as they are estimated from rows of one kind.
QUANTILE_NOISE, EXCESS_NOISE = 0.0015, 0.02


def judge_alike(channels: list[Channel]) -> None:
    """Set what every channel's own tail is given to judge, so that what the channels have in common counts.

    A tail beyond its quantile u, with the mean excess m, is estimated of few rows. Where the estimates of several
    channels differ by no more than their noise, they are of one kind and their mean is nearer to the truth; the more
    they differ the more each has its own (shrinkage, James & Stein 1961)::

        log u' = log u + min(1, noise / variance) (mean - log u),   and log m' likewise
        w'     = u + (w - u') m / m'                                judged by the channel's own tail

    Parameters
    ----------
    channels : list of Channel
        Two at least.
    """
    quantile = np.log([channel.point.u for channel in channels])
    excess = np.log([channel.point.m for channel in channels])
    common_quantile, common_excess = _shrunk(quantile, QUANTILE_NOISE), _shrunk(excess, EXCESS_NOISE)
    for channel, gain, centre in zip(channels, np.exp(excess - common_excess).tolist(),
                                     np.exp(common_quantile).tolist(), strict=True):
        channel.gain, channel.offset = gain, channel.point.u - gain * centre


def _shrunk(values: Float64Array, noise: float) -> Float64Array:
    """Values pulled to their mean, entirely where they vary by no more than the noise."""
    variance = float(values.var(ddof=1))
    part = 1.0 if variance <= noise else noise / variance
    result: Float64Array = values + part * (math.fsum(values) / len(values) - values)
    return result
