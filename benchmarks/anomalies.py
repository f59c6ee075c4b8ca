"""How RNNAnomalyDetector does with its default options: false alarms, after trouble, on labelled series, and its cost.

    python benchmarks/anomalies.py                      all parts but the planted anomalies
    python benchmarks/anomalies.py --only labelled      one of usual, trouble, labelled, cost, planted
    python benchmarks/anomalies.py --collections GutenTAG --seeds 0
    python benchmarks/anomalies.py --cache out/peers --json out/anomalies.json

usual      Series of 5,000 rows with nothing unusual in them, of ten kinds: alarms (p < 1e-5, what ``predict`` calls an
           outlier) in the last 4,250 rows.
trouble    A sine with noise; a glitch, ten glitches, a stuck sensor or missing rows early in it. Later spikes of 50
           standard deviations of the noise and a shift of the level: how many alarm, beside the same series without
           the trouble.
labelled   Labelled collections (``anomaly_sets.py``, chosen before any detector saw them), beside six other
           detectors (``anomaly_peers.py``): average precision of each series, averaged over a collection's series.
           ``rows``: each row counts, as labelled. ``ranges``: every labelled stretch counts once, with its highest
           score, from five rows before to five rows after it; rows elsewhere count each. The first part of a series,
           15 % (50 rows at least, 750 at most), is only learnt. A detector that cannot be imported and a collection
           that is not there are left out, by name.
planted    Series with planted anomalies (``anomaly_planted.py``), on which the detector's rules were chosen, beside the
           detectors that need NumPy alone: average precision as above.
cost       Microseconds of ``score_one`` and ``learn_one``, each row in turn, and rows a second of every detector on one
           channel.

Everything runs row by row: a row's score depends on it and the rows before. The seeds are the detector's and, in the
first two parts, those of the series. ``make nab`` has the Numenta Anomaly Benchmark.
"""
import argparse
import hashlib
import inspect
import json
import os
import sys
import time
from pathlib import Path
from statistics import mean, median

import anomaly_peers
import anomaly_planted
import anomaly_sets
import numpy as np
from anomaly_peers import PEERS, fastrnn_scores

OURS = "fastrnn"
LENGTH, FIRST = 5000, 750
TROUBLE_AT, SPIKES, SHIFT_AT = 1000, range(2000, 8000, 500), 3000


def progress(text):
    print(text, file=sys.stderr, flush=True)


# ---- Average precision ----------------------------------------------------------------------------

def average_precision(labels, scores):
    """Mean over the labelled rows of the precision at their score; equal scores stand or fall together.

    Parameters
    ----------
    labels : array of bool
    scores : array of float
        Higher: more unusual.
    """
    order = np.argsort(-scores, kind="stable")
    hits, counts = np.cumsum(labels[order]), np.arange(1, len(scores) + 1)
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    return float(np.sum(np.diff(hits[last], prepend=0) * hits[last] / counts[last]) / hits[-1])


def by_ranges(labels, scores, margin=anomaly_sets.MARGIN):
    """(labels, scores) with one entry for each labelled stretch, its highest score, and one for each row elsewhere.

    Stretches reach `margin` rows further on both sides; those that touch then are one.
    """
    wide = np.convolve(labels, np.ones(2 * margin + 1), "same") > 0
    edges = np.flatnonzero(np.diff(wide.astype(int), prepend=0, append=0)).reshape(-1, 2)
    peaks = [scores[begin:end].max() for begin, end in edges]
    return (np.concatenate([np.ones(len(peaks), bool), np.zeros(np.count_nonzero(~wide), bool)]),
            np.concatenate([peaks, scores[~wide]]))


def precisions(series, scores):
    """Average precision on rows and on ranges, behind the series' first part."""
    labels, scores = series.labels[series.first:], scores[series.first:]
    return average_precision(labels, scores), average_precision(*by_ranges(labels, scores))


# ---- Nothing unusual ------------------------------------------------------------------------------

def garch(rng, rows):
    """A GARCH(1, 1) process: the variance is 0.1 + 0.1 times the last square + 0.85 times the last variance."""
    values, variance = np.zeros(rows), 2.0
    for row, noise in enumerate(rng.standard_normal(rows)):
        values[row] = np.sqrt(variance) * noise
        variance = 0.1 + 0.1 * values[row] ** 2 + 0.85 * variance
    return values


