"""RNNAnomalyDetector(precision=...): scores by narrow weights."""

import numpy as np
import pytest
from helpers import assert_same_bits

import fastrnn
from fastrnn.anomaly import RNNAnomalyDetector
from fastrnn.nn.quantized import PRECISIONS


def series(rows=700):
    x = np.sin(np.arange(rows) / 8) + 0.05 * np.random.default_rng(1).standard_normal(rows)
    x[500:504] *= -1
    return x


def scores(detector, values):
    result = []
    for value in values.tolist():
        result.append(detector.score_one(value))
        detector.learn_one(value)
    return np.array(result)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_scores(precision):
    """The read-out learns from what the narrow layer says, so that scores hardly move."""
    detector, exact = (RNNAnomalyDetector(random_state=0, precision=one) for one in (precision, "float32"))
    narrow, plain = scores(detector, series()[:510]), scores(exact, series()[:510])
    assert detector.model_.precision == precision and exact.model_.precision == "float32"
    assert_same_bits(dict(detector.model_.parameters), dict(exact.model_.quantized(precision).parameters))
    assert 0 < np.abs(narrow - plain).max() < 0.05
    assert np.argmax(narrow[50:]) == np.argmax(plain[50:]) and narrow.max() > 5 / 6


@pytest.mark.parametrize("precision", PRECISIONS)
def test_snapshots_and_files(precision, tmp_path):
    x = series()[:, None]
    detector = RNNAnomalyDetector(random_state=0, precision=precision, updates=3).fit(x[:300])
    assert detector.model_.precision == precision           # trained in float32 before
    detector.save(tmp_path / "detector.npz")
    loaded = fastrnn.load(tmp_path / "detector.npz")
    assert loaded.precision == loaded.model_.precision == precision
    assert_same_bits(loaded.score_samples(x[300:]), detector.score_samples(x[300:]))
    snapshot = detector.snapshot()
    detector.partial_fit(x[300:350])
    detector.restore(snapshot)
    assert_same_bits(loaded.score_samples(x[300:]), detector.score_samples(x[300:]))
    other = RNNAnomalyDetector(random_state=0).fit(x[:300])
    with pytest.raises(ValueError, match="weights differ"):
        other.restore(snapshot)


@pytest.mark.parametrize("value, error", [("int4", ValueError), (None, TypeError)])
def test_unknown_precisions(value, error):
    detector = RNNAnomalyDetector(precision=value)
    with pytest.raises(error, match="precision: expected"):
        detector.learn_one(1.0)
    assert not hasattr(detector, "model_")
