"""Pools of streams: the bits of solo streams, in whatever order rows and keys come."""

import copy
import pickle
import struct
import threading
import zlib

import numpy as np
import pytest

import fastrnn
from fastrnn import scale
from fastrnn._core import RowSteps, Slots
from fastrnn.anomaly import RNNAnomalyDetector
from fastrnn.forecasting import RNNForecaster
from fastrnn.scale.keys import encoded

LAYERS = {
    "rnn": lambda: fastrnn.RNN(3, 5, rng=0),
    "relu": lambda: fastrnn.RNN(3, 20, nonlinearity="relu", rng=0),
    "gru": lambda: fastrnn.GRU(3, 7, rng=0),
    "gru of the paper": lambda: fastrnn.GRU(3, 24, reset_after=False, rng=0),
    "lstm": lambda: fastrnn.LSTM(3, 32, rng=0),
    "lstm of two layers": lambda: fastrnn.LSTM(3, 33, 2, rng=0),
    "projection": lambda: fastrnn.LSTM(3, 24, 2, proj_size=5, rng=0),
    "peephole, clip": lambda: fastrnn.LSTM(3, 9, peephole=True, clip=0.5, coupled_gates=True, rng=0),
    "float64": lambda: fastrnn.GRU(3, 17, 3, dtype=np.float64, rng=0),
    "batch first": lambda: fastrnn.GRU(3, 8, batch_first=True, rng=0),
    "no bias": lambda: fastrnn.LSTM(3, 128, bias=False, rng=0),
    "int8": lambda: fastrnn.LSTM(3, 40, 2, rng=0).quantized("int8"),
    "bfloat16": lambda: fastrnn.GRU(3, 20, 2, rng=0).quantized("bfloat16"),
    "float16": lambda: fastrnn.LSTM(3, 20, rng=0).quantized("float16"),
    "int8 gru": lambda: fastrnn.GRU(3, 70, rng=0).quantized("int8"),
}
CHAINS = {
    "chain": lambda: fastrnn.Sequential(fastrnn.LSTM(3, 16, rng=0), fastrnn.Linear(16, 2, rng=1)),
    "linear first": lambda: fastrnn.Sequential(fastrnn.Linear(3, 6, rng=0), fastrnn.GRU(6, 8, rng=1),
                                               fastrnn.RNN(8, 4, rng=2)),
    "chain in a chain": lambda: fastrnn.Sequential(
        fastrnn.GRU(3, 8, rng=0), fastrnn.Sequential(fastrnn.Linear(8, 5, rng=1), fastrnn.LSTM(5, 9, 2, rng=2)),
        fastrnn.Linear(9, 1, rng=3)),
    "int8 chain": lambda: CHAINS["chain"]().quantized("int8"),
}


class Solo(dict):
    """What a pool has to equal: a dict of solo streams."""

    def __init__(self, begin):
        self.begin = begin

    def __missing__(self, key):
        self[key] = self.begin()
        return self[key]

    def step(self, keys, x):
        return np.stack([self[key].step(row) for key, row in zip(keys, x)])


def traffic(rng, calls, keys, most, width=3, dtype=np.float32):
    """Calls with random keys, some of them twice, and their rows."""
    for _ in range(calls):
        count = int(rng.integers(0, most + 1))
        yield [f"key {k}" for k in rng.integers(0, keys, count)], rng.standard_normal((count, width)).astype(dtype)


@pytest.mark.parametrize("name", [*LAYERS, *CHAINS])
@pytest.mark.parametrize("threads", [1, 3])
def test_random_traffic_has_the_bits_of_solo_streams(name, threads):
    model = {**LAYERS, **CHAINS}[name]()
    store = {}
    pool, solo = scale.StreamPool(model, capacity=30, store=store), Solo(model.stream)
    with fastrnn.threads(threads):
        for keys, x in traffic(np.random.default_rng(1), 40, 60, 30, dtype=model.dtype):
            result = pool.step(keys, x)
            assert len(result) == len(keys) and result.dtype == model.dtype
            if keys:
                np.testing.assert_array_equal(result, solo.step(keys, x))
    assert pool.evictions > 50 and pool.reloads > 30 and len(pool) == 30 and len(store) > 30


