"""Pictures of anomaly scores: what is drawn, where, and what is written beside it."""

import sys

import numpy as np
import pytest

from fastrnn.anomaly import RNNAnomalyDetector

matplotlib = pytest.importorskip("matplotlib")
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.dates import ConciseDateFormatter  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402


def series(channels):
    x = np.sin(np.arange(600)[:, None] / (6 + 5 * np.arange(channels)))
    x += 0.05 * np.random.default_rng(0).standard_normal(x.shape)
    x[500, channels - 1] += 4
    return x


@pytest.fixture(scope="module")
def two():
    return RNNAnomalyDetector(hidden_size=8, refractory=20, random_state=0).fit(series(2)[:400])


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_values_above_scores_with_outliers_where_they_are(two):
    rows = series(2)[400:]
    values, scores = two.plot(rows)
    FigureCanvasAgg(values.figure).draw()
    assert np.array_equal(scores.get_lines()[0].get_ydata(), -two.score_samples(rows))
    for n in range(2):
        assert np.array_equal(values.get_lines()[n].get_ydata(), rows[:, n])
    marks = values.get_lines()[2]
    outliers = np.flatnonzero(two.predict(rows) == -1)
    assert 100 in outliers and np.array_equal(marks.get_xdata(), outliers)
    at = outliers.tolist().index(100)
    assert marks.get_ydata()[at] == rows[100, 1]            # in the channel that is to blame
    assert legend(values) == ["channel 0", "channel 1", "outliers"] and legend(scores) == ["score", "threshold"]
    assert set(scores.get_lines()[1].get_ydata()) == {-two.offset_}
    assert values.get_title() == f"{len(outliers)} outlier{'s' * (len(outliers) > 1)} in 200 rows"
    assert (scores.get_xlabel(), values.get_ylabel()) == ("row", "value")
    assert scores.get_ylabel() == "anomaly score: -log10 p"
    assert np.array_equal(two.score_samples(rows), two.score_samples(rows))     # a picture changes nothing


def test_names_and_times():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(series(1), columns=["load"])
    times = np.datetime64("2024-02-28T00") + np.arange(200) * np.timedelta64(1, "h")
    detector = RNNAnomalyDetector(hidden_size=8, random_state=0).fit(frame[:400])
    for each in (times, times.astype(str), pandas.DatetimeIndex(times), times.astype(object)):
        values, scores = detector.plot(frame[400:], times=each)
        assert values.get_ylabel() == "load" and scores.get_xlabel() == "time"
        assert isinstance(scores.xaxis.get_major_formatter(), ConciseDateFormatter)
        FigureCanvasAgg(values.figure).draw()
        assert scores.get_lines()[0].get_xdata()[-1] == times[-1]
    for wrong in (times[:-1], np.arange(200)):
        with pytest.raises(ValueError, match="times: expected 200 dates or times"):
            detector.plot(frame[400:], times=wrong)


def test_panels_of_ones_own(two):
    panels = Figure().subplots(2, 1)
    assert two.plot(series(2)[400:], ax=panels) == tuple(panels)
    with pytest.raises(ValueError, match="ax: expected two panels"):
        two.plot(series(2)[400:], ax=panels[0])


def test_many_channels_have_a_short_legend():
    x = np.random.default_rng(0).standard_normal((120, 30))
    values, _ = RNNAnomalyDetector(hidden_size=4, random_state=0).fit(x[:60]).plot(x[60:])
    assert legend(values)[:10] == [f"channel {n}" for n in range(10)] and len(legend(values)) <= 11


def test_without_matplotlib(monkeypatch, two):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"needs matplotlib: pip install fastrnn\[plot\]"):
        two.plot(series(2)[400:])
