"""Stores of evicted streams: what they keep, and that none is lost where one fails or a process is killed."""

import math
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys

import numpy as np
import pytest
import redis_server
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from fastrnn import scale
from fastrnn.scale.keys import decoded, encoded

LAYER = fastrnn.LSTM(3, 8, rng=0)
KINDS = ["mapping", "folder", "sqlite", "sqlite, flushed",
         pytest.param("redis", marks=pytest.mark.skipif(redis_server.MISSING is not None,
                                                        reason=str(redis_server.MISSING)))]


@pytest.fixture
def store(request, tmp_path):
    """A function that opens the store again."""
    kind, mapping = request.param, {}
    if kind == "redis":
        with redis_server.running(tmp_path) as address:
            yield lambda: address
        return
    yield {"mapping": lambda: mapping, "folder": lambda: tmp_path / "states", "sqlite": lambda: tmp_path / "s.sqlite",
           "sqlite, flushed": lambda: scale.SQLiteStore(tmp_path / "s.db", commit="flush")}[kind]


def rows(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32)


@pytest.mark.parametrize("store", KINDS, indirect=True)
def test_streams_leave_and_come_back_in_another_pool_too(store):
    rng, solo = np.random.default_rng(0), {}
    keys = ["a", "ä/..\\", b"a", 1, -7, 2.5, None, ("shop", 3), ("x" * 300,), "", (), "1"]
    pool = scale.StreamPool(LAYER, 4, store=store())
    for call in range(40):
        if call == 20:
            pool.flush()
            pool._store.close()
            pool = scale.StreamPool(LAYER, 4, store=store())
        chosen = [keys[k] for k in rng.integers(0, len(keys), 4)]
        x = rows(4, call)
        for key, row, output in zip(chosen, x, pool.step(chosen, x)):
            np.testing.assert_array_equal(output, solo.setdefault(key, LAYER.stream()).step(row))
    assert pool.reloads > 10
    away = next(key for key in keys if key not in pool)
    assert pool.snapshot(away) == solo[away].snapshot()
    pool.drop(away)
    with pytest.raises(KeyError):
        pool.snapshot(away)
    pool._store.close()


@pytest.mark.parametrize("store", KINDS, indirect=True)
def test_a_store_of_another_model_is_refused_by_key(store):
    pool = scale.StreamPool(LAYER, 1, store=store())
    pool.step(["a"], rows(1))
    pool.step(["b"], rows(1))
    pool.flush()
    pool._store.close()
    for other in (fastrnn.LSTM(3, 8, rng=1), fastrnn.GRU(3, 8, rng=0), fastrnn.Sequential(LAYER)):
        pool = scale.StreamPool(other, 1, store=store())
        with pytest.raises(ValueError, match=r"store: the state of key 'a' is unsuitable: (of another|no snapshot)"):
            pool.step(["a"], rows(1))
        assert len(pool) == 0
        pool._store.close()


class Failing(scale.MappingStore):
    """Fails where it is told to."""

    reads = writes = True

    def _get(self, keys):
        if not self.reads:
            raise OSError("cannot read")
        return super()._get(keys)

    def _put(self, keys, states):
        if not self.writes:
            raise OSError("no space left")
        super()._put(keys, states)


def test_a_store_that_fails_loses_nothing():
    kept = {}
    store, solo = Failing(kept), {key: LAYER.stream() for key in "abc"}
    pool = scale.StreamPool(LAYER, 2, store=store)
    x = rows(2)
    pool.step(["a", "b"], x)
    for key, row in zip("ab", x):
        solo[key].step(row)
    store.writes = False
    before = pool.snapshot()
    with pytest.raises(RuntimeError, match="store: writing the states of key 'a' failed: no space left; the streams"):
        pool.step(["c"], x[:1])
    with pytest.raises(RuntimeError, match="keys 'a', 'b'"):
        pool.step(["c", "d"], x)
    with pytest.raises(RuntimeError, match="'a', 'b'"):
        pool.flush()
    assert pool.snapshot() == before and kept == {} and "c" not in pool
    store.writes, store.reads = True, False
    with pytest.raises(RuntimeError, match="store: reading the states of key 'c' failed: cannot read"):
        pool.step(["c"], x[:1])
    assert pool.snapshot() == before
    store.reads = True
    for keys in (["c"], ["a"], ["b"], ["c"], ["a", "b"]):
        for key, row, output in zip(keys, x, pool.step(keys, x[:len(keys)])):
            np.testing.assert_array_equal(output, solo[key].step(row))


