"""Fitted estimators that many threads use at once."""

import copy
import pickle

import numpy as np
import pytest
from together import together

from fastrnn.anomaly import RNNAnomalyDetector
from fastrnn.forecasting import RNNForecaster


def series(seed=0):
    rng = np.random.default_rng(seed)
    return np.sin(np.arange(220) / 4) + 0.1 * rng.standard_normal(220)


@pytest.fixture(scope="module")
def forecaster():
    return RNNForecaster(horizon=4, updates=20, random_state=0).fit(series())


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_forecasts(forecaster, precision):
    """The first ones, which fill caches, too; and copies, pickles and streams that are made meanwhile."""
    y = series(1)
    model = copy.deepcopy(forecaster).set_params(precision=precision)

    def stream(model):
        stream = model.stream()
        return np.stack([stream.step(value) for value in y[:20]]).tobytes()

    uses = [lambda model: model.predict().tobytes(), lambda model: model.apply(y).predict().tobytes(), stream,
            lambda model: pickle.loads(pickle.dumps(model)).predict().tobytes(),
            lambda model: copy.copy(model).apply(y).predict().tobytes()]
    expected = [use(pickle.loads(pickle.dumps(model))) for use in uses]
    results = together(*(lambda use=use: use(model) for use in uses * 2))
    assert results == expected * 2


def test_fits():
    """Each of its own model: the bits of a fit that is alone."""
    def fit(seed):
        return RNNForecaster(horizon=3, updates=5, random_state=seed).fit(series(seed)).predict().tobytes()

    expected = [fit(seed) for seed in range(2)]
    assert together(*(lambda seed=seed: fit(seed) for seed in range(2))) == expected


def test_scores_of_a_fitted_detector():
    """A detector that learns belongs to one thread; one that only scores rows is anybody's."""
    rows = series().reshape(-1, 1)
    detector = RNNAnomalyDetector(random_state=0).fit(rows[:150])
    expected = detector.score_samples(rows[150:]).tobytes()
    assert set(together(*[lambda: detector.score_samples(rows[150:]).tobytes()] * 6)) == {expected}
