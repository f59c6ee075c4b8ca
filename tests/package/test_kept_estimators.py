"""Files of forecasters and detectors of every version so far load, and answer as they did."""

import json
from pathlib import Path

import kept_estimators
import numpy as np
import pytest

import fastrnn
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
