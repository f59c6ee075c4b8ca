"""Threads that use the same models, streams and pools at once, many times over, without looking at the results.

    python tests/campaigns/contention.py                    every part, some seconds
    python tests/campaigns/contention.py streams pools --rounds 1000

For a build with ThreadSanitizer, on which free_threaded.py --tsan runs it: what is judged is what ThreadSanitizer
reports. Reference counts put threads that use the same object in an order again and again, and a race is only seen
between two of these moments: so calls are short and there are many of them. A stream or a pool may refuse a call
because another thread is in one; any other exception ends the program with exit status 1.
"""

import argparse
import copy
import itertools
import pickle
import sys
import threading
import time

import numpy as np

import fastrnn
from fastrnn import GRU, LSTM, Linear, LSTMCell, Sequential, _core, losses, optim, scale, training

errors = []


def data(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def at_once(*functions):
    """Calls functions in threads that begin together, each as often as is said: pairs of a number and a function."""
    barrier = threading.Barrier(len(functions))

    def work(count, function):
        barrier.wait()
        for _ in range(count):
            try:
                function()
            except Exception as error:
                if not isinstance(error, RuntimeError) or "another thread" not in str(error):
                    errors.append(error)
                    return

    threads = [threading.Thread(target=work, args=pair) for pair in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def passes_of(layer, x):
    """A training step without the optimizer's."""
    output, _, cache = layer.forward(x)
    layer.backward(cache, output)


def layers(rounds):
    """Calls, training passes, streams and copies of a layer whose parameters are replaced meanwhile."""
    for cls in (GRU, LSTM):
        layer, x = cls(5, 6, 2, rng=0), data(7, 3, 5)
        versions = itertools.cycle([cls(5, 6, 2, rng=seed).state_dict() for seed in (1, 2)])

        def replace(layer=layer, versions=versions):
            layer.load_state_dict(next(versions))
            with layer.updating() as parameters:
                parameters["bias_ih_l0"] += 0.1

        def stream(layer=layer, x=x):
            core = layer.stream(3)
            core.step(x[0])
            core.run(x[1:])

        at_once((rounds, replace), (rounds, lambda layer=layer, x=x: layer(x)), (rounds, stream),
                *[(rounds, lambda layer=layer, x=x: passes_of(layer, x))] * 2,
                (rounds, lambda layer=layer, x=x: pickle.loads(pickle.dumps(layer))(x)),
                (rounds, lambda layer=layer, x=x: copy.copy(layer)(x)))


def streams(rounds):
    """One stream, one cell and one chain of several threads."""
    x, block = np.ones(1, np.float32), np.ones((3, 1), np.float32)
    models = [GRU(1, 5, rng=0), GRU(1, 5, 2, rng=0), LSTM(1, 160, rng=0),
              Sequential(GRU(1, 5, rng=0), LSTM(5, 5, rng=0), Linear(5, 1, rng=0))]
    for model in models:
        stream = model.stream()
        looks = [(2 * rounds, lambda stream=stream: stream.state), (rounds, stream.reset)]
        looks += [(rounds, stream.snapshot)] if hasattr(stream, "snapshot") else []
        at_once(*[(4 * rounds, lambda stream=stream: stream.step(x))] * 2,
                (rounds, lambda stream=stream: stream.run(block)), *looks)
    cell, row = LSTMCell(3, 8, rng=0), data(3)
    at_once(*[(4 * rounds, lambda: cell(row))] * 3)


def pools(rounds):
    """One pool of several threads, and large buffers, which come from a list that all calls share."""
    layer, keys, x = GRU(12, 64, rng=0), list(range(48)), np.ones((48, 12), np.float32)
    for model in (layer, layer.quantized("int8")):
        pool = scale.StreamPool(model, 48)
        at_once(*[(rounds, lambda pool=pool: pool.step(keys, x))] * 3, (rounds, lambda pool=pool: len(pool)),
                (rounds, pool.snapshot))
    large = LSTM(40, 48, rng=0)
    with fastrnn.threads(1):
        at_once(*((1 + rounds // 8, lambda rows=rows: passes_of(large, data(40, rows, 40))) for rows in (16, 17, 18)))


def teams(rounds):
    """Steps and calls that threads of fastrnn share, and a number of threads that changes."""
    layer, x = LSTM(70, 330, rng=0), data(5, 70)
    large, steps = GRU(64, 200, rng=0), data(30, 6, 64)
    counts, before = itertools.cycle([1, 2, 3]), fastrnn.get_num_threads()
    own = [layer.stream(5) for _ in range(3)]
    _core.assume_cpus(4)
    try:
        fastrnn.set_num_threads(3)
        at_once(*((rounds, lambda stream=stream: stream.step(x)) for stream in own),
                (rounds, lambda: fastrnn.set_num_threads(next(counts))))
        fastrnn.set_num_threads(3)
        at_once((1 + rounds // 4, lambda: large(steps)), (1 + rounds // 4, lambda: passes_of(large, steps)),
                (rounds, lambda: own[0].step(x)), (rounds, own[0].snapshot))
    finally:
        _core.assume_cpus(0)
        fastrnn.set_num_threads(before)


def trainings(rounds):
    """Trainings of two models at once, and the modules of one that are replaced and copied together."""
    def fit(seed):
        model, x = Sequential(GRU(2, 5, 2, dropout=0.2, rng=seed), Linear(5, 1, rng=seed)), data(10, 24, 2)
        training.fit(model, x, np.cumsum(x[..., :1], 0), loss=losses.MSE(), optimizer=optim.Adam(model, 0.01), epochs=1,
                     batch_size=8, rng=seed, progress=False)

    def model(seed):
        return Sequential(GRU(2, 3, rng=seed), Sequential(LSTM(3, 3, rng=seed), Linear(3, 1, rng=seed)))

    at_once(*((1 + rounds // 16, lambda seed=seed: fit(seed)) for seed in (0, 1)))
    shared, version = model(0), model(1).state_dict()
    at_once((rounds, lambda: shared.load_state_dict(version)), (rounds, lambda: shared.parameters),
            (rounds, shared.state_dict), (rounds, lambda: copy.copy(shared)), (rounds, shared.stream))


PARTS = {function.__name__: function for function in (layers, streams, pools, teams, trainings)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all, where none is named")
    parser.add_argument("--rounds", type=int, default=400, help="calls of a thread, more or less (400)")
    arguments = parser.parse_args()
    for name in arguments.parts or PARTS:
        start = time.monotonic()
        PARTS[name](arguments.rounds)
        print(f"contention, {name}: {time.monotonic() - start:.0f} s", flush=True)
    for error in errors:
        print(f"contention: {type(error).__name__}: {error}")
    print(f"contention: {len(errors)} errors", flush=True)
    return bool(errors)


if __name__ == "__main__":
    sys.exit(main())
