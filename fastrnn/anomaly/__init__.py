"""Anomaly detection on streams: a recurrent network forecasts the next row, and unexpected rows score high.

``detector`` has ``RNNAnomalyDetector``, ``online`` what it does with single rows, ``state`` the running state of one
stream, ``readout`` the recursive least squares that turn the network's state into a forecast, ``likelihood`` how
unlikely one value is, ``alike`` what channels have in common, ``repair`` forecasts without doubtful values, ``fitting``
the training of the network by back-propagation.
"""

from .detector import RNNAnomalyDetector

__all__ = ["RNNAnomalyDetector"]
