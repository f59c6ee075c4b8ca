"""Training without a framework: ``fit`` trains a model on sequences, ``evaluate`` computes its loss on data.

``run`` has both functions, ``data`` the minibatches, ``history`` the numbers of every epoch, and ``checkpoints`` the
files from which a killed run goes on.
"""

from .history import History
from .run import evaluate, fit

__all__ = ["fit", "evaluate", "History"]
