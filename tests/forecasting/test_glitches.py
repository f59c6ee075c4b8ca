"""Wild values and codes for missing values, in fit, update and streams; and values that are missing at the end."""

import pickle
import warnings

import numpy as np
import pytest
from forecasters import fitted, wave

from fastrnn.forecasting import RNNForecaster

FAST = {"horizon": 4, "updates": 40, "hidden_size": 4, "seasons": 12, "random_state": 0}
Y = wave(150)


# ---- Codes for missing values ---------------------------------------------------------------------

@pytest.mark.parametrize("code", [-999, -9999, 99999, -32768, 1e20])
def test_a_code_in_many_rows_is_missing(code):
    y = Y.copy()
    y[[5, 40, 41, 42, 43, 44, 90]] = code
    with pytest.warns(UserWarning, match=r"stands in 7 rows, the first is row 5"):
        model = RNNForecaster(**FAST, blend=["smoothing"]).fit(y)
    assert [row for _, row in model.choice_.left_out] == [5, 40, 41, 42, 43, 44, 90]
    assert len(model.summary().splitlines()) == 2 + 5 + 1         # five rows are named, and how many more there are
    y[y == code] = np.nan
    np.testing.assert_array_equal(model.predict(), RNNForecaster(**FAST, blend=["smoothing"]).fit(y).predict())


@pytest.mark.parametrize("y", [
    np.where(np.arange(150) % 10 == 3, 5000.0, Y),                  # no code
    np.where(np.arange(150) % 3 > 0, 999.0, Y),                     # most values
    np.where(np.arange(150) % 10 == 3, 999.0, 60 * Y),              # not far from the others
    np.where(np.arange(150) % 10 == 3, 999.0, 5.0)])                # the others do not vary
def test_what_only_looks_like_a_code_stays(y):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert RNNForecaster(**FAST, blend=["naive"]).fit(y).choice_.left_out == ()


def test_a_code_beside_a_glitch():
    y = Y.copy()
    y[[5, 50]], y[80] = -999, 1e9
    with pytest.warns(UserWarning, match="row") as caught:
        model = RNNForecaster(**FAST, blend=["naive"]).fit(y)
    assert len(caught) == 2
    assert [row for _, row in model.choice_.left_out] == [5, 50, 80]


# ---- Rows that follow -----------------------------------------------------------------------------

def test_codes_among_new_rows_are_left_out():
    model = RNNForecaster(**FAST, blend=["smoothing"]).fit(Y[:120])
    new = Y[120:].copy()
    new[3:9] = -9999
    with pytest.warns(UserWarning, match="stands in 6 rows, the first is row 123"):
        model.update(new)
    assert np.abs(model.predict() - wave(154)[150:]).max() < 1


def streams():
    """Streams of a blend, and of a network alone."""
    return [RNNForecaster(**FAST, blend=["smoothing", "linear"]).fit(Y[:120]).stream(interval=0.8),
            fitted(Y[:120], updates=20).stream()]


@pytest.mark.parametrize("values", [[1e9], [-9999.0] * 6, [1e9, -1e9, 1e9]], ids=["one", "a code", "three"])
@pytest.mark.parametrize("number", [0, 1], ids=["blend", "network"])
def test_a_stream_leaves_wild_values_out(number, values):
    stream, twin = streams()[number], streams()[number]
    for value in values:
        with pytest.warns(UserWarning, match="it is left out as missing"):
            forecast = stream.step(value)
        np.testing.assert_array_equal(forecast, twin.step(None))
    np.testing.assert_array_equal(stream.step(Y[126]), twin.step(Y[126]))


@pytest.mark.filterwarnings("ignore:value")
def test_a_stream_takes_the_fourth_wild_value_in_a_row():
    stream = streams()[0]
    for _ in range(3):
        assert stream.step(5000.0)[0] < 20
    assert stream.step(5000.0)[0] > 100
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream.step(5001.0)


@pytest.mark.filterwarnings("ignore:value")
def test_wild_values_far_from_each_other_are_left_out_each():
    stream = pickle.loads(pickle.dumps(streams()[0]))
    for value in Y[120:150]:
        stream.step(value)
        assert stream.step(5000.0).max() < 30
    stream.restore(stream.snapshot())
    assert stream.step(5000.0).max() < 30


@pytest.mark.parametrize("y", [np.arange(11.0), np.where(np.arange(60) % 9 == 2, 3.0, 0.0), np.full(40, 5.0)],
                         ids=["short", "intermittent", "constant"])
def test_a_stream_that_cannot_tell_takes_all(y):
    stream = RNNForecaster(**FAST, blend=["naive"]).fit(y).stream()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert stream.step(1e6)[0] == 1e6


def test_a_series_that_grows_moves_the_bounds():
    stream = RNNForecaster(**FAST, blend=["naive"]).fit(Y).stream()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in 10.0 ** np.arange(2, 12):
            assert stream.step(value)[0] == value


# ---- Values that are missing at the end -----------------------------------------------------------

def test_a_gap_at_the_end_does_not_keep_the_blend_from_being_judged():
    y = wave(200)
    y[150:] = np.nan
    model = RNNForecaster(**FAST).fit(y)
    assert model.choice_.origins > 10
    assert np.abs(model.predict() - wave(204)[200:]).max() < 1
    assert np.abs(model.stream().forecast - model.predict()).max() < 1e-4


def test_intervals_and_samples_after_a_gap_are_as_wide_as_so_many_steps_ahead():
    walk = np.random.default_rng(0).standard_normal(150).cumsum()
    late = np.concatenate([walk, np.full(20, np.nan)])
    model = RNNForecaster(**FAST, blend=["naive"]).fit([late, walk[:140]])
    first, second = (model.predict(interval=0.8).upper - model.predict(interval=0.8).lower)
    np.testing.assert_allclose(first[0], (lambda p: p.upper - p.lower)(
        RNNForecaster(**FAST, blend=["naive"]).fit([walk, walk[:140]]).predict(21, interval=0.8))[0, -1], rtol=1e-6)
    assert first[0] > 2 * second[0]
    assert model.predict(samples=300).std(0)[0, 0] > 2 * model.predict(samples=300).std(0)[1, 0]
