"""Series with planted anomalies, on which the detector's rules are chosen; the labelled collections are not for that.

Fifteen kinds of series, each with seven kinds of anomalies planted, one kind in a series: 105 series of 3,000 rows for
a seed. Sizes are in standard deviations of what cannot be forecast, so that some are hard to see. The labelled rows are
those that were changed.
"""
import numpy as np
from anomaly_sets import Labelled

ROWS, FIRST = 3000, 450


def autoregressive(noise, *weights):
    """x_t = noise_t + the sum of weights times the values before."""
    x = np.zeros(len(noise))
    for row in range(len(noise)):
        x[row] = noise[row] + sum(weight * x[row - lag] for lag, weight in enumerate(weights, start=1) if row >= lag)
    return x


def pulses(rng, rows):
    """A beat of about 60 rows, never quite as long as the one before."""
    phase = np.cumsum((1 + 0.05 * rng.standard_normal(rows)) / 60) % 1
    return np.exp(-((phase - 0.3) / 0.04) ** 2) - 0.3 * np.exp(-((phase - 0.5) / 0.08) ** 2)


def kinds(rng, rows=ROWS):
    """{name: (values [rows, channels], standard deviation of what cannot be forecast)}."""
    t, noise = np.arange(rows), rng.standard_normal(rows)
    day, week = 2 * np.pi * t / 24, 2 * np.pi * t / 168
    pairs, five, common = rng.standard_normal((rows, 2)), rng.standard_normal((rows, 5)), rng.standard_normal(rows)
    series = {
        "normal": (noise, 1.0),
        "autoregressive": (autoregressive(noise, 0.9), 1.0),
        "cycles": (autoregressive(noise, 1.6, -0.9), 1.0),
        "day": (5 * np.sin(day) + 2 * np.sin(2 * day + 1) + noise, 1.0),
        "day and week": ((10 + 5 * np.sin(day)) * (1 + 0.3 * np.sin(week)) + 0.7 * noise, 0.7),
        "smooth": (np.sin(t / 15) + 0.5 * np.sin(t / 40) + 0.02 * noise, 0.02),
        "heavy tails": (autoregressive(rng.standard_t(3, rows), 0.5), 1.7),
        "random walk": (noise.cumsum(), 1.0),
        "trend": (t / 200 + 3 * np.sin(day) + noise, 1.0),
        "counts": (rng.poisson(6 + 4 * np.sin(day)).astype(float), 2.5),
        "changing noise": ((1.1 + np.sin(day)) * noise, 1.1),
        "beat": (pulses(rng, rows) + 0.02 * noise, 0.05),
        "skewed": (np.exp(0.5 * np.sin(day) + 0.4 * noise), 0.5),
        "two channels": (np.stack([np.sin(t / 10), np.cos(t / 23)], 1) + 0.5 * pairs, 0.5),
        "five channels": (0.8 * autoregressive(common, 0.8)[:, None] + five, 1.0)}
    return {name: (values.reshape(rows, -1), size) for name, (values, size) in series.items()}


def stretches(rng, rows, count, shortest, longest):
    """Stretches (begin, end) of `shortest` to `longest` rows behind the first part, in order and apart."""
    room = (rows - FIRST - 20) // count
    for index in range(count):
        length = int(rng.integers(shortest, longest + 1))
        begin = FIRST + 20 + index * room + int(rng.integers(0, room - length - 10))
        yield begin, begin + length


def spikes(rng, x, size):
    """Single rows away by 4 to 12."""
    for begin, end in stretches(rng, len(x), 10, 1, 1):
        x[begin] += rng.choice([-1, 1]) * rng.uniform(4, 12) * size
        yield begin, end


def bumps(rng, x, size):
    """Two to six rows away by 3 to 8."""
    for begin, end in stretches(rng, len(x), 6, 2, 6):
        x[begin:end] += rng.choice([-1, 1]) * rng.uniform(3, 8) * size
        yield begin, end


def shifts(rng, x, size):
    """Twenty to eighty rows of another level, 3 to 8 away."""
    for begin, end in stretches(rng, len(x), 3, 20, 80):
        x[begin:end] += rng.choice([-1, 1]) * rng.uniform(3, 8) * size
        yield begin, end


def stuck(rng, x, size):
    """Ten to forty rows as the last one."""
    for begin, end in stretches(rng, len(x), 3, 10, 40):
        x[begin:end] = x[begin - 1]
        yield begin, end


def bursts(rng, x, size):
    """Ten to forty rows with noise three to six times as large."""
    for begin, end in stretches(rng, len(x), 3, 10, 40):
        x[begin:end] += rng.uniform(3, 6) * size * rng.standard_normal(end - begin)
        yield begin, end


def out_of_turn(rng, x, size):
    """Ten to forty rows replaced by those of another time, backwards."""
    for begin, end in stretches(rng, len(x), 3, 10, 40):
        other = int(rng.integers(50, begin - 50))
        x[begin:end] = x[other:other + end - begin][::-1].copy()
        yield begin, end


def faint_spikes(rng, x, size):
    """Single rows away by 3 to 5."""
    for begin, end in stretches(rng, len(x), 20, 1, 1):
        x[begin] += rng.choice([-1, 1]) * rng.uniform(3, 5) * size
        yield begin, end


ANOMALIES = {"spikes": spikes, "bumps": bumps, "shifts": shifts, "stuck": stuck, "bursts": bursts,
             "out of turn": out_of_turn,
             "faint spikes": faint_spikes}


def load(seed=0):
    """[(name of the anomalies, [Labelled series of every kind])]; in several channels one is changed."""
    planted = []
    for number, (name, plant) in enumerate(ANOMALIES.items()):
        collection = []
        rng = np.random.default_rng((seed, number))
        for kind, (values, size) in kinds(rng).items():
            labels = np.zeros(len(values), bool)
            for begin, end in plant(rng, values[:, int(rng.integers(values.shape[1]))], size):
                labels[begin:end] = True
            collection.append(Labelled(kind, values, labels))
        planted.append((name, collection))
    return planted
