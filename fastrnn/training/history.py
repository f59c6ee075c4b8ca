"""``History``: the losses and other numbers of every epoch."""

from collections.abc import Mapping

import numpy as np

from .._base import validation as check
from .._base.figures import new_figure


class History(Mapping):
    """What ``fit`` saw: a mapping of name to a list with a number for each epoch.

    Keys: "loss" (the mean over the epoch's minibatches, each before its update), "validation_loss" (where there were
    validation data), "gradient_norm" (the mean, before clipping), "skipped" (updates left out because that norm was not
    finite), "learning_rate" (after the epoch), "seconds".

    Examples
    --------
    >>> history = History()
    >>> history.add({"loss": 2.0, "validation_loss": 3.0})
    >>> history.add({"loss": 1.0, "validation_loss": 4.0})
    >>> history["loss"], history.best_epoch
    ([2.0, 1.0], 0)
    """

    def __init__(self, values=()):
        self._values = {name: [float(value) for value in column] for name, column in dict(values).items()}

    def __getitem__(self, name):
        return self._values[name]

    def __iter__(self):
        return iter(self._values)

    def __len__(self):
        return len(self._values)

    def __repr__(self):
        return f"<History of {self.epochs} epochs: {self.note()}>"

    @property
    def epochs(self):
        """How many there were."""
        return len(next(iter(self._values.values()), ()))

    def add(self, numbers):
        """Appends one epoch's: a mapping of names to numbers."""
        check.mapping(numbers, "numbers")
        for name, value in numbers.items():
            self._values.setdefault(name, []).append(float(value))

    @property
    def best_epoch(self):
        """The first epoch with the smallest validation loss, or training loss where that is all; None before one is
        finite."""
        values = np.array(self._values.get("validation_loss", self._values.get("loss", [])))
        return int(np.nanargmin(np.where(np.isfinite(values), values, np.inf))) if np.isfinite(values).any() else None

    def note(self):
        """The last epoch's losses in a few words."""
        return ", ".join(f"{name.replace('_', ' ')} {self._values[name][-1]:.4g}"
                         for name in ("loss", "validation_loss") if self._values.get(name))

    def plot(self, ax=None):
        """Draws the losses over the epochs.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            A new figure's if not given.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ImportError
            matplotlib is missing: ``pip install fastrnn[plot]``.
        """
        if ax is None:
            ax = new_figure("History.plot", 6, 4).add_subplot()
        epochs = np.arange(1, self.epochs + 1)
        for name, label in (("loss", "training"), ("validation_loss", "validation")):
            if name in self._values:
                ax.plot(epochs, self._values[name], label=label)
        if "validation_loss" in self._values and self.best_epoch is not None:
            ax.axvline(self.best_epoch + 1, color="0.7", linewidth=1, label="best")
        ax.set_xlabel("epoch")
        ax.set_ylabel("loss")
        ax.legend(frameon=False)
        return ax
