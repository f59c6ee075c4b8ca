"""Base forecasts against plain loops over their equations, and seasons found."""

import numpy as np
import pytest

from fastrnn.forecasting import smoothing
from fastrnn.forecasting.calendar import Clock
from fastrnn.forecasting.seasonality import calendar_seasons, find_seasons, seasons_of
from fastrnn.forecasting.series import Series


def series(T, seed=0, holes=False):
    rng = np.random.default_rng(seed)
    z = 20 + 3 * np.sin(np.arange(T) / 6 * 2 * np.pi) + 0.05 * np.arange(T) + rng.standard_normal(T)
    if holes:
        z[1:][rng.random(T - 1) < 0.15] = np.nan
    return z


def by_a_loop(z, horizon, alpha, beta, phi, kappa, rho, theta, gamma, season):
    """One recursion, number by number."""
    base, m = z[0], season
    level = trend = transient = 0.0
    seasonal, seen = [0.0] * (m or 1), []
    for t, value in enumerate(z):
        if m and t == 2 * m:
            level, trend, seasonal = two_seasons(z, m)
            transient, trend = 0.0, trend if beta else 0.0
        observed = not np.isnan(value)
        if observed:
            seen.append(t)
        n = max(len(seen), 1)
        trend, transient = phi * trend, rho * transient
        level += trend
        if not observed:
            continue
        error = value - base - level - transient - (seasonal[t % m] if m else 0.0)
        trend += max(beta, 6 / (n * (n + 1))) * error if beta and n > 1 else 0
        transient += kappa * error if n > 1 else 0
        level += max(alpha, 2 * (2 * n - 1) / (n * (n + 1)) if beta else 1 / n) * error
        if m and t >= 2 * m:
            seasonal[t % m] += max(gamma, 1 / (max(t // m, 1) + 1)) * error
    slope = np.polyfit(seen, z[seen], 1)[0] if len(seen) > 2 else 0.0
    forecast, damped = [], 0.0
    for k in range(1, horizon + 1):
        damped += phi**k
        season_value = seasonal[(len(z) - 1 + k) % m] if m else 0.0
        forecast.append(base + level + damped * trend + rho**k * transient + season_value
                        + theta * (k - 1 + 1 / max(alpha, 0.05)) * slope)
    return forecast


def two_seasons(z, m):
    """Level, trend and seasonal values from the first two seasons, missing values carried forward."""
    filled = [value - z[0] for value in z[:2 * m]]
    for t in range(1, 2 * m):
        if np.isnan(filled[t]):
            filled[t] = filled[t - 1]
    first, second = np.mean(filled[:m]), np.mean(filled[m:])
    trend = (second - first) / m
    detrended = [filled[t] - (first + second) / 2 - trend * (t - m + 0.5) for t in range(2 * m)]
    return (first + second) / 2 + trend * (m - 0.5), trend, [(detrended[t] + detrended[t + m]) / 2 for t in range(m)]


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("season", [0, 6])
@pytest.mark.parametrize("fine", [False, True])
def test_recursions_are_their_equations(season, holes, fine):
    z, H = [series(60, seed, holes) for seed in range(3)], 8
    z[1] = z[1][20:]
    z[1][0] = 20.0
    groups, parameters = smoothing.grid((season,) if season else (), fine)
    assert {name.split()[0] for name in groups} == ({"ets"} if fine else {"smoothing", "trend", "theta", "decay"})
    table = smoothing.aligned(z)
    state = smoothing.begin(table, parameters)
    forecasts = smoothing.advance(state, parameters, table, H, [50, 60])
    np.testing.assert_array_equal(smoothing.Ahead(parameters, H).forecasts(state), forecasts[1])
    for g in range(0, len(parameters.uses), 17 if fine else 3):
        rates = {name: getattr(parameters, name)[0, g] for name in smoothing.RATES}
        m = season if season and parameters.uses[g, 0] else 0
        gamma = parameters.gamma[0, g, 0] if season else 0.0
        for n, values in enumerate(z):
            for o, cut in enumerate((10, 0)):
                loop = by_a_loop(values[:len(values) - cut], H, **rates, gamma=gamma, season=m)
                np.testing.assert_allclose(forecasts[o, n, g], loop, rtol=1e-9, err_msg=f"{g} {n} {cut}")


def test_a_recursion_with_a_trend_begins_on_the_least_squares_line():
    """With the smallest rates it is the least-squares line through all values."""
    z, parameters = series(40), smoothing.grid((), fine=True)[1]
    slowest = np.flatnonzero((parameters.beta[0] == 1e-9) & (parameters.alpha[0] == 0.02))
    parameters = parameters.some(slice(None), slowest)
    forecasts = smoothing.advance(smoothing.begin(z[None], parameters), parameters, z[None], 5, [6, 20, 40])
    for o, origin in enumerate((6, 20, 40)):
        line = np.polyfit(np.arange(origin), z[:origin], 1)
        np.testing.assert_allclose(forecasts[o, 0, 0], np.polyval(line, origin + np.arange(5)), rtol=1e-6)


@pytest.mark.parametrize("season", [0, 6])
def test_scores_of_one_step_errors_are_their_equation(season):
    """AICc = n log(mean squared error) + 2 k + 2 k (k + 1) / (n - k - 1), the same constant for all of a series."""
    z = series(60, holes=True)
    parameters = smoothing.grid((season,) if season else (), fine=True)[1]
    parameters = parameters.some(slice(None), slice(0, None, 9))
    early, late = smoothing.one_step_scores(z[None], parameters, np.array([45]), np.array([15]))
    forecasts = smoothing.advance(smoothing.begin(z[None], parameters), parameters, z[None], 1, range(1, 60))
    errors = np.concatenate([np.full((1, len(parameters.uses)), np.nan), z[1:, None] - forecasts[:, 0, :, 0]])
    known = 2 + (parameters.beta[0] > 0) + (parameters.phi[0] < 1) + parameters.uses.any(1)
    for scores, stop in ((early, 45), (late, 60)):
        part = errors[15:stop]
        n = np.isfinite(part[:, 0]).sum()
        expected = n * np.log(np.nanmean(part**2, 0)) + 2 * known + 2 * known * (known + 1) / (n - known - 1)
        np.testing.assert_allclose(scores[0] - scores[0, 0], expected - expected[0], rtol=1e-6, atol=1e-6)


def test_naive_members_are_their_equations():
    z, H, m = series(40, holes=True), 7, 5
    origins = [3, 20, 40]
    forecasts = smoothing.naive(z[None], (m,), H, origins)
    assert smoothing.naive_members((m,)) == ["naive", "seasonal naive 5", "drift", "mean", "median"]
    for o, origin in enumerate(origins):
        past = z[:origin]
        seen = np.flatnonzero(~np.isnan(past))
        last = past[seen[-1]]
        drift = (last - past[0]) / max(seen[-1], 1)
        for k in range(1, H + 1):
            source = origin - 1 + k
            while source >= origin:
                source -= m
            known = [t for t in seen if t <= source]
            seasonal = past[known[-1]] if source >= 0 else last
            onwards = last + drift * (origin - 1 - seen[-1] + k)
            expected = [last, seasonal, onwards, np.nanmean(past), np.nanmedian(past)]
            np.testing.assert_allclose(forecasts[o, 0, :, k - 1], expected, rtol=1e-12, err_msg=f"{origin} {k}")


def test_later_values_change_no_earlier_forecast():
    z = series(80)[None]
    changed = z.copy()
    changed[:, 50:] = -1e3
    _, parameters = smoothing.grid((6,))
    a, b = (smoothing.advance(smoothing.begin(values, parameters), parameters, values, 4, range(20, 51))
            for values in (z, changed))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(*(smoothing.naive(values, (6,), 4, range(20, 51)) for values in (z, changed)))


# ---- Seasons --------------------------------------------------------------------------------------

@pytest.mark.parametrize("step, expected", [
    (np.timedelta64(1, "h"), [24, 168, 8766]), (np.timedelta64(30, "m"), [2, 48, 336, 17532]),
    (np.timedelta64(1, "D"), [7, 365]), (np.timedelta64(7, "D"), [52]), (np.timedelta64(1, "M"), [12]),
    (np.timedelta64(3, "M"), [4])])
def test_seasons_of_the_calendar(step, expected):
    start = np.datetime64("2024-01-01", "M" if np.datetime_data(step.dtype)[0] == "M" else "m")
    clock, _ = Clock.of((start + np.arange(40) * step).astype("datetime64[us]"))
    assert calendar_seasons(clock) == expected


@pytest.mark.parametrize("period", [7, 12, 24])
def test_a_season_is_found(period):
    rng, t = np.random.default_rng(0), np.arange(400)
    z = 10 + np.sin(t / period * 2 * np.pi) + 0.5 * rng.standard_normal(400) + 0.01 * t
    assert seasons_of(z, None) == (period,)


def test_two_seasons_are_found():
    t = np.arange(1500)
    z = 5 * np.sin(t / 24 * 2 * np.pi) + 5 * (t // 24 % 7 < 5) + np.random.default_rng(0).standard_normal(1500)
    assert seasons_of(z, None) == (24, 168)


def test_where_there_is_no_season_none_is_found():
    rng = np.random.default_rng(0)
    assert [seasons_of(rng.standard_normal(600), None) for _ in range(10)] == [()] * 10
    assert [seasons_of(rng.standard_normal(600).cumsum(), None) for _ in range(10)] == [()] * 10
    assert seasons_of(np.full(100, 0.1) * 3, None) == seasons_of(np.arange(2.0), None) == ()


def panel(rows):
    """Series without times, and their values."""
    values = [np.asarray(row, np.float64) for row in rows]
    none = {"past": np.zeros((1, 0)), "known": np.zeros((1, 0))}
    return [Series(y, **none) for y in values], values


def test_seasons_that_a_part_of_a_panel_has_are_found():
    """A short season in all series, and a long one that only a third shows by itself, as hours have days and weeks."""
    rng, t = np.random.default_rng(0), np.arange(28 * 12)
    short, long = np.sin(t / 4 * 2 * np.pi + 0.5), rng.standard_normal(28)[t % 28]
    rows = [10 + 2 * short + (1.5 if n % 3 == 0 else 0.0) * long + rng.standard_normal(len(t)) for n in range(30)]
    assert sum(28 in seasons_of(row, None) for row in rows) < 12
    assert find_seasons(*panel(rows)) == (4, 28)
    assert find_seasons(*panel([rng.standard_normal(len(t)) for _ in range(23)] + rows[:7])) == (4,)


def test_a_season_of_one_series_in_four_is_found():
    rng, t = np.random.default_rng(0), np.arange(260)
    rows = [rng.standard_normal(260).cumsum() + (8 * np.sin(t / 52 * 2 * np.pi) if n % 4 == 0 else 0)
            for n in range(40)]
    assert find_seasons(*panel(rows)) == (52,)
    assert find_seasons(*panel([rng.standard_normal(260).cumsum() for _ in range(40)])) == ()
