"""benchmarks/series.py: its measures against plain loops, the kinds, the shapes of the sets where they are there."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def series():
    """The script as a module; it imports its neighbours by name, as scripts do."""
    sys.path.insert(0, str(FOLDER))
    try:
        import series
    finally:
        sys.path.remove(str(FOLDER))
    return series


def test_seasonal_naive_repeats_the_last_season(series):
    past = np.arange(10.0)
    assert series.seasonal_naive(past, 7, 3).tolist() == [7, 8, 9, 7, 8, 9, 7]
    assert series.seasonal_naive(past, 3, 1).tolist() == [9, 9, 9]
    assert series.seasonal_naive(past[:2], 3, 4).tolist() == [0, 0, 0]        # no season there: the first value


def test_error_in_units_of_the_series_against_a_loop(series):
    rng = np.random.default_rng(0)
    point, truth = rng.random((2, 4, 3, 5))         # 4 origins, 3 series, 5 steps
    units = np.array([1.0, 10.0, 0.1])
    total = 0.0
    for o in range(4):
        for n in range(3):
            for k in range(5):
                total += abs(point[o, n, k] - truth[o, n, k]) / units[n]
    assert series.scaled_error(point, truth, units) == pytest.approx(total / 60)


def test_unit_is_the_mean_seasonal_difference(series):
    assert series.unit(np.array([1.0, 5.0, 2.0, 9.0]), 2) == pytest.approx((1 + 4) / 2)
    assert series.unit(np.array([1.0, 5.0]), 12) == 4                         # shorter than a season: the plain one
    with pytest.raises(ValueError, match="does not change"):
        series.unit(np.ones(30), 12)


def test_share_held_against_a_loop(series):
    rng = np.random.default_rng(1)
    truth = rng.standard_normal((6, 2, 4))
    intervals = np.sort(rng.standard_normal((6, 2, 3, 2, 4)), axis=3)
    counts = series.held(intervals, truth)
    for level in range(3):
        for k in range(4):
            expected = sum(intervals[o, n, level, 0, k] <= truth[o, n, k] <= intervals[o, n, level, 1, k]
                           for o in range(6) for n in range(2))
            assert counts[level, k] == expected


def test_forecasts_that_do_not_overlap(series):
    # 9 forecasts 6 steps apart of one series: one step ahead all are apart, twelve ahead every other one
    assert series.apart(9, 1, 12, 6).tolist() == [9] * 6 + [7, 6, 6, 5, 4, 4]
    assert series.apart(2, 5, 3, 3).tolist() == [10, 10, 10]


def test_coverage_of_exact_and_of_wrong_intervals(series):
    exact = series.coverage([[500, 500], [800, 800], [950, 950]], 1000, np.array([1000, 1000]))
    assert exact["near"] == 1 and exact["largest"] == 0
    wrong = series.coverage([[500, 600], [800, 840], [950, 850]], 1000, np.array([1000, 1000]))
    assert wrong["near"] == pytest.approx(4 / 6) and wrong["largest"] == pytest.approx(0.1)
    assert wrong["mean"] == pytest.approx([0.55, 0.82, 0.9])
    assert 0.99 < exact["exact near"] <= 1 and 0.01 < exact["exact largest"] < 0.05
    few = series.coverage([[5, 5], [8, 8], [9, 9]], 10, np.array([10, 10]))
    assert few["exact near"] < 0.7 and few["exact largest"] > 0.1             # noise alone is large


def test_coverage_of_all_sets_is_of_the_sums(series):
    def of_set(held, total):
        return {"seeds": {"0": {"held": held, "coverage": {"forecasts": total}}}}
    short = of_set([[60], [90], [100]], 120)
    long = of_set([[40, 50], [70, 80], [90, 95]], 100)
    result = series.all_together({"short": short, "long": long})
    assert result["shares"] == pytest.approx(np.array([[100 / 220, 0.5], [160 / 220, 0.8], [190 / 220, 0.95]]))


def test_ratio_is_to_the_best_of_the_simple_methods(series):
    peers = {"seasonal naive": {"error": [2.0]}, "AutoETS": {"error": [1.0]}, "AutoTheta": {"error": [1.6]}}
    of_set = {"peers": peers, "seeds": {"0": {"error": 1.1}, "1": {"error": 0.9}}}
    assert series.ratios(of_set) == pytest.approx([1.1, 0.9])
    assert series.geometric_mean([2.0, 0.5]) == pytest.approx(1)


def test_kinds_are_the_same_series_every_time(series):
    for name, kind in series.KINDS.items():
        first, again = series.series_of(name, 3), series.series_of(name, 2)
        assert all(np.array_equal(a, b) for a, b in zip(again, first[:2], strict=True))
        assert len(first) == 3 and all(len(y) == series.LENGTH and np.isfinite(y).all() for y in first)
        assert not np.array_equal(first[0], first[1]) and kind.target in (0.9, 1.05)
    assert (series.series_of("intermittent", 5)[0] >= 0).all()


@pytest.mark.slow
def test_every_set_loads_what_it_says(series):
    names = [entry.name for entry in series.SETS]
    assert len(set(names)) == len(names) >= 12
    there = [entry for entry in series.SETS if importlib.util.find_spec(entry.package)]
    if not there:
        pytest.skip("none of the packages that ship the sets is installed")
    for entry in there:
        members = entry.load()
        assert 1 <= len(members) <= 24, entry.name
        for y in members:
            assert y.dtype == np.float64 and np.isfinite(y).all(), entry.name
            assert len(y) >= entry.horizon * entry.origins + 5, entry.name


@pytest.mark.slow
def test_measured_kind_has_what_the_tables_show(series, capsys):
    result = series.measure_kind("noise", 0, 1)
    assert result["ratio"] == pytest.approx(result["error"] / min(result["naive"].values()))
    assert np.shape(result["coverage"]["shares"]) == (3, 12) and result["coverage"]["forecasts"] == 9
    series.show_kinds({"noise": {"0": result}})
    assert f"{result['ratio']:.3f}" in capsys.readouterr().out
