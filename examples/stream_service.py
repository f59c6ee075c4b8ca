# %% [markdown]
# # A service that scores live streams
#
# Rows of a thousand clients come in one log, scores go out in another.
#
#     python examples/stream_service.py                                   # everything in this process, with a crash
#     python examples/stream_service.py --redis redis://127.0.0.1:6379/0  # the same by two streams of a Redis server
#     python examples/stream_service.py --redis redis://... --serve       # the service alone, until it is killed
#
# The service takes as many rows as have come, steps their streams in one call of a ``StreamPool``, and answers. Now and
# then it flushes: the states and the id of the last row go to an SQLite file in one transaction. A service that was
# killed goes on from there. It computes the rows since the last flush again, from the states of that moment, so that
# their scores are the same to the bit; the log of scores takes each row's score once, under the row's id. So no row is
# lost or counted twice, wherever the service was killed.

# %%
import argparse
import os
import tempfile
import threading
import time

import numpy as np

import fastrnn
from fastrnn import scale

FEATURES = 4


def default_model():
    """The model that is served: here with random weights; a trained one comes from fastrnn.load."""
    return fastrnn.Sequential(fastrnn.LSTM(FEATURES, 32, rng=0), fastrnn.Linear(32, 1, rng=1))


# %%
class MemoryLog:
    """Rows and scores of one process, with the methods that the service needs of a log."""

    first = "0"

    def __init__(self):
        self._rows, self._scores, self._news = [], {}, threading.Condition()

    def append(self, keys, rows):
        """Add a row for each key; return their ids."""
        with self._news:
            start = len(self._rows)
            self._rows += zip(keys, rows)
            self._news.notify_all()
            return [str(n + 1) for n in range(start, len(self._rows))]

    def read(self, after, most, wait):
        """Return up to `most` rows after an id, as (id, key, row); wait so many seconds for the first."""
        start = int(after)
        with self._news:
            self._news.wait_for(lambda: len(self._rows) > start, wait)
            return [(str(n + 1), *self._rows[n]) for n in range(start, min(start + most, len(self._rows)))]

    def answer(self, entries, scores):
        """Add the scores of rows that have none yet; return how many had one, which must be the same."""
        with self._news:
            repeated = 0
            for (id_, key, _), score in zip(entries, scores):
                if id_ in self._scores:
                    repeated += 1
                    if self._scores[id_] != (key, score):
                        raise RuntimeError(f"row {id_} has another score than before")
                self._scores.setdefault(id_, (key, score))
            self._news.notify_all()
            return repeated

    def answers(self, after, wait):
        """Return all scores after an id, as (id, key, score); wait so many seconds for the first."""
        start = int(after)
        with self._news:
            self._news.wait_for(lambda: len(self._scores) > start, wait)
            return [(str(n + 1), *self._scores[str(n + 1)]) for n in range(start, len(self._scores))]


# %%
class RedisLog:
    """The same by two streams of a Redis server; scores have the ids of their rows, which Redis takes but once."""

    first = "0-0"

    def __init__(self, address, rows="rows", scores="scores"):
        import redis
        self._errors, self._client = redis.ResponseError, redis.Redis.from_url(address)
        self._rows, self._scores = rows, scores

    def append(self, keys, rows):
        with self._client.pipeline(transaction=False) as pipeline:
            for key, row in zip(keys, rows):
                pipeline.xadd(self._rows, {"key": key, "row": row.astype("<f4").tobytes()})
            return [id_.decode() for id_ in pipeline.execute()]

    def read(self, after, most, wait):
        found = self._client.xread({self._rows: after}, most, max(1, int(1000 * wait)))
        return [(id_.decode(), entry[b"key"].decode(), np.frombuffer(entry[b"row"], "<f4"))
                for _, entries in found for id_, entry in entries]

    def answer(self, entries, scores):
        with self._client.pipeline(transaction=False) as pipeline:
            for (id_, key, _), score in zip(entries, scores):
                pipeline.xadd(self._scores, {"key": key, "score": np.float32(score).astype("<f4").tobytes()}, id=id_)
            results = pipeline.execute(raise_on_error=False)
        for result in results:
            if isinstance(result, Exception) and not (isinstance(result, self._errors) and "smaller" in str(result)):
                raise result
        return sum(isinstance(result, self._errors) for result in results)      # not above the last id: there already

    def answers(self, after, wait):
        found = self._client.xread({self._scores: after}, None, max(1, int(1000 * wait)))
        return [(id_.decode(), entry[b"key"].decode(), np.frombuffer(entry[b"score"], "<f4")[0])
                for _, entries in found for id_, entry in entries]


