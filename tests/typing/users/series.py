"""Forecasts and anomalies, as a user writes them."""

import numpy as np

from fastrnn.anomaly import RNNAnomalyDetector
from fastrnn.datasets import load_weather
from fastrnn.forecasting import RNNForecaster, mase, smape

weather = load_weather()
temperature = weather.temperature[:500]

forecaster = RNNForecaster(horizon=24, window=48, cell="GRU", seasons=24, quantiles=(0.1, 0.9), updates=20,
                           learning_rate=4e-3, random_state=0).fit(temperature, times=weather.times[:500])
forecast = forecaster.predict()
intervals = forecaster.predict(quantiles=True)
backtest = forecaster.backtest(temperature, start=-96, stride=12, refit=False)
scores: dict[str, dict[str, float]] = backtest.scores()
print(forecast, intervals, scores["forecast"]["MAE"], backtest.coverage())
stream = forecaster.stream()
for value in temperature[-3:]:
    print(stream.step(value))
print(smape(temperature[:24], np.asarray(forecast)), mase(temperature[:24], np.asarray(forecast), temperature, 24))

detector = RNNAnomalyDetector(cell="lstm", hidden_size=16, random_state=np.random.RandomState(0))
for value in temperature:
    score: float = detector.score_one(value)
    detector.learn_one(value)
rows = temperature[:, None]
print(detector.fit(rows).predict(rows), detector.score_samples(rows), detector.explain(rows))