@pytest.mark.parametrize("kind", [fastrnn.GRU, fastrnn.LSTM])
def test_threads_share_the_rows_of_much_work(kind):
    layer = kind(16, 64, rng=0)
    x = np.random.default_rng(0).standard_normal((1000, 16)).astype(np.float32)
    results = []
    for threads in (1, 2, 5):
        pool = scale.StreamPool(layer, 1000)
        with fastrnn.threads(threads):
            pool.step(range(1000), x)
            results.append(pool.step(np.arange(1000)[::-1], x))
    stream = layer.stream(1000)
    stream.step(x)
    expected = stream.step(x[::-1])[::-1]
    for result in results:
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("isa", fastrnn.available_isas())
@pytest.mark.parametrize("block", [1, 7, 16, 0])
def test_blocks_of_rows_change_no_bits(isa, block, monkeypatch):
    monkeypatch.setenv("FASTRNN_ISA", isa)
    layer = fastrnn.LSTM(5, 20, 2, rng=0)
    rng = np.random.default_rng(0)
    x, states = rng.standard_normal((50, 5)).astype(np.float32), rng.standard_normal((60, 2, 80)).astype(np.float32)
    steps = RowSteps(layer._packed_for_steps(2), block)
    side, rows = rng.integers(0, 2, 60).astype(np.uint8), rng.permutation(60)[:50]
    before, out = states[rows, side[rows]].copy(), np.empty((50, 20), np.float32)
    steps.step(x, out, states, 0, side, rows, 1)
    h, c = (part.reshape(50, 2, 20).swapaxes(0, 1) for part in (before[:, :40], before[:, 40:]))
    output, (h_n, c_n) = layer(x[None], (h, c))
    np.testing.assert_array_equal(out, output[0])
    np.testing.assert_array_equal(states[rows, side[rows]], before)         # until the side is turned
    after = states[rows, 1 - side[rows]]
    np.testing.assert_array_equal(after[:, :40].reshape(50, 2, 20).swapaxes(0, 1), h_n)
    np.testing.assert_array_equal(after[:, 40:].reshape(50, 2, 20).swapaxes(0, 1), c_n)


def test_rows_of_states_are_checked():
    steps = RowSteps(fastrnn.GRU(3, 4, rng=0)._packed_for_steps(2))
    x, out, states = np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32), np.zeros((5, 2, 4), np.float32)
    for rows in ([0, 5], [-1, 0]):
        with pytest.raises(ValueError, match="below 5"):
            steps.step(x, out, states, 0, np.zeros(5, np.uint8), np.array(rows), 1)
    for offset, count in ((1, 2), (-1, 2), (0, 3)):
        with pytest.raises(ValueError, match="do not fit"):
            steps.step(x, out, states, offset, np.zeros(5, np.uint8), np.arange(count), 1)


def test_whole_numbers_go_to_an_embedding():
    model = fastrnn.Sequential(fastrnn.Embedding(9, 4, rng=0), fastrnn.GRU(4, 6, rng=1))
    pool, solo = scale.StreamPool(model, 4), Solo(model.stream)
    for keys, x in ((["a", "b"], [3, 8]), (["b", "b", "c"], [1, 1, 0])):
        np.testing.assert_array_equal(pool.step(keys, x), solo.step(keys, x))
    with pytest.raises(ValueError, match=r"x: expected shape \(1,\)"):
        pool.step(["a"], [[1]])


def test_keys_that_are_equal_are_one_stream():
    layer = fastrnn.GRU(3, 4, rng=0)
    pool, solo = scale.StreamPool(layer, 10), Solo(layer.stream)
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    np.testing.assert_array_equal(pool.step([1, True, 1.0, np.int64(1)], x), solo.step([1] * 4, x))
    np.testing.assert_array_equal(pool.step(np.array([1, 2]), x[:2]), solo.step([1, 2], x[:2]))
    assert len(pool) == 2 and 1.0 in pool and "1" not in pool and pool.keys() == [1, 2]


