"""Wild values: cells that are no observation, such as a slipped decimal point, or -9999 for a missing value.

They are left out as missing, with a warning that names them: in ``fit``, ``update`` and ``apply`` by all values of a
series, in a stream by those before. A value is wild if it is GLITCH times further from the median than every other, or
if it is one of the CODES that instruments and files have for missing values, stands in two rows or more, and is CODE
times further. Of other values at most GLITCHES are left out, so that a series that has become another one goes on.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .._base.trees import storable
from .encoding import LARGEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import Float64Array
    from .series import Series

GLITCH = 30.0           # a value is left out if it is so many times further from the median than all others
GLITCHES = 3            # values that are left out at most, of a series; in a stream, one after another
FEWEST = 12             # a shorter series has no glitches
CODE = 5.0              # a code that stands in several rows is left out if it is so many times further
_NINES = [sign * float("9" * digits) for digits in range(3, 8) for sign in (1, -1)]
CODES = frozenset([*_NINES, -32768.0, 1e20, -1e20, 1e30, -1e30, float(np.float32(9.96921e36))])    # the last: netCDF's


# ---- All values of a series -----------------------------------------------------------------------

def without_glitches(series: Sequence[Series]) -> tuple[list[Series], tuple[tuple[int, int], ...]]:
    """The series with wild values missing, and (series, row) of each of these; a UserWarning names them."""
    result, left_out = [], []
    for n, each in enumerate(series):
        rows, codes = _wild_rows(each.y)
        if rows or codes:
            y = each.y.copy()
            name = f"series {each.name!r}" if each.name is not None else f"y[{n}]" if len(series) > 1 else "y"
            for row in rows:
                warnings.warn(f"{name}: the value {y[row]:g} in row {row} is over {GLITCH:g} times further from the "
                              "median than every other; it is left out as missing", UserWarning, stacklevel=4)
            for code in dict.fromkeys(y[codes].tolist()):
                places = [row for row in codes if y[row] == code]
                warnings.warn(f"{name}: the value {code:g} stands in {len(places)} rows, the first is row {places[0]}, "
                              "far from all others, as a code for missing values does; it is left out as missing",
                              UserWarning, stacklevel=4)
            every = sorted([*rows, *codes])
            left_out += [(n, row) for row in every]
            y[every] = np.nan
            each = replace(each, y=y)
        result.append(each)
    return result, tuple(left_out)


def without_glitches_before(series: Series, stop: int) -> Series:
    """The series with wild values missing that lie before a step, as ``fit`` with the values before it leaves them out.

    Backtests judge forecasts from that step on; the values that came stay as they are.
    """
    rows, codes = _wild_rows(series.y[:stop])
    if not rows and not codes:
        return series
    y = series.y.copy()
    y[[*rows, *codes]] = np.nan
    return replace(series, y=y)


def _wild_rows(y: Float64Array) -> tuple[list[int], list[int]]:
    """The rows of single values that are far from all others, and those of codes for missing values."""
    observed = np.flatnonzero(~np.isnan(y))
    if len(observed) < FEWEST:
        return [], []
    values, codes = y[observed], []
    if float(values.min()) in CODES or float(values.max()) in CODES:
        codes = observed[_codes(values)].tolist()
        if codes:
            observed = observed[~np.isin(observed, codes)]
            values = y[observed]
    return [int(observed[k]) for k in _farthest(values)], codes


def _codes(values: Float64Array) -> list[int]:
    """The places of codes for missing values: each in two rows or more, together in fewer than half of all."""
    found, counts = np.unique(values, return_counts=True)
    own = [value for value, count in zip(found.tolist(), counts.tolist(), strict=True) if value in CODES and count > 1]
    if not own:
        return []
    is_code = np.isin(values, own)
    rest = values[~is_code]
    if 2 * len(rest) <= len(values):
        return []
    rest = np.delete(rest, _farthest(rest))
    middle = np.median(rest)
    reach = np.abs(rest - middle).max()
    far = is_code & (np.abs(values - middle) > CODE * reach) & (reach > 0)
    return np.flatnonzero(far).tolist()


def _farthest(values: Float64Array) -> list[int]:
    """The places of values, GLITCHES at most, that are GLITCH times further from the median than every other."""
    if len(values) <= GLITCHES:
        return []
    distance = np.abs(values - np.median(values))
    top = np.argpartition(distance, -GLITCHES - 1)[-GLITCHES - 1:]
    top = top[np.argsort(-distance[top])]
    for count in range(GLITCHES, 0, -1):
        rest = distance[top[count]]
        if rest > 0 and distance[top[count - 1]] > GLITCH * rest and np.median(distance) > 0:
            return sorted(top[:count].tolist())
    return []


# ---- Values one by one ----------------------------------------------------------------------------

@storable
class Guard:
    """What a stream leaves out: values far beyond all that came before.

    ``low`` and ``high`` are the bounds of what is taken without a question. After GLITCHES wild values in a row the
    next is taken, for the series has become another one; a code for missing values never is.

    Parameters
    ----------
    y : array of float64, [T]
        The values before the stream.
    """

    def __init__(self, y: Float64Array) -> None:
        values = y[~np.isnan(y)]
        self.middle, self.reach = 0.0, LARGEST
        self.low, self.high = -LARGEST, LARGEST
        self.run, self.following = 0, -1        # wild values in a row, and the step after the last of them
        if len(values) >= FEWEST:
            distance = np.abs(values - np.median(values))
            if np.median(distance) > 0:
                self.middle, self.reach = float(np.median(values)), float(distance.max())
                self._bound()

    def _bound(self) -> None:
        self.low, self.high = self.middle - self.reach, self.middle + self.reach

    def leaves_out(self, value: float, step: int) -> bool:
        """Whether the value of a step, which lies beyond the bounds, is wild; if it is not, the bounds are moved."""
        distance, code = abs(value - self.middle), value in CODES
        if distance > (CODE if code else GLITCH) * self.reach:
            self.run = self.run + 1 if step == self.following else 1
            self.following = step + 1
            if code or self.run <= GLITCHES:
                warnings.warn(f"value: {value:g} is over {CODE if code else GLITCH:g} times further from the median "
                              "than every value before; it is left out as missing", UserWarning, stacklevel=4)
                return True
        self.reach = distance
        self._bound()
        return False
