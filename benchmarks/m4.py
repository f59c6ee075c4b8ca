"""The M4 competition's hourly and weekly series: one network over all series, beside naive forecasts.

    python benchmarks/m4.py                        both groups, all 414 and 359 series, as the competition scored them
    python benchmarks/m4.py --group Hourly --validate 2      on the last two horizons of the training part instead
    python benchmarks/m4.py --auto                 the default options beside the named ones below
    python benchmarks/m4.py --precision int8       the same networks' forecasts by int8 weights, too
    python benchmarks/m4.py --json out/m4.json

Data: the folder m4 of FASTRNN_DATA (default ../shared/data). sMAPE and MASE are means over all series and steps, MASE
in units of the mean absolute seasonal difference of the training part (m = 24 for hours, 1 for weeks). Naive2 is naive
on series deseasonalised, where a test finds a season, by classical multiplicative decomposition, as the competition has
it. The named options were chosen with --validate, which forecasts the last, the last but one ... horizon of the
training part from the values before it; the test part served for the figures printed, and nothing else. With --auto
nothing but the horizon and the seed is given: what else there is, the forecaster chooses. The best entry of a group was
known as the best only after the fact, and these forecasts were made after it, too.
"""
import argparse
import csv
import json
import os
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")      # of NumPy's products: they are small, fastrnn has its own threads
sys.path.append(str(Path(__file__).resolve().parent.parent))    # a checkout built in place
import numpy as np

from fastrnn.forecasting import RNNForecaster, mase, smape

# Of each group: horizon, season of MASE and Naive2, published sMAPE (Makridakis et al. 2020), named options.
GROUPS = {
    "Hourly": (48, 24, {"Naive2": 18.383, "RNN benchmark": 14.698, "winner": 9.328,
                        "best entry in this group (Doornik et al.)": 8.91}, {
        "window": 168, "seasons": (24, 168), "difference": 168, "log": True, "scaling": "mean", "sequence": 168,
        "hidden_size": 48, "ensemble": 4, "updates": 2000, "learning_rate": 1e-2, "weight_decay": 0.1,
        "blend": False, "nonnegative": False}),
    "Weekly": (13, 1, {"Naive2": 9.161, "RNN benchmark": 15.220, "winner": 7.817,
                       "best entry in this group (Darin & Stellwagen)": 6.58}, {
        "window": 104, "seasons": (52,), "difference": 1, "log": True, "scaling": "mean", "hidden_size": 48,
        "ensemble": 4, "updates": 1500, "learning_rate": 1e-2, "blend": False, "nonnegative": False}),
}


# ---- Data and naive forecasts ---------------------------------------------------------------------