def test_the_least_recently_used_leave():
    pool = scale.StreamPool(fastrnn.RNN(1, 2, rng=0), 3)

    def step(*keys):
        pool.step(keys, np.ones((len(keys), 1), np.float32))
        return pool.keys()

    assert step("a", "b", "c") == ["a", "b", "c"]
    assert step("b", "a") == ["c", "b", "a"]
    assert step("d") == ["b", "a", "d"]
    assert step("e", "b", "e") == ["d", "b", "e"]               # b is of this call and stays
    assert step("a", "d", "a") == ["e", "d", "a"]               # and the order is that of the call
    assert pool.drop("d") and step("f") == ["e", "a", "f"]
    assert (pool.hits, pool.misses, pool.evictions, pool.reloads) == (6, 7, 3, 0)


def test_slots_agree_with_a_plain_model_of_them():
    rng, slots, order = np.random.default_rng(0), Slots(8), []
    for _ in range(500):
        keys = rng.integers(0, 12, rng.integers(0, 6)).tolist()
        out = np.empty(len(keys), np.intp)
        missing, repeated = slots.look_up(keys, out)
        held = [key for key in keys if key in order]
        assert missing == len(keys) - len(held) and repeated == len(held) - len(set(held))
        assert out.tolist() == [-1 if key not in order else slots.get(key) for key in keys]
        for key in held:
            order.remove(key)
            order.append(key)
        new = [key for key in dict.fromkeys(keys) if key not in order][:8 - len(order)]
        assert slots.free == 8 - len(order)
        places = slots.next_free(len(new))
        slots.add(new)
        assert [slots.get(key) for key in new] == places
        order += new
        if rng.random() < 0.3:
            count = int(rng.integers(0, 4))
            leaving = slots.oldest(count)
            assert slots.keys_of(leaving) == order[:count]
            slots.remove(leaving)
            order = order[count:]
        assert slots.keys() == order and len(slots) == len(order)
        assert all(key in slots for key in order)


def test_out_is_written_in_place_and_may_be_any_view():
    layer = fastrnn.GRU(3, 4, rng=0)
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    expected = scale.StreamPool(layer, 9).step(range(5), x)
    wide = np.zeros((5, 8), np.float32)
    out = wide[:, ::2]
    assert scale.StreamPool(layer, 9).step(range(5), x, out) is out
    np.testing.assert_array_equal(out, expected)
    assert not wide[:, 1::2].any()
    square = fastrnn.GRU(4, 4, rng=0)
    x = np.random.default_rng(0).standard_normal((600, 4)).astype(np.float32)
    expected = scale.StreamPool(square, 600).step(range(600), x)
    scale.StreamPool(square, 600).step(range(600), x, x)                    # out may be x
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("keys, x, error, words", [
    ("abc", np.ones((3, 3)), TypeError, "keys: expected a list of keys, got str"),
    (7, np.ones((1, 3)), TypeError, "keys: expected a list"),
    (np.ones((2, 2)), np.ones((2, 3)), ValueError, "keys: expected one dimension"),
    ([[]], np.ones((1, 3), np.float32), TypeError, "unhashable"),
    (["a"], np.ones(3, np.float32), ValueError, "x: expected shape"),
    (["a"], np.ones((2, 3), np.float32), ValueError, "x: expected shape"),
    (["a"], None, TypeError, "x: expected an array"),
    (["a"], np.ones((1, 3)), ValueError, "x: .*float64"),
    (range(5), np.ones((5, 3), np.float32), ValueError, "keys: 5 different keys in one call, the pool holds 4"),
])
def test_unsuitable_arguments_change_nothing(keys, x, error, words):
    pool = scale.StreamPool(fastrnn.GRU(3, 4, rng=0), 4)
    first = pool.step(["a", "b"], np.ones((2, 3), np.float32))
    before = pool.snapshot()
    with pytest.raises(error, match=words):
        pool.step(keys, x)
    assert pool.snapshot() == before and first.any()
    assert pool.step([], np.ones((0, 3), np.float32)).shape == (0, 4)


