"""Training on several processes: what the tree of sums costs, what a second rank brings, equal bits, a cost model.

    python benchmarks/ranks.py                              all parts, about a minute on two free CPUs
    python benchmarks/ranks.py --only overhead model
    python benchmarks/ranks.py --rounds 15 --json out/ranks.json

The parts; everything has one thread a rank, contestants take turns, and a figure is the median of the rounds' ratios:

overhead  an update with (T, N, I, H) = (100, 64, 128, 128), an LSTM cut into 16 shards, on one rank: over the same
          shards without any sum, and over the whole minibatch at once
speed     two ranks over one, of processes and of MPI; and two threads of one process beside
bits      the digest of a checkpoint (all of it but the times) on 1, 2, 3, 4 and 8 ranks of both kinds
model     the time of an update on R ranks, by `update_time`, whose constants are measured here; what it says of two
          ranks beside what two take here; and predictions for networks of machines, which nothing here can check

A figure that misses its target is printed, and is no error; digests that differ are one: the exit status is then 1.
"""
import argparse
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

if __name__ == "__main__":      # before NumPy is loaded, and for the processes of mpirun
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "FASTRNN_NUM_THREADS": "1"}
import numpy as np

import fastrnn
from fastrnn import losses, optim, scale, training
from fastrnn.training.data import Data
from fastrnn.training.gradients import Piece, ShardedGradients, WholeGradients
from fastrnn.training.parallel import Tree

PARTS = ["overhead", "speed", "bits", "model"]
STEPS, ROWS, SIZE, SHARDS = 100, 64, 128, 16
OVERHEAD, SPEEDUP = 1.03, 1.7
RANKS = (1, 2, 3, 4, 8)
MINIBATCHES, EPOCHS = 4, 4                  # of a training that is timed; the first epoch does not count
MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_mpi_yield_when_idle": "1"}


# ---- The cost model -------------------------------------------------------------------------------

@dataclass(frozen=True)
class Rates:
    """What one rank does, in bytes of gradient a second, and the seconds of one small call from Python."""

    sums: float             # shards' gradients, laid out flat and added
    optimizer: float        # the gradient's norm and the update of the parameters
    call: float


@dataclass(frozen=True)
class Network:
    """What connects the ranks: the seconds of a message, and the bytes a second that a rank sends and receives."""

    latency: float
    bandwidth: float


