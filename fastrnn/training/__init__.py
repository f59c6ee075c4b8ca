"""Training without a framework: ``fit`` trains a model on sequences, ``evaluate`` takes its loss on data.

``run`` has both, ``data`` the minibatches, ``history`` the numbers of every epoch, ``checkpoints`` what a killed run
goes on from.
"""

from .history import History
from .run import evaluate, fit

__all__ = ["fit", "evaluate", "History"]