def test_unsuitable_outputs_and_columns():
    pool = scale.StreamPool(fastrnn.GRU(3, 4, rng=0), 4)
    x = np.ones((1, 3), np.float32)
    for out in (np.ones((1, 5), np.float32), np.ones((1, 4))):
        with pytest.raises(ValueError, match="out"):
            pool.step(["a"], x, out)
    with pytest.raises(TypeError, match="times: a layer"):
        pool.step(["a"], x, times=[0])
    assert len(pool) == 0


def test_unsuitable_pools():
    layer = fastrnn.GRU(3, 4, rng=0)
    for arguments, error, words in (((layer, 0), ValueError, "capacity"), ((layer, 2.5), TypeError, "capacity"),
                                    ((layer, 5, "fifo"), ValueError, "evict"),
                                    ((layer, 5, "lru", 3), TypeError, "store: expected a mapping"),
                                    ((fastrnn.GRU(3, 4, bidirectional=True), 5), ValueError, "bidirectional"),
                                    ((fastrnn.Linear(3, 4), 5), TypeError, "model: expected"),
                                    ((layer, 2**60), (ValueError, MemoryError), "a")):
        with pytest.raises(error, match=words):
            scale.StreamPool(*arguments)


def test_a_full_pool_that_evicts_nothing_refuses_further_keys():
    pool = scale.StreamPool(fastrnn.GRU(3, 4, rng=0), 2, evict=None)
    pool.step(["a", "b"], np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"the pool is full \(2 streams.*key 'c'"):
        pool.step(["a", "c"], np.ones((2, 3), np.float32))
    assert sorted(pool.keys()) == ["a", "b"]
    pool.drop("a")
    pool.step(["c"], np.ones((1, 3), np.float32))


def test_a_pool_keeps_the_weights_it_was_made_with():
    for model in (LAYERS["lstm"](), CHAINS["chain"]()):
        pool, stream, x = scale.StreamPool(model, 2), model.stream(), np.ones((1, 3), np.float32)
        with model.updating() as values:
            for value in values.values():
                value += 1
        np.testing.assert_array_equal(pool.step(["a"], x)[0], stream.step(x[0]))


# ---- Snapshots and copies -------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["lstm of two layers", "projection", "float64", "int8", "chain", "chain in a chain"])
def test_snapshots_of_one_stream_and_of_all(name):
    model = {**LAYERS, **CHAINS}[name]()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 3)).astype(model.dtype)
    pool, keys = scale.StreamPool(model, 5), ["a", ("b", 2), b"c"]
    pool.step(keys, x)
    whole, one = pool.snapshot(), pool.snapshot(("b", 2))
    expected = pool.step(keys, x)
    other = scale.StreamPool(model, 3)
    other.step(["z"], x[:1])
    other.restore(whole)
    assert other.keys() == keys
    np.testing.assert_array_equal(other.step(keys, x), expected)
    other.restore(one, "n")                                                  # "a" makes room
    assert other.keys() == [("b", 2), b"c", "n"]
    np.testing.assert_array_equal(other.step(["n"], x[1:2])[0], expected[1])
    other.restore(one, b"c")                                                 # in place of the stream that is there
    np.testing.assert_array_equal(other.step([b"c"], x[1:2])[0], expected[1])
    if hasattr(model, "restore"):
        np.testing.assert_array_equal(model.restore(one).step(x[1]), expected[1])
        other.restore(model.restore(one).snapshot(), "s")
        np.testing.assert_array_equal(other.step(["s"], x[1:2])[0], expected[1])


