"""Pictures of forecasts, backtests and trainings: what is drawn, where, and what is written beside it."""

import sys

import numpy as np
import pytest
from forecasters import SMALL, fitted, wave

from fastrnn.forecasting import RNNForecaster
from fastrnn.training import History

matplotlib = pytest.importorskip("matplotlib")
from matplotlib.dates import ConciseDateFormatter, num2date  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

Y = wave(90)
TIMES = np.datetime64("2024-01-31T05") + np.arange(90) * np.timedelta64(1, "h")


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def lines(ax):
    """(x, y) of each line by its label."""
    return {line.get_label(): tuple(map(np.asarray, line.get_data())) for line in ax.get_lines()}


def rendered(ax):
    """Draw the figure, so that what matplotlib refuses is seen; the share of pixels that are not white."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    canvas = FigureCanvasAgg(ax.figure)
    canvas.draw()
    return np.mean(np.asarray(canvas.buffer_rgba())[..., :3].min(-1) < 250)


def dates(values):
    return [num2date(value).strftime("%m-%d %H") for value in matplotlib.dates.date2num(values)]


# ---- Forecasts ------------------------------------------------------------------------------------

def test_a_forecast_goes_on_from_the_last_value():
    model = fitted(Y)
    ax = model.plot(past=30)
    drawn = lines(ax)
    assert legend(ax) == ["values", "forecast", "80 % interval"] and 0.01 < rendered(ax) < 0.5
    assert legend(model.plot(interval=0)) == ["values", "forecast"]
    assert drawn["values"][0].tolist() == list(range(60, 90)) and drawn["values"][1].tolist() == Y[60:].tolist()
    x, y = drawn["forecast"]
    assert x.tolist() == [89, 90, 91, 92, 93] and y[0] == Y[-1] and np.array_equal(y[1:], model.predict())
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("Forecast", "step", "value")
    low, high = ax.get_xlim()
    assert low < 60 and 93 < high < 95


def test_times_on_the_axis_and_the_band_of_an_interval():
    model = fitted([Y], times=[TIMES])
    ax = model.plot(interval=0.95)
    assert legend(ax) == ["values", "forecast", "95 % interval"] and ax.get_xlabel() == "time"
    assert isinstance(ax.xaxis.get_major_formatter(), ConciseDateFormatter)
    rendered(ax)
    drawn = lines(ax)
    assert drawn["forecast"][0][-1] == TIMES[-1] + np.timedelta64(4, "h")
    band, = ax.collections
    lower, _, upper = (values[0] for values in model.predict(interval=0.95))
    corners = band.get_paths()[0].vertices
    assert np.isclose(corners[:, 1].max(), max(upper.max(), Y[-1]))
    assert np.isclose(corners[:, 1].min(), min(lower.min(), Y[-1]))
    assert "2024" in ax.xaxis.get_major_formatter().get_offset()


def test_known_columns_and_more_steps_than_the_horizon():
    X = np.random.default_rng(0).standard_normal((90, 2))
    model = fitted(Y, X=X)
    ahead = np.zeros((4, 2))
    assert np.array_equal(lines(model.plot(ahead))["forecast"][1][1:], model.predict(ahead))
    model = fitted(Y, quantiles=0.1)
    ax = model.plot(11)
    assert len(lines(ax)["forecast"][0]) == 12 and np.array_equal(lines(ax)["forecast"][1][1:], model.predict(11))


def test_missing_values_are_gaps_and_a_value_alone_is_a_point():
    y = Y.copy()
    y[[80, 82, 89]] = np.nan
    ax = fitted(y).plot(past=20)
    drawn = lines(ax)
    assert np.flatnonzero(np.isnan(drawn["values"][1])).tolist() == [10, 12, 19]
    points, = (line for line in ax.get_lines() if line.get_marker() == ".")
    assert points.get_xdata().tolist() == [81] and points.get_ydata().tolist() == [y[81]]
    assert drawn["forecast"][0].tolist() == [90, 91, 92, 93]        # no value to go on from


def test_a_series_of_a_frame_by_its_name():
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("narwhals")
    frame = pandas.DataFrame({"t": np.tile(TIMES, 2), "shop": ["a"] * 90 + ["b"] * 90, "sales": np.r_[Y, 2 * Y]})
    model = RNNForecaster(**SMALL, target="sales", time="t", series="shop").fit(frame)
    ax = model.plot(series="b")
    assert ax.get_title() == "Forecast of b" and ax.get_ylabel() == "sales" and ax.get_xlabel() == "time"
    forecast = model.predict()
    assert np.array_equal(lines(ax)["forecast"][1][1:], forecast.sales[forecast.shop == "b"])
    wide = RNNForecaster(**SMALL, target=["x", "y"], time="t").fit(
        pandas.DataFrame({"t": TIMES, "x": Y, "y": 2 * Y})).plot(series=1)
    assert wide.get_ylabel() == "y" and lines(wide)["values"][1][-1] == 2 * Y[-1]


def test_axes_of_ones_own():
    figure = Figure()
    first, second = figure.subplots(2)
    assert fitted(Y).plot(ax=second) is second and not first.get_lines()
    assert "matplotlib.pyplot" not in sys.modules or not matplotlib.pyplot.get_fignums()


def test_what_a_plot_refuses():
    model = fitted(Y)
    with pytest.raises(ValueError, match="series: expected 0 to 0, got 1"):
        model.plot(series=1)
    with pytest.raises(ValueError, match="past: expected"):
        model.plot(past=0)
    with pytest.raises(ValueError, match="not fitted"):
        RNNForecaster().plot()


# ---- Backtests ------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def backtest():
    model = RNNForecaster(**{**SMALL, "seasons": 12}, quantiles=(0.1, 0.9))
    return model.fit(Y[:60], times=TIMES[:60]).backtest(Y, times=TIMES, start=-30, stride=2, refit=False)


def test_a_backtest_draws_every_forecast_over_the_values(backtest):
    ax = backtest.plot()
    assert legend(ax) == ["values", "forecasts", "10 to 90 %"] and 0.02 < rendered(ax) < 0.5
    values, forecasts = lines(ax)["values"], [line for line in ax.get_lines() if line.get_color() == "C0"]
    assert np.array_equal(values[0], TIMES[60:]) and np.array_equal(values[1], Y[60:])
    assert len(forecasts) == len(backtest.forecasts) == 14
    for n, line in enumerate(forecasts):
        assert np.array_equal(line.get_ydata(), backtest.forecasts[n])
        assert line.get_xdata()[0] == TIMES[backtest.origins[n]]
    errors = backtest.scores()
    assert ax.get_title() == (f"Backtest: MAE {errors['forecast']['MAE']:.3g} (naive {errors['naive']['MAE']:.3g}, "
                              f"seasonal naive 12 {errors['seasonal naive 12']['MAE']:.3g})")
    assert ax.get_xlabel() == "time" and isinstance(ax.xaxis.get_major_formatter(), ConciseDateFormatter)


def test_a_backtest_so_many_steps_ahead(backtest):
    ax = backtest.plot(ahead=3)
    assert legend(ax) == ["values", "naive", "seasonal naive 12", "forecasts 3 steps ahead", "10 to 90 %"]
    x, y = lines(ax)["forecasts 3 steps ahead"]
    assert np.array_equal(y, backtest.forecasts[:, 2]) and np.array_equal(x, TIMES[backtest.origins + 2])
    assert np.array_equal(lines(ax)["naive"][1], backtest.others["naive"][:, 2])
    assert rendered(ax) > 0.01
    assert "forecasts 1 step ahead" in legend(backtest.plot(ahead=1))
    for ahead in (0, 5):
        with pytest.raises(ValueError, match="ahead: expected"):
            backtest.plot(ahead=ahead)


def test_one_series_of_many_without_times():
    test = RNNForecaster(**{**SMALL, "horizon": 1}).backtest([Y, 2 * Y], start=-20)
    ax = test.plot(1)
    assert np.array_equal(lines(ax)["values"][1], 2 * Y[70:]) and ax.get_xlabel() == "step"
    assert lines(ax)["values"][0].tolist() == list(range(70, 90))
    assert sum(line.get_marker() == "." for line in ax.get_lines()) == 20       # a line of one point does not show
    with pytest.raises(ValueError, match="series: expected 0 to 1, got 2"):
        test.plot(2)
    with pytest.raises(ValueError, match="series: expected 0 to 1, got 'b'"):
        test.plot("b")


# ---- Trainings ------------------------------------------------------------------------------------

def test_a_history_has_whole_epochs_and_a_title():
    ax = History({"loss": [3.0, 2.0, 1.5], "validation_loss": [3.0, 1.0, 2.0]}).plot()
    assert legend(ax) == ["training", "validation", "best"]
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("Training", "epoch", "loss")
    rendered(ax)
    assert all(float(tick).is_integer() for tick in ax.get_xticks())
    assert lines(ax)["best"][0][0] == 2


def test_without_matplotlib(monkeypatch, backtest):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for draw in (fitted(Y, updates=1).plot, backtest.plot, History({"loss": [1.0]}).plot):
        with pytest.raises(ImportError, match=r"needs matplotlib: pip install fastrnn\[plot\]"):
            draw()
