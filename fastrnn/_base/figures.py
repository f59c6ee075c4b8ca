"""Creates matplotlib figures without pyplot, which would keep each figure alive and might open a window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .typing import Array

__all__ = ["new_figure", "finish"]


def new_figure(user: str, width: float, height: float) -> Figure:
    """Create an empty figure.

    Parameters
    ----------
    user : str
        What needs the figure, for the error message: "History.plot".
    width, height : float
        Size of the figure in inches.

    Returns
    -------
    matplotlib.figure.Figure
        The figure. Its ``subplots`` makes panels, its ``savefig`` writes it.

    Raises
    ------
    ImportError
        The package matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{user} needs matplotlib: pip install fastrnn[plot]") from error
    return Figure(figsize=(width, height), layout="constrained")


def finish(ax: Axes, x: Array, title: str | None, x_label: str, y_label: str) -> None:
    """Write titles and labels, and a legend where lines have names; times on the axis get short dates.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        What was drawn in.
    x : array
        What stands along the axis: steps, or times as datetime64.
    title : str or None
        The title; None for none.
    x_label, y_label : str
        The labels of the axes.
    """
    if np.asarray(x).dtype.kind == "M":
        from matplotlib import dates
        untyped: Any = dates
        locator = untyped.AutoDateLocator()
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(untyped.ConciseDateFormatter(locator))
    if title is not None:
        ax.set_title(title)
    ax.set_xlabel(x_label)
    ax.set_ylabel(y_label)
    ax.margins(x=0.01)
    ax.grid(alpha=0.25)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False)