def test_snapshots_that_do_not_fit_change_nothing():
    layer, x = fastrnn.GRU(3, 4, rng=0), np.ones((2, 3), np.float32)
    pool = scale.StreamPool(layer, 2)
    pool.step(["a", "b"], x)
    whole, one = pool.snapshot(), pool.snapshot("a")
    larger = scale.StreamPool(layer, 3)
    larger.step(["a", "b", "c"], np.ones((3, 3), np.float32))
    others = [scale.StreamPool(fastrnn.GRU(3, 4, rng=1), 2), scale.StreamPool(fastrnn.LSTM(3, 4, rng=0), 2),
              scale.StreamPool(fastrnn.Sequential(layer), 2)]
    for other in others:
        other.step(["a", "b"], x)
    two_rows = layer.stream(2).snapshot()
    for snapshot, key, words in [(larger.snapshot(), (), "3 streams, the pool holds 2"), (one, (), "not one of a pool"),
                                 (whole, ("a",), "no snapshot of a stream"), (two_rows, ("a",), "of another model"),
                                 (b"", (), "cut short"), (b"", ("a",), "no snapshot"),
                                 *[(other.snapshot(), (), "snapshot: ") for other in others],
                                 *[(other.snapshot("a"), ("a",), "another model|no snapshot") for other in others]]:
        with pytest.raises(ValueError, match=words):
            pool.restore(snapshot, *key)
    rng = np.random.default_rng(0)
    for data, key in ((whole, ()), (one, ("a",))):
        for _ in range(60):
            broken = bytearray(data)
            broken[rng.integers(len(data))] ^= 1 << rng.integers(8)
            cut = data[:rng.integers(len(data))]
            for each in (bytes(broken), cut):
                with pytest.raises(ValueError, match="snapshot: "):
                    pool.restore(each, *key)
    with pytest.raises(TypeError, match="expected bytes"):
        pool.restore("text")
    with pytest.raises(KeyError):
        pool.snapshot("nobody")
    assert pool.snapshot() == whole


def test_a_snapshot_with_one_key_twice_is_refused():
    pool = scale.StreamPool(fastrnn.GRU(3, 4, rng=0), 2)
    pool.step(["a", "b"], np.ones((2, 3), np.float32))
    whole = pool.snapshot()
    first, second = map(encoded, "ab")
    assert whole.count(second) == 1 and len(first) == len(second)
    forged = whole.replace(second, first)[:-4]
    with pytest.raises(ValueError, match="snapshot: its lengths do not fit"):
        pool.restore(forged + struct.pack("<I", zlib.crc32(forged)))
    assert pool.snapshot() == whole and pool.keys() == ["a", "b"]


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda pool: pickle.loads(pickle.dumps(pool))],
                         ids=["deepcopy", "copy", "pickle"])
def test_copies_are_pools_of_their_own(copied):
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    pool = scale.StreamPool(fastrnn.LSTM(3, 4, rng=0), 5)
    pool.step(["a", frozenset("b")], x)
    twin = copied(pool)
    assert twin.keys() == pool.keys()
    np.testing.assert_array_equal(twin.step(["a"], x[:1]), pool.step(["a"], x[:1]))
    twin.step(["c"], x[:1])
    assert "c" not in pool
    with pytest.raises(TypeError, match="a pool with a store has no copy"):
        copied(scale.StreamPool(fastrnn.LSTM(3, 4, rng=0), 5, store={}))


# ---- Several threads, and interrupts --------------------------------------------------------------