def usual_kinds(seed, rows=LENGTH):
    """Series with nothing unusual in them, by kind."""
    rng, t = np.random.default_rng(seed), np.arange(rows)
    return {
        "iid normal": rng.standard_normal(rows),
        "Student's t, 3": rng.standard_t(3, rows),
        "log-normal": np.exp(rng.standard_normal(rows)),
        "random walk": rng.standard_normal(rows).cumsum(),
        "trend": t / 100 + rng.standard_normal(rows),
        "growth": np.exp(t / 300) * (1 + 0.05 * rng.standard_normal(rows)),
        "GARCH": garch(rng, rows),
        "Poisson, mean 5": rng.poisson(5, rows).astype(float),
        "daily": 10 * np.sin(t * 2 * np.pi / 24) + rng.standard_normal(rows),
        "daily and weekly": 10 * np.sin(t * 2 * np.pi / 24) + 5 * np.sin(t * 2 * np.pi / 168)
        + rng.standard_normal(rows)}


def usual(seeds):
    """Alarms on series with nothing unusual, by kind and seed; printed."""
    print(f"\nNothing unusual: alarms at p < 1e-5 in the last {LENGTH - FIRST:,} rows\n"
          f"{'':22}" + "".join(f"{f'seed {seed}':>9}" for seed in seeds))
    alarms = {}
    for seed in seeds:
        for kind, values in usual_kinds(seed).items():
            scores, threshold = fastrnn_scores(values[:, None], seed)
            alarms.setdefault(kind, []).append(int(np.sum(scores[FIRST:] > threshold)))
        progress(f"usual: seed {seed}")
    for kind, counts in alarms.items():
        print(f"{kind:22}" + "".join(f"{count:9}" for count in counts))
    return alarms


# ---- After trouble --------------------------------------------------------------------------------

def troubles():
    """What happens to the rows from 1,000 on, by name; each takes the values and changes them."""
    def glitch(size, rows=1):
        def change(x):
            x[TROUBLE_AT:TROUBLE_AT + rows] = -size
        return change

    def stuck(x):
        x[TROUBLE_AT:TROUBLE_AT + 500] = x[TROUBLE_AT]

    def missing(x):
        x[TROUBLE_AT:TROUBLE_AT + 500] = np.nan

    return {"none": lambda x: None, **{f"a glitch of -1e{power}": glitch(10.0 ** power) for power in (2, 4, 6, 9, 12)},
            "10 rows of -9999": glitch(9999.0, 10), "10 rows of -1e12": glitch(1e12, 10),
            "500 rows stuck": stuck, "500 rows missing": missing}


def troubled(seed, rows=8000):
    """A sine with noise of 0.1, and whether an anomaly is later a spike of 5 or a shift of the level by 5."""
    x = np.sin(np.arange(rows) / 20) + 0.1 * np.random.default_rng(seed).standard_normal(rows)
    spikes, shift = x.copy(), x.copy()
    spikes[list(SPIKES)] += 5
    shift[SHIFT_AT:] += 5
    return spikes, shift


def trouble(seeds):
    """Spikes seen, other alarms, shifts seen after each trouble, by seed; printed."""
    print(f"\nAfter trouble at row {TROUBLE_AT:,}: later spikes of 50 standard deviations of the noise that alarm "
          f"within 4 rows, of {len(SPIKES)};\nshifts of the level by as much that alarm within 20 rows, of 1; "
          f"other alarms from row {SPIKES[0]:,} on; all by seed\n"
          f"{'':22}{'spikes':>18}{'shift':>14}{'other alarms':>20}")
    figures = {}
    for name, change in troubles().items():
        cells = {"spikes": [], "shift": [], "other": []}
        for seed in seeds:
            spikes, shift = troubled(seed)
            change(spikes)
            change(shift)
            scores, threshold = fastrnn_scores(spikes[:, None], seed)
            alarms = scores > threshold
            cells["spikes"].append(sum(bool(alarms[at:at + 4].any()) for at in SPIKES))
            for at in SPIKES:
                alarms[at:at + 20] = False                      # an alarm just behind a spike may be the spike's
            cells["other"].append(int(alarms[SPIKES[0]:].sum()))
            scores, threshold = fastrnn_scores(shift[:, None], seed)
            cells["shift"].append(int((scores[SHIFT_AT:SHIFT_AT + 20] > threshold).any()))
        figures[name] = cells
        print(f"{name:22}" + "".join(f"{', '.join(map(str, cells[key])):>{width}}"
                                     for key, width in (("spikes", 18), ("shift", 14), ("other", 20))), flush=True)
    return figures


