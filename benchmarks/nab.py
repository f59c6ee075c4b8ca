"""Numenta Anomaly Benchmark: 58 labelled series, detectors run strictly online, scored as published.

    python benchmarks/nab.py                            the detector, its rules one by one, baselines; its latency
    python benchmarks/nab.py --files realKnownCause     only the series whose name holds a word
    python benchmarks/nab.py --sensitivity              besides, with every constant and parameter varied, and how far
                                                        a choice among these on half of the files carries to the rest
    python benchmarks/nab.py --json out/nab.json

Data: the folder nab of FASTRNN_DATA (default ../shared/data).

The score (Lavin & Ahmad, Evaluating Real-time Anomaly Detection Algorithms, ICMLA 2015): every anomaly has a window.
Of the detections in it the best counts, that is the first, and the earlier the more; a window without one costs. A
detection outside costs, little just behind a window. The first 15 % of a file, at most 750 rows, do not count. A
detection is a row whose score reaches a threshold, one for all files: the best one, for each profile. 0 is the detector
that never detects, 100 one that detects the beginning of every window and nothing else.

The detector sees every row once, in order, and scores it before it learns it; parameters are the same for all files.
They were chosen on this benchmark, and no files were held back; --sensitivity lists what others would give.
"""

import argparse
import csv
import json
import math
import os
import time
from bisect import bisect_left, bisect_right
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np

from fastrnn.anomaly import RNNAnomalyDetector, likelihood, readout, state, statistics

PARAMETERS = {"refractory": 30, "random_state": 0}      # the other ones are the detector's defaults
RULES = {"error": "a row's own error", "average": "the average of errors", "range": "the range of values"}
PUBLISHED = {"ARTime": (74.9, 65.2, 80.4), "HTM": (70.1, 63.1, 74.3), "contextual OSE": (69.9, 67.0, 73.2),
             "KNN-CAD": (58.0, 43.4, 64.8), "random cut forest": (51.7, 38.4, 59.7),
             "windowed Gaussian": (39.6, 20.9, 47.4)}       # NAB's results/final_results.json
VARIED = {"refractory": (15, 60), "memory": (2500, 10000), "margin": (0.01, 0.05), "forgetting": (0.998, 0.9995),
          "hidden_size": (16, 64), "lags": (1, 8), "cell": ("lstm", "rnn"), "random_state": (1, 2),
          "FLOOR": (0.02, 0.1), "HUBER": (2.0, 8.0), "ERROR_SPAN": (2, 8), "VALUE_SPAN": (5, 20),
          "RANGE_COST": (-1.0, 0.0), "FAST": (16, 64), "ACCEPTED": (10, 40)}
MODULES = likelihood, readout, state, statistics        # where these constants are

# ---- The score ------------------------------------------------------------------------------------

PROFILES = {"standard": (1.0, 0.11, 1.0), "reward_low_FP_rate": (1.0, 0.22, 1.0),
            "reward_low_FN_rate": (1.0, 0.11, 2.0)}         # weight of a hit, a false positive, a missed window


def probation(length):
    """Rows at the beginning that count for nothing: 15 % of a file, 750 at most (15 % of 5000)."""
    return min(int(0.15 * length), 750)


def sigmoid(position):
    """The reward of a detection at a position relative to a window: -1 its beginning, 0 its end, 1 as far behind it.

    2 / (1 + exp(5 y)) - 1, and -1 past y = 3.
    """
    position = np.asarray(position, float)
    return np.where(position > 3, -1.0, 2 / (1 + np.exp(5 * np.minimum(position, 3.0))) - 1)


def rewards(length, windows):
    """What a detection at each row is worth before weights, and which window the row is in.

    Parameters
    ----------
    length : int
    windows : sequence of (first, last) rows, both inclusive, in order

    Returns
    -------
    reward : array [length]
        Within a window 1 at its first row, falling to near 0 at its last. Behind one 0 falling to -1; -1 before all.
    window : int array [length]
        Index of the row's window, -1 outside.
    """
    reward, window = np.full(length, -1.0), np.full(length, -1)
    for index, (first, last) in enumerate(windows):
        width = last - first + 1
        behind = np.arange(last + 1, length)
        reward[last + 1:] = sigmoid((behind - last) / max(width - 1, 1))
        inside = np.arange(first, last + 1)
        reward[first:last + 1] = sigmoid(-(last - inside + 1) / width) / sigmoid(-1)
        window[first:last + 1] = index
    return reward, window