def update_time(ranks, shards, parameters, shard_seconds, data_seconds, rates, network, itemsize=4):
    """The seconds of one update by their parts, on the rank that takes longest.

    With R ranks, S shards and a gradient of G = parameters * itemsize bytes:

    data        data_seconds: every rank takes the whole minibatch from the data
    compute     ceil(S / R) * shard_seconds: forward, loss and backward of one rank's shards
    sums        ceil(S / R) * G / sums: its own part of the tree
    latency     (2 ceil(log2 R) + 2 (R - 1)) messages: one exchange of small objects in two rounds, an Alltoallv and an
                Allgatherv of R - 1 messages each
    transfer    (m + 1) G (R - 1) / R / bandwidth, where m is the number of subtrees that a rank's shards make up: 1
                where R and S / R are powers of two
    tree        K G / R / sums for the K subtrees of all ranks, and K + 2 R small calls
    optimizer   G / optimizer: every rank updates all parameters
    """
    plan = Tree(shards, ranks, parameters, np.dtype(f"f{itemsize}"))
    gradient, own = parameters * itemsize, -(-shards // ranks)
    parts = {"data": data_seconds, "compute": own * shard_seconds, "sums": own * gradient / rates.sums,
             "optimizer": gradient / rates.optimizer}
    if ranks > 1:
        count, most = len(plan.nodes), max(map(len, plan.of_rank))
        parts["latency"] = network.latency * (2 * math.ceil(math.log2(ranks)) + 2 * (ranks - 1))
        parts["transfer"] = (most + 1) * gradient * (ranks - 1) / ranks / network.bandwidth
        parts["tree"] = count * gradient / ranks / rates.sums + (count + 2 * ranks) * rates.call
    return parts


def hidden_by_overlap(parts, shard_seconds, layers):
    """The most seconds that sending gradients during backward could save.

    The gradient of a layer's weights is a sum over all steps of the last shard, complete when its backward pass is. So
    nothing can be sent in the pass of the lowest layer, and of L layers (L - 1) / L of the transfer may run beside (L -
    1) / L of one shard's backward pass, which is two thirds of its time.
    """
    share = (layers - 1) / layers
    return share * min(parts.get("transfer", 0.0), shard_seconds * 2 / 3)


# ---- Updates, timed in this process ---------------------------------------------------------------

class Alone:
    """The world of a single rank."""

    rank, size = 0, 1

    def exchange(self, value):
        """The value of the only rank."""
        return [value]

    def share(self, nodes, plan):
        """Keep the sum of all shards."""
        (self._sum,) = nodes.values()

    def total(self, rows):
        """The sum of all shards."""
        return self._sum


class Updates:
    """A model and one minibatch, and what an update of it consists of."""

    def __init__(self, steps, rows, size, layers=1, shards=SHARDS):
        rng = np.random.default_rng(0)
        self.model, self.loss = fastrnn.LSTM(size, size, layers, rng=0), losses.MSE()
        self.optimizer = optim.Adam(self.model, 1e-4)
        self.parameters = sum(value.size for value in self.model.parameters.values())
        self.piece = Piece(rng.standard_normal((steps, rows, size), np.float32),
                           rng.standard_normal((steps, rows, size), np.float32), None, None, (0,))
        tree = Tree(shards, 1, self.parameters, self.model.dtype)
        self.parts = [Piece(self.piece.x[:, s::shards], self.piece.y[:, s::shards], None, None, (0,))
                      for s in range(shards)]
        self.whole = WholeGradients(self.model, self.loss, None)
        self.sharded = ShardedGradients(self.model, self.loss, None, False, tree, Alone())

    def shard(self, part):
        """Forward, loss and backward of one shard, as a rank does them; its gradients by name."""
        output, _, cache = self.model.forward(part.x)
        d_output = self.loss(output, part.y)[1]
        d_output = np.multiply(d_output, d_output.dtype.type(1 / len(self.parts)))
        return self.model.backward(cache, d_output, need_input=False).parameters

    def update(self, gradients):
        """What follows the gradients."""
        optim.clip_grad_norm(gradients, 1.0)
        self.optimizer.step(gradients)

    def without_sums(self):
        """All shards, and an update by the last one's gradients."""
        for part in self.parts:
            gradients = self.shard(part)
        self.update(gradients)

    def on_tree(self):
        """All shards, summed over the tree."""
        self.sharded.restart()
        self.update(self.sharded.compute(self.piece).gradients)

    def at_once(self):
        """The whole minibatch."""
        self.whole.restart()
        self.update(self.whole.compute(self.piece).gradients)


def seconds_of(call, turn=0.0):
    """The seconds of one call, called as often as `turn` seconds take."""
    count, start = 0, time.perf_counter()
    while True:
        call()
        count += 1
        now = time.perf_counter()
        if now - start >= turn:
            return (now - start) / count


def in_turn(rounds, turn=0.0, **calls):
    """Seconds of each call in every round, after one call that brings what it needs into the caches."""
    for call in calls.values():
        call()
    return [{name: seconds_of(call, turn) for name, call in calls.items()} for _ in range(rounds)]


def overhead(args, check):
    updates = Updates(STEPS, ROWS, SIZE)
    times = in_turn(args.rounds, tree=updates.on_tree, unsummed=updates.without_sums, whole=updates.at_once)
    result = {f"seconds {name}": median(each[name] for each in times) for name in times[0]}
    for name in ("unsummed", "whole"):
        result[f"over {name}"] = median(each["tree"] / each[name] for each in times)
    print(f"overhead: LSTM {STEPS, ROWS, SIZE, SIZE}, {SHARDS} shards on one rank: {1e3 * result['seconds tree']:.1f} "
          f"ms an update; over the whole minibatch at once {result['over whole']:.3f}")
    check(f"overhead: over the same shards without sums {result['over unsummed']:.3f}, at most {OVERHEAD}",
          result["over unsummed"] <= OVERHEAD)
    return result


# ---- Trainings on several ranks -------------------------------------------------------------------

def epoch_seconds(parallel):
    """The seconds of an update in a training: the median of its epochs but for the first."""
    rng, rows = np.random.default_rng(0), ROWS * MINIBATCHES
    x, y = rng.standard_normal((2, STEPS, rows, SIZE), np.float32)
    model = fastrnn.LSTM(SIZE, SIZE, rng=0)
    history = training.fit(model, x, y, loss=losses.MSE(), optimizer=optim.Adam(model, 1e-4), epochs=EPOCHS,
                           batch_size=ROWS, parallel=parallel, shards=SHARDS, rng=0, progress=False)
    return median(history["seconds"][1:]) / MINIBATCHES


def checkpoint_digest(parallel, folder):
    """A digest of the checkpoint of a short training but for its times; None in the ranks of MPI that write none."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 30, 96, 16), np.float32)
    model = fastrnn.Sequential(fastrnn.LSTM(16, 32, 2, dropout=0.1, rng=0), fastrnn.Linear(32, 16, rng=1))
    path = Path(folder) / "checkpoint"
    training.fit(model, x, y, loss=losses.MSE(), optimizer=optim.Adam(model, 0.01), epochs=3, batch_size=32, tbptt=15,
                 validation=(x[:, :16], y[:, :16]), clip_norm=0.5, checkpoint=path, parallel=parallel, shards=SHARDS,
                 rng=0, progress=False)
    if isinstance(parallel, scale.mpi) and parallel.comm.rank:
        return None
    total = hashlib.sha256()
    with np.load(path) as file:
        for name in sorted(file.files):
            if name != "history.seconds":
                value = file[name][:-1] if name == "sums" else file[name]
                total.update(name.encode() + value.tobytes())
    return total.hexdigest()[:16]


def by_mpi(ranks, task):
    """What rank 0 of an MPI run of this script prints for a task."""
    command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), sys.executable, __file__,
               "--mpi-task", task]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | MPI, timeout=300)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def mpi_task(task):
    """The part of one rank of such a run."""
    parallel = scale.mpi()
    with tempfile.TemporaryDirectory() as folder:           # rank 0 alone writes to its own
        result = epoch_seconds(parallel) if task == "speed" else checkpoint_digest(parallel, folder)
    if parallel.comm.rank == 0:
        print(json.dumps(result))


def has_mpi():
    try:
        import mpi4py  # noqa: F401
    except ImportError:
        return False
    return shutil.which("mpirun") is not None


def two_threads():
    with fastrnn.threads(2):
        return epoch_seconds(None)


def speed(args, check):
    kinds = {"processes": lambda n: epoch_seconds(scale.processes(n, threads=1))}
    if has_mpi():
        kinds["mpi"] = lambda n: by_mpi(n, "speed")
    else:
        print("speed: no MPI: it needs an MPI library and mpi4py")
    result = {"seconds of one process without shards": epoch_seconds(None), "seconds of two threads": two_threads()}
    for kind, seconds in kinds.items():
        times = [(seconds(1), seconds(2)) for _ in range(max(3, args.rounds // 3))]
        result[kind] = {"seconds of one rank": median(one for one, _ in times),
                        "seconds of two": median(two for _, two in times),
                        "speedup": median(one / two for one, two in times)}
        print(f"speed: {kind}, one rank {1e3 * result[kind]['seconds of one rank']:.1f} ms an update, two "
              f"{1e3 * result[kind]['seconds of two']:.1f} ms")
        check(f"speed: {kind}, two ranks over one {result[kind]['speedup']:.2f}, at least {SPEEDUP}",
              result[kind]["speedup"] >= SPEEDUP)
    print(f"speed: without parallel, one thread {1e3 * result['seconds of one process without shards']:.1f} ms, two "
          f"{1e3 * result['seconds of two threads']:.1f} ms")
    return result


def bits(args, check):
    result = {}
    for ranks in RANKS:
        with tempfile.TemporaryDirectory() as folder:
            result[f"processes {ranks}"] = checkpoint_digest(scale.processes(ranks, threads=1), folder)
        if has_mpi():
            result[f"mpi {ranks}"] = by_mpi(ranks, "bits")
    for name, value in result.items():
        print(f"bits: {name:12} {value}")
    check("bits: one digest", len(set(result.values())) == 1, error=True)
    return result


# ---- The model, fitted and applied ----------------------------------------------------------------

# Name: hidden (and input) size, layers, and the steps that are timed; times are then scaled to STEPS steps.
NETWORKS = {"LSTM 128, 1 layer": (128, 1, 50), "LSTM 512, 1 layer": (512, 1, 10), "LSTM 1024, 2 layers": (1024, 2, 4)}
CONNECTIONS = {"10 us, 10 GB/s": Network(10e-6, 10e9), "50 us, 1.25 GB/s (Ethernet)": Network(50e-6, 1.25e9)}
MANY_RANKS = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1024)
SETTINGS = ((64, 16), (4096, 1024))         # rows of a minibatch, shards: four rows a shard in both


def fitted_rates(rounds):
    """The `Rates` of each network: they depend on the caches that its gradients fit into."""
    a = np.zeros((2, 128), np.float32)

    def small():
        a[0] += a[1]
    call, result = median(seconds_of(small, 0.01) for _ in range(rounds)), {}
    for name, (size, layers, _) in NETWORKS.items():
        updates = Updates(2, 16, size, layers, shards=4)
        gradients = [updates.shard(part) for part in updates.parts[:2]]
        sums, bytes_of = updates.sharded._sums, 4 * updates.parameters

        def add(sums=sums, gradients=gradients):
            for s in range(4):
                sums.add(s, gradients[s % 2])
            sums.take()

        def update(updates=updates, gradients=gradients):
            updates.update(gradients[0])
        times = in_turn(max(3, rounds // 3), 0.01, add=add, update=update)
        result[name] = Rates(4 * bytes_of / median(each["add"] for each in times),
                             bytes_of / median(each["update"] for each in times), call)
    return result


def shard_times(rounds):
    """Of each network the seconds of a shard of four rows and STEPS steps, those of taking a row, and the parameters.

    The shards are those of a minibatch, one after the other.
    """
    result = {}
    for name, (size, layers, steps) in NETWORKS.items():
        updates = Updates(steps, ROWS, size, layers)
        rows = Data(updates.model, updates.piece.x, updates.piece.y, None, None)
        order = np.random.default_rng(0).permutation(ROWS)

        def compute(updates=updates):
            for part in updates.parts:
                updates.shard(part)

        def take(rows=rows, order=order):
            rows.take(order)
        times = in_turn(max(3, rounds // 5), compute=compute, take=take)
        scaled = STEPS / steps
        result[name] = (median(each["compute"] for each in times) * scaled / SHARDS,
                        median(each["take"] for each in times) * scaled / ROWS, updates.parameters)
    return result


def shared_memory():
    """Two processes of this machine as a `Network`: a message of an exchange, and the copying of memory.

    In shared memory all of a gradient is copied in and out, where the formula has the other ranks' half of it: that
    halves the bandwidth.
    """
    measured = scale.processes(2, threads=1)._launch(exchange_seconds, Tree(2, 2, 4, np.dtype("f4")))
    source, target = np.ones((2, 1 << 20), np.float32)
    copying = median(seconds_of(lambda: np.copyto(target, source), 0.01) for _ in range(5))
    return Network(measured / 2, source.nbytes / copying / 2)


def exchange_seconds(world):
    """The seconds of an exchange, which is two messages between two ranks."""
    return median([seconds_of(lambda: world.exchange(None)) for _ in range(500)])


def model(args, check):
    rates, shards = fitted_rates(args.rounds), shard_times(args.rounds)
    memory = shared_memory()
    for name, (seconds, taking, parameters) in shards.items():
        print(f"model: {name}: {parameters:,} parameters; a shard of 4 rows and {STEPS} steps {1e3 * seconds:.2f} ms; "
              f"taking a row {1e6 * taking:.0f} us; sums {rates[name].sums / 1e9:.2f} and optimizer "
              f"{rates[name].optimizer / 1e9:.2f} GB/s")
    print(f"model: a small call {1e6 * rates[name].call:.2f} us; shared memory {1e6 * memory.latency:.1f} us a "
          f"message, {memory.bandwidth / 1e9:.1f} GB/s")
    first = next(iter(NETWORKS))
    seconds, taking, parameters = shards[first]
    checked = {}
    for ranks in (1, 2):
        predicted = sum(update_time(ranks, SHARDS, parameters, seconds, ROWS * taking, rates[first], memory).values())
        measured = epoch_seconds(scale.processes(ranks, threads=1))
        checked[ranks] = {"predicted": predicted, "measured": measured}
        print(f"model: LSTM {STEPS, ROWS, SIZE, SIZE} on {ranks} of processes: predicted {1e3 * predicted:.1f} ms an "
              f"update, measured {1e3 * measured:.1f}")
    tables = [row for setting in SETTINGS for row in predictions(*setting, shards, rates)]
    return {"rates": {name: vars(value) for name, value in rates.items()}, "shared memory": vars(memory),
            "shards": shards, "checked": checked, "predictions": tables}


def predictions(rows, shards, networks, rates):
    """Print and return speedups over one rank for every network, connection and number of ranks.

    The last columns: up to how many ranks the speedup is half their number or more, and the share of the time there
    that sending during backward could save at most.
    """
    columns = [ranks for ranks in MANY_RANKS if ranks <= shards]
    print(f"\npredicted speedups over one rank, minibatches of {rows} rows and {STEPS} steps, {shards} shards:\n")
    print(f"| network | connection | one rank, s | {' | '.join(map(str, columns))} | half of R up to | overlap |")
    print("|---|---|---|" + "---|" * (len(columns) + 2))
    result = []
    for name, (seconds, taking, parameters) in networks.items():
        for connection, network in CONNECTIONS.items():
            parts = {ranks: update_time(ranks, shards, parameters, seconds, rows * taking, rates[name], network)
                     for ranks in (1, *columns)}
            times = {ranks: sum(each.values()) for ranks, each in parts.items()}
            speedups = {ranks: times[1] / times[ranks] for ranks in columns}
            pays = max((ranks for ranks in columns if speedups[ranks] >= ranks / 2), default=1)
            gain = hidden_by_overlap(parts[pays], seconds, NETWORKS[name][1]) / times[pays]
            result.append({"network": name, "connection": connection, "rows": rows, "shards": shards,
                           "one rank": times[1], "speedups": speedups, "pays": pays, "overlap": gain})
            print(f"| {name} | {connection} | {times[1]:.3g} | {' | '.join(f'{x:.3g}' for x in speedups.values())} | "
                  f"{pays} | {100 * gain:.1f} % |")
    return result


def main():
    first, rest = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(description=first, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS, help="parts (all)")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="rounds of every figure (15)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures here")
    parser.add_argument("--mpi-task", choices=["speed", "bits"], help=argparse.SUPPRESS)    # of a rank of MPI
    args = parser.parse_args()
    if args.mpi_task:
        return mpi_task(args.mpi_task)
    results, wrong = {"date": time.strftime("%Y-%m-%d"), "isa": fastrnn.active_isa(), "cpus": os.cpu_count()}, []

    def check(text, good, error=False):
        print(f"{text}: {'met' if good else 'MISSED'}", flush=True)
        if error and not good:
            wrong.append(text)

    parts = {"overhead": overhead, "speed": speed, "bits": bits, "model": model}
    for name in args.only:
        results[name] = parts[name](args, check)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=1))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
