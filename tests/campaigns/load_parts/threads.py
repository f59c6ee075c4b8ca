"""Many Python threads on one layer, each with a stream of its own; and threads that come and go."""

import os
import threading
import time

import numpy as np
import psutil

from .common import child

THREADS, ROUNDS = 64, 40
SHORT_LIVED = 10_000
POOL = 1                        # threads that the pool keeps for itself, beside the caller of two
MOST_GROWTH = 16 * 2**20        # bytes that threads may leave behind, whatever their number


def run_many(threads, rounds):
    """Prints how many results had other bits than one thread alone, and by how much memory grew after a warm-up."""
    import fastrnn
    threads, rounds = int(threads), int(rounds)
    layer = fastrnn.LSTM(48, 48, 2, rng=0)
    x = np.random.default_rng(0).standard_normal((threads, 40, 6, 48), dtype=np.float32)

    def work(n, stream, results):
        output, _, cache = layer.forward(x[n])
        stream.reset()
        steps = np.stack([stream.step(x_t) for x_t in x[n, :10]])
        block = stream.run(x[n, 10:])
        gradient = layer.backward(cache, output).input
        ragged = layer(x[n], lengths=[40, 1, 0, 7, 40, 13])[0]
        results.append([a.tobytes() for a in (output, steps, block, gradient, ragged)])

    alone = []
    for n in range(threads):
        work(n, layer.stream(6), alone)
    wrong, sizes = [], []
    begin = threading.Barrier(threads)

    def go(n):
        stream, results = layer.stream(6), []
        for number in range(rounds):
            begin.wait()                        # all at once
            results.clear()
            work(n, stream, results)
            if results[0] != alone[n]:
                wrong.append(n)
            if n == 0 and number in (rounds // 4, rounds - 1):
                sizes.append(psutil.Process().memory_info().rss)

    workers = [threading.Thread(target=go, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(len(wrong), sizes[-1] - sizes[0], flush=True)


def run_short_lived(count):
    """Threads that make one call, with a stream of its own, and end; prints as run_many, and the threads left over."""
    import fastrnn
    count, layer = int(count), fastrnn.GRU(32, 32, rng=0)
    x = np.random.default_rng(0).standard_normal((20, 8, 32), dtype=np.float32)
    expected, wrong, process = layer(x)[0], [], psutil.Process()

    def work():
        with fastrnn.threads(2):                # which is kept for this thread alone
            stream = layer.stream(8)
            if not np.array_equal(layer(x)[0], expected) or not np.array_equal(stream.run(x), expected):
                wrong.append(1)

    size = 0
    for number in range(0, count, 8):
        workers = [threading.Thread(target=work) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if number == count // 5 // 8 * 8:
            size = process.memory_info().rss
    deadline = time.monotonic() + 10                    # join() returns a moment before the system's thread has ended
    while (left := len(os.listdir("/proc/self/task")) - 1) > POOL and time.monotonic() < deadline:
        time.sleep(0.01)
    print(len(wrong), process.memory_info().rss - size, left, flush=True)


CHILDREN = {"many": run_many, "short": run_short_lived}


def run(options, report):
    """Both, in processes of their own."""
    rounds, count = (4, 400) if options.slice else (ROUNDS, SHORT_LIVED)
    wrong, growth = map(int, child("threads", "many", THREADS, rounds, threads=2).communicate()[0].split())
    report.judge("64 threads", wrong == 0, f"{THREADS * rounds} rounds in {THREADS} threads, {wrong} with other bits")
    report.judge("memory of 64 threads", growth <= MOST_GROWTH, f"grew by {growth / 2**20:.1f} MiB, "
                 f"at most {MOST_GROWTH / 2**20:.0f}")
    wrong, growth, left = map(int, child("threads", "short", count, threads=2).communicate()[0].split())
    report.judge("threads that come and go", wrong == 0 and left <= POOL,
                 f"{count} threads, {wrong} with other bits, {left} threads of the pool afterwards")
    report.judge("their memory", growth <= MOST_GROWTH, f"grew by {growth / 2**20:.1f} MiB, "
                 f"at most {MOST_GROWTH / 2**20:.0f}")