class Scorer:
    """NAB's score of detectors over a set of files.

    Parameters
    ----------
    lengths : sequence of int
        Rows of each file.
    windows : sequence of sequences of (first, last)
        Each file's anomaly windows in rows.
    """

    def __init__(self, lengths, windows):
        parts = [rewards(length, of_file) for length, of_file in zip(lengths, windows, strict=True)]
        counts = np.cumsum([0, *map(len, windows)])
        self.count = int(counts[-1])
        self.kept = [np.arange(length) >= probation(length) for length in lengths]
        self.reward = np.concatenate([reward[kept] for (reward, _), kept in zip(parts, self.kept, strict=True)])
        self.window = np.concatenate([np.where(window >= 0, window + first, -1)[kept] for (_, window), kept, first
                                      in zip(parts, self.kept, counts[:-1], strict=True)])

    def _sums(self, scores, profile):
        """Thresholds falling, and the raw score with each (rows scored at least that are detections)."""
        hit, false, miss = PROFILES[profile]
        scores = np.concatenate([np.asarray(s, float)[kept] for s, kept in zip(scores, self.kept, strict=True)])
        order = np.argsort(-scores, kind="stable")
        scores, window = scores[order], self.window[order]
        gain = np.where(window < 0, false, hit) * self.reward[order]
        for index in range(self.count):                 # of a window only the best detection counts
            rows = np.flatnonzero(window == index)
            best = np.maximum.accumulate(np.concatenate([[-miss], gain[rows]]))
            gain[rows] = np.diff(best)
        last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)       # equal scores stand or fall together
        return scores[last], np.cumsum(gain)[last] - miss * self.count

    def normalised(self, raw, profile):
        """0: nothing ever detected. 100: every window at its first row, and nothing else."""
        hit, _, miss = PROFILES[profile]
        return 100 * (raw + miss * self.count) / ((hit + miss) * self.count)

    def best(self, scores, profile="standard"):
        """(normalised score, threshold) at the one threshold that is best over all files.

        Parameters
        ----------
        scores : sequence of array [length]
            Each file's anomaly scores; higher: more anomalous.
        """
        thresholds, raw = self._sums(scores, profile)
        at = int(np.argmax(raw))
        score = float(self.normalised(raw[at], profile))
        return (score, float(thresholds[at])) if score > 0 else (0.0, math.inf)     # better to detect nothing

    def at(self, scores, threshold, profile="standard"):
        """Normalised score at a threshold that was chosen elsewhere."""
        thresholds, raw = self._sums(scores, profile)
        reached = np.count_nonzero(thresholds >= threshold)
        return float(self.normalised(raw[reached - 1], profile)) if reached else 0.0


# ---- Data -----------------------------------------------------------------------------------------

def load(folder, word=""):
    """Series by name: (values, windows as (first, last) rows)."""
    series = {}
    for name, windows in sorted(json.loads((folder / "labels" / "combined_windows.json").read_text()).items()):
        if word in name:
            with open(folder / "data" / name, newline="") as file:
                times, values = zip(*list(csv.reader(file))[1:], strict=True)
            rows = [(bisect_left(times, begin[:19]), bisect_right(times, end[:19]) - 1) for begin, end in windows]
            series[name] = list(map(float, values)), rows
    return series


# ---- Detectors: values in, scores out -------------------------------------------------------------

def online(values, parameters=None, **constants):
    """fastrnn's detector, row by row, with some parameters and constants of its modules changed, by name."""
    for name, value in constants.items():
        for module in MODULES:
            if hasattr(module, name):
                setattr(module, name, value)
    model, scores = RNNAnomalyDetector(**PARAMETERS | (parameters or {})), []
    for value in values:
        scores.append(model.score_one(value))
        model.learn_one(value)
    return scores