def load(folder, group, part):
    """The series of a file, each an array."""
    with open(folder / f"{group}-{part}.csv", newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [np.array([float(cell) for cell in row[1:] if cell not in ("", "NA")]) for row in rows]


def seasonal(y, m):
    """Whether the autocorrelation at lag m is above the 90 % limit of the competition's test."""
    if m == 1 or len(y) < 3 * m:
        return False
    e = y - y.mean()
    acf = np.array([e[k:] @ e[:len(e) - k] for k in range(1, m + 1)]) / (e @ e)
    limit = 1.645 / np.sqrt(len(y)) * np.sqrt(1 + 2 * np.sum(acf[:-1]**2))
    return abs(acf[-1]) > limit


def indices(y, m):
    """Multiplicative seasonal indices of the phases 0 ... m-1: y by its centred moving average, averaged."""
    weights = np.r_[0.5, np.ones(m - 1), 0.5] / m if m % 2 == 0 else np.ones(m) / m
    trend, half = np.convolve(y, weights, "valid"), m // 2
    ratio, phase = y[half:half + len(trend)] / trend, np.arange(half, half + len(trend)) % m
    by_phase = np.array([ratio[phase == k].mean() for k in range(m)])
    return by_phase / by_phase.mean()


def naive_forecasts(y, h, m):
    """Name -> forecast [h] of one series."""
    ahead = len(y) + np.arange(h)
    index = indices(y, m) if seasonal(y, m) else np.ones(m)
    return {"naive": np.full(h, y[-1]), "seasonal naive": y[ahead - m * -(-(ahead - len(y) + 1) // m)],
            "Naive2": y[-1] / index[(len(y) - 1) % m] * index[ahead % m]}


def scores(past, truth, forecasts, m):
    """Mean sMAPE and MASE over all series."""
    return (float(np.mean([smape(t, f) for t, f in zip(truth, forecasts, strict=True)])),
            float(np.mean([mase(t, f, p, m) for t, f, p in zip(truth, forecasts, past, strict=True)])))


# ---- One group ------------------------------------------------------------------------------------

def split(folder, group, held):
    """Past and next horizon of every series: as the competition has them, or those `held` horizons before the end of
    the training part."""
    h, past = GROUPS[group][0], load(folder, group, "train")
    if not held:
        return past, [y[:h] for y in load(folder, group, "test")]
    past = [y for y in past if len(y) >= (held + 2) * h]
    cut = [len(y) - held * h for y in past]
    return [y[:at] for y, at in zip(past, cut, strict=True)], [y[at:at + h] for y, at in zip(past, cut, strict=True)]


def trained(options, past, truth, m, precisions=()):
    """A forecaster trained on the pasts: what was measured of its forecasts of the truth, and by narrow weights."""
    model = RNNForecaster(**options)
    print(model, flush=True)
    began = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")         # of series that are short, or have a value far off
        forecasts = model.fit(past).predict()
    seconds, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    print(f"training and forecasts: {seconds:.0f} s on {len(os.sched_getaffinity(0))} CPUs, {cpu:.0f} s of CPU time",
          flush=True)
    narrow = {}
    for precision in precisions:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            narrow[precision] = scores(past, truth, model.set_params(precision=precision).predict(), m)
    return {"scores": scores(past, truth, forecasts, m), "narrow": narrow, "seconds": seconds, "cpu": cpu}


def evaluate(folder, group, held, args):
    """Train on one group and print the scores of its forecasts; the result holds all that was measured."""
    h, m, published, options = GROUPS[group]
    past, truth = split(folder, group, held)
    which = f"number {held} from the end of the training part" if held else "the test part"
    print(f"\n{group}: {len(past)} series of {min(map(len, past))} to {max(map(len, past))} values, horizon {h}, "
          f"{which}")
    common = {"horizon": h, "random_state": args.random_state, "progress": sys.stderr.isatty()}
    runs = {}
    if not args.auto_only:
        runs["fastrnn"] = trained({**common, **options, **args.set}, past, truth, m, args.precision)
    if args.auto or args.auto_only:
        runs["fastrnn, default options"] = trained(common, past, truth, m, args.precision)
    results = {name: run["scores"] for name, run in runs.items()}
    results |= {f"{name}, {precision}": pair for name, run in runs.items() for precision, pair in run["narrow"].items()}
    naive = [naive_forecasts(y, h, m) for y in past]
    results |= {name: scores(past, truth, [forecasts[name] for forecasts in naive], m) for name in naive[0]}
    print(f"{'':>36}{'sMAPE':>9}{'MASE':>9}")
    for name, (symmetric, scaled) in results.items():
        print(f"{name:>36}{symmetric:9.3f}{scaled:9.3f}")
    if not held:
        print("published sMAPE: " + ", ".join(f"{name} {value:.3f}" for name, value in published.items()))
    return {"group": group, "held": held, "random_state": args.random_state,
            "runs": {name: {key: run[key] for key in ("seconds", "cpu")} for name, run in runs.items()},
            "scores": {name: dict(zip(("sMAPE", "MASE"), pair, strict=True)) for name, pair in results.items()}}


def main():
    first, rest = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(description=first, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", choices=list(GROUPS), help="one group instead of both")
    parser.add_argument("--validate", type=int, default=0, metavar="N",
                        help="score on the last N horizons of the training part, one after the other")
    parser.add_argument("--auto", action="store_true", help="the forecaster's default options, too")
    parser.add_argument("--auto-only", action="store_true", help="the default options alone")
    parser.add_argument("--random-state", type=int, default=0, metavar="N", help="of the forecaster (0)")
    parser.add_argument("--set", metavar="JSON", type=json.loads, default={}, help="parameters to change, by name")
    parser.add_argument("--precision", nargs="+", default=[], metavar="NAME", help="narrow precisions to forecast by")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything measured here")
    args = parser.parse_args()
    folder = Path(os.environ.get("FASTRNN_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data") / "m4"
    if not folder.is_dir():
        raise SystemExit(f"no M4 data at {folder}: set FASTRNN_DATA to the folder that has m4")
    results = [evaluate(folder, group, held, args)
               for group in ([args.group] if args.group else GROUPS)
               for held in (range(1, args.validate + 1) if args.validate else [0])]
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
