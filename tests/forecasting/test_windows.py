"""Windows that are encoded when a minibatch needs them: the bits of the encoding of whole series, and little memory."""

import numpy as np
import pytest
from child import python
from forecasters import wave

from fastrnn.forecasting.encoding import Encoding
from fastrnn.forecasting.series import Layout, read
from fastrnn.forecasting.windows import BLOCK, Prepared, WindowData, judged_windows, training_windows, window_starts

LENGTHS = [300, 50, 7, 2 * BLOCK, BLOCK + 1, 500, 20]


def holed(y, part, seed):
    y = y.copy()
    y[1:][np.random.default_rng(seed).random(len(y) - 1) < part] = np.nan
    return y


SERIES = {
    "whole": [wave(T, seed=T) for T in LENGTHS],
    "holed": [holed(wave(T, seed=T), 0.3, T) for T in LENGTHS],
    "long gap": [np.where((np.arange(T) > 60) & (np.arange(T) < 200), np.nan, wave(T, seed=T)) for T in LENGTHS],
    "constant parts": [np.r_[np.full(80, 3.0), wave(200)], np.r_[wave(100), np.full(60, 2.0)], np.full(50, 1.0)]}
OPTIONS = {
    "plain": {}, "season": {"seasons": (12, 30), "difference": 12},
    "short difference": {"difference": 3, "seasons": (3,)}, "level": {"difference": 0},
    "mean": {"scaling": "mean"}, "unscaled": {"scaling": None},
    "log": {"log": True, "seasons": (7,)}, "log mean": {"log": True, "scaling": "mean"}}


def panel(name, **columns):
    return read(columns.get("X"), SERIES[name], columns.get("past"), columns.get("times"), Layout()).series


def encoding_of(series, horizon=6, window=12, **options):
    options = {"log": False, "scaling": "std", "difference": 1, "seasons": (), "time_features": ()} | options
    return Encoding(horizon, window, series=series, **options)


def expected(series, encoding, length, ends):
    """Start, inputs and targets of every window of whole encodings that has something to learn."""
    for n, (each, end) in enumerate(zip(series, ends, strict=True)):
        encoded = encoding.encode(each)
        y = encoding.targets(encoded, each, min(encoding.window, len(each) // 2) - 1)
        y[np.arange(len(each))[:, None] + np.arange(1, encoding.horizon + 1) >= end] = np.nan
        for start in window_starts(end, length):
            part = slice(start, min(start + length, end))
            if not np.isnan(y[part]).all():
                yield n, start, encoded.x[part], y[part]


@pytest.mark.parametrize("held", [0, 6])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", SERIES)
def test_windows_have_the_bits_of_the_whole_series(name, options, held):
    series, length = panel(name), 24
    encoding, ends = encoding_of(series, **options), [len(each) - held for each in series]
    windows = training_windows(Prepared(series, encoding), length, ends)
    results = list(expected(series, encoding, length, ends))
    assert [(n, start) for n, start, _, _ in results] == [tuple(row) for row in windows.bounds[:, :2].tolist()]
    x, y = windows.encode(np.arange(len(windows)))
    for row, (_, _, inputs, targets) in enumerate(results):
        np.testing.assert_array_equal(x[row, :len(inputs)], inputs)
        np.testing.assert_array_equal(y[row, :len(targets)], targets)
        assert not x[row, len(inputs):].any() and not y[row, len(targets):].any()


def test_columns_and_times_of_windows():
    rng = np.random.default_rng(0)
    times = [np.datetime64("2024-01-01") + np.arange(T) * np.timedelta64(1, "h") for T in LENGTHS]
    known, past = ([rng.standard_normal((T, 2)) for T in LENGTHS] for _ in range(2))
    series = panel("holed", X=known, past=past, times=times)
    encoding, ends = encoding_of(series, time_features=("day", "week")), [len(each) for each in series]
    windows = training_windows(Prepared(series, encoding), 24, ends)
    x, _ = windows.encode(np.arange(len(windows)))
    for row, (_, _, inputs, _) in enumerate(expected(series, encoding, 24, ends)):
        np.testing.assert_array_equal(x[row, :len(inputs)], inputs)


def test_judged_windows_end_with_the_last_origin():
    series = panel("whole")
    encoding, ends = encoding_of(series), [len(each) - 12 for each in series]
    origins = [[end, end + 6] if end > 0 else [] for end in ends]
    windows = judged_windows(Prepared(series, encoding), 24, ends, origins)
    x, y = windows.encode(np.arange(len(windows)))
    counts = windows.counts(np.arange(len(windows)))
    for row, (n, start, stop, _) in enumerate(windows.bounds.tolist()):
        encoded = encoding.encode(series[n])
        assert stop == ends[n] + 6 and counts[row].sum() == 2 and counts[row, stop - start - 1]
        np.testing.assert_array_equal(x[row, :stop - start], encoded.x[start:stop])
        targets = encoding.targets(encoded, series[n], min(encoding.window, len(series[n]) // 2) - 1)
        np.testing.assert_array_equal(y[row, :stop - start], targets[start:stop])


def test_data_kept_and_encoded_when_needed_are_the_same(monkeypatch):
    series = panel("whole")
    encoding = encoding_of(series, seasons=(12,))
    windows = training_windows(Prepared(series, encoding), 24, [len(each) for each in series])
    kept = WindowData(windows)
    monkeypatch.setattr("fastrnn.forecasting.windows.KEPT", 0)
    lazy = WindowData(windows)
    assert kept.kept is not None and lazy.kept is None
    rows = np.array([5, 0, len(windows) - 1])
    for a, b in zip(kept.take(rows), lazy.take(rows), strict=True):
        np.testing.assert_array_equal(a, b)


def test_memory_is_a_few_times_that_of_the_data():
    used = python("""
        import resource
        import numpy as np
        from fastrnn.forecasting import RNNForecaster
        count, t = 3000, np.arange(500)
        y = [(1 + n % 7) * (10 + np.sin(t / 24 * 2 * np.pi)) for n in range(count)]
        model = RNNForecaster(horizon=24, window=48, seasons=24, updates=5, blend=False, random_state=0)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        model.fit(y)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / count)
    """, prelude="")
    assert float(used) < 16             # KiB a series of 4 KiB: the panel's copy, and what a minibatch needs
