"""The estimators in scikit-learn's searches, cross-validation and pipelines, and how they look in a notebook."""

import html.parser
import sys

import numpy as np
import pytest

from fastrnn.anomaly import RNNAnomalyDetector
from fastrnn.forecasting import RNNForecaster

sklearn = pytest.importorskip("sklearn")
from sklearn.base import clone  # noqa: E402
from sklearn.compose import TransformedTargetRegressor  # noqa: E402
from sklearn.model_selection import (  # noqa: E402
    GridSearchCV,
    RandomizedSearchCV,
    TimeSeriesSplit,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

T = np.arange(300)
WAVE = 50 + 10 * np.sin(T * 2 * np.pi / 24) + np.random.default_rng(0).standard_normal(300)
X = np.stack([np.sin(T * 2 * np.pi / 24), np.cos(T * 2 * np.pi / 24)], 1)
CV = TimeSeriesSplit(2, test_size=12)
OPTIONS = {"horizon": 12, "window": 24, "hidden_size": 4, "updates": 20, "random_state": 0}


def forecaster(**options):
    return RNNForecaster(**{**OPTIONS, **options})


def r_squared(values, forecast):
    return 1 - np.sum((values - forecast) ** 2) / np.sum((values - values.mean(0)) ** 2)


# ---- Series alone: X is the series, as fit takes it -----------------------------------------------

def test_a_grid_search_over_a_series_gives_scores():
    search = GridSearchCV(forecaster(), {"hidden_size": [2, 4]}, cv=CV).fit(WAVE)
    expected = [np.mean([r_squared(WAVE[end:end + 12], forecaster(hidden_size=size).fit(WAVE[:end]).predict())
                         for end in (276, 288)]) for size in (2, 4)]
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], expected, rtol=1e-12)
    assert search.best_score_ == max(search.cv_results_["mean_test_score"])
    assert np.array_equal(search.predict(None), search.best_estimator_.predict())


def test_cross_validation_of_series_alone():
    scores = cross_val_score(forecaster(), WAVE, cv=CV)
    expected = [r_squared(WAVE[end:end + 12], forecaster().fit(WAVE[:end]).predict()) for end in (276, 288)]
    np.testing.assert_allclose(scores, expected, rtol=1e-12)
    both = np.stack([WAVE, 3 * WAVE], 1)
    columns = cross_val_score(forecaster(), both, cv=CV)
    np.testing.assert_allclose(columns, [r_squared(both[end:end + 12], forecaster().fit(both[:end]).predict())
                                         for end in (276, 288)], rtol=1e-12)


def test_a_scorer_of_ones_own():
    def minus_mae(model, series):
        return -np.mean(np.abs(model.predict(len(series)) - series))

    scores = cross_val_score(forecaster(), WAVE, cv=CV, scoring=minus_mae)
    assert scores.shape == (2,) and (scores < 0).all()


def test_a_random_search_and_fitted_estimators():
    search = RandomizedSearchCV(forecaster(), {"hidden_size": [2, 4], "window": [12, 24]}, n_iter=2, cv=CV,
                                random_state=0).fit(WAVE)
    assert set(search.best_params_) == {"hidden_size", "window"} and np.isfinite(search.best_score_)
    result = cross_validate(forecaster(), WAVE, cv=CV, return_estimator=True, return_train_score=False)
    assert all(len(model.panel_.series[0]) == end for model, end in zip(result["estimator"], (276, 288), strict=True))


def test_a_frame_whose_columns_the_forecaster_names():
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("narwhals")
    frame = pandas.DataFrame({"t": pandas.date_range("2024-01-01", periods=300, freq="h"), "y": WAVE, "p": X[:, 0]})
    scores = cross_val_score(forecaster(target="y", time="t", known="p"), frame, cv=CV)
    expected = [r_squared(WAVE[end:end + 12], forecaster().fit(X[:end, :1], WAVE[:end]).predict(X[end:end + 12, :1]))
                for end in (276, 288)]
    np.testing.assert_allclose(scores, expected, rtol=1e-9)


# ---- Known columns: X and y -----------------------------------------------------------------------

def test_known_columns_and_scikit_learns_scores():
    scores = cross_val_score(forecaster(), X, WAVE, cv=CV)
    errors = cross_val_score(forecaster(), X, WAVE, cv=CV, scoring="neg_mean_absolute_error")
    for n, end in enumerate((276, 288)):
        forecast = forecaster().fit(X[:end], WAVE[:end]).predict(X[end:end + 12])
        assert np.isclose(scores[n], r_squared(WAVE[end:end + 12], forecast))
        assert np.isclose(errors[n], -np.mean(np.abs(WAVE[end:end + 12] - forecast)))


def test_past_columns_are_passed_on_with_and_without_routing():
    expected = cross_val_score(forecaster(), WAVE, cv=CV, params={"past": X})
    assert np.isfinite(expected).all() and (expected != cross_val_score(forecaster(), WAVE, cv=CV)).any()
    search = GridSearchCV(forecaster(), {"hidden_size": [4]}, cv=CV).fit(WAVE, past=X)
    assert np.isclose(search.best_score_, expected.mean())
    with sklearn.config_context(enable_metadata_routing=True):
        assert np.array_equal(cross_val_score(forecaster(), WAVE, cv=CV, params={"past": X}), expected)
        assert np.isclose(GridSearchCV(forecaster(), {"hidden_size": [4]}, cv=CV).fit(WAVE, past=X).best_score_,
                          expected.mean())


