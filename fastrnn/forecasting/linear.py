"""A linear forecast of what the network reads and of the last values: ridge regression, solved at once.

From the inputs x_t and the last values relative to the window, (z_{t-j} - c_t) / s_t for j = 1 ... LAGS, the outputs
o_k of ``encoding`` are W [1, x_t, lags]. The penalty is the one that was best on the last fifth of the steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .._base.typing import Array, Float64Array, IntArray
    from .encoding import Encoded, Encoding
    from .series import Series

LAGS = 16
MOST_NUMBERS = 1_500_000        # of the inputs that are learnt from, at steps evenly spread over the series
CHUNK = 4096            # rows that are standardised at once
FEWEST_ROWS = 30        # fewer teach nothing
PENALTIES = 10.0 ** np.arange(-4, 3)        # per row, of standardised inputs
SPIKES = 8.0            # targets are cut at so many times their mean size


def inputs(encoded: Encoded, at: IntArray) -> Float64Array:
    """What the regression reads at the steps `at`, [len(at), 1 + I + LAGS]; 0 for values before the series."""
    source = at[:, None] - np.arange(1, LAGS + 1)
    lags = (encoded.z[np.maximum(source, 0)] - encoded.level[at, None]) / encoded.scale[at, None]
    return np.concatenate([np.ones((len(at), 1)), encoded.x[at], np.where(source < 0, 0, lags)], 1)


def fit(series: Sequence[Series], encoding: Encoding, ends: Sequence[int]) -> Array | None:
    """The weights W [horizon, 1 + I + LAGS] learnt from the first `ends[n]` steps; None where there are too few."""
    rows, targets, late = [], [], []
    most = int(MOST_NUMBERS / (encoding.size + LAGS))
    share = min(1.0, MOST_NUMBERS / (encoding.size + LAGS) / max(1, sum(ends)))
    some = np.unique(np.linspace(0, len(series) - 1, min(len(series), max(1, most))).astype(int)).tolist()
    for each, end in ((series[n], ends[n]) for n in some):
        first = max(min(encoding.window, end // 2) - 1, min(LAGS, end // 2), 0)
        last = end - encoding.horizon
        if last <= first:
            continue
        at = np.unique(np.linspace(first, last - 1, max(1, int(share * (last - first)))).astype(int))
        encoded = encoding.encode(each)
        y = encoding.targets(encoded, each, first)[at]
        whole = ~np.isnan(y).any(1)
        rows.append(inputs(encoded, at[whole]).astype(np.float32))
        targets.append(y[whole].astype(np.float64))
        late.append(np.where(at[whole] >= first + 0.8 * (last - first), 1,
                             np.where(at[whole] < first + 0.8 * (last - first) - encoding.horizon, 0, -1)))
    if not rows:
        return None
    X, part = np.concatenate(rows), np.concatenate(late)
    rows.clear()                    # not to have everything twice
    Y = np.concatenate(targets)
    targets.clear()
    if len(X) < FEWEST_ROWS:
        return None
    np.clip(Y, *(np.array([[-SPIKES], [SPIKES]]) * np.abs(Y).mean(0)), out=Y)
    penalty = 1.0
    if (part == 0).sum() >= FEWEST_ROWS / 2 and (part == 1).any():
        tried = _solutions(X, Y, np.flatnonzero(part == 0), PENALTIES)
        errors = [np.abs(X[part == 1] @ weight.T - Y[part == 1]).mean() for weight in tried]
        penalty = float(PENALTIES[int(np.argmin(errors))])
    return _solutions(X, Y, np.arange(len(X)), np.array([penalty]))[0].astype(np.float32)


def _solutions(X: Array, Y: Float64Array, rows: IntArray, penalties: Any) -> list[Float64Array]:
    """The weights for each penalty from some rows; the first column of X is 1 and is not penalised."""
    parts = [rows[start:start + CHUNK] for start in range(0, len(rows), CHUNK)]
    mean = sum(X[part, 1:].sum(0, dtype=np.float64) for part in parts) / len(rows)
    square = sum(((X[part, 1:] - mean) ** 2).sum(0) for part in parts) / len(rows)
    deviation = np.where(square > 1e-12, np.sqrt(square), np.inf)
    centre = sum(Y[part].sum(0) for part in parts) / len(rows)
    gram, product = np.zeros((len(mean), len(mean))), np.zeros((len(mean), Y.shape[1]))
    for part in parts:                  # a copy of all rows would be as large as these
        standard = (X[part, 1:] - mean) / deviation
        gram += standard.T @ standard
        product += standard.T @ (Y[part] - centre)
    values, vectors = np.linalg.eigh(gram / len(rows))
    product = vectors.T @ (product / len(rows))
    result = []
    for penalty in penalties:
        weight = (vectors @ (product / (np.maximum(values, 0) + penalty + 1e-8)[:, None])).T / deviation
        result.append(np.concatenate([(centre - weight @ mean)[:, None], weight], 1))
    return result
