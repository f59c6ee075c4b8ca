"""Pictures of series and their anomaly scores, by matplotlib, which is imported when something is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._base.figures import finish, new_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from matplotlib.axes import Axes

    from .._base.typing import Array, ArrayLike, Float64Array

NAMED = 10              # channels that the legend names


def draw_scores(rows: Float64Array, scores: Float64Array, blame: Float64Array, threshold: float, *,
                names: Sequence[str], times: ArrayLike | None, label: str,
                ax: Sequence[Axes] | npt.NDArray[np.object_] | None) -> tuple[Axes, Axes]:
    """Draw rows above their scores.

    Parameters
    ----------
    rows : array of float64, [rows, channels]
        The values.
    scores : array of float64, [rows]
        Higher is more unusual.
    blame : array of float64, [rows, channels]
        The scores of the channels: an outlier is marked in the channel that has the highest.
    threshold : float
        Rows that score above it are outliers.
    names : sequence of str
        Of the channels; empty where they have none.
    times : array_like of datetime64 or None
        The times of the rows; None: their numbers stand on the axis.
    label : str
        What the scores are.
    ax : pair of matplotlib.axes.Axes or None
        Where to draw; None: in a new figure.

    Returns
    -------
    pair of matplotlib.axes.Axes
        The panels of the values and of the scores.
    """
    values, judged = _panels(ax)
    x = _places(times, len(rows))
    count = rows.shape[1]
    for n, column in enumerate(rows.T):
        name = names[n] if names else f"channel {n}" if count > 1 else None
        values.plot(x, column, linewidth=1, color="0.25" if count == 1 else f"C{n % 10}",
                    label=name if n < NAMED else None)
    outliers = np.flatnonzero(scores > threshold)
    if len(outliers):
        channels = blame[outliers].argmax(1)
        values.plot(x[outliers], rows[outliers, channels], "o", color="red", markersize=5, fillstyle="none",
                    label="outliers")
    judged.plot(x, scores, linewidth=1, color="C0", label="score")
    judged.axhline(threshold, color="red", linewidth=0.8, linestyle="--", label="threshold")
    x_label = "row" if times is None else "time"
    finish(values, x, f"{len(outliers)} outlier{'s' * (len(outliers) != 1)} in {len(rows)} rows", "", "value"
           if not names or count > 1 else names[0])
    finish(judged, x, None, x_label, label)
    return values, judged


def _places(times: ArrayLike | None, count: int) -> Array:
    """What stands on the axis for the rows."""
    if times is None:
        return np.arange(count)
    places = np.asarray(times)
    if places.dtype.kind in "OU":
        places = places.astype("datetime64[us]")
    if places.shape != (count,) or places.dtype.kind != "M":
        raise ValueError(f"times: expected {count} dates or times, one a row, got {places.dtype} {places.shape}")
    return places


def _panels(ax: Any) -> list[Axes]:
    """The panels that the user gave, or those of a new figure."""
    if ax is None:
        figure = new_figure("RNNAnomalyDetector.plot", 8, 5)
        return list(figure.subplots(2, 1, sharex=True, height_ratios=[2, 1]))
    panels = np.asarray(ax, object).ravel()
    if len(panels) != 2:
        raise ValueError("ax: expected two panels, for the values and for the scores, got "
                         f"{'one' if len(panels) == 1 else len(panels)}")
    return list(panels)
