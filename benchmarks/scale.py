"""Many series: the same bytes by every engine, what a second worker brings, a million series out of core.

    python benchmarks/scale.py                              all parts, some half an hour on two cores
    python benchmarks/scale.py --parts forecast --series 2000
    python benchmarks/scale.py --parts million --folder /a/disk/with/room

Parts: "forecast" (of 200 values each) and "score" (of 100) of 20,000 series by one process, and by one and two workers
of a process pool, Dask and MPI; "million": a million series of 200 are written and forecast by two processes; "fit":
one network is trained on them. Each start is a process of its own; times are of the call alone, without the start of
workers and their imports, which a small run before it has paid for. Targets are printed as met or MISSED; the exit
status says whether all are met.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "support"))
import scale_runs

sys.path.append(str(scale_runs.ROOT))

HORIZON, STEPS, SCORED, PER_PARTITION = 12, 200, 100, 2500
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(scale_runs.ROOT)}
MOST_MEMORY, SPEEDUP = 1 << 30, 1.7


def frames(count, steps=STEPS):
    """Seasonal series with their own level, phase and noise, some thousand at a time, in the order of time."""
    import pyarrow as pa
    t = np.arange(steps)
    for start in range(0, count, PER_PARTITION):
        n, rng = min(PER_PARTITION, count - start), np.random.default_rng(start)
        level, phase = 10 ** rng.uniform(0, 3, (1, n)), rng.uniform(0, 2 * np.pi, (1, n))
        y = level * (1 + 0.3 * np.sin(t[:, None] / 12 * 2 * np.pi + phase) + 0.05 * rng.standard_normal((steps, n)))
        times = np.datetime64("2024-01-01", "D") + t.astype("timedelta64[D]")
        yield pa.table({"unique_id": np.tile(np.arange(start, start + n), steps), "ds": np.repeat(times, n).astype(
            "datetime64[us]"), "y": y.ravel()})


def models(folder):
    """A forecaster of 200 series and a detector, as files."""
    from fastrnn.anomaly import RNNAnomalyDetector
    from fastrnn.forecasting import RNNForecaster
    model = RNNForecaster(HORIZON, target="y", time="ds", series="unique_id", random_state=0, progress=True)
    print(model.fit(next(frames(200))))
    model.save(folder / "forecaster.npz")
    RNNAnomalyDetector(random_state=0).save(folder / "detector.npz")


def partitioned(count, folder, steps=STEPS):
    from fastrnn import scale
    begin = time.perf_counter()
    scale.partition(frames(count, steps), out=folder, partitions=max(2, count // PER_PARTITION))
    return time.perf_counter() - begin


def digest(folder):
    total = hashlib.sha256()
    for path in sorted(Path(folder).glob("*.parquet")):
        total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()


def started(task, engine, workers, model, folder, parts, out):
    """What a run in a process of its own came to; a small one before it loads everything."""
    jobs = [(task, model, folder / f"{out} first"), (task, model, folder / out)]
    command = [*scale_runs.command(engine, parts, *jobs, workers=workers), "--first", str(2 * workers)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def by_engines(task, count, folder, check):
    """One task by every engine: seconds, series a second, the same bytes."""
    parts = folder / f"parts {task}"
    partitioned(count, parts, SCORED if task == "score" else STEPS)
    model = folder / ("detector.npz" if task == "score" else "forecaster.npz")
    rows, expected = [], None
    for engine, workers in (("none", 1), ("processes", 1), ("processes", 2), ("dask", 1), ("dask", 2), ("mpi", 1),
                            ("mpi", 2)):
        reason = scale_runs.missing(engine)
        if reason:
            print(f"{task}, {engine}: {reason}")
            continue
        out = f"{task} {engine} {workers}"
        result = started(task, engine, workers, model, folder, parts, out)
        own = digest(folder / out)
        expected = expected or own
        check(f"{task}, {engine} of {workers}: the same bytes", own == expected)
        row = {"engine": engine, "workers": workers, "seconds": result["seconds"],
               "series_a_second": count / result["seconds"], "memory": result["memory"]}
        before = next((each for each in rows if each["engine"] == engine), None)
        if before is not None:
            row["speedup"] = before["seconds"] / row["seconds"]
            check(f"{task}, {engine}: two workers over one {row['speedup']:.2f}, expected {SPEEDUP}",
                  row["speedup"] >= SPEEDUP)
        rows.append(row)
        print(f"{task}, {engine} of {workers}: {row['seconds']:.1f} s, {row['series_a_second']:.0f} series a second, "
              f"{row['memory'] / 2**20:.0f} MB a worker", flush=True)
    return rows


def million(count, folder, check):
    """A million series, written out of core and forecast by two processes."""
    written = partitioned(count, folder / "million")
    result = started("forecast", "processes", 2, folder / "forecaster.npz", folder, folder / "million", "million out")
    check(f"{count} series forecast, {len(result['failures'])} failures", result["series"] == count)
    check(f"{result['memory'] / 2**20:.0f} MB a worker, expected {MOST_MEMORY >> 20} at most",
          result["memory"] <= MOST_MEMORY)
    parts = ", ".join(f"{name} {100 * seconds / sum(result['worker_seconds'].values()):.0f} %"
                      for name, seconds in result["worker_seconds"].items())
    print(f"{count} series of {STEPS}: written in partitions in {written:.0f} s, forecast in "
          f"{result['seconds']:.0f} s, {count / result['seconds']:.0f} series and "
          f"{count * HORIZON / result['seconds']:.0f} forecasts a second; of the workers' time {parts}", flush=True)
    return {"series": count, "partition_seconds": written, **result}


def shared_fit(folder):
    """One forecaster of all these series, and the most memory that the driver takes."""
    script = ("import sys, time, json, resource\n"
              "from concurrent.futures import ProcessPoolExecutor\n"
              "from fastrnn import scale\nfrom fastrnn.forecasting import RNNForecaster\n"
              "if __name__ == '__main__':\n"
              "    begin = time.perf_counter()\n"
              f"    model = RNNForecaster({HORIZON}, random_state=0)\n"
              "    with ProcessPoolExecutor(2) as pool:\n"
              "        model = scale.fit(model, sys.argv[1], executor=pool)\n"
              "    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
              "    print(json.dumps({'seconds': time.perf_counter() - begin, 'memory': memory,"
              " 'summary': model.summary()}))\n")
    done = subprocess.run([sys.executable, "-c", script, str(folder / "million")], stdout=subprocess.PIPE, text=True,
                          env=ENVIRONMENT, check=True)
    result = json.loads(done.stdout)
    print(f"one forecaster of all: fitted in {result['seconds']:.0f} s, {result['memory'] / 2**20:.0f} MB in the "
          f"driver\n{result['summary']}", flush=True)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--parts", nargs="+", default=["forecast", "score", "million", "fit"],
                        choices=["forecast", "score", "million", "fit"])
    parser.add_argument("--series", type=int, default=20_000, help="series of the parts forecast and score (20,000)")
    parser.add_argument("--million", type=int, default=1_000_000, help="series of million and fit (1,000,000)")
    parser.add_argument("--folder", type=Path, help="where tables and results are written (a temporary folder)")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()
    results, missed = {"date": time.strftime("%Y-%m-%d"), "cpus": os.cpu_count()}, []

    def check(text, good):
        print(f"{text}: {'met' if good else 'MISSED'}", flush=True)
        if not good:
            missed.append(text)

    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        models(folder)
        for part in args.parts:
            if part == "million":
                results[part] = million(args.million, folder, check)
            elif part == "fit":
                if not (folder / "million").exists():
                    partitioned(args.million, folder / "million")
                results[part] = shared_fit(folder)
            else:
                results[part] = by_engines(part, args.series, folder, check)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results | {"missed": missed}, indent=1))
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