def test_a_second_thread_is_refused():
    errors, inside, leave = [], threading.Event(), threading.Event()

    class Slow(dict):
        def get(self, key, default=None):
            inside.set()
            leave.wait(10)
            return None

    pool = scale.StreamPool(fastrnn.GRU(3, 4, rng=0), 2, store=Slow())
    thread = threading.Thread(target=pool.step, args=(["a"], np.ones((1, 3), np.float32)))
    thread.start()
    inside.wait(10)
    for call in (lambda: pool.step(["b"], np.ones((1, 3), np.float32)), pool.keys, pool.snapshot, pool.flush,
                 lambda: pool.drop("a"), lambda: pool.restore(b"")):
        try:
            call()
        except RuntimeError as error:
            errors.append(str(error))
    leave.set()
    thread.join()
    assert len(errors) == 6 and all("another thread" in error for error in errors)
    assert pool.keys() == ["a"]


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_a_step_that_is_interrupted_changes_no_state(turns, monkeypatch):
    model = CHAINS["chain in a chain"]()
    pool = scale.StreamPool(model, 5)
    rng = np.random.default_rng(0)
    keys = ["a", "b", "a", "c", "a"]
    pool.step(keys, rng.standard_normal((5, 3)).astype(np.float32))
    before, calls, step = pool.snapshot(), [], type(pool._members).step

    def interrupted(self, slots, inputs, places, out):
        if len(calls) == turns:
            self._parts = [*self._parts[:-1], lambda x, threads: (_ for _ in ()).throw(KeyboardInterrupt())]
        calls.append(1)
        step(self, slots, inputs, places, out)

    parts = pool._members._parts
    monkeypatch.setattr(type(pool._members), "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.step(keys, rng.standard_normal((5, 3)).astype(np.float32))
    assert len(calls) == turns + 1
    pool._members._parts = parts
    after = scale.StreamPool(model, 5)
    after.restore(pool.snapshot())
    old = scale.StreamPool(model, 5)
    old.restore(before)
    monkeypatch.undo()
    for key in "abc":
        assert after.snapshot(key) == old.snapshot(key)


# ---- Forecasters and detectors ----------------------------------------------------------------------

@pytest.fixture(scope="module")
def forecaster():
    return RNNForecaster(horizon=3, updates=20, random_state=0).fit(np.sin(np.arange(120) / 4))


def test_streams_of_a_forecaster(forecaster):
    store, solo, rng = {}, Solo(forecaster.stream), np.random.default_rng(0)
    pool = scale.StreamPool(forecaster, 3, store=store)
    for _ in range(25):
        keys = rng.integers(0, 6, rng.integers(1, 4)).tolist()
        x = rng.standard_normal(len(keys))
        x[rng.random(len(x)) < 0.2] = np.nan
        np.testing.assert_array_equal(pool.step(keys, x), solo.step(keys, x))
    assert pool.evictions > 5 and pool.reloads > 3
    with pytest.raises(ValueError, match="x: expected finite"):
        pool.step([1], [np.inf])
    with pytest.raises(ValueError, match=r"x: expected shape \(2,\)"):
        pool.step([1, 2], [1.0])
    with pytest.raises(TypeError, match="times"):
        pool.step([1], [1.0], times=[0])
    twin = copy.deepcopy(scale.StreamPool(forecaster.stream(), 3))
    np.testing.assert_array_equal(twin.step(["x"], [0.5])[0], forecaster.stream().step(0.5))


def test_streams_of_several_series_begin_at_their_ends():
    y = np.sin(np.arange(120)[:, None] / [4, 7])
    model = RNNForecaster(horizon=2, updates=20, random_state=0).fit([y[:, 0], y[:, 1]])
    pool = scale.StreamPool(model, 1, store={})
    streams = [model.stream(0), model.stream(1)]
    for key, value in ((0, 0.1), (1, 0.2), (0, 0.3), (1, 0.4)):
        np.testing.assert_array_equal(pool.step([key], [value])[0], streams[key].step(value))
    assert pool.reloads == 2
    with pytest.raises(KeyError, match="no series 'other'"):
        pool.step(["other"], [1.0])


@pytest.mark.parametrize("fitted", [True, False])
def test_streams_of_a_detector(fitted):
    rng = np.random.default_rng(0)
    detector = RNNAnomalyDetector(hidden_size=4, lags=2, random_state=0)
    if fitted:
        detector.fit(rng.standard_normal((80, 2)))
    store, solo = {}, Solo(lambda: copy.deepcopy(detector))
    pool = scale.StreamPool(detector, 2, store=store)
    for _ in range(30):
        keys = rng.integers(0, 4, rng.integers(1, 3)).tolist()
        x = rng.standard_normal((len(keys), 2)) * rng.choice([1, 30], (len(keys), 1), p=[0.9, 0.1])
        for key, row, score in zip(keys, x, pool.step(keys, x)):
            assert score == solo[key].score_one(row)
            solo[key].learn_one(row)
    assert pool.evictions > 5 and pool.reloads > 3
    again = scale.StreamPool(detector, 2, store=store)          # another process's
    again.step([9], [[0.0, 0.0]])
    evicted = next(key for key in store if key not in pool and key != 9)
    row = rng.standard_normal(2)
    assert again.step([evicted], row[None])[0] == solo[evicted].score_one(row)
    with pytest.raises(ValueError, match="expected 2 channels, got 3"):
        pool.step([1], [[1.0, 2.0, 3.0]])


def test_detectors_with_times_and_without_a_seed():
    detector = RNNAnomalyDetector(hidden_size=4, random_state=0)
    pool, solo = scale.StreamPool(detector, 2), copy.deepcopy(detector)
    times = np.datetime64("2024-01-01T00:00") + np.arange(60) * np.timedelta64(1, "h")
    for n, time in enumerate(times):
        value = float(n % 24)
        assert pool.step(["a"], [value], times=[time])[0] == solo.score_one(value, time)
        solo.learn_one(value, time)
    with pytest.raises(ValueError, match="an int for random_state"):
        scale.StreamPool(RNNAnomalyDetector(), 2)


def test_rows_that_no_detector_takes_are_refused_by_name():
    pool = scale.StreamPool(RNNAnomalyDetector(hidden_size=4, random_state=0), 3)
    for keys, x, columns, error, words in (
            (["a"], [[1.0]], {"known": [[1.0]]}, TypeError, "known, past: a detector reads x alone"),
            (["a", "b"], [[1.0]], {}, ValueError, r"x: expected \[2, channels\].*shape \(1, 1\)"),
            (["a"], [[np.inf]], {}, ValueError, "x: expected finite numbers, or NaN"),
            (["a"], np.array([["1"]]), {}, TypeError, "x: expected numbers, got dtype <U1"),
            (["a", "b"], [1.0, 2.0], {"times": [0]}, ValueError, "times: expected 2, one for each key")):
        with pytest.raises(error, match=words):
            pool.step(keys, x, **columns)
        assert len(pool) == 0


def test_none_is_a_missing_value_to_a_detector():
    rows = [[[1.0, 2.0]], [[None, 2.5]], [[np.nan, 2.5]], [[0.5, 0.0]]]
    detector = RNNAnomalyDetector(hidden_size=4, random_state=0)
    pool, solo = scale.StreamPool(detector, 2), copy.deepcopy(detector)
    for (row,) in rows:
        score = pool.step(["a"], [row])[0]
        row = [np.nan if value is None else value for value in row]
        np.testing.assert_array_equal(score, solo.score_one(row))
        solo.learn_one(row)


def test_a_pool_says_how_full_it_is_and_what_it_has_no_store_for():
    pool = scale.StreamPool(fastrnn.GRU(3, 4, rng=0), 5)
    pool.step(["a", "b"], np.ones((2, 3), np.float32))
    assert repr(pool) == f"<StreamPool of 2 of 5 streams, {fastrnn.GRU(3, 4, rng=0)!r}>"
    with pytest.raises(ValueError, match="store: this pool has none; snapshot"):
        pool.flush()


@pytest.mark.parametrize("change, words", [
    (lambda data: data[:4] + b"\xff" + data[5:], "snapshot"),
    (lambda data: data[:len(data) // 2], "snapshot"),
])
def test_damaged_snapshots_are_refused(change, words):
    layer = fastrnn.GRU(3, 4, rng=0)
    pool, other = scale.StreamPool(layer, 5), scale.StreamPool(layer, 5)
    pool.step(["a", "b"], np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match=words):
        other.restore(change(pool.snapshot()))
    assert len(other) == 0
