"""Kills runs over many series again and again, and starts them again: each must end with the same bytes.

    python tests/campaigns/scale_kills.py                   100 kills, some ten minutes
    python tests/campaigns/scale_kills.py --kills 5 --engines processes --seed 3

A run forecasts 12 partitions, of which one has a poisoned series, by an engine that is drawn: this process, a process
pool, Dask or MPI. At a random moment its driver, one of its workers, or everything gets a SIGKILL; or the disk is full
from the beginning, and gets room later (where a small file system can be mounted). The run is then started again until
it ends by itself. At the end the results must be the bytes of a run that was never killed, with the same failure
reported, no draft may be left, and a result that was there must not have been written again. The exit status is 1 if
any run differs.
"""

import argparse
import json
import mmap
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

sys.path.append(str(Path(__file__).resolve().parents[1] / "support"))
import scale_runs

sys.path.append(str(scale_runs.ROOT))
from fastrnn import scale
from fastrnn.forecasting import RNNForecaster

PARTITIONS, SERIES, STEPS = 12, 360, 60
MOST = 4                # kills of one run, which is then left alone
WHAT = ("driver", "worker", "everything")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(scale_runs.ROOT)}


def prepare(folder):
    """The partitions, with one series that cannot be forecast, and a fitted model."""
    import pyarrow as pa
    rng, t = np.random.default_rng(0), np.arange(STEPS)
    y = 10 + np.arange(SERIES)[:, None] + 3 * np.sin(t / 6 + np.arange(SERIES)[:, None])
    y += 0.3 * rng.standard_normal(y.shape)
    names = [f"s{n:03d}" for n in range(SERIES)]
    table = pa.table({"unique_id": np.repeat(names, STEPS), "y": y.ravel()})
    model = RNNForecaster(6, window=12, hidden_size=8, updates=10, blend=["network", "naive", "theta"], seasons=(),
                          random_state=0, target="y", series="unique_id")
    model.fit(table.slice(0, 20 * STEPS)).save(folder / "model.npz")
    y[123, 30] = np.inf
    poisoned = table.set_column(1, "y", pa.array(y.ravel()))
    scale.partition(poisoned, out=folder / "parts", partitions=PARTITIONS)


class Start:
    """One start of a run: the driver and what it starts."""

    def __init__(self, folder, out, engine):
        command = scale_runs.command(engine, folder / "parts", ("forecast", folder / "model.npz", out))
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.errors, env=ENVIRONMENT)

    def began(self, out):
        """Waits until the run has written its manifest, or has ended."""
        while not (out / "_manifest.json").exists() and self.process.poll() is None:
            time.sleep(0.005)

    def descendants(self):
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def ended(self, timeout):
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self, what, rng):
        """Kills the driver, a worker, or everything; the run is over when this returns, and its processes are gone."""
        family = self.descendants()
        if what == "worker" and family:
            _end([family[int(rng.integers(len(family)))]])
            if self.ended(120):                 # it went on without the worker, or has said that it cannot
                self.sweep(family)
                return
        self.process.kill()
        self.process.wait()
        if what == "driver":                    # its workers may finish what they were at
            time.sleep(rng.uniform(0, 0.3))
        self.sweep(family)

    def sweep(self, family):
        _end(family)
        psutil.wait_procs(family, timeout=30)

    def result(self):
        """What the run printed, None if it did not end well; and what it said on stderr."""
        text = self.process.stdout.read()
        self.process.stdout.close()
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace")
        self.errors.close()
        good = self.process.returncode == 0 and text.strip()
        return json.loads(text.splitlines()[-1]) if good else None, said


def _end(processes):
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass


def results(out):
    return {path.name: path.read_bytes() for path in out.glob("*.parquet")}