# ---- Labelled collections -------------------------------------------------------------------------

def cached(folder, function, values):
    """The function's scores, kept in a folder under what they depend on: its source, its helpers' and the series."""
    if folder is None:
        return function(values)
    source = repr(anomaly_peers.OPTIONS) + "".join(map(inspect.getsource, (function, *anomaly_peers.HELPERS)))
    key = hashlib.sha256((source + repr(values.shape)).encode() + values.tobytes()).hexdigest()[:24]
    path = folder / f"{key}.npy"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        np.save(path, function(values))
    return np.load(path)


def available():
    """The peers that can be imported; those that cannot are named on stderr."""
    peers = {}
    for name, (function, package) in PEERS.items():
        try:
            __import__({"scikit-learn": "sklearn"}.get(package, package))
            peers[name] = function
        except ImportError:
            progress(f"{name} is left out: {package} cannot be imported")
    return peers


def judge(collections, seeds, folder):
    """{collection: {detector: [(rows, ranges) of each series]}}, fastrnn once for every seed."""
    peers, figures = available(), {}
    for collection, series in collections:
        of = figures[collection.name] = {}
        begin = time.perf_counter()
        for seed in seeds:
            of[f"{OURS} {seed}"] = [precisions(one, fastrnn_scores(one.values, seed)[0]) for one in series]
        progress(f"{collection.name}: {OURS}, {time.perf_counter() - begin:.0f} s")
        for name, function in peers.items():
            begin = time.perf_counter()
            of[name] = [precisions(one, cached(folder, function, one.values)) for one in series]
            progress(f"{collection.name}: {name}, {time.perf_counter() - begin:.0f} s")
        of["chance"] = [(float(one.labels[one.first:].mean()), float(by_ranges(
            one.labels[one.first:], np.zeros(len(one.labels) - one.first))[0].mean())) for one in series]
    return figures


def means(figures, seeds, measure):
    """{detector: {collection: mean}}, fastrnn's the mean over its seeds; and its lowest and highest mean over all."""
    table, spread = {}, []
    for collection, of in figures.items():
        per_seed = [mean(pair[measure] for pair in of[f"{OURS} {seed}"]) for seed in seeds]
        table.setdefault(OURS, {})[collection] = mean(per_seed)
        spread.append(per_seed)
        for name, pairs in of.items():
            if not name.startswith(OURS):
                table.setdefault(name, {})[collection] = mean(pair[measure] for pair in pairs)
    totals = np.mean(spread, 0)
    return table, (float(totals.min()), float(totals.max()))


def ranks(table):
    """{detector: {collection: rank}}: 1 is the best; equal ones share the better rank. Chance takes no part."""
    names = [name for name in table if name != "chance"]
    return {name: {collection: 1 + sum(table[other][collection] > value for other in names)
                   for collection, value in table[name].items()} for name in names}


def report(figures, seeds, measure, title):
    """Print a table of one measure, with ranks; the result is the same as a dict."""
    table, (low, high) = means(figures, seeds, measure)
    places, collections = ranks(table), list(figures)
    print(f"\nMean average precision, {title} (rank)\n{'':24}" + "".join(f"{name[:22]:>23}" for name in table))
    for collection in collections:
        print(f"{collection[:23]:24}" + "".join(
            f"{table[name][collection]:>17.3f}" + (f" ({places[name][collection]})  " if name in places else " " * 6)
            for name in table))
    overall = {name: mean(of.values()) for name, of in table.items()}
    print(f"{'mean':24}" + "".join(f"{value:>17.3f}{'':6}" for value in overall.values()))
    print(f"{'first or second':24}" + "".join(
        f"{sum(place <= 2 for place in places[name].values()):>17}{'':6}" if name in places else "" for name in table))
    print(f"{OURS} over seeds: {low:.3f} to {high:.3f}")
    return {"by collection": table, "mean": overall, "ranks": places, "spread": (low, high)}


