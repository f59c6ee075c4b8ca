"""Anomaly detection on streams: a recurrent network forecasts the next row, and what it did not expect is judged.

``detector`` has ``RNNAnomalyDetector`` and the state of one stream, ``readout`` the recursive least squares that turn
the network's state into a forecast, ``likelihood`` how unlikely one value is.
"""

from .detector import RNNAnomalyDetector

__all__ = ["RNNAnomalyDetector"]