def leaves_range(values, span=10, margin=0.02, refractory=30):
    """A plain rule of ranges: 1 where a value, or the mean of about 10, leaves the range seen so far."""
    scores, average = np.zeros(len(values)), 0.0
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    last = -math.inf
    for row, value in enumerate(values):
        average += (value - average) / min(row + 1, span)
        pair = np.array([value, average])
        if row and np.any(np.maximum(pair - high, low - pair) > margin * (high - low)):
            scores[row] = row - last > refractory
            last = row
        low, high = np.minimum(low, pair), np.maximum(high, pair)
    return scores


def windowed_gaussian(values, window=6400, step=100):
    """NAB's baseline: 1 - the normal tail probability of a value, by mean and deviation of some 6400 before.

    It is rounded to 12 digits, as in NAB's files of results: the published figures depend on which scores round to 1.
    """
    sums = np.cumsum(np.concatenate([[[0.0, 0.0]], np.stack([values, np.square(values)], 1)]), 0)
    scores = np.zeros(len(values))
    for row in range(1, len(values)):
        begin = max(0, row - window) // step * step         # the full window moves on by 100 rows at a time
        end = row if row <= window else begin + window
        mean, square = (sums[end] - sums[begin]) / (end - begin)
        deviation = math.sqrt(max(square - mean * mean, 0.0)) or 1e-6
        scores[row] = round(1 - 0.5 * math.erfc(abs(values[row] - mean) / deviation / math.sqrt(2)), 12)
    return scores


def run(detector, series, pool, *arguments, **constants):
    """Scores of all series, from the pool's processes."""
    jobs = [pool.submit(detector, values, *arguments, **constants) for values, _ in series.values()]
    return [job.result() for job in jobs]


# ---- Choosing on half of the files ----------------------------------------------------------------

def held_out(series, candidates, draws=20):
    """Standard scores on files that had no part in a choice, over random halves of the files.

    Parameters
    ----------
    series : dict
        What ``load`` returns.
    candidates : dict of str to scores of all series
        The others are compared with the first.

    Returns
    -------
    chosen, first : arrays [draws]
        On one half, of the candidate and the threshold that are best on the other; of the first candidate, with the
        threshold best on the other.
    """
    sizes, windows = [len(values) for values, _ in series.values()], [of_file for _, of_file in series.values()]
    rng, scores_there = np.random.default_rng(0), []
    for _ in range(draws):
        files = rng.permutation(len(sizes))
        here, there = (Scorer([sizes[i] for i in half], [windows[i] for i in half])
                       for half in np.array_split(files, 2))
        split = len(here.kept)
        best = {name: here.best([scores[i] for i in files[:split]]) for name, scores in candidates.items()}
        first, chosen = next(iter(best)), max(best, key=lambda name: best[name][0])
        scores_there.append([there.at([candidates[name][i] for i in files[split:]], best[name][1])
                             for name in (chosen, first)])
    return np.array(scores_there).T


# ---- Latency --------------------------------------------------------------------------------------

def latency(rows=20000):
    """Median microseconds of score_one, of learn_one, and of a NumPy ufunc call, each row in turn."""
    values = np.random.default_rng(0).standard_normal(rows).tolist()
    detector, a, out, clock = RNNAnomalyDetector(**PARAMETERS), np.ones(1), np.empty(1), time.perf_counter_ns
    times = {"score_one": [], "learn_one": [], "numpy.add": []}
    for value in values:
        begin = clock()
        detector.score_one(value)
        scored = clock()
        detector.learn_one(value)
        learnt = clock()
        np.add(a, a, out)
        for taken, nanoseconds in zip(times.values(), (scored - begin, learnt - scored, clock() - learnt)):
            taken.append(nanoseconds / 1000)
    return {name: median(taken[1000:]) for name, taken in times.items()}


# ---- Command --------------------------------------------------------------------------------------

