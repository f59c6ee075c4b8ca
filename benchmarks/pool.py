"""Pools of streams: what a row costs beside the batched layer and beside a solo stream; a million keys with a store.

    python benchmarks/pool.py [--threads 1] [--keys 1000000] [--rows 400000] [--json out/pool.json]

Times are the least of several rounds, in turn with what they are compared with. The rows of a step come in a random
order of keys, and every state is in another place of the pool's memory.
"""

import argparse
import json
import os
import tempfile
import time

import numpy as np

import fastrnn
from fastrnn import scale

LIVE = 4096
SIZES = [(16, 32), (64, 128)]


def least(rounds, *functions):
    """The least seconds of each function, in turn, each after a call that brings what it needs into the caches."""
    best = [float("inf")] * len(functions)
    for _ in range(rounds):
        for n, function in enumerate(functions):
            function()
            start = time.perf_counter()
            function()
            best[n] = min(best[n], time.perf_counter() - start)
    return best


def row_times(input_size, hidden_size, rounds):
    """Nanoseconds a row: the pool, a stream of all rows, the layer from given states, one solo stream, as many."""
    layer, rng = fastrnn.LSTM(input_size, hidden_size, rng=0), np.random.default_rng(0)
    x = rng.standard_normal((LIVE, input_size), np.float32)
    keys = [f"sensor {n}" for n in rng.permutation(LIVE)]
    out = np.empty((LIVE, hidden_size), np.float32)
    pool, batched, solo = scale.StreamPool(layer, LIVE), layer.stream(LIVE), layer.stream()
    pool.step(sorted(keys), x)
    state = layer(x[None])[1]
    streams, rows, outs = {key: layer.stream() for key in keys}, list(x), list(out)

    def one_stream():
        for row, y in zip(rows, outs):
            solo.step(row, y)

    def many_streams():
        for key, row, y in zip(keys, rows, outs):
            streams[key].step(row, y)

    names = ["pool", "batched stream", "layer from states", "one solo stream", "4,096 solo streams"]
    times = least(rounds, lambda: pool.step(keys, x, out), lambda: batched.step(x, out), lambda: layer(x[None], state),
                  one_stream, many_streams)
    return {name: 1e9 * seconds / LIVE for name, seconds in zip(names, times)}


def zipf_traffic(known, rows, call, folder, capacity=LIVE, sampled=200):
    """Rows a second and the hit rate of Zipf traffic over many keys, with an SQLite file; states are compared."""
    layer, rng = fastrnn.LSTM(16, 32, rng=0), np.random.default_rng(0)
    store = scale.SQLiteStore(os.path.join(folder, "states.sqlite"))
    pool = scale.StreamPool(layer, capacity, store=store)
    names = np.arange(known)
    every = np.zeros((call, 16), np.float32)
    start = time.perf_counter()
    for first in range(0, known, call):                     # every key has had a row
        pool.step(names[first:first + call].tolist(), every[:len(names[first:first + call])])
    filling = time.perf_counter() - start
    pool.hits = pool.misses = 0
    weights = 1 / np.arange(1, known + 1)                   # the key of rank r comes in proportion to 1/r
    keys = rng.permutation(known)[np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(rows))]
    x = rng.standard_normal((rows, 16), np.float32)
    start = time.perf_counter()
    for first in range(0, rows, call):
        pool.step(keys[first:first + call].tolist(), x[first:first + call])
    seconds = time.perf_counter() - start
    wrong = 0
    for key in rng.choice(np.unique(keys), sampled, replace=False).tolist():
        solo = layer.stream()
        solo.step(every[0])
        for row in x[keys == key]:
            solo.step(row)
        wrong += pool.snapshot(key) != solo.snapshot()
    store.close()
    return {"known keys": known, "resident": capacity, "rows": rows, "rows a call": call,
            "rows a second": rows / seconds, "hit rate": pool.hits / rows, "first rows a second": known / filling,
            "states compared": sampled, "states that differ": wrong,
            "megabytes on disk": sum(entry.stat().st_size for entry in os.scandir(folder)) / 1e6}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--keys", type=int, default=1_000_000, help="0: no traffic with a store")
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--json", metavar="PATH")
    options = parser.parse_args()
    result = {"threads": options.threads, "isa": fastrnn.active_isa(), "rows": {}}
    with fastrnn.threads(options.threads):
        for size in SIZES:
            times = result["rows"]["{}->{}".format(*size)] = row_times(*size, options.rounds)
            print(f"LSTM {size[0]}->{size[1]}, {LIVE} streams, {options.threads} threads, nanoseconds a row:",
                  ", ".join(f"{name} {value:.0f}" for name, value in times.items()))
            for name, target in (("batched stream", 1.3), ("layer from states", 1.3), ("one solo stream", 0.6),
                                 ("4,096 solo streams", 0.6)):
                ratio = times["pool"] / times[name]
                print(f"    over {name}: {ratio:.2f} (at most {target}: {'met' if ratio <= target else 'MISSED'})")
        if options.keys:
            with tempfile.TemporaryDirectory() as folder:
                result["traffic"] = zipf_traffic(options.keys, options.rows, 256, folder)
            print("Zipf traffic:", ", ".join(f"{name} {value:,.6g}" for name, value in result["traffic"].items()))
    if options.json:
        os.makedirs(os.path.dirname(os.path.abspath(options.json)), exist_ok=True)
        with open(options.json, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
