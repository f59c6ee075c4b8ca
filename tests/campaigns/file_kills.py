"""Kills what writes files again and again: the file is the old or the new one, whole, and no draft stays behind.

    python tests/campaigns/file_kills.py                    1,000 kills, some minutes
    python tests/campaigns/file_kills.py --kills 50 --seed 3 --only save convert

A process writes one file over and over, by turns with the contents of two models, and gets a SIGKILL at a random
moment: by `save` (a layer as .npz and as .safetensors, a fitted forecaster), by `interop.onnx.export`, by the
checkpoints of `training.fit`, or by the command `convert`. The file must then hold one of the models to the byte, or be
a checkpoint of the training, whole; where there is none yet, it may be missing. After one more writing that nobody
ends, the folder must hold that file alone. Half of the processes write as systems do that have no unnamed files. The
exit status is 1 if any kill broke this.
"""

import argparse
import contextlib
import hashlib
import io
import os
import signal
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

# a checkout built in place is used where fastrnn is not installed
sys.path.append(str(Path(__file__).resolve().parents[2]))
import fastrnn
from fastrnn import cli, interop, losses, optim, training
from fastrnn.forecasting import RNNForecaster

STRETCH = 6             # a kill comes within the time of so many writings


def forecaster(seed):
    y = np.sin(np.arange(120) / 5) + np.random.default_rng(seed).standard_normal(120) / 10
    return RNNForecaster(4, window=8, hidden_size=8, updates=4, seasons=(), random_state=seed).fit(y)


def run_command(*arguments):
    with contextlib.redirect_stdout(io.StringIO()):
        if code := cli.main([str(argument) for argument in arguments]):
            raise SystemExit(code)


class TwoModels:
    """A file whose contents are one of two models'; each is written by a function of the model and the path."""

    def __init__(self, name, models, write, folder):
        self.path, self.models, self.write = folder / name / name, models, write
        self.path.parent.mkdir()
        self.contents = []
        for model in models:
            write(model, self.path)
            self.contents.append(self.path.read_bytes())
        if self.contents[0] == self.contents[1]:
            raise AssertionError(f"{name}: the two models give the same file, so none is told from the other")

    def go_on(self):
        while True:
            self.finish()

    def finish(self):
        for model in self.models:
            self.write(model, self.path)

    def is_whole(self):
        return self.path.read_bytes() in self.contents


class Checkpoints:
    """The checkpoints of a training, one after every update."""

    def __init__(self, name, folder):
        self.path = folder / name / name
        self.path.parent.mkdir()
        self.contents = set()
        x = np.random.default_rng(0).standard_normal((12, 20, 8)).astype(np.float32)
        self.data = x, x[:, :, :1].copy()
        original = training.checkpoints.save

        def keep(path, run, state):
            original(path, run, state)
            self.contents.add(self.read())

        training.checkpoints.save = keep
        try:
            self.finish()
        finally:
            training.checkpoints.save = original

    def finish(self):
        self.path.unlink(missing_ok=True)
        self.train()

    def go_on(self):
        while True:
            self.train()
            self.path.unlink()

    def train(self):
        net = fastrnn.Sequential(fastrnn.LSTM(8, 48, rng=0), fastrnn.Linear(48, 1, rng=1))
        training.fit(net, *self.data, loss=losses.MSE(), optimizer=optim.Adam(net, 0.01), epochs=4, batch_size=4,
                     checkpoint=self.path, checkpoint_every=1, rng=0, progress=False)

    def read(self):
        """A digest of all that a checkpoint holds but for the times that were measured."""
        digest = hashlib.sha256()
        with zipfile.ZipFile(self.path) as archive:
            for name in archive.namelist():
                data = archive.read(name)
                if name == "sums.npy":
                    data = data[:-8]            # the last of the sums are the seconds of this epoch
                if name != "history.seconds.npy":
                    digest.update(name.encode() + data)
        return digest.digest()

    def is_whole(self):
        # There is none between the end of one training and the first update of the next.
        return not self.path.exists() or self.read() in self.contents


def targets(folder):
    """Name of what writes -> the files that it writes."""
    layers = [fastrnn.LSTM(24, 64, rng=seed) for seed in (0, 1)]
    forecasters = [forecaster(seed) for seed in (0, 1)]
    sources = []
    for index, layer in enumerate(layers):
        sources.append(folder / f"source-{index}.npz")
        layer.save(sources[-1])

    def save(model, path):
        model.save(path)

    return {
        "save": [TwoModels("layer.npz", layers, save, folder), TwoModels("layer.safetensors", layers, save, folder),
                 TwoModels("forecaster.npz", forecasters, save, folder)],
        "export": [TwoModels("layer.onnx", layers, interop.onnx.export, folder)],
        "checkpoint": [Checkpoints("checkpoint", folder)],
        "convert": [TwoModels("converted.safetensors", sources, lambda source, path: run_command(
            "convert", source, path), folder)],
    }


def child_of(function, named):
    """A process, forked, that calls a function and ends."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        if named and hasattr(os, "O_TMPFILE"):
            del os.O_TMPFILE
        function()
        status = 0
    finally:
        os._exit(status)


def finished(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def contest(what, files, kills, rng):
    """Kills writers; returns how many kills left something wrong, and how many drafts there were at once at most."""
    wrong = drafts = 0
    for number in range(kills):
        target, named = files[number % len(files)], bool(number // len(files) % 2)
        start = time.monotonic()
        if finished(child_of(target.finish, named)):
            raise SystemExit(f"{what}: writing {target.path.name} fails without any kill")
        stretch = STRETCH * (time.monotonic() - start)
        child = child_of(target.go_on, named)
        time.sleep(rng.uniform(0, stretch))
        os.kill(child, signal.SIGKILL)
        if (code := finished(child)) != -signal.SIGKILL:
            raise SystemExit(f"{what}: the writer of {target.path.name} ended by itself with {code}")
        faults = []
        try:
            if not target.is_whole():
                faults.append("is neither the old nor the new file")
        except Exception as error:          # a file that is broken fails in any way
            faults.append(f"cannot be read: {error!r}")
        drafts = max(drafts, len(os.listdir(target.path.parent)) - target.path.exists())
        finished(child_of(target.finish, named))
        if names := [name for name in os.listdir(target.path.parent) if name != target.path.name]:
            faults.append(f"has left {names} after the next writing")
        for fault in faults:
            print(f"{what}: kill {number + 1}: {target.path.name} {fault}", flush=True)
        wrong += bool(faults)
        if (number + 1) % 50 == 0:
            print(f"{what}: {number + 1} of {kills} kills", flush=True)
    return wrong, drafts


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=1000, help="number of kills, shared by all that write (1000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (0)")
    parser.add_argument("--only", nargs="+", choices=["save", "export", "checkpoint", "convert"], help="only these")
    arguments = parser.parse_args()
    fastrnn.set_num_threads(1)
    rng = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        chosen = {name: files for name, files in targets(Path(folder)).items()
                  if arguments.only is None or name in arguments.only}
        shares = [len(part) for part in np.array_split(range(arguments.kills), len(chosen))]
        results = {name: contest(name, files, share, rng) for (name, files), share in zip(chosen.items(), shares)}
    wrong = sum(count for count, _ in results.values())
    print(f"{sum(shares)} kills of {', '.join(chosen)}: {wrong} left something wrong; at most "
          f"{max(drafts for _, drafts in results.values())} draft beside a file, none after the next writing"
          if not wrong else f"{sum(shares)} kills of {', '.join(chosen)}: {wrong} LEFT SOMETHING WRONG")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