def labelled(seeds, word, folder):
    """Both tables over the labelled collections; printed."""
    collections, missing = anomaly_sets.load(word)
    for name, reason in missing.items():
        progress(f"{name} is left out: {reason}")
    if not collections:
        progress("labelled: no collection is there")
        return {}
    print(f"\n{'labelled collection':26}{'series':>7}{'rows':>9}{'labelled':>10}  {'source (licence)':45}labels")
    for collection, series in collections:
        share = np.concatenate([one.labels[one.first:] for one in series]).mean()
        print(f"{collection.name:26}{len(series):>7}{sum(len(one.labels) for one in series):>9,}{share:>10.1%}  "
              f"{f'{collection.packages} ({collection.licence})':45}{collection.labels}"
              + (" (made)" if collection.made else ""))
    figures = judge(collections, seeds, folder)
    each = {collection.name: {one.name: {name: pairs[index] for name, pairs in figures[collection.name].items()}
                              for index, one in enumerate(series)} for collection, series in collections}
    return {"rows": report(figures, seeds, 0, "each row counts"),
            "ranges": report(figures, seeds, 1, "each labelled stretch counts once"), "series": each}


# ---- Planted anomalies ----------------------------------------------------------------------------

def planted(seeds):
    """Mean average precision, on rows / on ranges, of series with planted anomalies, by their kind; printed."""
    detectors = {OURS: lambda values: fastrnn_scores(values)[0],
                 **{name: function for name, (function, package) in PEERS.items() if package == "numpy"}}
    figures = {}
    for seed in seeds:
        for kind, series in anomaly_planted.load(seed):
            for name, function in detectors.items():
                figures.setdefault(name, {}).setdefault(kind, []).extend(
                    precisions(one, function(one.values)) for one in series)
        progress(f"planted: seed {seed}")
    table = {name: {kind: np.mean(pairs, 0).tolist() for kind, pairs in of.items()} for name, of in figures.items()}
    print(f"\nPlanted anomalies: mean average precision, rows / ranges\n{'':24}"
          + "".join(f"{kind:>16}" for kind in table[OURS]) + f"{'mean':>16}")
    for name, of in table.items():
        pairs = [*of.values(), np.mean(list(of.values()), 0)]
        print(f"{name:24}" + "".join(f"{f'{rows:.3f} / {ranges:.3f}':>16}" for rows, ranges in pairs))
    return table


# ---- Cost -----------------------------------------------------------------------------------------

def calls(rows=20000):
    """Median microseconds of score_one and of learn_one, each row in turn."""
    from fastrnn.anomaly import RNNAnomalyDetector

    detector, clock, times = RNNAnomalyDetector(random_state=0), time.perf_counter_ns, ([], [])
    for value in np.random.default_rng(0).standard_normal(rows).tolist():
        begin = clock()
        detector.score_one(value)
        scored = clock()
        detector.learn_one(value)
        learnt = clock()
        times[0].append((scored - begin) / 1000)
        times[1].append((learnt - scored) / 1000)
    return {name: median(taken[1000:]) for name, taken in zip(("score_one", "learn_one"), times, strict=True)}


def cost():
    """Microseconds a call, and rows a second of every detector; printed."""
    figures = calls()
    print("\nOne row of one channel, hidden size 32, median: "
          + ", ".join(f"{name} {value:.2f} us" for name, value in figures.items()))
    values, rates = np.random.default_rng(0).standard_normal((LENGTH, 1)), {}
    for name, function in {OURS: fastrnn_scores, **available()}.items():
        function(values[:300])                                  # imports, and whatever is compiled at the first call
        begin = time.perf_counter()
        function(values)
        rates[name] = LENGTH / (time.perf_counter() - begin)
        print(f"{name:24}{rates[name]:>12,.0f} rows a second", flush=True)
    return {"microseconds": figures, "rows a second": rates}


# ---- Command --------------------------------------------------------------------------------------

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="PART",
                        choices=["usual", "trouble", "labelled", "cost", "planted"],
                        help="usual, trouble, labelled, cost or planted (may be given more than once)")
    parser.add_argument("--collections", default="", metavar="WORD", help="those whose name holds this word (all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED", help="0 1 2 by default")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep the other detectors' scores in this folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    options = parser.parse_args()
    parts = {"usual": lambda: usual(options.seeds), "trouble": lambda: trouble(options.seeds),
             "labelled": lambda: labelled(options.seeds, options.collections, options.cache), "cost": cost,
             "planted": lambda: planted(options.seeds)}
    wanted = options.only or [name for name in parts if name != "planted"]
    figures = {name: part() for name, part in parts.items() if name in wanted}
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