def test_what_a_flush_did_not_make_durable_is_written_again():
    """A store that takes everything and then fails to end its transaction has nothing of it."""
    class Forgetful(scale.MappingStore):
        fails = True

        def _flush(self, note):
            if self.fails:
                self._mapping.clear()
                raise OSError("no space left")

    kept = {}
    store = Forgetful(kept)
    pool = scale.StreamPool(LAYER, 2, store=store)
    pool.step(["a", "b"], rows(2))
    for _ in range(2):
        with pytest.raises(OSError, match="no space left"):
            pool.flush()
        assert not kept
    store.fails = False
    pool.flush()
    assert kept == {key: pool.snapshot(key) for key in "ab"}


def test_only_what_has_changed_is_written():
    class Counting(scale.MappingStore):
        written = 0

        def _put(self, keys, states):
            self.written += len(keys)
            super()._put(keys, states)

    store = Counting({})
    pool = scale.StreamPool(LAYER, 3, store=store)
    pool.step(["a", "b", "c"], rows(3))
    pool.flush()
    pool.flush()
    assert store.written == 3
    pool.step(["a"], rows(1))
    pool.step(["d"], rows(1))               # b leaves, which the store has
    assert store.written == 3 and "b" not in pool
    pool.flush()
    assert store.written == 5


def test_a_full_disk_of_sqlite_loses_nothing(tmp_path):
    store = scale.SQLiteStore(tmp_path / "s.sqlite")
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    pool, solo = scale.StreamPool(LAYER, 50, store=store), {}
    pool.step(range(50), rows(50))
    for key, row in zip(range(50), rows(50)):
        solo[key] = LAYER.stream()
        solo[key].step(row)
    store._connection.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(RuntimeError, match="database or disk is full"):
        pool.step(range(100, 150), rows(50))
    assert pool.keys() == list(range(50))
    store._connection.execute("PRAGMA max_page_count = 1000000")
    pool.step(range(100, 150), rows(50))
    for key, row, output in zip(range(50), rows(50, 1), pool.step(range(50), rows(50, 1))):
        np.testing.assert_array_equal(output, solo[key].step(row))


def test_sqlite_that_takes_back_unflushed_evictions_says_so(tmp_path):
    store = scale.SQLiteStore(tmp_path / "s.sqlite", commit="flush")
    pool = scale.StreamPool(LAYER, 2, store=store)
    pool.step(["a", "b"], rows(2))
    pool.flush("2 rows")
    pool.step(["c", "d"], rows(2))
    pool.step(["e", "f"], rows(2))                  # c and d leave, and no flush has ended that
    store._connection.execute("ROLLBACK")           # as SQLite itself does on some errors
    store._lost = True
    with pytest.raises(RuntimeError, match="go on from the last flush"):
        pool.step(["a"], rows(1))
    store.close()
    again = scale.SQLiteStore(tmp_path / "s.sqlite", commit="flush")
    assert again.note == "2 rows"
    assert scale.StreamPool(LAYER, 2, store=again).step(["a"], rows(1)).any()


def test_notes_are_of_the_same_moment_as_the_states(tmp_path):
    path = tmp_path / "s.sqlite"
    store = scale.SQLiteStore(path, commit="flush")
    assert store.note is None
    pool = scale.StreamPool(LAYER, 2, store=store)
    pool.step(["a", "b"], rows(2))
    pool.flush("first")
    flushed = pool.snapshot("a")
    pool.step(["a", "b"], rows(2))
    pool.step(["c", "d"], rows(2))                  # a and b leave, after the flush
    assert pool.snapshot("a") != flushed
    store.close()                                   # as a process that is killed
    store = scale.SQLiteStore(path, commit="flush")
    pool = scale.StreamPool(LAYER, 2, store=store)
    assert store.note == "first" and pool.snapshot("a") == flushed
    with pytest.raises(KeyError):
        pool.snapshot("c")
    for other in (scale.SQLiteStore(tmp_path / "other.db"), scale.MappingStore({})):
        with pytest.raises((TypeError, ValueError), match="note: "):
            scale.StreamPool(LAYER, 2, store=other).flush("note")
    with pytest.raises(ValueError, match="store: this pool has none"):
        scale.StreamPool(LAYER, 2).flush()