def arguments():
    """The command line, the series and their scorer; a message where something is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", default="", metavar="WORD", help="series whose name has this word in it (all)")
    parser.add_argument("--sensitivity", action="store_true", help="vary every parameter and constant (some minutes)")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="all CPUs by default")
    parser.add_argument("--json", type=Path, help="write the figures to a file")
    options = parser.parse_args()
    folder = Path(os.environ.get("FASTRNN_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data") / "nab"
    if not folder.is_dir():
        parser.error(f"no {folder}: set FASTRNN_DATA to the folder of the data")
    series = load(folder, options.files)
    if not series:
        parser.error(f"--files: no series has {options.files!r} in its name")
    scorer = Scorer([len(values) for values, _ in series.values()], [windows for _, windows in series.values()])
    if not scorer.count:
        parser.error(f"--files: no series with {options.files!r} in its name has an anomaly to detect")
    return options, series, scorer


class Figures(dict):
    """Name -> scores by profile, each printed as a line of the table when it is added."""

    def __init__(self, scorer):
        super().__init__()
        self.scorer = scorer
        print(f"\n{'':38}" + "".join(f"{profile:>24}" for profile in PROFILES) + "\n" + f"{'':38}"
              + f"{'score (threshold)':>24}" * len(PROFILES))

    def add(self, name, scores):
        """The best score of anomaly scores in each profile."""
        best = {profile: self.scorer.best(scores, profile) for profile in PROFILES}
        self[name.strip()] = {profile: score for profile, (score, _) in best.items()}
        print(f"{name:38}" + "".join(f"{f'{score:.1f} ({threshold:.4g})':>24}" for score, threshold in best.values()),
              flush=True)

    def add_random(self, series, draws=20):
        """The mean of the best scores of random anomaly scores."""
        lengths = [len(values) for values, _ in series.values()]
        random = [[np.random.default_rng((seed, i)).random(length) for i, length in enumerate(lengths)]
                  for seed in range(draws)]
        self["random"] = {profile: float(np.mean([self.scorer.best(draw, profile)[0] for draw in random]))
                          for profile in PROFILES}
        print(f"{f'random (mean of {draws})':38}"
              + "".join(f"{score:>17.1f}{'':7}" for score in self["random"].values()))


def sensitivity(figures, series, processes, candidates):
    """Scores with another value of each parameter and constant; then what a choice on half of the files is worth."""
    print("\nwith another value of")
    for name, values in VARIED.items():
        for value in values:
            constants, parameters = ({name: value}, {}) if name.isupper() else ({}, {name: value})
            label = f"{name} = {value}"
            with ProcessPoolExecutor(processes) as pool:        # constants stay changed in a process
                candidates[label] = run(online, series, pool, parameters, **constants)
            figures.add(f"  {label}", candidates[label])
    chosen, default = held_out(series, candidates)
    figures["held_out"] = {"chosen": chosen.mean(), "default": default.mean()}
    print(f"\nstandard score of the half of the files that had no part in a choice, mean of {len(chosen)} "
          f"draws (standard deviation):\n  with the best of these on the other half {chosen.mean():.1f} "
          f"({chosen.std():.1f}), with the defaults {default.mean():.1f} ({default.std():.1f})")


def main():
    options, series, scorer = arguments()
    rows = sum(len(values) for values, _ in series.values())
    print(f"{len(series)} series, {rows:,} rows, {scorer.count} windows")
    figures = Figures(scorer)
    with ProcessPoolExecutor(options.processes) as pool:
        begin = time.perf_counter()
        default = run(online, series, pool)
        figures.add("RNNAnomalyDetector", default)
        seconds = time.perf_counter() - begin
        for rule, words in RULES.items():
            figures.add(f"  without {words}", run(online, series, pool, {"rules": [r for r in RULES if r != rule]}))
        for rule, words in RULES.items():
            figures.add(f"  {words} alone", run(online, series, pool, {"rules": [rule]}))
        figures.add("  with no refractory period", run(online, series, pool, {"refractory": 0}))
        figures.add("a plain rule of ranges", run(leaves_range, series, pool))
        figures.add("windowed Gaussian", run(windowed_gaussian, series, pool))
    figures.add_random(series)
    if not options.files:
        print("published")
        for name, scores in PUBLISHED.items():
            print(f"  {name:36}" + "".join(f"{score:>17.1f}{'':7}" for score in scores))
    print(f"the detector took {seconds:.0f} s in {options.processes} processes")
    if options.sensitivity:
        sensitivity(figures, series, options.processes, {"default": default})
    figures["latency_us"] = times = latency()
    print("\nmedian of one call, hidden size 32, one channel: " + ", ".join(
        f"{name} {value:.2f} us ({value / times['numpy.add']:.1f} ufunc calls)" for name, value in times.items()))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
