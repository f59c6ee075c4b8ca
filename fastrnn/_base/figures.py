"""Creates matplotlib figures without pyplot, which would keep each figure alive and might open a window."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["new_figure"]


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
