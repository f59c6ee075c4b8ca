"""``History``: the losses and other numbers of every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base import validation as check
from .._base.figures import finish, new_figure
from .._base.trees import storable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from matplotlib.axes import Axes


@storable
class History(Mapping[str, list[float]]):
    """The numbers of a training: a mapping of names to lists with one number for each epoch.

    ``fit`` returns one. Its keys are

    - "loss": the mean over the minibatches of the epoch, each taken before its update;
    - "validation_loss": the loss on the validation data after the epoch, where there are such data;
    - "gradient_norm": the mean norm of the gradients before clipping;
    - "skipped": the number of updates that were skipped because that norm was not finite;
    - "learning_rate": the learning rate after the epoch;
    - "seconds": the time that the epoch took.

    Parameters
    ----------
    values : mapping of str to sequence of float, optional
        The numbers of the epochs so far. Without them the history is empty.

    Examples
    --------
    >>> from fastrnn.training import History
    >>> history = History({"loss": [2.0, 1.0], "validation_loss": [3.0, 4.0]})
    >>> history["loss"], history.epochs, history.best_epoch
    ([2.0, 1.0], 2, 0)
    """

    def __init__(self, values: Mapping[str, Iterable[float]] | Iterable[tuple[str, Iterable[float]]] = ()) -> None:
        self._values = {name: [float(value) for value in column] for name, column in dict(values).items()}

    def __getitem__(self, name: str) -> list[float]:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<History of {self.epochs} epochs: {self.note()}>"

    @property
    def epochs(self) -> int:
        """The number of epochs."""
        columns: Any = self._values.values()
        return len(next(iter(columns), ()))

    def add(self, numbers: Mapping[str, float]) -> None:
        """Append the numbers of one epoch.

        Parameters
        ----------
        numbers : mapping of str to float
            One number for each name.

        Raises
        ------
        TypeError
            `numbers` is not a mapping.

        Examples
        --------
        >>> from fastrnn.training import History
        >>> history = History()
        >>> history.add({"loss": 2.0})
        >>> history["loss"]
        [2.0]
        """
        check.mapping(numbers, "numbers")
        for name, value in numbers.items():
            self._values.setdefault(name, []).append(float(value))

    @property
    def best_epoch(self) -> int | None:
        """The first epoch, counted from 0, with the smallest validation loss; None before one is finite.

        Without validation data the training loss decides.
        """
        losses = np.array(self._values.get("validation_loss", self._values.get("loss", [])))
        finite = np.isfinite(losses)
        return int(np.argmin(np.where(finite, losses, np.inf))) if finite.any() else None

    def note(self) -> str:
        """Describe the losses of the last epoch in a few words.

        Returns
        -------
        str
            The names and numbers, for example "loss 0.25, validation loss 0.3".

        Examples
        --------
        >>> from fastrnn.training import History
        >>> History({"loss": [2.0, 0.25], "validation_loss": [1.0, 0.3]}).note()
        'loss 0.25, validation loss 0.3'
        """
        return ", ".join(f"{name.replace('_', ' ')} {self._values[name][-1]:.4g}"
                         for name in ("loss", "validation_loss") if self._values.get(name))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the losses over the epochs.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. If it is not given, a new figure is made, without pyplot.

        Returns
        -------
        matplotlib.axes.Axes
            The axes that were drawn in; ``ax.figure.savefig(path)`` writes the figure.

        Raises
        ------
        ImportError
            Matplotlib is missing: ``pip install fastrnn[plot]``.

        Examples
        --------
        >>> from fastrnn.training import History
        >>> ax = History({"loss": [2.0, 1.0, 0.5]}).plot()
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('epoch', 'loss')
        """
        if ax is None:
            ax = new_figure("History.plot", 6, 4).add_subplot()
        epochs = np.arange(1, self.epochs + 1)
        for name, label in (("loss", "training"), ("validation_loss", "validation")):
            if name in self._values:
                ax.plot(epochs, self._values[name], label=label)
        if "validation_loss" in self._values and self.best_epoch is not None:
            ax.axvline(self.best_epoch + 1, color="0.7", linewidth=1, label="best")
        finish(ax, epochs, "Training", "epoch", "loss")
        locator: Any = ax.xaxis.get_major_locator()
        locator.set_params(integer=True)
        return ax
