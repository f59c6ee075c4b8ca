"""A run over many series by one engine, in a process of its own, for tests, the campaign of kills and benchmarks.

    python tests/support/scale_runs.py processes PARTS forecast,MODEL,OUT
    mpirun -n 3 python -m mpi4py.futures tests/support/scale_runs.py mpi PARTS forecast,MODEL,OUT score,MODEL,OUT2

A line of JSON on stdout says what came of each.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

# a checkout built in place is used where fastrnn is not installed
ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))

ENGINES = ("none", "processes", "loky", "dask", "dask-executor", "mpi")
NEEDS = {"loky": "loky", "dask": "distributed", "dask-executor": "distributed", "mpi": "mpi4py"}


def missing(engine):
    """Why an engine cannot be used here; None where it can."""
    package = NEEDS.get(engine)
    if package is not None and importlib.util.find_spec(package) is None:
        return f"the package {package} is not installed"
    if engine == "mpi" and shutil.which("mpirun") is None:
        return "there is no mpirun"
    return None


def command(engine, parts, *jobs, workers=2):
    """The command line of runs, each job a task, the path of a model and the folder of its results."""
    own = [__file__, engine, str(parts), *(",".join(map(str, job)) for job in jobs), "--workers", str(workers)]
    if engine != "mpi":
        return [sys.executable, *own]
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return ["mpirun", *root, "--oversubscribe", "--bind-to", "none", "-n", str(workers + 1), sys.executable, "-m",
            "mpi4py.futures", *own]


@contextlib.contextmanager
def executor_of(engine, workers):
    """What ``scale.forecast`` takes as executor."""
    if engine == "none":
        yield None
    elif engine == "processes":
        with ProcessPoolExecutor(workers) as pool:
            yield pool
    elif engine == "loky":
        from loky import get_reusable_executor
        yield get_reusable_executor(workers)
    elif engine == "mpi":
        from mpi4py.futures import MPIPoolExecutor
        with MPIPoolExecutor() as pool:
            yield pool
    else:
        from distributed import Client, LocalCluster
        with LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster:
            with Client(cluster) as client:
                yield client if engine == "dask" else client.get_executor()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("parts", type=Path)
    parser.add_argument("jobs", nargs="+", help="forecast,MODEL,OUT; score or backtest likewise")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--first", type=int, help="how many partitions the first job has, which only warms workers up")
    args = parser.parse_args()
    from fastrnn import scale
    some = sorted(map(str, args.parts.glob("*.parquet")))[:args.first]
    with executor_of(args.engine, args.workers) as executor:
        for number, job in enumerate(args.jobs):
            task, model, out = job.split(",")
            options = {"start": -24, "stride": 6} if task == "backtest" else {}
            source = some if args.first and number == 0 else args.parts
            print_report(getattr(scale, task)(model, source, out, executor=executor, progress=False, **options))


def print_report(report):
    print(json.dumps({"series": report.series, "rows": report.rows, "resumed": report.resumed,
                      "seconds": report.seconds, "new_series": report.new_series, "memory": report.peak_memory,
                      "worker_seconds": report.worker_seconds,
                      "failures": [str(each) for each in report.failures]}), flush=True)


if __name__ == "__main__":
    main()
