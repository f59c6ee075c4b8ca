# %% [markdown]
# # Unusual rows of a stream, as they come
#
# A year of hourly weather comes with fastrnn (Greensboro NC, NREL TMY3). `RNNAnomalyDetector` watches temperature and
# irradiance together: a recurrent net forecasts the next row, and what it did not expect is judged. Three faults of
# the instruments are put in, and a gap, which is none.

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
FAULTS = {5000: "one value, 25 degrees too high", 6000: "a day of temperatures that flicker by 5 degrees",
          7000: "a day of irradiances that flicker by 300 W/m2"}
temperature[5000] += 25
temperature[6000:6024] += 5 * rng.standard_normal(24)
irradiance[7000:7024] += 300 * rng.standard_normal(24)
temperature[8000:8024] = np.nan

# %% [markdown]
# River's way: score the row that came, then learn it. Scores go from 0 to 1; 5/6 means once in 100,000 rows. Which
# channel is to blame is told, too. With `refractory` an alarm is raised once, not at every row of a fault. The weather
# breaks records of its own all year: `margin=0.1` lets it, by a tenth of the range seen so far.

# %%
detector = RNNAnomalyDetector(refractory=24, margin=0.1, random_state=0)
alarms, taken = [], []
for hour, (degrees, sun) in enumerate(weather.tolist()):
    row = {"temperature": degrees, "irradiance": sun}
    began = time.perf_counter()
    score = detector.score_one(row)
    taken.append(time.perf_counter() - began)
    if hour > 2000 and score > 5 / 6:
        by_channel = detector.explain_one(row)
        cause = next((what for fault, what in FAULTS.items() if fault <= hour < fault + 24), "nothing was put in here")
        alarms.append(hour)
        print(f"hour {hour}: {score:.2f}, {max(by_channel, key=by_channel.get)}: {cause}")
    detector.learn_one(row)
caught = [fault for fault in FAULTS if any(fault <= alarm < fault + 24 for alarm in alarms)]
print(f"{len(caught)} of {len(FAULTS)} faults found; {len(alarms)} alarms in {len(weather) - 2000} hours; median "
      f"score_one {1e6 * np.median(taken):.1f} us")
assert len(caught) == len(FAULTS)

# %% [markdown]
# scikit-learn's way: fit on what is known, then judge what follows. Both ways give the same numbers, and a detector is
# pickled as it stands, in the middle of a stream.

# %%
fitted = RNNAnomalyDetector(refractory=24, margin=0.1, random_state=0).fit(weather[:4900])
labels = fitted.predict(weather[4900:5100])
print("outliers between 4900 and 5100:", (4900 + np.flatnonzero(labels == -1)).tolist())
assert 5000 in 4900 + np.flatnonzero(labels == -1)

other = pickle.loads(pickle.dumps(fitted))
streamed = []
for row in weather[4900:5100]:
    streamed.append(other.score_one(row))
    other.learn_one(row)
assert np.array_equal(streamed, -fitted.score_samples(weather[4900:5100]))
print("streamed, after a pickle, the same scores to the bit")