def test_keys_that_stores_cannot_name(tmp_path):
    with pytest.raises(TypeError, match="got frozenset"):
        scale.StreamPool(LAYER, 2, store=tmp_path / "s.sqlite").step([frozenset("a")], rows(1))
    pool = scale.StreamPool(LAYER, 2, store={})
    pool.step([frozenset("a")], rows(1))
    with pytest.raises(TypeError, match="got frozenset"):
        pool.snapshot()
    with pytest.raises(TypeError, match="NaN"):
        encoded(float("nan"))
    deep = ()
    for _ in range(20):
        deep = (deep,)
    with pytest.raises(TypeError, match="within each other"):
        encoded(deep)


KEYS = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
                    lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=8)


@given(KEYS, KEYS)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_keys_have_the_same_bytes_where_they_are_equal(one, other):
    assert (encoded(one) == encoded(other)) == (one == other)
    assert decoded(encoded(one)) == one and hash(decoded(encoded(one))) == hash(one)


@given(st.binary(max_size=30))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_bytes_of_no_key_are_refused(data):
    for each in (data, b"t" + data, b"i" + data):
        try:
            key = decoded(each)
        except ValueError:
            continue
        assert encoded(key) == each


def test_bytes_of_keys_that_are_none_are_refused():
    """NaN, which no stream could be found by, and tuples deep in one another."""
    within = encoded(0.5)
    nan = b"f" + struct.pack("<d", math.nan)
    for _ in range(2000):
        within = b"t" + struct.pack("<I", len(within)) + within
    for data in (nan, b"t" + struct.pack("<I", len(nan)) + nan, within):
        with pytest.raises(ValueError, match="key"):
            decoded(data)


def test_numbers_of_numpy_are_those_of_python():
    for one, other in ((np.int32(5), 5), (np.float32(0.5), 0.5), (np.bool_(True), 1), (np.str_("a"), "a")):
        assert encoded(one) == encoded(other)


CHILD = """
import sys
import numpy as np
import fastrnn
from fastrnn import scale

store = scale.SQLiteStore(sys.argv[1], commit="flush")
pool = scale.StreamPool(fastrnn.LSTM(3, 8, rng=0), 20, store=store)
row = int(store.note or 0)
print(row, flush=True)
while True:
    rng = np.random.default_rng(row)
    keys = rng.integers(0, 60, 10).tolist()
    pool.step(keys, rng.standard_normal((10, 3)).astype(np.float32))
    row += 1
    if row % 3 == 0:
        pool.flush(str(row))
"""


def test_kills_lose_and_repeat_no_row(tmp_path):
    """A process that is killed at any moment goes on from its last flush, in states and note alike."""
    path, rng, note = tmp_path / "states.sqlite", np.random.default_rng(0), 0
    for _ in range(8):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True,
                                 env={**os.environ, "OMP_NUM_THREADS": "1"})
        note = int(child.stdout.readline())
        try:
            child.wait(0.05 + 0.2 * rng.random())
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    store = scale.SQLiteStore(path, commit="flush")
    note, solo = int(store.note), {}
    assert note > 20
    for row in range(note):
        each = np.random.default_rng(row)
        keys = each.integers(0, 60, 10).tolist()
        for key, x in zip(keys, each.standard_normal((10, 3)).astype(np.float32)):
            solo.setdefault(key, LAYER.stream()).step(x)
    states = store.get_many(list(solo))
    assert [state == stream.snapshot() for state, stream in zip(states, solo.values())] == [True] * len(solo)


def test_a_folder_never_has_part_of_a_state(tmp_path):
    store = scale.FolderStore(tmp_path / "states")
    store.put_many(["a"], [b"old"])
    shutil.copytree(tmp_path / "states", tmp_path / "before")
    folder = next((tmp_path / "states").iterdir())
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):                          # root may write anyway
        folder.chmod(0o700)
        shutil.rmtree(folder)
        folder.write_bytes(b"in the way")
    with pytest.raises(OSError) as caught:
        store.put_many(["a"], [b"new"])
    assert "key 'a'" in "".join(caught.value.__notes__)


def test_stores_by_what_is_named(tmp_path):
    for name, kind in (("a.sqlite", scale.SQLiteStore), ("a.db", scale.SQLiteStore), ("a", scale.FolderStore)):
        pool = scale.StreamPool(LAYER, 2, store=tmp_path / name)
        assert type(pool._store) is kind
    (tmp_path / "b.db").write_bytes(b"no database" * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        scale.StreamPool(LAYER, 2, store=tmp_path / "b.db")