def test_pipelines():
    pipeline = make_pipeline(StandardScaler(), forecaster()).fit(5 * X[:288] + 3, WAVE[:288])
    scaled = StandardScaler().fit(5 * X[:288] + 3)
    direct = forecaster().fit(scaled.transform(5 * X[:288] + 3), WAVE[:288])
    ahead = 5 * X[288:] + 3
    assert np.array_equal(pipeline.predict(ahead), direct.predict(scaled.transform(ahead)))
    assert np.isclose(pipeline.score(ahead, WAVE[288:]), r_squared(WAVE[288:], pipeline.predict(ahead)))
    search = GridSearchCV(pipeline, {"rnnforecaster__hidden_size": [2, 4]}, cv=CV).fit(X, WAVE)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    logs = TransformedTargetRegressor(forecaster(), func=np.log, inverse_func=np.exp).fit(X[:288], WAVE[:288])
    np.testing.assert_allclose(logs.predict(X[288:]),
                               np.exp(forecaster().fit(X[:288], np.log(WAVE[:288])).predict(X[288:])), rtol=1e-6)


def test_clones_have_the_parameters_alone():
    model = forecaster(quantiles=(0.1, 0.9), seasons=[24, 48]).fit(WAVE)
    again = clone(model)
    assert again.get_params() == model.get_params() and not again.__sklearn_is_fitted__()
    detector = clone(RNNAnomalyDetector(hidden_size=4, random_state=1).fit(WAVE[:, None]))
    assert not detector.__sklearn_is_fitted__() and detector.score_one(3.0) == 0


def test_a_detector_in_a_pipeline():
    rows = WAVE.copy()
    rows[250] += 60
    pipeline = make_pipeline(StandardScaler(), RNNAnomalyDetector(random_state=0)).fit(rows[:200, None])
    assert 50 in np.flatnonzero(pipeline.predict(rows[200:, None]) == -1)


# ---- Scores -----------------------------------------------------------------------------------------

def test_scores_with_and_without_y():
    model = forecaster().fit(WAVE[:288])
    assert model.score(WAVE[288:]) == model.score(None, WAVE[288:]) == model.score(12, WAVE[288:])
    gap = WAVE[288:].copy()
    gap[3] = np.nan
    there = ~np.isnan(gap)
    assert np.isclose(model.score(gap), r_squared(gap[there], model.predict()[there]))
    lists = forecaster().fit([WAVE[:280], 2 * WAVE[:200]])
    values, forecast = np.stack([WAVE[280:292], 2 * WAVE[200:212]]), lists.predict()
    mean = values.mean(1, keepdims=True)                # the spread is about the mean of each series
    expected = 1 - np.sum((values - forecast) ** 2) / np.sum((values - mean) ** 2)
    assert np.isclose(lists.score(list(values)), expected) and np.isclose(lists.score(None, values), expected)
    shorter = lists.score([values[0], values[1][:5]])
    error = np.sum((values[0] - forecast[0]) ** 2) + np.sum((values[1] - forecast[1])[:5] ** 2)
    spread = np.sum((values[0] - values[0].mean()) ** 2) + np.sum((values[1][:5] - values[1][:5].mean()) ** 2)
    assert np.isclose(shorter, 1 - error / spread)


def test_scores_that_make_no_sense():
    model = forecaster().fit(WAVE[:288])
    for X_, y, error, message in ((None, None, TypeError, "y: expected the values that came"),
                                  (12, None, TypeError, "y: expected the values that came"),
                                  (12, WAVE[:3], ValueError, r"y: expected shape \(12,\).*got \(3,\)"),
                                  (np.full(5, np.nan), None, ValueError, "all are missing"),
                                  ([WAVE[288:]], None, ValueError, "expected one series .*got a list"),
                                  (np.stack([WAVE, WAVE], 1)[288:], None, ValueError, "expected one series")):
        with pytest.raises(error, match=message):
            model.score(X_, y)
    lists = forecaster().fit([WAVE[:280], WAVE[:200]])
    with pytest.raises(ValueError, match="of the series that were fitted, and of no others"):
        lists.score([WAVE[280:], WAVE[200:], WAVE])
    with pytest.raises(ValueError, match="not fitted"):
        forecaster().score(WAVE)


# ---- Notebooks --------------------------------------------------------------------------------------

class Tags(html.parser.HTMLParser):
    """The texts of a page, and whether its tags are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag not in ("input", "br", "img", "meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("estimator", [RNNForecaster(horizon=7), RNNAnomalyDetector(refractory=9)], ids=repr)
def test_as_scikit_learn_shows_its_own(estimator):
    text = estimator._repr_html_()
    assert type(estimator).__name__ in text and "sk-" in text


def test_a_table_where_scikit_learn_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.utils", None)
    model = forecaster(target="<b>sales & more</b>")
    for state in ("not fitted", "fitted"):
        page = Tags(model._repr_html_())
        assert not page.open and any(state in text for text in page.texts) and "'<b>sales & more</b>'" in page.texts
        assert page.texts.count("horizon") == 1 and "learning_rate" in page.texts
        assert model._repr_html_().count("font-weight: bold") == len(OPTIONS) + 1
        model.models_ = []
