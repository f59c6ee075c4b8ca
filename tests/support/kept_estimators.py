"""Makes the files of forecasters and detectors that the tests keep, one of each version, and what these answer.

    python tests/support/kept_estimators.py tests/package/files      # writes files of the present version

Files of earlier versions stay as they were written. Run it when `_state_version` of an estimator has grown. Where the
new version answers otherwise on purpose, the answers of the earlier files (JSON) are written anew, and looked at: so
were those of the detector's version 1, whose rows are judged by the rules of version 2.
"""

import json
import sys
from pathlib import Path

import numpy as np

from fastrnn.anomaly import RNNAnomalyDetector
from fastrnn.forecasting import RNNForecaster


def series(count=80):
    """A season of 12 steps, a trend and noise, of a generator that will not change."""
    noise = np.random.RandomState(0).standard_normal(count)
    return 10 + 3 * np.sin(np.arange(count) * 2 * np.pi / 12) + 0.02 * np.arange(count) + 0.2 * noise


def rows(count=160):
    """Two channels, a spike in the last twenty rows."""
    x = np.stack([series(count), series(2 * count)[count:]], 1)
    x[count - 8, 1] += 8
    return x


def forecasters():
    """Fitted forecasters by name."""
    times = np.datetime64("2024-01-31") + np.arange(80) * np.timedelta64(1, "D")
    small = {"horizon": 3, "window": 12, "hidden_size": 3, "updates": 20, "random_state": 0}
    yield "plain", RNNForecaster(**small, seasons=12).fit(series())
    yield "quantiles", RNNForecaster(**small, quantiles=(0.1, 0.9), time_features="week").fit(
        [series(), 2 * series()[:70]], times=[times, times[:70]])
    yield "defaults", RNNForecaster(horizon=3, random_state=0).fit(series())
    kinds = np.array([[f"kind {n}"] for n in range(34)])            # too many for one column each: learnt vectors
    yield "embeddings", RNNForecaster(**small, blend=False).fit([series(30) * (1 + n % 5) for n in range(34)],
                                                               static=kinds)


def answers(estimator):
    """What an estimator says of what comes next, for comparison; it is changed by that."""
    if isinstance(estimator, RNNForecaster):
        stream = estimator.stream()
        steps = [stream.step(value).tolist() for value in series(5)]
        return {"predict": estimator.predict(7).tolist(), "stream": steps}
    scores = []
    for row in rows()[140:].tolist():
        scores.append(estimator.score_one(row))
        estimator.learn_one(row)
    return {"scores": scores}


def main(folder):
    estimators = [*forecasters(), ("plain", RNNAnomalyDetector(hidden_size=3, refractory=10, random_state=0).fit(
        rows()[:140]))]
    for name, estimator in estimators:
        path = Path(folder) / f"{type(estimator).__name__}-{estimator._state_version}-{name}.npz"
        estimator.save(path)
        path.with_suffix(".json").write_text(json.dumps(answers(type(estimator).load(path))) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
