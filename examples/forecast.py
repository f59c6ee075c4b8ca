# %% [markdown]
# # From a table to forecasts, intervals, and a live stream
#
# A year of hourly weather comes with fastrnn (Greensboro NC, NREL TMY3). `RNNForecaster` learns from it to
# forecast the next 24 hours. It has scikit-learn's methods, and needs NumPy alone.

# %%
import importlib.util
import pickle
import time

import numpy as np

from fastrnn.datasets import load_weather
from fastrnn.forecasting import RNNForecaster

times, temperature, irradiance = load_weather()
print(f"{len(times)} hours, {temperature.min():.1f} to {temperature.max():.1f} deg C")

# %% [markdown]
# How good would its forecasts have been? `backtest` trains a copy on all but the last four weeks, forecasts from every
# sixth hour of these, and scores the forecasts beside naive ones. The network also reads the hour of the day and the
# irradiance (a column that is known up to now), and forecasts three quantiles: the median, and the ends of an interval
# that should hold eight values of ten.

# %%
model = RNNForecaster(horizon=24, window=48, hidden_size=32, seasons=24, time_features="day", quantiles=(0.1, 0.9),
                      updates=300, random_state=0)
start = time.perf_counter()
test = model.backtest(temperature, past=irradiance[:, None], times=times, start=-28 * 24, stride=6)
print(f"trained and tested in {time.perf_counter() - start:.1f} s\n{'deg C':>17}{'MAE':>8}{'RMSE':>8}")
for name, scores in test.scores().items():
    print(f"{name:>17}{scores['MAE']:8.2f}{scores['RMSE']:8.2f}")
covered = test.coverage()
print(f"between the outer quantiles: {covered[0.9] - covered[0.1]:.0%} of the hours, 80% promised")

# %% [markdown]
# Now the forecaster is fitted to all but the last day, and forecasts that day.

# %%
model.fit(temperature[:-24], past=irradiance[:-24, None], times=times[:-24])
low, median, high = model.predict(quantiles=True).T
for hour in range(2, 24, 3):
    interval = f"{median[hour]:5.1f} ({low[hour]:5.1f} to {high[hour]:5.1f})"
    print(f"{str(times[hour - 24])[:16]}   {interval}   came: {temperature[hour - 24]:5.1f}")

# %% [markdown]
# Live, observations come one at a time. A stream takes each one and forecasts again, without refitting; a missing value
# is NaN. Its forecast is the one that `predict` would make from the series up to there.

# %%
stream, seconds = model.stream(), []
for value, sun in zip(temperature[-24:].tolist(), irradiance[-24:, None], strict=True):
    start = time.perf_counter()
    forecast = stream.step(value, past=sun)
    seconds.append(time.perf_counter() - start)
batch = model.apply(temperature, past=irradiance[:, None], times=times).predict()
print(f"a step: {1e6 * np.median(seconds):.0f} us; next hour {forecast[0]:.1f} deg C, by predict {batch[0]:.1f}")
assert np.allclose(forecast, batch, atol=1e-3)

# %% [markdown]
# Forecasters and their streams can be pickled. A frame of pandas, polars or pyarrow can take the place of arrays (`pip
# install fastrnn[frames]`): its columns are named, and the forecasts come as a frame too.

# %%
assert np.array_equal(pickle.loads(pickle.dumps(model)).predict(), model.predict())
assert np.array_equal(pickle.loads(pickle.dumps(stream)).step(9.5, past=[0.0]), stream.step(9.5, past=[0.0]))

if importlib.util.find_spec("narwhals") and importlib.util.find_spec("polars"):
    import polars
    frame = polars.DataFrame({"hour": times, "deg C": temperature, "sun": irradiance})
    named = RNNForecaster(horizon=24, window=48, seasons=24, target="deg C", time="hour", past="sun", updates=50,
                          random_state=0)
    print(*named.fit(frame[-60 * 24:]).predict().rows()[:3], sep="\n")
else:
    print("polars or narwhals is not installed: the frame is left out")
