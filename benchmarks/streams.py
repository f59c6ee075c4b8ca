"""What one observation costs: a streamed forecast, and a row scored by the anomaly detector, from Python.

    python benchmarks/streams.py                 half a minute
    python benchmarks/streams.py --quick         few rounds: a look, not a result
    python benchmarks/streams.py --json out/streams.json

One series, hidden size 32, a horizon of 24 steps. The forecaster's `step` takes a value and gives the forecast. The
detector's `score_one` scores the row that comes next; `learn_one` learns it: a step of the network and a refit of its
read-out. Every call is timed alone. One CPU is pinned, and the contestants take turns within a round. One of them is a
call of a NumPy ufunc on arrays of 32, about the least that a step of any NumPy code costs. A time is the median of a
round's calls, then that over rounds; a ratio is the median of the rounds' ratios; 99 % of the calls are below the last
column. A target that is missed is printed, and is no error.
"""
import argparse
import json
import os
import sys
import time
from pathlib import Path
from statistics import median

from peers import cpu_model, prepare_process, ratio

TARGET = 10.0           # microseconds
UFUNC = "np.add of 32"
FORECASTS = {           # name -> parameters of the forecaster
    "last value": {},
    "season of 24, log": {"seasons": 24, "difference": 24, "log": True},
    "seasons of 24 and 168": {"seasons": (24, 168), "difference": 168, "window": 168},
    "three quantiles": {"quantiles": (0.1, 0.9)},
    "LSTM": {"cell": "lstm"},
}


def arguments():
    first, rest = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(description=first, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds that are timed (default 30)")
    parser.add_argument("--isa", metavar="NAME", help="run fastrnn with FASTRNN_ISA=NAME, for example avx2")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything measured here")
    args = parser.parse_args()
    if args.rounds is not None and args.rounds < 1:
        parser.error("--rounds: at least 1")
    args.rounds = args.rounds or (3 if args.quick else 30)
    args.child = args.only = None           # what peers' prepare_process looks at
    return args


def contestants(values):
    """Name -> (function of one value, whether the target holds for it)."""
    import numpy as np

    from fastrnn.anomaly import RNNAnomalyDetector
    from fastrnn.forecasting import RNNForecaster
    calls = {}
    for name, options in FORECASTS.items():
        model = RNNForecaster(**{"horizon": 24, "window": 48, "hidden_size": 32, "updates": 20, "random_state": 0,
                                 **options})
        calls[f"forecast, {name}"] = model.fit(values).stream().step, True
    detector = RNNAnomalyDetector(hidden_size=32, random_state=0).fit(values[:, None])
    calls["score_one"] = detector.score_one, True
    calls["learn_one"] = detector.learn_one, False
    a, b = np.ones(32, np.float32), np.ones(32, np.float32)
    calls[UFUNC] = lambda _: np.add(a, b), False
    return calls


def timed(call, values):
    """Microseconds of each call."""
    clock, taken = time.perf_counter_ns, []
    for value in values:
        begin = clock()
        call(value)
        taken.append((clock() - begin) / 1000)
    return taken


def main():
    args = arguments()
    cpu = prepare_process(args)
    import numpy as np

    import fastrnn
    fastrnn.set_num_threads(1)
    values = 10 + np.sin(np.arange(1000) / 24 * 2 * np.pi) + 0.1 * np.random.default_rng(0).standard_normal(1000)
    head = {"machine": f"{cpu_model()}, load {' '.join(f'{x:.2f}' for x in os.getloadavg())}",
            "pinned to": "no CPU" if cpu is None else f"CPU {cpu}",
            "fastrnn": f"{fastrnn.__version__}, {fastrnn.active_isa()}, NumPy {np.__version__}", "rounds": args.rounds}
    for key, value in head.items():
        print(f"{key:<12}{value}")
    calls, medians, every = contestants(values), {}, {}
    for number in range(args.rounds):
        for name in list(calls) if number % 2 == 0 else list(calls)[::-1]:
            taken = timed(calls[name][0], values[:500].tolist())
            medians.setdefault(name, []).append(median(taken))
            every.setdefault(name, []).extend(taken)
    print(f"\nmicroseconds a call, hidden size 32, one series\n{'':<32}median   x {UFUNC}    99 % below   target")
    rows = []
    for name, (_, aimed) in calls.items():
        row = {"name": name, "us": median(medians[name]), "ratio": ratio(medians[name], medians[UFUNC]),
               "p99": float(np.percentile(every[name], 99)), "rounds": medians[name]}
        rows.append(row)
        verdict = f"{TARGET:.0f}  {'met' if row['us'] <= TARGET else 'MISSED'}" if aimed else ""
        print(f"{name:<32}{row['us']:6.2f}{row['ratio']:15.1f}x{row['p99']:14.2f}   {verdict}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"header": head, "rows": rows}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
