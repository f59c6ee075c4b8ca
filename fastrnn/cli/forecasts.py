"""Forecasts of the series of a table: what the commands print, write and draw of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._base.figures import new_figure
from ..forecasting.backtest import Backtest
from .common import label_dates
from .parser import printable
from .series import Roles
from .times import TimeStyle

__all__ = ["Forecasts", "print_errors"]

PRINTED, DRAWN = 5, 4       # series whose forecasts are printed, and drawn


@dataclass
class Forecasts:
    """Forecasts of N series, h steps each.

    Attributes
    ----------
    roles : Roles
        What the columns of the table are.
    names : list of str
        The names of the series [N]: targets side by side, or the cells of the column of series.
    steps : list of array
        Of each series the steps ahead: times, or numbers counted from 1 [h].
    style : TimeStyle
        How the table writes times.
    values : array
        The forecasts [N, h].
    bounds : dict of str to array
        By the ending of their columns' names, such as "q0.1" or "lower": quantiles and bounds [N, h], rising.
    """

    roles: Roles
    names: list[str]
    steps: list[npt.NDArray[Any]]
    style: TimeStyle
    values: npt.NDArray[np.floating]
    bounds: Mapping[str, npt.NDArray[np.floating]]

    def labels(self, number: int) -> list[str]:
        """The steps ahead of a series as text."""
        steps = self.steps[number]
        return self.style.texts(steps) if steps.dtype.kind == "M" else list(map(str, steps.tolist()))

    def columns(self) -> dict[str, npt.ArrayLike]:
        """The columns to write: series (if there is such a column), time or step, forecast, bounds."""
        roles, h = self.roles, self.values.shape[1]
        side_by_side = 1 if roles.series else len(roles.target)
        columns: dict[str, npt.ArrayLike] = {}
        if roles.series:
            columns[roles.series] = np.repeat(self.names, h)
        if roles.time:
            columns[" ".join(roles.time)] = [label for number in range(0, len(self.names), side_by_side)
                                             for label in self.labels(number)]
        else:
            columns["step"] = np.concatenate(self.steps[::side_by_side])
        for number, target in enumerate(roles.target):
            columns[target] = self.values[number::side_by_side].ravel()
            columns |= {f"{target}_{ending}": bound[number::side_by_side].ravel()
                        for ending, bound in self.bounds.items()}
        return columns

    def print(self) -> None:
        """Print the forecasts of the first series, with the outermost bounds beside them."""
        bounds = list(self.bounds.values())
        for number, name in enumerate(self.names[:PRINTED]):
            print(f"{printable(name)}:")
            for step, label in enumerate(self.labels(number)):
                beside = f"   {bounds[0][number, step]:.6g} to {bounds[-1][number, step]:.6g}" if bounds else ""
                print(f"  {label:>16}  {self.values[number, step]:.6g}{beside}")
        if len(self.names) > PRINTED:
            print(f"and {len(self.names) - PRINTED} more series; --out writes them all")

    def draw(self, path: str, history: Sequence[tuple[npt.NDArray[Any], npt.NDArray[np.floating]]]) -> None:
        """Draw the ends of the first series (positions and values) and their forecasts, with a band of the bounds."""
        count, h, bounds = min(DRAWN, len(self.names)), self.values.shape[1], list(self.bounds)
        figure = new_figure("--plot", 9, 2.6 * count + 0.6)
        last = max(4 * h, 50)
        for number, ax in enumerate(figure.subplots(count, 1, squeeze=False)[:, 0]):
            positions, values = history[number]
            steps = self.steps[number]
            ax.plot(positions[-last:], values[-last:], color="0.2", linewidth=1.2, label=self.names[number])
            if bounds:
                ax.fill_between(steps, self.bounds[bounds[0]][number], self.bounds[bounds[-1]][number], color="C3",
                                alpha=0.2, linewidth=0, label=f"{bounds[0]} to {bounds[-1]}")
            ax.plot(steps, self.values[number], color="C3", label="forecast")
            label_dates(ax, steps)
            ax.grid(alpha=0.25)
            ax.legend(fontsize=8, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
            ax.set_xlabel(" ".join(self.roles.time) or "step")
        figure.savefig(path, dpi=130)


def print_errors(backtest: Backtest) -> None:
    """Print the errors beside those of naive forecasts, over all steps of the horizon, and the quantiles' coverage."""
    scores = backtest.scores()
    width, measures = max(map(len, scores)), list(next(iter(scores.values())))
    print(" " * width + "".join(f"{measure:>12}" for measure in measures))
    for name, errors in scores.items():
        print(f"{name:{width}}" + "".join(f"{errors[measure]:12.4g}" for measure in measures))
    if backtest.quantiles:
        print("values at or below quantile " + ", ".join(f"{q:g}: {share:.1%}" for q, share in
                                                         backtest.coverage().items()))
