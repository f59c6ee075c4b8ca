# %% [markdown]
# # Unusual rows of a stream, as they come
#
# A year of hourly weather comes with fastrnn (Greensboro NC, NREL TMY3). `RNNAnomalyDetector` watches temperature and
# irradiance together: a recurrent network forecasts the next row, and scores the row that comes by how far it is from
# the forecast. Three faults of the instruments are put in, and a gap of missing values, which is not a fault.

# %%
import pickle
import time

import numpy as np

from fastrnn.anomaly import RNNAnomalyDetector
from fastrnn.datasets import load_weather

times, temperature, irradiance = load_weather()
weather = np.stack([temperature, irradiance], axis=1)
temperature, irradiance = weather.T
rng = np.random.default_rng(0)
FAULTS = {5000: "one value, 25 degrees too high", 6000: "a day of temperatures that flicker by 15 degrees",
          7000: "a day of irradiances that flicker by 300 W/m2"}
temperature[5000] += 25
temperature[6000:6024] += 15 * rng.standard_normal(24)
irradiance[7000:7024] += 300 * rng.standard_normal(24)
temperature[8000:8024] = np.nan

# %% [markdown]
# In river's order: score the row that came, then learn it. Scores go from 0 to 1; 5/6 means about once in 100,000 rows.
# `explain_one` gives the score of each channel. With `refractory` an alarm is raised once, not at every row of a fault.

# %%
detector = RNNAnomalyDetector(refractory=24, random_state=0)
alarms, seconds = [], []
for hour, (degrees, sun) in enumerate(weather.tolist()):
    row = {"temperature": degrees, "irradiance": sun}
    start = time.perf_counter()
    score = detector.score_one(row)
    seconds.append(time.perf_counter() - start)
    if hour > 2000 and score > 5 / 6:
        by_channel = detector.explain_one(row)
        cause = next((what for fault, what in FAULTS.items() if fault <= hour < fault + 24), "nothing was put in here")
        alarms.append(hour)
        print(f"hour {hour}: {score:.2f}, {max(by_channel, key=by_channel.get)}: {cause}")
    detector.learn_one(row)
caught = [fault for fault in FAULTS if any(fault <= alarm < fault + 24 for alarm in alarms)]
print(f"{len(caught)} of {len(FAULTS)} faults found; {len(alarms)} alarms in {len(weather) - 2000} hours; median "
      f"score_one {1e6 * np.median(seconds):.1f} us")
assert len(caught) == len(FAULTS)

# %% [markdown]
# With scikit-learn's methods: fit on the rows that are known, then judge those that follow. Both ways give the same
# numbers. A detector can be pickled in the middle of a stream.

# %%
fitted = RNNAnomalyDetector(refractory=24, random_state=0).fit(weather[:4900])
labels = fitted.predict(weather[4900:5100])
print("outliers between 4900 and 5100:", (4900 + np.flatnonzero(labels == -1)).tolist())
assert 5000 in 4900 + np.flatnonzero(labels == -1)

other = pickle.loads(pickle.dumps(fitted))
streamed = []
for row in weather[4900:5100]:
    streamed.append(other.score_one(row))
    other.learn_one(row)
digits = -fitted.score_samples(weather[4900:5100])      # -log10 of the probability; the score is d / 6 or d / (d + 1)
assert np.allclose(streamed, np.where(digits <= 5, digits / 6, digits / (digits + 1)), rtol=1e-12)
print("streamed, after a pickle, the same scores")