def stamps(out):
    """What changes when a file is written again."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.glob("*.parquet")}


def small_disk(out, like):
    """Mounts a file system on `out` that has room for half of what a finished run has; whether it could."""
    out.mkdir()
    pages = {path.name: -(-path.stat().st_size // mmap.PAGESIZE) for path in like.iterdir()}
    results = sum(count for name, count in pages.items() if name.endswith(".parquet"))
    size = mmap.PAGESIZE * (sum(pages.values()) - results + results // 2)
    return subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", out],
                          capture_output=True).returncode == 0


class Contest:
    """Whole runs until there were enough kills."""

    def __init__(self, folder, engines, seed, report):
        self.folder, self.engines, self.rng, self.report = folder, engines, np.random.default_rng(seed), report
        self.counts = dict.fromkeys(("kills", *WHAT, "full disks", "runs", "wrong"), 0)
        prepare(folder)
        start = Start(folder, folder / "unkilled", "processes")
        start.began(folder / "unkilled")
        begin = time.perf_counter()
        start.ended(600)
        self.took = time.perf_counter() - begin
        self.expected_report, said = start.result()
        if self.expected_report is None:
            sys.exit(f"the run without a kill failed: {said}")
        self.expected = results(folder / "unkilled")

    def run(self, kills):
        while self.counts["kills"] < kills:
            number = self.counts["runs"]
            out = self.folder / f"run {number}"
            full = number % 10 == 9 and small_disk(out, self.folder / "unkilled")
            try:
                faults = self._one(out, kills, full)
            finally:
                if full:
                    subprocess.run(["umount", out], check=True)
            self.counts["runs"] += 1
            self.counts["full disks"] += full
            self.counts["wrong"] += bool(faults)
            self.report(f"{self.counts['kills']} kills: run {number + 1} ended "
                        + ("; ".join(faults) if faults else "with the same bytes"), flush=True)
        return self.counts

    def _one(self, out, kills, full):
        """One run, killed and started again until it ends; what is wrong with it."""
        written, faults, killed = {}, [], 0
        for attempt in range(1000):
            engine = str(self.rng.choice(self.engines))
            start = Start(self.folder, out, engine)
            start.began(out)
            killing = self.counts["kills"] < kills and killed < MOST and not (full and attempt == 0)
            if not start.ended(self.rng.uniform(0, 1.2 * self.took) if killing else 600):
                what = str(self.rng.choice(WHAT))
                start.kill(what, self.rng)
                killed += 1
                self.counts["kills"] += 1
                self.counts[what] += 1
            report, said = start.result()
            now = stamps(out)
            faults += [f"{name} was written again" for name, stamp in written.items() if now.get(name) != stamp]
            written = now
            if report is None and not killing:
                return [*faults, f"a start failed: {said[-2000:]}"]
            if full and attempt == 0:
                if report is not None and len(report["failures"]) < 2:
                    faults.append("the disk was not full")
                subprocess.run(["mount", "-o", "remount,size=100m", out], check=True)
                continue
            if report is not None:
                break
        if report["failures"] != self.expected_report["failures"]:
            faults.append(f"other failures: {report['failures']}")
        if report["series"] != self.expected_report["series"]:
            faults.append(f"{report['series']} series in place of {self.expected_report['series']}")
        if results(out) != self.expected:
            faults.append("with other bytes")
        drafts = [path.name for path in out.iterdir() if path.name.startswith(".fastrnn")]
        return faults + [f"drafts are left: {drafts}"] * bool(drafts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="number of kills, at least (100)")
    parser.add_argument("--seed", type=int, default=0, help="seed of engines and moments (0)")
    parser.add_argument("--engines", nargs="+", default=["none", "processes", "processes", "dask", "mpi"],
                        choices=scale_runs.ENGINES, help="those to draw from; each as often as it is named")
    args = parser.parse_args()
    for engine in set(args.engines):
        reason = scale_runs.missing(engine)
        if reason:
            print(f"without {engine}: {reason}")
            args.engines = [each for each in args.engines if each != engine]
    with tempfile.TemporaryDirectory() as folder:
        counts = Contest(Path(folder), args.engines, args.seed, print).run(args.kills)
    print(", ".join(f"{name}: {count}" for name, count in counts.items()))
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
