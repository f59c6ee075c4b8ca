"""Files of forecasters and detectors of every version so far load, and answer as they did."""

import json
from pathlib import Path

import kept_estimators
import numpy as np
import pytest

import fastrnn
from fastrnn._base import named_arrays, trees
from fastrnn.anomaly import RNNAnomalyDetector
from fastrnn.forecasting import RNNForecaster

DATA = Path(__file__).parent / "files"
FILES = sorted(path.name for path in DATA.glob("RNN*.npz"))


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_each_version_answers_as_it_did(name):
    """To float32's digits: other instruction sets sum in another order."""
    answers = kept_estimators.answers(fastrnn.load(DATA / name))
    expected = json.loads((DATA / name).with_suffix(".json").read_text("utf-8"))
    assert answers.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_allclose(answers[key], values, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("cls", [RNNForecaster, RNNAnomalyDetector], ids=lambda cls: cls.__name__)
def test_there_is_a_file_of_each_version(cls):
    versions = {int(name.split("-")[1]) for name in FILES if name.startswith(cls.__name__)}
    assert versions == set(range(1, cls._state_version + 1))


def test_errors_of_a_forecaster_of_the_first_version_change_their_sign():
    """Its file holds quantiles of forecasts less values; those of values less forecasts are the same from the end."""
    path = DATA / "RNNForecaster-1-defaults.npz"
    arrays, metadata = named_arrays.read(path)
    kept = trees.rebuild(metadata["state"], arrays)[1]["calibration_"]
    calibration = fastrnn.load(path).calibration_
    np.testing.assert_array_equal(calibration.quantiles, -kept.quantiles[::-1])
    np.testing.assert_array_equal(calibration.paths, -kept.paths)
    assert (np.diff(calibration.quantiles) >= 0).all() and calibration.freedom is None
    interval = fastrnn.load(path).predict(interval=0.9)
    assert (interval.lower < interval.point).all() and (interval.point < interval.upper).all()