# %%
class Service:
    """Scores what comes in a log, from where the last flush of its file was."""

    def __init__(self, model, log, path, capacity=4096, most=512, flush_every=0.5):
        self._log, self._most, self._flush_every = log, min(most, capacity), flush_every
        self._store = scale.SQLiteStore(path, commit="flush")
        self._pool = scale.StreamPool(model, capacity, store=self._store)
        self.position = self._store.note or log.first
        self.repeated = 0                   # rows that had been answered before a crash

    def run(self, stop):
        """Serve until stop() is true; then leave without a flush, as a crash would."""
        flushed = time.monotonic()
        while not stop():
            entries = self._log.read(self.position, self._most, 0.05)
            if entries:
                ids, keys, rows = zip(*entries)
                scores = self._pool.step(keys, np.stack(rows))[:, 0]
                self.repeated += self._log.answer(entries, scores)
                self.position = ids[-1]
            if time.monotonic() - flushed > self._flush_every:
                self._pool.flush(self.position)
                flushed = time.monotonic()

    def close(self):
        """Let go of the file; what was not flushed is forgotten."""
        self._store.close()


# %%
class Clients:
    """Clients that send rows at a steady rate, and note when their scores come."""

    def __init__(self, log, clients, rows, rate, seed=0):
        self._log, self._rate, self.total = log, rate, clients * rows
        rng = np.random.default_rng(seed)
        order = rng.permutation(np.repeat(np.arange(clients), rows))
        self.keys = [f"client {n}" for n in order]
        self.rows = rng.standard_normal((self.total, FEATURES)).astype(np.float32)
        self.sent, self.ids, self.scores, self.came = {}, [], [], []

    def send(self):
        """Send all rows, some hundred times a second."""
        start, done = time.monotonic(), 0
        while done < self.total:
            due = min(self.total, int(self._rate * (time.monotonic() - start)))
            if due > done:
                now = time.monotonic()
                for id_ in self._log.append(self.keys[done:due], self.rows[done:due]):
                    self.ids.append(id_)
                    self.sent[id_] = now
                done = due
            time.sleep(0.005)

    def receive(self, seconds=120):
        """Wait for all scores."""
        after, end = self._log.first, time.monotonic() + seconds
        while len(self.scores) < self.total:
            answers = self._log.answers(after, 0.5)
            self.came += [time.monotonic()] * len(answers)
            self.scores += answers
            after = answers[-1][0] if answers else after
            if time.monotonic() > end:
                raise TimeoutError(f"{len(self.scores)} scores of {self.total} rows came")

    def check(self, model):
        """Raise unless each row has one score, in order, to the bit that of a solo stream."""
        if [id_ for id_, _, _ in self.scores] != self.ids:
            raise RuntimeError("rows were lost, repeated or answered out of order")
        streams = {key: model.stream() for key in set(self.keys)}
        for (id_, key, score), own, row in zip(self.scores, self.keys, self.rows):
            if key != own:
                raise RuntimeError(f"row {id_}: the score is of another client")
            if streams[key].step(row)[0] != score:
                raise RuntimeError(f"row {id_}: the score is not a solo stream's")

    def latencies(self):
        """The milliseconds from each row to its score."""
        return [1000 * (came - self.sent[id_]) for (id_, _, _), came in zip(self.scores, self.came)]


# %%
def demonstrate(log, path, clients=1000, rows=20, rate=4000, crashes=3, print=print):
    """Serve clients from a thread that crashes several times, and check every score."""
    model, crowd, repeated = default_model(), Clients(log, clients, rows, rate), 0
    threads = [threading.Thread(target=crowd.send, daemon=True), threading.Thread(target=crowd.receive, daemon=True)]
    for thread in threads:
        thread.start()
    for life in range(crashes + 1):
        service = Service(model, log, path, capacity=clients // 2)      # half of the streams are in the file
        end = time.monotonic() + clients * rows / rate / (crashes + 1)
        last = life == crashes
        service.run(lambda last=last, end=end: not threads[1].is_alive() if last else time.monotonic() > end)
        service.close()
        repeated += service.repeated
    crowd.check(model)
    median, late = np.percentile(crowd.latencies(), [50, 99])
    print(f"{crowd.total} rows of {clients} clients at {rate} a second, {crashes} crashes: each row has one score, "
          f"that of a solo stream; {repeated} rows were computed again")
    print(f"latency with the crashes: p50 {median:.1f} ms, p99 {late:.1f} ms")
    return median, late


def main(arguments=None):
    parser = argparse.ArgumentParser(description="A service that scores live streams.")
    parser.add_argument("--redis", metavar="ADDRESS", help="serve by streams of this server")
    parser.add_argument("--serve", action="store_true", help="only serve, until killed; clients are elsewhere")
    parser.add_argument("--states", metavar="PATH", help="the SQLite file of the states")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=20, help="of each client")
    parser.add_argument("--rate", type=int, default=4000, help="rows a second")
    options = parser.parse_args(arguments)
    if options.serve and not (options.redis and options.states):
        parser.error("--serve needs --redis and --states: clients are other processes")
    log = RedisLog(options.redis) if options.redis else MemoryLog()
    if options.serve:
        Service(default_model(), log, options.states).run(lambda: False)
    with tempfile.TemporaryDirectory() as folder:
        path = options.states or os.path.join(folder, "states.sqlite")
        demonstrate(log, path, options.clients, options.rows, options.rate)


if __name__ == "__main__":
    main()
