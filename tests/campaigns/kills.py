"""Kills a training again and again, at random moments, and starts it again: it must end with the same bits.

    python tests/campaigns/kills.py                  200 kills, some minutes
    python tests/campaigns/kills.py --kills 6 --seed 3

The training uses everything that a checkpoint must hold: sequences of different lengths in shuffled buckets, truncated
back-propagation that carries an LSTM's state, dropout, a schedule, clipping, validation with the best weights kept. A
checkpoint is written after every second update. Every start is a process of its own; one that finds a checkpoint begins
with other weights and another seed, which must not matter. When a training has ended, its weights, optimizer and
history are compared with those of a training that was never killed, and a new training begins, until there were enough
kills. The exit status is 1 if any differs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

# a checkout built in place is used where fastrnn is not installed
sys.path.append(str(Path(__file__).resolve().parents[2]))
from fastrnn import GRU, LSTM, Linear, Sequential, losses, optim, training

EPOCHS = 8
STRETCH = 0.25      # a kill comes within this share of the time of a whole training after a start


def model(seed):
    return Sequential(LSTM(2, 12, 2, dropout=0.2, rng=seed), GRU(12, 8, rng=seed), Linear(8, 1, rng=seed))


def sequences(rng, rows):
    x = [rng.standard_normal((n, 2)).astype(np.float32) for n in rng.integers(1, 40, rows)]
    return x, [np.cumsum(a[:, :1], 0) / 4 for a in x]


def train(folder):
    """Trains, and returns everything that should be the same at the end, as arrays by name."""
    checkpoint = folder / "checkpoint"
    seed = os.getpid() if checkpoint.exists() else 0
    net, rng = model(seed), np.random.default_rng(0)
    optimizer = optim.AdamW(net, 0.01, schedule=optim.warmup(20, optim.cosine(200)))
    x, y = sequences(rng, 64)
    history = training.fit(net, x, y, loss=losses.Huber(), optimizer=optimizer, epochs=EPOCHS, batch_size=16, tbptt=10,
                           clip_norm=1.0, validation=sequences(rng, 20), patience=EPOCHS, checkpoint=checkpoint,
                           checkpoint_every=2, rng=seed, progress=False)
    return {**net.parameters, **{f"optimizer.{name}": np.asarray(value)
                                 for name, value in optimizer.state_dict().items()},
            **{f"history.{name}": np.array(history[name]) for name in history if name != "seconds"}}


def started(folder):
    """Starts a process that trains, and returns it at the moment when it begins to."""
    process = subprocess.Popen([sys.executable, __file__, "--child", folder], stdout=subprocess.PIPE,
                               env=os.environ | {"OMP_NUM_THREADS": "1"})
    if process.stdout.readline() != b"training\n":
        sys.exit(f"a start failed, exit status {process.wait()}")
    return process


def ended(process, timeout):
    """Whether the process ended by itself within `timeout` seconds; otherwise it is killed."""
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
    if process.returncode > 0:
        sys.exit(f"a training failed, exit status {process.returncode}")
    return process.returncode == 0


def result(folder):
    with np.load(folder / "result.npz") as file:
        return {name: (file[name].dtype.str, file[name].shape, file[name].tobytes()) for name in file.files}


def contest(kills, seed, folder, report=print):
    """Runs whole trainings until there were `kills` kills. Returns counts; "wrong" are trainings with other bits."""
    rng, unkilled = np.random.default_rng(seed), folder / "unkilled"
    unkilled.mkdir()
    begin = time.perf_counter()
    ended(started(unkilled), 600)
    expected, took = result(unkilled), time.perf_counter() - begin
    counts = {"kills": 0, "without a checkpoint yet": 0, "files left behind": 0, "trainings": 0, "wrong": 0}
    while counts["kills"] < kills:
        place = folder / f"training {counts['trainings']}"
        place.mkdir()
        while not ended(started(place), rng.uniform(0, STRETCH * took) if counts["kills"] < kills else 600):
            counts["kills"] += 1
            counts["without a checkpoint yet"] += not (place / "checkpoint").exists()
            counts["files left behind"] += any(place.glob(".fastrnn-*"))
        resumed, drafts = result(place), [path.name for path in place.glob(".fastrnn-*")]
        names = expected.keys() | resumed.keys()
        wrong = drafts + sorted(name for name in names if expected.get(name) != resumed.get(name))
        counts["trainings"] += 1
        counts["wrong"] += bool(wrong)
        report(f"{counts['kills']} kills: training {counts['trainings']} ended "
             + (f"with other bits in {', '.join(wrong)}" if wrong else "with the same bits"), flush=True)
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="number of kills, at least (200)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (0)")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print("training", flush=True)
        np.savez(args.child / "result.npz", **train(args.child))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        counts = contest(args.kills, args.seed, Path(folder))
    print(", ".join(f"{name}: {count}" for name, count in counts.items()))
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
